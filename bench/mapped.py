"""Four processes that have loaded one VGG16 from a mapped file, and the memory they take beside one such process.

    python bench/mapped.py                 after loading
    python bench/mapped.py --explain       after an image each, with what an explanation works in

Weights are random, as many as VGG16's. Loading reads every page of the file, so that it counts; memory is proportional
(Pss: a page that n processes share counts 1/n in each). Wanted: all together at most 1.15 times one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import pylrp
from pylrp.layers import Conv, Dense, Flatten, MaxPool, ReLU

MOST_TIMES, PROCESSES = 1.15, 4
WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16() -> pylrp.Network:
    """Return a network of VGG16's sizes."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)

    layers: list[Any] = []
    channels = 3
    for block in WIDTHS:
        for width in block:
            layers += [Conv(weights(width, channels, 3, 3), padding=1), ReLU()]
            channels = width
        layers.append(MaxPool(2))
    layers += [Flatten(), Dense(weights(4096, 25088)), ReLU(), Dense(weights(4096, 4096)), ReLU()]
    return pylrp.Network([*layers, Dense(weights(1000, 4096))], input_shape=(3, 224, 224))


def hold(path: str, explains: bool) -> None:
    """Load the network, say so, and stay until told to end."""
    net = pylrp.load(path, mapped=True)
    if explains:
        net.explain(np.ones((1, 3, 224, 224), np.float32))
    print("ready", flush=True)
    sys.stdin.readline()


def proportional(pid: int) -> float:
    """Return a process's proportional memory in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024 / 1e6


def taken(path: str, count: int, explains: bool) -> float:
    """Return what some processes take together."""
    words = [sys.executable, __file__, "--hold", path, *(["--explain"] if explains else [])]
    processes = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    answers = [process.stdout.readline() if process.stdout else "" for process in processes]
    assert answers == ["ready\n"] * count
    found = sum(proportional(process.pid) for process in processes)
    for process in processes:
        process.communicate("end\n")
    return found


def main() -> int:
    """Measure; 1 where the figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("--hold", metavar="PATH", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.hold:
        hold(args.hold, args.explain)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "vgg16.pylrp.npz")
        vgg16().save(path)
        one, all_of_them = (taken(path, count, args.explain) for count in (1, PROCESSES))
    times = all_of_them / one
    print(
        f"mapped: VGG16: one process {one:.0f} MB, {PROCESSES} together {all_of_them:.0f} MB: {times:.2f} times; ",
        end="",
    )
    print(f"wanted {MOST_TIMES}: {'reached' if times <= MOST_TIMES else 'MISSED'}")
    return 0 if times <= MOST_TIMES else 1


if __name__ == "__main__":
    sys.exit(main())
