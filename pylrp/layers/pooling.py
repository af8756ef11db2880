"""Pools: the largest value or the average of windows, by size and step, over everything, or into a given size.

All tell the core the same thing, :meth:`Pool.windows`: where each window lies along each spatial axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pylrp._limits import require
from pylrp.layers.base import NamedLayer, Place, Shape, Spec, per_axis, sole
from pylrp.layers.windows import Windows, normalise_padding, place, resolve_pads

__all__ = [
    "AdaptiveAveragePool",
    "AdaptiveMaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "MaxPool",
    "Pool",
]


class Pool(NamedLayer):
    """Base of the pools; ``kind`` is "maxpool" or "avgpool"."""

    has_ledger_row: ClassVar[bool] = True

    def windows(self, shape: Shape) -> list[Windows]:
        """Return, for each spatial axis of an input of this logical shape, where its windows lie.

        A window is the product of one range an axis, an average divides by the product of the axes' divisors.
        """
        raise NotImplementedError

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return ``(C, *number of windows)``."""
        shape = sole(self, shapes)
        if not 2 <= len(shape) <= 4:
            raise ValueError(f"the input has shape {shape}, expected channels and 1 to 3 spatial axes")
        return (shape[0], *(len(axis.begin) for axis in self.windows(shape)))

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: the windows along each of three axes."""
        shape = place.inputs[0]
        windows = self.windows(shape)
        axes: list[Any] = [([0], [1], [1], 1, 1)] * (3 - len(windows))
        for axis, size in zip(windows, shape[1:], strict=True):
            axes.append((axis.begin.tolist(), axis.end.tolist(), axis.divisor.tolist(), int(axis.step), size))
        return self.kind, {"axes": axes, "channels": shape[0]}


class _Maximum(Pool):
    """Facts of the pools that take the largest value."""

    kind: ClassVar[str] = "maxpool"
    effect_without_rule: ClassVar[str] = "winner takes all"


class _Average(Pool):
    """Facts of the pools that take the average."""

    kind: ClassVar[str] = "avgpool"
    rule_kind: ClassVar[str | None] = "pool"


@dataclass(frozen=True)
class _WindowPool(Pool):
    """What pools with a kernel share.

    Fields are kept as given, for one number serves any number of spatial axes; :meth:`windows` resolves them.
    """

    kernel: int | Sequence[int]
    stride: int | Sequence[int] | None = None
    padding: Any = 0
    dilation: int | Sequence[int] = 1
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("kernel", "stride", "padding", "dilation"):
            value = getattr(self, field)
            if isinstance(value, Sequence) and not isinstance(value, str):  # a list would not hash
                fixed = tuple(tuple(v) if isinstance(v, Sequence) else v for v in value)
                object.__setattr__(self, field, fixed)

    def _windows(self, shape: Shape, *, include_pad: bool) -> list[Windows]:
        spatial = shape[1:]
        axes = len(spatial)
        kernel = per_axis(self.kernel, axes, "kernel")
        stride = kernel if self.stride is None else per_axis(self.stride, axes, "stride")
        dilation = per_axis(self.dilation, axes, "dilation")
        pads = resolve_pads(normalise_padding(self.padding, axes), spatial, kernel, stride, dilation)
        steps = zip(spatial, kernel, stride, dilation, pads, strict=True)
        return [place(*step, ceil_mode=self.ceil_mode, include_pad=include_pad) for step in steps]


@dataclass(frozen=True)
class MaxPool(_Maximum, _WindowPool):
    """The largest value of each window; padding never wins.

    Parameters
    ----------
    kernel : int or sequence of int
        One for all spatial axes, or one each.
    stride : int or sequence of int, optional
        Default: the kernel.
    padding : int, sequence of int, sequence of (low, high), "same_upper", "same_lower" or "valid", default 0
    dilation : int or sequence of int, default 1
    ceil_mode : bool, default False
        Windows may reach beyond the input's end, but not begin there.
    """

    def windows(self, shape: Shape) -> list[Windows]:
        """Return, for each spatial axis, where the windows lie."""
        return self._windows(shape, include_pad=False)


@dataclass(frozen=True)
class AveragePool(_Average, _WindowPool):
    """The average of each window.

    Parameters
    ----------
    kernel : int or sequence of int
        One for all spatial axes, or one each.
    stride : int or sequence of int, optional
        Default: the kernel.
    padding : int, sequence of int, sequence of (low, high), "same_upper", "same_lower" or "valid", default 0
    dilation : int or sequence of int, default 1
    ceil_mode : bool, default False
        Windows may reach beyond the input's end, but not begin there.
    count_include_pad : bool, default False
        Padding counts as zeros in the average, as in torch; by default (ONNX, Keras) it does not count.
    """

    count_include_pad: bool = False

    def windows(self, shape: Shape) -> list[Windows]:
        """Return, for each spatial axis, where the windows lie."""
        return self._windows(shape, include_pad=self.count_include_pad)


def _spread(size: int, number: int) -> Windows:
    """Return so many windows that cover an axis, as torch's adaptive pools do."""
    require(number * 32, f"the {number} windows along an axis of size {size}")
    i = np.arange(number, dtype=np.int64)
    begin, end = i * size // number, -(-(i + 1) * size // number)
    return Windows(begin, end, end - begin, 1)


@dataclass(frozen=True)
class GlobalAveragePool(_Average):
    """The average over all spatial axes: ``(C, 1, 1)`` for an image."""

    def windows(self, shape: Shape) -> list[Windows]:
        """Return one window for each spatial axis."""
        return [_spread(n, 1) for n in shape[1:]]


@dataclass(frozen=True)
class GlobalMaxPool(_Maximum):
    """The largest value over all spatial axes: ``(C, 1, 1)`` for an image."""

    def windows(self, shape: Shape) -> list[Windows]:
        """Return one window for each spatial axis."""
        return [_spread(n, 1) for n in shape[1:]]


@dataclass(frozen=True)
class _AdaptivePool(Pool):
    """What pools into a given size share."""

    size: int | Sequence[int | None]

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.size, Sequence):
            object.__setattr__(self, "size", tuple(self.size))

    def windows(self, shape: Shape) -> list[Windows]:
        """Return, for each spatial axis, where the windows lie."""
        spatial = shape[1:]
        wanted = self.size if isinstance(self.size, Sequence) else (self.size,) * len(spatial)
        if len(wanted) != len(spatial):
            raise ValueError(f"size has {len(wanted)} entries, the input {shape} has {len(spatial)} spatial axes")
        sizes = [n if want is None else want for n, want in zip(spatial, wanted, strict=True)]
        if min(sizes) < 1:
            raise ValueError(f"size is {self.size}, expected at least 1")
        return [_spread(n, number) for n, number in zip(spatial, sizes, strict=True)]


@dataclass(frozen=True)
class AdaptiveAveragePool(_Average, _AdaptivePool):
    """The average of windows that cover the input, as many as ``size`` says; as in torch.

    Parameters
    ----------
    size : int or sequence of int or None
        Number of windows along each spatial axis; None: as many as there are values.
    """


@dataclass(frozen=True)
class AdaptiveMaxPool(_Maximum, _AdaptivePool):
    """The largest value of windows that cover the input, as many as ``size`` says; as in torch.

    Parameters
    ----------
    size : int or sequence of int or None
        Number of windows along each spatial axis; None: as many as there are values.
    """
