"""What is measured: networks, batches and rules, and what an explanation of them must at least cost.

A ``Case`` is a name and some numbers; its ``problem()`` makes the arrays, late and one at a time, because
the largest network weighs half a gigabyte. ``run.py`` and ``test_throughput.py`` choose cases from here,
``peers.py`` explains their problems.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise

import by_hand
import numpy as np
from by_hand import Array

# Products with W that a rule needs when its input is >= 0: forward and backward, for each sign where both
# count. The forward half of w^2 and of the z-box's bounds depends on the weights alone: once a network.
PRODUCTS_NEEDED = {"w2": 1, "z+": 2, "epsilon": 2, "gamma": 4, "alpha2-beta1": 4, "z-box": 3}

# Competitors differ in their stabilisers, and float32 sums of 25,088 products are not exact.
TOLERANCE = {"float32": 1e-4, "float64": 1e-8}


@dataclass(frozen=True, eq=False)
class Problem:
    """The arrays of one case: everything a competitor may look at."""

    weights: tuple[Array, ...]  # (n_{l+1}, n_l)
    acts: tuple[Array, ...]  # the input of each layer, (batch, n_l), all >= 0
    out: Array  # (batch, n_L): the relevance at the top
    rules: tuple[str, ...]  # one a layer, keys of by_hand.RULES
    _expected: dict[str, Array] = field(default_factory=dict, repr=False)

    @property
    def batch(self) -> int:
        """Number of samples."""
        return int(self.out.shape[0])

    @property
    def is_question(self) -> bool:
        """Whether the rules are the question's: w^2 at the input, z+ above."""
        return self.rules == ("w2",) + ("z+",) * (len(self.weights) - 1)

    @cached_property
    def flops(self) -> int:
        """Floating point operations needed: 2 n_in for each product and each output.

        At the top only outputs with relevance count. Below it about half of the units are inactive, but in no
        pattern that a matrix product could leave out.
        """
        outputs = [self.batch * len(W) for W in self.weights[:-1]] + [int(np.count_nonzero(self.out))]
        layers = zip(self.rules, self.weights, outputs, strict=True)
        return sum(2 * PRODUCTS_NEEDED[rule] * n * W.shape[1] for rule, W, n in layers)

    @cached_property
    def bytes(self) -> int:
        """Bytes of weights needed: each row once, if its output has relevance in any sample."""
        layers = zip(self.weights, (*self.acts[1:], self.out), strict=True)
        return sum(int(R.any(axis=0).sum()) * W.shape[1] * W.itemsize for W, R in layers)

    def expected(self, computes: str) -> Array:
        """Return in float64 what a competitor must give, according to what it says that it computes."""
        if computes not in self._expected:
            if computes == "logits":
                a, W = self.acts[-1].astype(np.float64), self.weights[-1].astype(np.float64)
                self._expected[computes] = a @ W.T
            else:
                rules = self.rules if computes == "relevance" else ("z+", *self.rules[1:])
                self._expected[computes] = by_hand.reference(rules, self.weights, self.acts, self.out)
        return self._expected[computes]


@dataclass(frozen=True)
class Case:
    """One row of the tables."""

    group: str  # "network", "rule", "threads" or "sweep"
    widths: tuple[int, ...]
    batch: int
    dtype: str = "float32"
    rule: str = ""  # of a single layer; empty: the question's rules
    threads: tuple[int, ...] = ()  # thread counts to compare; empty: the run's own

    @property
    def name(self) -> str:
        """For example ``784-300-10 b1``; ``--case`` selects by any part of it."""
        parts = ["-".join(map(str, self.widths)), f"b{self.batch}"]
        parts += [self.dtype] if self.dtype != "float32" else []
        parts += [self.group] if self.group in ("threads", "sweep") else []
        return " ".join([self.rule, *parts] if self.rule else parts)

    def problem(self) -> Problem:
        """Make the arrays: a forward pass of a random network, so that about half of the units are active."""
        weights = _weights(self.widths, self.dtype)
        acts = [np.maximum(_normal(1, (self.batch, self.widths[0]), self.dtype), 0)]
        if self.rule == "z-box":
            np.minimum(acts[0], by_hand.HIGH, out=acts[0])
        for W in weights[:-1]:
            acts.append(np.maximum(acts[-1] @ W.T, 0))
        logits = acts[-1] @ weights[-1].T
        if self.rule:
            # Relevance of both signs, but none where z is nearly 0: there R / z amplifies rounding errors.
            out = np.where(np.abs(logits) < 0.01 * logits.std(), 0, logits)
            return Problem(weights, tuple(acts), out, (self.rule,))
        out = np.zeros_like(logits)
        top = (np.arange(self.batch), logits.argmax(axis=1))
        out[top] = logits[top]
        return Problem(weights, tuple(acts), out, ("w2",) + ("z+",) * (len(weights) - 1))


@lru_cache(maxsize=1)
def _weights(widths: tuple[int, ...], dtype: str) -> tuple[Array, ...]:
    """He initialisation. Only the last network is kept: cases that share one stand next to each other."""
    weights = []
    for n_in, n_out in pairwise(widths):
        weights.append(_normal(n_out, (n_out, n_in), dtype))
        weights[-1] *= np.sqrt(2 / n_in)
    return tuple(weights)


def _normal(seed: int, shape: tuple[int, int], dtype: str) -> Array:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape, np.float32 if dtype == "float32" else np.float64)


MNIST = (784, 300, 10)
MNIST_WIDE = (784, 1000, 1000, 10)
SQUARE = (4096, 4096, 4096, 1000)
VGG = (25088, 4096, 4096, 1000)  # the classifier of VGG16
LAYER = (4096, 4096)

CASES = (
    Case("network", MNIST, 1),
    Case("network", MNIST_WIDE, 1024),
    Case("network", SQUARE, 256),
    Case("threads", SQUARE, 256, threads=(1, 2)),
    Case("network", SQUARE, 256, dtype="float64"),
    Case("network", VGG, 1),
    Case("network", VGG, 32),
    *(Case("rule", LAYER, 256, rule=rule) for rule in ("epsilon", "gamma", "alpha2-beta1", "z-box")),
)
QUICK = (
    Case("network", MNIST, 1),
    Case("network", MNIST_WIDE, 1024),
    Case("rule", LAYER, 256, rule="epsilon"),
)
SWEEP = tuple(Case("sweep", SQUARE, batch) for batch in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096))
