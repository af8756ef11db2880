"""Which factor of a product is the signal, and which the gate: by what they come from.

A gate is what a sigmoid, a hard sigmoid or a softmax gives, wherever it is moved, repeated, resized or scaled to, and a
statistic of the other factor, such as its length over all places. It is looked for before scalings are folded, which
hides a hard sigmoid that is written as a clip. ``__init__.py`` calls :func:`find_signals`, the rules of products ask
:func:`roots`.
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from typing import Literal

import numpy as np

from pylrp.layers import (
    GELU,
    Affine,
    Clip,
    Concat,
    DynamicQuantize,
    Function,
    GlobalAveragePool,
    HardSigmoid,
    HardSwish,
    Identity,
    Layer,
    Mish,
    Movement,
    Multiply,
    Normalize,
    Pad,
    Quantize,
    ReLU,
    Resize,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from pylrp.layers.formula import evaluated
from pylrp.network.graph import Graph, Node

__all__ = ["find_signals", "roots"]

_MOST_STEPS = 64
_GRID = np.array([-1e4, -1e3, -1e-3, 1e-3, 1e3, 1e4])
_SQUASHING = (Sigmoid, HardSigmoid, Softmax)
#: x times a function from 0 to 1 of the same x: such a factor is a signal that is its own gate.
_SELF_GATED = (SiLU, GELU, HardSwish, Mish)


class _Role(IntEnum):
    PLAIN = 0
    SOFT = 1
    GATE = 2


def find_signals(graph: Graph) -> Graph:
    """Return the graph with products that say which factor is the signal, where that can be told."""
    nodes = {node.name: node for node in graph.nodes}
    found: list[Node] = []
    for node in graph.nodes:
        layer = node.layer
        if isinstance(layer, Multiply) and layer.signal is None:
            signal, soft = _signal(nodes, node)
            if signal is not None:
                node = replace(node, layer=replace(layer, signal=signal, soft=soft))
                nodes[node.name] = node
        found.append(node)
    return graph if all(map(_same, found, graph.nodes)) else graph.changed(nodes=found)


def _same(one: Node, other: Node) -> bool:
    return one is other


def _signal(nodes: dict[str, Node], node: Node) -> tuple[Literal[0, 1] | None, bool]:
    """Return which factor is the signal, None where that can't be told; and whether the gate is one such as SiLU."""
    if node.inputs[0] == node.inputs[1]:  # a square: a function of one value, all goes to it
        return 0, False
    statistics = [_is_statistic(nodes, *pair) for pair in (node.inputs, node.inputs[::-1])]
    if statistics[0] != statistics[1]:
        return (1 if statistics[0] else 0), False
    roles = [_role(nodes, value) for value in node.inputs]
    if max(roles) is _Role.PLAIN:
        roles = _rectified(nodes, node)
    if roles[0] == roles[1]:
        return None, False
    return (0 if roles[1] > roles[0] else 1), max(roles) is _Role.SOFT


def _is_statistic(nodes: dict[str, Node], factor: str, other: str) -> bool:
    """Tell whether a factor is computed of the other one alone, by sums over places: a response that is normalised."""
    ends, waiting, seen, summed = {other, _moved(nodes, other)}, [factor], set[str](), False
    while waiting and len(seen) < _MOST_STEPS:
        value = waiting.pop()
        if value in ends or value in seen:
            continue
        node = nodes.get(value)
        if node is None or node.layer.weighted:
            return False
        seen.add(value)
        summed = summed or isinstance(node.layer, GlobalAveragePool | Normalize)
        waiting += node.inputs
    return summed and not waiting and factor not in ends


def _rectified(nodes: dict[str, Node], node: Node) -> list[_Role]:
    """Return the roles in a gated unit, relu(W x) * (V x): of two linear maps of one value the rectified one gates."""
    below = [_moved(nodes, value) for value in node.inputs]
    gates = [isinstance(nodes[value].layer, ReLU) if value in nodes else False for value in below]
    if gates[0] != gates[1]:
        at = gates.index(True)
        sources = [_linear_of(nodes, nodes[below[at]].inputs[0]), _linear_of(nodes, below[1 - at])]
        if sources[0] == sources[1]:
            return [_Role.SOFT if gate else _Role.PLAIN for gate in gates]
    return [_Role.PLAIN, _Role.PLAIN]


def _moved(nodes: dict[str, Node], value: str) -> str:
    """Return the value below what only moves or scales."""
    while value in nodes and isinstance(nodes[value].layer, Movement | Identity | Affine):
        value = nodes[value].inputs[0]
    return value


