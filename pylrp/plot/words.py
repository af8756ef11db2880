"""Words coloured by relevance, relevance by head and layer, patches of an image, positions: what transformers have.

Axes in, Axes out, like the other kinds of pictures; ``explanations.py`` calls in. ``present/words.py`` joins subwords.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pylrp.plot.colours import chosen_map, colour_bar, finite
from pylrp.present.colours import AGAINST, FOR, GREY
from pylrp.present.numbers import number
from pylrp.present.words import Word, colour, joined, largest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

__all__ = ["by_head", "heads", "lines_of", "patches", "positions", "text"]

_SIZE, _LETTER, _LINE = 10.0, 0.602, 1.9  # points; of DejaVu Sans Mono, width over size; line height over size
_EAST_ASIAN = 1.0 / _LETTER
_GAP = 24.0  # between sentences, points
_APART = 7.5  # the size of special tokens


def text(
    ax: Axes,
    R: ArrayLike,
    tokens: Sequence[str],
    *,
    segments: ArrayLike | None = None,
    limit: float | None = None,
    width: float = 600,
) -> Axes:
    """Draw words on a ground of their relevance; sentences side by side, special tokens below in small letters.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    R : array_like of shape (tokens,)
    tokens : sequence of str
        As the tokenizer calls them; subwords are joined, padding is left out.
    segments : array_like of int, shape (tokens,), optional
        Which sentence each token belongs to. Default: a separator ends one.
    limit : float, optional
        Full colour at ``+limit`` and ``-limit``; default: the largest relevance of a word that is no special token.
    width : float, default 600
        Of the text in points; it is scaled to the axes.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If there are not as many tokens as numbers.
    """
    words = joined(tokens, finite(R), segments=segments)
    limit = largest(words) if limit is None else limit
    placed, height = _placed(words, width)
    for word, x, y in placed:
        ground, ink = colour(word.relevance, limit)
        ax.text(
            x, -y, word.text.replace("$", r"\$"), va="center", ha="left", family="monospace", color=ink,
            fontsize=_APART if word.special else _SIZE, style="italic" if word.special else "normal",
            bbox={"facecolor": ground, "edgecolor": "none", "boxstyle": "round,pad=0.22"},
        )  # fmt: skip
    ax.set_xlim(0, width)
    ax.set_ylim(-height, 0)
    ax.set_axis_off()
    return ax


def lines_of(words: Sequence[Word], width: float) -> float:
    """Return how high words are in a column so wide, in points."""
    return _placed(words, width)[1]


def _placed(words: Sequence[Word], width: float) -> tuple[list[tuple[Word, float, float]], float]:
    """Return the left and the middle of each word, in points from the upper left, and the height."""
    segments = list(dict.fromkeys(word.segment for word in words))
    column = (width - _GAP * (len(segments) - 1)) / max(1, len(segments))
    placed, height = [], _LINE * _SIZE
    for k, segment in enumerate(segments):
        left, y = k * (column + _GAP), 0.5 * _LINE * _SIZE
        for special, size in ((False, _SIZE), (True, _APART)):
            own = [piece for word in words if word.segment == segment and word.special == special
                   for piece in _pieces(word, column, size)]  # fmt: skip
            x = 0.0
            for word in own:
                wide = _letters(word.text) * _LETTER * size
                if x and x + wide > column:
                    x, y = 0.0, y + _LINE * size
                placed.append((word, left + x + 3, y))
                x += wide + 1.1 * _LETTER * size + 4
            if own:
                height = max(height, y + _LINE * size)
                y += _LINE * _SIZE
    return placed, height


def _letters(text: str) -> float:
    """Return how many letters of the font are as wide as a text: those of East Asia are wider."""
    return sum(_EAST_ASIAN if unicodedata.east_asian_width(letter) in "WF" else 1.0 for letter in text)


def _pieces(word: Word, column: float, size: float) -> list[Word]:
    """Return a word, cut where it is longer than a line."""
    found, begin, length = [], 0, 0.0
    for end, letter in enumerate(word.text):
        length += _letters(letter) * _LETTER * size
        if end > begin and length > column - _LETTER * size:
            found.append(replace(word, text=word.text[begin:end]))
            begin, length = end, _letters(letter) * _LETTER * size
    return [*found, replace(word, text=word.text[begin:])]


def by_head(layers: Mapping[str, ArrayLike]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return relevance by layer and head, (layers, heads): the sum over all that a head has.

    Parameters
    ----------
    layers : mapping of str to array_like of shape (heads, tokens, ...)
        What the heads of each layer put out, of one sample.

    Raises
    ------
    ValueError
        If layers have other numbers of heads, or none.
    """
    arrays = {name: finite(R, name) for name, R in layers.items()}
    counts = {array.shape[0] if array.ndim == 3 else None for array in arrays.values()}
    if len(counts) != 1 or None in counts:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(
            f"relevance by head is (heads, tokens, ...), as many heads in each layer; here {shapes or 'none'}"
        )
    return np.stack([array.sum(axis=(1, 2)) for array in arrays.values()])


