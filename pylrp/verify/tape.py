"""Relevance from one value down to the inputs of a program: the values of one run, taken back step by step.

``backward.py`` has a formula for each operator; here is where rules and scalings are found, and where shares add up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from pylrp.verify import pooling
from pylrp.verify.folding import Folding, Placed, carried, factor_of, is_scaling, is_weighted
from pylrp.verify.linear import linear_of, unbroadcast
from pylrp.verify.moving import MOVES
from pylrp.verify.placing import completed, places, read_by
from pylrp.verify.program import Array, Program, Step
from pylrp.verify.rules import Share, Unit, name_of, parameter, quotient

__all__ = ["Region", "Rules", "Tape", "between", "scaling"]


@dataclass(frozen=True)
class Region:
    """Several steps that are one layer: a function, softmax or normalisation that a file writes out.

    Attributes
    ----------
    base, out : str
        The value that it is of, and the one that it makes.
    kind : str
        "function", "softmax" or "normalisation".
    axis : int
        Of a softmax, counted with the batch.
    """

    base: str
    out: str
    kind: str
    axis: int = -1


@dataclass
class Rules:
    """Which rule each step has.

    Parameters
    ----------
    named : mapping of str to rule
        By the name of a step, or of a part of it (``"name/part"``).
    kinds : mapping of str to rule
        For steps that are not named, by kind: "dense", "conv", "add", "pool", "batchnorm", "resize", "function",
        "softmax", "normalisation", "product", "matmul", "recurrent"; else "default".
    """

    named: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, Any] = field(default_factory=dict)

    def of(self, step: Step, kind: str) -> Any:
        """Return the rule of a step."""
        if step.name in self.named:
            return self.named[step.name]
        return self.kinds[kind] if kind in self.kinds else self.kinds.get("default", "zero")

    def part(self, step: Step, part: str) -> Any:
        """Return the rule of a part of a step, None where there is none."""
        return self.named.get(f"{step.name}/{part}")

    def epsilon(self, rule: Any) -> float | None:
        """Return the stabiliser of a rule that shares in proportion to contributions; None for other rules."""
        name = name_of(rule)
        if name == "zero":
            return 0.0
        if name in ("norm", "epsilon"):
            return float(parameter(rule, "epsilon" if name == "epsilon" else "stabilizer", 1e-6))
        return None


def scaling(program: Program, step: Step, values: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return what a step multiplies its value by and adds to it."""
    at = carried(program, step)[0]
    if factor_of(step) != 1:
        return np.array(factor_of(step)), np.array(0.0)
    if step.op == "Neg":
        return np.array(-1.0), np.array(0.0)
    if step.op == "BatchNormalization":
        return pooling.batch_norm(step, *(values[name] for name in step.inputs[:5]))
    if step.op == "Where":
        kept = np.asarray(values[step.inputs[0]], bool) == (at == 1)
        return kept.astype(np.float64), np.where(kept, 0.0, values[step.inputs[3 - at]])
    others = [values[name] for i, name in enumerate(step.inputs) if i != at]
    one = others[0]
    if step.opset < 7 and step.get("axis") is not None and one.ndim:
        rank = values[step.inputs[at]].ndim
        one = one.reshape(*one.shape, *(1,) * (rank - step.get("axis") % rank - one.ndim))
    if step.op == "Mul":
        return one, np.array(0.0)
    if step.op == "Div":
        return 1 / one, np.array(0.0)
    if step.op == "Sub":
        return (np.array(1.0), -one) if at == 0 else (np.array(-1.0), one)
    return np.array(1.0), sum(others[1:], start=one)


