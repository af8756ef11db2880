"""Forward passes of layers that round, for graph_forward.py's table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp import layers as kinds

__all__ = ["ROUNDING"]

Array = NDArray[Any]


def _quantize(layer: Any, x: Array) -> Array:
    return np.asarray(np.clip(np.rint(x / layer.step), layer.low, layer.high) * layer.step)


def _dynamic(layer: Any, x: Array) -> Array:
    """Round each sample to so many levels between its smallest and its largest value, 0 among them."""
    axes = tuple(range(1, x.ndim))
    low = np.minimum(x.min(axes, keepdims=True), 0)
    step = (np.maximum(x.max(axes, keepdims=True), 0) - low) / layer.levels
    zero = np.clip(np.rint(-low / step), 0, layer.levels)
    return np.asarray((np.clip(np.rint(x / step) + zero, 0, layer.levels) - zero) * step)


ROUNDING = {kinds.Quantize: _quantize, kinds.DynamicQuantize: _dynamic}
