"""Vision transformers in torch, exported in every way: one prediction, one map, and that of an independent gradient."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import nn

import pylrp

from .transformers import Plain, Sdpa, Vit, relevance

OPERATIONS = {"eager": Plain, "sdpa": Sdpa}
COMPOSITES = {"attnlrp": True, "cp_lrp": False}  # whether relevance goes through the probabilities


def exported(network, example, opset, names=("x",)):
    """Return a network as torch's exporter writes it, with an open batch."""
    import onnx

    file = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(
            network,
            example,
            file,
            input_names=list(names),
            dynamo=False,
            opset_version=opset,
            dynamic_axes={name: {0: "n"} for name in names},
        )
    return onnx.load_from_string(file.getvalue())


def without_norm(width):
    return nn.Identity()


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return Vit(without_norm).double().eval()


@pytest.mark.filterwarnings("ignore")  # torch's older exporter on its own age
@pytest.mark.parametrize("opset", [14, 17])
@pytest.mark.parametrize("operations", OPERATIONS)
def test_a_vision_transformer(vit, operations, opset):
    model = exported(vit.use(OPERATIONS[operations]()), (torch.zeros(2, 3, 12, 12).double(),), opset)
    net = pylrp.load(model)
    x = torch.randn(3, 3, 12, 12).double()
    for composite, taylor in COMPOSITES.items():
        ex = net.explain(x.numpy(), target=1, composite=composite)
        logits, expected = relevance(vit, x, 1, taylor)
        np.testing.assert_allclose(ex.output, logits, atol=1e-12)
        np.testing.assert_allclose(ex.relevance, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
        assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12
        assert any(row.position.any() for row in ex.ledger)


@pytest.mark.filterwarnings("ignore")
def test_what_is_chosen_for_it(vit):
    net = pylrp.load(exported(vit.use(Plain()), (torch.zeros(2, 3, 12, 12).double(),), 17))
    ex = net.explain(np.random.default_rng(0).normal(size=(2, 3, 12, 12)), target=[0, 3])
    assert ex.composite == "attnlrp_gamma"
    assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12
    rules = {row.rule for row in ex.ledger}
    assert {"Gamma(0.25, stabilizer=0)", "Flat(stabilizer=0)", "Stop()", "Value()", "Half()"} <= rules


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(8, 8)

    def forward(self, x):
        q = self.query(x)
        return torch.softmax(q @ q.transpose(1, 2) / 3, -1) @ x


class Attend(nn.Module):
    """torch's own attention; without batch_first inside it the batch is axis 1, and merged with the heads."""

    def __init__(self, batch_first):
        super().__init__()
        self.first, self.attn = batch_first, nn.MultiheadAttention(8, 2, batch_first=batch_first)

    def forward(self, x):
        x = x if self.first else x.transpose(0, 1)
        x = self.attn(x, x, x, need_weights=False)[0]
        return x if self.first else x.transpose(0, 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", [SelfAttention(), Attend(True), Attend(False)], ids=["own", "first", "second"])
@pytest.mark.parametrize("batch", [1, 2, 3])  # 2 heads
def test_attention_as_a_module(part, batch):
    head = nn.Sequential(part, nn.Flatten(), nn.Linear(48, 3)).double().eval()
    net = pylrp.load(head, torch.zeros(batch, 6, 8).double())
    x = torch.randn(4, 6, 8).double()
    np.testing.assert_allclose(net.forward(x.numpy()), head(x).detach().numpy(), atol=1e-12)
    ex = net.explain(x.numpy(), target=0)
    assert ex.composite == "cp_lrp"
    assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12
