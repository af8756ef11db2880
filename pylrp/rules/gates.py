"""What becomes of the rule of a product of two values: its signal by number, or the error that none can be told.

``assignment.py`` asks for each product; ``network/canonise/factors.py`` has looked at the factors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pylrp.errors import UndecidedGate
from pylrp.layers import Divide, Multiply
from pylrp.network.canonise import roots
from pylrp.network.graph import Graph, Node
from pylrp.rules.terms import Rule
from pylrp.rules.treatments import Gate, Half, Signal

__all__ = ["description", "settle", "signal_of"]


def settle(graph: Graph, chosen: dict[str, Rule], named: Collection[str]) -> dict[str, UndecidedGate]:
    """Settle the rules of all products in place, and return the errors of those of which the signal can't be told.

    ``Half`` that was not given to a product by name is ``Signal`` where a sigmoid is the gate. A product that no
    output's relevance reaches, because it is part of a gate, needs no decision: what starts inside of it is halved.

    Raises
    ------
    ValueError
        If a rule names a signal that is no factor.
    """
    undecided: dict[str, UndecidedGate] = {}
    reached = set(graph.output_values.values())
    for node in reversed(graph.nodes):
        handed = list(node.inputs)
        if isinstance(node.layer, Divide):
            handed = handed[:1]
        elif isinstance(node.layer, Multiply) and node.name in chosen:
            rule = chosen[node.name] = _settled(graph, node, chosen[node.name], node.name in named)
            signal = signal_of(node, rule)
            if signal is not None:
                handed = [node.inputs[signal]]
            elif isinstance(rule, Signal) and node.name in reached:
                undecided[node.name] = UndecidedGate(
                    node.name, type(node.layer).__name__, (node.inputs[0], node.inputs[1])
                )
            elif isinstance(rule, Signal):
                chosen[node.name] = Half()
        if node.name in reached:
            reached.update(handed)
    return undecided


def _settled(graph: Graph, node: Node, rule: Rule, by_name: bool) -> Rule:
    layer = node.layer
    assert isinstance(layer, Multiply)
    if isinstance(rule, Half) and not by_name and layer.signal is not None and not layer.soft:
        return Signal()
    if not isinstance(rule, Gate) or not isinstance(rule.signal, str):
        return rule
    name = graph.value(rule.signal)
    steps = [found.index(name) if name in found else None for found in (roots(graph, value) for value in node.inputs)]
    if steps[0] == steps[1]:  # in neither; or as far from both
        raise ValueError(
            f"layer {node.name}: {rule} names no factor of it; it multiplies {node.inputs[0]!r} and {node.inputs[1]!r}"
        )
    first = steps[1] is None or (steps[0] is not None and steps[0] < steps[1])
    return Gate(signal=0 if first else 1)


def signal_of(node: Node, rule: Rule) -> int | None:
    """Return which factor takes all relevance under a settled rule; None where both take it, or none can be told."""
    if isinstance(rule, Gate):
        assert isinstance(rule.signal, int)
        return rule.signal
    return node.layer.signal if isinstance(rule, Signal) and isinstance(node.layer, Multiply) else None


def description(node: Node, rules: Mapping[str, Rule]) -> str | None:
    """Return the rule of a product with its factors' names, for the table of layers; None for other layers."""
    rule = rules.get(node.name)
    if not isinstance(node.layer, Multiply) or rule is None or isinstance(rule, Half):
        return None
    signal = signal_of(node, rule)
    if signal is None:
        return f"{rule}: is {node.inputs[0]} or {node.inputs[1]} the signal?"
    return f"{_shown(rule)}: signal {node.inputs[signal]}, gate {node.inputs[1 - signal]}"


def _shown(rule: Rule) -> str:
    return "Gate()" if isinstance(rule, Gate) else repr(rule)
