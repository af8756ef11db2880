"""Where more cores stop helping: a model of VGG16's convolutions from tasks, bytes and barriers, and what is measured.

    python bench/scaling.py                     one and two threads measured, 8, 16 and 64 by the model
    python bench/scaling.py --bandwidth 200     GB/s that many cores read together (default: what two read, times 4)
    python bench/scaling.py --busy              processor time: whether two threads do more work than one, which the
                                                model says they do not; all that a busy machine can tell

A layer's products take T seconds on one thread and are cut into as many tasks as ``csrc/products/tap_work.cpp`` says,
from sizes alone. On n threads the model gives

    max(T * ceil(tasks / n) / tasks, bytes / bandwidth(n)) + barrier

where bytes are the layer's weights and images, once. What is printed is the sum over all layers, and the layers that
hold it back. Weights are random, half of the inputs are zero.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

import pylrp
from pylrp import _core
from pylrp.layers import Conv

LAYERS = (
    *((224, 3, 64), (224, 64, 64), (112, 64, 128), (112, 128, 128), (56, 128, 256), (56, 256, 256), (56, 256, 256)),
    *((28, 256, 512), (28, 512, 512), (28, 512, 512), (14, 512, 512), (14, 512, 512), (14, 512, 512)),
)  # side, channels in and out
ROUNDS = 5
# As in csrc/products/blocking.hpp and csrc/kernels/table.hpp.
BLOCK_ROWS, MIN_TASKS, OWN_ROWS, MIN_OWN_TASKS, MAX_PACKS, MIN_ROWS_OF_PACK, MIN_LIST_TASKS = 224, 16, 800, 6, 3, 48, 6
PANELS_TOGETHER, LEAST_BLOCK_ROWS = 6, 160


def tasks(side: int, out: int, width: int) -> int:
    """Return how many tasks a layer's product has; width: columns of a panel."""
    rows, panels = side * side, math.ceil(out / width)
    blocks = max(1, math.ceil(MIN_OWN_TASKS / panels), math.ceil(rows / OWN_ROWS))
    if blocks <= MAX_PACKS and (blocks == 1 or rows // blocks >= MIN_ROWS_OF_PACK):
        together = PANELS_TOGETHER
        while together > 1 and blocks * math.ceil(panels / together) < MIN_LIST_TASKS:
            together //= 2
        return blocks * math.ceil(panels / together)
    blocks = max(math.ceil(rows / BLOCK_ROWS), min(MIN_TASKS, rows // LEAST_BLOCK_ROWS))
    return blocks * min(max(1, math.ceil(MIN_TASKS / blocks)), panels)


def seconds(
    network: pylrp.Network, x: np.ndarray, threads: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the median time of a forward pass, by default by the wall clock."""
    call = partial(network.forward, x, threads=threads)
    call()
    times = []
    for _ in range(ROUNDS):
        start = clock()
        call()
        times.append(clock() - start)
    return statistics.median(times)


def layer(rng: np.random.Generator, side: int, into: int, out: int) -> tuple[pylrp.Network, np.ndarray, np.ndarray]:
    """Return a layer as a network, its weights, and an input half of which is zero."""
    weight = rng.normal(size=(out, into, 3, 3)).astype(np.float32)
    x = np.maximum(rng.normal(size=(1, into, side, side)), 0).astype(np.float32)
    return pylrp.Network([Conv(weight, padding=1)], input_shape=x.shape[1:]), weight, x


def compare_work() -> None:
    """Print the processor time that two threads take, of one thread's."""
    rng = np.random.default_rng(0)
    total = dict.fromkeys((1, 2), 0.0)
    for size in LAYERS:
        network, _, x = layer(rng, *size)
        found = {n: seconds(network, x, n, time.process_time) for n in (1, 2)}
        for n, value in found.items():
            total[n] += value
        print(f"{size}: {found[1] * 1e3:.1f} ms, two threads {found[2] / found[1]:.2f} of it", flush=True)
    print(f"all: {total[1] * 1e3:.1f} ms, two threads {total[2] / total[1]:.2f} of it")


def main() -> None:
    """Print the model beside what is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bandwidth", type=float, default=0.0)
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    if options.busy:
        compare_work()
        return
    bandwidth = {n: _core.measure_read_bandwidth(n) for n in (1, 2)}
    most = options.bandwidth or 4 * bandwidth[2]
    width = {"avx512": 32, "avx2": 16}.get(str(pylrp.info()["isa"]), 8)
    small = pylrp.Network([Conv(np.ones((8, 8, 3, 3), np.float32))], input_shape=(8, 24, 24))
    image = np.ones((1, 8, 24, 24), np.float32)
    barrier = max(seconds(small, image, 2) - seconds(small, image, 1) / 2, 0.0)  # as small as is shared out at all
    print(f"peak {_core.measure_fma_peak(1):.0f}, {_core.measure_fma_peak(2):.0f} GFLOP/s on one and two threads;")
    print(f"read {bandwidth[1]:.1f}, {bandwidth[2]:.1f} GB/s; barrier {barrier * 1e6:.0f} us\n")
    rng = np.random.default_rng(0)
    model = dict.fromkeys((1, 2, 8, 16, 64), 0.0)
    measured = dict.fromkeys((1, 2), 0.0)
    print("| layer | tasks | one thread | two, model | two, measured | 8 | 16 | 64: times as fast |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for side, into, out in LAYERS:
        network, weight, x = layer(rng, side, into, out)
        found = {n: seconds(network, x, n) for n in (1, 2)}
        count, size = tasks(side, out, width), weight.nbytes + x.nbytes + 4 * out * side * side
        expected = {1: found[1]}
        for n in (2, 8, 16, 64):
            reading = size / (1e9 * (bandwidth[2] if n == 2 else most))
            expected[n] = max(found[1] * math.ceil(count / n) / count, reading) + barrier
        for n, value in expected.items():
            model[n] += value
        for n, value in found.items():
            measured[n] += value
        faster = " | ".join(f"{found[1] / expected[n]:.1f}" for n in (8, 16, 64))
        times = f"{found[1] * 1e3:.1f} ms | {expected[2] * 1e3:.1f} | {found[2] * 1e3:.1f}"
        print(f"| {side} x {side}, {into} to {out} | {count} | {times} | {faster} |", flush=True)
    faster = " | ".join(f"{model[1] / model[n]:.1f}" for n in (8, 16, 64))
    print(f"| all | | {measured[1] * 1e3:.1f} ms | {model[2] * 1e3:.1f} | {measured[2] * 1e3:.1f} | {faster} |")


if __name__ == "__main__":
    main()
