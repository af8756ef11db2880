"""The compiled core, called directly with hostile sizes: an exception each, never an abort; and what leads there."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pylrp
from pylrp.errors import BrokenNode
from pylrp.layers import Conv, ReLU, Resize
from pylrp.network.graph import Graph, Node


def test_hostile_sizes():
    program = Path(__file__).with_name("core_with_hostile_sizes.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = ast.literal_eval(done.stdout)
    refused = sum(counts.values()) - counts["ran"]
    assert refused > 2000
    assert counts["CoreError"] > 1000
    assert 50 < counts["ran"] < 500  # what is odd and does no harm: a step, an empty window, numbers that fit


def test_tables_of_resized_values_count():
    # 16 MB of values, 2 GiB of places and weights to make them of.
    net = [Resize(size=(2048, 2048), mode="linear")]
    with pytest.raises(ValueError, match="limit"), pylrp._limits.at_most(1 << 28):
        pylrp.Network(net, input_shape=(1, 3, 3))


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 6), (2, 3, 4, 2)])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_resized_channels_move_alike(rng, shape, mode):
    size = tuple(2 * n + 1 for n in shape[1:])
    layer = Resize(size=size, mode=mode)
    x = rng.standard_normal((2, *shape))
    index, weight = layer.taps(shape)
    wanted = (x.reshape(2, -1)[:, index] * weight).sum(-1).reshape(2, shape[0], *size)
    made = pylrp.Network([layer], input_shape=shape).forward(x.astype(np.float32))
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("far", [{"stride": 1 << 50}, {"dilation": 1 << 50}, {"dilation": 1 << 46, "padding": 1 << 45}])
def test_far_beyond_the_input(far):
    """Such a layer is refused by its name before the core is asked, or runs."""
    layer = Conv(np.ones((2, 1, 2, 2), np.float32), **far)
    try:
        net = pylrp.Network([layer], input_shape=(1, 5, 5))
    except pylrp.UnsupportedLayer:
        return
    except ValueError as error:
        told = type(error)
    else:
        told = type(net.explain(np.zeros((1, 1, 5, 5), np.float32)))
    assert told is not pylrp._core.CoreError


class Odd(ReLU):
    """Describes itself to the core in a way that does not fit."""

    def __init__(self, kind, **settings):
        object.__setattr__(self, "described", (kind, settings))

    def to_core(self, place):
        return self.described


@pytest.mark.parametrize(
    "odd",
    [
        Odd("affine", scale=np.ones(3, np.float32), shift=np.ones(3, np.float32)),
        Odd("lrn", channels=4, size=2**62, alpha=1.0, beta=1.0, bias=1.0),
        Odd("lrn", channels=4, size=2**70, alpha=1.0, beta=1.0, bias=1.0),
        Odd("lrn", channels=4),
        Odd("none such"),
    ],
    ids=lambda odd: odd.described[0],
)
def test_the_node_that_the_core_refuses(odd):
    nodes = [Node("first", ReLU(), ("x",)), Node("second", odd, ("first",)), Node("third", ReLU(), ("second",))]
    with pytest.raises(BrokenNode) as caught:
        pylrp.Network.from_graph(Graph({"x": (4,)}, nodes, ["third"]))
    assert (caught.value.node, caught.value.operator) == ("second", "Odd")
    assert caught.value.__cause__.node == 1


def test_other_errors_of_the_core_name_no_node():
    with pytest.raises(pylrp._core.CoreError) as caught:
        pylrp._core.Graph("float32", [([0], [0], 0)], [])
    assert caught.value.node is None
