"""A rule as data: groups of terms, which the compiled core evaluates. ``catalogue.py`` writes the rules with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "STABILIZER",
    "BiasMap",
    "Group",
    "Guard",
    "Rule",
    "Term",
    "is_default",
    "require_at_least",
    "require_number",
]


Part = Literal["input", "positive", "negative", "one", "low", "high"]
WeightMap = tuple[float, float] | Literal["square", "one"]


BiasMap = tuple[float, float] | Literal["square"] | None
Mask = Literal["all", "positive", "negative"]
Guard = Literal["signed", "where_zero"]


class _Default(float):
    """A default value that a convention may replace; otherwise the number it is."""


#: The stabiliser that is used where none is given (zennit's).
STABILIZER = _Default(1e-6)


@dataclass(frozen=True)
class Term:
    """``sign * rho(W) x``: what one part of the input contributes.

    Parameters
    ----------
    part : {"input", "positive", "negative", "one", "low", "high"}
        ``x``: the input, its positive or negative part, ones, or a z-box's bounds.
    weight : (float, float) or "square" or "one"
        ``rho(W)``: ``(p, n)`` is ``p * W+ + n * W-``.
    sign : float
        Factor of the whole term.
    """

    part: Part
    weight: WeightMap = (1.0, 1.0)
    sign: float = 1.0

    def __post_init__(self) -> None:
        require_finite_map("weight", self.weight)
        require_finite_map("sign", (self.sign,))


@dataclass(frozen=True)
class Group:
    """Terms that share one denominator: ``s = coefficient * mask * R / stab(z)``.

    Parameters
    ----------
    terms : tuple of Term
    bias : (float, float) or "square" or None
        What of the bias stands in the denominator: ``(p, n)`` is ``p * b+ + n * b-``.
    coefficient : float
    mask : {"all", "positive", "negative"}
        Serve only outputs whose plain ``W a + b`` has this sign.
    stabilizer : float
        ``eps``, at least 0. With 0 a neuron with ``z = 0`` has no receiver.
    guard : {"signed", "where_zero"}
        ``z < 0 ? z - eps : z + eps``, or ``z == 0 ? eps : z``.
    """

    terms: tuple[Term, ...]
    bias: BiasMap = None
    coefficient: float = 1.0
    mask: Mask = "all"
    stabilizer: float = STABILIZER
    guard: Guard = "signed"

    def __post_init__(self) -> None:
        require_finite_map("bias", self.bias)
        require_finite_map("coefficient", (self.coefficient,))
        require_at_least("stabilizer", self.stabilizer, 0)


class Rule:
    """Base of all rules. A rule of your own: a frozen dataclass with :meth:`groups`."""

    #: True: relevance passes through unchanged, there are no groups.
    passes: ClassVar[bool] = False

    def groups(self) -> tuple[Group, ...]:
        """Return the rule as data: its groups of terms."""
        raise NotImplementedError

    def bounds(self) -> tuple[ArrayLike, ArrayLike] | None:
        """Return ``(low, high)`` where the rule reads them."""
        return None

    def __repr__(self) -> str:
        values = [(f, getattr(self, f.name)) for f in fields(self)]  # type: ignore[arg-type]  # all are dataclasses
        plain = [f.name for f, _ in values if not f.kw_only and f.name != "stabilizer"]
        shown = [_shown(value) for f, value in values if f.name in plain]
        shown += [
            f"{f.name}={_shown(value)}"
            for f, value in values
            if f.name not in plain and not (is_default(value) or value is f.default)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{int(value)}" if value.is_integer() and abs(value) < 1e15 else repr(float(value))
    return repr(value.tolist() if isinstance(value, np.ndarray) else value)


def require_finite_map(name: str, value: object) -> None:
    """Refuse factors that are NaN or infinite; maps that have none, "square" for example, are left alone."""
    if isinstance(value, tuple) and not all(map(math.isfinite, value)):
        raise ValueError(f"{name} must be finite, got {value!r}")


def require_at_least(name: str, value: float, least: float) -> None:
    """Raise ValueError unless a number is finite and at least ``least``."""
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"{name} must be finite and at least {least:g}, got {value!r}")


def require_number(rule: Rule, name: str) -> None:
    """Make a rule's parameter a float, or raise TypeError; a default stays marked as one."""
    value = getattr(rule, name)
    if isinstance(value, _Default):
        return
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise TypeError(f"{type(rule).__name__}: {name} must be a number, got {type(value).__name__}")
    object.__setattr__(rule, name, float(value))


def is_default(value: float) -> bool:
    """Tell whether a stabiliser or epsilon was left at its default."""
    return isinstance(value, _Default)
