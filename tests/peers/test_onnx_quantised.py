"""Quantised files that onnxruntime's tools write: outputs within a step of its own, the map of the network before."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from onnx import helper as h
from onnx import numpy_helper as nh
from torch import nn

import pylrp
from pylrp.demo import load_demo_digits, load_demo_network

from .exports import exported
from .transformers import Bert

quantization = pytest.importorskip("onnxruntime.quantization")
from onnxruntime.quantization import QuantFormat, QuantType  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
RNG = np.random.default_rng(6)


class Calibration(quantization.CalibrationDataReader):
    def __init__(self, samples):
        self.samples = iter(samples)

    def get_next(self):
        return next(self.samples, None)


class Images(nn.Module):
    """Convolutions, BatchNorm, a residual sum, a pool, a dense layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                                  nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())  # fmt: skip
        self.block, self.pool, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.MaxPool2d(2), nn.Linear(256, 10)
        for part in self.stem:
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 1.5)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.pool((x + self.block(x)).relu()).flatten(1))


def digits():
    """Return the bundled network, and digits for it."""
    made = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))
    weights, biases = load_demo_network()
    for layer, weight, bias in zip(made[::2], weights, biases, strict=True):
        layer.weight.data, layer.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
    return made, load_demo_digits()[0].reshape(-1, 784).astype("f") / 255


