"""Operators of this package's own that fused and quantised nodes are written with, beside ONNX's.

``fused.py`` and ``quantised.py`` write them; ``moving.py``, ``elementwise.py`` and ``operators.py`` list them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pylrp.verify.step import Array, Step

__all__ = ["ENDS", "MOVING", "OWN", "SIDES", "dequantised"]

OWN = "verify"


def _parts(step: Step, x: Array) -> tuple[Array, ...]:
    """Cut the last axis into parts of these proportions."""
    sizes = np.asarray(step.get("parts"))
    return tuple(np.split(x, np.cumsum(sizes)[:-1] * (x.shape[-1] // sizes.sum()), axis=-1))


def _positions(step: Step, x: Array, first: Array | None = None) -> Array:
    """Return the number of each token, (1, tokens), from the first one's; numbers by sample are there already."""
    if first is not None and first.ndim > 1:
        return first
    tokens = x.shape[2 if x.ndim == 4 else 1]
    return np.arange(tokens)[None] + (0 if first is None else int(np.ravel(first)[0]))


def _key_mask(step: Step, mask: Array, key: Array) -> Array:
    """Return what a mask adds to the scores: 1 and 0 by key, or how many keys there are in each sample."""
    keys = np.arange(key.shape[2 if key.ndim == 4 else 1])
    if step.get("last", 0):
        seen = keys <= mask.reshape(-1, 1, 1, 1)
    elif mask.ndim == 1:
        if len(mask) != len(key):
            raise step.refuse("has a mask of several numbers a sample")
        seen = keys < mask[:, None, None, None]
    else:
        seen = mask.astype(bool)
        seen = seen[:, None, None] if seen.ndim == 2 else seen[:, None] if seen.ndim == 3 else seen
    return np.where(seen, 0.0, step.get("least"))


def _biases(step: Step, bias: Array, query: Array, key: Array) -> tuple[Array, ...]:
    """Cut the bias of queries, keys and values; keys by heads are another value's and have theirs."""
    width = query.shape[2] if query.ndim == 3 else len(bias) // 3
    parts = np.split(bias, [width, 2 * width])
    return (parts[0], np.zeros(1), np.zeros(1)) if key.ndim == 4 and query.ndim == 3 else tuple(parts)


def _distances(step: Step, query: Array, key: Array) -> Array:
    """Return the row of a table of distances for each query and key, as T5 counts them."""
    ahead = np.arange(int(np.ravel(key)[0]))[None] - np.arange(int(np.ravel(query)[0]))[:, None]
    rows, start = step.get("buckets"), np.zeros_like(ahead)
    if step.get("both", 0):
        rows //= 2
        start, distance = rows * (ahead > 0), np.abs(ahead)
    else:
        distance = np.maximum(-ahead, 0)
    exact = rows // 2
    # Single precision decides at distances that are powers of each other.
    share = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    far = share / np.float32(np.log(step.get("most") / exact)) * np.float32(rows - exact)
    return np.asarray(start + np.where(distance < exact, distance, np.minimum(exact + far.astype(np.int64), rows - 1)))


def dequantised(step: Step, whole: Array, scale: Array, zero: Array | None = None) -> Array:
    """Return DequantizeLinear: one scale, one along an axis, or one for each block along it."""

    def along(array: Array) -> Array:
        if array.size == 1:
            return array.reshape(())
        axis = step.get("axis", 1) % whole.ndim
        if array.ndim == 1:
            return array.reshape(-1, *(1,) * (whole.ndim - axis - 1))
        repeated = np.repeat(array, step.get("block_size"), axis)
        return repeated[tuple(map(slice, whole.shape))]

    offset = 0.0 if zero is None else along(zero.astype(np.float64))
    made = (whole.astype(np.float64) - offset) * along(np.asarray(scale, np.float64))
    # Of several scales: each number is the file's own, in single precision; a bias has 32 bits.
    several = np.size(scale) > 1 and whole.dtype.itemsize < 4
    return np.asarray(made.astype(np.float32) if several else made, np.float64)


#: What moves values, what depends on sizes and masks, and which of these no relevance goes to.
MOVING: dict[str, Any] = {f"{OWN}.Parts": _parts, f"{OWN}.Turned": lambda step, x: x.swapaxes(-1, -2)}
SIDES: dict[str, Any] = {
    f"{OWN}.Biases": _biases,
    f"{OWN}.Distances": _distances,
    f"{OWN}.KeyMask": _key_mask,
    f"{OWN}.Positions": _positions,
}
ENDS = frozenset(SIDES)
