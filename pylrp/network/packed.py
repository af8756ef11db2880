"""Samples of unequal length in one call of the core, their tokens the rows of one batch; results as of each alone.

``samples.py`` hands over calls that are settled, one a length (:class:`pylrp.network.explain.Call`), each with its own
targets, inputs and account. Here their arrays become rows, the core runs once, and each call takes its own rows back.
``packing.py`` makes the graph; where it can't, calls run one after the other, and a note says why.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from pylrp import _core
from pylrp.layers import Movement, Shape
from pylrp.layers.base import Array, product
from pylrp.network import masks
from pylrp.network.execution import Execution
from pylrp.network.explain import Call
from pylrp.network.ledger import COLUMNS
from pylrp.network.lowering import Lowered, lower
from pylrp.network.packing import SEGMENTS, MaskForm, NotPacked, Packing, as_rows, packing
from pylrp.network.requests import Inputs, shapes_of_inputs
from pylrp.network.token_rows import (
    Part,
    added_to_scores,
    by_sample,
    each_added,
    form_of,
    mask_rows,
    nothing,
    pages_of,
    relevance_of,
    rows_of_mask,
    starts_of,
    values_of,
)  # fmt: skip

__all__ = ["Packs"]

_MOST_PLANS, _MOST_FORMS = 64, 2
_BYTES, _LEAST_TOKENS = 256 << 20, 256  # of the values of one call
_LENGTHS, _FEW = 2, 4  # graphs of few tokens may be simpler than others
_NEAR = {"float32": 1e-3, "float64": 1e-9}  # of the largest entry
_OUTGOING = COLUMNS.index("outgoing")
_INCOMING = COLUMNS.index("incoming")


@dataclass(frozen=True, eq=False)
class _OfLength:
    """What one length's graph holds for its tokens."""

    constants: dict[str, Array]  # by input of the packed graph, (tokens, size)
    masks: dict[str, list[Array | tuple[str, Shape]]]  # what is added: constants, and inputs with their shapes


@dataclass(eq=False)
class _Form:
    """The core's graph for masks of one form, and its plans."""

    lowered: Lowered
    plans: dict[Any, Any] = field(default_factory=dict)

    def plan(self, call: Call) -> Any:
        """Return the core's plan with a call's rules."""
        made = call.prepared.assignment
        key = tuple(made.rules.items()), tuple(map(id, made.compiled.values())), call.request.convention, call.bfloat16
        if key not in self.plans:
            graph = call.execution.joined.composed.graph
            found, bounds = made.for_core(call.execution.joined.composed)
            if any(each is not None for each in bounds):
                raise NotPacked("a rule has bounds of its own")
            by_name = dict(zip([node.name for node in graph.nodes], found, strict=True))
            rules: list[Any] = [None] * self.lowered.core_nodes
            for node, number in zip(self.lowered.graph.nodes, self.lowered.rows, strict=True):
                rules[number] = by_name.get(node.name)
            if len(self.plans) >= _MOST_PLANS:
                self.plans.clear()
            self.plans[key] = self.lowered.core.plan(rules, [None] * len(rules), 0, call.bfloat16)
        return self.plans[key]


