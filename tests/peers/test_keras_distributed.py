"""Keras's TimeDistributed: what it predicts, and relevance against the gradient times the input where that is LRP-0."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pylrp

torch = pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
L = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def float64() -> Any:
    """Set Keras's precision, and put it back."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def network(shape: tuple[int, ...], *layers: Any) -> Any:
    """Return a small network for steps of this shape."""
    return keras.Sequential([keras.Input(shape), *layers])


def branching() -> Any:
    """Return a functional model with a residual sum and a concatenation of channels."""
    x = keras.Input((6, 5, 2))
    y = L.Conv2D(3, 3, padding="same", activation="relu")(x)
    y = L.Concatenate()([L.Add()([y, L.Conv2D(3, 1)(x)]), x])
    return keras.Model(x, L.GlobalAveragePooling2D()(L.BatchNormalization()(y)))


IMAGE, SIGNAL = (6, 5, 2), (9, 2)
#: By name: a step's shape, the layer, and whether it is one layer here for all steps.
CASES: dict[str, tuple[tuple[int, ...], Callable[[], Any], bool]] = {
    "Conv2D": (IMAGE, lambda: L.Conv2D(3, (3, 2), strides=(2, 1), padding="same", activation="relu"), True),
    "Conv2D, dilated": (IMAGE, lambda: L.Conv2D(4, 2, dilation_rate=2, groups=2), True),
    "Conv1D": (SIGNAL, lambda: L.Conv1D(3, 4, strides=2), True),
    "Conv1D, causal": (SIGNAL, lambda: L.Conv1D(3, 3, padding="causal", dilation_rate=2), True),
    "DepthwiseConv2D": (IMAGE, lambda: L.DepthwiseConv2D(2, depth_multiplier=2), True),
    "SeparableConv1D": (SIGNAL, lambda: L.SeparableConv1D(3, 3, activation="relu"), True),
    "Conv2DTranspose": (IMAGE, lambda: L.Conv2DTranspose(3, 3, strides=2, padding="valid"), True),
    "Conv1DTranspose": (SIGNAL, lambda: L.Conv1DTranspose(3, 2, strides=2, padding="same"), True),
    "MaxPooling2D": (IMAGE, lambda: L.MaxPooling2D((2, 3), padding="same"), True),
    "MaxPooling1D": (SIGNAL, lambda: L.MaxPooling1D(2), True),
    "AveragePooling2D": (IMAGE, lambda: L.AveragePooling2D(2), True),
    "GlobalAveragePooling2D": (IMAGE, lambda: L.GlobalAveragePooling2D(), True),
    "GlobalMaxPooling1D": (SIGNAL, lambda: L.GlobalMaxPooling1D(keepdims=True), True),
    "BatchNormalization": (IMAGE, lambda: L.BatchNormalization(), True),
    "BatchNormalization, axis 3": (IMAGE, lambda: L.BatchNormalization(axis=3), False),
    "ZeroPadding2D": (IMAGE, lambda: L.ZeroPadding2D(((1, 0), (2, 1))), True),
    "Cropping1D": (SIGNAL, lambda: L.Cropping1D((2, 1)), True),
    "UpSampling2D": (IMAGE, lambda: L.UpSampling2D((2, 3)), True),
    "Flatten": (IMAGE, lambda: L.Flatten(), True),
    "Reshape": (IMAGE, lambda: L.Reshape((3, -1)), True),
    "Permute": (IMAGE, lambda: L.Permute((3, 1, 2)), True),
    "Dense of images": (IMAGE, lambda: L.Dense(3, activation="relu"), True),
    "Dense of four axes": ((2, 2, 3, 2), lambda: L.Dense(3), False),
    "Conv3D": ((4, 3, 3, 2), lambda: L.Conv3D(2, 2), False),
    "channels first": (IMAGE, lambda: L.Conv2D(2, 2, data_format="channels_first"), False),
    "Dropout": (IMAGE, lambda: L.SpatialDropout2D(0.5), True),
    "TimeDistributed": (SIGNAL, lambda: L.TimeDistributed(L.Dense(3)), False),
    "a model": (
        IMAGE,
        lambda: network(
            IMAGE, L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(2), L.Dropout(0.2), L.Flatten(), L.Dense(3)
        ),
        True,
    ),
    "a model with branches": (IMAGE, branching, True),
    "a model within a model": (IMAGE, lambda: network(IMAGE, network(IMAGE, L.Conv2D(2, 2)), L.ReLU()), True),
}


def randomised(model: Any) -> Any:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=w.shape, scale=0.6) for w in model.get_weights()]
    model.set_weights([np.abs(w) + 0.3 if "variance" in v.path else w for v, w in zip(model.weights, weights)])  # noqa: B905
    return model


