"""What a function that translates an ONNX operator works with: the node's inputs and settings, and where layers go.

``onnx/reader.py`` makes one :class:`Call` for each node, the functions of ``onnx/operators.py`` and its kin read it and
emit layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from pylrp._limits import TooLarge, require
from pylrp.errors import BrokenFile, BrokenNode, UnsupportedLayer
from pylrp.layers import Layer, Shape
from pylrp.layers.base import product
from pylrp.loaders.onnx.constants import BATCHES, Constants, attributes_of
from pylrp.loaders.onnx.sides import SideValues
from pylrp.loaders.onnx.views import PLAIN, Size, Times, View
from pylrp.network.graph import Node

__all__ = ["Call", "MixedBatch", "Translation", "Value", "operator_of", "type_name"]

Array = NDArray[Any]


class MixedBatch(UnsupportedLayer):
    """Samples of a batch would meet."""


@dataclass(frozen=True)
class Value:
    """An activation: the graph's name for it, its logical shape (without the batch), and where the batch stands."""

    name: str
    shape: Shape
    view: View = PLAIN

    @property
    def rank(self) -> int:
        """Return the number of its axes in the file, the batch's among them."""
        return self.view.rank(self.shape)


@dataclass
class Translation:
    """What is known while a model is read."""

    path: Path | None
    constants: Constants
    opset: int
    batch: int | None  # the batch size that the model declares
    producers: dict[str, NodeProto]
    values: dict[str, Value] = field(default_factory=dict)
    #: Values that are parts of a pattern which may still come; else the error is raised.
    pending: dict[str, UnsupportedLayer] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    size: int = 0  # bytes of one sample's values
    #: Values above which nothing lies but what a function at the top may have above it.
    top: set[str] = field(default_factory=set)
    #: Makes layers of a pending value's nodes after all.
    resolve: Callable[[str], Value] | None = None
    #: Values that have been recognised as normalisations of others.
    normalised: set[str] = field(default_factory=set)
    #: The calls of pending values.
    calls: dict[str, Call] = field(default_factory=dict)
    #: What is computed of token ids and masks.
    sides: SideValues = field(default_factory=SideValues)
    #: Whether there are recurrent layers.
    recurrent: bool = False
    #: Values that somebody takes.
    needed: set[str] = field(default_factory=set)
    #: Quantised values: their scale and zero point.
    quantised: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    #: What loading changed.
    notes: list[str] = field(default_factory=list)
    #: Values that layers of the user's own make.
    by_hand: set[str] = field(default_factory=set)

    def knows(self, name: str) -> bool:
        """Tell whether a value has been made."""
        return name in self.values or name in self.pending or name in self.constants or name in self.sides

    def unique(self, name: str) -> str:
        """Return a name for a value that no other has."""
        base, number = name, 2
        while name in self.names:
            name, number = f"{base}_{number}", number + 1
        self.names.add(name)
        return name

    def value(self, name: str) -> Value:
        """Return an activation by its ONNX name."""
        if name in self.pending:
            if self.resolve is None:
                raise self.pending[name]
            return self.resolve(name)
        return self.values[name]


