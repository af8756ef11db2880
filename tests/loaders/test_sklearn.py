"""Fitted perceptrons of scikit-learn against the graphs made of them: what they predict, in float64."""

from __future__ import annotations

import inspect
import sys
import warnings

import numpy as np
import pytest
from reference.graph_forward import forward
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC, LinearSVR

import pylrp
from pylrp import layers
from pylrp.errors import UnsupportedLayer
from pylrp.loaders.sklearn.estimator import load_sklearn


@pytest.fixture
def data(rng):
    """Six features of different sizes, a class of three, and two numbers to predict."""
    X = rng.standard_normal((120, 6)) * [1, 10, 0.1, 3, 1, 2] + [0, 5, 1, -2, 0, 1]
    y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 5)
    return X, y, X[:, :2] @ [[1.0, -2.0], [0.5, 1.0]]


def fit(estimator, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, y)


def logits(graph, X):
    (output,) = graph.outputs
    (name,) = graph.inputs
    return forward(graph, {name: X})[output]


def kinds(graph):
    return [type(node.layer) for node in graph.nodes]


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (7,), (8, 5)])
def test_classifier(data, activation, hidden):
    X, y, _ = data
    mlp = fit(MLPClassifier(hidden_layer_sizes=hidden, activation=activation, max_iter=40, random_state=3), X, y)
    graph = load_sklearn(mlp)
    assert graph.notes == ("softmax at the top removed: the logits are explained",)
    z = logits(graph, X)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(p / p.sum(axis=1, keepdims=True), mlp.predict_proba(X), rtol=1e-10, atol=1e-14)
    assert graph.dtype == np.float64
    assert graph.inputs == {"input": (6,)}
    expected = {
        "identity": [],
        "logistic": [layers.Sigmoid],
        "tanh": [layers.Tanh],
        "relu": [layers.ReLU],
    }[activation]
    assert kinds(graph) == [layers.Dense, *expected] * len(hidden) + [layers.Dense]


def test_two_classes_have_one_logit(data):
    X, y, _ = data
    mlp = fit(MLPClassifier(hidden_layer_sizes=(7,), max_iter=40, random_state=3), X, np.where(y > 0, "yes", "no"))
    graph = load_sklearn(mlp)
    assert graph.notes == ("logistic at the top removed: the logit of classes_[1] is explained",)
    assert list(mlp.classes_) == ["no", "yes"]
    z = logits(graph, X)
    assert z.shape == (120, 1)
    np.testing.assert_allclose(1 / (1 + np.exp(-z[:, 0])), mlp.predict_proba(X)[:, 1], rtol=1e-10, atol=1e-14)


def test_several_labels(data):
    X, y, _ = data
    labels = np.stack([y > 0, y > 1, X[:, 3] > 0], axis=1).astype(int)
    mlp = fit(MLPClassifier(hidden_layer_sizes=(7,), max_iter=40, random_state=3), X, labels)
    graph = load_sklearn(mlp)
    assert graph.notes == ("logistic at the top removed: the logits are explained",)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits(graph, X))), mlp.predict_proba(X), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("targets", [1, 2])
def test_regressor(data, targets):
    X, _, Y = data
    Y = Y[:, 0] if targets == 1 else Y
    mlp = fit(MLPRegressor(hidden_layer_sizes=(7, 5), max_iter=40, random_state=3), X, Y)
    graph = load_sklearn(mlp)
    assert graph.notes == ()
    np.testing.assert_allclose(logits(graph, X), mlp.predict(X).reshape(len(X), -1), rtol=1e-10)


@pytest.mark.skipif("loss" not in inspect.signature(MLPRegressor).parameters, reason="scikit-learn 1.7 has it")
def test_regressor_of_counts(data):
    X, y, _ = data
    mlp = fit(MLPRegressor(loss="poisson", hidden_layer_sizes=(7,), max_iter=40, random_state=3), X, y)
    graph = load_sklearn(mlp)
    assert graph.notes == ("exp at the top removed: the logarithm of the prediction is explained",)
    np.testing.assert_allclose(np.exp(logits(graph, X))[:, 0], mlp.predict(X), rtol=1e-10)


def test_float32(data):
    X, y, _ = data
    mlp = fit(MLPClassifier(hidden_layer_sizes=(7,), max_iter=40, random_state=3), X.astype(np.float32), y)
    assert load_sklearn(mlp).dtype == np.float32
    pipeline = fit(
        make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(7,), max_iter=9)),
        X.astype(np.float32),
        X[:, 0],
    )
    graph = load_sklearn(pipeline)
    assert graph.dtype == np.float32
    expected = pipeline.predict(X.astype(np.float32))
    np.testing.assert_allclose(logits(graph, X)[:, 0], expected, rtol=1e-4, atol=1e-5)


SCALERS = {
    "standard": StandardScaler(),
    "standard without mean": StandardScaler(with_mean=False),
    "standard without deviation": StandardScaler(with_std=False),
    "standard without both": StandardScaler(with_mean=False, with_std=False),
    "min-max": MinMaxScaler((-1, 2)),
    "min-max clipped": MinMaxScaler((-1, 2), clip=True),
    "largest": MaxAbsScaler(),
    "robust": RobustScaler(),
    "robust without centre": RobustScaler(with_centering=False),
    "robust without scale": RobustScaler(with_scaling=False),
}


