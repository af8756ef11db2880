"""The axes of a file's value in the network's order.

A network's value has the batch first, and its other axes as the file has them or with channels turned. A file may have
the batch on any axis, or merged with axes beside it, as in (batch * heads, tokens, width). Which it is shows in the
values themselves: of the orders that fit a shape, the one with the smallest difference is right; relevance then has the
same. ``against.py`` asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from pylrp.verify.program import Array

__all__ = ["Alignment", "Errors", "largest_error"]

Order = Callable[[Array], Array]
_CLOSED = -1e30  # what a mask takes away: any number this small is as good as -inf


def largest_error(ours: Array, theirs: Array) -> float | None:
    """Return the largest difference as a share of the sample's largest entry; None where the sizes don't fit."""
    if ours.size != theirs.size or len(ours) != len(theirs):
        return None
    ours, theirs = ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)
    if not ours.size:
        return 0.0
    closed = (ours < _CLOSED) & (theirs < _CLOSED)
    with np.errstate(invalid="ignore"):
        difference = np.where(closed | (ours == theirs), 0.0, np.abs(ours - theirs)).max(axis=1)
    scale = np.where(np.isfinite(theirs) & ~closed, np.abs(theirs), 0.0).max(axis=1)
    error = np.divide(difference, scale, out=np.where(difference == 0, 0.0, np.inf), where=scale != 0)
    return float(np.where(np.isnan(error), np.inf, error).max())


@dataclass
class Errors:
    """The largest error of each value so far."""

    found: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, ours: Array, theirs: Array) -> None:
        """Take the error of a batch of samples."""
        error = largest_error(ours, theirs)
        if error is not None:
            self.found[name] = max(self.found.get(name, 0.0), error)


@dataclass
class Alignment:
    """The orders found so far, by the network's value."""

    orders: dict[str, Order | None] = field(default_factory=dict)

    def find(self, name: str, ours: Array, theirs: Array, axis: int | None, *, moved: bool = False) -> Array | None:
        """Return the file's value as the network has it, (batch, ...), and keep how; None where no order fits.

        Parameters
        ----------
        name : str
        ours : ndarray of shape (batch, *shape)
        theirs : ndarray
        axis : int or None
            The axis that holds the batch, alone or merged with others; None where it is not known.
        moved : bool, default False
            The layer is there to move values: its axes are as it says if they fit.
        """
        if name not in self.orders:
            first = theirs.ndim > 0 and theirs.shape[0] == len(ours) and axis in (0, None)
            fits = list(_orders(len(ours), ours.shape, theirs.shape, axis, first=first))
            fits = fits[:1] if moved and first and ours.shape == theirs.shape else fits
            errors = [largest_error(ours, order(theirs)) for order in fits]
            ranked = sorted(range(len(fits)), key=lambda i: np.inf if errors[i] is None else float(errors[i] or 0.0))
            self.orders[name] = fits[ranked[0]] if fits else None
        return self.again(name, theirs)

    def again(self, name: str, theirs: Array) -> Array | None:
        """Return another array of the file's value, its relevance, in the order that was found."""
        order = self.orders.get(name)
        return None if order is None else order(theirs)

    def placed(self, name: str, ours: Array, shape: tuple[int, ...]) -> Array:
        """Return an array of the network's value in the order of the file's."""
        numbers = self.again(name, np.arange(ours.size).reshape(shape))
        if numbers is None:
            return ours.reshape(shape)
        made = np.empty(ours.size)
        made[numbers.ravel()] = ours.ravel()
        return made.reshape(shape)

    def is_plain(self, name: str, theirs: Array) -> bool:
        """Tell whether the order is the file's own."""
        made = self.again(name, np.arange(theirs.size).reshape(theirs.shape))
        return made is not None and made.shape[0] == theirs.shape[0] and bool((np.diff(made.ravel()) == 1).all())


def _orders(
    batch: int, ours: tuple[int, ...], theirs: tuple[int, ...], known: int | None, *, first: bool
) -> Iterator[Order]:
    axes = len(theirs)
    if np.prod(ours) != np.prod(theirs):
        return
    if first:
        for order in ((0, *range(1, axes)), (0, axes - 1, *range(1, axes - 1)), (0, *range(2, axes), 1)):
            if len(order) == axes and tuple(theirs[i] for i in order) == ours:
                yield partial(_turned, split=theirs, order=order, shape=ours)
        yield partial(_turned, split=theirs, order=tuple(range(axes)), shape=(batch, -1))
        if axes > _MATRICES:  # matrices, each transposed: rows are channels of a group
            yield partial(_turned, split=theirs, order=(*range(axes - 2), axes - 1, axes - 2), shape=(batch, -1))
    for axis, size in enumerate(theirs):
        if known not in (None, axis):
            continue
        for before in _factors(size, batch):
            split = (*theirs[:axis], before, batch, size // batch // before, *theirs[axis + 1 :])
            rest = tuple(i for i in range(len(split)) if i != axis + 1)
            transposed = rest[:-2] + rest[-1:] + rest[-2:-1]
            steps_second = rest[:1] + rest[2:3] + rest[1:2] + rest[3:]  # behind the channels
            for order in (rest, rest[-1:] + rest[:-1], rest[1:] + rest[:1], transposed, steps_second):
                yield partial(_turned, split=split, order=(axis + 1, *order), shape=(batch, -1))


def _turned(array: Array, split: tuple[int, ...], order: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    return array.reshape(split).transpose(order).reshape(shape)


def _factors(size: int, batch: int) -> list[int]:
    """Return how many of a size that the batch is merged into may lie in front of it."""
    rest = size // batch if batch and size % batch == 0 else 0
    return [n for n in range(1, rest + 1) if rest % n == 0][:_MOST_FACTORS]


_MOST_FACTORS = 16
_MATRICES = 3  # axes, the batch among them
