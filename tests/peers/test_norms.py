"""Normalisations of torch and Keras: modules one by one, and two small networks whose maps are torch's own gradients.

The gradient is that of the same network with deviations and ``f(x) / x`` as constants: input times gradient is
relevance then, with no code of pylrp. All exports of a network must give that one map.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import warnings

import numpy as np
import pytest
import torch
from torch import nn

os.environ.setdefault("KERAS_BACKEND", "torch")

import pylrp
from pylrp import layers as L
from pylrp.rules import Detach, Zero

# Keras's conversion of torch's tensors, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

ONE_MAP = pylrp.Composite("exact", Zero(), {"add": Zero(), "pool": Zero(), "batchnorm": Zero(), "resize": Zero(),
                                           "normalisation": Detach()})  # fmt: skip


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(3)


def randomised(module):
    """Return a module in evaluation mode with scales and shifts that do something."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.7, 0.5)
    return module.eval()


MODULES = {
    "LayerNorm": (lambda: nn.LayerNorm(6), (5, 6), L.LayerNorm),
    "LayerNorm of features": (lambda: nn.LayerNorm(6), (6,), L.LayerNorm),
    "LayerNorm of samples": (lambda: nn.LayerNorm((6, 4, 3)), (6, 4, 3), L.LayerNorm),
    "LayerNorm without weights": (lambda: nn.LayerNorm(6, elementwise_affine=False), (5, 6), L.LayerNorm),
    "LayerNorm without a bias": (lambda: nn.LayerNorm(6, bias=False, eps=0.1), (5, 6), L.LayerNorm),
    "RMSNorm": (lambda: nn.RMSNorm(6), (5, 6), L.RMSNorm),
    "RMSNorm of two axes": (lambda: nn.RMSNorm((5, 6), eps=0.1), (5, 6), L.RMSNorm),
    "RMSNorm without weights": (lambda: nn.RMSNorm(6, elementwise_affine=False), (6,), L.RMSNorm),
    "GroupNorm": (lambda: nn.GroupNorm(3, 6), (6, 4, 3), L.GroupNorm),
    "GroupNorm of one group": (lambda: nn.GroupNorm(1, 6), (6, 5), L.GroupNorm),
    "GroupNorm of features": (lambda: nn.GroupNorm(2, 6), (6,), L.GroupNorm),
    "GroupNorm in space": (lambda: nn.GroupNorm(2, 4, affine=False), (4, 2, 3, 2), L.GroupNorm),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(4), (4, 7), L.InstanceNorm),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4, affine=True), (4, 3, 5), L.InstanceNorm),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(2, affine=True), (2, 3, 2, 4), L.InstanceNorm),
}


def detached(kind, module, x):
    """Return what a module makes of x, its deviation a constant."""
    axes = tuple(range(2, x.ndim))
    if kind is L.LayerNorm or kind is L.RMSNorm:
        axes = tuple(range(-len(module.normalized_shape), 0))
    cut = x.reshape(len(x), module.num_groups, -1) if kind is L.GroupNorm else x
    axes = (2,) if kind is L.GroupNorm else axes
    left = cut if kind is L.RMSNorm else cut - cut.mean(axes, keepdim=True)
    eps = torch.finfo(x.dtype).eps if module.eps is None else module.eps
    y = (left / (left.square().mean(axes, keepdim=True) + eps).sqrt().detach()).reshape(x.shape)
    for name, how in (("weight", torch.mul), ("bias", torch.add)):
        array = getattr(module, name, None)
        if array is not None:
            last = kind in (L.LayerNorm, L.RMSNorm)
            y = how(y, array if last else array.reshape(-1, *(1,) * (x.ndim - 2)))
    return y


