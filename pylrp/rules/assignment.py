"""What the core takes for each node's rule, and whether the rule fits the layer.

``network.py`` asks with a composite, a rule or a list of rules; ``choice.py`` says which rule each node gets.
``boxes.py`` knows the bounds of a z-box, ``composition.py`` what becomes part of a first layer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp import _core
from pylrp.errors import MisplacedBox, UndecidedGate, UnsuitableRule
from pylrp.network.attention import probabilities
from pylrp.network.composition import Composed, Cone, cone_below, reads_constants, signs_only
from pylrp.network.fused import Fusion, fusions, mode, only_closes
from pylrp.network.graph import Graph, Node
from pylrp.network.layout import to_core
from pylrp.rules.boxes import InputBox, bounds_of_value
from pylrp.rules.catalogue import Epsilon, Flat
from pylrp.rules.choice import chosen_and_named, ends
from pylrp.rules.composites import WEIGHTED, Composite, composite
from pylrp.rules.conventions import CONVENTIONS, compile_rule, compile_treatment
from pylrp.rules.gates import description, settle
from pylrp.rules.terms import Rule
from pylrp.rules.treatments import Gradient, Half, Signal, Treatment, Value
from pylrp.rules.weightless import WEIGHTLESS

__all__ = ["Assignment", "assign"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Assignment:
    """Rules for the nodes of a graph.

    Attributes
    ----------
    graph : Graph
    rules : dict of str to Rule
        Of the nodes that take one.
    compiled : dict of str to _core.Rule
        Of the same nodes.
    bounds : dict of str to (low, high)
        Of a layer with a box: of its input in the logical shape; where it has a cone, of the cone's bases, flat.
    boxes : list of (input, rule, low, high)
        Inputs of the network that a z-box looks at, with the bounds in the input's logical shape.
    cones : dict of str to (Cone, bool)
        Operations that become part of a first layer with weights, by its name; True: scalings by sign only.
    undecided : dict of str to UndecidedGate
        Products of which the signal can't be told: nothing can be explained under these rules.
    fused : dict of str to (Fusion, str)
        Attention that the core has as one layer under these rules, by its product with the values, and what the core
        calls the layer's formula.
    """

    graph: Graph
    rules: dict[str, Rule]
    compiled: dict[str, _core.Rule]
    bounds: dict[str, tuple[Array, Array]]
    boxes: list[tuple[str, str, Array, Array]]
    cones: dict[str, tuple[Cone, bool]]
    undecided: dict[str, UndecidedGate]
    fused: dict[str, tuple[Fusion, str]] = field(default_factory=dict)

    def apart(self, names: Collection[str]) -> Assignment:
        """Return the same with this attention as the nodes that it is made of."""
        return replace(self, fused={name: each for name, each in self.fused.items() if name not in names})

    def for_sizes(self, graph: Graph, which: Mapping[str, Fusion], convention: str) -> Assignment | None:
        """Return the same for a graph that differs in sizes alone; None where bounds or cones depend on them.

        Parameters
        ----------
        graph : Graph
        which : mapping of str to Fusion
            The attention in it.
        convention : str
        """
        if self.bounds or self.boxes or self.cones:
            return None
        made = replace(self, graph=graph, fused={})
        exact = _exactly(made, convention)
        for name, (_, treatment) in self.fused.items():
            if mode(which[name], self.rules, exact) == treatment:  # which masks may tell
                made.fused[name] = which[name], treatment
        return made

    def text(self, node: Node) -> str:
        """Return a node's rule, or what it does without one."""
        rule = self.rules.get(node.name)
        if node.name in self.fused and isinstance(rule, Half):
            return f"{rule}, {self.rules[self.fused[node.name][0].softmax]}"
        return node.layer.effect_without_rule if rule is None or _is_own(node, rule) else repr(rule)

    def description(self, node: Node) -> str:
        """Return the same for the table of layers: of a product with the names of its signal and its gate."""
        text = description(node, self.rules) or self.text(node)
        return f"{text}, fused" if node.name in self.fused else text

    def has_row(self, node: Node) -> bool:
        """Whether relevance can get lost in a node under its rule: it has a row in the ledger then."""
        return node.layer.has_ledger_row or node.name in self.compiled

    @property
    def absorbed(self) -> dict[str, str]:
        """Return the values that are part of a layer's rule, with that layer's name."""
        return {value: name for name, (cone, _) in self.cones.items() for value in sorted(cone.between)}

    @property
    def part_of(self) -> dict[str, str]:
        """Return the nodes that a layer of attention stands for, with the name of the product that has its row."""
        return {
            part: name for name, (fusion, _) in self.fused.items() for part in sorted(fusion.inside) if part != name
        }

    def for_core(self, composed: Composed) -> tuple[list[_core.Rule | None], list[tuple[Array, Array] | None]]:
        """Return one rule and the bounds for each node of the rewritten graph, as the core takes them.

        Raises
        ------
        UndecidedGate
            If the signal of a product can't be told.
        """
        for error in self.undecided.values():
            raise error
        compiled, bounds = dict(self.compiled), {}
        for name, pair in self.bounds.items():
            if name not in composed.parts:
                bounds[name] = (to_core(pair[0]), to_core(pair[1]))
        for name, parts in composed.parts.items():
            for part in parts:
                compiled[part.node] = self.compiled[name]
                if name in self.bounds:
                    low, high = self.bounds[name]
                    bounds[part.node] = (to_core(low[part.places]), to_core(high[part.places]))
            # Nothing is handed to it: it makes the values.
            compiled[composed.forward[name]] = compile_rule(Flat(), "zennit")
            del compiled[name]
        for fusion, treatment in self.fused.values():
            compiled[fusion.node.name] = compile_treatment(treatment)
        names = [node.name for node in composed.graph.nodes]
        return [compiled.get(name) for name in names], [bounds.get(name) for name in names]


