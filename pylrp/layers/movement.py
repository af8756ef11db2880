"""Layers that only move values: reshape, transpose, pad, slice, repeat.

Each applies itself to an array of indices (:meth:`Movement.move`): entry i of the result names the input value that
output i is, -1 a constant. The compiled core turns a chain of them into one table; relevance goes back the same ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp._limits import TooLarge, require_shape
from pylrp.layers.base import Array, NamedLayer, Place, Shape, Spec, per_axis, product, sole
from pylrp.network.layout import positions, to_core

__all__ = [
    "ChannelShuffle",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Movement",
    "Pad",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Take",
    "Transpose",
    "Upsample",
]

_MOST_PLACES = (1 << 31) - 1
#: Bytes of a table for each value: where it comes from and, in the core, what reads it.
_ENTRY = 8


class Movement(NamedLayer):
    """Base of the layers that only move values."""

    moves: ClassVar[bool] = True
    #: What output values are that come from no input.
    fill: ArrayLike = 0.0

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the input's indices where they end up, -1 where a constant stands.

        Parameters
        ----------
        index : ndarray of int
            Of the input's logical shape.
        """
        raise NotImplementedError

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape that the move gives."""
        shape = sole(self, shapes)
        # No memory behind it: every entry is the same one.
        return self.move(np.broadcast_to(np.int64(0), shape)).shape

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: for each output value the place of its input."""
        size = product(place.inputs[0])
        require_shape(place.output, _ENTRY, "the places of moved values")
        # In 32 bits where they count it: half the memory of what may be large.
        dtype = np.int32 if max(size, product(place.output)) < _MOST_PLACES else np.int64
        index = to_core(self.move(positions(place.inputs[0]).astype(dtype)))
        # Layers with a row in the ledger stay what they are.
        if not self.has_ledger_row and index.size == size and bool((index == np.arange(size)).all()):
            return "identity", {"a": 0.0, "b": 0.0}
        fill = np.asarray(self.fill, np.float64)
        if fill.ndim:
            fill = to_core(np.broadcast_to(fill, place.output))
        return "sparse", sparse_table(index.reshape(-1, 1), None, size, fill)


def sparse_table(index: Array, weight: Array | None, inputs: int, fill: Array | float) -> dict[str, Any]:
    """Return the core's fields for outputs that are weighted sums of a few inputs.

    Parameters
    ----------
    index : ndarray of int, shape (outputs, taps)
        Places in the core's order; -1: ``fill``.
    weight : ndarray of the same shape, optional
        In the network's dtype; None for one tap of weight 1.
    inputs : int
        The size of the input.
    fill : float or ndarray, shape (outputs,)

    Raises
    ------
    TooLarge
        If the core's 32 bits don't count them.
    """
    most = max(index.size, inputs)
    if most >= _MOST_PLACES:
        raise TooLarge(f"asks for too much: it moves {most} values at once, the core counts to 2^31")
    return {
        "index": index.astype(np.int32, copy=False),
        "weight": weight,
        "inputs": inputs,
        "fill": fill if np.ndim(fill) else float(fill),
    }


def _axis(axis: int, shape: Shape) -> int:
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis is {axis}, the input has {len(shape)} axes (without the batch): {shape}")
    return axis % len(shape)


@dataclass(frozen=True)
class Flatten(Movement):
    """All axes from ``axis`` on become one: ``(C, H, W)`` becomes ``(C * H * W,)``."""

    axis: int = 0
    kind: ClassVar[str] = "flatten"

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the flattened shape."""
        shape = sole(self, shapes)
        kept = shape[: _axis(self.axis, shape)] if shape else ()
        return (*kept, product(shape[len(kept) :]))

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices, flattened."""
        return index.reshape(self.output_shape(index.shape))


@dataclass(frozen=True)
class Reshape(Movement):
    """Another logical shape for the same values; one entry may be -1."""

    shape: Sequence[int]
    kind: ClassVar[str] = "reshape"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if sum(n == -1 for n in self.shape) > 1 or min(self.shape, default=1) < -1:
            raise ValueError(f"shape is {self.shape}, expected sizes and at most one -1")

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the new shape."""
        shape = sole(self, shapes)
        known = product([n for n in self.shape if n != -1])
        total = product(shape)
        if total % known if -1 in self.shape else total != known:
            raise ValueError(f"the input {shape} has {total} values, they don't fit into {self.shape}")
        return tuple(total // known if n == -1 else n for n in self.shape)

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices in the new shape."""
        return index.reshape(self.output_shape(index.shape))


