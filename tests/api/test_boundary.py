"""Bad input gets one clear error and nothing else; odd but honest input gets the right answer.

Messages are tested for what a user needs to find the mistake (the layer, both shapes, the index of the entry), not for
their wording.
"""

import pickle

import numpy as np
import pytest
from boundary import at, explain, says, zeros
from reference.networks import LAYOUTS, random_net, relayout

import pylrp
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, WSquare, ZBox, Zero, ZPlus


@pytest.fixture
def net(rng):
    """Layers 5 -> 4 -> 3 and a batch of 2."""
    return random_net(rng, (5, 4, 3), 2)


WRONG_SHAPES = [
    # changes, what the message must hold
    ({"acts1": zeros(2, 6)}, ["layer 1", "(3, 4)", "6"]),
    ({"acts0": zeros(2, 4)}, ["layer 0", "(4, 5)", "4 features"]),
    ({"W1": zeros(3, 6)}, ["layer 1", "(3, 6)", "4"]),
    ({"W0": zeros(6, 5), "biases": None}, ["layer 1", "(3, 4)", "6"]),
    ({"out": zeros(2, 7)}, ["layer 1", "(3, 4)", "7"]),
    ({"acts0": zeros(3, 5)}, ["layer 0", "(3, 5)", "(2, 3)"]),
    ({"acts1": zeros(1, 4)}, ["layer 1", "(1, 4)", "(2, 3)"]),
    ({"out": zeros(4, 3)}, ["(4, 3)", "(2, "]),
    ({"acts0": zeros(5)}, ["layer 0", "(5,)", "(2, 3)"]),
    ({"out": zeros(3)}, ["(3,)", "(2, "]),
    ({"W1": zeros(4)}, ["layer 1", "(4,)"]),
    ({"W0": zeros(1, 4, 5)}, ["layer 0", "(1, 4, 5)"]),
    ({"W1": np.float64(3.0)}, ["layer 1", "()"]),
    ({"acts1": zeros(2, 4, 1)}, ["layer 1", "(2, 4, 1)"]),
    ({"acts0": np.float64(3.0)}, ["layer 0", "()"]),
    ({"out": zeros(2, 3, 1)}, ["(2, 3, 1)"]),
    ({"out": np.float64(3.0)}, ["out", "()"]),
    ({"biases1": zeros(4)}, ["layer 1", "(4,)", "(3, 4)"]),
    ({"biases0": zeros(4, 1)}, ["layer 0", "(4, 1)", "(4, 5)"]),
    ({"biases0": zeros(1)}, ["layer 0", "(1,)", "(4, 5)"]),
]


@pytest.mark.parametrize(("changes", "parts"), WRONG_SHAPES)
def test_wrong_shapes(net, changes, parts):
    with pytest.raises(ValueError, match=says(*parts)):
        explain(net, **changes)


def test_weights_the_other_way_round(net):
    with pytest.raises(ValueError, match=says("transpose", ".T", "(4, 3)")):
        explain(net, W=[w.T for w in net.W], biases=None)


def test_columns_instead_of_rows(net):
    # What a MATLAB user has: x is (5, 1), each activation (n, 1).
    columns = {"acts": [zeros(5, 1), zeros(4, 1)], "out": zeros(3, 1)}
    with pytest.raises(ValueError, match=says("acts[0]", "(5, 1)", ".T", "columns")):
        explain(net, **columns)
    with pytest.raises(ValueError, match=says("acts[0]", "(5, 2)", ".T", "columns")):
        explain(net, acts0=zeros(5, 2))
    with pytest.raises(ValueError, match=says("out", "(3, 1)", ".T", "columns")):
        explain(net, acts=[zeros(1, 5), zeros(1, 4)], out=zeros(3, 1))
    with pytest.raises(ValueError, match=says("out", "(3, 1)", ".T", "columns")):
        pylrp.relevance(net.W[:1] + net.W[1:], [None, zeros(1, 4)], zeros(3, 1))


LENGTHS = [
    ({"acts": [zeros(2, 5)]}, ["acts", "2", "1"]),
    ({"W": [zeros(4, 5)]}, ["W_list", "1", "2"]),
    ({"biases": [zeros(4)]}, ["biases", "2", "1"]),
    ({"rules": [Epsilon()]}, ["rules", "2", "1"]),
    ({"rules": [Epsilon()] * 3}, ["rules", "2", "3"]),
    ({"W": [], "acts": [], "biases": []}, ["empty"]),
]