@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    make, shape, kind = MODULES[name]
    part = randomised(make()).double()
    below = nn.Linear(shape[-1], shape[-1]).double()  # without weights the network would be in single precision
    module = nn.Sequential(below, part)
    x = torch.randn(3, *shape, dtype=torch.float64, requires_grad=True)
    net = pylrp.load(module, x.detach())
    assert [type(node.layer) for node in net.graph.nodes if node.name == "1"] == [kind]
    inside = below(x)
    y = detached(kind, part, inside)
    np.testing.assert_allclose(y.detach().numpy(), module(x).detach().numpy(), atol=1e-10)  # the twin is one
    np.testing.assert_allclose(net.forward(x.detach().numpy()), y.detach().numpy(), atol=1e-10)
    R = torch.randn_like(y)
    ex = net.explain(x.detach().numpy(), R.numpy(), composite=ONE_MAP)
    (gradient,) = torch.autograd.grad(y, x, R / y.detach())
    expected = (x * gradient).detach().numpy()
    np.testing.assert_allclose(ex.relevance, expected, atol=1e-9 * np.abs(expected).max())


def test_functions():
    class Functions(nn.Module):
        def forward(self, x):
            return nn.functional.layer_norm(nn.functional.normalize(x, dim=-1), (6,)) + nn.functional.rms_norm(x, (6,))

    module, x = nn.Sequential(nn.Linear(6, 6), Functions()).double().eval(), torch.randn(3, 5, 6, dtype=torch.float64)
    own = nn.functional.rms_norm
    net = pylrp.load(module, x)
    assert nn.functional.rms_norm is own
    kinds = [type(node.layer) for node in net.graph.nodes]
    assert {L.Normalize, L.LayerNorm, L.RMSNorm} <= set(kinds)
    np.testing.assert_allclose(net.forward(x.numpy()), module(x).detach().numpy(), atol=1e-10)


class Exact:
    """Values as they are, gradients as relevance: what is no linear map is a constant factor."""

    @staticmethod
    def norm(layer, x):
        axes = tuple(range(-len(layer.normalized_shape), 0))
        left = x - x.mean(axes, keepdim=True)
        return left / (left.square().mean(axes, keepdim=True) + layer.eps).sqrt().detach() * layer.weight + layer.bias

    @staticmethod
    def gelu(x):
        return x * (nn.functional.gelu(x) / x).detach()


class Plain:
    norm = staticmethod(lambda layer, x: layer(x))
    gelu = staticmethod(nn.functional.gelu)


class ConvNext(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.ops = Plain
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.up, self.down = nn.LayerNorm(8, eps=1e-6), nn.Linear(8, 16), nn.Linear(16, 8)
        self.gamma = nn.Parameter(torch.rand(8) + 0.2)
        self.last, self.head = nn.LayerNorm(8, eps=1e-6), nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.gamma * self.down(self.ops.gelu(self.up(self.ops.norm(self.norm, y))))
        x = x + y.permute(0, 3, 1, 2)
        return self.head(self.ops.norm(self.last, x.mean((2, 3))))


class Mixer(nn.Module):
    shape = (5, 6)

    def __init__(self):
        super().__init__()
        self.ops = Plain
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(3))
        self.tokens = nn.ModuleList([nn.Linear(5, 7), nn.Linear(7, 5)])
        self.features = nn.ModuleList([nn.Linear(6, 9), nn.Linear(9, 6)])
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        y = self.ops.norm(self.norms[0], x).transpose(1, 2)
        x = x + self.tokens[1](self.ops.gelu(self.tokens[0](y))).transpose(1, 2)
        x = x + self.features[1](self.ops.gelu(self.features[0](self.ops.norm(self.norms[1], x))))
        return self.head(self.ops.norm(self.norms[2], x).mean(1))


def exported(module, x, folder, opset, dynamo):
    path = folder / f"{opset}{dynamo}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            torch.onnx.export(module, (x,), str(path), dynamo=True, opset_version=opset, verbose=False)
        else:
            torch.onnx.export(module, x, str(path), dynamo=False, opset_version=opset, input_names=["x"],
                              dynamic_axes={"x": {0: "n"}})  # fmt: skip
    return path


