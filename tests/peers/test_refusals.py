"""Layers without a rule are refused by the names that users know, in torch and Keras; the ways out work.

`tests/loaders/test_onnx_refusals.py` has those of ONNX files.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import pylrp


class Around(nn.Module):
    """A part that maps (N, L, 8) to the same, and a head on its mean over L."""

    def __init__(self, part):
        super().__init__()
        self.part, self.head = part, nn.Linear(8, 2)

    def forward(self, x):
        y = self.part(x)
        return self.head((y[0] if isinstance(y, tuple) else y).mean(1))


def test_the_part_behind():
    net = Around(nn.LSTM(8, 8, batch_first=True)).eval()
    with torch.no_grad():
        hidden = net.part(torch.rand(2, 6, 8))[0].mean(1).numpy()
    ex = pylrp.load(net.head, hidden).explain(hidden, target=1, composite="epsilon")
    assert ex.relevance.shape == (2, 8)


@pytest.mark.filterwarnings("ignore")
def test_quantised_modules():
    net = nn.Sequential(nn.Linear(4, 2)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(net, {nn.Linear})
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(quantised, torch.rand(2, 4))
    assert (caught.value.node, caught.value.operator) == ("0", "Linear")
    assert "before quantisation" in caught.value.way_out
    pylrp.load(net, torch.rand(2, 4))


def test_keras():
    keras = pytest.importorskip("keras")
    L = keras.layers
    net = keras.Sequential([keras.Input((6, 5, 4)), L.ConvLSTM1D(3, 2), L.Flatten(), L.Dense(2)])
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(net)
    assert caught.value.operator == "ConvLSTM1D"
    assert "recurrent" in str(caught.value)
    x = keras.Input((6, 4))
    net = keras.Model(x, L.AdditiveAttention(name="attend")([x, x]))
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(net)
    assert (caught.value.node, caught.value.operator) == ("attend", "AdditiveAttention")
