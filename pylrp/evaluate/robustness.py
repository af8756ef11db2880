"""Robustness of heatmaps to small noise on the input: max- and average sensitivity (Yeh et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pylrp.evaluate.evaluated_batch import EvaluatedBatch, Progress, Values, quiet
from pylrp.evaluate.statistics import with_band
from pylrp.network.network import Network
from pylrp.present import html
from pylrp.rules.composites import either

__all__ = ["Sensitivity", "sensitivity"]

_RADIUS = 0.02  # of the input's range


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How much maps change under noise on the input, relative to their length.

    Attributes
    ----------
    changes : ndarray of shape (draws, batch), float64
        ``|R(x + noise) - R(x)| / |R(x)|``, Euclidean; NaN where the map is 0.
    radius : ndarray
        Of the uniform noise, in units of the input.
    """

    changes: Values
    radius: Values

    @property
    def maximum(self) -> Values:
        """Return each sample's largest change, (batch,): max-sensitivity."""
        return np.asarray(self.changes.max(axis=0))

    @property
    def average(self) -> Values:
        """Return each sample's mean change, (batch,): average sensitivity."""
        return np.asarray(self.changes.mean(axis=0))

    def table(self) -> str:
        """Return both as text: mean over samples and 95 % bootstrap band."""
        return "\n".join(f"{name:<14}{mean:>10}{shown:>20}" for name, mean, shown in self._rows())

    def _rows(self) -> list[list[str]]:
        """Return the table's cells, the head first."""
        parts = {"largest": self.maximum, "average": self.average}
        return [["sensitivity", "mean", "95 % band"], *([name, *with_band(values)] for name, values in parts.items())]

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html.html(html.table(self._rows()))

    def __repr__(self) -> str:
        return f"<Sensitivity of {self.changes.shape[1]} samples, {len(self.changes)} draws>\n{self.table()}"


def sensitivity(
    net: Network,
    x: ArrayLike,
    composite: Any = None,
    *,
    rules: Any = None,
    target: int | ArrayLike | None = None,
    radius: float | ArrayLike | None = None,
    draws: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sensitivity:
    """Explain inputs with a little uniform noise, and measure how far the maps move.

    Low is good as long as the prediction stays; a map that ignores the input has 0, so look at flipping, too.

    Parameters
    ----------
    net : Network
    x : array_like of shape (batch, ...)
    composite : str, Composite, Rule or sequence of Rule, optional
        Default: that of :meth:`pylrp.Network.explain`.
    rules : optional
        Another name for ``composite``.
    target : int or sequence of int, optional
        The class that is explained, with and without noise. Default: the top class of each input without noise.
    radius : float or array_like, optional
        Noise is uniform in ``[-radius, radius]``; an array broadcasts to x, for features in different units. Default:
        1/50 of the range of x. Noisy inputs are kept within the range of x, so that a z-box's bounds still hold.
    draws : int, default 10
        Noisy copies of each sample.
    seed : int, default 0
    progress : callable, optional
        Called as ``progress(done, total)``, in explained samples.

    Returns
    -------
    Sensitivity
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}, expected at least 1")
    composite = either(composite, rules)
    evaluated = EvaluatedBatch(net, x, target)
    low, high = evaluated.x.min(), evaluated.x.max()
    size = np.asarray(_RADIUS * (np.float64(high) - low) if radius is None else radius, np.float64)
    if not (np.isfinite(size).all() and (size >= 0).all() and size.max() > 0):
        raise ValueError(f"radius is {size}, expected numbers of at least 0, not all 0")
    rng = np.random.default_rng(seed)
    report, total = progress or quiet, (draws + 1) * len(evaluated)
    base = evaluated.explain(composite).reshape(len(evaluated), -1).astype(np.float64)
    report(len(evaluated), total)
    length = np.linalg.norm(base, axis=1)
    changes = np.full((draws, len(evaluated)), np.nan)
    for draw, out in enumerate(changes, start=2):
        noisy = evaluated.x + size * rng.uniform(-1, 1, evaluated.x.shape)
        noisy = np.clip(noisy, low, high).astype(evaluated.x.dtype)
        moved = np.linalg.norm(evaluated.explain(composite, noisy).reshape(base.shape) - base, axis=1)
        np.divide(moved, length, out=out, where=length > 0)
        report(draw * len(evaluated), total)
    return Sensitivity(changes, size)
