"""Layers as plain values: what a :class:`pylrp.Network` is built from.

A dense layer holds its arrays; an activation is a name with at most one parameter. Relevance passes through
activations unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from numpy.typing import ArrayLike

__all__ = [
    "ELU",
    "GELU",
    "Activation",
    "Dense",
    "HardSwish",
    "Identity",
    "Layer",
    "LeakyReLU",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
]


class Layer:
    """Base of all layers."""


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Layer):
    """``z = W a + b``.

    Parameters
    ----------
    weight : array_like of shape (n_out, n_in)
        A row holds the weights of one neuron. float32 or float64.
    bias : array_like of shape (n_out,), optional
    name : str, optional
        Default: its position among the dense layers, "0", "1", ...
    """

    weight: ArrayLike
    bias: ArrayLike | None = None
    name: str | None = None

    def __repr__(self) -> str:
        shape = getattr(self.weight, "shape", "?")
        return f"Dense({shape}{', bias' if self.bias is not None else ''})"


@dataclass(frozen=True)
class Activation(Layer):
    """Base of the activation functions."""

    #: The core's name of the function.
    kind: ClassVar[str]

    def core(self) -> tuple[str, float]:
        """Return what the core takes: the function's name and its parameter."""
        values = [float(getattr(self, f.name)) for f in fields(self)]
        return self.kind, values[0] if values else 0.0


@dataclass(frozen=True)
class Identity(Activation):
    """``f(x) = x``."""

    kind: ClassVar[str] = "identity"


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
class GELU(Activation):
    """``f(x) = x * Phi(x)``; ``approximate``: with tanh, as in torch's ``approximate="tanh"``."""

    approximate: bool = False

    def core(self) -> tuple[str, float]:
        """Return what the core takes: the function's name and its parameter."""
        return ("gelu_tanh" if self.approximate else "gelu"), 0.0


@dataclass(frozen=True)
class SiLU(Activation):
    """``f(x) = x / (1 + exp(-x))``."""

    kind: ClassVar[str] = "silu"


@dataclass(frozen=True)
class HardSwish(Activation):
    """``f(x) = x * min(max(x + 3, 0), 6) / 6``."""

    kind: ClassVar[str] = "hard_swish"


@dataclass(frozen=True)
class Tanh(Activation):
    """``f(x) = tanh(x)``."""

    kind: ClassVar[str] = "tanh"


@dataclass(frozen=True)
class Sigmoid(Activation):
    """``f(x) = 1 / (1 + exp(-x))``."""

    kind: ClassVar[str] = "sigmoid"


@dataclass(frozen=True)
class Softplus(Activation):
    """``f(x) = log(1 + exp(x))``."""

    kind: ClassVar[str] = "softplus"
