"""Signal front ends of torch networks: magnitudes of two parts, logarithms; prediction and map by hand in float64."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest

import pylrp

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

E = 1e-3
X = np.random.default_rng(0).normal(size=(2, 3, 40))  # epochs, channels, time

MAGNITUDES: dict[str, Callable] = {
    "slices": lambda y: torch.sqrt(y[:, :4] ** 2 + y[:, 4:] ** 2),
    "products": lambda y: torch.sqrt(y[:, :4] * y[:, :4] + y[:, 4:] * y[:, 4:]),
    "chunks": lambda y: sum(part.pow(2) for part in y.chunk(2, 1)) ** 0.5,
    "stack": lambda y: torch.stack([y[:, :4], y[:, 4:]], -1).pow(2).sum(-1).sqrt(),
    "norm": lambda y: torch.stack([y[:, :4], y[:, 4:]], -1).norm(dim=-1),
    "axis of its own": lambda y: y.reshape(-1, 2, 4, y.shape[-1]).square().sum(1).sqrt(),
}
LOGS: dict[str, tuple[Callable, Callable]] = {
    "nothing": (lambda m: m, lambda m: m),
    "constant": (lambda m: torch.log(m + E), lambda m: np.log(m + E)),
    "decibels": (
        lambda m: 20 * torch.log10(m.clamp(min=E)) - 3.0,
        lambda m: 20 * np.log10(np.maximum(m, E)) - 3.0,
    ),
    "one more": (lambda m: torch.log1p(100 * m), lambda m: np.log1p(100 * m)),
    "steps first": (
        lambda m: torch.log((m + E).transpose(1, 2)).transpose(1, 2),
        lambda m: np.log(m + E),
    ),
    "speech": (lambda m: (torch.log10(torch.clamp(m, E, 1e3)) + 4) / 4, lambda m: (np.log10(np.maximum(m, E)) + 4) / 4),
}


class FrontEnd(torch.nn.Module):
    def __init__(self, magnitude: Callable, logarithm: Callable):
        super().__init__()
        torch.manual_seed(1)
        self.magnitude, self.logarithm = magnitude, logarithm
        self.transform = torch.nn.Conv1d(3, 8, 6, stride=2, bias=False)
        self.top = torch.nn.Linear(4 * 18, 5)

    def forward(self, x):
        return self.top(self.logarithm(self.magnitude(self.transform(x))).flatten(1))


def by_hand(module: FrontEnd, function: Callable, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the map and what functions give for 0; each part of a magnitude takes re² / (re² + im²) of it."""
    kernel, top = (p.detach().numpy() for p in (module.transform.weight, module.top.weight))
    windows = np.lib.stride_tricks.sliding_window_view(X, 6, axis=2)[:, :, ::2]
    z = np.einsum("ncwk,ock->now", windows, kernel)
    squares = (z[:, :4] ** 2 + z[:, 4:] ** 2) + np.zeros((2, 1, 1))
    magnitude = np.sqrt(squares)
    above = top[target].reshape(4, 18)
    passed = (function(magnitude) - function(np.zeros(1))) * above
    shares = z**2 / np.concatenate([squares, squares], 1) * np.concatenate([passed, passed], 1)
    relevance = np.zeros_like(X)
    for n, o, w in np.ndindex(z.shape):
        relevance[n, :, 2 * w : 2 * w + 6] += windows[n, :, w] * kernel[o] / z[n, o, w] * shares[n, o, w]
    return relevance, function(np.zeros(1)) * above.sum()


CASES = [*((name, "constant") for name in MAGNITUDES), *(("slices", name) for name in LOGS if name != "constant")]


@pytest.mark.parametrize("how", ["module", "file"])
@pytest.mark.parametrize(("magnitude", "log"), CASES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_magnitude_and_logarithm(magnitude: str, log: str, how: str) -> None:
    in_torch, function = LOGS[log]
    module = FrontEnd(MAGNITUDES[magnitude], in_torch).double().eval()
    x = torch.from_numpy(X)
    if how == "module":
        net = pylrp.load(module, x)
    else:
        file = io.BytesIO()
        torch.onnx.export(
            module, (x,), file, dynamo=False, input_names=["x"], opset_version=17, dynamic_axes={"x": {0: "n"}}
        )
        net = pylrp.load(onnx.load_from_string(file.getvalue()))
    ex = net.explain(X, target=2, composite="cp_lrp")
    np.testing.assert_allclose(ex.output, module(x).detach().numpy(), rtol=1e-7)
    relevance, kept = by_hand(module, function, 2)
    # Numbers in formulas may have single precision in the file.
    np.testing.assert_allclose(ex.relevance, relevance, rtol=2e-6, atol=1e-7)
    constant = sum(row.constant + row.batchnorm for row in ex.ledger)
    np.testing.assert_allclose(constant, np.broadcast_to(kept, (2,)), rtol=2e-6, atol=1e-9)
