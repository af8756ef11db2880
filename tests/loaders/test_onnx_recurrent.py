"""ONNX's LSTM, GRU and RNN: onnx's own node cases, and where the batch and the steps stand in a file."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")
parser = pytest.importorskip("onnx.parser")


def _cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case import node
        from onnx.backend.test.case.node import gru, lstm, rnn  # noqa: F401  # make their cases when they are read
    # collect_testcases() makes those of all operators, which takes half a minute.
    return [case for case in node._NodeTestCases if case.name.split("_")[1] in ("lstm", "gru", "rnn", "simple")]


CASES = {case.name: case for case in _cases()}


@pytest.mark.parametrize("name", CASES)
def test_node_cases(name: str) -> None:
    case = CASES[name]
    (inputs, expected), *_ = case.data_sets
    graph, made = case.model.graph, onnx.ModelProto()
    made.CopyFrom(case.model)
    del made.graph.input[:]
    made.graph.input.append(graph.input[0])
    for info, array in list(zip(graph.input, inputs, strict=True))[1:]:
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), info.name))
    layout = {each.name: onnx.helper.get_attribute_value(each) for each in graph.node[0].attribute}.get("layout", 0)
    net = pylrp.load(made)
    x = np.moveaxis(inputs[0], 0 if layout else 1, 0)
    found = net.forward(x)
    found = found if isinstance(found, dict) else {graph.output[0].name: found}
    for info, array in zip(graph.output, expected, strict=True):
        axis = 0 if layout else {"Y": 2}.get(info.name, 1)
        np.testing.assert_allclose(found[info.name], np.moveaxis(array, axis, 0), atol=1e-6)


def _model(
    body: str, inputs: str, outputs: str, *, seed: int = 0, gates: int = 4, directions: int = 1, **more: Any
) -> Any:
    rng = np.random.default_rng(seed)
    units, features = 3, 4
    arrays = {
        "W": rng.normal(size=(directions, gates * units, features)),
        "R": rng.normal(size=(directions, gates * units, units)),
        "B": rng.normal(size=(directions, 2 * gates * units)),
        "V": rng.normal(size=(directions * units, 2)),
        **more,
    }
    lines = body.replace(";", "\n")
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({outputs}) {{ {lines} }}')
    for name, array in arrays.items():
        array = np.asarray(array)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def _reference(model: Any, feeds: dict[str, Any]) -> list[Any]:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, feeds)


def test_steps_on_axis_0() -> None:
    """The usual file: (steps, batch, features), states as inputs; here the batch comes first everywhere."""
    body = "Y, H, C = LSTM<hidden_size=3>(x, W, R, B, , h, c); S = Squeeze(Y, one); y = MatMul(S, V)"
    inputs = "float[5, n, 4] x, float[1, n, 3] h, float[1, n, 3] c"
    model = _model(body, inputs, "float[a, b, d] y, float[a, b, d] H", one=np.array([1]))
    net = pylrp.load(model)
    assert net.graph.inputs == {"x": (5, 4), "h": (1, 3), "c": (1, 3)}
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 5, 4)).astype(np.float32)
    h, c = (rng.normal(size=(2, 1, 3)).astype(np.float32) for _ in "hc")
    y, last = _reference(model, {name: np.moveaxis(array, 0, 1) for name, array in {"x": x, "h": h, "c": c}.items()})
    found = net.forward({"x": x, "h": h, "c": c})
    np.testing.assert_allclose(found["y"], np.moveaxis(y, 1, 0), atol=1e-6)
    np.testing.assert_allclose(found["H"], np.moveaxis(last, 1, 0), atol=1e-6)
    ex = net.explain({"x": x, "h": h, "c": c}, output="y", target=(4, 1))
    assert {name: array.shape for name, array in ex.relevance.items()} == {
        name: a.shape for name, a in (("x", x), ("h", h), ("c", c))
    }
    bias = sum(row.bias + row.stabilizer for row in ex.ledger)
    total = sum(array.reshape(2, -1).sum(axis=1) for array in ex.relevance.values())
    np.testing.assert_allclose(total + bias, ex.output[:, 4, 1], atol=1e-4)
    assert sum("axis 1" in note for note in net.notes) >= 3


def test_one_sequence_a_file() -> None:
    """No batch in the file, its axis 0 is the steps; before the layer a convolution of each of them."""
    body = (
        "e = Unsqueeze(x, one); k = Conv<pads=[1, 1]>(e, K); r = Relu(k); t = Transpose<perm=[0, 2, 1]>(r);"
        "m = ReduceMean<axes=[1], keepdims=1>(t); Y, H, C = LSTM<hidden_size=3>(m, W, R, B, , h, c);"
        "s = Squeeze(Y, one); y = MatMul(s, V)"
    )
    kernel = np.random.default_rng(2).normal(size=(4, 1, 3))
    inputs = "float[steps, 6] x, float[1, 1, 3] h, float[1, 1, 3] c"
    body = body.replace("m = ReduceMean<axes=[1], keepdims=1>(t);", "m = Slice(t, zero, one, one);")
    model = _model(body, inputs, "float[a, b, d] y", K=kernel, one=np.array([1]), zero=np.array([0]))
    net = pylrp.load(model)
    x = np.random.default_rng(3).normal(size=(2, 7, 6)).astype(np.float32)
    state = np.zeros((2, 1, 3), np.float32)
    found = net.forward({"x": x, "h": state, "c": state})
    for n in range(2):
        (expected,) = _reference(model, {"x": x[n], "h": state[:1], "c": state[:1]})
        np.testing.assert_allclose(found[n].reshape(expected.shape), expected, atol=1e-5)


def test_any_length() -> None:
    model = _model(
        "Y, H = GRU<hidden_size=3>(x, W, R, B); y = MatMul(H, V)", "float[t, n, 4] x", "float[a, n, d] y", gates=3
    )
    net = pylrp.load(model)
    for steps in (1, 8, 13):
        x = np.random.default_rng(steps).normal(size=(2, steps, 4)).astype(np.float32)
        (expected,) = _reference(model, {"x": np.moveaxis(x, 0, 1)})
        np.testing.assert_allclose(net.forward(x)[:, 0], expected[0], atol=1e-6)
        assert net.explain(x, target=(0, 1)).relevance.shape == x.shape


def test_lengths_and_both_directions() -> None:
    """Lengths are whole numbers beside the sequence; the reverse direction begins at each sample's last step."""
    body = 'Y, H = LSTM<hidden_size=3, direction="bidirectional">(x, W, R, B, n)'
    model = _model(body, "float[5, b, 4] x, int32[b] n", "float[a, p, b, d] Y, float[p, b, d] H", directions=2)
    net = pylrp.load(model)
    lengths = np.array([5, 2, 0, 3], np.int32)
    x = np.random.default_rng(1).normal(size=(4, 5, 4)).astype(np.float32)
    found = net.forward({"x": x, "n": lengths})
    for i, length in enumerate(lengths):
        ends = "float[a, p, b, d] Y, float[p, b, d] H"
        cut = _model(body.replace(", B, n)", ", B)"), f"float[{length}, 1, 4] x", ends, directions=2)
        if length:
            alone = pylrp.load(cut).forward(x[i, :length])
            np.testing.assert_allclose(found["Y"][i, :length], alone["Y"], atol=1e-6)
            np.testing.assert_allclose(found["H"][i], alone["H"], atol=1e-6)
        assert not found["Y"][i, length:].any()
    ex = net.explain({"x": x, "n": lengths}, output="H", target=(1, 2))
    assert ex.relevance.shape == x.shape
    for i, length in enumerate(lengths):
        assert not ex.relevance[i, length:].any()
        assert ex.relevance[i, :length].any() == (length > 0)


