"""Keras layers and models of a user's own: read on symbols; values against Keras, maps against a gradient in torch."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

from keras import layers as L  # noqa: E402
from keras import ops  # noqa: E402

import pylrp  # noqa: E402
from pylrp.errors import UnsupportedLayer  # noqa: E402

from .gradient_rules import relevance  # noqa: E402

TOKENS, WIDTH = 6, 8  # maps within 2e-6: Keras has constants in single precision
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def double():
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    keras.utils.set_random_seed(1)
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


class Block(L.Layer):
    def __init__(self, causal=False, **settings):
        super().__init__(**settings)
        self.attention, self.causal = L.MultiHeadAttention(2, WIDTH // 2), causal
        self.hidden = keras.Sequential([L.Dense(12, activation="relu"), L.Dense(WIDTH)])
        self.norms = [L.LayerNormalization(epsilon=1e-6), L.LayerNormalization(epsilon=1e-6)]
        self.dropout = L.Dropout(0.5)

    def build(self, shape):
        self.attention.build(shape, shape)
        for part in (self.hidden, *self.norms):
            part.build(shape)

    def call(self, x, training=False):
        x = self.norms[0](x + self.dropout(self.attention(x, x, use_causal_mask=self.causal), training=training))
        return self.norms[1](x + self.hidden(x))


class Positions(L.Layer):
    """A table of positions, as much of it as there are tokens."""

    def build(self, shape):
        self.table = self.add_weight(shape=(TOKENS + 3, shape[-1]), initializer="random_normal")

    def call(self, x):
        shape = ops.shape(x)
        rows = ops.slice(ops.convert_to_tensor(self.table), (0, 0), (shape[-2], shape[-1]))
        return ops.broadcast_to(rows, shape)


class TokensAndPositions(L.Layer):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.tokens, self.positions = L.Embedding(20, WIDTH), L.Embedding(TOKENS, WIDTH)

    def build(self, shape):
        self.tokens.build(shape)
        self.positions.build(shape)

    def call(self, ids):
        return self.tokens(ids) + self.positions(ops.arange(0, ops.shape(ids)[-1], 1))


class OwnDense(L.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 5), initializer="random_normal")
        self.b = self.add_weight(shape=(5,), initializer="random_normal")

    def call(self, x):
        return ops.relu(ops.matmul(x, self.w) + self.b)


class OwnAttention(L.Layer):
    def build(self, shape):
        self.packed = L.Dense(3 * WIDTH)
        self.packed.build(shape)

    def call(self, x):
        q, k, v = ops.split(self.packed(x), 3, axis=-1)
        shares = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 2, 1))) / WIDTH**0.5, axis=-1)
        return ops.matmul(shares, v)


class Classifier(keras.Model):
    def __init__(self, parts, first=False):
        super().__init__()
        self.parts, self.head, self.first = parts, L.Dense(3), first

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return self.head(x[:, 0] if self.first else ops.mean(x, axis=1))


class Patches(L.Layer):
    def call(self, x):
        return ops.reshape(ops.image.extract_patches(x, size=2), (-1, TOKENS, 12))


def functional(*parts):
    given = x = keras.Input((TOKENS, WIDTH))
    for part in parts:
        x = part(x)
    return keras.Model(given, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


def summed():
    given = keras.Input((TOKENS, WIDTH))
    x = L.Dense(WIDTH)(given)  # what is added to an input itself prepares it, and takes nothing
    return keras.Model(given, L.Dense(3)(L.GlobalAveragePooling1D()(Block()(x + Positions()(x)))))


MODELS = {
    "a block": lambda: functional(Block(), Block()),
    "a causal block": lambda: functional(Block(causal=True)),
    "positions": summed,
    "an own dense layer": lambda: functional(OwnDense(), OwnDense()),
    "an own attention": lambda: functional(OwnAttention()),
    "a subclass": lambda: Classifier([Block(), Block()]),
    "a subclass, first token": lambda: Classifier([Block()], first=True),
    "patches": lambda: Classifier([Patches(), L.Dense(WIDTH), Block()]),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers_of_the_user_are_read(name, rng):
    model = MODELS[name]()
    x = rng.normal(size=(3, 4, 6, 3) if name == "patches" else (3, TOKENS, WIDTH))
    model(x)
    for weight in model.weights:
        weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
        weight.value.requires_grad_(False)
    y, net, top = ops.convert_to_numpy(model(x)), pylrp.load(model), torch.zeros(3, 3, dtype=torch.float64)
    top[:, 1] = 1
    for composite, taylor in (("attnlrp", True), ("cp_lrp", False)):
        ex = net.explain(x, target=1, composite=composite)
        np.testing.assert_allclose(ex.output, y, rtol=0, atol=2e-6 * np.abs(ex.output).max())
        _, R = relevance(lambda v: model(v, training=False), torch.tensor(x), top, taylor)
        np.testing.assert_allclose(ex.relevance, R, rtol=0, atol=2e-6 * np.abs(R).max())


def ids_in(*parts):
    given = x = keras.Input((TOKENS,), dtype="int32")
    for part in parts:
        x = part(x)
    return keras.Model(given, x)


@pytest.mark.parametrize("subclass", [False, True])
def test_tokens_and_positions(subclass, rng):
    """An embedding within a layer of the user's: relevance of the ids is that of the rows."""
    first, block, ids = TokensAndPositions(), Block(), rng.integers(0, 20, (3, TOKENS))
    parts = (first, block, L.GlobalAveragePooling1D(), L.Dense(3))
    model = Classifier([first, block]) if subclass else ids_in(*parts)
    y = ops.convert_to_numpy(model(ids))
    ex = pylrp.load(model).explain(ids, target=1, composite="attnlrp")
    np.testing.assert_allclose(ex.output, y, rtol=0, atol=2e-6 * np.abs(ex.output).max())
    rows, moved = (ops.convert_to_numpy(table) for table in (first.tokens.embeddings, first.positions.embeddings))
    head = model.head if subclass else parts[3]
    top = torch.zeros(3, 3, dtype=torch.float64)
    top[:, 1] = 1
    _, R = relevance(lambda v: head(block(v + torch.tensor(moved)).mean(1)), torch.tensor(rows[ids]), top)
    np.testing.assert_allclose(ex.relevance, R.sum(-1), rtol=0, atol=2e-6 * np.abs(R).max())


