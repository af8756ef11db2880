"""Lists of samples of unequal length: each result is that of the sample alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_text

import pylrp

pytest.importorskip("onnx")
LENGTHS = (5, 3, 7, 5, 1)


@pytest.fixture(scope="module")
def net() -> pylrp.Network:
    return pylrp.load(small_text.model(), dtype="float64")


@pytest.fixture(scope="module")
def decoder() -> pylrp.Network:
    return pylrp.load(small_text.model("tokens"), dtype="float64")


@pytest.fixture
def x(rng: np.random.Generator) -> list[dict[str, Any]]:
    made = [{name: array[0] for name, array in small_text.batch(rng, 1, length).items()} for length in LENGTHS]
    made[2]["mask"][-1] = 0
    return made


def assert_each_alone(ex: Any, alone: list[Any]) -> None:
    for i, one in enumerate(alone):
        np.testing.assert_allclose(ex.relevance[i], one.relevance, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ex.output[i], one.output, rtol=1e-9)
        np.testing.assert_allclose(ex.positions[i], one.positions, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ex.layers["heard"][i], one.layers["heard"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ex.coefficients["words"][i], one.coefficients["words"], rtol=1e-9, atol=1e-12)
        part = ex[i]
        np.testing.assert_allclose(part.relevance, one.relevance, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(part.ledger.data, one.ledger.data, rtol=1e-7, atol=1e-9)
        assert part.ledger.names == one.ledger.names
        np.testing.assert_array_equal(part.input, one.input)
        np.testing.assert_array_equal(part.target, one.target)


def test_each_as_alone(net, x):
    targets = [0, 2, 1, 1, 0]
    ex = net.explain(x, targets)
    assert [len(row) for row in ex.relevance] == list(LENGTHS)
    assert len(ex) == 5
    assert isinstance(ex.output, np.ndarray)
    assert ex.target.tolist() == targets
    assert_each_alone(ex, [net.explain(sample, target) for sample, target in zip(x, targets, strict=True)])
    assert_each_alone(net.explain(x), [net.explain(sample) for sample in x])
    np.testing.assert_allclose(net.forward(x), [net.forward(sample) for sample in x], rtol=1e-9)


def test_options_by_sample(net, x):
    masks = {"heard": np.eye(2, dtype=bool)[[0, 1, 1, 0, 0]]}
    ex = net.explain(x, [0, 2, 1, 1, 0], "cp_lrp", against=[1, 0, 2, 0, 2], masks=masks)
    for i, sample in enumerate(x):
        one = net.explain(sample, [0, 2, 1, 1, 0][i], "cp_lrp", against=[1, 0, 2, 0, 2][i],
                          masks={"heard": np.flatnonzero(masks["heard"][i])})  # fmt: skip
        np.testing.assert_allclose(ex.relevance[i], one.relevance, rtol=1e-9, atol=1e-12)
        assert ex[i].settings["against"] == [1, 0, 2, 0, 2][i]
    several = net.explain(x, targets=[2, [0, 1, 2, 0, 1]])
    for i, sample in enumerate(x):
        one = net.explain(sample, targets=[2, [0, 1, 2, 0, 1][i]])
        np.testing.assert_allclose(several.relevance[i], one.relevance, rtol=1e-9, atol=1e-12)
        assert several.target[i].tolist() == [2, [0, 1, 2, 0, 1][i]]
    arrays = [row.copy() for row in np.random.default_rng(1).normal(size=(5, 3))]
    for given in (arrays, np.array(arrays)):
        ex = net.explain(x, given)
        np.testing.assert_allclose(ex.relevance[3], net.explain(x[3], arrays[3]).relevance, rtol=1e-9, atol=1e-12)


def test_a_mask_of_heads_is_one_for_all(net, x):
    """As many samples as heads: the mask's first axis are heads, whatever its length."""
    pair, mask = x[:2], {"heard": np.array([True, False])[:, None, None]}
    ex = net.explain(pair, 1, "cp_lrp", masks=mask)
    for i, sample in enumerate(pair):
        alone = net.explain(sample, 1, "cp_lrp", masks=mask).relevance
        np.testing.assert_allclose(ex.relevance[i], alone, rtol=1e-9, atol=1e-12)


