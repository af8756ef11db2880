"""Tokens as people read them: subwords joined to words, special tokens known, sentences told apart.

Pictures, reports, notebooks and the terminal take their words from here; tokens are those of the tokenizer, as text.
"""

from __future__ import annotations

import html as escaping
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pylrp.present.colours import COLOURS, GREY, INK
from pylrp.present.numbers import number
from pylrp.present.text import shown

__all__ = ["Word", "colour", "html_of", "joined", "largest", "segments_of", "terminal_of"]

_SPECIAL = re.compile(r"\[[A-Z]+\d*\]|<[^<>\s]+>|<\|[^|]*\|>|\{[A-Z]+\}")
_IN_PLACE = re.compile(
    r"\[UNK\]|\[MASK\]|<unk>|<mask>", re.IGNORECASE
)  # words of the text: unknown ones, and gaps in it
_PADDING = re.compile(r"\[PAD\]|<pad>|<\|pad\|>", re.IGNORECASE)
_SEPARATORS = ("[SEP]", "</s>", "<sep>", "<|sep|>")
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # of letters that SentencePiece has no token for
_BLANKS = "ĠĊĉč"  # the space, the line's ends and the tab, as GPT-2's tokenizer writes them
_DARK = 0.55  # from this share of the limit on letters are white


@dataclass(frozen=True)
class Word:
    """A word, or a special token.

    Attributes
    ----------
    text : str
    relevance : float
        The sum over its tokens.
    special : bool
        Whether it is one that the tokenizer has added: [CLS], </s>.
    segment : int
        Which of the sentences it belongs to.
    first, last : int
        Its tokens.
    """

    text: str
    relevance: float
    special: bool
    segment: int
    first: int
    last: int


def joined(tokens: Sequence[str], relevance: ArrayLike, *, segments: ArrayLike | None = None) -> list[Word]:
    """Return words of tokens: pieces are joined, padding is left out.

    Parameters
    ----------
    tokens : sequence of str
        As the tokenizer calls them: WordPiece (``##ing``), SentencePiece (``▁the``), bytes (``Ġthe``), or plain words.
    relevance : array_like of shape (tokens,)
    segments : array_like of int, shape (tokens,), optional
        Which sentence each belongs to, as token_type_ids; default: a separator ends a sentence.

    Raises
    ------
    ValueError
        If there are not as many tokens as numbers.
    """
    tokens = [str(token) for token in tokens]
    values = np.asarray(relevance, np.float64)
    if values.shape != (len(tokens),):
        raise ValueError(f"there are {len(tokens)} tokens and relevance of shape {values.shape}: one number a token")
    numbered = segments_of(tokens) if segments is None else np.asarray(segments)
    if len(numbered) != len(tokens):
        raise ValueError(f"there are {len(tokens)} tokens and {len(numbered)} segments")
    marks = tuple(mark for mark in ("▁", "Ġ") if any(token.startswith(mark) for token in tokens))
    words: list[Word] = []
    pieces: list[str] = []  # of the last word
    apart = True  # whether the next token begins a word whatever it is: behind a special one, or a line's end
    for i, (token, value) in enumerate(zip(tokens, values.tolist(), strict=True)):
        special = _is_special(token)
        if special and _PADDING.fullmatch(token) and value == 0:
            continue
        blank = "Ġ" in marks and not token.strip(_BLANKS)
        if apart or special or blank or words[-1].segment != numbered[i] or _begins(token, marks):
            pieces = [token]
            words.append(Word("", value, special, int(numbered[i]), i, i))
        else:
            pieces.append(token)
            words[-1] = replace(words[-1], relevance=words[-1].relevance + value, last=i)
        words[-1] = replace(words[-1], text=shown(token if special else _text(pieces, marks)) or "·")
        apart = special or blank
    return words


def _is_special(token: str) -> bool:
    return _SPECIAL.fullmatch(token) is not None and not (_BYTE.fullmatch(token) or _IN_PLACE.fullmatch(token))


def _begins(token: str, marks: tuple[str, ...]) -> bool:
    """Tell whether a token begins a word."""
    if token.startswith("##") and len(token) > 2:
        return False
    if token.lower() in ("<mask>", "[mask]"):
        return True
    return token.startswith(marks) if marks else _BYTE.fullmatch(token) is None


