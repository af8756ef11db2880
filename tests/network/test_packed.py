"""Samples of unequal length packed end to end: one call of the core, and each result that of the sample alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_text

import pylrp
from pylrp import _core

pytest.importorskip("onnx")
LENGTHS = (5, 3, 7, 5, 12)
NEAR = {"float32": 1e-6, "float64": 1e-12}


def samples(rng: np.random.Generator) -> list[dict[str, Any]]:
    made = [{name: array[0] for name, array in small_text.batch(rng, 1, length).items()} for length in LENGTHS]
    made[2]["mask"][-1] = 0
    made[4]["mask"][3] = 0
    return made


@pytest.fixture(scope="module")
def nets() -> dict[str, pylrp.Network]:
    return {}


def load(nets: dict[str, pylrp.Network], kind: str, dtype: str = "float64", **more: bool) -> pylrp.Network:
    key = f"{kind} {dtype} {more}"
    if key not in nets:
        nets[key] = pylrp.load(small_text.model(kind, **more), dtype=dtype)
    return nets[key]


def is_packed(ex: pylrp.Explanation) -> bool:
    return not any("run" in note for note in ex.notes)


def require_each_alone(net: pylrp.Network, x: list[Any], ex: Any, asked: list[dict[str, Any]]) -> None:
    near = NEAR[net.dtype.name]
    for i, (sample, settings) in enumerate(zip(x, asked, strict=True)):
        one = net.explain(sample, **settings)
        scale = max(np.abs(one.output).max(), np.abs(one.relevance).max())
        for found, wanted in (
            (ex.relevance[i], one.relevance), (ex.output[i], one.output), (ex.positions[i], one.positions),
            (ex[i].ledger.data, one.ledger.data), (ex.layers["r"][i], one.layers["r"]),
        ):  # fmt: skip
            np.testing.assert_allclose(found, wanted, rtol=0, atol=4 * near * scale)
        assert ex[i].ledger.names == one.ledger.names
        assert [row.rule for row in ex[i].ledger] == [row.rule for row in one.ledger]
        np.testing.assert_array_equal(ex[i].target, one.target)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["classes", "last", "mean", "masked mean"])
@pytest.mark.parametrize("composite", ["cp_lrp", "attnlrp", "attnlrp_gamma"])
def test_each_as_alone(nets, kind, dtype, composite, rng):
    net, x = load(nets, kind, dtype), samples(rng)
    ex = net.explain(x, composite=composite, layers=["r"])
    assert is_packed(ex)
    require_each_alone(net, x, ex, [{"composite": composite, "layers": ["r"]}] * len(x))
    for found, sample in zip(net.forward(x), x, strict=True):
        np.testing.assert_allclose(found, net.forward(sample), rtol=0, atol=10 * NEAR[dtype] * np.abs(found).max())


@pytest.mark.parametrize("kind", ["classes", "tokens"])
def test_added_to_scores_head_by_head(nets, kind, rng):
    net, x = load(nets, kind, biased=True), samples(rng)
    targets: list[Any] = [(-1, 3), (0, 1), {(2, 1): 1, (-1, 4): -1}, (4, 0), (3, 10)]
    targets = targets if kind == "tokens" else [{1: 1, 2: -1}, {0: 1}, {0: 2.5, 2: 1}, {2: 1}, {0: 1, 1: -1}]
    ex = net.explain(x, targets, "attnlrp", layers=["r"])
    assert is_packed(ex)
    asked = [{"target": target, "composite": "attnlrp", "layers": ["r"]} for target in targets]
    require_each_alone(net, x, ex, asked)


def test_options(nets, rng):
    net, x = load(nets, "classes"), samples(rng)
    masks = {"r": rng.random((5, 1, small_text.WIDTH)) < 0.5, "y": [1]}
    asked = [{"target": 1, "masks": {"r": masks["r"][i], "y": [1]}, "layers": ["r"]} for i in range(5)]
    ex = net.explain(x, 1, masks=masks, layers=["r"])
    assert is_packed(ex)
    require_each_alone(net, x, ex, asked)
    against = [1, 0, 2, 0, 2]
    ex = net.explain(x, [0, 2, 1, 1, 0], against=against, start="one", layers=["r"])
    assert is_packed(ex)
    asked = [
        {"target": t, "against": a, "start": "one", "layers": ["r"]}
        for t, a in zip([0, 2, 1, 1, 0], against, strict=True)
    ]
    require_each_alone(net, x, ex, asked)
    several = net.explain(x, targets=[2, [0, 1, 2, 0, 1]], checkpoint=True)
    assert is_packed(several)
    for i, sample in enumerate(x):
        one = net.explain(sample, targets=[2, [0, 1, 2, 0, 1][i]])
        np.testing.assert_allclose(several.relevance[i], one.relevance, rtol=0, atol=1e-12)
        np.testing.assert_allclose(several[i].ledger[1].data, one.ledger[1].data, rtol=0, atol=1e-12)
    arrays = list(rng.normal(size=(5, small_text.CLASSES)))
    ex = net.explain(x, arrays, layers=["r"])
    assert is_packed(ex)
    require_each_alone(net, x, ex, [{"target": array, "layers": ["r"]} for array in arrays])


@pytest.mark.parametrize("composite", ["cp_lrp", "attnlrp"])
def test_factors_of_tokens(nets, composite, rng):
    net, x = load(nets, "mean", scaled=True), samples(rng)
    ex = net.explain(x, composite=composite, layers=["r"])
    assert is_packed(ex)
    require_each_alone(net, x, ex, [{"composite": composite, "layers": ["r"]}] * len(x))


def test_precision(nets, rng):
    net, x = load(nets, "classes", "float32"), samples(rng)
    ex = net.explain(x, 1, precision="bfloat16")
    assert is_packed(ex)
    for i, sample in enumerate(x):
        one, exact = net.explain(sample, 1, precision="bfloat16"), net.explain(sample, 1)
        atol = 0.05 * np.abs(exact.relevance).max()
        np.testing.assert_allclose(ex.relevance[i], one.relevance, rtol=0, atol=atol)
        assert np.abs(ex.relevance[i] - exact.relevance).max() > 1e-5 * atol


def test_threads_give_equal_bits(nets, rng):
    net, x = load(nets, "mean", "float32"), [*samples(rng), *samples(rng)]
    one, two = (net.explain(x, composite="attnlrp", threads=threads) for threads in (1, 2))
    for i in range(len(x)):
        np.testing.assert_array_equal(one.relevance[i], two.relevance[i])
        np.testing.assert_array_equal(one[i].ledger.data, two[i].ledger.data)


def test_many_samples_in_parts(nets, rng, monkeypatch):
    monkeypatch.setattr("pylrp.network.packed._BYTES", 1)
    net = load(nets, "mean")
    lengths = [140, 3, 150, 152, 8, 300, 140, 3, 97]
    x = [{name: array[0] for name, array in small_text.batch(rng, 1, n).items()} for n in lengths]
    assert net._packs is not None
    assert net._packs.tokens_at_once < sum(lengths)
    ex = net.explain(x, 1, layers=["r"])
    assert is_packed(ex)
    require_each_alone(net, x, ex, [{"target": 1, "layers": ["r"]}] * len(x))


@pytest.mark.parametrize(("kind", "more"), [("largest", {}), ("sum", {}), ("classes", {"neighbours": True})])
def test_what_mixes_tokens_runs_length_by_length(nets, kind, more, rng):
    net, x = load(nets, kind, **more), samples(rng)
    ex = net.explain(x, layers=["r"])
    assert any("one length after the other" in note for note in ex.notes)
    require_each_alone(net, x, ex, [{"layers": ["r"]}] * len(x))
    for found, sample in zip(net.forward(x), x, strict=True):
        np.testing.assert_allclose(found, net.forward(sample), rtol=1e-12)


def test_what_one_sample_has_alone(nets, rng):
    """Attention layer by layer, and a single token, which has no table of positions of its own."""
    net, x = load(nets, "classes"), samples(rng)
    ex = net.explain(x, 1, layers=["r", "heard"])
    assert not is_packed(ex)
    require_each_alone(net, x, ex, [{"target": 1, "layers": ["r", "heard"]}] * len(x))
    x.append({"ids": np.array([3]), "mask": np.ones(1, int)})
    ex = net.explain(x, 1, layers=["r"])
    require_each_alone(net, x, ex, [{"target": 1, "layers": ["r"]}] * len(x))


def test_errors_are_those_of_the_sample(rng):
    model = small_text.model()
    table = next(each for each in model.graph.initializer if each.name == "table")
    onnx = pytest.importorskip("onnx")
    array = onnx.numpy_helper.to_array(table).copy()
    array[7] = 1e30
    table.CopyFrom(onnx.numpy_helper.from_array(array, "table"))
    net, x = pylrp.load(model), samples(rng)
    for sample in x:
        sample["ids"][sample["ids"] == 7] = 0
    assert is_packed(net.explain(x, 1))
    x[1]["ids"][0] = 7
    with pytest.raises(pylrp.NotFinite) as alone:
        net.explain(x[1], 1)
    with pytest.raises(pylrp.NotFinite) as listed:
        net.explain(x, 1)
    assert listed.value.what == alone.value.what


@pytest.mark.parametrize("segments", [[[0, 2], [0, 2], [0, 1]], [[0, 4], [0, 4], [0, 4]], [[0, 1.5]] * 3, [[0, 0]] * 3])
def test_segments_that_do_not_cover_the_rows(segments):
    layouts = [([4], [0], 0), ([2], [0], 0), ([4], [0], 0)]
    graph = _core.Graph("float64", layouts, [("segments", {"pick": 3}, [0, 1])])
    with pytest.raises(_core.CoreError, match="segments"):
        graph.forward([np.ones((3, 4)), np.array(segments, np.float64)], [2], 1)
    with pytest.raises(_core.CoreError):
        _core.Graph("float64", layouts, [("segments", {"pick": 4}, [0, 1])])
