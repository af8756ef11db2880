"""Explanations of tables as data frames and for shap: what ``ex.to_frame()`` and ``ex.to_shap()`` return.

pandas, polars and shap are imported where they are asked for. A data frame's package and its rows' labels are
remembered from the call (:class:`Origin`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pylrp.network.gaps import gaps

if TYPE_CHECKING:
    from pylrp.network.explanation import Explanation

__all__ = ["Origin", "codes", "origin_of", "ranked", "rows_of_features", "to_frame", "to_shap"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Origin:
    """The data frame that was explained.

    Attributes
    ----------
    package : str
        "pandas" or "polars".
    index : object
        The labels of its rows; None where rows have none.
    """

    package: str
    index: Any = None

    def part(self, which: int | slice) -> Origin:
        """Return the same for some rows."""
        rows = slice(which, which + 1 or None) if isinstance(which, int) else which
        return self if self.index is None else Origin(self.package, self.index[rows])


def origin_of(x: Any) -> Origin | None:
    """Return where an input comes from, None where it is no data frame."""
    package = type(x).__module__.partition(".")[0]
    if package not in ("pandas", "polars") or not hasattr(x, "columns"):
        return None
    return Origin(package, getattr(x, "index", None))


def rows_of_features(ex: Explanation, what: str) -> tuple[Array, tuple[str, ...], int | None]:
    """Return relevance as (samples, targets, features), the features' names, and how many targets were asked for."""
    if isinstance(ex.relevance, dict):
        raise ValueError(f"{what} is of one input, the network has {', '.join(ex.relevance)}: take ex.relevance[name]")
    if isinstance(ex.relevance, list):
        raise ValueError(f"{what} is of samples with equally many features, these have different lengths: take ex[i]")
    several = len(ex.ledger) if isinstance(ex.ledger, list) else None
    R = np.asarray(ex.relevance)
    if ex.settings.get("single"):
        R = R[None]
    R = R if several is not None else R[:, None]
    if R.ndim != 3:
        raise ValueError(
            f"{what} is a row a sample, of features without positions; a sample's relevance here is "
            f"{R.shape[2:]}: reshape ex.relevance yourself, or draw it with ex.plot()"
        )
    names = ex.features if isinstance(ex.features, tuple) else tuple(f"x{i}" for i in range(R.shape[2]))
    return R, names, several


def to_frame(ex: Explanation, package: str | None = None) -> Any:
    """Return relevance as a data frame; see :meth:`pylrp.Explanation.to_frame`."""
    R, names, several = rows_of_features(ex, "a data frame")
    package = package or (ex.origin.package if ex.origin is not None else "pandas")
    if package not in ("pandas", "polars"):
        raise ValueError(f"package must be 'pandas' or 'polars', got {package!r}")
    try:
        made = __import__(package)
    except ImportError:
        needed = "pip install polars" if package == "polars" else "pip install pandas"
        raise ImportError(f"a data frame is made with {package}, of pylrp's extra tables: {needed}") from None
    samples, targets, _ = R.shape
    rows = R.reshape(samples * targets, -1)
    labels = _labels(ex, samples, several)
    if package == "polars":
        columns = {name: rows[:, i] for i, name in enumerate(names)}
        if several is not None:
            columns = {"sample": np.repeat(np.arange(samples), targets), "target": np.ravel(labels), **columns}
        return made.DataFrame(columns)
    index = ex.origin.index if ex.origin is not None and ex.origin.package == "pandas" else None
    if index is None:
        index = made.RangeIndex(samples)
    if several is not None:
        tuples = [(row, label) for row, each in zip(index, labels, strict=True) for label in each]
        index = made.MultiIndex.from_tuples(tuples, names=["sample", "target"])
    return made.DataFrame(rows, index=index, columns=list(names))


def _labels(ex: Explanation, samples: int, several: int | None) -> Array:
    """Return the class of each sample and target, (samples, targets); numbers where relevance was given as an array."""
    if several is None or ex.target is None:
        return np.tile(np.arange(several or 1), (samples, 1))
    return np.asarray(ex.target).reshape(samples, several)


def to_shap(ex: Explanation) -> Any:
    """Return a ``shap.Explanation``; see :meth:`pylrp.Explanation.to_shap`."""
    try:
        import shap
    except ImportError as error:
        raise ImportError(f"shap's plots need shap, of pylrp's extra tables: pip install shap ({error})") from None
    R, names, several = rows_of_features(ex, "shap's explanation")
    values = R.astype(np.float64)
    base = explained_output(ex) - values.sum(axis=2)  # (samples, targets)
    data = np.asarray(ex.input)
    data = data[None] if ex.settings.get("single") else data
    display = None
    if data.shape[1] != R.shape[2]:  # categories of their own: what they were is not known here
        data = np.full(R.shape[::2], np.nan)
    elif data.dtype.kind not in "biuf":
        display, data = data, np.stack([codes(column) for column in data.T], axis=1)
    if several is None:
        values, base = values[:, 0], base[:, 0]
    else:
        values = values.swapaxes(1, 2)
    return shap.Explanation(
        values=values, base_values=base, data=data, display_data=display, feature_names=list(names),
        output_names=None if several is None else [str(label) for label in _labels(ex, len(R), several)[0]],
    )  # fmt: skip


def explained_output(ex: Explanation) -> Array:
    """Return the outputs that were explained, (samples, targets): logits, or a difference of them.

    Raises
    ------
    ValueError
        If relevance does not start at an output: of ``start="one"``, or where it was given as an array.
    """
    if ex.settings.get("start", "logit") != "logit":
        raise ValueError("with start='one' relevance is no share of the output: explain with start='logit'")
    if ex.target is None:
        raise ValueError("relevance at the top was given as an array: explain a class, target=...")
    output = ex.output[ex.settings["output"]] if isinstance(ex.output, dict) else ex.output
    output = np.atleast_2d(np.asarray(output, dtype=np.float64))
    targets = np.asarray(ex.target).reshape(len(output), -1)
    if output.ndim != 2:
        raise ValueError(f"an output of a sample has positions, {output.shape[1:]}: shap takes one number a class")
    against = ex.settings.get("against")
    if against is not None:
        ledgers = ex.ledger if isinstance(ex.ledger, list) else [ex.ledger]
        return np.stack([ledger.data[-1, 0] for ledger in ledgers], axis=1)
    if ex.settings.get("two_classes"):
        return np.where(targets == 1, output, -output)
    return np.take_along_axis(output, targets, axis=1)


def codes(column: Array) -> Array:
    """Return a column as numbers: words by their order, gaps as NaN."""
    missing = gaps(column)
    made = np.full(len(column), np.nan)
    try:
        made[~missing] = column[~missing].astype(np.float64)
    except (TypeError, ValueError):
        words = np.array([str(value) for value in column[~missing]])
        made[~missing] = np.unique(words, return_inverse=True)[1].reshape(len(words))
    return made


def ranked(values: Array, names: Sequence[str], most: int) -> list[int]:
    """Return the features of largest mean absolute relevance, the largest first."""
    order = np.argsort(-np.abs(values).mean(axis=0), kind="stable")
    return [int(i) for i in order[: min(most, len(names))]]
