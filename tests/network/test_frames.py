"""Data frames in and out, shap's explanation, tables of many rows in parts, the summary."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

import pylrp
from pylrp.layers import Dense, ReLU
from pylrp.network import parts

FEATURES = ["age", "pay", "dose", "size"]


def network(dtype=np.float64, classes=3):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(dtype) for shape in ((12, 4), (classes, 12))]
    bias = rng.normal(size=classes).astype(dtype)
    return pylrp.Network([Dense(weights[0]), ReLU(), Dense(weights[1], bias)])


def rows(count=9, dtype=np.float64):
    return np.random.default_rng(1).normal(size=(count, 4)).astype(dtype)


def test_pandas_in_pandas_out():
    pandas = pytest.importorskip("pandas")
    net, x = network(), rows()
    frame = pandas.DataFrame(x, columns=FEATURES, index=[f"row {i}" for i in range(9)])
    ex = net.explain(frame)
    found = ex.to_frame()
    assert list(found.columns) == FEATURES
    assert list(found.index) == list(frame.index)
    np.testing.assert_array_equal(found.to_numpy(), net.explain(x).relevance)
    assert list(ex[2:4].to_frame().index) == ["row 2", "row 3"]
    np.testing.assert_array_equal(ex[5].to_frame().to_numpy(), ex.relevance[5:6])
    assert list(ex[5].to_frame().index) == ["row 5"]
    several = net.explain(frame, targets=[0, 2]).to_frame()
    assert several.index.names == ["sample", "target"]
    np.testing.assert_array_equal(several.loc[("row 3", 2)].to_numpy(), net.explain(x, targets=[0, 2]).relevance[3, 1])
    plain = net.explain(x).to_frame()
    assert list(plain.columns) == ["x0", "x1", "x2", "x3"]
    assert list(plain.index) == list(range(9))


def test_polars_in_polars_out():
    polars = pytest.importorskip("polars")
    pytest.importorskip("pandas")
    net, x = network(), rows()
    frame = polars.DataFrame({name: x[:, i] for i, name in enumerate(FEATURES)})
    ex = net.explain(frame)
    found = ex.to_frame()
    assert type(found) is polars.DataFrame
    assert found.columns == FEATURES
    np.testing.assert_array_equal(found.to_numpy(), ex.relevance)
    several = net.explain(frame, targets=[0, 2]).to_frame()
    assert several.columns == ["sample", "target", *FEATURES]
    assert several["target"].to_list() == [0, 2] * 9
    assert type(ex.to_frame("pandas")).__module__.startswith("pandas")


def test_what_is_no_row_is_refused():
    pytest.importorskip("pandas")
    image = pylrp.Network([pylrp.layers.Flatten(), Dense(np.ones((2, 12)))], input_shape=(1, 3, 4))
    ex = image.explain(np.ones((2, 1, 3, 4)))
    with pytest.raises(ValueError, match="plot"):
        ex.to_frame()
    with pytest.raises(ValueError, match="package"):
        network().explain(rows()).to_frame("arrow")


@pytest.fixture
def shap(monkeypatch):
    """shap's constructor alone: tests/peers has shap itself."""
    made = types.ModuleType("shap")
    made.Explanation = lambda **fields: types.SimpleNamespace(**fields)
    monkeypatch.setitem(sys.modules, "shap", made)


@pytest.mark.usefixtures("shap")
def test_values_and_base_add_up_to_the_output():
    net, x = network(), rows()
    for options in ({}, {"target": 1}, {"composite": "epsilon_plus"}, {"target": 1, "against": 0}):
        ex = net.explain(x, **options)
        found = ex.to_shap()
        logit = np.take_along_axis(ex.output, ex.target[:, None], 1)[:, 0]
        if "against" in options:
            logit = ex.output[:, 1] - ex.output[:, 0]
        np.testing.assert_allclose(found.values.sum(1) + found.base_values, logit, atol=1e-9)
        np.testing.assert_array_equal(found.values, ex.relevance)
        np.testing.assert_array_equal(found.data, x)
    several = net.explain(x, targets=[0, 2])
    found = several.to_shap()
    assert found.values.shape == (9, 4, 2)
    np.testing.assert_allclose(found.values.sum(1) + found.base_values, several.output[:, [0, 2]], atol=1e-9)
    one = net.explain(x[0]).to_shap()
    assert one.values.shape == (1, 4)
    with pytest.raises(ValueError, match="logit"):
        net.explain(x, start="one").to_shap()


