"""Several linear layers as one sparse matrix: for each entry of a value, what it is made of.

``composition.py`` builds one for what lies between the input and the first layer with weights. Nothing here knows
rules. Structure and numbers are kept apart: an entry whose weights cancel to 0 is still connected.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Add, Affine, BatchNorm, Concat, Identity, Layer, Movement, Resize, Shape
from pylrp.layers.base import product
from pylrp.layers.pooling import Pool
from pylrp.network.graph import Graph, Node

__all__ = ["LinearMap", "TooLarge", "is_linear", "linear_map", "mixes", "scaling"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: At most so many entries of a matrix; about 50 bytes each while it is made.
MOST_ENTRIES = 1 << 24
_NOTHING = 1e-12  # a smaller weight of a resize is the rounding of its coordinates


class TooLarge(Exception):
    """A matrix would have too many entries."""

    def __init__(self, entries: int):
        super().__init__(entries)
        self.entries = entries


@dataclass(frozen=True)
class LinearMap:
    """A matrix by rows: row i holds ``weight[k]`` in column ``column[k]`` for k from ``begin[i]`` to ``begin[i + 1]``.

    Columns within a row differ.
    """

    begin: Ints
    column: Ints
    weight: Floats
    columns: int

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return len(self.begin) - 1

    def taken(self, index: Ints) -> tuple[Ints, Ints, Floats]:
        """Return the entries of these rows, -1 for an empty one: (place in ``index``, column, weight) each.

        Raises
        ------
        TooLarge
            If there are too many.
        """
        wanted = index.ravel()
        counts = np.where(wanted < 0, 0, np.diff(self.begin)[wanted])
        total = int(counts.sum())
        if total > MOST_ENTRIES:
            raise TooLarge(total)
        place = np.repeat(np.arange(len(wanted)), counts)
        ends = np.cumsum(counts)
        source = np.arange(total) + np.repeat(self.begin[wanted] - (ends - counts), counts)
        return place, self.column[source], self.weight[source]

    def moved(self, index: Ints) -> LinearMap:
        """Return the map whose row i is this one's row ``index[i]``."""
        place, column, weight = self.taken(index)
        return _sorted(place, column, weight, index.size, self.columns)

    def mixed(self, index: Ints, share: Floats) -> LinearMap:
        """Return the map whose row i is the sum of this one's rows ``index[i, k]`` times ``share[i, k]``."""
        place, column, weight = self.taken(index)
        row = place // index.shape[1]
        return _summed(row, column, weight * share.ravel()[place], len(index), self.columns)

    def scaled(self, factor: Floats) -> LinearMap:
        """Return the map with each row multiplied by a number."""
        return LinearMap(self.begin, self.column, self.weight * np.repeat(factor, np.diff(self.begin)), self.columns)


def identity(first: int, count: int, columns: int) -> LinearMap:
    """Return the map that takes ``count`` columns from ``first`` on."""
    return LinearMap(np.arange(count + 1), first + np.arange(count), np.ones(count), columns)


def _sorted(row: Ints, column: Ints, weight: Floats, rows: int, columns: int) -> LinearMap:
    """Return a map of entries that come row by row."""
    return LinearMap(np.searchsorted(row, np.arange(rows + 1)), column, weight, columns)


