"""A grid of samples × composites: a row for each sample, the input first, then one picture an explanation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pylrp.network.explanation import Explanation
from pylrp.plot.bars import strongest, table
from pylrp.plot.captions import head, title, wrapped
from pylrp.plot.colours import PERCENTILE, empty_figure, register_with_pyplot, save, symmetric_limit
from pylrp.plot.colours import scale as scale_text
from pylrp.plot.images import as_picture, image
from pylrp.plot.signals import signal
from pylrp.plot.views import View, features_of, samples_of, views
from pylrp.present.colours import GREY, INK
from pylrp.present.kinds import kind_of
from pylrp.present.names import Labels, composite_name
from pylrp.present.numbers import number
from pylrp.present.pixels import to_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import FigureBase

__all__ = ["SCALES", "grid"]

#: What shares one scale of colours in :func:`grid`.
SCALES = ("own", "row", "all")

_MOST_ROWS = 16
_FEATURES = 8


def grid(
    explanations: Mapping[str, Explanation] | Sequence[Explanation],
    path: str | os.PathLike[str] | None = None,
    *,
    samples: Sequence[int] | None = None,
    target: int | None = None,
    input: str | None = None,
    shape: tuple[int, ...] | None = None,
    kind: str | None = None,
    images: Sequence[ArrayLike] | None = None,
    scale: str = "own",
    percentile: float = PERCENTILE,
    overlay: str | None = None,
    feature_names: Sequence[str] | None = None,
    labels: Labels = None,
    cmap: str | Colormap | None = None,
    figure: FigureBase | None = None,
    dpi: float = 150,
    pyplot: bool | None = None,
) -> FigureBase:
    """Draw explanations of the same samples side by side: one row a sample, one column an explanation.

    Parameters
    ----------
    explanations : mapping of str to Explanation, or sequence of Explanation
        By the headings of the columns; of a sequence, the composites' names are taken.
    path : path-like, optional
        Write the figure to this file, too: PNG, PDF, SVG.
    samples : sequence of int, optional
        Which rows of the batch; default all, up to 16.
    target : int, optional
        The class to show, where several were explained.
    input : str, optional
        Which input, where the network has several.
    shape : tuple of int, optional
        The shape of a sample, where it is a flat row: ``(28, 28)``.
    kind : {"image", "signal", "table"}, optional
        Default: by the shape of a sample, as for :func:`explanation`.
    images : sequence of array_like, optional
        The pictures to show, one for each sample that is drawn: uint8 or float from 0 to 1. Default: made from
        the input.
    scale : {"own", "row", "all"}, default "own"
        Whether each picture has its own scale, or those of a row, or all share one.
    percentile : float, default 99.5
        Of ``|R|``, of the pictures that share a scale.
    overlay, feature_names, labels, cmap, pyplot
        As for :func:`explanation`.
    figure : matplotlib.figure.Figure or SubFigure, optional
        Where to draw; default: a new one.
    dpi : float, default 150

    Returns
    -------
    matplotlib.figure.Figure
        With one Axes for each cell, row by row, the input first.

    Raises
    ------
    ValueError
        If the explanations are not of equally many samples of one shape, or a sample or target is not there.
    ImportError
        If matplotlib is not installed.
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
    named = _named(explanations)
    rows = [_row(named, s, target, input, shape) for s in _chosen(named, samples)]
    if len({view.relevance.shape for row in rows for view in row}) > 1:
        raise ValueError("the explanations are of inputs of different shapes: draw one grid for each")
    if images is not None and len(images) != len(rows):
        raise ValueError(f"images has {len(images)} entries, {len(rows)} samples are drawn")
    first = rows[0][0]
    kind = kind or kind_of(first.relevance.shape, first.sequence)
    draw = {"image": _image_row, "signal": _signal_row, "table": _table_row}.get(kind)
    if draw is None:
        raise ValueError(f"kind must be image, signal or table in a grid, got {kind!r}")
    own = figure is None
    figure, axes, wide = _cells(named, rows, kind, figure, dpi)
    maps = [[view.coloured(kind) for view in row] for row in rows]
    for i, row in enumerate(rows):
        pool = maps if scale == "all" else [maps[i]]
        shared = None if scale == "own" else symmetric_limit(np.stack(pool), percentile)
        picture = None if images is None else images[i]
        options: dict[str, Any] = {"limit": shared, "percentile": percentile, "overlay": overlay, "cmap": cmap}
        features = features_of(next(iter(named.values())), row[0]) if feature_names is None else feature_names
        draw(axes[i], row, picture, options, features)
        _notes(axes[i][-len(row) :], row, labels)
        _heading(axes[i][0], title(row[0], labels), kind)
    about = wrapped([_about(scale, percentile, maps, kind)], wide)
    figure.supxlabel(about, fontsize=7.5, linespacing=1.4, color=GREY, x=0.01, ha="left")
    if path is not None:
        save(figure, path)
    if own:
        register_with_pyplot(figure, path, pyplot)
    return figure


