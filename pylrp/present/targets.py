"""A selection of the targets of an explanation, as if these alone had been explained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.network.classes import as_indices
from pylrp.network.explanation import Explanation

__all__ = ["one_target", "some_targets"]

Array = NDArray[Any]


def one_target(ex: Explanation, position: int) -> Explanation:
    """Return the explanation of one of several classes, without the axis of targets.

    Parameters
    ----------
    ex : Explanation
        Made with ``targets=``.
    position : int
        Of the class among the targets.
    """
    return _taken(ex, position, ex.ledger[position])


def some_targets(ex: Explanation, positions: Sequence[int]) -> Explanation:
    """Return the explanation of some of several classes, in the order of their positions among the targets."""
    return _taken(ex, list(positions), [ex.ledger[position] for position in positions])


def _taken(ex: Explanation, which: int | list[int], ledger: Any) -> Explanation:
    axis = 0 if ex.settings["single"] else 1

    def take(array: Array) -> Array:
        return np.take(array, which, axis=axis)

    targets = None if isinstance(which, int) else [ex.settings["targets"][position] for position in which]
    relevance = ex.relevance
    target = np.take(np.asarray(ex.target), which, axis=-1)  # (samples, targets)
    return dataclasses.replace(
        ex,
        relevance={name: take(R) for name, R in relevance.items()} if isinstance(relevance, dict) else take(relevance),
        target=np.asarray(target) if type(ex.target) is np.ndarray else as_indices(target),
        layers=ex.layers.part({name: take(R) for name, R in ex.layers.kept.items()}, take),
        ledger=ledger,
        settings={**ex.settings, "targets": targets},
    )
