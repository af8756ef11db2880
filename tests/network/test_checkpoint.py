"""Explanations that keep few values of the forward pass: equal bits, less memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.network.graph import Graph, Node

RNG = np.random.default_rng(2)


def weights(out, into):
    return (RNG.normal(size=(out, into)) / np.sqrt(into)).astype(np.float32)


def plain():
    """Layers one after the other, with values that are read twice."""
    nodes, last = [], "x"
    for i in range(6):
        nodes += [
            Node(f"a{i}", L.Dense(weights(40, 40), weights(1, 40)[0]), (last,)),
            Node(f"r{i}", L.ReLU(), (f"a{i}",)),
            Node(f"b{i}", L.Dense(weights(40, 40)), (f"r{i}",)),
            Node(f"s{i}", L.Add(), (f"b{i}", last)),
            Node(f"n{i}", L.LayerNorm(-1), (f"s{i}",)),
            Node(f"g{i}", L.GELU(), (f"n{i}",)),
        ]
        last = f"g{i}"
    return Graph({"x": (40,)}, [*nodes, Node("y", L.Dense(weights(3, 40)), (last,))], ["y"])


def images():
    nodes, last = [], "x"
    for i in range(5):
        kernel = weights(4, 36 if i else 27).reshape(4, -1, 3, 3)
        nodes += [Node(f"c{i}", L.Conv(kernel, weights(1, 4)[0], padding=1), (last,))]
        nodes += [Node(f"r{i}", L.ReLU(), (f"c{i}",))]
        last = f"r{i}"
    nodes += [Node("f", L.Flatten(), (last,)), Node("y", L.Dense(weights(3, 4 * 36)), ("f",))]
    return Graph({"x": (3, 6, 6)}, nodes, ["y"])


def sequences():
    lstm = L.LSTM(weights(24, 5), weights(24, 6), weights(1, 24)[0], returns="sequence")
    more = L.LSTM(weights(24, 6), weights(24, 6), weights(1, 24)[0], returns="sequence")
    nodes = [Node("a", lstm, ("x",)), Node("b", more, ("a",)), Node("c", more, ("b",)), Node("t", L.Flatten(), ("c",))]
    nodes += [Node("y", L.Dense(weights(3, 42)), ("t",))]
    return Graph({"x": (7, 5)}, nodes, ["y"])


@pytest.mark.parametrize("make", [plain, images, sequences])
@pytest.mark.parametrize("composite", ["epsilon", "epsilon_alpha2_beta1", "attnlrp"])
def test_equal_bits(make, composite):
    graph = make()
    net = pylrp.Network.from_graph(graph)
    x = RNG.normal(size=(3, *graph.inputs["x"])).astype(np.float32)
    for asked in ({"target": 1}, {"targets": [0, 2]}, {"target": 0, "layers": "all"}):
        kept, again = (net.explain(x, composite=composite, checkpoint=c, **asked) for c in (False, True))
        assert (kept.relevance == again.relevance).all()
        assert (kept.output == again.output).all()
        pages = [ex.ledger if isinstance(ex.ledger, list) else [ex.ledger] for ex in (kept, again)]
        assert all((one.data == other.data).all() for one, other in zip(*pages, strict=True))
        if "layers" in asked:
            assert all((kept.layers[name] == again.layers[name]).all() for name in graph.shapes)


CODE = """
import sys
import numpy as np, pylrp
from pylrp.layers import Conv, GELU

def most():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) << 10

layers = [layer for i in range(40) for layer in (Conv(np.eye(16, dtype=np.float32)[:, :, None]), GELU())]
net = pylrp.Network(layers, (16, 1 << 14))
x = np.ones((16, 1 << 14), np.float32)
before = most()
net.explain(x, target=x, composite="epsilon", threads=1, checkpoint=bool(int(sys.argv[1])))
print((most() - before) / x.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_less_memory(tmp_path):
    """80 values of 1 MB: about nine are kept, and nine more in a part."""
    taken = []
    for checkpoint in "01":
        command = [sys.executable, "-c", CODE, checkpoint]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        taken.append(float(done.stdout))
    assert taken[0] > 75
    assert taken[1] < 35
