"""Parts of a value, and what is put around it: Pad, Slice, Take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp._limits import require_shape
from pylrp.layers.base import Array, Shape, sole
from pylrp.layers.movement import ENTRY_BYTES, Movement, axis_of
from pylrp.network.layout import channels_moved_first, channels_moved_last

__all__ = ["Pad", "Slice", "Take"]


@dataclass(frozen=True)
class Pad(Movement):
    """More values around the input, or fewer.

    Parameters
    ----------
    widths : sequence of (low, high)
        For each axis of the logical shape; negative widths crop.
    mode : {"constant", "reflect", "edge", "wrap"}, default "constant"
    value : float or array_like, default 0
        The constant, or an array of them that broadcasts to the output's logical shape.
    """

    widths: Sequence[tuple[int, int]]
    mode: Literal["constant", "reflect", "edge", "wrap"] = "constant"
    value: float | ArrayLike = 0.0
    kind: ClassVar[str] = "pad"
    has_ledger_row: ClassVar[bool] = True
    unbounded: ClassVar[tuple[str, ...]] = ("value",)  # below a max pool -inf

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "widths", tuple((int(low), int(high)) for low, high in self.widths))
        if self.mode not in ("constant", "reflect", "edge", "wrap"):
            raise ValueError(f"mode is {self.mode!r}, expected constant, reflect, edge or wrap")
        if np.ndim(self.value):
            object.__setattr__(self, "arrays", ("value",))  # a plain number is none: it may be infinite
        object.__setattr__(self, "fill", self.value if np.ndim(self.value) else float(np.asarray(self.value)))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape with its pads."""
        shape = sole(self, shapes)
        if len(shape) != len(self.widths):
            raise ValueError(f"widths has {len(self.widths)} pairs, the input has shape {shape}")
        pairs = zip(self.widths, shape, strict=True)
        if any(max(-low, 0) + max(-high, 0) >= n for (low, high), n in pairs):
            raise ValueError(f"widths {self.widths} leave nothing of the input {shape}")
        made = tuple(n + low + high for n, (low, high) in zip(shape, self.widths, strict=True))
        constants = np.shape(self.value)
        if len(constants) > len(made) or any(
            n not in (1, m) for n, m in zip(constants[::-1], made[::-1], strict=False)
        ):
            raise ValueError(f"value has shape {constants}, which does not broadcast to the output's, {made}")
        return made

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices with -1, or mirrored or repeated ones, around."""
        require_shape(self.output_shape(index.shape), ENTRY_BYTES, "the places of padded values")
        crop = tuple(
            slice(max(-low, 0), n - max(-high, 0)) for (low, high), n in zip(self.widths, index.shape, strict=True)
        )
        inner = index[crop]
        outside = [(max(low, 0), max(high, 0)) for low, high in self.widths]
        if self.mode == "constant":
            return np.pad(inner, outside, constant_values=-1)
        inner = channels_moved_last(inner)  # as the core stores it
        for axis, (low, high) in enumerate((*outside[1:], outside[0])):
            if low or high:
                inner = np.take(inner, _beyond(self.mode, inner.shape[axis], low, high), axis=axis)
        return channels_moved_first(inner)


def _beyond(mode: str, n: int, low: int, high: int) -> NDArray[np.int64]:
    """Return which of n values stands at each place from ``-low`` to ``n + high``."""
    at = np.arange(-low, n + high)
    if mode == "edge":
        return at.clip(0, n - 1)
    if mode == "wrap":
        return at % n
    period = max(2 * (n - 1), 1)
    at %= period
    return np.minimum(at, period - at) if n > 1 else np.zeros_like(at)


@dataclass(frozen=True)
class Slice(Movement):
    """Values from ``starts`` to ``stops`` along some axes of the logical shape, as in ONNX.

    Parameters
    ----------
    starts, stops : sequence of int
        Negative ones count from the end; what lies outside is cut to the input's ends.
    axes : sequence of int, optional
        Default: the first ones.
    steps : sequence of int, optional
        Default: 1. A negative step goes backwards, a stop far below 0 then means up to the beginning.
    """

    starts: Sequence[int]
    stops: Sequence[int]
    axes: Sequence[int] | None = None
    steps: Sequence[int] | None = None
    kind: ClassVar[str] = "slice"
    has_ledger_row: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.starts)
        given = {
            "starts": self.starts,
            "stops": self.stops,
            "axes": range(count) if self.axes is None else self.axes,
            "steps": (1,) * count if self.steps is None else self.steps,
        }
        for name, values in given.items():
            if len(values) != count:
                raise ValueError(f"{name} has {len(values)} entries, starts has {count}")
            object.__setattr__(self, name, tuple(int(v) for v in values))
        if 0 in cast("tuple[int, ...]", self.steps):
            raise ValueError(f"steps is {self.steps}, expected no 0")

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices that are kept."""
        whole = index.shape
        for start, stop, axis, step in zip(self.starts, self.stops, self.axes or (), self.steps or (), strict=True):
            at = axis_of(axis, index.shape)
            n = index.shape[at]
            start, stop = (v + n if v < 0 else v for v in (start, stop))
            low, high = (0, n) if step > 0 else (-1, n - 1)
            start, stop = (min(max(v, low), high) for v in (start, stop))
            kept = slice(start, None if stop < 0 else stop, step)
            index = index[(slice(None),) * at + (kept,)]
        if 0 in index.shape:
            raise ValueError(f"{self} keeps nothing of the input {whole}")
        return index


@dataclass(frozen=True, eq=False)
class Take(Movement):
    """Values at fixed places along an axis of the logical shape (ONNX's Gather with constant indices).

    Parameters
    ----------
    indices : array_like of int
        Negative ones count from the end. Their shape takes the axis's place; a single number removes it.
    axis : int, default 0
    """

    indices: ArrayLike
    axis: int = 0
    kind: ClassVar[str] = "take"

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape with that of the indices in the axis's place."""
        shape = sole(self, shapes)
        axis = axis_of(self.axis, shape)
        wanted: Array = np.asarray(self.indices)
        n = shape[axis]
        if wanted.dtype.kind not in "iu" or np.any((wanted < -n) | (wanted >= n)):
            raise ValueError(f"indices must be whole numbers from {-n} to {n - 1}: axis {axis} of {shape}")
        return (*shape[:axis], *wanted.shape, *shape[axis + 1 :])

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices that are taken."""
        require_shape(self.output_shape(index.shape), ENTRY_BYTES, "the places of taken values")
        return np.take(index, np.asarray(self.indices), axis=axis_of(self.axis, index.shape))
