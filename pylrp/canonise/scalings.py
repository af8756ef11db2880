"""Scalings per channel (BatchNorm, constants) become part of the layer with weights before or after them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.canonise.rewiring import Weighted, behind_weights, only_for, rewired
from pylrp.graph import Graph
from pylrp.layers import Affine, BatchNorm, Conv, ConvTranspose, Dense, Layer, Shape, Transpose

__all__ = ["fold_into_layer_after", "fold_into_layer_before", "join_scalings", "lower_scalings"]

Array = NDArray[Any]


def _per_channel(layer: Layer, shape: Shape) -> tuple[Array, Array] | None:
    """Return scale and shift in float64, one for each channel of a value of this shape; None for other layers."""
    if isinstance(layer, BatchNorm):
        return layer.affine64()
    if not isinstance(layer, Affine) or not shape:
        return None
    pair = []
    for value in (layer.scale, layer.shift):
        given = np.asarray(value, np.float64)
        given = given.reshape((1,) * (len(shape) - given.ndim) + given.shape)
        if given.size != given.shape[0]:
            return None  # differs from place to place
        pair.append(np.broadcast_to(given.ravel(), shape[:1]))
    return pair[0], pair[1]


def lower_scalings(graph: Graph) -> Graph:
    """Put constants after a transpose before it, where they are the bias of the layer that the transpose follows."""
    nodes = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        below = nodes.get(node.inputs[0])
        if not isinstance(node.layer, Affine) or below is None or not isinstance(below.layer, Transpose):
            continue
        source = nodes.get(below.inputs[0])
        if only_for(graph, below.name) is None or source is None or not isinstance(source.layer, Weighted):
            continue
        back = np.argsort(below.layer.permutation)
        scale, shift = (
            v if v.ndim == 0 else v.reshape((1,) * (len(back) - v.ndim) + v.shape).transpose(back)
            for v in (np.asarray(node.layer.scale), np.asarray(node.layer.shift))
        )
        # The two change places: the value after both keeps its name.
        nodes[below.name] = replace(below, layer=replace(node.layer, scale=scale, shift=shift))
        nodes[node.name] = replace(node, layer=below.layer)
    return graph.changed(nodes=list(nodes.values()))


def join_scalings(graph: Graph) -> Graph:
    """Make one of two scalings per channel in a row."""
    nodes = {node.name: node for node in graph.nodes}
    instead: dict[str, str] = {}
    for node in graph.nodes:
        first = instead.get(node.inputs[0], node.inputs[0])
        outer = _per_channel(node.layer, graph.shapes[node.name])
        inner = _per_channel(nodes[first].layer, graph.shapes[first]) if first in nodes else None
        if outer is None or inner is None or only_for(graph, node.inputs[0]) is None:
            continue
        scale, shift = (v.astype(graph.dtype) for v in (inner[0] * outer[0], inner[1] * outer[0] + outer[1]))
        norm = any(isinstance(layer, BatchNorm) for layer in (nodes[first].layer, node.layer))
        nodes[first] = replace(nodes[first], layer=_scaling(scale, shift, norm, graph.shapes[node.name]))
        instead[node.name] = first
    return rewired(graph, [node for name, node in nodes.items() if name not in instead], instead)


def _scaling(scale: Array, shift: Array, norm: bool, shape: Shape) -> Layer:
    if norm:  # a BatchNorm stays one: its kind decides its rule
        return BatchNorm(scale, shift, np.zeros_like(shift), np.ones_like(shift), epsilon=0.0)
    channels = (-1, *(1,) * (len(shape) - 1))
    return Affine(scale.reshape(channels), shift.reshape(channels))


def fold_into_layer_before(graph: Graph) -> Graph:
    """Return the graph with scalings behind a layer with weights as part of it."""
    nodes = {node.name: node for node in graph.nodes}
    instead: dict[str, str] = {}
    for node in graph.nodes:
        below = instead.get(node.inputs[0], node.inputs[0])
        pair = _per_channel(node.layer, graph.shapes[node.name])
        if pair is None or only_for(graph, node.inputs[0]) is None or below not in nodes:
            continue
        layer = nodes[below].layer
        if isinstance(layer, Weighted):
            nodes[below] = replace(nodes[below], layer=_scaled_after(layer, *pair, graph.dtype))
            instead[node.name] = below
    return rewired(graph, [node for name, node in nodes.items() if name not in instead], instead)


def _scaled_after(layer: Weighted, scale: Array, shift: Array, dtype: np.dtype[Any]) -> Weighted:
    """Return the layer whose output is ``scale * output + shift``."""
    weight = np.asarray(layer.weight)
    bias = shift if layer.bias is None else np.asarray(layer.bias, np.float64) * scale + shift
    kept = layer.bias is not None or bool(shift.any())
    if np.any(scale != 1):
        spread: Any = scale.reshape(-1, *(1,) * (weight.ndim - 1))
        if isinstance(layer, ConvTranspose):  # (in, out / groups, *kernel): the same in every row of a group
            into, out = weight.shape[0], weight.shape[1]
            spread = np.repeat(scale.reshape(layer.groups, out), into // layer.groups, axis=0)
            spread = spread.reshape(into, out, *(1,) * (weight.ndim - 2))
        weight = (weight * spread).astype(dtype)
    return replace(layer, weight=weight, bias=bias.astype(dtype) if kept else None)


def fold_into_layer_after(graph: Graph) -> Graph:
    """Return the graph with scalings between two layers with weights as part of the second.

    What stands before every layer with weights prepares the input: folded, it would take part in their rules, and the
    map would be another one than for an input that comes prepared.
    """
    nodes = {node.name: node for node in graph.nodes}
    behind = behind_weights(graph)
    instead = {}
    for node in reversed(graph.nodes):
        taker = only_for(graph, node.name)
        pair = _per_channel(node.layer, graph.shapes[node.name])
        if pair is None or taker is None or node.name not in behind:
            continue
        layer = nodes[taker.name].layer
        # A shift would have to stand in the padding, too, which is zero.
        whole = isinstance(layer, Dense) or (
            isinstance(layer, Conv) and (not np.any(pair[1]) or not np.any(layer.pads(graph.shapes[node.name])))
        )
        if whole and isinstance(layer, Dense | Conv):
            nodes[taker.name] = replace(nodes[taker.name], layer=_scaled_before(layer, *pair, graph.dtype))
            instead[node.name] = node.inputs[0]
    return rewired(graph, [node for name, node in nodes.items() if name not in instead], instead)


def _scaled_before(layer: Dense | Conv, scale: Array, shift: Array, dtype: np.dtype[Any]) -> Dense | Conv:
    """Return the layer whose output for x is that for ``scale * x + shift``."""
    weight = np.asarray(layer.weight, np.float64)
    # Group g of the outputs sees group g of the inputs: one row of scales for each output.
    groups = layer.groups if isinstance(layer, Conv) else 1
    rows = weight.shape[0] // groups
    scales, shifts = (np.repeat(v.reshape(groups, -1), rows, axis=0) for v in (scale, shift))
    added = np.einsum("oi,oi->o", weight.reshape(*weight.shape[:2], -1).sum(axis=2), shifts)
    bias = added if layer.bias is None else np.asarray(layer.bias, np.float64) + added
    kept = layer.bias is not None or bool(added.any())
    scaled = weight * scales.reshape(*scales.shape, *(1,) * (weight.ndim - 2))
    return replace(layer, weight=scaled.astype(dtype), bias=bias.astype(dtype) if kept else None)
