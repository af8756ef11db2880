"""The voice detector of faster-whisper, an LSTM behind convolutions of every step: against onnxruntime and by hand.

The file comes with a package that is not in every environment; where it is missing there is nothing to run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import recurrent as oracle

import pylrp

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path() -> Path:
    found = importlib.util.find_spec("faster_whisper")
    if found is None or not found.submodule_search_locations:
        pytest.skip("faster-whisper is missing")
    return Path(next(iter(found.submodule_search_locations))) / "assets" / "silero_vad_v6.onnx"


def sound(steps: int = 9) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    time = np.arange(steps * 512 + 64) / 16000
    wave = 0.2 * np.sin(2 * np.pi * 180 * time) * (np.sin(2 * np.pi * 3 * time) > 0) + 0.01 * rng.normal(size=len(time))
    frames = np.stack([wave[k * 512 : k * 512 + 576] for k in range(steps)])
    return {"input": frames, "h": np.zeros((1, 128)), "c": np.zeros((1, 128))}


def test_prediction(path: Path) -> None:
    given = {name: array.astype(np.float32) for name, array in sound().items()}
    net = pylrp.load(path, outputs=["speech_probs"], keep_top=True)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = {name: array if name == "input" else array[:, None] for name, array in given.items()}
    (expected,) = session.run(["speech_probs"], feeds)
    np.testing.assert_allclose(net.forward(given), expected, atol=1e-5)


def test_relevance(path: Path) -> None:
    """The LSTM's part in float64, step by step; what arrives at its input is what the oracle hands there."""
    import onnx

    net = pylrp.load(path, outputs=["speech_probs"], dtype="float64")
    given = sound(8)  # for which the network is laid out
    node = next(node for node in net.graph.nodes if node.layer.kind == "lstm")
    ex = net.explain(given, target=6, composite=pylrp.Zero(), layers=[node.name, node.inputs[0]])
    weights = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in onnx.load(path).graph.initializer}
    w, u, b = (weights[f"onnx::LSTM_{number}"][0] for number in (209, 210, 211))
    cell = oracle.cell("lstm", "iofg", w, u, *np.split(b, 2))
    below = pylrp.Network.from_graph(net.graph.changed(outputs=[node.inputs[0], node.name]), keep_top=True)
    values = below.forward(given)
    x, made = values[node.inputs[0]], values[node.name]
    walked = oracle.forward(cell, x, np.zeros(128), np.zeros(128), np.ones(len(x), bool))
    np.testing.assert_allclose(made, np.array([step.h for step in walked if step]), atol=1e-12)
    r_x, _, _, lost = oracle.backward(cell, walked, ex.layers[node.name], np.zeros(128), np.zeros(128))
    found = ex.layers[node.inputs[0]]
    np.testing.assert_allclose(found, r_x, atol=1e-9 * np.abs(r_x).max())
    row = next(row for row in ex.ledger if row.name == node.name)
    assert row.bias == pytest.approx(lost["bias"], rel=1e-9)