@pytest.mark.usefixtures("shap")
def test_two_classes_of_one_logit():
    sklearn = pytest.importorskip("sklearn.linear_model")
    x = rows(40)
    model = sklearn.LogisticRegression().fit(x, x[:, 0] > 0)
    net = pylrp.load(model)
    for target, sign in ((False, -1), (True, 1)):
        found = net.explain(x, target=int(target)).to_shap()
        np.testing.assert_allclose(
            found.values.sum(1) + found.base_values, sign * model.decision_function(x), atol=1e-9
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"composite": "epsilon_plus"},
        {"targets": [0, 2]},
        {"target": "each"},
        {"target": 2, "against": 1},
        {"layers": "all"},
    ],
    ids=str,
)
def test_many_rows_in_parts_have_the_bits_of_one_call(monkeypatch, dtype, options):
    net, x = network(dtype), rows(9001, dtype)
    if options.get("target") == "each":
        options = {"target": np.arange(9001) % 3}
    told = []
    ex = net.explain(x, progress=lambda done, total: told.append((done, total)), **options)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) > 1
    assert told[-1] == (9001, 9001)
    monkeypatch.setattr(parts, "_ROWS", 10**9)
    whole = net.explain(x, **options)
    assert ex.relevance.tobytes() == whole.relevance.tobytes()
    assert ex.output.tobytes() == whole.output.tobytes()
    assert type(ex.target) is type(whole.target)
    np.testing.assert_array_equal(ex.target, whole.target)
    for one, other in zip(
        *([e.ledger] if not isinstance(e.ledger, list) else e.ledger for e in (ex, whole)), strict=True
    ):
        assert one.data.tobytes() == other.data.tobytes()
    for name in whole.layers:
        assert ex.layers[name].tobytes() == whole.layers[name].tobytes()
    assert set(ex.settings) == set(whole.settings)
    np.testing.assert_array_equal(ex.input, x)


def test_an_error_names_the_row_of_the_whole():
    x = rows(9001)
    x[9000, 2] = np.nan
    with pytest.raises(pylrp.NotFinite, match="9000"):
        network().explain(x)


def test_progress_of_images():
    net = pylrp.Network([pylrp.layers.Flatten(), Dense(np.ones((2, 12)))], input_shape=(1, 3, 4))
    x, told = np.random.default_rng(0).normal(size=(20, 1, 3, 4)), []
    from pylrp.network import parts as module

    limit, module._BYTES = module._BYTES, 8
    try:
        ex = net.explain(x, progress=lambda *given: told.append(given))
    finally:
        module._BYTES = limit
    assert told[-1] == (20, 20)
    assert len(told) == 2
    np.testing.assert_array_equal(ex.relevance, net.explain(x).relevance)


def test_summary():
    pytest.importorskip("matplotlib")
    pandas = pytest.importorskip("pandas")
    net = network()
    frame = pandas.DataFrame(rows(50), columns=FEATURES)
    ex = net.explain(frame, target=0)
    ax = pylrp.plot.summary(ex, most=3)
    order = np.argsort(-np.abs(ex.relevance).mean(0))[:3]
    assert [label.get_text() for label in ax.get_yticklabels()] == [FEATURES[i] for i in order[::-1]]
    dots = [np.sort(c.get_offsets()[:, 0]) for c in ax.collections if len(c.get_offsets())]
    for row, feature in zip(dots, order[::-1], strict=True):
        np.testing.assert_allclose(row, np.sort(ex.relevance[:, feature]))
    with pytest.raises(ValueError, match="target"):
        pylrp.plot.summary(ex, target=1)


def test_columns_of_every_kind_of_number():
    """Whole numbers, truth values and pandas's nullable types make an array of objects, or one of no floats."""
    pandas = pytest.importorskip("pandas")
    net, rng = network(), np.random.default_rng(2)
    plain = {"age": rng.integers(0, 9, 6), "pay": rng.random(6), "dose": rng.random(6) > 0.5, "size": rng.random(6)}
    kinds = {"age": "Int64", "pay": "Float64", "dose": "boolean"}
    x = np.stack([plain[name].astype(np.float64) for name in FEATURES], axis=1)
    expected = net.explain(x).relevance
    for frame in (pandas.DataFrame(plain), pandas.DataFrame(plain).astype(kinds)):
        ex = net.explain(frame)
        np.testing.assert_array_equal(ex.relevance, expected)
        assert ex.input.dtype == np.float64
        assert ex.notes == ("x: columns of the data frame were converted into float64",)
        np.testing.assert_array_equal(net.explain(frame.iloc[4]).relevance, net.explain(x[4]).relevance)
    whole = pandas.DataFrame(rng.integers(0, 9, (6, 4)), columns=FEATURES)
    np.testing.assert_array_equal(net.explain(whole).relevance, net.explain(whole.to_numpy() * 1.0).relevance)
    with pytest.raises(TypeError, match="int64"):  # an array of bytes or counts was rather not scaled
        net.explain(whole.to_numpy())
    gap = pandas.DataFrame(plain).astype(kinds)
    gap.loc[3, "pay"] = pandas.NA
    with pytest.raises(pylrp.NotFinite, match=r"x\[3, 1\] is nan"):
        net.explain(gap)


@pytest.mark.parametrize("value", ["much", "1.5", b"2", 1j, np.datetime64("2020-01-01"), [1]])
def test_what_is_no_number_is_told_with_its_column(value):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows(), columns=FEATURES).astype({"dose": object})
    frame.at[5, "dose"] = value
    with pytest.raises(TypeError, match=r"column 'dose' holds .*no number"):
        network().explain(frame)
