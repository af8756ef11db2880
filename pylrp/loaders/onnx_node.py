"""What a function that translates an ONNX operator works with: the node's inputs and settings, and where layers go.

``onnx_model.py`` makes one :class:`Call` for each node, the functions of ``onnx_operators.py`` and its kin read it and
emit layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from onnx import NodeProto

from pylrp.errors import UnsupportedLayer
from pylrp.graph import Node
from pylrp.layers import Layer, Shape
from pylrp.loaders.onnx_constants import BATCHES, Constants, attributes_of

__all__ = ["Call", "Translation", "Value"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Value:
    """An activation: the graph's name for it, and its logical shape (without the batch)."""

    name: str
    shape: Shape


@dataclass
class Translation:
    """What is known while a model is read."""

    constants: Constants
    opset: int
    batch: int | None  # the batch size that the model declares
    producers: dict[str, NodeProto]
    values: dict[str, Value] = field(default_factory=dict)
    #: Values that are parts of a pattern which may still come; else the error is raised.
    pending: dict[str, UnsupportedLayer] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def knows(self, name: str) -> bool:
        """Tell whether a value has been made."""
        return name in self.values or name in self.pending or name in self.constants

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
            raise self.pending[name]
        return self.values[name]


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
        self.name = translation.unique(node.name or next(filter(None, node.output)))
        self._attributes = attributes_of(node)

    @property
    def op(self) -> str:
        """Return the operator, with its domain where that is not ONNX's own."""
        return self.node.op_type if self.node.domain in ("", "ai.onnx") else f"{self.node.domain}.{self.node.op_type}"

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

    def is_constant(self, position: int) -> bool:
        """Tell whether an input is a constant that does not follow the batch size."""
        name = self.node.input[position]
        return name in self.translation.constants and not self.translation.constants[name].follows_batch

    def value(self, position: int = 0) -> Value:
        """Return an input that is an activation."""
        name = self.node.input[position]
        if name in self.translation.constants:
            raise self.unsupported(f"takes the constant {name!r} as input {position}")
        return self.translation.value(name)

    def weight(self, position: int, what: str = "", make: Any = None) -> Array:
        """Return an input that is a constant, in the network's dtype; see :meth:`Constants.weight`."""
        self._require_constant(position)
        return self.translation.constants.weight(self.node.input[position], what, make)

    def constant(self, position: int) -> Array | None:
        """Return an input that is a constant, as it is; None where an optional one is missing."""
        if not self.has(position):
            return None
        self._require_constant(position)
        return self.translation.constants[self.node.input[position]].first

    def _require_constant(self, position: int) -> None:
        if not self.is_constant(position):
            raise self.unsupported(f"takes {self.node.input[position]!r}, which is computed, where a constant must be")

    def numbers(self, position: int) -> list[int | None]:
        """Return an input of whole numbers, None where one is the batch size."""
        name = self.node.input[position]
        constants = self.translation.constants
        if name not in constants:
            raise self.unsupported(f"takes sizes {name!r} that depend on the values of the model's input")
        pairs = zip(constants[name].first.ravel(), constants[name].second.ravel(), strict=True)
        found: list[int | None] = []
        for pair in pairs:
            if pair[0] != pair[1] and pair != BATCHES:
                raise self.mixes_batch("makes an axis whose size depends on the batch size")
            found.append(int(pair[0]) if pair[0] == pair[1] else None)
        return found

    def is_batch(self, number: int | None) -> bool:
        """Tell whether a size means the batch: the batch's own, the one that the model declares, or 1."""
        return number in (None, 1, self.translation.batch)

    def setting(self, name: str, position: int, default: Any = None) -> Any:
        """Return what was an attribute in old opsets and is an input in new ones, as a list or a number."""
        if self.has(position):
            constant = self.constant(position)
            return None if constant is None else constant.tolist()
        return self.attribute(name, default)

    def axis(self, axis: int, rank: int | None = None) -> int:
        """Return the logical axis for one that counts the batch."""
        count = len(self.value().shape) + 1 if rank is None else rank
        at = axis + count if axis < 0 else axis
        if at == 0:
            raise self.mixes_batch("works along the batch axis")
        return at - 1

    def emit(self, layer: Layer, *values: Value, part: str = "") -> Value:
        """Add a layer and return what it makes.

        Parameters
        ----------
        layer : Layer
        *values : Value
        part : str, optional
            What it is called where a node becomes several layers; the last one has the node's name alone.
        """
        name = self.translation.unique(f"{self.name}/{part}") if part else self.name
        made = Value(name, layer.output_shape(*(value.shape for value in values)))
        self.translation.nodes.append(Node(name, layer, tuple(value.name for value in values)))
        return made

    def emit_all(self, layers: Sequence[tuple[str, Layer]], value: Value) -> Value:
        """Add layers one after the other; each has a name for its part, the last one takes the node's own."""
        for part, layer in layers[:-1]:
            value = self.emit(layer, value, part=part)
        return self.emit(layers[-1][1], value)

    def unsupported(self, reason: str, way_out: str | None = None) -> UnsupportedLayer:
        """Return the error for this node."""
        key = self.node.name or self.op
        by_hand = (
            f"give a layer of your own, pylrp.load(..., operators={{{key!r}: function}}), where "
            "function(attributes, constants) returns a pylrp.layers.Layer"
        )
        return UnsupportedLayer(self.name, self.op, reason, way_out or by_hand)

    def mixes_batch(self, reason: str) -> UnsupportedLayer:
        """Return the error for this node where samples of a batch would meet."""
        return self.unsupported(reason, "export the model so that axis 0 is the batch from the input to the output")
