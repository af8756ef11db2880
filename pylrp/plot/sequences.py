"""Panels of ``ex.plot()`` for sequences: text, heads, patches, positions. ``explanations.py`` calls in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylrp.network.explanation import Explanation
from pylrp.plot import captions
from pylrp.plot.captions import Text
from pylrp.plot.colours import scale, write
from pylrp.plot.images import heatmap
from pylrp.plot.views import View
from pylrp.plot.words import heads, lines_of, patches, positions, text
from pylrp.present.words import joined

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PANELS", "size"]

_WIDE = 9.0  # inches, of text


def size(kind: str, view: View, options: dict[str, Any]) -> tuple[float, float]:
    """Return width and height of a panel in inches."""
    if kind == "text":
        words = joined(_tokens(options, view), _by_token(view), segments=options["segments"])
        return _WIDE, lines_of(words, 0.9 * 72 * _WIDE) / 72 + 1.1
    if kind == "heads":
        found = _layers(options, view)
        return 1.6 + 0.42 * max(len(next(iter(found.values()))), 6), 1.6 + 0.42 * max(2, len(found))
    return (4.6, 4.4) if kind == "patches" else (_WIDE, 2.8)


def _tokens(options: dict[str, Any], view: View) -> Any:
    if options["tokens"] is None:
        raise ValueError("kind text needs tokens=, the text of each: what the tokenizer calls them")
    return of_sample(options["tokens"], view.sample)


def of_sample(tokens: Any, sample: int) -> Any:
    """Return the tokens of a sample: of several, each of which may have its own number of them, its own."""
    return tokens if len(tokens) and isinstance(tokens[0], str) else tokens[sample] if len(tokens) else tokens


def _by_token(view: View) -> Any:
    """Return one number a token: of (tokens, width) the sum over its width, which a sequence's view has first."""
    R = view.relevance.astype(np.float64)
    if view.sequence and R.ndim == 2:
        return R.sum(axis=0)
    return R if R.ndim == 1 else R.reshape(len(R), -1).sum(axis=1)


def _text(ax: Axes, view: View, options: dict[str, Any], words: Text) -> None:
    text(
        ax, _by_token(view), _tokens(options, view), segments=options["segments"], limit=options["limit"],
        width=0.9 * 72 * _WIDE,
    )  # fmt: skip
    _write(ax, view, options, words, "full colour at the word with most relevance")


def _layers(options: dict[str, Any], view: View) -> dict[str, Any]:
    """Return relevance by layer of one sample, of those with heads."""
    ex: Explanation = options["ex"]
    names = options["layers"] or [name for name, R in ex.layers.kept.items() if np.ndim(R) >= _HEADS]
    single, several = bool(ex.settings.get("single")), ex.settings.get("targets") is not None
    if not names:
        raise ValueError("kind heads needs layers: explain with layers=net.heads, or pass layers=net.heads")
    found = {}
    for name in names:
        R = ex.layers[name] if single else ex.layers[name][view.sample]
        found[name] = R[view.at] if several else R
    of_heads = {name: R for name, R in found.items() if R.ndim == _HEADS and len(R) > 1}
    return found if options["layers"] else of_heads or found


_HEADS = 3  # axes: heads, tokens, width


def _heads(ax: Axes, view: View, options: dict[str, Any], words: Text) -> None:
    heads(ax, _layers(options, view), limit=options["limit"], cmap=options["cmap"])
    _write(ax, view, options, words, "", below=30)


def _patches(ax: Axes, view: View, options: dict[str, Any], words: Text) -> None:
    image = patches(view.relevance, options["shape"])
    heatmap(ax, image, limit=options["limit"], percentile=options["percentile"], cmap=options["cmap"])
    _write(ax, view, options, words, scale(image, options["limit"], options["percentile"]))


def _positions(ax: Axes, view: View, options: dict[str, Any], words: Text) -> None:
    ex: Explanation = options["ex"]
    if ex.positions is None or isinstance(ex.positions, dict):
        raise ValueError("the network has no tokens, or positions of several lengths: there is no one row of them")
    own = ex.positions if ex.settings.get("single") else ex.positions[view.sample]
    several = ex.settings.get("targets") is not None
    tokens = None if options["tokens"] is None else _tokens(options, view)
    positions(ax, own[view.at] if several else own, tokens)
    _write(ax, view, options, words, "", below=60)


def _write(ax: Axes, view: View, options: dict[str, Any], words: Text, note: str, below: float = 4) -> None:
    lines = [captions.sums(view), captions.rules(view, note)]
    write(ax, words.title(view), words.caption(lines, options["inches"]), below=below)


PANELS = {"text": _text, "heads": _heads, "patches": _patches, "positions": _positions}
