"""Keras's Embedding: predictions, and relevance against the same layers on rows, and on shorter texts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.errors import NotInVocabulary, UnsupportedLayer

pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
L = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = np.array([[3, 1, 2, 0, 0], [5, 6, 7, 8, 9]])
TAILS: dict[str, Callable[[], list[Any]]] = {
    "LSTM": lambda: [L.LSTM(4)],
    "mean": lambda: [L.GlobalAveragePooling1D()],
    "two directions": lambda: [L.Bidirectional(L.GRU(3))],
    "stacked": lambda: [L.SpatialDropout1D(0.2), L.GRU(3, return_sequences=True), L.LSTM(2)],
    "mean of states": lambda: [L.LSTM(4, return_sequences=True), L.GlobalAveragePooling1D()],
}


@pytest.fixture(autouse=True)
def float32() -> None:
    """Set Keras's precision: other files leave another one."""
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def made(shape: tuple[int, ...], *layers: Any) -> Any:
    model = keras.Sequential([keras.Input(shape), *layers, L.Dense(2)])
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape, scale=0.6) for w in model.get_weights()])
    return model


def predicted(model: Any, x: Any) -> Any:
    return model.predict(x, verbose=0)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("tail", [*TAILS, "convolution"])
def test_predictions(tail: str, mask: bool) -> None:
    layers = TAILS[tail]() if tail in TAILS else [L.Conv1D(4, 2), L.GlobalMaxPooling1D()]
    model = made((5,), L.Embedding(20, 6, mask_zero=mask), *layers)
    np.testing.assert_allclose(pylrp.load(model).forward(IDS), predicted(model, IDS), atol=2e-6)


@pytest.mark.parametrize("tail", TAILS)
def test_relevance_is_that_of_the_rows(tail: str) -> None:
    table = L.Embedding(20, 6)
    layers = TAILS[tail]()
    model = made((5,), table, *layers)
    behind = keras.Sequential([keras.Input((5, 6)), *model.layers[1:]])
    rows = keras.ops.convert_to_numpy(table.embeddings)[IDS]
    ex = pylrp.load(model).explain(IDS, target=1, composite="epsilon")
    expected = pylrp.load(behind).explain(rows, target=1, composite="epsilon").relevance.sum(axis=-1)
    np.testing.assert_allclose(ex.relevance, expected, atol=1e-6)


@pytest.mark.parametrize("tail", TAILS)
def test_a_padded_text_has_the_map_of_the_text(tail: str) -> None:
    layers = [L.Embedding(20, 6, mask_zero=True), *TAILS[tail]()]
    padded = made((5,), *layers)
    alone = keras.Sequential([keras.Input((3,)), *padded.layers])
    R = pylrp.load(padded).explain(IDS[:1], target=0, composite="epsilon").relevance
    np.testing.assert_allclose(
        R[:, :3], pylrp.load(alone).explain(IDS[:1, :3], target=0, composite="epsilon").relevance, atol=1e-5
    )
    assert not R[:, 3:].any()


def test_ids_beside_activations_and_within_a_model() -> None:
    ids, other = keras.Input((5,), name="ids", dtype="int32"), keras.Input((3,), name="other")
    inner = keras.Sequential([keras.Input((5,)), L.Embedding(20, 6, mask_zero=True), L.LSTM(3)])
    model = keras.Model([ids, other], L.Dense(2)(L.Concatenate()([inner(ids), L.Dense(2)(other)])))
    x = {"ids": IDS, "other": np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)}
    net = pylrp.load(model)
    np.testing.assert_allclose(net.forward(x), predicted(model, x), atol=2e-6)
    assert {name: R.shape for name, R in net.explain(x, target=0).relevance.items()} == {"ids": (2, 5), "other": (2, 3)}


def test_a_sum_has_a_mask_only_if_all_its_parts_have() -> None:
    ids = keras.Input((5,), dtype="int32")
    model = keras.Model(ids, L.LSTM(2)(L.Add()([L.Embedding(20, 6, mask_zero=True)(ids), L.Embedding(20, 6)(ids)])))
    np.testing.assert_allclose(pylrp.load(model).forward(IDS), predicted(model, IDS), atol=2e-6)


def test_what_is_refused() -> None:
    ids = keras.Input((5,), dtype="int32")
    rows = L.Embedding(20, 6)(ids)
    with pytest.raises(UnsupportedLayer, match="computed"):
        pylrp.load(keras.Model(ids, L.Flatten()(L.Embedding(30, 3)(ids + 1))))
    with pytest.raises(UnsupportedLayer, match="Embedding reads"):
        pylrp.load(keras.Model(ids, L.Concatenate()([L.Flatten()(rows), L.Dense(2)(ids)])))
    with pytest.raises(NotInVocabulary):
        pylrp.load(keras.Model(ids, L.Flatten()(rows))).explain(IDS + 12, target=0)
