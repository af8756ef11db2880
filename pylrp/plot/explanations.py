"""``ex.plot()``: chooses the kind of picture for an explanation and draws it with a title and a caption."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pylrp.network.explanation import Explanation
from pylrp.plot import captions
from pylrp.plot.bars import table
from pylrp.plot.captions import Text
from pylrp.plot.colours import PERCENTILE, empty_figure, register_with_pyplot, save, scale, symmetric_limit, write
from pylrp.plot.images import image
from pylrp.plot.ledger_bars import ledger
from pylrp.plot.multi_panel import draw_channels, draw_layers
from pylrp.plot.sequences import PANELS, size
from pylrp.plot.signals import MOST_LANES, signal, time_by_feature
from pylrp.plot.views import View, features_of, views
from pylrp.present.kinds import kind_of
from pylrp.present.names import Labels
from pylrp.present.pixels import to_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import FigureBase

__all__ = ["KINDS", "explanation"]

#: The kinds of pictures, and the options that are theirs alone.
KINDS: dict[str, tuple[str, ...]] = {
    "image": ("image", "overlay", "layer", "shape", "cmap"),
    "signal": ("overlay", "feature_names", "layer", "shape", "cmap", "sample_rate"),
    "time": ("feature_names", "layer", "shape", "cmap", "sample_rate"),
    "table": ("feature_names", "values", "most", "layer", "cmap"),
    "channels": ("feature_names", "most", "layer", "shape", "cmap"),
    "layers": ("layers", "most", "cmap"),
    "ledger": ("most",),
    "text": ("tokens", "segments", "layer"),
    "heads": ("layers", "cmap"),
    "patches": ("layer", "shape", "cmap"),
    "positions": ("tokens",),
}

#: How many axes the relevance of a sample has, and what to do if it has others.
_AXES = {"image": (2, 3), "signal": (1, 2), "time": (2,), "table": (1,), "channels": (2, 3)}
_ADVICE = {
    "image": "pass shape=(height, width), or kind='table'",
    "signal": "it needs (length,) or (channels, length)",
    "time": "it needs (features, length), or (steps, features) of recurrent layers",
    "table": "leave kind out, or take one of the other kinds",
    "channels": "it needs channels first, (channels, height, width)",
}


def explanation(
    ex: Explanation,
    path: str | os.PathLike[str] | None = None,
    *,
    kind: str | None = None,
    sample: int = 0,
    target: int | None = None,
    ax: Axes | FigureBase | None = None,
    image: ArrayLike | None = None,
    overlay: str | None = None,
    percentile: float = PERCENTILE,
    limit: float | None = None,
    feature_names: Sequence[str] | None = None,
    values: ArrayLike | None = None,
    labels: Labels = None,
    shape: tuple[int, ...] | None = None,
    layer: str | None = None,
    layers: Sequence[str] | None = None,
    input: str | None = None,
    tokens: Sequence[str] | None = None,
    segments: ArrayLike | None = None,
    most: int | None = None,
    sample_rate: float | None = None,
    cmap: str | Colormap | None = None,
    title: str | None = None,
    caption: bool = True,
    dpi: float = 150,
    pyplot: bool | None = None,
) -> Axes | FigureBase:
    """Draw an explanation: the picture that fits its relevance, or the one you ask for.

    Parameters
    ----------
    ex : Explanation
    path : path-like, optional
        Write the picture to this file, too: PNG, PDF, SVG.
    kind : str, optional
        "image": a heatmap, of the sum over the channels. "signal": a lane for each channel, time to the right.
        "time": a map of time by feature, under a curve of the sums. "table": signed bars. "channels": a map for each
        channel. "layers": a map for each layer. "ledger": what each layer absorbed. "text": words coloured by
        relevance, the kind where ``tokens`` are given. "heads": a grid of
        layers and heads of attention, of ``layers``. "patches": the tokens of a vision transformer at ``layer`` as an
        image. "positions": what positions took. Default, by the shape of a sample: ``(channels, height, width)`` is an
        image, a row a table;
        two axes are an image if both have at least 8 entries and neither 4 times those of the other, otherwise a
        signal ``(channels, length)``, of more than 12 channels "time". The steps of recurrent layers are time, whether
        they are axis 0 or 1.
    sample : int, default 0
        The row of the batch.
    target : int, optional
        One of the classes that were explained; default all, one below the other, images and signals on one scale.
    ax : matplotlib.axes.Axes, Figure or SubFigure, optional
        Where to draw. Several panels (several targets; kinds "channels" and "layers") need a figure, or a part of one.
        Default: a new figure.
    image : array_like of shape (height, width) or (height, width, 3), optional
        The picture to show under the relevance, uint8 or float from 0 to 1. Default: made from the input, whose
        smallest value is black then and the largest white, if it isn't within 0 and 1 already.
    overlay : str, optional
        For images "none", "grey" or "edges", see :func:`pylrp.plot.image`; for signals "fill", "line" or "none", see
        :func:`pylrp.plot.signal`.
    percentile : float, default 99.5
        Full colour at this percentile of ``|R|``.
    limit : float, optional
        Full colour at ``+limit`` and ``-limit`` instead.
    feature_names : sequence of str, optional
        Of the features of a table, by default those of the explanation; or of channels.
    values : array_like, optional
        The values to show beside features' names, such as those before scaling. Default: the input.
    labels : sequence of str or mapping of int to str, optional
        Names of the classes.
    shape : tuple of int, optional
        The shape of a sample that is an image in truth, but a row to the network: ``(28, 28)``.
    layer : str, optional
        Draw the relevance of this layer instead of the input's.
    layers : sequence of str, optional
        For kind "layers"; default those that were kept, else all; of more than 16 the last one of each size.
    input : str, optional
        Which input, where the network has several.
    tokens : sequence of str, optional
        The tokens of a text, as the tokenizer calls them; of several inputs the first is drawn then.
    segments : array_like of int, optional
        Which sentence each token belongs to. Default: a separator ends one.
    most : int, optional
        How many bars, channels, layers of the ledger are drawn; the others are summed up, in a bar or in words.
    sample_rate : float, optional
        Steps a second of a signal: its time axis has seconds then.
    cmap : str or matplotlib.colors.Colormap, optional
        Colours instead of pylrp's, of all kinds but the ledger; the middle of the map is relevance 0.
    title : str, optional
        Instead of the class; "" for none.
    caption : bool, default True
        Write below: the sums and what absorbed relevance, and where the colours end.
    dpi : float, default 150
        Pixels per inch of a new figure.
    pyplot : bool, optional
        Register a new figure with pyplot, so that ``plt.show()`` shows it. Default: where the program has imported
        ``matplotlib.pyplot``, neither ``path`` nor ``ax`` is given, and this is the main thread.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        A new figure, or what was given as ``ax``.

    Raises
    ------
    ValueError
        If there is no such sample, target, layer or input, an option does not go with the kind, or relevance is NaN.
    TypeError
        If ``ax`` is no Axes where one panel is drawn, or no figure where several are.
    ImportError
        If matplotlib is not installed.
    """
    asked = kind
    if kind not in (None, *KINDS):
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if tokens is None and (kind in ("text", "positions") or (kind is None and layer is None)):
        tokens = ex.settings.get("tokens")
    if tokens is not None and kind is None:
        kind = "text"
    if kind in ("ledger", "text", "heads", "patches", "positions") and input is None:
        input = _any_input(ex)
    own_shape = shape if kind != "patches" else None
    found = views(ex, sample, target, layer=layer, input=input, shape=own_shape)
    first = found[0]
    kind = kind or kind_of(first.relevance.shape, first.sequence)
    if asked is None and overlay is None and kind == "signal" and first.relevance.ndim == 2:
        kind = "time" if len(first.relevance) > MOST_LANES else kind
    if kind in _AXES and first.relevance.ndim not in _AXES[kind]:
        raise ValueError(f"relevance of shape {first.relevance.shape} is no {kind}: {_ADVICE[kind]}")
    options: dict[str, Any] = {
        "image": image, "overlay": overlay, "feature_names": feature_names, "values": values, "shape": shape,
        "layer": layer, "layers": layers, "most": most, "cmap": cmap, "sample_rate": sample_rate,
        "tokens": tokens, "segments": segments,
    }  # fmt: skip
    _require_options_of(kind, options)
    if kind == "table" and feature_names is None:
        options["feature_names"] = features_of(ex, first)
    options |= {"percentile": percentile, "limit": limit, "scale": "", "ex": ex}
    text = Text(labels, title, caption)
    if kind in ("channels", "layers"):
        if len(found) > 1:
            known = ", ".join(str(view.target) for view in found)
            raise ValueError(f"kind {kind} shows one target: pass target= with one of {known}")
        drawn: Axes | FigureBase = (draw_channels if kind == "channels" else draw_layers)(
            ex, first, options, text, ax, dpi
        )
    else:
        drawn = _panels(kind, found, options, text, ax, dpi)
    if path is not None:
        save(drawn, path)
    if ax is None:
        register_with_pyplot(drawn, path, pyplot)
    return drawn


def _require_options_of(kind: str, options: dict[str, Any]) -> None:
    for name, given in options.items():
        if given is not None and name not in KINDS[kind]:
            fits = ", ".join(k for k, own in KINDS.items() if name in own)
            raise ValueError(f"{name}= is for kind {fits}; this is kind {kind}")


def _any_input(ex: Explanation) -> str | None:
    return next(iter(ex.relevance)) if isinstance(ex.relevance, dict) else None


def _panels(
    kind: str, found: list[View], options: dict[str, Any], text: Text, ax: Any, dpi: float
) -> Axes | FigureBase:
    """Draw one panel for each target."""
    draw = _DRAW[kind]
    width, height = size(kind, found[0], options) if kind in PANELS else _size(kind, found[0], options["most"])
    own = ax is None
    if own:
        ax = empty_figure(width, height * len(found), dpi)
    if hasattr(ax, "subplots"):
        panels = list(ax.subplots(len(found), 1, squeeze=False)[:, 0])
    elif not hasattr(ax, "imshow"):
        raise TypeError(f"ax must be matplotlib Axes or a figure, got {type(ax).__name__}")
    elif len(found) > 1:
        known = ", ".join(str(view.target) for view in found)
        raise TypeError(f"{len(found)} targets need a figure, ax is one Axes: pass target= with one of {known}")
    else:
        panels = [ax]
    if len(found) > 1 and options["limit"] is None and kind in ("image", "signal", "time"):
        together = np.stack([view.coloured(kind) for view in found])
        options["scale"] = f"{scale(together, None, options['percentile'])} of all targets"
        options["limit"] = symmetric_limit(together, options["percentile"])
    for panel, view in zip(panels, found, strict=True):
        if own:
            panel.set_anchor("W")
        inches = 0.88 * width if own else panel.get_window_extent().width / panel.figure.dpi
        draw(panel, view, {**options, "inches": inches}, text)
    return ax  # type: ignore[no-any-return]


def _size(kind: str, view: View, most: int | None) -> tuple[float, float]:
    """Return width and height of a panel in inches."""
    shape = view.relevance.shape
    if kind == "image":
        return 4.6, 3.6 * min(max(shape[-2] / shape[-1], 0.3), 2) + 0.8
    if kind == "signal":
        return 9, 1.5 + (1.4 if len(shape) == 1 or shape[0] == 1 else 0.75 * shape[0])
    if kind == "time":
        return 9, 1.5 + min(max(0.12 * shape[0], 2.2), 6.0)
    bars = min((most or 12) + 1, view.relevance.size) if kind == "table" else min((most or 24) + 1, len(view.ledger))
    return (7, 1.2 + 0.26 * bars) if kind == "table" else (9, 1.5 + 0.27 * bars)


def _image(ax: Axes, view: View, options: dict[str, Any], text: Text) -> None:
    picture = options["image"]
    R = view.coloured("image")
    if picture is None and view.input is not None:
        picture = to_picture(view.input)
    ends = {"limit": options["limit"], "percentile": options["percentile"]}
    image(ax, R, picture, overlay=options["overlay"], cmap=options["cmap"], **ends)
    _write(ax, view, options, text, options["scale"] or scale(R, **ends))


def _write(ax: Axes, view: View, options: dict[str, Any], text: Text, note: str, below: float = 4) -> None:
    write(
        ax,
        text.title(view),
        text.caption([captions.sums(view), captions.rules(view, note)], options["inches"]),
        below=below,
    )


def _signal(ax: Axes, view: View, options: dict[str, Any], text: Text) -> None:
    ends = {"limit": options["limit"], "percentile": options["percentile"]}
    x = None if view.input is None else np.squeeze(view.input, 0) if len(view.input) == 1 else view.input
    R = view.relevance[0] if len(view.relevance) == 1 else view.relevance
    signal(
        ax, R, x, overlay=options["overlay"], names=options["feature_names"], cmap=options["cmap"],
        sample_rate=options["sample_rate"], **ends,
    )  # fmt: skip
    _write(ax, view, options, text, options["scale"] or scale(R, **ends), below=18 + _below(options))


def _time(ax: Axes, view: View, options: dict[str, Any], text: Text) -> None:
    ends = {"limit": options["limit"], "percentile": options["percentile"]}
    R = view.relevance
    time_by_feature(
        ax, R, names=options["feature_names"], cmap=options["cmap"], sample_rate=options["sample_rate"], **ends
    )
    _write(ax, view, options, text, options["scale"] or scale(R, **ends), below=18 + _below(options))


def _below(options: dict[str, Any]) -> int:
    """Return the points that the name of the time axis takes."""
    return 0 if options["sample_rate"] is None else 12


def _table(ax: Axes, view: View, options: dict[str, Any], text: Text) -> None:
    R = view.relevance
    values = view.input if options["values"] is None else options["values"]
    noun = "feature" if view.input is not None else "unit"
    ends = {"most": options["most"] or 12, "limit": options["limit"], "noun": noun, "cmap": options["cmap"]}
    table(ax, R, values, names=options["feature_names"], **ends)
    note = ""
    side = int(np.sqrt(len(R)))
    if side >= 16 and side * side == len(R) and options["feature_names"] is None and view.input is not None:
        note = f"{len(R)} = {side} x {side}: if it is an image, shape=({side}, {side}) draws it as one"
    _write(ax, view, options, text, note)


def _ledger(ax: Axes, view: View, options: dict[str, Any], text: Text) -> None:
    ledger(ax, view.ledger, sample=view.sample, most=options["most"] or 24)
    heading = text.title(view)
    ax.set_title(heading and f"Where the relevance went, {heading.split(': ')[-1]}", loc="left", fontsize=10, pad=24)
    write(ax, "", text.caption([captions.sums(view), captions.rules(view)], options["inches"]), below=20)


_DRAW: dict[str, Callable[[Axes, View, dict[str, Any], Text], None]] = {
    "image": _image, "signal": _signal, "time": _time, "table": _table, "ledger": _ledger, **PANELS,
}  # fmt: skip
