"""A table's explanations in one picture: a row a feature, a dot a sample, by relevance, coloured by its value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylrp.network.explanation import Explanation
from pylrp.network.frames import codes, ranked, rows_of_features
from pylrp.plot.colours import new_figure, register_with_pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["summary"]

_WIDTH = 0.35  # of a row, to either side


def summary(
    ex: Explanation, *, most: int = 15, target: int | None = None, ax: Axes | None = None, cmap: str = "viridis",
    seed: int = 0,
) -> Axes:  # fmt: skip
    """Draw the relevance of all samples by feature, the most relevant feature on top.

    Parameters
    ----------
    ex : Explanation
        Of a network of features without positions, for one or several samples.
    most : int, default 15
        How many features, by mean absolute relevance.
    target : int, optional
        Which of several targets, by position; default the first.
    ax : matplotlib.axes.Axes, optional
        Default: of a new figure, ``axes.figure``.
    cmap : str
        Of a feature's values, from its 5th percentile to its 95th; words by their order. Without values: one colour.
    seed : int
        Of the dots' height within a row.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If a sample is no row of features, or there is no such target.
    """
    R, names, several = rows_of_features(ex, "a summary")
    if target is not None and not 0 <= target < (several or 1):
        raise ValueError(f"target {target} is not there: {several or 1} were explained, counted from 0")
    values = R[:, target or 0]
    order = ranked(values, names, most)
    if ax is None:
        figure = new_figure(6.4, 1.2 + 0.32 * len(order), 120)
        figure.set_layout_engine("constrained")
        ax = figure.subplots()
        register_with_pyplot(figure, None, None)
    data: Any = np.asarray(ex.input)
    data = data[None] if ex.settings.get("single") else data
    known = data.ndim == 2 and data.shape == values.shape
    rng = np.random.default_rng(seed)
    dots = None
    for row, feature in enumerate(reversed(order)):
        x = values[:, feature]
        shades = _shades(codes(data[:, feature])) if known else np.full(len(x), 0.5)
        gaps = np.isnan(shades)
        y = row + rng.uniform(-_WIDTH, _WIDTH, len(x)) * _crowded(x)
        ax.scatter(x[gaps], y[gaps], s=9, c="0.6", linewidths=0)
        dots = ax.scatter(x[~gaps], y[~gaps], s=9, c=shades[~gaps], cmap=cmap, vmin=0, vmax=1, linewidths=0)
    ax.axvline(0, color="0.5", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(order)), [names[i] for i in reversed(order)])
    ax.set_xlabel("relevance")
    ax.spines[["top", "right", "left"]].set_visible(False)
    if known and dots is not None:
        bar = ax.figure.colorbar(dots, ax=ax, ticks=[0, 1], aspect=30)
        bar.set_ticklabels(["low", "high"])
        bar.set_label("value of the feature")
        bar.outline.set_visible(False)
    return ax


def _shades(column: Any) -> Any:
    """Return values from 0 (5th percentile) to 1 (95th), NaN for gaps."""
    if np.isnan(column).all():
        return column
    low, high = np.nanpercentile(column, [5, 95])
    return np.full(len(column), 0.5) + 0 * column if low == high else np.clip((column - low) / (high - low), 0, 1)


def _crowded(x: Any) -> Any:
    """Return for each dot how full its place is, from 0 to 1: lone dots lie on the line."""
    low, high = x.min(), x.max()
    if low == high:
        return np.ones(len(x))
    bins = np.minimum(((x - low) / (high - low) * 60).astype(int), 59)
    counts = np.bincount(bins, minlength=60)
    return np.sqrt(counts[bins] / counts.max()) if counts.max() > 1 else np.zeros(len(x))
