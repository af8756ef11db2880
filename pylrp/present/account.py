"""Where the score of an explained sample went: the numbers that tables, captions and reports put into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.network.causes import CAUSES, COLUMNS, Cause, cause
from pylrp.network.explanation import Explanation
from pylrp.network.ledger import Ledger

__all__ = ["Account", "absorbed", "class_scores", "ledgers", "reached", "scores", "targets"]

Array = NDArray[Any]
_FIRST = len(COLUMNS) - len(CAUSES)  # of the causes among the ledger's columns


@dataclass(frozen=True)
class Account:
    """A score and what became of it: ``score = reached + sum of causes``.

    Attributes
    ----------
    score : float
        The relevance at the top.
    reached : float
        What of it reached the input.
    causes : mapping of str to float
        What each cause absorbed in all layers together, by its name; below zero what it added.
    """

    score: float
    reached: float
    causes: Mapping[str, float]

    def main_causes(self, share: float) -> list[tuple[Cause, float]]:
        """Return the causes that absorbed or added more than ``share`` of the score, the largest first.

        The share is that of the score or of what reached the input, whichever is larger.
        """
        least = share * max(abs(self.score), abs(self.reached), 1e-30)
        ranked = sorted(self.causes.items(), key=lambda item: -abs(item[1]))
        return [(cause(name), amount) for name, amount in ranked if abs(amount) > least]


def absorbed(ledger: Ledger, sample: int = 0) -> dict[str, float]:
    """Return what each cause absorbed in all layers together, of one sample, by the cause's name."""
    page = ledger.data[:, :, sample]
    return {each.name: float(page[:, i].sum()) for i, each in enumerate(CAUSES, start=_FIRST)}


def ledgers(ex: Explanation) -> list[Ledger]:
    """Return one ledger a target."""
    return ex.ledger if isinstance(ex.ledger, list) else [ex.ledger]


def targets(ex: Explanation) -> list[int]:
    """Return the explained classes of one sample."""
    return [] if ex.target is None else [int(t) for t in ex.target.ravel()]


def class_scores(output: Array, *, two_classes: bool) -> Array:
    """Return one number a class, float64: where the relevance of each class starts.

    Parameters
    ----------
    output : ndarray of shape (classes, ...) or ()
        Of one sample; of an output with positions the sum over them is taken.
    two_classes : bool
        Whether the output is one logit that decides between two classes, which then have minus the logit and the logit.
    """
    values = np.asarray(output, np.float64)
    found = values.reshape(len(values) if values.ndim else 1, -1).sum(axis=1)
    return np.array([-found[0], found[0]]) if two_classes else found


def scores(ex: Explanation, top: str) -> Array:
    """Return one number a class of an explanation of one sample; ``top`` is the value where relevance starts."""
    output = ex.output[top] if isinstance(ex.output, dict) else ex.output
    return class_scores(output, two_classes=bool(ex.settings.get("two_classes")))


def reached(ex: Explanation) -> list[float]:
    """Return the relevance that reaches the input, all inputs together, one a target, of one sample."""
    maps = ex.relevance.values() if isinstance(ex.relevance, dict) else [ex.relevance]
    count = len(ledgers(ex))
    return [float(v) for v in sum(np.asarray(m, np.float64).reshape(count, -1).sum(axis=1) for m in maps)]
