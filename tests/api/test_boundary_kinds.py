"""Arguments of the wrong kind, and rules that are none or do not fit, get one clear error.

``test_boundary.py`` has the rest.
"""

import warnings

import numpy as np
import pytest
from boundary import explain, says, zeros
from reference.networks import random_net

import pylrp
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, Pass, WSquare, ZBox, Zero, ZPlus


@pytest.fixture
def net(rng):
    """Layers 5 -> 4 -> 3 and a batch of 2."""
    return random_net(rng, (5, 4, 3), 2)


MIXED = [
    ({"W1": "float32"}, ["W_list[1]", "float32", "float64"]),
    ({"W0": "float32"}, ["W_list[0]", "float32", "float64"]),
    ({"acts0": "float32"}, ["acts[0]", "float32", "float64"]),
    ({"acts1": "float32"}, ["acts[1]", "float32", "float64"]),
    ({"out": "float32"}, ["out", "float32", "float64"]),
    ({"biases1": "float32"}, ["biases[1]", "float32", "float64"]),
    # float16, integers, and what is no number of ours at all
    ({"W0": "float16"}, ["W_list[0]", "float16", "float32 or float64"]),
    ({"acts1": "int64"}, ["acts[1]", "int64", "float32 or float64", "astype"]),
    ({"acts0": "uint8"}, ["acts[0]", "uint8", "float32 or float64", "astype"]),
    ({"out": "int32"}, ["out", "int32", "float32 or float64"]),
    ({"biases0": "int64"}, ["biases[0]", "int64", "float32 or float64"]),
    ({"out": "bool"}, ["out", "bool", "float32 or float64"]),
    ({"W1": "complex128"}, ["W_list[1]", "complex128", "float32 or float64"]),
    ({"acts0": "object"}, ["acts[0]", "object", "float32 or float64"]),
    ({"acts0": "U3"}, ["acts[0]", "<U3", "float32 or float64"]),
    ({"W0": "longdouble"}, ["W_list[0]", str(np.dtype("longdouble")), "float32 or float64"]),
]


@pytest.mark.parametrize(("changes", "parts"), MIXED)
@pytest.mark.filterwarnings("ignore:Casting complex")
def test_kinds_of_numbers(net, changes, parts):
    if "longdouble" in changes.values() and np.dtype("longdouble") == np.dtype("float64"):
        pytest.skip("long double is double here")
    ((name, dtype),) = changes.items()
    source = net.out if name == "out" else getattr(net, name[:-1])[int(name[-1])]
    with pytest.raises(TypeError, match=says(*parts)):
        explain(net, **{name: source.astype(dtype)})


def test_mixed_kinds_in_one_layer_without_biases(rng):
    net = random_net(rng, (5, 3), 2, biases=False)
    for parts in (
        ([net.W[0].astype(np.float32)], net.acts, net.out),
        (net.W, [net.acts[0].astype(np.float32)], net.out),
        (net.W, net.acts, net.out.astype(np.float32)),
    ):
        with pytest.raises(TypeError, match=says("float32", "float64")):
            pylrp.relevance(*parts, rules="epsilon")


WRONG_KINDS = [
    ({"W": zeros(4, 5)}, ["W_list", "list", "(4, 5)"]),
    ({"acts": zeros(2, 5)}, ["acts", "list", "(2, 5)"]),
    ({"biases": zeros(4)}, ["biases", "list"]),
    ({"W": None}, ["W_list", "NoneType"]),
    ({"acts": None}, ["acts", "NoneType"]),
    ({"out": None}, ["out"]),
    ({"W0": None}, ["W_list[0]"]),
    ({"rules": 3}, ["rules", "int"]),
    ({"rules": ZPlus}, ["ZPlus()"]),
    ({"rules": [ZPlus, Epsilon()]}, ["rules[0]", "ZPlus()"]),
    ({"rules": [Epsilon(), "epsilon"]}, ["rules[1]", "epsilon"]),
    ({"threads": "2"}, ["threads", "'2'"]),
    ({"threads": 1.5}, ["threads", "1.5"]),
    ({"acts0": np.ma.masked_array(zeros(2, 5), mask=True)}, ["acts[0]", "masked", "filled"]),
]


@pytest.mark.parametrize(("changes", "parts"), WRONG_KINDS)
def test_wrong_kinds(net, changes, parts):
    with pytest.raises(TypeError, match=says(*parts)):
        explain(net, **changes)


def test_ragged_lists(net):
    with pytest.raises(ValueError, match=says("W_list[0]")):
        explain(net, W0=[[1.0, 2.0], [3.0]])


def test_threads_below_one(net):
    for threads in (0, -2):
        with pytest.raises(ValueError, match=says("threads", str(threads))):
            explain(net, threads=threads)
    np.testing.assert_array_equal(explain(net, threads=np.int64(2)), explain(net, threads=10**6))