def plain(kind, path):
    """Write a network; return samples, too."""
    torch.manual_seed(3)
    if kind == "digits":
        module, samples = digits()
    else:
        module, samples = Images(), RNG.standard_normal((40, 3, 16, 16)).astype("f")
        for parameter in module.parameters():
            parameter.data *= 1.5
    example = {"x": torch.from_numpy(samples[:2])}
    return exported(module.eval(), example, path, "torchscript 17", lengths=False), samples


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def run(path, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # The file as it stands: other levels replace operators by others that round elsewhere.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    source = path.SerializeToString() if isinstance(path, onnx.ModelProto) else str(path)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"]).run(None, x)[0]


def last_step(path):
    """Return the scale of the output."""
    model = onnx.load(path)
    arrays = {tensor.name: nh.to_array(tensor) for tensor in model.graph.initializer}
    return next(float(arrays[n.input[1]]) for n in model.graph.node[::-1] if n.op_type == "DequantizeLinear")


def correlation(net, other, x, composite):
    """Return that of two maps of the output's product with what the second network says: a large number."""
    y = other.forward(x)
    one, two = (each.explain(x, target=each.forward(x) * y, composite=composite).relevance for each in (net, other))
    one, two = (each["input_ids"] if isinstance(each, dict) else each for each in (one, two))
    return np.corrcoef(one.ravel(), two.ravel())[0, 1]


STATIC = [
    ("images", QuantFormat.QDQ, QuantType.QUInt8, QuantType.QInt8, False, False),
    ("images", QuantFormat.QDQ, QuantType.QInt8, QuantType.QInt8, True, True),
    ("images", QuantFormat.QOperator, QuantType.QUInt8, QuantType.QUInt8, False, False),
    ("images", QuantFormat.QOperator, QuantType.QUInt8, QuantType.QInt8, True, False),
    ("digits", QuantFormat.QDQ, QuantType.QUInt8, QuantType.QInt8, True, False),
    ("digits", QuantFormat.QDQ, QuantType.QInt16, QuantType.QInt8, False, True),
    ("digits", QuantFormat.QOperator, QuantType.QInt8, QuantType.QInt8, True, True),
    ("digits", QuantFormat.QOperator, QuantType.QUInt8, QuantType.QUInt8, True, False),
]


@pytest.mark.parametrize(("kind", "form", "activations", "weights", "by_channel", "symmetric"), STATIC, ids=str)
def test_static(kind, form, activations, weights, by_channel, symmetric, tmp_path):
    path, given = plain(kind, tmp_path / "a.onnx")
    samples = [{"x": part} for part in np.split(given, 10)]
    target = tmp_path / "q.onnx"
    quantization.quantize_static(
        path, target, Calibration(samples), quant_format=form, activation_type=activations, weight_type=weights,
        per_channel=by_channel, reduce_range=weights == QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": weights == QuantType.QInt8},
    )  # fmt: skip
    x = samples[0]["x"]
    net, before = pylrp.load(target), pylrp.load(path)
    y = net.forward(x)
    np.testing.assert_allclose(y, run(target, {"x": x}), rtol=0, atol=1.001 * last_step(target))
    assert sum("quantised" in note for note in net.notes) == 2
    for composite in ("epsilon_plus_flat", "attnlrp_gamma") if kind == "images" else ("epsilon", "epsilon_plus"):
        assert correlation(net, before, x, composite) > 0.98
    verified = net.verify(x[:2], composite="epsilon")
    assert verified, str(verified)
    ex = net.explain(x, target=1, composite="epsilon")
    assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-4 * np.abs(ex.relevance).sum(axis=None)


@pytest.mark.parametrize(("kind", "weights", "by_channel"), list(itertools.product(
    ("images", "digits"), (QuantType.QInt8, QuantType.QUInt8), (False, True)
)), ids=str)  # fmt: skip
def test_dynamic(kind, weights, by_channel, tmp_path):
    path, given = plain(kind, tmp_path / "a.onnx")
    quantization.quantize_dynamic(
        path, tmp_path / "q.onnx", weight_type=weights, per_channel=by_channel, reduce_range=weights == QuantType.QInt8
    )
    net, before = pylrp.load(tmp_path / "q.onnx"), pylrp.load(path)
    x = given[:3]
    # The file's scales are those of the whole batch, here of each sample.
    alone = np.concatenate([run(tmp_path / "q.onnx", {"x": sample[None]}) for sample in x])
    np.testing.assert_allclose(net.forward(x), alone, rtol=0, atol=1e-6 * np.abs(alone).max())
    assert correlation(net, before, x, "epsilon_plus") > 0.99
    verified = net.verify(x, composite="epsilon_plus")
    assert verified, str(verified)


@pytest.mark.parametrize("written", ["dynamic", "dynamic by channel", "fused", "static", "static, fused", "QOperator"])
def test_transformer(written, tmp_path):
    torch.manual_seed(5)
    module = Bert(width=128, heads=4).eval()
    module.head = nn.Identity()
    ids = torch.randint(0, 50, (3, 9))
    x = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": (ids > 20).long()}
    path = exported(module, x, tmp_path / "a.onnx", "torchscript 17")
    given, target = {name: value.numpy() for name, value in x.items()}, tmp_path / "q.onnx"
    source, settings = path, {"weight_type": QuantType.QUInt8}
    if written == "dynamic by channel":
        settings = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
    if "fused" in written:
        optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
        made = optimizer.optimize_model(str(path), "bert", 4, 128, opt_level=0)
        source = tmp_path / "f.onnx"
        made.save_model_to_file(str(source))
    if "static" in written or written == "QOperator":  # of the fused one all, else products with weights, and tables
        quantization.quantize_static(
            source, target, Calibration([given]), activation_type=QuantType.QUInt8, weight_type=QuantType.QUInt8,
            quant_format=QuantFormat.QOperator if written == "QOperator" else QuantFormat.QDQ,
            op_types_to_quantize=None if "fused" in written else ["MatMul", "Gather"], per_channel="fused" in written,
        )  # fmt: skip
    else:
        quantization.quantize_dynamic(
            source, target, extra_options={"DefaultTensorType": TensorProto.FLOAT}, **settings
        )
    net, before = pylrp.load(target), pylrp.load(path)
    kinds = {info.name: info.type.tensor_type.elem_type for info in onnx.load(target).graph.input}
    for row in range(len(ids)):
        one = {name: value[row : row + 1] for name, value in given.items()}
        fed = {name: value.astype(h.tensor_dtype_to_np_dtype(kinds[name])) for name, value in one.items()}
        told = run(target, fed)
        y = net.forward(one)
        quantised_by = np.abs(told - before.forward(one)).max()
        assert np.abs(y - told).max() <= max(0.2 * quantised_by, 1e-6)  # a value at a tie may go the other way
        assert quantised_by > 1e-4
        for composite in ("cp_lrp", "attnlrp"):
            assert correlation(net, before, one, composite) > 0.99
    for composite in ("cp_lrp", "attnlrp"):
        verified = net.verify(given, target=0, composite=composite)
        assert verified, str(verified)


# Single operators.


def model(text, shape, opset=21, **constants):
    head = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]> m (float[{shape}] x) => (float[n, z] y)'
    body = text.replace("; ", "\n")
    made = onnx.parser.parse_model(f"{head} {{{body}}}")
    made.graph.initializer.extend(nh.from_array(np.asarray(v), name) for name, v in constants.items())
    return made


