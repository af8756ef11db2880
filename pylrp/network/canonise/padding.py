"""Zeros around an image become the padding of the convolutions that alone take them.

What lies between and only rearranges the axes (transposes and reshapes, as exporters of channels-last models write
them) changes places with the zeros.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Conv, Flatten, Layer, Movement, Pad, Reshape, Transpose
from pylrp.layers.base import product
from pylrp.network.canonise.draft import Draft
from pylrp.network.graph import Graph

__all__ = ["merge_padding"]

Indices = NDArray[np.int64]


class _Way(NamedTuple):
    """From a ``Pad`` to a convolution: what becomes of the nodes between, and of the convolution."""

    nodes: dict[str, Layer]
    conv: str
    padding: list[tuple[int, int]]


def merge_padding(graph: Graph) -> Graph:
    """Return the graph with zeros around an image as the padding of the convolutions they are for."""
    draft = Draft(graph)
    pads = [node.name for node in graph.nodes if isinstance(node.layer, Pad)]
    merged = [name for name in pads if _merge(draft, name)]
    return draft.graph(graph) if merged else graph


def _merge(draft: Draft, name: str) -> bool:
    pad = draft.layers[name]
    assert isinstance(pad, Pad)
    if draft.is_output(name) or pad.mode != "constant" or np.any(pad.fill) or min(map(min, pad.widths)) < 0:
        return False
    inner = draft.shapes[draft.inputs[name][0]]
    index = pad.move(np.arange(product(inner), dtype=np.int64).reshape(inner))
    ways = [_way(draft, name, taker, index) for taker in draft.takers(name)]
    if not ways or any(way is None for way in ways):
        return False
    draft.shapes[name] = inner
    for way in ways:
        assert way is not None
        for node, layer in way.nodes.items():
            draft.layers[node] = layer
            draft.shapes[node] = layer.output_shape(draft.shapes[draft.inputs[node][0]])
        conv = draft.layers[way.conv]
        assert isinstance(conv, Conv)
        draft.layers[way.conv] = replace(conv, padding=way.padding)
    draft.drop(name)
    return True


def _way(draft: Draft, below: str, name: str, index: Indices) -> _Way | None:
    """Return how a node, and those above it, do without zeros; ``index`` is what it takes, -1 for zeros."""
    layer, widths = draft.layers[name], _box(index)
    if widths is None:
        return None
    if isinstance(layer, Conv):
        if widths[0] != (0, 0):
            return None
        own = layer.pads(draft.shapes[below])
        return _Way({}, name, [(low + a, high + b) for (low, high), (a, b) in zip(own, widths[1:], strict=True)])
    taker = draft.only_for(name)
    if not isinstance(layer, Transpose | Reshape | Flatten) or taker is None:
        return None
    above = layer.move(index)
    around = _box(above)
    if around is None:
        return None
    inside, made = _inside(index, widths), _inside(above, around)
    instead: Movement = layer if isinstance(layer, Transpose) else Reshape(made.shape)
    if not np.array_equal(instead.move(inside), made):
        return None
    way = _way(draft, name, taker, above)
    return None if way is None else _Way({name: instead, **way.nodes}, way.conv, way.padding)


def _box(index: Indices) -> list[tuple[int, int]] | None:
    """Return the widths of the zeros around the values, None where they are no frame."""
    there = index >= 0
    widths = []
    for axis, size in enumerate(index.shape):
        along = np.flatnonzero(there.any(axis=tuple(other for other in range(index.ndim) if other != axis)))
        widths.append((int(along[0]), int(size - 1 - along[-1])))
    return widths if (_inside(index, widths) >= 0).all() else None


def _inside(array: Indices, widths: list[tuple[int, int]]) -> Indices:
    cut = tuple(slice(low, size - high) for (low, high), size in zip(widths, array.shape, strict=True))
    return array[cut]
