"""A network's input as a picture: plots draw heatmaps over it, reports show it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.network.layout import channels_moved_last

__all__ = ["as_pixels", "stretched", "to_picture"]

Pixels = NDArray[np.float64]


def as_pixels(x: ArrayLike) -> Pixels:
    """Return (height, width) or (channels, height, width) as pixels: (height, width) or (height, width, 3).

    Three channels are red, green and blue, a fourth is left out; of any other number the mean is taken.
    """
    values = np.asarray(x, dtype=np.float64)
    if values.ndim == 3:
        values = channels_moved_last(values[:3]) if len(values) in (3, 4) else values.mean(axis=0)
    return values


def stretched(pixels: Pixels) -> Pixels:
    """Return pixels of which the smallest is 0 and the largest 1; all 0 where they are equal."""
    low, high = pixels.min(), pixels.max()
    made: Pixels = (pixels - low) / (high - low or 1)
    return made


def to_picture(x: ArrayLike) -> Pixels:
    """Return a network's input as a picture: floats from 0 to 1, (height, width) or (height, width, 3).

    Parameters
    ----------
    x : array_like of shape (height, width) or (channels, height, width)
        Three channels are red, green and blue, a fourth is left out; of any other number the mean is shown. Values
        beyond [0, 1], of normalised pixels say, are stretched: the smallest is 0 then, the largest 1, and colours may
        look a little off.
    """
    pixels = as_pixels(x)
    return pixels if pixels.min() >= 0 and pixels.max() <= 1 else stretched(pixels)
