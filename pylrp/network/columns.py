"""Tables with named columns, of pandas or polars: columns find their features by name, results go back to columns.

``requests.py`` asks for every input. Neither package is imported: what has ``columns`` and ``to_numpy`` is a table, and
what has ``index`` and ``to_numpy``, a row of a table, is one sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import FeatureMismatch

__all__ = ["Columns", "Table", "columns_of"]


class Table:
    """Rows of numbers under named columns: what a data frame is here, without its package."""

    def __init__(self, values: NDArray[Any], columns: Sequence[str]):
        self._values = values
        self.columns = tuple(columns)

    def to_numpy(self) -> NDArray[Any]:
        """Return the values, (rows, columns)."""
        return self._values


class Columns(NamedTuple):
    """The columns of one input, as the caller has them.

    Attributes
    ----------
    values : array_like
        In the caller's order.
    names : tuple of str or None
        None where they have no names.
    order : ndarray of int or None
        For each feature of the network its column; None where they are the same.
    framed : bool
        Whether they are a data frame's, or a row of one.
    """

    values: Any
    names: tuple[str, ...] | None = None
    order: NDArray[np.intp] | None = None
    framed: bool = False

    def to_network(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return (..., columns) in the network's order."""
        return array if self.order is None else np.ascontiguousarray(array[..., self.order])

    def to_caller(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return (..., features) in the order of the columns."""
        return array if self.order is None else np.ascontiguousarray(array[..., np.argsort(self.order)])


def columns_of(x: Any, features: Sequence[str] | None, what: str) -> Columns:
    """Return the columns of an input and where the network's features are among them.

    Parameters
    ----------
    x : array_like or table
    features : sequence of str or None
        The names that the network knows; without them columns are taken in their order.
    what : str
        The argument, for errors.

    Raises
    ------
    FeatureMismatch
        If the network knows names and the columns have others.
    """
    if isinstance(x, np.ndarray) or not hasattr(x, "to_numpy"):
        return Columns(x)
    labels = next((labels for name in ("columns", "index") if (labels := getattr(x, name, None)) is not None), None)
    if labels is None or callable(labels):
        return Columns(x.to_numpy())
    if not any(isinstance(label, str) for label in labels):  # numbers of rows, or columns without names
        return Columns(x.to_numpy(), framed=True)
    names = [str(label) for label in labels]
    if features is None:
        return Columns(x.to_numpy(), tuple(names), framed=True)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    missing = [name for name in features if name not in set(names)]
    unknown = [name for name in names if name not in set(features)]
    if missing or unknown or repeated:
        raise FeatureMismatch(what, missing, unknown, repeated)
    at = {name: i for i, name in enumerate(names)}
    order = np.array([at[name] for name in features], np.intp)
    moved = None if bool((order == np.arange(len(order))).all()) else order
    return Columns(x.to_numpy(), tuple(names), moved, framed=True)
