"""Calls the compiled core with sizes that no layer of pylrp would give it, prints what came of them.

``test_core_sizes.py`` runs it as a program: a core that aborts takes this process along, not the tests.
"""

import collections
import itertools
import resource
import sys
from pathlib import Path

import numpy as np

from pylrp import _core

VALUES = [0, -1, 2**31, 2**32, 2**46, 2**61, 2**62, 2**63 - 1, -(2**63), 2**64, 10**30, None, "x", 1.5]
ONE = _core.Rule([([("input", (1.0, 1.0), 1.0)], (1.0, 1.0), 1.0, "all", "signed", 1e-6)])
F = np.float32
RELU = ("relu", {"a": 0.0, "b": 0.0})
POOL = {"axes": [([0], [1], [1], 1, 1), ([0, 1], [2, 3], [2, 2], 1, 3), ([0, 2], [2, 4], [2, 2], 1, 4)], "channels": 2}
CONV = {
    **{"in": [1, 3, 4], "out": [1, 2, 3], "kernel": [1, 2, 2], "stride": [1] * 3, "dilation": [1] * 3, "pad": [0] * 3},
    **{"in_channels": 2, "out_channels": 3, "groups": 1, "transposed": False, "bias_by_position": False},
    **{"weight": np.ones((3, 8), F), "bias": np.ones(3, F)},
}
# kind, fields, layout of the input (channels, positions), of the output
LAYERS = [
    ("dense", {"weight": np.ones((3, 8), F), "bias": None}, (8, 1), (3, 1)),
    ("conv", CONV, (2, 12), (3, 6)),
    ("conv", {**CONV, "transposed": True, "bias": None}, (3, 6), (2, 12)),
    ("conv", {**CONV, "groups": 2, "out_channels": 2, "weight": np.ones((4, 2), F), "bias": None}, (2, 12), (2, 6)),
    ("maxpool", POOL, (2, 12), (2, 4)),
    ("avgpool", POOL, (2, 12), (2, 4)),
    ("sparse", {"index": np.arange(6, dtype=np.int32).reshape(6, 1), "weight": None, "inputs": 8, "fill": 0.0},
     (4, 2), (3, 2)),
    ("concat", {"outer": 2, "blocks": [4]}, (4, 2), (4, 2)),
    ("affine", {"scale": np.ones(2, F), "shift": np.ones(2, F)}, (2, 3), (2, 3)),
    ("prelu", {"slope": np.ones(2, F)}, (2, 3), (2, 3)),
    ("lrn", {"channels": 2, "size": 3, "alpha": 1.0, "beta": 1.0, "bias": 1.0}, (2, 3), (2, 3)),
    ("function", {"code": [0, 0, -1, 0, 2, 1, -2, 0], "constants": np.ones((2, 2), F)}, (2, 3), (2, 3)),
    ("multiply", {"signal": 1, "shape": [3, 2], "strides": [[2, 1], [2, 1]]}, (2, 3), (2, 3)),
    ("attention", {"lengths": [2, 3, 1, 1], "scale": 0.5, "cap": 0.0, "q": [0, 1, 1], "q_at": [0], "k": [0, 1, 1],
                   "k_at": [2], "v": [0, 1, 1], "v_at": [5], "out": [0, 1, 1], "out_at": [0], "covered": [1],
                   "added": 1, "added0": [0, 3, 1], "added0_at": [0], "added0_constant": np.ones(6, F)},
     (8, 1), (2, 1)),
    ("softmax", {"channels": 2, "inner": 1, "logarithm": False}, (2, 3), (2, 3)),
    ("standardize", {"extents": [2, 3], "strides": [1, 2], "scale_strides": [1, 0], "of_group": [0, 1], "norm": 2,
                     "centred": True, "weight": 0.3, "root_plus": 0.1, "plus": 0.0, "floor": 0.0,
                     "scale": np.ones(2, F), "shift": np.ones(2, F)}, (2, 3), (2, 3)),
    (*RELU, (2, 3), (2, 3)),
]  # fmt: skip
NO_RULE = {"sparse", "concat", "relu", "prelu", "lrn", "softmax", "standardize", "maxpool", "multiply", "function"}
NO_RULE.add("attention")


