"""ONNX's Attention (opset 23 and 24) as the layers that it is: two products with a softmax between them.

:data:`ATTENTION` is part of the table of ``onnx/operators.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pylrp.layers import Add, Affine, MatMul, Reshape, Shift, ShiftBy, Softmax, Tanh, Transpose
from pylrp.layers.shift import closed
from pylrp.loaders.onnx.arithmetic import alike, computed, operand
from pylrp.loaders.onnx.constants import Constant
from pylrp.loaders.onnx.node import Call, Value

__all__ = ["ATTENTION"]

_HEADS, _PACKED = 3, 2  # axes of (heads, tokens, width) and of (tokens, heads * width)


def _attention(call: Call) -> Value:
    if any(call.has(position) for position in (4, 5, 6)) or any(call.node.output[1:]):
        raise call.unsupported("has a cache of keys and values, or gives more than its output")
    query, key, value = (_heads(call, at, name) for at, name in enumerate(("q", "kv", "kv")))
    heads, tokens, width = query.shape
    groups = key.shape[0]
    if groups == 0 or heads % groups or value.shape[0] != groups or key.shape[1] != value.shape[1]:
        raise call.broken(f"has queries {query.shape}, keys {key.shape} and values {value.shape}")
    scale = call.attribute("scale") or 1 / math.sqrt(width)
    turned = call.emit(Transpose((0, 2, 1)), key, part="keys_transposed")
    if groups < heads:  # several heads share keys and values
        query = call.emit(Reshape((groups, heads // groups, tokens, width)), query, part="query_groups")
        turned, value = (
            call.emit(Reshape((groups, 1, *each.shape[1:])), each, part=part)
            for each, part in ((turned, "key_groups"), (value, "value_groups"))
        )
    scores = call.emit(MatMul(float(scale)), query, turned, part="scores")
    grouped = scores.shape
    if groups < heads:
        scores = call.emit(Reshape((heads, *grouped[2:])), scores, part="scores_by_head")
    scores = _masked(call, _capped(call, scores))
    shares = call.emit(Softmax(-1), scores, part="softmax")
    if groups < heads:
        shares = call.emit(Reshape(grouped), shares, part="shares_by_group")
    packed = len(call.value(0).shape) == _PACKED
    plain = groups == heads and not packed
    made = call.emit(MatMul(), shares, value, part="" if plain else "values")
    if groups < heads:
        made = call.emit(Reshape((heads, *made.shape[2:])), made, part="heads" if packed else "")
    if packed:
        made = call.emit(Transpose((1, 0, 2)), made, part="tokens_first")
        made = call.emit(Reshape((made.shape[0], made.shape[1] * made.shape[2])), made)
    return made


def _heads(call: Call, position: int, name: str) -> Value:
    """Return queries, keys or values as (heads, tokens, width)."""
    value = call.value(position)
    if len(value.shape) == _HEADS:
        return value
    count = call.attribute(f"{name}_num_heads", 0)
    if len(value.shape) != _PACKED or count < 1 or value.shape[1] % count:
        raise call.broken(f"has an input of shape {value.shape} (without the batch) for {count} heads")
    tokens, width = value.shape[0], value.shape[1] // count
    part = ("query", "key", "value")[position]
    split = call.emit(Reshape((tokens, count, width)), value, part=f"{part}_split")
    return call.emit(Transpose((1, 0, 2)), split, part=f"{part}_heads")


def _capped(call: Call, scores: Value) -> Value:
    cap = call.attribute("softcap", 0.0)
    if not cap:
        return scores
    small = call.emit(Affine(1 / cap, 0.0), scores, part="softcap_before")
    return call.emit(Affine(cap, 0.0), call.emit(Tanh(), small, part="softcap"), part="softcap_after")


def _masked(call: Call, scores: Value) -> Value:
    """Return the scores with the masks added; -inf closes a place."""
    dtype = call.translation.constants.dtype
    if call.attribute("is_causal", 0):
        queries, keys = scores.shape[-2:]
        causal = np.where(np.tri(queries, keys, dtype=bool), 0, -np.inf).astype(dtype)
        scores = call.emit(Shift(closed(causal)), scores, part="causal")
    if not call.has(3):
        return scores
    if call.is_side(3):
        side = call.node.input[3]
        if not call.translation.sides.is_float(side):
            zero, least = (Constant(array, array) for array in (np.zeros(()), np.full((), -np.inf)))
            side = computed(call, "Where", side, zero, least)
        return call.emit(ShiftBy(), scores, call.fed(side, scores, adds=True), part="mask")
    if call.is_constant(3):
        given = np.asarray(operand(call, 3, scores))
        if np.asarray(call.constant(3, per_sample=True)).dtype.kind == "b":
            given = np.where(given == 1, 0, -np.inf)
        return call.emit(Shift(closed(given.astype(dtype))), scores, part="mask")
    return call.emit(Add(), *alike(call, [scores, call.value(3)]), part="mask")


ATTENTION: dict[str, Callable[[Call], Value]] = {"Attention": _attention}
