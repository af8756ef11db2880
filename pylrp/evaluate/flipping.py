"""Region perturbation (pixel flipping): replace regions by relevance and record the class's score; insertion, deletion.

Orders of all samples are computed at once, changed samples queue up in one buffer, and whenever it is full the compiled
core predicts it. A sample that a step did not change is not predicted again. Through a network that begins with a dense
layer ``first_layer.py`` has a faster way. ``curves.py`` has the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.evaluate.curves import Curves, InsertionDeletion
from pylrp.evaluate.evaluated_batch import Array, EvaluatedBatch, Progress, Score, Values, chunk_of, quiet
from pylrp.evaluate.first_layer import FirstLayer
from pylrp.evaluate.regions import Index, Order, Regions, ranked, relevance_of, require_orders
from pylrp.evaluate.replacement import Inpainter, Replacement, constant
from pylrp.layers.base import Shape
from pylrp.network.network import Network

__all__ = ["insertion_deletion", "pixel_flipping"]

_TOLERANCE = 1e-5
# One state of all samples after another, and which samples differ from their state before.
States = Iterator[tuple[Array, Index]]


def pixel_flipping(
    net: Network,
    x: ArrayLike,
    relevance: ArrayLike,
    *,
    target: int | ArrayLike | None = None,
    steps: int = 100,
    patch: int | Sequence[int] = 1,
    until: float = 1.0,
    order: Sequence[Order] = ("most", "least", "random"),
    replacement: Replacement = "mean",
    score: Score = "logit",
    repeats: int = 3,
    layout: Shape | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Curves:
    """Replace regions of the input in the order of their relevance, and record the class's score.

    If the map is right, the score falls fast with the most relevant regions first, and slowly with the least relevant
    first (Bach et al. 2015; Samek et al. 2017).

    Parameters
    ----------
    net : Network
        With one input and one output.
    x : array_like of shape (batch, ...)
        As the network takes it.
    relevance : array_like
        Of x's shape, or without its channels. Any map will do, not only LRP's.
    target : int or sequence of int, optional
        The class that is scored; pass what the map explains. Default: the top class of each sample.
    steps : int, default 100
        Points of a curve after the first; at most as many as there are regions.
    patch : int or sequence of int, default 1
        A region is a square of so many pixels through all channels, ranked by the sum of its relevance. Features
        without positions are regions of their own.
    until : float, default 1
        Share of the regions that is replaced at the end.
    order : sequence of {"most", "least", "random"}
        Most relevant first, least relevant first, any order: the baseline that a map has to beat.
    replacement : {"mean", "blur", "inpaint"}, float or array_like, default "mean"
        "mean": of the channel, over the sample; of a feature without positions, over the batch. "blur": the input after
        a Gaussian of 1/10 of its longest side. "inpaint": noisy linear imputation from what is left (Rong et al. 2022),
        needs SciPy and is far slower. A number or an array that broadcasts to x: that.
    score : {"logit", "probability"}, default "logit"
        The class's output, or its share of a softmax.
    repeats : int, default 3
        Random orders for each sample, averaged.
    layout : tuple of int, optional
        ``(channels, height, width)`` where the network takes images flat; for ``patch``, "blur" and "inpaint". ``(n,)``
        to replace the n numbers of an image one by one, each channel by itself.
    seed : int, default 0
        Of random orders, of ties in the ranking, and of the noise of "inpaint".
    progress : callable, optional
        Called as ``progress(done, total)``, in predicted samples.

    Returns
    -------
    Curves

    Raises
    ------
    ValueError
        If shapes or options do not fit.
    TypeError
        If x's dtype is not the network's.
    ImportError
        If "inpaint" is asked for and SciPy is not installed.

    Examples
    --------
    >>> import numpy as np, pylrp
    >>> from pylrp.layers import Dense
    >>> net = pylrp.Network([Dense([[3.0, 2.0, 1.0]])])
    >>> x = np.ones((1, 3))
    >>> curves = pylrp.evaluate.pixel_flipping(net, x, net.explain(x).relevance, replacement=0.0)
    >>> curves.scores["most"], curves.scores["least"]
    (array([[6., 3., 1., 0.]]), array([[6., 5., 3., 0.]]))
    """
    require_orders(order, repeats)
    flips = _FlipOrder.of(EvaluatedBatch(net, x, target, score, layout), relevance, steps, patch, until, seed)
    evaluated, rng = flips.evaluated, flips.rng
    runs = {name: repeats if name == "random" else 1 for name in order}
    advance = _ProgressCounter(progress, sum(runs.values()) * flips.size)
    if isinstance(replacement, str) and replacement == "inpaint":
        inpainter = Inpainter(evaluated, rng)

        def curves(ranked: Index) -> Values:
            return _scored(flips, _inpainted(flips, inpainter, ranked), advance)
    else:
        end = constant(evaluated, replacement)

        def curves(ranked: Index) -> Values:
            return _curves(flips, evaluated.flat, end, ranked, advance)

    scores: dict[str, Values] = {}
    for name, times in runs.items():
        scores[name] = np.mean([curves(flips.ranked(name)) for _ in range(times)], axis=0)
    return Curves(flips.fractions, scores, evaluated.target, score, len(flips.regions))


def insertion_deletion(
    net: Network,
    x: ArrayLike,
    relevance: ArrayLike,
    *,
    target: int | ArrayLike | None = None,
    steps: int = 100,
    patch: int | Sequence[int] = 1,
    deleted: Replacement = "mean",
    inserted_into: Replacement = "blur",
    score: Score = "probability",
    layout: Shape | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> InsertionDeletion:
    """Delete the most relevant regions first from the input, and insert them first into a blurred one.

    Both metrics are those of Petsiuk et al. (2018).

    Parameters
    ----------
    net, x, relevance, target, steps, patch, score, layout, seed, progress
        As for :func:`pixel_flipping`; here the score is by default a probability, as in the paper.
    deleted : {"mean", "blur"}, float or array_like, default "mean"
        What takes the place of a deleted region.
    inserted_into : {"mean", "blur"}, float or array_like, default "blur"
        Where insertion begins. Features without positions can't be blurred: pass "mean" or a background.

    Returns
    -------
    InsertionDeletion
    """
    flips = _FlipOrder.of(EvaluatedBatch(net, x, target, score, layout), relevance, steps, patch, 1.0, seed)
    evaluated = flips.evaluated
    advance = _ProgressCounter(progress, 2 * flips.size)
    ranked = flips.ranked("most")
    deletion = _curves(flips, evaluated.flat, constant(evaluated, deleted), ranked, advance)
    insertion = _curves(flips, constant(evaluated, inserted_into), evaluated.flat, ranked, advance)
    return InsertionDeletion(flips.fractions, deletion, insertion, evaluated.target, score)


@dataclass(frozen=True)
class _FlipOrder:
    """What all orders share: regions, their relevance, and how many are replaced after each step."""

    evaluated: EvaluatedBatch
    regions: Regions
    values: Values  # (batch, regions)
    counts: Index  # (steps + 1,), from 0, rising
    rng: np.random.Generator
    first: FirstLayer | None  # where there is a short cut

    @classmethod
    def of(
        cls,
        evaluated: EvaluatedBatch,
        relevance: ArrayLike,
        steps: int,
        patch: int | Sequence[int],
        until: float,
        seed: int,
    ) -> _FlipOrder:
        if steps < 1:
            raise ValueError(f"steps is {steps}, expected at least 1")
        if not 0 < until <= 1:
            raise ValueError(f"until is {until}, expected a share above 0 and at most 1")
        regions = Regions.of(evaluated, patch)
        last = max(1, round(until * len(regions)))
        counts = np.rint(np.linspace(0, last, min(steps, last) + 1)).astype(np.intp)
        values = regions.sums(relevance_of(evaluated, relevance))
        first = FirstLayer.of(evaluated, len(counts) - 1)
        return cls(evaluated, regions, values, counts, np.random.default_rng(seed), first)

    @property
    def size(self) -> int:
        """Samples to predict for one order."""
        return len(self.evaluated) * len(self.counts)

    @property
    def fractions(self) -> Values:
        return self.counts / len(self.regions)

    def ranked(self, order: str) -> Index:
        """Return the regions of each sample in the order in which they are replaced, (batch, regions)."""
        return ranked(self.values, order, self.rng)


class _ProgressCounter:
    """Adds up what is done for a user's callback."""

    def __init__(self, progress: Progress | None, total: int):
        self._progress, self._total, self._done = progress or quiet, total, 0

    def __call__(self, count: int) -> None:
        self._done += count
        self._progress(self._done, self._total)