def test_open_lengths_are_given():
    given = keras.Input((None,), dtype="int32")
    model = keras.Model(given, L.Dense(20)(Block(causal=True)(TokensAndPositions()(given))))
    net, ids = pylrp.load(model, input_shape=(TOKENS,)), np.arange(TOKENS)[None]
    ex = net.explain(ids, target=(2, 5), composite="cp_lrp")
    np.testing.assert_allclose(ex.output, ops.convert_to_numpy(model(ids)), rtol=0, atol=2e-6 * np.abs(ex.output).max())
    assert np.all(ex.relevance[:, 3:] == 0)
    assert np.abs(ex.relevance[:, :3]).max() > 0


def test_layers_stay_as_they_are():
    model = MODELS["a subclass"]()
    model(np.zeros((1, TOKENS, WIDTH)))
    counts = [len(each._inbound_nodes) for each in model._flatten_layers()]
    pylrp.load(model)
    assert [len(each._inbound_nodes) for each in model._flatten_layers()] == counts


def test_what_is_not_read(rng):
    class OwnMask(Block):
        def compute_mask(self, x, mask=None):
            return ops.ones((1, TOKENS), bool)

    class OfArrays(L.Layer):
        def call(self, x):
            return ops.convert_to_tensor(np.square(ops.convert_to_numpy(x)))

    class TakesMask(L.Layer):
        def call(self, x, mask=None):
            return x

    with pytest.raises(UnsupportedLayer, match=r"\(OfArrays\) can't be run on symbols"):
        pylrp.load(functional(OfArrays()))
    with pytest.raises(UnsupportedLayer, match="makes a mask of its own"):
        pylrp.load(functional(OwnMask()))
    with pytest.raises(UnsupportedLayer, match="takes the mask of the layers below"):
        pylrp.load(ids_in(L.Embedding(20, WIDTH, mask_zero=True), TakesMask(), L.Flatten(), L.Dense(2)))
    assert pylrp.load(ids_in(L.Embedding(20, WIDTH), TakesMask(), L.Flatten(), L.Dense(2)))


class Noise(L.Layer):
    """Random at prediction, too."""

    def call(self, x):
        return x + keras.random.normal(ops.shape(x)[1:])


class Counting(L.Layer):
    """Another function at every call."""

    calls = 0

    def call(self, x):
        self.calls += 1
        return x * self.calls


@pytest.mark.parametrize("kind", [Noise, Counting])
def test_code_that_computes_something_else_each_time(kind):
    with pytest.raises(ValueError, match="with noise in training only"):
        pylrp.load(keras.Sequential([keras.Input((6,)), L.Dense(4), kind(), L.Dense(3)]))
    way_out = L.GaussianNoise(0.1)
    assert pylrp.load(keras.Sequential([keras.Input((6,)), L.Dense(4), way_out, Half(), L.Dense(3)]))


class Half(L.Layer):
    def call(self, x):
        return ops.tanh(x) / 2


class Dense(L.Dense):
    """With a name that Keras has too."""

    def call(self, x):
        return super().call(x) ** 2


def test_a_layer_with_a_name_of_keras():
    model = keras.Sequential([keras.Input((6,)), Dense(4), L.Dense(3)])
    x = np.random.default_rng(0).normal(size=(2, 6))
    np.testing.assert_allclose(pylrp.load(model).forward(x), keras.ops.convert_to_numpy(model(x)), rtol=1e-5)
