"""Rounding of activations in quantised models: what is kept of a value, in the value's own units.

``quantised.py`` writes these steps, ``elementwise.py`` lists them among the functions of one value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pylrp.verify.helpers import OWN
from pylrp.verify.step import Array, Step

__all__ = ["DYNAMIC", "ROUNDED", "ROUNDINGS", "nudged", "settled"]

ROUNDED, DYNAMIC = f"{OWN}.Rounded", f"{OWN}.DynamicRounded"
_LEVELS = 255.0
#: How near to the middle between two numbers a value may be rounded either way: a share of the step, of the largest.
_OF_STEP, _OF_LARGEST = 1e-2, 1e-5
_LAST = 8 * float(np.finfo(np.float32).eps)


def _along(step: Step, x: Array, array: Any) -> Any:
    given = np.asarray(array, np.float64)
    if given.size == 1:
        return given.reshape(())
    shape = [1] * x.ndim
    shape[step.get("axis", 1)] = -1
    return given.reshape(shape)


def _rounded(step: Step, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """Return what QuantizeLinear keeps of a value, in the value's own units."""
    unit, offset = _along(step, x, scale), _along(step, x, 0.0 if zero is None else zero)
    low, high = step.get("bounds")
    return np.asarray(np.clip(np.rint(x / unit), low - offset, high - offset) * unit)


def _scale(x: Array) -> float:
    return float((max(x.max(), 0.0) - min(x.min(), 0.0)) / _LEVELS)


def _dynamic(step: Step, x: Array) -> Array:
    """Return what DynamicQuantizeLinear keeps of a value; its scale follows the largest and the smallest entry."""
    unit = _scale(x) if x.size else 0.0
    if not unit:
        return np.zeros_like(x)
    zero = np.clip(np.rint(-min(x.min(), 0.0) / unit), 0, _LEVELS)
    return np.asarray(np.clip(np.rint(x / unit), -zero, _LEVELS - zero) * unit)


#: Functions of one value, as ``elementwise.FUNCTIONS``.
ROUNDINGS: dict[str, Callable[..., Any]] = {DYNAMIC: _dynamic, ROUNDED: _rounded}


def nudged(x: Array, rng: np.random.Generator) -> Array:
    """Return a value off by some units in the last digit of single precision."""
    return np.asarray(x * (1 + rng.uniform(-_LAST, _LAST, x.shape)), x.dtype)


def settled(step: Step, given: Sequence[Array | None], made: Array, other: Array) -> Array:
    """Return what a step rounds to, as another program has rounded it where a value lies between two numbers.

    Rounding errors decide there, and both numbers are right.
    """
    x = given[0]
    assert x is not None
    if other.shape != made.shape:
        return made
    unit = _scale(x) if step.op == DYNAMIC else _along(step, x, given[1])
    near = np.abs(x - (made + other) / 2) <= np.maximum(_OF_STEP * unit, _OF_LARGEST * np.abs(x).max(initial=0.0))
    one = np.abs(np.abs(made - other) - unit) <= _OF_STEP * unit
    # The network's number in double precision, on the file's grid.
    return np.where(near & one, made + np.sign(other - made) * unit, made)
