"""Agreement with zennit 1.0: every rule, signed inputs, with and without biases, single layers and chains."""

import numpy as np
import pytest
import torch
from zennit import composites as zc
from zennit import rules as zr

import pylrp
from peers.torch_networks import as_arrays, assert_agree, clear_of_zero, linears, random_model
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, Pass, WSquare, ZBox, Zero, ZPlus

LOW, HIGH = np.linspace(-6.0, -5.0, 40), np.linspace(5.0, 7.0, 40)


def tensor(x):
    """Bounds for a batch, as zennit wants them."""
    return torch.from_numpy(x[None])


RULES = [  # ours, zennit's
    (Zero(), lambda: zr.Epsilon(epsilon=0)),
    (Zero(bias=False), lambda: zr.Epsilon(epsilon=0, zero_params="bias")),
    (Epsilon(), zr.Epsilon),
    (Epsilon(0.25), lambda: zr.Epsilon(epsilon=0.25)),
    (Epsilon(0.25, bias=False), lambda: zr.Epsilon(epsilon=0.25, zero_params="bias")),
    (Norm(), zr.Norm),
    (Norm(stabilizer=0.25), lambda: zr.Norm(stabilizer=0.25)),
    (Gamma(), zr.Gamma),
    (Gamma(1.5, stabilizer=0.25), lambda: zr.Gamma(gamma=1.5, stabilizer=0.25)),
    (Gamma(bias=False), lambda: zr.Gamma(zero_params="bias")),
    (ZPlus(), zr.ZPlus),
    (ZPlus(stabilizer=0.25), lambda: zr.ZPlus(stabilizer=0.25)),
    (ZPlus(bias=False), lambda: zr.ZPlus(zero_params="bias")),
    (AlphaBeta(), zr.AlphaBeta),
    (AlphaBeta(1, 0), lambda: zr.AlphaBeta(alpha=1, beta=0)),
    (AlphaBeta(3.5, 2.5, stabilizer=0.25), lambda: zr.AlphaBeta(alpha=3.5, beta=2.5, stabilizer=0.25)),
    (AlphaBeta(bias=False), lambda: zr.AlphaBeta(zero_params="bias")),
    (WSquare(), zr.WSquare),
    (WSquare(stabilizer=0.25), lambda: zr.WSquare(stabilizer=0.25)),
    (WSquare(bias=False), lambda: zr.WSquare(zero_params="bias")),
    (Flat(), zr.Flat),
    (Flat(stabilizer=0.25), lambda: zr.Flat(stabilizer=0.25)),
    (ZBox(-6.0, 6.0), lambda: zr.ZBox(low=-6.0, high=6.0)),
    (ZBox(LOW, HIGH, stabilizer=0.25), lambda: zr.ZBox(low=tensor(LOW), high=tensor(HIGH), stabilizer=0.25)),
]


def attribute(model, composite, x, R):
    """Return zennit's relevance of the input for relevance R at the output."""
    x = x.clone().requires_grad_()
    with composite.context(model) as modified:
        modified(x).backward(gradient=torch.from_numpy(R))
    return x.grad


def by_layer(model, makers):
    """Return a zennit composite with one rule for each Linear, input first; ReLUs pass."""
    names = [name for name, module in model.named_children() if isinstance(module, torch.nn.Linear)]
    name_map = [([name], make()) for name, make in zip(names, makers, strict=True)]
    return zc.NameLayerMapComposite(name_map=name_map, layer_map=[(torch.nn.ReLU, zr.Pass())])


def signed_input(rng, batch, width, dtype):
    """Signed inputs with some exact zeros among them."""
    x = rng.standard_normal((batch, width))
    return torch.from_numpy(np.where(rng.random(x.shape) < 0.2, 0.0, x).astype(dtype))


def test_every_rule_is_compared():
    assert {type(ours) for ours, _ in RULES} | {Pass} == set(pylrp.rules.RULES)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("batch", [1, 17])
@pytest.mark.parametrize(("ours", "theirs"), RULES, ids=lambda case: repr(case) if isinstance(case, pylrp.Rule) else "")
def test_single_layers(rng, ours, theirs, batch, biases, dtype):
    model = random_model(rng, (40, 30), dtype, biases=biases)
    x = signed_input(rng, batch, 40, dtype)
    R = clear_of_zero(model, x, rng.standard_normal((batch, 30)).astype(dtype))
    expected = attribute(model, by_layer(model, [theirs]), x, R)
    arrays = as_arrays(model, x)
    actual = pylrp.relevance(arrays["W_list"], arrays["acts"], R, rules=ours, biases=arrays["biases"])
    assert_agree(actual, expected, repr(ours))


def test_pass(rng):
    model = random_model(rng, (12, 12), np.float64)
    x, R = signed_input(rng, 3, 12, np.float64), rng.standard_normal((3, 12))
    expected = attribute(model, by_layer(model, [zr.Pass]), x, R)
    arrays = as_arrays(model, x)
    actual = pylrp.relevance(arrays["W_list"], arrays["acts"], R, rules=Pass(), biases=arrays["biases"])
    assert_agree(actual, expected, "Pass")


