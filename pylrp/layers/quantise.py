"""Rounding to whole multiples of a step: the activations of quantised networks, in their own units.

``loaders/onnx/quantised.py`` emits them; weights are numbers of the file times their scale, and plain layers take them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from pylrp.layers.activations import CONSTANT
from pylrp.layers.base import NamedLayer, Place, Shape, Spec, sole
from pylrp.layers.cause import Cause
from pylrp.layers.scaling import one_a_channel

__all__ = ["DynamicQuantize", "Quantize"]


@dataclass(frozen=True, eq=False, repr=False)
class Quantize(NamedLayer):
    """``step * clip(round(x / step), low, high)``: a quantised value in its own units.

    Ties round to even. ``low = 0`` makes a ReLU of it. Relevance passes unchanged, as through other functions with
    ``f(0) = 0``; where the value rounds to 0 there is none.

    Parameters
    ----------
    step : float or array_like
        The scale, > 0: one number, or an array that broadcasts to the logical shape, as ``(C, 1, 1)`` does.
    low, high : float or array_like
        The smallest and the largest number of steps, ``-128 - zero`` and ``127 - zero`` for int8; 0 lies between.

    Raises
    ------
    ValueError
        If a step is not positive, or 0 is not among the values.

    Examples
    --------
    >>> import pylrp
    >>> pylrp.Network([pylrp.layers.Quantize(0.5, 0, 255)], input_shape=(3,)).forward([-1.0, 0.6, 200.0])
    array([  0. ,   0.5, 127.5], dtype=float32)
    """

    step: ArrayLike
    low: ArrayLike = -128.0
    high: ArrayLike = 127.0
    kind: ClassVar[str] = "quantize"
    rule_kind: ClassVar[str | None] = "function"
    causes: ClassVar[tuple[Cause, ...]] = (CONSTANT,)
    arrays: ClassVar[tuple[str, ...]] = ("step", "low", "high")
    any_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what is no scale."""
        super().__post_init__()
        step, low, high = (np.asarray(v, np.float64) for v in (self.step, self.low, self.high))
        if not np.all(step > 0):
            raise ValueError(f"step is {self.step!r}, expected numbers above 0")
        if np.any(low > 0) or np.any(high < 0):
            raise ValueError(f"low is {self.low!r} and high {self.high!r}: 0 must lie between them")

    def __repr__(self) -> str:
        given = [np.asarray(v) for v in (self.step, self.low, self.high)]
        return f"Quantize({', '.join(f'{float(v):g}' if v.ndim == 0 else str(v.shape) for v in given)})"

    def at_zero(self) -> float:
        """Return f(0)."""
        return 0.0

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the input."""
        shape = sole(self, shapes)
        given = np.broadcast_shapes(np.shape(self.step), np.shape(self.low), np.shape(self.high))
        padded = (1,) * (len(shape) - len(given)) + given
        if len(given) > len(shape) or any(n not in (1, m) for n, m in zip(padded, shape, strict=True)):
            raise ValueError(f"step, low and high have shape {given}, which does not broadcast to the input {shape}")
        return shape

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        given = list(np.broadcast_arrays(*(np.asarray(v, place.dtype) for v in (self.step, self.low, self.high))))
        rows = one_a_channel(given, place) if given[0].ndim else given
        fields = {name: np.asarray(row, place.dtype).reshape(1, -1)
                  for name, row in zip(("step", "low", "high"), rows, strict=True)}  # fmt: skip
        return "quantize", fields


@dataclass(frozen=True)
class DynamicQuantize(NamedLayer):
    """A :class:`Quantize` whose step and zero follow each sample's values: ``(largest - smallest) / levels``.

    As ONNX's DynamicQuantizeLinear does for a batch of one; 0 counts among the values.

    Parameters
    ----------
    levels : float, default 255
        How many steps there are between the smallest value and the largest one.
    """

    levels: float = 255.0
    kind: ClassVar[str] = "quantize"
    rule_kind: ClassVar[str | None] = "function"
    causes: ClassVar[tuple[Cause, ...]] = (CONSTANT,)
    any_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what is no number of levels."""
        super().__post_init__()
        if not 1 <= self.levels < 1 << 20 or not math.isfinite(self.levels):
            raise ValueError(f"levels is {self.levels}, expected a number from 1 to {1 << 20}")

    def at_zero(self) -> float:
        """Return f(0)."""
        return 0.0

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the input."""
        return sole(self, shapes)

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        return "quantize", {"levels": float(self.levels)}
