"""Networks with gates, loaded from torch and ONNX, against gradient x input with every gate held constant.

The reference is torch's autograd in float64 on the same module: a gate is detached, an activation is its argument times
a constant, so that LRP-0 is the gradient times the input. Real models: EfficientNet, MobileNetV3, RegNetY with
statistics of a forward pass, rapidocr's three networks with their own weights where the package is.
"""

from __future__ import annotations

import copy
import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops.misc import SqueezeExcitation

import pylrp
from pylrp.rules import Half

onnx = pytest.importorskip("onnx")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),  # torch's exporter on itself
]
AT_NIGHT = (*[f"efficientnet_b{n}" for n in range(1, 8)], "mobilenet_v3_large", "regnet_y_800mf", "regnet_y_1_6gf")
ZERO = pylrp.Composite("zero", pylrp.Zero(), {"pool": pylrp.Zero(), "add": pylrp.Zero()})


class Constant(nn.Module):
    """An activation as its argument times a constant."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return x * torch.where(x == 0, 0.0, self.function(x.clone()) / torch.where(x == 0, 1.0, x)).detach()


def linearised(module):
    """Return a copy of a module with gates and activations as constants."""
    module = copy.deepcopy(module)
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, (nn.SiLU, nn.Hardswish, nn.ReLU, nn.GELU)):
                setattr(part, name, Constant(child))
        if isinstance(part, SqueezeExcitation):
            part.forward = lambda x, part=part: part._scale(x).detach() * x
        if hasattr(part, "constant"):
            part.constant = True
    return module


def gradient_times_input(module, x, target):
    x = x.clone().requires_grad_()
    out = linearised(module)(x)
    out.reshape(len(x), out.shape[1], -1).sum(2)[:, target].sum().backward()
    return (x * x.grad).detach().numpy()


def settled(module, size):
    """Give a network's normalisations the statistics of a forward pass, so that values keep their size."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
    with torch.no_grad():
        module.train()(torch.rand(4, 3, size, size, dtype=torch.float64))
    return module.eval()


def exported(module, x):
    file = io.BytesIO()
    torch.onnx.export(module, (x,), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    return onnx.load_from_string(file.getvalue())


def require_balanced(ex, tolerance):
    """Every layer's account closes to a part of the relevance that arrives there."""
    for name, row in zip(ex.ledger.names, ex.ledger, strict=True):
        R = ex.layers[name]
        size = np.abs(R).sum(axis=tuple(range(1, R.ndim)))
        assert (np.abs(row.rounding) <= tolerance * size).all(), name


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # many small convolutions
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "name",
    [
        "efficientnet_b0",
        "mobilenet_v3_small",
        "regnet_y_400mf",
        *[pytest.param(name, marks=pytest.mark.nightly) for name in AT_NIGHT],
    ],
)
def test_networks_with_squeeze_and_excite(name):
    torch.manual_seed(0)
    module = settled(getattr(torchvision.models, name)(weights=None).double(), 64)
    x = torch.rand(2, 3, 48, 48, dtype=torch.float64)
    wanted = gradient_times_input(module, x, 3)
    net = pylrp.load(exported(module, x[:1]))
    blocks = sum(isinstance(part, SqueezeExcitation) for part in module.modules())
    assert sum(node.layer.kind == "multiply" for node in net.graph.nodes) == blocks
    assert not any(node.layer.kind in ("batchnorm", "affine") for node in net.graph.nodes)
    found = net.explain(x.numpy(), 3, composite=ZERO)
    # Constants of hard sigmoids have single precision in ONNX.
    tolerance = 1e-7 if "mobilenet" in name else 1e-11
    np.testing.assert_allclose(found.relevance, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    single = pylrp.load(module.float(), x[:1].float())
    found = single.explain(x.float().numpy(), 3, composite=ZERO)
    # A unit within rounding of zero (regnet: 3e-6 of the layer's largest) may be on the ReLU's other side: its inputs
    # then have all of their relevance or none, which changes a map in places, not as a whole.
    gaps = np.abs(found.relevance - wanted) / np.abs(wanted).max()
    assert np.median(gaps) < 1e-3
    assert gaps.max() < 0.2
    for composite in (*pylrp.COMPOSITES, pylrp.Composite("halved", pylrp.Epsilon(), {"product": Half()})):
        require_balanced(single.explain(x.float().numpy(), 3, composite=composite, layers="all"), 1e-5)


class ChannelAndSpatial(nn.Module):
    """CBAM (Woo et al. 2018): a gate for channels of averages and maxima, one for positions behind it."""

    constant = False

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8))
        self.spatial, self.head = nn.Conv2d(2, 1, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x):
        y = self.stem(x)
        gate = torch.sigmoid(
            self.mlp(nn.functional.adaptive_avg_pool2d(y, 1)) + self.mlp(nn.functional.adaptive_max_pool2d(y, 1))
        )
        gate = gate[:, :, None, None].expand_as(y)
        y = y * (gate.detach() if self.constant else gate)
        gate = torch.sigmoid(self.spatial(torch.cat([y.mean(1, keepdim=True), y.max(1, keepdim=True)[0]], 1)))
        return self.head(((gate.detach() if self.constant else gate) * y).mean((2, 3)))


