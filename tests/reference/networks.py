"""Random layers and networks for the tests, in any memory layout.

Two kinds of numbers. *Grid* numbers are multiples of 1/8 up to 2: sums of their products are exact even in float32, so
cancellation, exact zeros and the signs that rules branch on come out the same everywhere. *Normal* numbers round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pylrp import rules

from .contributions import ORACLES, Array, Oracle, as_layer, distribute
from .errors import undetermined

LAYOUTS = ("plain", "fortran", "sliced", "negative", "readonly", "unaligned", "big-endian")


@dataclass(frozen=True)
class Net:
    """Arguments of `pylrp.relevance`: arrays a layer, relevance at the top, biases or None."""

    W: list[Array]
    acts: list[Array]
    out: Array
    biases: list[Array] | None

    def astype(self, dtype: type) -> Net:
        """Convert every array."""
        biases = None if self.biases is None else [b.astype(dtype) for b in self.biases]
        return Net(
            [w.astype(dtype) for w in self.W], [a.astype(dtype) for a in self.acts], self.out.astype(dtype), biases
        )


def numbers(rng: np.random.Generator, shape: tuple[int, ...], grid: bool, zeros: float = 0.0) -> Array:
    """Signed random numbers; a share of `zeros` of them is exactly 0."""
    values = rng.integers(-16, 17, shape) / 8 if grid else rng.standard_normal(shape)
    return np.where(rng.random(shape) < zeros, 0.0, values)


def random_net(
    rng: np.random.Generator,
    widths: Sequence[int],
    batch: int,
    *,
    grid: bool = False,
    zeros: float = 0.0,
    biases: bool = True,
    signed: bool = True,
) -> Net:
    """Independent random arrays: `widths` from input to output. Each layer's input is drawn, not computed."""
    pairs = list(zip(widths[1:], widths[:-1], strict=True))
    W = [numbers(rng, pair, grid, zeros) for pair in pairs]
    acts = [numbers(rng, (batch, width), grid, zeros) for width in widths[:-1]]
    if not signed:
        acts = [np.abs(a) for a in acts]
    out = numbers(rng, (batch, widths[-1]), grid, zeros)
    return Net(W, acts, out, [numbers(rng, (n,), grid, zeros) for n, _ in pairs] if biases else None)


def forward_net(rng: np.random.Generator, widths: Sequence[int], batch: int, *, biases: bool = True) -> Net:
    """A ReLU network with the activations of a signed random input; `out` is what it predicts."""
    net = random_net(rng, widths, batch, biases=biases)
    acts = [net.acts[0]]
    for index, w in enumerate(net.W):
        z = acts[-1] @ w.T / np.sqrt(w.shape[1])
        z = z if net.biases is None else z + net.biases[index]
        acts.append(np.maximum(z, 0.0) if index + 1 < len(net.W) else z)
    W = [w / np.sqrt(w.shape[1]) for w in net.W]
    return Net(W, acts[:-1], acts[-1], net.biases)


def settle(net: Net, rule: object, dtype: type, oracles: dict[type, Oracle] | None = None, exact: bool = False) -> Net:
    """Take the relevance from the neurons of a one-layer network whose result hangs on rounding alone."""
    net = net.astype(dtype)
    layer = as_layer(net.W[0], net.acts[0], None if net.biases is None else net.biases[0], len(net.out))
    outcome = distribute((oracles or ORACLES)[type(rule)](rule, layer), np.asarray(net.out, np.float64))
    return Net(net.W, net.acts, np.where(undetermined(outcome, dtype, exact), 0, net.out).astype(dtype), net.biases)


def relayout(x: Array, layout: str) -> Array:
    """Return an array equal to x that lies differently in memory."""
    if layout == "fortran":
        return np.asfortranarray(x)
    if layout == "sliced":
        wide = np.full(tuple(2 * n + 1 for n in x.shape), np.nan, x.dtype)
        view = wide[tuple(slice(1, None, 2) for _ in x.shape)]
        view[...] = x
        return view
    if layout == "negative":
        back = tuple(slice(None, None, -1) for _ in x.shape)
        return x[back].copy()[back]
    if layout == "readonly":
        x = x.copy()
        x.flags.writeable = False
        return x
    if layout == "unaligned":
        raw = np.empty(x.nbytes + 1, np.uint8)
        view = raw[1:].view(x.dtype).reshape(x.shape)
        view[...] = x
        return view
    if layout == "big-endian":
        return x.astype(x.dtype.newbyteorder(">"))
    assert layout == "plain"
    return x.copy()


def every_rule(width: int = 3) -> list[object]:
    """One or more of each rule in the catalogue, with and without its options. `Pass` needs equal widths: not here."""
    steps = np.arange(width) % 3 / 4
    return [
        rules.Zero(),
        rules.Epsilon(),
        rules.Epsilon(epsilon=0.5),
        rules.Gamma(),
        rules.Gamma(gamma=1.5, stabilizer=0.25),
        rules.ZPlus(),
        rules.ZPlus(stabilizer=0.0),
        rules.AlphaBeta(),
        rules.AlphaBeta(alpha=1.5, beta=0.5, stabilizer=0.0),
        rules.WSquare(),
        rules.WSquare(stabilizer=0.5),
        rules.Flat(),
        rules.ZBox(-9.0, 9.0),
        rules.ZBox(-9.0 - steps, 8.0 + steps, stabilizer=0.5),
        rules.Norm(),
    ]


def chain_rules(width: int) -> list[list[object]]:
    """Lists of rules for four layers, the first of which has `width` inputs: one as people use them, and mixtures."""
    z_box = rules.ZBox(-2.0 - np.arange(width) / 8, 2.0)
    return [
        [rules.WSquare(stabilizer=0.0), *[rules.ZPlus(stabilizer=0.0)] * 3],
        [rules.Flat(), rules.ZPlus(), rules.ZPlus(), rules.Epsilon()],
        [z_box, rules.Gamma(), rules.Gamma(), rules.Epsilon(0.25)],
        [rules.Flat(), rules.AlphaBeta(), rules.AlphaBeta(), rules.Norm()],
        [rules.Zero()] * 4,
        [rules.AlphaBeta(3.0, 2.0), rules.WSquare(), rules.Gamma(2.0), rules.ZPlus(bias=False)],
    ]