class Packs:
    """What a network needs to run samples of unequal length together.

    Parameters
    ----------
    usual : Execution
        Of the length that it was made for.
    """

    def __init__(self, usual: Execution):
        self._usual = usual
        self._packing: Packing | None = None
        self._refused: str | None = None
        self._forms: OrderedDict[MaskForm, _Form] = OrderedDict()
        self._preparing = threading.RLock()
        self._lengths: WeakKeyDictionary[Execution, _OfLength] = WeakKeyDictionary()

    @property
    def tokens_at_once(self) -> int:
        """Return how many tokens a call should have: as many as fit into some memory."""
        graph = self._usual.joined.composed.graph
        made = [product(graph.shapes[node.name]) for node in graph.nodes if not isinstance(node.layer, Movement)]
        most = max(shape[axis] for shape, axis in self._free(self._usual))
        return max(_LEAST_TOKENS, _BYTES * most // max(1, sum(made) * graph.dtype.itemsize))

    def run(self, calls: Sequence[Call]) -> list[str]:
        """Have all calls take their results; return notes on those that run by themselves."""
        together, notes = self._fitting(calls)
        try:
            if len(together) > 1:
                self._run(together)
            else:
                together = []
        except NotPacked as reason:
            together, notes = [], [f"samples of unequal length run one length after the other: {reason}"]
        for call in calls:
            if call not in together:
                call.propagate()
        return notes

    def _fitting(self, calls: Sequence[Call]) -> tuple[list[Call], list[str]]:
        """Return the calls that can run together, and notes on the others."""
        found: list[Call] = []
        notes = []
        for call in calls:
            try:
                self._prepare([each.execution for each in calls])
                self._known_packing.require_like(call.execution.joined.composed.graph)
                _require_alike(call, found[0] if found else call)
                found.append(call)
            except NotPacked as reason:
                notes.append(f"samples of one length run by themselves: {reason}")
        if not found:
            notes = [note.replace("of one length run by themselves", "of unequal length run one length after the other")
                     for note in notes]  # fmt: skip
        return found, list(dict.fromkeys(notes))

    def _run(self, calls: Sequence[Call]) -> None:
        packed, first = self._known_packing, calls[0]
        value = packed.graph.value
        outputs, names = ([value(name) for name in asked] for asked in first.asked_values())
        top = value(first.top)
        for name in (*outputs, top):
            if name not in packed.axes:
                raise NotPacked(f"{name!r} is a value inside a layer")
        parts, form, flat = self._settled([(call.execution, call.inputs) for call in calls])
        numbers, count = form.lowered.values, parts[-1].rows.stop
        wanted = [name for name in dict.fromkeys(names) if name in numbers]
        pairs = list(zip(calls, parts, strict=True))
        stays = {
            name: np.concatenate([rows_of_mask(call.stays[name], part, name, packed) for call, part in pairs])
            for name in first.stays
        }
        starts = starts_of(calls, parts, packed.axes[top], count)
        try:
            found, chosen, relevance, ledger, finite = form.plan(first).explain(
                flat, starts, first.request.start == "one", numbers[top], [numbers[name] for name in outputs],
                [numbers[name] for name in wanted], masks.for_core(stays, numbers), first.request.threads, None,
                first.request.checkpoint,
            )  # fmt: skip
        except _core.CoreError:  # whose sample is to blame is found where each runs by itself
            raise NotPacked("something is not finite") from None
        pages = by_sample(self._pages(form.lowered, ledger), parts, len(starts), count)
        rows = dict(zip(wanted, relevance, strict=True))
        at = 0
        for call, part in pairs:
            call.take(
                [values_of(packed, name, made[part.rows], part) for name, made in zip(outputs, found, strict=True)],
                [each if each is None else each[part.rows][:: part.tokens].copy() for each in chosen],
                [
                    relevance_of(packed, name, part, rows[name], count) if name in rows
                    else nothing(part, name, len(starts))
                    for name in names
                ],
                pages_of(form.lowered.graph, call.prepared.graph, pages[..., at : at + part.batch]),
                finite,
            )  # fmt: skip
            at += part.batch

    def predict(self, given: Sequence[tuple[Execution, Inputs]], threads: int) -> list[Any]:
        """Return the outputs of inputs of several lengths; None for those that do not run together with others."""
        made: list[Any] = [None] * len(given)
        together = []
        for i, (execution, _) in enumerate(given):
            try:
                self._prepare([each for each, _ in given])
                self._known_packing.require_like(execution.joined.composed.graph)
                together.append(i)
            except NotPacked:
                continue
        if len(together) < _LENGTHS:
            return made
        own = [given[i] for i in together]
        try:
            found = self._predicted(own, threads)
        except NotPacked:
            return made
        for i, outputs in zip(together, found, strict=True):
            made[i] = outputs
        return made

    def _predicted(self, given: Sequence[tuple[Execution, Inputs]], threads: int) -> list[Any]:
        parts, form, flat = self._settled(given)
        packed = self._known_packing
        names = packed.graph.outputs
        values = [packed.graph.value(name) for name in names]
        numbers = [form.lowered.values[value] for value in values]
        try:
            found = form.lowered.core.forward(flat, numbers, threads)
        except _core.CoreError:  # whose sample is to blame is found where each runs by itself
            raise NotPacked("something is not finite") from None
        made = []
        for part, (execution, inputs) in zip(parts, given, strict=True):
            own = [values_of(packed, value, rows[part.rows], part) for value, rows in zip(values, found, strict=True)]
            execution.require_finite(inputs, names, own)
            shapes = part.graph.shapes
            arrays = {n: inputs.shaped(a, shapes[v]) for n, v, a in zip(names, values, own, strict=True)}
            made.append(arrays if len(names) > 1 else arrays[names[0]])
        return made

    def of_one_length(self, execution: Execution, inputs: Inputs) -> tuple[Part, Lowered, list[Array]]:
        """Return the rows of samples of one length, the core's graph and its inputs.

        Raises
        ------
        NotPacked
            If the network, or this length of it, can't be packed.
        """
        (part,), form, flat = self._settled([(execution, inputs)])
        return part, form.lowered, flat

    def axis_of(self, value: str) -> int | None:
        """Return the axis of the tokens of a value; None where it has none."""
        axes = self._known_packing.axes
        if value not in axes:
            raise NotPacked(f"{value!r} is a value inside a layer")
        return axes[value]

    @property
    def _known_packing(self) -> Packing:
        assert self._packing is not None  # _settled() made it
        return self._packing

    def _settled(self, given: Sequence[tuple[Execution, Inputs]]) -> tuple[list[Part], _Form, list[Array]]:
        """Return where each input's rows are, the core's graph and its inputs."""
        self._prepare([execution for execution, _ in given])
        parts: list[Part] = []
        for execution, inputs in given:
            first = parts[-1].rows.stop if parts else 0
            parts.append(Part(execution, inputs.flat, inputs.batch, first, self._tokens(execution)))
        return parts, *self._for_core(parts)

    def _for_core(self, parts: Sequence[Part]) -> tuple[_Form, list[Array]]:
        """Return the core's graph for what is added to scores, and its inputs."""
        packed = self._known_packing
        added = {
            name: [added_to_scores(self._of_length(part.execution).masks[name], part) for part in parts]
            for name in dict.fromkeys(name for name in packed.masks.values() if name is not None)
        }
        mask_form = form_of(added, max(part.tokens for part in parts))
        with self._preparing:
            form = self._forms.pop(mask_form, None) or _Form(lower(packed.of(mask_form)))
            self._forms[mask_form] = form
            while len(self._forms) > _MOST_FORMS:  # each keeps a workspace
                self._forms.popitem(last=False)
        shapes = form.lowered.graph.inputs
        return form, [self._rows(name, shape, parts, added, mask_form) for name, shape in shapes.items()]

    def _rows(self, name: str, shape: Shape, parts: Sequence[Part], added: Any, form: MaskForm) -> Array:
        """Return an input of the packed graph."""
        packed, dtype = self._known_packing, self._usual.graph.dtype
        if name == SEGMENTS:
            firsts = [np.repeat(np.arange(p.rows.start, p.rows.stop, p.tokens), p.tokens) for p in parts]
            counts = [np.full(p.rows.stop - p.rows.start, p.tokens) for p in parts]
            return np.stack([np.concatenate(firsts), np.concatenate(counts)], axis=1).astype(dtype)
        if name in added:
            return np.concatenate([mask_rows(a, part, form, shape) for a, part in zip(added[name], parts, strict=True)])
        made = []
        for part in parts:
            if name in packed.axes:
                at = list(part.graph.inputs).index(name)
                made.append(as_rows(part.flat[at], part.graph.shapes[name], packed.axes[name], part.tokens))
            else:
                made.append(np.tile(self._of_length(part.execution).constants[name], (part.batch, 1)))
        return np.ascontiguousarray(np.concatenate(made), dtype=dtype)

    def _free(self, execution: Execution) -> list[tuple[Shape, int]]:
        """Return the axes of inputs that have any length, with the shapes in which they are."""
        lengths = self._usual.graph.facts.lengths
        assert lengths is not None  # other networks have no packs
        shapes = shapes_of_inputs(execution.graph)
        return [(shapes[name], axis) for name, axes in lengths.free.items() for axis in axes]

    def _tokens(self, execution: Execution) -> int:
        sizes = {shape[axis] for shape, axis in self._free(execution)}
        if len(sizes) != 1:
            raise NotPacked("its inputs have more than one length")
        return sizes.pop()

    def _prepare(self, executions: Sequence[Execution]) -> None:
        """Make the packing, once, of two of these lengths."""
        with self._preparing:
            self._prepare_once(executions)

    def _prepare_once(self, executions: Sequence[Execution]) -> None:
        if self._refused is not None:
            raise NotPacked(self._refused)
        if self._packing is not None:
            return
        by_tokens = {self._tokens(execution): execution for execution in (self._usual, *executions)}
        several = sorted((n for n in by_tokens if n > 1), key=lambda n: (n < _FEW, n))[:_LENGTHS]
        if len(several) < _LENGTHS:
            raise NotPacked("only one of them has more than one token")
        one, other = (by_tokens[tokens].joined.composed.graph for tokens in several)
        try:
            self._packing = packing(one, several[0], other, several[1])
            self._require_by_token(by_tokens[several[0]], several[0])
        except (NotPacked, ValueError) as reason:
            self._packing, self._refused = None, str(reason)
            self._forms.clear()
            raise NotPacked(str(reason)) from None

    def _require_by_token(self, execution: Execution, tokens: int) -> None:
        """Raise NotPacked where a layer makes something else of a sample whose tokens are rows."""
        packed, graph = self._known_packing, execution.joined.composed.graph
        random = np.random.default_rng(0)
        flat = [
            (random.standard_normal if name in packed.axes else np.zeros)((1, product(shape))).astype(graph.dtype)
            for name, shape in graph.inputs.items()
        ]
        form, rows = self._for_core([Part(execution, flat, 1, 0, tokens)])
        names, alone = [node.name for node in graph.nodes], execution.joined
        wanted = alone.core.forward(flat, [alone.values[name] for name in names], 0)
        found = form.lowered.core.forward(rows, [form.lowered.values[name] for name in names], 0)
        near = _NEAR[graph.dtype.name]
        for name, one, other in zip(names, found, wanted, strict=True):
            expected = as_rows(other, graph.shapes[name], packed.axes[name], tokens)
            scale = np.abs(expected[np.isfinite(expected)]).max(initial=0) or 1
            if not np.allclose(one / scale, expected / scale, rtol=0, atol=near, equal_nan=True):
                raise NotPacked(f"layer {name!r} mixes tokens")

    def _of_length(self, execution: Execution) -> _OfLength:
        """Return what one length's graph holds."""
        known = self._lengths.get(execution)
        if known is None:
            packed, graph, tokens = self._known_packing, execution.joined.composed.graph, self._tokens(execution)
            packed.require_like(graph)
            layers: dict[str, Any] = {node.name: node.layer for node in graph.nodes}
            constants: dict[str, Array] = {}
            added: dict[str, Any] = {}
            for node, inputs in packed.constants.items():
                shape = graph.shapes[node]
                for array, name in inputs:
                    full = np.broadcast_to(np.asarray(getattr(layers[node], array), graph.dtype), shape).reshape(1, -1)
                    constants[name] = as_rows(full, shape, packed.axes[node], tokens)
            for node, mask in packed.masks.items():
                if mask is not None and mask not in added:
                    added[mask] = [each_added(each, layers[node], graph) for each in layers[node].added]
            known = self._lengths[execution] = _OfLength(constants, added)
        return known

    def _pages(self, lowered: Lowered, ledger: Array) -> Array:
        """Return the pages of the packed graph's nodes, those of segments with the nodes that they stand before."""
        pages = ledger[lowered.rows].copy()
        at = {node.name: i for i, node in enumerate(lowered.graph.nodes)}
        for name, before in self._known_packing.before.items():
            page, below = pages[at[name]], pages[at[before]]
            others = [i for i in range(len(COLUMNS)) if i not in (_INCOMING, _OUTGOING)]
            page[others] += below[others]
            page[_OUTGOING] = below[_OUTGOING]
        return pages


def _require_alike(call: Call, first: Call) -> None:
    """Raise NotPacked where a call asks for something else than the first, or for what only its own graph has."""
    if call.prepared.assignment.cones:
        raise NotPacked("a rule makes several layers one")
    if not call.whole_attention:
        raise NotPacked("attention is explained layer by layer")
    if call.request.expanded is not None or call.asked_values() != first.asked_values():
        raise NotPacked("they are asked for other values")
    one, other = (product(each.graph.shapes[each.top]) for each in (call, first))
    if call.request.start == "one" and one != other:
        raise NotPacked("relevance starts at one for all tokens together")
