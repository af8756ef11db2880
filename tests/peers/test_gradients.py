"""Gradient times input and integrated gradients by the core, beside torch's autograd in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import pylrp
from pylrp.evaluate import gradient_times_input, integrated_gradients

from .exports import exported
from .transformers import Bert, Decoder, Vit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


class Gated(nn.Module):
    """Products of two values, of matrices too, a softmax inside, a norm."""

    def __init__(self):
        super().__init__()
        self.up, self.gate, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.up(x) * self.gate(x).sigmoid()
        h = h / (h.square().sum(-1, keepdim=True) + 1e-3).sqrt()
        scores = (h[:, :, None] * h[:, None, :]).softmax(-1)
        return self.out((scores @ h[:, :, None])[:, :, 0])


def convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.GELU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 4), nn.Tanh(),
        nn.Linear(4, 3),
    )  # fmt: skip


FUNCTIONS = {
    "relu": nn.ReLU(), "leaky": nn.LeakyReLU(0.2), "elu": nn.ELU(1.3), "gelu": nn.GELU(), "tanh gelu": nn.GELU("tanh"),
    "silu": nn.SiLU(), "hard swish": nn.Hardswish(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(),
    "softplus": nn.Softplus(), "clip": nn.Hardtanh(-0.5, 0.7), "hard sigmoid": nn.Hardsigmoid(), "mish": nn.Mish(),
    "prelu": nn.PReLU(), "celu": nn.CELU(0.7), "selu": nn.SELU(), "softsign": nn.Softsign(),
    "shrink": nn.Hardshrink(0.3), "log sigmoid": nn.LogSigmoid(),
}  # fmt: skip


class Formula(nn.Module):
    """Functions of one value that only a formula says."""

    def forward(self, x):
        y = torch.exp(-(x**2)) * torch.sin(3 * x) + torch.log(x.abs() + 0.5) - torch.atan(x) / (2 + torch.cos(x))
        return torch.where(x > 0.2, y, torch.erf(x) * torch.sqrt(x * x + 0.3)) + torch.tan(x / 9) ** 3


def gradient(module, x, k=1):
    x = torch.as_tensor(x).double().requires_grad_()
    module.double()(x)[..., k].sum().backward()
    return x.grad.numpy()


@pytest.mark.parametrize("name", [*FUNCTIONS, "formula"])
def test_functions(name, tmp_path):
    torch.manual_seed(1)
    function = Formula() if name == "formula" else FUNCTIONS[name]
    module = nn.Sequential(nn.Linear(5, 9), function, nn.Linear(9, 3)).eval()
    x = torch.randn(6, 5) * 1.5
    path = exported(module.double(), {"x": x.double()}, tmp_path / "a.onnx", "torchscript 17", lengths=False)
    # Attributes of operators are in single precision.
    check(path, module, x.numpy(), 1e-6 if name in ("hard sigmoid", "celu", "selu") else 1e-9)


def check(path, module, x, tolerance=1e-9):
    net = pylrp.load(path, dtype="float64")
    expected = x * gradient(module, x)
    np.testing.assert_allclose(
        gradient_times_input(net, x.astype(np.float64), 1), expected, rtol=0, atol=tolerance * np.abs(expected).max()
    )
    ex = net.explain(x.astype(np.float64), target=1, composite="gradient")
    assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-9 * np.abs(expected).sum()


@pytest.mark.parametrize("kind", ["convolutions", "gated", "vit"])
def test_networks(kind, tmp_path):
    torch.manual_seed(2)
    module, shape = {
        "convolutions": (convolutions(), (2, 8, 8)),
        "gated": (Gated(), (6,)),
        "vit": (Vit(), (3, 12, 12)),
    }[kind]
    module = module.eval()
    x = torch.randn(3, *shape)
    path = exported(module.double(), {"x": x.double()}, tmp_path / "a.onnx", "torchscript 17", lengths=False)
    check(path, module, x.numpy())
    given = x.double().numpy()
    net = pylrp.load(path, dtype="float64")
    start = 0.1 * np.ones_like(given)
    found = integrated_gradients(net, given, 1, baseline=0.1, steps=12)
    parts = [(k + 0.5) / 12 for k in range(12)]
    mean = np.mean([gradient(module, start + part * (given - start)) for part in parts], axis=0)
    expected = (given - start) * mean
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    whole = integrated_gradients(net, given, 1, steps=400)
    missing = net.forward(given)[:, 1] - net.forward(np.zeros_like(given))[:, 1] - whole.reshape(3, -1).sum(1)
    assert np.abs(missing).max() < 2e-3 * np.abs(whole).reshape(3, -1).sum(1).max()


@pytest.mark.parametrize("kind", ["bert", "decoder"])
def test_tokens(kind, tmp_path):
    torch.manual_seed(3)
    module = (Bert(types=False) if kind == "bert" else Decoder()).eval()
    ids, mask = torch.randint(0, 50, (3, 7)), torch.ones(3, 7, dtype=torch.long)
    mask[1, 5:] = 0
    x = {"input_ids": ids, "attention_mask": mask} if kind == "bert" else {"input_ids": ids}
    path = exported(module, x, tmp_path / "a.onnx", "torchscript 17")
    net = pylrp.load(path, dtype="float64")
    given = {name: value.numpy() for name, value in x.items()} if kind == "bert" else ids.numpy()
    weights = np.random.default_rng(0).normal(size=net.forward(given).shape)
    module.double()
    rest = [value for name, value in x.items() if name != "input_ids"]

    def slope(part):
        rows = (part * module.embed(ids)).detach().requires_grad_()
        (module.behind(rows, *rest) * torch.from_numpy(weights)).sum().backward()
        return rows.grad.numpy()

    rows = module.embed(ids).detach().numpy()
    expected = (rows * slope(1.0)).sum(-1)
    found = gradient_times_input(net, given, weights)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    mean = np.mean([slope((k + 0.5) / 5) for k in range(5)], axis=0)
    expected = (rows * mean).sum(-1)
    found = integrated_gradients(net, given, weights, steps=5)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    one = given if kind == "decoder" else {name: value[0] for name, value in given.items()}
    single = integrated_gradients(net, one[0] if kind == "decoder" else one, weights[0], steps=5)
    np.testing.assert_allclose(single, expected[0], rtol=0, atol=1e-9 * np.abs(expected).max())


def test_layers_without_a_derivative(tmp_path):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.steps(x)[0][:, -1])

    x = torch.randn(2, 6, 4)
    path = exported(Last().eval(), {"x": x}, tmp_path / "a.onnx", "torchscript 17", lengths=False)
    with pytest.raises(pylrp.UnsuitableRule) as caught:
        gradient_times_input(pylrp.load(path), x.numpy(), 0)
    assert "LSTM" in str(caught.value)