def assign(graph: Graph, rules: str | Composite | Rule | Sequence[Rule], convention: str) -> Assignment:
    """Return the rules of a graph's nodes.

    Raises
    ------
    UnsuitableRule
        If a rule does not fit its layer, or would pass relevance unchanged through a LayerNorm or its kin.
    UnsupportedLayer
        If a z-box's bounds can't be mapped from the input to its layer.
    MisplacedBox
        If a z-box reaches no layer, or one with weights below it that was not named.
    """
    chosen, named = chosen_and_named(graph, rules)
    first, _ = ends(graph)
    made = Assignment(graph, chosen, {}, {}, [], {}, settle(graph, chosen, named))
    by_gradient = _asks_for_gradients(rules, chosen)
    for node in graph.nodes:
        rule = chosen.get(node.name)
        if by_gradient and not node.layer.differentiable:
            raise UnsuitableRule(
                node.name,
                "Gradient()",
                f"has no derivative of {type(node.layer).__name__}",
                "take a composite of LRP's rules, which all explain such a layer",
            )
        if rule is None:
            continue
        _require_fit(graph, node, rule)
        if convention == "arras" and node.layer.rule_kind == "recurrent" and isinstance(rule, Signal):
            rule = Epsilon()  # its number is the convention's
        if _is_own(node, rule):
            continue
        if isinstance(rule, Value):
            side = "value_left" if probabilities(graph, node) else "value_right"
            made.compiled[node.name] = compile_treatment(side)
        else:
            made.compiled[node.name] = compile_rule(rule, convention)
        if node.name in first and reads_constants(rule):
            cone = cone_below(graph, node.inputs[0])
            if cone is not None:
                made.cones[node.name] = cone, signs_only(rule)
        if rule.bounds() is not None:
            _set_bounds(made, node, rule, in_input=node.name in first, by_name=node.name in named)
    made.fused.update(_fused(made, named, convention))
    return made


def _asks_for_gradients(rules: Any, chosen: Mapping[str, Rule]) -> bool:
    given = composite(rules) if isinstance(rules, str) else rules
    kinds = given.kinds.values() if isinstance(given, Composite) else ()
    return any(isinstance(rule, Gradient) for rule in (*chosen.values(), *kinds))


def _fused(made: Assignment, named: Collection[str], convention: str) -> dict[str, tuple[Fusion, str]]:
    """Return the attention that has a formula as one layer, of which no part was named."""
    exact = _exactly(made, convention)
    found: dict[str, tuple[Fusion, str]] = {}
    for name, fusion in fusions(made.graph).items():
        treatment = mode(fusion, made.rules, exact)
        if treatment is not None and fusion.inside.isdisjoint(named) and fusion.inside.isdisjoint(made.absorbed):
            found[name] = fusion, treatment
    return found


