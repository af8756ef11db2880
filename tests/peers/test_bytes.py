"""magika, which tells a file's type from its bytes: one-hot rows times a matrix, norms and softmax written out."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import pylrp

pytestmark = pytest.mark.skipif(find_spec("magika") is None, reason="needs magika (without its own needs)")
START, PADDING = 1024, 256
TEXT = b'#!/usr/bin/env python3\nimport sys\n\n\ndef main():\n    print("hello", sys.argv)\n\n\nmain()\n'


def model():
    folder = Path(find_spec("magika").submodule_search_locations[0])
    (path,) = folder.glob("models/standard*/model.onnx")
    return path


def as_bytes(content):
    """Return the first and the last bytes as the model takes them."""
    x = np.full((1, 2 * START), PADDING, np.int32)
    x[0, : len(content)] = np.frombuffer(content, np.uint8)
    x[0, 2 * START - len(content) :] = np.frombuffer(content, np.uint8)
    return x


def test_which_bytes_gave_the_type_away():
    ort = pytest.importorskip("onnxruntime")
    x = as_bytes(TEXT)
    session = ort.InferenceSession(str(model()), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {session.get_inputs()[0].name: x})[0]
    np.testing.assert_allclose(pylrp.load(model(), keep_top=True).forward(x), wanted, atol=1e-5)
    net = pylrp.load(model())
    assert net.top == "softmax"
    target = int(wanted[0].argmax())
    assert net.forward(x)[0].argmax() == target
    for composite in ("cp_lrp", "attnlrp"):
        ex = net.explain(x, target, composite=composite)
        assert ex.relevance.shape == x.shape
        size = np.abs(ex.relevance).sum()
        assert max(np.abs(row.rounding).max() for row in ex.ledger) <= 1e-5 * size
    # Bytes with much relevance count: without the 16 highest the logit falls by more than without 16 others.
    ex = net.explain(x, target, composite="attnlrp")
    order = np.argsort(ex.relevance[0])
    drops = []
    for places in (order[-16:], np.random.default_rng(0).choice(order[: len(order) // 2], 16, replace=False)):
        other = x.copy()
        other[0, places] = ord("q")
        drops.append(net.forward(x)[0, target] - net.forward(other)[0, target])
    assert drops[0] > drops[1]


@pytest.mark.slow
def test_the_map_is_verified():
    """Against onnxruntime, whose variance in single precision, a difference of large numbers, is far off here."""
    pytest.importorskip("onnxruntime")
    net = pylrp.load(model())
    for composite in ("cp_lrp", "attnlrp"):
        found = net.verify(as_bytes(TEXT), composite=composite)
        assert found, str(found)
        assert found.relevance_error < 1e-5
        assert found.prediction_error > found.tolerance
        assert found.notes
        assert found.layers[0].incoming_error is not None
