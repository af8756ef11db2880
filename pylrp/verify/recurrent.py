"""ONNX's LSTM, GRU and RNN: what they compute step by step, and what they hand down. ``operators.py`` lists them.

Gates are constants, all goes to the signal (Arras et al. 2017). What is left is linear, so that relevance goes as
coefficients ``R = a c``: from a state to the one before it, and to the step's input by the weights of the cell alone.
Equations of the ONNX standard; a function with f(0) != 0 keeps its constant's share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pylrp.verify.elementwise import FUNCTIONS
from pylrp.verify.program import Array, Step
from pylrp.verify.rules import Share, name_of
from pylrp.verify.tape import Tape

__all__ = ["RECURRENT", "recurrent", "recurrent_back"]

Function = Callable[[Array], Array]
#: Blocks of rows of the weights, and how many functions a direction has.
RECURRENT: dict[str, tuple[str, int]] = {"LSTM": ("iofc", 3), "GRU": ("zrh", 2), "RNN": ("h", 1)}
_USUAL = ("Sigmoid", "Tanh", "Tanh")
_NAMES = {name.lower(): name for name in FUNCTIONS}
#: What alpha and beta are called where a function is an operator, and what they are where nothing is said.
_SETTINGS: dict[str, dict[str, float]] = {
    "LeakyRelu": {"alpha": 0.01}, "ThresholdedRelu": {"alpha": 1.0}, "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5}, "Affine": {"alpha": 1.0, "beta": 0.0},
    "ScaledTanh": {"alpha": 1.0, "beta": 1.0},
}  # fmt: skip


@dataclass(frozen=True)
class _Moment:
    """One step of one direction, (batch, units): what was before it, and what its functions took and made."""

    at: int
    part: Array
    before: Array
    after: Array
    total: Array
    inner: Array
    gate: Array
    keep: Array
    reset: Array | None
    cell: Array | None
    outer: Array | None


@dataclass(frozen=True)
class _Cell:
    """One direction of a layer.

    Attributes
    ----------
    w, u, b, rb : dict of str to ndarray
        By gate: weights of the input and of the state, and the bias of each.
    functions : list of callable
        Of gates, cell and output; of an RNN the cell's alone comes first.
    """

    op: str
    w: dict[str, Array]
    u: dict[str, Array]
    b: dict[str, Array]
    rb: dict[str, Array]
    peep: dict[str, Array]
    functions: list[Function]
    clip: float
    after: bool
    coupled: bool

    def clipped(self, z: Array) -> Array:
        return np.clip(z, -self.clip, self.clip)

    @property
    def inner(self) -> Function:
        """Return the cell's function of its sum."""
        function = self.functions[0 if self.op == "RNN" else 1]
        return lambda z: function(self.clipped(z))

    def gate(self, letter: str, x: Array, h: Array, more: Any = 0.0) -> Array:
        return np.asarray(self.functions[0](self.clipped(self.total(letter, x, h) + more)))

    def total(self, letter: str, x: Array, h: Array) -> Array:
        made: Array = x @ self.w[letter].T + self.b[letter] + h @ self.u[letter].T + self.rb[letter]
        return made

    def moment(self, at: int, x: Array, h: Array, c: Array, part: Array) -> tuple[_Moment, Array, Array]:
        """Return a step, and the states after it."""
        reset: Array | None = None
        cell: Array | None = None
        outer: Array | None = None
        if self.op == "LSTM":
            gate = self.gate("i", x, h, self.peep["i"] * c)
            keep = 1 - gate if self.coupled else self.gate("f", x, h, self.peep["f"] * c)
            total = self.total("c", x, h)
            cell = keep * c + gate * self.inner(total)
            outer = self.gate("o", x, h, self.peep["o"] * cell)
            made = outer * self.functions[2](cell)
        elif self.op == "GRU":
            keep, reset = self.gate("z", x, h), self.gate("r", x, h)
            gate = 1 - keep
            if self.after:
                total = x @ self.w["h"].T + self.b["h"] + reset * (h @ self.u["h"].T + self.rb["h"])
            else:
                total = self.total("h", x, reset * h)
            made = gate * self.inner(total) + keep * h
        else:
            gate, keep, total = np.ones(h.shape), np.zeros(h.shape), self.total("h", x, h)
            made = self.inner(total)
        new_c = c if cell is None else np.where(part, cell, c)
        moment = _Moment(at, part, h, made, total, self.inner(total), gate, keep, reset, cell, outer)
        return moment, np.where(part, made, h), new_c

    def back(self, moment: _Moment, c_h: Array, c_c: Array, epsilon: float) -> tuple[Array, Array, Array]:
        """Return the coefficients of the step's input and of both states before it."""
        past = np.zeros(c_h.shape)
        if moment.cell is not None:
            assert moment.outer is not None
            c_c = c_c + c_h * moment.outer * _slope(self.functions[2], moment.cell)
            c_c = c_c * _kept(moment.cell, epsilon)
            q, c_c = c_c * moment.gate, c_c * moment.keep
        else:
            c_h = c_h * (_kept(moment.after, epsilon) if self.op == "GRU" else 1.0)
            q, past = c_h * moment.gate, c_h * moment.keep
        q = q * _slope(self.inner, moment.total) * _kept(moment.total, epsilon)
        letter = "c" if self.op == "LSTM" else "h"
        if moment.reset is None:
            state = q @ self.u[letter]
        elif self.after:
            state = (moment.reset * q) @ self.u[letter]
        else:
            state = moment.reset * (q @ self.u[letter])
        return q @ self.w[letter], past + state, c_c


