"""How a scaling is carried past layers that only move values: down to what makes them, or up to what takes them.

A scaling is exact on the other side of a transpose, reshape, slice, pad, repetition or concatenation where each entry
there has one factor and one shift. ``scalings.py`` asks where a scaling can go to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Affine, BatchNorm, Concat, Layer, Movement, Pad, Resize, Shape, Transpose
from pylrp.layers.base import product
from pylrp.layers.conv import Weighted
from pylrp.network.canonise.draft import Draft

__all__ = ["Arrival", "Scaling", "carried_down", "carried_up", "moved", "scaling_of"]

Array = NDArray[Any]


class Scaling(NamedTuple):
    """``x * scale + shift`` in float64; both have as many axes as x and broadcast to it.

    NaN stands for entries that do not matter, because nothing reads them.
    """

    scale: Array
    shift: Array

    def whole(self, shape: Shape) -> Scaling:
        """Return it with an entry for each of a value's."""
        return Scaling(np.broadcast_to(self.scale, shape), np.broadcast_to(self.shift, shape))

    def after(self, first: Scaling) -> Scaling:
        """Return what ``first`` and then this one do; what does not matter to this one is as in ``first``."""
        with np.errstate(invalid="ignore"):
            scale, shift = self.scale * first.scale, self.scale * first.shift + self.shift
        return Scaling(*(np.where(np.isnan(v), old, v) for v, old in ((scale, first.scale), (shift, first.shift))))


class Arrival(NamedTuple):
    """Where a scaling ends up: a node that takes it in, or a ``Pad`` whose constant changes with it."""

    node: str
    scaling: Scaling | None
    layer: Layer | None = None


def scaling_of(layer: Layer, shape: Shape) -> Scaling | None:
    """Return what a layer scales by, None where it does anything else."""
    rank = len(shape)
    if isinstance(layer, BatchNorm):
        scale, shift = (v.reshape(-1, *(1,) * (rank - 1)) for v in layer.affine64())
        return Scaling(scale, shift)
    if isinstance(layer, Affine):
        given = (np.asarray(value, np.float64) for value in (layer.scale, layer.shift))
        return Scaling(*(v.reshape((1,) * (rank - v.ndim) + v.shape) for v in given))
    return None


def moved(layer: Layer, shape: Shape) -> NDArray[np.int64] | None:
    """Return which entry of the input each output is, -1 for a constant; None for a layer that does more than move."""
    if isinstance(layer, Movement):
        return layer.move(np.arange(product(shape), dtype=np.int64).reshape(shape))
    if isinstance(layer, Resize) and layer.mode == "nearest":
        return layer.taps(shape)[0].reshape(layer.output_shape(shape))
    return None


def carried_down(draft: Draft, value: str, taker: str, scaling: Scaling) -> list[Arrival] | None:
    """Return what takes in the scaling of a value that nothing else reads: layers with weights, or scalings.

    None where no such layer makes all of the value, or the scaling would not be exact there. ``taker`` is the node
    that the scaling comes from; others may read entries that do not matter to it.
    """
    alone = _left_to_others(draft, value, taker, scaling) if value in draft.layers else None
    if alone is None:
        return None
    layer, inputs, scaling = draft.layers[value], draft.inputs[value], alone
    if isinstance(layer, Weighted | Affine | BatchNorm):
        return [Arrival(value, scaling)]
    if isinstance(layer, Concat):
        return _gathered(
            carried_down(draft, source, value, part)
            for source, part in zip(inputs, _parted(draft, layer, inputs, draft.shapes[value], scaling), strict=True)
        )
    below = _below(layer, draft.shapes[inputs[0]], draft.shapes[value], scaling) if len(inputs) == 1 else None
    if below is None:
        return None
    changed, scaling = below
    rest = carried_down(draft, inputs[0], value, scaling)
    return rest if rest is None or changed is None else [Arrival(value, None, changed), *rest]


def _left_to_others(draft: Draft, value: str, taker: str, scaling: Scaling) -> Scaling | None:
    """Return the scaling where what others read stays as it is; None where they read what is scaled."""
    others = list(draft.takers(value))
    others.remove(taker)
    if not others and not draft.is_output(value):
        return scaling
    if draft.is_output(value):
        return None
    shape = draft.shapes[value]
    read = np.zeros(product(shape), bool)
    for other in dict.fromkeys(others):
        index = moved(draft.layers[other], shape) if len(draft.inputs[other]) == 1 else None
        if index is None:
            return None
        read[index[index >= 0]] = True
    scale, shift = (v.reshape(-1) for v in scaling.whole(shape))
    if not np.isnan(scale[read]).all():
        return None
    return Scaling(np.where(read, 1.0, scale).reshape(shape), np.where(read, 0.0, shift).reshape(shape))


