"""Fitted networks and linear models of scikit-learn, alone or behind scalers in a pipeline.

``pylrp.load`` calls in; ``sklearn/steps.py`` reads what comes before the estimator, ``chain.py`` makes the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Dense
from pylrp.loaders.plain.chain import chain
from pylrp.loaders.sklearn.front import front_of, needs_front, with_front
from pylrp.loaders.sklearn.steps import layers_of, pipeline_steps, require_fitted
from pylrp.network.graph import Facts, Graph, Node

__all__ = ["load_sklearn"]

#: Functions at the top, as Facts call them.
_TOPS = {"logistic": "sigmoid", "softmax": "softmax", "exp": "exp"}

#: Linear models whose prediction is ``X @ coef_.T + intercept_``, or a function of it: the link at their top.
_LINEAR = {
    "LogisticRegression": "logistic",
    "LogisticRegressionCV": "logistic",
    "LinearDiscriminantAnalysis": "logistic",
    **dict.fromkeys(("PoissonRegressor", "GammaRegressor"), "exp"),
    **dict.fromkeys(
        (
            "ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lars", "LarsCV", "Lasso",
            "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearRegression", "LinearSVC", "LinearSVR",
            "MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV",
            "OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV", "PassiveAggressiveClassifier",
            "PassiveAggressiveRegressor", "Perceptron", "QuantileRegressor", "Ridge", "RidgeCV", "RidgeClassifier",
            "RidgeClassifierCV", "SGDClassifier", "SGDRegressor", "TheilSenRegressor",
        ),
        "identity",
    ),
}  # fmt: skip


def load_sklearn(estimator: Any, expanded: bool = False, keep_top: bool = False) -> Graph:
    """Return the network of a fitted ``MLPClassifier``, ``MLPRegressor`` or linear model.

    The softmax or logistic function at the end of a classifier is left out, and a note says so: its logits are
    explained. For two classes there is one logit, that of ``classes_[1]``. The same goes for the exponential function
    at the end of a regressor with ``loss="poisson"``. The labels of the classes and the names of the features are kept.
    A linear model is one dense layer: its decision function, or what it predicts, is explained.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor, linear model or Pipeline
        Linear models are ``LogisticRegression``, ``LinearRegression``, ``Ridge``, ``LinearSVC``, ``SGDClassifier`` and
        their like. A pipeline may scale its input with ``StandardScaler``, ``MinMaxScaler``, ``MaxAbsScaler`` or
        ``RobustScaler``, fill gaps (NaN) with an imputer, encode words with ``OneHotEncoder``, ``OrdinalEncoder`` or
        ``TargetEncoder``, transform single columns (``PowerTransformer``, ``KBinsDiscretizer``, ``numpy.log1p`` in a
        ``FunctionTransformer``, ...), project with ``PCA``, choose features (``SelectKBest``), treat columns apart in a
        ``ColumnTransformer`` or ``FeatureUnion``, and have a ``Normalizer``; relevance is then that of the pipeline's
        input.
    expanded : bool, default False
        Relevance of each category that a one-hot encoder makes, instead of the column's sum.
    keep_top : bool, default False
        Leave the function at the end in: outputs are probabilities, of ``classes_[1]`` for two classes.

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
        import sklearn.neural_network  # noqa: F401
    except ImportError:
        raise ImportError("an estimator needs scikit-learn: pip install scikit-learn") from None

    if hasattr(estimator, "best_estimator_") or (hasattr(estimator, "estimator") and hasattr(estimator, "cv")):
        fitted = "" if hasattr(estimator, "best_estimator_") else ", after fit(X, y) with refit=True,"
        raise TypeError(
            f"expected an estimator, got the search over some, {type(estimator).__name__}: pass the one that it has "
            f"found{fitted} search.best_estimator_"
        )
    if hasattr(estimator, "regressor") and hasattr(estimator, "transformer"):
        raise TypeError(
            f"expected an estimator, got {type(estimator).__name__}, which transforms what one predicts: pass the "
            "fitted one that it holds, model.regressor_"
        )
    steps = list(pipeline_steps("", estimator))
    first = steps[0][1] if steps else None  # the step that the features' names were given to
    parts = _parts(steps.pop()[1] if steps else estimator)
    weights = [np.ascontiguousarray(w) for w in parts.weights]
    layers = [Dense(w, np.array(b)) for w, b in zip(weights, parts.biases, strict=True)]
    inputs = getattr(first, "n_features_in_", None)
    front, nodes = None, list[Node]()
    if inputs is not None and needs_front(steps):
        front, nodes, before, inputs = front_of(steps, inputs, weights[0].dtype, expanded)
    else:
        before = [layer for name, step in steps for layer in layers_of(name, step, weights[0].dtype)]
    notes = []
    if parts.top != "identity" and not keep_top:
        of = "the logit of classes_[1] is" if len(weights[-1]) == 1 else "the logits are"
        of = "the logarithm of the prediction is" if parts.top == "exp" else of
        notes.append(f"{parts.top} at the top removed: {of} explained")
    activations = [*[parts.activation] * (len(layers) - 1), parts.top if keep_top else "identity"]
    graph = chain(layers, activations, notes=notes, first=before, inputs=inputs)
    if front is not None:
        graph = with_front(front, nodes, graph)
    return graph.changed(facts=replace(_facts(parts, first, graph, keep_top), front=front))


@dataclass(frozen=True)
class _Parts:
    """An estimator's numbers: weights ``(out, in)``, biases, the functions between and on top, the classes' labels."""

    weights: Sequence[NDArray[Any]]
    biases: Sequence[NDArray[Any]]
    activation: str
    top: str
    labels: Any


def _parts(estimator: Any) -> _Parts:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    labels = getattr(estimator, "classes_", None)
    if isinstance(estimator, MLPClassifier | MLPRegressor):
        require_fitted(estimator, "coefs_", of="")
        weights = [w.T for w in estimator.coefs_]  # theirs are (in, out)
        return _Parts(weights, estimator.intercepts_, estimator.activation, estimator.out_activation_, labels)
    ours = type(estimator).__module__.split(".")[0] == "sklearn"
    if not ours or type(estimator).__name__ not in _LINEAR:
        raise TypeError(
            "expected a fitted MLPClassifier, MLPRegressor or linear model (LogisticRegression, Ridge, ...), "
            f"or a pipeline that ends in one, got {' '.join(repr(estimator).split())}"
        )
    require_fitted(estimator, "coef_", of="")
    coefficients = estimator.coef_
    weight = np.atleast_2d(coefficients.toarray() if hasattr(coefficients, "toarray") else np.asarray(coefficients))
    bias = np.broadcast_to(np.asarray(estimator.intercept_, weight.dtype), weight.shape[:1])
    top = _LINEAR[type(estimator).__name__]
    if top == "logistic" and len(weight) > 1:
        top = "softmax"
    return _Parts([weight], [bias], "identity", top, labels)


def _facts(parts: _Parts, first: Any, graph: Graph, keep_top: bool) -> Facts:
    """Return the function at the top that was left out, the classes' labels and the features' names."""
    (source,), (output,) = graph.inputs, graph.outputs
    names = getattr(first, "feature_names_in_", None)
    return Facts(
        top={} if keep_top or parts.top == "identity" else {output: _TOPS[parts.top]},
        classes=None if parts.labels is None else tuple(np.asarray(parts.labels).tolist()),
        features={} if names is None else {source: tuple(map(str, names))},
    )
