"""The ledger: what no input receives, by cause, against the oracle's own books and numbers worked out by hand."""

import numpy as np
import pytest
from reference.contributions import CAUSES, propagate
from reference.errors import assert_within, bound
from reference.networks import chain_rules, every_rule, forward_net, random_net, settle

import pylrp
from pylrp.layers import Affine, Dense, ReLU
from pylrp.network.ledger import COLUMNS, Ledger
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, WSquare, ZBox, Zero, ZPlus

W = np.array([[2.0, -1.0, -1.0], [-3.0, 1.0, 1.0]])  # the layer of rules/test_rules.py
A = np.array([1.0, 2.0, -2.0])
R = np.array([4.0, 6.0])
B = np.array([2.0, -3.0])


def account(W_list, acts, out, rules, biases=None):
    """Return the bottom layer's row."""
    return pylrp.relevance(W_list, acts, out, rules=rules, biases=biases, ledger=True)[1].layers[0]


def assert_row(row, incoming, outgoing, **causes):
    """Every column of a row; causes not named must be exactly zero."""
    np.testing.assert_allclose([row.incoming, row.outgoing], [incoming, outgoing], rtol=1e-14, atol=1e-15)
    for cause in ("bias", "stabilizer", "padding", "dead", "batchnorm"):
        if cause in causes:
            np.testing.assert_allclose(getattr(row, cause), causes[cause], rtol=1e-13, err_msg=cause)
        else:
            assert getattr(row, cause) == 0.0, cause
    assert abs(row.rounding) <= 1e-14


def test_bias_takes_its_share():
    # z = (4, -6), s = (4/4, 6/-6): 1 * 2 + (-1) * (-3)
    assert_row(account([W], [A], R, Zero(), [B]), 10.0, 5.0, bias=5.0)
    # z+ of neuron 0: 4 of 4 + 2, s = 4/6, 2 s; neuron 1 has b+ = 0
    assert_row(account([W], [A], R, ZPlus(stabilizer=0), [B]), 10.0, 26 / 3, bias=4 / 3)
    # 4 (6 + 4), 6/(11 + 9): 4 * .4 + 9 * .3
    assert_row(account([W], [A], R, WSquare(stabilizer=0), [B]), 10.0, 5.7, bias=1.6 + 2.7)
    # group +: 2 * 4/6 * 2; group -: -6/-8 * -3 = 2.25, with the sign of -beta: -2.25
    assert_row(account([W], [A], R, AlphaBeta(stabilizer=0), [B]), 10.0, 10 - 8 / 3 + 2.25, bias=8 / 3 - 2.25)
    # 4 of 10 for 2 b; 6/-14 times 2 b = -6
    assert_row(account([W], [A], R, Gamma(1.0, stabilizer=0), [B]), 10.0, 10 - 1.6 - 36 / 14, bias=1.6 + 36 / 14)


def test_the_stabilizer_takes_its_share():
    # s = (4/(2+2), 6/(-3-2)) = (1, -1.2): 2 * 1 + (-2) * (-1.2)
    assert_row(account([W], [A], R, Epsilon(2.0)), 10.0, 5.6, stabilizer=4.4)
    # both: z = (4, -6), s = (4/6, 6/-8): bias 2 * 2/3 + 3 * .75, stabiliser 2 * 2/3 + 2 * .75
    assert_row(account([W], [A], R, Epsilon(2.0), [B]), 10.0, 10 - 43 / 12 - 17 / 6, bias=43 / 12, stabilizer=17 / 6)
    # three inputs against 3 + 1: a quarter is lost
    assert_row(account([W], [A], R, Flat(stabilizer=1.0)), 10.0, 7.5, stabilizer=2.5)
    # a w - low w+ - high w- sum to 12 and 10: 4/13 and 6/11 are lost
    assert_row(account([W], [A], R, ZBox(-2, 3, stabilizer=1.0)), 10.0, 48 / 13 + 60 / 11, stabilizer=4 / 13 + 6 / 11)


