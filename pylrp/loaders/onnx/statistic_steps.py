"""What the steps of a normalisation compute, in float64: sums over axes, roots, arithmetic.

``onnx/normalisations.py`` runs parts of a graph by these functions, which read a node's settings as loaders do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from pylrp.loaders.onnx.node import Call

__all__ = ["COMPUTED", "REDUCTIONS", "Foreign", "values_of"]

Floats = NDArray[np.float64]


class Foreign(Exception):
    """The value depends on something else, or on an operator that no normalisation has."""


def _reduced(how: Callable[..., Floats]) -> Callable[..., Floats]:
    def run(call: Call, x: Floats) -> Floats:
        axes = call.integers("axes", 1)
        if not axes:
            raise Foreign
        return np.asarray(how(x, axis=tuple(axes), keepdims=bool(call.attribute("keepdims", 1))))

    return run


def _clip(call: Call, x: Floats, *_: Floats) -> Floats:
    low, high = call.setting("min", 1, -np.inf), call.setting("max", 2, np.inf)
    return np.clip(x, -np.inf if low is None else low, np.inf if high is None else high)


def _axes(call: Call) -> tuple[int, ...]:
    return tuple(call.integers("axes", 1) or ())


def _unsqueeze(call: Call, x: Floats) -> Floats:
    return np.expand_dims(x, _axes(call))


def _squeeze(call: Call, x: Floats) -> Floats:
    if not _axes(call):
        raise Foreign
    return np.squeeze(x, _axes(call))


def _reshape(call: Call, x: Floats) -> Floats:
    """Axes of length 1 come and go; anything else is another grouping."""
    sizes: list[int | None] = call.numbers(1)
    first, wanted = sizes[0], sizes[1:]
    if first != -1 and first != 0 and not call.is_batch(first):
        raise Foreign
    if None in wanted:
        raise Foreign
    zeros = call.attribute("allowzero", 0)
    made = x.reshape(len(x), *(x.shape[at] if n == 0 and not zeros else n for at, n in enumerate(wanted, 1)))
    own, others = (tuple(n for n in array.shape[1:] if n != 1) for array in (x, made))
    if own != others:
        raise Foreign
    return made


def _plain(how: Callable[..., Any]) -> Callable[..., Floats]:
    return lambda _, *xs: np.asarray(how(*xs))


def _l2(x: Floats, **along: Any) -> Floats:
    return np.asarray(np.sqrt(np.sum(x * x, **along)))


#: Sums over axes.
REDUCTIONS: dict[str, Callable[..., Floats]] = {
    "ReduceL1": _reduced(lambda x, **along: np.sum(np.abs(x), **along)),
    "ReduceL2": _reduced(_l2),
    "ReduceMean": _reduced(np.mean),
    "ReduceSum": _reduced(np.sum),
    "ReduceSumSquare": _reduced(lambda x, **along: np.sum(x * x, **along)),
}
#: By operator, what it computes of its node's settings and the values that it takes.
COMPUTED: dict[str, Callable[..., Floats]] = {
    **REDUCTIONS,
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "Cast": _plain(lambda x: x),
    "CastLike": _plain(lambda x, _: x),
    "Clip": _clip,
    "Div": _plain(np.divide),
    "Identity": _plain(lambda x: x),
    "Max": _plain(lambda *xs: _folded(np.maximum, xs)),
    "Min": _plain(lambda *xs: _folded(np.minimum, xs)),
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Pow": _plain(np.power),
    "Reciprocal": _plain(np.reciprocal),
    "Reshape": _reshape,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(np.subtract),
    "Sum": _plain(lambda *xs: _folded(np.add, xs)),
    "Unsqueeze": _unsqueeze,
}
#: Inputs that are settings, which the functions above read themselves.
_SETTINGS = {*REDUCTIONS, "Clip", "Reshape", "Squeeze", "Unsqueeze", "Expand"}


def _folded(how: Callable[[Floats, Floats], Floats], xs: tuple[Floats, ...]) -> Floats:
    total = xs[0]
    for x in xs[1:]:
        total = how(total, x)
    return total


def values_of(node: NodeProto) -> list[str]:
    """Return the inputs of a node that are values."""
    return [name for name in (node.input[:1] if node.op_type in _SETTINGS else node.input) if name]
