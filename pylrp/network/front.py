"""What stands before a network of a table: columns of numbers, gaps and words become features, by fitted steps.

Imputers and encoders are no layers: what they compute of gaps and words is done in NumPy for every call, before the
core. Each feature belongs to one column, to which its relevance is summed. ``sklearn/front.py`` of the loaders makes
it, ``requests.py`` runs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import NotFinite
from pylrp.network.gaps import numbers, one_gap

__all__ = ["Front", "Part"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Part:
    """Some columns and the fitted steps that they go through, one after the other.

    Attributes
    ----------
    places : ndarray of int
        The columns.
    steps : tuple
        Each with ``transform``.
    words : bool
        Whether the first step takes words; else gaps of any kind become NaN before it.
    origins : ndarray of int
        For each feature that comes out, the column that it belongs to.
    labels : tuple of str
        For each feature what is added to its column's name: ``"=red"``, or nothing.
    gap : float or None
        What a gap among words was when the first step was fitted: NaN or None.
    """

    places: NDArray[np.intp]
    steps: tuple[Any, ...]
    words: bool
    origins: NDArray[np.intp]
    labels: tuple[str, ...]
    gap: float | None = np.nan

    def encode(self, table: Array) -> Array:
        """Return (rows, features) of (rows, columns)."""
        block = table[:, self.places]
        block = one_gap(block, self.gap) if self.words else numbers(block)
        for step in self.steps:
            with warnings.catch_warnings():  # that names are missing: columns were put in order by them
                warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
                block = step.transform(block)
            block = block.toarray() if hasattr(block, "toarray") else np.asarray(block)
        return block if block.dtype.kind == "f" else block.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Front:
    """Columns to features.

    Attributes
    ----------
    columns : int
        How many there are.
    parts : tuple of Part
        Their features stand one after the other.
    expanded : bool
        Whether relevance is that of features, not of columns, where a call does not say.
    """

    columns: int
    parts: tuple[Part, ...]
    expanded: bool = False

    @property
    def origins(self) -> NDArray[np.intp]:
        """Return for each feature its column."""
        return np.concatenate([part.origins for part in self.parts])

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the features' names, of the columns'."""
        labels = [label for part in self.parts for label in part.labels]
        return tuple(f"{columns[i]}{label}" for i, label in zip(self.origins.tolist(), labels, strict=True))

    def encode(self, table: Array, names: Sequence[str] | None, what: str, dtype: np.dtype[Any]) -> Array:
        """Return the features of a table, (rows, features).

        Raises
        ------
        NotFinite
            If a feature is NaN or infinite: there is a gap in a column that no imputer fills.
        ValueError
            If a step does not take what a column holds.
        """
        made = np.concatenate([part.encode(table) for part in self.parts], axis=1)
        with np.errstate(over="ignore"):  # looked for below
            made = np.ascontiguousarray(made, dtype)
        wrong = np.argwhere(~np.isfinite(made))
        if len(wrong):
            row, feature = (int(place) for place in wrong[0])
            column = int(self.origins[feature])
            place = f"{what}[{row}, {names[column] if names is not None else column}]"
            raise NotFinite(f"{place} is {table[row, column]}, which no step before the network replaces", what=what)
        return made

    def summed(self, relevance: Array) -> Array:
        """Return the relevance (..., columns) of that of the features, (..., features)."""
        origins = self.origins
        if np.array_equal(origins, np.arange(self.columns)):
            return relevance
        order = np.argsort(origins, kind="stable")
        starts = np.searchsorted(origins[order], np.arange(self.columns))
        held = np.bincount(origins, minlength=self.columns) > 0
        made: Array = np.zeros((*relevance.shape[:-1], self.columns), relevance.dtype)
        made[..., held] = np.add.reduceat(relevance.take(order, axis=-1), starts[held], axis=-1)
        return made
