"""Relevance of signals: one lane a channel, with a coloured background, a coloured line, or relevance as a curve.

``explanations.py`` and ``grids.py`` call in, and so may you: :func:`signal` takes arrays and an Axes, and so does
:func:`time_by_feature`, for more features than lanes can be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.plot.colours import PERCENTILE, bound, chosen_map, colour_bar, ends_of, finite
from pylrp.present.colours import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage

__all__ = ["FILLINGS", "MOST_LANES", "signal", "time_by_feature"]

#: How :func:`signal` combines signal and relevance.
FILLINGS = ("fill", "line", "none")

#: With more channels a signal is drawn as a map of time by feature.
MOST_LANES = 12

_LONG = 1000  # samples
_MOST_NAMES = 40  # beside a map
_MARGIN = 0.08  # of a lane, above and below the curve

Values = NDArray[np.float64]


def signal(
    ax: Axes,
    R: ArrayLike,
    x: ArrayLike | None = None,
    *,
    overlay: str | None = None,
    limit: float | None = None,
    percentile: float = PERCENTILE,
    names: Sequence[str] | None = None,
    sample_rate: float | None = None,
    colours: bool = True,
    cmap: str | Colormap | None = None,
) -> list[Any]:
    """Draw the relevance of a signal: time to the right, a lane for each channel.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    R : array_like of shape (length,) or (channels, length)
    x : array_like of R's shape, optional
        The signal. One channel is drawn in its own units; of several each fills its lane.
    overlay : {"fill", "line", "none"}, optional
        "fill": the signal as a thin line, the background coloured by relevance. "line": the signal as a thick
        line coloured by relevance. "none": the relevance alone, as a curve filled red above zero and blue below.
        Default: "fill" where there is a signal.
    limit, percentile : float
        As for :func:`heatmap`.
    names : sequence of str, optional
        One a channel.
    sample_rate : float, optional
        Steps a second: the time axis has seconds then.
    colours : bool, default True
        Draw the scale of the colours beside it.
    cmap : str or matplotlib.colors.Colormap, optional
        As for :func:`heatmap`.

    Returns
    -------
    list
        For each channel an AxesImage ("fill"), a LineCollection ("line"), or two StepPatches ("none"), above zero and
        below.

    Raises
    ------
    ValueError
        If R is no signal or not finite, x or the names do not fit, or the sample rate is not above 0.
    """
    values = _lanes(R, "R")
    step = _seconds(ax, sample_rate)
    given = None if x is None else _lanes(x, "x")
    count, length = values.shape
    if x is not None and given is not None and given.shape != values.shape:
        raise ValueError(f"x has shape {np.shape(x)}, R has shape {np.shape(R)}")
    if names is not None and len(names) != count:
        raise ValueError(f"names has {len(names)} entries, the signal has {count} channels")
    style = ("none" if given is None else "fill") if overlay is None else overlay
    if style not in FILLINGS:
        raise ValueError(f"overlay must be one of {', '.join(FILLINGS)} for a signal, got {overlay!r}")
    if given is None and style != "none":
        raise ValueError(f"overlay={overlay!r} needs the signal: pass x")
    end = bound(values, limit, percentile)
    tops = np.arange(count, 0, -1.0)  # the first channel is the uppermost lane
    ax.set_xlim(-0.5 * step, (length - 0.5) * step)
    if given is None or style == "none":
        return _curves(ax, values, end, tops, names, ends_of(cmap), step)
    curves, ground = _placed(given, tops)
    scale: dict[str, Any] = {"cmap": chosen_map(cmap), "clim": (-end, end)}
    if style == "fill":
        smooth = (
            "antialiased" if length >= _LONG else "nearest"
        )  # where columns are narrower than a pixel, none is skipped
        drawn = []
        for curve, r, top in zip(curves, values, tops, strict=True):
            box = (-0.5 * step, (length - 0.5) * step, *(ground if count == 1 else (top - 1, top)))
            drawn.append(ax.imshow(r[None], extent=box, aspect="auto", interpolation=smooth, **scale))
            ax.plot(np.arange(length) * step, curve, color=INK, linewidth=0.9)
    else:
        drawn = [_coloured(ax, curve, r, scale, step) for curve, r in zip(curves, values, strict=True)]
        ax.set_facecolor("#d9d8d4")  # zero is near white: it needs contrast
    ax.set_ylim(*ground)
    _frame(ax, tops if count > 1 else None, names)
    if colours:
        colour_bar(ax, drawn[0], (1.015, 0, 0.015, 1))
    return drawn


def time_by_feature(
    ax: Axes,
    R: ArrayLike,
    *,
    limit: float | None = None,
    percentile: float = PERCENTILE,
    names: Sequence[str] | None = None,
    sample_rate: float | None = None,
    colours: bool = True,
    cmap: str | Colormap | None = None,
) -> AxesImage:
    """Draw relevance as a map, time to the right and the first feature uppermost, under a curve of its sum.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    R : array_like of shape (features, length)
    limit, percentile, colours, cmap
        As for :func:`signal`.
    names : sequence of str, optional
        One a feature; of many some are written.
    sample_rate : float, optional
        Steps a second: the time axis has seconds then.

    Returns
    -------
    matplotlib.image.AxesImage
        The map.

    Raises
    ------
    ValueError
        If R has not two axes or is not finite, the names do not fit, or the sample rate is not above 0.
    """
    values = _lanes(R, "R")
    count, length = values.shape
    if names is not None and len(names) != count:
        raise ValueError(f"names has {len(names)} entries, there are {count} features")
    step = _seconds(ax, sample_rate)
    end = bound(values, limit, percentile)
    box = (-0.5 * step, (length - 0.5) * step, 0.0, float(count))
    drawn = ax.imshow(
        values, extent=box, aspect="auto", interpolation="nearest", cmap=chosen_map(cmap), clim=(-end, end)
    )
    total = values.sum(axis=0)
    lane = 0.22 * count
    zero, factor = count + 0.5 * lane, 0.46 * lane / max(float(np.abs(total).max()), np.finfo(np.float64).tiny)
    edges = (np.arange(length + 1) - 0.5) * step
    for part, colour in zip((np.maximum(total, 0), np.minimum(total, 0)), ends_of(cmap), strict=True):
        ax.stairs(zero + factor * part, edges, baseline=zero, fill=True, color=colour)
    ax.axhline(zero, color=GREY, linewidth=0.5)
    ax.set_ylim(0, count + lane)
    shown = np.arange(0, count, -(-count // _MOST_NAMES) if names is not None else max(1, count // 8))
    labels = [names[i] if names is not None else str(i) for i in shown]
    ax.set_yticks([zero, *(count - 0.5 - shown)], ["sum", *labels])
    ax.tick_params(labelsize=7.5, length=2)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if colours:
        colour_bar(ax, drawn, (1.015, 0, 0.015, count / (count + lane)))
    return drawn


def _seconds(ax: Axes, sample_rate: float | None) -> float:
    """Return how far apart steps are drawn; name the axis where that is in seconds."""
    if sample_rate is None:
        return 1.0
    if not 0 < sample_rate < np.inf:
        raise ValueError(f"sample_rate is {sample_rate}, expected the steps of a second, a number above 0")
    ax.set_xlabel("seconds", fontsize=8, labelpad=1)
    return 1.0 / float(sample_rate)


def _lanes(array: ArrayLike, what: str) -> Values:
    values = finite(array, what)
    if values.ndim not in (1, 2):
        raise ValueError(f"{what} has shape {values.shape}, expected (length,) or (channels, length)")
    return np.atleast_2d(values)


def _placed(x: Values, tops: Values) -> tuple[Values, tuple[float, float]]:
    """Return the curves where they are drawn, and the lower and upper end of the axes."""
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    span = np.where(high > low, high - low, 1)
    if len(x) == 1:
        pad = _MARGIN * span[0, 0]
        return x, (float(low[0, 0] - pad), float(max(high[0, 0], low[0, 0] + (high == low)[0, 0]) + pad))
    inner = (x - low) / span * (1 - 2 * _MARGIN) + _MARGIN
    return tops[:, None] - 1 + inner, (0.0, float(len(x)))


def _coloured(ax: Axes, curve: Values, r: Values, scale: dict[str, Any], step: float) -> Any:
    """Draw a line of which each sample colours its own piece: halfway to the neighbours."""
    from matplotlib.collections import LineCollection

    middle = (curve[1:] + curve[:-1]) / 2
    before, after = np.r_[curve[:1], middle], np.r_[middle, curve[-1:]]
    t = np.arange(len(curve))
    ends = [(t - 0.5, before), (t, curve), (t + 0.5, after)]
    pieces = np.stack([np.stack([at * step, value], 1) for at, value in ends], axis=1)
    lines = LineCollection(list(pieces), linewidths=2.2, capstyle="round", **scale)
    lines.set_array(r)
    ax.add_collection(lines)
    return lines


def _curves(
    ax: Axes,
    values: Values,
    end: float,
    tops: Values,
    names: Sequence[str] | None,
    colours: tuple[Any, Any],
    step: float,
) -> list[Any]:
    drawn = []
    edges = (np.arange(values.shape[1] + 1) - 0.5) * step
    single = len(values) == 1
    for r, top in zip(values, tops, strict=True):
        zero, factor = (0.0, 1.0) if single else (top - 0.5, 0.46 / end)
        ax.axhline(zero, color=GREY, linewidth=0.5)
        shown = r if single else np.clip(r * factor, -0.46, 0.46)
        for part, colour in zip((np.maximum(shown, 0), np.minimum(shown, 0)), colours, strict=True):
            drawn.append(ax.stairs(zero + part, edges, baseline=zero, fill=True, color=colour))
    if single:
        ax.set_ylabel("relevance", fontsize=8)
    else:
        ax.set_ylim(0, len(values))
    _frame(ax, None if single else tops, names)
    return drawn


def _frame(ax: Axes, tops: Values | None, names: Sequence[str] | None) -> None:
    ax.tick_params(labelsize=7.5, length=2)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if tops is not None:
        ax.set_yticks(tops - 0.5, names or [f"channel {c}" for c in range(len(tops))])
        for top in tops[1:]:
            ax.axhline(top, color="white", linewidth=1)
    elif names:
        ax.set_ylabel(names[0], fontsize=8)
