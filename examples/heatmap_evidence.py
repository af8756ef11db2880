"""Measure, on the bundled network and digits, what docs/why-is-my-heatmap-wrong.md claims.

    python examples/heatmap_evidence.py               print the tables
    python examples/heatmap_evidence.py --write       and put them into the page, between its markers
    python examples/heatmap_evidence.py --pictures    and draw docs/pictures/input-rules.png and mistakes.png

tests/docs/test_docs.py calls `measure` and fails where a number on the page is no longer what comes out here.
Everything is float64; relevance starts at the logit of the predicted class, and z+ serves all layers but the input,
unless a table says otherwise.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus
from pylrp.demo import load_demo_digits, load_demo_network
from pylrp.plot import heatmap, new_figure

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "why-is-my-heatmap-wrong.md"
STEPS, RATE = 100, 0.3  # of the networks that are fitted here
TOP = 40  # pixels changed in the first table: 5 % of the image
Z = ZPlus(stabilizer=0)
W2 = WSquare(stabilizer=0)
BOX = ZBox(0, 1, stabilizer=0)
EPSILON = Epsilon(1e-6)
INPUT_RULES = {
    "w²": W2,
    "flat": Flat(stabilizer=0),
    "z-box, 0 to 1": BOX,
    "z+": Z,
    "gamma 0.25": Gamma(0.25, stabilizer=0),
    "alpha2-beta1": AlphaBeta(2, 1, stabilizer=0),
    "epsilon 1e-6": EPSILON,
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
        """Return the input of every layer, and the logits."""
        acts = [x]
        for weight, bias in zip(self.W[:-1], self.b[:-1], strict=True):
            acts.append(np.maximum(acts[-1] @ weight.T + bias, 0))
        return acts, acts[-1] @ self.W[-1].T + self.b[-1]

    def explain(self, x: Array, at_input: pylrp.Rule = Z, out: Array | None = None) -> Array:
        """Heatmaps (n, pixels): `at_input` below, z+ above, from `out` or the logit of the predicted class."""
        acts, logits = self.forward(x)
        rules = [at_input] + [Z] * (len(self.W) - 1)
        return pylrp.relevance(self.W, acts, only(logits) if out is None else out, rules=rules)


def load() -> tuple[Net, Array, Labels]:
    """The bundled network, digits (n, 784) in [0, 1], and their labels."""
    weights, biases = load_demo_network()
    images, labels = load_demo_digits()
    net = Net([w.astype(np.float64) for w in weights], [b.astype(np.float64) for b in biases])
    return net, images.reshape(len(images), -1) / 255.0, labels.astype(np.int64)


def fit(x: Array, labels: Labels, hidden: list[int]) -> Net:
    """Fit a network to the digits by plain gradient descent: no weight decay, no dropout.

    Weights start with the variance of torch.nn.Linear, 1 / (3 n_in).
    """
    rng = np.random.default_rng(1)
    sizes = [x.shape[1], *hidden, 10]
    W = [rng.normal(0, np.sqrt(1 / (3 * n)), (m, n)) for n, m in pairwise(sizes)]
    net = Net(W, [np.zeros(m) for m in sizes[1:]])
    for _ in range(STEPS):
        acts, logits = net.forward(x)
        error = (softmax(logits) - np.eye(10)[labels]) / len(x)
        for l in reversed(range(len(W))):
            below = (error @ W[l]) * (acts[l] > 0) if l else error
            net.W[l][:] -= RATE * error.T @ acts[l]
            net.b[l][:] -= RATE * error.sum(axis=0)
            error = below
    return net


def only(scores: Array, rank: int = 1) -> Array:
    """The scores with every class but each sample's highest (second highest, ...) set to 0."""
    chosen = np.argsort(scores, axis=1)[:, -rank]
    return np.where(np.arange(scores.shape[1]) == chosen[:, None], scores, 0.0)


def softmax(logits: Array) -> Array:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def correlations(R: Array, S: Array) -> Array:
    """Pearson's correlation of R[n] with S[n], for each n."""
    R, S = R - R.mean(axis=1, keepdims=True), S - S.mean(axis=1, keepdims=True)
    return np.asarray((R * S).sum(axis=1) / np.sqrt((R * R).sum(axis=1) * (S * S).sum(axis=1)))


def likeness(R: Array, labels: Labels) -> str:
    """Mean correlation over all pairs of heatmaps whose digits are of different classes."""
    centred = R - R.mean(axis=1, keepdims=True)
    size = np.linalg.norm(centred, axis=1, keepdims=True)
    if size.max() < 1e-9 * np.abs(R).max():
        return "every pixel alike"
    pairs = (centred / size) @ (centred / size).T
    return f"{pairs[labels[:, None] != labels].mean():.2f}"


