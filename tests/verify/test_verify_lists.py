"""Verification of lists of samples: each by itself, and their maps of one call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_text

import pylrp
from pylrp.network import packed

onnx = pytest.importorskip("onnx")


@pytest.fixture
def listed(rng: np.random.Generator) -> list[dict[str, Any]]:
    return [{name: array[0] for name, array in small_text.batch(rng, 1, length).items()} for length in (5, 3, 7)]


@pytest.fixture
def net(tmp_path) -> pylrp.Network:
    onnx.save(small_text.model("mean"), tmp_path / "text.onnx")
    return pylrp.load(tmp_path / "text.onnx", dtype="float64")


def test_each_sample_and_the_list(net, listed, monkeypatch):
    found = net.verify(listed, target=[0, 2, 1])
    assert found
    assert found.relevance_error < 1e-9

    right = packed.relevance_of

    def wrong(*given: Any) -> Any:
        return 1.01 * right(*given)

    monkeypatch.setattr(packed, "relevance_of", wrong)
    found = net.verify(listed, target=[0, 2, 1])
    assert not found
    assert found.deviation == "relevance"
    assert found.relevance_error == pytest.approx(0.01, rel=1e-3)


def test_the_first_sample_that_is_wrong_is_shown(net, listed):
    model = small_text.model("mean")
    table = next(each for each in model.graph.initializer if each.name == "table")
    rows = onnx.numpy_helper.to_array(table).copy()
    rows[7] += 0.1
    table.CopyFrom(onnx.numpy_helper.from_array(rows, "table"))
    for sample in listed:
        sample["ids"][sample["ids"] == 7] = 1
    assert net.verify(listed, model)
    listed[1]["ids"][0] = 7
    found = net.verify(listed, model)
    assert not found
    assert found.deviation in ("prediction", "values")