S, Z = np.array(0.05, "f"), np.array(120, np.uint8)
X = RNG.standard_normal((3, 4)).astype("f")
W = RNG.integers(-60, 61, (4, 6)).astype(np.int8)
BY_COLUMN = RNG.uniform(0.01, 0.05, 6).astype("f")
CASES = {
    "blocks": ("w = DequantizeLinear<axis = 0, block_size = 2>(q, s); y = MatMul(x, w)",
               {"q": W, "s": RNG.uniform(0.01, 0.05, (2, 6)).astype("f")}),
    "columns": ("w = DequantizeLinear<axis = 1>(q, s, z); y = MatMul(x, w)",
                {"q": W, "s": BY_COLUMN, "z": RNG.integers(-9, 9, 6).astype(np.int8)}),
    "quantised weight": ("a = QuantizeLinear<axis = 1>(w, s, z); b = DequantizeLinear<axis = 1>(a, s, z); "
                         "y = MatMul(x, b)",
                         {"w": RNG.standard_normal((4, 6)).astype("f"), "s": BY_COLUMN, "z": np.zeros(6, np.int8)}),
    "by channel": ("a = QuantizeLinear<axis = 1>(x, s, z); y = DequantizeLinear<axis = 1>(a, s, z)",
                   {"s": BY_COLUMN[:4], "z": np.array([1, 20, 120, 200], np.uint8)}),
    "moved": ("a = QuantizeLinear(x, s, z); b = Unsqueeze(a, i); c = Squeeze(b, i); y = DequantizeLinear(c, s, z)",
              {"s": S, "z": Z, "i": np.array([1])}),
    "another scale": ("a = QuantizeLinear(x, s, z); y = DequantizeLinear(a, t, u)",
                      {"s": S, "z": Z, "t": np.array(0.1, "f"), "u": np.array(100, np.uint8)}),
    "folded ReLU": ("a = QuantizeLinear(x, s, z); y = DequantizeLinear(a, s, z)", {"s": S, "z": np.array(0, np.uint8)}),
    "microsoft's": ("a = com.microsoft.QuantizeLinear(x, s, z); y = com.microsoft.DequantizeLinear(a, s, z)",
                    {"s": S, "z": Z}),
    "float and whole numbers": (
        "a, s, z = DynamicQuantizeLinear(x); y = com.microsoft.MatMulIntegerToFloat(a, q, s, t, z, u, b)",
        {"q": W, "t": BY_COLUMN, "u": np.zeros(6, np.int8), "b": RNG.standard_normal(6).astype("f")},
    ),
    "dynamic product": ("y = com.microsoft.DynamicQuantizeMatMul(x, q, t, u, b)",
                        {"q": W, "t": BY_COLUMN, "u": np.zeros(6, np.int8), "b": RNG.standard_normal(6).astype("f")}),
    "two scales, one by one": (
        "a, s, z = DynamicQuantizeLinear(x); i = MatMulInteger(a, q, z, u); f = Cast<to = 1>(i); g = Mul(f, t); "
        "y = Mul(s, g)",
        {"q": W, "t": BY_COLUMN, "u": np.array(3, np.int8)},
    ),
    "static product": (
        "a = QuantizeLinear(x, s, z); i = MatMulInteger(a, q, z); f = Cast<to = 1>(i); r = Mul(s, t); y = Mul(f, r)",
        {"s": S, "z": Z, "q": W, "t": BY_COLUMN},
    ),
}  # fmt: skip
ALONE = ("float and whole numbers", "dynamic product", "two scales, one by one")


@pytest.mark.parametrize("case", CASES)
def test_operators(case):
    text, constants = CASES[case]
    made = model(text, "n, 4", **constants)
    expected = [run(made, {"x": x}) for x in (X[:, None] if case in ALONE else [X])]
    np.testing.assert_allclose(pylrp.load(made).forward(X), np.concatenate(expected), rtol=0, atol=2e-6)


def test_whole_numbers_of_four_bits():
    low = h.make_tensor("q", TensorProto.INT4, (4, 6), np.clip(W, -8, 7).ravel())
    made = model("w = DequantizeLinear<axis = 1>(q, s); y = MatMul(x, w)", "n, 4", s=BY_COLUMN)
    made.graph.initializer.append(low)
    np.testing.assert_allclose(pylrp.load(made).forward(X), X @ (np.clip(W, -8, 7) * BY_COLUMN), rtol=0, atol=1e-6)


def test_softmax_below_the_last_step_is_removed():
    text = "h = MatMul(x, w); p = Softmax(h); a = QuantizeLinear(p, s, z); y = DequantizeLinear(a, s, z)"
    w = RNG.standard_normal((4, 6)).astype("f")
    net = pylrp.load(model(text, "n, 4", w=w, s=np.array(1 / 255, "f"), z=np.array(0, np.uint8)))
    np.testing.assert_allclose(net.forward(X), X @ w, rtol=0, atol=1e-6)
    assert net.top == "softmax"


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_half_precision_is_computed_in_single(kind):
    w = RNG.standard_normal((4, 6)).astype("f")
    half = nh.from_array(w.astype(h.tensor_dtype_to_np_dtype(kind)), "w")
    made = model(f"a = Cast<to = {kind}>(x); b = MatMul(a, w); c = Relu(b); y = Cast<to = 1>(c)", "n, 4")
    made.graph.initializer.append(half)
    net = pylrp.load(made)
    exact = np.maximum(X @ nh.to_array(half).astype("f"), 0)
    np.testing.assert_allclose(net.forward(X), exact, rtol=0, atol=1e-6)
    assert any(TensorProto.DataType.Name(kind).lower() in note and "float32" in note for note in net.notes)


def test_products_of_whole_numbers_that_nobody_scales():
    made = model("a, s, z = DynamicQuantizeLinear(x); i = MatMulInteger(a, q, z); y = Cast<to = 1>(i)", "n, 4", q=W)
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(made)
    assert "before quantisation" in caught.value.way_out
