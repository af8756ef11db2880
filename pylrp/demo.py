"""``pylrp demo``: bundled MNIST digits explained by five rules; a picture and a table, handed to ``cli.py``.

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
from pylrp.plot import diverging_map, heatmap, new_figure
from pylrp.rules.catalogue import AlphaBeta, Epsilon, WSquare, ZBox, ZPlus
from pylrp.rules.terms import Rule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    """Some digits, what the network says, and why, by each of :data:`RULES`.

    Attributes
    ----------
    images : ndarray of shape (n, 28, 28), uint8
    labels, predicted : ndarray of shape (n,)
    probability, logit : ndarray of shape (n,)
        Of the predicted class. The logit is the relevance that is handed down.
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
    return [arrays["W1"], arrays["W2"]], [arrays["b1"], arrays["b2"]]


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


# The picture's measures in 1/100 inch; at 200 dpi a digit's pixel is 8 x 8 pixels of the picture.
_PANEL, _GAP, _MARGIN = 112, 14, 36
_VERDICT = 96
_ROW = _PANEL + 24
_HEAD, _FOOT = 190, 104
_LEFT = _MARGIN + _PANEL + _VERDICT  # of the first heatmap
_WIDTH = _LEFT + len(RULES) * (_PANEL + _GAP) - _GAP + _MARGIN
_INK, _GREY, _WRONG = "#1c2733", "#6b7580", "#a34d00"
_INK_RGB, _PAPER = np.array([0.11, 0.15, 0.20]), np.array([0.96, 0.957, 0.945])  # a digit's ink and ground


class _Page:
    """A figure measured in 1/100 inch from its upper left corner."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.figure = new_figure(_WIDTH / 100, height / 100, dpi=200)
        self.figure.set_facecolor("white")

    def write(self, x: float, y: float, text: str, size: float, **style: Any) -> None:
        """Write with the base line at y; font and colour do not depend on the user's settings."""
        style = {"color": _INK, "va": "baseline", "family": "DejaVu Sans", **style}
        self.figure.text(x / _WIDTH, 1 - y / self.height, text, size=size, **style)

    def panel(self, x: float, y: float, width: float = _PANEL, height: float = _PANEL) -> Axes:
        """Return bare axes whose upper left corner is at (x, y)."""
        box = (x / _WIDTH, 1 - (y + height) / self.height, width / _WIDTH, height / self.height)
        ax = self.figure.add_axes(box)
        ax.set_axis_off()
        return ax


def picture(demo: Demo) -> Figure:
    """Return the figure: one row a digit; the digit, the prediction, and a heatmap by each of :data:`RULES`.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    page = _Page(_HEAD + len(demo.images) * _ROW + _FOOT)
    columns = [_LEFT + (_PANEL + _GAP) * c for c in range(len(RULES))]
    _head(page, columns)
    for i, image in enumerate(demo.images):
        y = _HEAD + i * _ROW
        shades = _PAPER + (_INK_RGB - _PAPER) * image[..., None] / 255
        page.panel(_MARGIN, y).imshow(shades, interpolation="nearest", origin="upper")
        _verdict(page, y, demo, i)
        for x, rule in zip(columns, RULES, strict=True):
            R = demo.relevance[rule.name][i]
            heatmap(page.panel(x, y), R, outline=image)
            share = f"{100 * R.sum() / demo.logit[i]:.0f} %"
            page.write(x + _PANEL / 2, y + _PANEL + 10, share, 6.3, color=_GREY, ha="center")
    _foot(page, page.height - _FOOT + 22)
    return page.figure


def _head(page: _Page, columns: list[int]) -> None:
    accuracy = 100 * float(_bundled(_NETWORK)["accuracy"])
    page.write(_MARGIN, 50, "Which pixels speak for the prediction?", 17, weight="bold")
    about = (
        f"Relevance of each pixel for the predicted digit. The network, 784-300-10 with ReLU, reads {accuracy:.1f} % "
        "of 1,000 unseen MNIST digits right."
    )
    page.write(_MARGIN, 71, about, 8, color=_GREY)
    for text, first, last in (("at the input layer; z+ above it", 0, 1), ("in both layers", 2, 4)):
        start, width = columns[first], columns[last] + _PANEL - columns[first]
        page.write(start + width / 2, 108, text, 7.5, color=_GREY, ha="center")
        page.panel(start, 114, width, 1).axhline(0, color="#c9ced3")
    heads = [(_MARGIN + _PANEL / 2, "input", "not seen\nin training")]
    heads += [(_LEFT - _VERDICT / 2, "prediction", "and its\nprobability")]
    heads += [(x + _PANEL / 2, rule.title, rule.says) for x, rule in zip(columns, RULES, strict=True)]
    for x, title, says in heads:
        page.write(x, 138, title, 9.8, weight="bold", ha="center")
        page.write(x, 170, says, 6.8, color=_GREY, ha="center", linespacing=1.35)


def _verdict(page: _Page, y: float, demo: Demo, i: int) -> None:
    middle, right = _LEFT - _VERDICT / 2, demo.predicted[i] == demo.labels[i]
    page.write(middle, y + 62, str(demo.predicted[i]), 25, color=_INK if right else _WRONG, ha="center")
    page.write(middle, y + 82, f"{100 * demo.probability[i]:.1f} %", 8.5, color=_GREY, ha="center")
    if not right:
        page.write(middle, y + 98, f"it is a {demo.labels[i]}", 7.5, color=_WRONG, ha="center")


def _foot(page: _Page, y: float) -> None:
    width = _PANEL + _VERDICT - 24
    page.panel(_MARGIN, y, width, 11).imshow(np.linspace(-1, 1, 511)[None], cmap=diverging_map(), aspect="auto")
    for share, text, side in ((0, "against it", "left"), (0.5, "0", "center"), (1, "for it", "right")):
        page.write(_MARGIN + share * width, y + 23, text, 7, color=_GREY, ha=side)
    notes = (
        "Each heatmap has its own scale, the same on both sides of zero: full colour is the 99.5th percentile of |R|,\n"
        "so the 4 strongest of its 784 pixels are clipped. Below it: the share of the logit that reaches the pixels;\n"
        "biases and the stabilizer epsilon absorb the rest, or add to it. The thin line is the digit's outline."
    )
    page.write(_LEFT, y - 1, notes, 7, color=_GREY, va="top", linespacing=1.5)
