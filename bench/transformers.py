"""Forward passes and explanations of transformers, as multiples of onnxruntime's forward pass.

    python bench/transformers.py                     all cases, one thread, the processor's time
    python bench/transformers.py --threads 2         wall time
    python bench/transformers.py --cases minilm-128  some of them
    python bench/transformers.py --memory            what 512 tokens, 12 layers of 768 take beyond the weights

The models are ONNX files made here with random weights. onnxruntime (spinning off) and pylrp take turns in one process,
with a pause before each call; given is the median of the rounds' ratios. Before that, pylrp's output is compared with
onnxruntime's, and its ledger is looked at. Memory is the peak of a call in a fresh process, above what that has once
the network is loaded (Linux). There the C library gives NumPy's large arrays back at once (MALLOC_MMAP_THRESHOLD_);
left alone it keeps some 25 MB of those in its heap.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import pylrp

WAYS = ("forward", "cp_lrp", "attnlrp", "attnlrp_gamma")
CHECKPOINT = " checkpoint"
IN_MEMORY = ("forward", "cp_lrp", "attnlrp", "cp_lrp" + CHECKPOINT, "attnlrp" + CHECKPOINT)
# Layers, width, heads, tokens; 0: an image of 224 x 224 pixels in patches of 16.
CASES = {"minilm-128": (6, 384, 12, 128), "minilm-16": (6, 384, 12, 16), "vit-b-16": (12, 768, 12, 0)}
LONG = (12, 768, 12, 512)
WORDS, CLASSES, PATCH, SIDE = 1000, 8, 16, 14
PAUSE_SECONDS = 0.06


class _Model:
    """An ONNX model under construction."""

    def __init__(self, width: int, heads: int):
        self.width, self.heads = width, heads
        self.random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def weights(self, *shape: int, size: float | None = None) -> str:
        scale = shape[0] ** -0.5 if size is None else size
        return self.constant(np.float32(scale) * self.random.standard_normal(shape, np.float32))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"v{len(self.nodes)}"], **attributes))
        return f"v{len(self.nodes) - 1}"

    def linear(self, value: str, into: int, out: int) -> str:
        return self.add("Add", self.add("MatMul", value, self.weights(into, out)), self.weights(out, size=0.1))

    def norm(self, value: str) -> str:
        scale = self.constant(1 + 0.1 * self.random.standard_normal(self.width))
        return self.add("LayerNormalization", value, scale, self.weights(self.width, size=0.1), axis=-1)

    def attention(self, value: str, mask: str | None) -> str:
        parts = self.constant([0, 0, self.heads, self.width // self.heads], np.int64)
        turns = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
        q, k, v = (
            self.add("Transpose", self.add("Reshape", self.linear(value, self.width, self.width), parts), perm=turn)
            for turn in turns
        )
        scores = self.add("Mul", self.add("MatMul", q, k), self.constant((self.width // self.heads) ** -0.5))
        shares = self.add("Softmax", scores if mask is None else self.add("Add", scores, mask), axis=-1)
        mixed = self.add("Transpose", self.add("MatMul", shares, v), perm=(0, 2, 1, 3))
        joined = self.add("Reshape", mixed, self.constant([0, 0, self.width], np.int64))
        return self.linear(joined, self.width, self.width)

    def gelu(self, value: str) -> str:
        erf = self.add("Erf", self.add("Div", value, self.constant(2**0.5)))
        product = self.add("Mul", value, self.add("Add", erf, self.constant(1)))
        return self.add("Mul", product, self.constant(0.5))

    def wide(self, value: str) -> str:
        return self.linear(self.gelu(self.linear(value, self.width, 4 * self.width)), 4 * self.width, self.width)

    def save(self, inputs: list[Any], path: Path) -> None:
        self.nodes[-1].output[0] = "logits"
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
        graph = helper.make_graph(self.nodes, "transformer", inputs, [output], self.constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def encoder(
    layers: int, width: int, heads: int, tokens: int, path: Path, open_length: bool = False, of_first: bool = False
) -> None:
    """Write a text encoder, the norm behind each sum, as BERT's; classes from the mean over tokens, or the first."""
    model = _Model(width, heads)
    words = model.add("Gather", model.weights(WORDS, width, size=1), "input_ids")
    places = model.weights(tokens, width, size=0.5)
    if open_length:
        zero, one, two = (model.constant([n], np.int64) for n in range(3))
        length = model.add("Slice", model.add("Shape", "input_ids"), one, two)
        places = model.add("Slice", places, zero, length, zero)
    value = model.norm(model.add("Add", words, places))
    seen = model.add("Cast", model.add("Unsqueeze", "attention_mask", model.constant([1, 2], np.int64)), to=1)
    mask = model.add("Mul", model.add("Sub", model.constant(1), seen), model.constant(-1e9))
    for _ in range(layers):
        value = model.norm(model.add("Add", value, model.attention(value, mask)))
        value = model.norm(model.add("Add", value, model.wide(value)))
    first = model.constant(0, np.int64)
    pooled = (
        model.add("Gather", value, first, axis=1) if of_first else model.add("ReduceMean", value, axes=[1], keepdims=0)
    )
    model.linear(pooled, width, CLASSES)
    names, shape = ("input_ids", "attention_mask"), ["N", "T" if open_length else tokens]
    model.save([helper.make_tensor_value_info(n, TensorProto.INT64, shape) for n in names], path)


