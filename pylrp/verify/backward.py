"""For each operator, what it hands to its inputs: coefficients ``c`` of ``R = a c`` where the rule has that form.

``tape.py`` calls :func:`step_back` for one step after the other, from the top. Sources of the formulas: Bach et al.
2015 and Montavon et al. 2019 (weights, sums), Achtibat et al. 2024 and Ali et al. 2022 (softmax, products,
normalisation), Arras et al. 2017 (gates). A quotient's divisor and a normalisation's scale are constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pylrp.verify import pooling
from pylrp.verify.attention import attention_back, rotary_back
from pylrp.verify.elementwise import FUNCTIONS
from pylrp.verify.folding import carried, factor_of, is_scaling, is_weighted
from pylrp.verify.linear import CONVOLVING, unbroadcast
from pylrp.verify.moving import MOVES
from pylrp.verify.operators import FORWARD
from pylrp.verify.placing import places
from pylrp.verify.products import einsum_product_back, extreme_back, matmul_back, product_back, quotient_back
from pylrp.verify.program import Array, Step
from pylrp.verify.recurrent import RECURRENT, recurrent_back
from pylrp.verify.resizing import along, is_linear, shares
from pylrp.verify.rules import Share, name_of, quotient, weighted
from pylrp.verify.tape import Region, Tape, between

__all__ = ["step_back"]


def step_back(tape: Tape, step: Step) -> None:
    """Hand what has arrived at a step's outputs to its inputs."""
    out = step.outputs[0]
    positions = carried(tape.program, step)
    if out in tape.program.tables or not positions:
        return
    share = tape.shares.get(out, Share())
    if step.name in tape.folding.after and not (is_weighted(tape.program, step) or is_scaling(tape.program, step)):
        share = _before_scaling(tape, step, share)
    if step.name in tape.taken:
        for value, relevance in tape.taken[step.name].items():
            tape.give(value, Share(0.0, relevance))
    elif out in tape.regions:
        _region(tape, tape.regions[out], share)
    elif step.name in tape.folding.folded:
        _folded(tape, step, share)
    elif is_weighted(tape.program, step):
        _weighted(tape, step, share, "conv" if step.op in CONVOLVING else "dense")
    elif is_scaling(tape.program, step):
        _scaled(tape, step, share)
    elif (step.op in MOVES or step.op in ("MaxPool", "GlobalMaxPool", "Where")) and not is_linear(step):
        _moved(tape, step, positions)
    elif step.op in FUNCTIONS or (step.op in ("Pow", "Max", "Min") and len(positions) == 1):
        _function(tape, step, share)
    else:
        _OTHERS.get(step.op, _refused)(tape, step, share, tape.values[out])


def _refused(tape: Tape, step: Step, share: Share, z: Array) -> None:
    raise step.refuse("hands on relevance, and has no formula for that here")


def _before_scaling(tape: Tape, step: Step, share: Share) -> Share:
    """Return the coefficients of a step's output where the share is that of the output with what is folded into it."""
    scale, _ = tape.behind(step)
    relevance = share.of(tape.values[step.outputs[0]])
    return Share(scale * quotient(Share(0.0, relevance), tape.output(step), 0.0))


def _folded(tape: Tape, step: Step, share: Share) -> None:
    """Hand relevance unchanged to what is the same layer."""
    value = step.inputs[carried(tape.program, step)[0]]
    relevance = share.of(tape.values[step.outputs[0]])
    tape.give(value, Share(0.0, unbroadcast(relevance, tape.values[value].shape)))


def _weighted(tape: Tape, step: Step, share: Share, kind: str) -> None:
    unit = tape.unit(step)
    value = step.inputs[carried(tape.program, step)[0]]
    if step.name in tape.folding.after:  # what was handed to it is relevance, of the whole
        share = Share(0.0, share.of(tape.values[step.outputs[0]]))
    down = weighted(tape.rules.of(step, kind), unit, share, unit.plain())
    if step.name in tape.folding.before:
        down = Share(0.0, down.of(unit.a))
    tape.give(value, down)


