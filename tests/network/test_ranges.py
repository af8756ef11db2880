"""Inputs that plainly were not scaled: what is told, and what is let pass."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from allocated import at_most_allocated

import pylrp
from pylrp.layers import Affine, AveragePool, BatchNorm, Conv, Dense, Flatten, Layer, Transpose
from pylrp.network.graph import Facts, Graph
from pylrp.network.ranges import expected_of

RNG = np.random.default_rng(0)
DIGITS = RNG.uniform(0, 1, (3, 3, 6, 6)).astype(np.float32)
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def images(*first: Layer, **facts: Any) -> pylrp.Network:
    W, top = RNG.standard_normal((4, 3, 3, 3)), RNG.standard_normal((2, 64))
    layers = [*first, Conv(W.astype(np.float32)), Flatten(), Dense(top.astype(np.float32))]
    graph = Graph.sequential(layers, (3, 6, 6))
    return pylrp.Network.from_graph(graph.changed(facts=Facts(**facts)))


def rows(*first: Layer) -> pylrp.Network:
    return pylrp.Network([*first, Dense(RNG.standard_normal((2, 5)))], input_shape=(5,))


def across(values: Any) -> np.ndarray[Any, Any]:
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


NORM = BatchNorm(np.ones(3, np.float32), np.zeros(3, np.float32), MEAN, STD**2, 0.0)
BYTES = BatchNorm(np.ones(3, np.float32), np.zeros(3, np.float32), 255 * MEAN, (255 * STD) ** 2, 0.0)
COLUMNS = np.array([170.0, 70.0, 40.0, 0.5, 1e5])
SPREAD = np.array([10.0, 12.0, 15.0, 0.1, 3e4])
SCALER = Affine(1 / SPREAD, -COLUMNS / SPREAD)
ROWS = COLUMNS + SPREAD * RNG.standard_normal((8, 5))

TOLD = {
    "bytes for 0 to 1": (images(ranges={"input": (0.0, 1.0)}), 255 * DIGITS),
    "normalised for 0 to 1": (images(ranges={"input": (0.0, 1.0)}), (DIGITS - across(MEAN)) / across(STD)),
    "0 to 1 for bytes": (images(ranges={"input": (0.0, 255.0)}), DIGITS),
    "0 to 1 for a division by 255": (images(Affine(np.float32(1 / 255), np.float32(0))), DIGITS),
    "0 to 1 for (x - 127) / 128": (images(Affine(np.float32(1 / 128), np.float32(-127 / 128))), DIGITS),
    "bytes for a BatchNorm of 0 to 1": (images(NORM), 255 * DIGITS),
    "0 to 1 for a BatchNorm of bytes": (images(BYTES), DIGITS),
    "bytes for (x - mean) / std": (images(Affine(across(1 / STD), across(-MEAN / STD))), 255 * DIGITS),
    "behind a transpose": (images(Transpose((0, 2, 1)), NORM), 255 * DIGITS),
    "columns times 1000 for a scaler": (rows(SCALER), 1000 * ROWS),
    "one row": (rows(SCALER), 1000 * ROWS[0]),
}
LET_PASS = {
    "0 to 1": (images(ranges={"input": (0.0, 1.0)}), DIGITS),
    "a little over the ends, as resampling gives": (images(ranges={"input": (0.0, 1.0)}), 1.06 * DIGITS - 0.03),
    "dark": (images(ranges={"input": (0.0, 1.0)}), 0.05 * DIGITS),
    "black": (images(ranges={"input": (0.0, 255.0)}), 0 * DIGITS),
    "bytes": (images(ranges={"input": (0.0, 255.0)}), 255 * DIGITS),
    "bytes for a division by 255": (images(Affine(np.float32(1 / 255), np.float32(0))), 255 * DIGITS),
    "0 to 1 for a BatchNorm of it": (images(NORM), DIGITS),
    "dark for a BatchNorm": (images(NORM), 0.1 * DIGITS),
    "grey for a BatchNorm": (images(NORM), 0 * DIGITS + np.float32(0.5)),
    "bytes for a BatchNorm of them": (images(BYTES), 255 * DIGITS),
    "for (x - mean) / std": (images(Affine(across(1 / STD), across(-MEAN / STD))), DIGITS),
    "columns for a scaler": (rows(SCALER), ROWS),
    "one column far off": (rows(SCALER), ROWS * [1, 1, 1, 1, 1000]),
    "columns alike for a scaler": (rows(SCALER), COLUMNS + 0.001 * SPREAD * RNG.standard_normal((8, 5))),
    "a scaling by 1000": (rows(Affine(1000.0, 0.0)), ROWS),
    "nothing known": (images(), 255 * DIGITS),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_is_told(name: str) -> None:
    net, x = TOLD[name]
    with pytest.warns(UserWarning, match="scale it as the network was trained") as caught:
        net.explain(x, composite="epsilon")
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("name", LET_PASS)
def test_what_is_let_pass(name: str) -> None:
    net, x = LET_PASS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.explain(x, composite="epsilon")


class TestInputRange:
    def test_at_load(self, tmp_path: Path) -> None:
        layers = [Dense(np.ones((2, 3)))]
        for given in ((0, 1), {"input": (0, 1)}):
            net = pylrp.load(layers, input_range=given)
            assert dict(net.graph.facts.ranges) == {"input": (0.0, 1.0)}
            with pytest.warns(UserWarning, match="0 to 1 are expected"):
                net.explain(np.array([200.0, 3.0, 0.0]))
        net.save(tmp_path / "net.pylrp.npz")
        assert dict(pylrp.load(tmp_path / "net.pylrp.npz").graph.facts.ranges) == {"input": (0.0, 1.0)}

    @pytest.mark.parametrize(
        ("given", "error"),
        [((1, 0), ValueError), ((0, 0), ValueError), ((0, np.nan), ValueError), ((0, np.inf), ValueError),
         ({"other": (0, 1)}, ValueError), (3, TypeError), (("a", "b"), TypeError), ((0, 1, 2), TypeError)],
    )  # fmt: skip
    def test_others_are_refused(self, given: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="input_range"):
            pylrp.load([Dense(np.ones((2, 3)))], input_range=given)


@pytest.mark.parametrize(("said", "good", "bad"), [("Normalized_0_1", 1, 255), ("NominalRange_0_255", 255, 1)])
def test_the_files_pixel_range(said: str, good: float, bad: float) -> None:
    onnx = pytest.importorskip("onnx")
    helper, TensorProto = onnx.helper, onnx.TensorProto
    W = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "W"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 1, 1])],
        [onnx.numpy_helper.from_array(W, "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.metadata_props.add(key="Image.NominalPixelRange", value=said)
    net = pylrp.load(model)
    with pytest.warns(UserWarning, match="are expected"):
        net.explain(np.float32(bad) * DIGITS, 0, "epsilon")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.explain(np.float32(good) * DIGITS, 0, "epsilon")


def test_scalings_and_moves_in_turn() -> None:
    """The mean is what becomes 0, a deviation more what becomes 1, each value in its place of the input."""
    first = Affine(RNG.uniform(1, 2, (3, 2, 4)), RNG.standard_normal((3, 2, 4)))
    second = Affine(RNG.uniform(1, 2, (4, 1, 1)), RNG.standard_normal((4, 1, 1)))
    layers = [first, Transpose((2, 0, 1)), second, Transpose((2, 1, 0)), Affine(2.0, 1.0)]  # (3, 2, 4) to (2, 3, 4)
    scaled = Graph.sequential([*layers, Flatten(), Dense(np.ones((1, 24)))], (3, 2, 4))
    (expected,) = expected_of(scaled)
    net = pylrp.Network.from_graph(Graph.sequential(layers, (3, 2, 4)))
    np.testing.assert_allclose(net.forward(expected.mean[None]), np.zeros((1, 2, 3, 4)), atol=1e-12)
    np.testing.assert_allclose(net.forward((expected.mean + expected.deviation)[None]), np.ones((1, 2, 3, 4)))


def test_nothing_is_made_where_nothing_scales() -> None:
    graph = Graph.sequential([Transpose((0, 2, 1)), AveragePool(2)], (3, 1000, 1000))
    with at_most_allocated(1 << 20):
        assert expected_of(graph) == []