def test_nothing_is_lost_where_nothing_takes():
    assert_row(account([W], [A], R, Zero()), 10.0, 10.0)
    assert_row(account([W], [A], R, AlphaBeta(stabilizer=0)), 10.0, 10.0)
    assert_row(account([np.ones((2, 2))], [A[:2]], R, Pass()), 10.0, 10.0)


DEAD = [  # rule, weights, input: z = 0 for a neuron
    (Zero(), [1.0, -1.0], [2.0, 2.0]),
    (Zero(), [1.0, 1.0], [0.0, 0.0]),
    (ZPlus(stabilizer=0), [-1.0, -2.0], [1.0, 1.0]),
    (WSquare(stabilizer=0), [0.0, 0.0], [1.0, 1.0]),
    (ZBox(0, 1, stabilizer=0), [1.0, 2.0], [0.0, 0.0]),
    (Gamma(stabilizer=0), [1.0, -1.0], [2.0, 2.0]),
    (Gamma(stabilizer=0.5), [1.0, -1.0], [2.0, 2.0]),  # no sign to favour: dropped, stabiliser or not
]


@pytest.mark.parametrize(("rule", "weights", "inputs"), DEAD)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [1, 9])
def test_neurons_without_receiver(rule, weights, inputs, dtype, batch):
    # A second neuron that works stands beside the dead one.
    w = np.array([weights, [1.0, 1.0]], dtype)
    a, r = np.tile(np.array([inputs], dtype), (batch, 1)), np.tile(np.array([[3.0, 0.0]], dtype), (batch, 1))
    R_in, ledger = pylrp.relevance([w], [a], r, rules=rule, ledger=True)
    np.testing.assert_array_equal(R_in, np.zeros((batch, 2)))
    row = ledger.layers[0]
    np.testing.assert_array_equal(row.dead, np.full(batch, 3.0))
    for cause in ("outgoing", "bias", "stabilizer", "rounding"):
        np.testing.assert_array_equal(getattr(row, cause), np.zeros(batch), err_msg=cause)


def test_a_stabilizer_where_z_is_zero_follows_the_formula():
    # contributions (2, -2), z = 0, s = 3/0.5: (12, -12) reach the input, 3 reach nobody
    R_in, ledger = pylrp.relevance(
        [np.array([[1.0, -1.0]])], [np.array([2.0, 2.0])], np.array([3.0]), rules=Epsilon(0.5), ledger=True
    )
    np.testing.assert_array_equal(R_in, [12.0, -12.0])
    assert_row(ledger.layers[0], 3.0, 0.0, dead=3.0)


@pytest.mark.parametrize("stabilizer", [0.0, 1e-6])
@pytest.mark.parametrize("batch", [None, 1, 7])
def test_alpha_beta_with_positive_contributions_only(batch, stabilizer):
    # alpha = 2 gives twice the relevance; the group of -beta = -1 has nobody to take it from: dead = -R.
    w, a, r = np.array([[1.0, 3.0]]), np.array([1.0, 1.0]), np.array([8.0])
    if batch is not None:
        a, r = np.tile(a, (batch, 1)), np.tile(r, (batch, 1))
    R_in, ledger = pylrp.relevance([w], [a], r, rules=AlphaBeta(2, 1, stabilizer=stabilizer), ledger=True)
    np.testing.assert_allclose(R_in, np.broadcast_to([4.0, 12.0], a.shape), rtol=1e-6)
    row = ledger.layers[0]
    assert row.dead.shape == r.shape[:-1]
    np.testing.assert_array_equal(row.dead, np.full(r.shape[:-1], -8.0))
    np.testing.assert_allclose(row.outgoing, 16.0, rtol=1e-6)
    np.testing.assert_allclose(row.stabilizer, 16.0 * stabilizer / (4 + stabilizer), rtol=1e-6)