def _named(explanations: Any) -> dict[str, Explanation]:
    if isinstance(explanations, Explanation):  # a sequence of its samples, too
        explanations = [explanations]
    if not isinstance(explanations, Mapping):
        names = [composite_name(ex.settings.get("composite", f"explanation {i}")) for i, ex in enumerate(explanations)]
        names = [n if names.count(n) == 1 else f"{n} ({names[:i].count(n) + 1})" for i, n in enumerate(names)]
        explanations = dict(zip(names, explanations, strict=True))
    if not explanations:
        raise ValueError("there is no explanation to draw")
    counts = {name: samples_of(ex) for name, ex in explanations.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            "the explanations are of different numbers of samples: "
            + ", ".join(f"{name} of {count}" for name, count in counts.items())
        )
    return dict(explanations)


def _chosen(named: Mapping[str, Explanation], samples: Sequence[int] | None) -> Sequence[int]:
    count = samples_of(next(iter(named.values())))
    if samples is None and count > _MOST_ROWS:
        raise ValueError(f"the explanations are of {count} samples: choose some, samples=range({_MOST_ROWS}) say")
    if samples is not None and len(samples) == 0:
        raise ValueError("samples is empty")
    return range(count) if samples is None else samples


def _row(
    named: Mapping[str, Explanation], sample: int, target: int | None, input: str | None, shape: tuple[int, ...] | None
) -> list[View]:
    row = []
    for name, ex in named.items():
        found = views(ex, sample, target, input=input, shape=shape)
        if len(found) > 1:
            known = ", ".join(str(view.target) for view in found)
            raise ValueError(f"{name} explains several targets, {known}: pass target= with one of them")
        row.append(found[0])
    return row


def _cells(
    named: Mapping[str, Explanation], rows: list[list[View]], kind: str, figure: FigureBase | None, dpi: float
) -> tuple[FigureBase, Any, float]:
    """Return the figure, its axes row by row with the heads of the columns, and how wide they are in inches."""
    columns = len(named) + (kind != "table")
    width, height = _cell(kind, rows[0][0])
    ratios = [1.5 if kind == "table" and c == 0 else 1.0 for c in range(columns)]  # names stand in the first column
    names = [*(["input"] if kind != "table" else []), *named]
    heads = [head(name, ratio * width, 9) for name, ratio in zip(names, ratios, strict=True)]
    if figure is None:
        high = len(rows) * height + 0.7 + 0.15 * max(text.count("\n") for text in heads)
        figure = empty_figure(sum(ratios) * width + 0.2, high, dpi)
    axes = figure.subplots(len(rows), columns, squeeze=False, width_ratios=ratios)
    for ax, text in zip(axes[0], heads, strict=True):
        ax.set_title(text, fontsize=9, color=INK, fontweight="bold")
    return figure, axes, sum(ratios) * width


