"""The catalogue of rules: each is data, groups of terms that the compiled core evaluates.

The only place that knows rule names. ``conventions.py`` rewrites the groups into another library's;
``docs/adding-a-rule.md`` shows how to add one. Notation: ``a`` input, ``w`` weight (row = neuron of the next
layer), ``b`` bias, ``z`` denominator, ``R`` relevance; ``v+ = max(v, 0)``, ``v- = min(v, 0)``; ``stab(z) = z - eps``
where ``z < 0`` and ``z + eps`` elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.rules.terms import STABILIZER, BiasMap, Group, Rule, Term, require_at_least, require_number

__all__ = [
    "RULES",
    "AlphaBeta",
    "Epsilon",
    "Flat",
    "Gamma",
    "Group",
    "Norm",
    "Pass",
    "Rule",
    "Term",
    "WSquare",
    "ZBox",
    "ZPlus",
    "Zero",
]


def _use(bias: bool, mapped: BiasMap) -> BiasMap:
    return mapped if bias else None


@dataclass(frozen=True, repr=False)
class _Stabilized(Rule):
    stabilizer: float = field(default=STABILIZER, kw_only=True)

    def __post_init__(self) -> None:
        require_number(self, "stabilizer")
        require_at_least("stabilizer", self.stabilizer, 0)


@dataclass(frozen=True, repr=False)
class _Weighted(_Stabilized):
    bias: bool = field(default=True, kw_only=True)


@dataclass(frozen=True, repr=False)
class Epsilon(Rule):
    """Epsilon rule: ``R_i = sum_j a_i w_ji / stab(sum_k a_k w_jk + b_j) R_j``.

    Parameters
    ----------
    epsilon : float, default 1e-6
        Stabiliser, in units of ``z``. At least 0.
    bias : bool, default True
        Whether the bias stands in the denominator (it absorbs its share).

    Raises
    ------
    ValueError
        If ``epsilon`` is negative or not finite.

    References
    ----------
    Bach et al., PLOS ONE 10(7), 2015, eq. (58); Montavon et al. 2019 (LNCS 11700, ch. 10), section 10.2.1.
    """

    epsilon: float = STABILIZER
    bias: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        require_number(self, "epsilon")
        require_at_least("epsilon", self.epsilon, 0)

    def groups(self) -> tuple[Group, ...]:
        """Return one group: the input with the weights as they are."""
        return (Group((Term("input"),), _use(self.bias, (1, 1)), stabilizer=self.epsilon),)


@dataclass(frozen=True, repr=False)
class Zero(Rule):
    """LRP-0: :class:`Epsilon` without a stabiliser. Relevance of neurons with ``z = 0`` has no receiver.

    Parameters
    ----------
    bias : bool, default True
        Whether the bias stands in the denominator.

    References
    ----------
    Bach et al. 2015, eq. (56); Montavon et al. 2019, section 10.2.1.
    """

    bias: bool = field(default=True, kw_only=True)

    def groups(self) -> tuple[Group, ...]:
        """Return one group: the input with the weights as they are."""
        return (Group((Term("input"),), _use(self.bias, (1, 1)), stabilizer=0.0),)


@dataclass(frozen=True, repr=False)
class Norm(_Stabilized):
    """Relevance in proportion to the contributions to the output: the epsilon rule for layers without weights.

    On a dense layer it is :class:`Epsilon` with ``stabilizer`` for epsilon.

    Parameters
    ----------
    stabilizer : float, default 1e-6
    """

    stabilizer: float = STABILIZER  # the only number: without its name, too

    def groups(self) -> tuple[Group, ...]:
        """Return one group: the input with the weights as they are."""
        return (Group((Term("input"),), (1, 1), stabilizer=self.stabilizer),)


@dataclass(frozen=True, repr=False)
class ZPlus(_Weighted):
    """z+ rule: ``R_i = sum_j (a_i w_ji)+ / stab(sum_k (a_k w_jk)+ + b_j+) R_j``; alpha-beta with 1, 0.

    For ``a >= 0`` this is ``a_i w_ji+ / sum_k a_k w_jk+``.

    Parameters
    ----------
    stabilizer : float, default 1e-6
    bias : bool, default True
        Whether ``b+`` stands in the denominator.

    References
    ----------
    Montavon et al., Pattern Recognition 65, 2017, section 4.2 (z+ rule); Bach et al. 2015, eq. (60), alpha = 1.
    """

    stabilizer: float = STABILIZER  # the only number: without its name, too

    def groups(self) -> tuple[Group, ...]:
        """Return one group: positive input with positive weights, negative input with negative weights."""
        terms = (Term("positive", (1, 0)), Term("negative", (0, 1)))
        return (Group(terms, _use(self.bias, (1, 0)), stabilizer=self.stabilizer),)


@dataclass(frozen=True, repr=False)
class AlphaBeta(_Weighted):
    """Alpha-beta rule: ``R_i = sum_j (alpha (a_i w_ji)+ / z_j+ - beta (a_i w_ji)- / z_j-) R_j``.

    ``z+`` holds ``b+`` and ``z-`` holds ``b-``; both are stabilised.

    Parameters
    ----------
    alpha, beta : float, default 2 and 1
        ``alpha - beta = 1``, both at least 0.
    stabilizer : float, default 1e-6
    bias : bool, default True
        Whether the bias stands in the denominators.

    Raises
    ------
    ValueError
        If ``alpha - beta`` is not 1 or one of them is negative.

    References
    ----------
    Bach et al. 2015, eq. (60), with beta counted positive.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "beta"):
            require_number(self, name)
            require_at_least(name, getattr(self, name), 0)
        if abs(self.alpha - self.beta - 1) > 1e-9:
            raise ValueError(
                f"alpha - beta must be 1, got alpha={self.alpha:g}, beta={self.beta:g}: {self.alpha - self.beta:g}"
            )

    def groups(self) -> tuple[Group, ...]:
        """Return two groups: contributions above zero, and below zero."""
        above = (Term("positive", (1, 0)), Term("negative", (0, 1)))
        below = (Term("positive", (0, 1)), Term("negative", (1, 0)))
        up = Group(above, _use(self.bias, (1, 0)), self.alpha, stabilizer=self.stabilizer)
        down = Group(below, _use(self.bias, (0, 1)), -self.beta, stabilizer=self.stabilizer)
        return (up, down) if self.beta else (up,)


