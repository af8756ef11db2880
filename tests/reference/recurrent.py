"""Recurrent layers in float64, step by step, with full contributions: one sample, one direction.

Written from the equations; shares nothing with the library. Gates are by name here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Function = Callable[[Array], Array]


def sigmoid(z: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(z)))


@dataclass
class Cell:
    """One direction of a layer: arrays by gate."""

    kind: str
    w: Mapping[str, Array]
    u: Mapping[str, Array]
    b: Mapping[str, Array]
    rb: Mapping[str, Array]
    gate: Function = sigmoid
    inner: Function = np.tanh
    outer: Function = np.tanh
    peepholes: Mapping[str, Array] = field(default_factory=dict)
    reset_after: bool = True
    coupled: bool = False
    clip: float = np.inf

    def clipped(self, z: Array) -> Array:
        return np.clip(z, -self.clip, self.clip)


def split(array: Array | None, letters: str, like: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """Return the blocks of an array by gate; zeros of a bias that is not there."""
    if array is None:
        assert like is not None
        return {gate: np.zeros(len(block)) for gate, block in like.items()}
    return dict(zip(letters, np.split(np.asarray(array, np.float64), len(letters)), strict=True))


def cell(kind: str, letters: str, w: Array, u: Array, b: Array | None, rb: Array | None, **settings: Any) -> Cell:
    blocks = split(w, letters)
    return Cell(kind, blocks, split(u, letters), split(b, letters, blocks), split(rb, letters, blocks), **settings)


@dataclass
class Step:
    x: Array
    h_before: Array
    c_before: Array
    h: Array
    c: Array
    values: dict[str, Array]


def step_forward(of: Cell, x: Array, h: Array, c: Array) -> Step:
    def total(gate: str, state: Array) -> Array:
        return of.w[gate] @ x + of.b[gate] + of.u[gate] @ state + of.rb[gate]

    peep = {gate: of.peepholes.get(gate, np.zeros_like(h)) for gate in "ifo"}
    v: dict[str, Array] = {}
    if of.kind == "lstm":
        v["i"] = of.gate(of.clipped(total("i", h) + peep["i"] * c))
        v["f"] = 1 - v["i"] if of.coupled else of.gate(of.clipped(total("f", h) + peep["f"] * c))
        v["z"] = total("g", h)
        v["g"] = of.inner(of.clipped(v["z"]))
        new_c = v["f"] * c + v["i"] * v["g"]
        v["o"] = of.gate(of.clipped(total("o", h) + peep["o"] * new_c))
        new_h = v["o"] * of.outer(new_c)
        return Step(x, h, c, new_h, new_c, v)
    if of.kind == "gru":
        v["u"], v["r"] = (of.gate(of.clipped(total(gate, h))) for gate in "zr")
        if of.reset_after:
            v["z"] = of.w["n"] @ x + of.b["n"] + v["r"] * (of.u["n"] @ h + of.rb["n"])
        else:
            v["z"] = total("n", v["r"] * h)
        v["g"] = of.inner(of.clipped(v["z"]))
        return Step(x, h, c, (1 - v["u"]) * v["g"] + v["u"] * h, c, v)
    v["z"] = total("n", h)
    return Step(x, h, c, of.inner(of.clipped(v["z"])), c, v)


def forward(of: Cell, x: Array, h: Array, c: Array, takes_part: Array) -> list[Step | None]:
    steps: list[Step | None] = []
    for t, values in enumerate(x):
        if takes_part[t]:
            steps.append(step_forward(of, values, h, c))
            h, c = steps[-1].h, steps[-1].c
        else:
            steps.append(None)
    return steps


def shared(parts: list[Array], total: Array, relevance: Array, epsilon: float) -> tuple[list[Array], float]:
    """Return what each of some arrays of contributions, (targets, sources), gets, and what the stabiliser takes."""
    guard = np.where(total < 0, -epsilon, epsilon)
    none = (total + guard == 0) | (total == 0)
    share = np.where(none, 0.0, relevance / np.where(none, 1.0, total + guard))
    return [(part * share[:, None]).sum(axis=0) for part in parts], float((guard * share).sum())


def backward(
    of: Cell, steps: list[Step | None], r_steps: Array, r_h: Array, r_c: Array, *, epsilon: float = 0.0
) -> tuple[Array, Array, Array, Counter[str]]:
    """Return the relevance of the inputs, of both first states, and what was absorbed."""
    units = len(r_h)
    lost: Counter[str] = Counter()
    r_x = np.zeros((len(steps), of.w[next(iter(of.w))].shape[1]))
    r_h, r_c = r_h.copy(), r_c.copy()
    eye = np.eye(units)
    zero_in, zero_out = of.inner(np.zeros(1))[0], of.outer(np.zeros(1))[0]

    def function(relevance: Array, value: Array, at_zero: float) -> Array:
        """Hand relevance through a function; f(0) takes its share."""
        kept = np.where(value == 0, 0.0, relevance * at_zero / np.where(value == 0, 1.0, value))
        lost["constant"] += kept.sum()
        return relevance - kept

    for t in reversed(range(len(steps))):
        step = steps[t]
        if step is None:
            lost["dead"] += r_steps[t].sum()
            continue
        v = step.values
        r_h = r_h + r_steps[t]
        lost["dead"] += r_h[step.h == 0].sum()
        r_h = np.where(step.h == 0, 0.0, r_h)
        if of.kind == "lstm":
            r_c = r_c + function(r_h, of.outer(step.c), zero_out)
            parts = [eye * (v["f"] * step.c_before)[:, None], eye * (v["i"] * v["g"])[:, None]]
            (r_c, r_g), taken = shared(parts, step.c, r_c, epsilon)
            lost["stabilizer"] += taken
            past = np.zeros(units)
        elif of.kind == "gru":
            parts = [eye * (v["u"] * step.h_before)[:, None], eye * ((1 - v["u"]) * v["g"])[:, None]]
            (past, r_g), taken = shared(parts, step.h, r_h, epsilon)
            lost["stabilizer"] += taken
        else:
            r_g, past = r_h, np.zeros(units)
        r_z = function(r_g, v.get("g", step.h), zero_in)
        name = "g" if of.kind == "lstm" else "n"
        w, u, b, rb = of.w[name], of.u[name], of.b[name], of.rb[name]
        state = step.h_before
        if of.kind == "gru" and of.reset_after:
            u, rb = v["r"][:, None] * u, v["r"] * rb
        elif of.kind == "gru":
            state = v["r"] * state
        parts = [w * step.x, u * state, np.diag(b + rb)]
        (r_x[t], from_sum, bias), taken = shared(parts, v["z"], r_z, epsilon)
        lost["stabilizer"] += taken
        lost["bias"] += bias.sum()
        r_h = past + from_sum
    return r_x, r_h, r_c, lost