def _exactly(made: Assignment, convention: str) -> Callable[[str], bool]:
    """Return what tells whether a node shares in proportion with nothing added, or might as well."""
    layers = {node.name: node.layer for node in made.graph.nodes}

    def exact(name: str) -> bool:
        if made.rules[name].passes:
            return only_closes(layers[name], made.graph.dtype)
        groups = CONVENTIONS[convention](made.rules[name])
        return len(groups) == 1 and groups[0].stabilizer == 0

    return exact


def _set_bounds(made: Assignment, node: Node, rule: Rule, *, in_input: bool, by_name: bool) -> None:
    graph = made.graph
    if not in_input:
        if not by_name:
            raise MisplacedBox(
                node.name,
                repr(rule),
                f"{rule} holds for the network's input, layer {node.name!r} has layers with weights below it",
                f"give it bounds of its own input, Composite(..., names={{{node.name!r}: pylrp.ZBox(low, high)}})",
            )
        low, high = bounds_of_value(rule, graph, node.inputs[0], node.name)
    else:
        box = InputBox(graph, rule, node.name)
        if node.name in made.cones:
            pairs = [box.at(base) for base in made.cones[node.name][0].bases]
            low, high = (np.concatenate([bound.ravel() for bound in side]) for side in zip(*pairs, strict=True))
        else:
            low, high = box.at(node.inputs[0])
        for name, (least, most) in box.inputs.items():
            made.boxes.append((name, repr(rule), least.astype(graph.dtype), most.astype(graph.dtype)))
    made.bounds[node.name] = low.astype(graph.dtype), high.astype(graph.dtype)


def _require_fit(graph: Graph, node: Node, rule: Rule) -> None:
    layer = node.layer
    if rule.passes and not layer.passes_detached:
        raise UnsuitableRule(
            node.name,
            repr(rule),
            f"would hand all relevance through {type(layer).__name__}, what belongs to the mean that it subtracts or "
            "to its shift, too: it grows from layer to layer, to 1e6 and more times the score in a transformer",
            "give it pylrp.rules.Detach(), which takes only the deviation for a constant, or DetachAll()",
        )
    weighted = layer.weighted and layer.rule_kind in WEIGHTED
    if rule.passes and (weighted or WEIGHTLESS[str(layer.rule_kind)].may_pass):
        below, above = graph.shapes[node.inputs[0]], graph.shapes[node.name]
        if len(node.inputs) != 1 or below != above:
            raise UnsuitableRule(
                node.name,
                repr(rule),
                f"hands relevance through unchanged, but the layer's input is {below}, its output {above}",
                "give it another rule",
            )
        return
    if weighted:
        if isinstance(rule, Treatment):
            way_out = "give it a rule for products with weights"
            raise UnsuitableRule(node.name, repr(rule), f"is for {_takers(rule)}, this layer has weights", way_out)
        return
    assert layer.rule_kind is not None  # layers without a kind get no rule
    kind = WEIGHTLESS[layer.rule_kind]
    if not kind.fits(rule):
        not_here = {"Pass"} if not layer.passes_detached else set()
        if layer.rule_kind == "matmul" and probabilities(graph, node) is None:
            not_here.add("Value")
        named = " or ".join(f"{name}()" for name in kind.rules if name not in not_here)
        raise UnsuitableRule(node.name, repr(rule), kind.why_unfit(layer.rule_kind, rule), f"give it {named}")
    if layer.rule_kind == "function" and not isinstance(rule, Gradient) and not np.isfinite(layer.at_zero()).all():  # type: ignore[attr-defined]
        raise UnsuitableRule(
            node.name,
            repr(rule),
            f"shares out what {type(layer).__name__} gives for its argument and for 0, and that has no value at 0",
            f"hand relevance through, Composite(..., names={{{node.name!r}: pylrp.Pass()}})",
        )
    if isinstance(rule, Value) and probabilities(graph, node) is None:
        raise UnsuitableRule(
            node.name,
            repr(rule),
            "is for a product of which one factor, attention's probabilities, comes from a softmax; none does here, or "
            "both do",
            "give it Half()",
        )


def _takers(rule: Treatment) -> str:
    return " or ".join(f"layers of kind {name}" for name, kind in WEIGHTLESS.items() if kind.fits(rule))


def _is_own(node: Node, rule: Rule) -> bool:
    """Whether a rule says what the layer does without one."""
    kind = WEIGHTLESS.get(str(node.layer.rule_kind))
    return kind is not None and kind.is_own(rule) and node.layer.passes_detached
