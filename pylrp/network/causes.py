"""The causes of the ledger, in one table: what may absorb relevance, and how that is written and coloured.

``ledger.py`` makes its columns of it; plots, reports, terminals and the demo take their words and colours from here. A
new cause is a row here, at the place where the core counts it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CAUSES", "COLUMNS", "Cause", "cause"]


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


#: In the order of the core's columns. Colours of plots after Okabe & Ito 2008: told apart by colour-blind eyes.
CAUSES = (
    Cause(
        "bias",
        label="biases",
        legend="absorbed by biases",
        stayed="in the network's biases (fixed numbers it adds whatever it sees)",
        help="Share of the bias in the denominators.",
        colour="#e69f00",
        page_colours=("#d98200", "#f0a030"),
    ),
    Cause(
        "stabilizer",
        label="stabilizers",
        legend="absorbed by stabilizers",
        stayed="in the rules' stabilizers",
        help="Taken by epsilon.",
        colour="#56b4e9",
        page_colours=("#3aa0d8", "#3aa0d8"),
    ),
    Cause(
        "padding",
        label="padding",
        legend="fell on padding",
        stayed="on the padding around it",
        help="Fell on zero padding.",
        colour="#009e73",
        page_colours=("#009e73", "#009e73"),
    ),
    Cause(
        "dead",
        label="dead neurons",
        legend="dead neurons",
        stayed="in neurons with no input to hand it to",
        help="Of neurons with ``z = 0``: there is no receiver.",
        colour="#5b5b5b",
        page_colours=("#6b7280", "#98a2ae"),
    ),
    Cause(
        "batchnorm",
        label="BatchNorm shifts",
        legend="normalisation shifts",
        stayed="in the shifts of its normalisations",
        help="Share of an unfolded BatchNorm's shift.",
        colour="#cc79a7",
        page_colours=("#b9a800", "#d8c840"),
    ),
    Cause(
        "masked",
        label="masked channels",
        legend="masked channels",
        stayed="in the channels that were closed",
        help="Of channels that a mask closed.",
        colour="#0072b2",
        page_colours=("#c0609a", "#c0609a"),
    ),
    Cause(
        "rounding",
        label="rounding",
        legend="rounding",
        stayed="in rounding",
        help="What is left: the arithmetic's rounding.",
        colour="#d55e00",
        page_colours=("#222", "#eee"),
    ),
)

#: The ledger's columns, in the core's order: what arrives, what goes on, and the causes.
COLUMNS = ("incoming", "outgoing", *(each.name for each in CAUSES))

_BY_NAME = {each.name: each for each in CAUSES}


def cause(name: str) -> Cause:
    """Return the cause of this name."""
    return _BY_NAME[name]
