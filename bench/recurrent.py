"""An LSTM, 64 -> 128 units, 200 steps: forward pass and explanation beside onnxruntime and LRP in torch's Python cells.

    python bench/recurrent.py                       one thread, processor time: for a machine that others use, too
    python bench/recurrent.py --threads 2 --wall    wall-clock time, a pause of 60 ms before each call, spinning off

One line for each batch size: medians over rounds in turns, and their ratios. The explanation is the prediction and the
relevance of one target a sample. The cells compute the same relevance (Arras et al. 2017), step by step with products
of torch; what they give is compared before anything is timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp.layers import LSTM, Dense

FEATURES, UNITS, STEPS, CLASSES = 64, 128, 200, 5
Floats = NDArray[np.float32]


class Weights:
    """The weights of the layer and of a dense layer on its last state, in torch's order of gates: i f g o."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)

        def drawn(*shape: int) -> Floats:
            return np.asarray(rng.normal(size=shape) / np.sqrt(shape[-1]), np.float32)

        self.w, self.u, self.b = drawn(4 * UNITS, FEATURES), drawn(4 * UNITS, UNITS), drawn(4 * UNITS)
        self.top = drawn(CLASSES, UNITS)


def in_onnxruntime(weights: Weights, threads: int) -> Callable[[Floats], Any]:
    """Return the forward pass of the layer in onnxruntime."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    order = np.concatenate([np.arange(UNITS) + k * UNITS for k in (0, 3, 1, 2)])  # i o f c
    arrays = {
        "W": weights.w[None, order],
        "R": weights.u[None, order],
        "B": np.concatenate([weights.b[order], np.zeros(4 * UNITS, np.float32)])[None],
    }
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "W", "R", "B"], ["", "h"], hidden_size=UNITS)],
        "lstm",
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


def run(weights: Weights, batch: int, threads: int, rounds: int, wall: bool) -> None:
    """Print a batch size's line."""
    x = np.random.default_rng(1).normal(size=(batch, STEPS, FEATURES)).astype(np.float32)
    net = pylrp.Network([LSTM(weights.w, weights.u, weights.b), Dense(weights.top)], input_shape=(STEPS, FEATURES))
    layer = pylrp.Network([LSTM(weights.w, weights.u, weights.b)], input_shape=(STEPS, FEATURES))
    other, cells = in_onnxruntime(weights, threads), in_cells(weights, threads)
    steps_first = np.ascontiguousarray(x.transpose(1, 0, 2))
    np.testing.assert_allclose(layer.forward(x), other(steps_first), atol=2e-5)
    relevance = net.explain(x, target=0, composite="cp_lrp").relevance
    np.testing.assert_allclose(relevance, cells(x), atol=1e-3 * np.abs(relevance).max())
    took = medians(
        {
            "forward": lambda: net.forward(x, threads=threads),
            "explain": lambda: net.explain(x, target=0, composite="cp_lrp", threads=threads),
            "onnxruntime": lambda: other(steps_first),
        },
        rounds,
        wall,
    )
    took |= medians({"cells": lambda: cells(x)}, max(3, rounds // 10), wall)
    print(
        f"LSTM {FEATURES} -> {UNITS}, {STEPS} steps, batch {batch}, {threads} thread(s): "
        f"forward {took['forward']:.2f} ms = {took['forward'] / took['onnxruntime']:.2f} x onnxruntime, "
        f"explanation {took['explain']:.2f} ms = {took['explain'] / took['forward']:.2f} x forward, "
        f"torch's cells {took['cells']:.0f} ms = {took['cells'] / took['explain']:.1f} x explanation",
        flush=True,
    )


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 32])
    given = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    weights = Weights()
    for batch in given.batch:
        run(weights, batch, given.threads, given.rounds, given.wall)


if __name__ == "__main__":
    main()
