"""STFT nodes: values by the definition, relevance by the linear map that they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")
helper = onnx.helper

FRAME, STEP, SIZE = 6, 4, 19


def model(window: Any, one_sided: int, shape: tuple[int, ...], weight: Any, frame: int | None = FRAME) -> Any:
    numbers = {"step": np.array(STEP), "weight": weight}
    names = ["x", "step", "", ""]
    if window is not None:
        numbers["window"], names[2] = window, "window"
    if frame is not None:
        numbers["frame"], names[3] = np.array(frame), "frame"
    nodes = [
        helper.make_node("STFT", names, ["spectrum"], onesided=one_sided),
        helper.make_node("Flatten", ["spectrum"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stft",
        [helper.make_tensor_value_info("x", onnx.TensorProto.DOUBLE, ["n", *shape])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, ["n", 3])],
        [onnx.numpy_helper.from_array(array, name) for name, array in numbers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def by_hand(x: Any, window: Any, bins: int) -> Any:
    """Return (frames, bins, 2) of one signal."""
    frames = 1 + (SIZE - FRAME) // STEP
    made = np.zeros((frames, bins, 2))
    for m in range(frames):
        for k in range(bins):
            total = sum(window[n] * x[m * STEP + n] * np.exp(-2j * np.pi * k * n / FRAME) for n in range(FRAME))
            made[m, k] = total.real, total.imag
    return made


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("one_sided", [0, 1])
@pytest.mark.parametrize("shape", [(SIZE,), (SIZE, 1)])
def test_stft(windowed: bool, one_sided: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    bins = FRAME // 2 + 1 if one_sided else FRAME
    window = rng.normal(size=FRAME) if windowed else None
    weight = rng.normal(size=(4 * bins * 2, 3))
    net = pylrp.load(model(window, one_sided, shape, weight))
    x = rng.normal(size=(2, *shape))

    def output(signal: Any) -> Any:
        return by_hand(signal, np.ones(FRAME) if window is None else window, bins).ravel() @ weight

    for signal, found in zip(x.reshape(2, SIZE), net.forward(x), strict=True):
        np.testing.assert_allclose(found, output(signal), atol=1e-12)
    slopes = np.array([output(row)[1] for row in np.eye(SIZE)])
    relevance = net.explain(x, target=1, composite=pylrp.Zero()).relevance
    np.testing.assert_allclose(relevance.reshape(2, SIZE), x.reshape(2, SIZE) * slopes, atol=1e-11)


def test_refused() -> None:
    weight = np.ones((32, 3))
    with pytest.raises(pylrp.UnsupportedLayer):
        pylrp.load(model(None, 1, (SIZE, 2), weight))  # complex
    for window, frame in ((np.ones(5), 6), (None, 20), (None, None)):
        with pytest.raises(pylrp.BrokenFile):
            pylrp.load(model(window, 1, (SIZE,), weight, frame))