@pytest.mark.parametrize(("changes", "parts"), LENGTHS)
def test_lists_of_different_lengths(net, changes, parts):
    with pytest.raises(ValueError, match=says(*parts)):
        explain(net, **changes)


def test_output_among_the_activations(net):
    with pytest.raises(ValueError, match=says("3", "2", "acts[:-1]")):
        explain(net, acts=[*net.acts, net.out])


NOT_FINITE = [("W0", (3, 1)), ("W1", (0, 2)), ("acts0", (1, 4)), ("acts1", (0, 0)), ("out", (1, 2)), ("biases0", (3,))]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "index"), NOT_FINITE)
@pytest.mark.parametrize("rules", ["epsilon", "deep_taylor", AlphaBeta(), Gamma(), ZBox(-9, 9), Flat()], ids=str)
def test_not_finite(net, name, index, value, rules):
    source = net.out if name == "out" else getattr(net, name[:-1])[int(name[-1])]
    bad = source.copy()
    bad[index] = value
    listed = {"W": "W_list"}.get(name[:-1], name[:-1]) + f"[{name[-1]}]" if name != "out" else "out"
    with pytest.raises(ValueError, match=says(listed, "inf" if np.isinf(value) else "nan") + at(*index)):
        explain(net, rules=rules, **{name: bad})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("position", [0, 15, 16, 40, 64, 69])
def test_not_finite_is_found_anywhere_in_a_row(rng, position, dtype):
    net = random_net(rng, (70, 3), 2).astype(dtype)
    for array in (net.W[0], net.acts[0]):
        bad = array.copy()
        bad[1, position] = np.nan
        with pytest.raises(ValueError, match=at(1, position)):
            explain(net, **{"W0" if array is net.W[0] else "acts0": bad})


@pytest.mark.parametrize("batch", [1, 30])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_where_no_relevance_goes(rng, value, batch):
    # Rows whose relevance is zero need not be read; they are checked all the same.
    net = random_net(rng, (5, 4, 3), batch)
    for rules in ("epsilon", "deep_taylor"):
        bad = net.W[1].copy()
        bad[2, 1] = value
        out = net.out.copy()
        out[:, 2] = 0.0
        with pytest.raises(ValueError, match=says("W_list[1]") + at(2, 1)):
            explain(net, rules=rules, W1=bad, out=out)


@pytest.mark.parametrize("rules", ["epsilon", "epsilon_plus_flat", Gamma()], ids=str)
def test_weights_changed_in_place(net, rules):
    explain(net, rules=rules)
    net.W[1][1, 2] = np.nan
    with pytest.raises(ValueError, match=says("W_list[1]", "nan") + at(1, 2)):
        explain(net, rules=rules)
    net.W[1][1, 2] = 1.0
    assert np.isfinite(explain(net, rules=rules)).all()


def test_overflow():
    big = np.full((1, 3), 1e30, np.float32)
    with pytest.raises(ValueError, match=says("overflow", "float32")):
        pylrp.relevance([big], [big], np.ones((1, 1), np.float32), rules="epsilon")
    # z = 2e20 - 2e20 = 0, s = 1e25 / 1e-6, each input gets 2e20 s
    cancel, twos, R = (np.array([v], np.float32) for v in ([1e20, -1e20], [2.0, 2.0], [1e25]))
    with pytest.raises(ValueError, match=says("overflow", "float32")):
        pylrp.relevance([cancel], [twos], R, rules=Epsilon())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("convention", ["zennit", "innvestigate", "lrp_toolbox"])
@pytest.mark.parametrize("rule", [Zero(), ZPlus(stabilizer=0), AlphaBeta(stabilizer=0), WSquare(stabilizer=0)], ids=str)
@pytest.mark.parametrize("batch", [1, 20])
def test_zero_over_zero(rule, convention, batch, dtype):
    W, a, R = (np.zeros(shape, dtype) for shape in ((3, 5), (batch, 5), (batch, 3)))
    R_in, ledger = pylrp.relevance([W], [a], R + dtype(2), rules=rule, convention=convention, ledger=True)
    np.testing.assert_array_equal(R_in, np.zeros((batch, 5)))
    row = ledger.layers[0]
    served = row.incoming - 6.0 * (rule.alpha - rule.beta if isinstance(rule, AlphaBeta) else 1.0)
    np.testing.assert_array_equal(served, np.zeros(batch))
    np.testing.assert_allclose(row.dead + row.stabilizer, row.incoming, rtol=1e-6)
    assert (np.abs(row.rounding) < 1e-6).all()


