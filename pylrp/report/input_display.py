"""An input and its relevance as the page draws them: a picture, a signal or a table; ``sample.py`` calls in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.present.kinds import kind_of
from pylrp.present.pixels import as_pixels, stretched
from pylrp.report.encode import block_sum, packed, png, short

__all__ = ["Focus", "InputDisplay", "focus"]

Array = NDArray[Any]

#: A map has at most so many points a side; a larger one is summed over blocks.
MOST_POINTS = 448
#: An outline is drawn from so many points a side.
MOST_OUTLINE = 64
#: A flat input without feature names has bars up to this many features, else a line.
MOST_BARS = 64
#: A signal with more channels than that is shown by their mean and the sum of their relevance, over a map of time by
#: channel.
MOST_LANES = 12


@dataclass(frozen=True)
class Focus:
    """The smallest region that holds half of the positive relevance.

    Attributes
    ----------
    mask : ndarray of bool
        Of the map's shape.
    share : float
        How much of the map's area the mask covers, 0 to 1.
    peak : tuple of int
        Where the smoothed positive relevance is largest.
    """

    mask: NDArray[np.bool_]
    share: float
    peak: tuple[int, ...]


def focus(plane: Array) -> Focus | None:
    """Return where half of the positive relevance lies, None if nothing is positive.

    Points are taken in the order of the mean positive relevance around them, over 1/8 of the map's side, so that the
    region is connected rather than single pixels.
    """
    positive = np.maximum(plane, 0).astype(np.float64)
    total = positive.sum()
    if not total > 0:
        return None
    smooth = positive
    side = 2 * round(max(plane.shape) / 32) + 1
    for axis in (0, 1, 0, 1):  # twice: a triangular window, in which near points count more
        smooth = _box(smooth, axis, side)
    order = np.argsort(-smooth, axis=None, kind="stable")
    count = int(np.searchsorted(np.cumsum(positive.ravel()[order]), total / 2)) + 1
    mask = np.zeros(plane.size, bool)
    mask[order[:count]] = True
    peak = tuple(int(i) for i in np.unravel_index(order[0], plane.shape))
    return Focus(mask.reshape(plane.shape), count / plane.size, peak)


def _box(values: Array, axis: int, side: int) -> Array:
    """Return the sum over ``side`` (odd) neighbours along an axis; there is nothing beyond the edges."""
    reach = side // 2
    width = [(0, 0)] * values.ndim
    width[axis] = (reach + 1, reach)
    total: Array = np.cumsum(np.pad(values, width), axis=axis)
    size = values.shape[axis]
    upper: Array = np.take(total, np.arange(side, side + size), axis=axis)
    upper -= np.take(total, np.arange(size), axis=axis)
    return upper


class InputDisplay:
    """How one input is shown.

    Parameters
    ----------
    name : str
        Of the input.
    x : ndarray
        One sample, channels first.
    image : array_like of uint8, optional
        (height, width) or (height, width, 3 or 4): what people see. Default: made from ``x``.
    feature_names : sequence of str, optional
        Of a flat input, or of the channels of a signal.
    times : array_like of shape (length,), optional
        Where the positions of a signal lie.

    Raises
    ------
    ValueError
        If the image or the feature names do not fit the input.
    TypeError
        If the image is not uint8.
    """

    def __init__(
        self,
        name: str,
        x: Array,
        image: ArrayLike | None,
        feature_names: Sequence[str] | None,
        times: ArrayLike | None = None,
    ):
        self.name, self._x = name, x
        self._pixels = None if image is None else _pixels(image)
        self._names = None if feature_names is None else [str(n) for n in feature_names]
        self._plane_shape, self.kind = self._settle()
        self._times = None if times is None else self._checked(times)
        self._block = 1

    def _settle(self) -> tuple[tuple[int, ...], str]:
        x, pixels, names = self._x, self._pixels, self._names
        if names is not None:
            if x.ndim not in (1, 2):
                raise ValueError(f"feature_names are for a flat input or a signal, {self.name!r} has shape {x.shape}")
            if len(names) != len(x):
                what = "features" if x.ndim == 1 else "channels"
                raise ValueError(f"{len(names)} feature_names for {len(x)} {what}")
        if pixels is not None:
            height, width = pixels.shape[:2]
            if x.ndim == 1:
                if height * width != x.size:
                    raise ValueError(
                        f"image has {height} x {width} pixels, the input {x.size} features: pass one that has as many"
                    )
                return (height, width), "image"
            if x.ndim != 3:
                raise ValueError(f"image is for inputs with height and width, {self.name!r} has shape {x.shape}")
            if abs(height * x.shape[2] - width * x.shape[1]) > 0.02 * height * x.shape[2]:
                raise ValueError(
                    f"image has {height} x {width} pixels, the input {x.shape[1]} x {x.shape[2]}: "
                    "pass the part of the picture that the network saw"
                )
        # Two axes are channels and positions here; of more than three the last two are height and width.
        most_bars = MOST_BARS if names is None else None
        kind = "image" if x.ndim > 3 else kind_of(x.shape, sequence=True, most_bars=most_bars)
        if kind == "image":
            return x.shape[-2:], kind
        if x.ndim == 1:
            return (1, x.size), kind
        return (x.shape[0] if x.shape[0] <= MOST_LANES else 1, x.shape[1]), kind

    def _checked(self, times: ArrayLike) -> list[float]:
        values = np.asarray(times, np.float64)
        if self.kind != "signal":
            raise ValueError(f"times are for a signal, {self.name!r} is shown as {self.kind}")
        if values.shape != self._plane_shape[1:]:
            raise ValueError(f"times has shape {values.shape}, the signal has {self._plane_shape[1]} positions")
        if not np.isfinite(values).all() or (np.diff(values) <= 0).any():
            raise ValueError("times must be finite and ascend")
        return [short(v) for v in values]

    def place(self, first: int, last: int) -> str:
        """Return an interval of a signal as text."""
        what = ("position", "positions")
        low, high = str(first), str(last)
        if self._times is not None:
            what, low, high = ("", ""), f"{self._times[first]:.4g}", f"{self._times[last]:.4g}"
        return (
            f"at {what[0]} {low}".replace("  ", " ")
            if low == high
            else f"at {what[1]} {low} to {high}".replace("  ", " ")
        )

    def plane(self, relevance: Array) -> Array:
        """Return relevance of the input's shape as the map that is shown: (height, width) or (lanes, length), float64.

        Channels are summed, and what else stands before height and width.
        """
        values = np.asarray(relevance, np.float64)
        if values.ndim == 1:
            return values.reshape(self._plane_shape)
        if self.kind == "signal":
            return values if len(values) == self._plane_shape[0] else values.sum(axis=0, keepdims=True)
        summed: Array = values.sum(axis=tuple(range(values.ndim - 2)))
        return summed

    def input_data(self) -> dict[str, Any]:
        """Return the input for the page."""
        data: dict[str, Any] = {"name": self.name, "kind": self.kind, "shape": list(self._x.shape)}
        if self.kind == "image":
            pixels = _visible(self._x, self._plane_shape) if self._pixels is None else self._pixels
            data |= {"image": png(pixels), "made": self._pixels is None}
            data["block"] = -(-max(self._plane_shape) // MOST_POINTS)
        elif self.kind == "table":
            data["names"] = self._names or [f"feature {i}" for i in range(self._x.size)]
            data["values"] = [short(v) for v in self._x]
        else:
            lanes = self._plane_shape[0]
            x = self._x.reshape(-1, self._plane_shape[1])
            data["lines"] = packed(x if len(x) == lanes else x.mean(axis=0, keepdims=True))
            data["lanes"] = self._names if self._x.ndim == 2 and len(self._x) == lanes else None
            data["times"] = self._times
            if self._has_map:
                data["rows"] = {"count": len(self._x), "names": self._names, "block": self._map_of(self._x)[1]}
        return data

    def map_data(self, relevance: Array) -> dict[str, Any]:
        """Return relevance of the input's shape for the page."""
        plane = self.plane(relevance)
        if self.kind == "table":
            return {"values": [short(v) for v in plane[0]]}
        if self.kind == "signal":
            by_row = {"by_row": packed(self._map_of(np.asarray(relevance, np.float64))[0])} if self._has_map else {}
            return packed(plane) | by_row
        found = focus(plane)
        data = packed(block_sum(plane, MOST_POINTS)[0])
        if found is not None:
            data["focus"] = {"share": short(found.share), "mask": packed(_coarse(found.mask))}
        return data

    @property
    def _has_map(self) -> bool:
        return self.kind == "signal" and self._x.ndim == 2 and len(self._x) > MOST_LANES

    def _map_of(self, values: Array) -> tuple[Array, int]:
        """Return values by channel and position, summed over blocks where there are too many, and the blocks' side."""
        return block_sum(values, MOST_POINTS)

    def speaks(self, index: int) -> bool:
        """Tell whether a feature may be named among the strongest."""
        return True

    def feature(self, index: int) -> str:
        """Return the name of a feature of a flat input."""
        return f"feature {index}" if self._names is None else self._names[index]


def _coarse(mask: NDArray[np.bool_]) -> Array:
    """Return how much of each block of a map is masked, 0 to 1: enough to draw an outline."""
    return block_sum(mask.astype(np.float64), MOST_OUTLINE)[0] / block_sum(np.ones(mask.shape), MOST_OUTLINE)[0]


def _pixels(image: ArrayLike) -> Array:
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        raise TypeError(f"image is {pixels.dtype}, expected uint8 pixels from 0 to 255")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if (pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] not in (3, 4))) or pixels.size == 0:
        raise ValueError(f"image has shape {pixels.shape}, expected (height, width) or (height, width, 3)")
    return pixels


def _visible(x: Array, shape: tuple[int, ...]) -> Array:
    """Return an input as uint8 pixels, its lowest value black and its highest white."""
    pixels = as_pixels(x) if x.ndim == 3 else x.reshape(-1, *shape).mean(axis=0, dtype=np.float64)
    made: Array = np.rint(255 * stretched(pixels)).astype(np.uint8)
    return made
