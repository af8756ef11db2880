"""GPT-2 as it is written out with a causal table, with and without earlier keys and values, fused by onnxruntime."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import pylrp

optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
WIDTH, HEADS, LONGEST, WORDS, BLOCKS = 32, 4, 24, 50, 2
COEFFICIENT = 0.7978845608028654  # of GELU by tanh, sqrt(2 / pi)


class Conv1D(nn.Module):
    """A dense layer as GPT-2 has it: the weights transposed, rows by Gemm."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs) * 0.2), nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        rows = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return rows.view(*x.size()[:-1], self.weight.shape[1])


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = Conv1D(WIDTH, 3 * WIDTH), Conv1D(WIDTH, WIDTH)
        self.up, self.down = Conv1D(WIDTH, 4 * WIDTH), Conv1D(4 * WIDTH, WIDTH)
        self.register_buffer("seen", torch.ones(LONGEST, LONGEST, dtype=torch.uint8).tril()[None, None])
        self.register_buffer("low", torch.tensor(-1e4))

    @staticmethod
    def by_head(x):
        return x.view(x.size(0), x.size(1), HEADS, x.size(2) // HEADS).permute(0, 2, 1, 3)

    def forward(self, x, past):
        q, k, v = (self.by_head(part) for part in self.qkv(self.first(x)).split(WIDTH, 2))
        if past is not None:
            k, v = torch.cat([past[0], k], -2), torch.cat([past[1], v], -2)
        scores = q @ k.transpose(-1, -2) / (v.size(-1) ** 0.5)
        rows, keys = scores.size(-2), scores.size(-1)
        scores = torch.where(self.seen[:, :, keys - rows : keys, :keys].bool(), scores, self.low.to(scores.dtype))
        heard = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
        x = x + self.out(heard.view(heard.size(0), heard.size(1), -1))
        z = self.up(self.second(x))
        z = 0.5 * z * (1 + torch.tanh(COEFFICIENT * (z + 0.044715 * torch.pow(z, 3))))
        return x + self.down(z), torch.stack([k, v])


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids, *pasts):
        before = pasts[0].size(-2) if pasts else 0
        x = self.words(ids) + self.places(torch.arange(before, ids.size(1) + before)[None])
        presents = []
        for number, block in enumerate(self.blocks):
            x, present = block(x, pasts[number] if pasts else None)
            presents.append(present)
        logits = self.head(self.norm(x))
        return (logits, *presents) if pasts else logits


@pytest.mark.parametrize("with_past", [False, True])
def test_one_map(with_past, tmp_path):
    torch.manual_seed(2)
    module, example, shapes = Gpt().eval(), [torch.randint(0, WORDS, (1, 5))], {"input_ids": {0: "n", 1: "t"}}
    outputs = ["logits"]
    if with_past:
        example += [torch.zeros(2, 1, HEADS, 3, WIDTH // HEADS)] * BLOCKS
        shapes |= {f"past_{i}": {1: "n", 3: "s"} for i in range(BLOCKS)}
        outputs += [f"present_{i}" for i in range(BLOCKS)]
    path = tmp_path / "gpt2.onnx"
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(example), str(path), input_names=list(shapes), output_names=outputs, opset_version=17,
            dynamo=False, dynamic_axes={**shapes, "logits": {0: "n", 1: "t"}},
        )  # fmt: skip
    fused = tmp_path / "fused.onnx"
    optimizer.optimize_model(str(path), "gpt2", HEADS, WIDTH, opt_level=0).save_model_to_file(str(fused))
    assert {"Attention", "FastGelu"} <= {node.op_type for node in onnx.load(fused).graph.node}
    x = {"input_ids": np.array([[3, 9, 20, 31, 44, 7, 12]])}
    empty = {name: np.zeros((2, 1, HEADS, 0, WIDTH // HEADS), "f") for name in shapes if name.startswith("past")}
    maps = []
    for file in (path, fused):
        net = pylrp.load(file, dtype="float64")
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        kind = np.int32 if session.get_inputs()[0].type == "tensor(int32)" else np.int64
        told = session.run(["logits"], {"input_ids": x["input_ids"].astype(kind), **empty})[0]
        np.testing.assert_allclose(net.forward(x), told, rtol=0, atol=1e-5 * np.abs(told).max())
        maps.append(net.explain(x, target=(-1, 7), composite="attnlrp").relevance)
        found = net.verify(x, target=(-1, 7), composite="attnlrp")
        assert found, str(found)
    np.testing.assert_allclose(maps[1], maps[0], rtol=0, atol=1e-12 * np.abs(maps[0]).max())
