"""Agreement of heatmaps: rank correlation and the overlap of their most relevant features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pylrp.evaluate.evaluated_batch import Values
from pylrp.evaluate.statistics import correlation, ranks
from pylrp.present import html

__all__ = ["Agreement", "agreement"]


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far maps of the same samples agree, pair by pair.

    Attributes
    ----------
    names : tuple of str
    spearman : ndarray of shape (names, names, batch), float64
        Rank correlation; NaN for a constant map.
    overlap : ndarray of shape (names, names, batch), float64
        Share of the ``k`` most relevant features that two maps have in common; ``k / features`` by chance.
    k, features : int
    """

    names: tuple[str, ...]
    spearman: Values
    overlap: Values
    k: int
    features: int

    def table(self) -> str:
        """Return two tables as text, means over samples."""
        return "\n\n".join(f"{title}\n{self._square(rows)}" for title, rows in self._parts())

    def _parts(self) -> list[tuple[str, list[list[str]]]]:
        """Return the titles and the cells of both tables, the heads first."""
        chance = self.k / self.features
        parts = [
            ("rank correlation (Spearman)", self.spearman),
            (f"overlap of the {self.k} most relevant of {self.features} (by chance {chance:.2f})", self.overlap),
        ]
        found = []
        for title, values in parts:
            means = zip(self.names, values.mean(axis=2), strict=True)
            found.append((title, [["", *self.names], *([name, *(f"{v:.2f}" for v in row)] for name, row in means)]))
        return found

    def _square(self, rows: list[list[str]]) -> str:
        left = max(map(len, self.names)) + 2
        widths = [max(len(name), 6) + 2 for name in self.names]
        return "\n".join(
            row[0].ljust(left) + "".join(f"{cell:>{w}}" for cell, w in zip(row[1:], widths, strict=True))
            for row in rows
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        parts = (part for title, rows in self._parts() for part in (html.lines([title]), html.table(rows)))
        return html.html(*parts)

    def __repr__(self) -> str:
        return f"<Agreement of {len(self.names)} maps>\n{self.table()}"


def agreement(maps: Mapping[str, ArrayLike], *, k: int | float = 0.1) -> Agreement:
    """Compare maps of the same samples: their rankings, and their most relevant features.

    Agreement is no proof: maps can be wrong together. Disagreement says that at most one of two is right.

    Parameters
    ----------
    maps : mapping of str to array_like of shape (batch, ...)
        All of one shape. Sum image maps over channels first if pixels are what you look at.
    k : int or float, default 0.1
        How many features count as the most relevant: a number, or a share below 1.

    Returns
    -------
    Agreement

    Raises
    ------
    ValueError
        If shapes differ or values are not finite.

    Examples
    --------
    >>> import pylrp
    >>> found = pylrp.evaluate.agreement({"a": [[3.0, 2.0, 1.0, 0.0]], "b": [[9.0, 0.0, 1.0, 5.0]]}, k=2)
    >>> found.spearman[0, 1].round(3), found.overlap[0, 1]
    (array([0.2]), array([0.5]))
    """
    arrays = {name: np.asarray(values, np.float64) for name, values in maps.items()}
    if not arrays:
        raise ValueError("maps is empty: pass at least one, by name")
    first, shape = next((name, array.shape) for name, array in arrays.items())
    for name, array in arrays.items():
        if array.shape != shape:
            raise ValueError(f"map {name!r} has shape {array.shape}, {first!r} has {shape}")
        if array.ndim < 2 or array.size == 0:
            raise ValueError(f"map {name!r} has shape {array.shape}, expected (batch, ...)")
        if not np.isfinite(array).all():
            raise ValueError(f"map {name!r} holds values that are NaN or infinite")
    flat = np.stack([array.reshape(len(array), -1) for array in arrays.values()])
    features = flat.shape[2]
    count = max(1, round(k * features)) if 0 < k < 1 else int(k)
    if not 1 <= count <= features:
        raise ValueError(f"k is {k}, expected 1 to {features} features or a share below 1")
    ranked = ranks(flat)
    top = np.zeros(flat.shape, bool)
    np.put_along_axis(top, np.argsort(-flat, axis=2, kind="stable")[:, :, :count], True, axis=2)
    correlations = np.stack([correlation(ranked, other) for other in ranked])
    overlaps = np.stack([(top & other).sum(axis=2) for other in top]) / count
    return Agreement(tuple(arrays), correlations, overlaps, count, features)
