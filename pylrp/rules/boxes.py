"""Bounds of a z-box: from the network's input to the values that the rule looks at.

``assignment.py`` asks for the bounds of each layer with a box. Bounds are given in units of the network's input and
mapped, entry by entry, through what may stand between the input and the first layer with weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import UnsupportedLayer
from pylrp.layers import Clip, Concat, Identity, Movement, ReLU, Resize, Shape
from pylrp.layers.base import product
from pylrp.network.graph import Graph, Node
from pylrp.network.layout import channels_moved_first, with_channels_last
from pylrp.network.linear_map import scaling
from pylrp.rules.terms import Rule

__all__ = ["InputBox", "bounds_of_value"]

Array = NDArray[Any]
Pair = tuple[Array, Array]


def bounds_of_value(rule: Rule, graph: Graph, value: str, layer: str) -> Pair:
    """Return a rule's bounds, given in units of a value, in the value's logical shape and in float64.

    Raises
    ------
    ValueError
        If the bounds do not fit the value.
    """
    bounds = rule.bounds()
    assert bounds is not None
    shape = graph.shapes[value]
    made = []
    for name, bound in zip(("low", "high"), bounds, strict=True):
        array = np.asarray(bound, dtype=np.float64)
        try:
            made.append(_broadcast(array, shape, value in graph.channels_last))
        except ValueError:
            what = f"input {value!r} of the network" if value in graph.inputs else "an input of the layer"
            raise ValueError(
                f"layer {layer}: {name} of {rule} has shape {array.shape}, {what} has shape {shape}"
            ) from None
    return made[0], made[1]


def _broadcast(array: Array, shape: Shape, channels_last: bool) -> Array:
    if array.ndim == 1 and len(shape) > 1 and len(array) == shape[0]:  # one a channel
        return np.broadcast_to(array.reshape(-1, *(1,) * (len(shape) - 1)), shape)
    if channels_last and array.ndim == len(shape):
        return channels_moved_first(np.broadcast_to(array, with_channels_last(shape)))
    return np.broadcast_to(array, shape)


class InputBox:
    """A box around the network's inputs, as the values between them and a first layer with weights see it.

    Parameters
    ----------
    graph : Graph
    rule : Rule
        With bounds in units of the network's input: a number, one a channel, or all of an input's shape.
    layer : str
        The layer that the rule is for.
    """

    def __init__(self, graph: Graph, rule: Rule, layer: str):
        self._graph, self._rule, self._layer = graph, rule, layer
        self._nodes = {node.name: node for node in graph.nodes}
        self._known: dict[str, Pair] = {}

    @property
    def inputs(self) -> dict[str, Pair]:
        """Return the bounds of the network's inputs that have been reached."""
        return {name: pair for name, pair in self._known.items() if name in self._graph.inputs}

    def at(self, value: str) -> Pair:
        """Return (low, high) of a value in its logical shape, in float64.

        Raises
        ------
        UnsupportedLayer
            If a layer stands between that bounds can't be mapped through.
        ValueError
            If the bounds do not fit an input.
        """
        if value in self._graph.inputs:
            if value not in self._known:
                self._known[value] = bounds_of_value(self._rule, self._graph, value, self._layer)
            return self._known[value]
        if value not in self._known:
            node = self._nodes[value]
            self._require_mappable(node)
            self._known[value] = self._mapped(node, [self.at(below) for below in node.inputs])
        return self._known[value]

    def _require_mappable(self, node: Node) -> None:
        layer = node.layer
        if scaling(layer, self._graph.shapes[node.inputs[0]]) is not None:
            return
        if isinstance(layer, (Clip, ReLU, Identity, Concat, Movement)):
            return
        if isinstance(layer, Resize) and layer.mode == "nearest":
            return
        raise UnsupportedLayer(
            node.name,
            type(layer).__name__,
            f"stands between the network's input and layer {self._layer!r}, and the bounds of {self._rule} can't be "
            f"mapped through it",
            "choose a rule without bounds for the input, Composite(..., first=pylrp.Flat())",
        )

    def _mapped(self, node: Node, below: list[Pair]) -> Pair:
        layer = node.layer
        low, high = below[0]
        pair = scaling(layer, low.shape)
        if pair is not None:
            ends = low * pair[0] + pair[1], high * pair[0] + pair[1]
            return np.minimum(*ends), np.maximum(*ends)
        if isinstance(layer, (Clip, ReLU)):
            least, most = (layer.low, layer.high) if isinstance(layer, Clip) else (0.0, np.inf)
            return np.clip(low, least, most), np.clip(high, least, most)
        if isinstance(layer, Identity):
            return low, high
        if isinstance(layer, Concat):
            lows, highs = zip(*below, strict=True)
            return np.concatenate(lows, axis=layer.axis), np.concatenate(highs, axis=layer.axis)
        assert isinstance(layer, (Movement, Resize))
        index = layer.move(np.arange(product(low.shape)).reshape(low.shape))
        fill = getattr(layer, "fill", 0.0)
        taken = [np.where(index < 0, fill, bound.ravel()[index]) for bound in (low, high)]
        return taken[0], taken[1]
