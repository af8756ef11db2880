"""Small networks, images and tables in a folder, and the command line run there; for the tests of the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import pylrp
from pylrp.layers import AveragePool, Conv, Dense, Flatten, ReLU

NAMES = ("cat", "tabby, tabby cat", "Egyptian cat", "cup", "rocket")


def photo_network(seed: int = 3) -> pylrp.Network:
    """Return a network that takes (3, 12, 16), with 5 classes, float32."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(scale=0.4, size=shape).astype(np.float32)

    return pylrp.Network(
        [
            Conv(normal(4, 3, 3, 3), normal(4), padding=1, name="stem"), ReLU(), AveragePool(2),
            Conv(normal(6, 4, 3, 3), normal(6), name="block"), ReLU(), Flatten(),
            Dense(normal(5, 6 * 4 * 6), normal(5), name="head"),
        ],
        input_shape=(3, 12, 16),
    )  # fmt: skip


def table_network() -> pylrp.Network:
    """Return a network of dense layers that takes 3 numbers and tells 2 classes apart, float64."""
    rng = np.random.default_rng(4)
    return pylrp.Network(
        [Dense(rng.normal(size=(8, 3)), rng.normal(size=8), name="hidden"), ReLU(), Dense(rng.normal(size=(2, 8)))]
    )


def write_world(folder: Path, images: int = 3) -> None:
    """Write photo.npz, table.npz, labels.txt, images/0.png ... and rows.csv."""
    from PIL import Image

    rng = np.random.default_rng(5)
    photo_network().save(folder / "photo.npz")
    table_network().save(folder / "table.npz")
    (folder / "labels.txt").write_text("\n".join(NAMES) + "\n")
    (folder / "images").mkdir()
    for i in range(images):
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(folder / "images" / f"{i}.png")
    (folder / "rows.csv").write_text("age,weight,size,kind\n1,2,3,0\n-1,0.5,2,1\n0,0,1,1\n")


def command(*arguments: str) -> list[str]:
    """Return the command line as a process, with Ctrl-C as on a terminal, whatever the tests' own parent ignores."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pylrp.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-c", code, *arguments]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `pylrp ARGUMENTS` in a folder, in a process of its own."""
    return subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, timeout=60)
