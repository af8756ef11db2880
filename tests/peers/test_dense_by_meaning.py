"""Dense or convolution by what it is in the model: agreement with zennit, which goes by the class of a module.

zennit's composites on networks with Linear along the last axis of several, kernels of 1 on images of 1 pixel, and both
in one network; the same networks in other words (matmul, einsum, Keras) against zennit on the modules' twin.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
import torch
from torch import nn
from zennit import composites as zc
from zennit import rules as zr

import pylrp
from peers.test_zennit_networks import COMPOSITES, attribute, zennit_composite

TOLERANCE = 1e-9  # of the largest value, in float64


class Permute(nn.Module):
    """Axes in another order."""

    def __init__(self, *axes):
        super().__init__()
        self.axes = axes

    def forward(self, x):
        return x.permute(*self.axes)


class Mixer(nn.Module):
    """Linear along the positions of (N, L, C), then along the channels."""

    def __init__(self):
        super().__init__()
        self.tokens, self.act, self.channels = nn.Linear(5, 7), nn.ReLU(), nn.Linear(6, 4)
        self.act2, self.flat, self.head = nn.ReLU(), nn.Flatten(), nn.Linear(28, 3)

    def forward(self, x):
        x = self.act(self.tokens(x.transpose(1, 2))).transpose(1, 2)
        return self.head(self.flat(self.act2(self.channels(x))))


def mlp(size, positions):
    return nn.Sequential(
        nn.Linear(size, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Flatten(), nn.Linear(7 * positions, 4)
    )


DENSE_FIRST = {
    "(N, L, C)": (lambda: mlp(6, 5), (5, 6)),
    "(N, 1, C)": (lambda: mlp(6, 1), (1, 6)),
    "(N, L, 1)": (lambda: mlp(1, 5), (5, 1)),
    "(N, H, W, C)": (lambda: mlp(6, 6), (2, 3, 6)),
    "without biases": (
        lambda: nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)),
        (4, 6),
    ),
    "on (N, C, L)": (
        lambda: nn.Sequential(
            Permute(0, 2, 1), nn.Linear(6, 8), nn.ReLU(), Permute(0, 2, 1), nn.Flatten(), nn.Linear(40, 4)
        ),
        (6, 5),
    ),
    "mixer": (Mixer, (5, 6)),
}
CONV_FIRST = {
    "1 x 1 on 1 x 1": (
        lambda: nn.Sequential(nn.Conv2d(6, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten()), (6, 1, 1)
    ),
    "1 on 1": (lambda: nn.Sequential(nn.Conv1d(6, 8, 1), nn.ReLU(), nn.Conv1d(8, 4, 1), nn.Flatten()), (6, 1)),
    "1 on 9": (lambda: nn.Sequential(nn.Conv1d(6, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)), (6, 9)),
    "1 x 1 x 1": (lambda: nn.Sequential(nn.Conv3d(3, 8, 1), nn.ReLU(), nn.Conv3d(8, 4, 2), nn.Flatten()), (3, 2, 2, 2)),
    "pooled, then 1 x 1": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 9, 1), nn.ReLU(),
            nn.Conv2d(9, 4, 1), nn.Flatten(),
        ),
        (3, 6, 6),
    ),
    "the image's own size": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)), (3, 4, 4)
    ),
    "transposed, on 1 x 1": (
        lambda: nn.Sequential(nn.ConvTranspose2d(5, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)), (5, 1, 1)
    ),
    "both": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 8, 3), nn.ReLU(), Permute(0, 2, 1), nn.Linear(8, 6), nn.ReLU(), Permute(0, 2, 1),
            nn.Conv1d(6, 5, 1), nn.ReLU(), nn.Flatten(), nn.Linear(35, 4),
        ),
        (3, 9),
    ),
    "both, channels last": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 2, 2), nn.ReLU(), Permute(0, 2, 3, 1), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8),
            Permute(0, 3, 1, 2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 4),
        ),
        (3, 4, 4),
    ),
}  # fmt: skip


def random(maker, shape, seed=4):
    """Return a network in float64 with random weights and biases, and an input."""
    torch.manual_seed(seed)
    model = maker().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / max(1, parameter[0].numel()) ** 0.5)
    return model, 2 * torch.randn(3, *shape, dtype=torch.float64)


def class_one(out):
    """Return the logit of class 1 of each sample and zeros elsewhere; out is (batch, ..., classes)."""
    R = torch.zeros_like(out)
    R[..., 1] = out[..., 1]
    return R


def require_agreement(found, expected, tolerance=TOLERANCE):
    scale = np.abs(expected).max()
    assert scale > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def both(model, x, name, composite):
    """Return pylrp's and zennit's relevance."""
    R = class_one(model(x).detach())
    boxed = name.endswith("box")
    mine = pylrp.composite(name, low=-9.0, high=8.0) if boxed else name
    found = pylrp.load(model, x).explain(x.numpy(), R.numpy(), composite=mine).relevance
    return found, attribute(model, composite, x, R)


@pytest.mark.parametrize("composite", [name for name in COMPOSITES if name != "epsilon_gamma_box"])
@pytest.mark.parametrize("name", DENSE_FIRST)
def test_dense_first(name, composite):
    maker, shape = DENSE_FIRST[name]
    model, x = random(maker, shape)
    require_agreement(*both(model, x, composite, zennit_composite(composite, shape, x.dtype, None)))


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", CONV_FIRST)
def test_convolution_first(name, composite):
    maker, shape = CONV_FIRST[name]
    if composite == "excitation_backprop" and name == "both, channels last":
        pytest.skip("zennit's ExcitationBackprop passes plain gradients through GELU")
    model, x = random(maker, shape)
    require_agreement(*both(model, x, composite, zennit_composite(composite, shape, x.dtype, None)))


@pytest.mark.parametrize("name", [*DENSE_FIRST, *CONV_FIRST])
def test_kinds_and_names_are_those_of_the_modules(name):
    model, x = random(*{**DENSE_FIRST, **CONV_FIRST}[name])
    net = pylrp.load(model, x)
    kinds = {node.name: node.layer.kind for node in net.graph.nodes}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert kinds[path] == "dense"
        elif list(module.parameters(recurse=False)):
            assert kinds[path].startswith("conv")
    assert sum(kind in ("dense", "conv", "conv_transpose") for kind in kinds.values()) == len(
        [module for module in model.modules() if list(module.parameters(recurse=False))]
    )


def test_rules_by_name_reach_a_linear_on_positions(tmp_path):
    model, x = random(*DENSE_FIRST["(N, L, C)"])
    named = {"0": pylrp.Gamma(0.5), "2": pylrp.AlphaBeta()}
    mine = pylrp.Composite("mine", pylrp.Epsilon(), names=named)
    maps = [(["0"], zr.Gamma(0.5)), (["2"], zr.AlphaBeta()), (["5"], zr.Epsilon(1e-6)), (["1", "3"], zr.Pass())]
    R = class_one(model(x).detach())
    expected = attribute(model, zc.NameMapComposite(maps), x, R)
    net = pylrp.load(model, x)
    net.save(tmp_path / "net.pylrp.npz")
    for each in (net, pylrp.load(tmp_path / "net.pylrp.npz")):
        require_agreement(each.explain(x.numpy(), R.numpy(), composite=mine).relevance, expected)
        listed = [pylrp.Gamma(0.5), pylrp.AlphaBeta(), pylrp.Epsilon()]
        require_agreement(each.explain(x.numpy(), R.numpy(), composite=listed).relevance, expected)


class InOtherWords(nn.Module):
    """Two Linears with a ReLU between them, written as functions of parameters."""

    def __init__(self, how, layers):
        super().__init__()
        self.how = how
        self.parameter_list = nn.ParameterList(
            [p for layer in layers for p in (layer.weight.T.contiguous(), layer.bias)]
        )

    def product(self, x, W):
        rank = x.ndim
        if self.how == "matmul":
            return x @ W
        if self.how == "left":
            return (W.T @ x.transpose(1, 2)).transpose(1, 2)
        if self.how == "einsum":
            return torch.einsum({2: "ab,bc->ac", 3: "abc,cd->abd"}[rank], x, W)
        if self.how == "einsum, the matrix first":
            return torch.einsum({2: "dc,ac->ad", 3: "dc,abc->abd"}[rank], W.T, x)
        return torch.einsum("...i,io->...o", x, W)

    def forward(self, x):
        W, b, V, c = self.parameter_list
        return self.product(torch.relu(self.product(x, W) + b), V) + c


@pytest.mark.parametrize("shape", [(5, 6), (1, 6), (6,)], ids=str)
@pytest.mark.parametrize("how", ["matmul", "left", "einsum", "einsum, the matrix first", "ellipsis"])
def test_functions(how, shape):
    if how == "left" and len(shape) == 1:
        pytest.skip("a matrix before a row is no product of it")
    model, x = random(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), shape)
    other = InOtherWords(how, [model[0], model[2]]).double()
    R = class_one(model(x).detach())
    net = pylrp.load(other, x)
    np.testing.assert_allclose(net.forward(x.numpy()), model(x).detach(), atol=1e-12)
    for name in ("epsilon_plus_flat", "epsilon_alpha2_beta1"):
        expected = attribute(model, zennit_composite(name, shape, x.dtype, None), x, R)
        require_agreement(net.explain(x.numpy(), R.numpy(), composite=name).relevance, expected)


KERAS = {
    "Dense": lambda keras: (keras.layers.Dense(8), keras.layers.Dense(4)),
    "EinsumDense": lambda keras: (
        keras.layers.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d"),
        keras.layers.EinsumDense("...c,cd->...d", (4,), bias_axes="d"),
    ),
    "EinsumDense with heads": lambda keras: (
        keras.layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de"),
        keras.layers.EinsumDense("abde,def->abf", (None, 4), bias_axes="f"),
    ),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("kind", KERAS)
def test_keras(kind):
    keras = pytest.importorskip("keras")
    first, second = KERAS[kind](keras)
    model = keras.Sequential([keras.Input((5, 6)), first, keras.layers.ReLU(), second])
    twin, x = random(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), (5, 6))
    for layer, linear in ((first, twin[0]), (second, twin[2])):
        arrays = linear.weight.detach().numpy().T, linear.bias.detach().numpy()
        layer.set_weights([a.reshape(w.shape) for a, w in zip(arrays, layer.weights, strict=True)])
    R = class_one(twin(x).detach())
    net = pylrp.load(model)
    assert [node.layer.kind for node in net.graph.nodes].count("dense") == 2
    assert {first.name, second.name} <= set(net.names)
    for name in ("epsilon_plus_flat", "epsilon_alpha2_beta1"):
        expected = attribute(twin, zennit_composite(name, (5, 6), x.dtype, None), x, R)
        found = net.explain(x.numpy().astype(np.float32), R.numpy().astype(np.float32), composite=name).relevance
        require_agreement(found, expected, 1e-4)
