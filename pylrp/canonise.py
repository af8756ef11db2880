"""A graph as a model file has it, made into one that rules of LRP are meant for.

Passes from graph to graph, in order: what no output needs goes, and what does nothing (dropout); a softmax at the top
goes with a note; zeros around an image become the padding of the convolution they are for; scalings per channel
(BatchNorm) become part of the convolution or dense layer before or after them. The output stays the same but for the
softmax. Loaders make the graph, ``network.py`` hands the result to the compiled core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.graph import Graph, Node
from pylrp.layers import (
    Affine,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Identity,
    Layer,
    Movement,
    Pad,
    Shape,
    Softmax,
    Transpose,
)

__all__ = ["at_the_top", "canonise"]

Array = NDArray[Any]
Weighted = Dense | Conv | ConvTranspose


def canonise(graph: Graph, *, keep_softmax: bool = False) -> Graph:
    """Return an equal graph of fewer layers.

    Parameters
    ----------
    graph : Graph
    keep_softmax : bool, default False
        Leave a softmax at the top, which is otherwise removed with a note: explaining a probability mixes what speaks
        for a class with what speaks against the others.

    Returns
    -------
    Graph
        A node that takes in others keeps its name; the values of those others are gone. An output of the graph whose
        node is gone is called by the node that makes it now; an identity between two outputs stays.
    """
    passes: list[Callable[[Graph], Graph]] = [_drop_unused, _drop_identities]
    passes += [] if keep_softmax else [_drop_softmax]
    passes += [_merge_padding, _lower_scalings, _join_scalings, _fold_into_layer_before, _fold_into_layer_after]
    for step in passes:
        graph = step(graph)
    return graph


def _rewired(graph: Graph, nodes: Sequence[Node], instead: Mapping[str, str], notes: Sequence[str] = ()) -> Graph:
    """Return the graph of these nodes, each value in ``instead`` replaced by another one."""
    if not instead:
        return graph

    def found(value: str) -> str:
        while value in instead:
            value = instead[value]
        return value

    linked = [replace(node, inputs=tuple(map(found, node.inputs))) for node in nodes]
    outputs = list(dict.fromkeys(map(found, graph.outputs)))
    return graph.changed(nodes=linked, outputs=outputs, notes=[*graph.notes, *notes])


def _only_for(graph: Graph, value: str) -> Node | None:
    """Return the node that alone takes a value; None where several do, or the value is an output."""
    takers = graph.consumers(value)
    return takers[0][0] if len(takers) == 1 and value not in graph.outputs else None


def _drop_unused(graph: Graph) -> Graph:
    needed = set(graph.outputs)
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return graph.changed(nodes=[node for node in graph.nodes if node.name in needed])


def _drop_identities(graph: Graph) -> Graph:
    instead: dict[str, str] = {}
    # An output that is an input has no layer that could be explained, a copy of it has; and two outputs stay two.
    taken = {*graph.inputs, *graph.outputs}
    for node in graph.nodes:
        if isinstance(node.layer, Identity):
            source = instead.get(node.inputs[0], node.inputs[0])
            if node.name not in graph.outputs:
                instead[node.name] = source
            elif source not in taken:
                instead[node.name] = source
                taken.add(source)
    return _rewired(graph, [node for node in graph.nodes if node.name not in instead], instead)


def _drop_softmax(graph: Graph) -> Graph:
    instead, notes = {}, []
    for node in graph.nodes:
        if isinstance(node.layer, Softmax) and node.inputs[0] not in graph.inputs and at_the_top(graph, node.name):
            instead[node.name] = node.inputs[0]
            notes.append(f"softmax {node.name!r} at the top removed: the logits are explained")
    return _rewired(graph, [node for node in graph.nodes if node.name not in instead], instead, notes)


def at_the_top(graph: Graph, value: str) -> bool:
    """Tell whether a value is an output, or nothing but moved on its way to being one."""
    takers = graph.consumers(value)
    return all(isinstance(node.layer, Movement | Identity) and at_the_top(graph, node.name) for node, _ in takers)


def _merge_padding(graph: Graph) -> Graph:
    nodes = {node.name: node for node in graph.nodes}
    instead = {}
    for node in graph.nodes:
        pad, taker = node.layer, _only_for(graph, node.name)
        if not isinstance(pad, Pad) or taker is None or not isinstance(taker.layer, Conv):
            continue
        (first, *widths) = pad.widths
        zeros = pad.mode == "constant" and pad.fill == 0
        if zeros and first == (0, 0) and min(map(min, widths)) >= 0:
            own = taker.layer.pads(graph.shapes[node.name])
            both = [(low + a, high + b) for (low, high), (a, b) in zip(own, widths, strict=True)]
            nodes[taker.name] = replace(taker, layer=replace(taker.layer, padding=both))
            instead[node.name] = node.inputs[0]
    return _rewired(graph, [node for name, node in nodes.items() if name not in instead], instead)


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


def _lower_scalings(graph: Graph) -> Graph:
    """Put constants after a transpose before it, where they are the bias of the layer that the transpose follows."""
    nodes = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        below = nodes.get(node.inputs[0])
        if not isinstance(node.layer, Affine) or below is None or not isinstance(below.layer, Transpose):
            continue
        source = nodes.get(below.inputs[0])
        if _only_for(graph, below.name) is None or source is None or not isinstance(source.layer, Weighted):
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


def _join_scalings(graph: Graph) -> Graph:
    """Make one of two scalings per channel in a row."""
    nodes = {node.name: node for node in graph.nodes}
    instead: dict[str, str] = {}
    for node in graph.nodes:
        first = instead.get(node.inputs[0], node.inputs[0])
        outer = _per_channel(node.layer, graph.shapes[node.name])
        inner = _per_channel(nodes[first].layer, graph.shapes[first]) if first in nodes else None
        if outer is None or inner is None or _only_for(graph, node.inputs[0]) is None:
            continue
        scale, shift = (v.astype(graph.dtype) for v in (inner[0] * outer[0], inner[1] * outer[0] + outer[1]))
        norm = any(isinstance(layer, BatchNorm) for layer in (nodes[first].layer, node.layer))
        nodes[first] = replace(nodes[first], layer=_scaling(scale, shift, norm, graph.shapes[node.name]))
        instead[node.name] = first
    return _rewired(graph, [node for name, node in nodes.items() if name not in instead], instead)


def _scaling(scale: Array, shift: Array, norm: bool, shape: Shape) -> Layer:
    if norm:  # a BatchNorm stays one: its kind decides its rule
        return BatchNorm(scale, shift, np.zeros_like(shift), np.ones_like(shift), epsilon=0.0)
    channels = (-1, *(1,) * (len(shape) - 1))
    return Affine(scale.reshape(channels), shift.reshape(channels))


def _fold_into_layer_before(graph: Graph) -> Graph:
    nodes = {node.name: node for node in graph.nodes}
    instead: dict[str, str] = {}
    for node in graph.nodes:
        below = instead.get(node.inputs[0], node.inputs[0])
        pair = _per_channel(node.layer, graph.shapes[node.name])
        if pair is None or _only_for(graph, node.inputs[0]) is None or below not in nodes:
            continue
        layer = nodes[below].layer
        if isinstance(layer, Weighted):
            nodes[below] = replace(nodes[below], layer=_scaled_after(layer, *pair, graph.dtype))
            instead[node.name] = below
    return _rewired(graph, [node for name, node in nodes.items() if name not in instead], instead)


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


def _fold_into_layer_after(graph: Graph) -> Graph:
    nodes = {node.name: node for node in graph.nodes}
    instead = {}
    for node in reversed(graph.nodes):
        taker = _only_for(graph, node.name)
        pair = _per_channel(node.layer, graph.shapes[node.name])
        if pair is None or taker is None:
            continue
        layer = nodes[taker.name].layer
        # A shift would have to stand in the padding, too, which is zero.
        whole = isinstance(layer, Dense) or (
            isinstance(layer, Conv) and (not np.any(pair[1]) or not np.any(layer.pads(graph.shapes[node.name])))
        )
        if whole and isinstance(layer, Dense | Conv):
            nodes[taker.name] = replace(nodes[taker.name], layer=_scaled_before(layer, *pair, graph.dtype))
            instead[node.name] = node.inputs[0]
    return _rewired(graph, [node for name, node in nodes.items() if name not in instead], instead)


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
