"""Results of pixel flipping: curves of the class's score with confidence bands, and their areas, as table and plot.

``flipping.py`` fills :class:`Curves` and :class:`InsertionDeletion`, ``evaluation.py`` collects them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pylrp.evaluate.evaluated_batch import Values
from pylrp.evaluate.statistics import area, band, with_band
from pylrp.present import html
from pylrp.present.colours import AGAINST, BASELINE, FOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curves", "InsertionDeletion", "draw", "new_axes"]

_TITLES = {"most": "most relevant first", "least": "least relevant first", "random": "random order"}
# Told apart by colour-blind eyes, and by their lines in print.
_STYLES = {"most": (FOR, "-"), "least": (AGAINST, "--"), "random": (BASELINE, ":")}


@dataclass(frozen=True, eq=False)
class Curves:
    """The score of each sample's class while regions of the input are replaced.

    Attributes
    ----------
    fractions : ndarray of shape (steps + 1,)
        Share of the regions that is replaced, from 0.
    scores : dict of str to ndarray of shape (batch, steps + 1), float64
        By order: "most", "least" (relevant first), "random" (mean over its repetitions).
    target : ndarray of shape (batch,)
        The class that is scored.
    score : str
        "logit" or "probability".
    regions : int
        How many there are.
    """

    fractions: Values
    scores: dict[str, Values]
    target: NDArray[np.int64]
    score: str
    regions: int

    @property
    def mean(self) -> dict[str, Values]:
        """Return each curve's mean over samples, (steps + 1,)."""
        return {order: scores.mean(axis=0) for order, scores in self.scores.items()}

    def band(self, order: str) -> tuple[Values, Values]:
        """Return a 95 % bootstrap confidence band for the mean curve of an order: lower and upper bound, (steps + 1,).

        Percentiles of the means of 2000 resamples of the samples; pointwise. A little too narrow below some 20 samples,
        NaN for a single one.
        """
        return band(self.scores[order])

    @property
    def aopc(self) -> dict[str, Values]:
        """Return the area over the perturbation curve of each order and sample, (batch,).

        ``1 / (L + 1) sum_k (f(x_0) - f(x_k))``, k = 0 ... L (Samek et al. 2017): how far the score falls on average.
        High is good for "most", low for "least".
        """
        return {order: (scores[:, :1] - scores).mean(axis=1) for order, scores in self.scores.items()}

    @property
    def abpc(self) -> Values:
        """Return the area between the curves "least" and "most" of each sample, (batch,).

        By trapezoids, divided by the range of ``fractions``: the mean distance of the curves, in units of the score.
        High is good; a random ranking has 0 on average, whatever the replacement does by itself.

        Raises
        ------
        ValueError
            If one of the two orders was not run.
        """
        for order in ("most", "least"):
            if order not in self.scores:
                raise ValueError(f"the area between the curves needs order {order!r}, which was not run")
        return area(self.fractions, self.scores["least"] - self.scores["most"])

    def table(self) -> str:
        """Return the areas as text, an order a line: mean over samples and 95 % bootstrap band."""
        return _text(*self._parts())

    def _parts(self) -> tuple[list[list[str]], str]:
        """Return the table's cells, the head first, and what it is of."""
        rows = [["order", "AOPC", "95 % band"]]
        rows += [[_TITLES[order], *with_band(values)] for order, values in self.aopc.items()]
        if {"most", "least"} <= set(self.scores):
            rows.append(["ABPC (least - most)", *with_band(self.abpc)])
        steps, batch = len(self.fractions) - 1, len(self.target)
        return rows, f"{batch} samples, {self.regions} regions in {steps} steps; unit: {self.score}"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        rows, about = self._parts()
        return html.html(html.table(rows), html.lines([about]))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the mean curves with their bands.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Default: of a new figure, ``axes.figure``.

        Returns
        -------
        matplotlib.axes.Axes
        """
        ax = new_axes() if ax is None else ax
        for order, scores in self.scores.items():
            colour, line = _STYLES[order]
            draw(ax, self.fractions, scores, _TITLES[order], colour, line)
        ax.set_xlabel("share of regions replaced")
        ax.set_ylabel(f"{self.score} of the class")
        ax.legend(frameon=False)
        return ax

    def __repr__(self) -> str:
        return f"<Curves of {len(self.target)} samples, {len(self.fractions) - 1} steps>\n{self.table()}"


@dataclass(frozen=True, eq=False)
class InsertionDeletion:
    """The score of each sample's class while its most relevant regions are deleted, or inserted.

    Attributes
    ----------
    fractions : ndarray of shape (steps + 1,)
        Share of the regions that is deleted, or inserted.
    deletion, insertion : ndarray of shape (batch, steps + 1), float64
        Deletion begins with the input, insertion with what replaces it.
    target : ndarray of shape (batch,)
    score : str
    """

    fractions: Values
    deletion: Values
    insertion: Values
    target: NDArray[np.int64]
    score: str

    @property
    def deletion_auc(self) -> Values:
        """Return the area under each sample's deletion curve, (batch,), by trapezoids. Low is good."""
        return area(self.fractions, self.deletion)

    @property
    def insertion_auc(self) -> Values:
        """Return the area under each sample's insertion curve, (batch,), by trapezoids. High is good."""
        return area(self.fractions, self.insertion)

    def table(self) -> str:
        """Return the areas as text: mean over samples and 95 % bootstrap band."""
        return _text(*self._parts())

    def _parts(self) -> tuple[list[list[str]], str]:
        """Return the table's cells, the head first, and what it is of."""
        rows = [
            ["game", "AUC", "95 % band"],
            ["deletion, low is good", *with_band(self.deletion_auc)],
            ["insertion, high", *with_band(self.insertion_auc)],
        ]
        return rows, f"{len(self.target)} samples, {len(self.fractions) - 1} steps; unit: {self.score}"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        rows, about = self._parts()
        return html.html(html.table(rows), html.lines([about]))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the mean curves with their bands; returns the axes, of a new figure by default."""
        ax = new_axes() if ax is None else ax
        draw(ax, self.fractions, self.deletion, "deletion", *_STYLES["most"])
        draw(ax, self.fractions, self.insertion, "insertion", *_STYLES["least"])
        ax.set_xlabel("share of regions deleted or inserted")
        ax.set_ylabel(f"{self.score} of the class")
        ax.legend(frameon=False)
        return ax

    def __repr__(self) -> str:
        return f"<InsertionDeletion of {len(self.target)} samples>\n{self.table()}"


def draw(ax: Axes, x: Values, scores: Values, label: str, colour: str, line: str = "-") -> None:
    """Draw the mean over samples of (samples, points), and its band."""
    ax.plot(x, scores.mean(axis=0), color=colour, linestyle=line, linewidth=1.6, label=label)
    if len(scores) > 1:
        ax.fill_between(x, *band(scores), color=colour, alpha=0.15, linewidth=0)
    ax.spines[["top", "right"]].set_visible(False)


def new_axes() -> Axes:
    """Return the axes of a new figure, which ``plt.show()`` shows where pyplot is imported."""
    from pylrp.plot import new_figure
    from pylrp.plot.colours import register_with_pyplot

    figure = new_figure(5.6, 3.8, 120)
    figure.set_layout_engine("constrained")
    axes: Axes = figure.subplots()
    register_with_pyplot(figure, None, None)
    return axes


def _text(rows: list[list[str]], about: str) -> str:
    return "\n".join([*(f"{name:<22}{mean:>10}{shown:>20}" for name, mean, shown in rows), about])