def _scaled(tape: Tape, step: Step, share: Share) -> None:
    behind = step.name in tape.folding.after
    unit = tape.unit(step)
    value = step.inputs[carried(tape.program, step)[0]]
    if behind:
        share = Share(0.0, share.of(tape.values[step.outputs[0]]))
    rule, z = tape.rules.of(step, "batchnorm"), unit.plain()
    if name_of(rule) == "pass":
        tape.give(value, Share(0.0, unbroadcast(share.of(z), unit.a.shape)))
    elif not np.any(unit.shift):  # nothing but factors: there is no other receiver
        c, r = (unbroadcast(np.broadcast_to(v, z.shape), unit.a.shape) for v in (unit.scale * share.c, share.r))
        tape.give(value, Share(c, r))
    else:
        q = tape.proportional(step, share, z, rule).c
        tape.give(value, Share(unbroadcast(np.broadcast_to(unit.scale * q, z.shape), unit.a.shape)))


def _moved(tape: Tape, step: Step, positions: list[int]) -> None:
    """Hand everything back to where it was taken from."""
    given = [tape.decided.get(name, array) for name, array in zip(step.inputs, tape.given(step), strict=True)]
    sizes = [tape.values[step.inputs[i]].size for i in positions]
    total = sum(sizes) if step.op in ("Concat", "Where") else sizes[0]
    parts = [np.zeros(total + 1), np.zeros(total + 1)]
    for name, index in zip(step.outputs, places(step, given, positions), strict=False):
        if name in tape.shares:
            share = tape.shares[name]
            if step.op == "Where":  # the sum with a mask may have a stabiliser
                share = _finite(tape.through(share, tape.values[name], tape.rules.named.get(step.name)))
            for part, array in zip(parts, (share.c, share.r), strict=True):
                weights = np.broadcast_to(array, index.shape).ravel()
                part += np.bincount(index.ravel(), weights=weights, minlength=total + 1)
    first = 1
    for i, size in zip(positions, sizes, strict=True):
        shape = tape.values[step.inputs[i]].shape
        tape.give(step.inputs[i], Share(*(part[first : first + size].reshape(shape) for part in parts)))
        if step.op not in ("Concat", "Where"):
            return
        first += size


def _finite(share: Share) -> Share:
    """Return a share without what is left of nothing where a mask is -inf."""
    return Share(*(np.where(np.isfinite(part), part, 0.0) for part in (share.c, share.r)))


def passed(share: Share, x: Array, y: Array) -> Share:
    """Return all relevance of ``y = f(x)`` as that of x: ``c f(x) / x``, where x is 0 relevance itself."""
    c = np.broadcast_to(share.c, y.shape)
    ratio = np.divide(y, x, out=np.zeros_like(y), where=x != 0)
    return Share(np.where(c == 0, 0.0, c * ratio), share.r + np.where((x == 0) & (c != 0), c * y, 0.0))


def _function(tape: Tape, step: Step, share: Share) -> None:
    at = carried(tape.program, step)[0]
    x, y = tape.values[step.inputs[at]], tape.values[step.outputs[0]]
    rule = tape.rules.part(step, "activation")
    if rule is None:
        rule = tape.rules.of(step, "function")
    else:  # a factor behind the function is a layer of its own, which hands all relevance on
        share, y = Share(0.0, share.of(y)), y / factor_of(step)
    name = name_of(rule)
    if name in ("pass", "zero") and x.shape == y.shape and not _by_contributions(tape, rule):
        down = passed(share, x, y)
    else:
        given = tape.given(step)
        given[at] = np.zeros_like(x)
        zero = np.asarray(FORWARD[step.op](step, *given))
        q = quotient(share, y, tape.rules.epsilon(rule) or 0.0)
        down = Share(0.0, (y - zero) * q)
    tape.give(step.inputs[at], down)


def _by_contributions(tape: Tape, rule: Any) -> bool:
    """Tell whether a function is explained by contributions; "zero" as a text means nothing but no stabiliser."""
    return not isinstance(rule, str) and tape.rules.epsilon(rule) is not None


