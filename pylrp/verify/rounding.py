"""What single precision alone does to a file's values and relevance: how far they are off those in double precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from pylrp.verify.program import Array, Program

if TYPE_CHECKING:
    from pylrp.verify.against import Check
    from pylrp.verify.tape import Tape

__all__ = ["in_single", "measure_anew", "measure_prediction", "measure_relevance"]

#: How often rounding is measured: how far a sum that nearly cancels is off is a matter of luck.
_DRAWS = 3


def in_single(
    program: Program, given: Mapping[str, Array], rounded: Mapping[str, Array] | None = None
) -> Iterator[dict[str, Array]]:
    """Yield the values of a file in single precision, more than once, of inputs that differ by rounding.

    ``rounded``: what quantised values are where they lie between two numbers. Default: either of them, by chance.
    """
    rng = np.random.default_rng(0)
    for _ in range(_DRAWS):
        near = {
            name: array * (1 + rng.uniform(-1, 1, array.shape) * np.finfo(np.float32).eps)
            if array.dtype.kind == "f"
            else array
            for name, array in given.items()
        }
        yield program.run(near, dtype=np.float32, rounded=rounded, shaken=rng if rounded is None else None)


def measure_relevance(check: Check, given: Mapping[str, Array], rows: Array, count: int, tape: Tape) -> None:
    """Find out how far relevance is off if the same formulas are evaluated in single precision.

    More than once, on inputs that differ by rounding: how far a sum that nearly cancels is off is a matter of luck.
    """
    for rough in in_single(check.program, given, tape.values):
        rounded = check.tape(rough, tape.decided, np.float32)
        rounded.taken = tape.taken
        rounded.back(check.starts(rounded, rows))
        for name, value in check.matching.values.items():
            one, other = (check.aligned(name, each.relevance(value)) for each in (rounded, tape))
            if one is not None and other is not None:
                check.rounding.add(name, one[:count], other[:count])


def measure_anew(check: Check) -> None:
    """Do so for all tapes of a comparison, of a network in single precision."""
    if check.network.dtype != np.float32:
        return
    for (rows, count), (_, tape) in zip(check.feed.chunks(), check.tapes, strict=True):
        measure_relevance(check, check.feed.given(rows), rows, count, tape)


def measure_prediction(
    check: Check, given: Mapping[str, Array], count: int, values: Mapping[str, Array], asked: Mapping[str, str]
) -> None:
    """Find out how far predictions are off if the file's nodes are evaluated in single precision, as others do.

    Of outputs that the network has as the file in double precision has them.
    """
    if check.program.is_double:
        return
    watched = {**asked, **{f"NumPy {value}": value for value in check.program.outputs}}
    for rough in in_single(check.program, given):
        for name, value in watched.items():
            if name in check.prediction.found:
                check.prediction_rounding.add(name, rough[value][:count], values[value][:count])
