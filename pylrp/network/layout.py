"""Where the entries of a value lie: logical shapes have channels first, the core stores channels last or as it serves.

The *stored order* of a value names its logical axes in the order in which the core stores them, flat, the last one
contiguous. Layers describe themselves to the core by these functions, ``orders.py`` chooses. Unless a layer says
otherwise, a value of logical shape ``(d0, d1, ..., dk)`` lies there as ``(d1, ..., dk, d0)``: channels last. Users may
have channels last, too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Order",
    "as_it_is",
    "batch_from_core",
    "batch_to_core",
    "channels_last",
    "channels_moved_first",
    "channels_moved_last",
    "from_core",
    "moving_call",
    "positions",
    "regrouped",
    "repeated_steps",
    "steps",
    "stored",
    "to_core",
    "with_channels_first",
    "with_channels_last",
    "with_other_order",
]

Array = NDArray[Any]
Shape = tuple[int, ...]
#: Logical axes in the order in which the core stores them.
Order = tuple[int, ...]


def channels_last(rank: int) -> Order:
    """Return the usual stored order of a value with so many axes."""
    return with_channels_last(tuple(range(rank)))


def as_it_is(rank: int) -> Order:
    """Return the stored order that is the logical one."""
    return tuple(range(rank))


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


def stored(values: Array, order: Order | None = None) -> Array:
    """Return a view of an array of a logical shape with its axes in the stored order, channels last by default."""
    return values.transpose(channels_last(values.ndim) if order is None else order)


def to_core(values: Array, order: Order | None = None) -> Array:
    """Return an array of a logical shape as the core stores it, flat."""
    return np.ascontiguousarray(stored(values, order)).reshape(-1)


def from_core(flat: Array, shape: Shape, order: Order | None = None) -> Array:
    """Return a core's flat array in its logical shape."""
    order = channels_last(len(shape)) if order is None else order
    return flat.reshape([shape[axis] for axis in order]).transpose(np.argsort(order)) if shape else flat.reshape(())


def batch_to_core(values: Array) -> Array:
    """Return an array of shape ``(batch, *logical shape)`` as the core stores it, ``(batch, size)``."""
    return np.ascontiguousarray(channels_moved_last(values, 1)).reshape(len(values), -1)


def batch_from_core(flat: Array, shape: Shape) -> Array:
    """Return a core's ``(batch, size)`` as ``(batch, *shape)``."""
    return channels_moved_first(flat.reshape(len(flat), *with_channels_last(shape)), 1)


def positions(shape: Shape, order: Order | None = None) -> NDArray[np.int64]:
    """Return where the core stores each entry of a logical shape."""
    return from_core(np.arange(math.prod(shape)), shape, order)


def steps(shape: Shape, order: Order | None = None) -> tuple[int, ...]:
    """Return for each axis of a logical shape how far apart its entries lie in the core."""
    found, step = [1] * len(shape), 1
    for axis in reversed(channels_last(len(shape)) if order is None else order):
        found[axis] = step
        step *= shape[axis]
    return tuple(found)


def regrouped(shape: Shape, order: Order, into: Shape) -> Order | None:
    """Return the stored order of a value that is cut into other axes without moving anything, or None if that can't be.

    Parameters
    ----------
    shape, order
        Of the value as it is.
    into : tuple of int
        The other logical shape, with as many entries.
    """
    made: dict[int, Order] = {}  # by the first of the axes that become these
    old = [axis for axis, n in enumerate(shape) if n > 1]
    new = [axis for axis, n in enumerate(into) if n > 1]
    places = [axis for axis in order if shape[axis] > 1]
    order = tuple(axis for axis, n in enumerate(into) if n == 1)
    while old:
        ours, theirs = [old.pop(0)], [new.pop(0)]
        here, there = shape[ours[0]], into[theirs[0]]
        while here != there:
            if here < there:
                ours.append(old.pop(0))
                here *= shape[ours[-1]]
            else:
                theirs.append(new.pop(0))
                there *= into[theirs[-1]]
        first = places.index(ours[0])
        if places[first : first + len(ours)] != ours:
            return None
        made[ours[0]] = tuple(theirs)
    return (*order, *(axis for place in places for axis in made.get(place, ())))


def repeated_steps(shape: Shape, order: Order | None = None) -> tuple[int, ...]:
    """Return the same with 0 along axes of one entry, which broadcasting repeats."""
    return tuple(0 if length == 1 else step for length, step in zip(shape, steps(shape, order), strict=True))
