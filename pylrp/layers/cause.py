"""What the ledger knows of a cause that absorbs relevance: its name in the core, its words and its colours.

A layer that absorbs relevance in a way of its own states the cause (`Layer.causes`); ``network/causes.py`` collects
them beside those that layers share.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cause"]


@dataclass(frozen=True)
class Cause:
    """Something that absorbs relevance on its way, or adds some.

    Attributes
    ----------
    name : str
        The core's name of it: the column of the ledger and the attribute of a row.
    label : str
        In captions and legends of plots.
    legend : str
        In the legend of a report's Sankey diagram.
    stayed : str
        Completes "0.4 of the score stayed ..." for readers who do not know the method.
    help : str
        What the column holds.
    colour : str
        In plots.
    page_colours : tuple of str
        In reports, on a light and on a dark page.
    """

    name: str
    label: str
    legend: str
    stayed: str
    help: str
    colour: str
    page_colours: tuple[str, str]
