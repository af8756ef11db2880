"""The figure of an :class:`~pylrp.evaluate.evaluation.Evaluation`: up to four panels, one colour a composite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pylrp.evaluate.curves import draw
from pylrp.evaluate.statistics import band
from pylrp.plot import new_figure
from pylrp.present.colours import BASELINE, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylrp.evaluate.evaluation import Evaluation

__all__ = ["figure"]

# Okabe and Ito's colours for colour-blind eyes, without yellow; then the same with another line.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", INK)
_LINES = ("-", "--", "-.")


def figure(found: Evaluation) -> Figure:
    """Return the figure; panels whose check was not run are left out."""
    panels = [*(["most", "least", "area"] if found.curves else []), *(["cascade"] if found.randomisation else [])]
    if not panels:
        raise ValueError("there is nothing to draw: neither flipping nor randomisation was run")
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    whole = new_figure(5.6 * columns, 3.9 * rows, 110)
    whole.set_layout_engine("constrained")
    axes = np.atleast_1d(whole.subplots(rows, columns)).reshape(-1)
    styles = {
        name: (_COLOURS[i % len(_COLOURS)], _LINES[i // len(_COLOURS) % len(_LINES)])
        for i, name in enumerate(found.composites)
    }
    for ax, panel in zip(axes, panels, strict=False):
        if panel == "area":
            _areas(ax, found, styles)
        elif panel == "cascade":
            _cascades(ax, found, styles)
        else:
            _curves(ax, found, panel, styles)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    axes[0].legend(frameon=False, fontsize=8)
    if found.curves:
        low, high = zip(*(ax.get_ylim() for ax in axes[:2]), strict=True)
        for ax in axes[:2]:
            ax.set_ylim(min(low), max(high))
    whole.supxlabel(_caption(found), size=8, color=BASELINE)
    return whole


def _curves(ax: Axes, found: Evaluation, order: str, styles: dict[str, tuple[str, str]]) -> None:
    for name, curves in found.curves.items():
        draw(ax, curves.fractions, curves.scores[order], name, *styles[name])
    any_curves = next(iter(found.curves.values()))
    draw(ax, any_curves.fractions, any_curves.scores["random"], "random order", BASELINE, ":")
    ax.set_title(
        f"{order} relevant first: " + ("falls fast if right" if order == "most" else "stays if right"), size=10
    )
    ax.set_xlabel("share of regions replaced")
    ax.set_ylabel(f"{any_curves.score} of the class")


def _caption(found: Evaluation) -> str:
    words = [f"{len(found.target)} samples"]
    if found.curves:
        regions = next(iter(found.curves.values())).regions
        words += [f"{regions} regions", f"replacement: {found.settings['replacement']}"]
    return ", ".join([*words, "bands: 95 % bootstrap over samples"])


def _areas(ax: Axes, found: Evaluation, styles: dict[str, tuple[str, str]]) -> None:
    for place, (name, curves) in enumerate(found.curves.items()):
        mean = curves.abpc.mean()
        ax.barh(place, mean, color=styles[name][0], height=0.6)
        if len(curves.abpc) > 1:
            low, high = band(curves.abpc)
            ax.plot([low, high], [place, place], color=INK, linewidth=1.2)
    ax.axvline(0, color=BASELINE, linewidth=1, linestyle=":")
    ax.set_yticks(range(len(found.curves)), list(found.curves), size=8)
    ax.invert_yaxis()
    ax.set_title("area between both curves, with 95 % bands; random: 0", size=10)
    ax.set_xlabel(f"ABPC, {next(iter(found.curves.values())).score}")
    ax.spines[["top", "right"]].set_visible(False)


def _cascades(ax: Axes, found: Evaluation, styles: dict[str, tuple[str, str]]) -> None:
    for name, cascade in found.randomisation.items():
        draw(ax, cascade.depths / len(cascade.layers), cascade.spearman, name, *styles[name])
    ax.axhline(0, color=BASELINE, linewidth=1, linestyle=":")
    ax.set_ylim(top=1.05)
    ax.set_title("random weights from the top down: must fall", size=10)
    ax.set_xlabel("share of layers with random weights")
    ax.set_ylabel("rank correlation with the map")
