"""The rules of layers with weights as formulas of their own, in the coefficient form ``R = a c``.

Written from the papers, not from the groups of terms that the core evaluates. With the sums of what speaks for and
against an output, ``P = sum_i (w_i a_i)+`` and ``N = sum_i (w_i a_i)-``, every rule for hidden layers hands down
``c_i = w_i q+`` where ``w_i a_i > 0`` and ``w_i q-`` where it is below 0; rules differ in the two quotients. Rules that
don't look at the input (flat, w²) or look at its bounds (z-box) hand down relevance itself, in part or all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pylrp.verify.linear import Linear
from pylrp.verify.program import Array

__all__ = ["Share", "Unit", "name_of", "quotient", "weighted"]


@dataclass(frozen=True)
class Share:
    """Relevance of a value ``a``: ``R = a c + r``.

    Attributes
    ----------
    c : ndarray or float
        Coefficients, relevance a unit of the value.
    r : ndarray or float
        What is no multiple of the value.
    """

    c: Any = 0.0
    r: Any = 0.0

    def __add__(self, other: Share) -> Share:
        return Share(self.c + other.c, self.r + other.r)

    def of(self, value: Array) -> Array:
        """Return the relevance; an infinite value without a coefficient has none."""
        c = np.broadcast_to(self.c, value.shape)
        return np.asarray(np.where(c == 0, 0.0, np.where(c == 0, 0.0, value) * c) + self.r)


@dataclass(frozen=True)
class Unit:
    """A step with weights in its place, with the scalings that are folded into it.

    Attributes
    ----------
    linear : Linear
    a : ndarray
        Its input; without the shift of a scaling that is folded into the weights.
    value : ndarray
        ``W a + b``.
    scale, shift : ndarray or float
        Of a scaling of its output: ``z = scale * (W a + b) + shift``.
    bias : ndarray or float
        With what the shift of a scaling of its input makes.
    input_scale : ndarray or float
        The factor of that scaling.
    present : ndarray or float
        0 where the input is padding, else 1.
    """

    linear: Linear
    a: Array
    value: Array
    scale: Any = 1.0
    shift: Any = 0.0
    bias: Any = 0.0
    input_scale: Any = 1.0
    present: Any = 1.0

    @property
    def total_bias(self) -> Any:
        """Return the bias of the layer as it stands."""
        return self.scale * self.bias + self.shift

    def plain(self) -> Array:
        """Return the output."""
        return np.asarray(self.scale * self.value + self.shift)

    def halves(self) -> tuple[Array, Array]:
        """Return the sums of the input's positive and of its negative contributions, which make the output together."""
        times = self.linear.times
        plus = times(np.maximum(self.linear.weight, 0), np.maximum(self.a, 0))
        if (self.a < 0).any():
            plus = plus + times(np.minimum(self.linear.weight, 0), np.minimum(self.a, 0))
        minus = self.value - self.bias - plus
        kept = np.broadcast_to(self.scale, plus.shape) >= 0
        return self.scale * np.where(kept, plus, minus), self.scale * np.where(kept, minus, plus)

    def back(self, plus: Array, minus: Array) -> Array:
        """Return the coefficients for quotients of positive and of negative contributions."""
        back, weight = self.linear.back, self.linear.weight
        if plus is minus:
            return back(weight, self.scale * plus)
        kept = np.broadcast_to(self.scale, plus.shape) >= 0
        of_plus, of_minus = self.scale * np.where(kept, plus, minus), self.scale * np.where(kept, minus, plus)
        up, down = np.maximum(weight, 0), np.minimum(weight, 0)

        def both(first: Array, second: Array) -> Any:
            parts = [back(w, q) for w, q in ((first, of_plus), (second, of_minus)) if np.any(q)]
            return sum(parts[1:], start=parts[0]) if parts else 0.0

        below = both(down, up) if (self.a < 0).any() else 0.0
        return np.where(self.a > 0, both(up, down), np.where(self.a < 0, below, 0.0))


def name_of(rule: object) -> str:
    """Return what a rule is called here: its class in lower case, or a text as it is."""
    return rule.lower() if isinstance(rule, str) else type(rule).__name__.lower()


def parameter(rule: object, name: str, default: Any) -> Any:
    """Return a rule's parameter."""
    return getattr(rule, name, default)


def quotient(share: Share, z: Array, epsilon: float) -> Array:
    """Return ``R / (z + sign(z) epsilon)`` with ``R = c z + r``; 0 where the denominator is."""
    if epsilon == 0 and np.ndim(share.r) == 0 and share.r == 0:
        return np.where(z == 0, 0.0, share.c)  # no division
    return divided(share.of(z), z, epsilon)


def divided(relevance: Array, z: Array, epsilon: float) -> Array:
    """Return ``R / (z + sign(z) epsilon)``, sign(0) being 1; 0 where the denominator is."""
    below = np.where(z < 0, z - epsilon, z + epsilon)
    return np.divide(relevance, below, out=np.zeros(np.broadcast_shapes(relevance.shape, z.shape)), where=below != 0)


