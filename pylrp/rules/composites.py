"""Composites: which rule each layer gets, by kind of layer, position and name.

A composite hands ``api.py`` and ``assignment.py`` one rule a layer. The named ones follow zennit's meanings, see
``docs/rules.md``; ``deep_taylor`` is the default of :func:`pylrp.relevance`, ``defaults.py`` has that of networks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from numpy.typing import ArrayLike

from pylrp.present.text import nearest
from pylrp.rules.by_kind import ByKind
from pylrp.rules.catalogue import AlphaBeta, Epsilon, Flat, Gamma, Pass, WSquare, ZBox, Zero, ZPlus
from pylrp.rules.terms import Rule
from pylrp.rules.treatments import Detach, Gradient, Half, Stop, Taylor, Value
from pylrp.rules.weightless import LAST_FOR_PATTERNS, WEIGHTLESS

__all__ = ["COMPOSITES", "TRANSFORMERS", "Composite", "composite", "either", "rule_called"]


#: Kinds of layers with weights.
WEIGHTED = ("dense", "conv")


@dataclass(frozen=True)
class Composite:
    """A map from layers to rules.

    A layer's rule is, in this order: ``names[name]``; the first pattern of ``names`` that fits; ``first`` where it is a
    first layer with weights; ``last`` where it is a last one; ``kinds[kind]``; ``default``, or for layers without
    weights what their kind gets: ``Norm()`` for sums and averages, ``Pass()`` for functions and scalings.

    Parameters
    ----------
    name : str
        What it is called in tables.
    default : Rule
        For every kind of layer with weights that is not named.
    kinds : mapping of str to Rule
        By kind of layer: with weights ``"dense"`` (products with a matrix, along an axis of the input too) and
        ``"conv"`` (convolutions with kernels of any size, 1 too, and transposed ones); without ``"pool"`` (averages),
        ``"add"``, ``"batchnorm"`` (where it could not be folded, and other factors with a shift), ``"scaling"`` (the
        same with no layer with weights below), ``"resize"``, ``"function"`` (activations), ``"softmax"`` (inside a
        network), ``"normalisation"``, ``"recurrent"``; :data:`pylrp.rules.WEIGHTLESS` has the rules that fit each.
    first, last : Rule or mapping of str to Rule, optional
        For the layers with weights that no other such layer stands before, or behind; a mapping from ``"dense"``
        and ``"conv"`` for those of that kind only. In a graph there may be several first layers: one for each input,
        or for each branch that starts at it.
    names : mapping of str to Rule
        By name of a layer, or by pattern as in Python's ``fnmatch`` (``"conv*"``, ``"layer[12].*"``), upper and lower
        case told apart. A pattern is for layers with weights, and where it fits none of them for the others. In a plain
        list of weights the names are ``"0"``, ``"1"``, ...

    Raises
    ------
    TypeError
        If something is no rule.
    ValueError
        If there is no such kind of layer, or in use no layer that a name is for.

    Examples
    --------
    >>> import pylrp
    >>> mine = pylrp.Composite("mine", pylrp.Epsilon(0.01), {"conv": pylrp.Gamma(0.1)}, first=pylrp.ZBox(-2.1, 2.6))
    >>> pylrp.Composite("mine", pylrp.Epsilon(), first={"conv": pylrp.Flat()}).first
    {'conv': Flat()}
    """

    name: str
    default: Rule
    kinds: Mapping[str, Rule] = field(default_factory=dict)
    first: Rule | Mapping[str, Rule] | None = None
    last: Rule | Mapping[str, Rule] | None = None
    names: Mapping[str, Rule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise where something is no rule or no kind; keep mappings as they are now."""
        for where in ("kinds", "first", "last", "names"):
            given = getattr(self, where)
            if isinstance(given, Mapping):
                object.__setattr__(self, where, ByKind(given))
        for what, rule in self.entries().items():
            require_rule(rule, f"composite {self.name}: {what}")
        for where, known in (("kinds", (*WEIGHTED, *WEIGHTLESS)), ("first", WEIGHTED), ("last", WEIGHTED)):
            given = getattr(self, where)
            unknown = sorted(set(map(str, given)) - set(known)) if isinstance(given, Mapping) else []
            if unknown:
                raise ValueError(
                    f"composite {self.name}: {where} names the kind {unknown[0]!r}{nearest(unknown[0], known)}; "
                    f"there are {', '.join(known)}"
                )

    def entries(self) -> dict[str, Rule]:
        """Return every rule it may give, by where it stands: ``"default"``, ``"first"``, ``"kinds['conv']"``, ..."""
        found: dict[str, Rule] = {"default": self.default}
        for where in ("kinds", "first", "last", "names"):
            given = getattr(self, where)
            if isinstance(given, Mapping):
                found.update({f"{where}[{key!r}]": rule for key, rule in given.items()})
            elif given is not None:
                found[where] = given
        return found

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
            If ``names`` holds a name that no layer has, or a pattern that fits none.
        """
        named = self.named(layers)
        weighted = [name for name, kind in layers if kind in WEIGHTED]
        first = weighted[:1] if first is None else first
        last = weighted[-1:] if last is None else last
        return [named.get(name) or self._rule(kind, name in first, name in last) for name, kind in layers]

    def named(self, layers: Sequence[tuple[str, str]]) -> dict[str, Rule]:
        """Return the rules of the layers that ``names`` is for, by the layers' own names.

        Parameters
        ----------
        layers : sequence of (name, kind)

        Raises
        ------
        ValueError
            If ``names`` holds a name that no layer has, or a pattern that fits none.
        """
        known = [name for name, _ in layers]
        found = {name: rule for name, rule in self.names.items() if name in known}
        weighted = [name for name, kind in layers if kind in WEIGHTED]
        sharing = [name for name, kind in layers if kind not in WEIGHTED and kind not in LAST_FOR_PATTERNS]
        for pattern, rule in self.names.items():
            if pattern in known:
                continue
            fits = [name for name in weighted if fnmatchcase(name, pattern)]
            fits = fits or [name for name in sharing if fnmatchcase(name, pattern)]
            fits = fits or [name for name in known if fnmatchcase(name, pattern)]
            if not fits:
                usual = [name for name in known if name in (*weighted, *sharing)] or known
                raise ValueError(
                    f"composite {self.name}: no layer is called {pattern}{nearest(pattern, known)}; "
                    f"there are {', '.join(usual)}"
                )
            for name in fits:
                found.setdefault(name, rule)
        return found

    def _rule(self, kind: str, is_first: bool, is_last: bool) -> Rule:
        ends = ((is_first, self.first), (is_last, self.last)) if kind in WEIGHTED else ()
        for here, given in ends:
            rule = given.get(kind) if isinstance(given, Mapping) else given
            if here and rule is not None:
                return rule
        return self.kinds.get(kind) or (self.default if kind in WEIGHTED else WEIGHTLESS[kind].default)


def require_rule(rule: object, what: str) -> Rule:
    """Return a rule, or raise TypeError where it is none."""
    if isinstance(rule, Rule):
        return rule
    way_out = "pass an object such as pylrp.Epsilon()"
    if isinstance(rule, type) and issubclass(rule, Rule):
        way_out = f"write {rule.__name__}()"
    raise TypeError(f"{what} is not a rule: {rule!r}; {way_out}")


def either(composite: Any, rules: Any) -> Any:
    """Return what was given as ``composite=`` or ``rules=``, which mean the same; None where neither was.

    Raises
    ------
    ValueError
        If both were.
    """
    if composite is not None and rules is not None:
        raise ValueError("give composite or rules, not both: they mean the same")
    return rules if composite is None else composite


def assign_to_dense(rules: object, names: Sequence[str]) -> list[Rule] | None:
    """Return one rule for each dense layer where ``rules`` is a rule, a composite or its name; else None.

    Raises
    ------
    ValueError
        If a rule with bounds reaches no layer.
    """
    if isinstance(rules, Rule):
        return [rules] * len(names)
    if isinstance(rules, str):
        rules = composite(rules)
    if isinstance(rules, Composite):
        given = rules.assign([(name, "dense") for name in names])
        for what, rule in rules.entries().items():
            if rule.bounds() is not None and rule not in given:
                raise ValueError(
                    f"composite {rules.name}: no layer gets {rule}, which is {what}: all layers are dense. For a box "
                    f"at the input write rules=pylrp.Composite(..., first={rule})"
                )
        return given
    return None


def unbiased_name(rules: object) -> str:
    """Return the name of a composite that uses no biases by its name; of anything else nothing."""
    name = rules.name if isinstance(rules, Composite) else rules
    return name if isinstance(name, str) and name in ("deep_taylor", "deep_taylor_box") else ""


#: As in zennit: relevance passes through every function, whatever its value at 0.
_PASSING: Mapping[str, Rule] = {"function": Pass()}


def _taylor(name: str, first: Rule) -> Composite:
    # The equations of Montavon et al. 2017 to the letter: nothing is added to the denominators, no biases either. A
    # scaling without its shift hands all relevance on.
    return Composite(name, ZPlus(0, bias=False), {"batchnorm": Pass(), **_PASSING}, first=first)


def _deep_taylor() -> Composite:
    return _taylor("deep_taylor", WSquare(0, bias=False))


def _deep_taylor_box(low: ArrayLike = 0.0, high: ArrayLike = 1.0) -> Composite:
    return _taylor("deep_taylor_box", ZBox(low, high, stabilizer=0))


def _epsilon() -> Composite:
    return Composite("epsilon", Epsilon(), _PASSING)


def _epsilon_plus() -> Composite:
    return Composite("epsilon_plus", Epsilon(), {"conv": ZPlus(), **_PASSING})


def _epsilon_plus_flat() -> Composite:
    return Composite("epsilon_plus_flat", Epsilon(), {"conv": ZPlus(), **_PASSING}, first=Flat())


def _epsilon_alpha2_beta1() -> Composite:
    return Composite("epsilon_alpha2_beta1", Epsilon(), {"conv": AlphaBeta(2, 1), **_PASSING})


def _epsilon_alpha2_beta1_flat() -> Composite:
    kinds = {"conv": AlphaBeta(2, 1), **_PASSING}
    return Composite("epsilon_alpha2_beta1_flat", Epsilon(), kinds, first=Flat())


def _epsilon_gamma_box(low: ArrayLike = 0.0, high: ArrayLike = 1.0) -> Composite:
    kinds = {"conv": Gamma(0.25), **_PASSING}
    return Composite("epsilon_gamma_box", Epsilon(), kinds, first={"conv": ZBox(low, high)})


def _excitation_backprop() -> Composite:
    return Composite("excitation_backprop", ZPlus(), _PASSING)


#: Layers without weights of transformers: nothing is added to a denominator, a normalisation's scale is a constant.
_EXACT: Mapping[str, Rule] = {
    **dict.fromkeys(("add", "batchnorm", "pool", "resize"), Zero()),
    "normalisation": Detach(),
}


def _attnlrp() -> Composite:
    return Composite("attnlrp", Zero(), {**_EXACT, "softmax": Taylor(), "matmul": Half(), "product": Half()})


def _cp_lrp() -> Composite:
    return Composite("cp_lrp", Zero(), {**_EXACT, "softmax": Stop(), "matmul": Value()})


def _attnlrp_gamma(
    conv: float = 0.25, linear: float = 0.25, low: ArrayLike | None = None, high: ArrayLike | None = None
) -> Composite:
    if (low is None) != (high is None):
        raise ValueError("attnlrp_gamma takes low and high together: the bounds of the pixels")
    first = Flat(stabilizer=0) if low is None or high is None else ZBox(low, high, stabilizer=0)
    kinds = {**_EXACT, "softmax": Stop(), "matmul": Value(), "conv": Gamma(conv, stabilizer=0)}
    return Composite("attnlrp_gamma", Gamma(linear, stabilizer=0), kinds, first={"conv": first})


def _gradient() -> Composite:
    kinds = dict.fromkeys(("function", "normalisation", "matmul", "product"), Gradient())
    return Composite("gradient", Zero(), {**_EXACT, "scaling": Zero(), "softmax": Taylor(), **kinds})


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
    "attnlrp": _attnlrp,
    "cp_lrp": _cp_lrp,
    "attnlrp_gamma": _attnlrp_gamma,
}
#: Known by name, too, and no LRP: to compare maps with.
_OTHERS: dict[str, Callable[..., Composite]] = {"gradient": _gradient}
#: Those made for networks with attention: their epsilon is 0, which deep convolutional networks do not bear.
TRANSFORMERS = ("attnlrp", "cp_lrp", "attnlrp_gamma")


def composite(name: str, **settings: Any) -> Composite:
    """Return a composite by name.

    Parameters
    ----------
    name : str
        One of :data:`COMPOSITES`; or ``"gradient"``, gradient times input, which is no LRP, to compare maps with.
    **settings
        ``low`` and ``high`` for the composites with a box; ``conv`` and ``linear``, the gammas of ``attnlrp_gamma``.

    Raises
    ------
    ValueError
        If there is no composite of that name.
    TypeError
        If the composite takes no such setting.
    """
    known = COMPOSITES | _OTHERS
    if name not in known:
        raise ValueError(
            f"unknown composite {name!r}{_meant(name)}; choose one of {', '.join(COMPOSITES)}, or pass a rule, "
            "such as pylrp.ZPlus()"
        )
    return known[name](**settings)


def _meant(name: object) -> str:
    rule = rule_called(name)
    return f" (do you mean the rule pylrp.{rule}?)" if rule else nearest(name, COMPOSITES)


def rule_called(name: object) -> str | None:
    """Return the call that makes the rule with this name or symbol: "ZPlus()" for "z+"; None if there is none."""
    return _RULES.get("".join(c for c in str(name).lower() if c not in " -_^").replace("²", "2"))


#: Rules by what they are called in writing, without spaces, hyphens and carets.
_RULES = {
    name: rule
    for rule, names in {
        "ZPlus()": "z+ zplus alpha1beta0 α1β0",
        "AlphaBeta(2, 1)": "alphabeta alpha2beta1 αβ α2β1",
        "WSquare()": "w2 wsquare wsquared",
        "ZBox(low, high)": "zb zbox",
        "Zero()": "zero lrp0 0",
        "Epsilon()": "ε lrpepsilon lrpε",
        "Gamma(0.25)": "gamma γ lrpgamma lrpγ",
        "Flat()": "flat",
        "Norm()": "norm",
        "Pass()": "pass",
    }.items()
    for name in names.split()
}
