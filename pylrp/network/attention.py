"""Which factor of a product of two values is attention's probabilities. ``rules/assignment.py`` asks for ``Value``."""

from __future__ import annotations

import numpy as np

from pylrp.layers import Affine, Dropout, DynamicQuantize, Identity, Layer, MatMul, Movement, Quantize, Softmax
from pylrp.network.graph import Graph, Node

__all__ = ["has_attention", "head_values", "probabilities"]

_HEADS = 3  # axes: heads, tokens, width


def probabilities(graph: Graph, node: Node) -> int | None:
    """Return the position of the one factor that comes from a softmax, None where none does or both do.

    Between them may stand what moves or scales values, and dropout.

    Parameters
    ----------
    graph : Graph
    node : Node
        With a :class:`~pylrp.layers.MatMul`.
    """
    makers = {each.name: each for each in graph.nodes}
    found = [position for position, value in enumerate(node.inputs) if _from_softmax(makers, value)]
    return found[0] if len(found) == 1 else None


def has_attention(graph: Graph) -> bool:
    """Whether a product in the graph has probabilities for a factor."""
    products = [node for node in graph.nodes if isinstance(node.layer, MatMul)]
    return any(probabilities(graph, node) is not None for node in products)


def head_values(graph: Graph) -> list[str]:
    """Return the values of what heads put out, (heads, tokens, width) a sample, from input to output."""
    return [
        node.name
        for node in graph.nodes
        if isinstance(node.layer, MatMul)
        and len(graph.shapes[node.name]) == 3
        and probabilities(graph, node) is not None
    ]


def _from_softmax(makers: dict[str, Node], value: str) -> bool:
    while value in makers:
        node = makers[value]
        if isinstance(node.layer, Softmax):
            return True
        if not _carries(node.layer):
            return False
        value = node.inputs[0]
    return False


def _carries(layer: Layer) -> bool:
    scales = isinstance(layer, Affine) and not np.any(layer.shift)
    return scales or isinstance(layer, Movement | Identity | Dropout | Quantize | DynamicQuantize)
