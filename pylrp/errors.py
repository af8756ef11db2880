"""The errors of pylrp's own: a layer that can't be explained, numbers that are not finite, columns that don't fit.

Loaders raise the first for operators they don't know, ``network.py`` for layers that have no rule where they stand;
``finite.py`` and ``_arrays.py`` raise the second, ``tables.py`` the third. All are ValueErrors.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["FeatureMismatch", "NotFinite", "UnsupportedLayer"]


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


class NotFinite(ValueError):
    """A number is NaN or infinite: in what was given, or in a result.

    Parameters
    ----------
    message : str
    layer : str, optional
    what : str

    Attributes
    ----------
    layer : str or None
        The first layer where it happens; None for what the caller has given.
    what : str
        ``"output"``, ``"relevance"`` or ``"ledger"`` of that layer, else the argument's name: ``"x"``, ``"target"``.
    """

    def __init__(self, message: str, layer: str | None = None, what: str = ""):
        super().__init__(message)
        self.layer = layer
        self.what = what

    def __reduce__(self) -> tuple[type[NotFinite], tuple[str, str | None, str]]:
        """Return how to make it again, in another process for example."""
        return type(self), (str(self), self.layer, self.what)


class FeatureMismatch(ValueError):
    """The columns of a table are not the features of the network.

    Parameters
    ----------
    what : str
        The argument: ``"x"``.
    missing, unknown, repeated : sequence of str

    Attributes
    ----------
    missing : tuple of str
        Features of the network that are no columns of the table.
    unknown : tuple of str
        Columns that are no features of the network.
    repeated : tuple of str
        Columns that are there more than once.
    """

    def __init__(
        self, what: str, missing: Sequence[str] = (), unknown: Sequence[str] = (), repeated: Sequence[str] = ()
    ):
        said = [
            f"{text} {_listed(names)}"
            for text, names in (("lacks", missing), ("has no use for", unknown), ("has more than once", repeated))
            if names
        ]
        way_out = "select and rename the columns, or pass them as an array in the network's order"
        super().__init__(f"{what}: the table {', '.join(said)}: {way_out}")
        self.missing, self.unknown, self.repeated = tuple(missing), tuple(unknown), tuple(repeated)
        self._what = what

    def __reduce__(self) -> tuple[type[FeatureMismatch], tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
        """Return how to make it again, in another process for example."""
        return type(self), (self._what, self.missing, self.unknown, self.repeated)


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