def _region(tape: Tape, region: Region, share: Share) -> None:
    """Hand relevance through several steps that are one layer."""
    x, y = tape.values[region.base], tape.values[region.out]
    step = tape.program.made_by[region.out]
    rule = tape.rules.of(step, region.kind)
    if region.kind == "softmax":
        tape.give(region.base, softmax_down(rule, share, y, region.axis, step))
    elif not _by_contributions(tape, rule):
        tape.give(region.base, passed(share, x, y))
    else:
        inside = {name for each in between(tape.program, region.base, region.out) for name in each.outputs}
        known = {name: array for name, array in tape.values.items() if name not in inside}
        again = tape.program.run({}, instead={**known, region.base: np.zeros_like(x)}, wanted=[region.out])
        q = quotient(share, y, tape.rules.epsilon(rule) or 0.0)
        tape.give(region.base, Share(0.0, (y - again[region.out]) * q))


def softmax_down(rule: Any, share: Share, p: Array, axis: Any, step: Step) -> Share:
    """Return what a softmax hands down: ``c_i = R_i - p_i sum R`` (Taylor), nothing (stop), or all (at the top)."""
    name = name_of(rule)
    relevance = share.of(p)
    if name == "stop":
        return Share(0.0, np.zeros_like(p))
    if name == "pass":
        return Share(0.0, relevance)
    if name not in ("taylor", "zero"):
        raise step.refuse(f"has the rule {rule!r}, which has no formula here")
    return Share(relevance - p * relevance.sum(axis=axis, keepdims=True))


def _softmax(tape: Tape, step: Step, share: Share, p: Array) -> None:
    axis: Any = step.get("axis", -1)
    if step.opset < 13:
        axis = tuple(range(step.get("axis", 1) % p.ndim, p.ndim))
    tape.give(step.inputs[0], softmax_down(tape.rules.of(step, "softmax"), share, p, axis, step))


def _log_softmax(tape: Tape, step: Step, share: Share, z: Array) -> None:
    tape.give(step.inputs[0], Share(0.0, share.of(z)))


def _sum(tape: Tape, step: Step, share: Share, z: Array) -> None:
    """Share a sum, or mean, of several values in proportion to them; one that is a gated constant keeps its share."""
    positions = carried(tape.program, step)
    takers = [tape.signals[step.name]] if step.name in tape.signals else positions
    inner = tape.rules.part(step, "add")
    rule = tape.rules.of(step, "add") if inner is None else inner
    if inner is not None:  # a constant that is added, or the factor of a mean, is a layer of its own
        rest = None if step.op == "Mean" else tape.rules.named.get(step.name)
        share = Share(0.0, tape.through(share, z, rest).of(z))
        z = sum((tape.values[step.inputs[i]] for i in positions[1:]), start=tape.values[step.inputs[positions[0]]])
    q = tape.proportional(step, share, z, rule).c
    if inner is None and step.op == "Mean":
        q = q / len(positions)
    for i in takers:
        tape.give(step.inputs[i], Share(unbroadcast(np.broadcast_to(q, z.shape), tape.values[step.inputs[i]].shape)))


def _difference(tape: Tape, step: Step, share: Share, z: Array) -> None:
    q = np.broadcast_to(tape.proportional(step, share, z, tape.rules.of(step, "add")).c, z.shape)
    first, second = (tape.values[name] for name in step.inputs)
    tape.give(step.inputs[0], Share(unbroadcast(q, first.shape)))
    tape.give(step.inputs[1], Share(-unbroadcast(q, second.shape)))


def _average(tape: Tape, step: Step, share: Share, z: Array) -> None:
    q = np.broadcast_to(tape.proportional(step, share, z, tape.rules.of(step, "pool")).c, z.shape)
    for axis, matrix in reversed(pooling.averages(step, tape.values[step.inputs[0]])):
        q = along(matrix.T, q, axis)
    tape.give(step.inputs[0], Share(q))


def _reduced(tape: Tape, step: Step, share: Share, z: Array) -> None:
    """Share a sum or mean over axes in proportion to the entries."""
    x = tape.values[step.inputs[0]]
    axes = pooling.reduced_axes(step, x, *tape.given(step)[1:2])
    count = int(np.prod([x.shape[a] for a in axes]))
    inner = tape.rules.part(step, "pool")
    rule = tape.rules.of(step, "pool") if inner is None else inner
    if step.op == "ReduceSum" and inner is not None:  # count times the mean: two layers
        share, z = Share(0.0, share.of(z)), z / count
        q = tape.proportional(step, share, z, rule).c / count
    else:
        q = tape.proportional(step, share, z, rule).c / (count if step.op == "ReduceMean" else 1)
    q = np.broadcast_to(q, z.shape)
    if not step.get("keepdims", 1):
        q = np.expand_dims(q, axes)
    tape.give(step.inputs[0], Share(np.broadcast_to(q, x.shape)))