def share(R: Array, pixels: NDArray[np.bool_]) -> str:
    """Share of |R|, over all digits, that lies on `pixels`."""
    return percent((np.abs(R) * pixels).sum() / np.abs(R).sum())


def percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"


# --- the tables -----------------------------------------------------------------------------------------------


def input_rules(net: Net, x: Array) -> Table:
    """How much relevance falls on black pixels, and what becomes of the prediction if the top pixels change."""
    predicted = net.forward(x)[1].argmax(axis=1)
    maps = {name: net.explain(x, rule) for name, rule in INPUT_RULES.items()}
    maps["(pixels at random)"] = np.random.default_rng(0).random(x.shape)
    rows = []
    for name, R in maps.items():
        top = np.argsort(-R, axis=1, kind="stable")[:, :TOP]
        row = [name, share(R, x == 0)]
        for changed in (0.0, 1 - np.take_along_axis(x, top, axis=1)):
            other = x.copy()
            np.put_along_axis(other, top, changed, axis=1)
            row.append(percent((net.forward(other)[1].argmax(axis=1) != predicted).mean()))
        rows.append(row)
    head = ["rule at the input", "relevance on black pixels", f"top {TOP} pixels made black", "inverted"]
    return Table(head, rows)


def likenesses(nets: dict[str, Net], x: Array, labels: Labels) -> Table:
    """How alike the heatmaps of different digits are: mean correlation over pairs of different classes."""
    rows = [
        [name, *(likeness(net.explain(x, rule), labels) for net in nets.values())] for name, rule in INPUT_RULES.items()
    ]
    rows.append(["(the digits themselves)", *[likeness(x, labels)] * len(nets)])
    return Table(["rule at the input", *nets], rows)


def never_lit(net: Net, x: Array) -> Table:
    """Networks that agree on every digit, because they differ only at pixels that are always black."""
    never = (x == 0).all(axis=0)
    start = np.random.default_rng(0).normal(0, np.sqrt(2 / len(never)), net.W[0].shape)  # as the training script
    cases = {"as bundled": net.W[0]}
    for name, factor in {"random, as initialised": 1.0, "random, decayed to a tenth": 0.1, "zero": 0.0}.items():
        cases[name] = np.where(never, factor * start, net.W[0])
    per_pixel = ZBox(0, x.max(axis=0), stabilizer=0)
    rows = []
    for name, weight in cases.items():
        other = Net([weight, *net.W[1:]], net.b)
        apart = np.abs(other.forward(x)[1] - net.forward(x)[1]).max()
        assert apart < 1e-9, f"the networks should agree on every digit, logits differ by {apart}"
        rows.append([name, *(share(other.explain(x, rule), never) for rule in (W2, BOX, per_pixel, Z))])
    head = [f"weights of the {never.sum()} pixels that no digit lights", "w²", "z-box, 0 to 1"]
    return Table([*head, "z-box, 0 to the pixel's maximum", "z+"], rows)


def starts(net: Net, x: Array) -> Table:
    """Where relevance starts; z+ in all layers."""
    logits = net.forward(x)[1]
    p = softmax(logits)
    cases = {
        "1, predicted class": (only(p) != 0).astype(np.float64),
        "probability, predicted class": only(p),
        "logit, predicted class": only(logits),
        "probabilities, all classes": p,
        "logits, all classes": logits,
    }
    reference = net.explain(x, out=next(iter(cases.values())))
    rows = []
    for name, out in cases.items():
        R = net.explain(x, out=out)
        total, like = R.sum(axis=1), correlations(R, reference)
        sums = f"{total.min():.2f} to {total.max():.2f}"
        rows.append([name, sums, str((total < 0).sum()), f"{like.mean():.2f}", f"{like.min():.2f}"])
    head = ["start", "sum of the heatmap", f"negative sums, of {len(x)}"]
    return Table([*head, "correlation with the first row", "at worst"], rows)


def two_classes(nets: dict[str, Net], x: Array) -> Table:
    """How alike the heatmaps of the predicted class and of the runner-up are, for one and the same digit."""
    rules: dict[str, tuple[pylrp.Rule, pylrp.Rule]] = {
        "w² at the input, z+ above": (W2, Z),
        "z+ everywhere": (Z, Z),
        "alpha2-beta1 everywhere": (INPUT_RULES["alpha2-beta1"], INPUT_RULES["alpha2-beta1"]),
        "epsilon 1e-6 everywhere": (EPSILON, EPSILON),
    }
    rows = []
    for name, (first, above) in rules.items():
        row = [name]
        for net in nets.values():
            acts, logits = net.forward(x)
            chosen = [first] + [above] * (len(net.W) - 1)
            # From 1, so that a negative logit can't turn a map upside down.
            ones = [(only(softmax(logits), rank) != 0).astype(np.float64) for rank in (1, 2)]
            maps = [pylrp.relevance(net.W, acts, out, rules=chosen) for out in ones]
            row.append(f"{correlations(*maps).mean():.2f}")
        rows.append(row)
    return Table(["rules", *nets], rows)


