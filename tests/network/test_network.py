"""Network: forward pass against NumPy, explain against the oracle and pylrp.relevance, targets, errors, saving."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from reference.contributions import propagate

import pylrp
from pylrp import layers as L
from pylrp.network import execution
from pylrp.network.graph import Graph, Node
from pylrp.network.ledger import COLUMNS

erf = np.vectorize(math.erf)
FUNCTIONS = {
    L.Identity(): lambda x: x,
    L.ReLU(): lambda x: np.maximum(x, 0),
    L.LeakyReLU(0.1): lambda x: np.where(x < 0, 0.1 * x, x),
    L.ELU(0.7): lambda x: np.where(x < 0, 0.7 * np.expm1(np.minimum(x, 0)), x),
    L.GELU(): lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    L.GELU(approximate=True): lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    L.SiLU(): lambda x: x / (1 + np.exp(-x)),
    L.HardSwish(): lambda x: x * np.clip(x + 3, 0, 6) / 6,
    L.Tanh(): np.tanh,
    L.Sigmoid(): lambda x: 1 / (1 + np.exp(-x)),
    L.Softplus(): lambda x: np.log1p(np.exp(x)),
    L.Clip(-0.5, 0.75): lambda x: np.clip(x, -0.5, 0.75),
    L.HardSigmoid(0.3, 0.4): lambda x: np.clip(0.3 * x + 0.4, 0, 1),
    L.Mish(): lambda x: x * np.tanh(np.log1p(np.exp(x))),
}
#: At the top only, there they are removed.
AT_THE_TOP = {L.Exp(): np.exp, L.Log(): np.log}


def build(widths, functions, dtype=np.float64, seed=0):
    """Return layers, weights, biases."""
    rng = np.random.default_rng(seed)
    weights = [(rng.standard_normal((o, i)) / np.sqrt(i)).astype(dtype) for i, o in pairwise(widths)]
    biases = [(0.3 * rng.standard_normal(len(w))).astype(dtype) for w in weights]
    made = []
    for w, b, f in zip(weights, biases, functions, strict=True):
        made += [L.Dense(w, b)] + ([f] if f else [])
    return made, weights, biases


def forward(weights, biases, functions, x):
    acts = [np.asarray(x, np.float64)]
    for w, b, f in zip(weights, biases, functions, strict=True):
        z = acts[-1] @ w.T.astype(np.float64) + b
        acts.append(FUNCTIONS[f](z) if f else z)
    return acts


def test_every_activation_is_tested():
    kinds = {type(f) for f in (*FUNCTIONS, *AT_THE_TOP)}
    assert kinds == set(L.Activation.__subclasses__())


@pytest.mark.parametrize("f", FUNCTIONS, ids=repr)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-14), (np.float32, 3e-6)])
@pytest.mark.parametrize("batch", [1, 4, 5, 37])
def test_forward(f, dtype, tolerance, batch):
    functions = [f, f, None]
    made, weights, biases = build([23, 40, 33, 7], functions, dtype)
    x = (3 * np.random.default_rng(1).standard_normal((batch, 23))).astype(dtype)
    expected = forward(weights, biases, functions, x)[-1]
    got = pylrp.Network(made).forward(x)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * (1 + np.abs(expected).max()))


@pytest.mark.parametrize("f", AT_THE_TOP, ids=repr)
def test_forward_at_the_top(f):
    layers, weights, biases = build([23, 7], [None])
    x = np.random.default_rng(1).standard_normal((4, 23))
    z = forward(weights, np.abs(biases) + 20, [None], x)[-1]
    layers[0] = replace(layers[0], bias=np.abs(biases[0]) + 20)
    graph = Graph.sequential([*layers, f])
    np.testing.assert_allclose(pylrp.Network.from_graph(graph, keep_top=True).forward(x), AT_THE_TOP[f](z), rtol=1e-13)
    net = pylrp.Network.from_graph(graph)
    np.testing.assert_allclose(net.forward(x), z, rtol=1e-13)
    assert net.top == f.kind
    inside = pylrp.Network([*layers, f, L.Dense(np.ones((2, 7)))])
    np.testing.assert_allclose(inside.forward(x), AT_THE_TOP[f](z) @ np.ones((7, 2)), rtol=1e-12)


COMPOSITES = [
    "deep_taylor",
    "epsilon",
    "epsilon_plus_flat",
    [pylrp.ZBox(-20, 20), pylrp.ZPlus(), pylrp.Epsilon()],
    pylrp.Gamma(),
    pylrp.AlphaBeta(),
    # w² above: relevance arrives where a ReLU is off, so z must be the real one.
    [pylrp.Epsilon(), pylrp.Epsilon(0.1), pylrp.WSquare()],
    [pylrp.Epsilon(0.1), pylrp.Flat(), pylrp.Zero()],
    [pylrp.Epsilon(0.1, bias=False), pylrp.Epsilon(bias=False), pylrp.Zero(bias=False)],
]


@pytest.mark.parametrize("rules", COMPOSITES, ids=str)
@pytest.mark.parametrize("f", [L.ReLU(), L.Tanh(), L.GELU(), None], ids=repr)
@pytest.mark.parametrize("batch", [1, 3, 21])
def test_explain_against_the_oracle(rules, f, batch):
    functions = [f, f, None]
    made, weights, biases = build([19, 35, 34, 6], functions)
    x = np.random.default_rng(2).standard_normal((batch, 19))
    net = pylrp.Network(made)
    ex = net.explain(x, composite=rules)
    acts = forward(weights, biases, functions, x)
    np.testing.assert_allclose(ex.output, acts[-1], atol=1e-13)
    assert (ex.target == acts[-1].argmax(1)).all()
    top = np.where(np.arange(6) == ex.target[:, None], acts[-1], 0)
    if isinstance(rules, str):
        rules = pylrp.composite(rules).assign([(str(i), "dense") for i in range(3)])
    elif isinstance(rules, pylrp.Rule):
        rules = [rules] * 3
    outcomes = propagate(weights, acts[:-1], top, rules, biases)
    below = {node.name: node.inputs[0] for node in net.graph.nodes}
    for name, outcome in zip(net.names, outcomes, strict=True):
        scale = np.abs(outcome.relevance).max()
        np.testing.assert_allclose(ex.layers[below[name]], outcome.relevance, rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(ex.layers["2"], top, atol=1e-13)
    np.testing.assert_array_equal(ex.relevance, ex.layers["input"])
    # and the one-shot form, with its ledger
    R, ledger = pylrp.relevance(weights, acts[:-1], top, rules=rules, biases=biases, ledger=True)
    np.testing.assert_allclose(ex.relevance, R, rtol=0, atol=1e-9 * np.abs(R).max())
    np.testing.assert_allclose(ex.ledger.data, ledger.data, rtol=0, atol=1e-9 * np.abs(ledger.data).max())
    assert np.abs([row.rounding for row in ex.ledger]).max() < 1e-9 * np.abs(ledger.data).max()


@pytest.fixture
def net():
    return pylrp.Network(build([9, 12, 5], [L.ReLU(), None])[0])


@pytest.fixture
def x():
    return np.random.default_rng(3).standard_normal((4, 9))


def test_targets(net, x):
    out = net.forward(x)
    top = net.explain(x)
    one_each = net.explain(x, target=out.argmax(1))
    np.testing.assert_array_equal(top.relevance, one_each.relevance)
    np.testing.assert_array_equal(net.explain(x, 2).target, [2, 2, 2, 2])
    given = np.where(np.arange(5) == 2, out, 0)
    as_array = net.explain(x, given)
    np.testing.assert_array_equal(as_array.relevance, net.explain(x, 2).relevance)
    assert as_array.target is None
    ones = net.explain(x, 2, start="one", composite="epsilon")
    np.testing.assert_allclose(
        ones.relevance * np.abs(out[:, 2:3]), net.explain(x, 2, composite="epsilon").relevance, atol=1e-12
    )
    np.testing.assert_array_equal(ones.layers["1"].sum(1), np.sign(out[:, 2]))
    assert set(np.sign(net.explain(x, targets=range(5), start="one").layers["1"].sum(2).ravel())) == {-1, 1}


def test_start_one_of_an_output_with_positions():
    rng = np.random.default_rng(4)
    net = pylrp.Network([L.Conv(rng.normal(size=(3, 2, 2, 2)), rng.normal(size=3))], (2, 4, 5))
    x = rng.normal(size=(6, 2, 4, 5))
    sums = net.forward(x).sum(axis=(2, 3))
    logit, one = (net.explain(x, targets=[2, 0], composite="epsilon", start=s) for s in ("logit", "one"))
    expected = logit.relevance / np.abs(sums[:, [2, 0]])[..., None, None, None]
    np.testing.assert_allclose(one.relevance, expected, rtol=1e-12)
    np.testing.assert_allclose(one.layers["0"].sum(axis=(2, 3, 4)), np.sign(sums[:, [2, 0]]), rtol=1e-12)
    assert (sums < 0).any()
    ex = net.explain(x, 1, "epsilon", against=0, start="one")
    difference = sums[:, 1] - sums[:, 0]
    np.testing.assert_allclose(ex.layers["0"].sum(axis=(1, 2, 3)), np.sign(difference), rtol=1e-9)
    logit = net.explain(x, 1, "epsilon", against=0)
    np.testing.assert_allclose(ex.relevance, logit.relevance / np.abs(difference)[:, None, None, None], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_start_one_of_a_logit_of_zero_has_no_relevance_to_divide(dtype):
    net = pylrp.Network([L.Dense(np.array([[1.0, -1.0], [1.0, 1.0]], dtype))])
    x = np.array([[2, 2], [2, 1]], dtype)
    np.testing.assert_array_equal(net.explain(x, 0, "epsilon", start="one").relevance[0], [0, 0])
    np.testing.assert_allclose(net.explain(x, 0, "epsilon", start="one").relevance[1], [2, -1], rtol=1e-5)
    same = pylrp.Network([L.Dense(np.array([[1.0, -1.0], [-1.0, 1.0]], dtype), np.ones(2, dtype))])
    ex = same.explain(x[:1], 0, "epsilon", against=1, start="one")  # equal logits: the maps differ all the same
    np.testing.assert_array_equal(ex.relevance, same.explain(x[:1], 0, "epsilon", against=1).relevance)


def test_several_targets_share_a_forward_pass(net, x):
    several = net.explain(x, targets=[3, 0])
    assert several.relevance.shape == (4, 2, 9)
    assert several.layers["1"].shape == (4, 2, 5)
    for i, target in enumerate([3, 0]):
        alone = net.explain(x, target)
        np.testing.assert_array_equal(several.relevance[:, i], alone.relevance)
        np.testing.assert_array_equal(several.target[:, i], alone.target)
        np.testing.assert_array_equal(several.ledger[i].data, alone.ledger.data)
    assert net.explain(x[0], targets=[3, 0]).relevance.shape == (2, 9)


def test_a_single_sample_is_a_row_of_a_batch(net, x):
    single = net.explain(x[1])
    assert single.relevance.shape == (9,)
    assert single.output.shape == (5,)
    assert single.ledger[0].incoming.shape == ()
    np.testing.assert_allclose(single.relevance, net.explain(x).relevance[1], atol=1e-13)


def test_constants_are_prepared_once(net, x):
    def plans():
        return {id(prepared) for prepared in net._execution._plans.values()}

    for _ in range(3):
        net.explain(x, composite="deep_taylor")
        net.explain(x, composite=[pylrp.WSquare(0, bias=False), pylrp.ZPlus(0, bias=False)])
    assert len(plans()) == 1
    net.explain(x, composite="epsilon")
    assert len(plans()) == 2


def test_rules_in_one_object_are_settled_once(net, x, monkeypatch):
    settled, assign = [], execution.assign
    monkeypatch.setattr(execution, "assign", lambda *given: settled.append(given[1]) or assign(*given))
    mine, other, rule = (
        pylrp.Composite("mine", pylrp.ZPlus()),
        pylrp.Composite("mine", pylrp.Flat()),
        pylrp.Epsilon(0.7),
    )
    first = net.explain(x, 2, mine).relevance
    np.testing.assert_array_equal(net.explain(x, 2, mine).relevance, first)
    assert settled == [mine]
    assert np.abs(net.explain(x, 2, other).relevance - first).max() > 1e-3
    assert settled == [mine, other]
    for _ in range(2):
        net.explain(x, 2, rule)
    assert len(settled) == 3
    # A default may be replaced where the same number is not: an equal object is another one.
    net.explain(x, 2, pylrp.Epsilon(0.7))
    assert len(settled) == 4


def test_rules_by_name_of_a_layer(x):
    made, _weights, _ = build([9, 12, 5], [L.ReLU(), None])
    made[0] = L.Dense(made[0].weight, made[0].bias, name="first")
    net = pylrp.Network(made)
    assert net.names == ["first", "1"]
    rules = pylrp.Composite("mine", pylrp.Epsilon(), names={"first": pylrp.Flat()})
    ex = net.explain(x, composite=rules)
    np.testing.assert_array_equal(ex.relevance, net.explain(x, composite=[pylrp.Flat(), pylrp.Epsilon()]).relevance)
    assert ex.ledger["first"].rule == "Flat()"
    with pytest.raises(ValueError, match="no layer is called other; there are first, 1"):
        net.explain(x, composite=pylrp.Composite("mine", pylrp.Epsilon(), names={"other": pylrp.Flat()}))


def test_save(net, x, tmp_path):
    ex = net.explain(x, targets=[1, 2], layers=["0"])
    ex.save(tmp_path / "ex.npz")
    with np.load(tmp_path / "ex.npz") as data:
        np.testing.assert_array_equal(data["relevance"], ex.relevance)
        np.testing.assert_array_equal(data["target"], ex.target)
        np.testing.assert_array_equal(data["layer/0"], ex.layers["0"])
        assert data["ledger"].shape == (2, 2, len(COLUMNS), 4)
        assert tuple(data["ledger_columns"]) == COLUMNS
        assert list(data["ledger_rules"]) == ["Epsilon(1e-06)", "Epsilon(1e-06)"]
        assert data["composite"] == "epsilon" == ex.composite


W = np.ones((3, 4))


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([], ValueError, "a network needs at least one layer"),
        ([L.ReLU(), L.Dense(W)], ValueError, r"layers\[0\] is ReLU\(\): pass input_shape="),
        ([L.Dense(W), L.Dense(W)], ValueError, r"layers\[1\]: weight is \(3, 4\), its input has 3 features"),
        ([L.Dense(W[0])], ValueError, r"weight has shape \(4,\), expected \(n_out, n_in\)"),
        ([L.Dense(W, np.ones(4))], ValueError, r"bias has shape \(4,\), its weight is \(3, 4\)"),
        ([L.Dense(W, np.ones(3, np.float32))], TypeError, "bias is float32, the first weight is float64"),
        ([L.Dense(W.astype(int))], TypeError, "int64"),
        ([L.Dense(np.where(np.eye(3, 4) > 0, np.nan, 1.0))], ValueError, r"not finite.*\[0, 0\] is nan"),
        ([L.Dense(W), "relu"], TypeError, r"layers\[1\] is not a layer"),
        ([L.Dense(W, name="a"), L.Dense(W.T, name="a")], ValueError, "names of layers must differ"),
    ],
)
def test_wrong_networks(layers, error, message):
    with pytest.raises(error, match=message):
        pylrp.Network(layers)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": np.ones((2, 8))}, ValueError, r"x has shape \(2, 8\), the network takes \(batch, 9\)"),
        ({"x": np.ones((9, 1))}, ValueError, r"samples are rows here.*pass x\.T"),
        ({"x": np.ones((2, 9), np.float16)}, TypeError, "x has dtype float16"),
        ({"x": np.full((2, 9), np.inf)}, ValueError, r"x\[0, 0\] is inf"),
        ({"target": 5}, ValueError, "target 5 is no class: the network has 5 outputs"),
        ({"target": -1}, ValueError, "target -1 is no class"),
        ({"target": [1, 2, 3]}, ValueError, "target has 3 entries, x has 4 samples"),
        ({"target": np.ones((4, 4))}, ValueError, r"target has shape \(4, 4\), the output has shape \(4, 5\)"),
        ({"target": np.full((4, 5), np.nan)}, ValueError, "target.*nan"),
        ({"target": 1, "targets": [1]}, ValueError, "not both"),
        ({"targets": []}, ValueError, "targets is empty"),
        ({"targets": [1.5]}, TypeError, "target must be an integer"),
        ({"start": "probability"}, ValueError, "start must be"),
        ({"composite": "nonsense"}, ValueError, "unknown composite 'nonsense'"),
        ({"composite": [pylrp.ZPlus()]}, ValueError, "2 dense layers, composite has 1 rules"),
        ({"composite": [pylrp.ZPlus(), "z+"]}, TypeError, r"composite\[1\] is not a rule"),
        (
            {"composite": pylrp.Pass()},
            ValueError,
            r"Pass\(\) hands relevance through.*\(9,\), its output \(12,\)",
        ),
        ({"convention": "mine"}, ValueError, "unknown convention 'mine'"),
        ({"threads": 0}, ValueError, "threads must be at least 1"),
    ],
)
def test_wrong_arguments(net, x, arguments, error, message):
    with pytest.raises(error, match=message):
        net.explain(**{"x": x, **arguments})


def test_z_box_warns_outside_its_bounds(net, x):
    with pytest.warns(UserWarning, match=r"outside the bounds of ZBox\(0, 1, stabilizer=0\)"):
        net.explain(x, composite="deep_taylor_box")


def test_overflow_is_an_error(x):
    net = pylrp.Network([L.Dense(np.full((3, 9), 1e300)), L.Dense(np.full((2, 3), 1e300))])
    with pytest.raises(ValueError, match=r"overflow|not finite"):
        net.explain(np.abs(x), composite="epsilon")


def test_an_empty_batch(net):
    ex = net.explain(np.ones((0, 9)))
    assert ex.relevance.shape == (0, 9)
    assert ex.output.shape == (0, 5)


def test_against_another_class(net, x):
    out = net.forward(x)
    ex = net.explain(x, 2, "epsilon", against=4)
    np.testing.assert_array_equal(ex.target, [2, 2, 2, 2])
    parts = [net.explain(x, c, "epsilon").relevance for c in (2, 4)]
    np.testing.assert_allclose(ex.relevance, parts[0] - parts[1], rtol=0, atol=1e-12 * np.abs(parts).max())
    lost = ex.ledger.data[:, 2:].sum(axis=(0, 1))
    np.testing.assert_allclose(ex.relevance.sum(1) + lost, out[:, 2] - out[:, 4], atol=1e-10)
    others = [0, 1, 3, 4]
    logit, one = (net.explain(x, 2, "epsilon", against=others, start=s) for s in ("logit", "one"))
    difference = out[:, 2] - out[np.arange(4), others]
    np.testing.assert_allclose(one.layers["1"].sum(1), np.sign(difference), rtol=1e-12)
    np.testing.assert_allclose(one.relevance, logit.relevance / np.abs(difference)[:, None], rtol=1e-12)
    with pytest.raises(ValueError, match="against is the class that is explained"):
        net.explain(x, 2, against=2)
    with pytest.raises(ValueError, match="against goes with one target"):
        net.explain(x, out, against=2)


def test_weights_of_a_layer_that_is_used_twice_are_turned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, seen = L.Conv(np.ones((2, 2, 3)), padding=1), []
    turn = L.Conv.stored_for_core
    monkeypatch.setattr(L.Conv, "stored_for_core", lambda self: seen.append(self) or turn(self))
    nodes = [Node("a", shared, ("x",)), Node("b", shared, ("a",))]
    network = pylrp.Network.from_graph(Graph({"x": (2, 5)}, nodes, ["b"]))
    assert len(seen) == 1
    first, second = (node.layer for node in network.graph.nodes)
    assert first is second


@pytest.mark.parametrize("kernel", [(1,), (3,)])
def test_weights_of_convolutions_begin_at_a_cache_line(kernel: tuple[int, ...]) -> None:
    memory = np.arange(6 * 8 * 3 + 40, dtype=np.float32)
    for first in range(17):
        weight = memory[first : first + 48 * kernel[0]].reshape(6, 8, *kernel)
        network = pylrp.Network.from_graph(Graph({"x": (8, 5)}, [Node("a", L.Conv(weight), ("x",))], ["a"]))
        stored = network.graph.nodes[0].layer.weight
        assert stored.ctypes.data % 64 == 0
        np.testing.assert_array_equal(stored, weight)
