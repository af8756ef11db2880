"""How far maps in float32 are from those in float64, on random ids with random targets, and why.

    python bench/single_precision.py MODEL.onnx [CALLS]

Printed are the median and the largest of the differences, of the largest relevance of a token in each call, and for the
worst call the condition: the sum of |R| over the features of all tokens, which is what is added up, of that largest
relevance. Rounding alone leaves about the condition times 1e-7.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import pylrp

TOKENS, CALLS, WORDS = 32, 40, 20000


def _map(ex: pylrp.Explanation) -> Any:
    R: Any = ex.relevance
    return next(iter(R.values())) if isinstance(R, dict) else R


def measured(path: str, calls: int) -> str:
    """Return a line with the figures."""
    single, double = pylrp.load(path), pylrp.load(path, dtype="float64")
    sides = double.graph.facts.sides
    assert sides is not None
    rows = next(name for name, feed in sides.feeds.items() if feed.source is not None)
    words = min(WORDS, len(sides.feeds[rows].table.array))  # type: ignore[union-attr]
    found = []
    for seed in range(calls):
        random = np.random.default_rng(seed)
        shape = (1, TOKENS)
        x = {n: np.ones(shape, int) if "mask" in n else random.integers(0, words, shape) for n in sides.names}
        size = double.forward(x).shape[1:]
        target: Any = tuple(int(random.integers(n)) for n in size) if len(size) > 1 else int(random.integers(size[0]))
        exact = double.explain(x, target, composite="attnlrp", layers=[rows])
        expected = _map(exact)
        largest = np.abs(expected).max()
        error = np.abs(_map(single.explain(x, target, composite="attnlrp")) - expected).max() / largest
        found.append((error, np.abs(exact.layers[rows]).sum() / largest))
    errors = [error for error, _ in found]
    worst, condition = max(found)
    return (
        f"{path}: {calls} calls of {TOKENS} tokens, median {np.median(errors):.1e}, largest {worst:.1e} "
        f"(condition {condition:.0f})"
    )


if __name__ == "__main__":
    print(measured(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else CALLS))
