"""Prints the table of the documentation: ``python -m peers.one_map`` in the folder ``tests``."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np

import peers.conftest  # noqa: F401  makes torchvision importable
import pylrp
from peers.one_map.compare import WRITERS, CannotWrite, measured
from peers.one_map.networks import NETWORKS


def cell(network: str, writer: str, dtype: str) -> str:
    """Return the error of a float64 network, or of a float32 one beside what is allowed."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = measured(network, writer, np.dtype(dtype), Path(folder))
        except CannotWrite:
            return "–"
        except pylrp.UnsupportedLayer as refused:
            return f"refused ({refused.operator.rpartition('.')[0]})"
    wrong = " **wrong**" if result.beside_allowed > 1 else ""
    return (f"{result.error:.0e}" if dtype == "float64" else f"{result.beside_allowed:.2f}") + wrong


def main() -> None:
    """Print a row for each writer, a column for each network: float64, float32."""
    warnings.simplefilter("ignore")
    print(f"| writer | {' | '.join(NETWORKS)} |\n| --- |{' ---: |' * len(NETWORKS)}")
    for writer in WRITERS:
        row = []
        for network in NETWORKS:
            cells = [cell(network, writer, dtype) for dtype in ("float64", "float32")]
            row.append(cells[0] if cells[0] == cells[1] else ", ".join(cells))
        print(f"| {writer} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
