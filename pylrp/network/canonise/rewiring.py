"""What the passes share: nodes left out, their values replaced; unused nodes and identities dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pylrp.layers import Identity
from pylrp.network.graph import Graph, Node

__all__ = ["behind_weights", "drop_identities", "drop_unused", "only_for", "rewired", "with_output_values"]


def rewired(graph: Graph, nodes: Sequence[Node], instead: Mapping[str, str], notes: Sequence[str] = ()) -> Graph:
    """Return the graph of these nodes, each value in ``instead`` replaced by another one."""
    if not instead:
        return graph

    def found(value: str) -> str:
        while value in instead:
            value = instead[value]
        return value

    linked = [replace(node, inputs=tuple(map(found, node.inputs))) for node in nodes]
    values = {name: found(value) for name, value in graph.output_values.items()}
    return with_output_values(graph, linked, values).changed(notes=[*graph.notes, *notes])


def with_output_values(graph: Graph, nodes: Sequence[Node], values: Mapping[str, str]) -> Graph:
    """Return the graph of these nodes, its outputs being these values.

    An output keeps a name that was given to it, else it is called by its value.
    """
    if graph.named_outputs:
        return graph.changed(nodes=nodes, outputs=values)
    facts = replace(graph.facts, top={values.get(name, name): kind for name, kind in graph.facts.top.items()})
    return graph.changed(nodes=nodes, outputs=list(dict.fromkeys(values.values())), facts=facts)


def only_for(graph: Graph, value: str) -> Node | None:
    """Return the node that alone takes a value; None where several do, or the value is an output."""
    takers = graph.consumers(value)
    return takers[0][0] if len(takers) == 1 and value not in graph.output_values.values() else None


def behind_weights(graph: Graph) -> set[str]:
    """Return the values that a layer with weights makes or stands below."""
    behind: set[str] = set()
    for node in graph.nodes:
        if node.layer.weighted or not behind.isdisjoint(node.inputs):
            behind.add(node.name)
    return behind


def drop_unused(graph: Graph) -> Graph:
    """Return the graph without nodes that no output needs."""
    needed = set(graph.output_values.values())
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    kept = [node for node in graph.nodes if node.name in needed]
    return graph if len(kept) == len(graph.nodes) else graph.changed(nodes=kept)


def drop_identities(graph: Graph) -> Graph:
    """Return the graph without layers that do nothing."""
    instead: dict[str, str] = {}
    # An output that is an input has no layer that could be explained, a copy of it has; and two outputs stay two.
    outputs = set(graph.output_values.values())
    taken = {*graph.inputs, *outputs}
    for node in graph.nodes:
        if isinstance(node.layer, Identity):
            source = instead.get(node.inputs[0], node.inputs[0])
            if node.name not in outputs:
                instead[node.name] = source
            elif source not in (graph.inputs if graph.named_outputs else taken):
                instead[node.name] = source
                taken.add(source)
    return rewired(graph, [node for node in graph.nodes if node.name not in instead], instead)
