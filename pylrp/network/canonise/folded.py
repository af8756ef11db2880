"""Layers with weights that have taken in scalings, before or after them: their weights and biases, in float64.

A shift before a convolution does not reach the padding; the bias that it makes then differs from place to place.
``scalings.py`` finds out which scalings a layer takes in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Conv, ConvTranspose, Dense, Shape
from pylrp.layers.conv import Weighted
from pylrp.network.canonise.carrying import Scaling

__all__ = ["after", "before", "per_channel", "scaled_outputs", "total"]

Array = NDArray[Any]


def per_channel(array: Array, shape: Shape, default: float) -> Array | None:
    """Return one number a channel, None where an array that broadcasts to a shape has several; ``default`` for NaN."""
    rows = array.reshape(len(array), -1)
    nowhere = np.isnan(rows)
    first = rows[np.arange(len(rows)), nowhere.argmin(axis=1)]  # of those that matter
    if not np.all((rows == first[:, None]) | nowhere):
        return None
    return np.broadcast_to(np.where(np.isnan(first), default, first), shape[:1])


def after(layer: Weighted, bias: Array | None, scaling: Scaling, shape: Shape) -> tuple[Array, Array] | None:
    """Return factors of a layer's rows and its bias for ``scaling`` of its output; None where they can't do that."""
    factors = per_channel(scaling.scale, shape, 1.0)
    if factors is None or (isinstance(layer, Dense) and len(shape) != 1):
        return None
    given = np.zeros(shape[0]) if bias is None else bias
    shift = per_channel(scaling.shift, shape, 0.0)
    if shift is None:  # what does not matter is as good as anything
        shift = np.nan_to_num(np.broadcast_to(scaling.shift, shape))
    return factors, total(given * _channels(factors, given.ndim), shift)


def total(first: Array, second: Array) -> Array:
    """Return the sum of two biases, each one number a channel or an entry."""
    rank = max(first.ndim, second.ndim)
    return _channels(first, rank) + _channels(second, rank)


def _channels(array: Array, rank: int) -> Array:
    return array if array.ndim == rank else array.reshape(-1, *(1,) * (rank - 1))


def before(layer: Weighted, weight: Array, scaling: Scaling, shapes: tuple[Shape, Shape]) -> tuple[Array, Array] | None:
    """Return the weight for inputs that are no longer scaled, and what the shift adds to the bias; None: not exact."""
    below, above = shapes
    factors = per_channel(scaling.scale, below, 1.0)
    if factors is None:
        return None
    if isinstance(layer, Dense):
        return weight * factors, weight @ np.broadcast_to(scaling.shift, below)
    shift = per_channel(scaling.shift, below, 0.0)
    shifts = np.broadcast_to(scaling.shift, below) if shift is None else shift
    added = _convolved(layer, weight, shifts, shapes)
    constant = per_channel(added, above, 0.0)
    return _scaled_inputs(layer, weight, factors), added if constant is None else constant


def scaled_outputs(layer: Weighted, weight: Array, factors: Array) -> Array:
    """Return a weight with each output channel scaled."""
    if not isinstance(layer, ConvTranspose):
        return weight * _channels(factors, weight.ndim)
    into, out = weight.shape[:2]  # (in, out / groups, *kernel): the same in every row of a group
    spread = np.repeat(factors.reshape(layer.groups, out), into // layer.groups, axis=0)
    scaled: Array = weight * spread.reshape(into, out, *(1,) * (weight.ndim - 2))
    return scaled


def _scaled_inputs(layer: Conv | ConvTranspose, weight: Array, factors: Array) -> Array:
    if isinstance(layer, ConvTranspose):
        return weight * _channels(factors, weight.ndim)
    # Group g of the outputs sees group g of the inputs: one row of factors for each output.
    rows = np.repeat(factors.reshape(layer.groups, -1), len(weight) // layer.groups, axis=0)
    scaled: Array = weight * rows.reshape(*rows.shape, *(1,) * (weight.ndim - 2))
    return scaled


def _convolved(layer: Conv | ConvTranspose, weight: Array, x: Array, shapes: tuple[Shape, Shape]) -> Array:
    """Return what a convolution makes of x, (channels, *spatial) or one number a channel; zeros are around it."""
    (_, *space), (_, *out) = shapes
    transposed = isinstance(layer, ConvTranspose)
    total = np.zeros((layer.groups, shapes[1][0] // layer.groups, *out))
    small, large = (space, out) if transposed else (out, space)
    parts = x.reshape(layer.groups, -1, *x.shape[1:])
    kernel = weight.reshape(layer.groups, len(weight) // layer.groups, *weight.shape[1:])
    pads = layer.pads(shapes[0])
    for tap in np.ndindex(*layer.kernel):
        # Entry i of the smaller side meets entry i * stride + offset of the larger one, where that is inside.
        offsets = [t * d - low for t, d, (low, _) in zip(tap, layer.dilation, pads, strict=True)]
        of_small, of_large = [], []
        for n, m, offset, step in zip(small, large, offsets, layer.stride, strict=True):
            first, last = -(min(offset, 0) // step), min(n, (m - 1 - offset) // step + 1)
            of_small.append(slice(first, max(first, last)))
            of_large.append(
                slice(first * step + offset, max((last - 1) * step + offset + 1, first * step + offset), step)
            )
        read, written = (of_small, of_large) if transposed else (of_large, of_small)
        values = parts if x.ndim == 1 else parts[(slice(None), slice(None), *read)]
        one = kernel[(..., *tap)]
        made = np.einsum("gio,gi...->go..." if transposed else "goi,gi...->go...", one, values)
        rank = total.ndim - made.ndim
        total[(slice(None), slice(None), *written)] += made.reshape(*made.shape, *(1,) * rank)
    return total.reshape(shapes[1])
