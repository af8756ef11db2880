"""Pipelines of tables: gaps, words, projections; the pipeline's own prediction, relevance worked out by hand."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

import pylrp
from pylrp.network.frames import codes
from pylrp.network.identity import fingerprint

# ruff: noqa: E402  what they need comes first
pytest.importorskip("sklearn", reason='pip install ".[sklearn]"')
pandas = pytest.importorskip("pandas")

from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)

N = 240
NUMBERS, WORDS = ["age", "pay", "dose"], ["town", "sex"]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "age": rng.normal(50, 10, N),
            "town": rng.choice(["A", "B", "C", "D"], N, p=[0.5, 0.3, 0.17, 0.03]),
            "pay": rng.normal(size=N),
            "sex": rng.choice(["f", "m"], N),
            "dose": rng.normal(size=N) * 3,
        },
        index=[f"patient {i}" for i in range(N)],
    )
    y = (frame.age > 50).astype(int) + (frame.town == "A")
    frame.loc[frame.index[::7], "pay"] = np.nan
    frame.loc[frame.index[::11], "town"] = None
    return frame, y.to_numpy()


def numeric():
    return make_pipeline(SimpleImputer(), StandardScaler())


def words(**options):
    return make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(**options))


def mixed(number=None, word=None, **options):
    parts = [("numbers", number or numeric(), NUMBERS), ("words", word or words(), WORDS)]
    return ColumnTransformer(parts, **options)


FRONTS = {
    "imputer, scaler; imputer, one-hot": lambda: mixed(),
    "one-hot without the first": lambda: mixed(word=words(drop="first")),
    "one-hot if binary": lambda: mixed(word=words(drop="if_binary")),
    "one-hot with rare ones": lambda: mixed(word=words(min_frequency=20, handle_unknown="infrequent_if_exist")),
    "one-hot of gaps": lambda: mixed(word=OneHotEncoder(handle_unknown="ignore")),
    "ordinal": lambda: mixed(word=make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), OrdinalEncoder())),
    "indicator": lambda: mixed(number=make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())),
    "scaler before imputer": lambda: mixed(number=make_pipeline(StandardScaler(), SimpleImputer(strategy="median"))),
    "neighbours": lambda: mixed(number=make_pipeline(StandardScaler(), KNNImputer(n_neighbors=3), MinMaxScaler())),
    "PCA": lambda: mixed(number=make_pipeline(SimpleImputer(), StandardScaler(), PCA(2))),
    "PCA, whitened": lambda: mixed(number=make_pipeline(SimpleImputer(), PCA(2, whiten=True))),
    "weights of transformers": lambda: mixed(transformer_weights={"words": 0.5}),
    "SVD behind all": lambda: make_pipeline(mixed(), TruncatedSVD(4)),
    "choice behind all": lambda: make_pipeline(mixed(), SelectKBest(f_classif, k=5)),
    "scaler behind all": lambda: make_pipeline(mixed(word=words(sparse_output=False)), StandardScaler()),
    "union": lambda: mixed(number=make_pipeline(SimpleImputer(), FeatureUnion([("p", PCA(1)), ("s", RobustScaler())]))),
    "rest passed through": lambda: make_pipeline(
        ColumnTransformer([("words", words(), WORDS), ("none", "drop", ["pay"])], remainder="passthrough")
    ),
}


def fitted(front, table, model=None):
    frame, y = table
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not converge, nor need it
        return make_pipeline(front, model or MLPClassifier((9,), max_iter=15, random_state=0)).fit(frame, y)


def probabilities(ex):
    exponent = np.exp(ex.output - ex.output.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", FRONTS)
def test_predicts_as_the_pipeline_and_accounts_for_all(table, name):
    frame, _ = table
    pipeline = fitted(FRONTS[name](), table)
    net = pylrp.load(pipeline)
    ex = net.explain(frame, composite="epsilon")
    np.testing.assert_allclose(probabilities(ex), pipeline.predict_proba(frame), atol=1e-9)
    assert ex.features == tuple(frame.columns)
    assert ex.relevance.shape == frame.shape
    explained = np.take_along_axis(ex.output, ex.target[:, None], 1)[:, 0]
    absorbed = sum(row.absorbed for row in ex.ledger)
    np.testing.assert_allclose(ex.relevance.sum(1) + absorbed, explained, atol=1e-7)
    wide = net.explain(frame, composite="epsilon", expanded=True)
    assert len(wide.features) == wide.relevance.shape[1]
    for column, label in enumerate(frame.columns):
        own = [i for i, feature in enumerate(wide.features) if feature.split("=")[0].split(" is ")[0] == label]
        np.testing.assert_allclose(ex.relevance[:, column], wide.relevance[:, own].sum(1), atol=1e-12)


def test_relevance_by_hand(table):
    """A linear model: of each column sum of weight times feature, of words the weight of the category."""
    frame, _ = table
    model = LogisticRegression(max_iter=200)
    pipeline = fitted(mixed(), table, model)
    net = pylrp.load(pipeline)
    ex = net.explain(frame, target=2, rules=pylrp.Zero())
    features = pipeline[0].transform(frame)
    features = features.toarray() if hasattr(features, "toarray") else features
    shares = features * model.coef_[2]
    names = pipeline[0].get_feature_names_out()
    for column, label in enumerate(frame.columns):
        own = [i for i, name in enumerate(names) if name.split("__")[1].split("_")[0] == label]
        np.testing.assert_allclose(ex.relevance[:, column], shares[:, own].sum(1), atol=1e-9)
    wide = net.explain(frame, target=2, rules=pylrp.Zero(), expanded=True)
    np.testing.assert_allclose(wide.relevance, shares, atol=1e-9)
    assert wide.features[:4] == ("age", "pay", "dose", "town=A")


def test_centring_passes_and_the_projection_has_weights(table):
    frame, y = table
    X = frame[["age", "dose"]].to_numpy()
    pca = PCA(2).fit(X)
    model = LogisticRegression().fit(pca.transform(X), y)
    ex = pylrp.load(make_pipeline(pca, model)).explain(X, target=1, rules=pylrp.Epsilon(0.01))
    # R of the components, then of the centred columns: epsilon rule of the projection
    z = pca.transform(X)
    logit = (z * model.coef_[1]).sum(1) + model.intercept_[1]
    top = z * model.coef_[1] * (logit / (logit + np.where(logit < 0, -0.01, 0.01)))[:, None]
    below = top / (z + np.where(z < 0, -0.01, 0.01))
    np.testing.assert_allclose(ex.relevance, (X - pca.mean_) * (below @ pca.components_), atol=1e-9)


def test_gaps_are_filled_before_and_nowhere_else(table):
    frame, _ = table
    net = pylrp.load(fitted(mixed(), table))
    assert np.isfinite(net.explain(frame).relevance).all()
    with pytest.raises(pylrp.NotFinite, match="dose"):
        pylrp.load(
            fitted(ColumnTransformer([("n", "passthrough", ["age", "dose"]), ("w", words(), WORDS)]), table)
        ).explain(frame.assign(dose=np.nan))
    unknown = frame.assign(town="Z")
    with pytest.raises(ValueError, match="Z"):
        net.explain(unknown)


def test_columns_in_another_order_rows_and_arrays(table):
    frame, _ = table
    net = pylrp.load(fitted(mixed(), table))
    ex = net.explain(frame)
    turned = frame[["sex", "dose", "pay", "town", "age"]]
    other = net.explain(turned)
    assert other.notes
    np.testing.assert_array_equal(other.to_frame()[list(frame.columns)].to_numpy(), ex.relevance)
    np.testing.assert_array_equal(net.explain(frame.to_numpy(dtype=object)).relevance, ex.relevance)
    one = net.explain(frame.iloc[3])
    assert one.relevance.shape == (5,)
    np.testing.assert_allclose(one.relevance, ex[3].relevance)
    np.testing.assert_allclose(net.forward(frame), ex.output)
    nullable = frame.convert_dtypes()
    np.testing.assert_allclose(net.explain(nullable).relevance, ex.relevance)
    polars = pytest.importorskip("polars")
    found = net.explain(polars.DataFrame({c: [None if pandas.isna(v) else v for v in frame[c]] for c in frame}))
    np.testing.assert_allclose(found.relevance, ex.relevance)
    assert type(found.to_frame()).__module__.startswith("polars")


def test_expanded_by_the_loader_several_targets_and_saved(table, tmp_path):
    frame, _ = table
    pipeline = fitted(mixed(), table)
    net, wide = pylrp.load(pipeline), pylrp.load(pipeline, expanded=True)
    several = net.explain(frame, targets=[0, 2])
    assert several.relevance.shape == (N, 2, 5)
    np.testing.assert_allclose(several.relevance[:, 1], net.explain(frame, 2).relevance, atol=1e-12)
    assert wide.explain(frame).relevance.shape[1] > 5
    np.testing.assert_array_equal(wide.explain(frame, expanded=False).relevance, net.explain(frame).relevance)
    again = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(again.explain(frame).relevance, net.explain(frame).relevance)
    assert fingerprint(again.graph) == fingerprint(net.graph)
    several.save(tmp_path / "ex.npz")
    loaded = pylrp.Explanation.load(tmp_path / "ex.npz")
    np.testing.assert_array_equal(loaded.relevance, several.relevance)
    with pytest.raises(TypeError, match="pipeline"):
        net.save(tmp_path / "net.pylrp.npz")
    with pytest.raises(ValueError, match="expanded"):
        pylrp.Network([pylrp.layers.Dense(np.eye(2))]).explain(np.ones(2), expanded=True)


def test_an_imputer_of_nan_leaves_none_as_it_is():
    """As pandas 2 holds missing words: scikit-learn encodes None as a category behind it."""
    frame = pandas.DataFrame({"word": pandas.Series(["A", "B", None, "A", "B", "A"] * 5, dtype=object)})
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    pipeline = make_pipeline(words, LogisticRegression()).fit(frame, [0, 1, 1, 0, 1, 0] * 5)
    found = pylrp.load(pipeline).forward(frame)
    np.testing.assert_allclose(np.ravel(found), pipeline.decision_function(frame), atol=1e-9)


def test_columns_that_no_step_reads_may_hold_words(table):
    frame, y = table
    frame = frame.assign(sex=frame.sex == "f")
    before = ColumnTransformer([("n", StandardScaler(), ["dose"]), ("p", "passthrough", ["sex"])])
    pipeline = make_pipeline(before, FunctionTransformer(), LogisticRegression()).fit(frame, y > 0)
    ex = pylrp.load(pipeline).explain(frame, target=1, composite="epsilon")
    np.testing.assert_allclose(ex.output[:, 0], pipeline.decision_function(frame), atol=1e-12)
    others = [i for i, name in enumerate(frame.columns) if name not in ("dose", "sex")]
    assert not ex.relevance[:, others].any()


def test_nullable_columns_with_gaps(table):
    """pandas's NA is no truth value and equals nothing."""
    rng = np.random.default_rng(3)
    plain = pandas.DataFrame({"dose": rng.normal(size=60), "count": rng.integers(0, 5, 60).astype(float)})
    plain.loc[::7, "count"] = np.nan
    nullable = plain.astype({"dose": "Float64", "count": "Int64"})
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression()).fit(nullable, plain.dose > 0)
    net = pylrp.load(pipeline)
    ex = net.explain(nullable)
    np.testing.assert_array_equal(ex.relevance, net.explain(plain).relevance)
    np.testing.assert_allclose(ex.output[:, 0], pipeline.decision_function(nullable), atol=1e-12)
    found = codes(np.asarray(ex.input)[:, 1])
    np.testing.assert_array_equal(found, plain["count"].to_numpy())
