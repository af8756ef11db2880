"""``pylrp demo``: bundled MNIST digits explained by five rules, with tables; ``plot/demo_page.py`` draws the picture.

The network, 784-300-10 with ReLU, and the digits lie in ``pylrp/data``; ``examples/train_demo_network.py`` made them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pylrp.api import relevance
from pylrp.network.causes import CAUSES
from pylrp.network.ledger import Ledger
from pylrp.rules.catalogue import AlphaBeta, Epsilon, WSquare, ZBox, ZPlus
from pylrp.rules.terms import Rule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "RULES",
    "Demo",
    "DemoRule",
    "explain",
    "load_demo_digits",
    "load_demo_network",
    "picture",
    "summary",
    "table",
]

#: What may absorb relevance, by the ledger's columns, and the columns' widths in the table.
_CAUSES = {each.name: max(10, len(each.name) + 1) for each in CAUSES if each.name != "rounding"}

_NETWORK, _DIGITS = "mnist_784_300_10.npz", "mnist_digits.npz"

Array = NDArray[np.float32]


@dataclass(frozen=True)
class DemoRule:
    """One column of the demo: the rules of both layers, the input layer's first."""

    name: str
    title: str
    says: str
    rules: tuple[Rule, Rule]


_Z = ZPlus(stabilizer=0)
_EPSILON = Epsilon(0.1)
_ALPHA_BETA = AlphaBeta(2, 1, stabilizer=0)

#: The columns, from left to right.
RULES = (
    DemoRule("w2", "w²", "the weights alone,\nblind to the pixels", (WSquare(stabilizer=0), _Z)),
    DemoRule("z-box", "z-box", "pixels lie in [0, 1]:\nmissing ink counts, too", (ZBox(0, 1, stabilizer=0), _Z)),
    DemoRule("z+", "z+", "the ink\nthat speaks for it", (_Z, _Z)),
    DemoRule("epsilon", "epsilon", "ink for it and against\nit, epsilon = 0.1", (_EPSILON, _EPSILON)),
    DemoRule("alpha2-beta1", "alpha2-beta1", "ink for it twice,\nink against it once", (_ALPHA_BETA, _ALPHA_BETA)),
)


@dataclass(frozen=True)
class Demo:
    """Some digits, the network's predictions, and their explanations by each of :data:`RULES`.

    Attributes
    ----------
    images : ndarray of shape (n, 28, 28), uint8
    labels, predicted : ndarray of shape (n,)
    probability, logit : ndarray of shape (n,)
        Of the predicted class. The logit is the relevance at the output.
    relevance : dict of str to ndarray of shape (n, 28, 28)
        By ``DemoRule.name``.
    ledgers : dict of str to Ledger
        By ``DemoRule.name``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[Any]
    predicted: NDArray[np.int64]
    probability: Array
    logit: Array
    relevance: dict[str, Array]
    ledgers: dict[str, Ledger]


def _bundled(name: str) -> dict[str, NDArray[Any]]:
    with files("pylrp").joinpath("data", name).open("rb") as file, np.load(file) as arrays:
        return dict(arrays)


def load_demo_network() -> tuple[list[Array], list[Array]]:
    """Return the weights ``[(300, 784), (10, 300)]`` and biases ``[(300,), (10,)]`` of the bundled network, float32.

    A ReLU follows the first layer; the output is logits. It was trained on pixels divided by 255.

    Examples
    --------
    >>> from pylrp.demo import load_demo_network
    >>> [W.shape for W in load_demo_network()[0]]
    [(300, 784), (10, 300)]
    """
    arrays = _bundled(_NETWORK)
    return [arrays[name].astype(np.float32) for name in ("W1", "W2")], [arrays["b1"], arrays["b2"]]


def load_demo_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return 100 MNIST digits the network was not trained on, ``(100, 28, 28)`` uint8, and their labels ``(100,)``.

    The classes take turns: 0, 1, ..., 9, 0, 1, ...

    Examples
    --------
    >>> from pylrp.demo import load_demo_digits
    >>> load_demo_digits()[1][:12].tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    """
    arrays = _bundled(_DIGITS)
    return arrays["images"], arrays["labels"]


