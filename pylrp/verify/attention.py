"""ONNX's Attention and RotaryEmbedding: what they compute, and what they hand down. ``operators.py`` lists them.

Attention is a product of queries and keys, a softmax and a product with the values; each has a rule of its own, of a
part ``"name/scores"``, ``"name/softmax"``, ``"name/values"``. Formulas of the ONNX standard, opset 23.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pylrp.verify.linear import unbroadcast
from pylrp.verify.program import Array, Step
from pylrp.verify.rules import Share, name_of, quotient
from pylrp.verify.tape import Tape

_KNOWN = {
    "is_causal", "kv_num_heads", "left_window_size", "q_num_heads", "qk_matmul_output_mode", "right_window_size",
    "scale", "softcap", "softmax_precision",
}  # fmt: skip

__all__ = ["attention", "attention_back", "rotary", "rotary_back"]


@dataclass(frozen=True)
class _Parts:
    """What attention makes on its way: (batch, heads, tokens, width); the scores behind each mask by its name."""

    q: Array
    k: Array
    v: Array
    scale: float
    dots: Array
    masked: tuple[tuple[str, Array], ...]
    p: Array

    @property
    def z(self) -> Array:
        """Return the output by heads."""
        return np.asarray(self.p @ self.v)


def _by_heads(x: Array, heads: int) -> Array:
    if x.ndim == 4:
        return x
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _parts(step: Step, *given: Array | None) -> _Parts:
    if any(array is not None for array in given[4:7]) or any(step.outputs[1:]):
        raise step.refuse("has a cache of keys and values, or gives more than its output")
    if set(step.attributes) - _KNOWN:
        raise step.refuse(f"has {', '.join(sorted(set(step.attributes) - _KNOWN))}")
    q, k, v = (
        _by_heads(np.asarray(array), step.get(f"{name}_num_heads", 0))
        for array, name in zip(given[:3], ("q", "kv", "kv"), strict=True)
    )
    repeat = q.shape[1] // k.shape[1]
    k, v = (np.repeat(array, repeat, axis=1) for array in (k, v))
    scale = float(step.get("scale") or 1 / np.sqrt(q.shape[-1]))
    dots = scale * (q @ k.swapaxes(-1, -2))
    cap = step.get("softcap", 0.0)
    scores = cap * np.tanh(dots / cap) if cap else dots
    masked: list[tuple[str, Array]] = []
    seen = _seen(step, *scores.shape[-2:])
    if not seen.all():
        scores = np.where(seen, scores, -np.inf)
        masked.append(("causal", scores))
    mask = given[3] if len(given) > 3 else None
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
        masked.append(("mask", scores))
    most = scores.max(axis=-1, keepdims=True)
    e = np.exp(scores - np.where(np.isfinite(most), most, 0))
    total = e.sum(axis=-1, keepdims=True)
    return _Parts(q, k, v, scale, dots, tuple(masked), np.divide(e, total, out=np.zeros_like(e), where=total != 0))


def _seen(step: Step, queries: int, keys: int) -> Array:
    """Return which keys a query may look at: none behind it if causal, none further away than a window allows."""
    ahead = np.arange(keys) - np.arange(queries)[:, None]
    least, most = (step.get(f"{side}_window_size", -1) for side in ("left", "right"))
    most = 0 if step.get("is_causal", 0) else most if most >= 0 else keys
    return (ahead <= most) & (ahead >= (-least if least >= 0 else -queries))


def _packed(step: Step, z: Array, like: Array | None) -> Array:
    return z if like is None or like.ndim == 4 else z.swapaxes(1, 2).reshape(len(z), z.shape[2], -1)


def attention(step: Step, *given: Array | None) -> Array:
    """Return what Attention computes."""
    return _packed(step, _parts(step, *given).z, given[0])


def attention_back(tape: Tape, step: Step, share: Share, z: Array) -> None:
    """Hand the relevance of attention to queries, keys and values."""
    found = _parts(step, *tape.given(step))
    heads = found.q.shape[1]
    made = found.z
    share = Share(*(_by_heads(np.broadcast_to(part, z.shape), heads) for part in (share.c, share.r)))
    q = quotient(share, made, 0.0)
    values = tape.rules.part(step, "values") or tape.rules.of(step, "matmul")
    half = 1.0 if name_of(values) == "value" else 0.5
    c_v = half * (found.p.swapaxes(-1, -2) @ q)
    _give(tape, step, 2, c_v)
    softmax = tape.rules.part(step, "softmax") or tape.rules.kinds.get("softmax", "taylor")
    if half == 1.0 or name_of(softmax) == "stop":
        return
    c_p = half * (q @ found.v.swapaxes(-1, -2))
    relevance = found.p * c_p
    c_s = relevance - found.p * relevance.sum(axis=-1, keepdims=True)
    for part, scores in reversed(found.masked):  # masks take their share, as any constant that is added
        c_s = np.broadcast_to(tape.through(Share(c_s), scores, _rule_of_mask(tape, step, part)).c, scores.shape)
    cap = step.get("softcap", 0.0)
    if cap:  # all relevance of a tanh passes
        small = np.tanh(found.dots / cap)
        c_s = tape.through(Share(cap * c_s), small, tape.rules.part(step, "softcap")).c
        c_s = c_s * np.divide(small, found.dots, out=np.zeros_like(small), where=found.dots != 0)
    c_s = 0.5 * found.scale * c_s
    _give(tape, step, 0, c_s @ found.k)
    _give(tape, step, 1, c_s.swapaxes(-1, -2) @ found.q)


def _rule_of_mask(tape: Tape, step: Step, part: str) -> Any:
    """Return the rule of the layer that adds a mask: an input that holds the mask may have its name, too."""
    found = (tape.rules.part(step, name) for name in (part, f"{part}_2", f"{part}_3"))
    return next((rule for rule in found if rule is not None), None)


def _give(tape: Tape, step: Step, position: int, c: Array) -> None:
    """Hand coefficients by heads to an input, which may be shared by several heads, and packed."""
    value = tape.values[step.inputs[position]]
    heads = c.shape[1] if value.ndim == 4 else step.get("q_num_heads" if position == 0 else "kv_num_heads", c.shape[1])
    own = value.shape[1] if value.ndim == 4 else heads
    c = c.reshape(len(c), own, -1, *c.shape[2:]).sum(axis=2)
    tape.give(step.inputs[position], Share(_packed(step, c, value)))


def _turned(step: Step, x: Array, given: tuple[Array | None, ...], *, back: bool) -> Array:
    cos, sin, ids = (*given, None, None, None)[:3]
    assert cos is not None
    assert sin is not None
    packed = x.ndim == 3
    count = step.get("num_heads") or x.shape[-1] // (2 * cos.shape[-1])
    heads = _by_heads(x, count).swapaxes(1, 2)  # (batch, tokens, heads, width)
    width = step.get("rotary_embedding_dim", 0) or heads.shape[-1]
    if ids is not None:
        cos, sin = cos[ids], sin[ids]
    cos, sin = (np.broadcast_to(v[:, :, None, : width // 2], (*heads.shape[:3], width // 2)) for v in (cos, sin))
    sin = -sin if back else sin
    part, rest = heads[..., :width], heads[..., width:]
    if step.get("interleaved", 0):
        one, two = part[..., 0::2], part[..., 1::2]
    else:
        one, two = part[..., : width // 2], part[..., width // 2 :]
    pair = cos * one - sin * two, sin * one + cos * two
    mixed = bool(step.get("interleaved", 0))
    made = np.stack(pair, axis=-1).reshape(part.shape) if mixed else np.concatenate(pair, axis=-1)
    made = np.concatenate([made, rest], axis=-1)
    return made.reshape(x.shape) if packed else made.swapaxes(1, 2)


def rotary(step: Step, x: Array, *given: Array | None) -> Array:
    """Return what RotaryEmbedding computes: pairs of features turned by an angle of their position."""
    return _turned(step, x, given, back=False)


def rotary_back(tape: Tape, step: Step, share: Share, z: Array) -> None:
    """Turn coefficients back."""
    rule: Any = tape.rules.part(step, "sum") or tape.rules.of(step, "add")
    q = np.broadcast_to(tape.proportional(step, share, z, rule).c, z.shape)
    given = tape.given(step)[1:]
    tape.give(step.inputs[0], Share(unbroadcast(_turned(step, q, tuple(given), back=True), z.shape)))
