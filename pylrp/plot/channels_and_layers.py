"""Heatmaps side by side in one figure: one a channel of a layer, or one a layer of a network.

``multi_panel.py`` calls in, and so may you: the functions take arrays and a figure, or a part of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.plot.colours import PERCENTILE, bound, ends_of, finite, symmetric_limit
from pylrp.plot.images import heatmap
from pylrp.present.colours import GREY
from pylrp.present.kinds import kind_of
from pylrp.present.numbers import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import FigureBase

__all__ = ["channels", "layers", "shape_of", "strongest"]

_LETTERS = 28  # of a layer's name over its panel


def shape_of(panels: int, widest: int = 6) -> tuple[int, int]:
    """Return rows and columns for so many panels, about three high for four wide."""
    columns = min(panels, widest, max(4, round(float(np.sqrt(panels * 4 / 3)))))
    return -(-panels // columns), columns


def strongest(totals: ArrayLike) -> NDArray[np.intp]:
    """Return the channels by the size of their sum, the largest first."""
    return np.argsort(-np.abs(np.asarray(totals)), kind="stable")


def channels(
    figure: FigureBase,
    R: ArrayLike,
    *,
    most: int = 12,
    limit: float | None = None,
    percentile: float = PERCENTILE,
    names: Sequence[str] | None = None,
    cmap: str | Colormap | None = None,
) -> list[Any]:
    """Draw a heatmap for each channel of a layer, that of the largest ``|sum|`` first, all on one scale.

    Parameters
    ----------
    figure : matplotlib.figure.Figure or SubFigure
    R : array_like of shape (channels, height, width) or (channels, length)
        Relevance of the layer.
    most : int, default 12
        How many channels are drawn.
    limit, percentile : float
        As for :func:`pylrp.plot.heatmap`, of the channels that are drawn, together.
    names : sequence of str, optional
        Of the channels; default their numbers.
    cmap : str or matplotlib.colors.Colormap, optional
        As for :func:`heatmap`.

    Returns
    -------
    list of AxesImage
        In the order in which they are drawn.

    Raises
    ------
    ValueError
        If R has no channels or is not finite, or the names do not fit.
    """
    values = finite(R)
    if values.ndim not in (2, 3):
        raise ValueError(f"R has shape {values.shape}, expected (channels, height, width) or (channels, length)")
    if names is not None and len(names) != len(values):
        raise ValueError(f"feature_names has {len(names)} entries, there are {len(values)} channels")
    totals = values.reshape(len(values), -1).sum(axis=1)
    order = strongest(totals)[:most]
    end = bound(values[order], limit, percentile)
    rows, columns = shape_of(len(order))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    drawn = []
    for ax, c in zip(panels, order, strict=False):
        drawn.append(heatmap(ax, np.atleast_2d(values[c]), limit=end, cmap=cmap))
        if values.ndim == 2:
            ax.set_aspect("auto")
        ax.set_title(f"{f'channel {c}' if names is None else names[c]}: {number(totals[c])}", fontsize=8, pad=3)
    for ax in panels[len(order) :]:
        ax.set_axis_off()
    return drawn


def layers(
    figure: FigureBase,
    maps: Mapping[str, ArrayLike],
    *,
    limit: float | None = None,
    percentile: float = PERCENTILE,
    cmap: str | Colormap | None = None,
) -> dict[str, Any]:
    """Draw the relevance of several layers, each on its own scale unless ``limit`` is given.

    Parameters
    ----------
    figure : matplotlib.figure.Figure or SubFigure
    maps : mapping of str to array_like
        Relevance of one sample by the name of the layer: ``(channels, height, width)`` and ``(height, width)`` are
        drawn as maps, summed over channels; ``(units,)`` as bars, ``(channels, length)`` as bars summed over channels.
    limit, percentile : float
    cmap : str or matplotlib.colors.Colormap, optional
        As for :func:`pylrp.plot.heatmap`.

    Returns
    -------
    dict of str to AxesImage or list of StepPatch
        By name. Bars are two patches: above zero and below.

    Raises
    ------
    ValueError
        If there is no layer, or relevance is not finite.
    """
    if not maps:
        raise ValueError("there is no layer to draw")
    rows, columns = shape_of(len(maps))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    drawn: dict[str, Any] = {}
    for ax, (name, R) in zip(panels, maps.items(), strict=False):
        values = finite(R, f"relevance of {name}")
        summed = _summed(values)
        end = bound(summed, limit, percentile)
        shape = " x ".join(map(str, values.shape))
        if summed.ndim == 2:
            drawn[name] = heatmap(ax, summed, limit=end, cmap=cmap)
        else:
            drawn[name] = _bars(ax, summed, limit or symmetric_limit(summed, 100), ends_of(cmap))
            end = limit or symmetric_limit(summed, 100)
        short = name if len(name) <= _LETTERS else f"…{name[1 - _LETTERS :]}"
        ax.set_title(short, fontsize=7.5, pad=22)
        note = f"{shape}\nsum {number(values.sum())}, ±{number(end)}"
        ax.annotate(note, (0.5, 1), (0, 3), xycoords="axes fraction", textcoords="offset points", ha="center",
                    fontsize=6.5, color=GREY, annotation_clip=False)  # fmt: skip
    for ax in panels[len(maps) :]:
        ax.set_axis_off()
    return drawn


def _summed(values: NDArray[np.float64]) -> Any:
    """Return a map or a row: channels are summed, of (height, width) there are none."""
    if values.ndim < 2 or (values.ndim > 2 and values[0].size == 1):
        return values.ravel()
    flat = values.ndim == 2 and kind_of(values.shape) == "signal"
    return values.sum(axis=0) if flat else values.sum(axis=tuple(range(values.ndim - 2)))


def _bars(ax: Axes, values: NDArray[np.float64], end: float, colours: tuple[Any, Any]) -> list[Any]:
    edges = np.arange(len(values) + 1) - 0.5
    thin = 0.8 if len(values) > 100 else 0  # bars thinner than a pixel would pale
    drawn = [
        ax.stairs(part, edges, baseline=0, fill=True, color=colour, linewidth=thin)
        for part, colour in zip((np.maximum(values, 0), np.minimum(values, 0)), colours, strict=True)
    ]
    ax.axhline(0, color=GREY, linewidth=0.5)
    ax.set_ylim(-1.05 * end, 1.05 * end)
    ax.set_xlim(-0.5, len(values) - 0.5)
    ax.set_box_aspect(1)
    ax.set_yticks([])
    ax.set_xticks([0, len(values) - 1])
    ax.tick_params(labelsize=6, length=2, colors=GREY)
    for side in ax.spines.values():
        side.set_color("#d5d5d0")
    return drawn
