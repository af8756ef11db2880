"""The function at the top: a softmax is removed, so that logits are explained."""

from __future__ import annotations

from pylrp.canonise.rewiring import rewired
from pylrp.graph import Graph
from pylrp.layers import Identity, Movement, Softmax

__all__ = ["at_the_top", "drop_softmax"]


def drop_softmax(graph: Graph) -> Graph:
    """Return the graph without a softmax at the top, with a note."""
    instead, notes = {}, []
    for node in graph.nodes:
        if isinstance(node.layer, Softmax) and node.inputs[0] not in graph.inputs and at_the_top(graph, node.name):
            instead[node.name] = node.inputs[0]
            notes.append(f"softmax {node.name!r} at the top removed: the logits are explained")
    return rewired(graph, [node for node in graph.nodes if node.name not in instead], instead, notes)


def at_the_top(graph: Graph, value: str) -> bool:
    """Tell whether a value is an output, or nothing but moved on its way to being one."""
    takers = graph.consumers(value)
    return all(isinstance(node.layer, Movement | Identity) and at_the_top(graph, node.name) for node, _ in takers)