def vision(layers: int, width: int, heads: int, path: Path) -> None:
    """Write a vision transformer, the norm before each part; classes from the first token."""
    model = _Model(width, heads)
    kernel = model.weights(width, 3, PATCH, PATCH, size=(3 * PATCH * PATCH) ** -0.5)
    patches = model.add("Conv", "image", kernel, model.weights(width, size=0.1), strides=[PATCH, PATCH])
    flat = model.add("Reshape", patches, model.constant([0, width, SIDE * SIDE], np.int64))
    tokens = model.add(
        "Concat", model.weights(1, 1, width, size=1), model.add("Transpose", flat, perm=(0, 2, 1)), axis=1
    )
    value = model.add("Add", tokens, model.weights(SIDE * SIDE + 1, width, size=0.5))
    for _ in range(layers):
        value = model.add("Add", value, model.attention(model.norm(value), None))
        value = model.add("Add", value, model.wide(model.norm(value)))
    model.linear(model.add("Gather", model.norm(value), model.constant(0, np.int64), axis=1), width, CLASSES)
    shape = [1, 3, SIDE * PATCH, SIDE * PATCH]
    model.save([helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)], path)


def make(case: tuple[int, int, int, int], path: Path) -> dict[str, Any]:
    """Write a case's model and return its input."""
    layers, width, heads, tokens = case
    random = np.random.default_rng(1)
    if not tokens:
        vision(layers, width, heads, path)
        return {"image": random.standard_normal((1, 3, SIDE * PATCH, SIDE * PATCH), np.float32)}
    encoder(layers, width, heads, tokens, path)
    return {"input_ids": random.integers(0, WORDS, (1, tokens)), "attention_mask": np.ones((1, tokens), np.int64)}


def session(path: Path, threads: int) -> Any:
    """Return onnxruntime's session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check(name: str, way: str, ex: Any, wanted: np.ndarray) -> None:
    """Raise where a result is not what onnxruntime says, or a layer's account does not close."""
    off = np.abs(ex.output - wanted).max() / np.abs(wanted).max()
    if off > 1e-4:
        raise ValueError(f"{name}: the output is off by {off:.1e} of the largest")
    start = float(np.abs(ex.output[0, ex.target]).max())
    worst = max(abs(float(np.max(np.abs(row.rounding)))) for row in ex.ledger)
    print(f"  {way}: output within {off:.0e}, ledger within {worst / start:.0e} of the score")


def ratios(calls: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, np.ndarray]:
    """Return the seconds of each call in each round; everybody's first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    for _ in range(rounds + 1):
        for name, call in calls.items():
            time.sleep(PAUSE_SECONDS)
            start = clock()
            call()
            seconds[name].append(clock() - start)
    gc.enable()
    return {name: np.array(taken[1:]) for name, taken in seconds.items()}


def measure(name: str, threads: int, rounds: int) -> None:
    """Print the figures of a case."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        feed = make(CASES[name], path)
        runtime = session(path, threads)
        net = pylrp.load(path)
    x = feed["image"] if len(feed) == 1 else feed
    wanted = runtime.run(None, feed)[0]
    calls: dict[str, Callable[[], object]] = {"onnxruntime": lambda: runtime.run(None, feed)}
    print(name)
    for way in WAYS:
        if way == "forward":
            calls[way] = lambda: net.forward(x, threads=threads)
        else:
            calls[way] = lambda way=way: net.explain(x, target=0, composite=way, threads=threads)  # type: ignore[misc]
            check(name, way, calls[way](), wanted)
    seconds = ratios(calls, rounds, time.process_time if threads == 1 else time.perf_counter)
    base = seconds["onnxruntime"]
    print(f"  {'onnxruntime':15}{1e3 * np.median(base):8.1f} ms")
    for way in WAYS:
        found = np.median(seconds[way] / base)
        print(f"  {way:15}{1e3 * np.median(seconds[way]):8.1f} ms {found:6.2f} x onnxruntime's forward pass")


def peak_megabytes(way: str) -> float:
    """Return what a call takes above what the process has before it; to be asked in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        feed = make(LONG, path)
        net = pylrp.load(path)
    for node in net.graph.nodes:  # weights that no page was read of yet would count
        for array in node.layer.arrays:
            np.sum(getattr(node.layer, array))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what loading has freed would be taken first, and not count

    def status(key: str) -> int:
        found = re.search(rf"^{key}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found is None:
            raise ValueError(f"/proc/self/status has no {key}")
        return int(found[1])

    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    if way == "forward":
        net.forward(feed, threads=1)
    else:
        composite, checkpoint = way.removesuffix(CHECKPOINT), way.endswith(CHECKPOINT)
        net.explain(feed, target=0, composite=composite, threads=1, checkpoint=checkpoint)
    return (status("VmHWM") - before) / 1024


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak-of", choices=IN_MEMORY, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak_of:
        print(f"{peak_megabytes(asked.peak_of):.0f}")
        return
    facts = machine.describe(asked.threads)
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("pylrp", "numpy", "onnxruntime"))
    print(f"{facts['cpu']}, {facts['isa']}, {asked.threads} of {facts['cores']} threads; {versions}")
    if asked.memory:
        for way in IN_MEMORY:
            call = [sys.executable, __file__, "--peak-of", way]
            alone = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
            peak = subprocess.run(call, check=True, capture_output=True, text=True, env=alone).stdout.strip()
            print(f"  {way:20}{peak:>8} MB beyond the weights, 512 tokens, 12 layers of 768")
        return
    for name in asked.cases:
        measure(name, asked.threads, asked.rounds)


if __name__ == "__main__":
    main()
