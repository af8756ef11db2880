"""The colours of relevance, for plots and reports: blue below zero, near white at zero, red above."""

from __future__ import annotations

__all__ = ["AGAINST", "BASELINE", "COLOURS", "FOR", "GREY", "INK", "REST"]

# Blue for negative, red for positive: told apart by red-green and blue-yellow colour-blind eyes. Lightness falls
# evenly from the middle to both ends, so that equal amounts look equally strong.
COLOURS = ("#072b5c", "#1d5ea6", "#5b9bd0", "#b4d3ea", "#f5f4f1", "#f8cfb5", "#eb8a60", "#c2362f", "#64091f")
#: Bars and curves: for the class, against it, neither. Text: plain, and aside.
FOR, AGAINST, REST = "#c2362f", "#1d5ea6", "#b9b9b4"
INK, GREY = "#1c2733", "#66707a"
#: Curves that others are compared with, and headings that stand back.
BASELINE = "#6b7580"
