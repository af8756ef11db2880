"""Samples of unequal length packed in one call, and leaving tokens out one by one, as multiples of what they replace.

    python bench/packed.py                          one thread, the processor's time
    python bench/packed.py --threads 2              wall time
    python bench/packed.py --model minilm.onnx      another model of input_ids and attention_mask

``packed``: eight sentences of 12 to 128 tokens in one call, as a multiple of (tokens / 128) times a call with one of
128. ``leave-one-out``: the scores of a text of 64 tokens without each of them, as a multiple of 64 predictions of it
in float32, of classes from the mean over tokens and (without --model) from the first; with products in bfloat16, too.
``products alone``: those of the layers with weights for all 64 texts as dense networks, and what they would take at
the peak of multiply-adds, which no way of packing goes below. All take turns in one process, with a pause before each;
given is the median of the rounds' ratios. Before that, results are compared with those of each sample alone.
"""

from __future__ import annotations

import argparse
import functools
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import transformers

import pylrp
from pylrp.evaluate import leave_one_out

LENGTHS = (12, 20, 28, 36, 52, 68, 96, 128)
LONGEST, TOKENS = 128, 64
NEAR = 1e-5


def load(path: Path | None, folder: str, of_first: bool = False) -> pylrp.Network:
    """Return the network of a file, or one of MiniLM's sizes with random weights, in a folder that has to stay."""
    if path is None:
        path = Path(folder) / f"model{int(of_first)}.onnx"
        transformers.encoder(6, 384, 12, LONGEST, path, open_length=True, of_first=of_first)
    return pylrp.load(path)


def text(random: np.random.Generator, tokens: int) -> dict[str, Any]:
    """Return random ids and a mask that leaves none out."""
    ids = random.integers(1, transformers.WORDS, tokens)
    return {"input_ids": ids, "attention_mask": np.ones(tokens, np.int64)}


def require_near(what: str, found: Any, wanted: Any) -> None:
    """Raise where two results differ by more than rounding."""
    off = np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max()
    if off > NEAR:
        raise ValueError(f"{what} is off by {off:.1e} of the largest")


def packed(net: pylrp.Network, target: Any, threads: int, rounds: int, clock: Callable[[], float]) -> None:
    """Print what eight sentences take."""
    random = np.random.default_rng(1)
    texts = [text(random, tokens) for tokens in LENGTHS]
    share = sum(LENGTHS) / LONGEST
    for way in ("forward", "cp_lrp", "attnlrp"):

        def call(x: Any, way: str = way) -> Any:
            if way == "forward":
                return net.forward(x, threads=threads)
            return net.explain(x, target, way, threads=threads)

        found = call(texts)
        for i, each in enumerate(texts):
            alone = call(each)
            if way == "forward":
                require_near("a prediction", found[i], alone)
            else:
                require_near("a map", found.relevance[i], alone.relevance)
        call(texts)  # the lengths' graphs are there again
        seconds = transformers.ratios({"one": lambda: call(texts[-1]), "all": lambda: call(texts)}, rounds, clock)
        ratio = np.median(seconds["all"] / seconds["one"]) / share
        print(f"packed, {way}: {1e3 * np.median(seconds['all']):.1f} ms, {ratio:.2f} x one of {LONGEST} by tokens")


def left_out(
    net: pylrp.Network, target: Any, threads: int, rounds: int, clock: Callable[[], float], what: str = ""
) -> None:
    """Print what leaving out each token of a text takes."""
    one = text(np.random.default_rng(2), TOKENS)
    for how in ("delete", "mask"):
        _require_scores(net, one, target, how)

    def singles() -> None:
        for _ in range(TOKENS):
            net.forward(one, threads=threads)

    def all_at_once(how: Any, precision: str | None) -> None:
        leave_one_out(net, one, target, how=how, mask=0, threads=threads, precision=precision)

    ways = {
        f"{how}{what}{'' if precision is None else ', bfloat16'}": functools.partial(all_at_once, how, precision)
        for how in ("delete", "mask")
        for precision in (None, "bfloat16")
    }
    for call in ways.values():
        call()
    seconds = transformers.ratios({"singles": singles, **ways}, rounds, clock)
    for name in ways:
        ratio = np.median(seconds[name] / seconds["singles"])
        took = 1e3 * np.median(seconds[name])
        print(f"leave-one-out, {name}: {took:.0f} ms, {ratio:.2f} x {TOKENS} single predictions")