def operator_of(node: NodeProto) -> str:
    """Return a node's operator, with its domain where that is not ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def type_name(kind: int) -> str:
    """Return the name of a type of numbers; a broken file may have any number there."""
    known: bool = kind in TensorProto.DataType.values()
    return TensorProto.DataType.Name(kind).lower() if known else f"type {kind}"


class Call:
    """A node that is being translated.

    Attributes
    ----------
    node : NodeProto
    name : str
        Of the graph's node that stands for it.
    opset : int
    """

    def __init__(self, node: NodeProto, translation: Translation):
        self.node = node
        self.translation = translation
        self.opset = translation.opset
        self.name = translation.unique(node.name or next(filter(None, node.output), node.op_type))
        self._attributes: dict[str, Any] = {}
        try:
            self._attributes = attributes_of(node)
        except Exception as error:  # onnx raises whatever a broken attribute leads it to
            raise self.broken(f"has an attribute that can't be read ({error or type(error).__name__})") from error

    @classmethod
    def again(cls, node: NodeProto, translation: Translation) -> Call:
        """Return a call to read a node's settings with, once more: it has no name of its own."""
        call = cls.__new__(cls)
        call.node, call.translation, call.opset = node, translation, translation.opset
        call.name = node.name or node.output[0]
        call._attributes = attributes_of(node)
        return call

    def rename_inputs(self, names: Mapping[str, str]) -> None:
        """Take inputs by other names."""
        node = NodeProto()
        node.CopyFrom(self.node)
        node.input[:] = [names.get(name, name) for name in node.input]
        self.node = node

    @property
    def op(self) -> str:
        """Return the operator, with its domain where that is not ONNX's own."""
        return operator_of(self.node)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self._attributes.get(name, default)

    @property
    def attributes(self) -> dict[str, Any]:
        """Return all attributes."""
        return dict(self._attributes)

    def has(self, position: int) -> bool:
        """Tell whether an optional input is given."""
        return position < len(self.node.input) and self.node.input[position] != ""

    def required(self, name: str) -> Any:
        """Return an attribute that the operator can't do without."""
        if name not in self._attributes:
            raise self.broken(f"has no attribute {name!r}")
        return self._attributes[name]

    def is_constant(self, position: int) -> bool:
        """Tell whether an input is a constant that does not follow the batch size."""
        name = self.node.input[position] if self.has(position) else ""
        return name in self.translation.constants and not self.translation.constants[name].follows_batch

    def is_per_sample(self, position: int) -> bool:
        """Tell whether an input is a constant with the batch along axis 0, kept without it."""
        return self.is_constant(position) and self.translation.constants[self.node.input[position]].per_sample

    def value(self, position: int = 0) -> Value:
        """Return an input that is an activation with the batch as its axis 0."""
        value = self.viewed(position)
        if value.view != PLAIN:
            raise self.mixes_batch(f"takes a value with the batch on axis {value.view.batch}, or merged with others")
        return value

    def viewed(self, position: int = 0) -> Value:
        """Return an input that is an activation, wherever its batch stands."""
        if not self.has(position):
            raise self.broken(f"has no input {position}")
        name = self.node.input[position]
        if name in self.translation.constants:
            raise self.unsupported(f"takes the constant {name!r} as input {position}")
        if name in self.translation.sides:
            raise self.unsupported(f"takes {name!r}, which is computed of token ids or masks, as an activation")
        return self.translation.value(name)

    def is_side(self, position: int) -> bool:
        """Tell whether an input is computed of token ids and masks alone."""
        return self.has(position) and self.node.input[position] in self.translation.sides

    def fed(self, side: str, value: Value, *, adds: bool) -> Value:
        """Return a side value as an input of the graph that broadcasts to an activation."""
        name = self.translation.unique(f"{self.name}/{'mask' if adds else 'factor'}")
        shape = self.translation.sides.beside(name, side, value.shape, value.view, adds=adds)
        if shape is None:
            raise self.mixes_batch(f"joins an activation with {side!r}, whose batch stands on another axis")
        return Value(name, shape, value.view)

    def lookup(self, ids: str, table: Array) -> Value:
        """Return the rows of a table as an input of the graph."""
        shape, view = self.translation.sides.lookup(self.name, ids, table)
        return Value(self.name, shape, view)

    def weight(self, position: int, what: str = "", make: Any = None) -> Array:
        """Return an input that is a constant, in the network's dtype; see :meth:`Constants.weight`."""
        self._require_constant(position)
        return self.translation.constants.weight(self.node.input[position], what, make)

    def constant(self, position: int, per_sample: bool = False) -> Array | None:
        """Return an input that is a constant, as it is; None where an optional one is missing.

        Parameters
        ----------
        position : int
        per_sample : bool, default False
            Whether it may be one with the batch along axis 0, which has length 1 then.
        """
        if not self.has(position):
            return None
        self._require_constant(position, per_sample)
        return self.translation.constants[self.node.input[position]].first

    def _require_constant(self, position: int, per_sample: bool = False) -> None:
        if not self.has(position):
            raise self.broken(f"has no input {position}")
        name = self.node.input[position]
        if not self.is_constant(position):
            raise self.unsupported(f"takes {name!r}, which is computed, where a constant must be")
        if self.is_per_sample(position) and self.translation.constants[name].axis:
            raise self.mixes_batch(f"takes {name!r}, an array whose batch is not its first axis")
        if not per_sample and self.is_per_sample(position):
            raise self.mixes_batch(f"takes {name!r}, an array as large as the batch, where a constant must be")

    def numbers(self, position: int) -> list[int | None]:
        """Return an input of whole numbers, None where one is the batch size."""
        name = self.node.input[position] if self.has(position) else ""
        constants = self.translation.constants
        if not name:
            raise self.broken(f"has no input {position}")
        if name not in constants:
            raise self.unsupported(f"takes sizes {name!r} that depend on the values of the model's input")
        if constants[name].per_sample:
            raise self.mixes_batch(f"takes as many sizes {name!r} as the batch has samples")
        pairs = zip(constants[name].first.ravel(), constants[name].second.ravel(), strict=True)
        found: list[int | None] = []
        for pair in pairs:
            if pair[0] != pair[1] and pair != BATCHES:
                raise self.mixes_batch("makes an axis whose size depends on the batch size")
            found.append(int(pair[0]) if pair[0] == pair[1] else None)
        return found

    def sizes(self, position: int) -> list[Size]:
        """Return an input of whole numbers, of which some may be multiples of the batch size."""
        name = self.node.input[position] if self.has(position) else ""
        constants = self.translation.constants
        if not name or name not in constants or constants[name].per_sample:
            return [Times() if n is None else n for n in self.numbers(position)]
        found: list[Size] = []
        for pair in zip(constants[name].first.ravel(), constants[name].second.ravel(), strict=True):
            one, other = map(int, pair)
            factor = one // BATCHES[0]
            if one != other and (factor * BATCHES[0], factor * BATCHES[1]) != (one, other):
                raise self.mixes_batch("makes an axis whose size depends on the batch size")
            found.append(one if one == other else Times(factor))
        return found

    def is_batch(self, number: Size | None) -> bool:
        """Tell whether a size means the batch: the batch's own, the one that the model declares, or 1."""
        return number in (None, Times(), 1, self.translation.batch)

    def setting(self, name: str, position: int, default: Any = None) -> Any:
        """Return what was an attribute in old opsets and is an input in new ones, as a list or a number."""
        if self.has(position):
            constant = self.constant(position)
            return None if constant is None else constant.tolist()
        return self.attribute(name, default)

    def integers(self, name: str, position: int) -> list[int] | None:
        """Return a :meth:`setting` of whole numbers as a list, a single number too; None where it is missing."""
        given = self.setting(name, position)
        return None if given is None else [int(n) for n in np.ravel(given)]

    def axis(self, axis: int, rank: int | None = None, view: View | None = None) -> int:
        """Return the logical axis for one that counts the batch: of the first input, or of a value so viewed."""
        if rank is None:
            value = self.viewed()
            rank, view = value.rank, value.view
        view = view or PLAIN
        at = self.axis_in_file(axis, rank)
        if at == view.batch:
            raise self.mixes_batch("works along the batch axis")
        return view.own(at)

    def axis_in_file(self, axis: int, rank: int) -> int:
        """Return an axis of the file counted from the front."""
        at = axis + rank if axis < 0 else axis
        if not 0 <= at < rank:
            raise self.broken(f"names axis {axis} of {rank}")
        return at

    def require_inference(self) -> None:
        """Raise if a BatchNormalization or Dropout is in its training form."""
        setting = "training_mode=1" if self.attribute("training_mode", 0) else ""
        if self.op == "Dropout" and self.has(2) and np.any(self.constant(2)):
            setting = "training_mode=true"
        if self.op == "BatchNormalization":
            if self.opset < 14 and sum(map(bool, self.node.output)) > 1 and not self.attribute("is_test", 0):
                setting = "more than one output, which means training,"
            elif not self.attribute("spatial", 1):
                setting = "spatial=0"
        if setting:
            raise self.unsupported(f"has {setting}", "export the model in evaluation mode")

    def emit(self, layer: Layer, *values: Value, part: str = "", view: View | None = None) -> Value:
        """Add a layer and return what it makes.

        Parameters
        ----------
        layer : Layer
        *values : Value
        part : str, optional
            What it is called where a node becomes several layers; the last one has the node's name alone.
        view : View, optional
            Where the batch stands in the result. Default: as in the inputs, which must agree and keep their axes.
        """
        if view is None:
            view = self.common_view(values)
        name = self.translation.unique(f"{self.name}/{part}") if part else self.name
        try:
            made = Value(name, layer.output_shape(*(value.shape for value in values)), view)
            # Before anything is made of it: a file may declare any size.
            self.translation.size += product(made.shape) * self.translation.constants.dtype.itemsize
            require(self.translation.size, "the values of one sample up to here")
        except TooLarge as error:
            raise BrokenFile(self.translation.path, f"node {self.name!r} ({self.op})", str(error)) from error
        self.translation.nodes.append(Node(name, layer, tuple(value.name for value in values)))
        return made

    def emit_all(self, layers: Sequence[tuple[str, Layer]], value: Value, view: View | None = None) -> Value:
        """Add layers one after the other; each has a name for its part, the last one takes the node's own."""
        for part, layer in layers[:-1]:
            value = self.emit(layer, value, part=part)
        return self.emit(layers[-1][1], value, view=view)

    def common_view(self, values: Sequence[Value]) -> View:
        """Return where the batch stands in all of these values."""
        if len({(value.view, value.view.batch and value.rank) for value in values}) > 1:
            raise self.mixes_batch("joins values whose batches stand on different axes")
        return values[0].view if values else PLAIN

    @property
    def by_hand(self) -> str:
        """Return the way out for an operator that a user may have a layer for."""
        return (
            f"give a layer of your own, pylrp.load(..., operators={{{self.node.name or self.op!r}: function}}), where "
            "function(attributes, constants) returns a pylrp.layers.Layer"
        )

    def unsupported(self, reason: str, way_out: str | None = None) -> UnsupportedLayer:
        """Return the error for this node."""
        return UnsupportedLayer(self.name, self.op, reason, way_out or self.by_hand)

    def broken(self, reason: str) -> BrokenNode:
        """Return the error for this node where it is not what the standard says."""
        way_out = "the model is broken, onnx.checker.check_model may tell more"
        return BrokenNode(self.name, self.op, reason, way_out, self.translation.path)

    def mixes_batch(self, reason: str) -> MixedBatch:
        """Return the error for this node where samples of a batch would meet."""
        way_out = "export the model so that axis 0 is the batch from the input to the output"
        return MixedBatch(self.name, self.op, reason, way_out)
