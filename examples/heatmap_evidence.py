"""Measure, on the bundled network and digits, what docs/why-is-my-heatmap-wrong.md claims.

    python examples/heatmap_evidence.py               print the tables
    python examples/heatmap_evidence.py --write       and put them into the page, between its markers
    python examples/heatmap_evidence.py --pictures    and draw docs/pictures/input-rules.png and mistakes.png

tests/test_docs.py calls `measure` and fails where a number on the page is no longer what comes out here. Everything
is float64, and relevance starts at the logit of the predicted class unless a row says otherwise.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus
from pylrp.demo import load_demo_digits, load_demo_network

Array = NDArray[np.float64]

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "why-is-my-heatmap-wrong.md"
BLANKED = 40  # pixels set to black in the last column of the first table: 5 % of the image
Z = ZPlus(stabilizer=0)
INPUT_RULES = {
    "w²": WSquare(stabilizer=0),
    "flat": Flat(stabilizer=0),
    "z-box, 0 to 1": ZBox(0, 1, stabilizer=0),
    "z+": Z,
    "gamma 0.25": Gamma(0.25, stabilizer=0),
    "alpha2-beta1": AlphaBeta(2, 1, stabilizer=0),
    "epsilon 1e-6": Epsilon(1e-6),
}


@dataclass(frozen=True)
class Table:
    """Column heads and rows; `str` is Markdown."""

    head: list[str]
    rows: list[list[str]]

    def __str__(self) -> str:
        return "\n".join("| " + " | ".join(row) + " |" for row in [self.head, ["---"] * len(self.head), *self.rows])


@dataclass(frozen=True)
class Net:
    """A dense ReLU network: weights (n_out, n_in) and biases."""

    W: list[Array]
    b: list[Array]

    def forward(self, x: Array) -> tuple[list[Array], Array]:
        """The input of every layer, and the logits."""
        acts = [x]
        for weight, bias in zip(self.W[:-1], self.b[:-1], strict=True):
            acts.append(np.maximum(acts[-1] @ weight.T + bias, 0))
        return acts, acts[-1] @ self.W[-1].T + self.b[-1]


def load() -> tuple[Net, Array, NDArray[np.int64]]:
    """The bundled network, digits (n, 784) in [0, 1], and their labels."""
    weights, biases = load_demo_network()
    images, labels = load_demo_digits()
    net = Net([np.float64(w) for w in weights], [np.float64(b) for b in biases])
    return net, images.reshape(len(images), -1) / 255.0, labels.astype(np.int64)


def top_only(scores: Array) -> Array:
    """The scores with every class but each sample's highest set to 0."""
    return np.where(scores == scores.max(axis=1, keepdims=True), scores, 0.0)


def softmax(logits: Array) -> Array:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def correlations(R: Array, S: Array) -> Array:
    """Pearson's correlation of R[n] with S[n], for each n."""
    R, S = R - R.mean(axis=1, keepdims=True), S - S.mean(axis=1, keepdims=True)
    return np.asarray((R * S).sum(axis=1) / np.sqrt((R * R).sum(axis=1) * (S * S).sum(axis=1)))


def likeness(R: Array, labels: NDArray[np.int64]) -> str:
    """Mean correlation over all pairs of heatmaps whose digits are of different classes."""
    if np.ptp(R, axis=1).max() < 1e-9 * np.abs(R).max():
        return "all pixels equal"
    i, j = np.nonzero(np.triu(labels[:, None] != labels[None, :]))
    return f"{correlations(R[i], R[j]).mean():.2f}"


def share(R: Array, pixels: NDArray[np.bool_]) -> str:
    """Share of |R|, over all digits, that lies on `pixels`."""
    return f"{100 * (np.abs(R) * pixels).sum() / np.abs(R).sum():.0f} %"


# --- the tables -------------------------------------------------------------------------------------------------------


def input_rules(net: Net, x: Array, labels: NDArray[np.int64]) -> Table:
    """Each rule at the input, z+ above it: relevance on black pixels, likeness, and whether the top pixels matter."""
    acts, logits = net.forward(x)
    rows = []
    for name, rule in INPUT_RULES.items():
        R = pylrp.relevance(net.W, acts, top_only(logits), rules=[rule, Z])
        without = x.copy()
        np.put_along_axis(without, np.argsort(-R, axis=1, kind="stable")[:, :BLANKED], 0.0, axis=1)
        lost = (net.forward(without)[1].argmax(axis=1) != logits.argmax(axis=1)).mean()
        rows.append([name, share(R, x == 0), likeness(R, labels), f"{100 * lost:.0f} %"])
    rows.append(["(the digits themselves)", share(x, x == 0), likeness(x, labels), ""])
    head = ["rule at the input", "relevance on black pixels", "likeness of different digits"]
    return Table([*head, f"predictions changed by blanking the top {BLANKED} pixels"], rows)


