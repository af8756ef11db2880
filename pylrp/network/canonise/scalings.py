"""Scalings (BatchNorm, constants) become part of the layer with weights before or after them, where that is exact.

What lies between, ``carrying.py`` knows: transposes, reshapes and the like only move values. ``folded.py`` does the
arithmetic. A layer takes in all its scalings in float64 and is rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Affine, BatchNorm, Layer, Pad, Shape
from pylrp.layers.conv import Weighted
from pylrp.network.canonise import folded
from pylrp.network.canonise.carrying import Arrival, Scaling, carried_down, carried_up, scaling_of
from pylrp.network.canonise.draft import Draft
from pylrp.network.canonise.rewiring import behind_weights
from pylrp.network.graph import Graph

__all__ = ["fold_scalings"]

Array = NDArray[Any]


def fold_scalings(graph: Graph) -> Graph:
    """Return the graph with scalings as part of layers with weights.

    A scaling goes to the layer before it, or joins a scaling there, past whatever only moves values; else to the
    layers after it, if all that read it are layers with weights. What stands before every layer with weights prepares
    the input and stays: folded, it would take part in their rules, and the map would be another one than for an input
    that comes prepared.
    """
    work = _Folding(graph)
    names = [node.name for node in graph.nodes if isinstance(node.layer, Affine | BatchNorm)]
    for name in names:
        work.fold_down(name)
    for name in reversed(names):
        work.fold_up(name)
    return work.graph() if work.changed else graph


@dataclass
class _Parts:
    """A layer with weights in the making: float64, None where nothing has changed."""

    weight: Array | None
    bias: Array | None


class _Folding:
    def __init__(self, graph: Graph):
        self._given = graph
        self._draft = Draft(graph)
        self._behind = behind_weights(graph)
        self._parts: dict[str, _Parts] = {}
        self._scalings = {
            node.name: scaling
            for node in graph.nodes
            if (scaling := scaling_of(node.layer, graph.shapes[node.name])) is not None
        }
        self._joined: set[str] = set()
        self.changed = False

    def fold_down(self, name: str) -> None:
        (below,) = self._draft.inputs[name]
        arrivals = carried_down(self._draft, below, name, self._scalings[name])
        if arrivals is None:
            return
        made = {arrival.node: self._taken_in(arrival) for arrival in arrivals if arrival.scaling is not None}
        if any(parts is None for parts in made.values()):
            return
        for arrival in arrivals:
            self._arrive(arrival, name, made.get(arrival.node))
        if isinstance(self._draft.layers[below], Weighted | Affine | BatchNorm):
            self._draft.drop(name)  # that layer keeps its name
        else:
            self._draft.drop_and_pass_on_name(name)
        del self._scalings[name]
        self.changed = True

    def _arrive(self, arrival: Arrival, name: str, made: _Parts | Scaling | None) -> None:
        layers = self._draft.layers
        if arrival.layer is not None:
            layers[arrival.node] = arrival.layer
        elif isinstance(made, Scaling):
            self._scalings[arrival.node] = made
            self._joined.add(arrival.node)
            if isinstance(layers[name], BatchNorm):
                layers[arrival.node] = layers[name]  # a BatchNorm with something else stays one
        elif made is not None:
            self._parts[arrival.node] = made

    def _taken_in(self, arrival: Arrival) -> _Parts | Scaling | None:
        """Return a node with a scaling of its output."""
        layer, shape = self._draft.layers[arrival.node], self._draft.shapes[arrival.node]
        assert arrival.scaling is not None
        if not isinstance(layer, Weighted):
            return arrival.scaling.after(self._scalings[arrival.node])
        parts = self._parts_of(arrival.node)
        made = folded.after(layer, parts.bias, arrival.scaling, shape)
        if made is None:
            return None
        factors, bias = made
        weight = parts.weight
        if np.any(factors != 1):
            weight = np.asarray(layer.weight, np.float64) if weight is None else weight
            weight = folded.scaled_outputs(layer, weight, factors)
        return _Parts(weight, bias if parts.bias is not None or np.any(bias) else None)

    def fold_up(self, name: str) -> None:
        if name not in self._scalings or name not in self._behind:
            return
        arrivals = carried_up(self._draft, name, self._scalings[name])
        constants = {arrival.node: arrival.layer for arrival in arrivals or () if arrival.layer is not None}
        if not arrivals or len(constants) < sum(arrival.layer is not None for arrival in arrivals):
            return
        # A layer that is reached twice, through a concatenation, takes in one after the other.
        before = dict(self._parts)
        for arrival in arrivals:
            made = self._taken_before(arrival) if arrival.layer is None else None
            if made is not None:
                self._parts[arrival.node] = made
            elif arrival.layer is None:
                self._parts = before
                return
        self._draft.layers.update(constants)
        self._draft.drop(name)
        del self._scalings[name]
        self.changed = True

    def _taken_before(self, arrival: Arrival) -> _Parts | None:
        """Return a layer with weights with a scaling of its input."""
        draft, node = self._draft, arrival.node
        layer = draft.layers[node]
        assert isinstance(layer, Weighted)
        assert arrival.scaling is not None
        parts = self._parts_of(node)
        weight = np.asarray(layer.weight, np.float64) if parts.weight is None else parts.weight
        shapes: tuple[Shape, Shape] = draft.shapes[draft.inputs[node][0]], draft.shapes[node]
        made = folded.before(layer, weight, arrival.scaling, shapes)
        if made is None:
            return None
        weight, added = made
        if parts.bias is None and not np.any(added):
            return _Parts(weight, None)
        return _Parts(weight, added if parts.bias is None else folded.total(parts.bias, added))

    def _parts_of(self, name: str) -> _Parts:
        if name in self._parts:
            return self._parts[name]
        layer: Any = self._draft.layers[name]
        return _Parts(None, None if layer.bias is None else np.asarray(layer.bias, np.float64))

    def graph(self) -> Graph:
        """Return the graph, every changed array rounded to the graph's dtype."""
        draft, dtype = self._draft, self._given.dtype
        for name, parts in self._parts.items():
            layer: Any = draft.layers[name]
            weight = layer.weight if parts.weight is None else parts.weight.astype(dtype)
            bias = None if parts.bias is None else parts.bias.astype(dtype)
            draft.layers[name] = replace(layer, weight=weight, bias=bias)
        for name, layer in draft.layers.items():
            if isinstance(layer, Pad) and np.ndim(layer.value):
                draft.layers[name] = replace(layer, value=np.asarray(layer.value, dtype))
        for name in self._joined & set(self._scalings):
            norm = isinstance(draft.layers[name], BatchNorm)
            draft.layers[name] = _layer_of(self._scalings[name], draft.shapes[name], norm, dtype)
        return draft.graph(self._given)


def _layer_of(scaling: Scaling, shape: Shape, norm: bool, dtype: np.dtype[Any]) -> Layer:
    scale, shift = (v.astype(dtype) for v in scaling)
    if norm and shape:
        channels = [folded.per_channel(v, shape, 0.0) for v in (scale, shift)]
        if channels[0] is not None and channels[1] is not None:
            zeros = np.zeros(shape[0], dtype)
            return BatchNorm(channels[0], channels[1], zeros, zeros + dtype.type(1), epsilon=0.0)
    return Affine(scale, shift)
