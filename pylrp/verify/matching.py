"""Which value of a file each value of a network is, and what of the file a layer of the network stands for.

The one file here that looks at a network's graph. Layers are called after the file's nodes; a layer that stands for
several nodes is called after the last of them, one whose scaling was folded away after the first. ``against.py`` hands
what is found to a :class:`~pylrp.verify.tape.Tape`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pylrp.layers import Affine, Layer, Multiply, Recurrent, ShiftBy
from pylrp.network.graph import Graph, Node
from pylrp.rules.assignment import Assignment
from pylrp.rules.choice import rule_kinds
from pylrp.rules.gates import signal_of
from pylrp.verify.folding import Folding, is_scaling, is_weighted, moves
from pylrp.verify.helpers import OWN
from pylrp.verify.pooling import NORMALISATIONS, REDUCTIONS
from pylrp.verify.program import Program, Step
from pylrp.verify.recurrent import RECURRENT
from pylrp.verify.reference import by_kind_and_place
from pylrp.verify.rules import name_of
from pylrp.verify.tape import Region, Rules

__all__ = ["Matching", "input_pairs"]

_TRANSPARENT = ("Identity", "Dropout", "Cast", "CastLike", "Pad")
#: What may stand at the top of a model, and is taken away.
_TOPS = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Softplus", "Exp", "Log", "Clip", "Tanh", "Div")
#: What ends a normalisation that is written out.
_ARITHMETIC = ("Add", "Div", "Mul", "Sub", "Sum", "Reshape")
_DETACHING = ("detach", "detachall")
_STATISTICS = (*REDUCTIONS, "AveragePool", "GlobalAveragePool")
_MOST_ABOVE = 8
_CUTTING = ("Split", f"{OWN}.Parts")
#: What the loader calls the states beside the sequence, by their place among the outputs.
_STATES = {"last_h": 1, "last_c": 2}
_ONE_LAYER = ("function", "softmax", "normalisation")


@dataclass
class Matching:
    """A network's graph beside a program.

    Parameters
    ----------
    program : Program
    assignment : Assignment
        The network's graph with its rules.
    composite : Composite or other rules
        For files whose nodes are called otherwise than the network's layers.
    nearest : callable
        ``nearest(name, values)``: which of some values of the file a value of the network is most like.

    Attributes
    ----------
    values : dict of str to str
        The file's value for each value of the network that is in both.
    scaled : set of str
        Values of the network that differ from the file's by a factor that was folded: relevance can be compared.
    fixed : set of str
        The file's statistics of normalisations that it writes out, where a rule takes all of them as constants.
    folding, rules, regions, merged : see :class:`~pylrp.verify.tape.Tape`
    notes : list of str
    """

    program: Program
    assignment: Assignment
    composite: Any
    nearest: Callable[[str, Sequence[str]], str]
    values: dict[str, str] = field(default_factory=dict)
    scaled: set[str] = field(default_factory=set)
    regions: dict[str, Region] = field(default_factory=dict)
    merged: set[str] = field(default_factory=set)
    fixed: set[str] = field(default_factory=set)
    signals: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        graph = self.assignment.graph
        self._nodes = {node.name: node for node in graph.nodes}
        self._steps = _named(self.program, self._nodes)
        self._inputs(graph)
        apart: set[str] = set()
        self._inner: dict[str, list[Step]] = {}
        self._taking: set[str] = set()
        for node in graph.nodes:
            step = self._steps.get(node.name)
            if step is not None:
                self._match(node, step, apart)
            elif "/" in node.name:
                self._output_of(node.name)
        self._outputs(graph)
        weighted = [node for node in graph.nodes if node.layer.weighted]
        known = [node for node in weighted if node.name in self.values or self._is_part_of_known(node)]
        self.by_name = len(known) == len(weighted)
        kept = {
            step.name for name, step in self._steps.items() if name in self._nodes and _stays(self._nodes[name].layer)
        }
        kept.update(
            f"{step.name}/{part}"
            for name, step in self._steps.items()
            for part in ("minus", "before", "first", "second")
            if f"{name}/{part}" in self._nodes and _stays(self._nodes[f"{name}/{part}"].layer)
        )
        self.folding = Folding(self.program, kept if self.by_name else None, apart, self._taking)
        self.rules = self._rules()
        for name, step in self._steps.items():  # the number of summands may be part of the layer above
            if step.op == "ReduceSum" and f"{name}/sum" not in self._nodes:
                made = self._nodes.get(name)
                self.scaled.update([name] if made is not None and made.layer.rule_kind != "batchnorm" else [])

    def _is_part_of_known(self, node: Node) -> bool:
        """Tell whether a layer does what a step does: states that outputs are cut out of, an STFT's convolution."""
        whole = self._steps.get(node.name.rpartition("/")[0])
        if whole is None:
            return False
        return whole.op == "STFT" or (isinstance(node.layer, Recurrent) and whole.op in RECURRENT)

    def _output_of(self, name: str) -> None:
        """Take a layer for one of several outputs of a step: a part that is cut off, or the last states."""
        whole, _, part = name.rpartition("/")
        step = self._steps.get(whole)
        if step is None:
            return
        at = None
        if step.op in _CUTTING and part.isdigit():
            at = int(part)
        elif step.op in RECURRENT:
            at = _STATES.get(part)
        if at is not None and at < len(step.outputs) and step.outputs[at]:
            self.values[name] = step.outputs[at]

    def _inputs(self, graph: Graph) -> None:
        self.values.update({name: value for value, name in input_pairs(self.program, graph).items()})
        for name in graph.inputs:  # rows of a table that ids choose
            step = self._steps.get(name)
            if name not in self.values and step is not None and step.outputs[0] in self.program.tables:
                self.values[name] = step.outputs[0]

    def _outputs(self, graph: Graph) -> None:
        """Take outputs that have no value so far for the file's: of the same name, or in order."""
        for number, (name, value) in enumerate(graph.output_values.items()):
            outputs = self.program.outputs
            found = name if name in outputs else outputs[number] if len(outputs) == len(graph.outputs) else None
            if value in self.values or found is None:
                continue
            candidates = [found]  # a function at the top may have been taken away
            while (step := self.program.made_by.get(candidates[-1])) is not None and len(candidates) < _MOST_ABOVE:
                below = [each for each in step.inputs if each in self.program.carries]
                if not below or not (self._transparent(step) or step.op in _TOPS):
                    break
                candidates.append(below[0])
            self.values[value] = self.nearest(value, candidates)

    def _match(self, node: Node, step: Step, apart: set[str]) -> None:
        """Take a layer for the step of its name, with what lies between the layer's inputs and the step."""
        bases = list(dict.fromkeys(base for value in node.inputs for base in self._bases(value)))
        inner = self._between(bases, step)
        kind = node.layer.rule_kind
        plain = all(self._transparent(each) for each in inner)
        if not plain and self._above_removed_top(kind, inner):
            return
        if kind == "normalisation":
            self._taking.add(step.name)
            self._inner[node.name] = inner
        # A formula may have a constant in it that the file adds in a node of its own.
        several = not plain or (bool(inner) and node.layer.kind == "function")
        if several and kind in _ONE_LAYER and len(bases) == 1:
            apart.update(each.name for each in (*inner, step))
            base = self._behind_scalings(node.inputs[0], bases[0], inner)
            if base != bases[0]:
                below = self.program.made_by[base]
                apart.difference_update(each.name for each in (below, *self._between([bases[0]], below)))
            if kind != "normalisation":
                axis = getattr(node.layer, "axis", -1)
                out = step.outputs[0]
                self.regions[out] = Region(base, out, kind, axis + 1 if axis >= 0 else axis)
        self.merged.update(each.name for each in inner if each.op == "Pad" and kind == "conv")
        if isinstance(node.layer, Multiply):
            self._signal(node, step)
        elif isinstance(node.layer, ShiftBy):
            self._lead(node.inputs[0], step)
        self.values[node.name] = self._made(node, step)

    def _made(self, node: Node, step: Step) -> str:
        """Return the value of a step that the layer of its name is: of states, the sequence or the last ones."""
        if isinstance(node.layer, Affine):
            return self._scaled(node, step)
        if step.op not in RECURRENT:
            return step.outputs[0]
        below = self._nodes.get(node.inputs[0])
        last = isinstance(below.layer, Recurrent) and below.layer.returns == "last" if below is not None else False
        return step.outputs[1] if last else step.outputs[0]

    def _scaled(self, node: Node, step: Step) -> str:
        """Return the value of a scaling: it may be one layer with those behind it, and a constant mask there."""
        candidates, carries = [step.outputs[0]], self.program.carries
        while len(candidates) < _MOST_ABOVE:
            readers = [each for each in self.program.readers.get(candidates[-1], []) if each.outputs[0] in carries]
            if len(readers) != 1 or readers[0].name in self._nodes:
                break
            masks = readers[0].op == "Where" and readers[0].inputs[0] not in carries
            if not (masks or is_scaling(self.program, readers[0])):
                break
            candidates.append(readers[0].outputs[0])
        return candidates[0] if len(candidates) == 1 else self.nearest(node.name, candidates)

    def _signal(self, node: Node, step: Step) -> None:
        """Keep which factor of a product the network takes for the signal: the file's own nodes may not tell."""
        rule = self.assignment.rules.get(node.name)
        signal = None if rule is None else signal_of(node, rule)
        if signal is None:
            return
        if not self._lead(node.inputs[signal], step):
            self.signals[step.name] = signal

    def _lead(self, value: str, step: Step) -> bool:
        """Keep which of a step's inputs a value of the network leads to; return whether it is one alone."""
        bases = self._bases(value)
        leads = [i for i, name in enumerate(step.inputs) if name in bases or self._reaches(name, bases)]
        if len(leads) == 1:
            self.signals[step.name] = leads[0]
        return len(leads) == 1

    def _reaches(self, value: str, bases: list[str]) -> bool:
        step = self.program.made_by.get(value)
        return step is not None and not set(bases).isdisjoint(
            name for each in (step, *self._between(bases, step)) for name in each.inputs
        )

    def _behind_scalings(self, name: str, base: str, inner: list[Step]) -> str:
        """Return the value that a function is of: a network's value may have a bias in it that the file adds later."""
        candidates = [base]
        while len(readers := self.program.readers.get(candidates[-1], [])) == 1 and readers[0] in inner:
            if not self._transparent(readers[0]):
                break
            candidates.append(readers[0].outputs[0])
        steps = [self.program.made_by[value] for value in candidates[1:]]
        if len(self.program.readers.get(candidates[-1], [])) > 1 and all(each.op == "Identity" for each in steps):
            return candidates[-1]  # others read what is dequantised, too
        return candidates[0] if len(candidates) == 1 else self.nearest(name, candidates)

    def _above_removed_top(self, kind: str | None, inner: list[Step]) -> bool:
        """Tell whether a function at the top was taken away below a layer, which stands for other values then."""
        tops = self.assignment.graph.facts.top
        return bool(tops) and kind in (None, "batchnorm") and any(each.op in _TOPS for each in inner)

    def _bases(self, value: str) -> list[str]:
        """Return the file's value, or those below parts of a node that is several layers."""
        if value in self.values:
            return [self.values[value]]
        node = self._nodes.get(value)
        return [] if node is None else [base for below in node.inputs for base in self._bases(below)]

    def _between(self, bases: list[str], step: Step) -> list[Step]:
        """Return the steps between some values and a step."""
        found: dict[str, Step] = {}
        waiting = [name for name in step.inputs if name in self.program.carries]
        while waiting:
            name = waiting.pop()
            if name in bases:
                continue
            below = self.program.made_by.get(name)
            if below is not None and below.name not in found:
                found[below.name] = below
                waiting += [each for each in below.inputs if each in self.program.carries]
        return list(found.values())

    def _transparent(self, step: Step) -> bool:
        return step.op in _TRANSPARENT or is_scaling(self.program, step) or moves(self.program, step)

    def _rules(self) -> Rules:
        """Return the rules by the steps' names: the network's, or those that the composite gives the file's steps."""
        if not self.by_name:
            self.notes.append(
                "the file's nodes are not called as the network's layers: rules are given by kind and place"
            )
            return by_kind_and_place(self.program, self.folding, self.composite)
        assignment = self.assignment
        kinds = rule_kinds(assignment.graph)
        named: dict[str, Any] = dict(assignment.rules)
        for node in assignment.graph.nodes:
            if node.layer.rule_kind in ("softmax", "normalisation") and node.name not in kinds:
                named[node.name] = "pass"  # at the top
            elif node.layer.rule_kind == "normalisation" and name_of(named.get(node.name, "")) in _DETACHING:
                step = self._steps.get(node.name)
                if step is not None and step.op in _ARITHMETIC:  # written out: each of its steps is what it is
                    rule, inner = named.pop(node.name), self._inner.get(node.name, [])
                    named.update({each.name: rule for each in inner if each.op in NORMALISATIONS})
                    if name_of(rule) == "detachall":
                        self.fixed.update(each.outputs[0] for each in inner if self._counts(each))
        # What an Einsum is but for transposes, and an STFT but for reshapes.
        for name in [each for each in named if each.endswith(("/product", "/waves"))]:
            step = self._steps.get(name.rpartition("/")[0])
            if step is not None:
                named.setdefault(step.name, named[name])
        own = {name: step.name for name, step in self._steps.items() if name != step.name}
        named = {own.get(name, name): rule for name, rule in named.items()}
        return Rules(named, {"default": "zero", "function": "pass", "softmax": "taylor", "normalisation": "detach",
                             "matmul": "half", "product": "signal"})  # fmt: skip

    def _counts(self, step: Step) -> bool:
        """Tell whether a step in a normalisation makes a statistic: a mean or sum of values."""
        return step.op in _STATISTICS or is_weighted(self.program, step)

    def consumers(self, value: str) -> list[str]:
        """Return the names of the layers that take a value of the network."""
        return list(dict.fromkeys(node.name for node, _ in self.assignment.graph.consumers(value)))


