"""Tables: names of features, order of columns, labels of classes; against epsilon written out by hand in float64."""

from __future__ import annotations

import json
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import pylrp
from pylrp.layers import Dense, ReLU
from pylrp.network.graph import Facts, Graph

pd = pytest.importorskip("pandas")

NAMES = ["age", "height", "weight", "pulse"]
EPSILON = 1e-6


def table(seed: int = 0, rows: int = 80) -> Any:
    values = np.random.default_rng(seed).standard_normal((rows, 4)) * [1, 10, 0.1, 3] + [0, 5, 1, -2]
    return pd.DataFrame(values, columns=NAMES)


def fit(estimator: Any, X: Any, y: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, y)


def classifier(labels: Any, X: Any, **options: Any) -> Any:
    """Fit a perceptron to classes that the second and fourth column decide."""
    kinds = len(labels)
    at = np.digitize(X.to_numpy()[:, 1], np.quantile(X.to_numpy()[:, 1], np.arange(1, kinds) / kinds))
    mlp = MLPClassifier(hidden_layer_sizes=(7,), max_iter=30, random_state=1, **options)
    return fit(mlp, X, np.asarray(labels)[at])


def by_hand(mlp: Any, x: np.ndarray, unit: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits and epsilon's map of one unit of each sample, starting at its logit."""
    W1, W2 = (w.astype(float) for w in mlp.coefs_)
    z1 = x @ W1 + mlp.intercepts_[0]
    a = np.maximum(z1, 0)
    z2 = a @ W2 + mlp.intercepts_[1]
    R = np.zeros_like(z2)
    rows = np.arange(len(x))
    R[rows, unit] = z2[rows, unit]

    def below(a, W, z, R):
        return a * ((R / (z + EPSILON * np.where(z < 0, -1, 1))) @ W.T)

    return z2, below(x, W1, z1, below(a, W2, z2, R))


@pytest.fixture(scope="module")
def fitted() -> tuple[Any, Any]:
    X = table()
    return classifier(["no", "maybe", "yes"], X), X


class TestFeatures:
    def test_are_those_of_the_model(self, fitted: Any) -> None:
        mlp, X = fitted
        net = pylrp.load(mlp)
        assert list(net.graph.facts.features.values()) == [tuple(NAMES)]
        assert net.explain(X.to_numpy(), composite="epsilon").features == tuple(NAMES)
        pipeline = fit(
            make_pipeline("passthrough", StandardScaler(), MLPRegressor(hidden_layer_sizes=(3,), max_iter=5)),
            X,
            X["age"],
        )
        assert list(pylrp.load(pipeline).graph.facts.features.values()) == [tuple(NAMES)]
        plain = fit(MLPRegressor(hidden_layer_sizes=(3,), max_iter=5), X.to_numpy(), X["age"])
        assert not pylrp.load(plain).graph.facts.features

    @pytest.mark.parametrize("order", [[3, 1, 0, 2], [1, 0, 2, 3], [2, 3, 0, 1]])
    def test_columns_in_another_order_are_put_right(self, fitted: Any, order: list[int]) -> None:
        mlp, X = fitted
        net = pylrp.load(mlp)
        z, R = by_hand(mlp, X.to_numpy(), 2)
        other = X.iloc[:, order]
        np.testing.assert_allclose(net.forward(other), z, rtol=1e-10)
        ex = net.explain(other, 2, "epsilon")
        np.testing.assert_allclose(ex.relevance, R[:, order], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(ex.layers[next(iter(net.graph.inputs))], R[:, order], rtol=1e-8, atol=1e-12)
        assert np.array_equal(ex.input, other.to_numpy())
        assert ex.features == tuple(NAMES[i] for i in order)
        assert len(ex.notes) == 1
        several = net.explain(other, targets=[0, 2], composite="epsilon")
        np.testing.assert_allclose(several.relevance[:, 1], R[:, order], rtol=1e-8, atol=1e-12)
        row = net.explain(other.iloc[5], 2, "epsilon")  # a Series is one sample
        np.testing.assert_allclose(row.relevance, R[5, order], rtol=1e-8, atol=1e-12)
        assert not net.explain(X, 2, "epsilon").notes

    def test_bounds_are_in_the_networks_order(self) -> None:
        rng = np.random.default_rng(3)
        W = rng.standard_normal((5, 4))
        graph = Graph.sequential([Dense(W)], (4,))
        facts = Facts(features={"input": tuple(NAMES)})
        net = pylrp.Network.from_graph(graph.changed(facts=facts))
        X = table()
        low, high = X.to_numpy().min(axis=0), X.to_numpy().max(axis=0)
        c = X.to_numpy()[:, None] * W - low * np.maximum(W, 0) - high * np.minimum(W, 0)
        z = c.sum(axis=2)
        R = np.einsum("bji,bj->bi", c, (X.to_numpy() @ W.T) / z)
        ex = net.explain(X[NAMES[::-1]], X.to_numpy() @ W.T, pylrp.ZBox(low, high, stabilizer=0))
        np.testing.assert_allclose(ex.relevance, R[:, ::-1], rtol=1e-9)

    @pytest.mark.parametrize(
        ("change", "missing", "unknown", "repeated"),
        [
            (lambda X: X.drop(columns="age"), ("age",), (), ()),
            (lambda X: X.rename(columns={"age": "Age"}), ("age",), ("Age",), ()),
            (lambda X: X.assign(id=1.0), (), ("id",), ()),
            (lambda X: pd.concat([X, X[["pulse"]]], axis=1), (), (), ("pulse",)),
            (lambda X: X.rename(columns={"age": 0}), ("age",), ("0",), ()),
        ],
    )
    def test_other_names_are_errors(self, fitted: Any, change: Any, missing: Any, unknown: Any, repeated: Any) -> None:
        mlp, X = fitted
        net = pylrp.load(mlp)
        for call in (net.forward, net.explain):
            with pytest.raises(pylrp.FeatureMismatch) as caught:
                call(change(X))
            found = caught.value.missing, caught.value.unknown, caught.value.repeated
            assert found == (missing, unknown, repeated)
            again = pickle.loads(pickle.dumps(caught.value))
            assert (again.missing, str(again)) == (missing, str(caught.value))

    def test_without_known_names_columns_are_values(self) -> None:
        W = np.random.default_rng(0).standard_normal((3, 4))
        net, X = pylrp.Network([Dense(W)]), table()[NAMES[::-1]]
        np.testing.assert_allclose(net.forward(X), X.to_numpy() @ W.T, rtol=1e-12)
        ex = net.explain(X, composite="epsilon")
        assert (ex.features, ex.notes) == (tuple(NAMES[::-1]), ())
        assert net.explain(X.to_numpy(), composite="epsilon").features is None

    def test_without_column_names_they_are_values(self, fitted: Any) -> None:
        mlp, X = fitted
        z = by_hand(mlp, X.to_numpy(), 0)[0]
        np.testing.assert_allclose(pylrp.load(mlp).forward(pd.DataFrame(X.to_numpy())), z, rtol=1e-10)
        np.testing.assert_allclose(pylrp.load(mlp).forward(X.to_numpy()), z, rtol=1e-10)

    def test_polars(self, fitted: Any) -> None:
        pl = pytest.importorskip("polars")
        mlp, X = fitted
        z, R = by_hand(mlp, X.to_numpy(), 1)
        other = pl.DataFrame({name: X[name].to_numpy() for name in NAMES[::-1]})
        ex = pylrp.load(mlp).explain(other, 1, "epsilon")
        np.testing.assert_allclose(ex.output, z, rtol=1e-10)
        np.testing.assert_allclose(ex.relevance, R[:, ::-1], rtol=1e-8, atol=1e-12)

    def test_are_saved(self, fitted: Any, tmp_path: Any) -> None:
        mlp, X = fitted
        pylrp.load(mlp).save(tmp_path / "mlp.pylrp.npz")
        ex = pylrp.load(tmp_path / "mlp.pylrp.npz").explain(X[NAMES[::-1]], "yes", "epsilon")
        np.testing.assert_allclose(ex.relevance, by_hand(mlp, X.to_numpy(), 2)[1][:, ::-1], rtol=1e-8)
        ex.save(tmp_path / "ex.npz")
        with np.load(tmp_path / "ex.npz") as file:
            assert file["features"].tolist() == NAMES[::-1]
            assert file["notes"].tolist() == list(ex.notes)


@pytest.fixture(scope="module", params=[("no", "yes"), (0, 1), (1, 2), (-1, 1), (False, True)])
def binary(request: Any) -> Any:
    """Two classes whose one logit has both signs."""
    X = table()
    mlp = classifier(request.param, X)
    mlp.intercepts_[1] -= np.median(by_hand(mlp, X.to_numpy(), 0)[0])
    z, R = by_hand(mlp, X.to_numpy(), 0)
    assert (z < 0).any()
    assert (z > 0).any()
    return mlp.classes_.tolist(), pylrp.load(mlp), X, z, R


class TestTwoClasses:
    def test_the_default_is_the_second(self, binary: Any) -> None:
        _, net, X, z, R = binary
        ex = net.explain(X, composite="epsilon")
        np.testing.assert_allclose(ex.relevance, R, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(ex.output, z, rtol=1e-10)
        assert ex.target.tolist() == [1] * len(X)
        again = net.explain(X, ex.target, "epsilon")
        assert np.array_equal(again.relevance, ex.relevance)

    def test_each_by_its_label(self, binary: Any) -> None:
        labels, net, X, z, R = binary
        for index, sign in ((0, -1), (1, 1)):
            ex = net.explain(X, net.class_index(labels[index]), "epsilon", layers="all")
            np.testing.assert_allclose(ex.relevance, sign * R, rtol=1e-8, atol=1e-12)
            np.testing.assert_allclose(ex.output, z, rtol=1e-10)
            assert ex.target.tolist() == [index] * len(X)
            top = ex.layers[net.graph.outputs[0]]
            np.testing.assert_allclose(top, sign * z, rtol=1e-10)
            # the ledger is of what was handed down
            np.testing.assert_allclose(ex.ledger.data[-1, 0], sign * z[:, 0], rtol=1e-10)
            assert bool(ex.notes) == (index == 0)
            one = net.explain(X.iloc[3], net.class_index(labels[index]), "epsilon")
            np.testing.assert_allclose(one.relevance, sign * R[3], rtol=1e-8, atol=1e-12)

    def test_one_a_sample_and_several(self, binary: Any) -> None:
        labels, net, X, _, R = binary
        index = np.arange(len(X)) % 2
        sign = 2.0 * index - 1
        ex = net.explain(X, net.class_index(np.array(labels)[index]), "epsilon")
        np.testing.assert_allclose(ex.relevance, sign[:, None] * R, rtol=1e-8, atol=1e-12)
        assert ex.target.tolist() == index.tolist()
        both = net.explain(X, targets=[net.class_index(labels[1]), net.class_index(labels[0])], composite="epsilon")
        np.testing.assert_allclose(both.relevance, np.stack([R, -R], axis=1), rtol=1e-8, atol=1e-12)
        assert both.target[0].tolist() == [1, 0]
        assert both.ledger[0].data[-1, 0, 0] == -both.ledger[1].data[-1, 0, 0]

    def test_against_the_other(self, binary: Any) -> None:
        labels, net, X, _, R = binary
        no, yes = map(net.class_index, labels)
        # z - (-z), as the difference of the two maps
        np.testing.assert_allclose(net.explain(X, yes, "epsilon", against=no).relevance, 2 * R, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(net.explain(X, no, "epsilon", against=yes).relevance, -2 * R, rtol=1e-8, atol=1e-12)
        ex = net.explain(X, composite="epsilon", against=no)
        np.testing.assert_allclose(ex.relevance, 2 * R, rtol=1e-8, atol=1e-12)
        json.dumps(ex.settings["against"])

    def test_a_logit_under_a_logistic_function(self) -> None:
        W = np.array([[1.0, -2.0]])
        graph = Graph.sequential([Dense(W, name="z")], (2,)).changed(facts=Facts(top={"z": "sigmoid"}))
        net = pylrp.Network.from_graph(graph)
        x = np.array([1.0, 2.0])
        for target, sign in ((None, 1), (1, 1), (0, -1)):
            np.testing.assert_allclose(net.explain(x, target, "epsilon").relevance, sign * x * W[0], rtol=1e-5)

    def test_one_number_to_predict_is_no_class(self) -> None:
        X = table()
        net = pylrp.load(fit(MLPRegressor(hidden_layer_sizes=(3,), max_iter=5), X, X["age"]))
        one = net.explain(X, composite="epsilon")
        assert np.array_equal(net.explain(X, 0, "epsilon").relevance, one.relevance)
        assert one.target.tolist() == [0] * len(X)
        with pytest.raises(ValueError, match="target 1 is no class"):
            net.explain(X, 1)


class TestLabels:
    def test_of_several_labels(self) -> None:
        X = table()
        Y = np.stack([X["age"] > 0, X["height"] > 5, X["pulse"] > -2], axis=1).astype(int)
        mlp = fit(MLPClassifier((7,), max_iter=20, random_state=0), X, Y)
        net = pylrp.load(mlp)
        for unit in range(3):
            R = by_hand(mlp, X.to_numpy(), unit)[1]
            np.testing.assert_allclose(net.explain(X, unit, "epsilon").relevance, R, rtol=1e-8, atol=1e-12)

    @pytest.mark.parametrize("labels", [(1, 2, 3), (10, 20, 30), (0, 2, 3), (-1, 0, 1), (1.0, 2.0, 3.0)])
    def test_integers_that_are_no_indices(self, labels: Any) -> None:
        X = table()
        mlp = classifier(labels, X)
        net = pylrp.load(mlp)
        assert mlp.classes_.tolist() == list(labels)
        for index, label in enumerate(labels):
            R = by_hand(mlp, X.to_numpy(), index)[1]
            for target in (
                net.class_index(label),
                [net.class_index(label)] * len(X),
                net.class_index([label] * len(X)),
            ):
                np.testing.assert_allclose(net.explain(X, target, "epsilon").relevance, R, rtol=1e-8, atol=1e-12)
        for number in {*range(-2, 4), *map(int, labels)}:
            if number in range(3) and labels[number] == number:
                R = by_hand(mlp, X.to_numpy(), number)[1]
                np.testing.assert_allclose(net.explain(X, number, "epsilon").relevance, R, rtol=1e-8, atol=1e-12)
                continue
            for asked in ({"target": number}, {"targets": [number]}, {"target": [number] * len(X)},
                          {"target": net.class_index(labels[0]), "against": number}):  # fmt: skip
                with pytest.raises(ValueError, match="class_index"):
                    net.explain(X, **asked)
        y = np.asarray(labels)[np.arange(len(X)) % 3]
        assert net.class_index(y).tolist() == (np.arange(len(X)) % 3).tolist()
        ex = net.explain(X, composite="epsilon")
        assert np.array_equal(net.explain(X, ex.target, "epsilon").relevance, ex.relevance)
        assert np.array_equal(net.explain(X.iloc[:4], ex.target[:4], "epsilon").relevance, ex.relevance[:4])
        with pytest.raises(ValueError, match="class_index"):
            net.explain(X, ex.target + 0, "epsilon")

    def test_strings_are_labels_and_integers_indices(self, fitted: Any) -> None:
        mlp, X = fitted
        net = pylrp.load(mlp)
        assert mlp.classes_.tolist() == ["maybe", "no", "yes"]
        assert net.class_index("yes") == 2
        assert net.class_index(["yes", "maybe"]).tolist() == [2, 0]
        R = [by_hand(mlp, X.to_numpy(), unit)[1] for unit in range(3)]
        np.testing.assert_allclose(net.explain(X, "yes", "epsilon").relevance, R[2], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(net.explain(X, 2, "epsilon").relevance, R[2], rtol=1e-8, atol=1e-12)
        each = mlp.predict(X)
        expected = np.stack([R[net.class_index(label)][i] for i, label in enumerate(each)])
        for target in (each, list(each), pd.Series(each), None):
            np.testing.assert_allclose(net.explain(X, target, "epsilon").relevance, expected, rtol=1e-8, atol=1e-12)
        both = net.explain(X, targets=["no", "yes"], composite="epsilon").relevance
        np.testing.assert_allclose(both, np.stack(R[1:], axis=1), rtol=1e-8, atol=1e-12)
        for wrong in ({"target": "Yes"}, {"targets": ["no", "perhaps"]}, {"target": "no", "against": "perhaps"}):
            with pytest.raises(ValueError, match="'maybe', 'no', 'yes'"):
                net.explain(X, **wrong)

    def test_unknown_labels(self) -> None:
        net = pylrp.Network([Dense(np.eye(3)), ReLU()])
        with pytest.raises(ValueError, match="not known"):
            net.class_index("yes")
        with pytest.raises(TypeError, match="integer"):
            net.explain(np.ones(3), "yes")

    def test_an_index_is_of_a_class_only_while_it_is_one(self) -> None:
        X = table()
        net = pylrp.load(classifier((1, 2, 3), X))
        index = net.class_index([3, 1, 2])
        assert type(index[0]) is type(net.class_index(3))
        assert type(index[:2]) is type(index)
        assert type(index + 1) is np.ndarray
        assert type(pickle.loads(pickle.dumps(index))) is type(index)

    def test_names_of_a_pipeline_within_a_pipeline(self) -> None:
        X = table()
        inner = Pipeline([("scale", StandardScaler())])
        mlp = MLPClassifier((4,), max_iter=5, random_state=0)
        pipeline = fit(Pipeline([("inner", inner), ("mlp", mlp)]), X, np.where(X["age"] > 0, "b", "a"))
        net = pylrp.load(pipeline)
        z = net.forward(X[NAMES[::-1]])[:, 0]
        np.testing.assert_allclose(1 / (1 + np.exp(-z)), pipeline.predict_proba(X)[:, 1], rtol=1e-9)
