"""Regions of an input, squares of pixels or single features, and their ranking by relevance; for ``flipping.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.evaluate.evaluated_batch import Array, EvaluatedBatch, Values
from pylrp.layers.base import Shape, per_axis
from pylrp.network.layout import channels_moved_last

__all__ = ["Index", "Order", "Regions", "ranked", "ranking", "relevance_of", "require_orders"]

Index = NDArray[np.intp]
#: In which regions are replaced: the most or the least relevant ones first, or random ones.
Order = Literal["most", "least", "random"]


@dataclass(frozen=True)
class Regions:
    """A partition of the input's pixels.

    Attributes
    ----------
    members : ndarray of shape (regions, largest), intp
        Positions in a flat sample. A region at the edge has fewer: its last one is repeated.
    labels : ndarray of the spatial shape, intp
        The region of each pixel.
    """

    members: Index
    labels: Index
    _sorted: Index
    _starts: Index

    def __len__(self) -> int:
        return len(self.members)

    @classmethod
    def of(cls, evaluated: EvaluatedBatch, patch: int | Sequence[int]) -> Regions:
        """Return squares of ``patch`` pixels through all channels; of an input without positions its features."""
        shape = evaluated.shape
        spatial = shape[1:]
        if spatial:
            labels = _labels(spatial, per_axis(patch, len(spatial), "patch"))
            full = np.broadcast_to(labels, shape)
        else:
            if np.any(np.asarray(patch) != 1):
                raise ValueError(
                    f"patch is {patch}, but x has {shape[0]} features without neighbours: pass layout=(channels, "
                    "height, width) if they are an image's pixels"
                )
            labels = full = np.arange(shape[0])
        flat = (channels_moved_last(full) if evaluated.channels_last else full).reshape(-1)
        order = np.argsort(flat, kind="stable")
        sizes = np.bincount(flat)
        starts = np.cumsum(sizes) - sizes
        members = order[starts[:, None] + np.minimum(np.arange(sizes.max()), sizes[:, None] - 1)]
        return cls(members, labels, order, starts)

    def sums(self, relevance: Array) -> Values:
        """Return (batch, n) summed over each region: (batch, regions)."""
        if self.members.shape[1] == 1:
            return relevance[:, self.members[:, 0]]
        return np.asarray(np.add.reduceat(relevance[:, self._sorted], self._starts, axis=1))


def _labels(spatial: Shape, patch: tuple[int, ...]) -> Index:
    labels = np.zeros(spatial, np.intp)
    for axis, (n, p) in enumerate(zip(spatial, patch, strict=True)):
        along = np.arange(n) // p
        labels = labels * (along[-1] + 1) + along.reshape(-1, *(1,) * (len(spatial) - axis - 1))
    return labels


def relevance_of(evaluated: EvaluatedBatch, relevance: ArrayLike) -> Values:
    """Return relevance as (batch, n) in float64, in the order of the flat samples.

    It may have the input's shape or lack the channels, for which it is then the same.
    """
    given = np.asarray(relevance)
    batch = len(evaluated)
    if batch == 1 and given.shape in (evaluated.sample_shape, evaluated.shape[1:]):
        given = given[None]
    if given.shape == (batch, *evaluated.shape[1:]) and len(evaluated.shape) > 1:
        spread = np.broadcast_to(given[:, None], (batch, *evaluated.shape))
        given = channels_moved_last(spread, 1) if evaluated.channels_last else spread
    if given.shape not in ((batch, *evaluated.sample_shape), (batch, *evaluated.shape)):
        raise ValueError(f"relevance has shape {given.shape}, x has {(batch, *evaluated.sample_shape)}")
    values = given.reshape(batch, -1).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"relevance holds {np.count_nonzero(~np.isfinite(values))} values that are NaN or infinite")
    return values


def require_orders(orders: Sequence[str], repeats: int) -> None:
    """Raise ValueError where an order of replacement is not known, or random ones are not repeated."""
    for name in orders:
        if name not in ("most", "least", "random"):
            raise ValueError(f"order is {name!r}, expected 'most', 'least' or 'random'")
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, at least 1 random order is needed")


def ranked(values: Values, order: str, rng: np.random.Generator) -> Index:
    """Return the positions of each sample's values in an order of replacement: most or least first, or random."""
    signed = {"most": values, "least": -values}.get(order)
    return ranking(rng.random(values.shape) if signed is None else signed, rng)


def ranking(values: Values, rng: np.random.Generator) -> Index:
    """Return, for each sample, the positions of its values from the largest down; ties are broken at random.

    In the order of their positions, a map that is zero on the background would be ranked from the top left corner on.
    """
    shuffle = rng.permutation(values.shape[1])
    drawn = -values[:, shuffle]
    order = np.empty(drawn.shape, np.int64)
    tied = np.count_nonzero(drawn == 0, axis=1) > 1  # the common case, found cheaply
    order[~tied] = np.argsort(drawn[~tied], axis=1)
    ranked = np.take_along_axis(drawn[~tied], order[~tied], axis=1)
    tied[~tied] = (ranked[:, 1:] == ranked[:, :-1]).any(axis=1)
    order[tied] = np.argsort(drawn[tied], axis=1, kind="stable")  # slower, and the same on every processor
    return np.asarray(shuffle[order])
