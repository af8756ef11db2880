"""Which rule each node of a graph gets, and what the core takes for it.

``network.py`` asks with a composite, a rule or a list of rules; ``composites.py`` decides by kind, name and place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp import _core
from pylrp.composites import WEIGHTED, Composite, composite, require_rule
from pylrp.conventions import compile_rule
from pylrp.graph import Graph, Node
from pylrp.layers import Layer, Shape
from pylrp.lowering import to_core
from pylrp.rules import Norm, Rule, Term

__all__ = ["Assignment", "assign", "rule_kind"]

Array = NDArray[Any]

# Kinds of layers (pylrp.layers) that take a rule, as composites call them.
_KINDS = {
    "dense": "dense",
    "conv": "conv",
    "conv_transpose": "conv",
    "avgpool": "pool",
    "add": "add",
    "batchnorm": "batchnorm",
    "affine": "batchnorm",
    "resize": "resize",
}


def rule_kind(node: Node) -> str | None:
    """Return the kind by which a composite finds a node's rule, or None for a node that takes none."""
    return _KINDS.get(node.layer.kind)


@dataclass(frozen=True)
class Assignment:
    """Rules for all nodes of a graph, ready for the core.

    Attributes
    ----------
    rules : dict of str to Rule
        Of the nodes that take one.
    compiled : list of _core.Rule or None
        One a node.
    bounds : list of (low, high) or None
        One a node: as the core stores them, flat.
    boxes : list of (input, rule, low, high)
        Inputs of the network that a z-box looks at, with the bounds in the input's logical shape.
    texts : list of str
        One a node: its rule, or what it does without one.
    """

    rules: dict[str, Rule]
    compiled: list[_core.Rule | None]
    bounds: list[tuple[Array, Array] | None]
    boxes: list[tuple[str, str, Array, Array]]
    texts: list[str]


def way(layer: Layer) -> str:
    """Return what a layer that takes no rule does with relevance."""
    return {"maxpool": "winner takes all", "custom": "its own"}.get(layer.kind, "passes")


def choose(graph: Graph, rules: str | Composite | Rule | Sequence[Rule]) -> dict[str, Rule]:
    """Return the rule of each node that takes one, by its name."""
    layers = [(node.name, kind) for node in graph.nodes if (kind := rule_kind(node)) is not None]
    if isinstance(rules, str):
        rules = composite(rules)
    if isinstance(rules, Rule):
        rules = Composite(repr(rules), rules)
    if isinstance(rules, Composite):
        first, last = _ends(graph)
        if not graph.output_values.keys().isdisjoint(rules.names):  # an output's name for the layer that makes it
            rules = replace(rules, names={graph.value(name): rule for name, rule in rules.names.items()})
        return dict(zip([name for name, _ in layers], rules.assign(layers, first, last), strict=True))
    given = _listed(rules)
    weighted = [name for name, kind in layers if kind in WEIGHTED]
    if len(given) != len(weighted):
        dense = "dense layers" if all(kind == "dense" for _, kind in layers) else "layers with weights"
        raise ValueError(f"the network has {len(weighted)} {dense}, composite has {len(given)} rules")
    chosen: dict[str, Rule] = {name: Norm() for name, kind in layers if kind not in WEIGHTED}
    return {**chosen, **dict(zip(weighted, given, strict=True))}


def _listed(rules: object) -> list[Rule]:
    if not isinstance(rules, Sequence):
        return [require_rule(rules, "composite")]
    return [require_rule(rule, f"composite[{position}]") for position, rule in enumerate(rules)]


def assign(graph: Graph, rules: str | Composite | Rule | Sequence[Rule], convention: str) -> Assignment:
    """Return the rules of a graph's nodes.

    Raises
    ------
    ValueError
        If a rule does not fit its layer.
    """
    chosen = choose(graph, rules)
    compiled: list[_core.Rule | None] = []
    bounds: list[tuple[Array, Array] | None] = []
    boxes = []
    for node in graph.nodes:
        rule = chosen.get(node.name)
        if rule is None:
            compiled.append(None)
            bounds.append(None)
            continue
        _require_fit(graph, node, rule)
        compiled.append(compile_rule(rule, convention))
        made = _bounds(rule, graph, node)
        bounds.append(None if made is None else (to_core(made[0]), to_core(made[1])))
        if made is not None and node.inputs[0] in graph.inputs:
            boxes.append((node.inputs[0], repr(rule), *made))
    texts = [repr(chosen[node.name]) if node.name in chosen else way(node.layer) for node in graph.nodes]
    return Assignment(chosen, compiled, bounds, boxes, texts)


def _require_fit(graph: Graph, node: Node, rule: Rule) -> None:
    kind = rule_kind(node)
    if rule.passes:
        below, above = graph.shapes[node.inputs[0]], graph.shapes[node.name]
        if len(node.inputs) != 1 or below != above:
            raise ValueError(
                f"layer {node.name}: {rule} hands relevance through unchanged, but the layer's input is {below}, "
                f"its output {above}"
            )
        return
    if kind not in WEIGHTED:
        groups = rule.groups()
        if len(groups) != 1 or groups[0].terms != (Term("input"),) or groups[0].coefficient != 1:
            raise ValueError(
                f"layer {node.name}: {rule} does not fit a layer of kind {kind}; it has no weights and takes Norm() "
                f"or Epsilon()" + (" or Pass()" if kind == "batchnorm" else "")
            )


def _ends(graph: Graph) -> tuple[set[str], set[str]]:
    """Return the names of the layers with weights that come first, and of those that come last."""

    def without_predecessor(nodes: Sequence[Node], sources: dict[str, Sequence[str]]) -> set[str]:
        ends: set[str] = set()
        behind: set[str] = set()  # nodes with a layer with weights at or before them
        for node in nodes:
            after = any(value in behind for value in sources[node.name])
            weighted = rule_kind(node) in WEIGHTED
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


def _bounds(rule: Rule, graph: Graph, node: Node) -> tuple[Array, Array] | None:
    """Return a rule's bounds in the logical shape of the node's input."""
    bounds = rule.bounds()
    if bounds is None:
        return None
    value = node.inputs[0]
    shape = graph.shapes[value]
    made = []
    for name, bound in zip(("low", "high"), bounds, strict=True):
        array = np.asarray(bound, dtype=graph.dtype)
        try:
            made.append(_broadcast(array, shape, value in graph.channels_last))
        except ValueError:
            raise ValueError(
                f"layer {node.name}: {name} of {rule} has shape {array.shape}, an input of the layer has shape {shape}"
            ) from None
    return made[0], made[1]


def _broadcast(array: Array, shape: Shape, channels_last: bool) -> Array:
    if array.ndim == 1 and len(shape) > 1 and len(array) == shape[0]:  # one a channel
        return np.broadcast_to(array.reshape(-1, *(1,) * (len(shape) - 1)), shape)
    if channels_last and array.ndim == len(shape):
        return np.moveaxis(np.broadcast_to(array, (*shape[1:], shape[0])), -1, 0)
    return np.broadcast_to(array, shape)
