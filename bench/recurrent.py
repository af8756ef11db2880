"""An LSTM, 64 -> 128 units, 200 steps: forward pass and explanation beside onnxruntime and LRP in torch's Python cells.

    python bench/recurrent.py                       one thread, processor time: for a machine that others use, too
    python bench/recurrent.py --threads 2 --wall    wall-clock time, a pause of 60 ms before each call, spinning off
    python bench/recurrent.py --layers lstm gru rnn     the other layers, too, without torch's cells

One line for each batch size: medians over rounds in turns, and their ratios. The explanation is the prediction and the
relevance of one target a sample. The cells compute the same relevance (Arras et al. 2017), step by step with products
of torch; what they give is compared before anything is timed. The last line is how the time grows with the steps.

With two threads times may be of two kinds, one twice the other: then both threads take turns on one processor. In the
real-time class the system keeps them apart, `chrt -f 10 python bench/...`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp.layers import GRU, LSTM, RNN, Dense

#: By name: the layer, its gates, onnxruntime's order of them.
LAYERS: dict[str, tuple[Any, str, str]] = {
    "LSTM": (LSTM, "ifgo", "iofg"),
    "GRU": (GRU, "rzn", "zrn"),
    "RNN": (RNN, "n", "n"),
}
FEATURES, UNITS, STEPS, CLASSES = 64, 128, 200, 5
Floats = NDArray[np.float32]


class Weights:
    """The weights of a layer and of a dense layer on its last state, in torch's order of gates."""

    def __init__(self, name: str = "LSTM") -> None:
        rng = np.random.default_rng(0)
        self.name, (self.kind, self.gates, self.other) = name, LAYERS[name]
        rows = len(self.gates) * UNITS

        def drawn(*shape: int) -> Floats:
            return np.asarray(rng.normal(size=shape) / np.sqrt(shape[-1]), np.float32)

        self.w, self.u, self.b = drawn(rows, FEATURES), drawn(rows, UNITS), drawn(rows)
        self.top = drawn(CLASSES, UNITS)

    def layer(self) -> Any:
        """Return the layer here."""
        return self.kind(self.w, self.u, self.b)


