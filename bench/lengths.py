"""What planning a new length takes: processor time of one thread, milliseconds, medians.

    python bench/lengths.py                  a text encoder of 12 layers, written here with random weights
    python bench/lengths.py MODEL.onnx       a model of token ids

Printed are the time to load, that of the first new length (which is read, and two more), that of each further one
(graph, core, rules of cp_lrp), and how much memory 500 lengths add after the first 100.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import transformers

import pylrp

LAYERS, WIDTH, HEADS, LONGEST = 12, 64, 4, 600


def _milliseconds(call: Any) -> float:
    begin = time.process_time()
    call()
    return 1e3 * (time.process_time() - begin)


def _resident() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def measured(path: Path) -> str:
    """Return a line with the figures."""
    loaded: list[pylrp.Network] = []
    load = _milliseconds(lambda: loaded.append(pylrp.load(path)))
    net = loaded[0]
    sides = net.graph.facts.sides
    assert sides is not None

    tokens = len(net.graph.shapes[net.graph.outputs[0]]) > 1

    def inputs(length: int) -> Any:
        given = {name: np.ones((1, length), np.int64) for name in sides.names}
        return given if len(given) > 1 else next(iter(given.values()))

    def plan(length: int) -> None:
        net._execution_of(inputs(length)).plan("cp_lrp", "zennit")

    first = _milliseconds(lambda: plan(20))
    plan(21)
    others = [_milliseconds(lambda length=length: plan(length)) for length in range(22, 43)]
    for length in range(43, 143):
        net.explain(inputs(length), (0, 1) if tokens else 1, composite="cp_lrp")
    before = _resident()
    for length in range(10, 510):
        plan(length)
    return (
        f"{path.name}: load {load:.0f}, first new length {first:.0f}, others {statistics.median(others):.1f}; "
        f"500 lengths add {_resident() - before:.0f} MB"
    )


def main() -> None:
    """Measure the models that are given, or one of this script's own."""
    paths = [Path(name) for name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        if not paths:
            paths = [Path(folder) / "encoder.onnx"]
            transformers.encoder(LAYERS, WIDTH, HEADS, LONGEST, paths[0], open_length=True)
        for path in paths:
            print(measured(path))


if __name__ == "__main__":
    main()
