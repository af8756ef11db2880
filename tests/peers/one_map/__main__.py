"""Measures the table of ``docs/writers.md``: ``python -m peers.one_map [PAGE]`` in the folder ``tests``.

Prints the block between the page's marks, or puts it there.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np

import peers.conftest  # noqa: F401  makes torchvision importable
import pylrp
from peers.one_map.compare import WRITERS, CannotWrite, measured
from peers.one_map.networks import NETWORKS

BEGIN, END = "<!-- one map:begin -->\n", "<!-- one map:end -->\n"
PACKAGES = ("numpy", "torch", "zennit", "keras", "onnx", "onnxscript", "onnxruntime")


def cell(network: str, writer: str, dtype: str) -> str:
    """Return the error of a float64 network, or of a float32 one beside what is allowed."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = measured(network, writer, np.dtype(dtype), Path(folder))
        except CannotWrite:
            return "–"
        except pylrp.UnsupportedLayer:
            return "refused"
    wrong = " **wrong**" if result.beside_allowed > 1 else ""
    return (f"{result.error:.0e}" if dtype == "float64" else f"{result.beside_allowed:.2f}") + wrong


def block() -> str:
    """Return what it was measured on, and a row for each writer, a column for each network: float64, float32."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    others = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        f"{found[1] if found else platform.machine()}, {pylrp.info()['isa']}, {datetime.date.today()}; "
        f"pylrp {pylrp.__version__}, {others}.\n",
        f"| writer | {' | '.join(NETWORKS)} |",
        f"| --- |{' ---: |' * len(NETWORKS)}",
    ]
    for writer in WRITERS:
        row = []
        for network in NETWORKS:
            cells = [cell(network, writer, dtype) for dtype in ("float64", "float32")]
            row.append(cells[0] if cells[0] == cells[1] else ", ".join(cells))
        lines.append(f"| {writer} | {' | '.join(row)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, then print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", nargs="?", type=Path, help="a page with the marks")
    page = parser.parse_args().page
    warnings.simplefilter("ignore")
    measured_now = block()
    if page is None:
        print(measured_now)
        return
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(before + BEGIN + measured_now + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
