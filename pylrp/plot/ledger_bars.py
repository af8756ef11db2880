"""The ledger as stacked bars: what each layer passed on and what it absorbed, by cause, output on top.

``explanations.py`` calls in, and so may you: :func:`ledger` takes a Ledger and an Axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pylrp.network.causes import COLUMNS, cause
from pylrp.network.ledger import Ledger
from pylrp.present.colours import GREY, INK
from pylrp.present.numbers import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer

__all__ = ["ledger"]

#: Of what a layer passes on; the other parts of a bar have the colours of their causes.
_PASSED_ON = "#dcdbd6"

_SEEN = 1e-3  # of the longest bar: shorter parts are not visible and get no entry in the legend


def ledger(ax: Axes, account: Ledger, *, sample: int = 0, most: int = 24) -> dict[str, BarContainer]:
    """Draw the account of one sample: a bar for each layer, from the output down to the input.

    A bar is as long as what arrived at the layer, and divided into what it passed on and what was absorbed, by cause.
    What a cause *added* (a bias of the other sign, say) lies on the other side of zero; the tick is at what arrived.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    account : Ledger
    sample : int, default 0
    most : int, default 24
        So many layers get a bar of their own: the first, the last, and those that absorb most. In larger networks
        one more bar, at the bottom, has what all the others absorbed.

    Returns
    -------
    dict of str to BarContainer
        By column of the ledger, "outgoing" and the causes; without those that are 0 everywhere. Bars from output to
        input, and the others.

    Raises
    ------
    ValueError
        If the ledger is empty or has no such sample.
    """
    if len(account) == 0:
        raise ValueError("the ledger is empty: the network has no layer in which relevance can get lost")
    if not 0 <= sample < account.data.shape[2]:
        raise ValueError(f"sample {sample} is not there: the ledger has {account.data.shape[2]}, counted from 0")
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    page: NDArray[np.float64] = account.data[::-1, :, sample]
    names, rules = account.names[::-1], account.rules[::-1]
    own = _largest(page, most)
    rest = np.setdiff1d(np.arange(len(page)), own)
    texts = [f"{names[i]}   {rules[i]}" for i in own]
    parts = page[own]
    if len(rest):
        others = page[rest].sum(axis=0)
        others[:2] = others[2:].sum(), 0  # what they pass to each other would be counted several times
        parts = np.vstack([parts, others])
        texts.append(f"the other {len(rest)} layers: absorbed")
    reach = float(np.abs(parts).max()) or 1.0
    y = np.arange(len(parts))
    drawn: dict[str, BarContainer] = {}
    ends = np.zeros((2, len(parts)))  # of the bars so far: below zero, above zero
    for i, column in enumerate(COLUMNS[1:], start=1):
        width = parts[:, i]
        if column != "outgoing" and not width.any():
            continue
        side = (width > 0).astype(int)
        passed_on = column == "outgoing"
        label, colour = ("handed on", _PASSED_ON) if passed_on else (cause(column).label, cause(column).colour)
        visible = passed_on or np.abs(width).max() > _SEEN * reach
        drawn[column] = ax.barh(y, width, left=ends[side, y], height=0.7, color=colour,
                                label=label if visible else "_nolegend_")  # fmt: skip
        ends[side, y] += width
    ax.scatter(parts[:, 0], y, marker="|", s=70, color=INK, linewidths=1.2, label="arrived", zorder=3)
    _finish(ax, parts, ends, texts)
    return drawn


def _largest(page: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """Return the ends and what absorbs most, in their order; all where only one would be left over."""
    if len(page) <= most + 1:
        return np.arange(len(page))
    absorbed = np.abs(page[:, 2:]).sum(axis=1)
    absorbed[[0, -1]] = np.inf
    return np.sort(np.argsort(-absorbed, kind="stable")[:most])


def _finish(ax: Axes, parts: NDArray[np.float64], ends: NDArray[np.float64], texts: list[str]) -> None:
    y: Any = np.arange(len(parts))
    low, high = min(ends[0].min(), parts[:, 0].min()), max(ends[1].max(), parts[:, 0].max(), 0.0)
    span = (high - low) or 1.0
    ax.set_xlim(low - (0.03 if low < 0 else 0.005) * span, high + 0.2 * span)
    for i, row in enumerate(parts):
        absorbed = row[2:].sum()
        if abs(absorbed) > 5e-4 * span:
            words = f"{'absorbs' if absorbed * row[0] > 0 else 'adds'} {number(abs(absorbed))}"
            ax.annotate(words, (max(ends[1, i], row[0]), i), (5, 0), textcoords="offset points", va="center",
                        fontsize=7.5, color=GREY)  # fmt: skip
    ax.set_yticks(y, texts)
    ax.invert_yaxis()
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.tick_params(labelsize=7.5, length=0)
    ax.tick_params(axis="x", length=2)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.legend(fontsize=7.5, frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, borderpad=0.2,
              columnspacing=1.2, handlelength=1.2)  # fmt: skip
