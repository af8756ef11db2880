"""What is kept for lengths is bounded in bytes; files with free lengths are written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_text

import pylrp
from pylrp.layers import Softmax

pytest.importorskip("onnx")


def resident() -> float:
    """Return the memory of this process in MB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def ones(length: int, samples: int = 1) -> dict[str, Any]:
    return {name: np.ones((samples, length), int) for name in ("ids", "mask")}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_500_lengths_leave_memory_flat():
    net = pylrp.load(small_text.model())
    lengths = np.random.default_rng(0).permutation(500) + 1
    for length in lengths[:100]:
        net.explain(ones(length), 1)
    before = resident()
    for length in lengths[100:]:
        net.explain(ones(length), 1)
    assert resident() - before < 40  # MB; 400 lengths more would be some 1500


def test_the_bound_is_one_of_bytes(monkeypatch):
    net = pylrp.load(small_text.model())
    kept = net._by_length
    assert kept is not None
    for length in (3, 4, 5):
        net.forward(ones(length))
    small = kept.nbytes
    assert len(kept) == 3
    net.forward(ones(5, samples=200))  # values of a large batch count
    assert kept.nbytes > small + 200 * 5 * 5 * small_text.HEADS * 4
    monkeypatch.setattr("pylrp.network.lengths.MOST_BYTES", kept.nbytes // 2)
    expected = net.forward(ones(6))
    assert len(kept) < 3
    np.testing.assert_array_equal(net.forward(ones(6)), expected)
    monkeypatch.setattr("pylrp.network.lengths.MOST_BYTES", 1)
    net.forward(ones(7))
    assert len(kept) == 1


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ids_are_saved(rng, tmp_path, fixed, dtype):
    shapes = {"ids": (5,), "mask": (5,)} if fixed else None
    net = pylrp.load(small_text.model(), input_shape=shapes, dtype=dtype)
    net.save(tmp_path / "net.pylrp.npz")
    again = pylrp.load(tmp_path / "net.pylrp.npz")
    assert again.dtype == net.dtype
    assert (again.notes, again.top, again.summary()) == (net.notes, net.top, net.summary())
    for length in (5,) if fixed else (5, 9):
        x = small_text.batch(rng, 3, length)
        one, other = (each.explain(x, 1) for each in (net, again))
        np.testing.assert_array_equal(one.relevance, other.relevance)
        np.testing.assert_array_equal(one.ledger.data, other.ledger.data)
    with pytest.raises(pylrp.NotInVocabulary):
        again.forward({"ids": np.full((1, 5), 99), "mask": np.ones((1, 5), int)})


@pytest.mark.parametrize("keep_top", [False, True])
def test_a_softmax_at_the_top_stays_what_it_was(tmp_path, keep_top):
    onnx = pytest.importorskip("onnx")
    model = small_text.model()
    last = model.graph.node[-1]
    last.output[0] = "logits"
    model.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["y"], axis=1))
    net = pylrp.load(model, keep_top=keep_top)
    net.save(tmp_path / "net.pylrp.npz")
    again = pylrp.load(tmp_path / "net.pylrp.npz")
    assert again.top == net.top
    assert any(isinstance(node.layer, Softmax) and node.name == "y" for node in again.graph.nodes) == keep_top
    np.testing.assert_array_equal(again.forward(ones(4)), net.forward(ones(4)))