def test_a_dead_neuron_ends_a_chain():
    # Both hidden neurons get 2; neuron 1 has no weights: its 2 are lost at the bottom.
    W_list = [np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[1.0, 1.0]])]
    acts = [np.ones(2), np.ones(2)]
    R_in, ledger = pylrp.relevance(W_list, acts, np.array([4.0]), ledger=True)
    np.testing.assert_allclose(R_in, [18 / 25, 32 / 25], rtol=1e-15)
    assert_row(ledger.layers[1], 4.0, 4.0)
    assert_row(ledger.layers[0], 4.0, 2.0, dead=2.0)


@pytest.mark.parametrize("composite", ["cp_lrp", "epsilon"])  # coefficients go down, or relevance
@pytest.mark.parametrize(("scale", "cause"), [(1.0, "constant"), ([1.0, 1.0], "constant"), (2.0, "batchnorm")])
def test_what_is_added_alone_is_a_constant(composite, scale, cause):
    layers = [Dense(np.eye(2)), ReLU(), Affine(scale, [1.0, 2.0]), ReLU(), Dense([[1.0, 1.0]])]
    ex = pylrp.Network(layers).explain(np.array([3.0, 4.0]), 0, composite=composite)
    taken = {name: sum(getattr(row, name) for row in ex.ledger) for name in ("constant", "batchnorm")}
    np.testing.assert_allclose(taken.pop(cause), 3.0, rtol=1e-5)
    assert list(taken.values()) == [0.0]
    np.testing.assert_allclose(ex.relevance, np.multiply(scale, [3.0, 4.0]), rtol=1e-5)


