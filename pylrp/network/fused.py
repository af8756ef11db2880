"""Attention in a graph, and the graph with one layer in its place, which stores no scores and no probabilities.

Two products of values with a softmax between them, and what scales, masks and moves values around them, are found by
what they compute. The graph that users see stays as it is: ``execution.py`` hands the core the graph that
:func:`fused` makes, but for calls that ask for a value inside (``Execution.plan``), and for rules that the layer has no
formula for (:func:`modes`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from pylrp.layers import (
    Affine,
    Flatten,
    Layer,
    LogSoftmax,
    MatMul,
    Movement,
    Reshape,
    Shift,
    ShiftBy,
    Softmax,
    Tanh,
    Transpose,
)
from pylrp.layers.attention import Added, Attention, Operand
from pylrp.network.graph import Graph, Node
from pylrp.rules.terms import Rule
from pylrp.rules.treatments import Half, Stop, Taylor, Value

__all__ = ["Fusion", "fused", "fusions", "mode", "only_closes", "touched"]

_MATRIX = 2  # axes


@dataclass(frozen=True, eq=False)
class Fusion:
    """A layer that stands for several nodes.

    Attributes
    ----------
    node : Node
        In their place; it makes the last one's value.
    inside : frozenset of str
        Their names.
    product, softmax, scores : str
        Of these, the product with the values, its softmax, the product of queries and keys.
    added, functions : tuple of str
        Of these, what adds to the scores, what caps them.
    """

    node: Node
    inside: frozenset[str]
    product: str
    softmax: str
    scores: str
    added: tuple[str, ...]
    functions: tuple[str, ...]

    @property
    def hidden(self) -> frozenset[str]:
        """Return the values that are not made: all but the last one."""
        return self.inside - {self.node.name}


def mode(fusion: Fusion, rules: Mapping[str, Rule], exact: Callable[[str], bool]) -> str | None:
    """Return what the core calls the layer's formula under these rules of its nodes, None where it has none.

    Parameters
    ----------
    fusion : Fusion
    rules : mapping of str to Rule
    exact : callable
        Whether a node's rule shares relevance in proportion, with nothing added to the denominator, or might as well.
    """
    if isinstance(rules[fusion.product], Value):
        return "value_right"
    if not isinstance(rules[fusion.product], Half):
        return None
    if isinstance(rules[fusion.softmax], Stop):
        return "stop"
    plain = isinstance(rules[fusion.softmax], Taylor) and isinstance(rules[fusion.scores], Half)
    plain = plain and all(rules[name].passes for name in fusion.functions if name in rules)
    return "taylor" if plain and all(exact(name) for name in fusion.added) else None


def only_closes(layer: Layer, dtype: np.dtype[Any]) -> bool:
    """Whether a layer adds nothing but what closes places: relevance that passes it unchanged is shared out, too."""
    if not isinstance(layer, Shift):
        return False
    array = layer.in_dtype(dtype)
    return bool(((array == 0) | (array >= np.finfo(dtype).max)).all())


def fused(graph: Graph, which: Iterable[Fusion]) -> Graph:
    """Return a graph with layers of attention in place of their nodes."""
    by_last = {fusion.node.name: fusion for fusion in which}
    if not by_last:
        return graph
    gone = frozenset().union(*(fusion.hidden for fusion in by_last.values()))
    nodes = [by_last[node.name].node if node.name in by_last else node for node in graph.nodes if node.name not in gone]
    return graph.changed(nodes=nodes)


_KNOWN: WeakKeyDictionary[Graph, dict[str, Fusion]] = WeakKeyDictionary()


def fusions(graph: Graph) -> dict[str, Fusion]:
    """Return the attention in a graph, by the name of its product with the values."""
    if graph not in _KNOWN:
        found: dict[str, Fusion] = {}
        makers = {node.name: node for node in graph.nodes}
        for node in graph.nodes:
            if isinstance(node.layer, MatMul):
                fusion = _Finder(graph, node, makers).fusion()
                if fusion is not None:
                    found[node.name] = fusion
        _KNOWN[graph] = found
    return _KNOWN[graph]


@dataclass
class _Chain:
    """A value that a factor comes from, so far, and the nodes between."""

    value: str
    nodes: list[Node] = field(default_factory=list)
    scales: bool = True

    @property
    def moves(self) -> tuple[Movement, ...]:
        return tuple(node.layer for node in reversed(self.nodes) if isinstance(node.layer, Movement))

    @property
    def scale(self) -> float:
        factors = [np.asarray(node.layer.scale).item() for node in self.nodes if isinstance(node.layer, Affine)]
        return float(np.prod(np.asarray(factors, np.float64)))


class _Finder:
    """Looks at one product of matrices."""

    def __init__(self, graph: Graph, product: Node, makers: Mapping[str, Node]):
        self._graph, self._product, self._makers = graph, product, makers
        self._outputs = set(graph.output_values.values())
        self._inside: set[str] = {product.name}
        self._added: list[tuple[Node, Added]] = []
        self._functions: list[str] = []
        self._scale, self._cap = 1.0, 0.0

    def fusion(self) -> Fusion | None:
        """Return the attention whose product with the values this is, None where it is none."""
        softmax = self._down(self._product.inputs[0], self._moves_heads)
        if softmax is None or not self._is_softmax(softmax):
            return None
        self._inside.add(softmax.name)
        scores = self._down(softmax.inputs[0], self._part_of_scores)
        if scores is None or not isinstance(scores.layer, MatMul):
            return None
        self._inside.add(scores.name)
        self._scale *= scores.layer.scale
        chains = [_Chain(scores.inputs[0]), _Chain(scores.inputs[1]), _Chain(self._product.inputs[1], scales=False)]
        while any(self._lengthen(chain) for chain in chains):
            pass
        if isinstance(self._product.layer, MatMul) and self._product.layer.scale != 1:
            return None
        last = self._last()
        layer = self._layer(chains, last)
        if layer is None:
            return None
        return Fusion(
            Node(last[-1].name, layer, layer.inputs), frozenset(self._inside), self._product.name, softmax.name,
            scores.name, tuple(node.name for node, _ in self._added), tuple(self._functions),
        )  # fmt: skip

    def _layer(self, chains: list[_Chain], last: list[Node]) -> Attention | None:
        query, key, value = operands = [Operand(chain.value, chain.moves) for chain in chains]
        added = tuple(each for _, each in reversed(self._added))
        names = [*(each.value for each in operands), *(each.value for each in added if each.constant is None)]
        back: Any = tuple(node.layer for node in last[1:])
        scale = self._scale * chains[0].scale * chains[1].scale
        leading = self._graph.shapes[self._product.name][:-_MATRIX]
        layer = Attention(query, key, value, leading, back, added, scale, self._cap, tuple(dict.fromkeys(names)))
        shapes = [self._graph.shapes[name] for name in layer.inputs]
        masks = {each.value for each in added if each.constant is None}
        own = {each.value for each in operands}
        fits = masks.isdisjoint(own) and layer.fits(shapes) and layer.shares_input(shapes)
        return layer if fits else None

    def _sole(self, value: str, *, within: bool = False) -> bool:
        """Whether nothing else takes a value; within: nothing outside."""
        if value in self._outputs:
            return False
        takers = [node.name for node, _ in self._graph.consumers(value)]
        return all(name in self._inside for name in takers) if within else len(takers) == 1

    def _down(self, value: str, part: Callable[[Node], bool]) -> Node | None:
        """Return the first node below that is no part of the way, None where another one takes a value on it."""
        while value in self._makers and self._sole(value):
            node = self._makers[value]
            if not part(node):
                return node
            self._inside.add(node.name)
            value = node.inputs[0]
        return None

    def _is_softmax(self, node: Node) -> bool:
        layer, rank = node.layer, len(self._graph.shapes[node.name])
        return isinstance(layer, Softmax) and not isinstance(layer, LogSoftmax) and layer.axis % rank == rank - 1

    def _moves_heads(self, node: Node) -> bool:
        """Whether a node changes the axes before those of a matrix only."""
        before, after = self._graph.shapes[node.inputs[0]], self._graph.shapes[node.name]
        return isinstance(node.layer, Reshape | Flatten) and before[-_MATRIX:] == after[-_MATRIX:]

    def _part_of_scores(self, node: Node) -> bool:
        """Whether a node masks, caps or scales scores; this is written down then."""
        layer, shape = node.layer, self._graph.shapes[node.name]
        if self._moves_heads(node):
            return True
        under = self._scale != 1 or self._functions  # of what is added below a factor a factor, too, would be added
        if isinstance(layer, Shift | ShiftBy) and not under:
            array = layer.in_dtype(self._graph.dtype) if isinstance(layer, Shift) else None
            value = "" if isinstance(layer, Shift) else node.inputs[1]
            self._added.append((node, Added(shape[:-_MATRIX], array, value)))
            return not (isinstance(layer, Shift) and layer.position)  # whose share is told token by token
        if _scales(layer):
            self._scale *= _factor(layer)
            return True
        if isinstance(layer, Tanh) and not self._functions and self._scale > 0:
            self._functions.append(node.name)
            self._cap = self._scale
            return True
        return False

    def _lengthen(self, chain: _Chain) -> bool:
        """Take one more node below a factor, where nothing outside takes what it makes."""
        node = self._makers.get(chain.value)
        if node is None or not (node.name in self._inside or self._sole(node.name, within=True)):
            return False
        moves = isinstance(node.layer, Movement) and not _fills(node.layer)
        if not moves and not (chain.scales and _scales(node.layer)):
            return False
        chain.nodes.append(node)
        chain.value = node.inputs[0]
        self._inside.add(node.name)
        return True

    def _last(self) -> list[Node]:
        """Return the product with the values and what only moves its heads, which is written in place."""
        last = [self._product]
        while self._sole(last[-1].name):
            after = self._graph.consumers(last[-1].name)[0][0]
            if type(after.layer) not in (Reshape, Flatten, Transpose):
                break
            last.append(after)
            self._inside.add(after.name)
        return last


def _factor(layer: Layer) -> float:
    assert isinstance(layer, Affine)
    return float(np.asarray(layer.scale).item())


def _scales(layer: Layer) -> bool:
    """Whether a layer multiplies by one number."""
    return isinstance(layer, Affine) and np.size(layer.scale) == 1 and not np.any(layer.shift)


def _fills(layer: Movement) -> bool:
    return bool(np.any(layer.fill)) or layer.kind == "pad"


def touched(which: Mapping[str, Fusion], values: Collection[str]) -> frozenset[str]:
    """Return the names of those that have one of these values inside."""
    return frozenset(name for name, fusion in which.items() if not fusion.hidden.isdisjoint(values))
