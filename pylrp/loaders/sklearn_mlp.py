"""Fitted multilayer perceptrons of scikit-learn, alone or behind scalers in a pipeline.

``pylrp.load`` calls in; ``chain.py`` makes the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pylrp.errors import UnsupportedLayer
from pylrp.graph import Facts, Graph
from pylrp.layers import Affine, Clip, Dense, Layer
from pylrp.loaders.chain import chain

__all__ = ["load_sklearn"]

#: Functions at the top, as Facts call them.
_TOPS = {"logistic": "sigmoid", "softmax": "softmax", "exp": "exp"}


def load_sklearn(estimator: Any) -> Graph:
    """Return the network of a fitted ``MLPClassifier`` or ``MLPRegressor``.

    The softmax or logistic function at the end of a classifier is left out, and a note says so: its logits are
    explained. For two classes there is one logit, that of ``classes_[1]``. The same goes for the exponential function
    at the end of a regressor with ``loss="poisson"``. The labels of the classes and the names of the features are kept.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor or Pipeline
        A pipeline may scale its input with ``StandardScaler``, ``MinMaxScaler``, ``MaxAbsScaler`` or ``RobustScaler``;
        relevance is then that of the unscaled input.

    Returns
    -------
    Graph
        In the dtype in which the estimator was fitted.

    Raises
    ------
    ValueError
        If the estimator is not fitted.
    UnsupportedLayer
        If a step of the pipeline is of another kind.
    """
    try:
        from sklearn.neural_network import MLPClassifier, MLPRegressor
    except ImportError:
        raise ImportError("an estimator needs scikit-learn: pip install scikit-learn") from None

    if hasattr(estimator, "best_estimator_") or (hasattr(estimator, "estimator") and hasattr(estimator, "cv")):
        fitted = "" if hasattr(estimator, "best_estimator_") else ", after fit(X, y) with refit=True,"
        raise TypeError(
            f"expected an estimator, got the search over some, {type(estimator).__name__}: pass the one that it has "
            f"found{fitted} search.best_estimator_"
        )
    steps = list(_steps("", estimator))
    if not steps or not isinstance(steps[-1][1], MLPClassifier | MLPRegressor):
        raise TypeError(
            f"expected a fitted MLPClassifier or MLPRegressor, or a pipeline that ends in one, got {estimator!r}"
        )
    fitted = steps[0][1]  # the step that the features' names were given to
    mlp = steps.pop()[1]
    if not hasattr(mlp, "coefs_"):
        raise ValueError(f"{mlp!r} is not fitted: call fit(X, y) first")
    weights = [np.ascontiguousarray(w.T) for w in mlp.coefs_]  # theirs are (in, out)
    layers = [Dense(w, np.array(b)) for w, b in zip(weights, mlp.intercepts_, strict=True)]
    before = [layer for name, step in steps for layer in _scaler(name, step, weights[0].dtype)]
    notes = []
    if mlp.out_activation_ != "identity":
        of = "the logit of classes_[1] is" if len(weights[-1]) == 1 else "the logits are"
        of = "the logarithm of the prediction is" if mlp.out_activation_ == "exp" else of
        notes.append(f"{mlp.out_activation_} at the top removed: {of} explained")
    graph = chain(layers, [mlp.activation] * (len(layers) - 1) + ["identity"], notes=notes, first=before)
    return graph.changed(facts=_facts(mlp, fitted, graph))


def _facts(mlp: Any, fitted: Any, graph: Graph) -> Facts:
    """Return the function at the top that was left out, the classes' labels and the features' names."""
    (source,), (output,) = graph.inputs, graph.outputs
    labels = getattr(mlp, "classes_", None)
    names = getattr(fitted, "feature_names_in_", None)
    return Facts(
        top={} if mlp.out_activation_ == "identity" else {output: _TOPS[mlp.out_activation_]},
        classes=None if labels is None else tuple(np.asarray(labels).tolist()),
        features={} if names is None else {source: tuple(map(str, names))},
    )


def _steps(name: str, estimator: Any) -> Iterator[tuple[str, Any]]:
    """Yield the steps of a pipeline, those of pipelines within it too."""
    from sklearn.pipeline import Pipeline

    if isinstance(estimator, Pipeline):
        for inner, step in estimator.steps:
            yield from _steps(f"{name}.{inner}" if name else inner, step)
    elif estimator is not None and estimator != "passthrough":
        yield name, estimator


def _scaler(name: str, step: Any, dtype: np.dtype[Any]) -> list[Layer]:
    """Return ``x * scale + shift`` of one step, computed in float64."""
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    kind = type(step)
    if kind not in (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler):
        raise UnsupportedLayer(
            name,
            kind.__name__,
            "is no step that can be explained",
            "transform the data first and load the estimator alone (pipeline[-1])",
        )
    if not hasattr(step, "n_features_in_"):
        raise ValueError(f"{step!r} is not fitted: call fit(X, y) of the pipeline first")
    if kind is MinMaxScaler:
        factor, shift = step.scale_, step.min_
    else:
        centre = {StandardScaler: "mean_", RobustScaler: "center_"}.get(kind)
        middle = getattr(step, centre) if centre and getattr(step, centre) is not None else 0.0
        factor = np.ones(step.n_features_in_) if step.scale_ is None else 1 / np.asarray(step.scale_, np.float64)
        if kind is StandardScaler and not step.with_mean:
            middle = 0.0
        shift = -np.asarray(middle, np.float64) * factor
    layers: list[Layer] = [Affine(np.asarray(factor).astype(dtype), np.asarray(shift).astype(dtype), name=name)]
    if kind is MinMaxScaler and step.clip:
        layers.append(Clip(*map(float, step.feature_range)))
    return layers
