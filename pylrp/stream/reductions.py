"""What is computed of a stream on the way: mean maps, features, ledgers. ``curves.py`` has curves of an evaluation.

A reduction sees each explained block once, in order; its state is arrays, which the journal keeps with the block, so
that a run that was killed and went on has the same bits as one that was not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pylrp.network.explanation import Explanation
from pylrp.network.ledger import Ledger
from pylrp.network.network import Network

__all__ = ["ClassMeans", "LedgerSum", "Reduction", "TopFeatures"]

Array = NDArray[Any]


class Reduction(Protocol):
    """Computed of explanations, a block at a time.

    Attributes
    ----------
    name : str
        By which results are found; one of a kind.
    """

    name: str

    def add(self, ex: Explanation, network: Network) -> None:
        """Take the explanation of a block; several targets of a sample count as several samples."""

    def state(self) -> dict[str, Array]:
        """Return arrays that :meth:`restore` takes."""

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on from a state; from an empty one begin anew."""

    def result(self) -> Any:
        """Return what was found so far."""


def maps_of(ex: Explanation) -> Array:
    """Return the relevance of the one input, (samples * targets, ...).

    Raises
    ------
    ValueError
        If there are several inputs.
    """
    if isinstance(ex.relevance, dict):
        raise ValueError(f"the network has several inputs, {', '.join(ex.relevance)}: reductions take one")
    relevance: Array = ex.relevance
    return relevance.reshape(-1, *relevance.shape[2:]) if isinstance(ex.ledger, list) else relevance


class ClassMeans:
    """The mean relevance of the samples of each class, in float64.

    Parameters
    ----------
    classes : sequence of int, optional
        Those that are kept, a map each in memory; default all that occur as target.
    """

    name = "class_means"

    def __init__(self, classes: Sequence[int] | None = None):
        self._wanted = None if classes is None else {int(index) for index in classes}
        self._sums: dict[int, Array] = {}
        self._counts: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"ClassMeans({'' if self._wanted is None else sorted(self._wanted)})"

    def add(self, ex: Explanation, network: Network) -> None:
        """Add maps to the sums of their classes."""
        if ex.target is None:
            raise ValueError("relevance at the top was given as an array: there is no class to take the mean of")
        maps, targets = maps_of(ex), np.ravel(ex.target)
        for index in sorted(set(targets.tolist())):
            if self._wanted is not None and index not in self._wanted:
                continue
            chosen = maps[targets == index]
            total = chosen.sum(axis=0, dtype=np.float64)
            self._sums[index] = self._sums[index] + total if index in self._sums else total
            self._counts[index] = self._counts.get(index, 0) + len(chosen)

    def state(self) -> dict[str, Array]:
        """Return classes, counts and sums."""
        order = sorted(self._sums)
        sums = np.stack([self._sums[i] for i in order]) if order else np.empty((0,))
        return {
            "classes": np.array(order, np.int64),
            "counts": np.array([self._counts[i] for i in order]),
            "sums": sums,
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take what :meth:`state` has returned."""
        order = state["classes"].tolist() if state else []
        self._sums = {index: state["sums"][i].copy() for i, index in enumerate(order)}
        self._counts = {index: int(state["counts"][i]) for i, index in enumerate(order)}

    def result(self) -> dict[int, Array]:
        """Return the mean map by class, float64."""
        return {index: self._sums[index] / self._counts[index] for index in sorted(self._sums)}

    @property
    def counts(self) -> dict[int, int]:
        """Return how many maps there were of each class."""
        return dict(sorted(self._counts.items()))


class TopFeatures:
    """The features that are most relevant on the whole.

    Parameters
    ----------
    k : int, default 10
        How many; also how many of each sample are counted as its most relevant ones, by absolute value.
    """

    name = "top_features"

    def __init__(self, k: int = 10):
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self._k = k
        self._names: tuple[str, ...] = ()
        self._sums, self._count = np.empty((0,)), 0

    def __repr__(self) -> str:
        return f"TopFeatures({self._k})"

    def add(self, ex: Explanation, network: Network) -> None:
        """Add up relevance, absolute relevance, and how often a feature is among a sample's first."""
        maps = maps_of(ex)
        rows = maps.reshape(len(maps), -1)
        if isinstance(ex.features, tuple):
            self._names = ex.features
        sizes = np.abs(rows)
        first = np.argsort(-sizes, axis=1, kind="stable")[:, : self._k] if len(rows) else np.empty((0, 0), np.int64)
        found = (
            rows.sum(axis=0, dtype=np.float64),
            sizes.sum(axis=0, dtype=np.float64),
            np.bincount(first.ravel(), minlength=rows.shape[1]).astype(np.float64),
        )
        self._sums = np.stack(found) if self._sums.size == 0 else self._sums + np.stack(found)
        self._count += len(rows)

    def state(self) -> dict[str, Array]:
        """Return sums, the number of samples and names."""
        return {"sums": self._sums, "count": np.array(self._count), "names": np.array(self._names, dtype=str)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take what :meth:`state` has returned."""
        self._sums = np.array(state["sums"]) if state else np.empty((0,))
        self._count = int(state["count"]) if state else 0
        self._names = tuple(map(str, state["names"])) if state else ()

    def result(self) -> list[dict[str, Any]]:
        """Return the features of largest mean absolute relevance, each a dict.

        ``feature`` (its name, else its index in the flattened sample), ``mean``, ``mean_absolute``, ``share``: of the
        samples among whose k most relevant features it is.
        """
        if self._sums.size == 0:
            return []
        mean, absolute, often = self._sums / self._count
        order = np.argsort(-absolute, kind="stable")[: self._k].tolist()
        return [
            {
                "feature": self._names[i] if self._names else i,
                "mean": float(mean[i]),
                "mean_absolute": float(absolute[i]),
                "share": float(often[i]),
            }
            for i in order
        ]


class LedgerSum:
    """The ledgers of all samples, added up."""

    name = "ledger"

    def __init__(self) -> None:
        self._sum: Array | None = None
        self._names: tuple[str, ...] = ()
        self._rules: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "LedgerSum()"

    def add(self, ex: Explanation, network: Network) -> None:
        """Add the ledgers of a block, those of all its targets."""
        for ledger in ex.ledger if isinstance(ex.ledger, list) else [ex.ledger]:
            total = ledger.data.sum(axis=2)
            self._sum = total if self._sum is None else self._sum + total
            self._names, self._rules = ledger.names, ledger.rules

    def state(self) -> dict[str, Array]:
        """Return the sum, names and rules."""
        if self._sum is None:
            return {}
        return {"sum": self._sum, "names": np.array(self._names), "rules": np.array(self._rules)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take what :meth:`state` has returned."""
        self._sum = np.array(state["sum"]) if state else None
        self._names, self._rules = (tuple(map(str, state[key])) if state else () for key in ("names", "rules"))

    def result(self) -> Ledger | None:
        """Return a ledger whose one column of samples is the sum of all; None before the first block."""
        return None if self._sum is None else Ledger(self._sum[:, :, None], self._names, self._rules)
