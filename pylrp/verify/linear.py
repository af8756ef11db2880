"""Operators that multiply by weights: the product with any weights of the same shape, and its transpose.

A rule of LRP is a few such products with parts of the weights; ``rules.py`` makes them. Nothing here knows rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from pylrp.verify.program import Array, Step

__all__ = ["CONVOLVING", "WEIGHTED", "Linear", "linear_of", "unbroadcast"]


@dataclass(frozen=True)
class Linear:
    """``z = W a + b`` of a step.

    Attributes
    ----------
    weight : ndarray
    bias : ndarray or float
        Broadcasts to z.
    at : int
        Which of the step's inputs is ``a``.
    times : callable
        ``times(W, a)``.
    back : callable
        ``back(W, q)``: the transpose, of a's shape.
    """

    weight: Array
    bias: Any
    at: int
    times: Callable[[Array, Array], Array]
    back: Callable[[Array, Array], Array]


def unbroadcast(array: Array, shape: tuple[int, ...]) -> Array:
    """Return the sum over the axes along which an array of ``shape`` was repeated."""
    if array.shape == shape:
        return array
    array = array.sum(axis=tuple(range(array.ndim - len(shape))))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and array.shape[i] != 1)
    return array.sum(axis=repeated, keepdims=True) if repeated else array


@dataclass(frozen=True)
class Window:
    """A convolution's geometry: output o meets entry ``o * stride + tap * dilation - low`` of the input."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    groups: int

    def padded(self, x: Array) -> Array:
        """Return x with zeros around it."""
        return np.pad(x, ((0, 0), (0, 0), *self.pads))

    def taps(self, out: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Return each place of the kernel with what it meets in the padded input."""
        found = []
        for tap in product(*map(range, self.kernel)):
            steps = zip(tap, self.dilation, self.stride, out, strict=True)
            found.append((tap, tuple(slice(t * d, t * d + s * (n - 1) + 1, s) for t, d, s, n in steps)))
        return found

    def size(self, space: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the output of a convolution."""
        steps = zip(space, self.kernel, self.stride, self.dilation, self.pads, strict=True)
        return tuple((n + sum(p) - (k - 1) * d - 1) // s + 1 for n, k, s, d, p in steps)

    def convolve(self, weight: Array, x: Array) -> Array:
        """Return the convolution of x with weights (out, in / groups, *kernel)."""
        out = self.size(x.shape[2:])
        large, rows = self.padded(x), weight.reshape(self.groups, -1, *weight.shape[1:])
        total = np.zeros((len(x), self.groups, rows.shape[1], int(np.prod(out))), x.dtype)
        for tap, cut in self.taps(out):
            part = large[(slice(None), slice(None), *cut)].reshape(len(x), self.groups, -1, total.shape[-1])
            total += _product(_tap(rows, tap), part)
        return total.reshape(len(x), -1, *out)

    def transposed(self, weight: Array, q: Array, space: Sequence[int]) -> Array:
        """Return the transpose of :meth:`convolve`; ``space`` is the size of its input."""
        large = np.zeros(
            (len(q), self.groups * weight.shape[1], *(n + sum(p) for n, p in zip(space, self.pads, strict=True))),
            q.dtype,
        )
        rows = weight.reshape(self.groups, -1, *weight.shape[1:])
        values = q.reshape(len(q), self.groups, rows.shape[1], -1)
        for tap, cut in self.taps(q.shape[2:]):
            at = (slice(None), slice(None), *cut)
            large[at] += _product(_tap(rows, tap).swapaxes(1, 2), values).reshape(large[at].shape)
        inner = (slice(low, low + n) for n, (low, _) in zip(space, self.pads, strict=True))
        return large[(slice(None), slice(None), *inner)]


def _tap(rows: Array, tap: tuple[int, ...]) -> Array:
    """Return the weights of one place of the kernel, (groups, out, in)."""
    at: Any = (slice(None), slice(None), slice(None), *tap)
    return np.asarray(rows[at])


def _product(rows: Array, values: Array) -> Array:
    """Return (groups, o, i) times (n, groups, i, places); of one channel a group without a matrix product."""
    return rows[..., 0, 0][:, None, None] * values if rows.shape[1:] == (1, 1) else rows @ values


def same_pads(
    step: Step, space: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Any:
    """Return the padding, (low, high) for each axis, as ``pads`` or ``auto_pad`` say."""
    auto = step.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        given = step.get("pads", [0] * 2 * len(space)) if auto == "NOTSET" else [0] * 2 * len(space)
        return tuple(zip(given[: len(space)], given[len(space) :], strict=True))
    pads = []
    for n, k, s, d in zip(space, kernel, stride, dilation, strict=True):
        more = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        small = more // 2
        pads.append((small, more - small) if auto == "SAME_UPPER" else (more - small, small))
    return tuple(pads)


def _window(step: Step, weight: Array, space: Sequence[int]) -> Window:
    kernel = weight.shape[2:]
    stride, dilation = (tuple(step.get(name, [1] * len(kernel))) for name in ("strides", "dilations"))
    return Window(kernel, stride, dilation, same_pads(step, space, kernel, stride, dilation), step.get("group", 1))


def _conv(step: Step, given: Sequence[Array | None]) -> Linear:
    x, weight, bias = given[0], given[1], given[2] if len(given) > 2 else None
    assert x is not None
    assert weight is not None
    window, space = _window(step, weight, x.shape[2:]), x.shape[2:]
    shift = 0.0 if bias is None else bias.reshape(-1, *(1,) * len(space))
    return Linear(weight, shift, 0, window.convolve, lambda w, q: window.transposed(w, q, space))


def _conv_transpose(step: Step, given: Sequence[Array | None]) -> Linear:
    x, weight, bias = given[0], given[1], given[2] if len(given) > 2 else None
    assert x is not None
    assert weight is not None
    space, kernel, axes = x.shape[2:], weight.shape[2:], weight.ndim - 2
    stride, dilation = (tuple(step.get(name, [1] * axes)) for name in ("strides", "dilations"))
    extra = list(step.get("output_padding", [0] * axes))
    wanted, auto = step.get("output_shape"), step.get("auto_pad", "NOTSET")
    full = [
        (n - 1) * s + e + (k - 1) * d + 1 for n, s, e, k, d in zip(space, stride, extra, kernel, dilation, strict=True)
    ]
    if wanted is None and auto.startswith("SAME"):
        wanted = [n * s for n, s in zip(space, stride, strict=True)]
    if wanted is not None:
        wanted = list(wanted)[-axes:]
        pads = []
        for i, (n, want) in enumerate(zip(full, wanted, strict=True)):
            more = max(n - want, 0)
            full[i] += max(want - n, 0)
            small = more // 2
            pads.append((small, more - small) if auto == "SAME_UPPER" else (more - small, small))
    else:
        given_pads = step.get("pads", [0] * 2 * axes) if auto == "NOTSET" else [0] * 2 * axes
        pads = list(zip(given_pads[:axes], given_pads[axes:], strict=True))
    out = tuple(n - low - high for n, (low, high) in zip(full, pads, strict=True))
    # The transpose of a convolution from `out` to `space`; what lies beyond its last window is not reached.
    window = Window(kernel, stride, dilation, tuple(pads), step.get("group", 1))

    def times(w: Array, a: Array) -> Array:
        return window.transposed(w, a, out)

    def back(w: Array, q: Array) -> Array:
        return window.convolve(w, q)[(slice(None), slice(None), *map(slice, space))]

    shift = 0.0 if bias is None else bias.reshape(-1, *(1,) * axes)
    return Linear(weight, shift, 0, times, back)


def _gemm(step: Step, given: Sequence[Array | None]) -> Linear:
    x, weight, bias = given[0], given[1], given[2] if len(given) > 2 else None
    assert x is not None
    assert weight is not None
    rows = step.get("alpha", 1.0) * (weight.T if step.get("transB", 0) else weight)  # (in, out)
    turned = bool(step.get("transA", 0))
    shift = 0.0 if bias is None else step.get("beta", 1.0) * bias
    return Linear(
        rows, shift, 0, lambda w, a: (a.T if turned else a) @ w, lambda w, q: (w @ q.T) if turned else q @ w.T
    )


def _matmul(step: Step, given: Sequence[Array | None], at: int) -> Linear:
    x, weight = given[at], given[1 - at]
    assert x is not None
    assert weight is not None
    shape = x.shape
    if at:
        column = x.ndim == 1

        def back(w: Array, q: Array) -> Array:
            made = w.swapaxes(-1, -2) @ (q[..., None] if column else q)
            return unbroadcast(made[..., 0] if column else made, shape)

        return Linear(weight, 0.0, 1, np.matmul, back)
    if weight.ndim == 1:
        return Linear(weight, 0.0, 0, lambda w, a: a @ w, lambda w, q: q[..., None] * w)
    return Linear(weight, 0.0, 0, lambda w, a: np.matmul(a, w), lambda w, q: unbroadcast(q @ w.swapaxes(-1, -2), shape))


def einsum_terms(step: Step) -> tuple[list[str], str]:
    """Return the letters of an equation's operands and of its result, which is written out."""
    text = step.get("equation").replace(" ", "")
    if "..." in text:
        raise step.refuse("has an equation with '...'")
    left, arrow, right = text.partition("->")
    if not arrow:
        right = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    return left.split(","), right


def einsum_back(
    terms: Sequence[str], result: str, at: int, q: Array, others: Sequence[Array], shape: tuple[int, ...]
) -> Array:
    """Return the transpose of an Einsum in its operand ``at``."""
    rest = [term for i, term in enumerate(terms) if i != at]
    known = set(result).union(*rest)
    kept = "".join(c for c in terms[at] if c in known)
    made = np.einsum(f"{','.join([result, *rest])}->{kept}", q, *others, optimize=True)
    for i, c in enumerate(terms[at]):
        if c not in known:  # summed over: the same for all
            made = np.expand_dims(made, i)
    return np.broadcast_to(made, shape)


def _einsum(step: Step, given: Sequence[Array | None], at: int) -> Linear:
    terms, result = einsum_terms(step)
    arrays = [array for array in given if array is not None]
    if len(arrays) != 2 or len(terms) != 2:
        raise step.refuse("joins more than two values")
    shape = arrays[at].shape

    def times(w: Array, a: Array) -> Array:
        operands = (a, w) if at == 0 else (w, a)
        return np.asarray(np.einsum(f"{','.join(terms)}->{result}", *operands, optimize=True))

    return Linear(arrays[1 - at], 0.0, at, times, lambda w, q: einsum_back(terms, result, at, q, [w], shape))


def _stft(step: Step, given: Sequence[Array | None]) -> Linear:
    """A short-time Fourier transform: frames times the discrete Fourier transform of what is 1 at one place."""
    x, hop, window, length = (*given, None, None)[:4]
    assert x is not None
    assert hop is not None
    if x.ndim > 2 and x.shape[2] != 1:
        raise step.refuse("takes a complex signal")
    size, every, total = int(np.max(len(window) if length is None else length)), int(np.max(hop)), x.shape[1]  # type: ignore[arg-type]
    waves = np.fft.fft(np.eye(size) if window is None else np.diag(window), axis=0)
    waves = waves[: size // 2 + 1] if step.get("onesided", 1) else waves
    weight = np.stack([waves.real, waves.imag], axis=1)  # (frequencies, 2, places of a frame)
    starts = range(0, total - size + 1, every)

    def times(w: Array, a: Array) -> Array:
        flat = a.reshape(len(a), total)
        return np.stack([np.tensordot(flat[:, at : at + size], w, (1, 2)) for at in starts], axis=1)

    def back(w: Array, q: Array) -> Array:
        made = np.zeros((len(q), total))
        for number, at in enumerate(starts):
            made[:, at : at + size] += np.tensordot(q[:, number], w, 2)
        return made.reshape(x.shape)

    return Linear(weight, 0.0, 0, times, back)


#: Those whose weights are the same at every place, as a composite's kinds have them.
CONVOLVING = ("Conv", "ConvTranspose", "STFT")
WEIGHTED = (*CONVOLVING, "Gemm", "MatMul", "Einsum")


def linear_of(step: Step, given: Sequence[Array | None], at: int = 0) -> Linear:
    """Return a step as the product of its input ``at`` with weights; ``given`` are the step's inputs."""
    if step.op in ("MatMul", "Einsum"):
        return (_matmul if step.op == "MatMul" else _einsum)(step, given, at)
    if at != 0:
        raise step.refuse("takes computed weights")
    made = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm, "STFT": _stft}
    return made[step.op](step, given)