def pick(*indices):
    """Split entries of RULES into ours and zennit's."""
    return [RULES[i][0] for i in indices], [RULES[i][1] for i in indices]


def where(rule):
    """Find a rule's place in RULES."""
    return [ours for ours, _ in RULES].index(rule)


E_SMALL, E_LARGE, Z_PLUS, GAMMA = where(Epsilon()), where(Epsilon(0.25)), where(ZPlus()), where(Gamma())
AB, FLAT, SQUARE, BOX, ZERO, NORM = (
    where(rule) for rule in (AlphaBeta(), Flat(), WSquare(), ZBox(-6.0, 6.0), Zero(), Norm())
)
CHAINS = {  # four layers
    "epsilon_plus_flat": (FLAT, Z_PLUS, Z_PLUS, E_LARGE),
    "epsilon_gamma_box": (BOX, GAMMA, GAMMA, E_LARGE),
    "epsilon_alpha2_beta1_flat": (FLAT, AB, AB, E_LARGE),
    "w-square and z+": (SQUARE, Z_PLUS, Z_PLUS, Z_PLUS),
    "epsilon throughout": (E_LARGE,) * 4,
    "z+ on a signed input": (Z_PLUS, Z_PLUS, Z_PLUS, E_LARGE),
    "gamma throughout": (GAMMA,) * 4,
    "alpha-beta throughout": (AB,) * 4,
    "mixed": (where(ZPlus(bias=False)), where(WSquare(stabilizer=0.25)), where(AlphaBeta(1, 0)), NORM),
}
CHAINS_IN_DOUBLE = {"small epsilon": (E_SMALL,) * 4, "LRP-0": (ZERO,) * 4, "LRP-0 on top": (FLAT, GAMMA, AB, ZERO)}


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, dtype) for name in CHAINS for dtype in (np.float32, np.float64)),
        *((n, np.float64) for n in CHAINS_IN_DOUBLE),
    ],
)
def test_chains(rng, name, dtype, biases, batch):
    ours, theirs = pick(*(CHAINS | CHAINS_IN_DOUBLE)[name])
    model = random_model(rng, (40, 50, 35, 20, 10), dtype, biases=biases)
    x = signed_input(rng, batch, 40, dtype)
    arrays = as_arrays(model, x)
    R = clear_of_zero(model, x, arrays["output"])  # the network's own prediction
    expected = attribute(model, by_layer(model, theirs), x, R)
    actual = pylrp.relevance(arrays["W_list"], arrays["acts"], R, rules=ours, biases=arrays["biases"])
    assert_agree(actual, expected, name)


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("epsilon_plus", zc.EpsilonPlus),
        ("epsilon_plus_flat", zc.EpsilonPlusFlat),
        ("epsilon_alpha2_beta1", zc.EpsilonAlpha2Beta1),
        ("epsilon_alpha2_beta1_flat", zc.EpsilonAlpha2Beta1Flat),
        ("excitation_backprop", zc.ExcitationBackprop),
    ],
)
def test_composites_by_name(rng, name, theirs, biases):
    model = random_model(rng, (40, 30, 20, 10), np.float64, biases=biases)
    x = signed_input(rng, 5, 40, np.float64)
    arrays = as_arrays(model, x)
    R = np.where(arrays["output"] == arrays["output"].max(axis=1, keepdims=True), arrays["output"], 0.0)
    # zennit gives a ReLU in excitation backprop no rule: its gradient would be taken.
    layer_map = [(torch.nn.ReLU, zr.Pass())]
    expected = attribute(model, theirs(layer_map=layer_map), x, R)
    actual = pylrp.relevance(arrays["W_list"], arrays["acts"], R, rules=name, biases=arrays["biases"])
    assert_agree(actual, expected, name)


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.filterwarnings("ignore:deep_taylor:UserWarning")
def test_deep_taylor_is_the_limit_of_small_stabilizers(rng, biases):
    model = random_model(rng, (40, 50, 20), np.float64, biases=biases)
    x = signed_input(rng, 5, 40, np.float64)
    arrays = as_arrays(model, x)
    given = arrays["W_list"], [None, arrays["acts"][1]], arrays["output"]
    for zero_params, rules in (("bias", "deep_taylor"), ([], [WSquare(0), ZPlus(0)])):
        small = {"stabilizer": 1e-14, "zero_params": zero_params}
        theirs = by_layer(model, [lambda small=small: zr.WSquare(**small), lambda small=small: zr.ZPlus(**small)])
        actual = pylrp.relevance(*given, rules=rules, biases=arrays["biases"])
        assert_agree(actual, attribute(model, theirs, x, arrays["output"]), str(rules))
    assert len(linears(model)) == 2