def weighted(rule: object, unit: Unit, share: Share, z: Array) -> Share:
    """Return what a layer with weights hands to its input under a rule.

    Parameters
    ----------
    rule : object
        A rule of pylrp's, of which the class's name and the parameters are read, or a name.
    unit : Unit
    share : Share
        Of the output.
    z : ndarray
        The output.

    Raises
    ------
    ValueError
        If there is no formula for the rule.
    """
    name = name_of(rule)
    stab = float(parameter(rule, "stabilizer", 1e-6))
    biased = bool(parameter(rule, "bias", True))
    bias = unit.total_bias if biased else 0.0
    if name == "pass":
        return Share(0.0, share.of(z))
    if name in ("zero", "epsilon", "norm"):
        epsilon = {"zero": 0.0, "epsilon": float(parameter(rule, "epsilon", 1e-6)), "norm": stab}[name]
        q = quotient(share, z, epsilon) if biased else divided(share.of(z), z - unit.total_bias, epsilon)
        return Share(unit.back(q, q))
    if name in ("zplus", "alphabeta"):
        alpha, beta = (1.0, 0.0) if name == "zplus" else (float(parameter(rule, "alpha", 2)), float(rule_beta(rule)))
        plus, minus = unit.halves()
        relevance = share.of(z)
        up = alpha * divided(relevance, plus + np.maximum(bias, 0), stab)
        down = -beta * divided(relevance, minus + np.minimum(bias, 0), stab) if beta else np.zeros_like(up)
        return Share(unit.back(up, down))
    if name == "gamma":
        return Share(_gamma(unit, share, z, float(parameter(rule, "gamma", 0.25)), bias, stab))
    if name in ("flat", "wsquare"):
        return _constant(name == "flat", unit, share.of(z), biased, stab)
    if name == "zbox":
        return _box(unit, share.of(z), z, rule, stab)
    raise ValueError(f"there is no formula for the rule {rule!r} of a layer with weights: it can't be verified")


def rule_beta(rule: object) -> float:
    """Return beta of an alpha-beta rule."""
    return float(parameter(rule, "beta", 1))


def _gamma(unit: Unit, share: Share, z: Array, gamma: float, bias: Any, stab: float) -> Array:
    """Return coefficients of the generalised gamma rule, by sums and magnitudes.

    With ``u = P + N + b`` and ``v = P - N + |b|`` the denominator is ``(1 + g / 2) u + (g / 2) sign(z) v``.
    """
    plus, minus = unit.halves()
    sign = np.sign(z)
    below = (1 + gamma / 2) * (plus + minus + bias) + gamma / 2 * sign * (plus - minus + np.abs(bias))
    q = np.where(sign == 0, 0.0, divided(share.of(z), below, stab))
    return unit.back(q * (1 + gamma * (sign > 0)), q * (1 + gamma * (sign < 0)))


def _constant(flat: bool, unit: Unit, relevance: Array, biased: bool, stab: float) -> Share:
    """Return flat's and w²'s relevance: by ones, or by squared weights."""
    ones = np.broadcast_to(unit.present, unit.a.shape).astype(np.float64)
    if flat:
        bias: Any = 0.0
        factor: Any = 1.0
        weight, each = np.ones_like(unit.linear.weight), ones
    else:
        weight, factor, each = unit.linear.weight**2, np.asarray(unit.scale) ** 2, ones * unit.input_scale**2
        bias = unit.total_bias**2 if biased else 0.0
    below = factor * unit.linear.times(weight, each) + bias
    return Share(0.0, each * unit.linear.back(weight, factor * divided(relevance, below, stab)))


def _box(unit: Unit, relevance: Array, z: Array, rule: object, stab: float) -> Share:
    """Return the z-box rule's: ``(a w - low w+ - high w-) q``."""
    low, high = (bound_of(parameter(rule, side, 0.0), unit.a.shape) * unit.present for side in ("low", "high"))
    times, back = unit.linear.times, unit.linear.back
    up, down = np.maximum(unit.linear.weight, 0), np.minimum(unit.linear.weight, 0)
    kept = np.broadcast_to(unit.scale, z.shape) >= 0
    least = np.where(kept, times(up, low) + times(down, high), times(down, low) + times(up, high))
    q = unit.scale * divided(relevance, z - unit.total_bias - unit.scale * least, stab)
    of_up, of_down = (
        back(up, np.where(kept, q, 0)) + back(down, np.where(kept, 0, q)),
        back(down, np.where(kept, q, 0)) + back(up, np.where(kept, 0, q)),
    )
    return Share(back(unit.linear.weight, q), -low * of_up - high * of_down)


def bound_of(bound: Any, shape: tuple[int, ...]) -> Array:
    """Return a bound for inputs of a shape: a number, one a channel, or all of a sample's."""
    array = np.asarray(bound, np.float64)
    if array.ndim == 1 and len(shape) > 2 and array.size == shape[1]:
        array = array.reshape(-1, *(1,) * (len(shape) - 2))
    return np.broadcast_to(array, shape)
