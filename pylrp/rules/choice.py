"""Which rule a composite, a rule or a list of rules gives each node of a graph: by kind, name and place.

``composites.py`` decides about one network's list of layers. ``assignment.py`` checks the choice and makes of it what
the core takes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pylrp.errors import MisplacedBox
from pylrp.network.attention import probabilities
from pylrp.network.canonise.top import stands_at_top
from pylrp.network.graph import Graph, Node
from pylrp.rules.catalogue import Zero
from pylrp.rules.composites import WEIGHTED, Composite, composite, require_rule
from pylrp.rules.terms import Rule
from pylrp.rules.treatments import Half, Value
from pylrp.rules.weightless import WEIGHTLESS

__all__ = ["choose", "chosen_and_named", "ends", "rule_kinds"]


def rule_kinds(graph: Graph) -> dict[str, str]:
    """Return the kind by which a composite finds a node's rule, for each node that takes one.

    A scaling (BatchNorm, Affine) that no layer with weights stands below is of kind "scaling". A softmax at the top
    takes none: what is explained is its argument, or relevance passes from the probability to it.
    """
    kinds: dict[str, str] = {}
    sides = graph.facts.sides
    # Values with a layer with weights at or below them; a table of words is one.
    behind: set[str] = set() if sides is None else set(sides.feeds)
    for node in graph.nodes:
        kind = node.layer.rule_kind
        after = any(value in behind for value in node.inputs)
        if node.layer.weighted or after:
            behind.add(node.name)
        if kind is not None and not (kind == "softmax" and stands_at_top(graph, node)):
            kinds[node.name] = "scaling" if kind == "batchnorm" and not after else kind
    return kinds


def choose(graph: Graph, rules: str | Composite | Rule | Sequence[Rule]) -> dict[str, Rule]:
    """Return the rule of each node that takes one, by its name."""
    return chosen_and_named(graph, rules)[0]


def chosen_and_named(
    graph: Graph, rules: str | Composite | Rule | Sequence[Rule]
) -> tuple[dict[str, Rule], Collection[str]]:
    """Return the rule of each node that takes one, and the nodes whose rule was given to them alone."""
    layers = list(rule_kinds(graph).items())
    if isinstance(rules, str):
        rules = composite(rules)
    if isinstance(rules, Rule):
        rules = Composite(repr(rules), rules)
    if isinstance(rules, Composite):
        first, last = ends(graph)
        if not graph.output_values.keys().isdisjoint(rules.names):  # an output's name for the layer that makes it
            rules = replace(rules, names={graph.value(name): rule for name, rule in rules.names.items()})
        chosen = dict(zip([name for name, _ in layers], rules.assign(layers, first, last), strict=True))
        _by_contributions(graph, layers, chosen, rules)
        _require_boxes_used(rules, chosen)
        named = rules.named(layers)
        return {name: _of_product(graph, name, rule, named) for name, rule in chosen.items()}, named
    given = _listed(rules)
    weighted = [name for name, kind in layers if kind in WEIGHTED]
    if len(given) != len(weighted):
        dense = (
            "dense layers"
            if all(kind == "dense" for name, kind in layers if name in weighted)
            else "layers with weights"
        )
        raise ValueError(f"the network has {len(weighted)} {dense}, composite has {len(given)} rules")
    by_name = dict(zip(weighted, given, strict=True))
    chosen = {name: by_name[name] if kind in WEIGHTED else WEIGHTLESS[kind].default for name, kind in layers}
    _by_contributions(graph, layers, chosen, given)
    return chosen, weighted


def _of_product(graph: Graph, name: str, rule: Rule, named: Collection[str]) -> Rule:
    """Return a rule by kind as it is for one product: without probabilities for a factor, Value() means Half()."""
    if not isinstance(rule, Value) or name in named:
        return rule
    node = next(node for node in graph.nodes if node.name == name)
    return Half() if node.layer.rule_kind == "matmul" and probabilities(graph, node) is None else rule


def _by_contributions(graph: Graph, layers: Sequence[tuple[str, str]], chosen: dict[str, Rule], given: Any) -> None:
    """Explain functions with f(0) != 0 by their contributions where the choice says nothing about functions."""
    if isinstance(given, Composite) and "function" in given.kinds:
        return
    named = given.named(layers) if isinstance(given, Composite) else {}
    kinds = dict(layers)
    for node in graph.nodes:
        if kinds.get(node.name) == "function" and node.name not in named and not stands_at_top(graph, node):
            layer: Any = node.layer
            if np.any(layer.at_zero() != 0):
                chosen[node.name] = Zero()


def _listed(rules: object) -> list[Rule]:
    if not isinstance(rules, Sequence):
        return [require_rule(rules, "composite")]
    return [require_rule(rule, f"composite[{position}]") for position, rule in enumerate(rules)]


def _require_boxes_used(given: Composite, chosen: Mapping[str, Rule]) -> None:
    for where, rule in given.entries().items():
        if where != "default" and rule.bounds() is not None and rule not in chosen.values():
            raise MisplacedBox(
                None,
                repr(rule),
                f"{rule} of composite {given.name} reaches no layer of this network",
                "choose a composite without a box, or give the box by name: Composite(..., names={layer: ZBox(...)})",
            )


def ends(graph: Graph) -> tuple[set[str], set[str]]:
    """Return the names of the layers with weights that come first, and of those that come last."""

    def without_predecessor(nodes: Sequence[Node], sources: dict[str, Sequence[str]]) -> set[str]:
        ends: set[str] = set()
        behind: set[str] = set()  # nodes with a layer with weights at or before them
        for node in nodes:
            after = any(value in behind for value in sources[node.name])
            weighted = node.layer.weighted
            if weighted and not after:
                ends.add(node.name)
            if weighted or after:
                behind.add(node.name)
        return ends

    readers: dict[str, list[str]] = {node.name: [] for node in graph.nodes}
    for node in graph.nodes:
        for value in node.inputs:
            if value in readers:
                readers[value].append(node.name)
    first = without_predecessor(graph.nodes, {node.name: node.inputs for node in graph.nodes})
    last = without_predecessor(tuple(reversed(graph.nodes)), dict(readers))
    return first, last
