"""What exporters write around a normalisation becomes part of it: factors and shifts behind it, reshapes about groups.

``LayerNorm -> Affine`` is a LayerNorm with a scale and a shift where these vary along its own axes only. A value cut
into rows, normalised along each and put together again is a GroupNorm, which torch writes so. ``__init__.py`` and the
loader of ONNX call :func:`complete_normalisations`.
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
from pylrp.network.canonise.rewiring import drop_unused
from pylrp.network.graph import Graph

__all__ = ["complete_normalisations"]

Array = NDArray[Any]


def complete_normalisations(graph: Graph, *, pass_on_names: bool = False) -> Graph:
    """Return the graph with normalisations that hold what belongs to them.

    Parameters
    ----------
    graph : Graph
    pass_on_names : bool, default False
        Whether a normalisation is called as the last node that it takes in, whose value it makes, or keeps its name.
    """
    if not any(isinstance(node.layer, Standardized) for node in graph.nodes):
        return graph
    work = _Completion(drop_unused(graph), pass_on_names)
    return work.graph()


class _Completion:
    def __init__(self, graph: Graph, pass_on_names: bool):
        self._given, self._draft, self._pass_on_names = graph, Draft(graph), pass_on_names

    def graph(self) -> Graph:
        """Return the graph with all that belongs to its normalisations in them."""
        changed = False
        for node in self._given.nodes:
            name: str | None = node.name if isinstance(node.layer, Standardized) else None
            while name is not None:
                name = self._without_reshapes(name) or self._with_affine(name)
                changed = changed or name is not None
        return self._draft.graph(self._given) if changed else self._given

    def _replace(self, name: str, above: list[str], layer: Any) -> str:
        """Put a layer in the place of a node and of those that read it, one the next; return what it is called."""
        draft, shape = self._draft, self._draft.shapes[above[-1]]
        for node in above:
            if self._pass_on_names:
                draft.drop_and_pass_on_name(node)
                name = node
            else:
                draft.drop(node)
        draft.layers[name], draft.shapes[name] = layer, shape
        return name

    def _without_reshapes(self, name: str) -> str | None:
        """Take out reshapes around a normalisation that are undone behind it; return its name, None if nothing is."""
        draft = self._draft
        below, above = _reshapes_below(draft, name), _reshapes_above(draft, name)
        sources = [draft.shapes[draft.inputs[node][0]] for node in below]
        for upper in range(len(above)):
            shape = draft.shapes[above[upper]]
            if shape in sources:
                made = _in_shape(draft.layers[name], draft.shapes[name], shape)
                if made is not None:
                    for node in below[: sources.index(shape) + 1]:
                        draft.drop(node)
                    return self._replace(name, above[: upper + 1], made)
        return None

    def _with_affine(self, name: str) -> str | None:
        """Make the factor and shift that alone read a normalisation part of it; return its name, None if nothing is."""
        draft, shape = self._draft, self._draft.shapes[name]
        above = draft.only_for(name)
        affine = draft.layers.get(above) if above is not None else None
        if above is None or not isinstance(affine, Affine) or draft.shapes[above] != shape:
            return None
        for layer in _readings(draft.layers[name], shape, affine):
            made = _with_affine(layer, affine, shape, self._given.dtype)
            if made is not None:
                return self._replace(name, [above], made)
        return None


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
