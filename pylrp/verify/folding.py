"""Which factors and shifts of a file are part of a layer with weights: found in the file's own nodes.

A BatchNormalization, or a sum or product with a constant, behind a layer with weights is the same layer with other
weights and another bias; in front of one, too, where nothing else reads it. What lies between may move values. The
rules of layers with weights are meant for the layer with its scalings in it. ``tape.py`` works with what is found.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pylrp.verify.elementwise import SELU_GAMMA
from pylrp.verify.helpers import OWN
from pylrp.verify.linear import WEIGHTED
from pylrp.verify.moving import MOVES
from pylrp.verify.program import Program, Step

__all__ = ["Folding", "Placed", "carried", "factor_of", "is_choice", "is_scaling", "is_weighted", "moves"]

#: They may read other entries than those that are scaled.
_CUTTING = ("Slice", "Split", "Gather", f"{OWN}.Parts")
_WITH_CONSTANTS = ("Add", "Sub", "Mul", "Div", "Sum")


_ONE = "one of what is joined"


def carried(program: Program, step: Step) -> list[int]:
    """Return the positions of a step's inputs that carry relevance; of a Concat on a way the one that it leads to."""
    if _ONE in step.attributes:
        return [step.get(_ONE)]
    return [i for i, name in enumerate(step.inputs) if name in program.carries]


def is_weighted(program: Program, step: Step) -> bool:
    """Tell whether a step multiplies one value by constants that it mixes its entries with."""
    return step.op in WEIGHTED and len(carried(program, step)) == 1 and len([n for n in step.inputs if n]) > 1


def is_scaling(program: Program, step: Step) -> bool:
    """Tell whether a step multiplies each entry of one value by a constant, or adds one."""
    positions = carried(program, step)
    if step.op in ("BatchNormalization", "Neg"):
        return positions == [0]
    if step.op == "Where":
        return is_choice(program, step)
    if step.op not in _WITH_CONSTANTS or len(positions) != 1 or len(step.inputs) < 2:
        return False
    return step.op != "Div" or positions == [0]


def is_choice(program: Program, step: Step) -> bool:
    """Tell whether a step keeps some entries of one value and fills in finite constants for the others."""
    positions = carried(program, step)
    if len(positions) != 1 or positions[0] == 0 or step.inputs[0] in program.follows:
        return False
    fill = step.inputs[3 - positions[0]]
    return fill in program.fixed and bool(np.isfinite(program.run({}, wanted=[fill])[fill]).all())


def factor_of(step: Step) -> float:
    """Return by what an operator multiplies what else it does: a layer of its own, or part of those above."""
    if step.op == "Selu":
        return float(step.get("gamma", SELU_GAMMA))
    if step.op in ("Celu", "Swish", "com.microsoft.QuickGelu"):
        alpha = float(step.get("alpha", 1.702 if step.op.startswith("com") else 1.0))
        return alpha if step.op == "Celu" else 1 / alpha
    return 1 / len(step.inputs) if step.op == "Mean" else 1.0


def first_factors(program: Program, step: Step) -> list[tuple[str, int, Any]]:
    """Return (name of the part, input, factor) for each input that a step multiplies by numbers first."""
    positions = carried(program, step)
    if step.op == "Sub" and len(positions) == 2:
        return [("minus", 1, -1.0)]
    if step.op == "Where" and positions == [1, 2] and step.inputs[0] in program.fixed:
        kept = program.run({}, wanted=[step.inputs[0]])[step.inputs[0]].astype(bool)
        return [("first", 1, kept.astype(np.float64)), ("second", 2, 1.0 - kept)]
    factor = {
        "Celu": 1 / step.get("alpha", 1.0),
        "Swish": step.get("alpha", 1.0),
        "com.microsoft.QuickGelu": step.get("alpha", 1.702),
    }.get(step.op, 1.0)
    return [("before", 0, factor)] if factor != 1 else []


def moves(program: Program, step: Step) -> bool:
    """Tell whether a step only moves the entries of one value."""
    mixes = step.op in ("Resize", "Upsample") and step.get("mode", "nearest") != "nearest"
    return step.op in MOVES and len(carried(program, step)) == 1 and not mixes


@dataclass(frozen=True)
class Placed:
    """A scaling that is part of a layer with weights, and the steps between them, from below.

    ``factor``: the step does something else, and multiplies one of its inputs, ``at``, by numbers before: -1 what it
    subtracts, zeros and ones what it chooses from.
    """

    scaling: Step
    way: tuple[Step, ...]
    factor: Any = None
    at: int = 0


