"""Keras's layers of attention: values against Keras, maps against the same network's gradient form in torch."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

import pylrp  # noqa: E402

from .gradient_rules import relevance  # noqa: E402

TOKENS, WIDTH = 5, 8
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


#: A layer, and how it is called.
LAYERS = {
    "heads": (lambda: keras.layers.MultiHeadAttention(2, 4), {}),
    "other widths": (lambda: keras.layers.MultiHeadAttention(3, 4, value_dim=5, output_shape=WIDTH), {}),
    "no biases": (lambda: keras.layers.MultiHeadAttention(2, 4, use_bias=False), {}),
    "causal": (lambda: keras.layers.MultiHeadAttention(2, 4), {"use_causal_mask": True}),
    "a mask": (lambda: keras.layers.MultiHeadAttention(2, 4), {"attention_mask": np.tri(TOKENS)[None] > 0}),
    "groups": (lambda: keras.layers.GroupQueryAttention(4, 4, 2), {}),
    "groups, causal": (lambda: keras.layers.GroupQueryAttention(4, 4, 2), {"use_causal_mask": True}),
}


@pytest.fixture
def double():
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # other files leave one of their own
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


def made(name, cross=False):
    layer, call = LAYERS[name]
    attention = layer()
    x = keras.Input((TOKENS, WIDTH))
    h = keras.layers.LayerNormalization()(x)
    other = keras.layers.Dense(WIDTH)(h) if cross else h
    h = keras.layers.Add()([x, attention(h, other, key=keras.layers.Dense(WIDTH)(h) if cross else None, **call)])
    h = keras.layers.Add()([h, keras.layers.Dense(WIDTH)(keras.layers.Dense(12, activation="gelu")(h))])
    model = keras.Model(x, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(h)))
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(0.5 * random.standard_normal(weight.shape))
    return model


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_attention(name, cross):
    model = made(name, cross)
    net = pylrp.load(model)
    x = np.random.default_rng(1).standard_normal((2, TOKENS, WIDTH))
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(net.forward(x), expected, atol=2e-6 * np.abs(expected).max())
    for composite in ("attnlrp", "cp_lrp"):
        top = torch.zeros(2, 3).double()
        top[:, 1] = 1
        ex = net.explain(x, 1, composite=composite)
        _, R = relevance(lambda rows: model(rows, training=False), torch.tensor(x), top, composite == "attnlrp")
        np.testing.assert_allclose(ex.relevance, R, atol=2e-6 * np.abs(R).max())
        assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12 * np.abs(R).sum() + 1e-13


@pytest.mark.parametrize("name", ["causal", "groups, causal"])
def test_float32_layers_explained_in_float64(name):
    """What a mask closes is the largest number, which is another one in each dtype."""
    model = made(name)
    x = np.random.default_rng(1).standard_normal((2, TOKENS, WIDTH))
    expected = keras.ops.convert_to_numpy(model(x.astype(np.float32), training=False))
    for dtype in ("float32", "float64"):
        found = pylrp.load(model, dtype=dtype).forward(x)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.usefixtures("double")
def test_what_is_refused():
    x = keras.Input((TOKENS, WIDTH))
    y, _ = keras.layers.MultiHeadAttention(2, 4)(x, x, return_attention_scores=True)
    with pytest.raises(pylrp.UnsupportedLayer, match="return_attention_scores"):
        pylrp.load(keras.Model(x, y))
