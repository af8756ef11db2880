"""Cells of a user's own, written out step by step, and LSTMs with projections, beside autograd with constant gates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pylrp


def ratio(function: Any, z: Any) -> Any:
    """Return f(z) as a linear function of z: the relevance of f(z) is that of z."""
    return z * (function(z) / z).detach()


class OwnCell(nn.Module):
    """A cell of one's own from a state that is learned: an LSTM with norms, or a GRU that resets the state."""

    def __init__(self, kind: str, detached: bool = False):
        super().__init__()
        n = 4 if kind == "lstm" else 3
        self.kind, self.detached = kind, detached
        self.x, self.h, self.head = nn.Linear(3, 4 * n), nn.Linear(4, 4 * n, bias=False), nn.Linear(4, 2)
        self.norm_x, self.norm_c = nn.LayerNorm(4 * n), nn.LayerNorm(4)
        self.first = nn.Parameter(torch.randn(2, 4))

    def gate(self, z: Any) -> Any:
        return torch.sigmoid(z).detach() if self.detached else torch.sigmoid(z)

    def tanh(self, z: Any) -> Any:
        return ratio(torch.tanh, z) if self.detached else torch.tanh(z)

    def normed(self, norm: Any, z: Any) -> Any:
        if not self.detached:
            return norm(z)
        deviation = (z.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt().detach()
        return (z - z.mean(-1, keepdim=True)) / deviation * norm.weight + norm.bias

    def forward(self, x: Any) -> Any:
        h, c = self.first[0].expand(x.shape[0], 4), self.first[1].expand(x.shape[0], 4)
        for t in range(x.shape[1]):
            sums = self.normed(self.norm_x, self.x(x[:, t]))
            if self.kind == "lstm":
                i, f, g, o = (sums + self.h(h)).chunk(4, -1)
                c = self.gate(f) * c + self.gate(i) * self.tanh(g)
                h = self.gate(o) * self.tanh(self.normed(self.norm_c, c))
            else:
                (xr, xu, xn), (wr, wu, wn) = sums.chunk(3, -1), self.h.weight.chunk(3, 0)
                r, u = self.gate(xr + h @ wr.T), self.gate(xu + h @ wu.T)
                h = (1 - u) * self.tanh(xn + (r * h) @ wn.T) + u * h
        return self.head(h)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_cells_of_ones_own_from_a_learned_state(kind: str) -> None:
    torch.manual_seed(0)
    net, by_hand = OwnCell(kind).double().eval(), OwnCell(kind, detached=True).double()
    by_hand.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 3, dtype=torch.float64)
    found = pylrp.load(net, x).explain(x.numpy(), target=1, composite="cp_lrp")
    x.requires_grad_(True)
    by_hand(x)[:, 1].sum().backward()
    wanted = (x.grad * x).detach().numpy()
    np.testing.assert_allclose(found.relevance, wanted, atol=1e-9 * np.abs(wanted).max())


class Projected(nn.Module):
    """LSTMs with projections, from first states; and the same with the projection after each step in Python."""

    def __init__(self, packed: bool):
        super().__init__()
        self.packed = packed
        self.rnn = nn.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Any, lengths: Any, h: Any) -> Any:
        state = (h.transpose(0, 1), x.new_zeros(4, x.shape[0], 5))
        if self.packed:
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.rnn(x, state)
        return self.head(h.transpose(0, 1).flatten(1))

    def by_hand(self, x: Any, lengths: Any, h: Any) -> Any:
        """Step by step, with gates that count as constants."""
        rows = []
        for own, count, first in zip(x, lengths if self.packed else [x.shape[1]] * len(x), h, strict=True):
            ends, sequence = [], list(own[: int(count)])
            for number in range(2):
                sides = []
                for side, suffix in enumerate((f"_l{number}", f"_l{number}_reverse")):
                    w, u, b, d, p = (
                        getattr(self.rnn, f"{name}{suffix}")
                        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
                    )
                    state, c, made = first[2 * number + side], torch.zeros(5, dtype=x.dtype), []
                    for step in sequence[:: -1 if side else 1]:
                        i, f, g, o = (w @ step + b + u @ state + d).chunk(4)
                        i, f, o = (torch.sigmoid(gate).detach() for gate in (i, f, o))
                        c = f * c + i * ratio(torch.tanh, g)
                        state = p @ (o * ratio(torch.tanh, c))
                        made.append(state)
                    ends.append(state)
                    sides.append(made[:: -1 if side else 1])
                sequence = [torch.cat(pair) for pair in zip(*sides, strict=True)]
            rows.append(self.head(torch.cat(ends)))
        return torch.stack(rows)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("packed", [False, True])
def test_projected_states(packed: bool) -> None:
    torch.manual_seed(0)
    net = Projected(packed).double().eval()
    x, lengths = torch.randn(3, 4, 3, dtype=torch.float64), torch.tensor([2, 4, 1])
    h = torch.randn(3, 4, 2, dtype=torch.float64)
    before = dict(net.state_dict())
    loaded = pylrp.load(net, (x, lengths, h))
    assert list(net.state_dict()) == list(before)
    assert "forward" not in vars(net.rnn)
    given = {"x": x.numpy(), "lengths": lengths.numpy(), "h": h.numpy()}
    found = loaded.explain({name: given[name] for name in loaded.graph.inputs} if not packed else given, target=1,
                           composite="cp_lrp")  # fmt: skip
    x.requires_grad_(True), h.requires_grad_(True)
    y = net.by_hand(x, lengths, h)
    y[:, 1].sum().backward()
    np.testing.assert_allclose(found.output, y.detach().numpy(), atol=1e-12)
    for name, value in (("x", x), ("h", h)):
        wanted = (value.grad * value).detach().numpy()
        np.testing.assert_allclose(found.relevance[name], wanted, atol=1e-9 * np.abs(wanted).max(), err_msg=name)
