"""Figures of several panels out of an explanation: one a channel, one a layer.

``explanations.py`` calls in, ``channels_and_layers.py`` draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pylrp.network.explanation import Explanation
from pylrp.plot import captions, channels_and_layers
from pylrp.plot.captions import Text
from pylrp.plot.colours import empty_figure, scale
from pylrp.plot.views import View, views
from pylrp.present.colours import GREY
from pylrp.present.numbers import number

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

__all__ = ["draw_channels", "draw_layers"]

_CHANNELS, _LAYERS = 12, 16  # drawn, if the user doesn't say

Array = NDArray[Any]


def draw_channels(ex: Explanation, view: View, options: dict[str, Any], text: Text, ax: Any, dpi: float) -> FigureBase:
    """Draw a map for each of the strongest channels; return the figure."""
    R = view.relevance.astype(np.float64)
    most = options["most"] or _CHANNELS
    rows, columns = channels_and_layers.shape_of(min(most, len(R)))
    figure = _figure(ax, columns * 1.8 + 0.2, rows * 1.9 + 0.9, dpi, "channels")
    ends = {"limit": options["limit"], "percentile": options["percentile"]}
    channels_and_layers.channels(figure, R, most=most, names=options["feature_names"], cmap=options["cmap"], **ends)
    totals = R.reshape(len(R), -1).sum(axis=1)
    order = channels_and_layers.strongest(totals)
    shown, rest = order[:most], totals[order[most:]]
    lines = [captions.sums(view), captions.rules(view, scale(R[shown], **ends) + " of these channels")]
    if len(rest):
        lines.insert(1, f"the other {len(rest)} of {len(R)} channels sum to {number(rest.sum())}")
    _around(figure, text.title(view), text.caption(lines, columns * 1.8))
    return figure


def draw_layers(ex: Explanation, view: View, options: dict[str, Any], text: Text, ax: Any, dpi: float) -> FigureBase:
    """Draw a map or bars for each layer; return the figure."""
    found, note = _chosen(ex, view, options["layers"], options["most"] or _LAYERS)
    rows, columns = channels_and_layers.shape_of(len(found))
    figure = _figure(ax, columns * 1.8 + 0.2, rows * 2.1 + 1.0, dpi, "layers")
    channels_and_layers.layers(
        figure, found, limit=options["limit"], percentile=options["percentile"], cmap=options["cmap"]
    )
    which = f"percentile {options['percentile']:g}" if options["percentile"] < 100 else "the largest"
    own = (
        "one scale for all"
        if options["limit"]
        else f"each on its own scale, maps to {which} of |R|, bars to the largest"
    )
    lines = [f"relevance of each layer, from the input on, summed over its channels; {own}", captions.rules(view, note)]
    _around(figure, text.title(view), text.caption(lines, columns * 1.8))
    return figure


def _chosen(ex: Explanation, view: View, names: Sequence[str] | None, most: int) -> tuple[dict[str, Array], str]:
    """Return the relevance of the layers to draw, by what they are called, and a word about the others."""
    everything = list(ex.layers)
    asked = names is not None
    if names is None:
        kept = [name for name in everything if name in ex.layers.kept]
        names = everything if len(everything) <= _LAYERS else kept
        if len(names) <= (len(ex.relevance) if isinstance(ex.relevance, dict) else 1):
            raise ValueError(
                f"the relevance of {len(everything)} layers was not kept: explain with layers='all', "
                "or pass layers=[...]"
            )
    found: dict[str, Array] = {}
    for name in names:
        R = views(ex, view.sample, view.target, layer=name)[0].relevance
        before = next(reversed(found), None)
        if before is not None and not asked and np.array_equal(found[before], R):  # of an activation
            continue
        found[name] = R
    if asked or len(found) <= most:
        return found, ""
    last = {R.shape[1:] if R.ndim > 1 and R[0].size > 1 else (R.size,): name for name, R in found.items()}
    chosen = [name for name in found if name in last.values()][-most:]
    note = f"{len(chosen)} of {len(everything)} layers, the last of each size; layers=[...] picks others"
    return {name: found[name] for name in chosen}, note


def _figure(ax: Any, width: float, height: float, dpi: float, kind: str) -> FigureBase:
    if ax is None:
        return empty_figure(width, height, dpi)
    if not hasattr(ax, "subplots"):
        raise TypeError(f"kind {kind} has several panels: pass a figure or a SubFigure as ax, or leave ax out")
    return ax  # type: ignore[no-any-return]


def _around(figure: FigureBase, title: str, caption: str) -> None:
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    if caption:
        figure.supxlabel(caption, fontsize=7.5, color=GREY, x=0.01, ha="left", linespacing=1.4)
