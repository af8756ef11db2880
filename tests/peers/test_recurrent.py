"""Recurrent layers of torch modules, and ONNX's options against onnxruntime.

Relevance is compared with torch's gradient times input of a network whose gates and ratios are detached.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

import pylrp

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
nn = torch.nn

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's exporter on recurrent layers


def ratio(function: Any, z: Any) -> Any:
    """Return f(z) as a linear function of z: the relevance of f(z) is that of z."""
    return z * (function(z) / z).detach()


def lstm_by_hand(module: Any, x: Any, suffix: str, reverse: bool) -> Any:
    """Return the states of every step of one direction; gates are constants."""
    w, u = (getattr(module, f"weight_{kind}_{suffix}") for kind in ("ih", "hh"))
    b = getattr(module, f"bias_ih_{suffix}") + getattr(module, f"bias_hh_{suffix}")
    h = c = x.new_zeros(len(x), module.hidden_size)
    found = []
    for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
        i, f, g, o = (x[:, t] @ w.T + h @ u.T + b).chunk(4, 1)
        i, f, o = (torch.sigmoid(z).detach() for z in (i, f, o))
        c = f * c + i * ratio(torch.tanh, g)
        h = o * ratio(torch.tanh, c)
        found.append(h)
    return torch.stack(found[::-1] if reverse else found, 1)


def gru_by_hand(module: Any, x: Any, suffix: str, reverse: bool) -> Any:
    w, u, b, rb = (getattr(module, f"{kind}_{suffix}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h, found = x.new_zeros(len(x), module.hidden_size), []
    for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
        (r, z, n), (hr, hz, hn) = (x[:, t] @ w.T + b).chunk(3, 1), (h @ u.T + rb).chunk(3, 1)
        r, z = torch.sigmoid(r + hr).detach(), torch.sigmoid(z + hz).detach()
        h = (1 - z) * ratio(torch.tanh, n + r * hn) + z * h
        found.append(h)
    return torch.stack(found[::-1] if reverse else found, 1)


def rnn_by_hand(module: Any, x: Any, suffix: str, reverse: bool) -> Any:
    w, u, b, rb = (getattr(module, f"{kind}_{suffix}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h, found = x.new_zeros(len(x), module.hidden_size), []
    for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
        h = ratio(torch.tanh, x[:, t] @ w.T + b + h @ u.T + rb)
        found.append(h)
    return torch.stack(found[::-1] if reverse else found, 1)


BY_HAND = {"LSTM": lstm_by_hand, "GRU": gru_by_hand, "RNN": rnn_by_hand}


class Tagger(nn.Module):
    """Recurrent layers and a linear one behind the last step, or every step."""

    def __init__(self, kind: str, *, every: bool = False, **settings: Any):
        super().__init__()
        self.kind, self.every = kind, every
        self.rnn = getattr(nn, kind)(3, 4, **settings)
        self.head = nn.Linear(4 * (1 + self.rnn.bidirectional), 2)

    def forward(self, x: Any) -> Any:
        y = self.rnn(x)[0]
        if self.every:
            return self.head(y)
        return self.head(y[:, -1] if self.rnn.batch_first else y[-1])

    def by_hand(self, x: Any) -> Any:
        for layer in range(self.rnn.num_layers):
            directions = [(f"l{layer}", False), *([(f"l{layer}_reverse", True)] if self.rnn.bidirectional else [])]
            x = torch.cat([BY_HAND[self.kind](self.rnn, x, *each) for each in directions], 2)
        return self.head(x if self.every else x[:, -1])


SETTINGS: list[dict[str, Any]] = [
    {"batch_first": True},
    {},
    {"batch_first": True, "bidirectional": True},
    {"batch_first": True, "num_layers": 2, "dropout": 0.5},
    {"num_layers": 3, "bidirectional": True},
]


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", BY_HAND)
def test_torch(kind: str, settings: dict[str, Any], every: bool) -> None:
    torch.manual_seed(0)
    net = Tagger(kind, every=every, **settings).double().eval()
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    given = x if settings.get("batch_first") else x.transpose(0, 1)
    loaded = pylrp.load(net, given)
    with torch.no_grad():
        expected = net(given).numpy()
    expected = expected if settings.get("batch_first") or not every else expected.swapaxes(0, 1)
    np.testing.assert_allclose(loaded.forward(x.numpy()), expected, atol=1e-12)
    x.requires_grad_(True)
    score = net.by_hand(x)
    (score[:, 3, 1] if every else score[:, 1]).sum().backward()
    ex = loaded.explain(x.detach().numpy(), target=(3, 1) if every else 1, composite=pylrp.Zero())
    wanted = (x.grad * x).detach().numpy()
    np.testing.assert_allclose(ex.relevance, wanted, atol=1e-9 * np.abs(wanted).max())


def test_the_gradient_of_gates_is_another_map() -> None:
    """What the test above compares is no gradient times input: that differs, and by much."""
    torch.manual_seed(0)
    net = Tagger("LSTM", batch_first=True).double().eval()
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    net(x)[:, 1].sum().backward()
    plain = (x.grad * x).detach().numpy()
    found = pylrp.load(net, x.detach()).explain(x.detach().numpy(), target=1, composite=pylrp.Zero()).relevance
    assert np.abs(found - plain).max() > 0.1 * np.abs(plain).max()


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, bidirectional=True, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Any, lengths: Any) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=True)
        y, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(y)


def test_packed_sequences() -> None:
    torch.manual_seed(0)
    net, x, lengths = Packed().eval(), torch.randn(3, 6, 3), torch.tensor([6, 4, 1])
    loaded = pylrp.load(net, (x, lengths))
    with torch.no_grad():
        expected = net(x, lengths).numpy()
    found = loaded.explain({"x": x.numpy(), "lengths": lengths.numpy()}, target=(0, 1))
    np.testing.assert_allclose(found.output, expected, atol=1e-6)
    assert not found.relevance[1, 4:].any()
    assert found.relevance[1, :4].any()


class Unrolled(nn.Module):
    """A cell, step by step in Python."""

    def __init__(self, kind: str):
        super().__init__()
        self.cell, self.head = getattr(nn, f"{kind}Cell")(3, 4), nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        h = None
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return self.head(h[0] if isinstance(h, tuple) else h)


class GatesInOne(nn.Module):
    """A GRU in Python whose gates are parts of one product, from a state that is a constant."""

    def __init__(self, state: float, detached: bool = False):
        super().__init__()
        self.x, self.h, self.head, self.state, self.detached = (
            nn.Linear(3, 12), nn.Linear(4, 12), nn.Linear(4, 2), state, detached,
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        h = torch.full((x.shape[0], 4), self.state, dtype=x.dtype)
        for t in range(x.shape[1]):
            (xr, xu, xn), (hr, hu, hn) = self.x(x[:, t]).chunk(3, 1), self.h(h).split(4, 1)
            r, u = torch.sigmoid(xr + hr), torch.sigmoid(xu + hu)
            if self.detached:
                r, u = r.detach(), u.detach()
            n = xn + r * hn
            h = (1 - u) * (ratio(torch.tanh, n) if self.detached else torch.tanh(n)) + u * h
        return self.head(h)


@pytest.mark.parametrize("state", [0.0, 0.5])
def test_gates_of_a_constant_state_get_nothing(state: float) -> None:
    """At the first step a gate's product with the state is one with a constant."""
    torch.manual_seed(0)
    net, by_hand = GatesInOne(state).double().eval(), GatesInOne(state, detached=True).double()
    by_hand.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 3, dtype=torch.float64)
    exact = pylrp.Composite("exact", pylrp.Zero(), dict.fromkeys(("add", "batchnorm"), pylrp.Zero()))
    found = pylrp.load(net, x).explain(x.numpy(), target=1, composite=exact)
    file = io.BytesIO()
    torch.onnx.export(net, (x,), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    assert pylrp.load(onnx.load_from_string(file.getvalue())).verify(x.numpy(), target=1, composite=exact)
    x.requires_grad_(True)
    by_hand(x)[:, 1].sum().backward()
    wanted = (x.grad * x).detach().numpy()
    np.testing.assert_allclose(found.relevance, wanted, atol=1e-9 * np.abs(wanted).max())


def test_a_scaled_sigmoid_is_no_gate_by_itself() -> None:
    """In a sum of activations, which nothing shows to be gates, each part hands relevance on."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.scale = nn.Linear(3, 4), nn.Linear(3, 4), nn.Parameter(torch.randn(4))

        def forward(self, x: Any) -> Any:
            return self.one(x) + self.scale * torch.sigmoid(self.other(x))

    torch.manual_seed(0)
    net = pylrp.load(Sum().eval(), torch.randn(2, 3))
    assert not any(isinstance(node.layer, pylrp.layers.ShiftBy) for node in net.graph.nodes)


@pytest.mark.parametrize("kind", BY_HAND)
def test_cells_in_a_loop_give_the_map_of_the_layer(kind: str) -> None:
    """They are products and sums; without stabilisers the gates' rule is the same."""
    torch.manual_seed(0)
    net, x = Unrolled(kind).double().eval(), torch.randn(2, 4, 3, dtype=torch.float64)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    arrays = [getattr(net.cell, name).detach().numpy() for name in names]
    head = pylrp.layers.Dense(net.head.weight.detach().numpy(), net.head.bias.detach().numpy())
    layer = pylrp.Network([getattr(pylrp.layers, kind)(*arrays), head], input_shape=(4, 3))
    exact = pylrp.Composite("exact", pylrp.Zero(), dict.fromkeys(("add", "batchnorm"), pylrp.Zero()))
    one, other = (each.explain(x.numpy(), target=1, composite=exact) for each in (pylrp.load(net, x), layer))
    np.testing.assert_allclose(one.output, other.output, atol=1e-14)
    np.testing.assert_allclose(one.relevance, other.relevance, atol=1e-10)


def _ort(model: Any, feeds: dict[str, Any]) -> list[Any]:
    ort = pytest.importorskip("onnxruntime")
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)


