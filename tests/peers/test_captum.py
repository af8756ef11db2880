"""Agreement of `convention="captum"` with captum 0.9: epsilon, gamma, alpha1-beta0 and identity, layers and chains.

captum starts from R = 1 at the target and multiplies the result with the output; rules are linear in R, so that
equals a start from the target's logit.
"""

import copy

import numpy as np
import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule

import pylrp
from peers.torch_networks import as_arrays, assert_agree, clear_of_zero, linears, random_model
from pylrp.rules import AlphaBeta, Epsilon, Gamma, Pass, ZPlus

RULES = [  # ours, captum's
    (Epsilon(), EpsilonRule),
    (Epsilon(0.25), lambda: EpsilonRule(epsilon=0.25)),
    (Gamma(), GammaRule),
    (Gamma(1.5), lambda: GammaRule(gamma=1.5)),
    (Gamma(bias=False), lambda: GammaRule(set_bias_to_zero=True)),
    (ZPlus(), Alpha1_Beta0_Rule),
    (AlphaBeta(1, 0), Alpha1_Beta0_Rule),
    (ZPlus(bias=False), lambda: Alpha1_Beta0_Rule(set_bias_to_zero=True)),
]


def attribute(model, makers, x, target):
    """Return captum's relevance; it writes into the model, which is copied first."""
    model = copy.deepcopy(model)
    for layer, make in zip(linears(model), makers, strict=True):
        layer.rule = make()
    return LRP(model).attribute(x.clone().requires_grad_(), target=torch.from_numpy(target))


def logit_of(output, target):
    """Return the target's logit in its place, zeros elsewhere."""
    return np.where(np.arange(output.shape[1]) == target[:, None], output, 0.0).astype(output.dtype)


def clear_targets(model, x):
    """Return for each sample an output that is far from zero in every sum a rule forms."""
    arrays = as_arrays(model, x)
    sizes = np.abs(clear_of_zero(model, x, arrays["output"]))
    assert (sizes.max(axis=1) > 0).all()
    return arrays, sizes.argmax(axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize(("ours", "theirs"), RULES, ids=lambda case: repr(case) if isinstance(case, pylrp.Rule) else "")
def test_single_layers(rng, ours, theirs, batch, biases, dtype):
    model = random_model(rng, (40, 30), dtype, biases=biases)
    x = torch.from_numpy(rng.standard_normal((batch, 40)).astype(dtype))
    arrays, target = clear_targets(model, x)
    expected = attribute(model, [theirs], x, target)
    R = logit_of(arrays["output"], target)
    actual = pylrp.relevance(
        arrays["W_list"], arrays["acts"], R, rules=ours, biases=arrays["biases"], convention="captum"
    )
    assert_agree(actual, expected, repr(ours))


CHAINS = [
    [RULES[1], RULES[1], RULES[1], RULES[1]],
    [RULES[0], RULES[0], RULES[0], RULES[0]],
    [RULES[2], RULES[3], RULES[4], RULES[1]],
    [RULES[5], RULES[5], RULES[5], RULES[5]],
    [RULES[7], RULES[6], RULES[2], RULES[0]],
]


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("which", range(len(CHAINS)))
def test_chains(rng, which, biases):
    model = random_model(rng, (40, 50, 35, 20, 10), np.float64, biases=biases)
    x = torch.from_numpy(rng.standard_normal((6, 40)))
    arrays, target = clear_targets(model, x)
    expected = attribute(model, [theirs for _, theirs in CHAINS[which]], x, target)
    actual = pylrp.relevance(
        arrays["W_list"],
        arrays["acts"],
        logit_of(arrays["output"], target),
        rules=[ours for ours, _ in CHAINS[which]],
        biases=arrays["biases"],
        convention="captum",
    )
    assert_agree(actual, expected, str(which))


def test_identity(rng):
    model = random_model(rng, (20, 12, 12, 5), np.float64)
    model = torch.nn.Sequential(model[0], *model[2:])  # with a ReLU right below, captum's identity gives something else
    x = torch.from_numpy(rng.standard_normal((4, 20)))
    arrays, target = clear_targets(model, x)
    expected = attribute(model, [EpsilonRule, IdentityRule, EpsilonRule], x, target)
    actual = pylrp.relevance(
        arrays["W_list"],
        arrays["acts"],
        logit_of(arrays["output"], target),
        rules=[Epsilon(), Pass(), Epsilon()],
        biases=arrays["biases"],
        convention="captum",
    )
    assert_agree(actual, expected, "identity")
