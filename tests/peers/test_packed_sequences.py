"""Packed sequences of torch, in any order: each sample gets what it has alone, without padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pylrp

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
nn = torch.nn

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's exporter on recurrent layers

LENGTHS = torch.tensor([6, 3, 1, 5])


class Packed(nn.Module):
    """A classifier of packed sequences, by its last state or all of them."""

    def __init__(self, kind: str, takes: str, layers: int = 1, two: bool = False, batch_first: bool = True):
        super().__init__()
        self.rnn = getattr(nn, kind)(3, 4, layers, bidirectional=two, batch_first=batch_first)
        self.head, self.takes, self.first = nn.Linear(8 if two else 4, 2), takes, batch_first

    def forward(self, x: Any, lengths: Any) -> Any:
        given = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=self.first, enforce_sorted=False)
        y, states = self.rnn(given)
        h = states[0] if isinstance(states, tuple) else states
        if self.takes == "h":
            return self.head(torch.cat([h[-2], h[-1]], 1) if self.rnn.bidirectional else h[-1])
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=self.first)
        return self.head(y.sum(1 if self.first else 0))


CASES: dict[str, Any] = {
    "last state": ("LSTM", "h"),
    "last state of two directions": ("GRU", "h", 1, True),
    "last state, two layers": ("LSTM", "h", 2, True),
    "last state, time first": ("GRU", "h", 1, False, False),
    "sum of steps": ("RNN", "sum", 1, True),
    "sum of steps, time first": ("LSTM", "sum", 2, True, False),
}


class Plain(nn.Module):
    """The same without packing, for one length."""

    def __init__(self, of: Packed):
        super().__init__()
        self.of = of

    def forward(self, x: Any) -> Any:
        y, states = self.of.rnn(x)
        h = states[0] if isinstance(states, tuple) else states
        if self.of.takes == "h":
            return self.of.head(torch.cat([h[-2], h[-1]], 1) if self.of.rnn.bidirectional else h[-1])
        return self.of.head(y.sum(1 if self.of.first else 0))


@pytest.mark.parametrize("name", CASES)
def test_samples_in_any_order(name: str) -> None:
    torch.manual_seed(0)
    net = Packed(*CASES[name]).double().eval()
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    given = x if net.first else x.transpose(0, 1).contiguous()
    loaded = pylrp.load(net, (given, LENGTHS))
    with torch.no_grad():
        expected = net(given, LENGTHS).numpy()
    ex = loaded.explain({"x": x.numpy(), "lengths": LENGTHS.numpy()}, target=1, composite="cp_lrp")
    np.testing.assert_allclose(ex.output, expected, atol=1e-12)
    for i, length in enumerate(LENGTHS.tolist()):
        one = x[i : i + 1, :length]
        alone = pylrp.load(Plain(net), one if net.first else one.transpose(0, 1).contiguous())
        wanted = alone.explain(one.numpy(), target=1, composite="cp_lrp").relevance[0]
        np.testing.assert_allclose(ex.relevance[i, :length], wanted, atol=1e-12)
        assert not ex.relevance[i, length:].any()


SORTED = """
<ir_version: 8, opset_import: ["": 17]>
sorted (float[n, 5, 3] x, int64[n] lengths) => (float[n, 2] y)
<float[1, 16, 3] W, float[1, 16, 4] R, float[2, 4] V, int64[1] last = {-1}, int64 zero = {0}, int64 one = {1},
 int64 whole = {0}> {
  shape = Shape (lengths)
  count = Gather (shape, last)
  values, order = TopK <axis = -1> (lengths, count)
  sorted_x = Gather <axis = 0> (x, order)
  time_first = Transpose <perm = [1, 0, 2]> (sorted_x)
  int_values = Cast <to = 6> (values)
  all, h = LSTM <hidden_size = 4> (time_first, W, R, , int_values)
  state = Squeeze (h, whole_axes)
  BACK
  y = Gemm <transB = 1> (TOP, V)
}
"""


def sorted_file(back: str, top: str) -> Any:
    text = SORTED.replace("BACK", back).replace("TOP", top).replace("int64 whole = {0}", "int64[1] whole_axes = {0}")
    rng = np.random.default_rng(0)
    text = text.replace("float[1, 16, 3] W, float[1, 16, 4] R, float[2, 4] V, ", "")
    model = onnx.parser.parse_model(text)
    for name, shape in (("W", (1, 16, 3)), ("R", (1, 16, 4)), ("V", (2, 4))):
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def test_sorted_in_a_file() -> None:
    """Undone by sorting the order itself; a file that leaves samples sorted, or mixes them, is refused."""
    onnxruntime = pytest.importorskip("onnxruntime")
    back = "unused, places = TopK <axis = -1, largest = 0> (order, count)\n  back = Gather <axis = 0> (state, places)"
    model = sorted_file(back, "back")
    x = np.random.default_rng(1).normal(size=(4, 5, 3)).astype(np.float32)
    lengths = np.array([2, 5, 1, 4])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x, "lengths": lengths})[0]
    np.testing.assert_allclose(pylrp.load(model).forward({"x": x, "lengths": lengths}), expected, atol=1e-6)
    for undone, top in (("", "state"), (f"{back}\n  mixed = Add (state, back)", "mixed")):
        with pytest.raises(pylrp.UnsupportedLayer):
            pylrp.load(sorted_file(undone, top))