OPTIONS = {
    "LSTM": [
        "", "clip=0.6", "input_forget=1", 'direction="reverse", clip=0.4', 'direction="bidirectional"',
        'activations=["HardSigmoid", "Softsign", "Relu"]', 'activations=["Sigmoid", "Elu", "Softplus"], clip=1.5',
        'activations=["Sigmoid", "Affine", "Tanh"], activation_alpha=[0.8], activation_beta=[0.1]',
        'activations=["Sigmoid", "LeakyRelu", "ThresholdedRelu"], activation_alpha=[0.05, 0.1]',
        'activations=["Sigmoid", "ScaledTanh", "Tanh"], activation_alpha=[1.2], activation_beta=[0.9]',
    ],
    "GRU": ["", "linear_before_reset=1", "clip=0.5", "clip=0.5, linear_before_reset=1", 'direction="bidirectional"'],
    "RNN": ["", "clip=0.5", 'activations=["Relu"]', 'direction="bidirectional"'],
}  # fmt: skip


@pytest.mark.parametrize("peepholes", [False, True])
@pytest.mark.parametrize(("kind", "options"), [(kind, each) for kind in OPTIONS for each in OPTIONS[kind]])
def test_options_in_onnxruntime(kind: str, options: str, peepholes: bool) -> None:
    if peepholes and kind != "LSTM":
        pytest.skip("an LSTM's")
    rng = np.random.default_rng(0)
    gates, directions, units = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 1 + ("bidirectional" in options), 5
    arrays = {
        "W": (directions, gates * units, 3), "R": (directions, gates * units, units),
        "B": (directions, 2 * gates * units), "P": (directions, 3 * units),
    }  # fmt: skip
    names = "x, W, R, B, n, h" + (", c" if kind == "LSTM" else "") + (", P" if peepholes else "")
    ends = "Y, H, C" if kind == "LSTM" else "Y, H"
    outputs = ", ".join(f"float[{'s, ' if name == 'Y' else ''}d, b, u] {name}" for name in ends.split(", "))
    inputs = f"float[6, b, 3] x, int32[b] n, float[{directions}, b, {units}] h" + (
        f", float[{directions}, b, {units}] c" if kind == "LSTM" else ""
    )
    settings = ", ".join(filter(None, [f"hidden_size={units}", options]))
    body = f"{ends} = {kind}<{settings}>({names})"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({outputs}) {{ {body} }}')
    for name, shape in arrays.items():
        if name != "P" or peepholes:
            model.graph.initializer.append(
                onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
            )
    feeds = {"x": rng.normal(size=(4, 6, 3)), "h": rng.normal(size=(4, directions, units)), "n": np.array([6, 3, 1, 5])}
    if kind == "LSTM":
        feeds["c"] = rng.normal(size=(4, directions, units))
    feeds = {name: array.astype(np.int32 if name == "n" else np.float32) for name, array in feeds.items()}
    expected = _ort(model, {name: array if name == "n" else array.swapaxes(0, 1) for name, array in feeds.items()})
    net = pylrp.load(model)
    found = net.forward(feeds)
    for name, array in zip(ends.split(", "), expected, strict=True):
        np.testing.assert_allclose(found[name], np.moveaxis(array, 2 if name == "Y" else 1, 0), atol=2e-6, err_msg=name)
    ex = net.explain(feeds, output="Y", target=(2, 0, 1))
    assert np.abs([row.rounding for row in ex.ledger]).max() < 1e-4
