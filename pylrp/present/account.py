"""What the ledger and the output of an explained sample come to; tables and writers read it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.network.explanation import Explanation
from pylrp.network.ledger import COLUMNS, Ledger

__all__ = ["absorbed", "ledgers", "reached", "scores", "targets"]

Array = NDArray[Any]


def ledgers(ex: Explanation) -> list[Ledger]:
    """Return one ledger a target."""
    return ex.ledger if isinstance(ex.ledger, list) else [ex.ledger]


def targets(ex: Explanation) -> list[int]:
    """Return the explained classes of one sample."""
    return [] if ex.target is None else [int(t) for t in ex.target.ravel()]


def scores(ex: Explanation, top: str) -> Array:
    """Return one number a class of one sample, float64; of an output with positions the sum over them.

    Of a logit that decides between two classes minus the logit and the logit: where their relevance starts.
    """
    output = np.asarray(ex.output[top] if isinstance(ex.output, dict) else ex.output, np.float64)
    found = output.reshape(len(output), -1).sum(axis=1) if output.ndim else output.reshape(1)
    return np.array([-found[0], found[0]]) if ex.settings.get("two_classes") else found


def reached(ex: Explanation) -> list[float]:
    """Return the relevance that reaches the input, all inputs together, one a target."""
    maps = ex.relevance.values() if isinstance(ex.relevance, dict) else [ex.relevance]
    count = len(ledgers(ex))
    return [float(v) for v in sum(np.asarray(m, np.float64).reshape(count, -1).sum(axis=1) for m in maps)]


def absorbed(ledger: Ledger) -> dict[str, float]:
    """Return what took relevance in any layer, and how much, the largest first."""
    totals = dict(zip(COLUMNS[2:], ledger.data[:, 2:, 0].sum(axis=0), strict=True))
    return {name: float(v) for name, v in sorted(totals.items(), key=lambda each: -abs(each[1])) if v}