def _curves(flips: _FlipOrder, start: Array, end: Array, ranked: Index, advance: Callable[[int], None]) -> Values:
    """Return the scores, (batch, steps + 1), from ``start`` to ``end``."""
    if flips.first is None:
        return _scored(flips, _replaced(flips, start, end, ranked), advance)
    members, last = flips.regions.members, flips.counts[-1]
    order = members[ranked[:, :last]].reshape(len(ranked), -1)
    found = _scored(
        flips, flips.first.states(start, end, order, flips.counts * members.shape[1]), lambda _: None, flips.first.rest
    )
    # What is large and cancels leaves its rounding behind: then z has to be computed anew in each state.
    state = start.copy()
    np.put_along_axis(state, order, np.take_along_axis(end, order, axis=1), axis=1)
    off = np.abs(found[:, -1] - flips.evaluated.scores(state, np.arange(len(start))))
    if not (off <= _TOLERANCE * np.maximum(np.abs(found).max(axis=1), 1)).all():
        return _scored(flips, _replaced(flips, start, end, ranked), advance)
    advance(flips.size)
    return found


def _replaced(flips: _FlipOrder, start: Array, end: Array, ranked: Index) -> States:
    """Yield ``start``, then with more and more regions from ``end``."""
    batch, n = start.shape
    every_sample = np.arange(batch)
    members = flips.regions.members
    yield start, every_sample
    differs = np.take_along_axis((start != end)[:, members].any(axis=2), ranked, axis=1)
    changed = np.logical_or.reduceat(differs[:, : flips.counts[-1]], flips.counts[:-1], axis=1)
    state = start.copy()
    offsets = (n * every_sample)[:, None, None]
    for step, (low, high) in enumerate(zip(flips.counts[:-1], flips.counts[1:], strict=True)):
        where = members[ranked[:, low:high]] + offsets
        state.reshape(-1)[where] = end.reshape(-1)[where]
        yield state, np.flatnonzero(changed[:, step])


