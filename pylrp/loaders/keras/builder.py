"""A graph in the making, for the Keras loader: nodes, and where each tensor has its channels.

``keras/layers.py`` and its neighbours add nodes here and register for the layers they know; ``keras/model.py`` makes
the graph of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.errors import UnsupportedLayer
from pylrp.layers import Layer, Shape, Transpose
from pylrp.loaders import refusals
from pylrp.network.graph import Node
from pylrp.network.layout import channels_moved_first, with_channels_last
from pylrp.network.sides import Feed, Step

__all__ = ["Builder", "Operators", "Value", "convert", "reads"]

Array = NDArray[Any]
Operators = Mapping[str, Callable[[Any], Layer]]


class Value(NamedTuple):
    """A tensor of Keras's in the graph.

    ``last``: the channels are Keras's last axis and the graph's first. Otherwise the graph has Keras's order of axes.
    """

    name: str
    last: bool = False


class Builder:
    """Nodes in the order of the model.

    Parameters
    ----------
    dtype : dtype
        Of the model's weights; constants are converted to it.
    inputs : dict of str to tuple of int
        Logical shapes.
    operators : mapping of str to function, optional
        The user's own, by the name of a Keras class.
    """

    def __init__(self, dtype: np.dtype[Any], inputs: dict[str, Shape], operators: Operators | None = None):
        self.operators = operators or {}
        self.dtype = dtype
        self.nodes: list[Node] = []
        self.notes: list[str] = []
        self.shapes = dict(inputs)
        #: By value: the mask of its steps, for recurrent layers.
        self.masks: dict[str, Value] = {}
        #: Inputs of ids and their shapes, what is computed of them, and what the graph is fed with (``lookup.py``).
        self.ids: dict[str, Shape] = {}
        self.steps: list[Step] = []
        self.feeds: dict[str, Feed] = {}
        self._made: dict[tuple[int, str], Layer] = {}
        self._kept: dict[int, Any] = {}

    def emit(self, name: str, layer: Layer, *values: Value, last: bool | None = None) -> Value:
        """Add a node and return its value; the second of a name is called ``NAME_2``.

        ``last`` is where the result has its channels; by default where the first value has them.
        """
        unique, number = name, 1
        while unique in self.shapes:
            number += 1
            unique = f"{name}_{number}"
        try:
            self.shapes[unique] = layer.output_shape(*(self.shapes[value.name] for value in values))
        except ValueError as error:
            raise ValueError(f"{name} ({type(layer).__name__}): {error}") from None
        self.nodes.append(Node(unique, layer, tuple(value.name for value in values)))
        return Value(unique, values[0].last if last is None else last)

    def feed(self, name: str, feed: Feed) -> Value:
        """Add an input of the graph that is computed of ids and return its value."""
        unique, number = name, 1
        while unique in self.shapes:
            number += 1
            unique = f"{name}_{number}"
        self.feeds[unique], self.shapes[unique] = feed, feed.shape
        return Value(unique)

    def once(self, operation: Any, make: Callable[[], Layer], part: str = "") -> Layer:
        """Return the layer of a Keras layer, one and the same wherever that is used."""
        key = id(operation), part
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def kept(self, layer: Any, make: Callable[[], Any]) -> Any:
        """Return what stands for a Keras layer, one and the same wherever that is used."""
        if id(layer) not in self._kept:
            self._kept[id(layer)] = make()
        return self._kept[id(layer)]

    def state(self) -> tuple[int, dict[str, Shape], dict[str, Value]]:
        """Return what :meth:`back_to` needs."""
        return len(self.nodes), dict(self.shapes), dict(self.masks)

    def back_to(self, state: tuple[int, dict[str, Shape], dict[str, Value]]) -> None:
        """Take back the nodes that were added since."""
        count, self.shapes, self.masks = state
        del self.nodes[count:]

    def rank(self, value: Value) -> int:
        """Return the number of axes without the batch."""
        return len(self.shapes[value.name])

    def order(self, value: Value) -> Shape:
        """Return the shape as Keras has it, without the batch."""
        shape = self.shapes[value.name]
        return with_channels_last(shape) if value.last else shape

    def to_front(self, value: Value) -> Value:
        """Return the value with Keras's last axis first."""
        rank = self.rank(value)
        if value.last or rank < 2:
            return value
        return self.emit(f"{value.name}.channels_first", Transpose((rank - 1, *range(rank - 1))), value, last=True)

    def in_order(self, value: Value) -> Value:
        """Return the value with its axes in Keras's order."""
        if not value.last:
            return value
        rank = self.rank(value)
        return self.emit(f"{value.name}.channels_last", Transpose((*range(1, rank), 0)), value, last=False)

    def aligned(self, values: tuple[Value, ...]) -> list[Value]:
        """Return the values with their axes in one order."""
        front = any(value.last for value in values)
        return [self.to_front(value) if front else value for value in values]

    def axis(self, value: Value, axis: int) -> int:
        """Return the logical axis that Keras calls ``axis``, the batch being 0."""
        rank = self.rank(value)
        at = axis + rank if axis < 0 else axis - 1
        return (at + 1) % rank if value.last else at

    def constant(self, value: Value, constant: ArrayLike) -> Array:
        """Return a constant that Keras broadcasts against the value as one for the graph's order of axes."""
        array = self.array(constant)
        rank = self.rank(value)
        if array.ndim == rank + 1 and len(array) == 1:  # an axis for the batch
            array = array[0]
        if array.size == 1:
            return array.reshape(())
        if value.last:
            array = channels_moved_first(array.reshape((1,) * (rank - array.ndim) + array.shape))
        return np.ascontiguousarray(array)

    def array(self, variable: Any, axes: tuple[int, ...] | None = None) -> Array:
        """Return a copy of a variable in the model's dtype, its axes rearranged."""
        if hasattr(variable, "numpy") and not isinstance(variable, np.ndarray):
            import keras

            variable = keras.ops.convert_to_numpy(variable)
        array = np.asarray(variable)
        # A copy always: training goes on in the variable's memory.
        return np.array(array if axes is None else array.transpose(axes), self.dtype, order="C")

    def refuse(
        self, name: str, operation: Any, reason: str = "can't be explained", way_out: str | None = None
    ) -> NoReturn:
        """Raise for a layer that has no counterpart here."""
        kind = type(operation).__name__
        # Of a layer that is known the reason is this call's.
        refusal = None if ("layers", kind) in _KNOWN else refusals.of_class(type(operation))
        by_hand = (
            f"give a layer of your own, pylrp.load(..., operators={{{kind!r}: function}}), where "
            "function(keras_layer) returns a pylrp.layers.Layer"
        )
        if refusal is not None:
            raise refusal.error(name, kind, by_hand)
        raise UnsupportedLayer(name, kind, reason, way_out or by_hand)


Function = Callable[..., Any]
_KNOWN: dict[tuple[str, str], Function] = {}


def convert(build: Builder, layer: Any, name: str, *values: Any, **keywords: Any) -> Any:
    """Add what a layer or an operation of Keras does to the graph.

    Raises
    ------
    UnsupportedLayer
        If it has no counterpart, or is a class of the user's own: what such a class computes is not known here.
    """
    kind = type(layer)
    if kind.__name__ in build.operators:
        made = build.once(layer, lambda: build.operators[kind.__name__](layer))
        return build.emit(name, made, *(build.in_order(value) for value in values))
    package, *modules = kind.__module__.split(".")
    module = "ops" if "ops" in modules else "layers"
    if package != "keras" or (module, kind.__name__) not in _KNOWN:
        build.refuse(name, layer)
    return _KNOWN[module, kind.__name__](build, layer, name, *values, **keywords)


def reads(*names: str, module: str = "layers") -> Callable[[Function], Function]:
    """Register a function for the classes of these names in ``keras.layers``, or in ``keras.ops``."""

    def register(function: Function) -> Function:
        _KNOWN.update({(module, name): function for name in names})
        return function

    return register
