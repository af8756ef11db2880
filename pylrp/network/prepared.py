"""What :class:`pylrp.Network` keeps for a choice of rules: the core's plan, and where its results belong.

``network.py`` makes and caches it. Where operations are part of a first layer (``composition.py``) the core's graph has
other nodes than the network's; here is which is which.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from pylrp import _core
from pylrp.errors import AbsorbedValue
from pylrp.network.composition import Composed, compose
from pylrp.network.fused import Fusion, fused
from pylrp.network.graph import Graph
from pylrp.network.ledger import COLUMNS
from pylrp.network.lowering import Lowered, lower
from pylrp.network.requests import Inputs
from pylrp.rules.assignment import Assignment

__all__ = ["CoreGraph", "Prepared", "inside"]

Array = NDArray[Any]
_INCOMING, _OUTGOING, _DEAD, _MASKED = (COLUMNS.index(name) for name in ("incoming", "outgoing", "dead", "masked"))


class CoreGraph:
    """A network's graph in the core, with some layers standing for more than themselves.

    Attributes
    ----------
    composed : Composed
    core : _core.Graph
    values : dict of str to int
        The core's number of each value, of outputs by either name.
    """

    def __init__(self, composed: Composed, lowered: Lowered, which: Collection[Fusion] = ()):
        self.composed = composed
        self.core = lowered.core
        self._nodes = lowered.rows
        self._count = lowered.core_nodes
        outputs = composed.graph.output_values
        self.values: dict[str, int] = {**lowered.values, **{name: lowered.values[v] for name, v in outputs.items()}}
        self._rows = {node.name: row for row, node in enumerate(lowered.graph.nodes)}
        self._rows |= {fusion.product: self._rows[fusion.node.name] for fusion in which}

    @classmethod
    def plain(cls, lowered: Lowered, which: Collection[Fusion] = ()) -> CoreGraph:
        """Return a graph in which every layer stands for itself, or for attention."""
        return cls(Composed(lowered.graph, {}, {}), lowered, which)

    @classmethod
    def for_rules(cls, graph: Graph, assignment: Assignment) -> CoreGraph:
        """Return the graph with the operations that these rules make part of their layers."""
        which = [fusion for fusion, _ in assignment.fused.values()]
        composed = compose(graph, assignment.cones) if assignment.cones else Composed(graph, {}, {})
        composed = replace(composed, graph=fused(composed.graph, which))
        return cls(composed, lower(composed.graph), which)

    def plan(self, assignment: Assignment, bfloat16: bool) -> _core.Plan:
        """Return the core's plan for some rules."""
        rules: list[Any] = [None] * self._count
        bounds: list[Any] = [None] * self._count
        for number, rule, pair in zip(self._nodes, *assignment.for_core(self.composed), strict=True):
            rules[number], bounds[number] = rule, pair
        return self.core.plan(rules, bounds, 0, bfloat16)

    def pages(self, ledger: Array) -> Array:
        """Return the pages of the graph's nodes, of all that the core has."""
        return ledger if self._count == len(self._nodes) else ledger[self._nodes]

    def account(self, ledger: Array, names: Sequence[str]) -> Array:
        """Return the pages of these nodes, (names, columns, samples), of the core's ledger."""
        rows = [self._rows[name] for name in names]
        if not self.composed.parts and rows == list(range(len(ledger))):
            return ledger
        pages = ledger.take(rows, axis=0)
        for page, name in zip(pages, names, strict=True):
            if name in self.composed.parts:
                incoming, masked = page[_INCOMING].copy(), page[_MASKED].copy()
                page[:] = sum(ledger[self._rows[part.node]] for part in self.composed.parts[name])
                page[_DEAD] += incoming - masked - page[_INCOMING]  # of positions that see nothing but padding
                page[_INCOMING], page[_MASKED] = incoming, masked
        return pages


class Prepared:
    """A plan of the core and what is needed to read its results.

    Attributes
    ----------
    plan : _core.Plan
    assignment : Assignment
    graph : Graph
        The core's.
    values : dict of str to int
        The core's number of each value.
    """

    def __init__(self, graph: CoreGraph, assignment: Assignment, bfloat16: bool = False):
        self.graph: Graph = graph.composed.graph
        self._core_graph = graph
        self.assignment = assignment
        self.values = graph.values
        self.plan: _core.Plan = graph.plan(assignment, bfloat16)
        self.texts = {node.name: assignment.text(node) for node in assignment.graph.nodes}
        self._silent = inside(assignment)
        self.texts.update(self._silent)
        self._accounts: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._absorbed: dict[str, dict[str, AbsorbedValue]] = {}

    def is_of(self, graph: CoreGraph) -> bool:
        """Whether this is a plan of that graph."""
        return self._core_graph is graph

    def accounts(self, graph: Graph, masked: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the layers that have an account of their own, with some masked, and each one's rule."""
        key = tuple(masked)
        if key not in self._accounts:
            has_row = self.assignment.has_row
            named = [node.name for node in graph.nodes if has_row(node) or node.name in key]
            rows = tuple(name for name in named if name not in self._silent)
            self._accounts[key] = rows, tuple(self.texts[name] for name in rows)
        return self._accounts[key]

    def pages(self, ledger: Array) -> Array:
        """Return the pages of the graph's nodes, of all that the core has."""
        return self._core_graph.pages(ledger)

    def account(self, ledger: Array, names: Sequence[str]) -> Array:
        """Return the pages of these layers, (names, columns, samples), of the core's ledger."""
        return self._core_graph.account(ledger, names)

    def absorbed(self, top: str) -> dict[str, AbsorbedValue]:
        """Return the values that have no relevance of their own if it starts at ``top``, with what to say about it."""
        if top in self._absorbed:
            return self._absorbed[top]
        graph = self.assignment.graph
        start = graph.value(top)
        below = {start}
        for node in reversed(graph.nodes):
            if node.name in below:
                below.update(node.inputs)
        self._absorbed[top] = {
            value: AbsorbedValue(value, layer, self.texts[layer])
            for value, layer in self.assignment.absorbed.items()
            if layer in below and value != start
        }
        return self._absorbed[top]

    def warn_outside(self, inputs: Inputs, stacklevel: int) -> None:
        """Warn of an input outside the bounds of a box."""
        for name, rule, low, high in self.assignment.boxes:
            values = inputs.logical(name)
            if values.size and bool(((values < low) | (values > high)).any()):
                text = f"the input reaches from {values.min():g} to {values.max():g}, outside the bounds of {rule}"
                warnings.warn(text, stacklevel=stacklevel)


def inside(assignment: Assignment) -> Mapping[str, str]:
    """Return the nodes that are nothing but part of another layer, with words that say so.

    Of a first layer under its rule, or of attention.
    """
    graph, absorbed = assignment.graph, assignment.absorbed
    silent = {part: f"part of {name}" for part, name in assignment.part_of.items()}
    for node in reversed(graph.nodes):
        readers = [taker.name for taker, _ in graph.consumers(node.name)]
        within = all(
            name in silent or (name in assignment.cones and node.name in assignment.cones[name][0].between)
            for name in readers
        )
        if node.name in absorbed and within and node.name not in graph.output_values.values():
            silent[node.name] = f"part of {absorbed[node.name]}"
    return silent
