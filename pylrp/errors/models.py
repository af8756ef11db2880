"""Files and models that do not do: broken, unknown, undecided, missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pylrp.present.text import shown

__all__ = [
    "BrokenFile",
    "BrokenNode",
    "MissingModel",
    "UndecidedGate",
    "UnknownOption",
    "UnsupportedLayer",
]


class BrokenFile(ValueError):
    """A file is not what it says: cut short, altered, made up, or asking for more than it may.

    Parameters
    ----------
    path : str, PathLike or None
        The file as it was given; None for a model that was read elsewhere.
    place : str
        Where in the file: "entry 'W1'", "node 'conv1'"; empty where it is the file as a whole.
    reason : str
        What is wrong, as the rest of a sentence that begins with the place or the file; and where there is one a way
        out.

    Attributes
    ----------
    path : str or None
    place, reason : str
    """

    def __init__(self, path: str | os.PathLike[str] | None, place: str, reason: str):
        self.path = None if path is None else os.fspath(path)
        self.place = place
        self.reason = reason
        where = self.path or "the model"
        super().__init__(shown(f"{where}: {place} {reason}" if place else f"{where} {reason}"))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again: an exception crosses processes by its constructor's arguments."""
        return type(self), (self.path, self.place, self.reason)


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
    way_out : str
        As it was given.
    """

    def __init__(self, node: str, operator: str, reason: str, way_out: str):
        ValueError.__init__(self, shown(f"node {node!r} ({operator}) {reason}: {way_out}"))
        self.node = node
        self.operator = operator
        self.way_out = way_out
        self._parts = (node, operator, reason, way_out)

    @property
    def sentence(self) -> str:
        """Return what is wrong without the way out, for who knows a better one."""
        node, operator, reason, _ = self._parts
        return shown(f"node {node!r} ({operator}) {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again: an exception crosses processes by its constructor's arguments."""
        return type(self), self._parts


class BrokenNode(UnsupportedLayer, BrokenFile):
    """A node of a model is not what the format's standard says, or has settings that no network has.

    It can't be explained, and the file, if there is one, is broken.
    """

    def __init__(self, node: str, operator: str, reason: str, way_out: str, path: str | os.PathLike[str] | None = None):
        UnsupportedLayer.__init__(self, node, operator, reason, way_out)
        self.path = None if path is None else os.fspath(path)
        self.place, self.reason = f"node {node!r} ({operator})", reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again."""
        return type(self), (*self._parts, self.path)


class UndecidedGate(UnsupportedLayer):
    """A product has two factors of which nothing tells which is the signal and which the gate.

    Parameters
    ----------
    node, operator : str
    factors : (str, str)
        The values that are multiplied.

    Attributes
    ----------
    node, operator : str
    factors : tuple of str
    """

    def __init__(self, node: str, operator: str, factors: tuple[str, str]):
        one, other = factors
        super().__init__(
            node,
            operator,
            f"multiplies {one!r} and {other!r}, and not just one of them comes from a sigmoid, hard sigmoid or "
            "softmax, so that nothing tells which is the signal and which the gate",
            f"say which is the signal, Composite(..., names={{{node!r}: pylrp.rules.Gate(signal={one!r})}}), or give a "
            f"half to each, Composite(..., names={{{node!r}: pylrp.rules.Half()}})",
        )
        self.factors = (one, other)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again in another process."""
        return type(self), (self.node, self.operator, self.factors)


class MissingModel(ValueError):
    """A network is to be compared with the ONNX model it was loaded from, and there is none."""

    def __init__(self) -> None:
        super().__init__(
            "the network was not loaded from an ONNX model, or is a copy that does not know it: pass the model, "
            "net.verify(x, 'model.onnx'); torch writes one by torch.onnx.export(module, (example_input,), "
            "'model.onnx'), Keras by model.export('model.onnx', format='onnx')"
        )

    def __reduce__(self) -> tuple[type[MissingModel], tuple[()]]:
        """Return how to make it again in another process."""
        return type(self), ()


class UnknownOption(TypeError):
    """``pylrp.load`` got an option that a model of this kind does not take.

    Parameters
    ----------
    source, option : str
    known : sequence of str

    Attributes
    ----------
    source : str
        The kind of model: "an ONNX file", "a torch module", ...
    option : str
        The argument's name.
    known : tuple of str
        The options there are.
    """

    def __init__(self, source: str, option: str, known: Sequence[str]):
        super().__init__(f"{source} takes no {option}=" + (f", only {', '.join(known)}" if known else ""))
        self.source, self.option, self.known = source, option, tuple(known)

    def __reduce__(self) -> tuple[type[UnknownOption], tuple[str, str, tuple[str, ...]]]:
        """Return how to make it again in another process."""
        return type(self), (self.source, self.option, self.known)
