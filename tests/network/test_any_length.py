"""Layers from bare arrays for inputs of any length: one network gives what one made for each length gives."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.layers import GRU, LSTM, RNN, Conv, Dense, Flatten, GlobalAveragePool, Layer, ReLU

RNG = np.random.default_rng(0)
TOP = Dense(RNG.normal(size=(2, 4)))
LAYERS: dict[str, Layer] = {
    "lstm": LSTM(RNG.normal(size=(16, 3)), RNG.normal(size=(16, 4)), RNG.normal(size=16)),
    "gru": GRU(RNG.normal(size=(12, 3)), RNG.normal(size=(12, 4))),
    "rnn, two directions": RNN(RNG.normal(size=(2, 2, 3)), RNG.normal(size=(2, 2, 2))),
}


def same(one: Any, other: Any) -> None:
    np.testing.assert_array_equal(one.relevance, other.relevance)
    np.testing.assert_array_equal(one.output, other.output)
    assert [row.name for row in one.ledger] == [row.name for row in other.ledger]


@pytest.mark.parametrize("name", LAYERS)
def test_recurrent_layers_take_any_number_of_steps(name: str) -> None:
    net = pylrp.Network([LAYERS[name], TOP])
    assert any("any number of steps" in note for note in net.notes)
    for steps in (1, 2, 8, 31):
        x = RNG.normal(size=(2, steps, 3))
        fixed = pylrp.Network([LAYERS[name], TOP], input_shape=(steps, 3))
        same(net.explain(x, target=1, composite="cp_lrp"), fixed.explain(x, target=1, composite="cp_lrp"))
        np.testing.assert_array_equal(net.forward(x[0]), fixed.forward(x[0]))


def test_samples_of_unequal_length() -> None:
    net = pylrp.Network([LAYERS["lstm"], TOP])
    given = [RNG.normal(size=(steps, 3)) for steps in (4, 1, 9, 4)]
    ex = net.explain(given, target=0, composite="cp_lrp")
    for x, relevance in zip(given, ex.relevance, strict=True):
        np.testing.assert_allclose(relevance, net.explain(x, target=0, composite="cp_lrp").relevance, rtol=1e-12)


def test_other_axes() -> None:
    """None stands for any size, of a convolution's places too."""
    layers = [Conv(RNG.normal(size=(4, 3, 20))), ReLU(), GlobalAveragePool(), Flatten(), TOP]
    net = pylrp.Network(layers, input_shape=(3, None))
    for size in (20, 32, 77):
        x = RNG.normal(size=(2, 3, size))
        same(net.explain(x, target=0), pylrp.Network(layers, input_shape=(3, size)).explain(x, target=0))
    with pytest.raises(ValueError, match="at least 20"):
        net.forward(RNG.normal(size=(3, 19)))


def test_lengths_are_saved_and_pickled(tmp_path: Path) -> None:
    net = pylrp.Network([LAYERS["gru"], TOP])
    x = RNG.normal(size=(11, 3))
    net.save(tmp_path / "net.npz")
    for other in (pylrp.load(tmp_path / "net.npz"), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other.forward(x), net.forward(x))


def test_errors() -> None:
    with pytest.raises(ValueError, match="features"):  # which no length mends
        pylrp.Network([LAYERS["lstm"], Dense(np.ones((2, 5)))])
    net = pylrp.Network([LAYERS["lstm"], TOP])
    for wrong in (np.zeros((0, 3)), np.zeros((4, 5)), np.zeros((2, 2, 4, 3))):
        with pytest.raises(ValueError, match="shape"):
            net.explain(wrong)