def assert_books(ledger, net, rule_list, dtype, exact):
    """Every column of every layer against the oracle, the bound growing from layer to layer."""
    outcomes = propagate(net.W, net.acts, net.out, rule_list, net.biases)
    R_top, error = np.asarray(net.out, np.float64), 0.0
    for index in reversed(range(len(net.W))):
        row, outcome = ledger.layers[index], outcomes[index]
        allowed = bound(outcome, R_top, dtype, error, exact)
        assert_within(row.incoming, R_top.sum(axis=1), allowed.rounding, f"layer {index}, incoming")
        assert_within(row.outgoing, outcome.relevance.sum(axis=1), allowed.rounding, f"layer {index}, outgoing")
        for cause in CAUSES:
            assert_within(getattr(row, cause), outcome.causes[cause], allowed.causes[cause], f"layer {index}, {cause}")
        assert not row.padding.any()
        assert not row.batchnorm.any()
        assert_within(row.rounding, np.zeros(len(R_top)), allowed.rounding, f"layer {index}, rounding")
        columns = {name: getattr(row, name) for name in COLUMNS}
        rest = columns.pop("incoming") - sum(columns.values())
        size = sum(np.abs(values) for values in columns.values())
        assert_within(rest, np.zeros(len(R_top)), 16 * np.finfo(np.float64).eps * size, f"layer {index}, the sum")
        R_top, error = outcome.relevance, allowed.relevance


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [1, 3, 21])
@pytest.mark.parametrize("rule", every_rule(37), ids=repr)
def test_every_rule(rng, rule, batch, dtype):
    exact = random_net(rng, (37, 29), batch, grid=True, zeros=0.3).astype(dtype)
    ledger = pylrp.relevance(exact.W, exact.acts, exact.out, rules=rule, biases=exact.biases, ledger=True)[1]
    assert_books(ledger, exact, [rule], dtype, exact=True)
    rounded = settle(random_net(rng, (37, 29), batch, zeros=0.3), rule, dtype)
    ledger = pylrp.relevance(rounded.W, rounded.acts, rounded.out, rules=rule, biases=rounded.biases, ledger=True)[1]
    assert_books(ledger, rounded, [rule], dtype, exact=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("which", range(6))
def test_chains(rng, which, dtype):
    net = random_net(rng, (19, 33, 17, 8, 5), 6, grid=True, zeros=0.4).astype(dtype)
    rule_list = chain_rules(19)[which]
    ledger = pylrp.relevance(net.W, net.acts, net.out, rules=rule_list, biases=net.biases, ledger=True)[1]
    assert_books(ledger, net, rule_list, dtype, exact=True)


def test_from_output_to_input_nothing_goes_missing(rng):
    net = forward_net(rng, (50, 40, 30, 10), 8)
    R_in, ledger = pylrp.relevance(net.W, net.acts, net.out, rules="epsilon_plus_flat", biases=net.biases, ledger=True)
    taken = sum(getattr(row, name) for row in ledger.layers for name in COLUMNS[2:])
    np.testing.assert_allclose(R_in.sum(axis=1) + taken, net.out.sum(axis=1), rtol=1e-12, atol=1e-13)
    for lower, upper in zip(ledger.layers, ledger.layers[1:], strict=False):
        np.testing.assert_array_equal(lower.incoming, upper.outgoing)


def test_rounding_is_measured_not_assumed(rng):
    # float32 leaves a trace, float64 next to none: the column is computed from the result, not set to zero.
    net = forward_net(rng, (300, 200), 5)
    rounding = [
        pylrp.relevance(part.W, part.acts, part.out, rules=Epsilon(0.5), biases=part.biases, ledger=True)[1]
        .layers[0]
        .rounding
        for part in (net.astype(np.float32), net)
    ]
    assert (np.abs(rounding[0]) > 1e-10).any()
    assert (np.abs(rounding[1]) < 1e-12).all()


@pytest.mark.parametrize(("batch", "shape"), [(None, ()), (1, (1,)), (4, (4,)), (0, (0,))])
def test_shapes_and_table(rng, batch, shape):
    net = random_net(rng, (6, 5, 4), batch or 0)
    acts, out = net.acts, net.out
    if batch is None:
        acts, out = [rng.standard_normal(6), rng.standard_normal(5)], rng.standard_normal(4)
    R_in, ledger = pylrp.relevance(net.W, acts, out, rules=[Flat(), Epsilon(0.5)], biases=net.biases, ledger=True)
    assert R_in.shape == (*shape, 6)
    assert isinstance(ledger, Ledger)
    assert len(ledger.layers) == 2
    for row in ledger.layers:
        for name in COLUMNS:
            values = np.asarray(getattr(row, name))
            assert values.shape == shape
            assert values.dtype == np.float64
    assert "Flat" in str(ledger.layers[0].rule)
    text = ledger.table()
    assert text == str(ledger)
    for word in ("incoming", "outgoing", "rounding", "Flat", "Epsilon"):
        assert word in text


def test_the_table_shows_the_numbers():
    ledger = pylrp.relevance([W], [A], R, rules=Epsilon(2.0), biases=[B], ledger=True)[1]
    for number in (10.0, 10 - 43 / 12 - 17 / 6, 43 / 12, 17 / 6):
        assert f"{number:.4g}" in ledger.table()


def test_the_ledger_does_not_change_the_result(rng):
    net = random_net(rng, (33, 21, 9), 13)
    plain = pylrp.relevance(net.W, net.acts, net.out, rules="epsilon", biases=net.biases)
    with_ledger, _ = pylrp.relevance(net.W, net.acts, net.out, rules="epsilon", biases=net.biases, ledger=True)
    np.testing.assert_array_equal(plain, with_ledger)
    layers, _ = pylrp.relevance(
        net.W, net.acts, net.out, rules="epsilon", biases=net.biases, ledger=True, return_layers=True
    )
    np.testing.assert_array_equal(layers[0], plain)
    assert len(layers) == 3


def test_a_row_prints_on_one_line():
    """Sums over the batch, and no column of zeros."""
    ledger = pylrp.relevance([W], [np.tile(A, (50, 1))], np.tile(R, (50, 1)), rules=Epsilon(2.0), ledger=True)[1]
    line = repr(ledger[0])
    assert "\n" not in line
    assert len(line) < 200
    assert f"incoming={ledger[0].incoming.sum():.4g}" in line
    assert f"stabilizer={ledger[0].stabilizer.sum():.4g}" in line
    assert "padding" not in line
