"""Token ids in a report: words, one number each, samples of any length; the page stays small."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import small_text

import pylrp
from pylrp.report import Report

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def net():
    return pylrp.load(small_text.model(), dtype="float64")


def data(report):
    return json.loads(re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', report.html(), re.DOTALL)[1])


def samples(rng, *lengths):
    return [{name: array[0] for name, array in small_text.batch(rng, 1, n).items()} for n in lengths]


def test_words_have_the_relevance_of_their_tokens(net, rng):
    x = samples(rng, 5, 3)
    tokens = [["[CLS]", "un", "##seen", "<b", "[SEP]"], ["a", "b", "c"]]
    report = Report(net)
    report.add(x, tokens=tokens, top=2, name=["first", "second"])
    ex = net.explain(x[0])
    first, second = data(report)["samples"]
    assert [word[0] for word in first["inputs"][0]["words"]] == ["[CLS]", "unseen", "<b", "[SEP]"]
    assert [word[1] for word in first["inputs"][0]["words"]] == [1, 0, 0, 1]
    R = ex.relevance
    np.testing.assert_allclose(
        first["explanations"][0][0]["maps"][0]["values"], [R[0], R[1] + R[2], R[3], R[4]], rtol=1e-3, atol=1e-6
    )
    assert len(second["inputs"][0]["words"]) == 3
    assert first["explanations"][0][0]["layers"] == []


def test_heads_and_positions_are_shown(net, rng):
    (x,) = samples(rng, 5)
    tokens = ["[CLS]", "un", "##seen", "film", "[SEP]"]
    report = Report(net)
    report.add(x, tokens=tokens, targets=[2, 0], composites=["attnlrp", "cp_lrp"])
    (sample,) = data(report)["samples"]
    for made, composite in zip(sample["explanations"], ("attnlrp", "cp_lrp"), strict=True):
        ex = net.explain(x, targets=[2, 0], composite=composite, layers=net.heads)
        for t in range(2):
            assert made[t]["heads"]["layers"] == ["heard"]
            np.testing.assert_allclose(made[t]["heads"]["values"], [ex.layers["heard"][t].sum(axis=(1, 2))], rtol=1e-5)
            P = ex.positions[t]
            np.testing.assert_allclose(
                made[t]["maps"][0]["positions"], [P[0], P[1] + P[2], P[3], P[4]], rtol=1e-5, atol=1e-9
            )
    plain = Report(net)
    plain.add(net.explain(x, 0).with_tokens(tokens))  # heads were not asked for
    assert data(plain)["samples"][0]["explanations"][0][0]["heads"] is None


def test_explanations_are_taken_as_they_are(net, rng):
    x = samples(rng, 4, 6)
    ex = net.explain(x, targets=[0, 2]).with_tokens([list("abcd"), list("efghij")])
    report = Report(net)
    report.add(ex)
    for i, sample in enumerate(data(report)["samples"]):
        assert [target["index"] for target in sample["targets"]] == [0, 2]
        for t in range(2):
            np.testing.assert_allclose(
                sample["explanations"][0][t]["maps"][0]["values"], ex.relevance[i][t], rtol=1e-3, atol=1e-6
            )
    other = Report(net)
    other.add(net.explain(small_text.batch(rng, 2, 5), 1))  # without tokens: the ids
    assert len(data(other)["samples"]) == 2


def test_200_tokens_and_three_classes_are_small(net, rng):
    report = Report(net)
    report.add(samples(rng, 200)[0], tokens=[f"word{i}" for i in range(200)])
    assert len(report.html().encode()) <= 300_000


def test_explanations_have_settled_what_is_shown(net, rng):
    ex = net.explain(samples(rng, 4)[0], targets=[0, 2])
    for wrong in ({"top": 2}, {"targets": [1]}, {"composites": "epsilon"}, {"convention": "lxt"}):
        report = Report(net)
        with pytest.raises(ValueError, match="those of the explanation"):
            report.add(ex, **wrong)
        assert len(report) == 0


def test_bad_tokens(net, rng):
    with pytest.raises(ValueError, match="2 samples and tokens of 1"):
        Report(net).add(samples(rng, 4, 3), tokens=[list("abcd")])
    with pytest.raises(ValueError, match="pass tokens="):
        Report(net).add(samples(rng, 4), feature_names=list("abcd"))


def test_layers_of_a_text_stand_below_an_output_with_a_name_of_its_own():
    import onnx  # of the module's importorskip

    model = small_text.model()
    scale = onnx.numpy_helper.from_array(np.ones(small_text.WIDTH, np.float32), "scale")
    model.graph.initializer.append(scale)
    at = next(i for i, node in enumerate(model.graph.node) if "r" in node.output)
    model.graph.node[at].output[0] = "summed"
    model.graph.node.insert(at + 1, onnx.helper.make_node("LayerNormalization", ["summed", "scale"], ["r"], axis=-1))
    for node in model.graph.node:
        node.output[:] = ["made" if name == "y" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Identity", ["made"], ["y"]))
    network = pylrp.load(model)
    report = Report(network)
    report.add(samples(np.random.default_rng(0), 5))
    (layer,) = data(report)["samples"][0]["explanations"][0][0]["layers"]
    assert layer["name"] == next(node.name for node in network.graph.nodes if node.layer.rule_kind == "normalisation")
