"""Relevance of images: bare heatmaps, and heatmaps over the picture or its edges.

``explanations.py`` and ``grids.py`` call in, and so may you: every function takes arrays and an Axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.plot.colours import PERCENTILE, bound, chosen_map, colour_bar
from pylrp.present.colours import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage

__all__ = ["OVERLAYS", "as_picture", "heatmap", "image"]

#: What :func:`image` draws under or over the heatmap.
OVERLAYS = ("none", "grey", "edges")

_SMALL = 64  # below, single pixels are seen: a contour shows the shape better than edges of one pixel's width
_GREY = np.array([0.299, 0.587, 0.114])  # luma of ITU-R BT.601

Pixels = NDArray[np.float64]


def heatmap(
    ax: Axes,
    R: ArrayLike,
    *,
    limit: float | None = None,
    percentile: float = PERCENTILE,
    outline: ArrayLike | None = None,
    cmap: str | Colormap | None = None,
) -> AxesImage:
    """Draw relevance into ``ax``: red is evidence for the explained class, blue against it, zero is near white.

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
    cmap : str or matplotlib.colors.Colormap, optional
        Instead of pylrp's colours; the middle of the map is relevance 0.

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
    end = bound(values, limit, percentile)
    ax.set_axis_off()
    drawn = ax.imshow(values, cmap=chosen_map(cmap), vmin=-end, vmax=end, interpolation="nearest", origin="upper")
    if outline is not None:
        shape = np.asarray(outline, dtype=np.float64)
        if shape.shape != values.shape:
            raise ValueError(f"outline has shape {shape.shape}, R has shape {values.shape}")
        if shape.max() > 0:
            ax.contour(shape, levels=[shape.max() / 2], colors=[INK], linewidths=0.6, alpha=0.45)
    return drawn


def image(
    ax: Axes,
    R: ArrayLike,
    picture: ArrayLike | None = None,
    *,
    overlay: str | None = None,
    limit: float | None = None,
    percentile: float = PERCENTILE,
    colours: bool = True,
    cmap: str | Colormap | None = None,
) -> AxesImage:
    """Draw the relevance of an image, over the image itself if there is one.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Its ticks and frame are removed.
    R : array_like of shape (height, width) or (channels, height, width)
        Relevance; that of the channels is summed, which keeps the sum of the map.
    picture : array_like of shape (height, width) or (height, width, 1, 3 or 4), optional
        What to show with it: uint8, or float from 0 to 1. It may be finer or coarser than R, but must have R's
        proportions: the same part of the picture.
    overlay : {"none", "grey", "edges"}, optional
        "none": the heatmap alone. "grey": the picture in pale grey, and over it the relevance, the more opaque the
        larger it is. "edges": the heatmap, darkened along the picture's edges; pictures of less than 64 pixels get
        the contour at half of their largest value. Default: "grey" for pictures of 64 pixels and more, "edges" for
        smaller ones, "none" without a picture.
    limit, percentile : float
        As for :func:`heatmap`.
    colours : bool, default True
        Draw the scale of the colours beside the map.
    cmap : str or matplotlib.colors.Colormap, optional
        As for :func:`heatmap`.

    Returns
    -------
    matplotlib.image.AxesImage
        The heatmap: ``get_array()`` is the summed relevance, ``get_clim()`` is ``(-limit, limit)``.

    Raises
    ------
    ValueError
        If R is no image or not finite, or the picture does not fit.
    """
    values = np.asarray(R, dtype=np.float64)
    if values.ndim == 3:
        values = values.sum(axis=0)
    grey = None if picture is None else as_grey(as_picture(picture, values.shape))
    small = grey is not None and min(grey.shape) < _SMALL
    if overlay is None:
        overlay = "none" if grey is None else "edges" if small and grey.shape == values.shape else "grey"
    if overlay not in OVERLAYS:
        raise ValueError(f"overlay must be one of {', '.join(OVERLAYS)}, got {overlay!r}")
    if overlay != "none" and grey is None:
        raise ValueError(f"overlay={overlay!r} needs the picture under it: pass image=")
    outline = grey if overlay == "edges" and small and grey is not None and grey.shape == values.shape else None
    drawn = heatmap(ax, values, limit=limit, percentile=percentile, outline=outline, cmap=cmap)
    if min(values.shape) >= _SMALL:
        drawn.set_interpolation("antialiased")  # where a panel has fewer pixels than the map, none is skipped
    if grey is not None and overlay == "grey":
        under = 0.5 + 0.5 * grey  # pale, for contrast to dark red and dark blue
        place: Any = {"extent": drawn.get_extent(), "interpolation": "antialiased"}
        ax.imshow(under, cmap="gray", vmin=0, vmax=1, zorder=-1, **place)
        densest = 1 if len(grey) < 2 * len(values) else 0.7  # large squares stay translucent
        drawn.set_alpha(densest * np.clip(np.abs(values) / drawn.get_clim()[1], 0, 1) ** 0.5)
    elif grey is not None and overlay == "edges" and outline is None:
        _ink(ax, _edges(grey), drawn.get_extent())
    if colours:
        colour_bar(ax, drawn)
    return drawn


def _edges(grey: Pixels) -> Any:
    """Return how much of an edge each pixel is, from 0 to 1: the gradient's size, its largest 1 % cut off."""
    rise, run = np.gradient(grey)
    size = np.hypot(rise, run)
    return np.clip(size / (np.percentile(size, 99) or 1), 0, 1)


def _ink(ax: Axes, strength: Pixels, extent: tuple[float, float, float, float]) -> None:
    shades = np.zeros((*strength.shape, 4))
    shades[..., :3] = [int(INK[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    shades[..., 3] = 0.55 * strength
    ax.imshow(shades, interpolation="antialiased", extent=extent)


def as_picture(picture: ArrayLike, shape: tuple[int, ...] | None = None) -> Pixels:
    """Return a picture as floats from 0 to 1, of shape (height, width) or (height, width, 3); ``shape`` checks it."""
    array = np.asarray(picture)
    if array.ndim == 3 and array.shape[2] in (1, 3, 4):
        array = array[:, :, 0] if array.shape[2] == 1 else array[:, :, :3]
    elif array.ndim != 2:
        raise ValueError(f"image has shape {array.shape}, expected (height, width) or (height, width, 3)")
    height, width = array.shape[:2]
    # The larger may be off by a few pixels, as maps of layers are.
    if shape is not None and not 0.95 < (height / width) / (shape[0] / shape[1]) < 1.05:
        raise ValueError(
            f"image is {height} x {width} pixels, the relevance {shape[0]} x {shape[1]}: crop the image as for the "
            "network"
        )
    if array.dtype == np.uint8:
        return array / 255.0
    values = array.astype(np.float64)
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"image must be uint8, or float from 0 to 1; it is {array.dtype} from {values.min():g} to {values.max():g}"
        )
    return values


def as_grey(picture: Pixels) -> Pixels:
    """Return a picture of shape (height, width)."""
    grey: Pixels = picture if picture.ndim == 2 else picture @ _GREY
    return grey
