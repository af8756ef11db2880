"""Predictions of many variants of one text, each with a token less or another one: what they share is computed once.

A packed graph (``packing.py``) works token by token until attention first mixes tokens: up to there a variant's row is
that of the same token at the same place in another, so distinct rows are run and handed out. Behind the last layer that
mixes tokens only the rows count that somebody asked for. Between the two all rows run, a few variants at a time, as
many as the core's products run best with. ``evaluate/token_texts.py`` asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pylrp import _core
from pylrp.layers.base import Array
from pylrp.layers.packed import SegmentedAttention, Segments
from pylrp.network.execution import Execution
from pylrp.network.facts import Facts
from pylrp.network.graph import Graph, Node
from pylrp.network.lowering import Lowered, lower
from pylrp.network.packed import Packs
from pylrp.network.packing import SEGMENTS, NotPacked
from pylrp.network.requests import Inputs
from pylrp.network.token_rows import Part

__all__ = ["Variants"]

#: Rows at a time between the first and the last mixing: more go by packed panels, csrc/products/samples_in_lanes.hpp,
#: which products in bfloat16 always do.
ROWS, ROWS_BFLOAT16 = 192, 4096
_ENDS = ("first", "last")


@dataclass(frozen=True, eq=False)
class _Stage:
    """A part of a packed graph, in the core."""

    lowered: Lowered
    outputs: tuple[str, ...]

    def run(self, values: Mapping[str, Array], threads: int, bfloat16: bool) -> dict[str, Array]:
        """Return the values that other stages take."""
        given = [np.ascontiguousarray(values[name]) for name in self.lowered.graph.inputs]
        numbers = [self.lowered.values[name] for name in self.outputs]
        try:
            found = self.lowered.core.forward(given, numbers, threads, bfloat16)
        except _core.CoreError:  # which variant is to blame is found where each runs by itself
            raise NotPacked("something is not finite") from None
        return dict(zip(self.outputs, found, strict=True))


@dataclass(frozen=True, eq=False)
class _Stages:
    """What is run for distinct rows, for all of them, and for those that are asked for; what there is of it."""

    front: _Stage | None
    middle: _Stage | None
    tail: _Stage | None
    end: str | None  # which row of a sample the tail takes: "first", "last"; None: those that are asked for


class Variants:
    """Runs variants of texts of a network.

    Parameters
    ----------
    packs : Packs
        Of the network.
    """

    def __init__(self, packs: Packs):
        self._packs = packs
        self._stages: dict[int, tuple[Lowered, _Stages]] = {}

    @property
    def tokens_at_once(self) -> int:
        """Return how many tokens a call should have: as many as fit into some memory."""
        return self._packs.tokens_at_once

    def outputs(
        self, execution: Execution, inputs: Inputs, rows: Array | None, threads: int, bfloat16: bool = False
    ) -> Array:
        """Return the output of samples of one length, (samples, ...).

        Parameters
        ----------
        execution : Execution
            Of their length.
        inputs : Inputs
            The samples, of a network with one output.
        rows : ndarray of int, shape (samples, count), optional
            Of an output with a row for each token: which of them are asked for; the result is (samples, count, ...).
        threads : int
        bfloat16 : bool
            Products of dense layers round their operands to it.

        Raises
        ------
        NotPacked
            If the network can't be run so.
        """
        part, lowered, given = self._packs.of_one_length(execution, inputs)
        value = lowered.graph.value(lowered.graph.outputs[0])
        axis = self._packs.axis_of(value)
        if (axis is None) != (rows is None) or axis not in (None, 0):
            raise NotPacked("rows of its output are no tokens")
        stages = self._known(lowered, axis is not None)
        flat = dict(zip(lowered.graph.inputs, given, strict=True))
        made = self._run(stages, value, flat, part, rows, threads, bfloat16)
        shape = part.graph.shapes[value]
        return made.reshape(part.batch, *shape) if rows is None else made.reshape(*rows.shape, *shape[1:])

    def _known(self, lowered: Lowered, by_token: bool) -> _Stages:
        known = self._stages.get(id(lowered))  # which is kept, so that no other has its id
        if known is None:
            if len(self._stages) > 1:
                self._stages.clear()
            known = self._stages[id(lowered)] = lowered, _stages(lowered.graph, by_token)
        return known[1]

    def _run(
        self, stages: _Stages, value: str, flat: dict[str, Array], part: Part, rows: Array | None, threads: int,
        bfloat16: bool,
    ) -> Array:  # fmt: skip
        tokens, count = part.tokens, part.rows.stop
        if stages.front is not None:
            taken = {name: flat[name] for name in stages.front.lowered.graph.inputs}
            first, which = _distinct(list(taken.values()))
            shared = stages.front.run({name: array[first] for name, array in taken.items()}, threads, bfloat16)
        else:
            which, shared = np.arange(count), {}
        places = np.arange(0, count, tokens)[:, None] + self._asked(stages, rows, tokens)
        wanted = _inputs(stages.tail) if stages.tail is not None else {value}
        picked: dict[str, list[Array]] = {name: [] for name in wanted if name != SEGMENTS}
        samples = max(1, (ROWS_BFLOAT16 if bfloat16 else ROWS) // tokens)
        for begin in range(0, part.batch, samples):
            own = slice(begin * tokens, min(begin + samples, part.batch) * tokens)
            made = self._middle(stages, flat, shared, which, own, threads, bfloat16)
            at = places[begin : begin + samples].ravel() - own.start
            for name, found in picked.items():
                source = made[name] if name in made else shared[name][which[own]] if name in shared else flat[name][own]
                found.append(source[at])
        values = {name: np.concatenate(found) for name, found in picked.items()}
        if stages.tail is None:
            return values[value]
        lone = np.arange(len(next(iter(values.values()))), dtype=flat[SEGMENTS].dtype)
        values[SEGMENTS] = np.stack([lone, np.ones_like(lone)], axis=1)
        return stages.tail.run(values, threads, bfloat16)[value]

    @staticmethod
    def _asked(stages: _Stages, rows: Array | None, tokens: int) -> Array:
        """Return the places within samples of what the tail takes."""
        if rows is not None:
            return rows
        return np.array([[tokens - 1 if stages.end == "last" else 0]])

    @staticmethod
    def _middle(
        stages: _Stages, flat: dict[str, Array], shared: dict[str, Array], which: Array, own: slice, threads: int,
        bfloat16: bool,
    ) -> dict[str, Array]:  # fmt: skip
        if stages.middle is None:
            return {}
        values = {
            name: shared[name][which[own]] if name in shared else flat[name][own] for name in _inputs(stages.middle)
        }
        values[SEGMENTS] = flat[SEGMENTS][own] - np.array([own.start, 0], flat[SEGMENTS].dtype)
        return stages.middle.run(values, threads, bfloat16)


def _inputs(stage: _Stage) -> set[str]:
    return set(stage.lowered.graph.inputs)


def _distinct(arrays: Sequence[Array]) -> tuple[Array, Array]:
    """Return the first of each distinct row of some arrays together, and which of these each row is."""
    known: dict[bytes, int] = {}
    first: list[int] = []
    which = np.empty(len(arrays[0]), np.intp)
    for i in range(len(which)):
        at = known.setdefault(b"".join(array[i].tobytes() for array in arrays), len(first))
        if at == len(first):
            first.append(i)
        which[i] = at
    return np.array(first), which


def _stages(graph: Graph, by_token: bool) -> _Stages:
    """Cut a packed graph at its first and its last layers that mix tokens."""
    names = {node.name for node in graph.nodes}
    front: list[Node] = []
    alone = set(graph.inputs) - {SEGMENTS}
    for node in graph.nodes:
        if not _mixes(node) and not isinstance(node.layer, Segments) and alone.issuperset(node.inputs):
            front.append(node)
            alone.add(node.name)
    tail, end = _tail(graph, by_token, {node.name for node in front})
    last = {node.name for node in tail}
    middle = [node for node in graph.nodes if node.name not in alone and node.name not in last]
    value = graph.value(graph.outputs[0])
    above = {name for node in (*middle, *tail) for name in node.inputs} | {value}
    at_last = {name for node in tail for name in node.inputs} | {value}
    shapes: Any = graph.shapes
    made: list[_Stage | None] = []
    for nodes, wanted in ((front, above), (middle, at_last), (tail, {value})):
        own = {node.name for node in nodes}
        outputs = tuple(node.name for node in nodes if node.name in wanted)
        if not outputs:
            made.append(None)
            continue
        needed = dict.fromkeys(name for node in nodes for name in node.inputs if name not in own)
        if nodes is not front:
            needed.setdefault(SEGMENTS)
        given = {name: shapes[name] if name in names else graph.inputs[name] for name in needed}
        made.append(
            _Stage(lower(graph.changed(inputs=given, nodes=nodes, outputs=list(outputs), facts=Facts())), outputs)
        )
    return _Stages(made[0], made[1], made[2], end)


def _mixes(node: Node) -> bool:
    layer = node.layer
    return isinstance(layer, SegmentedAttention) or (isinstance(layer, Segments) and layer.pick not in _ENDS)


def _tail(graph: Graph, by_token: bool, front: set[str]) -> tuple[list[Node], str | None]:
    """Return the nodes that need no other rows than those asked for, and which those are where it is one end."""
    output = graph.value(graph.outputs[0])
    ends = {node.layer.pick for node in graph.nodes if isinstance(node.layer, Segments) and not _mixes(node)}
    if (by_token and ends) or len(ends) > 1:
        return [], None
    found: set[str] = set()
    kept = []
    for node in reversed(graph.nodes):
        takers = [taker.name for taker, _ in graph.consumers(node.name)]
        asked = bool(takers) or node.name == output
        if node.name not in front and not _mixes(node) and asked and found.issuperset(takers):
            found.add(node.name)
            kept.append(node)
    # What takes an end of a sample must be asked at that end alone: all that picks is in the tail.
    picks = {node.name for node in graph.nodes if isinstance(node.layer, Segments) and not _mixes(node)}
    if not found.issuperset(picks):
        return [], None
    return kept[::-1], next(iter(ends), None)
