"""Which bytes gave a file's type away? magika, a network of Google's that reads 1,024 bytes of each end of a file.

    python examples/which_bytes.py [--output bytes.png]

The network is magika's own ONNX file: one-hot rows of bytes, norms and a softmax written out. Small files are made
here, of types that some bytes of them tell: a shebang, the first line of XML, the braces of JSON.

The script checks the map against the network: for each file overwriting the 8 most relevant bytes must lower the logit
by at least 1, and three times as much as overwriting 8 of the others does on average. Exit code 1 if not. Needs

    pip install --no-deps magika
    pip install onnx matplotlib

tests/peers/test_examples.py runs it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp

Array = NDArray[Any]
END, PADDING = 1024, 256
FILES = {
    "a script": b'#!/usr/bin/env python3\nimport sys\n\n\ndef main():\n    print("hello", sys.argv)\n\n\nmain()\n',
    "a table": b'<?xml version="1.0" encoding="UTF-8"?>\n<rows><row id="1">seven</row><row id="2">eight</row></rows>\n',
    "a shell script": b'#!/bin/bash\nset -e\nfor f in *.txt; do\n  echo "$f"\n  wc -l "$f"\ndone\n',
    "a page": b"<!DOCTYPE html>\n<html><head><title>Hi</title></head><body><p>Some words here.</p></body></html>\n",
    "settings": b'{\n  "name": "example",\n  "size": [1, 2, 3],\n  "on": true,\n  "note": "seven words"\n}\n',
}
MOST, DRAWS = 8, 16
LEAST, TIMES = 1.0, 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Load, explain, check; return the exit code."""
    parser = argparse.ArgumentParser(description="Which bytes gave the type away?")
    parser.add_argument("--output", type=Path, default=Path("bytes.png"))
    options = parser.parse_args(arguments)
    net, names = load()
    rng = np.random.default_rng(0)
    held = 0
    maps = {}
    for what, content in FILES.items():
        x = as_bytes(content)
        target = int(net.forward(x)[0].argmax())
        R = by_byte(net.explain(x, target, composite="attnlrp").relevance[0], len(content))
        order = np.argsort(-R)
        most = fall(net, content, order[:MOST], target)
        others = float(
            np.mean([fall(net, content, rng.choice(order[MOST:], MOST, False), target) for _ in range(DRAWS)])
        )
        held += most >= max(LEAST, TIMES * others)
        print(f"{what}: {names[target]}; without the {MOST} most relevant bytes the logit falls by {most:.2f}, "
              f"without {MOST} others by {others:.2f}")  # fmt: skip
        maps[what] = content, R
    draw(maps, options.output)
    print(f"the most relevant bytes gave the type away in {held} of {len(FILES)} files")
    return 0 if held == len(FILES) else 1


def load() -> tuple[pylrp.Network, list[str]]:
    """Return magika's network and the names of its types."""
    found = importlib.util.find_spec("magika")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("magika is missing: pip install --no-deps magika")
    (path,) = Path(next(iter(found.submodule_search_locations))).glob("models/standard*/model.onnx")
    settings = json.loads((path.parent / "config.min.json").read_text())
    return pylrp.load(path), settings["target_labels_space"]


def as_bytes(content: bytes) -> Array:
    """Return a small file as the network takes it: its beginning, and its end, with padding between."""
    x = np.full((1, 2 * END), PADDING, np.int32)
    x[0, : len(content)] = x[0, 2 * END - len(content) :] = np.frombuffer(content, np.uint8)
    return x


def by_byte(relevance: Array, count: int) -> Array:
    """Return the relevance of each byte, which the network reads twice."""
    found: Array = relevance[:count] + relevance[2 * END - count :]
    return found


def fall(net: pylrp.Network, content: bytes, places: Array, target: int) -> float:
    """Return by how much the logit falls if bytes are overwritten."""
    changed = bytearray(content)
    for place in places:
        changed[place] = ord("q")
    pair = net.forward(np.concatenate([as_bytes(content), as_bytes(bytes(changed))]))[:, target]
    return float(pair[0] - pair[1])


def draw(maps: dict[str, tuple[bytes, Array]], path: Path) -> None:
    """Write each file's letters, coloured by relevance."""
    from pylrp.plot import new_figure

    width = 64
    lines = [(what, content, R, at) for what, (content, R) in maps.items() for at in range(0, len(content), width)]
    figure = new_figure(12, 0.33 * len(lines) + 0.5)
    axes = figure.add_subplot()
    grid = np.full((len(lines), width), np.nan)
    for row, (_, content, R, at) in enumerate(lines):
        part = R[at : at + width] / np.abs(R).max()
        grid[row, : len(part)] = part
        for column, byte in enumerate(content[at : at + width]):
            letter = chr(byte) if 32 < byte < 127 else "·"
            ink = "white" if abs(part[column]) > 0.6 else "black"
            axes.text(column, row, letter, ha="center", va="center", family="monospace", color=ink)
    axes.imshow(grid, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks(range(len(lines)), [what if at == 0 else "" for what, _, _, at in lines])
    figure.savefig(path)


if __name__ == "__main__":
    raise SystemExit(main())
