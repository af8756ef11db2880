"""The batch on any axis, and merged with others: in files of torch's exporters and as modules; verified, too."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pylrp

from .exports import can_write, exported
from .gradient_rules import relevance

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class TokensFirst(nn.Module):
    """(tokens, batch, features) from the input on."""

    axis, sizes = 1, (5, 3, 16)

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(16, 4), nn.Linear(16, 3)

    def forward(self, x):
        return self.head((x + self.attention(x, x, x)[0])[0])


class HeadsFirst(nn.Module):
    """(heads, batch, tokens, width), with as many samples as heads."""

    axis, sizes = 0, (4, 5, 16)

    def __init__(self):
        super().__init__()
        self.parts, self.head = nn.ModuleList(nn.Linear(16, 16) for _ in range(3)), nn.Linear(16, 3)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = (part(x).view(n, t, 4, 4).permute(2, 0, 1, 3) for part in self.parts)
        y = F.scaled_dot_product_attention(q, k, v).permute(1, 2, 0, 3).reshape(n, t, 16)
        return self.head(F.gelu(x + y)[:, -1])


class Windows(nn.Module):
    """Attention within windows, which are merged with the batch, and of a class token by itself; LayerScale."""

    axis, sizes = 0, (2, 9, 16)

    def __init__(self):
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 3)
        self.scale = nn.Parameter(torch.rand(16))

    def attend(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 4, 4).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, 16))

    def forward(self, x):
        n = x.shape[0]
        patches = self.attend(x[:, 1:].reshape(n * 2, 4, 16)).reshape(n, 8, 16)
        return self.head((x + self.scale * torch.cat((self.attend(x[:, :1]), patches), 1)).mean(1))


class Frames(nn.Module):
    """A CNN for each frame, and attention over frames."""

    axis, sizes = 0, (3, 4, 2, 8, 8)

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 8, 3, 2, bias=False)
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        n, t = x.shape[:2]
        z = F.max_pool2d(F.relu(self.first(x.reshape(n * t, 2, 8, 8))), 3, 2, 1)
        z = F.avg_pool2d(z, 2, 1)
        z = F.adaptive_avg_pool2d(self.second(z), 1).reshape(n, t, 8)
        return self.head((z + self.attention(z, z, z)[0]).mean(1))


NETWORKS = (TokensFirst, HeadsFirst, Windows, Frames)


def made(kind):
    torch.manual_seed(0)
    module = kind().eval().requires_grad_(False)
    return module, torch.randn(kind.sizes)


def require_map(net, module, x, axis):
    wide = copy.deepcopy(module).double()
    for composite, taylor in {"attnlrp": True, "cp_lrp": False}.items():
        top = torch.zeros_like(wide(x.double()))
        top[:, 1] = 1
        y, R = relevance(wide, x.double(), top, taylor)
        ex = net.explain(np.moveaxis(x.numpy(), axis, 0), 1, composite=composite)
        np.testing.assert_allclose(ex.output, y, rtol=0, atol=1e-9 * np.abs(y).max())
        np.testing.assert_allclose(ex.relevance, np.moveaxis(R, axis, 0), rtol=0, atol=1e-9 * np.abs(R).max())


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("way", ["torchscript 17", "dynamo 23"])
def test_a_file(kind, way, tmp_path):
    if not can_write(way):
        pytest.skip(f"{way} needs onnxscript")
    module, x = made(kind)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # torch's exporter does not write it
    try:
        path = exported(module, {"x": x}, tmp_path / "a.onnx", way, batch=kind.axis, lengths=False)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    net = pylrp.load(path, dtype="float64")
    require_map(net, module, x, kind.axis)
    assert net.verify(np.moveaxis(x.numpy(), kind.axis, 0), target=1, composite="attnlrp").ok


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_module(kind):
    module, x = made(kind)
    require_map(pylrp.load(module, x, dtype="float64"), module, x, kind.axis)


class PositionsAndMaskOfAll(torch.nn.Module):
    """Positions (tokens,) and a mask (tokens, tokens), as torch's own layers take them: without a batch."""

    def __init__(self):
        super().__init__()
        self.words, self.places = torch.nn.Embedding(30, 8), torch.nn.Embedding(20, 8)
        self.layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, ids, pos, mask):
        """Return three logits."""
        return self.head(self.layer(self.words(ids) + self.places(pos), src_mask=mask).mean(1))


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_positions_and_a_mask_for_all_samples(kind):
    torch.manual_seed(0)
    module = PositionsAndMaskOfAll().eval()
    closed = torch.triu(torch.ones(6, 6, dtype=torch.bool), 1)
    mask = closed if kind == torch.bool else torch.zeros(6, 6, dtype=kind).masked_fill(closed, -torch.inf)
    example = {"ids": torch.randint(0, 30, (4, 6)), "pos": torch.arange(6), "mask": mask}
    net = pylrp.load(module, example)
    x = {name: value.numpy() for name, value in example.items()}
    np.testing.assert_allclose(net.forward(x), module(**example).detach().numpy(), rtol=1e-5, atol=1e-6)
    few = net.explain(x | {"ids": x["ids"][:2]}, 1, composite="attnlrp")
    alone = net.explain(x | {"ids": x["ids"][1]}, 1, composite="attnlrp")
    np.testing.assert_allclose(few.relevance["ids"][1], alone.relevance["ids"], rtol=1e-4, atol=1e-6)