def run(kind, fields, source, target):
    layouts = [([*value], [1, 0], 0) for value in (source, target)]
    graph = _core.Graph("float32", layouts, [(kind, fields, [0, 0] if kind == "multiply" else [0])])
    plan = graph.plan([None if kind in NO_RULE else ONE], [None], 1)
    plan.explain([np.zeros((2, source[0] * source[1]), F)], [None], False, 1, [1], [0], [], 1)


def changed(item):
    """Yield the item with one number in it replaced, or one array by another of its kind."""
    if isinstance(item, dict):
        for key in item:
            yield {other: item[other] for other in item if other != key}
            yield from ({**item, key: new} for new in changed(item[key]))
    elif isinstance(item, (list, tuple)):
        yield item[:-1]
        yield from (type(item)([*item[:i], new, *item[i + 1 :]]) for i in range(len(item)) for new in changed(item[i]))
    elif isinstance(item, np.ndarray):
        yield from (item[:0], item[:-1], item.astype(np.int64), item.reshape(-1)[:1], item[..., None])
        yield np.broadcast_to(item[:1], (2**46, *item.shape[1:]))  # memory of one row
        if item.dtype == np.int32:
            yield from (item - 7, item + 2**30)
    elif not isinstance(item, (bool, str)) and item is not None:
        yield from VALUES


def calls():
    for kind, fields, source, target in LAYERS:
        yield from ((kind, new, source, target) for new in changed(fields))
        yield from ((kind, fields, new, target) for new in changed(source))
        yield from ((kind, fields, source, new) for new in changed(target))
        both = itertools.product([(1, 1), (2**31, 2**31), (2**62, 4), (2**46, 1), (0, 5)], repeat=2)
        yield from ((kind, fields, one, other) for one, other in both)


def others():
    """Yield calls of a good graph, and of a chain, with hostile batches, values and targets."""
    graph = _core.Graph("float32", [([2, 3], [1, 0], 0), ([2, 3], [1, 0], 0)], [(*RELU, [0])])
    plan = graph.plan([None], [None], 1)
    x = np.zeros((2, 6), F)
    tall = np.broadcast_to(x[:1], (2**45, 6))
    yield lambda: graph.forward([tall], [1], 1)
    yield lambda: plan.explain([tall], [None], False, 1, [1], [0], [], 1)
    yield lambda: plan.explain([x], [np.array([5], np.int64)], False, 1, [1], [0], [], 1)
    yield lambda: plan.explain([x], [np.array([-(2**63)], np.int64)], False, 1, [1], [0], [], 1)
    yield lambda: plan.explain([x], [np.zeros((2, 7), F)], False, 1, [1], [0], [], 1)
    for value in (2, 2**31, 2**63, 2**64 - 1):
        yield lambda value=value: plan.explain([x], [None], False, value, [1], [0], [], 1)
        yield lambda value=value: plan.explain([x], [None], False, 1, [value], [0], [], 1)
        yield lambda value=value: plan.explain([x], [None], False, 1, [1], [value], [], 1)
        yield lambda value=value: plan.explain([x], [None], False, 1, [1], [0], [(value, [True, True])], 1)
        yield lambda value=value: graph.forward([x], [value], 1)
    yield lambda: plan.explain([x], [None], False, 1, [1], [0], [(1, [])], 1)
    yield lambda: _core.Graph("float32", [([2, 3], [1, 0], 0)], [])
    yield lambda: _core.Graph("float32", [([2, 3], [1, 0], 0), ([2, 3], [1, 0], 0)], [(*RELU, [1])])
    yield lambda: _core.Graph("float32", [([2, 3], [1, 0], 0), ([2, 3], [1, 0], 0)], [(*RELU, [])])
    row = np.ones((1, 3), F)
    weight = np.broadcast_to(row, (2**46, 3))
    out = np.broadcast_to(np.ones((1, 1), F), (1, 2**46))
    yield lambda: _core.relevance([weight], [None], [row], [ONE], [None], out, 1, False, False)
    tall = np.broadcast_to(row, (2**45, 3))
    yield lambda: _core.relevance([np.ones((3, 3), F)], [None], [tall], [ONE], [None], tall, 1, False, False)


def main():
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (2 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for layer in LAYERS:
        run(*layer)  # as they are they run
    counts = collections.Counter()
    for call in itertools.chain((lambda one=one: run(*one) for one in calls()), others()):
        try:
            call()
            counts["ran"] += 1
        except Exception as error:
            counts[type(error).__name__] += 1
    print(dict(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