@pytest.mark.parametrize("name", CASES)
def test_prediction_and_relevance(name: str) -> None:
    shape, made, at_once = CASES[name]
    x = np.random.default_rng(1).normal(size=(2, 4, *shape))
    layer = made()
    model = randomised(keras.Sequential([keras.Input((4, *shape)), L.TimeDistributed(layer), L.Flatten()]))
    net = pylrp.load(model)
    assert any(".0.step" in node.name for node in net.graph.nodes) != at_once
    given = torch.tensor(x, requires_grad=True)
    output = model(given)
    room = 1e-5  # Keras's products of matrices, means and norms are float32 all the same
    predicted = net.forward(x)
    np.testing.assert_allclose(predicted, output.detach(), atol=room * np.abs(predicted).max())
    weights = np.random.default_rng(2).normal(size=predicted.shape)
    (output * torch.tensor(weights)).sum().backward()
    assert given.grad is not None
    expected = (given.grad * given).detach().numpy()
    if name.startswith("BatchNormalization"):  # which has a rule of its own, at each step as anywhere
        one = pylrp.load(keras.Sequential([keras.Input(shape), layer, L.Flatten()]))
        tops = (weights * predicted).reshape(2, 4, -1)
        each = [one.explain(x[:, t], target=tops[:, t], composite=pylrp.Zero()).relevance for t in range(4)]
        expected = np.stack(each, axis=1)
    # Rules of pools and norms have a stabilizer of their own.
    relevance = net.explain(x, target=weights * predicted, composite=pylrp.Zero()).relevance
    np.testing.assert_allclose(relevance, expected, atol=1e-3 * np.abs(expected).max())


def test_recurrent_layers_at_every_step() -> None:
    """A sequence of sequences, such as words of sentences: once for each sentence, with the same weights."""
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 2))
    model = randomised(
        keras.Sequential([keras.Input((3, 5, 2)), L.TimeDistributed(L.LSTM(4)), L.Bidirectional(L.GRU(3)), L.Dense(2)])
    )
    net = pylrp.load(model)
    np.testing.assert_allclose(net.forward(x), model.predict(x, verbose=0), atol=1e-5)
    whole = net.explain(x, target=0, composite="epsilon")
    left = x.copy()
    left[:, 1] = 0  # a sentence of zeros gets nothing
    other = net.explain(left, target=0, composite="epsilon")
    assert np.abs(whole.relevance[:, 1]).max() > 0
    assert not other.relevance[:, 1].any()
    residual = np.abs(np.stack([row.rounding for row in whole.ledger])).max()
    assert residual < 1e-12


def test_frames_of_a_film() -> None:
    """A convolution of each frame before an LSTM, as in video models; its maps at each frame."""
    x = np.random.default_rng(1).normal(size=(2, 4, 8, 8, 3))
    frame = network((8, 8, 3), L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(), L.GlobalAveragePooling2D())
    model = randomised(keras.Sequential([keras.Input((4, 8, 8, 3)), L.TimeDistributed(frame), L.LSTM(5), L.Dense(2)]))
    net = pylrp.load(model)
    np.testing.assert_allclose(net.forward(x), model.predict(x, verbose=0), atol=1e-5)
    assert len(net.graph.nodes) < 16
    assert net.explain(x, target=1, composite="epsilon").relevance.shape == x.shape


def test_refused() -> None:
    """The layer within is named; a mask of steps belongs to no sequence within a step."""
    x = keras.Input((3, 4, 2))
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(keras.Model(x, L.TimeDistributed(L.GRU(2, activation="selu"))(x)))
    assert caught.value.operator == "GRU"
    y = keras.Input((3, 8))
    masked = L.TimeDistributed(network((8,), L.Reshape((4, 2)), L.LSTM(3)))(L.Masking()(y))
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(keras.Model(y, L.LSTM(2)(masked)))
    assert caught.value.operator == "TimeDistributed"


def test_masks_of_steps_go_on() -> None:
    """What stands at each step of a masked sequence leaves the mask to the recurrent layer behind it."""
    x = keras.Input((4, 3))
    y = L.TimeDistributed(network((3,), L.Dense(4, activation="relu"), L.Dense(3)))(L.Masking()(x))
    model = randomised(keras.Model(x, L.LSTM(2)(y)))
    given = np.random.default_rng(0).normal(size=(2, 4, 3))
    given[0, 2:] = 0
    net = pylrp.load(model)
    np.testing.assert_allclose(net.forward(given), model.predict(given, verbose=0), atol=1e-5)
    assert not net.explain(given, target=0, composite="epsilon").relevance[0, 2:].any()
