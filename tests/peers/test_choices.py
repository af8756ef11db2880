"""torch.where by masks and constants: maps by torch's own gradient (a choice is linear), verified against the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import pylrp

from .exports import exported
from .gradient_rules import relevance

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

CHOICES = {
    "two activations": lambda s, h, g, x, m: torch.where(s.kept, h / 2.5, g),
    "a value and its quotient": lambda s, h, g, x, m: torch.where(s.kept, h, h / s.numbers),
    "behind a division": lambda s, h, g, x, m: torch.where(s.kept, h / 2.5, torch.tensor(0.0)),
    "different constants": lambda s, h, g, x, m: torch.where(s.kept, h / 2.5, s.numbers),
    "places": lambda s, h, g, x, m: torch.where(s.places, h, g),
    "a mask of the call": lambda s, h, g, x, m: torch.where(m[:, :, None].bool(), h, g),
    "a mask and a smaller value": lambda s, h, g, x, m: torch.where(m[:, :, None].bool(), h, x[:, :1]),
    "a smaller value": lambda s, h, g, x, m: torch.where(s.kept, h, x[:, :1]),
    "zeros like a value": lambda s, h, g, x, m: torch.where(h > 0, h / 2.5, torch.zeros_like(h)),
    "a leaky function": lambda s, h, g, x, m: torch.where(h > 0, h, torch.zeros_like(h) + 0.2 * h),
}


class Chooses(nn.Module):
    def __init__(self, choice):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.kept, self.places, self.numbers = torch.rand(6) > 0.4, torch.rand(5, 1) > 0.5, torch.rand(6) + 1
        self.choice = choice

    def forward(self, x, mask=None):
        h = self.choice(self, self.first(x), self.second(x), x, mask)
        return self.head(torch.relu(h)).mean(1)


@pytest.mark.parametrize("name", CHOICES)
def test_choices_of_masks_are_linear(name, tmp_path):
    model = Chooses(CHOICES[name]).eval().requires_grad_(False)
    torch.manual_seed(4)
    x = {"x": torch.randn(4, 5, 6)}
    if "mask" in name:
        x["mask"] = torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
    net = pylrp.load(exported(model, x, tmp_path / "a.onnx", "torchscript 17", lengths=False), dtype="float64")
    given = {key: value.numpy() for key, value in x.items()}
    given = given if len(given) > 1 else given["x"]
    wide = model.double()
    top = torch.zeros(4, 3, dtype=torch.float64)
    top[:, 1] = 1
    y, R = relevance(lambda v: wide(v, *list(x.values())[1:]), x["x"], top)
    ex = net.explain(given, target=1, composite="attnlrp")
    np.testing.assert_allclose(ex.output, y, rtol=0, atol=1e-6)  # files hold numbers in single precision
    np.testing.assert_allclose(ex.relevance, R, rtol=0, atol=1e-6 * np.abs(R).max())
    for composite in ("attnlrp", "epsilon"):
        assert net.verify(given, composite=composite).passed


class Attends(nn.Module):
    def __init__(self, closed):
        super().__init__()
        torch.manual_seed(5)
        self.packed, self.head, self.closed = nn.Linear(8, 24), nn.Linear(8, 3), closed

    def forward(self, x):
        q, k, v = self.packed(x).chunk(3, -1)
        scores = q @ k.transpose(1, 2) / 8**0.5
        scores = torch.where(torch.ones(5, 5).tril().bool(), scores, torch.tensor(self.closed))
        return self.head((scores.softmax(-1) @ v).mean(1))


@pytest.mark.parametrize("closed", [-1e4, -np.inf, float(np.finfo(np.float32).min)])
def test_masks_behind_a_division_are_verified(closed, tmp_path):
    """Scores that are divided and masked in one layer, or whose mask is a layer with a stabiliser."""
    x = {"x": torch.randn(2, 5, 8)}
    path = exported(Attends(closed).eval(), x, tmp_path / "a.onnx", "torchscript 17", lengths=False)
    net = pylrp.load(path, dtype="float64")
    for composite in ("attnlrp", "epsilon"):
        assert net.verify(x["x"].numpy(), composite=composite).passed


class ReadTwice(nn.Module):
    """A convolution whose output goes through a BatchNormalization into the next one, and past it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.first, self.norm, self.second = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        h = self.first(x)
        return self.head((self.second(self.norm(h)) + h.relu()).mean((2, 3)))


def test_scalings_that_belong_to_the_layer_behind_are_verified(tmp_path):
    x = {"x": torch.randn(2, 3, 8, 8)}
    path = exported(ReadTwice().eval(), x, tmp_path / "a.onnx", "torchscript 17", lengths=False)
    for composite in ("attnlrp", "epsilon_plus"):
        assert pylrp.load(path, dtype="float64").verify(x["x"].numpy(), composite=composite).passed


class ByEinsum(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.packed, self.head = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x):
        q, k, v = (each.unflatten(-1, (2, 4)) for each in self.packed(x).chunk(3, -1))
        p = (torch.einsum("bihd,bjhd->bhij", q, k) / 2).softmax(-1)
        return self.head(torch.einsum("bhij,bjhd->bihd", p, v).flatten(2).mean(1))


def test_rules_of_an_einsum_are_its_products(tmp_path):
    x = {"x": torch.randn(2, 5, 8)}
    path = exported(ByEinsum().eval(), x, tmp_path / "a.onnx", "torchscript 17", lengths=False)
    for composite in ("attnlrp", "cp_lrp"):
        assert pylrp.load(path, dtype="float64").verify(x["x"].numpy(), composite=composite).passed
