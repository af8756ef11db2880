"""Which axis of an input is time, where its shape alone does not say: that of the steps of recurrent layers.

``graph.py`` asks for pictures and evaluations, which want channels first and time last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylrp.layers import Conv, Dense, Movement, Transpose
from pylrp.layers.recurrent import Recurrent

if TYPE_CHECKING:
    from pylrp.network.graph import Graph, Node

__all__ = ["has_steps_first"]


def has_steps_first(graph: Graph, name: str) -> bool:
    """Tell whether an input of two axes has steps first and features last: ``(steps, features)``.

    Its first axis is followed up to a layer that tells steps from features: a recurrent layer or a convolution.
    """
    if len(graph.inputs[name]) != 2:
        return False
    waiting, seen = [(name, 0)], {name}
    while waiting:
        value, axis = waiting.pop(0)
        for node, position in graph.consumers(value):
            if isinstance(node.layer, Recurrent | Conv):
                if position == 0 and len(graph.shapes[value]) == 2:
                    return axis == (0 if isinstance(node.layer, Recurrent) else 1)
                continue
            at = _axis_above(graph, node, value, axis)
            if at is not None and node.name not in seen:
                seen.add(node.name)
                waiting.append((node.name, at))
    return False


def _axis_above(graph: Graph, node: Node, value: str, axis: int) -> int | None:
    """Return where the axis is in what a node makes; None where it is no axis of its own there."""
    layer, shape, made = node.layer, graph.shapes[value], graph.shapes[node.name]
    if isinstance(layer, Transpose):
        return list(layer.permutation).index(axis)
    if len(made) != 2 or isinstance(layer, Movement):
        return axis if made == shape and isinstance(layer, Movement) else None
    if isinstance(layer, Dense):
        return axis if axis == 1 else None  # along axis 0 it mixes
    return axis if made == shape else None