def test_stacked_layers() -> None:
    body = (
        'Y = LSTM<hidden_size=3, direction="bidirectional">(x, W, R, B); t = Transpose<perm=[0, 2, 1, 3]>(Y);'
        "f = Reshape(t, join); Z, H = LSTM<hidden_size=3>(f, W2, R, B2); y = MatMul(H, V2)"
    )
    rng = np.random.default_rng(5)
    more = {"W2": rng.normal(size=(1, 12, 6)), "B2": rng.normal(size=(1, 24)), "V2": rng.normal(size=(3, 2))}
    model = _model(body.replace("(f, W2, R,", "(f, W2, R2,"), "float[5, n, 4] x", "float[1, n, 2] y", directions=2,
                   join=np.array([0, 0, -1]), R2=rng.normal(size=(1, 12, 3)), **more)  # fmt: skip
    net = pylrp.load(model)
    x = rng.normal(size=(3, 5, 4)).astype(np.float32)
    (expected,) = _reference(model, {"x": np.moveaxis(x, 0, 1)})
    np.testing.assert_allclose(net.forward(x)[:, 0], expected[0], atol=1e-5)
    assert [node.layer.kind for node in net.graph.nodes].count("lstm") == 2


@pytest.mark.parametrize(
    ("body", "more"),
    [
        ("Y = LSTM<hidden_size=3>(x, W, R, W)", {}),
        ('Y = LSTM<hidden_size=3, activations=["Sigmoid", "Tanh"]>(x, W, R, B)', {}),
        ('Y = LSTM<hidden_size=3, activations=["Sigmoid", "Tanh", "Mine"]>(x, W, R, B)', {}),
        ("z = ReduceSum<keepdims=1>(x, none); Y = LSTM<hidden_size=3>(z, W, R, B)", {"none": np.array([0])}),
        ("Y = LSTM<hidden_size=3>(x, W, x, B)", {}),
    ],
)
def test_refused(body: str, more: dict[str, Any]) -> None:
    with pytest.raises((pylrp.UnsupportedLayer, ValueError)):
        pylrp.load(_model(body, "float[5, n, 4] x", "float[a, p, n, d] Y", **more))


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_layouts_hold_the_same(kind: str, gates: int) -> None:
    """Layout 1 has the batch first, in the sequence, its output and the states: the same numbers, the same maps."""
    settings = 'hidden_size=3, direction="bidirectional"'
    states = ", h, c, P" if kind == "LSTM" else ", h"
    more = {"P": np.random.default_rng(5).normal(size=(2, 9))} if kind == "LSTM" else {}
    rng = np.random.default_rng(6)
    x, lengths = rng.normal(size=(3, 5, 4)).astype(np.float32), np.array([5, 0, 2], np.int32)
    given = {name: rng.normal(size=(3, 2, 3)).astype(np.float32) for name in ("h", "c")[: 1 + (kind == "LSTM")]}
    found = []
    for layout in (0, 1):
        sizes = dict.fromkeys(given, "n, 2, 3" if layout else "2, n, 3")
        inputs = ", ".join(
            ["float[n, 5, 4] x" if layout else "float[5, n, 4] x", "int32[n] k"]
            + [f"float[{size}] {name}" for name, size in sizes.items()]
        )
        body = f"Y, H = {kind}<{settings}, layout={layout}>(x, W, R, B, k{states})"
        model = _model(body, inputs, "float[a, p, b, d] Y, float[p, b, d] H", gates=gates, directions=2, **more)
        net = pylrp.load(model)
        ex = net.explain({"x": x, "k": lengths, **given}, output="H", target=(1, 2), composite="cp_lrp")
        found.append((net.forward({"x": x, "k": lengths, **given}), ex.relevance))
    for name in ("Y", "H"):
        np.testing.assert_array_equal(found[0][0][name], found[1][0][name])
    for name in ("x", *given):
        np.testing.assert_array_equal(found[0][1][name], found[1][1][name])
    assert found[0][1]["x"][2, :2].any()
    assert not found[0][1]["x"][1].any()
    assert not found[0][1]["x"][2, 2:].any()