def _text(pieces: Sequence[str], marks: tuple[str, ...]) -> str:
    """Return the text of a word's tokens: without their marks, bytes as the letters that they make together."""
    if "Ġ" in marks:
        return _decoded("".join(pieces)).strip(" ")
    plain = [piece[2:] if piece.startswith("##") and len(piece) > 2 else piece for piece in pieces]
    plain = [piece.lstrip("▁") if "▁" in marks else piece for piece in plain]
    if not any(_BYTE.fullmatch(piece) for piece in plain):
        return "".join(plain)
    parts = (bytes([int(p[3:5], 16)]) if _BYTE.fullmatch(p) else p.encode() for p in plain)
    return b"".join(parts).decode("utf-8", "replace")


def _decoded(text: str) -> str:
    """Return the text of bytes that GPT-2's tokenizer writes as letters."""
    known = _bytes()
    try:
        return bytes(known[letter] for letter in text).decode("utf-8", "replace")
    except KeyError:  # a token that was added as it is
        return text.replace("Ġ", " ")


@lru_cache(maxsize=1)
def _bytes() -> dict[str, int]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


def segments_of(tokens: Sequence[str]) -> Any:
    """Return which sentence each token belongs to: a separator ends one, where words follow."""
    found, current = [], 0
    last = max((i for i, token in enumerate(tokens) if not _is_special(token)), default=-1)
    for i, token in enumerate(tokens):
        found.append(current)
        twice = i + 1 < len(tokens) and tokens[i + 1] in _SEPARATORS  # RoBERTa writes two
        if token in _SEPARATORS and i < last and not twice:
            current += 1
    return np.array(found)


def largest(words: Sequence[Word]) -> float:
    """Return the relevance that gets the full colour: the largest of words, special tokens not counted."""
    plain = [abs(word.relevance) for word in words if not word.special]
    return max(plain, default=0.0) or max((abs(word.relevance) for word in words), default=0.0) or 1.0


def colour(value: float, limit: float) -> tuple[str, str]:
    """Return the colours of a word's ground and of its letters."""
    share = float(np.clip(value / limit, -1, 1))
    place = (share + 1) / 2 * (len(COLOURS) - 1)
    low = min(int(place), len(COLOURS) - 2)
    one, other = (np.array([int(each[i : i + 2], 16) for i in (1, 3, 5)]) for each in COLOURS[low : low + 2])
    mixed = np.rint(one + (place - low) * (other - one)).astype(int)
    return "#" + "".join(f"{part:02x}" for part in mixed), "#ffffff" if abs(share) >= _DARK else INK


def html_of(words: Sequence[Word], limit: float | None = None) -> str:
    """Return words as HTML: sentences side by side, special tokens set apart, each with its number as a title."""
    limit = largest(words) if limit is None else limit
    columns = []
    for segment in dict.fromkeys(word.segment for word in words):
        own = [word for word in words if word.segment == segment]
        text = " ".join(_span(word, limit) for word in own if not word.special)
        apart = " ".join(_span(word, limit) for word in own if word.special)
        rest = f'<div style="margin-top:.4em;font-size:80%;color:{GREY}">{apart}</div>' if apart else ""
        columns.append(f'<div style="flex:1 1 16em;min-width:0;overflow-wrap:anywhere">{text}{rest}</div>')
    return f'<div style="display:flex;flex-wrap:wrap;gap:1.5em;line-height:1.9">{"".join(columns)}</div>'


def _span(word: Word, limit: float) -> str:
    ground, ink = colour(word.relevance, limit)
    text = escaping.escape(word.text)
    return (
        f'<span title="{escaping.escape(number(word.relevance))}" style="background:{ground};color:{ink};'
        f'padding:.1em .25em;border-radius:.2em">{text}</span>'
    )


def terminal_of(words: Sequence[Word], limit: float | None = None) -> Any:
    """Return words for the terminal, a ``rich.text.Text``.

    Raises
    ------
    ImportError
        If rich is not installed.
    """
    try:
        from rich.text import Text
    except ImportError as error:
        raise ImportError("coloured text in the terminal needs rich: pip install rich") from error
    limit = largest(words) if limit is None else limit
    text = Text()
    for i, word in enumerate(words):
        if i and word.segment != words[i - 1].segment:
            text.append("\n")
        ground, ink = colour(word.relevance, limit)
        text.append(word.text, f"dim {GREY}" if word.special else f"{ink} on {ground}")
        text.append(" ")
    return text
