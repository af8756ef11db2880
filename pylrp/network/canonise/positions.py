"""What differs from token to token in a network with attention: tables of positions and class tokens as layers apart.

Added constants are scalings with a factor of one, and would become part of a layer beside them. In a network that
multiplies computed values they stay what they are, so that the ledger can say what positions take.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pylrp.layers import Affine, MatMul, Shape, Shift
from pylrp.network.graph import Graph, Node

__all__ = ["positions_apart"]

_TOKENS_AND_FEATURES = 2  # axes


def positions_apart(graph: Graph) -> Graph:
    """Return the graph with a Shift for each constant that is added and differs along two axes of its value."""
    if not any(isinstance(node.layer, MatMul) for node in graph.nodes):
        return graph
    nodes = [_apart(node, graph.shapes[node.name]) for node in graph.nodes]
    return graph.changed(nodes=nodes) if any(a is not b for a, b in zip(nodes, graph.nodes, strict=True)) else graph


def _apart(node: Node, shape: Shape) -> Node:
    layer = node.layer
    if not isinstance(layer, Affine) or len(shape) < _TOKENS_AND_FEATURES or np.any(np.asarray(layer.scale) != 1):
        return node
    full = np.broadcast_to(np.asarray(layer.shift), shape)
    if sum(bool((full != full.take([0], axis)).any()) for axis in range(len(shape))) < _TOKENS_AND_FEATURES:
        return node
    position = len(shape) == _TOKENS_AND_FEATURES
    return replace(node, layer=Shift(layer.shift, position=position, name=layer.name))