BAD_RULES = [
    (lambda: AlphaBeta(2, 2), ["alpha", "beta", "1"]),
    (lambda: AlphaBeta(1, 1), ["alpha", "beta", "1"]),
    *((lambda gap=gap: AlphaBeta(2 + gap, 1), ["alpha", "beta", "1"]) for gap in (1e-2, -1e-3, 1e-4, -1e-6)),
    (lambda: AlphaBeta(alpha=0.5, beta=-0.5), ["beta", "-0.5"]),
    (lambda: AlphaBeta(np.nan, 1), ["alpha", "nan"]),
    (lambda: Epsilon(-1e-6), ["epsilon", "-1e-06"]),
    (lambda: Epsilon(np.nan), ["epsilon", "nan"]),
    (lambda: Epsilon(np.inf), ["epsilon", "inf"]),
    (lambda: Gamma(-0.25), ["gamma", "-0.25"]),
    (lambda: Gamma(np.nan), ["gamma", "nan"]),
    *(
        (lambda kind=kind, fixed=fixed: kind(*fixed, stabilizer=-0.5), ["stabilizer", "-0.5"])
        for kind, fixed in (
            (Gamma, ()),
            (ZPlus, ()),
            (AlphaBeta, ()),
            (WSquare, ()),
            (Flat, ()),
            (Norm, ()),
            (ZBox, (0, 1)),
        )
    ),
    (lambda: ZBox(1.0, 0.0), ["low", "high", "1.0", "0.0"]),
    (lambda: ZBox([0.0, 2.0], [1.0, 1.0]), ["low", "high", "1"]),
    (lambda: ZBox(np.nan, 1.0), ["low", "nan"]),
    (lambda: ZBox(0.0, np.inf), ["high", "inf"]),
    (lambda: ZBox(np.zeros(3), np.ones(4)), ["(3,)", "(4,)"]),
]


@pytest.mark.parametrize(("make", "parts"), BAD_RULES)
def test_bad_rules(make, parts):
    with pytest.raises(ValueError, match=says(*parts)):
        make()


@pytest.mark.parametrize("beta", [0.1, 0.2, 0.3, 1 / 3, 0.7, 1e3 + 0.1])
def test_alpha_less_beta_may_be_rounded(beta):
    assert AlphaBeta(1 + beta, beta).alpha == 1 + beta
    assert AlphaBeta(np.float32(1.5), np.float32(0.5)) == AlphaBeta(1.5, 0.5)


@pytest.mark.parametrize(
    "make", [lambda: Epsilon("0.1"), lambda: Gamma(None), lambda: ZPlus(stabilizer="x"), lambda: Epsilon(True)]
)
def test_rules_of_the_wrong_kind(make):
    with pytest.raises(TypeError, match="must be a number"):
        make()


def test_rules_that_do_not_fit_their_layer(net):
    with pytest.raises(ValueError, match=says("layer 0", "(4, 5)", "Pass")):
        explain(net, rules=[Pass(), Epsilon()])
    with pytest.raises(ValueError, match=says("layer 0", "ZBox", "(3,)", "(5,)")):
        explain(net, rules=[ZBox(np.zeros(3), np.ones(3)), Epsilon()])
    for rule in (Zero(), Epsilon(), Gamma(), ZPlus(), AlphaBeta(), ZBox(0, 1), Norm()):
        with pytest.raises(ValueError, match=says("layer 0", "acts[0]", "None", type(rule).__name__)):
            explain(net, rules=[rule, Epsilon()], acts0=None)
    with pytest.raises(ValueError, match=says("layer 1", "acts[1]", "None", "ZPlus")):
        explain(net, rules="deep_taylor", acts1=None)
    assert explain(net, rules=[Flat(), WSquare()], acts=[None, None]).shape == (2, 5)


def test_input_outside_the_box(net):
    net.acts[0][...] = np.clip(net.acts[0], 0.0, 1.0)
    inside = explain(net, rules=[ZBox(0, 1), Epsilon()])
    assert np.isfinite(inside).all()
    for low, high in ((0.5, 1.0), (0.0, 0.5), (np.linspace(0, 0.5, 5), 2.0)):
        with pytest.warns(UserWarning, match=says("layer 0", "outside", "ZBox")):
            R_in = explain(net, rules=[ZBox(low, high), Epsilon()])
        assert np.isfinite(R_in).all()  # a warning, not a refusal
    with pytest.warns(UserWarning, match=says("outside")) as caught:
        pylrp.relevance(net.W, net.acts, net.out, rules=[ZBox(0.5, 1), Epsilon()])
    assert caught[0].filename == __file__  # it points at the caller
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(net, rules=[ZBox(net.acts[0].min(axis=0), net.acts[0].max(axis=0)), Epsilon()])