def in_onnxruntime(weights: Weights, threads: int) -> Callable[[Floats], Any]:
    """Return the forward pass of the layer in onnxruntime."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    order = np.concatenate([np.arange(UNITS) + weights.gates.index(gate) * UNITS for gate in weights.other])
    arrays = {
        "W": weights.w[None, order],
        "R": weights.u[None, order],
        "B": np.concatenate([weights.b[order], np.zeros(len(order), np.float32)])[None],
    }
    more: dict[str, Any] = {"linear_before_reset": 1} if weights.name == "GRU" else {}
    graph = helper.make_graph(
        [helper.make_node(weights.name, ["x", "W", "R", "B"], ["", "h"], hidden_size=UNITS, **more)],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [STEPS, None, FEATURES])],
        [helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, None, UNITS])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0][0]


def in_cells(weights: Weights, threads: int) -> Callable[[Floats], Any]:
    """Return prediction and relevance in Python cells of torch."""
    import torch

    torch.set_num_threads(threads)
    w, u, b, top = (torch.from_numpy(array) for array in (weights.w, weights.u, weights.b, weights.top))
    g_rows = slice(2 * UNITS, 3 * UNITS)

    def divided(numerator: Any, by: Any) -> Any:
        return torch.where(by == 0, torch.zeros_like(by), numerator / by)

    def explain(given: Floats) -> Any:
        with torch.no_grad():
            x = torch.from_numpy(given)
            h = c = torch.zeros(x.shape[0], UNITS)
            kept = []
            for t in range(STEPS):
                z = x[:, t] @ w.T + h @ u.T + b
                i, f, g, o = z.chunk(4, 1)
                i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
                before, c = c, f * c + i * torch.tanh(g)
                kept.append((h, before, c, f, i, g))
                h = o * torch.tanh(c)
            r_h = h * top[0]
            r_c, maps = torch.zeros_like(r_h), []
            for t in reversed(range(STEPS)):
                h, before, c, f, i, z_g = kept[t]
                r_c = r_c + r_h
                s = divided(i * torch.tanh(z_g) * divided(r_c, c), z_g)
                maps.append(x[:, t] * (s @ w[g_rows]))
                r_h = h * (s @ u[g_rows])
                r_c = f * before * divided(r_c, c)
            return torch.stack(maps[::-1], 1).numpy()

    return explain


def medians(calls: dict[str, Callable[[], Any]], rounds: int, wall: bool) -> dict[str, float]:
    """Return the median milliseconds of each call, taken in turns."""
    clock = time.perf_counter if wall else time.process_time
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            if wall:
                time.sleep(0.06)
            start = clock()
            call()
            times[name].append(1e3 * (clock() - start))
    return {name: statistics.median(each) for name, each in times.items()}


def networks(weights: Weights, steps: int = STEPS) -> tuple[pylrp.Network, pylrp.Network]:
    """Return the layer with a dense layer behind it, and the layer alone."""
    shape = (steps, FEATURES)
    layers = [weights.layer(), Dense(weights.top)]
    return pylrp.Network(layers, input_shape=shape), pylrp.Network(layers[:1], input_shape=shape)


def drawn(batch: int, steps: int = STEPS) -> Floats:
    """Return an input."""
    return np.random.default_rng(1).normal(size=(batch, steps, FEATURES)).astype(np.float32)


def run(weights: Weights, batch: int, threads: int, rounds: int, wall: bool) -> None:
    """Print a batch size's line."""
    x, (net, layer) = drawn(batch), networks(weights)
    other = in_onnxruntime(weights, threads)
    steps_first = np.ascontiguousarray(x.transpose(1, 0, 2))
    np.testing.assert_allclose(layer.forward(x), other(steps_first), atol=2e-5)
    took = medians(
        {
            "forward": lambda: net.forward(x, threads=threads),
            "explain": lambda: net.explain(x, target=0, composite="cp_lrp", threads=threads),
            "onnxruntime": lambda: other(steps_first),
        },
        rounds,
        wall,
    )
    text = (
        f"{weights.name} {FEATURES} -> {UNITS}, {STEPS} steps, batch {batch}, {threads} thread(s): "
        f"forward {took['forward']:.2f} ms = {took['forward'] / took['onnxruntime']:.2f} x onnxruntime, "
        f"explanation {took['explain']:.2f} ms = {took['explain'] / took['forward']:.2f} x forward"
    )
    if weights.name == "LSTM":
        cells = in_cells(weights, threads)
        relevance = net.explain(x, target=0, composite="cp_lrp").relevance
        np.testing.assert_allclose(relevance, cells(x), atol=1e-3 * np.abs(relevance).max())
        took |= medians({"cells": lambda: cells(x)}, max(3, rounds // 10), wall)
        text += f", torch's cells {took['cells']:.0f} ms = {took['cells'] / took['explain']:.1f} x explanation"
    print(text, flush=True)


def run_doubled(weights: Weights, threads: int, rounds: int, wall: bool) -> None:
    """Print what twice the steps take, as multiples of what half of them take."""
    calls: dict[str, Callable[[], Any]] = {}
    for steps in (STEPS, 2 * STEPS, 4 * STEPS):
        net, x = networks(weights, steps)[0], drawn(1, steps)
        calls[f"{steps}"] = lambda net=net, x=x: net.explain(x, target=0, composite="cp_lrp", threads=threads)  # type: ignore[misc]
    took = list(medians(calls, rounds, wall).items())
    grown = [f"{name} steps {ms:.2f} ms = {ms / before:.2f} x" for (_, before), (name, ms) in itertools.pairwise(took)]
    print(f"{weights.name}, an explanation: {took[0][0]} steps {took[0][1]:.2f} ms, {', '.join(grown)}", flush=True)


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 32])
    parser.add_argument("--layers", nargs="*", default=["lstm"], choices=[name.lower() for name in LAYERS])
    given = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in given.layers:
        for batch in given.batch:
            run(Weights(name.upper()), batch, given.threads, given.rounds, given.wall)
    run_doubled(Weights(), given.threads, given.rounds, given.wall)


if __name__ == "__main__":
    main()
