"""The one error of pylrp's own: a layer that can't be explained.

Loaders raise it for operators they don't know, ``network.py`` for layers that have no rule where they stand.
"""

from __future__ import annotations

__all__ = ["UnsupportedLayer"]


class UnsupportedLayer(ValueError):
    """A model holds a layer that pylrp can't explain.

    Parameters
    ----------
    node : str
        The layer's name in the model.
    operator : str
        What it is there: an ONNX operator, a layer's class.
    reason : str
        Why it can't be explained, as the rest of a sentence that begins with the node.
    way_out : str
        What to do about it, the second half of the sentence.

    Attributes
    ----------
    node, operator : str
    """

    def __init__(self, node: str, operator: str, reason: str, way_out: str):
        super().__init__(f"node {node!r} ({operator}) {reason}: {way_out}")
        self.node = node
        self.operator = operator
        self._parts = (node, operator, reason, way_out)

    def __reduce__(self) -> tuple[type[UnsupportedLayer], tuple[str, str, str, str]]:
        """Return how to make it again: an exception crosses processes by its constructor's arguments."""
        return type(self), self._parts