def _slope(function: Function, z: Array) -> Array:
    """Return what a function makes of each unit of its argument, beside its constant: (f(z) - f(0)) / z."""
    rise = np.asarray(function(z) - function(np.zeros(1)))
    made: Array = np.divide(rise, z, out=np.zeros_like(z), where=z != 0)
    return made


def _kept(z: Array, epsilon: float) -> Array:
    """Return what a stabiliser leaves of a sum's relevance."""
    below = np.where(z < 0, z - epsilon, z + epsilon)
    made: Array = np.divide(z, below, out=np.zeros_like(z), where=below != 0)
    return made


def _functions(step: Step, count: int, direction: int) -> list[Function]:
    names = step.get("activations") or [*(_USUAL[-1:] if count == 1 else _USUAL[:count])] * (direction + 1)
    alphas, betas = iter(step.get("activation_alpha", ())), iter(step.get("activation_beta", ()))
    made: list[Function] = []
    for given in names[: (direction + 1) * count]:
        text = (given.decode() if isinstance(given, bytes) else given).lower()
        name = {"affine": "Affine", "scaledtanh": "ScaledTanh"}.get(text) or _NAMES.get(text, "")
        if not name:
            raise step.refuse(f"has the function {given!r}")
        settings = {key: next(alphas if key == "alpha" else betas, usual)
                    for key, usual in _SETTINGS.get(name, {}).items()}  # fmt: skip
        made.append(_function(name, settings))
    return made[direction * count :]


def _function(name: str, settings: dict[str, float]) -> Function:
    a, b = settings.get("alpha", 0.0), settings.get("beta", 0.0)
    if name == "Affine":
        return lambda z: a * z + b
    if name == "ScaledTanh":
        return lambda z: np.asarray(a * np.tanh(b * z))
    step = Step(name, name, (), (), settings, 17)
    return lambda z: np.asarray(FUNCTIONS[name](step, z))


