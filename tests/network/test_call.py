"""What a call gives for sequences: relevance of positions, coefficients, heads, masks of entries and of samples."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import small_text

import pylrp
from pylrp.layers import Dense, ReLU
from pylrp.network.requests import Inputs
from pylrp.rules import Epsilon, Flat, Zero

pytest.importorskip("onnx")
MILD = pylrp.Composite("mild", Zero(), {"batchnorm": Epsilon(0.3), "matmul": pylrp.rules.Value()})


@pytest.fixture(scope="module")
def net() -> pylrp.Network:
    return pylrp.load(small_text.model(), dtype="float64")


@pytest.fixture
def x(rng: np.random.Generator) -> dict[str, Any]:
    return small_text.batch(rng, 2, 5)


def test_positions_are_the_share_of_the_table(net, x):
    for composite in ("cp_lrp", "attnlrp", MILD):
        ex = net.explain(x, 1, composite, layers=["x", "words"])
        assert ex.positions.shape == (2, 5)
        np.testing.assert_allclose(ex.positions.sum(1), ex.ledger["x"].position, rtol=1e-9)
        kept = ex.layers["x"].sum(-1) - ex.layers["words"].sum(-1)
        if composite in ("cp_lrp", "attnlrp"):  # nothing else takes a share
            np.testing.assert_allclose(ex.positions, kept, rtol=1e-6, atol=1e-9)
        assert np.abs(ex.positions).min(0).max() > 1e-3
    several = net.explain(x, targets=[2, 1], composite="cp_lrp")
    assert several.positions.shape == (2, 2, 5)
    np.testing.assert_allclose(several.positions[:, 1], net.explain(x, 1, "cp_lrp").positions, rtol=1e-9)
    np.testing.assert_allclose(several[1].positions, several.positions[1])


def test_positions_are_saved(net, x, tmp_path):
    ex = net.explain(x, 1)
    ex.save(tmp_path / "ex.npz")
    np.testing.assert_array_equal(pylrp.Explanation.load(tmp_path / "ex.npz").positions, ex.positions)


def test_a_network_without_tokens_has_no_positions(rng):
    dense = pylrp.Network([Dense(rng.normal(size=(3, 4)))])
    assert dense.explain(rng.normal(size=(2, 4))).positions is None


def test_a_mask_of_heads(net, x):
    whole = net.explain(x, 1, "cp_lrp", layers=["heard"])
    assert whole.layers["heard"].shape == (2, small_text.HEADS, 5, small_text.WIDTH // small_text.HEADS)
    one, other = (net.explain(x, 1, "cp_lrp", masks={"heard": [head]}) for head in (0, 1))
    none = net.explain(x, 1, "cp_lrp", masks={"heard": []})
    np.testing.assert_allclose(
        one.relevance + other.relevance - none.relevance, whole.relevance, atol=1e-9 * np.abs(whole.relevance).max()
    )
    assert np.abs(one.relevance - other.relevance).max() > 1e-3
    np.testing.assert_allclose(one.ledger["heard"].masked, whole.layers["heard"][:, 1].sum((1, 2)), rtol=1e-9)


def test_a_mask_a_sample(net, x):
    expected = [net.explain(x, 1, "cp_lrp", masks={"heard": [head]})[i] for i, head in enumerate((0, 1))]
    by_head = np.eye(2, dtype=bool)
    entries = np.broadcast_to(by_head[:, :, None, None], (2, 2, 5, 3))
    for mask in (by_head, entries, by_head[:, :, None, None], by_head.tolist()):
        ex = net.explain(x, 1, "cp_lrp", masks={"heard": mask})
        for i in range(2):
            np.testing.assert_allclose(ex.relevance[i], expected[i].relevance, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(ex[1].settings["masks"]["heard"], np.asarray(mask)[1])
    several = net.explain(x, targets=[0, 1], composite="cp_lrp", masks={"heard": by_head})
    np.testing.assert_allclose(several.relevance[1, 1], expected[1].relevance, rtol=1e-9, atol=1e-12)


def test_a_mask_of_neurons(net, x):
    neurons = np.zeros((1, 8), bool)
    neurons[0, :3] = True
    ex = net.explain(x, 1, "cp_lrp", masks={"on": neurons}, layers=["on"])
    whole = net.explain(x, 1, "cp_lrp", layers=["on"])
    np.testing.assert_allclose(ex.layers["on"][..., 3:], 0)
    np.testing.assert_allclose(ex.layers["on"][..., :3], whole.layers["on"][..., :3])
    places = np.array([[True], [False], [False], [True], [True]])  # of tokens, whatever the neuron
    np.testing.assert_allclose(
        net.explain(x, 1, "cp_lrp", masks={"on": places & neurons}, layers=["on"]).layers["on"],
        whole.layers["on"] * (places & neurons),
    )


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.ones((2, 2), int), TypeError, "must be of booleans"),
        (np.ones((3, 2), bool), ValueError, r"shape \(3, 2\), a sample of it \(2, 5, 3\)"),
        (np.ones((2, 4, 3), bool), ValueError, r"broadcasts to \(2, 5, 3\)"),
        (np.ones((3, 2, 1, 1), bool), ValueError, r"or to \(2, 2, 5, 3\)"),
    ],
)
def test_masks_that_do_not_fit(net, x, mask, error, message):
    with pytest.raises(error, match=message):
        net.explain(x, 1, masks={"heard": mask})


class TestCoefficients:
    @pytest.fixture
    def dense(self, rng):
        return [rng.normal(size=(6, 5)), rng.normal(size=(3, 6))], rng.normal(size=6)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_are_the_gradient_with_gates_held(self, rng, dense, dtype):
        (first, second), bias = dense
        x = rng.normal(size=(4, 5)).astype(dtype)
        x[0, 2] = 0
        layers = [Dense(first.astype(dtype), bias.astype(dtype), name="z"), ReLU(name="a"), Dense(second.astype(dtype))]
        net = pylrp.Network(layers)
        on = x @ first.T + bias > 0
        hidden = np.stack([np.broadcast_to(second[c], (4, 6)) for c in (2, 0)], axis=1)
        below = hidden * on[:, None]
        several = net.explain(x, targets=[2, 0], composite=Zero())
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype is np.float32 else {"rtol": 1e-9, "atol": 1e-12}
        np.testing.assert_allclose(several.coefficients["input"], below @ first, **tolerance)
        np.testing.assert_allclose(several.coefficients["a"], hidden, **tolerance)  # also of units that are off
        np.testing.assert_allclose(several.coefficients["z"], below, **tolerance)
        assert several.coefficients["input"].dtype == dtype
        np.testing.assert_allclose(several[1].coefficients["input"], (below @ first)[1], **tolerance)
        assert x[0, 2] == 0  # the caller's array stays what it is

    def test_of_attention(self, net, x):
        """c b^T / 2 and a^T c / 2, and P (c - sum P c) through the softmax."""
        ex = net.explain(x, 1, "attnlrp")
        found = {name: ex.coefficients[name] for name in ("heard", "attention", "masked", "v2")}
        execution = net._execution_of(x)
        inputs = Inputs(execution.graph, x)
        values = dict(zip(("attention", "v2"), execution.values_of(inputs, ["attention", "v2"], 1), strict=True))
        P, v = values["attention"].reshape(2, 2, 5, 5), values["v2"].reshape(2, 2, 5, 3)
        c = found["heard"]
        np.testing.assert_allclose(found["attention"], c @ v.swapaxes(2, 3) / 2, atol=1e-9)  # also where P is 0
        np.testing.assert_allclose(found["v2"], P.swapaxes(2, 3) @ c / 2, atol=1e-9)

    def test_there_are_none_where_a_rule_looks_at_constants(self, rng, dense):
        net = pylrp.Network([Dense(dense[0][0]), ReLU(name="a"), Dense(dense[0][1], name="y")])
        ex = net.explain(rng.normal(size=(2, 5)), composite=[Flat(), Zero()])
        with pytest.raises(ValueError, match="'input' has none, Flat"):
            ex.coefficients["input"]
        assert np.isfinite(ex.coefficients["a"]).all()
        with pytest.raises(KeyError, match="is called 'no'"):
            ex.coefficients["no"]
        with pytest.raises(KeyError, match="explain again"):
            pickle.loads(pickle.dumps(ex)).coefficients["y"]
