"""A network beside the file it was loaded from: predictions, values, relevance and the ledger, layer by layer.

``matching.py`` says which value is which, ``tape.py`` evaluates the file, ``verdict.py`` judges what is found.
:meth:`pylrp.Network.verify` and ``pylrp verify`` call :func:`verify`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from pylrp.layers import Movement, Recurrent
from pylrp.network import requests
from pylrp.network.graph import Node
from pylrp.verify.alignment import Alignment, Errors, largest_error
from pylrp.verify.feed import Feed
from pylrp.verify.fused_attention import FusedAttention, by_chance
from pylrp.verify.layer_checks import culprit, layer_checks
from pylrp.verify.matching import Matching
from pylrp.verify.prediction import predicted
from pylrp.verify.program import Array, Program
from pylrp.verify.rounding import measure_anew, measure_prediction, measure_relevance
from pylrp.verify.roundings import ROUNDINGS
from pylrp.verify.rules import Share
from pylrp.verify.tape import Tape
from pylrp.verify.verdict import Found, judged
from pylrp.verify.verification import Verification

if TYPE_CHECKING:
    from pylrp.network.explanation import Explanation
    from pylrp.network.network import Network

__all__ = ["TOLERANCES", "Check", "verify"]

#: What an error may be, by dtype of the network; a share of the largest entry.
TOLERANCES = {"float32": 1e-4, "float64": 1e-9}


def verify(
    network: Network,
    x: Any,
    model: Any,
    *,
    target: Any = None,
    composite: Any = None,
    output: str | None = None,
    tolerance: float | None = None,
) -> Verification:
    """Return how a network and its explanation compare with a model; :meth:`pylrp.Network.verify` describes it."""
    program = Program.read(model)
    ex = network.explain(x, target, composite, output=output, layers="all")
    allowed = TOLERANCES[str(network.dtype)] if tolerance is None else tolerance
    return Check(network, x, ex, program, allowed, target).result()


class Check:
    """One comparison."""

    def __init__(
        self, network: Network, x: Any, ex: Explanation, program: Program, tolerance: float, target: Any = None
    ):
        self.network, self.ex, self.tolerance = network, ex, tolerance
        self.given_x, self.given_target = x, target
        self.execution = network._execution_of(x)
        self.graph = self.execution.graph
        self.inputs = requests.Inputs(self.graph, x)
        feed = Feed(program, self.graph, self.inputs)
        self.program = program = program.decided(feed.given(next(feed.chunks())[0]))
        self.feed = Feed(program, self.graph, self.inputs)
        composite = ex.settings["composite"]
        self.assignment = self.execution.plan(composite, "zennit").assignment
        self.top = self.graph.value(ex.settings["output"])
        self.values, self.incoming, self.prediction, self.rounding = Errors(), Errors(), Errors(), Errors()
        self.prediction_rounding = Errors()
        self.evaluator = "numpy"
        names = list(dict.fromkeys([*self.graph.inputs, *(node.name for node in self.graph.nodes)]))
        found = self.execution.values_of(self.inputs, names, 0)
        self.found = {name: array.astype(np.float64) for name, array in zip(names, found, strict=True)}
        self.alignment = Alignment()
        self.movements = {node.name for node in self.graph.nodes if isinstance(node.layer, Movement)}
        self.matching = Matching(program, self.assignment, _as_composite(composite), self._nearest)
        self.notes = list(self.matching.notes)

    def _nearest(self, name: str, candidates: Sequence[str]) -> str:
        """Return which of some values of the file a value of the network is most like, for the first samples."""
        rows, values = self._first_run
        errors = {value: largest_error(self.found[name][rows], values[value]) for value in candidates}
        return min(candidates, key=lambda value: np.inf if (error := errors[value]) is None else error)

    @cached_property
    def _first_run(self) -> tuple[Array, dict[str, Array]]:
        rows, _ = next(self.feed.chunks())
        return rows, self.program.run(self.feed.given(rows))

    def result(self) -> Verification:
        """Run the file, and compare."""
        ours = self.found
        self.tapes: list[tuple[slice, Tape]] = []
        for rows, count in self.feed.chunks():
            self._compare(rows, count, ours)
        fused = FusedAttention.of(self, self.given_x, self.given_target)
        if fused is not None and self._wrong(fused.relevance) and not self.rounding.found:
            measure_anew(self)
        found = Found(
            values=self.values.found,
            incoming=self.incoming.found,
            prediction=self.prediction.found,
            rounding=self.rounding.found,
            prediction_rounding=self.prediction_rounding.found,
            coarseness=self.program.coarseness,
            tolerance=self.tolerance,
            evaluator=self.evaluator,
            notes=self.notes,
            inputs=[name for name in self.graph.inputs if name in self.matching.values],
            culprit=lambda value: culprit(self, value),
            maker=self._maker,
            fused=fused,
            fused_rounding={} if fused is None else by_chance(self),
            fused_culprit=lambda: "" if fused is None else fused.culprit(self, self.given_x, self.given_target),
        )
        return judged(layer_checks(self), found)

    def _maker(self, name: str) -> str:
        """Return the layer that has made a value: below layers that only move what is no value of the file."""
        nodes = {node.name: node for node in self.graph.nodes}
        while (
            name in self.movements and (below := nodes[name].inputs[0]) in nodes and below not in self.matching.values
        ):
            name = below
        return name

    def _compare(self, rows: Array, count: int, ours: Mapping[str, Array]) -> None:
        given = self.feed.given(rows)
        values = self.program.run(given, rounded=self._rounded(rows))
        tape = self.tape(values, self._decided(values, rows))
        tape.taken = self._joint(values, rows)
        tops = {name: self.matching.values[self.graph.value(name)] for name in self.graph.outputs
                if self.graph.value(name) in self.matching.values}  # fmt: skip
        after = self._folded_tops()
        asked = {name: self._with_numbers(after.get(value, value)) for name, value in tops.items()}
        watched = list(dict.fromkeys([*asked.values(), *self.program.outputs]))
        self.evaluator, told = predicted(self.program, given, watched)
        for name, value in asked.items():
            theirs = told.get(value, values[value])
            if self.program.is_recurrent:  # the batch may be on any axis
                top = self.graph.value(name)
                turned = self.alignment.find(f"{name}:", self._shaped(top, rows), theirs, self._batch_axes.get(value))
                theirs = theirs if turned is None else turned
            self.prediction.add(name, ours[self.graph.value(name)][rows[:count]], theirs[:count])
        # That the evaluation in NumPy is the model's, too; not of probabilities, where rounding of a logit is large.
        for value in [] if self.graph.facts.top else self.program.outputs:
            if value in told and values[value].dtype.kind == "f":
                self.prediction.add(f"NumPy {value}", values[value][:count], told[value][:count])
        if self._wrong(self.prediction.found):
            exact = {name: largest_error(ours[self.graph.value(name)][rows[:count]], values[value][:count])
                     for name, value in asked.items()}  # fmt: skip
            right = {n: v for n, v in asked.items() if (error := exact[n]) is not None and error <= self.tolerance}
            measure_prediction(self, given, count, values, right)
        effective = tape.effective()
        for name, value in self.matching.values.items():
            if name not in self.matching.scaled and name not in self.graph.inputs:
                step = self.program.made_by[value]
                output = tape.output(step) if value == step.outputs[0] else values[value]
                output = effective.get(value, output)
                turned = self.alignment.find(
                    name, self._shaped(name, rows), output, self._batch_axes.get(value), moved=name in self.movements
                )
                if turned is None:
                    self.values.found[name] = np.inf  # another shape
                else:
                    self.values.add(name, ours[name][rows[:count]], turned[:count])
        tape.back(self.starts(tape, rows))
        for name, value in self.matching.values.items():
            relevance = self.ours(name, rows[:count])
            turned = self.aligned(name, tape.relevance(value))
            if relevance is not None and turned is not None:
                self.incoming.add(name, relevance, turned[:count])
        if self.network.dtype == np.float32 and self._wrong(self.incoming.found) and not self._wrong(self.values.found):
            measure_relevance(self, given, rows, count, tape)
        self.tapes.append((slice(int(rows[0]), int(rows[0]) + count), tape))

    def _with_numbers(self, value: str) -> str:
        """Return a value that holds what a quantised one stands for: an evaluator of the file has whole numbers."""
        step = self.program.made_by.get(value)
        if step is not None and step.op in ROUNDINGS:
            readers = [each for each in self.program.readers.get(value, []) if each.op == "Identity"]
            value = readers[0].outputs[0] if readers else value
        return value

    def _wrong(self, errors: Mapping[str, float]) -> bool:
        return any(not error <= self.tolerance for error in errors.values())

    @cached_property
    def _batch_axes(self) -> dict[str, int]:
        """Return the axis that grows with the batch, for each value, where a network may have moved it."""
        fixed = self.feed.fixes_batch
        mixed = any(node.layer.kind == "matmul" or isinstance(node.layer, Recurrent) for node in self.graph.nodes)
        if fixed or not mixed:
            return {}
        rows, values = self._first_run
        try:
            more = self.program.run(self.feed.given(np.append(rows, rows[-1])))
        except ValueError:  # constants of the file have a batch of their own
            return {}
        found = {}
        for name, array in values.items():
            if array.ndim == more[name].ndim:
                grown = [i for i, (n, m) in enumerate(zip(array.shape, more[name].shape, strict=True)) if n != m]
                found.update({name: grown[0]} if len(grown) == 1 else {})
        return found

    def aligned(self, name: str, relevance: Array) -> Array | None:
        """Return relevance of the file's in the order of the network's value."""
        if name in self.graph.inputs:
            first = relevance[None] if self.matching.values[name] in self.feed.without_batch else relevance
            return np.moveaxis(first, self.graph.facts.batch_axes.get(name, 0), 0)
        if name in self.matching.scaled:
            return relevance
        return self.alignment.again(name, relevance)

    def _shaped(self, name: str, rows: Array) -> Array:
        """Return the network's value for some samples, (batch, *shape)."""
        return self.found[name][rows].reshape(len(rows), *self.graph.shapes[name])

    def tape(
        self, values: Mapping[str, Array], decided: Mapping[str, Array] | None = None, dtype: DTypeLike = np.float64
    ) -> Tape:
        """Return a tape of a run of the file."""
        found = self.matching
        return Tape(
            self.program,
            values,
            found.rules,
            found.folding,
            found.regions,
            found.merged,
            found.signals,
            decided=decided,
            fixed=found.fixed,
            dtype=dtype,
        )

    def _decided(self, values: Mapping[str, Array], rows: Array) -> dict[str, Array]:
        """Return the network's values by which it finds the largest of a window, where they are the file's."""
        names = {value: name for name, value in self.matching.values.items()}
        names.update({top: names[value] for value, top in self._folded_tops().items() if value in names})
        found = {}
        for step in self.program.steps:
            value = step.inputs[0] if step.op in ("MaxPool", "GlobalMaxPool") else ""
            if value in names and self.found[names[value]][rows].size == values[value].size:
                ours = self.found[names[value]][rows].reshape(values[value].shape)
                error = largest_error(ours, values[value]) if len(ours) == len(rows) else None
                if error is not None and error <= self.tolerance:
                    found[value] = ours
        return found

    def _rounded(self, rows: Array) -> dict[str, Array]:
        """Return the network's values where the file rounds: between two numbers, rounding errors decide."""
        made_by, found = self.program.made_by, {}
        for name, value in self.matching.values.items():
            step = made_by.get(value)
            if step is not None and step.op in ROUNDINGS:
                found[value] = self._shaped(name, rows)
        return found

    def _joint(self, values: Mapping[str, Array], rows: Array) -> dict[str, dict[str, Array]]:
        """Return the network's relevance below layers that are one with the operations before them: it is taken over.

        Flat, w² and the z-box see a first layer and averages, sums or resizing before it as one (``composition.py``).
        """
        found: dict[str, dict[str, Array]] = {}
        for name, (cone, _) in self.assignment.cones.items():
            step = self.program.made_by.get(self.matching.values.get(name, ""))
            if step is None:
                continue
            below = found.setdefault(step.name, {})
            for base in cone.bases:
                ours = self.ours(base, rows) if base in self.matching.values else None
                if ours is not None:
                    value = self.matching.values[base]
                    below[value] = ours.reshape(values[value].shape)
            self.notes.append(
                f"{name!r} and the operations before it are one layer under {self.assignment.text(self._node(name))}: "
                f"relevance of {', '.join(cone.bases)} is taken over"
            )
        return found

    def _node(self, name: str) -> Node:
        return next(node for node in self.graph.nodes if node.name == name)

    def _folded_tops(self) -> dict[str, str]:
        """Return the value behind the scalings that are folded into the step that makes a value, if there are any."""
        found = {}
        for step in self.program.steps:
            placed = self.matching.folding.after.get(step.name)
            if placed and not any(each.way for each in placed):
                found[step.outputs[0]] = placed[-1].scaling.outputs[0]
        return found

    def ours(self, name: str, rows: Array) -> Array | None:
        """Return the network's relevance of a value for some samples, None where it has none."""
        layers = self.ex.layers
        if name not in layers:
            return None
        relevance = np.asarray(layers[name], np.float64)
        relevance = relevance[None] if self.inputs.single else relevance
        if name in self.graph.channels_last:
            relevance = relevance.transpose(0, relevance.ndim - 1, *range(1, relevance.ndim - 1))
        return relevance[rows]

    def starts(self, tape: Tape, rows: Array) -> dict[str, Share]:
        """Return where relevance starts: at the class, or with the network's own where the top is not in the file."""
        if self.top not in self.matching.values:
            return self._taken_over(rows)
        value = self.matching.values[self.top]
        step = self.program.made_by.get(value)
        output = tape.values[value] if step is None else tape.output(step)
        if self.ex.target is None:
            ours = self.ours(self.top, rows)
            assert ours is not None
            return {value: Share(0.0, self.alignment.placed(self.top, ours, output.shape))}
        target = np.broadcast_to(np.asarray(self.ex.target, np.int64), (self.inputs.batch,))[rows]
        sign = np.ones(len(rows))
        if self.ex.settings["two_classes"]:
            target, sign = np.zeros_like(target), np.where(target == 0, -1.0, 1.0)
        c = np.zeros((len(rows), *self.graph.shapes[self.top]))
        c[np.arange(len(rows)), target] = sign.reshape(-1, *(1,) * (c.ndim - 2))
        c = self.alignment.placed(self.top, c, output.shape)
        return {value: Share(c) if step is None or step.name not in tape.folding.after else Share(0.0, c * output)}

    def _taken_over(self, rows: Array) -> dict[str, Share]:
        """Return the network's relevance of the highest values that are in the file."""
        below, found = {self.top}, {}
        for node in reversed(self.graph.nodes):
            if node.name not in below:
                continue
            if node.name in self.matching.values:
                ours = self.ours(node.name, rows)
                if ours is not None:
                    value = self.matching.values[node.name]
                    found[value] = Share(0.0, ours.reshape(len(rows), *self.tapes_shape(value)))
            else:
                below.update(node.inputs)
        self.notes.append(
            f"{self.top!r}, where relevance starts, is no value of the file: relevance below is taken over"
        )
        return found

    def tapes_shape(self, value: str) -> tuple[int, ...]:
        """Return the shape of a sample of a value of the file."""
        name = next(name for name, each in self.matching.values.items() if each == value)
        return tuple(self.graph.shapes[name])


def _as_composite(given: Any) -> Any:
    """Return rules as a composite, for files whose nodes are called otherwise."""
    from pylrp.rules.composites import Composite, composite
    from pylrp.rules.terms import Rule

    if isinstance(given, str):
        return composite(given)
    return Composite(repr(given), given) if isinstance(given, Rule) else given
