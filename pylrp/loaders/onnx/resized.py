"""ONNX's Resize of a constant: tables of positions, which a model interpolates for the size of its image.

``onnx/folding.py`` calls in; what is resized while a network runs is a layer (``onnx/movement.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp._limits import require
from pylrp.layers.resize import COORDINATES, Resize
from pylrp.loaders.onnx.node import Call

__all__ = ["resized"]

Floats = NDArray[np.float64]
_REACH = 2  # of the cubic filter


def resized(call: Call, x: NDArray[Any], scales: NDArray[Any] | None, sizes: NDArray[Any] | None) -> NDArray[Any]:
    """Return a constant at another size.

    Parameters
    ----------
    call : Call
        The node's settings.
    x : ndarray
    scales, sizes : ndarray or None
        For each of the node's axes; one of them is given.
    """
    axes = [int(a) % x.ndim for a in call.attribute("axes", range(x.ndim))]
    given = scales if sizes is None else sizes
    if given is None or len(given) != len(axes):
        raise call.broken(f"has {0 if given is None else len(given)} sizes or scales for {len(axes)} axes")
    if call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.unsupported("keeps the aspect ratio of a constant")
    made: NDArray[Any] = x.astype(np.float64)
    for axis, wanted in zip(axes, given, strict=True):
        n = x.shape[axis]
        m = int(wanted) if sizes is not None else int(np.float32(n) * np.float32(wanted))
        scale = m / n if sizes is not None else float(wanted)
        if n < 1 or m < 1:
            raise call.broken(f"resizes an axis of {n} to {m}")
        require(8 * (made.size // n + n) * m, f"node {call.name!r} (Resize): a constant")
        if (m, scale) != (n, 1.0):
            made = np.swapaxes(np.swapaxes(made, axis, -1) @ _matrix(call, n, m, scale).T, -1, axis)
    return made.astype(call.translation.constants.dtype if x.dtype == np.float32 else x.dtype)


def _matrix(call: Call, n: int, m: int, scale: float) -> Floats:
    """Return the weights (m, n) of what lies at n places for each of m."""
    mode = call.attribute("mode", "nearest")
    coordinates = call.attribute("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        rounding = call.attribute("nearest_mode", "round_prefer_floor")
        layer = Resize((m,), mode="nearest", coordinates=coordinates, nearest=rounding, axes=(0,))
        return np.eye(n)[layer.nearest_of(n, m, scale)]
    if coordinates not in COORDINATES or mode not in ("linear", "cubic"):
        raise call.unsupported(f"resizes with mode={mode!r} and coordinate_transformation_mode={coordinates!r}")
    places = COORDINATES[coordinates](np.arange(m, dtype=np.float64), scale, n, m)
    kernel, reach = _kernel(mode, call.attribute("cubic_coeff_a", -0.75))
    smooth = bool(call.attribute("antialias", 0))
    stretch = min(scale, 1.0) if smooth else 1.0  # the filter is as wide as what becomes one value
    at = np.arange(-int(np.ceil(reach / stretch)) - 1, n + int(np.ceil(reach / stretch)) + 2)
    weights = kernel((at - places[:, None]) * stretch)
    outside = (at < 0) | (at >= n)
    if smooth or (call.attribute("exclude_outside", 0) and mode == "cubic"):
        weights = np.where(outside, 0.0, weights)
    weights /= weights.sum(axis=1, keepdims=True)
    made = np.zeros((m, n))
    np.add.at(made, (np.arange(m)[:, None], at.clip(0, n - 1)[None].repeat(m, 0)), weights)
    return made


def _kernel(mode: str, a: float) -> tuple[Callable[[Floats], Floats], int]:
    """Return a filter and how many places it reaches (Keys 1981 for the cubic one)."""
    if mode == "linear":
        return lambda t: np.maximum(1 - np.abs(t), 0.0), 1

    def cubic(t: Floats) -> Floats:
        d = np.abs(t)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < _REACH, far, 0.0))

    return cubic, _REACH
