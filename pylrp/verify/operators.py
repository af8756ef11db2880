"""Operator -> the function that computes it, ``f(step, *inputs)``: the tables of the other files, joined.

``program.py`` runs them one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pylrp.verify import pooling
from pylrp.verify.attention import attention, rotary
from pylrp.verify.elementwise import FUNCTIONS, JOINED
from pylrp.verify.helpers import dequantised
from pylrp.verify.linear import WEIGHTED, einsum_terms, linear_of
from pylrp.verify.moving import MOVES, SIZES
from pylrp.verify.program import Array, Step
from pylrp.verify.recurrent import RECURRENT, recurrent

__all__ = ["FORWARD"]


def _weighted(step: Step, *given: Array | None) -> Array:
    if step.op == "MatMul":
        a, b = given
        assert a is not None
        assert b is not None
        return np.asarray(np.matmul(a, b))
    if step.op == "Einsum":
        terms, result = einsum_terms(step)
        return np.asarray(
            np.einsum(f"{','.join(terms)}->{result}", *[a for a in given if a is not None], optimize=True)
        )
    linear = linear_of(step, given)
    x = given[0]
    assert x is not None
    return np.asarray(linear.times(linear.weight, x) + linear.bias)


def _batch_norm(step: Step, x: Array, *given: Array) -> Array:
    factor, shift = pooling.batch_norm(step, x, *given)
    return x * factor + shift


def _max_pool(step: Step, x: Array) -> Array:
    return np.asarray(x.reshape(-1)[pooling.largest(step, x)])


def _normalised(step: Step, x: Array, *given: Array | None) -> Array:
    return pooling.statistics(step, x, *given).applied(x)


FORWARD: dict[str, Callable[..., Any]] = {
    **FUNCTIONS,
    **JOINED,
    **MOVES,
    **SIZES,
    **dict.fromkeys(WEIGHTED, _weighted),
    **dict.fromkeys(pooling.REDUCTIONS, pooling.reduced),
    **dict.fromkeys(pooling.NORMALISATIONS, _normalised),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool"), pooling.average),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool"), _max_pool),
    **dict.fromkeys(("Softmax", "LogSoftmax"), pooling.softmax),
    **dict.fromkeys(RECURRENT, recurrent),
    "Attention": attention,
    "BatchNormalization": _batch_norm,
    "DequantizeLinear": dequantised,
    "CumSum": lambda step, x, axis: pooling.cumulated(step, x, axis, reverse=bool(step.get("reverse", 0))),
    "LRN": lambda step, x: x / pooling.local_response(step, x),
    "RotaryEmbedding": rotary,
    "LpNormalization": lambda step, x: x / pooling.lp_norm(step, x),
}
