"""Composites by name: which rule each dense layer gets, shown by the same bits as the rules written out."""

import numpy as np
import pytest
from reference.networks import forward_net

import pylrp
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus

EXACT = ZPlus(stabilizer=0.0)
MEANING = {  # three layers, input first
    "deep_taylor": [WSquare(stabilizer=0.0), EXACT, EXACT],
    "deep_taylor_box": [ZBox(0, 1, stabilizer=0.0), EXACT, EXACT],
    "epsilon": [Epsilon(), Epsilon(), Epsilon()],
    "epsilon_plus": [Epsilon(), Epsilon(), Epsilon()],
    "epsilon_plus_flat": [Flat(), Epsilon(), Epsilon()],
    "epsilon_alpha2_beta1": [Epsilon(), Epsilon(), Epsilon()],
    "epsilon_alpha2_beta1_flat": [Flat(), Epsilon(), Epsilon()],
    "epsilon_gamma_box": [ZBox(0, 1), Epsilon(), Epsilon()],
    "excitation_backprop": [ZPlus(), ZPlus(), ZPlus()],
}


@pytest.fixture
def net(rng):
    """A forward pass whose input lies in [0, 1]."""
    net = forward_net(rng, (14, 11, 9, 5), 4)
    x = rng.random((4, 14))
    acts = [x]
    for w, b in zip(net.W[:-1], net.biases[:-1], strict=True):
        acts.append(np.maximum(acts[-1] @ w.T + b, 0.0))
    return type(net)(net.W, acts, acts[-1] @ net.W[-1].T + net.biases[-1], net.biases)


@pytest.mark.parametrize("name", MEANING)
def test_by_name(net, name):
    actual = pylrp.relevance(net.W, net.acts, net.out, rules=name, biases=net.biases, return_layers=True)
    expected = pylrp.relevance(net.W, net.acts, net.out, rules=MEANING[name], biases=net.biases, return_layers=True)
    for mine, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_every_name_is_tried():
    assert set(pylrp.COMPOSITES) == set(MEANING)


def test_deep_taylor_is_the_default(net):
    default = pylrp.relevance(net.W, net.acts, net.out, biases=net.biases)
    np.testing.assert_array_equal(
        default, pylrp.relevance(net.W, net.acts, net.out, rules="deep_taylor", biases=net.biases)
    )
    np.testing.assert_array_equal(default, pylrp.relevance(net.W, net.acts, net.out, rules=None, biases=net.biases))


def test_one_layer_counts_as_the_first(net):
    top = (net.W[-1:], net.acts[-1:], net.out)
    np.testing.assert_array_equal(pylrp.relevance(*top), pylrp.relevance(*top, rules=WSquare(stabilizer=0.0)))


def test_bounds_of_a_box(net):
    low, high = np.full(14, -0.5), np.linspace(1.0, 2.0, 14)
    box = pylrp.composite("epsilon_gamma_box", low=low, high=high)
    actual = pylrp.relevance(net.W, net.acts, net.out, rules=box, biases=net.biases)
    expected = pylrp.relevance(
        net.W, net.acts, net.out, rules=[ZBox(low, high), Epsilon(), Epsilon()], biases=net.biases
    )
    np.testing.assert_array_equal(actual, expected)
    with pytest.raises(TypeError):
        pylrp.composite("epsilon", low=0.0)


def test_a_composite_of_ones_own(net):
    mine = pylrp.Composite("mine", Gamma(), first=Flat(), last=Epsilon(0.5), names={"1": AlphaBeta()})
    actual = pylrp.relevance(net.W, net.acts, net.out, rules=mine, biases=net.biases)
    expected = pylrp.relevance(net.W, net.acts, net.out, rules=[Flat(), AlphaBeta(), Epsilon(0.5)], biases=net.biases)
    np.testing.assert_array_equal(actual, expected)
    plain = pylrp.Composite("plain", Gamma())
    expected = pylrp.relevance(net.W, net.acts, net.out, rules=Gamma(), biases=net.biases)
    np.testing.assert_array_equal(pylrp.relevance(net.W, net.acts, net.out, rules=plain, biases=net.biases), expected)


def test_unknown_names(net):
    with pytest.raises(ValueError, match=r"(?s)(?=.*deeptaylor)(?=.*deep_taylor)(?=.*epsilon_plus_flat)"):
        pylrp.relevance(net.W, net.acts, net.out, rules="deeptaylor")
    with pytest.raises(ValueError, match=r"(?s)(?=.*fc9)(?=.*\b0, 1, 2)"):
        pylrp.relevance(net.W, net.acts, net.out, rules=pylrp.Composite("mine", Gamma(), names={"fc9": Flat()}))
