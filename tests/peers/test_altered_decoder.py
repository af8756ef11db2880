"""A decoder of today in graphs of another order, with other names, with nodes written again for each reader."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pylrp

from .altered import ALTERED

onnx = pytest.importorskip("onnx")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
WIDTH, HEADS, GROUPS, HEAD = 32, 4, 2, 8


class RootMeanSquare(nn.Module):
    """Scales by 1 + weight, as Gemma does."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(width))

    def forward(self, x):
        """Return x / sqrt(mean x²), scaled."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


def rotated(x, cos, sin):
    """Return x with its first four features turned in pairs of neighbours."""
    turned, rest = x[..., :4], x[..., 4:]
    a, b = turned[..., 0::2], turned[..., 1::2]
    return torch.cat((torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2), rest), -1)


class Block(nn.Module):
    """Norms before and behind each part, norms of queries and keys, grouped heads, a cap on scores."""

    def __init__(self, cap):
        super().__init__()
        self.cap = cap
        self.norms = nn.ModuleList(RootMeanSquare(WIDTH) for _ in range(4))
        self.of_queries, self.of_keys = RootMeanSquare(HEAD), RootMeanSquare(HEAD)
        self.q, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = nn.Linear(WIDTH, GROUPS * HEAD), nn.Linear(WIDTH, GROUPS * HEAD)
        self.up, self.gate = nn.Linear(WIDTH, 48, bias=False), nn.Linear(WIDTH, 48, bias=False)
        self.down = nn.Linear(48, WIDTH, bias=False)

    def forward(self, x, added, cos, sin):
        """Return the block's output."""
        batch, tokens, _ = x.shape
        n = self.norms[0](x)
        q = self.of_queries(self.q(n).view(batch, tokens, HEADS, HEAD)).transpose(1, 2)
        k = self.of_keys(self.k(n).view(batch, tokens, GROUPS, HEAD)).transpose(1, 2)
        v = self.v(n).view(batch, tokens, GROUPS, HEAD).transpose(1, 2)
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        k, v = (each.repeat_interleave(HEADS // GROUPS, 1) for each in (k, v))
        scores = torch.matmul(q, k.transpose(-1, -2)) * 0.4
        if self.cap:
            scores = torch.tanh(scores / self.cap) * self.cap
        a = torch.matmul((scores + added).softmax(-1), v).transpose(1, 2).reshape(batch, tokens, WIDTH)
        x = x + self.norms[1](self.o(a))
        n = self.norms[2](x)
        return x + self.norms[3](self.down(F.silu(self.gate(n)) * self.up(n)))


class Decoder(nn.Module):
    """Two blocks; the head is the table of words."""

    def __init__(self):
        super().__init__()
        self.table, self.blocks = nn.Embedding(50, WIDTH), nn.ModuleList([Block(None), Block(5.0)])
        self.norm = RootMeanSquare(WIDTH)

    def forward(self, ids, mask):
        """Return logits of the next word at each place."""
        tokens = ids.shape[1]
        x = self.table(ids)
        angles = torch.arange(tokens)[:, None].to(x.dtype) * (100.0 ** (-torch.arange(2) / 2)).to(x.dtype)
        keep = torch.ones(tokens, tokens, dtype=torch.bool).tril()[None, None] & mask[:, None, None].bool()
        added = torch.zeros(keep.shape, dtype=x.dtype).masked_fill(~keep, -1e9)
        for block in self.blocks:
            x = block(x, added, angles.cos(), angles.sin())
        return self.norm(x) @ self.table.weight.t()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("decoder") / "decoder.onnx"
    ids = torch.randint(0, 50, (2, 6))
    example = {"ids": ids, "mask": torch.ones_like(ids)}
    axes = {name: {0: "batch", 1: "tokens"} for name in example}
    torch.onnx.export(
        Decoder().eval(), tuple(example.values()), str(path), input_names=list(example), dynamic_axes=axes,
        opset_version=17, dynamo=False,
    )  # fmt: skip
    return onnx.load(path), {name: value.numpy() for name, value in example.items()}


@pytest.mark.parametrize("form", ALTERED)
def test_one_map(written, form):
    model, x = written
    maps = []
    for each in (model, ALTERED[form](model)):
        net = pylrp.load(each, dtype="float64")
        maps.append(net.explain(x, (5, 3), composite="attnlrp").relevance)
        assert net.verify(x, target=(5, 3), composite="attnlrp").ok
    assert np.abs(maps[0]).max() > 0
    np.testing.assert_allclose(maps[1], maps[0], rtol=1e-9, atol=1e-9 * np.abs(maps[0]).max())
