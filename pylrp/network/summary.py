"""The table of a network's layers that :meth:`pylrp.Network.summary` returns."""

from __future__ import annotations

import numpy as np

from pylrp.network.graph import Graph
from pylrp.network.prepared import inside
from pylrp.present import html
from pylrp.rules.assignment import Assignment

__all__ = ["table"]


def _input_kind(graph: Graph, name: str) -> str:
    """Return what an input of the graph is: fed by the user, or of rows that ids count, or of masks."""
    feed = None if graph.facts.sides is None else graph.facts.sides.feeds.get(name)
    return "input" if feed is None else "mask" if feed.table is None else "embedding"


def table(assignment: Assignment) -> html.Summary:
    """Return the layers of a graph as lines of text: name, kind, shape of the output, parameters, rule.

    A notebook shows them as a table.
    """
    graph, absorbed = assignment.graph, inside(assignment)
    rows = [("layer", "kind", "output", "parameters", "rule")]
    rows += [(name, _input_kind(graph, name), str(shape), "", "") for name, shape in graph.inputs.items()]
    total, seen = 0, set()
    for node in graph.nodes:
        arrays = [getattr(node.layer, name) for name in node.layer.arrays]
        count = sum(np.size(array) for array in arrays if array is not None)
        shared = id(node.layer) in seen and count > 0
        total += 0 if shared else count
        seen.add(id(node.layer))
        rule = absorbed.get(node.name, assignment.description(node))
        parameters = "shared" if shared else (f"{count:,}" if count else "")
        rows.append((node.name, node.layer.kind, str(graph.shapes[node.name]), parameters, rule))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows]
    outputs = [name if name == value else f"{name} ({value})" for name, value in graph.output_values.items()]
    below = [f"{total:,} parameters, {graph.dtype}; outputs: {', '.join(outputs)}"]
    below += [f"note: {note}" for note in graph.notes]
    ordered = [(name, kind, rule, output, parameters) for name, kind, output, parameters, rule in rows]
    shown = html.html(html.table(ordered, words=3), html.lines(below))
    return html.Summary("\n".join([*lines, *below]), shown)
