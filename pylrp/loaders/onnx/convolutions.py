"""ONNX's convolutions, and the padding that pools share with them. ``onnx/operators.py`` has the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from pylrp.layers import Conv, ConvTranspose, Transpose
from pylrp.loaders.onnx.node import Call, Value
from pylrp.loaders.onnx.recurrent import STEPS_FIRST
from pylrp.loaders.onnx.views import PLAIN

__all__ = ["CONVOLUTIONS", "conv", "padding"]

Array = NDArray[Any]


def _pairs(pads: Sequence[int]) -> list[tuple[int, int]]:
    """Return (low, high) for each axis; ONNX lists all lows, then all highs."""
    if len(pads) % 2:
        raise ValueError(f"pads has {len(pads)} entries, expected two for each axis")
    half = len(pads) // 2
    return list(zip(pads[:half], pads[half:], strict=True))


def padding(call: Call) -> Any:
    """Return a node's padding as layers take it."""
    auto = call.attribute("auto_pad", "NOTSET")
    if auto != "NOTSET":
        return auto.lower()
    return _pairs(call.attribute("pads", ())) or 0


def _bias(call: Call, position: int) -> Array | None:
    return call.weight(position) if call.has(position) else None


def conv(call: Call) -> Value:
    """Emit a Conv."""
    value = call.viewed()
    if value.view == STEPS_FIRST:
        return _conv_of_steps(call, value)
    return call.emit(
        Conv(
            call.weight(1),
            _bias(call, 2),
            stride=call.attribute("strides", 1),
            padding=padding(call),
            dilation=call.attribute("dilations", 1),
            groups=call.attribute("group", 1),
        ),
        call.value(),
    )


def _conv_of_steps(call: Call, value: Value) -> Value:
    """Emit a Conv of every step by itself: (steps, channels, ...), its kernel has length 1 along the steps."""
    weight = call.weight(1, "of steps", lambda w: w[:, :, None])
    axes = weight.ndim - 3
    pads = padding(call)
    order = (1, 0, *range(2, len(value.shape)))
    value = call.emit(Transpose(order), value, part="channels_first", view=PLAIN)
    made = call.emit(
        Conv(
            weight,
            _bias(call, 2),
            stride=(1, *call.attribute("strides", [1] * axes)),
            padding=pads if isinstance(pads, str) else [(0, 0), *(pads or [(0, 0)] * axes)],
            dilation=(1, *call.attribute("dilations", [1] * axes)),
            groups=call.attribute("group", 1),
        ),
        value,
        part="conv",
    )
    return call.emit(Transpose(order), made, view=STEPS_FIRST)


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
