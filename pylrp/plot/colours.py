"""Colour maps of relevance and their limits, and empty figures; every other module of ``pylrp.plot`` uses them.

matplotlib is the optional extra ``plot`` and is imported where it is used. Figures are made without pyplot: no
display is needed, and any thread may draw.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.present.colours import AGAINST, COLOURS, FOR, GREY
from pylrp.present.numbers import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap, LinearSegmentedColormap
    from matplotlib.figure import Figure

__all__ = ["PERCENTILE", "diverging_map", "new_figure", "symmetric_limit"]

#: Share of the pixels, in percent, whose relevance is within the limits of the colour map; the rest is clipped.
PERCENTILE = 99.5


def new_figure(width: float, height: float, dpi: float = 100) -> Figure:
    """Return an empty figure, ``width`` and ``height`` in inches, drawn by matplotlib's Agg.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to get it.
    """
    try:
        from pylrp.plot.figures import Picture

        return Picture(figsize=(width, height), dpi=dpi)
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from error


def empty_figure(width: float, height: float, dpi: float) -> Figure:
    """Return a white figure whose layout leaves space for titles and captions."""
    figure = new_figure(width, height, dpi)
    figure.set_facecolor("white")
    figure.set_layout_engine("constrained")
    return figure


def save(drawn: Any, path: str | os.PathLike[str]) -> None:
    """Write the whole figure that Axes, a SubFigure or a Figure belong to."""
    figure = drawn if hasattr(drawn, "subplots") else drawn.figure
    figure.canvas.figure.savefig(path)


def register_with_pyplot(figure: Any, path: str | os.PathLike[str] | None, pyplot: bool | None) -> None:
    """Register a new figure with pyplot, so that ``plt.show()`` shows it.

    By default where the program has imported pyplot and the picture is not written to a file; only in the main thread,
    since pyplot's windows live there.
    """
    if pyplot is None:
        main = threading.current_thread() is threading.main_thread()
        pyplot = path is None and main and "matplotlib.pyplot" in sys.modules
    if pyplot:
        import matplotlib.pyplot as plt

        # pyplot calls the class to get the figure; this way it gets one that is drawn, and none that failed.
        plt.figure(FigureClass=lambda **_: figure)  # type: ignore[arg-type]


def diverging_map() -> LinearSegmentedColormap:
    """Return the colour map: blue below zero, near white at zero, red above."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("pylrp", COLOURS, N=511)  # odd: zero has a colour of its own


def chosen_map(cmap: str | Colormap | None) -> Colormap:
    """Return the colour map by its name or as it is; None is pylrp's own."""
    if cmap is None:
        return diverging_map()
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(cmap=cmap).get_cmap()


def ends_of(cmap: str | Colormap | None) -> tuple[Any, Any]:
    """Return the colours of bars and curves: for the class, against it. An eighth from the map's ends."""
    return (FOR, AGAINST) if cmap is None else (chosen_map(cmap)(0.875), chosen_map(cmap)(0.125))


def finite(R: ArrayLike, what: str = "R") -> NDArray[np.float64]:
    """Return relevance as float64, checked: not empty, no NaN, no infinity."""
    values = np.asarray(R, dtype=np.float64)
    if values.size == 0:
        raise ValueError(f"{what} is empty: there is nothing to draw")
    if not np.isfinite(values).all():
        raise ValueError(f"{what} holds {np.count_nonzero(~np.isfinite(values))} values that are NaN or infinite")
    return values


def symmetric_limit(R: ArrayLike, percentile: float = PERCENTILE) -> float:
    """Return the relevance that gets the full colour, at ``+limit`` and ``-limit``.

    It is a percentile of ``|R|``, so that outliers do not compress the scale of all others. Where that percentile is 0
    (few pixels have any relevance) it is the largest ``|R|``; where all are 0 it is 1.

    Raises
    ------
    ValueError
        If R is empty or holds NaN or infinity, or ``percentile`` is not in (0, 100].
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be above 0 and at most 100, got {percentile}")
    size = np.abs(finite(R))
    return float(np.percentile(size, percentile) or size.max() or 1.0)


def bound(R: ArrayLike, limit: float | None, percentile: float) -> float:
    """Return the limit of the colour map: ``limit`` if it is given, checked, or the percentile."""
    end = symmetric_limit(R, percentile) if limit is None else float(limit)
    if not 0 < end < np.inf:
        raise ValueError(f"limit must be above 0 and finite, got {limit}")
    return end


def scale(R: ArrayLike, limit: float | None = None, percentile: float = PERCENTILE) -> str:
    """Describe the limit of the colour map, for a caption."""
    size, end = np.abs(finite(R)), bound(R, limit, percentile)
    if limit is not None:
        return f"colours end at ±{number(end)}"
    if not size.any():
        return "all relevance is 0"
    largest = percentile == 100 or np.percentile(size, percentile) == 0
    which = "the largest |R|" if largest else f"the {_ordinal(percentile)} percentile of |R|"
    return f"colours end at ±{number(end)}, {which}"


def _ordinal(value: float) -> str:
    ending = "th"
    if value == int(value) and int(value) // 10 != 1:
        ending = {1: "st", 2: "nd", 3: "rd"}.get(int(value) % 10, "th")
    return f"{value:g}{ending}"


def colour_bar(ax: Axes, drawn: ScalarMappable, box: tuple[float, float, float, float] = (1.03, 0, 0.035, 1)) -> Any:
    """Draw the colours beside ``ax``, with numbers at both ends; ``box`` in fractions of the axes."""
    end = float(drawn.get_clim()[1] or 1.0)
    bar = ax.figure.colorbar(drawn, cax=ax.inset_axes(box))
    bar.set_ticks([-end, 0, end], labels=[f"−{number(end)}\nagainst", "0", f"+{number(end)}\nfor"])
    bar.ax.tick_params(labelsize=7, length=2, colors=GREY)
    low, _, high = bar.ax.get_yticklabels()  # within the bar's length
    low.set_verticalalignment("bottom")
    high.set_verticalalignment("top")
    bar.outline.set_visible(False)
    return bar


def write(ax: Axes, title: str, caption: str, *, below: float = 4, left: float = 0) -> None:
    """Write a title above and a caption below: ``below`` in points under the axes, ``left`` a fraction of them."""
    if title:
        ax.set_title(title, loc="left", x=left, fontsize=10)
    if caption:
        place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        ax.annotate(caption, (left, 0), (0, -below), va="top", ha="left", fontsize=7.5, color=GREY, linespacing=1.4,
                    annotation_clip=False, **place)  # fmt: skip
