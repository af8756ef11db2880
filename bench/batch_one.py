"""One sample through large dense layers: what share of the memory's read bandwidth an explanation reaches.

    python bench/batch_one.py [--threads N] [--rounds N] [--sizes 25088 4096 4096 1000]

Weights are read once, and only rows whose neuron has relevance: these bytes by the time of a call, beside the bandwidth
of reading memory and doing nothing else, measured in turns in the same process. Printed are medians and the share; and
the time in bfloat16 as a multiple of that in float32, of `pylrp.relevance` with weights given in bfloat16 (where the
package ml_dtypes is installed) and of a network's explanation, prediction included.
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
    ceilings = []
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(args.rounds):
        ceilings.append(_core.measure_read_bandwidth(args.threads, READ_BYTES))
        for name, call in calls.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    seconds = times["float32"]
    name = "-".join(map(str, args.sizes))
    ceiling, taken = max(ceilings), statistics.median(seconds)
    median, best = (needed / each / 1e9 for each in (taken, min(seconds)))
    print(
        f"{name}, batch 1, {args.threads} threads: {needed / 1e6:.1f} MB of active weights in "
        f"{taken * 1e3:.2f} ms, {median:.1f} GB/s: {median / ceiling:.0%} of the read bandwidth, {ceiling:.1f} GB/s "
        f"(best round {best / ceiling:.0%}; the bandwidth was {min(ceilings):.1f} to {ceiling:.1f})"
    )

    middle = {name: statistics.median(found) for name, found in times.items()}
    given = f"{middle['relevance'] / middle['float32']:.2f} of `relevance`, " if "relevance" in middle else ""
    print(f"bfloat16: {given}{middle['explain bfloat16'] / middle['explain float32']:.2f} of `explain` in float32")


if __name__ == "__main__":
    main()