def optimised(path, level):
    """Return the file that onnxruntime's optimiser makes of one."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(path.with_suffix(f".{level}.onnx"))
    runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return options.optimized_model_filepath


EXPORTS = [(14, False), (17, False)]
EXPORTS += [(20, True), (23, True)] if importlib.util.find_spec("onnxscript") else []


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 5e-5)])
@pytest.mark.parametrize("kind", [ConvNext, Mixer])
def test_one_map_of_all_exports(tmp_path, kind, dtype, tolerance):
    module = randomised(kind()).to(dtype)
    x = torch.randn(2, *kind.shape, dtype=dtype)
    twin = copy.deepcopy(module).double()
    twin.ops = Exact
    given = x.double().clone().requires_grad_()
    scores = twin(given)[:, 1]
    (gradient,) = torch.autograd.grad(scores.sum(), given)
    expected = (given * gradient).detach().numpy()
    sources = [exported(module, x, tmp_path, *how) for how in EXPORTS]
    if dtype == torch.float32:  # onnxruntime has few operators in double precision
        sources += [optimised(path, level) for path in sources[:2] for level in ("BASIC", "EXTENDED")]
    nets = [pylrp.load(module, x), *map(pylrp.load, sources)]
    for net in nets:
        # One whose input is moved halfway, as onnxruntime does, divides what an own sum has centred: an RMSNorm.
        norms = [node.layer for node in net.graph.nodes if isinstance(node.layer, L.LayerNorm)]
        assert len(norms) == (2 if kind is ConvNext else 3)
        ex = net.explain(x.numpy(), target=1, composite=ONE_MAP)
        np.testing.assert_allclose(ex.relevance, expected, atol=tolerance * np.abs(expected).max())
        for row in ex.ledger:
            assert np.all(np.abs(row.rounding) <= 1e-5 * np.abs(expected).sum())


KERAS = {
    "layer": (lambda K: K.LayerNormalization(epsilon=1e-2), (5, 6)),
    "layer of samples": (lambda K: K.LayerNormalization(axis=[1, 2, 3]), (4, 5, 6)),
    "layer of channels": (lambda K: K.LayerNormalization(center=False), (4, 5, 6)),
    "layer of two axes": (lambda K: K.LayerNormalization(axis=[1, 3], scale=False), (4, 5, 6)),
    "rms": (lambda K: K.RMSNormalization(), (4, 5, 6)),
    "rms of two axes": (lambda K: K.RMSNormalization(axis=[1, 2]), (4, 6)),
    "group": (lambda K: K.GroupNormalization(3), (4, 5, 6)),
    "group, as many as channels": (lambda K: K.GroupNormalization(-1), (4, 5, 6)),
    "group of features": (lambda K: K.GroupNormalization(2, center=False), (6,)),
    "group of the first axis": (lambda K: K.GroupNormalization(2, axis=1), (4, 5, 6)),
    "unit": (lambda K: K.UnitNormalization(), (4, 5, 6)),
    "unit of two axes": (lambda K: K.UnitNormalization(axis=[1, 2]), (4, 5, 6)),
}


@pytest.mark.parametrize("name", KERAS)
def test_keras(name, rng):
    keras = pytest.importorskip("keras")
    make, shape = KERAS[name]
    given = keras.Input(shape)
    below = keras.layers.Conv2D(shape[-1], 1)(given) if len(shape) == 3 else given
    module = keras.Model(given, make(keras.layers)(below))
    for variable in module.weights:
        variable.assign(rng.normal(size=variable.shape) + 1)
    x = rng.normal(size=(3, *shape)).astype(np.float32)
    net = pylrp.load(module)
    np.testing.assert_allclose(net.forward(x), keras.ops.convert_to_numpy(module(x)), atol=5e-5)
    ex = net.explain(x, np.ones((3, *shape), np.float32), composite=ONE_MAP)
    assert np.isfinite(ex.relevance).all()


def test_keras_refuses_the_deviation_without_the_mean():
    keras = pytest.importorskip("keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = keras.Sequential([keras.Input((6,)), keras.layers.LayerNormalization(rms_scaling=True)])
    with pytest.raises(pylrp.UnsupportedLayer, match="RMSNormalization"):
        pylrp.load(module)
