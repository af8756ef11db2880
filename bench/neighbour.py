"""What a call takes beside another program that keeps one processor busy, and alone; on two threads and on one.

    python bench/neighbour.py                    this build, as imported
    python bench/neighbour.py --before FOLDER    in turns with another build: FOLDER holds another ``pylrp``
    python bench/neighbour.py --rounds 30        more rounds of each (default 12)

Each build and number of threads is a process of its own that waits for its turn; a round is one turn of each. The
neighbour is pinned to the last processor. The time of the processor counts all threads of a call; it hardly depends on
what else runs, wall time does. Without a neighbour the ratio to ``--before`` is given with its 95 % interval (bootstrap
over rounds). Ends with 1 where the limits are not kept: beside the neighbour at most 1.5 times the processor's time of
one thread, and in the ninth decile at most 3 times the wall time of one thread alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

# Widths, batch, calls a round.
CASES = {
    "784-300-10 b1": ((784, 300, 10), 1, 200),
    "784-300-10 b100": ((784, 300, 10), 100, 40),
    "784-1000-1000-10 b1": ((784, 1000, 1000, 10), 1, 60),
    "784-1800-1800-10 b1": ((784, 1800, 1800, 10), 1, 40),
    "784-1000-1000-10 b1024": ((784, 1000, 1000, 10), 1024, 2),
    "4096-4096-4096-1000 b1": ((4096, 4096, 4096, 1000), 1, 8),
    "4096-4096-4096-1000 b256": ((4096, 4096, 4096, 1000), 256, 1),
    "25088-4096-4096-1000 b1": ((25088, 4096, 4096, 1000), 1, 4),
}
PROCESSOR_LIMIT, WALL_LIMIT = 1.5, 3.0
NEIGHBOUR = "import os\nos.sched_setaffinity(0, [max(os.sched_getaffinity(0))])\nprint(flush=True)\nwhile True: pass"

Times = dict[tuple[str, int, bool], list[np.ndarray]]  # build, threads, neighbour -> rounds of (calls, (wall, own))


def worker(name: str, threads: int) -> None:
    """Explain once for each line that comes in, and answer with the seconds: by the clock and by the processor."""
    import pylrp  # the build that PYTHONPATH says
    from pylrp.layers import Dense, ReLU

    widths, batch, calls = CASES[name]
    rng = np.random.default_rng(0)
    layers: list[Any] = []
    for n_in, n_out in pairwise(widths):
        layers += [Dense(rng.standard_normal((n_out, n_in), np.float32) * np.float32(2 / n_in) ** 0.5), ReLU()]
    net = pylrp.Network(layers[:-1])
    x = rng.random((batch, widths[0]), np.float32)
    for _ in sys.stdin:
        net.explain(x, threads=threads)
        taken = []
        for _ in range(calls):
            wall, own = time.perf_counter(), time.process_time()
            net.explain(x, threads=threads)
            taken.append((time.perf_counter() - wall, time.process_time() - own))
        print(json.dumps(taken), flush=True)


def take_turn(process: subprocess.Popen[str]) -> list[tuple[float, float]]:
    """Wake a worker and return its answer."""
    if process.stdin is None or process.stdout is None:
        raise TypeError("a worker has pipes")
    process.stdin.write("\n")
    process.stdin.flush()
    answer: list[tuple[float, float]] = json.loads(process.stdout.readline())
    return answer


def measure(name: str, builds: dict[str, Path | None], rounds: int) -> Times:
    """Let all builds take turns on one case, first without a neighbour, then beside it."""
    processes = {}
    for build, folder in builds.items():
        variables = dict(os.environ) if folder is None else {**os.environ, "PYTHONPATH": str(folder.resolve())}
        for threads in (1, 2):
            command = [sys.executable, __file__, "--worker", name, "--threads", str(threads)]
            processes[build, threads] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
            )
    times: Times = {}
    try:
        for beside in (False, True):
            neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR], stdout=subprocess.PIPE) if beside else None
            try:
                if neighbour and neighbour.stdout:
                    neighbour.stdout.readline()
                for turn in range(rounds + 1):
                    for (build, threads), process in processes.items():
                        taken = np.array(take_turn(process))
                        if turn:  # the first one warms up
                            times.setdefault((build, threads, beside), []).append(taken)
            finally:
                if neighbour:
                    neighbour.kill()
                    neighbour.wait()
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return times


def interval(after: list[np.ndarray], before: list[np.ndarray]) -> tuple[float, float, float]:
    """Return the ratio of the rounds' medians, after / before, and its 95 % interval."""
    a, b = (np.array([np.median(turn[:, 0]) for turn in rounds]) for rounds in (after, before))
    draws = np.random.default_rng(0).integers(0, len(a), (2000, len(a)))
    low, high = np.quantile(np.median(a[draws], 1) / np.median(b[draws], 1), (0.025, 0.975))
    return float(np.median(a) / np.median(b)), float(low), float(high)


def show(name: str, times: Times) -> bool:
    """Print one case; return whether this build keeps the limits."""
    for (build, threads, beside), rounds in times.items():
        wall, own = np.concatenate(rounds).T * 1e3
        place = "beside" if beside else "alone"
        print(
            f"{name:26} {place:7} {build:7} threads {threads}  median {np.median(wall):8.3f}"
            f"  ninth decile {np.quantile(wall, 0.9):8.3f}  processor {own.mean():8.3f} ms"
        )
    alone, one, two = (np.concatenate(times[("this", *key)]) for key in ((1, False), (1, True), (2, True)))
    processor = two[:, 1].mean() / one[:, 1].mean()
    wall_ratio = np.quantile(two[:, 0], 0.9) / np.median(alone[:, 0])
    good = bool(processor <= PROCESSOR_LIMIT and wall_ratio <= WALL_LIMIT)
    print(
        f"{name:26} beside  this    2 / 1 threads: processor {processor:.2f} (<= {PROCESSOR_LIMIT}), "
        f"ninth decile / one alone {wall_ratio:.2f} (<= {WALL_LIMIT:g}){'' if good else '  NOT KEPT'}"
    )
    if ("before", 2, False) in times:
        for threads in (1, 2):
            ratio, low, high = interval(times["this", threads, False], times["before", threads, False])
            print(f"{name:26} alone   this / before, {threads} threads: {ratio:.2f} [{low:.2f}, {high:.2f}]")
    print(flush=True)
    return good


def main() -> int:
    """Measure the cases asked for; the result is the program's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--before", type=Path, help="a folder with another build's pylrp")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--case", default="", help="only the cases whose name contains this")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.threads)
        return 0
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("this needs Linux and two processors, one for the neighbour")
    builds: dict[str, Path | None] = {"this": None}
    if arguments.before:
        builds["before"] = arguments.before
    kept = [show(name, measure(name, builds, arguments.rounds)) for name in CASES if arguments.case in name]
    print(f"load average at the end: {os.getloadavg()[0]:.1f}")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
