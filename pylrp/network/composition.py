"""Weightless linear operations below the first layer with weights and that layer as one: ``J = W L``.

Averages, differences, resizing or a subtracted mean share relevance in proportion to contributions, which explodes
where they cancel. Under a rule that looks at constants in place of the input (flat, w², z-box) there is nothing to
share by: the operations ``L`` and the layer ``W`` are one linear layer, and its rule is applied to the entries of
``J``. :func:`cone_below` finds the operations, :func:`compose` rewrites the graph: J becomes convolutions with a kernel
of one place (a dense layer's J a dense layer) on tables of what each position is connected to. ``network.py`` makes a
core of the result, ``assignment.py`` gives it rules. Values of the forward pass stay those of the original layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import UnsupportedLayer
from pylrp.layers import Concat, Conv, ConvTranspose, CustomLayer, Dense, Flatten, Layer, Movement, Shape, Take
from pylrp.layers.base import product
from pylrp.network.graph import Graph, Node
from pylrp.network.joint_taps import JointTaps, connected, matrix
from pylrp.network.linear_map import MOST_ENTRIES, LinearMap, TooLarge, is_linear, linear_map, mixes, scaling
from pylrp.rules.terms import Rule

__all__ = ["Composed", "Cone", "Part", "compose", "cone_below", "reads_constants", "signs_only"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: At most so many weights of J are stored.
MOST_WEIGHTS = 1 << 26
#: Positions with the same weights share one convolution from this number on.
_WORTH = 8


def reads_constants(rule: Rule) -> bool:
    """Tell whether a rule looks at ones or bounds in place of the input."""
    return any(term.part in ("one", "low", "high") for group in rule.groups() for term in group.terms)


def signs_only(rule: Rule) -> bool:
    """Tell whether scalings inside of J count with their sign: they hand relevance on unchanged.

    A z-box takes them as they are, since its bounds are those of the input before them.
    """
    return all(term.part == "one" for group in rule.groups() for term in group.terms)


@dataclass(frozen=True)
class Cone:
    """What lies between a layer with weights and the values below it.

    Attributes
    ----------
    bases : tuple of str
        Values of which the layer's input is a linear function.
    between : frozenset of str
        The nodes from there to the layer's input.
    """

    bases: tuple[str, ...]
    between: frozenset[str]


@dataclass(frozen=True)
class Part:
    """A layer of the rewritten graph that stands for some positions of J.

    Attributes
    ----------
    node : str
    places : ndarray of int
        Its input: places among the entries of the bases, one base after the other.
    """

    node: str
    places: Ints


@dataclass(frozen=True)
class Composed:
    """A graph in which some layers stand for more than themselves.

    Attributes
    ----------
    graph : Graph
    parts : dict of str to list of Part
        By name of such a layer.
    forward : dict of str to str
        By name of such a layer, the node that computes its values.
    """

    graph: Graph
    parts: Mapping[str, list[Part]]
    forward: Mapping[str, str]


class _Explained(CustomLayer):
    """The values of the first input; relevance goes to the second, which stands for the same layer."""

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def forward(self, *inputs: Array) -> Array:
        return inputs[0]

    def relevance(self, inputs: tuple[Array, ...], output: Array, relevance: Array) -> tuple[Array, ...]:
        return np.zeros_like(relevance), relevance


def cone_below(graph: Graph, value: str) -> Cone | None:
    """Return the linear operations that a value is the result of; None where none of them mixes entries."""
    nodes = {node.name: node for node in graph.nodes}
    between: set[str] = set()
    bases: list[str] = []
    waiting = [value]
    while waiting:
        name = waiting.pop()
        if name in between or name in bases:
            continue
        if name in nodes and is_linear(nodes[name].layer):
            between.add(name)
            waiting += nodes[name].inputs[::-1]
        else:
            bases.append(name)
    if not any(mixes(nodes[name].layer) for name in between):
        return None
    return Cone(tuple(_raised(graph, base, between) for base in bases), frozenset(between))


def _raised(graph: Graph, base: str, between: set[str]) -> str:
    """Return the value that stands for a base above scalings and moves, which stay what they are."""
    while True:
        readers = [node for node, _ in graph.consumers(base) if node.name in between]
        if len(readers) != 1 or len(readers[0].inputs) != 1 or not _one_to_one(readers[0].layer, graph.shapes[base]):
            return base
        base = readers[0].name
        between.remove(base)


def _one_to_one(layer: Layer, shape: Shape) -> bool:
    if isinstance(layer, Movement):
        index = layer.move(np.arange(product(shape)).reshape(shape)).ravel()
        return bool((index >= 0).all()) and len(np.unique(index)) == len(index)
    return scaling(layer, shape) is not None


def compose(graph: Graph, cones: Mapping[str, tuple[Cone, bool]]) -> Composed:
    """Return the graph with layers in place of those operations and layers.

    Parameters
    ----------
    graph : Graph
    cones : mapping of str to (Cone, bool)
        By name of the layer; with True scalings in the cone count by their sign.

    Raises
    ------
    UnsupportedLayer
        If a J is too large.
    """
    parts: dict[str, list[Part]] = {}
    forward: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name not in cones:
            nodes.append(node)
            continue
        cone, signs = cones[node.name]
        writer = _Writer(graph, node, cone)
        try:
            writer.write(linear_map(graph, node.inputs[0], cone.bases, cone.between, signs=signs))
        except TooLarge as error:
            raise UnsupportedLayer(
                node.name,
                type(node.layer).__name__,
                f"and the operations before it ({', '.join(sorted(cone.between))}) are one layer under its rule, with "
                f"{error.entries:,} entries, more than {MOST_ENTRIES:,}",
                f"give it a rule that looks at the input, Composite(..., names={{{node.name!r}: pylrp.ZPlus()}})",
            ) from None
        below = writer.named("forward")
        nodes += [replace(node, name=below), *writer.nodes]
        nodes.append(Node(node.name, _Explained(), (below, writer.nodes[-1].name)))
        parts[node.name], forward[node.name] = writer.parts, below
    return Composed(graph.changed(nodes=nodes), parts, forward)


class _Writer:
    """Writes one J as nodes."""

    def __init__(self, graph: Graph, node: Node, cone: Cone):
        self.nodes: list[Node] = []
        self.parts: list[Part] = []
        self._graph, self._node = graph, node
        self._taken = set(graph.shapes)
        self._weights = 0
        bases = list(cone.bases)
        if len(bases) > 1 or len(graph.shapes[bases[0]]) != 1:
            bases = [self._add("base", Flatten(), base) for base in bases]
        self._base = bases[0] if len(bases) == 1 else self._add("bases", Concat(0), *bases)

    def named(self, what: str) -> str:
        """Return a name that no other value has."""
        name = f"{self._node.name}/{what}"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def _add(self, what: str, layer: Layer, *inputs: str) -> str:
        name = self.named(what)
        self.nodes.append(Node(name, layer, inputs))
        return name

    def write(self, below: LinearMap) -> None:
        layer = self._node.layer
        assert isinstance(layer, (Dense, Conv, ConvTranspose))
        if isinstance(layer, Dense):
            taps = JointTaps(below, np.arange(below.rows)[None])
            self._part(taps, np.zeros(1, np.int64), np.asarray(layer.weight, np.float64), None, dense=True)
            return
        spatial = connected(layer, self._graph.shapes[self._node.inputs[0]], self._graph.shapes[self._node.name])
        channels = below.rows // product(self._graph.shapes[self._node.inputs[0]][1:]) // layer.groups
        places = below.rows // (channels * layer.groups)
        outs: list[tuple[int, str, Ints]] = []
        for group in range(layer.groups):
            first = (group * channels + np.arange(channels)) * places
            rows = np.where(spatial[:, None] >= 0, first[None, :, None] + spatial[:, None], -1)
            outs += self._group(JointTaps(below, rows.reshape(len(spatial), -1)), matrix(layer, group), group)
        self._join(outs, layer.groups)

    def _group(self, taps: JointTaps, weight: Floats, group: int) -> list[tuple[int, str, Ints]]:
        """Write the positions of a group of channels; return (group, value, order of the positions), if there are any.

        The value is (channels, positions).
        """
        bias = getattr(self._node.layer, "bias", None)
        own = None if bias is None else np.asarray(bias)[group * len(weight) : (group + 1) * len(weight)]
        if own is not None and own.ndim > 1:  # one an entry of the output
            own = own.reshape(len(own), -1)
        made, order, few = [], [], []
        for positions in taps.classes():
            if len(positions) < _WORTH:
                few.append(positions)
            else:
                made.append(self._part(taps, positions, weight, own))
                order.append(positions)
        for count in sorted({int(taps.counts[positions[0]]) for positions in few}):
            positions = np.concatenate([p for p in few if taps.counts[p[0]] == count])
            made.append(self._apart(taps, positions, weight, own))
            order.append(positions)
        if not made:
            return []
        value = made[0] if len(made) == 1 else self._add("positions", Concat(1), *made)
        return [(group, value, np.concatenate(order))]

    def _part(
        self, taps: JointTaps, positions: Ints, weight: Floats, bias: Array | None, *, dense: bool = False
    ) -> str:
        """Write positions with equal weights: one convolution, (channels, positions)."""
        places = taps.places(positions)
        self._count(len(weight) * len(places))
        made = taps.weights(positions[0], weight).astype(self._graph.dtype)
        if dense:
            layer: Layer = Dense(made, self._node.layer.bias)  # type: ignore[attr-defined]  # a Dense
            places = places[:, 0]
        else:
            layer = Conv(made[:, :, None], bias if bias is None or bias.ndim == 1 else bias[:, positions])
        name = self._add("part", layer, self._add("taken", Take(places), self._base))
        self.parts.append(Part(name, places))
        return name

    def _apart(self, taps: JointTaps, positions: Ints, weight: Floats, bias: Array | None) -> str:
        """Write positions with weights of their own but the same number of them, each a group of channels."""
        places = taps.places(positions).T.reshape(-1, 1)
        self._count(len(weight) * len(places))
        rows = [taps.weights(position, weight).astype(self._graph.dtype) for position in positions]
        layer = Conv(
            np.concatenate(rows)[:, :, None],
            None if bias is None else _by_position(bias, positions),
            groups=len(positions),
        )
        name = self._add("part", layer, self._add("taken", Take(places), self._base))
        self.parts.append(Part(name, places))
        index = np.arange(len(positions) * len(weight)).reshape(len(positions), len(weight)).T
        return self._add("sorted", Take(index), self._add("flat", Flatten(), name))

    def _count(self, weights: int) -> None:
        self._weights += weights
        if self._weights > MOST_WEIGHTS:
            raise TooLarge(self._weights)

    def _join(self, outs: Sequence[tuple[int, str, Ints]], groups: int) -> None:
        """Write what puts the groups' positions where they belong; -1 where nothing but padding is seen."""
        shape = self._graph.shapes[self._node.name]
        rows = shape[0] // groups
        index = np.full((groups, rows, product(shape[1:])), -1)
        first = 0
        for group, _, order in outs:
            index[group][:, order] = first + np.arange(rows * len(order)).reshape(rows, -1)
            first += rows * len(order)
        flat = [self._add("flat", Flatten(), value) for _, value, _ in outs] or [self._base]
        joined = flat[0] if len(flat) == 1 else self._add("groups", Concat(0), *flat)
        self._add("relevance", _Put(index.reshape(shape)), joined)


def _by_position(bias: Array, positions: Ints) -> Array:
    """Return a bias, (channels,) or (channels, positions), for all channels of one position after the other."""
    return np.tile(bias, len(positions)) if bias.ndim == 1 else bias[:, positions].T.reshape(-1)


class _Put(Movement):
    """Values at the places that a table says, 0 where it says -1."""

    kind = "take"

    def __init__(self, index: Ints):
        self._index = index

    def move(self, index: Ints) -> Ints:
        return np.where(self._index < 0, -1, index[self._index])