def _linear_of(nodes: dict[str, Node], value: str) -> str:
    """Return what a layer with weights is of, whatever moves values around it; the value itself where it is none."""
    value = _moved(nodes, value)
    return _moved(nodes, nodes[value].inputs[0]) if value in nodes and nodes[value].layer.weighted else value


def _role(nodes: dict[str, Node], value: str, steps: int = _MOST_STEPS) -> _Role:
    """Return what a factor comes from, looking through what only moves, repeats, mixes or scales it."""
    factor, shift = 1.0, 0.0  # of what is looked at, the smallest where there are several
    while steps > 0:
        steps -= 1
        node = nodes.get(value)
        if node is None:
            return _Role.PLAIN
        layer = node.layer
        if isinstance(layer, Multiply | Concat):  # of gates alone: a gate
            parts = [_role(nodes, source, steps // 2) for source in node.inputs]
            return _Role.GATE if min(parts) is _Role.GATE and (factor > 0 and shift == 0) else _Role.PLAIN
        if isinstance(layer, Affine):
            scales, shifts = (np.asarray(v, np.float64) for v in (layer.scale, layer.shift))
            if not (scales > 0).all() and not (scales < 0).all():
                return _Role.PLAIN
            if shifts.size != 1 and shifts.any():
                return _Role.PLAIN
            shift += factor * float(shifts.flat[0])
            factor *= float(scales.min() if (scales > 0).all() else scales.max())
        elif isinstance(layer, Clip):
            return (
                _Role.GATE if _is_hard_sigmoid(nodes, node) and _stays_above(factor, shift, layer.high) else _Role.PLAIN
            )
        elif isinstance(layer, _SQUASHING):
            return _Role.GATE if _stays_above(factor, shift, 1.0) else _Role.PLAIN
        elif isinstance(layer, Tanh) or _is_erf(layer):  # (1 + tanh(z / 2)) / 2 is a sigmoid
            return _Role.GATE if shift >= abs(factor) * (1 - 1e-6) else _Role.PLAIN
        elif isinstance(layer, Function) and layer.steps[-1][0] == "sigmoid":
            return _Role.GATE if _stays_above(factor, shift, 1.0) else _Role.PLAIN
        elif isinstance(layer, _SELF_GATED) or (isinstance(layer, Function) and _gates_itself(layer)):
            return _Role.SOFT if factor > 0 and shift == 0 else _Role.PLAIN
        elif not isinstance(layer, Movement | Resize | Identity | Quantize | DynamicQuantize) or (
            isinstance(layer, Pad) and np.any(layer.value)
        ):
            return _Role.PLAIN
        value = node.inputs[0]
    return _Role.PLAIN


def _is_erf(layer: Layer) -> bool:
    return isinstance(layer, Function) and layer.steps[-1][0] == "erf"


def _stays_above(factor: float, shift: float, most: float) -> bool:
    """Whether ``factor * g + shift`` is nowhere negative for g from 0 to ``most``; ``1 - g`` is a gate, too."""
    return min(shift, factor * most + shift) >= -1e-6 * abs(factor) * most


def _gates_itself(layer: Function) -> bool:
    """Whether a function is x times something from 0 to 1 that is a half at 0, as QuickGELU is."""
    if layer.constants is not None:
        return False
    ratio = evaluated(layer.steps, _GRID) / _GRID
    rises = bool(np.abs(ratio[:2]).max() < 1e-3 and np.abs(ratio[-2:] - 1).max() < 1e-3)
    return rises and bool(np.abs(ratio[np.abs(_GRID) < 1e-2] - 0.5).max() < 0.05)


def _is_hard_sigmoid(nodes: dict[str, Node], node: Node) -> bool:
    """Recognise a hard sigmoid that is written as a clip from 0 of what is halfway at 0."""
    layer, (value,) = node.layer, node.inputs
    assert isinstance(layer, Clip)
    below = nodes.get(value)
    if layer.low != 0 or not 0 < layer.high < np.inf or below is None or not isinstance(below.layer, Affine):
        return False
    return bool(np.allclose(below.layer.shift, layer.high / 2, rtol=1e-4))


def roots(graph: Graph, value: str) -> list[str]:
    """Return a value and those that lead to it alone, one after the other, the value first."""
    nodes = {node.name: node for node in graph.nodes}
    found = [value]
    while value in nodes and len(nodes[value].inputs) == 1:
        value = nodes[value].inputs[0]
        found.append(value)
    return found