@dataclass(frozen=True, repr=False)
class Gamma(_Weighted):
    """Generalised gamma rule: contributions of the output's own sign count ``1 + gamma`` times.

    Where ``z = sum_k a_k w_jk + b_j > 0``: ``R_i = sum_j (c + gamma c+) / stab(sum (c + gamma c+) + b + gamma b+) R_j``
    with ``c = a_i w_ji``; where ``z < 0`` with ``c-`` and ``b-``; where ``z = 0`` nothing receives.

    Parameters
    ----------
    gamma : float, default 0.25
        At least 0; 0 is :class:`Epsilon`.
    stabilizer : float, default 1e-6
    bias : bool, default True
        Whether the bias stands in the denominators.

    References
    ----------
    Montavon et al. 2019, section 10.2.1 (LRP-gamma); the generalised form: Andeol et al., arXiv:2106.04923.
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(self, "gamma")
        require_at_least("gamma", self.gamma, 0)

    def groups(self) -> tuple[Group, ...]:
        """Return two groups: outputs above zero favour positive contributions, outputs below zero negative ones."""
        g = 1 + self.gamma
        above = (Term("positive", (g, 1)), Term("negative", (1, g)))
        below = (Term("positive", (1, g)), Term("negative", (g, 1)))
        return (
            Group(above, _use(self.bias, (g, 1)), mask="positive", stabilizer=self.stabilizer),
            Group(below, _use(self.bias, (1, g)), mask="negative", stabilizer=self.stabilizer),
        )


@dataclass(frozen=True, repr=False)
class WSquare(_Weighted):
    """w² rule: ``R_i = sum_j w_ji^2 / stab(sum_k w_jk^2 + b_j^2) R_j``. Does not look at the input.

    Parameters
    ----------
    stabilizer : float, default 1e-6
    bias : bool, default True
        Whether ``b^2`` stands in the denominator.

    References
    ----------
    Montavon et al. 2017, section 4.1, for unbounded input.
    """

    stabilizer: float = STABILIZER  # the only number: without its name, too

    def groups(self) -> tuple[Group, ...]:
        """Return one group: ones with the squared weights."""
        return (Group((Term("one", "square"),), _use(self.bias, "square"), stabilizer=self.stabilizer),)


@dataclass(frozen=True, repr=False)
class Flat(_Stabilized):
    """Flat rule: ``R_i = sum_j R_j / n``, equal shares for the ``n`` inputs of a neuron. No bias.

    Parameters
    ----------
    stabilizer : float, default 1e-6

    References
    ----------
    Lapuschkin et al., Nature Communications 10:1096, 2019; Kohlbrenner et al., IJCNN 2020.
    """

    stabilizer: float = STABILIZER  # the only number: without its name, too

    def groups(self) -> tuple[Group, ...]:
        """Return one group: ones with ones for weights."""
        return (Group((Term("one", "one"),), stabilizer=self.stabilizer),)


@dataclass(frozen=True, repr=False, eq=False)
class ZBox(_Stabilized):
    """z-box rule for inputs within ``[low, high]``, pixels for example.

    ``R_i = sum_j c_ji / stab(sum_k c_jk) R_j`` with ``c_ji = a_i w_ji - low_i w_ji+ - high_i w_ji-``.

    Parameters
    ----------
    low, high : float or array_like
        Bounds, one number or an array of the input's shape (without batch). ``low <= high``.
    stabilizer : float, default 1e-6

    Raises
    ------
    ValueError
        If ``low > high`` somewhere, or a bound is not finite.

    References
    ----------
    Montavon et al. 2017, section 4.3 (z^B rule).
    """

    low: Any
    high: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        arrays = []
        for name in ("low", "high"):
            array = np.array(getattr(self, name), dtype=np.float64)
            if not np.isfinite(array).all():
                raise ValueError(f"z-box: {name} must be finite, got {getattr(self, name)!r}")
            array.setflags(write=False)
            arrays.append(array)
            object.__setattr__(self, name, float(array) if array.ndim == 0 else array)
        low, high = arrays
        try:
            wrong = np.argwhere(low > high)
        except ValueError:
            raise ValueError(f"z-box: low has shape {low.shape}, high has shape {high.shape}") from None
        if len(wrong):
            where = f" at index {tuple(map(int, wrong[0]))}" if wrong.shape[1] else ""
            raise ValueError(f"z-box: low must not be above high{where}, got low={self.low}, high={self.high}")

    def _key(self) -> tuple[Any, ...]:
        bounds = tuple((np.shape(v), np.asarray(v).tobytes()) for v in (self.low, self.high))
        return (*bounds, float(self.stabilizer))

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, ZBox) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def bounds(self) -> tuple[ArrayLike, ArrayLike]:
        """Return ``(low, high)``."""
        return self.low, self.high

    def groups(self) -> tuple[Group, ...]:
        """Return one group: the input, less the lowest and the highest it could have contributed."""
        terms = (Term("input"), Term("low", (1, 0), -1), Term("high", (0, 1), -1))
        return (Group(terms, stabilizer=self.stabilizer),)


@dataclass(frozen=True, repr=False)
class Pass(Rule):
    """Relevance passes through unchanged: ``R_i = R_i``. For layers whose input and output have the same width."""

    passes: ClassVar[bool] = True

    def groups(self) -> tuple[Group, ...]:
        """Return nothing: there is no denominator."""
        return ()


#: Every rule of the catalogue.
RULES: tuple[type[Rule], ...] = (Zero, Epsilon, Gamma, ZPlus, AlphaBeta, WSquare, Flat, ZBox, Norm, Pass)


def broadcast_bounds(
    rule: Rule, shape: Sequence[int], dtype: np.dtype[Any], where: str
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return a rule's bounds as flat arrays for inputs of ``shape``, or None where it has none."""
    bounds = rule.bounds()
    if bounds is None:
        return None
    made = []
    for name, bound in zip(("low", "high"), bounds, strict=True):
        try:
            full = np.broadcast_to(np.asarray(bound, dtype=dtype), tuple(shape))
        except ValueError:
            raise ValueError(
                f"{where}: {name} of {rule} has shape {np.shape(bound)}, an input of the layer has shape {tuple(shape)}"
            ) from None
        made.append(np.ascontiguousarray(full).reshape(-1))
    return made[0], made[1]
