"""Composites: which rule each layer gets, by kind of layer, position and name.

A composite hands ``api.py`` one rule a layer. The named ones follow zennit's meanings; ``deep_taylor`` is the
default of :func:`pylrp.relevance`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from numpy.typing import ArrayLike

from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, Rule, WSquare, ZBox, ZPlus

__all__ = ["COMPOSITES", "Composite", "composite"]


@dataclass(frozen=True)
class Composite:
    """A map from layers to rules.

    A layer's rule is, in this order: ``names[name]``; ``first`` where it is the first layer with weights; ``last``
    where it is the last one; ``kinds[kind]``; ``default``.

    Parameters
    ----------
    name : str
        What it is called in tables.
    default : Rule
        For every kind of layer that is not named.
    kinds : mapping of str to Rule
        By kind of layer: ``"dense"``, ``"conv"``, ``"pool"``.
    first, last : Rule, optional
        For the first and the last layer with weights (seen from the input).
    names : mapping of str to Rule
        By name of a layer; in a plain list of weights the names are ``"0"``, ``"1"``, ...
    """

    name: str
    default: Rule
    kinds: Mapping[str, Rule] = field(default_factory=dict)
    first: Rule | None = None
    last: Rule | None = None
    names: Mapping[str, Rule] = field(default_factory=dict)

    def assign(self, layers: Sequence[tuple[str, str]]) -> list[Rule]:
        """Return one rule a layer; ``layers`` are (name, kind) from input to output.

        Raises
        ------
        ValueError
            If ``names`` holds a name that no layer has.
        """
        unknown = set(self.names) - {name for name, _ in layers}
        if unknown:
            raise ValueError(
                f"composite {self.name}: no layer is called {', '.join(sorted(unknown))}; "
                f"there are {', '.join(name for name, _ in layers)}"
            )
        rules = []
        for i, (name, kind) in enumerate(layers):
            if name in self.names:
                rule = self.names[name]
            elif i == 0 and self.first is not None:
                rule = self.first
            elif i == len(layers) - 1 and self.last is not None:
                rule = self.last
            else:
                rule = self.kinds.get(kind, self.default)
            rules.append(rule)
        return rules


def spread(rules: object, names: Sequence[str]) -> list[Rule] | None:
    """Return one rule for each dense layer where ``rules`` is a rule, a composite or its name; else None."""
    if isinstance(rules, Rule):
        return [rules] * len(names)
    if isinstance(rules, str):
        rules = composite(rules)
    if isinstance(rules, Composite):
        return rules.assign([(name, "dense") for name in names])
    return None


def _deep_taylor() -> Composite:
    # The two equations of Montavon et al. 2017 to the letter: nothing is added to the denominators.
    return Composite("deep_taylor", ZPlus(stabilizer=0), first=WSquare(stabilizer=0))


def _deep_taylor_box(low: ArrayLike = 0.0, high: ArrayLike = 1.0) -> Composite:
    return Composite("deep_taylor_box", ZPlus(stabilizer=0), first=ZBox(low, high, stabilizer=0))


def _epsilon() -> Composite:
    return Composite("epsilon", Epsilon(), {"pool": Norm()})


def _epsilon_plus() -> Composite:
    return Composite("epsilon_plus", Epsilon(), {"conv": ZPlus(), "pool": Norm()})


def _epsilon_plus_flat() -> Composite:
    return Composite("epsilon_plus_flat", Epsilon(), {"conv": ZPlus(), "pool": Norm()}, first=Flat())


def _epsilon_alpha2_beta1() -> Composite:
    return Composite("epsilon_alpha2_beta1", Epsilon(), {"conv": AlphaBeta(2, 1), "pool": Norm()})


def _epsilon_alpha2_beta1_flat() -> Composite:
    kinds = {"conv": AlphaBeta(2, 1), "pool": Norm()}
    return Composite("epsilon_alpha2_beta1_flat", Epsilon(), kinds, first=Flat())


def _epsilon_gamma_box(low: ArrayLike = 0.0, high: ArrayLike = 1.0) -> Composite:
    kinds = {"conv": Gamma(0.25), "pool": Norm()}
    return Composite("epsilon_gamma_box", Epsilon(), kinds, first=ZBox(low, high))


def _excitation_backprop() -> Composite:
    return Composite("excitation_backprop", ZPlus(), {"pool": Norm()})


#: Name -> function that makes the composite; those with a box take ``low`` and ``high`` (default 0 and 1).
COMPOSITES: dict[str, Callable[..., Composite]] = {
    "deep_taylor": _deep_taylor,
    "deep_taylor_box": _deep_taylor_box,
    "epsilon": _epsilon,
    "epsilon_plus": _epsilon_plus,
    "epsilon_plus_flat": _epsilon_plus_flat,
    "epsilon_alpha2_beta1": _epsilon_alpha2_beta1,
    "epsilon_alpha2_beta1_flat": _epsilon_alpha2_beta1_flat,
    "epsilon_gamma_box": _epsilon_gamma_box,
    "excitation_backprop": _excitation_backprop,
}


def composite(name: str, **bounds: ArrayLike) -> Composite:
    """Return a composite by name.

    Parameters
    ----------
    name : str
        One of :data:`COMPOSITES`.
    **bounds
        ``low`` and ``high`` for the composites with a box.

    Raises
    ------
    ValueError
        If there is no composite of that name.
    TypeError
        If the composite takes no bounds.
    """
    if name not in COMPOSITES:
        raise ValueError(f"unknown composite {name!r}; choose one of {', '.join(COMPOSITES)}")
    return COMPOSITES[name](**bounds)