def with_never_lit(net: Net, never: NDArray[np.bool_], factor: float) -> Net:
    """The network with `factor` times fresh random weights (He's initialisation) at the pixels no digit lights."""
    start = np.random.default_rng(0).normal(0, np.sqrt(2 / len(never)), net.W[0].shape)
    return Net([np.where(never, factor * start, net.W[0]), *net.W[1:]], net.b)


def never_lit(net: Net, x: Array, labels: NDArray[np.int64]) -> Table:
    """Networks that agree on every digit, because they differ only at pixels that are always black."""
    never = (x == 0).all(axis=0)
    acts, logits = net.forward(x)
    bounds = ZBox(0, x.max(axis=0), stabilizer=0)
    cases = {
        "bundled network": net,
        "random, as initialised": with_never_lit(net, never, 1.0),
        "random, decayed to a tenth": with_never_lit(net, never, 0.1),
        "zero": with_never_lit(net, never, 0.0),
    }
    rows = []
    for name, other in cases.items():
        changed = (other.forward(x)[1].argmax(axis=1) != logits.argmax(axis=1)).sum()
        maps = [
            pylrp.relevance(other.W, acts, top_only(logits), rules=[rule, Z])
            for rule in (INPUT_RULES["w²"], INPUT_RULES["z-box, 0 to 1"], bounds, Z)
        ]
        rows.append([name, str(changed), *(share(R, never) for R in maps), likeness(maps[0], labels)])
    head = [f"weights of the {never.sum()} pixels no digit lights", "predictions changed"]
    return Table([*head, "w² there", "z-box 0 to 1 there", "z-box 0 to pixel's maximum", "z+", "likeness, w²"], rows)


def starts(net: Net, x: Array) -> Table:
    """Where relevance starts; z+ in both layers."""
    acts, logits = net.forward(x)
    reference = pylrp.relevance(net.W, acts, top_only(logits), rules=Z)
    cases = {
        "logit, predicted class only": top_only(logits),
        "1, predicted class only": (top_only(logits) != 0).astype(float),
        "probability, predicted class only": top_only(softmax(logits)),
        "probabilities, all classes": softmax(logits),
        "logits, all classes": logits,
    }
    rows = []
    for name, out in cases.items():
        R = pylrp.relevance(net.W, acts, out, rules=Z)
        total, like = R.sum(axis=1), correlations(R, reference)
        rows.append([name, f"{total.min():.2f} to {total.max():.2f}", f"{like.mean():.2f}", f"{like.min():.2f}"])
    return Table(["start", "sum of the heatmap", "correlation with the first row", "at worst"], rows)


