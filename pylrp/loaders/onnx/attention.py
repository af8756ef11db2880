"""ONNX's Attention (opset 23 and 24) as the layers that it is, two products with a softmax between them; Einsum of two.

:data:`ATTENTION` is part of the table of ``onnx/operators.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Add, Affine, MatMul, Reshape, Shift, ShiftBy, Softmax, Tanh, Transpose
from pylrp.layers.shift import closed
from pylrp.loaders.onnx.arithmetic import alike, computed, operand
from pylrp.loaders.onnx.constants import Constant
from pylrp.loaders.onnx.node import Call, Value
from pylrp.loaders.onnx.views import PLAIN, View

__all__ = ["ATTENTION", "einsum_of_two"]

_HEADS, _PACKED = 4, 3  # axes of (batch, heads, tokens, width) and of (batch, tokens, heads * width)


def _attention(call: Call) -> Value:
    if any(call.has(position) for position in (4, 5, 6)) or any(call.node.output[1:]):
        raise call.unsupported("has a cache of keys and values, or gives more than its output")
    query, key, value = (_heads(call, at, name) for at, name in enumerate(("q", "kv", "kv")))
    view = call.common_view([query, key, value])
    lead = query.shape[: view.merged]  # axes that are merged with the batch
    own = len(lead)
    (heads, tokens, width), (groups, keys) = query.shape[own:], key.shape[own : own + 2]
    fits = value.shape[: own + 2] == (*lead, groups, keys) and key.shape[:own] == lead
    if groups == 0 or heads % groups or not fits:
        raise call.broken(f"has queries {query.shape}, keys {key.shape} and values {value.shape}")
    scale = call.attribute("scale") or 1 / math.sqrt(width)
    turned = call.emit(Transpose((*range(own + 1), own + 2, own + 1)), key, part="keys_transposed")
    shared = groups < heads  # several heads share keys and values
    if shared and view.batch:
        raise call.mixes_batch("has heads that share keys, and the batch on axis 1")
    if shared:
        query = call.emit(Reshape((*lead, groups, heads // groups, tokens, width)), query, part="query_groups")
        turned, value = (
            call.emit(Reshape((*lead, groups, 1, *each.shape[-2:])), each, part=part)
            for each, part in ((turned, "key_groups"), (value, "value_groups"))
        )
    scores = call.emit(MatMul(float(scale)), query, turned, part="scores")
    by_group = scores.shape
    if shared:
        scores = call.emit(Reshape((*lead, heads, tokens, keys)), scores, part="scores_by_head")
    scores = _masked(call, _capped(call, scores))
    shares = call.emit(Softmax(-1), scores, part="softmax")
    if shared:
        shares = call.emit(Reshape(by_group), shares, part="shares_by_group")
    packed = call.viewed(0).rank == _PACKED
    made = call.emit(MatMul(), shares, value, part="values" if shared or packed else "")
    if shared:
        made = call.emit(Reshape((*lead, heads, *made.shape[-2:])), made, part="heads" if packed else "")
    if packed:
        made = call.emit(Transpose((*range(own), own + 1, own, own + 2)), made, part="tokens_first")
        made = call.emit(Reshape((*lead, tokens, heads * made.shape[-1])), made)
    return made


def _heads(call: Call, position: int, name: str) -> Value:
    """Return queries, keys or values as (heads, tokens, width), behind axes that are merged with the batch."""
    value = call.viewed(position)
    packed = value.rank == _PACKED
    if value.view.batch > (0 if packed else 1):
        raise call.mixes_batch(f"takes a value with the batch on axis {value.view.batch}")
    if value.rank == _HEADS:
        return value
    count = call.attribute(f"{name}_num_heads", 0)
    if not packed or count < 1 or value.shape[-1] % count:
        raise call.broken(f"has an input of shape {value.shape} (without the batch) for {count} heads")
    *lead, tokens, wide = value.shape
    part = ("query", "key", "value")[position]
    split = call.emit(Reshape((*lead, tokens, count, wide // count)), value, part=f"{part}_split")
    own = len(lead)
    return call.emit(Transpose((*range(own), own + 1, own, own + 2)), split, part=f"{part}_heads")


def _capped(call: Call, scores: Value) -> Value:
    cap = call.attribute("softcap", 0.0)
    if not cap:
        return scores
    small = call.emit(Affine(1 / cap, 0.0), scores, part="softcap_before")
    return call.emit(Affine(cap, 0.0), call.emit(Tanh(), small, part="softcap"), part="softcap_after")


def _window(call: Call, queries: int, keys: int) -> NDArray[np.bool_]:
    """Return which keys each query may see by their distance: none behind it if causal, those within a window."""
    ahead = np.arange(keys) - np.arange(queries)[:, None]
    left, right = call.attribute("left_window_size", -1), call.attribute("right_window_size", -1)
    seen = ahead <= 0 if call.attribute("is_causal", 0) else np.ones_like(ahead, dtype=bool)
    seen &= (ahead >= -left) if left >= 0 else True
    seen &= (ahead <= right) if right >= 0 else True
    return seen


def _masked(call: Call, scores: Value) -> Value:
    """Return the scores with the masks added; -inf closes a place."""
    dtype = call.translation.constants.dtype
    if call.has(3) and not call.is_side(3) and not call.is_constant(3):  # before -inf, of which it can take no share
        scores = call.emit(Add(), *alike(call, [scores, call.value(3)]), part="mask")
    seen = _window(call, *scores.shape[-2:])
    if not seen.all():
        causal = np.where(seen, 0, -np.inf).astype(dtype)
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
    return scores


def einsum_of_two(call: Call, equation: str) -> Value:
    """Emit an Einsum of two computed values that is a product of matrices, ``bhid,bhjd->bhij`` for example."""
    values = [call.viewed(0), call.viewed(1)]
    terms, arrow, result = "".join(equation.split()).partition("->")
    left, _, right = terms.partition(",")
    ranks = [value.rank for value in values]
    plain = arrow and "," not in right and all(map(str.isalpha, (left, right, result)))
    if not plain or [len(left), len(right)] != ranks or any(len(set(t)) < len(t) for t in (left, right, result)):
        raise call.unsupported(f"has the equation {equation!r}, which is no product of two matrices")
    batch = left[values[0].view.batch]
    merged = any(value.view.merged for value in values)
    if merged or batch != right[values[1].view.batch] or batch not in result:
        raise call.mixes_batch(f"has the equation {equation!r}, which sums the batch axis or lets samples meet")
    view = View(result.index(batch))
    left, right, result = (term.replace(batch, "") for term in (left, right, result))
    leading = [a for a in left if a in right and a in result]
    summed = [a for a in left if a in right and a not in result]
    rows, cols = [a for a in left if a not in right], [a for a in right if a not in left]
    if not summed or sorted(leading + rows + cols) != sorted(result):
        raise call.unsupported(f"has the equation {equation!r}, which is no product of two matrices")
    size = dict(zip(left + right, values[0].shape + values[1].shape, strict=True))

    def lengths(letters: list[str]) -> int:
        return math.prod(size[a] for a in letters)

    factors = []
    for term, value, order, shape, part in (
        (left, values[0], (leading, rows, summed), (lengths(rows), lengths(summed)), "left"),
        (right, values[1], (leading, summed, cols), (lengths(summed), lengths(cols)), "right"),
    ):
        turning = Transpose([term.index(a) for axes in order for a in axes])
        turned = call.emit(turning, value, part=f"{part}_axes", view=PLAIN)
        factors.append(call.emit(Reshape((*(size[a] for a in leading), *shape)), turned, part=part))
    made = call.emit(MatMul(), *factors, part="product")
    now = leading + rows + cols
    made = call.emit(Reshape([size[a] for a in now]), made, part="axes")
    return call.emit(Transpose([now.index(a) for a in result]), made, view=view)


ATTENTION: dict[str, Callable[[Call], Value]] = {"Attention": _attention}
