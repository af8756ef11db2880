"""A network in another dtype than its weights: what a mask closes stays closed, whatever the largest number is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.layers import MatMul, Reshape, Shift, Softmax, Transpose
from pylrp.layers.shift import closed
from pylrp.network import Graph, Node

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4))
SEEN = np.tri(3, dtype=bool)
POSITIONS = RNG.normal(size=(3, 4))


def network(dtype: Any) -> pylrp.Network:
    """Return attention of three tokens to those before them, of one head."""
    mask = closed(np.where(SEEN, 0, -np.inf).astype(dtype))
    nodes = [
        Node("x", Shift(POSITIONS.astype(dtype), position=True), ("in",)),
        Node("turned", Transpose((1, 0)), ("x",)),
        Node("scores", MatMul(), ("x", "turned")),
        Node("masked", Shift(mask), ("scores",)),
        Node("seen", Softmax(-1), ("masked",)),
        Node("heard", MatMul(), ("seen", "x")),
        Node("y", Reshape((12,)), ("heard",)),
    ]
    return pylrp.Network.from_graph(Graph({"in": (3, 4)}, nodes, ["y"]))


def expected() -> np.ndarray:
    x = X + POSITIONS
    weights = np.exp(x @ x.swapaxes(1, 2)) * SEEN
    return (weights / weights.sum(-1, keepdims=True) @ x).reshape(2, 12)


@pytest.mark.parametrize("composite", ["cp_lrp", "attnlrp"])
@pytest.mark.parametrize("layers", [None, "all"])  # attention as one layer, and its parts
@pytest.mark.parametrize(("stored", "dtype"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_masks_in_another_dtype(stored: Any, dtype: Any, layers: Any, composite: str, tmp_path: Path) -> None:
    network(stored).save(tmp_path / "a.npz")
    net = pylrp.load(tmp_path / "a.npz", dtype=dtype)
    assert net.graph.dtype == dtype
    ex = net.explain(X.astype(dtype), target=7, composite=composite, layers=layers)
    np.testing.assert_allclose(ex.output, expected(), rtol=1e-5, atol=1e-5)
    own = network(dtype).explain(X.astype(dtype), target=7, composite=composite, layers=layers)
    np.testing.assert_allclose(ex.relevance, own.relevance, rtol=1e-4, atol=1e-5)
    assert not ex.relevance[:, 2].any()  # entry 7 is the second token's: it has not seen the third
