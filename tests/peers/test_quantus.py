"""Quantus and pylrp beside each other: the same flipping curve, and pylrp's maps in Quantus's metrics."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import pylrp
from peers.networks import plain
from peers.torch_networks import KEEP_ALIVE
from pylrp.demo import load_demo_digits, load_demo_network
from pylrp.evaluate import pixel_flipping, quantus_explain, quantus_model, randomised
from pylrp.layers import Dense, ReLU

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    quantus = pytest.importorskip("quantus")
    from zennit.attribution import Gradient
    from zennit.composites import NameMapComposite
    from zennit.rules import Epsilon, Pass

assert KEEP_ALIVE is not None
# Quantus says of every metric how it may be misused, and of some that inputs did not change.
pytestmark = [pytest.mark.filterwarnings("ignore")]
PIXELS_A_STEP = 14  # Quantus's steps must divide 784


class EpsilonEverywhere(NameMapComposite):
    """zennit's epsilon rule for the network below; Quantus makes composites itself."""

    def __init__(self, canonizers=None):
        rules = [(["1", "3"], Epsilon(1e-6)), (["2"], Pass())]
        super().__init__(rules, canonizers=canonizers)


@pytest.fixture(scope="module")
def digits():
    """The bundled network as torch module and as pylrp's, 100 digits, and their classes."""
    weights, biases = load_demo_network()
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(784, 300), torch.nn.ReLU(), torch.nn.Linear(300, 10)
    ).eval()
    with torch.no_grad():
        for layer, W, b in zip((model[1], model[3]), weights, biases, strict=True):
            layer.weight.copy_(torch.from_numpy(W))
            layer.bias.copy_(torch.from_numpy(b))
    net = pylrp.Network([Dense(weights[0], biases[0]), ReLU(), Dense(weights[1], biases[1])])
    x = (load_demo_digits()[0] / np.float32(255)).astype(np.float32)
    return model, net, x[:, None], net.forward(x.reshape(100, 784)).argmax(axis=1)


def flipping(baseline: float):
    return quantus.PixelFlipping(
        features_in_step=PIXELS_A_STEP, perturb_baseline=baseline, normalise=False, disable_warnings=True
    )


@pytest.mark.parametrize("baseline", [0.0, 0.1307])
def test_same_curve_as_quantus_with_zennit(digits, baseline: float) -> None:
    """Each side with its own map where pixels are set to black; with the same map for any other value.

    Epsilon's maps are exactly 0 where a digit has no ink: in which order these pixels are flipped is up to chance, and
    shows as soon as the replacement is not black.
    """
    model, net, x, classes = digits
    theirs = quantus.explain(
        model, x, classes, xai_lib="zennit", composite=EpsilonEverywhere, attributor=Gradient
    ).reshape(100, 784)
    ones = np.eye(10, dtype=np.float32)[classes]  # theirs starts at 1 whatever the logit's sign
    ours = net.explain(x.reshape(100, 784), ones, "epsilon").relevance
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    if baseline:  # no ties
        theirs = ours = ours + 1e-3 * np.random.default_rng(0).normal(size=ours.shape).astype(np.float32)
    expected = np.array(flipping(baseline)(model, x, classes, a_batch=theirs.reshape(x.shape)))
    steps = 784 // PIXELS_A_STEP
    curves = pixel_flipping(
        net, x.reshape(100, 784), ours, target=classes, steps=steps, order=("most",), replacement=baseline,
        score="probability",
    )  # fmt: skip
    assert np.abs(curves.mean["most"][1:] - expected.mean(axis=0)).max() < 1e-3
    assert np.median(np.abs(curves.scores["most"][:, 1:] - expected)) < 1e-5


@pytest.mark.parametrize("given", ["loaded", "network", "model"])
def test_quantus_drives_pylrp(digits, given: str) -> None:
    model, net, x, classes = digits
    seen = quantus_model(net) if given == "model" else model
    explain = quantus_explain("epsilon", network=net if given == "network" else None)
    found = np.array(flipping(0.0)(seen, x, classes, explain_func=explain))
    R = net.explain(x.reshape(100, 784), classes, "epsilon").relevance
    expected = np.array(flipping(0.0)(model, x, classes, a_batch=R.reshape(x.shape)))
    np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), atol=1e-3)


def test_shapes_and_settings() -> None:
    torch.manual_seed(1)
    model = plain().eval()
    x = np.random.default_rng(0).normal(size=(3, 3, 18, 18)).astype(np.float32)
    net = pylrp.load(model, torch.zeros(1, 3, 18, 18))
    classes = np.array([1, 0, 4])
    R = net.explain(x, classes, "epsilon_plus_flat").relevance
    np.testing.assert_array_equal(quantus_explain()(model=model, inputs=x, targets=classes), R)
    summed = quantus_explain(sum_channels=True)(model=model, inputs=torch.from_numpy(x), targets=classes, device="cpu")
    np.testing.assert_allclose(summed, R.sum(axis=1, keepdims=True))
    one = quantus_explain("epsilon", start="logit")(model, x, classes, start="one")
    np.testing.assert_array_equal(one, net.explain(x, classes, "epsilon", start="one").relevance)
    with pytest.raises(TypeError, match="pass network="):
        quantus_explain()(object(), x, classes)


def test_weights_that_change_in_place_are_noticed(digits) -> None:
    """Quantus randomises one module again and again: a network kept by the object would be stale."""
    _, _, x, classes = digits
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)).eval()
    explain, fixed = quantus_explain("epsilon"), quantus_explain("epsilon", network=digits[1])
    before = explain(model, x, classes)
    fixed(model, x, classes)
    model[1].weight.data.mul_(2.0)  # past autograd's version counter
    after = explain(model, x, classes)
    bare = pylrp.load(model, torch.zeros(1, 1, 28, 28))
    np.testing.assert_array_equal(after, bare.explain(x, classes, "epsilon").relevance)
    assert not np.allclose(before, after)
    with pytest.raises(ValueError, match="weights have changed"):
        fixed(model, x, classes)


def test_quantus_randomisation_with_pylrp(digits) -> None:
    """Its cascade reaches pylrp's maps. Signed: absolute values are alike wherever a digit has no ink."""
    model, net, x, classes = digits
    metric = quantus.MPRT(
        similarity_func=quantus.correlation_spearman, layer_order="top_down", abs=False, normalise=False,
        disable_warnings=True,
    )  # fmt: skip
    scores = metric(model, x[:10], classes[:10], explain_func=quantus_explain("epsilon", start="one"))
    last = np.mean(list(scores.values())[-1])
    assert abs(last) < 0.3
    ours = pylrp.evaluate.randomisation(net, x[:10].reshape(10, 784), "epsilon")
    assert abs(ours.spearman[:, -1].mean()) < 0.3
    assert not np.allclose(randomised(net, ["1"]).forward(x[0].reshape(784)), net.forward(x[0].reshape(784)))
