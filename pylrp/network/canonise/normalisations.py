"""What exporters write around a normalisation becomes part of it: factors and shifts behind it, reshapes about groups.

``LayerNorm -> Affine`` is a LayerNorm with a scale and a shift where these vary along its own axes only. A value cut
into rows, normalised along each and put together again is a GroupNorm, which torch writes so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Affine, Flatten, GroupNorm, InstanceNorm, LayerNorm, Reshape, RMSNorm, Shape
from pylrp.layers.base import product
from pylrp.layers.normalisation import Standardized
from pylrp.network.canonise.draft import Draft
from pylrp.network.graph import Graph

__all__ = ["complete_normalisations"]

Array = NDArray[Any]


def complete_normalisations(graph: Graph) -> Graph:
    """Return the graph with normalisations that hold what belongs to them."""
    draft = Draft(graph)
    changed = False
    for node in graph.nodes:
        if isinstance(node.layer, Standardized):
            while _without_reshapes(draft, node.name) or _take_affine(draft, node.name, graph.dtype):
                changed = True
    return draft.graph(graph) if changed else graph


def _without_reshapes(draft: Draft, name: str) -> bool:
    """Take out reshapes around a normalisation that are undone behind it; tell whether there were some."""
    layer: Any = draft.layers[name]
    below, above = _reshapes_below(draft, name), _reshapes_above(draft, name)
    sources = [draft.shapes[draft.inputs[node][0]] for node in below]
    for upper in range(len(above)):
        shape = draft.shapes[above[upper]]
        if shape not in sources:
            continue
        made = _in_shape(layer, draft.shapes[name], shape)
        if made is not None:
            for node in (*above[: upper + 1], *below[: sources.index(shape) + 1]):
                draft.drop(node)
            draft.layers[name], draft.shapes[name] = made, shape
            return True
    return False


def _reshapes_below(draft: Draft, name: str) -> list[str]:
    """Return the reshapes that only serve a node, nearest first."""
    found: list[str] = []
    while True:
        (below,) = draft.inputs[found[-1] if found else name]
        if not isinstance(draft.layers.get(below), Reshape | Flatten) or draft.only_for(below) is None:
            return found
        found.append(below)


def _reshapes_above(draft: Draft, name: str) -> list[str]:
    """Return the reshapes that alone read a node, nearest first."""
    found: list[str] = []
    while True:
        above = draft.only_for(found[-1] if found else name)
        if above is None or not isinstance(draft.layers[above], Reshape | Flatten):
            return found
        found.append(above)


def _in_shape(layer: Any, rows: Shape, shape: Shape) -> Any:
    """Return a normalisation of a value in C order for the same value in another shape; None where there is none."""
    groups = _groups(layer, rows)
    given = {field: np.asarray(getattr(layer, field)) for field in layer.arrays if getattr(layer, field) is not None}
    if groups is None:
        return None
    axes = _last_axes(shape, groups)
    if not given:
        made = _equals(layer, groups, shape)
        return made[0] if made else None
    extents, inside = layer.cut(rows)
    if axes is None or isinstance(layer, GroupNorm):
        return None
    arrays: dict[str, Any] = {}
    for field, array in given.items():
        own = layer.over_cut(array, rows)
        if any(n > 1 and not within for n, within in zip(own.shape, inside, strict=True)):
            return None  # another one for each group
        full = np.broadcast_to(own, [n if within else 1 for n, within in zip(extents, inside, strict=True)])
        arrays[field] = np.ascontiguousarray(full).reshape([shape[axis] for axis in axes])
    return (LayerNorm if layer.centred else type(layer))(axes=axes, **arrays, **_settings(layer))


def _last_axes(shape: Shape, groups: int) -> tuple[int, ...] | None:
    """Return the axes over which a sample of a shape falls into so many groups, the last ones."""
    first = next((k for k in range(len(shape)) if product(shape[:k]) == groups), None)
    return None if first is None else tuple(range(first, len(shape)))


def _settings(layer: Any) -> dict[str, Any]:
    return {"epsilon": layer.epsilon, "epsilon_at": layer.epsilon_at, "name": layer.name}


def _equals(layer: Any, groups: int, shape: Shape) -> list[Any]:
    """Return the layers without arrays that normalise so many groups of a sample in C order, one after the other."""
    found: list[Any] = []
    if layer.centred:
        found += [InstanceNorm(**_settings(layer))] if groups == shape[0] and len(shape) > 1 else []
        found += [GroupNorm(groups=groups, **_settings(layer))] if shape[0] % groups == 0 else []
    axes = _last_axes(shape, groups)
    if axes is not None:
        found.append((LayerNorm if layer.centred else RMSNorm)(axes=axes, **_settings(layer)))
    return found


def _groups(layer: Any, shape: Shape) -> int | None:
    """Return how many groups a sample in C order falls into, one after the other; None where they are interleaved."""
    extents, inside = layer.cut(shape)
    first = next((i for i, within in enumerate(inside) if within and extents[i] > 1), len(extents))
    if any(not within and n > 1 for within, n in zip(inside[first:], extents[first:], strict=True)):
        return None
    return product(extents[:first])


def _in_logical_shape(layer: Any, array: Array, shape: Shape) -> Array:
    """Return a layer's scale or shift as an array that broadcasts to its input."""
    cut = layer.over_cut(array, shape)
    if cut.ndim > len(shape):  # the channels are two axes
        cut = cut.reshape(-1, *cut.shape[2:])
    return np.asarray(cut)


