"""Composites: which rule each layer gets, by kind of layer, position and name.

A composite hands ``api.py`` one rule a layer. The named ones follow zennit's meanings; ``deep_taylor`` is the
default of :func:`pylrp.relevance`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from numpy.typing import ArrayLike

from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, Rule, WSquare, ZBox, ZPlus

__all__ = ["COMPOSITES", "Composite", "composite"]


#: Kinds of layers with weights.
WEIGHTED = ("dense", "conv")


@dataclass(frozen=True)
class Composite:
    """A map from layers to rules.

    A layer's rule is, in this order: ``names[name]``; ``first`` where it is a first layer with weights; ``last``
    where it is a last one; ``kinds[kind]``; ``default``, or for layers without weights ``Norm()``.

    Parameters
    ----------
    name : str
        What it is called in tables.
    default : Rule
        For every kind of layer with weights that is not named.
    kinds : mapping of str to Rule
        By kind of layer: with weights ``"dense"`` and ``"conv"`` (transposed ones too); without ``"pool"`` (averages),
        ``"add"``, ``"batchnorm"`` (where it could not be folded, and other factors with a shift), ``"resize"``.
    first, last : Rule, optional
        For the layers with weights that no other such layer stands before, resp. behind. In a graph there may be
        several: one for each input, or for each branch that starts at it.
    names : mapping of str to Rule
        By name of a layer; in a plain list of weights the names are ``"0"``, ``"1"``, ...

    Examples
    --------
    >>> import pylrp
    >>> mine = pylrp.Composite("mine", pylrp.Epsilon(0.01), {"conv": pylrp.Gamma(0.1)}, first=pylrp.ZBox(-2.1, 2.6))
    """

    name: str
    default: Rule
    kinds: Mapping[str, Rule] = field(default_factory=dict)
    first: Rule | None = None
    last: Rule | None = None
    names: Mapping[str, Rule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise TypeError where something is no rule."""
        entries = {"default": self.default, "first": self.first, "last": self.last}
        entries = {what: rule for what, rule in entries.items() if rule is not None or what == "default"}
        for where in ("kinds", "names"):
            entries.update({f"{where}[{key!r}]": rule for key, rule in getattr(self, where).items()})
        for what, rule in entries.items():
            require_rule(rule, f"composite {self.name}: {what}")

    def assign(
        self,
        layers: Sequence[tuple[str, str]],
        first: Collection[str] | None = None,
        last: Collection[str] | None = None,
    ) -> list[Rule]:
        """Return one rule a layer.

        Parameters
        ----------
        layers : sequence of (name, kind)
            From input to output.
        first, last : collection of str, optional
            Names of the first and last layers with weights. Default: the one that stands first, last.

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
        weighted = [name for name, kind in layers if kind in WEIGHTED]
        first = weighted[:1] if first is None else first
        last = weighted[-1:] if last is None else last
        return [self._rule(name, kind, name in first, name in last) for name, kind in layers]

    def _rule(self, name: str, kind: str, is_first: bool, is_last: bool) -> Rule:
        if name in self.names:
            return self.names[name]
        if is_first and self.first is not None:
            return self.first
        if is_last and self.last is not None:
            return self.last
        return self.kinds.get(kind, self.default if kind in WEIGHTED else Norm())


def require_rule(rule: object, what: str) -> Rule:
    """Return a rule, or raise TypeError where it is none."""
    if isinstance(rule, Rule):
        return rule
    way_out = "pass an object such as pylrp.Epsilon()"
    if isinstance(rule, type) and issubclass(rule, Rule):
        way_out = f"write {rule.__name__}()"
    raise TypeError(f"{what} is not a rule: {rule!r}; {way_out}")


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
    return Composite("epsilon", Epsilon())


def _epsilon_plus() -> Composite:
    return Composite("epsilon_plus", Epsilon(), {"conv": ZPlus()})


def _epsilon_plus_flat() -> Composite:
    return Composite("epsilon_plus_flat", Epsilon(), {"conv": ZPlus()}, first=Flat())


def _epsilon_alpha2_beta1() -> Composite:
    return Composite("epsilon_alpha2_beta1", Epsilon(), {"conv": AlphaBeta(2, 1)})


def _epsilon_alpha2_beta1_flat() -> Composite:
    kinds = {"conv": AlphaBeta(2, 1)}
    return Composite("epsilon_alpha2_beta1_flat", Epsilon(), kinds, first=Flat())


def _epsilon_gamma_box(low: ArrayLike = 0.0, high: ArrayLike = 1.0) -> Composite:
    kinds = {"conv": Gamma(0.25)}
    return Composite("epsilon_gamma_box", Epsilon(), kinds, first=ZBox(low, high))


def _excitation_backprop() -> Composite:
    return Composite("excitation_backprop", ZPlus())


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
