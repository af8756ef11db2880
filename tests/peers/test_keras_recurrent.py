"""Keras's recurrent layers: what they predict, and relevance against the same network written with torch's names."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pylrp

pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
L = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def float32() -> None:
    """Set Keras's precision: other files leave another one."""
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def randomised(model: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape, scale=0.6) for w in model.get_weights()])
    return model


def check(model: Any, x: Any) -> Any:
    randomised(model)
    net = pylrp.load(model)
    expected = model.predict(x, verbose=0)
    found = net.forward(x)
    found = list(found.values()) if isinstance(found, dict) else [found]
    for one, other in zip(found, expected if isinstance(expected, list) else [expected], strict=True):
        np.testing.assert_allclose(one.reshape(other.shape), other, atol=2e-5)
    return net


X = np.random.default_rng(7).normal(size=(3, 6, 4)).astype(np.float32)
MASKED = X.copy()
MASKED[0, 4:] = 0
MASKED[1, :2] = 0
MASKED[1, 3] = 0

LAYERS: dict[str, Callable[[], list[Any]]] = {
    "LSTM": lambda: [L.LSTM(3)],
    "LSTM of all steps, backwards": lambda: [L.LSTM(3, return_sequences=True, go_backwards=True)],
    "LSTM backwards": lambda: [L.LSTM(3, go_backwards=True, use_bias=False)],
    "LSTM with functions": lambda: [L.LSTM(3, activation="relu", recurrent_activation="hard_sigmoid")],
    "GRU": lambda: [L.GRU(3)],
    "GRU, reset before": lambda: [L.GRU(3, reset_after=False, return_sequences=True)],
    "SimpleRNN": lambda: [L.SimpleRNN(3, activation="softsign")],
    "two": lambda: [L.LSTM(5, return_sequences=True), L.Dropout(0.5), L.GRU(3)],
    "cells": lambda: [L.RNN(L.LSTMCell(5), return_sequences=True), L.Bidirectional(L.RNN(L.GRUCell(3)))],
    "a simple cell": lambda: [L.RNN(L.SimpleRNNCell(3, activation="relu"), go_backwards=True)],
    "behind a convolution": lambda: [L.Conv1D(5, 3, activation="relu"), L.LSTM(3)],
    "every step": lambda: [L.LSTM(3, return_sequences=True), L.TimeDistributed(L.Dense(2))],
    **{
        f"Bidirectional, {mode}": lambda mode=mode: [L.Bidirectional(L.LSTM(3), merge_mode=mode)]  # type: ignore[misc]
        for mode in ("concat", "sum", "ave", "mul")
    },
    "Bidirectional of all steps": lambda: [L.Bidirectional(L.GRU(3, return_sequences=True)), L.LSTM(2)],
}


@pytest.mark.parametrize("name", LAYERS)
def test_predictions(name: str) -> None:
    net = check(keras.Sequential([keras.Input((6, 4)), *LAYERS[name]()]), X)
    if "mul" not in name:
        shape = net.graph.shapes[net.graph.outputs[0]]
        assert net.explain(X, target=(0,) * len(shape) if len(shape) > 1 else 0).relevance.shape == X.shape


MASKS: dict[str, Callable[[], list[Any]]] = {
    "LSTM": lambda: [L.Masking(), L.LSTM(3)],
    "all steps": lambda: [L.Masking(), L.GRU(3, return_sequences=True)],
    "two": lambda: [L.Masking(), L.LSTM(3, return_sequences=True), L.Dropout(0.3), L.SimpleRNN(2)],
    "Bidirectional": lambda: [L.Masking(), L.Bidirectional(L.LSTM(3, return_sequences=True))],
    "Bidirectional, last": lambda: [L.Masking(), L.Bidirectional(L.GRU(3), merge_mode="sum")],
    "another number": lambda: [L.Masking(9.0), L.LSTM(3)],
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str) -> None:
    x = np.where(MASKED == 0, 9, MASKED).astype(np.float32) if name == "another number" else MASKED
    net = check(keras.Sequential([keras.Input((6, 4)), *MASKS[name]()]), x)
    shape = net.graph.shapes[net.graph.outputs[0]]
    ex = net.explain(x, target=(5, 0) if len(shape) > 1 else 0)
    left_out = (MASKED == 0).all(axis=2)
    assert not ex.relevance[left_out].any()
    assert ex.relevance[~left_out].any()