class _Run:
    """A layer on its input: (steps, batch, features), and (directions, batch, units) of the states before it."""

    def __init__(self, step: Step, given: list[Array | None]):
        self.step, self.first = step, bool(step.get("layout", 0))
        given = [*given, *[None] * 8]
        x, w, u = given[:3]
        assert x is not None
        assert w is not None
        assert u is not None
        self.x = x.swapaxes(0, 1) if self.first else x
        steps, batch, _ = self.x.shape
        self.directions, self.units = len(w), u.shape[-1]
        lengths = np.full(batch, steps) if given[4] is None else np.asarray(given[4]).astype(int)
        self.part = np.arange(steps)[:, None, None] < lengths[:, None]
        self.states = [self._state(given[5]), self._state(given[6] if step.op == "LSTM" else None)]
        self.cells = [self._cell(d, w, u, given[3], given[7] if step.op == "LSTM" else None)
                      for d in range(self.directions)]  # fmt: skip
        self.moments: list[list[_Moment]] = []
        self.y = np.zeros((steps, self.directions, batch, self.units), self.x.dtype)
        self.ends = [np.zeros((self.directions, batch, self.units), self.x.dtype) for _ in "hc"]
        for d, cell in enumerate(self.cells):
            h, c = (state[d] for state in self.states)
            found = []
            for at in self.order(d):
                moment, h, c = cell.moment(at, self.x[at], h, c, self.part[at])
                self.y[at, d] = np.where(moment.part, h, 0)
                found.append(moment)
            self.moments.append(found)
            self.ends[0][d], self.ends[1][d] = h, c

    def order(self, direction: int) -> Iterator[int]:
        backwards = direction == 1 or self.step.get("direction", "forward") == "reverse"
        return iter(range(len(self.x))[:: -1 if backwards else 1])

    def _state(self, given: Array | None) -> Array:
        if given is None:
            return np.zeros((self.directions, self.x.shape[1], self.units), self.x.dtype)
        return given.swapaxes(0, 1) if self.first else given

    def _cell(self, d: int, w: Array, u: Array, biases: Array | None, peep: Array | None) -> _Cell:
        letters, count = RECURRENT[self.step.op]
        both = np.zeros(2 * w.shape[1]) if biases is None else biases[d]

        def by_gate(array: Array, names: str = letters) -> dict[str, Array]:
            return dict(zip(names, np.split(array, len(names)), strict=True))

        return _Cell(
            self.step.op, by_gate(w[d]), by_gate(u[d]), by_gate(both[: w.shape[1]]), by_gate(both[w.shape[1] :]),
            by_gate(np.zeros(3 * self.units) if peep is None else peep[d], "iof"),
            _functions(self.step, count, d), self.step.get("clip") or np.inf,
            bool(self.step.get("linear_before_reset", 0)), bool(self.step.get("input_forget", 0)),
        )  # fmt: skip


def recurrent(step: Step, *given: Array | None) -> tuple[Array, ...]:
    """Return the states of all steps, and the last states."""
    run = _Run(step, list(given))
    ends = tuple(end.swapaxes(0, 1) if run.first else end for end in run.ends)
    return (run.y.transpose(2, 0, 1, 3) if run.first else run.y), *ends


def recurrent_back(tape: Tape, step: Step, share: Share, z: Array) -> None:
    """Hand relevance of the states to the sequence and to the states before it."""
    run = _Run(step, tape.given(step))
    rule = tape.rules.part(step, "states") or tape.rules.of(step, "recurrent")
    epsilon = 0.0 if name_of(rule) == "signal" else tape.rules.epsilon(rule)
    if epsilon is None:
        raise step.refuse(f"has the rule {rule!r}, which has no formula here")
    above = [_above(tape, run, name) for name in [*step.outputs, "", ""][:3]]
    down = [np.zeros(run.x.shape), *(np.zeros(state.shape) for state in run.states)]
    for d, cell in enumerate(run.cells):
        c_h, c_c = (_coefficients(*above[1 + i], run.ends[i])[d] for i in range(2))
        top = _coefficients(*above[0], run.y)
        for moment in reversed(run.moments[d]):
            here = c_h + top[moment.at, d]
            c_x, state, cells = cell.back(moment, here, c_c, epsilon)
            down[0][moment.at] += np.where(moment.part, c_x, 0)
            c_h, c_c = np.where(moment.part, state, c_h), np.where(moment.part, cells, c_c)
        down[1][d], down[2][d] = c_h, c_c
    for at, c in zip((0, 5, 6), down, strict=True):
        if at < len(step.inputs) and step.inputs[at] in tape.program.carries:
            tape.give(step.inputs[at], Share(c.swapaxes(0, 1) if run.first else c))


def _above(tape: Tape, run: _Run, name: str) -> tuple[Array, Array]:
    """Return what has arrived at an output, coefficients and relevance, with the steps or directions first."""
    if name not in tape.shares:
        return np.zeros(()), np.zeros(())
    shape = tape.values[name].shape
    c, r = (np.broadcast_to(part, shape) for part in (tape.shares[name].c, tape.shares[name].r))
    if not run.first:
        return c, r
    return (c.transpose(1, 2, 0, 3), r.transpose(1, 2, 0, 3)) if c.ndim == 4 else (c.swapaxes(0, 1), r.swapaxes(0, 1))


def _coefficients(c: Array, r: Array, value: Array) -> Array:
    return np.asarray(c + np.divide(r, value, out=np.zeros(value.shape), where=value != 0))
