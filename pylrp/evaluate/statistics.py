"""Small statistics that every evaluation shares: ranks, rank correlation, bootstrap bands, areas. NumPy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pylrp.evaluate.evaluated_batch import Values

__all__ = ["area", "band", "correlation", "cosine", "ranks", "spearman", "with_band"]

_RESAMPLES = 2000


def ranks(values: ArrayLike) -> Values:
    """Return the ranks along the last axis, from 1; ties get the mean of theirs."""
    rows = np.asarray(values, np.float64)
    flat = rows.reshape(-1, rows.shape[-1])
    found = np.empty_like(flat)
    for row, out in zip(flat, found, strict=True):
        order = np.argsort(row, kind="stable")
        ordered = row[order]
        first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        last = np.append(first[1:], len(row))
        out[order] = np.repeat((first + 1 + last) / 2, last - first)
    return found.reshape(rows.shape)


def correlation(a: Values, b: Values) -> Values:
    """Return Pearson's correlation along the last axis; NaN where one of them is constant."""
    a, b = (v - v.mean(axis=-1, keepdims=True) for v in (a, b))
    return cosine(a, b)


def cosine(a: Values, b: Values) -> Values:
    """Return the cosine of the angle between vectors along the last axis; NaN where one of them is 0."""
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    product = (a * b).sum(axis=-1)
    return np.asarray(np.divide(product, length, out=np.full(length.shape, np.nan), where=length > 0))


def spearman(a: ArrayLike, b: ArrayLike) -> Values:
    """Return Spearman's rank correlation along the last axis: Pearson's of the ranks.

    Parameters
    ----------
    a, b : array_like of shape (..., n)

    Returns
    -------
    ndarray of shape (...), float64
        From -1 to 1; NaN where all values of one are equal.
    """
    return correlation(ranks(a), ranks(b))


def band(scores: Values, seed: int = 0, level: float = 0.95) -> tuple[Values, Values]:
    """Return the bounds of a bootstrap confidence band for the mean over samples.

    Percentiles of the means of 2000 resamples of whole curves. NaN for a single sample: it says nothing about others.

    Parameters
    ----------
    scores : ndarray of shape (samples, ...)
    seed : int, default 0
    level : float, default 0.95
        Pointwise coverage.
    """
    count = len(scores)
    if count == 1:
        return np.full(scores.shape[1:], np.nan), np.full(scores.shape[1:], np.nan)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    means = drawn.astype(np.float64) @ scores.reshape(count, -1) / count  # whole numbers until here: less is rounded
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return low.reshape(scores.shape[1:]), high.reshape(scores.shape[1:])


def area(x: Values, y: Values) -> Values:
    """Return the area under y(x) along the last axis, by trapezoids, divided by the length of x."""
    return np.asarray(((y[..., 1:] + y[..., :-1]) / 2 * np.diff(x)).sum(axis=-1) / (x[-1] - x[0]))


def with_band(values: Values) -> tuple[str, str]:
    """Return the mean over samples and its band as texts."""
    low, high = band(values)
    return f"{values.mean():.4g}", f"{low:.4g} to {high:.4g}" if len(values) > 1 else "one sample"
