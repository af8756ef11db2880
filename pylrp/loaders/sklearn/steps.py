"""Steps of scikit-learn's pipelines before the estimator: scalers, imputers, choices of columns.

``sklearn/estimator.py`` calls in with the steps and gets layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import UnsupportedLayer
from pylrp.layers import Affine, Clip, Layer, Normalize, Take

__all__ = ["WAY_OUT", "layers_of", "pipeline_steps", "places_of"]

Floats = NDArray[np.float64]

WAY_OUT = "transform the data first and load the estimator alone (pipeline[-1])"


def pipeline_steps(name: str, estimator: Any) -> Iterator[tuple[str, Any]]:
    """Yield the steps of a pipeline with their names, those of pipelines within it too."""
    from sklearn.pipeline import Pipeline

    if isinstance(estimator, Pipeline):
        for inner, step in estimator.steps:
            yield from pipeline_steps(f"{name}.{inner}" if name else inner, step)
    elif estimator is not None and estimator != "passthrough" and not _hands_on(estimator):
        yield name, estimator


def _hands_on(step: Any) -> bool:
    """Return whether a step is a FunctionTransformer without a function, "passthrough" of newer versions."""
    return type(step).__name__ == "FunctionTransformer" and getattr(step, "func", step) is None


def layers_of(name: str, step: Any, dtype: np.dtype[Any]) -> list[Layer]:
    """Return the layers of one step, its numbers computed in float64.

    Parameters
    ----------
    name : str
    step : transformer
        A fitted StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, SimpleImputer (the identity: an input has no
        gaps), Normalizer, or a ColumnTransformer of all these but Normalizer.
    dtype : dtype
        Of the network.

    Raises
    ------
    UnsupportedLayer
        For other steps.
    ValueError
        If the step is not fitted.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import Normalizer

    if isinstance(step, Normalizer):
        if step.norm == "max":
            raise UnsupportedLayer(name, "Normalizer", "divides by the largest absolute value", WAY_OUT)
        return [Normalize(step.norm, name=name)]
    if isinstance(step, ColumnTransformer):
        scaling = _columns(name, step)
        n = step.n_features_in_
        chosen = [] if np.array_equal(scaling.places, np.arange(n)) else [Take(scaling.places, name=f"{name}.columns")]
        return [*chosen, *scaling.layers(name, dtype)]
    scaling = _scaling(name, step)
    return scaling.layers(name, dtype)


@dataclass
class _Scaling:
    """``clip(x[places] * factor + shift)`` of some columns, each array as long as there are columns behind it."""

    places: NDArray[np.int64]
    factor: Floats
    shift: Floats
    clip: tuple[float, float] | None = None

    @property
    def changes(self) -> bool:
        return bool(np.any(self.factor != 1) or np.any(self.shift != 0))

    def layers(self, name: str, dtype: np.dtype[Any]) -> list[Layer]:
        scaled = [Affine(self.factor.astype(dtype), self.shift.astype(dtype), name=name)] if self.changes else []
        return [*scaled, *([] if self.clip is None else [Clip(*self.clip)])]


def _identity(columns: int) -> _Scaling:
    return _Scaling(np.arange(columns), np.ones(columns), np.zeros(columns))


def require_fitted(step: Any, attribute: str = "n_features_in_", of: str = " of the pipeline") -> None:
    """Refuse a step that has not what fitting gives it."""
    if not hasattr(step, attribute):
        raise ValueError(f"{step!r} is not fitted: call fit(X, y){of} first")


def _scaling(name: str, step: Any) -> _Scaling:
    """Return what a scaler does to its columns."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    kind = type(step)
    if kind not in (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, SimpleImputer):
        raise UnsupportedLayer(name, kind.__name__, "is no step that can be explained", WAY_OUT)
    require_fitted(step)
    made = _identity(step.n_features_in_)
    if kind is SimpleImputer:
        fixed = np.asarray(step.statistics_, object)
        if step.add_indicator or any(value is None or value != value for value in fixed):
            raise UnsupportedLayer(name, kind.__name__, "adds or drops columns", WAY_OUT)
        if isinstance(step.missing_values, str) or step.missing_values == step.missing_values:
            raise UnsupportedLayer(name, kind.__name__, f"replaces the value {step.missing_values!r}", WAY_OUT)
        return made
    if kind is MinMaxScaler:
        made.factor, made.shift = np.asarray(step.scale_, np.float64), np.asarray(step.min_, np.float64)
        made.clip = (float(step.feature_range[0]), float(step.feature_range[1])) if step.clip else None
        return made
    centre = {StandardScaler: "mean_", RobustScaler: "center_"}.get(kind)
    middle = None if centre is None or not getattr(step, "with_mean", True) else getattr(step, centre)
    if step.scale_ is not None:
        made.factor = 1 / np.asarray(step.scale_, np.float64)
    if middle is not None:
        made.shift = -np.asarray(middle, np.float64) * made.factor
    return made


def _columns(name: str, step: Any) -> _Scaling:
    """Return what a ColumnTransformer of scalers does: its columns in their order, and how they are scaled."""
    require_fitted(step)
    places, factors, shifts = [], [], []
    for inner, transformer, columns in step.transformers_:
        taken = np.asarray(places_of(step, columns), np.int64)
        if transformer == "drop" or not len(taken):
            continue
        where = f"{name}.{inner}"
        part = _identity(len(taken))
        for at, each in pipeline_steps(where, transformer):
            scaling = _scaling(at, each)
            if scaling.clip is not None:
                raise UnsupportedLayer(at, type(each).__name__, "clips some of the columns", WAY_OUT)
            part.factor, part.shift = part.factor * scaling.factor, part.shift * scaling.factor + scaling.shift
        weight = (step.transformer_weights or {}).get(inner, 1.0)
        places.append(taken)
        factors.append(part.factor * weight)
        shifts.append(part.shift * weight)
    if not places:
        raise UnsupportedLayer(name, type(step).__name__, "keeps no column", WAY_OUT)
    return _Scaling(np.concatenate(places), np.concatenate(factors), np.concatenate(shifts))


def places_of(step: Any, columns: Any) -> list[int]:
    """Return the numbers of a ColumnTransformer's columns, however they were given."""
    every = list(range(step.n_features_in_))
    if isinstance(columns, slice) and not isinstance(columns.start or columns.stop, str):
        return every[columns]
    names = list(map(str, getattr(step, "feature_names_in_", every)))
    if isinstance(columns, slice):  # by label, the last one included
        first = 0 if columns.start is None else names.index(columns.start)
        return every[first : None if columns.stop is None else names.index(columns.stop) + 1 : columns.step]
    given = np.atleast_1d(np.asarray(columns))
    if given.dtype.kind == "b":
        return np.flatnonzero(given).tolist()
    if given.dtype.kind in "iu":
        return [every[int(i)] for i in given]
    return [names.index(str(column)) for column in given]