def test_entries_by_sample(decoder, x):
    targets = [(-1, 3), (0, 1), {(2, 1): 1, (-1, 4): -1}, (4, 0), (0, 10)]
    ex = decoder.explain(x, targets)
    assert [array.shape for array in ex.output] == [(n, small_text.WORDS) for n in LENGTHS]
    assert [array.shape for array in decoder.forward(x)] == [(n, small_text.WORDS) for n in LENGTHS]
    for i, (sample, target) in enumerate(zip(x, targets, strict=True)):
        np.testing.assert_allclose(ex.relevance[i], decoder.explain(sample, target).relevance, rtol=1e-9, atol=1e-12)
    last = decoder.explain(x, (-1, 3))
    np.testing.assert_allclose(last.relevance[2], decoder.explain(x[2], (-1, 3)).relevance, rtol=1e-9, atol=1e-12)
    starts = [np.random.default_rng(i).normal(size=(n, small_text.WORDS)) for i, n in enumerate(LENGTHS)]
    given = decoder.explain(x, starts)
    np.testing.assert_allclose(given.relevance[4], decoder.explain(x[4], starts[4]).relevance, rtol=1e-9, atol=1e-12)


def test_arrays_of_one_input(rng):
    onnx = pytest.importorskip("onnx")
    model = small_text.model()
    del model.graph.input[1]  # no mask
    seen = next(node for node in model.graph.node if node.op_type == "Cast")
    seen.CopyFrom(onnx.helper.make_node("GreaterOrEqual", ["ids", "first"], ["seen"]))
    net = pylrp.load(model, dtype="float64")
    ids = [rng.integers(0, small_text.WORDS, length) for length in LENGTHS]
    ex = net.explain(ids, 1)
    for given in (ids, [array.tolist() for array in ids], [array[None] for array in ids]):
        for i, array in enumerate(ids):
            np.testing.assert_allclose(net.explain(given, 1).relevance[i], net.explain(array, 1).relevance, atol=1e-12)
    assert isinstance(ex.relevance, list)
    equal = net.explain([ids[0], ids[3]], 1)  # a batch, as ever
    assert equal.relevance.shape == (2, 5)


def test_equal_lengths_give_arrays(net, x):
    ex = net.explain([x[0], x[3]], 1)
    assert ex.relevance.shape == (2, 5)
    assert ex.layers["heard"].shape == (2, 2, 5, 3)


def test_are_saved(net, x, tmp_path):
    ex = net.explain(x, targets=[0, 1], layers=["heard"])
    ex.save(tmp_path / "ex.npz")
    again = pylrp.Explanation.load(tmp_path / "ex.npz")
    for i in range(5):
        np.testing.assert_array_equal(again.relevance[i], ex.relevance[i])
        np.testing.assert_array_equal(again[i].layers["heard"], ex.layers["heard"][i])
        np.testing.assert_array_equal(again[i].input, x[i]["ids"])


def test_bad_lists(net, x):
    with pytest.raises(ValueError, match="target has 2 entries, x has 5 samples"):
        net.explain(x, [0, 1])
    with pytest.raises(ValueError, match=r"x\[1\] has inputs ids, the network takes ids, mask"):
        net.explain([x[0], {"ids": x[1]["ids"]}])
    with pytest.raises(ValueError, match=r"x\[0\]\['ids'\] has shape \(2, 5\): in a list each entry is one sample"):
        net.explain([{"ids": np.zeros((2, 5), int), "mask": np.ones((2, 5), int)}])
    with pytest.raises(pylrp.NotInVocabulary):
        net.explain([x[0], {"ids": np.array([99]), "mask": np.ones(1, int)}])
