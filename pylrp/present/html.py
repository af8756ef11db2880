"""Tables for notebooks: what the ``_repr_html_`` of networks, summaries, ledgers and evaluations are made of.

Text is escaped, and nothing in it is taken for a formula.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["Summary", "html", "lines", "table"]


def table(rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Return rows of cells, the first of them the head, as an HTML table.

    Parameters
    ----------
    rows : iterable of sequence of str
        All of one length.
    words : int, default 1
        So many columns hold words, which stand at the left; numbers stand at the right.
    """
    head, *body = ["".join(_cells(row, words, tag)) for row, tag in _tagged(rows)]
    filled = "".join(f"<tr>{row}</tr>" for row in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{filled}</tbody></table>"


def lines(texts: Iterable[str]) -> str:
    """Return lines of text, one below the other."""
    return "".join(f"<div>{escape(text)}</div>" for text in texts)


def html(*parts: str) -> str:
    """Return parts that are HTML as one that a notebook shows; dollars in names begin no formula."""
    return f'<div class="tex2jax_ignore mathjax_ignore" style="font-size:90%">{"".join(parts)}</div>'


class Summary(str):
    """A table as text, which notebooks show as a table."""

    _html: str

    def __new__(cls, text: str, shown: str = "") -> Summary:
        """Return the text, with the HTML that shows it."""
        self = super().__new__(cls, text)
        self._html = shown
        return self

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return self._html


def _tagged(rows: Iterable[Sequence[str]]) -> Iterable[tuple[Sequence[str], str]]:
    return ((row, "td" if number else "th") for number, row in enumerate(rows))


def _cells(row: Sequence[str], words: int, tag: str) -> Iterable[str]:
    for at, text in enumerate(row):
        side = "left" if at < words else "right"
        yield f'<{tag} style="text-align:{side}">{escape(text.strip())}</{tag}>'
