"""GLU and its kin (Shazeer 2020) from ONNX, in every order of the factors, against gradient x input.

The signal takes all where the gate is a sigmoid; otherwise the branch without the function takes all (``cp_lrp``) or
each half (``attnlrp``). The reference is torch's autograd with constants in the places of gates.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pylrp

from .exports import can_write, exported

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
CURVES = {"glu": torch.sigmoid, "reglu": torch.relu, "geglu": F.gelu, "swiglu": F.silu, "bilinear": None}


class Unit(nn.Module):
    """Two blocks of norm, gated product and residual sum; ``composite`` makes the gradient that of relevance."""

    composite = None

    def __init__(self, kind, gate_first, packed):
        super().__init__()
        self.kind, self.gate_first, self.packed = kind, gate_first, packed
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(2))
        self.into = nn.ModuleList(nn.Linear(6, 16) for _ in range(2))
        self.out, self.head = nn.ModuleList(nn.Linear(8, 6) for _ in range(2)), nn.Linear(6, 3)

    def norm(self, layer, x):
        if self.composite is None:
            return layer(x)
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt().detach() * layer.weight + layer.bias
        )

    def product(self, gate, signal):
        curve = CURVES[self.kind]
        if self.composite is None or curve is None:
            value = gate if curve is None else curve(gate)
        elif self.kind == "glu":
            return curve(gate).detach() * signal
        else:
            value = gate * torch.where(gate == 0, 0.5, curve(gate) / gate).detach()
        made = value * signal if self.gate_first else signal * value
        if self.composite is None:
            return made
        if self.composite == "cp_lrp" and curve is not None:
            return value.detach() * signal
        return made / 2 + (made / 2).detach()

    def forward(self, x):
        for norm, into, out in zip(self.norms, self.into, self.out, strict=True):
            both = into(self.norm(norm, x))
            one, other = both.chunk(2, -1) if self.packed else (both[..., :8], both[..., 8:])
            x = x + out(self.product(one, other) if self.gate_first else self.product(other, one))
        return self.head(x)


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
@pytest.mark.parametrize("way", ["module", "torchscript 17", pytest.param("dynamo 20", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("gate_first", [True, False])
@pytest.mark.parametrize("kind", CURVES)
def test_a_gated_unit(kind, gate_first, way, composite, tmp_path):
    if (kind, composite) == ("bilinear", "cp_lrp"):
        pytest.skip("nothing is a gate there")
    if way != "module" and not can_write(way):
        pytest.skip(f"{way} needs onnxscript")
    torch.manual_seed(3)
    module = Unit(kind, gate_first, packed=gate_first).eval().requires_grad_(False)
    x = torch.randn(2, 6)
    if way == "module":
        net = pylrp.load(module, x, dtype="float64")
    else:
        net = pylrp.load(exported(module, {"x": x}, tmp_path / "a.onnx", way, lengths=False), dtype="float64")
    rows = x.double().requires_grad_()
    twin = module.double()
    twin.composite = composite
    y = twin(rows)
    expected = (rows * torch.autograd.grad(y[:, 1].sum(), rows)[0]).detach().numpy()
    ex = net.explain(x.double().numpy(), 1, composite=composite)
    np.testing.assert_allclose(ex.output, y.detach().numpy(), atol=1e-9)
    np.testing.assert_allclose(ex.relevance, expected, atol=1e-9 * np.abs(expected).max())
    assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12