def _cell(kind: str, view: View) -> tuple[float, float]:
    """Return width and height of a cell in inches."""
    if kind == "table":
        return 3.4, 0.6 + 0.21 * min(view.relevance.size, _FEATURES + 1)
    if kind == "signal":
        return 3.4, 0.8 + 0.5 * (view.relevance.shape[0] if view.relevance.ndim == 2 else 1)
    height, width = view.relevance.shape[-2:]
    side = 1.6 if max(height, width) < 64 else 2.2
    return side, 0.95 * side * min(max(height / width, 0.4), 2.5) + 0.22


def _image_row(axes: Sequence[Axes], row: list[View], picture: Any, options: dict[str, Any], names: Any) -> None:
    x = next((view.input for view in row if view.input is not None), None)
    if picture is None and x is not None:
        picture = to_picture(x)
    if picture is not None:
        axes[0].imshow(as_picture(picture), cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    axes[0].set_xticks([])
    axes[0].set_yticks([])
    for side in axes[0].spines.values():
        side.set_visible(False)
    for ax, view in zip(axes[1:], row, strict=True):
        image(ax, view.relevance, picture, colours=False, **options)


def _signal_row(axes: Sequence[Axes], row: list[View], picture: Any, options: dict[str, Any], names: Any) -> None:
    x = next((view.input for view in row if view.input is not None), None)
    if x is None:
        raise ValueError("these explanations have no input to draw: make them with net.explain")
    signal(axes[0], np.zeros(x.shape), x, colours=False, limit=1, names=names)
    for ax, view in zip(axes[1:], row, strict=True):
        signal(ax, view.relevance, x, colours=False, **options)
        ax.set_yticks([])


def _table_row(axes: Sequence[Axes], row: list[View], picture: Any, options: dict[str, Any], names: Any) -> None:
    together = np.mean([np.abs(view.relevance) / (np.abs(view.relevance).sum() or 1) for view in row], axis=0)
    order = strongest(together, _FEATURES)
    for ax, view in zip(axes, row, strict=True):
        table(ax, view.relevance, view.input, names=names, order=order, limit=options["limit"], cmap=options["cmap"])
        if ax is not axes[0]:
            ax.set_yticks([])


def _notes(axes: Sequence[Axes], row: list[View], labels: Labels) -> None:
    """Write under each picture how much of the output it shows."""
    common = title(row[0], labels)
    for ax, view in zip(axes, row, strict=True):
        share = f"{number(round(100 * view.total / view.started))} %" if view.started else number(view.total)
        other = title(view, labels)
        note = f"sum {number(view.total)}, {share}" if other == common else f"{other}: {share}"
        ax.annotate(note, (0.5, 0), (0, -4 if not ax.axison or not ax.get_xticks().size else -16),
                    xycoords="axes fraction", textcoords="offset points", ha="center", va="top", fontsize=7,
                    color=GREY, annotation_clip=False)  # fmt: skip


def _heading(ax: Axes, text: str, kind: str) -> None:
    ax.set_ylabel(wrapped([text], 1.2, 8), fontsize=8) if kind != "signal" else ax.annotate(
        text, (0, 1), (0, 3), xycoords="axes fraction", textcoords="offset points", fontsize=8, annotation_clip=False
    )


def _about(choice: str, percentile: float, maps: list[Any], kind: str) -> str:
    share = "Below each: the sum of its relevance, and its share of the output."
    if kind == "table":
        which = {"own": "Each picture has its own scale.", "row": "Each row has its own scale."}
        return f"{which.get(choice, 'All bars have one scale.')} {share}"
    if choice == "all":
        together = np.stack([R for row in maps for R in row])
        return f"One scale for all: {scale_text(together, None, percentile)} of all maps. {share}"
    each = "map" if choice == "own" else "row"
    limit = "the largest |R|" if percentile == 100 else f"percentile {percentile:g} of |R|"
    return f"Each {each} has its own scale, the same on both sides of zero: full colour at {limit}. {share}"
