"""Composites by name: which rule each dense layer gets, shown by the same bits as the rules written out."""

import copy
import pickle

import numpy as np
import pytest
from reference.networks import forward_net

import pylrp
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, WSquare, ZBox, Zero, ZPlus

EXACT = ZPlus(0, bias=False)
MEANING = {  # three layers, input first
    "deep_taylor": [WSquare(0, bias=False), EXACT, EXACT],
    "deep_taylor_box": [ZBox(0, 1, stabilizer=0.0), EXACT, EXACT],
    "epsilon": [Epsilon(), Epsilon(), Epsilon()],
    "epsilon_plus": [Epsilon(), Epsilon(), Epsilon()],
    "epsilon_plus_flat": [Flat(), Epsilon(), Epsilon()],
    "epsilon_alpha2_beta1": [Epsilon(), Epsilon(), Epsilon()],
    "epsilon_alpha2_beta1_flat": [Flat(), Epsilon(), Epsilon()],
    "excitation_backprop": [ZPlus(), ZPlus(), ZPlus()],
    "attnlrp": [Zero(), Zero(), Zero()],
    "cp_lrp": [Zero(), Zero(), Zero()],
    "attnlrp_gamma": [Gamma(0.25, stabilizer=0)] * 3,
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
@pytest.mark.filterwarnings("ignore:deep_taylor:UserWarning")
def test_by_name(net, name):
    actual = pylrp.relevance(net.W, net.acts, net.out, rules=name, biases=net.biases, return_layers=True)
    expected = pylrp.relevance(net.W, net.acts, net.out, rules=MEANING[name], biases=net.biases, return_layers=True)
    for mine, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_every_name_is_tried():
    # epsilon_gamma_box has its box for convolutions alone: see test_a_box_that_reaches_no_layer.
    assert set(pylrp.COMPOSITES) == {*MEANING, "epsilon_gamma_box"}


def test_deep_taylor_is_the_default(net):
    default = pylrp.relevance(net.W, net.acts, net.out)
    np.testing.assert_array_equal(default, pylrp.relevance(net.W, net.acts, net.out, rules="deep_taylor"))
    np.testing.assert_array_equal(default, pylrp.relevance(net.W, net.acts, net.out, rules=None))
    # The two equations, written out.
    R = net.out
    for W, a in zip(net.W[:0:-1], net.acts[:0:-1], strict=True):
        z = a @ np.maximum(W, 0).T
        R = a * ((R / np.where(z == 0, np.inf, z)) @ np.maximum(W, 0))
    squares = net.W[0] ** 2
    np.testing.assert_allclose(default, (R / squares.sum(axis=1)) @ squares, rtol=1e-12)


@pytest.mark.parametrize("rules", [None, "deep_taylor", pylrp.composite("deep_taylor"), "deep_taylor_box"], ids=str)
@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_deep_taylor_uses_no_biases_and_says_how_to(rng, rules, depth):
    net = forward_net(rng, (6, *(5,) * depth), 4)
    net.acts[0][...] = rng.random((4, 6))
    given = net.W, net.acts, net.out
    with pytest.warns(UserWarning, match=r"rules=\[") as caught:
        R = pylrp.relevance(*given, rules=rules, biases=net.biases)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(R, pylrp.relevance(*given, rules=rules))
    advice = str(caught[0].message).partition("rules=")[2]
    if rules != "deep_taylor_box":
        assert advice == {1: "[WSquare(0)]", 2: "[WSquare(0), ZPlus(0)]"}.get(depth, advice)
    first = ZBox(0, 1, stabilizer=0) if rules == "deep_taylor_box" else WSquare(0)
    proposed = eval(advice, {"WSquare": WSquare, "ZPlus": ZPlus, "ZBox": ZBox})
    assert proposed == [first] + [ZPlus(0)] * (depth - 1)
    with_biases = pylrp.relevance(*given, rules=proposed, biases=net.biases)
    assert depth == 1 == len(net.W) or np.abs(with_biases - R).max() > 1e-3 * np.abs(R).max()


def test_no_biases_no_warning(net):
    np.testing.assert_array_equal(
        pylrp.relevance(net.W, net.acts, net.out, biases=[None] * 3), pylrp.relevance(net.W, net.acts, net.out)
    )


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("name", ["deep_taylor", "deep_taylor_box"])
def test_a_network_and_its_arrays_by_deep_taylor(net, name, biases):
    """The same numbers everywhere: a network has its biases, the name says that they are not used."""
    layers = []
    for W, b in zip(net.W, net.biases, strict=True):
        layers += [pylrp.layers.Dense(W, b if biases else None), pylrp.layers.ReLU()]
    network = pylrp.Network(layers[:-1])
    acts = [net.acts[0]]
    for W, b in zip(net.W, net.biases, strict=True):
        acts.append(np.maximum(acts[-1] @ W.T + biases * b, 0))
    out = acts[-2] @ net.W[-1].T + biases * net.biases[-1]
    R = pylrp.relevance(net.W, acts[:-1], out, rules=name)
    np.testing.assert_allclose(network.explain(net.acts[0], out, composite=name).relevance, R, rtol=1e-12)
    for convention in ("innvestigate", "lrp_toolbox") if name == "deep_taylor" else ("innvestigate",):
        found = network.explain(net.acts[0], out, composite=name, convention=convention).relevance
        np.testing.assert_allclose(found, R, rtol=1e-12)


def test_one_layer_counts_as_the_first(net):
    top = (net.W[-1:], net.acts[-1:], net.out)
    np.testing.assert_array_equal(pylrp.relevance(*top), pylrp.relevance(*top, rules=WSquare(0, bias=False)))


def test_bounds_of_a_box(net):
    low, high = np.full(14, -0.5), np.linspace(1.0, 2.0, 14)
    box = pylrp.composite("deep_taylor_box", low=low, high=high)
    actual = pylrp.relevance(net.W, net.acts, net.out, rules=box)
    expected = pylrp.relevance(net.W, net.acts, net.out, rules=[ZBox(low, high, stabilizer=0), EXACT, EXACT])
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


def test_a_box_that_reaches_no_layer(net):
    arrays = net.W, net.acts, net.out
    for composite in (
        "epsilon_gamma_box",
        pylrp.composite("epsilon_gamma_box", low=-1, high=2),
        pylrp.Composite("mine", Epsilon(), last={"conv": ZBox(0, 1)}),
        pylrp.Composite("mine", Epsilon(), {"conv": ZBox(0, 1)}),
        pylrp.Composite("mine", ZBox(0, 1), {"dense": Epsilon()}),
    ):
        with pytest.raises(ValueError, match="ZBox"):
            pylrp.relevance(*arrays, rules=composite)
    within = pylrp.Composite("mine", Epsilon(), first={"dense": ZBox(0, 1)})
    np.testing.assert_array_equal(
        pylrp.relevance(*arrays, rules=within), pylrp.relevance(*arrays, rules=[ZBox(0, 1), Epsilon(), Epsilon()])
    )


def test_rules_by_kind_of_the_first_and_last_layers():
    layers = [("a", "conv"), ("b", "dense"), ("c", "conv"), ("d", "dense")]
    mine = pylrp.Composite("mine", Epsilon(), {"conv": Gamma()}, first={"conv": Flat()}, last={"dense": ZPlus()})
    assert mine.assign(layers) == [Flat(), Epsilon(), Gamma(), ZPlus()]
    assert mine.assign(layers, first=["a", "b"], last=["c", "d"]) == [Flat(), Epsilon(), Gamma(), ZPlus()]
    assert mine.assign(layers, first=["c"], last=["a"]) == [Gamma(), Epsilon(), Flat(), Epsilon()]
    named = pylrp.Composite("mine", Epsilon(), first={"conv": Flat()}, names={"a": WSquare()})
    assert named.assign(layers)[0] == WSquare()
    # What both could give is the first layer's.
    both = pylrp.Composite("mine", Epsilon(), first={"dense": Flat()}, last=ZPlus())
    assert both.assign([("a", "dense")]) == [Flat()]
    assert both.assign([("a", "conv")]) == [ZPlus()]


def test_a_composite_does_not_change():
    kinds = {"conv": Gamma()}
    mine = pylrp.Composite("mine", Epsilon(), kinds, first={"conv": Flat()})
    kinds["conv"] = kinds["dense"] = Flat()
    assert mine.kinds == {"conv": Gamma()}
    with pytest.raises(TypeError):
        mine.first["dense"] = Flat()
    same = pylrp.Composite("mine", Epsilon(), {"conv": Gamma()}, first={"conv": Flat()})
    assert mine == same
    assert hash(mine) == hash(same)
    assert mine != pylrp.Composite("mine", Epsilon(), {"conv": Gamma()}, first={"dense": Flat()})
    for made in (mine, *map(pylrp.composite, pylrp.COMPOSITES)):
        assert pickle.loads(pickle.dumps(made)) == made == copy.deepcopy(made)
        space = {rule.__name__: rule for rule in (*pylrp.rules.RULES, *pylrp.rules.TREATMENTS)}
        assert eval(repr(made), {"Composite": pylrp.Composite, **space}) == made


@pytest.mark.parametrize("where", ["kinds", "first", "last"])
def test_unknown_kinds(where):
    with pytest.raises(ValueError, match="convolution"):
        pylrp.Composite("mine", Epsilon(), **{where: {"convolution": Flat()}})
    with pytest.raises(TypeError, match="conv"):
        pylrp.Composite("mine", Epsilon(), **{where: {"conv": "flat"}})
    if where != "kinds":  # these are about layers with weights
        with pytest.raises(ValueError, match="pool"):
            pylrp.Composite("mine", Epsilon(), **{where: {"pool": Flat()}})


def test_unknown_names(net):
    with pytest.raises(ValueError, match=r"(?s)(?=.*deeptaylor)(?=.*deep_taylor)(?=.*epsilon_plus_flat)"):
        pylrp.relevance(net.W, net.acts, net.out, rules="deeptaylor")
    with pytest.raises(ValueError, match=r"(?s)(?=.*fc9)(?=.*\b0, 1, 2)"):
        pylrp.relevance(net.W, net.acts, net.out, rules=pylrp.Composite("mine", Gamma(), names={"fc9": Flat()}))


LAYERS = [("conv1", "conv"), ("conv2", "conv"), ("conv2_sum", "add"), ("head", "dense"), ("odd[1]", "dense")]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"conv*": Gamma()}, {"conv1": Gamma(), "conv2": Gamma()}),  # the sum has no weights
        ({"conv*": Gamma(), "conv2": Flat()}, {"conv1": Gamma(), "conv2": Flat()}),  # exact names first
        ({"conv?": Gamma(), "*": ZPlus()},
         {"conv1": Gamma(), "conv2": Gamma(), "head": ZPlus(), "odd[1]": ZPlus()}),  # then patterns in order
        ({"*": ZPlus(), "conv?": Gamma()}, dict.fromkeys(["conv1", "conv2", "head", "odd[1]"], ZPlus())),
        ({"*_sum": Norm(0.5)}, {"conv2_sum": Norm(0.5)}),
        ({"odd[1]": Flat()}, {"odd[1]": Flat()}),  # a name that looks like a pattern
        ({"conv[!2]": Flat()}, {"conv1": Flat()}),
    ],
)  # fmt: skip
def test_names_by_pattern(names, expected):
    mine = pylrp.Composite("mine", Epsilon(), names=names)
    assert mine.named(LAYERS) == expected
    given = dict(zip([name for name, _ in LAYERS], mine.assign(LAYERS), strict=True))
    rest = {name: Norm() if kind == "add" else Epsilon() for name, kind in LAYERS}
    assert given == {**rest, **expected}


