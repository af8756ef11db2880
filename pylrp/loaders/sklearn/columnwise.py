"""Steps of scikit-learn that make each feature of one column: encoders, imputers, functions of single numbers.

``sklearn/front.py`` runs them before the core; here stands which feature belongs to which column, and its name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pylrp.errors import UnsupportedLayer
from pylrp.loaders.sklearn.steps import WAY_OUT

__all__ = ["COLUMN_BY_COLUMN", "IMPUTERS", "features_of", "knows_none", "takes_words"]

IMPUTERS = ("SimpleImputer", "KNNImputer", "IterativeImputer")
_ENCODERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")
_ONE_TO_ONE = ("OrdinalEncoder", "Binarizer", "PowerTransformer", "QuantileTransformer", "FunctionTransformer")
COLUMN_BY_COLUMN = (
    *IMPUTERS, *_ENCODERS, *_ONE_TO_ONE, "KBinsDiscretizer", "MissingIndicator", "SplineTransformer",
)  # fmt: skip


def features_of(name: str, step: Any, columns: int) -> tuple[list[int], list[str]]:
    """Return for each feature of a fitted step its column, and what is added to the column's name.

    Raises
    ------
    UnsupportedLayer
        If a function of a caller's own may mix columns, or the step adds columns that belong to none.
    """
    kind = type(step).__name__
    if kind == "OneHotEncoder":
        return _one_hot(step)
    if kind in IMPUTERS:
        return _imputed(name, step, columns)
    if kind == "MissingIndicator":
        chosen = list(map(int, step.features_))
        return chosen, [" is missing"] * len(chosen)
    counts, word = [1] * columns, ""
    if kind == "FunctionTransformer" and not (isinstance(step.func, np.ufunc) and step.func.nin == step.func.nout == 1):
        called = getattr(step.func, "__name__", step.func)
        reason = f"calls {called}, which may mix columns; functions of NumPy such as numpy.log1p do not"
        raise UnsupportedLayer(name, kind, reason, WAY_OUT)
    if kind == "KBinsDiscretizer" and step.encode != "ordinal":
        counts, word = list(map(int, step.n_bins_)), " bin"
    elif kind == "SplineTransformer":
        counts, word = [step.n_features_out_ // columns] * columns, " spline"
    elif kind == "TargetEncoder" and step.target_type_ == "multiclass":
        labels = [f" for {label}" for label in step.classes_]
        return [i for i in range(columns) for _ in labels], labels * columns
    chosen = [i for i, count in enumerate(counts) for _ in range(count)]
    return chosen, [f"{word} {k}" if word else "" for count in counts for k in range(count)]


def takes_words(step: Any) -> bool:
    """Return whether a fitted step was fitted with words, or with what is not all numbers."""
    if type(step).__name__ in _ENCODERS:
        return any(np.asarray(known).dtype.kind not in "biuf" for known in step.categories_)
    if type(step).__name__ == "SimpleImputer":
        return np.asarray(step.statistics_).dtype.kind not in "biuf"
    return False


def knows_none(step: Any) -> bool:
    """Return whether a gap was None when the step was fitted."""
    if type(step).__name__ in _ENCODERS:
        return any(value is None for known in step.categories_ for value in known)
    return getattr(step, "missing_values", np.nan) is None


def _one_hot(step: Any) -> tuple[list[int], list[str]]:
    """Return for each feature of a OneHotEncoder its column and its category."""
    chosen, labels = [], []
    rare = getattr(step, "infrequent_categories_", [None] * len(step.categories_))
    for column, known in enumerate(step.categories_):
        few = [] if rare[column] is None else list(rare[column])
        named = [f"={value}" for value in known if value not in few] + (["=others"] if few else [])
        dropped = None if step.drop_idx_ is None else step.drop_idx_[column]
        if dropped is not None:
            value = known[dropped]
            named.remove("=others" if value in few else f"={value}")
        chosen += [column] * len(named)
        labels += named
    return chosen, labels


def _imputed(name: str, step: Any, columns: int) -> tuple[list[int], list[str]]:
    """Return for each feature of an imputer its column; of the indicators of gaps, too."""
    kept = list(range(columns))
    if type(step).__name__ == "SimpleImputer" and not getattr(step, "keep_empty_features", False):
        empty = [value is None or value != value for value in np.asarray(step.statistics_, object)]
        kept = [i for i in kept if not empty[i] or step.strategy == "constant"]
    labels = [""] * len(kept)
    if getattr(step, "add_indicator", False):
        gaps = list(map(int, step.indicator_.features_))
        kept, labels = kept + gaps, labels + [" is missing"] * len(gaps)
    if hasattr(step, "get_feature_names_out") and len(step.get_feature_names_out()) != len(kept):
        raise UnsupportedLayer(name, type(step).__name__, "adds or drops columns", WAY_OUT)
    return kept, labels