def _stays(layer: Layer) -> bool:
    """Tell whether a layer is a scaling, or sum with a constant, of its own."""
    return layer.rule_kind in ("batchnorm", "add") or layer.kind == "scale_by"


def input_pairs(program: Program, graph: Graph) -> dict[str, str]:
    """Return the network's input for inputs of the file: of the same name, else the next in order."""
    sides = graph.facts.sides
    own = [name for name in graph.inputs if sides is None or name not in sides.feeds]
    names = [name for name in program.inputs if name in program.carries]
    found = {name: name for name in names if name in own}
    rest = [name for name in own if name not in found]
    return {**found, **dict(zip([name for name in names if name not in found], rest, strict=False))}


def _named(program: Program, layers: Collection[str]) -> Mapping[str, Step]:
    """Return the steps by the names that layers get: a name that comes again has a number behind it.

    So has that of a layer which is called as an output of the file, where something above it makes that output.
    """
    taken = set(program.inputs)
    found: dict[str, Step] = {}
    for step in program.steps:
        name = _free(step.name, taken)
        if name in program.outputs and name not in layers and _free(name, {*taken, name}) in layers:
            name = _free(name, {*taken, name})
        taken.add(name)
        found[name] = step
    return found


def _free(name: str, taken: Collection[str]) -> str:
    """Return a name that is not taken: with the next number behind it."""
    free, number = name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free
