"""Where the entries of a value lie: logical shapes have channels first, the core stores channels last.

A value of logical shape ``(d0, d1, ..., dk)`` lies in the core as ``(d1, ..., dk, d0)``, flat. Layers describe
themselves to the core by these functions. Users may have channels last, too: the only place that turns axes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "batch_from_core",
    "batch_to_core",
    "channel_count",
    "channels_moved_first",
    "channels_moved_last",
    "from_core",
    "moving_call",
    "positions",
    "repeated_steps",
    "steps",
    "to_core",
    "with_channels_first",
    "with_channels_last",
    "with_other_order",
]

Array = NDArray[Any]
Shape = tuple[int, ...]


def with_channels_last(shape: Shape) -> Shape:
    """Return a logical shape in the order of axes that has channels last."""
    return (*shape[1:], *shape[:1])


def with_channels_first(shape: Shape) -> Shape:
    """Return the logical shape of one that has channels last."""
    return (*shape[-1:], *shape[:-1])


def with_other_order(shape: Shape, channels_last: bool) -> Shape:
    """Return a user's shape as it is with the channels at its other end."""
    return with_channels_first(shape) if channels_last else with_channels_last(shape)


def moving_call(axes: int, channels_last: bool) -> str:
    """Return the call that brings a user's channels from the other end of a sample with so many axes."""
    source, destination = (-axes, -1) if channels_last else (-1, -axes)
    return f"numpy.moveaxis(x, {source}, {destination})"


def channels_moved_last(values: Array, axis: int = 0) -> Array:
    """Return a view with the channels' axis last: 0 in a logical shape, 1 in a batch."""
    return np.moveaxis(values, axis, -1)


def channels_moved_first(values: Array, axis: int = 0) -> Array:
    """Return a view with the last axis, the channels, where a logical shape (0) or a batch (1) has them."""
    return np.moveaxis(values, -1, axis)


def to_core(values: Array) -> Array:
    """Return an array of a logical shape as the core stores it, flat."""
    return np.ascontiguousarray(channels_moved_last(values) if values.ndim else values).reshape(-1)


def from_core(flat: Array, shape: Shape) -> Array:
    """Return a core's flat array in its logical shape."""
    return channels_moved_first(flat.reshape(with_channels_last(shape))) if shape else flat.reshape(())


def batch_to_core(values: Array) -> Array:
    """Return an array of shape ``(batch, *logical shape)`` as the core stores it, ``(batch, size)``."""
    return np.ascontiguousarray(channels_moved_last(values, 1)).reshape(len(values), -1)


def batch_from_core(flat: Array, shape: Shape) -> Array:
    """Return a core's ``(batch, size)`` as ``(batch, *shape)``."""
    return channels_moved_first(flat.reshape(len(flat), *with_channels_last(shape)), 1)


def positions(shape: Shape) -> NDArray[np.int64]:
    """Return where the core stores each entry of a logical shape."""
    return from_core(np.arange(math.prod(shape)), shape)


def steps(shape: Shape) -> tuple[int, ...]:
    """Return for each axis of a logical shape how far apart its entries lie in the core."""
    found = [1] * len(shape)
    for axis in range(len(shape) - 2, 0, -1):
        found[axis] = found[axis + 1] * shape[axis + 1]
    if len(shape) > 1:  # axis 0 is stored last
        found = [1, *(step * shape[0] for step in found[1:])]
    return tuple(found)


def repeated_steps(shape: Shape) -> tuple[int, ...]:
    """Return the same with 0 along axes of one entry, which broadcasting repeats."""
    return tuple(0 if length == 1 else step for length, step in zip(shape, steps(shape), strict=True))


def channel_count(shape: Shape) -> int:
    """Return the length of a logical shape's first axis; 1 for a single number."""
    return shape[0] if shape else 1
