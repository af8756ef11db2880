"""The oracle: every rule applied element by element to full contribution tensors, in float64.

A layer is its table of contributions ``C[n, k, j] = a[n, j] * W[k, j]`` (what input j brings to neuron k in sample n)
and the bias ``b[k]``. A rule turns the table into *shares*; `distribute` hands the relevance of each neuron out along
them and keeps the books of what no input receives. Nothing here is taken from pylrp: its rule classes serve as keys
only. `errors.py` says how far a computation in float32 or float64 may lie from this one; `conventions.py` rewrites the
rules of other libraries in the same terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pylrp import rules

Array = np.ndarray
CAUSES = ("bias", "stabilizer", "dead")


def positive(x: Array) -> Array:
    """Return x where x > 0 and 0 elsewhere."""
    return np.where(x > 0, x, 0.0)


def negative(x: Array) -> Array:
    """Return x where x < 0 and 0 elsewhere."""
    return np.where(x < 0, x, 0.0)


@dataclass(frozen=True)
class Layer:
    """One dense layer in float64. `a` is None where only rules that do not look at the input are asked."""

    W: Array
    b: Array
    a: Array | None
    batch: int

    @property
    def C(self) -> Array:
        """Contributions (n, k, j)."""
        assert self.a is not None, "this rule needs the layer's input"
        return self.a[:, None, :] * self.W[None, :, :]

    def every_sample(self, table: Array) -> Array:
        """Repeat a table (k, j) that does not depend on the input for every sample."""
        return np.broadcast_to(table, (self.batch, *table.shape))


@dataclass(frozen=True)
class Share:
    """One denominator: `inputs` (n, k, j) and `bias` (k,) share `part` of each neuron's relevance.

    `size` are the magnitudes that were added to get `inputs` (z-box subtracts), `plain` the contributions whose sum
    decides a mask in `part`: both matter to rounding only.
    """

    inputs: Array
    bias: Array
    epsilon: float
    part: Array | float = 1.0
    only_at_zero: bool = False
    size: Array | None = None
    plain: Array | None = None

    def shift(self, z: Array) -> Array:
        """Return what the stabiliser adds to the denominators z."""
        if self.only_at_zero:
            return np.where(z == 0, self.epsilon, 0.0)
        return np.where(z < 0, -self.epsilon, self.epsilon)


@dataclass(frozen=True)
class Outcome:
    """Relevance (n, j) that reaches the input, what else became of it (n,) and the shares it came by."""

    relevance: Array
    causes: dict[str, Array]
    shares: list[Share] = field(repr=False)


Oracle = Callable[[object, Layer], "list[Share]"]
ORACLES: dict[type, Oracle] = {}


def oracle(*kinds: type) -> Callable[[Oracle], Oracle]:
    """Register a function as the oracle of the given rule classes."""

    def register(function: Oracle) -> Oracle:
        ORACLES.update(dict.fromkeys(kinds, function))
        return function

    return register


def bias_of(rule: object, layer: Layer) -> Array:
    """Return the layer's bias, or zeros where the rule leaves it out."""
    return layer.b if getattr(rule, "bias", True) else np.zeros_like(layer.b)


# R_j = sum_k a_j w_kj / (sum_j a_j w_kj + b_k +- epsilon) R_k
@oracle(rules.Zero)
def zero(rule, layer):
    return [Share(layer.C, bias_of(rule, layer), 0.0)]


@oracle(rules.Epsilon)
def epsilon(rule, layer):
    return [Share(layer.C, bias_of(rule, layer), rule.epsilon)]


@oracle(rules.Norm)
def norm(rule, layer):
    return [Share(layer.C, bias_of(rule, layer), rule.stabilizer)]


# The contributions of the favoured sign count 1 + gamma times: positive ones where the output is positive, negative
# ones where it is negative. An output of exactly 0 favours neither and hands nothing out.
@oracle(rules.Gamma)
def gamma(rule, layer):
    C, b = layer.C, bias_of(rule, layer)
    output = C.sum(axis=2) + layer.b
    plain = np.concatenate([C, layer.every_sample(layer.b[:, None])], axis=2)
    return [
        Share(
            C + rule.gamma * favoured(C),
            b + rule.gamma * favoured(b),
            rule.stabilizer,
            np.where(mask, 1.0, 0.0),
            plain=plain,
        )
        for favoured, mask in ((positive, output > 0), (negative, output < 0))
    ]


