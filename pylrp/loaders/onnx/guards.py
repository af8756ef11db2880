"""Choices that put a number in place of NaN: values of a network have none, so they are the value itself.

torch's exporter writes ``Where(IsNaN(p), 0, p)`` behind the softmax of attention with a mask of truth values, for rows
that are masked altogether; the core's softmax is 0 there. ``onnx/arithmetic.py`` comes here.
"""

from __future__ import annotations

from pylrp.layers import Identity
from pylrp.loaders.onnx.node import Call, Value

__all__ = ["is_nan", "kept_from_nan"]


def is_nan(call: Call) -> Value | None:
    """Leave the question open: no layer answers it, a choice by it is :func:`kept_from_nan`."""
    call.translation.calls.update(dict.fromkeys(call.node.output, call))
    call.translation.pending[call.node.output[0]] = call.unsupported("has no rule of LRP")
    return None


def kept_from_nan(call: Call) -> Value | None:
    """Return the value that a Where keeps from NaN; None if it is another choice."""
    asked = call.translation.producers.get(call.node.input[0])
    if asked is None or asked.op_type != "IsNaN" or list(asked.input) != [call.node.input[2]]:
        return None
    if not call.is_constant(1):
        return None
    return call.emit(Identity(), call.viewed(2))
