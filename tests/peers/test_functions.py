"""Functions of one value that networks write out, from torch, ONNX and Keras, against LRP by torch's autograd.

The reference keeps f(z) = z (f(z) - f(0)) / z + f(0) with the factor held constant, so that gradient times input is
LRP-0 with f(0) as a bias.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pylrp

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
SLOPES = torch.tensor([0.1, 0.5, 1.0, 2.0, -0.5, 0.3], dtype=torch.float64)

FUNCTIONS = {
    "quick gelu": lambda z: z * torch.sigmoid(1.702 * z),
    "softsign": F.softsign,
    "abs": torch.abs,
    "square": lambda z: z * z,
    "power": lambda z: z**2,
    "cube": lambda z: z**3,
    "signed root": lambda z: torch.sign(z) * torch.sqrt(torch.abs(z)),
    "log of a bound": lambda z: torch.log(torch.clamp(z, min=1e-6)),
    "log1p of relu": lambda z: torch.log(1 + torch.relu(z)),
    "log square": lambda z: torch.log(z**2 + 1),
    "sine": lambda z: torch.sin(3 * z),
    "cosine": torch.cos,
    "leaky by where": lambda z: torch.where(z > 0, z, 0.1 * z),
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "tanhshrink": F.tanhshrink,
    "logsigmoid": F.logsigmoid,
    "gaussian": lambda z: torch.exp(-(z**2)),
    "reciprocal of a sum": lambda z: 1 / (1 + z**2),
    "snake": lambda z: z + torch.sin(SLOPES.abs() * z) ** 2 / SLOPES.abs(),
    "swish with betas": lambda z: z * torch.sigmoid(SLOPES * z),
    "polynomial": lambda z: (z + 1) * (z - 2),
    "rational": lambda z: z / (1 + torch.abs(z) + z * z),
    "erf": torch.erf,
    "two branches": lambda z: torch.relu(z) - 0.5 * torch.tanh(z),
    "hard mish": lambda z: z / 2 * torch.clamp(z + 2, 0, 2),
    "squared relu": lambda z: torch.relu(z) ** 2,
    "maximum": lambda z: torch.maximum(z, 0.2 * z),
    "sine and itself": lambda z: z + torch.sin(z),
    "inverse hyperbolic sine": torch.asinh,
    "hyperbolic sine": lambda z: torch.sinh(z / 2),
    "hyperbolic cosine": lambda z: torch.log(torch.cosh(z)),
    "exponential linear": lambda z: torch.where(z > 0, z, torch.expm1(z)),
    "threshold": lambda z: F.threshold(z, 0.2, -0.5),
    "selu": F.selu,
    "hard sigmoid": F.hardsigmoid,
    "selu with other numbers": lambda z: torch.where(z > 0, 1.2 * z, 0.7 * (torch.exp(z) - 1)),
}


class Net(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.one, self.two, self.function, self.constant = nn.Linear(4, 6), nn.Linear(6, 2), function, False

    def forward(self, x):
        z = self.one(x)
        if not self.constant:
            return self.two(self.function(z))
        zero = self.function(torch.zeros_like(z)).detach()
        return self.two(z * ((self.function(z) - zero) / z).detach() + zero)


def exported(module, x):
    file = io.BytesIO()
    torch.onnx.export(module, (x,), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    return file.getvalue()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_torch(name):
    torch.manual_seed(3)
    net = Net(FUNCTIONS[name]).double().eval()
    x = torch.randn(5, 4, dtype=torch.float64)
    loaded = pylrp.load(net, x)
    assert sum(node.layer.rule_kind == "function" for node in loaded.graph.nodes) == 1
    np.testing.assert_allclose(loaded.forward(x.numpy()), net(x).detach(), rtol=1e-10, atol=1e-10)
    found = loaded.explain(x.numpy(), target=0, composite=pylrp.Zero())
    net.constant = True
    a = x.clone().requires_grad_()
    net(a)[:, 0].sum().backward()
    wanted = (a * a.grad).detach().numpy()
    np.testing.assert_allclose(found.relevance, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["quick gelu", "hardshrink", "softshrink", "snake", "rational", "tanhshrink"])
def test_what_onnxruntime_computes_in_float32(name):
    global SLOPES
    before = SLOPES
    SLOPES = before.float()
    try:
        net = Net(FUNCTIONS[name]).eval()
        x = torch.randn(50, 4)
        file = exported(net, x)
    finally:
        SLOPES = before
    session = ort.InferenceSession(file)
    loaded = pylrp.load(onnx.load_from_string(file))
    wanted = session.run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(loaded.forward(x.numpy()), wanted, rtol=1e-5, atol=1e-5)


def test_a_layer_of_ones_own_is_not_looked_through():
    class Twice(pylrp.layers.CustomLayer):
        def output_shape(self, *shapes):
            return shapes[0]

        def forward(self, *inputs):
            return 2 * inputs[0]

        def relevance(self, inputs, output, relevance):
            return (relevance,)

    torch.manual_seed(0)
    net = Net(lambda z: torch.abs(torch.sigmoid(z) * z)).eval()
    x = torch.randn(3, 4)
    by_hand = {"Sigmoid": lambda attributes, constants: Twice()}
    file = onnx.load_from_string(exported(net, x))
    loaded = pylrp.load(file, operators=by_hand)
    assert any(isinstance(node.layer, Twice) for node in loaded.graph.nodes)


keras = pytest.importorskip("keras")
KERAS = {
    "square": (keras.ops.square, lambda z: z * z),
    "absolute": (keras.ops.abs, np.abs),
    "sine": (keras.ops.sin, np.sin),
    "softsign": ("softsign", lambda z: z / (1 + np.abs(z))),
    "log sigmoid": ("log_sigmoid", lambda z: -np.log1p(np.exp(-z))),
    "hard shrink": ("hard_shrink", lambda z: np.where(np.abs(z) > 0.5, z, 0)),
    "soft shrink": ("soft_shrink", lambda z: np.sign(z) * np.maximum(np.abs(z) - 0.5, 0)),
    "tanh shrink": ("tanh_shrink", lambda z: z - np.tanh(z)),
    "squareplus": ("squareplus", lambda z: (z + np.sqrt(z * z + 4)) / 2),
    "exponential": ("exponential", np.exp),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("name", KERAS)
def test_functions_of_keras(name):
    function, f = KERAS[name]
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        x = keras.Input((4,))
        z = keras.layers.Dense(6, name="z")(x)
        z = keras.layers.Activation(function)(z) if isinstance(function, str) else function(z)
        model = keras.Model(x, keras.layers.Dense(2, name="top")(z))
        given = np.random.default_rng(0).normal(size=(5, 4))
        net = pylrp.load(model)
        W, b = (keras.ops.convert_to_numpy(v) for v in model.get_layer("z").weights)
        V, _ = (keras.ops.convert_to_numpy(v) for v in model.get_layer("top").weights)
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)
    z = given @ W + b
    np.testing.assert_allclose(net.forward(given), f(z) @ V, rtol=1e-9)
    ex = net.explain(given, 0, composite=pylrp.Zero(), layers="all")
    np.testing.assert_allclose(ex.layers["z"], (f(z) - f(np.zeros_like(z))) * V[:, 0], rtol=1e-7, atol=1e-10)
    assert math.isfinite(float(ex.relevance.sum()))
