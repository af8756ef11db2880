"""ONNX's convolutions, and the padding that pools share with them. ``onnx/operators.py`` has the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from pylrp.layers import Conv, ConvTranspose, Layer, Transpose
from pylrp.loaders.onnx.node import Call, Value
from pylrp.loaders.onnx.views import PLAIN

__all__ = ["CONVOLUTIONS", "conv", "over_space", "padding"]

Array = NDArray[Any]


def _pairs(pads: Sequence[int]) -> list[tuple[int, int]]:
    """Return (low, high) for each axis; ONNX lists all lows, then all highs."""
    if len(pads) % 2:
        raise ValueError(f"pads has {len(pads)} entries, expected two for each axis")
    half = len(pads) // 2
    return list(zip(pads[:half], pads[half:], strict=True))


def padding(call: Call, steps: int = 0, axes: int = 0) -> Any:
    """Return a node's padding as layers take it; with so many axes in front of the node's own that have none."""
    auto = call.attribute("auto_pad", "NOTSET")
    if auto != "NOTSET":
        return auto.lower()
    pads = _pairs(call.attribute("pads", ()))
    return [*[(0, 0)] * steps, *(pads or [(0, 0)] * axes)] if steps else pads or 0


def _bias(call: Call, position: int) -> Array | None:
    return call.weight(position) if call.has(position) else None


def conv(call: Call) -> Value:
    """Emit a Conv."""

    def make(steps: int) -> Layer:
        one = (1,) * steps  # along them the kernel has length 1
        weight = call.weight(1, "of steps", lambda w: w[:, :, None]) if steps else call.weight(1)
        axes = weight.ndim - 2 - steps
        return Conv(
            weight,
            _bias(call, 2),
            stride=(*one, *call.attribute("strides", [1] * axes)),
            padding=padding(call, steps, axes),
            dilation=(*one, *call.attribute("dilations", [1] * axes)),
            groups=call.attribute("group", 1),
        )

    return over_space(call, make)


def over_space(call: Call, make: Callable[[int], Layer]) -> Value:
    """Emit a layer over (channels, ...), of every step by itself where steps are merged with the batch.

    Parameters
    ----------
    call : Call
    make : callable
        Makes the layer for so many axes, none or one, between the channels and the others, along which it does nothing.
    """
    value = call.viewed()
    view = value.view
    if view.batch or view.merged != 1:
        return call.emit(make(0), call.value())
    order = (1, 0, *range(2, len(value.shape)))
    turned = call.emit(Transpose(order), value, part="channels_first", view=PLAIN)
    made = call.emit(make(1), turned, view=PLAIN)  # which has the node's name, as of the layer with the weights
    return call.emit(Transpose(order), made, part="steps_first", view=view)


def _conv_transpose(call: Call) -> Value:
    value = call.value()
    weight = call.weight(1)
    axes = weight.ndim - 2
    stride = call.attribute("strides", [1] * axes)
    dilation = call.attribute("dilations", [1] * axes)
    extra = list(call.attribute("output_padding", [0] * axes))
    if {len(value.shape) - 1, len(stride), len(dilation), len(extra)} != {axes}:
        raise call.broken(f"has settings that do not fit a kernel of {axes} axes")
    pads: Any = padding(call)
    wanted = call.attribute("output_shape")
    if isinstance(pads, str) and pads != "valid" and wanted is None:
        wanted = [n * s for n, s in zip(value.shape[1:], stride, strict=True)]
    if wanted is not None:
        upper, pads = pads == "same_upper", []
        steps = zip(value.shape[1:], weight.shape[2:], stride, dilation, wanted[-axes:], strict=True)
        for i, (n, k, s, d, want) in enumerate(steps):
            total = (n - 1) * s + extra[i] + (k - 1) * d + 1 - want
            extra[i] += max(-total, 0)
            less, more = max(total, 0) // 2, max(total, 0) - max(total, 0) // 2
            pads.append((less, more) if upper else (more, less))
    return call.emit(
        ConvTranspose(
            weight,
            _bias(call, 2),
            stride=stride,
            padding=0 if pads == "valid" else pads,
            output_padding=extra,
            dilation=dilation,
            groups=call.attribute("group", 1),
        ),
        value,
    )


CONVOLUTIONS: dict[str, Callable[[Call], Value]] = {"Conv": conv, "ConvTranspose": _conv_transpose}