def explain(count: int = 10) -> Demo:
    """Explain the predicted class of the first ``count`` bundled digits with each of :data:`RULES`.

    Raises
    ------
    ValueError
        If ``count`` is not between 1 and 100.
    """
    images, labels = load_demo_digits()
    if not 1 <= count <= len(images):
        raise ValueError(f"{len(images)} digits are bundled: ask for 1 to {len(images)}, not {count}")
    images, labels = images[:count], labels[:count]
    weights, biases = load_demo_network()

    x = np.divide(images.reshape(count, -1), 255, dtype=np.float32)
    hidden = np.maximum(x @ weights[0].T + biases[0], 0)
    logits = hidden @ weights[1].T + biases[1]
    rows, predicted = np.arange(count), logits.argmax(axis=1)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    # Relevance starts at the logit of the predicted class; the other classes are not explained.
    out = np.zeros_like(logits)
    out[rows, predicted] = logits[rows, predicted]

    maps, ledgers = {}, {}
    for rule in RULES:
        R, ledgers[rule.name] = relevance(weights, [x, hidden], out, rules=rule.rules, biases=biases, ledger=True)
        maps[rule.name] = R.reshape(images.shape)
    probability = 1 / odds.sum(axis=1)
    return Demo(images, labels, predicted, probability, out[rows, predicted], maps, ledgers)


def table(demo: Demo) -> str:
    """Return, for each digit and rule, the relevance in and out, and which layer absorbed how much by what.

    Plain ASCII; the numbers are the ledgers'.
    """
    layers = {1: "layer 1 (300 to 10)", 0: "layer 0 (784 to 300)"}
    rows = [row for ledger in demo.ledgers.values() for row in ledger]
    # Only causes that took something from some digit get a column.
    causes = [c for c in _CAUSES if any(np.abs(getattr(row, c)).max() >= 0.0005 for row in rows)]
    width = sum(_CAUSES[c] for c in causes)
    lines = [
        " " * 38 + "".join(f"{name:>{width}}" for name in layers.values()),
        f"{'rule':<12}{'in':>8}{'out':>8}{'absorbed':>10}" + 2 * "".join(f"{c:>{_CAUSES[c]}}" for c in causes),
    ]
    for i, (predicted, label) in enumerate(zip(demo.predicted, demo.labels, strict=True)):
        verdict = "right" if predicted == label else f"wrong: it is a {label}"
        lines += ["", f"predicted {predicted} ({verdict}), probability {100 * demo.probability[i]:.1f} %"]
        for rule in RULES:
            account = demo.ledgers[rule.name].layers
            arrived, left = account[1].incoming[i], account[0].outgoing[i]
            shares = "".join(
                f"{_shown(getattr(account[layer], c)[i]):>{_CAUSES[c]}}" for layer in layers for c in causes
            )
            lines.append(f"{rule.name:<12}{_shown(arrived):>8}{_shown(left):>8}{_shown(arrived - left):>10}{shares}")
    rounding = max(np.abs(row.rounding).max() for row in rows)
    return "\n".join(
        [
            *lines,
            "",
            "in: the logit of the predicted digit. out: what reaches the pixels. absorbed: in - out,",
            "below zero where biases add relevance; then which layer took it, and what in that layer.",
            f"Rounding of float32: at most {rounding:.0e} a layer.",
        ]
    )


def summary(demo: Demo) -> str:
    """Return the same as means over the digits, a line a rule."""
    causes = [(layer, c) for layer in (1, 0) for c in _CAUSES if any(
        np.abs(getattr(ledger.layers[layer], c).mean()) >= 0.0005 for ledger in demo.ledgers.values()
    )]  # fmt: skip
    count = f"{len(demo.labels)} digit" + "s" * (len(demo.labels) > 1)
    right = int((demo.predicted == demo.labels).sum())
    heads = "".join(f"{f'{c} {layer}':>14}" for layer, c in causes)
    lines = [
        f"{count}, {right} read right; means of the logit, of what reaches the pixels, and of what a layer absorbs",
        f"{'rule':<12}{'in':>8}{'out':>8}{heads}",
    ]
    for rule in RULES:
        account = demo.ledgers[rule.name].layers
        shares = "".join(f"{_shown(getattr(account[layer], c).mean()):>14}" for layer, c in causes)
        arrived, left = account[1].incoming.mean(), account[0].outgoing.mean()
        lines.append(f"{rule.name:<12}{_shown(arrived):>8}{_shown(left):>8}{shares}")
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{round(float(value), 3) + 0.0:.3f}"  # + 0.0 turns -0.000 into 0.000


def picture(demo: Demo) -> Figure:
    """Return the figure: one row a digit; the digit, the prediction, and a heatmap by each of :data:`RULES`.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from pylrp.plot.demo_page import draw

    return draw(demo, RULES, accuracy=float(_bundled(_NETWORK)["accuracy"]))