@pytest.mark.parametrize("name", SCALERS)
def test_scalers(data, name):
    X, _, Y = data
    pipeline = fit(
        make_pipeline(SCALERS[name], MLPRegressor(hidden_layer_sizes=(7,), max_iter=30, random_state=3)), X, Y
    )
    far = 3 * X + 1  # beyond what was fitted: clipping counts
    np.testing.assert_allclose(logits(load_sklearn(pipeline), far), pipeline.predict(far), rtol=1e-9, atol=1e-9)


def test_pipelines_within_pipelines(data):
    X, _, Y = data
    inner = Pipeline([("largest", MaxAbsScaler()), ("nothing", "passthrough"), ("none", None)])
    steps = [("inner", inner), ("robust", RobustScaler()), ("mlp", MLPRegressor(hidden_layer_sizes=(4,), max_iter=9))]
    pipeline = fit(Pipeline(steps), X, Y)
    graph = load_sklearn(pipeline)
    np.testing.assert_allclose(logits(graph, X), pipeline.predict(X), rtol=1e-10, atol=1e-10)
    assert [node.name for node in graph.nodes][:2] == ["inner.largest", "robust"]


def test_the_weights_are_copies(data):
    X, y, _ = data
    mlp = fit(MLPClassifier(hidden_layer_sizes=(7,), max_iter=9, random_state=3, warm_start=True), X, y)
    graph = load_sklearn(mlp)
    before = [array.copy() for node in graph.nodes[::2] for array in (node.layer.weight, node.layer.bias)]
    for array in (*mlp.coefs_, *mlp.intercepts_):
        array += 1
    after = [array for node in graph.nodes[::2] for array in (node.layer.weight, node.layer.bias)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.neural_network", None)
    with pytest.raises(ImportError, match=r"needs scikit-learn: pip install scikit-learn"):
        load_sklearn(MLPClassifier())


def test_not_fitted(data):
    X, _, Y = data
    with pytest.raises(ValueError, match=r"^MLPClassifier\(\) is not fitted: call fit\(X, y\) first$"):
        load_sklearn(MLPClassifier())
    mlp = fit(MLPRegressor(hidden_layer_sizes=(4,), max_iter=9), X, Y)
    with pytest.raises(ValueError, match=r"^StandardScaler\(\) is not fitted"):
        load_sklearn(make_pipeline(StandardScaler(), mlp))


def test_other_estimators(data):
    X, _, Y = data
    with pytest.raises(TypeError, match=r"expected a fitted MLPClassifier, .*got GaussianNB\(\)"):
        load_sklearn(GaussianNB())
    with pytest.raises(TypeError, match="or a pipeline that ends in one"):
        load_sklearn(make_pipeline(StandardScaler(), GaussianNB()))
    with pytest.raises(ValueError, match=r"LogisticRegression\(\) is not fitted"):
        load_sklearn(LogisticRegression())
    pipeline = fit(
        Pipeline([("p", PolynomialFeatures(2)), ("mlp", MLPRegressor(hidden_layer_sizes=(4,), max_iter=9))]), X, Y
    )
    with pytest.raises(UnsupportedLayer, match="is no step that can be explained: transform") as caught:
        load_sklearn(pipeline)
    assert (caught.value.node, caught.value.operator) == ("p", "PolynomialFeatures")


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "model",
    [LogisticRegression(), RidgeClassifier(), LinearSVC(), SGDClassifier(random_state=0)],
    ids=lambda m: type(m).__name__,
)
def test_linear_classifiers(data, model, classes):
    X, y, _ = data
    pipeline = fit(make_pipeline(StandardScaler(), clone(model)), X, np.minimum(y, classes - 1))
    graph = load_sklearn(pipeline)
    z = logits(graph, X)
    np.testing.assert_allclose(
        z.reshape(pipeline.decision_function(X).shape), pipeline.decision_function(X), atol=1e-10
    )
    top = {"LogisticRegression": "sigmoid" if classes == 2 else "softmax"}.get(type(model).__name__)
    assert list(graph.facts.top.values()) == ([] if top is None else [top])
    assert graph.facts.classes == tuple(range(classes))
    # A linear model of scaled columns: the relevance of a column is its scaled value times its coefficient.
    ex = pylrp.load(pipeline).explain(X[:4], target=classes - 1, composite=pylrp.Epsilon(0))
    expected = pipeline[:-1].transform(X[:4]) * np.atleast_2d(pipeline[-1].coef_)[-1]
    np.testing.assert_allclose(ex.relevance, expected, rtol=1e-9)