@dataclass(frozen=True)
class Transpose(Movement):
    """Output axis i is axis ``permutation[i]`` of the logical shape."""

    permutation: Sequence[int]
    kind: ClassVar[str] = "transpose"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "permutation", tuple(int(n) for n in self.permutation))
        if sorted(self.permutation) != list(range(len(self.permutation))):
            raise ValueError(f"permutation is {self.permutation}, expected each of 0 to n - 1 once")

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices, transposed."""
        if index.ndim != len(self.permutation):
            raise ValueError(f"permutation is {self.permutation}, the input has shape {index.shape}")
        return index.transpose(self.permutation)


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
        require_shape(self.output_shape(index.shape), _ENTRY, "the places of padded values")
        crop = tuple(
            slice(max(-low, 0), n - max(-high, 0)) for (low, high), n in zip(self.widths, index.shape, strict=True)
        )
        inner = index[crop]
        outside = [(max(low, 0), max(high, 0)) for low, high in self.widths]
        if self.mode == "constant":
            return np.pad(inner, outside, constant_values=-1)
        inner = np.moveaxis(inner, 0, -1)  # as the core stores it
        for axis, (low, high) in enumerate((*outside[1:], outside[0])):
            if low or high:
                inner = np.take(inner, _beyond(self.mode, inner.shape[axis], low, high), axis=axis)
        return np.moveaxis(inner, -1, 0)


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
            at = _axis(axis, index.shape)
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
        axis = _axis(self.axis, shape)
        wanted: Array = np.asarray(self.indices)
        n = shape[axis]
        if wanted.dtype.kind not in "iu" or np.any((wanted < -n) | (wanted >= n)):
            raise ValueError(f"indices must be whole numbers from {-n} to {n - 1}: axis {axis} of {shape}")
        return (*shape[:axis], *wanted.shape, *shape[axis + 1 :])

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices that are taken."""
        require_shape(self.output_shape(index.shape), _ENTRY, "the places of taken values")
        return np.take(index, np.asarray(self.indices), axis=_axis(self.axis, index.shape))


@dataclass(frozen=True)
class Expand(Movement):
    """The input repeated to a larger shape, by NumPy's rules of broadcasting on the logical shape."""

    shape: Sequence[int]
    kind: ClassVar[str] = "expand"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the larger shape."""
        shape, wanted = sole(self, shapes), tuple(self.shape)
        aligned = (1,) * (len(wanted) - len(shape)) + shape
        if len(aligned) > len(wanted) or any(n not in (1, m) for n, m in zip(aligned, wanted, strict=True)):
            raise ValueError(f"the input {shape} does not broadcast to {wanted}")
        return wanted

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices, repeated."""
        return np.broadcast_to(index, self.output_shape(index.shape))


@dataclass(frozen=True)
class Upsample(Movement):
    """Every value repeated ``scale`` times along each spatial axis (nearest neighbour).

    Parameters
    ----------
    scale : int or sequence of int
        One for all spatial axes, or one each.
    """

    scale: int | Sequence[int]
    kind: ClassVar[str] = "upsample"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.scale, Sequence):
            object.__setattr__(self, "scale", tuple(self.scale))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the larger shape."""
        shape = sole(self, shapes)
        scales = per_axis(self.scale, len(shape) - 1, "scale")
        return (shape[0], *(n * s for n, s in zip(shape[1:], scales, strict=True)))

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices, repeated."""
        for axis, scale in enumerate(per_axis(self.scale, index.ndim - 1, "scale"), start=1):
            index = np.repeat(index, scale, axis=axis)
        return index


def _image(index: NDArray[np.int64], what: str) -> tuple[int, int, int]:
    if index.ndim != 3:
        raise ValueError(f"{what} takes (channels, height, width), its input has shape {index.shape}")
    channels, height, width = index.shape
    return channels, height, width


@dataclass(frozen=True)
class DepthToSpace(Movement):
    """Channels become pixels: ``(C, H, W)`` becomes ``(C / block², H * block, W * block)``.

    Parameters
    ----------
    block : int
    mode : {"DCR", "CRD"}, default "DCR"
        Which channels become one pixel's block, as in ONNX; torch's ``PixelShuffle`` is "CRD".
    """

    block: int
    mode: Literal["DCR", "CRD"] = "DCR"
    kind: ClassVar[str] = "depth_to_space"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("DCR", "CRD"):
            raise ValueError(f"mode is {self.mode!r}, expected DCR or CRD")

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices, moved."""
        c, h, w = _image(index, "DepthToSpace")
        b = self.block
        if b < 1 or c % (b * b):
            raise ValueError(f"block is {b}, {c} channels can't be divided by {b * b}")
        deep = c // (b * b)
        if self.mode == "DCR":
            blocks = index.reshape(b, b, deep, h, w).transpose(2, 3, 0, 4, 1)
        else:
            blocks = index.reshape(deep, b, b, h, w).transpose(0, 3, 1, 4, 2)
        return blocks.reshape(deep, h * b, w * b)


@dataclass(frozen=True)
class SpaceToDepth(Movement):
    """Pixels become channels: ``(C, H, W)`` becomes ``(C * block², H / block, W / block)``."""

    block: int
    kind: ClassVar[str] = "space_to_depth"

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices, moved."""
        c, h, w = _image(index, "SpaceToDepth")
        b = self.block
        if b < 1 or h % b or w % b:
            raise ValueError(f"block is {b}, an image of {h} x {w} can't be divided by it")
        blocks = index.reshape(c, h // b, b, w // b, b).transpose(2, 4, 0, 1, 3)
        return blocks.reshape(c * b * b, h // b, w // b)


@dataclass(frozen=True)
class ChannelShuffle(Movement):
    """Channel i of group g becomes channel g of group i."""

    groups: int
    kind: ClassVar[str] = "channel_shuffle"

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices, shuffled."""
        c = index.shape[0] if index.ndim else 0
        if self.groups < 1 or c % self.groups or not c:
            raise ValueError(f"groups is {self.groups}, the input {index.shape} can't be divided")
        rows: Any = index.reshape(self.groups, c // self.groups, *index.shape[1:])
        return cast("NDArray[np.int64]", rows.swapaxes(0, 1).reshape(index.shape))
