"""Is relevance over time faithful? Segments of a signal replaced, one by one or by relevance, and what the score does.

:func:`leave_one_segment_out` is what maps are compared with, :func:`segment_flipping` replaces more and more. Time is
the steps of recurrent layers, else the last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.evaluate.curves import Curves
from pylrp.evaluate.evaluated_batch import Array, EvaluatedBatch, Score, Values
from pylrp.evaluate.regions import Order, ranked, require_orders
from pylrp.evaluate.statistics import correlation, spearman
from pylrp.network.network import Network

__all__ = ["SegmentsLeftOut", "leave_one_segment_out", "segment_flipping"]

#: What takes the place of a segment.
Baseline = Literal["zero", "mean", "noise", "linear"] | float | ArrayLike


@dataclass(frozen=True, eq=False)
class SegmentsLeftOut:
    """By how much the score falls without each segment, beside the segments' relevance.

    Attributes
    ----------
    edges : ndarray of shape (segments + 1,), int64
        Segment i is the steps ``edges[i]`` to ``edges[i + 1]``, without the last.
    left_out, relevance : ndarray of shape (batch, segments), float64
    target : ndarray of shape (batch,)
    """

    edges: NDArray[np.int64]
    left_out: Values
    relevance: Values
    target: NDArray[np.int64]

    @property
    def pearson(self) -> Values:
        """Return the correlation over the segments of each sample, (batch,)."""
        return correlation(self.left_out, self.relevance)

    @property
    def rank(self) -> Values:
        """Return that of the ranks, (batch,)."""
        return spearman(self.left_out, self.relevance)

    def __repr__(self) -> str:
        batch, count = self.left_out.shape
        return f"<SegmentsLeftOut of {batch} samples, {count} segments, mean Pearson {np.nanmean(self.pearson):.3g}>"


def segment_flipping(
    net: Network,
    x: ArrayLike,
    relevance: ArrayLike,
    *,
    target: int | ArrayLike | None = None,
    segments: int | Sequence[int] = 20,
    baseline: Baseline = "linear",
    order: Sequence[Order] = ("most", "least", "random"),
    score: Score = "logit",
    repeats: int = 3,
    seed: int = 0,
) -> Curves:
    """Replace segments of a signal in the order of their relevance, and record the class's score.

    "most" first is MoRF, "least" LeRF (Samek et al. 2017; for time series Schlegel et al. 2019).

    Parameters
    ----------
    net : Network
        With one input of steps and features, and one output.
    x : array_like of shape (batch, steps, features) or (batch, channels, length)
        As the network takes it.
    relevance : array_like
        Of x's shape, or one number a step.
    target : int or sequence of int, optional
        The class that is scored; pass what the map explains. Default: the top class of each sample.
    segments : int or sequence of int, default 20
        How many of equal length, or the first step of each.
    baseline : {"zero", "mean", "noise", "linear"}, float or array_like, default "linear"
        What takes a segment's place. "mean": of each feature over the sample; "noise": normal numbers with its mean
        and standard deviation; "linear": a line from the step before to the step behind, past segments that are
        replaced already. A number or an array that broadcasts to x: that.
    order : sequence of {"most", "least", "random"}
    score : {"logit", "probability"}, default "logit"
    repeats : int, default 3
        Random orders for each sample, averaged.
    seed : int, default 0
        Of noise, random orders and ties.

    Returns
    -------
    Curves

    Raises
    ------
    ValueError
        If shapes or options do not fit.

    Examples
    --------
    >>> import numpy as np, pylrp
    >>> from pylrp.layers import LSTM, Dense
    >>> rng = np.random.default_rng(0)
    >>> lstm = LSTM(rng.normal(size=(16, 3)), rng.normal(size=(16, 4)), np.zeros(16))
    >>> net = pylrp.Network([lstm, Dense(rng.normal(size=(2, 4)))], input_shape=(40, 3))
    >>> x = rng.normal(size=(2, 40, 3))
    >>> curves = pylrp.evaluate.segment_flipping(net, x, net.explain(x).relevance, segments=8)
    >>> curves.scores["most"].shape
    (2, 9)
    """
    require_orders(order, repeats)
    signals = _Signals(net, x, relevance, target, segments, baseline, score, seed)
    count = len(signals.edges) - 1
    scores: dict[str, Values] = {}
    for name in order:
        runs = []
        for _ in range(repeats if name == "random" else 1):
            rank = np.argsort(ranked(signals.by_segment, name, signals.rng), axis=1)  # of each segment
            gone = rank[:, None, :] < np.arange(count + 1)[:, None]
            runs.append(signals.scores(gone))
        scores[name] = np.mean(runs, axis=0)
    return Curves(np.arange(count + 1) / count, scores, signals.evaluated.target, score, count)


def leave_one_segment_out(
    net: Network,
    x: ArrayLike,
    relevance: ArrayLike,
    *,
    target: int | ArrayLike | None = None,
    segments: int | Sequence[int] = 20,
    baseline: Baseline = "linear",
    score: Score = "logit",
    seed: int = 0,
) -> SegmentsLeftOut:
    """Replace one segment of a signal at a time, and compare the fall of the score with the segment's relevance.

    Parameters
    ----------
    net, x, relevance, target, segments, baseline, score, seed
        As for :func:`segment_flipping`.

    Returns
    -------
    SegmentsLeftOut
    """
    signals = _Signals(net, x, relevance, target, segments, baseline, score, seed)
    count = len(signals.edges) - 1
    gone = np.concatenate([np.zeros((1, count), bool), np.eye(count, dtype=bool)])
    scores = signals.scores(np.broadcast_to(gone, (len(signals.evaluated), *gone.shape)))
    left_out = scores[:, :1] - scores[:, 1:]
    return SegmentsLeftOut(signals.edges, left_out, signals.by_segment, signals.evaluated.target)


class _Signals:
    """Signals cut into segments, what each segment's relevance is, and the score where some are replaced."""

    def __init__(
        self,
        net: Network,
        x: ArrayLike,
        relevance: ArrayLike,
        target: int | ArrayLike | None,
        segments: int | Sequence[int],
        baseline: Baseline,
        score: Score,
        seed: int,
    ):
        self.evaluated = EvaluatedBatch(net, x, target, score)
        given = self.evaluated.x
        if given.ndim not in (2, 3):
            raise ValueError(f"a sample has shape {given.shape[1:]}, expected steps, or steps and features")
        (name,) = net.graph.inputs
        self.axis = 1 if name in net.graph.features_last else given.ndim - 1
        self.steps = given.shape[self.axis]
        self.edges = _edges(segments, self.steps)
        self.rng = np.random.default_rng(seed)
        self.by_segment = np.add.reduceat(self._by_step(relevance), self.edges[:-1], axis=1)
        self.baseline = baseline
        self.x = np.swapaxes(given, self.axis, -1).astype(np.float64)  # (batch, steps) or (batch, features, steps)
        self.end = self._end(given)

    def _by_step(self, relevance: ArrayLike) -> Values:
        given, R = self.evaluated.x, np.asarray(relevance, np.float64)
        if R.shape == given.shape[1:] and len(given) == 1:
            R = R[None]
        if R.shape == (len(given), self.steps):
            return R
        if R.shape != given.shape:
            raise ValueError(f"relevance has shape {R.shape}, x has shape {given.shape}")
        return np.asarray(np.swapaxes(R, self.axis, -1).sum(axis=1))

    def _end(self, given: Array) -> Values | None:
        """Return what takes the place of every step, in the order of ``x``; None where it depends on what is left."""
        baseline = self.baseline
        if not isinstance(baseline, str):
            try:
                filled = np.broadcast_to(np.asarray(baseline, np.float64), given.shape)
            except ValueError:
                raise ValueError(
                    f"baseline has shape {np.shape(baseline)}, which does not broadcast to x, {given.shape}"
                ) from None
            return np.asarray(np.swapaxes(filled, self.axis, -1))
        if baseline == "linear":
            return None
        mean = self.x.mean(axis=-1, keepdims=True)
        if baseline == "noise":
            return np.asarray(mean + self.x.std(axis=-1, keepdims=True) * self.rng.standard_normal(self.x.shape))
        if baseline not in ("zero", "mean"):
            known = "'zero', 'mean', 'noise', 'linear', a number or an array"
            raise ValueError(f"baseline is {baseline!r}, expected {known}")
        return np.broadcast_to(mean if baseline == "mean" else 0.0, self.x.shape)

    def scores(self, gone: NDArray[np.bool_]) -> Values:
        """Return the score of each sample in some states, (batch, states); gone: (batch, states, segments)."""
        evaluated, lengths = self.evaluated, np.diff(self.edges)
        found = np.empty(gone.shape[:2])
        for sample, states in enumerate(gone):
            for first in range(0, len(states), evaluated.chunk):
                part = np.repeat(states[first : first + evaluated.chunk], lengths, axis=1)
                rows = np.stack([self._without(sample, steps) for steps in part])
                moved = np.swapaxes(rows, -1, self.axis).reshape(len(rows), -1)
                flat = np.ascontiguousarray(moved, evaluated.flat.dtype)
                at = np.full(len(rows), sample, np.intp)
                found[sample, first : first + len(rows)] = evaluated.scores(flat, at)
        return found

    def _without(self, sample: int, steps: NDArray[np.bool_]) -> Values:
        x = self.x[sample]
        if self.end is not None:
            return np.asarray(np.where(steps, self.end[sample], x))
        left = np.flatnonzero(~steps)
        if not len(left):
            return np.broadcast_to(x.mean(axis=-1, keepdims=True), x.shape)
        at = np.arange(self.steps)
        rows = x.reshape(-1, self.steps)
        return np.stack([np.interp(at, left, row[left]) for row in rows]).reshape(x.shape)


def _edges(segments: int | Sequence[int], steps: int) -> NDArray[np.int64]:
    if isinstance(segments, int | np.integer):
        if not 1 <= segments <= steps:
            raise ValueError(f"segments is {segments}, the signal has {steps} steps")
        return np.asarray(np.arange(segments + 1) * steps // segments, np.int64)
    first = np.asarray(segments)
    fits = first.ndim == 1 and first.size > 0 and first.dtype.kind in "iu" and first[0] == 0 and first[-1] < steps
    if not fits or (np.diff(first) <= 0).any():
        raise ValueError(
            f"segments is {segments!r}, expected first steps that begin with 0, ascend and end below {steps}"
        )
    return np.append(first, steps).astype(np.int64)