def carried_up(draft: Draft, value: str, scaling: Scaling) -> list[Arrival] | None:
    """Return the layers with weights that take in the scaling of a value; None where anything else reads it."""
    if draft.is_output(value):
        return None
    found: list[list[Arrival] | None] = []
    for taker in dict.fromkeys(draft.takers(value)):
        layer, inputs, shape = draft.layers[taker], draft.inputs[taker], draft.shapes[value]
        if isinstance(layer, Weighted):
            found.append([Arrival(taker, scaling)])
        elif isinstance(layer, Concat):
            found.append(carried_up(draft, taker, _embedded(draft, layer, inputs, value, scaling)))
        else:
            above = _above(layer, shape, scaling) if len(inputs) == 1 else None
            rest = None if above is None else carried_up(draft, taker, above[1])
            changed = [] if above is None or above[0] is None else [Arrival(taker, None, above[0])]
            found.append(None if rest is None else [*changed, *rest])
        if found[-1] is None:
            return None
    return _gathered(iter(found))


def _gathered(parts: Iterator[list[Arrival] | None]) -> list[Arrival] | None:
    arrivals: list[Arrival] = []
    for part in parts:
        if part is None:
            return None
        arrivals += part
    return arrivals


def _parted(draft: Draft, layer: Concat, inputs: tuple[str, ...], shape: Shape, scaling: Scaling) -> list[Scaling]:
    axis = layer.axis % len(shape)
    ends = np.cumsum([draft.shapes[source][axis] for source in inputs])[:-1]
    pieces = [
        np.split(v, ends, axis=axis) if v.shape[axis] > 1 else [v] * len(inputs) for v in (scaling.scale, scaling.shift)
    ]
    return [Scaling(scale, shift) for scale, shift in zip(*pieces, strict=True)]


def _embedded(draft: Draft, layer: Concat, inputs: tuple[str, ...], value: str, scaling: Scaling) -> Scaling:
    axis = layer.axis % len(draft.shapes[value])
    parts = []
    for source in inputs:
        shape = draft.shapes[source]
        parts.append(scaling.whole(shape) if source == value else Scaling(np.ones(shape), np.zeros(shape)))
    return Scaling(*(np.concatenate(pieces, axis=axis) for pieces in zip(*parts, strict=True)))


def _below(layer: Layer, below: Shape, above: Shape, scaling: Scaling) -> tuple[Layer | None, Scaling] | None:
    """Return the scaling of what a moving layer takes, and the layer where its constant changes."""
    if isinstance(layer, Transpose):
        return None, Scaling(*(v.transpose(np.argsort(layer.permutation)) for v in scaling))
    index = moved(layer, below)
    if index is None:
        return None
    changed: Layer | None = None
    whole = scaling.whole(above)
    outside = (index < 0) & ~np.isnan(whole.scale)
    if outside.any():
        fill = np.broadcast_to(getattr(layer, "fill", 0.0), above)
        constants = np.where(outside, fill * whole.scale + whole.shift, fill)
        if np.any(constants != fill):
            if not isinstance(layer, Pad) or not np.isfinite(constants[outside]).all():
                return None
            changed = replace(layer, value=_constant(constants, outside))
    put = []
    for array in whole:
        read = (index >= 0) & ~np.isnan(array)
        at, values = index[read], array[read]
        to = np.full(product(below), np.nan)
        to[at] = values
        if np.any(to[at] != values):  # an entry that is there twice, scaled in two ways
            return None
        put.append(to.reshape(below))
    return changed, Scaling(*put)


def _constant(constants: Array, where: NDArray[np.bool_]) -> float | Array:
    """Return the number that stands in some places, or where they differ an array with zeros elsewhere."""
    several = np.unique(constants[where])
    return float(several[0]) if len(several) == 1 else np.where(where, constants, 0.0)


def _above(layer: Layer, below: Shape, scaling: Scaling) -> tuple[Layer | None, Scaling] | None:
    """Return the scaling of what a moving layer makes, none where it puts zeros, and the layer if its constant changes.

    A constant other than zero is made the one that the scaling makes it of, so that its channel is scaled throughout.
    """
    if isinstance(layer, Transpose):
        return None, Scaling(*(v.transpose(layer.permutation) for v in scaling))
    index = moved(layer, below)
    if index is None:
        return None
    scale, shift = (np.ascontiguousarray(v).reshape(-1)[index] for v in scaling.whole(below))
    outside = index < 0
    fill = np.broadcast_to(getattr(layer, "fill", 0.0), index.shape)
    if not np.any(fill[outside]):  # a factor does nothing to a constant of zero
        return None, Scaling(np.where(outside, np.nan, scale), np.where(outside, 0.0, shift))
    if not isinstance(layer, Pad) or layer.widths[0] != (0, 0) or any(n != 1 for v in scaling for n in v.shape[1:]):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        constants = (fill - scaling.shift) / scaling.scale
    if not np.isfinite(constants[outside]).all():
        return None
    return replace(layer, value=_constant(constants, outside)), scaling
