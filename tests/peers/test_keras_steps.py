"""Attention over the steps of recurrent layers in Keras, states of Bidirectional, cells on top of each other.

The reference is autograd in float64 over the same weights, with gates, shares and deviations that count as constants.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

import pylrp

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore")
STEPS, FEATURES, UNITS = 6, 3, 5


@pytest.fixture(autouse=True)
def float32() -> None:
    """Set Keras's precision: other files leave another one."""
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def ratio(z: Any) -> Any:
    """Return tanh(z) as a linear function of z."""
    return z * torch.where(z == 0, torch.ones_like(z), torch.tanh(z) / z).detach()


def constant(z: Any) -> Any:
    return torch.sigmoid(z).detach()


def weights(layer: Any) -> list[Any]:
    return [torch.tensor(keras.ops.convert_to_numpy(w), dtype=torch.float64) for w in layer.weights]


def lstm(arrays: list[Any], x: Any, *, part: Any = None, h: Any = 0.0, c: Any = 0.0, back: bool = False) -> Any:
    """Return the states of each step, in the order of the steps, and the last two."""
    w, u, b = arrays
    h, c = h + x.new_zeros(len(x), len(u)), c + x.new_zeros(len(x), len(u))
    made = {}
    for t in range(x.shape[1])[:: -1 if back else 1]:
        i, f, g, o = (x[:, t] @ w + h @ u + b).chunk(4, -1)
        new_c = constant(f) * c + constant(i) * ratio(g)
        new_h = constant(o) * ratio(new_c)
        on = torch.ones(len(x), 1, dtype=torch.bool) if part is None else part[:, t, None]
        h, c = torch.where(on, new_h, h), torch.where(on, new_c, c)
        made[t] = h
    return torch.stack([made[t] for t in range(x.shape[1])], 1), h, c


def shares(scores: Any, part: Any) -> Any:
    left_out = 0 if part is None else torch.where(part, 0.0, -torch.inf)[:, None]
    return torch.softmax(scores + left_out, -1).detach()


def mean(y: Any, part: Any) -> Any:
    if part is None:
        return y.mean(1)
    return (y * part[..., None]).sum(1) / part.sum(1, keepdim=True)


def attention(masked: bool) -> tuple[Any, Any]:
    x = keras.Input((STEPS, FEATURES))
    h = L.LSTM(UNITS, return_sequences=True, name="lstm")(L.Masking()(x) if masked else x)
    a = L.Attention(use_scale=True, name="attend")([h, h])
    model = keras.Model(x, L.Dense(2, name="top")(L.GlobalAveragePooling1D()(a)))

    def by_hand(x: Any, part: Any) -> Any:
        y, _, _ = lstm(weights(model.get_layer("lstm")), x, part=part)
        (scale,) = weights(model.get_layer("attend"))
        return mean(shares(scale * y @ y.mT, part) @ y, part)

    return model, by_hand


def heads(masked: bool) -> tuple[Any, Any]:
    x = keras.Input((STEPS, FEATURES))
    h = L.LSTM(UNITS, return_sequences=True, name="lstm")(L.Masking()(x) if masked else x)
    a = L.MultiHeadAttention(2, 4, name="attend")(h, h)
    model = keras.Model(x, L.Dense(2, name="top")(L.GlobalAveragePooling1D()(a)))

    def by_hand(x: Any, part: Any) -> Any:
        y, _, _ = lstm(weights(model.get_layer("lstm")), x, part=part)
        q, bq, k, bk, v, bv, o, bo = weights(model.get_layer("attend"))
        q, k, v = (torch.einsum("ntf,fhd->nhtd", y, w) + b[:, None] for w, b in ((q, bq), (k, bk), (v, bv)))
        made = shares(q @ k.mT / 2, None if part is None else part[:, None]) @ v
        return mean(torch.einsum("nhtd,hdf->ntf", made, o) + bo, part)

    return model, by_hand


def dotted(masked: bool) -> tuple[Any, Any]:
    x = keras.Input((STEPS, FEATURES))
    y, h, _ = L.LSTM(UNITS, return_sequences=True, return_state=True, name="lstm")(x)
    share = L.Activation("softmax")(L.Dot(axes=(2, 1))([y, h]))
    pooled = L.Dot(axes=(1, -2))([share, y])
    squared = L.Dot(axes=1)([L.Softmax()(L.Dense(UNITS, name="inner")(pooled)), pooled])
    model = keras.Model(x, L.Dense(2, name="top")(L.Concatenate()([pooled, squared])))

    def by_hand(x: Any, part: Any) -> Any:
        y, h, _ = lstm(weights(model.get_layer("lstm")), x)
        share = torch.softmax((y @ h[:, :, None])[..., 0], -1).detach()
        pooled = (share[:, None] @ y)[:, 0]
        w, b = weights(model.get_layer("inner"))
        return torch.cat([pooled, (torch.softmax(pooled @ w + b, -1).detach() * pooled).sum(1, keepdim=True)], 1)

    return model, by_hand


