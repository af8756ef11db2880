"""The errors of pylrp's own: layers, files, numbers and columns that don't do. All are ValueErrors.

Loaders raise UnsupportedLayer for operators they don't know, ``network.py`` for layers that have no rule where they
stand; loaders raise BrokenFile for files that are not what they say; ``finite.py`` and ``_arrays.py`` raise NotFinite,
``tables.py`` FeatureMismatch; ``assignment.py`` and ``network.py`` MisplacedBox, AbsorbedValue and UnsuitableRule, on
z-boxes, on values inside a layer, on rules that do not fit theirs; ``gates.py`` UndecidedGate, on products;
``conventions.py`` MissingRule, ``Network.verify`` MissingModel, ``sides.py`` NotInVocabulary. Only UnknownOption, of
``pylrp.load``, is a TypeError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pylrp.present.text import shown

__all__ = [
    "AbsorbedValue",
    "BrokenFile",
    "BrokenNode",
    "FeatureMismatch",
    "MisplacedBox",
    "MissingModel",
    "MissingRule",
    "NotFinite",
    "NotInVocabulary",
    "UndecidedGate",
    "UnknownOption",
    "UnsuitablePrecision",
    "UnsuitableRule",
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
    said = ", ".join(map(repr, names[:most]))
    return f"{said} and {len(names) - most} more" if len(names) > most else said


class UnsuitableRule(ValueError):
    """A rule that does not fit the layer that it is given to.

    Parameters
    ----------
    node : str
        The layer.
    rule : str
    reason : str
        Why not, as the rest of a sentence that begins with the rule.
    way_out : str
        Which rules to take.

    Attributes
    ----------
    node, rule, reason, way_out : str
    """

    def __init__(self, node: str, rule: str, reason: str, way_out: str):
        super().__init__(f"layer {node}: {rule} {reason}: {way_out}")
        self.node, self.rule, self.reason, self.way_out = node, rule, reason, way_out

    def __reduce__(self) -> tuple[type[UnsuitableRule], tuple[str, str, str, str]]:
        """Return how to make it again, in another process for example."""
        return type(self), (self.node, self.rule, self.reason, self.way_out)


class UnsuitablePrecision(ValueError):
    """A precision that there is none of, or that does not go with the dtype of the arrays.

    Parameters
    ----------
    precision : object
        What was asked for.
    dtype : str
        In which everything is computed.
    reason : str

    Attributes
    ----------
    precision : object
    dtype, reason : str
    """

    def __init__(self, precision: object, dtype: str, reason: str):
        super().__init__(f"precision={precision!r}: {reason}")
        self.precision, self.dtype, self.reason = precision, dtype, reason

    def __reduce__(self) -> tuple[type[UnsuitablePrecision], tuple[object, str, str]]:
        """Return how to make it again, in another process for example."""
        return type(self), (self.precision, self.dtype, self.reason)


class MisplacedBox(ValueError):
    """A z-box has no layer, or one that its bounds do not belong to.

    Parameters
    ----------
    node : str or None
        The layer; None where there is none.
    rule : str
    reason, way_out : str

    Attributes
    ----------
    node, rule : str
    """

    def __init__(self, node: str | None, rule: str, reason: str, way_out: str):
        super().__init__(f"{reason}: {way_out}")
        self.node = node
        self.rule = rule
        self._parts = (node, rule, reason, way_out)

    def __reduce__(self) -> tuple[type[MisplacedBox], tuple[str | None, str, str, str]]:
        """Return how to make it again in another process."""
        return type(self), self._parts


class AbsorbedValue(KeyError, ValueError):
    """A value has no relevance of its own: it is inside a layer under that layer's rule.

    Parameters
    ----------
    value, layer, rule : str

    Attributes
    ----------
    value, layer, rule : str
    """

    def __init__(self, value: str, layer: str, rule: str):
        super().__init__(
            f"{value!r} has no relevance of its own: under {rule} it is part of layer {layer!r}, whose relevance goes "
            f"straight to the input. Ask for another value, or give the layer a rule that looks at its input, "
            f"Composite(..., names={{{layer!r}: pylrp.ZPlus()}})"
        )
        self.value, self.layer, self.rule = value, layer, rule

    def __str__(self) -> str:  # a KeyError shows its text in quotes
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[AbsorbedValue], tuple[str, str, str]]:
        """Return how to make it again in another process."""
        return type(self), (self.value, self.layer, self.rule)


class MissingRule(ValueError):
    """A library lacks a rule, so that its convention can't be followed.

    Parameters
    ----------
    convention : str
        The library: "captum", "innvestigate", ...
    rule : str
    kind : str
        The rule's class.
    has : str
        The rules that the library has.

    Attributes
    ----------
    convention, rule, kind, has : str
    """

    def __init__(self, convention: str, rule: str, kind: str, has: str):
        super().__init__(f"{convention} has no {kind} rule ({rule}); it has {has}")
        self.convention, self.rule, self.kind, self.has = convention, rule, kind, has

    def __reduce__(self) -> tuple[type[MissingRule], tuple[str, str, str, str]]:
        """Return how to make it again in another process."""
        return type(self), (self.convention, self.rule, self.kind, self.has)


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


class NotInVocabulary(ValueError):
    """A token id has no row in the network's table.

    Parameters
    ----------
    input : str
        The input that holds it.
    token : int
    size : int
        How many rows the table has.
    at : tuple of int
        Where in the input, the batch first.

    Attributes
    ----------
    input : str
    token, size : int
    at : tuple of int
    """

    def __init__(self, input: str, token: int, size: int, at: tuple[int, ...]):
        self.input, self.token, self.size, self.at = input, token, size, at
        place = ", ".join(map(str, at))
        super().__init__(
            shown(f"{input}[{place}] is {token}, the table has rows 0 to {size - 1}: use the network's own tokenizer")
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again: an exception crosses processes by its constructor's arguments."""
        return type(self), (self.input, self.token, self.size, self.at)
