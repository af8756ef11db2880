"""``Resize`` and ``Upsample``: which values are taken, or the matrix of shares along each axis.

Formulas of the ONNX standard, Resize-19; ``operators.py`` lists them.
"""

from __future__ import annotations

import numpy as np

from pylrp.verify.step import Array, Step

__all__ = ["along", "is_linear", "nearest", "shares", "upsampled"]


def along(matrix: Array, x: Array, axis: int) -> Array:
    """Return x multiplied by a matrix (new size, old size) along one axis."""
    made: Array = np.swapaxes(np.swapaxes(x, axis, -1) @ matrix.T.astype(x.dtype), axis, -1)
    return made


def _places(step: Step, n: int, m: int, scale: float) -> Array:
    """Return the place in the input of each of ``m`` outputs."""
    i = np.arange(m, dtype=np.float64)
    mode = step.get("coordinate_transformation_mode", "half_pixel" if step.opset > 10 else "asymmetric")
    if mode == "align_corners":
        return i * (n - 1) / (m - 1) if m > 1 else 0 * i
    if mode == "asymmetric":
        return i / scale
    if mode == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if mode == "pytorch_half_pixel" and m == 1:
        return 0 * i
    if mode == "half_pixel_symmetric":
        return n / 2 * (1 - m / (scale * n)) + (i + 0.5) / scale - 0.5
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (i + 0.5) / scale - 0.5
    raise step.refuse(f"has coordinate_transformation_mode={mode}")


def _grid(step: Step, x: Array, scales: Array | None, sizes: Array | None) -> list[tuple[int, int, float]]:
    """Return (axis, new size, factor) of the axes that change."""
    axes = [a % x.ndim for a in step.get("axes", range(x.ndim))]
    if sizes is not None and sizes.size:
        wanted = [(axis, int(m), int(m) / x.shape[axis]) for axis, m in zip(axes, sizes, strict=True)]
    else:
        given = step.get("scales") if scales is None else scales
        pairs = [(axis, float(s)) for axis, s in zip(axes, given, strict=True)]
        wanted = [(axis, int(np.float32(x.shape[axis]) * np.float32(s)), s) for axis, s in pairs]
    if step.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise step.refuse("keeps the aspect ratio")
    return [(axis, m, s) for axis, m, s in wanted if m != x.shape[axis] or s != 1]


def _inputs(step: Step, given: tuple[Array | None, ...]) -> tuple[Array | None, Array | None]:
    if step.op == "Upsample" or step.opset < 11:
        return (given[0] if given else None), None
    scales = given[1] if len(given) > 1 else None
    scales = None if scales is None or not scales.size else scales
    return scales, (given[2] if len(given) > 2 else None)


def is_linear(step: Step) -> bool:
    """Tell whether values are mixed, not only taken."""
    return step.op in ("Resize", "Upsample") and step.get("mode", "nearest") != "nearest"


def nearest(step: Step, x: Array, *given: Array | None) -> Array:
    """Return the nearest values; of ``mode="linear"`` the mixture."""
    if is_linear(step):
        for axis, matrix in shares(step, x, *given):
            x = along(matrix, x, axis)
        return x
    rounding = step.get("nearest_mode", "round_prefer_floor" if step.opset > 10 else "floor")
    for axis, m, scale in _grid(step, x, *_inputs(step, given)):
        places = _places(step, x.shape[axis], m, scale)
        halves = np.round(2 * places) / 2
        places = np.where(np.abs(places - halves) < 1e-5, halves, places)  # meant to be there
        rounded = {
            "round_prefer_floor": np.ceil(places - 0.5),
            "round_prefer_ceil": np.floor(places + 0.5),
            "floor": np.floor(places),
            "ceil": np.ceil(places),
        }[rounding]
        x = np.take(x, np.clip(rounded, 0, x.shape[axis] - 1).astype(np.int64), axis=axis)
    return x


upsampled = nearest


def shares(step: Step, x: Array, *given: Array | None) -> list[tuple[int, Array]]:
    """Return, for each axis that changes, the matrix (new size, old size) of a linear resize."""
    if step.get("mode") == "cubic" and not step.get("antialias", 0):
        return [(axis, _cubic(step, x.shape[axis], m, s)) for axis, m, s in _grid(step, x, *_inputs(step, given))]
    if step.get("mode") not in ("linear", "bilinear") or step.get("antialias", 0) or step.get("exclude_outside", 0):
        raise step.refuse(f"has mode={step.get('mode')} or settings without a formula here")
    found = []
    for axis, m, scale in _grid(step, x, *_inputs(step, given)):
        n = x.shape[axis]
        places = np.clip(_places(step, n, m, scale), 0, n - 1)
        low = np.floor(places).astype(np.int64)
        share = places - low
        matrix = np.zeros((m, n))
        np.add.at(matrix, (np.arange(m), low), 1 - share)
        np.add.at(matrix, (np.arange(m), np.minimum(low + 1, n - 1)), share)
        found.append((axis, matrix))
    return found


def _cubic(step: Step, n: int, m: int, scale: float) -> Array:
    """Return the matrix (new size, old size) of a cubic resize: four neighbours, which an end repeats."""
    a, outside = step.get("cubic_coeff_a", -0.75), step.get("exclude_outside", 0)
    matrix = np.zeros((m, n))
    for row, place in enumerate(_places(step, n, m, scale)):
        low = int(np.floor(place))
        t = place - low
        weights = np.array([
            ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a,
            ((a + 2) * t - (a + 3)) * t * t + 1,
            ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1,
            ((a * (2 - t) - 5 * a) * (2 - t) + 8 * a) * (2 - t) - 4 * a,
        ])  # fmt: skip
        at = np.arange(low - 1, low + 3)
        if outside:
            weights = np.where((at < 0) | (at >= n), 0, weights)
            weights = weights / weights.sum()
        np.add.at(matrix[row], at.clip(0, n - 1), weights)
    return matrix
