"""Products and quotients of two computed values: what each factor gets. ``backward.py`` lists them by operator.

A product of a signal and a gate gives all to the signal (Arras et al. 2017); of two equals a half to each (Achtibat et
al. 2024, proposition 3.3); of attention and values, under ``value``, all to the values (Ali et al. 2022). A divisor is
a constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pylrp.verify.elementwise import FUNCTIONS, JOINED
from pylrp.verify.folding import carried, is_scaling
from pylrp.verify.linear import einsum_back, einsum_terms, unbroadcast
from pylrp.verify.moving import MOVES
from pylrp.verify.program import Array, Program, Step
from pylrp.verify.roundings import ROUNDINGS
from pylrp.verify.rules import Share, name_of, parameter, quotient
from pylrp.verify.tape import Tape

__all__ = ["einsum_product_back", "extreme_back", "matmul_back", "product_back", "quotient_back", "signal_of"]

_GATES = ("Sigmoid", "HardSigmoid", "Softmax")
_STATISTICS = ("Reciprocal", "Sqrt", "Pow")
_FURTHEST = 24


def source(program: Program, value: str) -> str:
    """Return the value that one is moved from, and scaled by constants."""
    for _ in range(_FURTHEST):
        step = program.made_by.get(value)
        if step is None or not (is_scaling(program, step) or (step.op in MOVES and len(carried(program, step)) == 1)):
            break
        value = step.inputs[carried(program, step)[0]]
    return value


def is_function_of(program: Program, value: str, base: str) -> bool:
    """Tell whether a value is made entry by entry of one other value alone."""
    waiting, seen = [value], {base}
    while waiting:
        name = waiting.pop()
        if name in seen or name not in program.carries:
            continue
        seen.add(name)
        step = program.made_by.get(name)
        if (
            step is None
            or len(seen) > _FURTHEST
            or not (step.op in FUNCTIONS or step.op in JOINED or step.op == "Cast")
        ):
            return False
        waiting += step.inputs
    return value != base


def signal_of(tape: Tape, step: Step) -> int | None:
    """Return the position of the factor that is a signal, the other being a gate; None where neither is, or both.

    What the file's nodes tell counts more than what :attr:`Tape.signals` says, unless the rule names the signal.
    """
    if step.name in tape.signals and name_of(tape.rules.of(step, "product")) == "gate":
        return tape.signals[step.name]
    program = tape.program
    made_by = [program.made_by.get(source(program, name)) for name in step.inputs]
    for kinds in (_GATES, _STATISTICS):
        gates = [made is not None and made.op in kinds for made in made_by]
        if sum(gates) == 1:
            return gates.index(False)
    for i in (0, 1):  # x f(x): an activation that is written out
        if is_function_of(program, step.inputs[1 - i], source(program, step.inputs[i])):
            return i
    if step.name in tape.signals:
        return tape.signals[step.name]
    sizes = [tape.values[name].size for name in step.inputs]
    return None if sizes[0] == sizes[1] else int(np.argmax(sizes))


def product_back(tape: Tape, step: Step, share: Share, z: Array) -> None:
    """Hand the relevance of an elementwise product to its signal, or a half to each factor."""
    name = name_of(tape.rules.of(step, "product"))
    a, b = (tape.values[each] for each in step.inputs)
    signal = None if name == "half" or step.inputs[0] == step.inputs[1] else signal_of(tape, step)
    parts = (0.5, 0.5) if signal is None else ((1.0, 0.0) if signal == 0 else (0.0, 1.0))
    for value, own, other, part in zip(step.inputs, (a, b), (b, a), parts, strict=True):
        if part and value in tape.program.carries:
            c, r = (unbroadcast(np.broadcast_to(v, z.shape), own.shape) for v in (share.c * other, share.r))
            tape.give(value, Share(part * c, part * r))


def quotient_back(tape: Tape, step: Step, share: Share, z: Array) -> None:
    """Hand the relevance of a quotient to its numerator."""
    a, b = (tape.values[each] for each in step.inputs)
    if step.inputs[0] in tape.program.carries:
        c = share.c * np.divide(1, b, out=np.zeros_like(b), where=b != 0)
        pair = (unbroadcast(np.broadcast_to(v, z.shape), a.shape) for v in (c, share.r))
        tape.give(step.inputs[0], Share(*pair))


def extreme_back(tape: Tape, step: Step, share: Share, z: Array) -> None:
    """Hand the relevance of the larger, or smaller, of several values to it."""
    taken = np.zeros(z.shape, bool)
    for i in carried(tape.program, step):
        value = tape.values[step.inputs[i]]
        here = (value == z) & ~taken
        taken |= here
        pair = (unbroadcast(np.where(here, v, 0.0), value.shape) for v in (share.c, share.r))
        tape.give(step.inputs[i], Share(*pair))


def _parts(tape: Tape, step: Step) -> Sequence[float]:
    """Return which part each factor of a matrix product gets."""
    if name_of(tape.rules.of(step, "matmul")) == "value":
        program = tape.program
        made_by = [program.made_by.get(attention_of(program, name)) for name in step.inputs]
        soft = [made is not None and made.op == "Softmax" for made in made_by]
        if sum(soft) == 1:
            return (0.0, 1.0) if soft[0] else (1.0, 0.0)
    return 0.5, 0.5


def attention_of(program: Program, value: str) -> str:
    """Return the value that one is moved from, masked or scaled."""
    for _ in range(_FURTHEST):
        value = source(program, value)
        step = program.made_by.get(value)
        if (
            step is None
            or step.op not in ("Where", "Mul", "Dropout", "Cast", *ROUNDINGS)
            or len(carried(program, step)) != 1
        ):
            break
        value = step.inputs[carried(program, step)[0]]
    return value


def _coefficient(tape: Tape, step: Step, share: Share, z: Array) -> Array:
    rule = tape.rules.of(step, "matmul")
    return np.broadcast_to(quotient(share, z, float(parameter(rule, "stabilizer", 0.0))), z.shape)


def matmul_back(tape: Tape, step: Step, share: Share, z: Array) -> None:
    """Hand the relevance of a product of matrices to its factors."""
    a, b = (tape.values[each] for each in step.inputs)
    q = _coefficient(tape, step, share, z)
    if min(a.ndim, b.ndim) < 2:
        raise step.refuse("multiplies a vector")
    first, second = _parts(tape, step)
    if first:
        tape.give(step.inputs[0], Share(first * unbroadcast(q @ b.swapaxes(-1, -2), a.shape)))
    if second:
        tape.give(step.inputs[1], Share(second * unbroadcast(a.swapaxes(-1, -2) @ q, b.shape)))


def einsum_product_back(tape: Tape, step: Step, share: Share, z: Array) -> None:
    """Hand the relevance of an Einsum of two computed values to them."""
    terms, result = einsum_terms(step)
    arrays = [tape.values[name] for name in step.inputs]
    q = _coefficient(tape, step, share, z)
    parts = _parts(tape, step) if len(arrays) == 2 else [1 / len(arrays)] * len(arrays)
    for i, part in enumerate(parts):
        if part:
            others = [array for j, array in enumerate(arrays) if j != i]
            tape.give(step.inputs[i], Share(part * einsum_back(terms, result, i, q, others, arrays[i].shape)))
