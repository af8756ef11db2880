"""A function without a value at 0 takes in what stands before it: Add and Log become ``log(x + e)``.

Relevance goes through a function by what it gives for its argument and for 0, and a logarithm or a reciprocal has
nothing for 0. Signal front ends keep it away from there with a constant or a bound, ``log(x + 1e-6)``,
``20 log10(max(x, 1e-5))``: together with that it has. What is in between and only moves values changes places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Affine, Clip, Exp, HardSigmoid, Layer, Log, Movement, Pad, ReLU, Sigmoid, Softplus, Tanh
from pylrp.layers.function import Function
from pylrp.network.canonise.rewiring import drop_unused, only_for
from pylrp.network.canonise.top import stands_at_top
from pylrp.network.graph import Graph, Node

__all__ = ["complete_functions"]

_FORMULAS: Mapping[type[Layer], str] = {
    Exp: "exp(x)",
    Log: "log(x)",
    ReLU: "max(x, 0)",
    Sigmoid: "sigmoid(x)",
    Softplus: "softplus(x)",
    Tanh: "tanh(x)",
}


def complete_functions(graph: Graph) -> Graph:
    """Return the graph with functions that have no value at 0 joined to what gives them one.

    Only as much is taken in as it needs. What nothing below gives a value to, a logarithm of a sum of products for
    example, stays as it is; so does a function at the top.
    """
    nodes = {node.name: node for node in graph.nodes}
    changed = False
    for node in graph.nodes:
        if not _has_no_value(node.layer) or stands_at_top(graph, node):
            continue
        made = _completed(graph, nodes, node)
        if made is not None:
            nodes.update((one.name, one) for one in made)
            changed = True
    return drop_unused(graph.changed(nodes=list(nodes.values()))) if changed else graph


def _has_no_value(layer: Layer) -> bool:
    return layer.rule_kind == "function" and not np.isfinite(layer.at_zero()).all()  # type: ignore[attr-defined]


def _completed(graph: Graph, nodes: Mapping[str, Node], node: Node) -> list[Node] | None:
    """Return the node with what it takes in, and the movements that lie above that now; None if nothing helps."""
    joined = _written(node.layer, graph.dtype)
    moves: list[Node] = []
    for below in _chain(graph, nodes, node):
        if isinstance(below.layer, Movement):
            moves.append(below)
            continue
        inner = _written(below.layer, graph.dtype)
        if joined is None or inner is None:
            return None
        if moves and not (only_for(graph, below.name) and joined.constants is None and inner.constants is None):
            return None
        joined = inner.then(joined)
        if np.isfinite(joined.at_zero()).all():
            sources = [*(move.name for move in moves), below.inputs[0]]
            layers = [replace(joined, name=getattr(node.layer, "name", None)), *(move.layer for move in moves)]
            names = [node.name, *(move.name for move in moves)]
            return [Node(name, layer, (below,)) for name, layer, below in zip(names, layers, sources, strict=True)]
    return None


def _chain(graph: Graph, nodes: Mapping[str, Node], node: Node) -> Iterator[Node]:
    """Yield what stands below a node, one of one input after the other; movements where nothing else reads them."""
    while len(node.inputs) == 1 and node.inputs[0] in nodes:
        node = nodes[node.inputs[0]]
        if isinstance(node.layer, Movement) and (isinstance(node.layer, Pad) or not only_for(graph, node.name)):
            return
        yield node


def _written(layer: Layer, dtype: np.dtype[np.floating]) -> Function | None:
    """Return a layer as a function of one value with a formula; None if it is none."""
    if isinstance(layer, Function):
        return layer
    if type(layer) in _FORMULAS:
        return Function(_FORMULAS[type(layer)])
    if isinstance(layer, Clip):
        return Function(f"min(max(x, {_number(layer.low, dtype)}), {_number(layer.high, dtype)})")
    if isinstance(layer, HardSigmoid):
        return Function(f"min(max({float(layer.alpha)!r} * x + {float(layer.beta)!r}, 0), 1)")
    if not isinstance(layer, Affine):
        return None
    words: list[str] = []
    arrays: list[NDArray[np.floating]] = []
    for given in (layer.scale, layer.shift):
        array = np.asarray(given)
        words.append(_number(array.item(), dtype) if array.size == 1 else f"c{len(arrays)}")
        arrays += [array] if array.size > 1 else []
    formula = f"x * {words[0]} + {words[1]}" if words[0] != "1" else f"x + {words[1]}"
    return Function(formula, _stacked(arrays))


def _stacked(arrays: list[NDArray[np.floating]]) -> NDArray[np.floating] | None:
    return np.ascontiguousarray(np.stack(np.broadcast_arrays(*arrays))) if arrays else None


def _number(value: float, dtype: np.dtype[np.floating]) -> str:
    """Return a number as short as the dtype tells it from others."""
    short = float(str(dtype.type(value)))
    return repr(int(short) if np.isfinite(short) and short == int(short) else short)
