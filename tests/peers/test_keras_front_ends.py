"""Signal front ends of Keras models in keras.ops and Lambda: magnitudes, logarithms; the map by hand in float64."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

import pylrp

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
L, ops = keras.layers, keras.ops

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
E = 1e-3
X = np.random.default_rng(0).normal(size=(2, 20, 3))  # epochs, time, channels


def power(y, parts):
    return ops.sqrt(ops.square(parts[0]) + ops.square(parts[1]))


FRONTS: dict[str, Callable] = {
    "slices": lambda y: ops.log(power(y, (y[..., :4], y[:, :, 4:])) + E),
    "split": lambda y: ops.log(E + power(y, ops.split(y, 2, axis=-1))),
    "split at a place": lambda y: ops.log(power(y, ops.split(y, [4], axis=2)) + E),
    "sum over an axis": lambda y: ops.log(ops.sqrt(ops.sum(ops.square(L.Reshape((8, 2, 4))(y)), axis=2)) + E),
    "mean over an axis": lambda y: ops.log(ops.sqrt(2 * ops.mean(ops.square(L.Reshape((8, 2, 4))(y)), axis=-2)) + E),
    "lambda": lambda y: L.Lambda(lambda m: ops.log(m + E))(power(y, ops.split(y, 2, axis=-1))),
    "lambda of all": L.Lambda(lambda y: ops.log(power(y, (y[..., :4], y[..., 4:])) + E)),
    "rescaling": lambda y: ops.log(L.Rescaling(1.0, E)(power(y, ops.split(y, 2, axis=-1)))),
}


def model(front: Callable):
    keras.utils.set_random_seed(3)
    given = keras.Input((20, 3))
    y = L.Conv1D(8, 6, strides=2, use_bias=False)(given)
    return keras.Model(given, L.Dense(2)(L.Flatten()(front(y))))


def by_hand(net) -> np.ndarray:
    kernel, top = (np.asarray(w.numpy(), np.float64) for w in (net.weights[0], net.weights[1]))
    windows = np.lib.stride_tricks.sliding_window_view(X, 6, axis=1)[:, ::2]
    z = np.einsum("nwck,kco->nwo", windows, kernel)
    squares = z[..., :4] ** 2 + z[..., 4:] ** 2
    passed = (np.log(np.sqrt(squares) + E) - np.log(E)) * top[:, 1].reshape(8, 4)
    shares = z**2 / np.concatenate([squares, squares], 2) * np.concatenate([passed, passed], 2)
    relevance = np.zeros_like(X)
    for n, w, o in np.ndindex(z.shape):
        relevance[n, 2 * w : 2 * w + 6] += windows[n, w].T * kernel[:, :, o] / z[n, w, o] * shares[n, w, o]
    return relevance


@pytest.mark.parametrize("name", FRONTS)
def test_front_ends(name: str) -> None:
    made = model(FRONTS[name])
    ex = pylrp.load(made).explain(X.astype(np.float32), target=1, composite="cp_lrp")
    np.testing.assert_allclose(ex.output, ops.convert_to_numpy(made(X.astype(np.float32))), atol=1e-4)
    relevance = by_hand(made)
    np.testing.assert_allclose(ex.relevance, relevance, atol=1e-4 * np.abs(relevance).max())


def test_bounds_and_decibels() -> None:
    front = L.Lambda(lambda y: 20 * ops.log10(ops.clip(ops.maximum(ops.abs(y), 1e-2), 1e-2, 1e2)))
    made = model(front)
    ex = pylrp.load(made).explain(X.astype(np.float32), target=1, composite="cp_lrp")
    np.testing.assert_allclose(ex.output, ops.convert_to_numpy(made(X.astype(np.float32))), atol=1e-3)


@pytest.mark.parametrize(
    "front",
    [
        L.Lambda(lambda y: ops.sum(y)[None, None, None] + y),
        lambda y: ops.sum(y, axis=0, keepdims=True) + y,
        lambda y: y[:1] + y,
        lambda y: y[:, ::-1],
    ],
)
def test_what_cannot_be_explained_is_refused(front: Callable) -> None:
    with pytest.raises((pylrp.UnsupportedLayer, ValueError)):
        pylrp.load(model(front))
