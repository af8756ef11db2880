"""Rules as they are typed, ``conv*=Gamma(0.5)``: parsed as data, never evaluated, in front of a composite's own."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from pylrp.network.network import Network
from pylrp.rules.catalogue import RULES
from pylrp.rules.choice import rule_kinds
from pylrp.rules.composites import WEIGHTED, Composite
from pylrp.rules.terms import Rule

__all__ = ["override", "parse_rule", "split_rule"]

_BY_NAME = {rule.__name__: rule for rule in RULES}


def parse_rule(text: str) -> Rule:
    """Return the rule that a text such as ``Gamma(0.5)``, ``Epsilon(epsilon=0.1, bias=False)`` or ``ZPlus`` names.

    Raises
    ------
    ValueError
        If it is no rule of the catalogue, or its values are not numbers, lists of them, True or False.

    Examples
    --------
    >>> parse_rule("Gamma(0.5)"), parse_rule("ZPlus")
    (Gamma(0.5), ZPlus())
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(f"{text!r} is no rule: write it as Gamma(0.5) or ZPlus") from None
    call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
    if not isinstance(call.func, ast.Name):
        raise ValueError(f"{text!r} is no rule: write it as Gamma(0.5) or ZPlus")
    name = call.func.id
    if name not in _BY_NAME:
        lower = {known.lower(): known for known in _BY_NAME}
        near = difflib.get_close_matches(name.lower(), lower, 1)
        hint = f" (do you mean {lower[near[0]]}?)" if near else ""
        raise ValueError(f"there is no rule {name!r}{hint}; there are {', '.join(_BY_NAME)}")
    try:
        values = [ast.literal_eval(value) for value in call.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords if k.arg is not None}
        if len(named) != len(call.keywords):
            raise ValueError
    except (ValueError, TypeError, SyntaxError, RecursionError):
        raise ValueError(f"{text!r}: a rule's values are numbers, lists of numbers, True or False") from None
    return _made(_BY_NAME[name], values, named, text)


def _made(rule: Any, values: list[Any], named: dict[str, Any], text: str) -> Rule:
    try:
        inspect.signature(rule).bind(*values, **named)
    except TypeError:
        fields = [f.name for f in dataclasses.fields(rule)]
        raise ValueError(f"{text!r}: it takes {', '.join(fields) or 'no values'}") from None
    try:
        made: Rule = rule(*values, **named)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text!r}: {error}") from None
    return made


def split_rule(text: str) -> tuple[str, Rule]:
    """Return the pattern and the rule of ``LAYER=RULE``."""
    layer, equals, rule = text.partition("=")
    if not equals or not layer.strip():
        raise ValueError(f"--rule {text!r}: write LAYER=RULE, as in conv1=Gamma(0.5)")
    try:
        return layer.strip(), parse_rule(rule)
    except ValueError as error:
        raise ValueError(f"--rule {error}") from None


def override(base: Composite, texts: Sequence[str], network: Network) -> Composite:
    """Return a composite with rules by layer in front of its own.

    A layer's full name finds any layer that takes a rule; a pattern with ``*``, ``?`` or ``[ ]`` finds layers with
    weights.

    Raises
    ------
    ValueError
        If no layer has such a name.
    """
    able = rule_kinds(network.graph)
    found = dict(base.names)
    for text in texts:
        pattern, rule = split_rule(text)
        if pattern in able:
            matches = [pattern]
        elif pattern in network.graph.shapes and pattern not in network.graph.inputs:
            raise ValueError(f"--rule {text}: layer {pattern} takes no rule, relevance passes through it")
        else:
            matches = [name for name, kind in able.items() if kind in WEIGHTED and fnmatchcase(name, pattern)]
        if not matches:
            near = difflib.get_close_matches(pattern, able, 1)
            hint = f", do you mean {near[0]}?" if near else f"; there are {_some(list(able))}"
            raise ValueError(f"--rule {text}: no layer with a rule is called {pattern}{hint}")
        found.update(dict.fromkeys(matches, rule))
    name = base.name + "".join(f", {text}" for text in texts)
    return dataclasses.replace(base, name=name, names=found)


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
