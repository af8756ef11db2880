"""Functions of one value at a time, and the few that look at a whole axis.

Relevance passes through functions unchanged unless a composite says otherwise; a softmax inside a network has rules of
its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from pylrp.layers.base import NamedLayer, Place, Shape, Spec, sole
from pylrp.layers.cause import Cause
from pylrp.network.layout import Order, steps, to_core

__all__ = [
    "CONSTANT",
    "ELU",
    "GELU",
    "Activation",
    "Clip",
    "Dropout",
    "Exp",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyReLU",
    "Log",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]


#: What f(0) takes, and constants that are added.
CONSTANT = Cause(
    "constant",
    label="constants",
    legend="absorbed by constants",
    stayed="in fixed numbers: what the network adds, and what its functions give for zero",
    help="Share of constants that are added; of f(0), where a function is explained by its contributions; of a mean "
    "that counts as a constant.",
    colour="#f0e442",
    page_colours=("#a08a00", "#f0e442"),
)
_SOFTMAX = Cause(
    "softmax",
    label="softmax",
    legend="absorbed by softmax",
    stayed="in softmax functions",
    help="Kept by a softmax: all under ``Stop()``, under ``Taylor()`` the constant of the expansion.",
    colour="#999999",
    page_colours=("#4b6fa5", "#8fb0e0"),
)


@dataclass(frozen=True)
class Activation(NamedLayer):
    """Base of the functions that the core knows by name."""

    rule_kind: ClassVar[str | None] = "function"
    causes: ClassVar[tuple[Cause, ...]] = (CONSTANT,)
    any_order: ClassVar[bool] = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the input."""
        return sole(self, shapes)

    def at_zero(self) -> float:
        """Return f(0); NaN or infinite where it is none."""
        return 0.0

    def core(self) -> tuple[str, float, float]:
        """Return what the core takes: the function's name and two parameters, 0 where there are fewer."""
        a, b, *_ = [*(float(getattr(self, f.name)) for f in fields(self) if f.name != "name"), 0.0, 0.0]
        return self.kind, a, b

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        kind, a, b = self.core()
        return kind, {"a": a, "b": b}


@dataclass(frozen=True)
class Identity(Activation):
    """``f(x) = x``."""

    kind: ClassVar[str] = "identity"


@dataclass(frozen=True)
class Dropout(Identity):
    """``f(x) = x``: a trained network drops nothing."""


@dataclass(frozen=True)
class ReLU(Activation):
    """``f(x) = max(x, 0)``."""

    kind: ClassVar[str] = "relu"


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """``f(x) = x`` where ``x >= 0``, else ``slope * x``."""

    slope: float = 0.01
    kind: ClassVar[str] = "leaky_relu"


@dataclass(frozen=True)
class ELU(Activation):
    """``f(x) = x`` where ``x >= 0``, else ``alpha * (exp(x) - 1)``."""

    alpha: float = 1.0
    kind: ClassVar[str] = "elu"


@dataclass(frozen=True)
class Clip(Activation):
    """``f(x) = min(max(x, low), high)``; a bound may be infinite."""

    low: float = -math.inf
    high: float = math.inf
    kind: ClassVar[str] = "clip"
    unbounded: ClassVar[tuple[str, ...]] = ("low", "high")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low <= self.high:
            raise ValueError(f"low is {self.low}, high is {self.high}: low must not lie above high")

    def at_zero(self) -> float:
        """Return f(0)."""
        return min(max(0.0, float(self.low)), float(self.high))


def ReLU6(*, name: str | None = None) -> Clip:
    """Return ``Clip(0, 6)``."""
    return Clip(0.0, 6.0, name=name)


@dataclass(frozen=True)
class GELU(Activation):
    """``f(x) = x * Phi(x)``; ``approximate``: with tanh, as in torch's ``approximate="tanh"``."""

    approximate: bool = False
    kind: ClassVar[str] = "gelu"

    def core(self) -> tuple[str, float, float]:
        """Return what the core takes: the function's name and two parameters."""
        return ("gelu_tanh" if self.approximate else "gelu"), 0.0, 0.0


@dataclass(frozen=True)
class SiLU(Activation):
    """``f(x) = x / (1 + exp(-x))``."""

    kind: ClassVar[str] = "silu"


@dataclass(frozen=True)
class HardSwish(Activation):
    """``f(x) = x * min(max(x + 3, 0), 6) / 6``."""

    kind: ClassVar[str] = "hard_swish"