@pytest.mark.parametrize("model", [LinearRegression(), Ridge(), LinearSVR(), LinearRegression(fit_intercept=False)])
def test_linear_regressors(data, model):
    X, _, Y = data
    several = not isinstance(model, LinearSVR)
    fit(model, X, Y if several else Y[:, 0])
    z = logits(load_sklearn(model), X)
    np.testing.assert_allclose(z.reshape(model.predict(X).shape), model.predict(X), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_poisson_regressor(data):
    X, y, _ = data
    model = fit(PoissonRegressor(), X, y)
    graph = load_sklearn(model)
    assert list(graph.facts.top.values()) == ["exp"]
    np.testing.assert_allclose(np.exp(logits(graph, X)[:, 0]), model.predict(X), rtol=1e-10)


@pytest.mark.parametrize(
    "columns", [[1, 0, 4], slice(1, 4), [True, False, True, False, False, True], slice("b", "d"), ["f", "a"], "c"]
)
def test_columns_are_chosen_and_scaled(data, columns):
    pandas = pytest.importorskip("pandas")
    X, y, _ = data
    table = pandas.DataFrame(X, columns=list("abcdef"))
    whole = make_pipeline(SimpleImputer(), RobustScaler())
    one = [columns] if isinstance(columns, str) else columns
    chooser = ColumnTransformer(
        [("s", StandardScaler(), one), ("w", whole, ["d"]), ("n", "drop", ["e"]), ("p", "passthrough", [0])]
    )
    pipeline = fit(make_pipeline(chooser, MLPClassifier((5,), max_iter=30, random_state=0)), table, y)
    net = pylrp.load(pipeline)
    z = net.forward(table)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(p / p.sum(axis=1, keepdims=True), pipeline.predict_proba(table), rtol=1e-9, atol=1e-12)
    # Each column gets what the scaled columns that are made of it get.
    ex = net.explain(table.iloc[:3], composite="epsilon")
    inner = pylrp.load(pipeline[-1]).explain(chooser.transform(table.iloc[:3]), composite="epsilon")
    made = ColumnTransformer([(n, "passthrough", c) for n, _, c in chooser.transformers if n != "n"])
    source = made.fit(table).transform(pandas.DataFrame([np.arange(6.0)], columns=list("abcdef")))[0].astype(int)
    expected = np.zeros((3, 6))
    np.add.at(expected, (slice(None), source), inner.relevance)
    np.testing.assert_allclose(ex.relevance, expected, rtol=1e-9, atol=1e-12)
    assert net.graph.facts.features == {next(iter(net.graph.inputs)): tuple("abcdef")}


COLUMNS = {
    "numbers": ([("s", StandardScaler(), [3, 0]), ("r", "passthrough", [1]), ("d", "drop", [2])], {}),
    "remainder": ([("s", MinMaxScaler(), [-1, 2])], {"remainder": "passthrough"}),
    "slices, weights": (
        [
            ("p", Pipeline([("a", StandardScaler()), ("b", MinMaxScaler())]), slice(1, 4)),
            ("none", StandardScaler(), []),
        ],
        {"remainder": MaxAbsScaler(), "transformer_weights": {"p": -2.0}},
    ),
    "mask, a column twice": (
        [("m", StandardScaler(), np.arange(6) % 2 == 0), ("t", StandardScaler(with_std=False), [0, 5])],
        {},
    ),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_scaled_apart(data, case):
    X, _, Y = data
    transformers, settings = COLUMNS[case]
    columns = ColumnTransformer(transformers, **settings)
    pipeline = fit(make_pipeline(columns, MLPRegressor(hidden_layer_sizes=(4,), max_iter=9, random_state=1)), X, Y)
    graph = load_sklearn(pipeline)
    assert graph.inputs == {"input": (6,)}
    np.testing.assert_allclose(logits(graph, X), pipeline.predict(X).reshape(len(X), -1), rtol=1e-9, atol=1e-12)
    # A raw column gets what its scaled ones do.
    of = [
        np.flatnonzero(columns.transform(row[None])[0] != columns.transform(np.zeros((1, 6)))[0]) for row in np.eye(6)
    ]
    for composite in ("epsilon", "deep_taylor"):
        raw = pylrp.load(pipeline).explain(X[:3], 0, composite=composite).relevance
        scaled = pylrp.load(pipeline[-1]).explain(columns.transform(X[:3]), 0, composite=composite).relevance
        expected = np.stack([scaled[:, places].sum(axis=1) for places in of], axis=1)
        np.testing.assert_allclose(raw, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_normalizer(data, norm):
    X, _, Y = data
    pipeline = fit(make_pipeline(Normalizer(norm), LinearRegression()), X, Y)
    np.testing.assert_allclose(logits(load_sklearn(pipeline), X), pipeline.predict(X), rtol=1e-9, atol=1e-9)


def test_steps_that_do_more_are_refused(data):
    X, _, Y = data
    clipped = ColumnTransformer([("c", MinMaxScaler(clip=True), [0, 1])], remainder="passthrough")
    for step in (clipped, Normalizer("max"), ColumnTransformer([("p", PolynomialFeatures(2), [0, 1])])):
        with pytest.raises(UnsupportedLayer, match="load the estimator alone"):
            load_sklearn(fit(make_pipeline(step, LinearRegression()), X, Y))
