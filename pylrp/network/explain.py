"""One explanation: what was asked is settled, the core runs once, the result is put together.

``network.py`` calls in with a :class:`Request`. ``requests.py`` and ``targets.py`` settle it, ``prepared.py`` has the
core's plan, ``explanation.py`` is what comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pylrp._arrays import name_of, rounds_to_bfloat16
from pylrp.layers.base import Array
from pylrp.network import masks, requests, targets
from pylrp.network.classes import Classes, as_indices
from pylrp.network.coefficients import quotient, require_coefficients, stand_in
from pylrp.network.entries import to_pass_again
from pylrp.network.execution import Execution
from pylrp.network.explanation import Coefficients, Explanation, Layers
from pylrp.network.finite import overflow_in_relevance, require_ledger
from pylrp.network.ledger import Ledger
from pylrp.network.positions import Positions
from pylrp.network.prepared import Prepared
from pylrp.network.ranges import warn_unscaled
from pylrp.rules.composites import Composite
from pylrp.rules.terms import Rule

__all__ = ["Call", "Request", "explain"]

#: Frames from the user's call down to the one that warns of its input.
_TO_CALLER = 6
_MOST_QUESTIONS = 64  # that a network keeps


@dataclass
class Request:
    """What a user asked of :meth:`pylrp.Network.explain`, where the arguments are described."""

    x: Any
    target: Any
    composite: str | Composite | Rule | Sequence[Rule]
    targets: Sequence[Any] | None
    against: Any
    start: str
    output: str | None
    layers: str | Sequence[str] | None
    masks: Mapping[str, Any] | None
    convention: str
    threads: int
    expanded: bool | None = None
    checkpoint: bool = False
    precision: str | None = None


def explain(execution: Execution, request: Request) -> Explanation:
    """Return an explanation; :meth:`pylrp.Network.explain` says what of and which errors there are."""
    if request.start not in ("logit", "one"):
        raise ValueError(f"start must be 'logit' or 'one', got {request.start!r}")
    call = Call(execution, request)
    call.propagate()
    return call.explanation()


class Question:
    """What a request asks of a network, whatever its input and its target are.

    Attributes
    ----------
    rules : str, Composite, Rule or sequence of Rule
    top : str
        The value where relevance starts.
    names, outputs : list of str
        The values whose relevance is asked for, and those that are.
    masks : mapping or None
    prepared : Prepared
    absorbed : mapping of str to AbsorbedValue
    positions : Positions
    classes : Classes
    """

    def __init__(self, execution: Execution, request: Request, bfloat16: bool):
        graph = execution.graph
        self.rules = request.composite  # stays alive as long as its identity is a key
        self.top = requests.start_value(graph, request.output)
        wanted = requests.wanted_values(graph, request.layers)
        self.masks: Mapping[str, Any] | None = masks.by_value(graph, request.masks)
        masked = [name for name in self.masks or () if isinstance(name, str)]
        needed = [*wanted, *masked, graph.value(self.top)]
        self.prepared = execution.plan(request.composite, request.convention, needed, bfloat16)
        self.absorbed = self.prepared.absorbed(self.top)
        if request.layers == "all":
            wanted = [name for name in wanted if name not in self.absorbed]
        requests.require_outside([*wanted, *(self.masks or ())], self.absorbed)
        self.positions = Positions(graph, self.prepared, request.convention, self.absorbed)
        self.classes: Classes = execution.classes_at(self.top)
        self.names = list(dict.fromkeys([*graph.inputs, *wanted]))
        self.outputs = list(dict.fromkeys([*graph.outputs, self.top]))


class Call:
    """One request on its way: settled when it is made, then run, then told."""

    def __init__(self, execution: Execution, request: Request):
        self.execution, self.request, self.graph = execution, request, execution.graph
        self.bfloat16 = rounds_to_bfloat16(request.precision, execution.graph.dtype)
        self.inputs = requests.Inputs(self.graph, request.x)
        if request.expanded is not None:
            requests.require_front(self.graph)
            self.inputs.expanded = request.expanded
        question = self._question()
        self.top, self.prepared, self.masks = question.top, question.prepared, question.masks
        self.absorbed, self.positions, self.classes = question.absorbed, question.positions, question.classes
        self.names, self.outputs = question.names, question.outputs
        self._warn()
        self.stays = masks.settled(self.graph, self.masks, self.inputs.batch, self.inputs.single)
        self.contrasted: Array | None = None
        self._settle_target()

    def _question(self) -> Question:
        """Return what is asked whatever the input is; it is settled once for rules by name, or in the same object."""
        request, known = self.request, self.execution.questions
        rules = request.composite
        usual = request.layers is None and request.masks is None and isinstance(rules, str | Composite | Rule)
        if not usual or not isinstance(request.output, str | None):
            return Question(self.execution, request, self.bfloat16)
        # By identity: equal rules may differ in whether a number was left at its default, and comparing takes long.
        key = rules if isinstance(rules, str) else id(rules), request.convention, request.output, self.bfloat16
        found = known.get(key)
        if found is None:
            if len(known) >= _MOST_QUESTIONS:
                known.clear()
            found = known[key] = Question(self.execution, request, self.bfloat16)
        return found

    def _plan(self, values: Sequence[str]) -> Prepared:
        return self.execution.plan(self.request.composite, self.request.convention, values, self.bfloat16)

    def _values_of(self, names: Sequence[str]) -> list[Array]:
        return self.execution.values_of(self.inputs, names, self.request.threads, self.bfloat16)

    def _warn(self) -> None:
        self.prepared.warn_outside(self.inputs, _TO_CALLER)
        if not self.prepared.assignment.boxes:
            for expected in self.execution.expected:
                warn_unscaled(expected, self.inputs.logical(expected.name), stacklevel=_TO_CALLER)

    def _settle_target(self) -> None:
        request, shape = self.request, self.graph.shapes[self.top]
        asked = targets.starts(self.inputs, shape, self.top, request.target, request.targets, self.classes)
        self.asked, self.starts, self.signs = asked, asked.starts, asked.signs
        if request.against is not None:
            values = self.execution.run(self.inputs, lambda: self._values_of([self.top]))
            self.contrasted, self.starts = targets.contrast(
                values[0], asked, request.against, request.start, shape, self.classes
            )
            self.signs = [None]

    def _in_core(
        self,
        outputs: Sequence[str],
        wanted: Sequence[str],
        zeros: tuple[str, float] | None = None,
        prepared: Prepared | None = None,
    ) -> Any:
        prepared = prepared or self.prepared
        values = prepared.values
        return prepared.plan.explain(
            self.inputs.flat,
            self.starts,
            self.request.start == "one",
            values[self.top],
            [values[name] for name in outputs],
            [values[name] for name in wanted],
            masks.for_core(self.stays, values),
            self.request.threads,
            None if zeros is None else (values[zeros[0]], zeros[1]),
            self.request.checkpoint and zeros is None,
        )

    def _of_one(self, name: str) -> Any:
        """Return what the core returns if the relevance of this value alone is asked for."""
        needed = [name, *(self.masks or ()), self.graph.value(self.top)]
        return self._in_core([], [name], None, self._plan(needed))

    def propagate(self) -> None:
        """Run the forward pass and the backward pass, and look at what came back."""
        outputs, names = self.asked_values()
        found, chosen, relevance, pages, finite = self.execution.run(
            self.inputs,
            lambda: self._in_core(outputs, names),
            lambda: overflow_in_relevance(self.graph, self.top, self._of_one),
        )
        self.take(found, chosen, relevance, self.prepared.pages(pages), finite)

    def asked_values(self) -> tuple[list[str], list[str]]:
        """Return the values, and those whose relevance is asked for."""
        return [*self.outputs, *self.positions.values], [*self.names, *self.positions.values]

    @property
    def whole_attention(self) -> bool:
        """Whether all attention is one layer of the core under these rules."""
        return self.prepared.is_of(self.execution.joined)

    def _give_signs(self, array: Array) -> None:
        """Turn the rows (targets x samples) of a score below 0, which the core explained as one above, in place."""
        batch = self.inputs.batch
        for t, sign in enumerate(self.signs):
            if sign is not None:
                array[t * batch : (t + 1) * batch] *= sign.reshape(-1, 1)

    def take(self, found: list[Array], chosen: list[Any], relevance: list[Array], pages: Array, finite: bool) -> None:
        """Take what the core returns, with the pages of the graph's nodes; ``finite``: all of it is."""
        names = self.asked_values()[1]
        self.chosen, self.relevance, self.pages = chosen, relevance, pages
        self.found, at_positions = found[: len(self.outputs)], found[len(self.outputs) :]
        if not finite:
            self.execution.require_finite(self.inputs, self.outputs, self.found)
            require_ledger(self.prepared.graph, self.pages)
        count = len(self.starts)
        if any(sign is not None for sign in self.signs):
            for array in (*self.relevance, *self.pages.transpose(0, 2, 1)):
                self._give_signs(array)
        values = dict(zip(self.positions.values, at_positions, strict=True))
        self.at_positions = self.positions.took(
            self.inputs, values, dict(zip(names, self.relevance, strict=True)), count
        )
        self.relevance = self.relevance[: len(self.names)]

    def explanation(self) -> Explanation:
        """Return the result in the order and the shapes that the user asked for."""
        graph, inputs, several = self.graph, self.inputs, self.request.targets is not None
        shapes = graph.shapes
        predicted = {name: inputs.shaped(a, shapes[name]) for name, a in zip(self.outputs, self.found, strict=True)}
        count = len(self.starts) if several else None
        maps = {
            name: inputs.with_target_axis(a, shapes[name], count, name)
            for name, a in zip(self.names, self.relevance, strict=True)
        }
        by_input = inputs.by_input(maps)
        positions = self.at_positions
        if isinstance(positions, dict):
            positions = {name: inputs.with_target_axis(a, a.shape[1:], count, "") for name, a in positions.items()}
        elif positions is not None:
            positions = inputs.with_target_axis(positions, positions.shape[1:], count, "")
        explained = self.contrasted
        if explained is None:
            explained = targets.explained(self.chosen, self.asked, several)
        features = {name: inputs.features(name) for name in by_input}
        return Explanation.with_later(
            self._later(maps),
            relevance=_sole(by_input),
            output=predicted[self.top] if len(graph.outputs) == 1 or self.request.output is not None else predicted,
            target=explained if explained is None or self.classes.numbered else as_indices(explained),
            input=_sole({name: inputs.explained(name) for name in by_input}),
            notes=tuple(dict.fromkeys([*inputs.notes, *self.asked.notes])),
            features=_sole(features),
            origin=inputs.origin,
            positions=positions,
        )

    def _later(self, maps: dict[str, Array]) -> dict[str, Callable[[Explanation], Any]]:
        """Return how an explanation makes the rest when it is asked for."""
        several, request = self.request.targets is not None, self.request
        self.inputs.flat, self.found, self.relevance = [], [], []  # nothing else needs them any more
        later: dict[str, Callable[[Explanation], Any]] = {
            "layers": lambda _: self._layers(maps),
            "ledger": lambda _: self._ledgers() if several else self._ledgers()[0],
            "settings": lambda _: self._settings(),
            "coefficients": lambda ex: self._coefficients(ex.layers),
        }
        if several or request.against is not None or self.masks is not None:  # which the caller may change
            settings = self._settings()
            later["settings"] = lambda _: settings
        return later

    def _ledgers(self) -> list[Ledger]:
        rows, applied = self.prepared.accounts(self.graph, self.masks or ())
        pages = self.prepared.account(self.pages, rows)
        pages = pages.reshape(len(rows), self.pages.shape[1], len(self.starts), self.inputs.batch)
        return [Ledger(pages[:, :, t], rows, applied, single=self.inputs.single) for t in range(len(self.starts))]

    def _layers(self, maps: dict[str, Array]) -> Layers:
        """Return the relevance of layers: what was kept, and how the rest is found by explaining once more."""
        graph, absorbed = self.graph, self.absorbed
        execution, request, masked = self.execution, self.request, self.masks

        def again(name: str) -> Array:
            ex = explain(execution, replace(request, masks=masked, layers=[name]))
            # What was given is not copied: it may have been overwritten since.
            if not all(_alike(ex.layers[given], maps[given]) for given in graph.inputs):
                raise RuntimeError(
                    f"relevance of {name!r} is found by explaining once more, and what was explained is no longer the "
                    f"same: an array was changed since. Explain with layers=[{name!r}], or keep a copy"
                )
            return ex.layers[name]

        names = [name for name in graph.shapes if name not in absorbed]
        return Layers(maps, names, again, graph.output_values, absorbed)

    def _coefficients(self, layers: Layers) -> Coefficients:
        """Return the coefficients of layers, found by explaining once more."""
        graph, rules = self.graph, self.prepared.assignment.rules
        execution, request, masked = self.execution, self.request, self.masks

        def find(name: str) -> Array:
            require_coefficients(graph, rules, name)
            return Call(execution, replace(request, masks=masked, layers=[name])).coefficients(name, layers[name])

        return Coefficients({}, list(layers), find, graph.output_values, self.absorbed)

    def coefficients(self, name: str, relevance: Array) -> Array:
        """Return ``R / a`` of a value, whose relevance R is as the user sees it."""
        inputs, count = self.inputs, len(self.starts)
        axis = count if self.request.targets is not None else None
        shape = self.graph.shapes[name]
        (values,) = self._values_of([name])
        by = stand_in(values)
        zeros = None
        if name in self.graph.inputs:
            at = list(self.graph.inputs).index(name)
            inputs.flat[at] = np.where(inputs.flat[at] == 0, inputs.dtype.type(by), inputs.flat[at])
        else:
            zeros = name, by
        _, _, (small,), *_ = self.execution.run(inputs, lambda: self._in_core([name], [name], zeros))
        self._give_signs(small)
        values = inputs.with_target_axis(np.tile(values, (count, 1)), shape, axis, name)
        return quotient(relevance, values, inputs.with_target_axis(small, shape, axis, name), by)

    def _settings(self) -> dict[str, Any]:
        request = self.request
        return {
            "composite": request.composite,
            "convention": request.convention,
            "start": request.start,
            "precision": "bfloat16" if self.bfloat16 else name_of(self.graph.dtype),
            "output": self.top,
            **masks.kept(self.masks, self.graph.shapes),
            "targets": None if request.targets is None else [to_pass_again(each) for each in request.targets],
            "against": (
                None if request.against is None else targets.to_pass_again(self.classes.resolve(request.against))
            ),
            "two_classes": self.classes.two,
            "single": self.inputs.single,
            "channels_last": sorted(self.graph.features_last),
        }


def _sole(by_name: Mapping[str, Any]) -> Any:
    """Return the one value there is, else the dict."""
    return dict(by_name) if len(by_name) > 1 else next(iter(by_name.values()))


def _alike(one: Array, other: Array) -> bool:
    """Whether two results are the same but for rounding."""
    scale = float(np.abs(other).max(initial=0))
    return bool((np.abs(one - other) <= 1e-4 * scale).all())