def _summed(row: Ints, column: Ints, weight: Floats, rows: int, columns: int) -> LinearMap:
    """Return a map of entries in any order; those of one place are added up."""
    key = row * columns + column
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    total = np.add.reduceat(weight[order], first) if len(first) else weight[:0]
    return _sorted(key[first] // columns, key[first] % columns, total, rows, columns)


def stacked(maps: Sequence[LinearMap]) -> LinearMap:
    """Return the map of all rows, one map's after the other's."""
    starts = np.cumsum([0, *(len(m.column) for m in maps)])
    begin = np.concatenate([m.begin[:-1] + start for m, start in zip(maps, starts, strict=False)] + [starts[-1:]])
    column, weight = (np.concatenate(parts) for parts in zip(*((m.column, m.weight) for m in maps), strict=True))
    return LinearMap(begin, column, weight, maps[0].columns)


def scaling(layer: Layer, shape: Shape) -> tuple[Floats, Floats] | None:
    """Return (scale, shift) of a BatchNorm or Affine in the logical shape of its input; None for other layers."""
    if isinstance(layer, BatchNorm):
        pair = [value.reshape(-1, *(1,) * (len(shape) - 1)) for value in layer.affine64()]
    elif isinstance(layer, Affine):
        pair = [np.asarray(value, np.float64) for value in (layer.scale, layer.shift)]
    else:
        return None
    scale, shift = (np.broadcast_to(value, shape) for value in pair)
    return scale, shift


def mixes(layer: Layer) -> bool:
    """Tell whether a layer without weights makes an entry of several others."""
    return isinstance(layer, Add) or layer.kind == "avgpool" or (isinstance(layer, Resize) and layer.mode == "linear")


def is_linear(layer: Layer) -> bool:
    """Tell whether a layer without weights is linear but for a constant."""
    return mixes(layer) or isinstance(layer, (Movement, Resize, Concat, Affine, BatchNorm, Identity))


def linear_map(graph: Graph, value: str, bases: Sequence[str], between: Collection[str], *, signs: bool) -> LinearMap:
    """Return what each entry of a value is made of: of which entries of ``bases``, one base after the other.

    Parameters
    ----------
    graph : Graph
    value : str
    bases : sequence of str
    between : collection of str
        The nodes from the bases to the value, all of them linear.
    signs : bool
        Of a scaling's factors take the sign only.

    Raises
    ------
    TooLarge
        If the matrix would have too many entries.
    """
    sizes = [product(graph.shapes[base]) for base in bases]
    starts = np.cumsum([0, *sizes])
    made = {
        base: identity(int(first), size, int(starts[-1]))
        for base, first, size in zip(bases, starts, sizes, strict=False)
    }
    for node in graph.nodes:
        if node.name in between:
            made[node.name] = _applied(node, [made[below] for below in node.inputs], graph, signs)
    return made[value]


def _applied(node: Node, maps: list[LinearMap], graph: Graph, signs: bool) -> LinearMap:
    shapes = [graph.shapes[below] for below in node.inputs]
    layer = node.layer
    pair = scaling(layer, shapes[0])
    if pair is not None:
        # A factor of 0 stays one: the entries below are connected all the same.
        return maps[0].scaled(np.ravel(np.sign(pair[0]) if signs else pair[0]))
    if isinstance(layer, Identity):
        return maps[0]
    if isinstance(layer, Add):
        rows = product(shapes[0])
        index = np.arange(rows * len(maps)).reshape(len(maps), rows).T
        return stacked(maps).mixed(index, np.ones(index.shape))
    if isinstance(layer, Concat):
        starts = np.cumsum([0, *map(product, shapes)])
        places = [first + _places(shape) for first, shape in zip(starts, shapes, strict=False)]
        return stacked(maps).moved(np.concatenate(places, axis=layer.axis))
    if isinstance(layer, Pool):
        return maps[0].mixed(*_windows(layer, shapes[0]))
    if isinstance(layer, Resize) and layer.mode == "linear":
        index, share = layer.taps(shapes[0])
        return maps[0].mixed(np.where(np.abs(share) > _NOTHING, index, -1), share)
    assert isinstance(layer, (Movement, Resize))
    return maps[0].moved(layer.move(_places(shapes[0])))


def _places(shape: Shape) -> Ints:
    return np.arange(product(shape)).reshape(shape)


def _windows(layer: Pool, shape: Shape) -> tuple[Ints, Floats]:
    """Return the entries that each average is made of, and their shares: (averages, most in a window) each."""
    index, share = np.zeros((1, 1), np.int64), np.ones((1, 1))
    for axis, size in zip(layer.windows(shape), shape[1:], strict=True):
        most = int(max((axis.end - 1 - axis.begin) // axis.step)) + 1
        at = axis.begin[:, None] + axis.step * np.arange(most)
        inside = at < axis.end[:, None]
        # (windows so far, new windows, taps so far, new taps)
        new = index[:, None, :, None] * size + at[None, :, None, :]
        known = (index[:, None, :, None] >= 0) & inside[None, :, None, :]
        spread = share[:, None, :, None] / axis.divisor[None, :, None, None]
        count, taps = len(index) * len(at), index.shape[1] * most
        if count * taps * shape[0] > MOST_ENTRIES:
            raise TooLarge(count * taps * shape[0])
        index = np.where(known, new, -1).reshape(count, taps)
        share = np.broadcast_to(spread, known.shape).reshape(count, taps)
    places = product(shape[1:])
    channel = np.arange(shape[0])[:, None, None] * places
    every = np.where(index >= 0, channel + index, -1).reshape(-1, index.shape[1])
    return every, np.tile(share, (shape[0], 1))
