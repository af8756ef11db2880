"""Moves between channels and positions: repeated positions, blocks of them, shuffled channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from pylrp.layers.base import Shape, per_axis, sole
from pylrp.layers.movement import Movement

__all__ = ["ChannelShuffle", "DepthToSpace", "SpaceToDepth", "Upsample"]


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
