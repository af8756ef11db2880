"""Other libraries' numerics: rewrites a rule's groups into what zennit, captum, iNNvestigate or the toolbox compute.

``docs/conventions.md`` has the differences and the probes. Hands compiled rules on to ``api.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from pylrp import _core
from pylrp.errors import MissingRule
from pylrp.present.text import nearest
from pylrp.rules.catalogue import AlphaBeta, Epsilon, Flat, Gamma, Norm, Pass, WSquare, ZBox, Zero, ZPlus
from pylrp.rules.terms import Group, Guard, Rule, Term, is_default
from pylrp.rules.treatments import Spread, Treatment

__all__ = ["CONVENTIONS"]

Groups = tuple[Group, ...]


def _zennit(rule: Rule) -> Groups:
    return rule.groups()


def _settle(groups: Groups, default: float, guard: Guard = "signed") -> Groups:
    """Replace stabilisers that were left at their default."""
    return tuple(replace(g, stabilizer=default, guard=guard) if is_default(g.stabilizer) else g for g in groups)


def _without_bias(groups: Groups) -> Groups:
    return tuple(replace(g, bias=None) for g in groups)


def _missing(library: str, rule: Rule, has: str) -> MissingRule:
    return MissingRule(library, repr(rule), type(rule).__name__, has)


def _captum(rule: Rule) -> Groups:
    """captum 0.9: 1e-9, no split of the input by sign, gamma leaves the bias alone, alpha-beta only as 1, 0."""
    groups = _settle(rule.groups(), 1e-9)
    if isinstance(rule, Zero):
        return tuple(replace(g, stabilizer=1e-9) for g in groups)
    if isinstance(rule, (Epsilon, Norm, Pass)):
        return groups
    bias = (1.0, 1.0) if getattr(rule, "bias", True) else None
    if isinstance(rule, Gamma):
        return (Group((Term("input", (1 + rule.gamma, 1.0)),), bias, stabilizer=groups[0].stabilizer),)
    if isinstance(rule, ZPlus) or (isinstance(rule, AlphaBeta) and rule.beta == 0):
        return (Group((Term("input", (1.0, 0.0)),), bias, stabilizer=groups[0].stabilizer),)
    raise _missing("captum", rule, "Epsilon, Gamma, AlphaBeta(1, 0), ZPlus and Pass")


def _innvestigate(rule: Rule) -> Groups:
    """iNNvestigate 2.1: 1e-7 where z == 0 (added to z only in epsilon), the whole bias in both alpha-beta groups."""
    groups = rule.groups()
    if isinstance(rule, Epsilon):
        return _settle(groups, 1e-7)
    if isinstance(rule, Zero):
        return tuple(replace(g, stabilizer=1e-7, guard="where_zero") for g in groups)
    groups = _settle(groups, 1e-7, "where_zero")
    if isinstance(rule, (ZPlus, AlphaBeta)):
        return tuple(replace(g, bias=(1.0, 1.0)) for g in groups) if rule.bias else groups
    if isinstance(rule, (WSquare, Flat, ZBox)):
        return _without_bias(groups)
    if isinstance(rule, (Norm, Pass)):
        return groups
    raise _missing("innvestigate", rule, "every rule but Gamma")


def _lrp_toolbox(rule: Rule) -> Groups:
    """lrp_toolbox, Python: epsilon 1.0 by default, 1e-16 in LRP-0, nothing added in alpha-beta, w² and flat."""
    groups = rule.groups()
    if isinstance(rule, Epsilon):
        return _settle(groups, 1.0)
    if isinstance(rule, Zero):
        return tuple(replace(g, stabilizer=1e-16) for g in groups)
    if isinstance(rule, Norm):
        return _settle(groups, 1e-12)
    groups = _settle(groups, 0.0)
    if isinstance(rule, (WSquare, Flat)):
        return _without_bias(groups)
    if isinstance(rule, (ZPlus, AlphaBeta, Pass)):
        return groups
    raise _missing("lrp_toolbox", rule, "every rule but Gamma and ZBox")


def _lxt(rule: Rule) -> Groups:
    """LXT 2.1, its efficient form: the gradient of a network with constants, so nothing is added to a denominator.

    Its gamma, for vision transformers, is zennit's.
    """
    return _settle(rule.groups(), 0.0)


def _arras(rule: Rule) -> Groups:
    """LRP_for_LSTM (Arras et al. 2017): 0.001 in every denominator, with the sign of the sum; nothing but epsilon."""
    if isinstance(rule, (Epsilon, Norm)):
        return _settle(rule.groups(), 1e-3)
    if isinstance(rule, (Zero, Pass)):
        return rule.groups()
    raise _missing("arras", rule, "Epsilon and Zero")


#: Name of a convention -> what it makes of a rule.
CONVENTIONS: dict[str, Callable[[Rule], Groups]] = {
    "zennit": _zennit,
    "captum": _captum,
    "innvestigate": _innvestigate,
    "lrp_toolbox": _lrp_toolbox,
    "lxt": _lxt,
    "arras": _arras,
}


def compile_rule(rule: Rule, convention: str) -> _core.Rule:
    """Return the compiled form of a rule under a convention; made once for equal rules."""
    if convention not in CONVENTIONS:
        meant = nearest(convention, CONVENTIONS)
        raise ValueError(f"unknown convention {convention!r}{meant}; choose one of {', '.join(CONVENTIONS)}")
    # Epsilon() equals Epsilon(1e-6), but a convention may replace only the first one's number.
    return _compile(rule, convention, is_default(getattr(rule, "stabilizer", getattr(rule, "epsilon", 0.0))))


@lru_cache(maxsize=64)
def compile_treatment(name: str) -> _core.Rule:
    """Return the rule that calls a layer's own formula by its name in the core; one object for one name."""
    return _core.Rule([], name)


@lru_cache(maxsize=1024)
def _compile(rule: Rule, convention: str, defaulted: bool) -> _core.Rule:
    if isinstance(rule, Spread):
        return _core.Rule(
            [([("input", (1.0, 1.0), 1.0)], (1.0, 1.0), 1.0, "all", "signed", rule.epsilon)], rule.treatment
        )
    if isinstance(rule, Treatment):  # the layer has the formula, the same in every convention
        return compile_treatment(rule.treatment)
    groups = CONVENTIONS[convention](rule)
    if not groups and not rule.passes:
        raise ValueError(f"{rule} has no groups; a rule that passes relevance through says passes = True")
    return _core.Rule(
        [
            (
                [(t.part, t.weight, t.sign) for t in g.terms],
                g.bias,
                g.coefficient,
                g.mask,
                g.guard,
                float(g.stabilizer),
            )
            for g in groups
        ]
    )
