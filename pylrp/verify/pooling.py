"""Averages, maxima, sums over axes, normalisations and softmax: what they compute, averages as matrices along axes.

``operators.py`` lists the functions; ``backward.py`` uses the matrices and the places of maxima.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pylrp.verify.linear import same_pads
from pylrp.verify.moving import integers
from pylrp.verify.program import Array, Step
from pylrp.verify.resizing import along

__all__ = [
    "NORMALISATIONS",
    "REDUCTIONS",
    "Statistics",
    "average",
    "averages",
    "batch_norm",
    "cumulated",
    "largest",
    "local_response",
    "lp_norm",
    "reduced",
    "reduced_axes",
    "softmax",
    "statistics",
]


def _windows(step: Step, space: Sequence[int]) -> list[tuple[Array, Array]]:
    """Return for each axis the places that each window looks at, (windows, kernel), and how many of them count."""
    kernel = step.get("kernel_shape")
    stride, dilation = (step.get(name, [1] * len(kernel)) for name in ("strides", "dilations"))
    found = []
    pads = same_pads(step, space, kernel, stride, dilation)
    for n, k, s, d, (low, high) in zip(space, kernel, stride, dilation, pads, strict=True):
        span = n + low + high - (k - 1) * d - 1
        count = span // s + 1
        if step.get("ceil_mode", 0) and span % s and count * s < n + low:  # one more, if it begins inside
            count += 1
        at = np.arange(count)[:, None] * s + np.arange(k) * d - low
        # Padding that was asked for may count; what ceil_mode adds beyond it never does.
        counted = (at < n + high) if step.get("count_include_pad", 0) else (at >= 0) & (at < n)
        found.append((at, counted.sum(axis=1)))
    return found


def averages(step: Step, x: Array) -> list[tuple[int, Array]]:
    """Return the matrices (windows, size) along axes whose product averages."""
    if step.op == "GlobalAveragePool":
        return [(axis, np.full((1, n), 1 / n)) for axis, n in enumerate(x.shape) if axis > 1]
    made = []
    for axis, (at, counted) in enumerate(_windows(step, x.shape[2:]), start=2):
        matrix = np.zeros((len(at), x.shape[axis]))
        row, column = np.nonzero((at >= 0) & (at < x.shape[axis]))
        np.add.at(matrix, (row, at[row, column]), 1 / counted[row])
        made.append((axis, matrix))
    return made


def average(step: Step, x: Array) -> Array:
    """Return AveragePool and GlobalAveragePool."""
    for axis, matrix in averages(step, x):
        x = along(matrix, x, axis)
    return x


def largest(step: Step, x: Array) -> Array:
    """Return, for MaxPool and GlobalMaxPool, the place in x of each window's largest value.

    Values that are equal to the last bits but one are equal: the first of them counts, as in every framework.
    """
    places = np.arange(x.size).reshape(x.shape)
    rounded = x.astype(np.float32).astype(np.float64)
    if step.op == "GlobalMaxPool":
        flat = places.reshape(*x.shape[:2], -1)
        best = rounded.reshape(flat.shape).argmax(axis=-1)[..., None]
        return np.take_along_axis(flat, best, -1).reshape(*x.shape[:2], *(1,) * (x.ndim - 2))
    windows = [at for at, _ in _windows(step, x.shape[2:])]
    axes = len(windows)
    grid: list[Any] = []
    valid = np.ones((1,) * 2 * axes, bool)
    for i, at in enumerate(windows):  # (windows of each axis, taps of each axis)
        shape = [1] * 2 * axes
        shape[i], shape[axes + i] = at.shape
        inside = (at >= 0) & (at < x.shape[2 + i])
        grid.append(np.where(inside, at, 0).reshape(shape))
        valid = valid & inside.reshape(shape)
    picked = np.where(valid, rounded[(slice(None), slice(None), *grid)], -np.inf)
    where = places[(slice(None), slice(None), *grid)]
    out = picked.shape[2 : 2 + axes]
    best = picked.reshape(*x.shape[:2], *out, -1).argmax(axis=-1)[..., None]
    return np.take_along_axis(where.reshape(*x.shape[:2], *out, -1), best, -1)[..., 0]


def reduced_axes(step: Step, x: Array, axes: Array | None = None) -> tuple[int, ...]:
    """Return the axes that a reduction goes over."""
    given = integers(step, "axes", axes)
    if not given:
        return () if step.get("noop_with_empty_axes", 0) else tuple(range(x.ndim))
    return tuple(a % x.ndim for a in given)


def _logsumexp(x: Array, **how: Any) -> Array:
    most = x.max(axis=how["axis"], keepdims=True)
    total = np.log(np.exp(x - most).sum(axis=how["axis"], keepdims=True)) + most
    return np.asarray(total if how["keepdims"] else total.squeeze(how["axis"]))


#: Normalisations by statistics of the sample.
NORMALISATIONS = (
    "GroupNormalization", "InstanceNormalization", "LayerNormalization", "MeanVarianceNormalization",
    "RMSNormalization", "SimplifiedLayerNormalization",
)  # fmt: skip
REDUCTIONS: dict[str, Any] = {
    "ReduceL1": lambda x, **how: np.abs(x).sum(**how),
    "ReduceL2": lambda x, **how: np.sqrt((x * x).sum(**how)),
    "ReduceLogSum": lambda x, **how: np.log(x.sum(**how)),
    "ReduceLogSumExp": _logsumexp,
    "ReduceMax": np.max,
    "ReduceMean": np.mean,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceSum": np.sum,
    "ReduceSumSquare": lambda x, **how: (x * x).sum(**how),
}


def reduced(step: Step, x: Array, axes: Array | None = None) -> Array:
    """Return a reduction over axes."""
    over = reduced_axes(step, x, axes)
    if not over and step.get("noop_with_empty_axes", 0):
        return x
    return np.asarray(REDUCTIONS[step.op](x, axis=over, keepdims=bool(step.get("keepdims", 1))))


def softmax(step: Step, x: Array) -> Array:
    """Return Softmax and LogSoftmax; before opset 13 all axes from ``axis`` on are one."""
    if step.opset >= 13:
        rows, axis = x, step.get("axis", -1)
    else:
        first = step.get("axis", 1) % x.ndim
        rows, axis = x.reshape(*x.shape[:first], -1), -1
    shifted = rows - rows.max(axis=axis, keepdims=True)
    shifted = np.where(np.isnan(shifted), -np.inf, shifted)  # a row of nothing but -inf
    e = np.exp(shifted)
    total = e.sum(axis=axis, keepdims=True)
    if step.op == "LogSoftmax":
        return np.asarray(shifted - np.log(total)).reshape(x.shape)
    made: Array = np.divide(e, total, out=np.zeros_like(e), where=total != 0)
    return made.reshape(x.shape)


def batch_norm(step: Step, x: Array, scale: Array, shift: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    """Return the factor and the shift of a trained BatchNormalization, one a channel."""
    factor = scale / np.sqrt(variance + step.get("epsilon", 1e-5))
    shape = (-1, *(1,) * (x.ndim - 2))
    return factor.reshape(shape), (shift - mean * factor).reshape(shape)


def local_response(step: Step, x: Array) -> Array:
    """Return the divisor of LRN."""
    size, n = step.get("size"), x.shape[1]
    low = (size - 1) // 2
    squares = np.stack([(x[:, max(c - low, 0) : c - low + size] ** 2).sum(axis=1) for c in range(n)], axis=1)
    alpha, beta, bias = step.get("alpha", 1e-4), step.get("beta", 0.75), step.get("bias", 1.0)
    return np.asarray((bias + alpha / size * squares) ** beta)


@dataclass(frozen=True)
class Statistics:
    """A normalisation ``(x - mean) / divisor * scale + shift`` by statistics of the sample.

    Attributes
    ----------
    mean, divisor : ndarray
        Broadcast to x; ``mean`` is None where none is subtracted.
    scale, shift : ndarray or float
    average : callable
        The mean over the axes, or groups of channels, of an array of x's shape; broadcasts to it.
    """

    mean: Array | None
    divisor: Array
    scale: Any
    shift: Any
    average: Callable[[Array], Array]

    def applied(self, x: Array) -> Array:
        """Return what the normalisation makes of x."""
        return np.asarray((x if self.mean is None else x - self.mean) / self.divisor * self.scale + self.shift)


def statistics(step: Step, x: Array, *given: Array | None) -> Statistics:
    """Return a normalisation's statistics of x."""
    epsilon = step.get("epsilon", 1e-5)
    scale: Any = given[0] if given and given[0] is not None else 1.0
    shift: Any = given[1] if len(given) > 1 and given[1] is not None else 0.0
    per_channel = (-1, *(1,) * (x.ndim - 2))
    if step.op == "GroupNormalization":
        groups = step.get("num_groups")
        if np.size(scale) == groups != x.shape[1]:  # opset 18 has one a group
            scale, shift = (np.repeat(v, x.shape[1] // groups) for v in (scale, shift))
        scale, shift = (np.reshape(v, per_channel) for v in (scale, shift))

        def average(v: Array) -> Array:
            means = v.reshape(len(v), groups, -1).mean(axis=-1)
            return np.repeat(means, v.shape[1] // groups, axis=1).reshape(*v.shape[:2], *(1,) * (v.ndim - 2))
    else:
        axes = tuple(range(step.get("axis", -1) % x.ndim, x.ndim))
        if step.op == "InstanceNormalization":
            axes = tuple(range(2, x.ndim))
            scale, shift = (np.reshape(v, per_channel) for v in (scale, shift))
        elif step.op == "MeanVarianceNormalization":
            axes, epsilon = tuple(step.get("axes", [0, 2, 3])), 0.0

        def average(v: Array) -> Array:
            return np.asarray(v.mean(axis=axes, keepdims=True))

    if step.op.endswith(("RMSNormalization", "SimplifiedLayerNormalization")):
        return Statistics(None, np.sqrt(average(x * x) + epsilon), scale, 0.0, average)
    mean = average(x)
    divisor = np.sqrt(average((x - mean) ** 2) + epsilon)
    if step.op == "MeanVarianceNormalization":
        divisor = divisor + 1e-9
    return Statistics(mean, divisor, scale, shift, average)


def cumulated(step: Step, x: Array, axis: Array, *, reverse: bool) -> Array:
    """Return the sums up to each place; the transpose of one direction is the other."""
    along_axis = int(np.ravel(axis)[0])
    turned = np.flip(x, along_axis) if reverse else x
    made = np.cumsum(turned, axis=along_axis, dtype=x.dtype) - (turned if step.get("exclusive", 0) else 0)
    return np.asarray(np.flip(made, along_axis) if reverse else made)


def lp_norm(step: Step, x: Array) -> Array:
    """Return the divisor of LpNormalization; 1 where the norm is 0."""
    axis = step.get("axis", -1)
    total = np.abs(x).sum(axis, keepdims=True) if step.get("p", 2) == 1 else np.sqrt((x * x).sum(axis, keepdims=True))
    return np.where(total == 0, 1.0, total)