def test_patterns_that_fit_nothing():
    with pytest.raises(ValueError, match="Conv"):
        pylrp.Composite("mine", Epsilon(), names={"Conv*": Gamma()}).assign(LAYERS)


def test_patterns_in_a_network(rng):
    L = pylrp.layers
    net = pylrp.Network([L.Dense(rng.normal(size=(4, 5)), name="fc1"), L.ReLU(),
                         L.Dense(rng.normal(size=(3, 4)), name="fc2")])  # fmt: skip
    x = rng.random((2, 5))
    mine = pylrp.Composite("mine", Epsilon(), names={"fc*": ZBox(0, 1), "fc2": Gamma()})
    got = net.explain(x, target=1, composite=mine)
    assert [row.rule for row in got.ledger.layers] == [repr(ZBox(0, 1)), repr(Gamma())]
    want = net.explain(x, target=1, composite=[ZBox(0, 1), Gamma()])
    np.testing.assert_array_equal(got.relevance, want.relevance)


def test_rules_is_another_name(rng):
    L = pylrp.layers
    net = pylrp.Network([L.Dense(rng.normal(size=(4, 5))), L.ReLU(), L.Dense(rng.normal(size=(3, 4)))])
    x = rng.random((2, 5))
    for rules in ("excitation_backprop", Gamma(), [Flat(), Epsilon()], pylrp.Composite("mine", ZPlus(), last=Gamma())):
        one, other = net.explain(x, rules=rules), net.explain(x, composite=rules)
        np.testing.assert_array_equal(one.relevance, other.relevance)
        assert one.settings == other.settings
        np.testing.assert_array_equal(one.layers["0"], other.layers["0"])  # found anew
        assert net.summary(rules=rules) == net.summary(rules)
        for measure in (pylrp.evaluate.randomisation, pylrp.evaluate.sensitivity):
            assert measure(net, x, rules=rules).table() == measure(net, x, rules).table()
    calls = (net.explain, lambda x, **both: net.summary(**both),
             lambda x, **both: pylrp.evaluate.randomisation(net, x, **both),
             lambda x, **both: pylrp.evaluate.sensitivity(net, x, **both),
             lambda x, **both: pylrp.evaluate.quantus_explain(**both))  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match="not both"):
            call(x, composite="epsilon", rules="epsilon")
