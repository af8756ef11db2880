"""One network has one map, whatever wrote the file: nine networks, each by every writer that can write it.

The reference is a twin folded by hand, explained by zennit in float64. Small ones run always, all of them at night;
``python -m peers.one_map`` prints the table of the documentation.
"""

import importlib.util
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

import pylrp
from peers.one_map.compare import WRITERS, CannotWrite, measured
from peers.one_map.networks import NETWORKS
from peers.one_map.twin import folded

# torch's exporters and Keras warn of themselves.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
SMALL = ("Conv-ReLU-BN-Conv", "MLP over (N, L, C)")
SLOW = ("torch, dynamo", "Keras export, fixed batch")


def cases():
    for network in NETWORKS:
        for writer in WRITERS:
            marks = () if network in SMALL and writer not in SLOW else (pytest.mark.nightly,)
            for dtype in ("float64", "float32"):
                yield pytest.param(network, writer, dtype, marks=marks, id=f"{network}-{writer}-{dtype}")


@pytest.mark.parametrize(("network", "writer", "dtype"), list(cases()))
def test_one_map(network, writer, dtype, tmp_path):
    needs = WRITERS[writer].needs
    if needs and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{writer} needs {needs}")
    refused = None
    try:
        result = measured(network, writer, np.dtype(dtype), tmp_path)
    except CannotWrite as reason:
        pytest.skip(str(reason))
    except pylrp.UnsupportedLayer as error:
        refused = error
    if refused is not None:  # the file does not say in which order its weights are
        assert writer.startswith("onnxruntime, all")
        assert refused.operator.startswith("com.microsoft.nchwc.")
        return
    assert result.beside_allowed <= 1, f"off by {result.error:.2g} of the largest relevance"


@pytest.mark.parametrize("network", NETWORKS)
def test_the_reference_is_about_folding(network):
    """BatchNorms are there, of gains of both signs, and most of them fold; without them the network is another one."""
    net = NETWORKS[network]()
    norms = [op for op in net.ops if op.kind == "norm"]
    assert len(norms) >= 3
    assert any(np.any(op.scale < 0) for op in norms)
    assert any(np.any(op.scale > 0) for op in norms)
    assert len(folded(net).ops) < len(net.ops)