@dataclass(frozen=True)
class Mish(Activation):
    """``f(x) = x * tanh(log(1 + exp(x)))``."""

    kind: ClassVar[str] = "mish"


@dataclass(frozen=True)
class Tanh(Activation):
    """``f(x) = tanh(x)``."""

    kind: ClassVar[str] = "tanh"


@dataclass(frozen=True)
class Sigmoid(Activation):
    """``f(x) = 1 / (1 + exp(-x))``."""

    kind: ClassVar[str] = "sigmoid"

    def at_zero(self) -> float:
        """Return f(0)."""
        return 0.5


@dataclass(frozen=True)
class HardSigmoid(Activation):
    """``f(x) = min(max(alpha * x + beta, 0), 1)``; torch and Keras use 1/6, ONNX's default is 0.2."""

    alpha: float = 1 / 6
    beta: float = 0.5
    kind: ClassVar[str] = "hard_sigmoid"

    def at_zero(self) -> float:
        """Return f(0)."""
        return min(max(float(self.beta), 0.0), 1.0)


@dataclass(frozen=True)
class Softplus(Activation):
    """``f(x) = log(1 + exp(x))``."""

    kind: ClassVar[str] = "softplus"

    def at_zero(self) -> float:
        """Return f(0)."""
        return math.log(2)


@dataclass(frozen=True)
class Exp(Activation):
    """``f(x) = exp(x)``."""

    kind: ClassVar[str] = "exp"

    def at_zero(self) -> float:
        """Return f(0)."""
        return 1.0


@dataclass(frozen=True)
class Log(Activation):
    """``f(x) = log(x)``; it has no value at 0, so that inside a network relevance can only pass through it."""

    kind: ClassVar[str] = "log"

    def at_zero(self) -> float:
        """Return f(0)."""
        return -math.inf


@dataclass(frozen=True, eq=False)
class PReLU(NamedLayer):
    """``f(x) = x`` where ``x >= 0``, else ``slope * x``.

    Parameters
    ----------
    slope : float or array_like of shape (C,)
        One for all, or one for each channel (axis 0 of the logical shape).
    """

    slope: ArrayLike
    kind: ClassVar[str] = "prelu"
    rule_kind: ClassVar[str | None] = "function"
    causes: ClassVar[tuple[Cause, ...]] = (CONSTANT,)
    arrays: ClassVar[tuple[str, ...]] = ("slope",)

    def at_zero(self) -> float:
        """Return f(0)."""
        return 0.0

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the input."""
        shape = sole(self, shapes)
        slopes = np.shape(self.slope)
        if slopes not in ((), (1,)) and slopes != shape[:1]:
            raise ValueError(f"slope has shape {slopes}, the input {shape} has {shape[0]} channels")
        return shape

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: one slope, one a channel, or one an entry."""
        shape, slope = place.inputs[0], np.asarray(self.slope)
        if slope.size not in (1, shape[0]) or slope.ndim > 1:
            slope = to_core(np.broadcast_to(slope, shape))
        return "prelu", {"slope": np.ascontiguousarray(slope, dtype=place.dtype).reshape(-1)}


@dataclass(frozen=True)
class Softmax(NamedLayer):
    """``f(x) = exp(x) / sum(exp(x))`` along an axis of the logical shape."""

    axis: int = 0
    kind: ClassVar[str] = "softmax"
    rule_kind: ClassVar[str | None] = "softmax"
    causes: ClassVar[tuple[Cause, ...]] = (_SOFTMAX,)
    any_order: ClassVar[bool] = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the input."""
        shape = sole(self, shapes)
        if not -len(shape) <= self.axis < len(shape):
            raise ValueError(f"axis is {self.axis}, the input has shape {shape} (without the batch)")
        return shape

    def wanted_orders(self, shapes: Sequence[Shape], output: Shape, wanted: Order | None) -> Sequence[Order | None]:
        """Return the order that the readers want, or one that has the axis last."""
        axis = self.axis % len(output)
        return [(*(a for a in range(len(output)) if a != axis), axis) if wanted is None else wanted]

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        shape = place.inputs[0]
        axis = self.axis % len(shape)
        return "softmax", {
            "channels": shape[axis],
            "inner": steps(shape, place.order)[axis],
            "logarithm": isinstance(self, LogSoftmax),
        }


@dataclass(frozen=True)
class LogSoftmax(Softmax):
    """``f(x) = x - log(sum(exp(x)))`` along an axis of the logical shape."""

    kind: ClassVar[str] = "log_softmax"
    rule_kind: ClassVar[str | None] = None
    only_at_top: ClassVar[bool] = True