def _require_scores(net: pylrp.Network, one: dict[str, Any], target: Any, how: Any) -> None:
    """Raise where the score without a token is not what it is alone."""
    place = target if isinstance(target, tuple) else (target,)
    found = leave_one_out(net, one, target, how=how, mask=0)
    before = net.forward(one)[place]
    for i in (5, 20, TOKENS - 1):  # the first is what is scored where each token has an output
        if how == "delete":
            less = {name: np.delete(row, i) for name, row in one.items()}
        else:
            less = {**one, "input_ids": np.where(np.arange(TOKENS) == i, 0, one["input_ids"])}
        if abs(before - net.forward(less)[place] - found[i]) > NEAR * abs(before):
            raise ValueError(f"token {i} left out: the score is off")


def bound(net: pylrp.Network, rounds: int, threads: int, clock: Callable[[], float]) -> None:
    """Print what the products of 64 texts alone take: in one batch of rows, and at the peak of multiply-adds."""
    random = np.random.default_rng(3)
    one = text(random, TOKENS)
    net.forward(one)
    dense: list[Any] = [node.layer for node in net._execution_of(one).graph.nodes if node.layer.kind == "dense"]
    shapes = [np.shape(layer.weight)[:2] for layer in dense]
    layers = {
        shape: pylrp.Network([pylrp.layers.Dense(random.normal(size=shape).astype("f"))], input_shape=shape[1:])
        for shape in set(shapes)
    }
    rows = {size: random.normal(size=(TOKENS * TOKENS, size)).astype("f") for _, size in layers}

    def singles() -> None:
        for _ in range(TOKENS):
            net.forward(one, threads=threads)

    def products() -> None:
        for shape in shapes:
            layers[shape].forward(rows[shape[1]], threads=threads)

    seconds = transformers.ratios({"singles": singles, "products": products}, rounds, clock)
    needed = 2e-9 * TOKENS * TOKENS * sum(map(math.prod, shapes))
    facts = machine.describe(threads)
    for _ in range(rounds):
        machine.raise_ceilings(facts)
    peak = facts["ceilings"][str(threads)]["fma_peak"]
    alone = float(np.median(seconds["products"]))
    print(
        f"products alone: {1e3 * alone:.0f} ms, {np.median(seconds['products'] / seconds['singles']):.2f} x {TOKENS} "
        f"single predictions, {needed / alone:.0f} GFLOP/s; at the peak of {peak:.0f} "
        f"{needed / peak / np.median(seconds['singles']):.2f}"
    )


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", type=Path)
    asked = parser.parse_args()
    facts = machine.describe(asked.threads)
    print(f"{facts['cpu']}, {facts['isa']}, {asked.threads} of {facts['cores']} threads")
    clock = time.process_time if asked.threads == 1 else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:  # other lengths are read anew
        net = load(asked.model, folder)
        rank = len(net.graph.shapes[net.graph.outputs[0]])
        target = 0 if rank == 1 else (0,) * rank
        packed(net, target, asked.threads, asked.rounds, clock)
        left_out(net, target, asked.threads, asked.rounds, clock)
        if asked.model is None:
            left_out(load(None, folder, of_first=True), 0, asked.threads, asked.rounds, clock, " of the first")
        bound(net, asked.rounds, asked.threads, clock)


if __name__ == "__main__":
    main()