class Tape:
    """The values of one run and the relevance that is on its way down.

    Parameters
    ----------
    program : Program
    values : mapping of str to ndarray
        Of :meth:`Program.run`.
    rules : Rules
    folding : Folding
    regions : mapping of str to Region, optional
        By the value that each makes.
    merged : collection of str, optional
        ``Pad`` steps that are the padding of the convolutions behind them.
    signals : mapping of str to int, optional
        Of products of two computed values by the step's name: the position of the factor that takes the relevance.
    taken : mapping of str to (mapping of str to ndarray), optional
        By a step's name, relevance of values that is taken over in place of what the step hands down.
    decided : mapping of str to ndarray, optional
        By its name, a value by which the largest of a window is found: of two that are equal but for rounding, another
        program may have taken the other one.
    fixed : collection of str, optional
        Values that are constants, such as the mean of a normalisation under DetachAll: nothing is handed to them.
    dtype : dtype, default float64
        In which shares are kept.

    Attributes
    ----------
    shares : dict of str to Share
        By value, what has arrived.
    """

    def __init__(
        self,
        program: Program,
        values: Mapping[str, Array],
        rules: Rules,
        folding: Folding,
        regions: Mapping[str, Region] | None = None,
        merged: Collection[str] = (),
        signals: Mapping[str, int] | None = None,
        taken: Mapping[str, Mapping[str, Array]] | None = None,
        decided: Mapping[str, Array] | None = None,
        fixed: Collection[str] = (),
        dtype: DTypeLike = np.float64,
    ):
        self.program, self.values, self.rules, self.folding = program, values, rules, folding
        self.regions, self.merged, self.signals = dict(regions or {}), merged, dict(signals or {})
        self.taken: Mapping[str, Mapping[str, Array]] = dict(taken or {})
        self.decided, self.fixed, self.dtype = dict(decided or {}), frozenset(fixed), np.dtype(dtype)
        self.shares: dict[str, Share] = {}

    def give(self, value: str, share: Share) -> None:
        """Add relevance of a value."""
        if value not in self.program.carries or value in self.fixed:
            return
        if self.dtype != np.float64:
            share = Share(*(np.asarray(part).astype(self.dtype) for part in (share.c, share.r)))
        self.shares[value] = self.shares[value] + share if value in self.shares else share

    def relevance(self, value: str) -> Array:
        """Return the relevance of a value; zeros where none has arrived."""
        return self.shares.get(value, Share()).of(self.values[value])

    def back(self, starts: Mapping[str, Share]) -> None:
        """Take relevance from where it starts down to the inputs."""
        from pylrp.verify.backward import step_back

        for value, share in starts.items():
            self.give(value, share)
        inside = self._inside()
        for step in reversed(self.program.steps):
            if step.name in inside:
                continue
            if any(name in self.shares for name in step.outputs):
                with np.errstate(all="ignore"):
                    step_back(self, step)

    def _inside(self) -> set[str]:
        """Return the names of steps within regions, but for the last of each."""
        return {
            step.name
            for region in self.regions.values()
            for step in between(self.program, region.base, region.out)
            if region.out not in step.outputs
        }

    def given(self, step: Step) -> list[Array | None]:
        """Return the values of a step's inputs."""
        return [self.values[name] if name else None for name in step.inputs]

    def proportional(self, step: Step, share: Share, z: Array, rule: Any) -> Share:
        """Return the coefficient that all contributions to z have in common, or R itself where a rule passes it on."""
        epsilon = self.rules.epsilon(rule)
        if epsilon is None:
            raise step.refuse(f"has the rule {rule!r}, which has no formula here")
        return Share(quotient(share, z, epsilon))

    def through(self, share: Share, z: Array, rule: Any) -> Share:
        """Return what is left of a value's relevance behind a stage of its own, which may have a stabiliser."""
        epsilon = None if rule is None else self.rules.epsilon(rule)
        return share if epsilon is None or epsilon == 0 else Share(quotient(share, z, epsilon))

    def moved_back(self, way: tuple[Step, ...], above: Step, array: Array, fill: float, below: Step) -> Array:
        """Return an array of the shape above some moving steps in the places below them; repeated entries agree.

        ``above`` is the step that reads what they make, ``below`` the one that takes it in. Where nothing is read
        stands what ``below`` has in the same channel, for that is how it takes it in: one bias a channel, wherever a
        crop is. ``fill`` stands in channels of which nothing is read.
        """
        for step in reversed(way):
            if step.op in MOVES:  # else a scaling that is folded, too
                positions = carried(self.program, step)
                shape = self.values[step.inputs[positions[0]]].shape
                index = places(step, self.given(step), positions)[read_by(step, above)]
                made = np.full(int(np.prod(shape)) + 1, np.nan)
                made[index.ravel()] = np.broadcast_to(array, index.shape).ravel()
                array = made[1:].reshape(shape)
            above = step
        if not self._only_reader(way):  # what others read there is without it
            return np.where(np.isnan(array), fill, array)
        return completed(array, fill, below)

    def _only_reader(self, way: tuple[Step, ...]) -> bool:
        """Tell whether some moving steps, one behind the other, are all that reads what is below them."""
        read = [step.inputs[carried(self.program, step)[0]] for step in way]
        read += [name for step in way for name in step.outputs if name]
        readers = [each for name in dict.fromkeys(read) for each in self.program.readers.get(name, [])]
        return sum(not self.program.carries.isdisjoint(each.outputs) for each in readers) == len(way) + 1

    def moved_up(self, way: tuple[Step, ...], above: Step, array: Array) -> Array:
        """Return an array in the places above some moving steps; 0 where there is none."""
        steps = [moved for _, moved in self._upwards(way, above, array)]
        return steps[-1] if steps else array

    def _upwards(self, way: tuple[Step, ...], above: Step, array: Array) -> Iterator[tuple[str, Array]]:
        """Yield each value on the way up with what an array becomes there."""
        for number, step in enumerate(way):
            reader = way[number + 1] if number + 1 < len(way) else above
            output = read_by(step, reader)
            if step.op in MOVES:
                index = places(step, self.given(step), carried(self.program, step))[output]
                array = np.concatenate([[0.0], np.ravel(array)])[index]
            yield step.outputs[output], array

    def effective(self) -> dict[str, Array]:
        """Return the values that differ by a scaling where it is part of a layer, as they are then."""
        found: dict[str, Array] = {}
        parts: dict[tuple[str, str], Any] = {}
        for step in self.program.steps:
            for placed in self.folding.after.get(step.name, ()):
                moved = dict(self._upwards(placed.way, placed.scaling, self.output(step)))
                joins = [i for i, each in enumerate(placed.way) if each.op == "Concat"]
                for i, (name, array) in enumerate(moved.items()):
                    key = (placed.scaling.name, name)  # of what is joined there is one part by each way, else zeros
                    parts[key] = parts.get(key, 0.0) + array if joins and i >= joins[0] else array
                    found[name] = parts[key]
            for placed in self.folding.before.get(step.name, ()):
                below = self.values[placed.scaling.inputs[carried(self.program, placed.scaling)[0]]]
                made = self.values[placed.scaling.outputs[0]]
                factor = factor_of(placed.scaling)
                start = np.broadcast_to(below, made.shape) if factor == 1 else made / factor
                found.update(self._upwards(placed.way, step, start))
        return found

    def unit(self, step: Step) -> Unit:
        """Return a step with weights, or a scaling, with all that is folded into it."""
        program, values = self.program, self.values
        at = carried(program, step)[0]
        a, value = values[step.inputs[at]], values[step.outputs[0]]
        if is_weighted(program, step):
            linear = linear_of(step, self.given(step), at)
            scale: Any = 1.0
            shift: Any = 0.0
            bias = linear.bias
        else:
            linear = linear_of_entries(a.shape, values[step.outputs[0]].shape, at)
            scale, shift = scaling(program, step, values)
            bias, value = 0.0, np.broadcast_to(a, value.shape)
        scale, shift = self.behind(step, scale, shift)
        input_scale: Any = 1.0
        for placed in self.folding.before.get(step.name, ()):
            factor, more = self.behind(placed.scaling, *scaling(program, placed.scaling, values))
            shape = values[placed.scaling.outputs[0]].shape
            moved_shift = self.moved_up(placed.way, step, np.broadcast_to(more, shape))
            input_scale = input_scale * self.moved_up(placed.way, step, np.broadcast_to(factor, shape))
            a = a - moved_shift
            bias = bias + linear.times(linear.weight, moved_shift)
        return Unit(linear, a, value, scale, shift, bias, input_scale, self._present(step, step.inputs[at]))

    def behind(self, step: Step, scale: Any = 1.0, shift: Any = 0.0) -> tuple[Any, Any]:
        """Return the scaling of a step's output by all that is folded into it, after one of its own."""
        for placed in self.folding.after.get(step.name, ()):
            scale, shift = self._joined(step, placed, scale, shift)
        return scale, shift

    def _joined(self, step: Step, placed: Placed, scale: Any, shift: Any) -> tuple[Any, Any]:
        if placed.factor is not None:
            return self._times(step, placed, scale, shift)
        factor, more = scaling(self.program, placed.scaling, self.values)
        shape = self.values[placed.scaling.outputs[0]].shape
        if placed.way:
            factor = self.moved_back(placed.way, placed.scaling, np.broadcast_to(factor, shape), 1.0, step)
            more = self.moved_back(placed.way, placed.scaling, np.broadcast_to(more, shape), 0.0, step)
        return factor * scale, factor * shift + more

    def _times(self, step: Step, placed: Placed, scale: Any, shift: Any) -> tuple[Any, Any]:
        """Return a scaling with the factor of one reader; of parts of a value only those that it reads."""
        if not placed.way:
            return placed.factor * scale, placed.factor * shift
        shape = self.values[placed.scaling.inputs[placed.at]].shape
        full = np.broadcast_to(placed.factor, shape)
        factor = self.moved_back(placed.way, placed.scaling, full, 1.0, step)
        return factor * scale, factor * shift

    def _present(self, step: Step, value: str) -> Any:
        """Return 0 where the value that a convolution reads is padding that belongs to it, else 1."""
        way: list[Step] = []
        while (below := self.program.made_by.get(value)) is not None and (
            below.op in ("Transpose", "Reshape", "Flatten", "Identity", "Pad") or below.name in self.folding.folded
        ):
            way.append(below)
            value = below.inputs[carried(self.program, below)[0]]
            if below.name in self.merged:
                moving = tuple(each for each in reversed(way) if each.op in MOVES)
                return self.moved_up(moving, step, np.ones(self.values[value].shape))
        return 1.0

    def output(self, step: Step) -> Array:
        """Return a step's output with the scalings that are folded into it."""
        if is_weighted(self.program, step) or is_scaling(self.program, step):
            return self.unit(step).plain()
        scale, shift = self.behind(step)
        return np.asarray(scale * self.values[step.outputs[0]] + shift)


def linear_of_entries(below: tuple[int, ...], above: tuple[int, ...], at: int) -> Any:
    """Return the map of a value to itself, or to its repetitions, as if it had weights of 1."""
    from pylrp.verify.linear import Linear

    def times(_: Array, a: Array) -> Array:
        return np.broadcast_to(a, above)

    def back(_: Array, q: Array) -> Array:
        return unbroadcast(np.broadcast_to(q, above), below)

    return Linear(np.ones(()), 0.0, at, times, back)


def between(program: Program, base: str, out: str) -> list[Step]:
    """Return the steps that lead from one value to another."""
    reached = {base}
    for step in program.steps:
        if not reached.isdisjoint(step.inputs):
            reached.update(step.outputs)
    found, needed = [], {out}
    for step in reversed(program.steps):
        if not needed.isdisjoint(step.outputs) and not reached.isdisjoint(step.outputs) and base not in step.outputs:
            found.append(step)
            needed.update(name for name in step.inputs if name != base)
    return found[::-1]