def question_loop(W: list[Array], acts: list[Array], out: Array) -> Array:
    """z+ down to the input, written as most people first write it: no stabiliser, no guard."""
    R = out
    for weight, a in zip(W[::-1], acts[::-1], strict=True):
        positive = np.maximum(weight, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            R = a * ((R / (a @ positive.T)) @ positive)
    return R


def question_w_square(weight: Array, R: Array) -> Array:
    squares = weight**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((R / squares.sum(axis=1)) @ squares)


def zeros(net: Net, x: Array) -> Table:
    """Pixels that come out as NaN: the bare loop, and pylrp, whose ledger says how much had no receiver."""
    acts, logits = net.forward(x)
    black, black_logits = net.forward(np.zeros((1, x.shape[1])))
    pruned = Net([net.W[0].copy(), net.W[1]], net.b)
    pruned.W[0][np.argmax(acts[1].mean(axis=0))] = 0  # one hidden neuron loses its weights; its bias keeps it alive
    pruned.b[0] = np.maximum(net.b[0], 0.1)
    pruned_acts, pruned_logits = pruned.forward(x)
    rows = []
    for name, n, a, scores, rule in (
        ("z+, the digits", net, acts, logits, Z),
        ("w², the digits", net, acts, logits, INPUT_RULES["w²"]),
        ("z+, one black image", net, black, black_logits, Z),
        ("w², one hidden neuron pruned to zero weights", pruned, pruned_acts, pruned_logits, INPUT_RULES["w²"]),
    ):
        out = top_only(scores)
        if rule is Z:
            naive = question_loop(n.W, a, out)
        else:
            naive = question_w_square(n.W[0], question_loop(n.W[1:], a[1:], out))
        R, ledger = pylrp.relevance(n.W, a, out, rules=[rule, Z], ledger=True)
        dead = ledger.layers[0].dead.sum() / out.sum()
        nans = f"{np.isnan(naive).sum():,} of {naive.size:,}"
        rows.append([name, nans, str(np.isnan(R).sum()), f"{100 * dead:.1f} %"])
    return Table(["case", "NaN in the bare loop", "NaN from pylrp", "without a receiver (ledger: dead)"], rows)


def with_square_layer(net: Net, x: Array, labels: NDArray[np.int64]) -> Net:
    """784-300-300-10: the bundled first layer, and two layers fitted to the digits by gradient descent.

    Two of the classical mistakes raise an error unless a layer is square, so they need one.
    """
    rng = np.random.default_rng(1)
    hidden = net.forward(x)[0][1]
    n = hidden.shape[1]
    W, V = rng.normal(0, np.sqrt(2 / n), (n, n)), rng.normal(0, np.sqrt(2 / n), (10, n))
    b, c = np.zeros(n), np.zeros(10)
    wanted = np.eye(10)[labels]
    for _ in range(300):
        a = np.maximum(hidden @ W.T + b, 0)
        error = (softmax(a @ V.T + c) - wanted) / len(x)
        back = (error @ V) * (a > 0)
        V, c = V - 0.1 * error.T @ a, c - 0.1 * error.sum(axis=0)
        W, b = W - 0.1 * back.T @ hidden, b - 0.1 * back.sum(axis=0)
    return Net([net.W[0], W, V], [net.b[0], b, c])


def mistaken_maps(deep: Net, x: Array) -> dict[str, tuple[Array, Array, str]]:
    """For each mistake: the heatmaps, the right ones, and what rebuilding the forward pass would show."""
    (x, first, second), logits = deep.forward(x)
    W, out = deep.W, top_only(logits)
    n = len(x)

    def rebuilt(weights: list[Array], acts: list[Array], targets: list[Array]) -> str:
        """Largest |relu(W a + b) - next a|, over the layers, of the arrays as they were handed over."""
        worst = 0.0
        for weight, bias, a, target in zip(weights, deep.b, acts, [*targets[1:], logits], strict=True):
            z = a @ weight.T + bias
            worst = max(worst, float(np.abs((z if target is logits else np.maximum(z, 0)) - target).max()))
        return f"{worst:.1f}" if worst > 1e-9 else "0"

    right = question_loop(W, [x, first, second], out)
    pre = [x, x @ W[0].T + deep.b[0], first @ W[1].T + deep.b[1]]
    transposed = [W[0], W[1].T, W[2]]
    late = [x, second, second]
    R_first = question_loop(W[1:], [first, second], out)
    wrong_sum = R_first @ (W[0] ** 2 / (W[0] ** 2).sum(axis=0))
    mirrored = right.reshape(n, 28, 28).transpose(0, 2, 1).reshape(n, -1)
    no_bias = Net(W, [0 * b for b in deep.b]).forward(x)[0]
    none = rebuilt(W, [x, first, second], [x, first, second])
    return {
        "activations before the ReLU": (question_loop(W, pre, out), right, rebuilt(W, pre, pre)),
        "activations of the layer above": (question_loop(W, late, out), right, rebuilt(W, late, late)),
        "a square W transposed": (question_loop(transposed, [x, first, second], out), right,
                                  rebuilt(transposed, [x, first, second], [x, first, second])),
        "forward pass rebuilt without biases": (question_loop(W, no_bias, out), right, rebuilt(W, no_bias, no_bias)),
        "w² summed over the neurons, not the inputs": (wrong_sum, question_w_square(W[0], R_first), none),
        "logits of all classes as the start": (question_loop(W, [x, first, second], logits), right, none),
        "`reshape(R, 28, 28)` without `'` in MATLAB": (mirrored, right, none),
    }  # fmt: skip


def mistakes(net: Net, x: Array, labels: NDArray[np.int64]) -> Table:
    """Common mistakes on the 784-300-300-10 network: does the sum notice, does the forward check, how wrong is it?"""
    deep = with_square_layer(net, x, labels)
    start = top_only(deep.forward(x)[1]).sum(axis=1)
    rows = []
    for name, (R, right, forward) in mistaken_maps(deep, x).items():
        ratio = R.sum(axis=1) / start
        like = correlations(R, right)
        rows.append([name, f"{ratio.min():.2f} to {ratio.max():.2f}", forward, f"{like.mean():.2f}"])
    return Table(["mistake", "sum of R / start", "largest error of the forward check", "correlation with the right map"], rows)


def measure() -> dict[str, Table]:
    """Every table of the page, by the name of its marker."""
    net, x, labels = load()
    return {
        "input-rules": input_rules(net, x, labels),
        "never-lit": never_lit(net, x, labels),
        "start": starts(net, x),
        "zero": zeros(net, x),
        "mistakes": mistakes(net, x, labels),
    }


# --- the page and its pictures ----------------------------------------------------------------------------------------


def marked(name: str) -> re.Pattern[str]:
    """Matches a table on the page, in group 2, with its markers in groups 1 and 3."""
    return re.compile(rf"(<!-- measured: {name} -->\n)(.*?)(\n<!-- end -->)", re.DOTALL)


def write(tables: dict[str, Table]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables.items():
        text, found = marked(name).subn(lambda m, table=table: m[1] + str(table) + m[3], text)  # type: ignore[misc]
        if found != 1:
            raise SystemExit(f"{PAGE.name} has {found} blocks marked '{name}', one is needed")
    PAGE.write_text(text, encoding="utf-8")
