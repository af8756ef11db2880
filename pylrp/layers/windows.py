"""Where the windows of convolutions and pools lie along one axis: sizes, SAME padding, clipping.

``conv.py`` and ``pooling.py`` ask here, one axis at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylrp._limits import require
from pylrp.layers.base import per_axis

__all__ = ["AUTO", "Padding", "Pads", "Windows", "normalise_padding", "output_size", "place", "resolve_pads"]

Pads = tuple[tuple[int, int], ...]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]
_BYTES = 96  # that the arrays below take for a window
_FAR = 1 << 48
AUTO = ("same_upper", "same_lower", "valid")


class Windows(NamedTuple):
    """The windows along one axis: entry i looks at ``range(begin[i], end[i], step)`` of the input.

    ``begin`` and ``end`` are reach to the input; an average divides by the product of its axes' ``divisor``.
    """

    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    divisor: NDArray[np.int64]
    step: int


def normalise_padding(padding: Padding, axes: int) -> Pads | str:
    """Return ``((low, high), ...)``, one pair for each spatial axis, or a word of :data:`AUTO`."""
    if isinstance(padding, str):
        if padding not in AUTO:
            raise ValueError(f"padding is {padding!r}, expected numbers or one of {', '.join(AUTO)}")
        return ((0, 0),) * axes if padding == "valid" else padding
    given: Any = padding
    if np.ndim(given) < 2:
        return tuple((n, n) for n in per_axis(given, axes, "padding", least=0))
    if np.shape(given) != (axes, 2):
        raise ValueError(f"padding is {padding}, expected a pair (low, high) for each of {axes} spatial axes")
    pads = tuple((int(low), int(high)) for low, high in given)
    if min(min(pair) for pair in pads) < 0:
        raise ValueError(f"padding is {padding}, expected at least 0")
    return pads


def resolve_pads(
    padding: Pads | str, spatial: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Pads:
    """Return pairs (low, high) for an input of this size; SAME makes the output ceil(size / stride)."""
    if not isinstance(padding, str):
        return padding
    pads = []
    for n, k, s, d in zip(spatial, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        less, more = total // 2, total - total // 2
        pads.append((less, more) if padding == "same_upper" else (more, less))
    return tuple(pads)


def output_size(
    size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], *, ceil_mode: bool = False
) -> int:
    """Return the number of windows along one axis."""
    reach = (kernel - 1) * dilation + 1
    span = size + sum(pads) - reach
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    if count < 1:
        raise ValueError(f"the kernel spans {reach}, its input {size} with padding {pads[0]} + {pads[1]}")
    # In ceil mode the last window must begin inside the input or its left padding.
    return count - 1 if ceil_mode and (count - 1) * stride >= size + pads[0] else count


def place(
    size: int,
    kernel: int,
    stride: int,
    dilation: int,
    pads: tuple[int, int],
    *,
    ceil_mode: bool = False,
    include_pad: bool = False,
) -> Windows:
    """Return the windows along one axis; ``include_pad``: padding takes part in ``divisor``."""
    number = output_size(size, kernel, stride, dilation, pads, ceil_mode=ceil_mode)
    span = (kernel - 1) * dilation + 1
    for at, place_of in ((0, -pads[0]), (number - 1, (number - 1) * stride - pads[0])):
        if place_of >= size or place_of + span <= 0:
            raise ValueError(f"window {at} lies in the padding {pads} of an input of size {size} entirely")
    # Numbers beyond 64 bits; and what is so far apart that it makes no difference is no further.
    stride, dilation = min(stride, _FAR), min(dilation, _FAR)
    require(number * _BYTES, f"the {number} windows along an axis of size {size}")
    if max(span, number * stride, *pads) > _FAR:
        raise ValueError(f"a kernel that spans {span}, in steps of {stride} with padding {pads}, is more than 2^48")
    start = np.arange(number, dtype=np.int64) * stride - pads[0]
    last = start + (kernel - 1) * dilation
    begin = np.where(start < 0, start + -(start // dilation) * dilation, start)
    # The last tap inside the input, on the grid of the window's taps.
    end = np.where(last < size, last, last - -((size - 1 - last) // dilation) * dilation) + 1
    if (begin >= end).any():
        at = int(np.argmax(begin >= end))
        raise ValueError(f"window {at} lies in the padding {pads} of an input of size {size} entirely")
    if include_pad:
        reach = np.minimum(last, size + pads[1] - 1)
        divisor = (reach - start) // dilation + 1
    else:
        divisor = (end - 1 - begin) // dilation + 1
    return Windows(begin, end, divisor, dilation)