def question_loop(W: list[Array], acts: list[Array], out: Array) -> Array:
    """z+ down to the lowest layer given, as most people first write it: nothing is done about z = 0."""
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


def zeros(net: Net, plain: Net, x: Array) -> Table:
    """Entries that come out as NaN: the bare equations, and pylrp, whose ledger says how much had no receiver."""
    rows = []
    for name, n, image in (
        ("bundled network, the digits", net, x),
        ("plain network, the digits", plain, x),
        ("plain network, a black image", plain, 0 * x[:1]),
    ):
        acts, logits = n.forward(image)
        out = only(logits)
        naive = question_w_square(n.W[0], question_loop(n.W[1:], acts[1:], out))
        for rule, bare in ((Z, question_loop(n.W, acts, out)), (W2, naive)):
            R, ledger = pylrp.relevance(n.W, acts, out, rules=[rule, Z], ledger=True)
            dead = percent(ledger.layers[0].dead.sum() / ledger.layers[0].incoming.sum())
            which = f"{name}; {'z+' if rule is Z else 'w²'}"
            rows.append([which, f"{np.isnan(bare).sum():,} of {bare.size:,}", str(np.isnan(R).sum()), dead])
    head = ["network, input; rule at the input", "NaN, bare equation", "NaN, pylrp", "no receiver (`dead`)"]
    return Table(head, rows)


def forward_error(net: Net, W: list[Array], acts: list[Array], logits: Array) -> str:
    """Largest ``|relu(W a + b) - next a|`` of the arrays as they are handed over."""
    worst = 0.0
    for l, (weight, bias, a) in enumerate(zip(W, net.b, acts, strict=True)):
        z = a @ weight.T + bias
        error = z - logits if l == len(W) - 1 else np.maximum(z, 0) - acts[l + 1]
        worst = max(worst, float(np.abs(error).max()))
    return f"{worst:.1f}" if worst > 1e-9 else "0"


def handed_over(net: Net, x: Array) -> dict[str, tuple[list[Array], list[Array], Array]]:
    """(weights, activations, start) as they should be, then with a mistake each. Needs a square middle layer."""
    acts, logits = net.forward(x)
    out = only(logits)
    before_relu = [a @ w.T + b for a, w, b in zip(acts[:-1], net.W[:-1], net.b[:-1], strict=True)]
    without_biases = Net(net.W, [0 * b for b in net.b]).forward(x)[0]
    return {
        "(none)": (net.W, acts, out),
        "activations from before the ReLU": (net.W, [x, *before_relu], out),
        "activations of the layer above": (net.W, [x, acts[2], acts[2]], out),
        "a square W transposed": ([net.W[0], net.W[1].T, net.W[2]], acts, out),
        "activations computed without the biases": (net.W, without_biases, out),
        "all logits as the start": (net.W, acts, logits),
    }


def transposed(R: Array) -> Array:
    """Pictures with rows and columns exchanged, as MATLAB's reshape(R, 28, 28) shows them."""
    return R.reshape(-1, 28, 28).transpose(0, 2, 1).reshape(R.shape)


def summed_over_neurons(net: Net, x: Array) -> Array:
    """w² with the denominator over the wrong index, sum(W.^2, 1): it fits, whatever the shape of W."""
    acts, logits = net.forward(x)
    squares = net.W[0] ** 2
    upper = pylrp.relevance(net.W[1:], acts[1:], only(logits), rules=Z)
    return np.asarray(upper @ (squares / squares.sum(axis=0)))


def mistakes(net: Net, x: Array) -> Table:
    """Whether the sum notices a mistake, whether the forward check does, and how wrong the heatmap is."""
    cases = handed_over(net, x)
    start = cases["(none)"][2].sum(axis=1)
    right = [pylrp.relevance(*cases["(none)"], rules=rule) for rule in (Z, EPSILON)]
    rows = []

    def add(name: str, check: str, maps: list[Array], references: list[Array]) -> None:
        ratio = maps[0].sum(axis=1) / start
        like = [f"{correlations(*pair).mean():.2f}" for pair in zip(maps, references, strict=True)]
        rows.append([name, f"{ratio.min():.2f} to {ratio.max():.2f}", check, *like, *[""] * (2 - len(like))])

    for name, (W, acts, out) in cases.items():
        maps = [pylrp.relevance(W, acts, out, rules=rule) for rule in (Z, EPSILON)]
        add(name, forward_error(net, W, acts, net.forward(x)[1]), maps, right)
    add("picture transposed", "0", [transposed(R) for R in right], right)
    add("w² summed over the neurons, not the inputs", "0", [summed_over_neurons(net, x)], [net.explain(x, W2)])
    head = ["mistake", "sum of R / start", "forward check", "correlation with the right map", "the same, epsilon rule"]
    return Table(head, rows)