def states(masked: bool) -> tuple[Any, Any]:
    x = keras.Input((STEPS, FEATURES))
    steps = L.Masking()(x) if masked else x
    one = L.Bidirectional(L.LSTM(UNITS, return_sequences=True, return_state=True), merge_mode="sum", name="one")
    y, *ends = one(steps)
    two = L.Bidirectional(L.LSTM(UNITS), name="two")(y, initial_state=ends)
    model = keras.Model(x, L.Dense(2, name="top")(two))

    def by_hand(x: Any, part: Any) -> Any:
        one, two = (weights(model.get_layer(name)) for name in ("one", "two"))
        sides = [lstm(one[3 * k : 3 * k + 3], x, part=part, back=k == 1) for k in (0, 1)]
        y = sides[0][0] + sides[1][0]
        y = y if part is None else y * part[..., None]
        # Keras hands a layer that is called with states no mask of the layers below.
        made = [lstm(two[3 * k : 3 * k + 3], y, h=sides[k][1], c=sides[k][2], back=k == 1)[1] for k in (0, 1)]
        return torch.cat(made, -1)

    return model, by_hand


def stacked(masked: bool) -> tuple[Any, Any]:
    x = keras.Input((STEPS, FEATURES))
    cells = [L.LSTMCell(4), L.LSTMCell(UNITS)]
    made = L.RNN(cells, go_backwards=True, name="stack")(L.Masking()(x) if masked else x)
    model = keras.Model(x, L.Dense(2, name="top")(made))

    def by_hand(x: Any, part: Any) -> Any:
        arrays = weights(model.get_layer("stack"))
        y, _, _ = lstm(arrays[:3], x, part=part, back=True)
        return lstm(arrays[3:], y, part=part, back=True)[1]

    return model, by_hand


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("make", [attention, heads, dotted, states, stacked])
def test_beside_autograd(make: Any, masked: bool) -> None:
    keras.utils.set_random_seed(0)
    model, by_hand = make(masked)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(np.asarray(keras.ops.convert_to_numpy(weight)) + rng.normal(size=weight.shape) / 4)
    x = rng.normal(size=(3, STEPS, FEATURES))
    if masked:
        x[1, 4:], x[2, 2], x[0, :1] = 0, 0, 0
    net = pylrp.load(model, dtype="float64")
    found = net.explain(x, target=1, composite="cp_lrp")
    np.testing.assert_allclose(found.output, keras.ops.convert_to_numpy(model(x.astype(np.float32))), atol=2e-6)
    given = torch.tensor(x, requires_grad=True)
    w, b = weights(model.get_layer("top"))
    part = (given.detach() != 0).any(-1) if masked and make is not dotted else None
    (by_hand(given, part) @ w + b)[:, 1].sum().backward()
    wanted = (given * given.grad).detach().numpy()
    np.testing.assert_allclose(found.relevance, wanted, atol=1e-9 * np.abs(wanted).max())


def test_ids_that_are_padding_get_nothing() -> None:
    keras.utils.set_random_seed(0)
    ids = keras.Input((STEPS,), dtype="int32")
    rows = L.Embedding(9, 4, mask_zero=True)(ids)
    h = L.GRU(4, return_sequences=True)(rows)
    made = L.Attention()([h, L.MultiHeadAttention(2, 4)(h, h)], use_causal_mask=True)
    net = pylrp.load(keras.Model(ids, L.Dense(2)(L.GlobalAveragePooling1D()(made))))
    found = net.explain(np.array([[3, 1, 4, 1, 5, 2], [2, 7, 1, 0, 0, 0]]), target=1, composite="cp_lrp")
    assert not found.relevance[1, 3:].any()
    assert found.relevance[1, :3].all()


def test_what_is_refused() -> None:
    x = keras.Input((STEPS, FEATURES))
    for layer, arguments, reason in (
        (L.Attention(score_mode="concat"), [x, x], "score_mode 'concat'"),
        (L.Dot(axes=2, normalize=True), [x, x], "lengths"),
    ):
        with pytest.raises(pylrp.UnsupportedLayer, match=reason):
            pylrp.load(keras.Model(x, L.Dense(2)(L.Flatten()(layer(arguments)))))
