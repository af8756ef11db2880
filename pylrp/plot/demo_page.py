"""The picture of ``pylrp demo``: a row a digit, a column a rule; ``pylrp.demo.picture`` calls in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pylrp.plot.colours import diverging_map, new_figure
from pylrp.plot.images import heatmap
from pylrp.present.colours import BASELINE, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylrp.demo import Demo, DemoRule

__all__ = ["draw"]

# The picture's measures in 1/100 inch; at 200 dpi a digit's pixel is 8 x 8 pixels of the picture.
_PANEL, _GAP, _MARGIN = 112, 14, 36
_VERDICT = 96
_ROW = _PANEL + 24
_HEAD, _FOOT = 190, 104
_LEFT = _MARGIN + _PANEL + _VERDICT  # of the first heatmap
_COLUMNS = 5
_WIDTH = _LEFT + _COLUMNS * (_PANEL + _GAP) - _GAP + _MARGIN
_WRONG = "#a34d00"
_INK_RGB, _PAPER = np.array([0.11, 0.15, 0.20]), np.array([0.96, 0.957, 0.945])  # a digit's ink and ground


class _Page:
    """A figure measured in 1/100 inch from its upper left corner."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.figure = new_figure(_WIDTH / 100, height / 100, dpi=200)
        self.figure.set_facecolor("white")

    def write(self, x: float, y: float, text: str, size: float, **style: Any) -> None:
        """Write with the base line at y; font and colour do not depend on the user's settings."""
        style = {"color": INK, "va": "baseline", "family": "DejaVu Sans", **style}
        self.figure.text(x / _WIDTH, 1 - y / self.height, text, size=size, **style)

    def panel(self, x: float, y: float, width: float = _PANEL, height: float = _PANEL) -> Axes:
        """Return bare axes whose upper left corner is at (x, y)."""
        box = (x / _WIDTH, 1 - (y + height) / self.height, width / _WIDTH, height / self.height)
        ax = self.figure.add_axes(box)
        ax.set_axis_off()
        return ax


def draw(demo: Demo, rules: Sequence[DemoRule], accuracy: float) -> Figure:
    """Return the figure: one row a digit; the digit, the prediction, and a heatmap by each rule.

    Parameters
    ----------
    demo : Demo
    rules : sequence of DemoRule
        The columns, five of them: two with a rule of their own for the input layer, three with one for both layers.
    accuracy : float
        The network's, 0 to 1.
    """
    page = _Page(_HEAD + len(demo.images) * _ROW + _FOOT)
    columns = [_LEFT + (_PANEL + _GAP) * c for c in range(len(rules))]
    _head(page, columns, rules, accuracy)
    for i, image in enumerate(demo.images):
        y = _HEAD + i * _ROW
        shades = _PAPER + (_INK_RGB - _PAPER) * image[..., None] / 255
        page.panel(_MARGIN, y).imshow(shades, interpolation="nearest", origin="upper")
        _verdict(page, y, demo, i)
        for x, rule in zip(columns, rules, strict=True):
            R = demo.relevance[rule.name][i]
            heatmap(page.panel(x, y), R, outline=image)
            share = f"{100 * R.sum() / demo.logit[i]:.0f} %"
            page.write(x + _PANEL / 2, y + _PANEL + 10, share, 6.3, color=BASELINE, ha="center")
    _foot(page, page.height - _FOOT + 22)
    return page.figure


def _head(page: _Page, columns: list[int], rules: Sequence[DemoRule], accuracy: float) -> None:
    page.write(_MARGIN, 50, "Which pixels speak for the prediction?", 17, weight="bold")
    about = (
        "Relevance of each pixel for the predicted digit. The network, 784-300-10 with ReLU, reads "
        f"{100 * accuracy:.1f} % of 1,000 unseen MNIST digits right."
    )
    page.write(_MARGIN, 71, about, 8, color=BASELINE)
    for text, first, last in (("at the input layer; z+ above it", 0, 1), ("in both layers", 2, 4)):
        start, width = columns[first], columns[last] + _PANEL - columns[first]
        page.write(start + width / 2, 108, text, 7.5, color=BASELINE, ha="center")
        page.panel(start, 114, width, 1).axhline(0, color="#c9ced3")
    heads = [(_MARGIN + _PANEL / 2, "input", "not seen\nin training")]
    heads += [(_LEFT - _VERDICT / 2, "prediction", "and its\nprobability")]
    heads += [(x + _PANEL / 2, rule.title, rule.says) for x, rule in zip(columns, rules, strict=True)]
    for x, title, says in heads:
        page.write(x, 138, title, 9.8, weight="bold", ha="center")
        page.write(x, 170, says, 6.8, color=BASELINE, ha="center", linespacing=1.35)


def _verdict(page: _Page, y: float, demo: Demo, i: int) -> None:
    middle, right = _LEFT - _VERDICT / 2, demo.predicted[i] == demo.labels[i]
    page.write(middle, y + 62, str(demo.predicted[i]), 25, color=INK if right else _WRONG, ha="center")
    page.write(middle, y + 82, f"{100 * demo.probability[i]:.1f} %", 8.5, color=BASELINE, ha="center")
    if not right:
        page.write(middle, y + 98, f"it is a {demo.labels[i]}", 7.5, color=_WRONG, ha="center")


def _foot(page: _Page, y: float) -> None:
    width = _PANEL + _VERDICT - 24
    page.panel(_MARGIN, y, width, 11).imshow(np.linspace(-1, 1, 511)[None], cmap=diverging_map(), aspect="auto")
    for share, text, side in ((0, "against it", "left"), (0.5, "0", "center"), (1, "for it", "right")):
        page.write(_MARGIN + share * width, y + 23, text, 7, color=BASELINE, ha=side)
    notes = (
        "Each heatmap has its own scale, the same on both sides of zero: full colour is the 99.5th percentile of |R|,\n"
        "so the 4 strongest of its 784 pixels are clipped. Below it: the share of the logit that reaches the pixels;\n"
        "biases and the stabilizer epsilon absorb the rest, or add to it. The thin line is the digit's outline."
    )
    page.write(_LEFT, y - 1, notes, 7, color=BASELINE, va="top", linespacing=1.5)