def networks(net: Net, x: Array, labels: Labels) -> dict[str, Net]:
    """The bundled network and two that were fitted to the digits without any care."""
    return {
        "bundled, 784-300-10": net,
        "plain, 784-300-10": fit(x, labels, [300]),
        "plain, 784-300-300-10": fit(x, labels, [300, 300]),
    }


def measure() -> dict[str, Table]:
    """Every table of the page, by the name of its marker."""
    net, x, labels = load()
    nets = networks(net, x, labels)
    _, plain, deep = nets.values()
    return {
        "input-rules": input_rules(net, x),
        "likeness": likenesses(nets, x, labels),
        "never-lit": never_lit(net, x),
        "start": starts(net, x),
        "two-classes": two_classes(nets, x),
        "zero": zeros(net, plain, x),
        "mistakes": mistakes(deep, x),
    }


# --- the page and its pictures --------------------------------------------------------------------------------


def marked(name: str) -> re.Pattern[str]:
    """Match a table on the page: group 2, between its markers, groups 1 and 3."""
    return re.compile(rf"(<!-- measured: {name} -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def write(tables: dict[str, Table]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables.items():
        pieces = marked(name).split(text)
        if len(pieces) != 5:
            raise SystemExit(f"{PAGE.name}: one block marked '{name}' is needed, there are {len(pieces) // 4}")
        text = pieces[0] + pieces[1] + f"{table}\n" + pieces[3] + pieces[4]
    PAGE.write_text(text, encoding="utf-8")


def draw(path: Path, columns: list[str], rows: list[tuple[Array, list[Array]]]) -> None:
    """Save one row a digit: the image, then heatmaps, each symmetrical about zero."""
    figure = new_figure(1.2 * (1 + len(columns)), 1.2 * len(rows) + 0.4, dpi=90)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(len(rows), 1 + len(columns), squeeze=False)
    for axes_row, (image, maps) in zip(grid, rows, strict=True):
        digit = image.reshape(28, 28)
        axes_row[0].imshow(digit, cmap="gray_r")
        axes_row[0].set_axis_off()
        for axes, R in zip(axes_row[1:], maps, strict=True):
            heatmap(axes, R.reshape(28, 28), outline=digit)
    for axes, title in zip(grid[0], ["input", *columns], strict=True):
        axes.set_title(title, fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    print(f"{path}: {path.stat().st_size:,} bytes")


def pictures() -> None:
    net, x, labels = load()
    acts, logits = net.forward(x)
    never = (x == 0).all(axis=0)
    start = np.random.default_rng(0).normal(0, np.sqrt(2 / len(never)), net.W[0].shape)
    noisy = Net([np.where(never, start, net.W[0]), *net.W[1:]], net.b)
    columns = {
        "w², never-lit\nweights random": noisy.explain(x, W2),
        "w²": net.explain(x, W2),
        "z-box": net.explain(x, BOX),
        "z+": net.explain(x, Z),
        "epsilon\n(all layers)": pylrp.relevance(net.W, acts, only(logits), rules=EPSILON),
    }
    shown = [int(np.flatnonzero(labels == digit)[0]) for digit in (0, 2, 4, 7)]
    rows = [(x[n], [R[n] for R in columns.values()]) for n in shown]
    draw(DOCS / "pictures" / "input-rules.png", list(columns), rows)
    deep = networks(net, x, labels)["plain, 784-300-300-10"]
    cases = handed_over(deep, x)
    epsilon = {name: pylrp.relevance(*case, rules=EPSILON) for name, case in cases.items()}
    maps = {
        "w²": deep.explain(x, W2),
        "w², summed over\nthe neurons": summed_over_neurons(deep, x),
        "z+": deep.explain(x, Z),
        "z+, picture\ntransposed": transposed(deep.explain(x, Z)),
        "epsilon": epsilon["(none)"],
        "epsilon,\nbefore the ReLU": epsilon["activations from before the ReLU"],
        "epsilon, acts of\nthe layer above": epsilon["activations of the layer above"],
        "epsilon,\nW transposed": epsilon["a square W transposed"],
    }
    rows = [(x[n], [R[n] for R in maps.values()]) for n in shown[1:3]]
    draw(DOCS / "pictures" / "mistakes.png", list(maps), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what docs/why-is-my-heatmap-wrong.md claims.")
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    parser.add_argument("--pictures", action="store_true", help="draw docs/pictures/*.png (needs matplotlib)")
    args = parser.parse_args()
    tables = measure()
    for name, table in tables.items():
        print(f"{name}\n{table}\n")
    if args.write:
        write(tables)
    if args.pictures:
        pictures()


if __name__ == "__main__":
    main()