def heads(
    ax: Axes, layers: Mapping[str, ArrayLike], *, limit: float | None = None, cmap: str | Colormap | None = None
) -> Axes:
    """Draw relevance by head and layer as a grid, the first layer below.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    layers : mapping of str to array_like of shape (heads, tokens, ...)
        What the heads of each layer put out, from the input up:
        ``{name: ex.layers[name][0] for name in net.heads}``.
    limit : float, optional
        Full colour at ``+limit`` and ``-limit``; default: the largest.
    cmap : str or matplotlib.colors.Colormap, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    values = by_head(layers)
    end = float(np.abs(values).max() or 1.0) if limit is None else limit
    drawn = ax.imshow(values, cmap=chosen_map(cmap), vmin=-end, vmax=end, origin="lower", aspect="equal")
    ax.set_xlabel("head", fontsize=8)
    ax.set_ylabel("layer", fontsize=8)
    ax.set_xticks(range(values.shape[1]))
    ax.set_yticks(range(values.shape[0]))
    ax.tick_params(labelsize=7, length=2, colors=GREY)
    colour_bar(ax, drawn)
    return ax


def patches(R: ArrayLike, shape: tuple[int, int] | None = None) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return relevance of a vision transformer's tokens as an image, a pixel a patch.

    Parameters
    ----------
    R : array_like of shape (tokens,) or (tokens, width)
        Of one sample; tokens before the patches, a class token for example, are left out.
    shape : (int, int), optional
        Patches along height and width. Default: the largest square that fits.

    Returns
    -------
    ndarray of shape (height, width), float64

    Raises
    ------
    ValueError
        If there are fewer tokens than patches.
    """
    values = finite(R)
    values = values if values.ndim == 1 else values.reshape(len(values), -1).sum(axis=1)
    side = int(np.sqrt(len(values)))
    height, width = (side, side) if shape is None else shape
    if height * width > len(values) or height * width == 0:
        raise ValueError(f"{height} x {width} patches need as many tokens, there are {len(values)}")
    return values[len(values) - height * width :].reshape(height, width)


def positions(ax: Axes, R: ArrayLike, tokens: Sequence[str] | None = None) -> Axes:
    """Draw what positions took, token by token, as bars.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    R : array_like of shape (tokens,)
        ``ex.positions`` of one sample.
    tokens : sequence of str, optional
        Below the bars.

    Returns
    -------
    matplotlib.axes.Axes
    """
    values = finite(R)
    if values.ndim != 1:
        raise ValueError(f"positions of one sample have one axis, these have shape {values.shape}: ex.positions[0]")
    if tokens is not None and len(tokens) != len(values):
        raise ValueError(f"there are {len(tokens)} tokens and {len(values)} positions")
    ax.bar(range(len(values)), values, color=[FOR if value > 0 else AGAINST for value in values], width=0.8)
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set_ylabel("taken by positions", fontsize=8)
    if tokens is not None:
        ax.set_xticks(range(len(values)), labels=[token.replace("$", r"\$") for token in tokens], rotation=90)
    ax.tick_params(labelsize=7, length=2, colors=GREY)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.set_xlabel(f"they sum to {number(float(values.sum()))}", fontsize=8)
    return ax
