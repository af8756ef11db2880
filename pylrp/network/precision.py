"""A graph computed in another dtype than its weights have. ``pylrp.load(..., dtype=)`` asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from pylrp.layers import Layer, Shift
from pylrp.network.graph import Graph

__all__ = ["in_dtype"]


def in_dtype(graph: Graph, dtype: DTypeLike) -> Graph:
    """Return the graph with its arrays in a dtype; the same where they are.

    Parameters
    ----------
    graph : Graph
    dtype : dtype
        float32 or float64.
    """
    wanted = np.dtype(dtype)
    if graph.dtype == wanted:
        return graph
    made: dict[int, Layer] = {}  # weights that several nodes share stay shared
    arrays: dict[int, Any] = {}
    for node in graph.nodes:
        if id(node.layer) in made:
            continue
        changes = {}
        for name in node.layer.arrays:
            array = getattr(node.layer, name)
            if array is not None:
                made_of = node.layer.in_dtype(wanted) if isinstance(node.layer, Shift) else np.asarray(array, wanted)
                changes[name] = arrays.setdefault(id(array), made_of)
        made[id(node.layer)] = replace(node.layer, **changes) if changes else node.layer  # type: ignore[type-var]
    return Graph(
        graph.inputs,
        [replace(node, layer=made[id(node.layer)]) for node in graph.nodes],
        graph.output_values if graph.named_outputs else graph.outputs,
        channels_last=graph.channels_last,
        notes=[*graph.notes, f"weights converted from {graph.dtype} to {wanted}"],
        facts=graph.facts,
        dtype=wanted,
    )