@oracle(rules.ZPlus)
def z_plus(rule, layer):
    return [Share(positive(layer.C), positive(bias_of(rule, layer)), rule.stabilizer)]


@oracle(rules.AlphaBeta)
def alpha_beta(rule, layer):
    C, b = layer.C, bias_of(rule, layer)
    return [
        Share(positive(C), positive(b), rule.stabilizer, rule.alpha),
        Share(negative(C), negative(b), rule.stabilizer, -rule.beta),
    ]


@oracle(rules.WSquare)
def w_square(rule, layer):
    return [Share(layer.every_sample(layer.W**2), bias_of(rule, layer) ** 2, rule.stabilizer)]


@oracle(rules.Flat)
def flat(rule, layer):
    return [Share(layer.every_sample(np.ones_like(layer.W)), np.zeros_like(layer.b), rule.stabilizer)]


# Contributions counted from the box's corner where the neuron is lowest: low on positive weights, high on negative.
@oracle(rules.ZBox)
def z_box(rule, layer):
    corner = np.where(layer.W > 0, np.asarray(rule.low, float), np.asarray(rule.high, float)) * layer.W
    size = np.abs(layer.C) + np.abs(corner)
    return [Share(layer.C - corner, np.zeros_like(layer.b), rule.stabilizer, size=size)]


@oracle(rules.Pass)
def passing(rule, layer):
    return [Share(layer.every_sample(np.eye(len(layer.b))), np.zeros_like(layer.b), 0.0)]


def distribute(shares: list[Share], R: Array) -> Outcome:
    """Hand R (n, k) out along the shares. Where a denominator is 0 there is no receiver: counted as dead."""
    relevance = np.zeros((shares[0].inputs.shape[0], shares[0].inputs.shape[2]))
    bias, stabilizer, dead = (np.zeros(len(R)) for _ in CAUSES)
    unserved = R.copy()  # what no share asks for
    for share in shares:
        part = share.part * R
        z = share.inputs.sum(axis=2) + share.bias
        shift = share.shift(z)
        s = np.divide(part, z + shift, out=np.zeros_like(part), where=z + shift != 0)
        relevance += (share.inputs * s[:, :, None]).sum(axis=1)
        bias += (share.bias * s).sum(axis=1)
        stabilizer += np.where(z != 0, shift * s, 0.0).sum(axis=1)
        dead += np.where(z == 0, part, 0.0).sum(axis=1)
        unserved -= part
    return Outcome(relevance, {"bias": bias, "stabilizer": stabilizer, "dead": dead + unserved.sum(axis=1)}, shares)


def as_layer(W: Array, a: Array | None, b: Array | None, batch: int) -> Layer:
    """Return the layer in float64; `a` as rows."""
    weight = np.asarray(W, np.float64)
    bias = np.zeros(len(weight)) if b is None else np.asarray(b, np.float64)
    return Layer(weight, bias, None if a is None else np.asarray(a, np.float64), batch)


def propagate(
    W: Sequence[Array],
    acts: Sequence[Array | None],
    out: Array,
    rule_list: Sequence[object],
    biases: Sequence[Array | None] | None = None,
    oracles: dict[type, Oracle] | None = None,
) -> list[Outcome]:
    """Return one `Outcome` a layer, index 0 at the input. Batches only: acts (n, j), out (n, k)."""
    table = ORACLES if oracles is None else oracles
    R = np.asarray(out, np.float64)
    outcomes: list[Outcome] = []
    for index in reversed(range(len(W))):
        layer = as_layer(W[index], acts[index], None if biases is None else biases[index], len(R))
        rule = rule_list[index]
        outcome = distribute(table[type(rule)](rule, layer), R)
        outcomes.insert(0, outcome)
        R = outcome.relevance
    return outcomes
