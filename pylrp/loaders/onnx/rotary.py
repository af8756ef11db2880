"""ONNX's RotaryEmbedding (opset 23) as the linear map that it is: pairs of features turned by their position's angle.

``x * cos + turned(x) * sin``, where turned puts the two features of a pair in each other's place, one with its sign
changed; cos and sin are constants, or side values where the positions come with the call: all relevance goes to ``x``.
:data:`ROTARY` is part of the table of ``onnx/operators.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Add, Affine, Concat, Reshape, ScaleBy, Slice, Take, Transpose
from pylrp.loaders.onnx.arithmetic import computed
from pylrp.loaders.onnx.constants import Constant
from pylrp.loaders.onnx.node import Call, Value

__all__ = ["ROTARY"]

Array = NDArray[Any]
_CACHES, _IDS = (1, 2), 3  # inputs
_TABLE, _BY_TOKEN = 2, 3  # axes of a cache: (positions, angles), or (batch, tokens, angles) without position ids


def _rotary(call: Call) -> Value:
    heads = _by_heads(call)
    width, packed = heads.shape[2], len(call.value().shape) == 2
    turned = call.attribute("rotary_embedding_dim", 0) or width
    if not 0 < turned <= width or turned % 2:
        raise call.broken(f"turns {turned} of {width} features, which must be an even number of them")
    part = _features(call, heads, 0, turned, "turned") if turned < width else heads
    made = _turn(call, part, "" if turned == width and not packed else "sum")
    if turned < width:
        rest = _features(call, heads, turned, width, "rest")
        made = call.emit(Concat(2), made, rest, part="joined" if packed else "")
    if packed:
        made = call.emit(Transpose((1, 0, 2)), made, part="tokens_first")
        made = call.emit(Reshape(call.value().shape), made)
    return made


def _by_heads(call: Call) -> Value:
    """Return the input as (heads, tokens, width)."""
    value = call.value()
    if len(value.shape) == 3:
        return value
    count = call.attribute("num_heads", 0)
    if len(value.shape) != 2 or count < 1 or value.shape[1] % count:
        raise call.broken(f"has an input of shape {value.shape} (without the batch) for {count} heads")
    split = call.emit(Reshape((value.shape[0], count, value.shape[1] // count)), value, part="split")
    return call.emit(Transpose((1, 0, 2)), split, part="heads")


def _features(call: Call, heads: Value, start: int, stop: int, part: str) -> Value:
    return call.emit(Slice([start], [stop], [2]), heads, part=part)


def _turn(call: Call, value: Value, name: str) -> Value:
    """Turn all pairs of features: the first half with the second one, or interleaved those beside each other."""
    half = value.shape[2] // 2
    if call.attribute("interleaved", 0):
        angle = np.repeat(np.arange(half), 2)
        partner, sign = np.arange(2 * half) ^ 1, np.tile([-1.0, 1.0], half)
    else:
        angle = np.tile(np.arange(half), 2)
        partner, sign = np.roll(np.arange(2 * half), half), np.repeat([-1.0, 1.0], half)
    other = call.emit(Take(partner, 2), value, part="partners")
    kept = _scaled(call, value, 1, angle, np.ones(2 * half), "cos")
    return call.emit(Add(), kept, _scaled(call, other, 2, angle, sign, "sin"), part=name)


def _scaled(call: Call, value: Value, position: int, angle: Array, sign: Array, part: str) -> Value:
    """Return the value times a cache, whose columns are named by ``angle``."""
    if all(call.is_constant(at) for at in (position, _IDS) if call.has(at)):
        factor = _constant_factor(call, value, position)[:, angle] * sign
        return call.emit(Affine(factor.astype(call.translation.constants.dtype), 0.0), value, part=part)
    side = _side_factor(call, position)
    columns, signs = (Constant(array, array) for array in (angle, sign.astype(np.float32)))
    name = call.translation.unique(f"{call.name}:{part}")
    call.translation.sides.step("Gather", {"axis": 2}, [side, columns], name)
    one = Constant(np.array([1]), np.array([1]))
    side = computed(call, "Unsqueeze", computed(call, "Mul", name, signs), one)
    fed = call.fed(side, value, adds=False)
    if len(fed.shape) != 3 or fed.shape[1:] != value.shape[1:]:
        raise call.broken(f"turns values {value.shape} by cos and sin {fed.shape} (without the batch)")
    return call.emit(ScaleBy(), value, fed, part=part)


def _constant_factor(call: Call, value: Value, position: int) -> Array:
    """Return a cache's rows for the tokens, (tokens, angles)."""
    cache = np.asarray(call.constant(position, per_sample=True), np.float64)
    if call.has(_IDS):
        ids = np.asarray(call.constant(_IDS, per_sample=True))
        if cache.ndim != _TABLE or ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise call.broken(f"has a cache of shape {cache.shape} and position ids of shape {ids.shape}")
        if ids.size and not -len(cache) <= ids.min() <= ids.max() < len(cache):
            raise call.unsupported(
                f"looks up position {ids.max()} in a table of {len(cache)}", "give the model shorter inputs"
            )
        cache = cache[ids]
    if cache.ndim != _BY_TOKEN or cache.shape[1:] != (value.shape[1], value.shape[2] // 2):
        raise call.broken(f"turns values {value.shape} (without the batch) by cos and sin of shape {cache.shape}")
    if len(cache) > 1 and (cache != cache[:1]).any():
        raise call.mixes_batch(f"has cos and sin of shape {cache.shape}, others for each sample of the batch")
    return np.asarray(cache[0])


def _side_factor(call: Call, position: int) -> str:
    """Return the name of a side value: a cache's rows for the tokens of each sample, (batch, tokens, angles)."""
    constants = call.translation.constants
    for at in (position, _IDS):
        if call.has(at) and not call.is_constant(at) and not call.is_side(at):
            raise call.unsupported(
                f"turns by {call.node.input[at]!r}, which is an activation, where cos, sin and position ids must be "
                "constants or computed of ids",
                "make it an initialiser of the model, or an input of whole numbers",
            )
    name = str(call.node.input[position])
    if not call.has(_IDS):
        return name
    ids = call.node.input[_IDS]
    cache = constants[name] if call.is_constant(position) else name
    return computed(call, "Gather", cache, ids if call.is_side(_IDS) else constants[ids])


ROTARY: dict[str, Callable[[Call], Value]] = {"RotaryEmbedding": _rotary}
