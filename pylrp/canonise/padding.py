"""Zeros around an image become the padding of the convolution that alone takes them."""

from __future__ import annotations

from dataclasses import replace

from pylrp.canonise.rewiring import only_for, rewired
from pylrp.graph import Graph
from pylrp.layers import Conv, Pad

__all__ = ["merge_padding"]


def merge_padding(graph: Graph) -> Graph:
    """Return the graph with zeros around an image as the padding of the convolution they are for."""
    nodes = {node.name: node for node in graph.nodes}
    instead = {}
    for node in graph.nodes:
        pad, taker = node.layer, only_for(graph, node.name)
        if not isinstance(pad, Pad) or taker is None or not isinstance(taker.layer, Conv):
            continue
        (first, *widths) = pad.widths
        zeros = pad.mode == "constant" and pad.fill == 0
        if zeros and first == (0, 0) and min(map(min, widths)) >= 0:
            own = taker.layer.pads(graph.shapes[node.name])
            both = [(low + a, high + b) for (low, high), (a, b) in zip(own, widths, strict=True)]
            nodes[taker.name] = replace(taker, layer=replace(taker.layer, padding=both))
            instead[node.name] = node.inputs[0]
    return rewired(graph, [node for name, node in nodes.items() if name not in instead], instead)
