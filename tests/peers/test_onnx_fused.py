"""Operators that onnxruntime's optimiser writes: the values are onnxruntime's own, what can't be told is refused."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper as h
from onnx import numpy_helper as nh

import pylrp
from peers.one_map import onnx_writers, runtime_writers
from peers.one_map.networks import NETWORKS

RNG = np.random.default_rng(3)


def array(*shape):
    return RNG.standard_normal(shape).astype("f")


def model(shape, operator, constants, inputs=None, out=None, **attributes):
    """A model of one fused operator on x; constants by name, in the order of the inputs unless those are given."""
    inputs = ["x", *constants] if inputs is None else inputs
    nodes = [h.make_node(operator, inputs, ["y"], name="node", domain="com.microsoft", **attributes)]
    graph = h.make_graph(
        nodes,
        "g",
        [h.make_tensor_value_info("x", 1, ["n", *shape])],
        [h.make_tensor_value_info("y", 1, out)],
        [nh.from_array(value, name) for name, value in constants.items()],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17), h.make_opsetid("com.microsoft", 1)], ir_version=8)


def run(made, x):
    """Return what onnxruntime makes of x."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(made.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def agree(made, shape, **options):
    x = array(3, *shape)
    expected = run(made, x)
    net = pylrp.load(made, **options)
    np.testing.assert_allclose(net.forward(x), expected, rtol=0, atol=3e-6 * np.abs(expected).max())
    return net


FUNCTIONS = [
    ("Relu", []), ("Tanh", []), ("Sigmoid", []), ("LeakyRelu", [0.3]), ("Clip", [-0.4, 0.5]),
    ("HardSigmoid", [0.3, 0.6]), ("Clip", [0.0, float(np.finfo(np.float32).max)]),
]  # fmt: skip


@pytest.mark.parametrize(("function", "settings"), FUNCTIONS, ids=str)
@pytest.mark.parametrize("added", [False, True])
def test_fused_conv(function, settings, added):
    constants = {"w": array(4, 2, 3, 3), "b": array(4)}
    inputs = ["x", "w", "b"]
    if added:  # x itself, moved through a kernel of one
        constants["w"], inputs = array(4, 4, 3, 3), ["x", "w", "b", "x"]
    options = {"pads": [1] * 4, "activation": function}
    if settings:
        options["activation_params"] = settings
    made = model((4 if added else 2, 6, 5), "FusedConv", constants, inputs, **options)
    net = agree(made, (4 if added else 2, 6, 5), keep_top=True)
    assert next(node for node in net.graph.nodes if node.layer.kind == "conv").name == "node"
    assert ("add" in [node.layer.kind for node in net.graph.nodes]) is added


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        ("Relu", {}), ("LeakyRelu", {"alpha": 0.2}), ("Elu", {"alpha": 0.7}), ("Selu", {"alpha": 1.5, "gamma": 1.2}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}), ("Tanh", {}), ("Sigmoid", {}), ("Softplus", {}),
    ],
    ids=str,
)  # fmt: skip
def test_fused_gemm(function, settings):
    named = {f"activation_{key}": value for key, value in settings.items()}
    made = model(
        (5,), "FusedGemm", {"w": array(4, 5), "b": array(4)}, activation=function, transB=1, alpha=0.5, **named
    )
    net = agree(made, (5,), keep_top=True)
    assert net.graph.nodes[0].name == "node"


PRODUCTS = [
    ((5,), (5, 4), 0, {}),
    ((5,), (4, 5), 0, {"transB": 1, "alpha": 0.5}),
    ((6, 5), (5, 4), 0, {"alpha": -2.0}),
    ((6, 5), (4, 5), 0, {"transB": 1}),
    ((6, 5), (6, 4), 0, {"transA": 1}),
    ((2, 6, 5), (4, 6), 0, {"transA": 1, "transB": 1}),
    ((6, 5), (4, 6), 1, {}),
    ((6, 5), (6, 4), 1, {"transA": 1}),
    ((6, 5), (4, 5), 1, {"transB": 1}),
    ((2, 6, 5), (5, 4), 1, {"transA": 1, "transB": 1, "alpha": 0.25}),
]


@pytest.mark.parametrize(("shape", "constant", "at", "settings"), PRODUCTS, ids=str)
def test_fused_matmul(shape, constant, at, settings):
    net = agree(model(shape, "FusedMatMul", {"w": array(*constant)}, ["w", "x"] if at else None, **settings), shape)
    assert "dense" in [node.layer.kind for node in net.graph.nodes] or len(shape) > 1
    assert "node" in [node.name for node in net.graph.nodes]


@pytest.mark.parametrize(
    ("shape", "constant", "settings"),
    [((5,), (3, 4), {"transA": 1}), ((6, 5), (6, 3), {"transBatchA": 1}), ((6, 5), (2, 5, 4), {})],
)
def test_products_across_the_batch_are_refused(shape, constant, settings):
    with pytest.raises(pylrp.UnsupportedLayer) as refused:
        pylrp.load(model(shape, "FusedMatMul", {"w": array(*constant)}, **settings))
    assert (refused.value.node, refused.value.operator) == ("node", "com.microsoft.FusedMatMul")


@pytest.mark.parametrize(
    ("operator", "constants", "settings"),
    [
        ("Gelu", {}, {}), ("FastGelu", {}, {}), ("FastGelu", {"b": array(5)}, {}), ("BiasGelu", {"b": array(5)}, {}),
        ("QuickGelu", {}, {}), ("QuickGelu", {}, {"alpha": 0.8}),
    ],
    ids=str,
)  # fmt: skip
def test_gelu(operator, constants, settings):
    agree(model((4, 5), operator, constants, **settings), (4, 5))


def test_an_activation_that_nobody_knows():
    with pytest.raises(pylrp.UnsupportedLayer) as refused:
        pylrp.load(model((5,), "FusedGemm", {"w": array(5, 4)}, activation="ThresholdedRelu"))
    assert refused.value.node == "node"


def test_a_layout_for_one_processor_is_refused(tmp_path):
    net = NETWORKS["Conv-ReLU-BN-Conv"]()
    made = onnx_writers.written(net, np.float32)
    written = onnx.load(runtime_writers.optimised(made, tmp_path / "all.onnx", "all"))
    if not any(node.domain == "com.microsoft.nchwc" for node in written.graph.node):
        pytest.skip("onnxruntime has no layout of its own for this processor")
    with pytest.raises(pylrp.UnsupportedLayer) as refused:
        pylrp.load(written)
    assert refused.value.operator.startswith("com.microsoft.nchwc.")
    # Extended, which the error names, holds what FUSED reads (test_one_map.py); so does the highest level without it.
    path = runtime_writers.optimised(made, tmp_path / "plain.onnx", "all", ["NchwcTransformer"])
    x = array(2, *net.shapes["x"])
    expected = run(made, x)
    np.testing.assert_allclose(pylrp.load(path).forward(x), expected, rtol=0, atol=3e-6 * np.abs(expected).max())