def test_states() -> None:
    """An encoder's last states are a decoder's first."""
    x = keras.Input((6, 4))
    y, h, c = L.LSTM(3, return_sequences=True, return_state=True)(x)
    model = keras.Model(x, [L.LSTM(3)(y, initial_state=[h, c]), y])
    net = check(model, X)
    assert net.explain(X, output=net.graph.outputs[0], target=1).relevance.shape == X.shape


def test_relevance_is_that_of_the_bare_arrays() -> None:
    layer = L.LSTM(3)
    model = randomised(keras.Sequential([keras.Input((6, 4)), layer]))
    kernel, recurrent, bias = (np.asarray(w) for w in layer.get_weights())
    bare = pylrp.Network(
        [pylrp.layers.LSTM(np.ascontiguousarray(kernel.T), np.ascontiguousarray(recurrent.T), bias)], input_shape=(6, 4)
    )
    one, other = (net.explain(X, target=1, composite="epsilon").relevance for net in (pylrp.load(model), bare))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_refused() -> None:
    several = L.RNN([L.LSTMCell(3), L.GRUCell(2, recurrent_activation="selu")])
    for layer in (L.LSTM(3, activation="selu"), L.ConvLSTM1D(2, 3), several):
        shape = (6, 5, 4) if isinstance(layer, L.ConvLSTM1D) else (6, 4)
        with pytest.raises(pylrp.UnsupportedLayer) as caught:
            pylrp.load(keras.Sequential([keras.Input(shape), layer, L.Flatten(), L.Dense(2)]))
        assert caught.value.operator == type(layer).__name__


OPEN: dict[str, Callable[[], list[Any]]] = {
    "last state": lambda: [L.Bidirectional(L.LSTM(3)), L.Dense(2)],
    "masked": lambda: [L.Masking(), L.GRU(3, return_sequences=True), L.LSTM(2)],
    "step by step": lambda: [L.Conv1D(5, 3), L.LSTM(3, return_sequences=True), L.GlobalMaxPooling1D()],
}


@pytest.mark.parametrize("name", OPEN)
def test_any_number_of_steps(name: str) -> None:
    """An open number of steps stays open; each length has the map of a model that is loaded for it."""
    model = randomised(keras.Sequential([keras.Input((None, 4)), *OPEN[name]()]))
    net = pylrp.load(model)
    for steps in (3, 8, 21):
        x = np.random.default_rng(steps).normal(size=(2, steps, 4)).astype(np.float32)
        x[0, -1] = 0
        found = net.explain(x, target=1)
        np.testing.assert_allclose(found.output, model.predict(x, verbose=0), atol=2e-5)
        fixed = pylrp.load(model, input_shape=(steps, 4)).explain(x, target=1)
        np.testing.assert_array_equal(found.relevance, fixed.relevance)
    assert any("any number of steps" in note for note in net.notes)


def test_any_number_of_ids() -> None:
    model = randomised(keras.Sequential([keras.Input((None,)), L.Embedding(9, 4, mask_zero=True), L.LSTM(3)]))
    net = pylrp.load(model)
    for steps in (2, 11):
        ids = np.random.default_rng(steps).integers(1, 9, (3, steps))
        ids[1, 1:] = 0
        found = net.explain(ids, target=1)
        np.testing.assert_allclose(found.output, model.predict(ids, verbose=0), atol=2e-5)
        assert found.relevance.shape == ids.shape
        assert not found.relevance[1, 1:].any()


def test_what_has_no_length_of_its_own(tmp_path: Any) -> None:
    images = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(2, 3), L.GlobalMaxPooling2D()])
    with pytest.raises(ValueError, match="give the sizes"):
        pylrp.load(images)
    net = pylrp.load(keras.Sequential([keras.Input((None, 4)), L.LSTM(3)]))
    with pytest.raises(TypeError, match="input_shape"):
        net.save(tmp_path / "net.pylrp.npz")
