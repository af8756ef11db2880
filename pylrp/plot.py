"""Heatmaps of relevance with matplotlib, symmetrical about zero; hands axes back to ``demo.py`` and to your figures.

matplotlib is the optional extra ``plot`` and is imported where it is used. Figures are made without pyplot: no
display is needed, no global state is touched, and any thread may draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["PERCENTILE", "diverging_map", "heatmap", "new_figure", "symmetric_limit"]

#: Share of the pixels, in percent, whose relevance the colours tell apart; the rest is clipped.
PERCENTILE = 99.5

# Blue for negative, red for positive: told apart by red-green and blue-yellow colour-blind eyes. Lightness falls
# evenly from the middle to both ends, so that equal amounts look equally strong.
_COLOURS = ("#072b5c", "#1d5ea6", "#5b9bd0", "#b4d3ea", "#f5f4f1", "#f8cfb5", "#eb8a60", "#c2362f", "#64091f")


def new_figure(width: float, height: float, dpi: float = 100) -> Figure:
    """Return an empty figure, ``width`` and ``height`` in inches, drawn by matplotlib's Agg.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to get it.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "pylrp[plot]"') from error
    figure = Figure(figsize=(width, height), dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def diverging_map() -> LinearSegmentedColormap:
    """Return the colour map: blue below zero, near white at zero, red above."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("pylrp", _COLOURS, N=511)  # odd: zero has a colour of its own


def symmetric_limit(R: ArrayLike, percentile: float = PERCENTILE) -> float:
    """Return the relevance that gets the full colour, at ``+limit`` and ``-limit``.

    It is a percentile of ``|R|``, so that single pixels do not pale all others. Where that percentile is 0 (few pixels
    have any relevance) it is the largest ``|R|``; where all are 0 it is 1.

    Raises
    ------
    ValueError
        If R is empty or holds NaN or infinity, or ``percentile`` is not in (0, 100].
    """
    size = np.abs(np.asarray(R, dtype=np.float64))
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be above 0 and at most 100, got {percentile}")
    if size.size == 0:
        raise ValueError("R is empty: there is nothing to draw")
    if not np.isfinite(size).all():
        raise ValueError(f"R holds {np.count_nonzero(~np.isfinite(size))} values that are NaN or infinite")
    return float(np.percentile(size, percentile) or size.max() or 1.0)


def heatmap(
    ax: Axes,
    R: ArrayLike,
    *,
    limit: float | None = None,
    percentile: float = PERCENTILE,
    outline: ArrayLike | None = None,
) -> AxesImage:
    """Draw relevance into ``ax``: red speaks for the explained class, blue against it, zero is near white.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Its ticks and frame are removed.
    R : array_like of shape (height, width)
        Relevance, one value a pixel.
    limit : float, optional
        Full colour at ``+limit`` and ``-limit``. Give it to draw several maps on one scale; the default is
        ``symmetric_limit(R, percentile)``.
    percentile : float, default 99.5
        See :func:`symmetric_limit`.
    outline : array_like of shape (height, width), optional
        The image that was explained; its contour at half of its largest value is drawn as a thin line.

    Returns
    -------
    matplotlib.image.AxesImage
        ``image.get_clim()`` is ``(-limit, limit)``.

    Raises
    ------
    ValueError
        If R is not an image or not finite, the outline has another shape, or ``limit`` is not above 0.

    Examples
    --------
    >>> from pylrp.plot import heatmap, new_figure
    >>> figure = new_figure(3, 3)
    >>> image = heatmap(figure.subplots(), [[1.0, -0.5], [0.0, 0.25]], percentile=100)
    >>> [float(v) for v in image.get_clim()]
    [-1.0, 1.0]
    """
    values = np.asarray(R, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"R has shape {values.shape}, expected (height, width): reshape it, R.reshape(28, 28) say")
    bound = symmetric_limit(values, percentile) if limit is None else float(limit)
    if not 0 < bound < np.inf:
        raise ValueError(f"limit must be above 0 and finite, got {limit}")
    ax.set_axis_off()
    image = ax.imshow(values, cmap=diverging_map(), vmin=-bound, vmax=bound, interpolation="nearest", origin="upper")
    if outline is not None:
        shape = np.asarray(outline, dtype=np.float64)
        if shape.shape != values.shape:
            raise ValueError(f"outline has shape {shape.shape}, R has shape {values.shape}")
        if shape.max() > 0:
            ax.contour(shape, levels=[shape.max() / 2], colors=["#1c2733"], linewidths=0.6, alpha=0.45)
    return image
