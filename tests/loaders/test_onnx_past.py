"""Decoders with inputs for the keys and values of earlier tokens: empty ones are fine, others are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.errors import UnsupportedLayer

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

WORDS, HEADS, EACH, WIDTH = 9, 2, 4, 8
PAST = ("past_key_values.0.key", "past_key_values.0.value")
TEXT = """w = Gather(words, ids); k0 = MatMul(w, wk); q0 = MatMul(w, wq); v0 = MatMul(w, wv); kr = Reshape(k0, split);
k1 = Transpose<perm=[0, 2, 1, 3]>(kr); qr = Reshape(q0, split); q = Transpose<perm=[0, 2, 1, 3]>(qr);
vr = Reshape(v0, split); v1 = Transpose<perm=[0, 2, 1, 3]>(vr); k = Concat<axis=2>(pk, k1); v = Concat<axis=2>(pv, v1);
s = Shape(pk); before = Gather(s, two); n = Cast<to=1>(before); place = Mul(bias, n);
kt = Transpose<perm=[0, 1, 3, 2]>(k);
a0 = MatMul(q, kt); a = Add(a0, place); b = Cast<to=9>(mask); u = Unsqueeze(b, ax); m = Where(u, a, least);
o = Softmax<axis=3>(m); h = MatMul(o, v); t = Transpose<perm=[0, 2, 1, 3]>(h); r = Reshape(t, join);
y = MatMul(r, head)"""


@pytest.fixture(scope="module")
def made() -> Any:
    rng = np.random.default_rng(0)
    shapes = {"words": (WORDS, WIDTH), "head": (WIDTH, 3), **dict.fromkeys(("wq", "wk", "wv"), (WIDTH, WIDTH))}
    constants = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    constants |= {"split": np.array([0, 0, HEADS, EACH]), "join": np.array([0, 0, WIDTH]), "ax": np.array([1, 2])}
    constants |= {"least": np.array(-np.inf, np.float32), "two": np.array(2), "bias": np.array(0.5, np.float32)}
    nodes = [parser.parse_node(" ".join(part.split())) for part in TEXT.split(";")]
    for node in nodes:
        node.input[:] = [{"pk": PAST[0], "pv": PAST[1]}.get(name, name) for name in node.input]
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"]),
            helper.make_tensor_value_info("mask", TensorProto.INT64, ["n", "p + t"]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", HEADS, "p", EACH]) for name in PAST),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "t", 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feeds(length: int, before: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    past = {name: rng.normal(size=(2, HEADS, before, EACH)).astype(np.float32) for name in PAST}
    return {"ids": rng.integers(0, WORDS, (2, length)), "mask": np.ones((2, before + length), int), **past}


@pytest.mark.parametrize("length", [1, 5, 8])
def test_an_empty_past(made, length):
    net, x = pylrp.load(made), feeds(length)
    expected = ReferenceEvaluator(made).run(None, x)[0]
    own = {name: array for name, array in x.items() if name not in PAST}
    maps = []
    for given in (x, own):
        np.testing.assert_allclose(net.forward(given), expected, rtol=1e-4, atol=1e-5)
        maps.append(net.explain(given, target=(length - 1, 0), composite="attnlrp").relevance)
        assert maps[-1].shape == (2, length)
    np.testing.assert_array_equal(*maps)


@pytest.mark.parametrize("length", [5, 8])
def test_a_past_that_holds_tokens(made, length):
    net = pylrp.load(made)
    for call in (net.forward, lambda x: net.explain(x, target=(0, 0), composite="attnlrp")):
        with pytest.raises(UnsupportedLayer) as caught:
            call(feeds(length, before=3))
        assert caught.value.node == PAST[0]


def test_a_saved_network(made, tmp_path):
    net, x = pylrp.load(made), feeds(6)
    net.save(tmp_path / "net.pylrp.npz")
    again = pylrp.load(tmp_path / "net.pylrp.npz")
    np.testing.assert_array_equal(again.forward(x), net.forward(x))
    with pytest.raises(UnsupportedLayer):
        again.forward(feeds(6, before=1))


def test_a_saved_network_of_one_length(made, tmp_path):
    net, x = pylrp.load(made, input_shape={"ids": (6,), "mask": (6,)}), feeds(6)
    assert net.graph.facts.lengths is None
    net.save(tmp_path / "net.pylrp.npz")
    np.testing.assert_array_equal(pylrp.load(tmp_path / "net.pylrp.npz").forward(x), net.forward(x))


def test_a_list_of_samples(made):
    net = pylrp.load(made)
    samples = [{name: array[0] for name, array in feeds(length).items()} for length in (3, 5)]
    ex = net.explain(samples, target=(0, 0), composite="attnlrp")
    assert [each.shape for each in ex.relevance] == [(3,), (5,)]
    samples[1] = {name: array[0] for name, array in feeds(5, before=2).items()}
    with pytest.raises(UnsupportedLayer):
        net.forward(samples)


@pytest.mark.slow
def test_verified(made):
    assert pylrp.load(made).verify(feeds(4), target=(0, 0), composite="attnlrp").ok
