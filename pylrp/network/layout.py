"""Where the entries of a value lie: logical shapes have channels first, the core stores channels last.

A value of logical shape ``(d0, d1, ..., dk)`` lies in the core as ``(d1, ..., dk, d0)``, flat. Layers describe
themselves to the core by these functions, ``assignment.py`` turns bounds with them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["batch_from_core", "batch_to_core", "channel_count", "from_core", "positions", "to_core"]

Array = NDArray[Any]
Shape = tuple[int, ...]


def to_core(values: Array) -> Array:
    """Return an array of a logical shape as the core stores it, flat."""
    return np.ascontiguousarray(np.moveaxis(values, 0, -1) if values.ndim else values).reshape(-1)


def from_core(flat: Array, shape: Shape) -> Array:
    """Return a core's flat array in its logical shape."""
    return np.moveaxis(flat.reshape(*shape[1:], shape[0]), -1, 0) if shape else flat.reshape(())


def batch_to_core(values: Array) -> Array:
    """Return an array of shape ``(batch, *logical shape)`` as the core stores it, ``(batch, size)``."""
    return np.ascontiguousarray(np.moveaxis(values, 1, -1)).reshape(len(values), -1)


def batch_from_core(flat: Array, shape: Shape) -> Array:
    """Return a core's ``(batch, size)`` as ``(batch, *shape)``."""
    return np.moveaxis(flat.reshape(len(flat), *shape[1:], shape[0]), -1, 1)


def positions(shape: Shape) -> NDArray[np.int64]:
    """Return where the core stores each entry of a logical shape."""
    return from_core(np.arange(math.prod(shape)), shape)


def channel_count(shape: Shape) -> int:
    """Return the length of a logical shape's first axis; 1 for a single number."""
    return shape[0] if shape else 1