def _take_affine(draft: Draft, name: str, dtype: np.dtype[Any]) -> bool:
    """Make the factor and shift that alone read a normalisation part of it; tell whether there were some."""
    reshapes, shape = _reshapes_above(draft, name), draft.shapes[name]
    above = draft.only_for(reshapes[-1] if reshapes else name)
    affine = draft.layers.get(above) if above is not None else None
    if above is None or not isinstance(affine, Affine):
        return False
    seen = draft.shapes[draft.inputs[above][0]]
    if draft.shapes[above] != seen:
        return False
    if reshapes:  # what is one a channel is so in every shape that keeps the channels
        arrays = [_padded(array, seen) for array in (affine.scale, affine.shift)]
        if seen[0] != shape[0] or any(array[0].size > 1 for array in arrays):
            return False
        scale, shift = (array.reshape(-1, *(1,) * (len(shape) - 1)) for array in arrays)
        affine = Affine(scale, shift)
    for layer in _readings(draft.layers[name], shape, affine):
        made = _with_affine(layer, affine, shape, dtype)
        if made is not None:
            draft.layers[name] = made
            draft.drop(above)
            return True
    return False


def _readings(layer: Any, shape: Shape, affine: Affine) -> list[Any]:
    """Return a layer and those that do the same, first the ones with a scale for each channel where that is wanted."""
    groups = _groups(layer, shape)
    if groups is None or layer.scale is not None or layer.shift is not None:
        return [layer]
    others = _equals(layer, groups, shape)
    padded = [_padded(array, shape) for array in (affine.scale, affine.shift)]
    by_channel = any(array.shape[0] > 1 for array in padded) and all(array[0].size == 1 for array in padded)
    by_channel = by_channel and len(shape) > 1
    return [*others, layer] if by_channel else [layer, *others]


def _with_affine(layer: Any, affine: Affine, shape: Shape, dtype: np.dtype[Any]) -> Any:
    """Return a normalisation with a factor and a shift behind it; None where they vary as it can't."""
    _, inside = layer.cut(shape)
    per_channel = isinstance(layer, GroupNorm | InstanceNorm)
    varies = [axis == 0 if per_channel else inside[axis] for axis in range(len(shape))]
    parts: dict[str, Array] = {}
    for field, given in (("scale", affine.scale), ("shift", affine.shift)):
        array = _padded(given, shape).astype(np.float64)
        for axis, may in enumerate(varies):
            if not may:
                first = array.take([0], axis)
                if array.shape[axis] > 1 and np.any(array != first):
                    return None
                array = first
        parts[field] = array
    own = {
        field: _in_logical_shape(layer, np.asarray(getattr(layer, field), np.float64), shape)
        for field in layer.arrays
        if getattr(layer, field) is not None
    }
    scale = own.get("scale", np.asarray(1.0)) * parts["scale"]
    shift = own.get("shift", np.asarray(0.0)) * parts["scale"] + parts["shift"]
    made = {
        field: _own_form(array, shape, varies).astype(dtype) if field in own or np.any(array != neutral) else None
        for field, array, neutral in (("scale", scale, 1.0), ("shift", shift, 0.0))
    }
    return replace(layer, **made)


def _padded(array: Any, shape: Shape) -> Array:
    """Return what broadcasts to a shape with all its axes."""
    given: Array = np.asarray(array)
    return given.reshape((1,) * (len(shape) - given.ndim) + given.shape)


def _own_form(array: Array, shape: Shape, varies: list[bool]) -> Array:
    """Return an array over the axes along which it may vary, all of their length."""
    full = np.broadcast_to(array, [n if may else 1 for n, may in zip(shape, varies, strict=True)])
    return np.ascontiguousarray(full).reshape([n for n, may in zip(shape, varies, strict=True) if may])
