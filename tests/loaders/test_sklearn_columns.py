"""Steps that make each feature of one column: the pipeline's own prediction, and the sum over a column's features."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import pylrp

# ruff: noqa: E402  what they need comes first
pytest.importorskip("sklearn", reason='pip install ".[sklearn]"')
pandas = pytest.importorskip("pandas")

from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA, FastICA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from pylrp.errors import UnsupportedLayer

N = 150


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {"a": rng.normal(3, 1, N), "b": rng.gamma(2, 1, N), "c": rng.integers(0, 9, N), "d": rng.normal(size=N)}
    )
    return frame, np.digitize(frame.a - 0.3 * frame.b, [1.8, 2.8])


COLUMNWISE = {
    "power": PowerTransformer(),
    "quantile": QuantileTransformer(n_quantiles=30),
    "binary": Binarizer(threshold=2),
    "bins": KBinsDiscretizer(4),
    "dense bins": make_pipeline(StandardScaler(), KBinsDiscretizer(3, encode="onehot-dense")),
    "numbers of bins": KBinsDiscretizer(3, encode="ordinal"),
    "splines": SplineTransformer(4, degree=2, include_bias=False),
    "numpy": make_pipeline(FunctionTransformer(np.exp2), StandardScaler()),
    "several": make_pipeline(PowerTransformer(), SplineTransformer(3), KBinsDiscretizer(2, strategy="uniform")),
}


def scores(net: pylrp.Network, frame) -> np.ndarray:
    return np.asarray(net.forward(frame))


@pytest.mark.filterwarnings("ignore:Bins whose width are too small")
@pytest.mark.filterwarnings("ignore:The current default behavior, quantile_method")
@pytest.mark.parametrize("name", COLUMNWISE)
def test_a_column_has_the_sum_over_its_features(table, name):
    frame, y = table
    pipeline = make_pipeline(COLUMNWISE[name], LogisticRegression(max_iter=300)).fit(frame, y)
    net = pylrp.load(pipeline)
    np.testing.assert_allclose(scores(net, frame), pipeline.decision_function(frame), rtol=1e-10, atol=1e-10)
    ex = net.explain(frame, target=1, rules=pylrp.Zero())
    for column in frame:  # each column alone decides its features: the others' are those of the first row
        alone = pandas.concat([frame.iloc[[0]]] * N, ignore_index=True)
        alone[column] = frame[column].to_numpy()
        moved = pipeline.decision_function(alone)[:, 1] - pipeline.decision_function(alone)[0, 1]
        i = list(frame).index(column)
        np.testing.assert_allclose(ex.relevance[:, i] - ex.relevance[0, i], moved, rtol=1e-6, atol=1e-8)


def test_indicators_of_gaps_beside_the_imputer(table):
    """As scikit-learn's user guide has it."""
    frame, y = table[0].copy(), table[1]
    frame.loc[::4, "b"] = np.nan
    frame.loc[1::5, "d"] = np.nan
    both = FeatureUnion([("filled", SimpleImputer()), ("gaps", MissingIndicator())])
    pipeline = make_pipeline(both, LogisticRegression(max_iter=300)).fit(frame, y)
    net = pylrp.load(pipeline)
    np.testing.assert_allclose(scores(net, frame), pipeline.decision_function(frame), rtol=1e-10)
    ex = net.explain(frame, target=2, rules=pylrp.Zero(), expanded=True)
    assert ex.features == ("a", "b", "c", "d", "b is missing", "d is missing")
    weights = pipeline[-1].coef_[2]
    np.testing.assert_allclose(ex.relevance, pipeline[:-1].transform(frame) * weights, rtol=1e-6, atol=1e-9)


def test_target_encoders(table):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    if not hasattr(preprocessing, "TargetEncoder"):
        pytest.skip("scikit-learn 1.3")
    frame, y = table[0].copy(), table[1]
    frame["town"] = np.random.default_rng(1).choice(["A", "B", "C"], N)
    for classes in (y, y > 0):
        encoder = preprocessing.TargetEncoder()
        before = ColumnTransformer([("town", encoder, ["town"]), ("rest", StandardScaler(), ["a", "b"])])
        pipeline = make_pipeline(before, LogisticRegression(max_iter=300)).fit(frame, classes)
        net = pylrp.load(pipeline)
        wanted = pipeline.decision_function(frame).reshape(N, -1)
        np.testing.assert_allclose(scores(net, frame).reshape(N, -1), wanted, rtol=1e-10, atol=1e-12)
        ex = net.explain(frame, target=1, rules=pylrp.Zero())
        places = slice(0, 3 if wanted.shape[1] > 1 else 1)
        weights = pipeline[-1].coef_[1 if wanted.shape[1] > 1 else 0][places]
        by_hand = (before.transform(frame)[:, places] * weights).sum(1)
        np.testing.assert_allclose(ex.relevance[:, list(frame).index("town")], by_hand, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "projection",
    [
        FastICA(2, random_state=0),
        FastICA(whiten=False, random_state=0, max_iter=2000, tol=0.1),
        GaussianRandomProjection(3, random_state=0),
        SparseRandomProjection(3, density=0.5, random_state=0),
        PCA(3, whiten=True),
    ],
    ids=str,
)
def test_projections(table, projection):
    frame, y = table
    pipeline = make_pipeline(StandardScaler(), projection, LinearDiscriminantAnalysis()).fit(frame, y)
    net = pylrp.load(pipeline)
    np.testing.assert_allclose(scores(net, frame), pipeline.decision_function(frame), rtol=1e-8, atol=1e-10)