def _extreme_over_axes(tape: Tape, step: Step, share: Share, z: Array) -> None:
    """Hand all to the first largest, or smallest, entry."""
    x = tape.values[step.inputs[0]]
    axes = pooling.reduced_axes(step, x, *tape.given(step)[1:2])
    order = [a for a in range(x.ndim) if a not in axes] + list(axes)  # axes that stay first
    rows = x.transpose(order).reshape(*(x.shape[a] for a in order[: x.ndim - len(axes)]), -1)
    best = (rows.argmax(-1) if step.op == "ReduceMax" else rows.argmin(-1))[..., None]
    parts = []
    for array in (share.c, share.r):
        full = np.broadcast_to(array, z.shape).reshape(best.shape)
        placed = np.zeros(rows.shape)
        np.put_along_axis(placed, best, full, -1)
        parts.append(placed.reshape([x.shape[a] for a in order]).transpose(np.argsort(order)))
    tape.give(step.inputs[0], Share(*parts))


def _resized(tape: Tape, step: Step, share: Share, z: Array) -> None:
    q = np.broadcast_to(tape.proportional(step, share, z, tape.rules.of(step, "resize")).c, z.shape)
    for axis, matrix in reversed(shares(step, tape.values[step.inputs[0]], *tape.given(step)[1:])):
        q = along(matrix.T, q, axis)
    tape.give(step.inputs[0], Share(q))


def _cumulated(tape: Tape, step: Step, share: Share, z: Array) -> None:
    q = np.broadcast_to(tape.proportional(step, share, z, tape.rules.of(step, "add")).c, z.shape)
    back = pooling.cumulated(step, q, tape.values[step.inputs[1]], reverse=not step.get("reverse", 0))
    tape.give(step.inputs[0], Share(back))


def _normalised(tape: Tape, step: Step, share: Share, z: Array) -> None:
    """Take a normalisation as the linear map that it is with its statistics, or its scale alone, as constants."""
    x = tape.values[step.inputs[0]]
    name = name_of(tape.rules.of(step, "normalisation"))
    if name == "pass":
        tape.give(step.inputs[0], Share(0.0, share.of(z)))
        return
    if name not in ("detach", "detachall", "detach_all", "zero"):
        raise step.refuse(f"has the rule {name}, which has no formula here")
    if step.op in ("LRN", "LpNormalization"):
        divisor = (pooling.local_response if step.op == "LRN" else pooling.lp_norm)(step, x)
        tape.give(step.inputs[0], Share(share.c / divisor, share.r))
        return
    found = pooling.statistics(step, x, *tape.given(step)[1:])
    t = found.scale * (share.c + np.divide(share.r, z, out=np.zeros_like(z), where=z != 0))
    t = np.broadcast_to(t, x.shape)
    if found.mean is not None and name in ("detach", "zero"):
        t = t - found.average(t)
    tape.give(step.inputs[0], Share(t / found.divisor))


_OTHERS: dict[str, Any] = {
    "Add": _sum,
    "Attention": attention_back,
    "AveragePool": _average,
    "CumSum": _cumulated,
    "Div": quotient_back,
    "Einsum": einsum_product_back,
    "GlobalAveragePool": _average,
    "LRN": _normalised,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _normalised,
    "MatMul": matmul_back,
    "Max": extreme_back,
    "Mean": _sum,
    "Min": extreme_back,
    "Mul": product_back,
    "RotaryEmbedding": rotary_back,
    "ReduceMax": _extreme_over_axes,
    "ReduceMean": _reduced,
    "ReduceMin": _extreme_over_axes,
    "ReduceSum": _reduced,
    "Resize": _resized,
    "Softmax": _softmax,
    "Sub": _difference,
    "Sum": _sum,
    "Upsample": _resized,
    **dict.fromkeys(RECURRENT, recurrent_back),
    **dict.fromkeys(pooling.NORMALISATIONS, _normalised),
}
