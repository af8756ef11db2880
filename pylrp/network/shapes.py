"""Shapes of a graph's values: found by an output's name, too, and checked for what NumPy's arrays can have.

``graph.py`` fills and trusts them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pylrp.errors import BrokenNode
from pylrp.layers import Layer, Shape

__all__ = ["Shapes", "checked_shape", "require_axes"]

#: Of a logical shape: NumPy has 32, from version 2 on 64, and samples and targets take two.
_MOST_AXES = 30


class Shapes(dict[str, Shape]):
    """Shapes by value, found by an output's name, too; goes through the values only."""

    def __init__(self, inputs: Mapping[str, Shape], outputs: Mapping[str, str]):
        super().__init__(inputs)
        self._outputs = {name: value for name, value in outputs.items() if name != value}

    def __missing__(self, name: str) -> Shape:
        if name not in self._outputs:
            raise KeyError(name)
        return self[self._outputs[name]]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._outputs


def checked_shape(name: str, shape: Shape) -> Shape:
    """Return an input's shape as a tuple of int, or say what is wrong with it."""
    if np.ndim(shape) != 1:
        raise ValueError(f"input {name!r} has shape {shape!r}, expected a tuple of sizes, without the batch")
    shape = tuple(shape)
    if len(shape) > _MOST_AXES:
        raise ValueError(f"input {name!r} has {len(shape)} axes, NumPy's arrays have {_MOST_AXES} at most")
    if not shape or any(int(n) != n or n < 1 for n in shape):
        raise ValueError(f"input {name!r} has shape {shape}, expected sizes of at least 1, without the batch")
    return tuple(int(n) for n in shape)


def require_axes(name: str, layer: Layer, shape: Shape) -> None:
    """Refuse a value with more axes than NumPy's arrays have."""
    if len(shape) > _MOST_AXES:
        raise BrokenNode(
            name,
            type(layer).__name__,
            f"makes a value with {len(shape)} axes",
            f"NumPy's arrays have {_MOST_AXES} at most, besides those for samples and targets",
        )
