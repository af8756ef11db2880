"""The causes of the ledger: what may absorb relevance, and how that is written and coloured.

``ledger.py`` makes its columns of it; plots, reports, terminals and the demo take their words and colours from here.
The core has the list of names (``csrc/kernels/table.hpp``); a layer with a cause of its own states the rest.
"""

from __future__ import annotations

from pylrp import _core, layers
from pylrp.layers.cause import Cause

__all__ = ["CAUSES", "COLUMNS", "Cause", "cause"]

#: Those that layers share. Colours of plots after Okabe & Ito 2008: told apart by colour-blind eyes.
_SHARED = (
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


def _stated() -> dict[str, Cause]:
    """Return the causes that classes of layers state, by name."""
    found, waiting = {}, [layers.Layer]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found.update({each.name: each for each in kind.causes})
    return found


#: The ledger's columns: what arrives, what goes on, and the causes. The core says which there are, and their order.
COLUMNS: tuple[str, ...] = _core.LEDGER_COLUMNS

_BY_NAME = {**{each.name: each for each in _SHARED}, **_stated()}

if unknown := [column for column in COLUMNS[2:] if column not in _BY_NAME]:
    raise ImportError(f"the core's ledger has columns that no layer and no row here states: {', '.join(unknown)}")

#: In the order of the columns.
CAUSES = tuple(_BY_NAME[column] for column in COLUMNS[2:])


def cause(name: str) -> Cause:
    """Return the cause of this name."""
    return _BY_NAME[name]