def _inpainted(flips: _FlipOrder, inpainter: Inpainter, ranked: Index) -> States:
    every_sample = np.arange(len(ranked))
    place = np.empty_like(ranked)
    np.put_along_axis(place, ranked, np.arange(ranked.shape[1])[None], axis=1)
    places = place[:, flips.regions.labels.reshape(-1)]  # the step at which each pixel is replaced
    for count in flips.counts:
        yield inpainter.fill(places < count), every_sample


def _scored(flips: _FlipOrder, states: States, advance: Callable[[int], None], rest: Network | None = None) -> Values:
    """Predict the states chunk by chunk, by the rest of the network if they are what it takes.

    Returns the scores, (batch, steps + 1).
    """
    evaluated = flips.evaluated
    batch, points = len(evaluated), len(flips.counts)
    found = np.full((batch, points), np.nan)
    width = evaluated.flat.shape[1] if rest is None else rest.input_size
    buffer = np.empty((chunk_of(width), width), evaluated.flat.dtype)
    owners = np.empty((2, len(buffer)), np.intp)  # sample and point of each row
    fill = 0

    def predict(count: int) -> None:
        samples, at = owners[:, :count]
        found[samples, at] = evaluated.scores(buffer[:count], samples, rest)

    for point, (state, rows) in enumerate(states):
        while len(rows):
            now, rows = rows[: len(buffer) - fill], rows[len(buffer) - fill :]
            new = slice(fill, fill + len(now))
            buffer[new] = state if len(now) == batch else state[now]
            owners[0, new], owners[1, new] = now, point
            fill = new.stop
            if fill == len(buffer):
                predict(fill)
                fill = 0
        advance(batch)
    if fill:
        predict(fill)
    return _carried(found)


def _carried(found: NDArray[Any]) -> Values:
    """Return scores in which a sample that did not change (NaN) has its last one."""
    at = np.maximum.accumulate(np.where(np.isnan(found), 0, np.arange(found.shape[1])), axis=1)
    return np.asarray(np.take_along_axis(found, at, axis=1), np.float64)
