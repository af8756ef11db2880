"""Constants under a gate: what cells that are written out step by step have where their state is a constant.

A GRU that starts from 0 adds r b at its first step, a gate times the bias of a state; from a constant state, u h, and
where the gate stands before the product U (r h). The signal is the constant, so the sum's other part alone hands
relevance on, and the gate gets none, as at every other step. By itself such a product looks like an activation with a
scale. That it is a gate is known where the same sigmoid, or one of the same product with the same weights, is the gate
of a product elsewhere. ``__init__.py`` calls in when products know their signals.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pylrp.layers import Add, Affine, Dense, HardSigmoid, Identity, LayerNorm, Movement, Multiply, ShiftBy, Sigmoid
from pylrp.network.graph import Graph, Node

__all__ = ["shift_by_gated_constants"]

_MOST_STEPS = 32
#: Where a gate's sum comes from: memory of weights, with the movements above them.
Origin = frozenset[tuple[Any, ...]]


def shift_by_gated_constants(graph: Graph) -> Graph:
    """Return the graph with a ShiftBy for each sum with a constant under a gate."""
    nodes = {node.name: node for node in graph.nodes}
    readers: dict[str, int] = {}
    for node in graph.nodes:
        for value in node.inputs:
            readers[value] = readers.get(value, 0) + 1
    gates = _gates(nodes)
    if not gates:
        return graph
    made = [_changed(node, nodes, readers, gates, graph) for node in graph.nodes]
    return graph if all(a is b for a, b in zip(made, graph.nodes, strict=True)) else graph.changed(nodes=made)


def _gates(nodes: dict[str, Node]) -> set[tuple[Any, ...]]:
    """Return the origins of all gates of products."""
    found: set[tuple[Any, ...]] = set()
    for node in nodes.values():
        if isinstance(node.layer, Multiply) and node.layer.signal is not None and len(node.inputs) == 2:
            found |= _origin(nodes, _sigmoid(nodes, node.inputs[1 - node.layer.signal]))
    return found


def _changed(
    node: Node, nodes: dict[str, Node], readers: dict[str, int], gates: set[tuple[Any, ...]], graph: Graph
) -> Node:
    if not isinstance(node.layer, Add) or len(node.inputs) != 2:
        return node
    for at, value in enumerate(node.inputs):
        other = node.inputs[1 - at]
        if graph.shapes[other] == graph.shapes[node.name] and _is_gated_constant(value, nodes, readers, gates, graph):
            return replace(node, layer=ShiftBy(name=node.layer.name), inputs=(other, value))
    return node


def _is_gated_constant(
    value: str, nodes: dict[str, Node], readers: dict[str, int], gates: set[tuple[Any, ...]], graph: Graph
) -> bool:
    """Whether a value is a gate times a constant, or a linear map or a norm of that, and nothing else reads it."""
    for _ in range(_MOST_STEPS):
        node = nodes.get(value)
        if node is None or readers.get(value) != 1 or value in graph.output_values.values():
            return False
        layer = node.layer
        if isinstance(layer, Affine) and not np.any(layer.shift):
            if _origin(nodes, _sigmoid(nodes, node.inputs[0])) & gates:
                return True
        elif not isinstance(layer, Affine | Dense | Identity | LayerNorm | Movement):
            return False
        value = node.inputs[0]
    return False


def _sigmoid(nodes: dict[str, Node], value: str) -> str:
    """Return the sigmoid that a value comes from, whatever moves or scales it; empty where it is none."""
    for _ in range(_MOST_STEPS):
        node = nodes.get(value)
        if node is None:
            return ""
        if isinstance(node.layer, Sigmoid | HardSigmoid):
            return value
        if not isinstance(node.layer, Movement | Identity | Affine):
            return ""
        value = node.inputs[0]
    return ""


def _origin(nodes: dict[str, Node], sigmoid: str) -> Origin:
    """Return what a sigmoid's sum is made of: itself, and the weights of its parts."""
    if not sigmoid:
        return frozenset()
    found: set[tuple[Any, ...]] = {("itself", sigmoid)}
    waiting: list[tuple[str, tuple[str, ...]]] = [(nodes[sigmoid].inputs[0], ())]
    for _ in range(_MOST_STEPS):
        if not waiting:
            break
        value, moves = waiting.pop()
        node = nodes.get(value)
        if node is None:
            continue
        if node.layer.weighted:
            weight = getattr(node.layer, "weight", None)
            memory = (weight.ctypes.data, weight.shape) if isinstance(weight, np.ndarray) else (id(node.layer),)
            found.add((*memory, moves))
        elif isinstance(node.layer, Add | Affine | Identity | LayerNorm | Movement):
            more = (repr(node.layer),) if isinstance(node.layer, Movement) else ()
            waiting += [(source, (*moves, *more)) for source in node.inputs]
    return frozenset(found)
