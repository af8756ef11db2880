"""Relevance of named features: signed bars, the strongest on top, and one for all the others.

``explanations.py`` and ``grids.py`` call in, and so may you: :func:`table` takes arrays and an Axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.plot.colours import ends_of, finite
from pylrp.present.colours import GREY, REST
from pylrp.present.numbers import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.container import BarContainer

__all__ = ["table"]


def table(
    ax: Axes,
    R: ArrayLike,
    values: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    most: int = 12,
    order: ArrayLike | None = None,
    limit: float | None = None,
    noun: str = "feature",
    cmap: str | Colormap | None = None,
) -> BarContainer:
    """Draw the relevance of a row of a table as bars: to the right for the class, to the left against it.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    R : array_like of shape (features,)
    values : array_like of shape (features,), optional
        The features themselves, numbers or words, to be shown beside their names.
    names : sequence of str, optional
        Of the features; default "feature 0", "feature 1", ..., by ``noun``
    most : int, default 12
        So many features get a bar of their own, those of the largest ``|R|``; one more bar is the sum of the others.
    order : array_like of int, optional
        Which features get a bar, from top to bottom, instead: for several pictures of the same rows.
    limit : float, optional
        The axis reaches from ``-limit`` to ``+limit``; default: as far as the bars.
    noun : str, default "feature"
        What one of them is called.
    cmap : str or matplotlib.colors.Colormap, optional
        Bars get its colours near the two ends.

    Returns
    -------
    matplotlib.container.BarContainer
        The widths add up to the sum of R.

    Raises
    ------
    ValueError
        If R is no row or not finite, or names or values do not fit.
    """
    r = finite(R)
    if r.ndim != 1:
        raise ValueError(f"R has shape {r.shape}, expected (features,)")
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    for what, given in (("feature_names", names), ("values", values)):
        if given is not None and len(np.asarray(given)) != len(r):
            raise ValueError(f"{what} has {len(np.asarray(given))} entries, the row has {len(r)} features")
    shown = strongest(r, most) if order is None else np.asarray(order, dtype=int)
    texts = [_label(i, values, names, noun) for i in shown]
    widths = r[shown]
    others = len(r) - len(shown)
    if others:
        widths = np.append(widths, r.sum() - widths.sum())
        texts.append(f"the other {others} {noun}" + "s" * (others > 1))
    above, below = ends_of(cmap)
    colours = [above if w >= 0 else below for w in widths]
    if others:
        colours[-1] = REST
    bars = ax.barh(np.arange(len(widths)), widths, color=colours, height=0.72)
    reach = limit or float(np.abs(widths).max()) or 1.0
    both = (bool((widths < 0).any()), bool((widths > 0).any())) if limit is None else (True, True)
    ax.set_xlim(-1.3 * reach if both[0] else -0.02 * reach, 1.3 * reach if both[1] else 0.02 * reach)
    for i, w in enumerate(widths):
        ax.annotate(("+" if w >= 0 else "") + number(w), (w, i), (3 if w >= 0 else -3, 0), textcoords="offset points",
                    va="center", ha="left" if w >= 0 else "right", fontsize=7.5, color=GREY)  # fmt: skip
    ax.set_yticks(np.arange(len(widths)), texts)
    ax.invert_yaxis()
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.tick_params(labelsize=8, length=0)
    ax.set_xticks([])
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(False)
    return bars


def strongest(r: ArrayLike, most: int) -> NDArray[np.intp]:
    """Return the features of the largest ``|r|``, sorted; all of them where only one would be left over."""
    size = np.abs(np.asarray(r, dtype=np.float64))
    order = np.argsort(-size, kind="stable")
    return order if len(size) <= most + 1 else order[:most]


def _label(i: int, values: ArrayLike | None, names: Sequence[str] | None, noun: str) -> str:
    name = f"{noun} {i}" if names is None else str(names[i])
    if values is None:
        return name
    value = np.asarray(values)[i]
    return f"{name} = {value if isinstance(value, str) else number(value)}"