def test_discriminants_have_the_classes_probabilities(table):
    frame, y = table
    for classes in (y, y > 0):
        model = LinearDiscriminantAnalysis().fit(frame, classes)
        z = np.asarray(pylrp.load(model).forward(frame))
        z = np.hstack([np.zeros_like(z), z]) if z.shape[1] == 1 else z
        p = np.exp(z - z.max(1, keepdims=True))
        np.testing.assert_allclose(p / p.sum(1, keepdims=True), model.predict_proba(frame), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("function", [lambda x: x - x.mean(axis=1, keepdims=True), np.atleast_2d], ids=["own", "numpy"])
def test_what_may_mix_columns_is_refused(table, function):
    frame, y = table
    pipeline = make_pipeline(FunctionTransformer(function), StandardScaler(), LogisticRegression())
    pipeline.fit(frame.to_numpy(), y)
    with pytest.raises(UnsupportedLayer, match="may mix columns"):
        pylrp.load(pipeline)


def test_what_transforms_the_target_names_what_it_holds(table):
    frame, _ = table
    model = TransformedTargetRegressor(make_pipeline(StandardScaler(), Ridge()), transformer=StandardScaler())
    model.fit(frame[["a", "b"]], frame.c)
    with pytest.raises(TypeError, match=r"model\.regressor_"):
        pylrp.load(model)
    assert pylrp.load(model.regressor_).output_size == 1


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_kept_on_request(table, classes):
    frame, y = table
    y = y if classes == 3 else y > 0
    network = MLPClassifier((6,), max_iter=30, random_state=0)
    for model in (LogisticRegression(max_iter=300), network, LinearDiscriminantAnalysis()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has not converged
            pipeline = make_pipeline(StandardScaler(), model).fit(frame, y)
        net = pylrp.load(pipeline, keep_top=True)
        wanted = pipeline.predict_proba(frame)
        np.testing.assert_allclose(net.forward(frame), wanted if classes == 3 else wanted[:, 1:], rtol=1e-8, atol=1e-10)
        assert net.top is None
        assert not net.notes
        ex = net.explain(frame, target=1, rules=pylrp.Zero())
        total = ex.relevance.sum(1) + sum(row.absorbed for row in ex.ledger)
        np.testing.assert_allclose(total, wanted[:, 1], rtol=1e-6, atol=1e-9)


def test_the_exponential_function_is_kept_on_request(table):
    frame, _ = table
    model = make_pipeline(StandardScaler(), PoissonRegressor()).fit(frame[["a", "b"]], frame.c)
    kept = pylrp.load(model, keep_top=True)
    np.testing.assert_allclose(kept.forward(frame[["a", "b"]])[:, 0], model.predict(frame[["a", "b"]]), rtol=1e-8)


def test_an_expanded_explanation_has_the_values_of_its_features(table):
    """So that pictures can colour them, also where the table is explained in parts."""
    frame, y = table[0].copy(), table[1]
    frame["town"] = np.random.default_rng(1).choice(["A", "B", "C"], N)
    before = ColumnTransformer(
        [("town", OneHotEncoder(), ["town"]), ("gaps", SimpleImputer(add_indicator=True), ["a", "d"])]
    )
    frame.loc[::5, "d"] = np.nan
    net = pylrp.load(make_pipeline(before, LogisticRegression(max_iter=300)).fit(frame, y))
    values = before.transform(frame)
    ex = net.explain(frame, target=1, expanded=True)
    assert ex.features == ("town=A", "town=B", "town=C", "a", "d", "d is missing")
    np.testing.assert_array_equal(ex.input, values)
    np.testing.assert_array_equal(net.explain(frame.iloc[3], target=1, expanded=True).input, values[3])
    assert net.explain(frame, target=1).input.shape == frame.shape
    many = pandas.concat([frame] * 120, ignore_index=True)
    whole = net.explain(many, target=1, expanded=True)
    np.testing.assert_array_equal(whole.input[-N:], values)
    np.testing.assert_array_equal(whole.relevance[-N:], ex.relevance)
    assert net.explain(many, target=1).input.shape == many.shape
    ax = pylrp.plot.summary(ex)
    colours = [dots.get_array() for dots in ax.collections]
    assert any(shades is not None and len(shades) and np.ptp(shades) > 0 for shades in colours)