@dataclass
class Folding:
    """Where the scalings of a program go.

    Parameters
    ----------
    program : Program
    kept : collection of str or None
        Names of the steps that stay layers of their own, and of such parts of steps, ``"name/minus"``, where another
        program has decided. Default: none that can be
        folded.
    apart : collection of str
        Names of steps that are part of something else.
    taking : collection of str
        Names of further steps that take scalings of their output in: the last ones of normalisations.

    Attributes
    ----------
    after, before : dict of str to list of Placed
        By the name of a layer with weights (or of a scaling that stays): what is behind it, from below, and in front.
    folded : set of str
        Names of all that is part of another step.
    """

    program: Program
    kept: Collection[str] | None = None
    apart: Collection[str] = ()
    taking: Collection[str] = ()
    after: dict[str, list[Placed]] = field(default_factory=dict)
    before: dict[str, list[Placed]] = field(default_factory=dict)
    folded: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        kept = self.kept or ()
        scalings = []
        behind = self._behind_weights()
        for step in self.program.steps:
            if step.name in self.apart:
                continue
            firsts = [each for each in first_factors(self.program, step) if f"{step.name}/{each[0]}" not in kept]
            for _, at, factor in firsts:
                for below, way in self._down(step.inputs[at], step) or ():
                    self.after.setdefault(below.name, []).append(Placed(step, way, factor, at))
            if not firsts and is_scaling(self.program, step) and step.name not in kept:
                scalings.append(step)
                for below, way in self._down(step.inputs[carried(self.program, step)[0]], step) or ():
                    self.after.setdefault(below.name, []).append(Placed(step, way))
                    self.folded.add(step.name)
        more = [s for s in self.program.steps if factor_of(s) != 1 and s.name not in {*kept, *self.apart}]
        for step in reversed([*scalings, *more]):
            if step.name in self.folded or step.outputs[0] not in behind:
                continue
            ends = self._up(step.outputs[0])
            if ends:
                for unit, way in ends:
                    self.before.setdefault(unit.name, []).append(Placed(step, way))
                if step not in more:
                    self.folded.add(step.name)

    def _behind_weights(self) -> set[str]:
        behind: set[str] = set()
        for step in self.program.steps:
            if is_weighted(self.program, step) or not behind.isdisjoint(step.inputs):
                behind.update(step.outputs)
        return behind

    def _alone(self, value: str, reader: Step) -> bool:
        """Tell whether a reader of a value is the only one that the scaling of the value matters to."""
        readers = self.program.readers.get(value, [])
        if self.kept is None:
            return len(readers) == 1 and value not in self.program.outputs
        # Another program has folded it somewhere: not down if anything else reads what is scaled.
        return not any(self._reads_it_too(each, reader) for each in readers if each.name != reader.name)

    def _reads_it_too(self, other: Step, reader: Step) -> bool:
        """Tell whether another reader sees what a reader scales: not one that cuts out a part, or does the same."""
        if other.op in _CUTTING or self.program.carries.isdisjoint(other.outputs):
            return False
        return self.program.leads_on(other) and not self.program.same(other, reader)

    def _down(self, value: str, reader: Step) -> list[tuple[Step, tuple[Step, ...]]] | None:
        """Return the steps that take a scaling of what they make in, each with what lies between.

        Several where values are joined; None where there is none that makes all of the value.
        """
        way: list[Step] = []
        while self._alone(value, way[-1] if way else reader) and (below := self.program.made_by.get(value)) is not None:
            if below.name in self.taking:
                return [(below, tuple(reversed(way)))]
            if below.name in self.apart:
                return None
            if is_weighted(self.program, below) or (is_scaling(self.program, below) and below.name not in self.folded):
                return [(below, tuple(reversed(way)))]
            if below.op == "Concat" and len(carried(self.program, below)) == len(below.inputs) > 1:
                return self._down_all(below, way)
            if not (below.name in self.folded or moves(self.program, below)):
                return None
            way.append(below)
            value = below.inputs[carried(self.program, below)[0]]
        return None

    def _down_all(self, joined: Step, way: list[Step]) -> list[tuple[Step, tuple[Step, ...]]] | None:
        found: list[tuple[Step, tuple[Step, ...]]] = []
        for i, value in enumerate(joined.inputs):
            one = replace(joined, attributes={**joined.attributes, _ONE: i})
            rest = self._down(value, joined)
            if rest is None:
                return None
            found += [(step, (*below, one, *reversed(way))) for step, below in rest]
        return found

    def _up(self, value: str) -> list[tuple[Step, tuple[Step, ...]]] | None:
        """Return the layers with weights that take in a scaling of their input, None where anything else reads it."""
        if value in self.program.outputs:
            return None
        found: list[tuple[Step, tuple[Step, ...]]] = []
        for reader in self.program.readers.get(value, []):
            if is_weighted(self.program, reader):
                found.append((reader, ()))
            elif reader.name in self.folded or (moves(self.program, reader) and reader.op != "Split"):
                rest = self._up(reader.outputs[0])
                if rest is None:
                    return None
                found += [(unit, (reader, *way)) for unit, way in rest]
            else:
                return None
        return found
