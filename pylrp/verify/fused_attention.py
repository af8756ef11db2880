"""Attention that the core computes as one layer beside the same nodes one by one.

A call that asks for every value, as the comparison with the file does, takes fused attention apart. Here the plain call
is compared with that one. ``against.py`` asks, ``verdict.py`` judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pylrp.network.fused import Fusion
from pylrp.verify.alignment import Errors
from pylrp.verify.program import Array
from pylrp.verify.rounding import in_single

if TYPE_CHECKING:
    from pylrp.network.explanation import Explanation
    from pylrp.verify.against import Check

__all__ = ["FusedAttention", "by_chance"]


@dataclass(frozen=True)
class FusedAttention:
    """What a plain call, with attention fused, differs by from a call that takes it apart.

    Attributes
    ----------
    output : mapping of str to float
        The errors of the network's outputs.
    relevance : mapping of str to float
        Those of its inputs' relevance.
    names : tuple of str
        The fused products with the values.
    """

    output: Mapping[str, float]
    relevance: Mapping[str, float]
    names: tuple[str, ...]

    @property
    def error(self) -> float:
        """Return the largest error."""
        return max((*self.output.values(), *self.relevance.values()), default=0.0)

    @classmethod
    def of(cls, check: Check, x: Any, target: Any) -> FusedAttention | None:
        """Return the errors of a plain call; None where nothing is fused in it."""
        which = _fusions(check)
        if not which:
            return None
        return cls(*_errors(check, _explained(check, x, target, [])), tuple(which))

    def culprit(self, check: Check, x: Any, target: Any) -> str:
        """Return which attention it is: of several the one that alone, all others taken apart, is off most."""
        which = _fusions(check)
        if len(which) == 1:
            return next(iter(which))
        found: dict[str, float] = {}
        for name in which:
            others = [fusion.softmax for other, fusion in which.items() if other != name]
            output, relevance = _errors(check, _explained(check, x, target, others))
            found[name] = max((*output.values(), *relevance.values()), default=0.0)
        return max(found, key=lambda name: found[name])


def _fusions(check: Check) -> dict[str, Fusion]:
    """Return the attention that is fused in a plain call, by its product with the values."""
    assignment = check.execution.plan(check.ex.settings["composite"], "zennit", [check.top]).assignment
    return {name: fusion for name, (fusion, _) in assignment.fused.items()}


def _explained(check: Check, x: Any, target: Any, layers: list[str]) -> Explanation:
    """Return the explanation of the same class with no values asked for but these."""
    same = check.ex.target if target is None else target
    settings = check.ex.settings
    return check.network.explain(x, same, settings["composite"], output=settings["output"], layers=layers)


def _errors(check: Check, plain: Explanation) -> tuple[dict[str, float], dict[str, float]]:
    """Return the errors of the outputs, and of the inputs' relevance."""
    output, relevance = Errors(), Errors()
    ours, theirs = _by_name(plain.output), _by_name(check.ex.output)
    for name in theirs:
        output.add(name, _batched(check, ours[name]), _batched(check, theirs[name]))
    for name in check.graph.inputs:
        relevance.add(name, _batched(check, plain.layers[name]), _batched(check, check.ex.layers[name]))
    return output.found, relevance.found


def by_chance(check: Check) -> dict[str, float]:
    """Return how far outputs, and relevance of inputs, are off where quantised values are rounded the other way.

    The two calls sum in another order; between two numbers of a quantised value that decides.
    """
    found = Errors()
    if not check.program.rounds:
        return found.found
    inputs = {name: check.matching.values[name] for name in check.graph.inputs if name in check.matching.values}
    outputs = list(check.graph.outputs)
    names = outputs if len(outputs) > 1 else [""]
    tops = {each: check.matching.values.get(check.graph.value(name), "")
            for each, name in zip(names, outputs, strict=True)}  # fmt: skip
    for (rows, count), (_, tape) in zip(check.feed.chunks(), check.tapes, strict=True):
        for rough in in_single(check.program, check.feed.given(rows)):
            other = check.tape(rough, tape.decided, np.float32)
            other.back(check.starts(other, rows))
            for name, value in inputs.items():
                one, two = (check.aligned(name, each.relevance(value)) for each in (other, tape))
                if one is not None and two is not None:
                    found.add(name, one[:count], two[:count])
            for name, value in tops.items():
                if value:
                    found.add(name, rough[value][:count], tape.values[value][:count])
    return found.found


def _by_name(output: Any) -> dict[str, Any]:
    return output if isinstance(output, dict) else {"": output}


def _batched(check: Check, array: Any) -> Array:
    made = np.asarray(array, np.float64)
    return made[None] if check.inputs.single else made
