"""The entries of ``J = W L``: what each position of a layer is connected to, and which positions have equal weights.

``composition.py`` writes them as layers. A position is one place of a layer's output, all channels of a group at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Conv, ConvTranspose, Shape
from pylrp.network.linear_map import MOST_ENTRIES, LinearMap

__all__ = ["JointTaps", "connected", "matrix"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def matrix(layer: Conv | ConvTranspose, group: int) -> Floats:
    """Return a group's weights as (channels out, channels in * taps)."""
    weight = np.asarray(layer.weight, np.float64)
    by_group = weight.reshape(layer.groups, -1, *weight.shape[1:])[group]
    if isinstance(layer, ConvTranspose):
        by_group = by_group.swapaxes(0, 1)
    rows: Floats = by_group.reshape(len(by_group), -1)
    return rows


def connected(layer: Conv | ConvTranspose, below: Shape, above: Shape) -> Ints:
    """Return which place of the input each tap of the kernel sees, -1 for none: (positions, taps)."""
    index, places = np.zeros((1, 1), np.int64), zip(layer.pads(below), below[1:], above[1:], strict=True)
    for axis, ((low, _), size, count) in enumerate(places):
        at = np.arange(count)[:, None]
        tap = np.arange(layer.kernel[axis]) * layer.dilation[axis]
        if isinstance(layer, ConvTranspose):
            stride = layer.stride[axis]
            place, rest = np.divmod(at + low - tap, stride)
            place = np.where(rest == 0, place, -1)
        else:
            place = at * layer.stride[axis] - low + tap
        inside = (place >= 0) & (place < size)
        new = index[:, None, :, None] * size + place[None, :, None, :]
        known = (index[:, None, :, None] >= 0) & inside[None, :, None, :]
        index = np.where(known, new, -1).reshape(len(index) * count, -1)
    return index


class JointTaps:
    """The entries of J for one group of channels: which base entry each position sees, by which taps and shares.

    Parameters
    ----------
    below : LinearMap
        The layer's input, row by row.
    rows : ndarray of int, shape (positions, taps)
        Which row of it each tap of the layer sees, -1 for none.
    """

    def __init__(self, below: LinearMap, rows: Ints):
        place, column, share = below.taken(rows)
        position, tap = np.divmod(place, rows.shape[1])
        order = np.lexsort((tap, column, position))
        position, column = position[order], column[order]
        self._tap, self._share = tap[order], share[order]
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(position) != 0) | (np.diff(column) != 0)
        self._first = np.append(np.flatnonzero(new), len(order))  # of each entry of J, in the list of taps
        first = self._first[:-1]
        symbols = _classes(self._tap, _rounded(self._share))
        kind = _classes(*_sums(symbols, np.cumsum(new) - 1, len(first)))
        # Within a position entries of one kind stand together, so that positions with equal weights agree in order.
        self._entry = np.lexsort((kind, position[first]))
        self._column = column[first][self._entry]
        self.counts = np.bincount(position[first], minlength=len(rows))
        self._begin = np.cumsum([0, *self.counts])
        self._class = _classes(self.counts, *_sums(kind, position[first], len(rows)))

    def classes(self) -> list[Ints]:
        """Return the positions that have equal weights, but for those that nothing reaches."""
        order = np.argsort(self._class, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(self._class[order])) + 1)
        return [part for part in parts if self.counts[part[0]]]

    def places(self, positions: Ints) -> Ints:
        """Return (entries, positions): the places in the bases that positions with equally many entries see."""
        index = self._begin[positions] + np.arange(self.counts[positions[0]])[:, None]
        found: Ints = self._column[index]
        return found

    def weights(self, position: int, weight: Floats) -> Floats:
        """Return J's rows for a position, (channels out, entries), of weights (channels out, taps)."""
        entries = self._entry[self._begin[position] : self._begin[position + 1]]
        starts, lengths = self._first[entries], self._first[entries + 1] - self._first[entries]
        ends = np.cumsum(lengths)
        at = np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)
        entry = np.repeat(np.arange(len(entries)), lengths)
        columns = np.zeros((len(weight), len(entries)))
        step = max(MOST_ENTRIES // weight.shape[1], 1)
        for first in range(0, len(entries), step):
            some = slice(*np.searchsorted(entry, [first, first + step]))
            spread = np.zeros((weight.shape[1], min(step, len(entries) - first)))
            spread[self._tap[at[some]], entry[some] - first] = self._share[at[some]]
            columns[:, first : first + step] = weight @ spread
        return columns


def _rounded(values: Floats) -> Floats:
    """Return numbers of which those agree that differ by rounding only."""
    largest = float(np.abs(values).max(initial=0)) or 1.0
    rounded: Floats = np.round(values / largest, 13)
    return rounded


def _classes(*keys: Array) -> Ints:
    """Return one number for each entry, the same where all keys are the same."""
    order = np.lexsort(keys)
    new = np.zeros(len(order), bool)
    for key in keys:
        new[1:] |= np.diff(key[order]) != 0
    found = np.empty(len(order), np.int64)
    found[order] = np.cumsum(new)
    return found


def _sums(numbers: Ints, owner: Ints, owners: int) -> tuple[Array, Array]:
    """Return two sums for each owner that tell the collections of its numbers apart.

    Each number is replaced by 64 random bits, twice over: the sums of two different collections agree by chance once in
    2 to the 128.
    """
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**64, (2, int(numbers.max(initial=0)) + 1), dtype=np.uint64)
    sums = np.zeros((2, owners), np.uint64)
    for code, total in zip(codes, sums, strict=True):
        np.add.at(total, owner, code[numbers])
    return sums[0], sums[1]
