"""Titles and captions of a view: the class, the sums of relevance, the rules; every number is the explanation's."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from pylrp.plot.views import View
from pylrp.present.names import Labels, class_name, composite_name
from pylrp.present.numbers import number

__all__ = ["Text", "head", "rules", "sums", "title", "wrapped"]

_SHARE_SHOWN = 0.005  # of the relevance at the top: causes of less are left out


def title(view: View, labels: Labels) -> str:
    """Return "for cat", "for cat, not dog", with the layer before it."""
    if view.target is None:
        text = "for the target given"
    elif view.beginning == "the output":
        text = "for the output" if labels is None else f"for {class_name(_sole(view, labels), labels)}"
    elif view.beginning.startswith("the output of"):
        text = f"for {view.beginning.removeprefix('the output of ')}, channel {view.target}"
    else:
        text = f"for {class_name(view.target, labels)}"
        if view.against is not None:
            text += f", not {class_name(view.against, labels)}"
    return text if view.place is None else f"{view.place}: {text}"


def _sole(view: View, labels: Sequence[str] | Mapping[int, str]) -> int:
    """Return the label of a network's only output: of two labels the second, the class that an output above 0 means."""
    return 1 if view.outputs == 1 and len(labels) == 2 else view.target or 0


def sums(view: View) -> str:
    """Return the sum of the relevance, where it started, and the causes that absorbed most."""
    text = f"relevance sums to {number(view.total)} of {view.beginning} {number(view.started)}"
    if view.place is not None:  # other inputs, or layers below, have their share
        return text
    sign = -1 if view.started < 0 else 1  # of relevance below zero, a part below zero is taken
    parts = [
        f"{each.label} {'took' if sign * amount > 0 else 'added'} {number(amount if sign * amount > 0 else -amount)}"
        for each, amount in view.account.main_causes(_SHARE_SHOWN)
    ]
    return "; ".join([text, *parts[:3]])


def rules(view: View, rest: str = "") -> str:
    """Return which rules were used, before the rest of a line."""
    text = f"rules: {composite_name(view.composite)}"
    return f"{text}; {rest}" if rest else text


def head(name: str, inches: float, size: float) -> str:
    """Return the bold head of a column, broken after underscores and at blanks so that it fits into a width."""
    letters = max(8, int(inches * 72 / (0.68 * size)))
    lines = [""]
    for part in re.findall(r"[^\s_]*_|[^\s_]+\s?|\s", name):
        for start in range(0, len(part), letters):  # what is longer than a line is cut
            piece = part[start : start + letters]
            if len(lines[-1] + piece.rstrip()) > letters:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.strip() for line in lines)


def wrapped(lines: Sequence[str], inches: float, size: float = 7.5) -> str:
    """Return lines broken so that they fit into a width; letters are about half as wide as they are high."""
    letters = max(24, int(inches * 72 / (0.5 * size)))
    return "\n".join(part for line in lines if line for part in textwrap.wrap(line, letters))


class Text:
    """Titles and captions of panels, with the user's settings."""

    def __init__(self, labels: Labels, title: str | None, caption: bool):
        self._labels, self._title, self._caption = labels, title, caption

    def title(self, view: View) -> str:
        """Return the title of a panel, "" for none."""
        return title(view, self._labels) if self._title is None else self._title

    def caption(self, lines: Sequence[str], inches: float) -> str:
        """Return the caption of a panel so wide, "" for none."""
        return wrapped(lines, inches) if self._caption else ""