EVERY = [
    "epsilon",
    "epsilon_plus_flat",
    [WSquare(0), ZPlus(0)],
    Gamma(),
    AlphaBeta(),
    ZBox(-1, 1),
    Zero(),
    Norm(),
    WSquare(),
]


@pytest.mark.parametrize("rules", EVERY, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_empty_batch(rng, rules, dtype):
    net = random_net(rng, (5, 4, 3), 0).astype(dtype)
    R_in, ledger = explain(net, rules=rules, ledger=True)
    assert R_in.shape == (0, 5)
    assert R_in.dtype == dtype
    assert [row.incoming.shape for row in ledger.layers] == [(0,), (0,)]
    assert "Ledger" in repr(ledger)
    assert [r.shape for r in explain(net, rules=rules, return_layers=True)] == [(0, 5), (0, 4), (0, 3)]


@pytest.mark.parametrize("batch", [0, 1, 9])
def test_layers_without_neurons(batch):
    # Nobody hands out, or nobody receives.
    R_in = pylrp.relevance([zeros(0, 3)], [zeros(batch, 3)], zeros(batch, 0), rules="epsilon")
    np.testing.assert_array_equal(R_in, zeros(batch, 3))
    R_in, ledger = pylrp.relevance(
        [zeros(2, 0)], [zeros(batch, 0)], zeros(batch, 2) + 1.0, rules="epsilon", ledger=True
    )
    assert R_in.shape == (batch, 0)
    np.testing.assert_array_equal(ledger.layers[0].dead, np.full(batch, 2.0))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [1, 2, 30])
def test_memory_layouts(rng, layout, dtype, batch):
    net = random_net(rng, (37, 18, 5), batch).astype(dtype)
    expected = explain(net, return_layers=True)
    actual = explain(
        net,
        W=[relayout(w, layout) for w in net.W],
        acts=[relayout(a, layout) for a in net.acts],
        biases=[relayout(b, layout) for b in net.biases],
        out=relayout(net.out, layout),
        return_layers=True,
    )
    for mine, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == np.dtype(dtype)
        assert mine.flags.writeable


def test_rows_far_apart_and_backwards(rng):
    # What is used in place, without a copy: contiguous rows at any distance, also negative or zero.
    net = random_net(rng, (7, 6), 4)
    wide = rng.standard_normal((12, 40))
    views = wide[::2, 3:10], wide[::-2, 3:10], np.broadcast_to(wide[0, 3:10], (6, 7))
    for W in views:
        np.testing.assert_array_equal(explain(net, W=[W]), explain(net, W=[W.copy()]))
    one = np.broadcast_to(net.acts[0][:1], (4, 7))
    np.testing.assert_array_equal(explain(net, acts=[one]), explain(net, acts=[one.copy()]))


def test_unpickled_arrays(net):
    # Their dtype equals numpy's but is another object; so it is in every process pool.
    again = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(explain(again), explain(net))
    np.testing.assert_array_equal(explain(net, W0=again.W[0]), explain(net))
    np.testing.assert_array_equal(explain(net, out=again.out), explain(net))
    np.testing.assert_array_equal(explain(net, out=net.out.astype(">f8"), acts0=net.acts[0]), explain(net))


class Tagged(np.ndarray):
    """A subclass, as other packages make them."""


def test_lists_tuples_and_subclasses(net):
    expected = explain(net)
    as_lists = explain(net, W=[w.tolist() for w in net.W], acts=[a.tolist() for a in net.acts], out=net.out.tolist())
    np.testing.assert_array_equal(as_lists, expected)
    np.testing.assert_array_equal(
        explain(net, W=tuple(net.W), acts=tuple(net.acts), biases=tuple(net.biases)), expected
    )
    tagged = explain(net, W0=net.W[0].view(Tagged), acts1=net.acts[1].view(Tagged), out=net.out.view(Tagged))
    np.testing.assert_array_equal(tagged, expected)
    assert type(tagged) is np.ndarray


def test_two_layers_may_share_an_array(rng):
    W, a = rng.standard_normal((6, 6)), rng.standard_normal((3, 6))
    shared = pylrp.relevance([W, W], [a, a], a, rules="epsilon")
    apart = pylrp.relevance([W, W.copy()], [a, a.copy()], a.copy(), rules="epsilon")
    np.testing.assert_array_equal(shared, apart)
