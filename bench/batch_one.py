"""One sample through large dense layers: what share of the memory's read bandwidth an explanation reaches.

    python bench/batch_one.py [--threads N] [--rounds N] [--sizes 25088 4096 4096 1000]

Weights are read once, and only rows whose neuron has relevance: these bytes by the time of a call, beside the bandwidth
of reading memory and doing nothing else. The bandwidth is the best of five readings of 512 MB of the process's own, in
long stretches, four streams a thread with lines asked for ahead: the fastest way that is known here. It is measured
right before and right after each call, since on a shared machine it may change by half within a minute; a round's share
is of the mean of both, and rounds in which they differ by more than a tenth are left out. Printed are medians over
the rounds; and the time in bfloat16 as a multiple of that in float32 of the same round, of `pylrp.relevance` with
weights given in bfloat16 (where the package ml_dtypes is installed) and of a network's explanation with prediction.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp import _core
from pylrp.layers import Dense, ReLU

Array = NDArray[Any]
PAUSE = 0.06  # seconds before each call: other libraries' threads, and ours, have gone to sleep
READ_BYTES = 512 * 2**20
STEADY = 0.1  # how far the bandwidth before a call and that after it may differ


def network(sizes: list[int]) -> tuple[list[Array], list[Array], Array]:
    """Return weights, activations and the relevance at the top: a random network's, its top class."""
    rng = np.random.default_rng(0)
    weights = [
        rng.standard_normal((n_out, n_in), dtype=np.float32) * np.float32(np.sqrt(2 / n_in))
        for n_in, n_out in pairwise(sizes)
    ]
    acts = [np.maximum(rng.standard_normal(sizes[0], dtype=np.float32), 0)]
    for weight in weights[:-1]:
        acts.append(np.maximum(weight @ acts[-1], 0))
    logits = weights[-1] @ acts[-1]
    out = np.zeros_like(logits)
    out[logits.argmax()] = logits.max()
    return weights, acts, out


def active_bytes(weights: list[Array], acts: list[Array], out: Array) -> int:
    """Return the bytes of the weight rows that carry relevance."""
    layers = pylrp.relevance(weights, acts, out, return_layers=True)
    return sum(
        int(np.count_nonzero(above)) * weight.shape[1] * weight.itemsize
        for weight, above in zip(weights, layers[1:], strict=True)
    )


def one_round(calls: dict[str, Callable[[], Any]], threads: int) -> dict[str, float]:
    """Return the seconds of each call, and the read bandwidth "before" and "after" the first one."""
    found = {"before": _core.measure_read_bandwidth(threads, READ_BYTES)}
    for name, call in calls.items():
        time.sleep(PAUSE)
        start = time.perf_counter()
        call()
        found[name] = time.perf_counter() - start
        if "after" not in found:
            found["after"] = _core.measure_read_bandwidth(threads, READ_BYTES)
    return found


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=_core.threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=[25088, 4096, 4096, 1000])
    args = parser.parse_args()
    weights, acts, out = network(args.sizes)
    needed = active_bytes(weights, acts, out)
    calls: dict[str, Callable[[], Any]] = {"float32": lambda: pylrp.relevance(weights, acts, out, threads=args.threads)}
    with suppress(ImportError):
        from ml_dtypes import bfloat16

        halves = [weight.astype(bfloat16) for weight in weights]
        calls["relevance"] = lambda: pylrp.relevance(halves, acts, out, threads=args.threads, precision="bfloat16")
    layers: list[Any] = [Dense(weights[0])]
    for weight in weights[1:]:
        layers += [ReLU(), Dense(weight)]
    net = pylrp.Network(layers)
    for precision in ("float32", "bfloat16"):
        calls[f"explain {precision}"] = partial(
            net.explain, acts[0], composite="deep_taylor", threads=args.threads, precision=precision
        )
    for call in calls.values():
        call()
    rounds = [one_round(calls, args.threads) for _ in range(args.rounds)]
    steady = [each for each in rounds if abs(each["before"] - each["after"]) <= STEADY * each["after"]]
    if not steady:
        parser.exit(1, "the read bandwidth differed before and after the call in every round\n")
    ceilings = [(each["before"] + each["after"]) / 2 for each in steady]
    shares = [needed / each["float32"] / 1e9 / ceiling for each, ceiling in zip(steady, ceilings, strict=True)]
    taken = statistics.median(each["float32"] for each in steady)
    name = "-".join(map(str, args.sizes))
    print(
        f"{name}, batch 1, {args.threads} threads: {needed / 1e6:.1f} MB of active weights in {taken * 1e3:.2f} ms, "
        f"{needed / taken / 1e9:.1f} GB/s: {statistics.median(shares):.0%} of the read bandwidth in the same round "
        f"({min(shares):.0%} to {max(shares):.0%}; the bandwidth was {min(ceilings):.1f} to {max(ceilings):.1f} GB/s; "
        f"{len(steady)} of {len(rounds)} rounds)"
    )
    pairs = {"relevance": ("relevance", "float32"), "explain": ("explain bfloat16", "explain float32")}
    ratios = {
        name: statistics.median(each[half] / each[full] for each in rounds)
        for name, (half, full) in pairs.items()
        if half in calls
    }
    print("bfloat16: " + ", ".join(f"{ratio:.2f} of `{name}`" for name, ratio in ratios.items()) + " in float32")


if __name__ == "__main__":
    main()