class GatedUnit(nn.Module):
    """GLU (Dauphin et al. 2017), WaveNet's tanh and sigmoid, softmax over channels; in either order of the factors."""

    constant = False

    def __init__(self, how):
        super().__init__()
        self.how, self.into, self.head = how, nn.Linear(6, 16), nn.Linear(8, 4)

    def forward(self, x):
        signal, gate = self.into(x).chunk(2, -1)
        if self.how == "softmax":
            gate = gate.softmax(-1)
        elif self.how == "hard sigmoid":
            gate = torch.clamp(gate + 3, 0, 6) / 6
        elif self.how == "written out":
            gate = 1 / (1 + torch.exp(-gate))
        else:
            gate = torch.sigmoid(gate)
        gate = gate.detach() if self.constant else gate
        if self.how == "glu":
            return self.head(gate * signal)
        if self.how == "tanh":
            signal = signal * (torch.tanh(signal) / signal).detach() if self.constant else torch.tanh(signal)
        return self.head(signal * gate)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (ChannelAndSpatial, (3, 9, 9)),
        *[
            (lambda how=how: GatedUnit(how), (6,))
            for how in ("glu", "sigmoid", "tanh", "softmax", "hard sigmoid", "written out")
        ],
    ],
)
def test_gates_in_every_form(make, shape):
    torch.manual_seed(1)
    module = make().double().eval()
    x = torch.randn(3, *shape, dtype=torch.float64)
    wanted = gradient_times_input(module, x, 2)
    for net in (pylrp.load(module, x), pylrp.load(exported(module, x))):
        found = net.explain(x.numpy(), 2, composite=ZERO, layers="all")
        np.testing.assert_allclose(found.relevance, wanted, atol=1e-7 * np.abs(wanted).max())
        require_balanced(found, 1e-12)


def test_a_quotient_of_two_values():
    class Quotient(nn.Module):
        constant = False

        def __init__(self):
            super().__init__()
            self.into, self.head = nn.Linear(6, 8), nn.Linear(4, 3)

        def forward(self, x):
            one, other = self.into(x).chunk(2, -1)
            other = nn.functional.softplus(other) + 1
            return self.head(one / (other.detach() if self.constant else other))

    torch.manual_seed(2)
    module = Quotient().double().eval()
    x = torch.randn(3, 6, dtype=torch.float64)
    found = pylrp.load(module, x).explain(x.numpy(), 2, composite=ZERO).relevance
    wanted = gradient_times_input(module, x, 2)
    np.testing.assert_allclose(found, wanted, atol=1e-10 * np.abs(wanted).max())


@pytest.mark.skipif(
    find_spec("rapidocr_onnxruntime") is None, reason="needs rapidocr-onnxruntime (without its own needs)"
)
@pytest.mark.parametrize(("part", "shape"), [("det", (3, 96, 160)), ("cls", (3, 48, 192)), ("rec", (3, 48, 160))])
def test_text_recognition_with_its_own_weights(part, shape):
    ort = pytest.importorskip("onnxruntime")
    folder = Path(find_spec("rapidocr_onnxruntime").submodule_search_locations[0]) / "models"
    (path,) = folder.glob(f"*_{part}_infer.onnx")
    net = pylrp.load(path, input_shape=shape)
    assert sum(node.layer.kind == "multiply" for node in net.graph.nodes) > 1
    x = np.random.default_rng(0).uniform(size=(2, *shape)).astype(np.float32)
    session = ort.InferenceSession(str(path))
    wanted = session.run(None, {session.get_inputs()[0].name: x})[0]
    found = pylrp.load(path, input_shape=shape, keep_top=True).forward(x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    top = np.ones((2, *net.graph.shapes[net.graph.outputs[0]]), np.float32)
    for composite in pylrp.COMPOSITES:
        require_balanced(net.explain(x, top, composite=composite, layers="all"), 1e-5)
