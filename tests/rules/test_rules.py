"""The rules of `pylrp.relevance`, from numbers worked out by hand to whole chains.

If only one test file is read, then this one: what each rule computes stands in the comments. `test_properties.py` goes
on with random layers, `network/test_ledger.py` with what no input receives.
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from reference.contributions import CAUSES, ORACLES, propagate
from reference.errors import assert_within, bound
from reference.networks import Net, chain_rules, every_rule, forward_net, random_net, settle

import pylrp
from pylrp import rules
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, Pass, WSquare, ZBox, Zero, ZPlus

# Two neurons, three signed inputs, a = (1, 2, -2):
#   neuron 0: w = ( 2, -1, -1), contributions a w = ( 2, -2,  2), their sum  2 (+4 -2), R = 4
#   neuron 1: w = (-3,  1,  1), contributions a w = (-3,  2, -2), their sum -3 (+2 -5), R = 6
W = np.array([[2.0, -1.0, -1.0], [-3.0, 1.0, 1.0]])
A = np.array([1.0, 2.0, -2.0])
R = np.array([4.0, 6.0])
B = np.array([2.0, -3.0])

# Each: rule, R_in of neuron 0, R_in of neuron 1; the two add up.
WITHOUT_BIAS = [
    # 4/2 (2, -2, 2) and 6/-3 (-3, 2, -2)
    (Zero(), (4, -4, 4), (6, -4, 4)),
    # epsilon with the sign of z: 4/(2+2) = 1 and 6/(-3-2) = -1.2
    (Epsilon(epsilon=2.0), (2, -2, 2), (3.6, -2.4, 2.4)),
    (Norm(stabilizer=2.0), (2, -2, 2), (3.6, -2.4, 2.4)),
    # gamma 1 doubles what has the sign of z: (4, -2, 4), 4/6; and (-6, 2, -4), 6/-8
    (Gamma(gamma=1.0, stabilizer=0.0), (8 / 3, -4 / 3, 8 / 3), (4.5, -1.5, 3)),
    # positive contributions only: (2, 0, 2), 4/4; and (0, 2, 0), 6/2
    (ZPlus(stabilizer=0.0), (2, 0, 2), (0, 6, 0)),
    # twice z+ less the negative contributions' share: (0, -2, 0) 4/-2 = (0, 4, 0); (-3, 0, -2) 6/-5 = (3.6, 0, 2.4)
    (AlphaBeta(alpha=2, beta=1, stabilizer=0.0), (4, -4, 4), (-3.6, 12, -2.4)),
    # w^2 = (4, 1, 1), 4/6; and (9, 1, 1), 6/11
    (WSquare(stabilizer=0.0), (8 / 3, 2 / 3, 2 / 3), (54 / 11, 6 / 11, 6 / 11)),
    # a third each
    (Flat(stabilizer=0.0), (4 / 3, 4 / 3, 4 / 3), (2, 2, 2)),
    # a w - low w+ - high w-: (2+4, -2+3, 2+3) = (6, 1, 5), 4/12; and (-3+9, 2+2, -2+2) = (6, 4, 0), 6/10
    (ZBox(-2.0, 3.0, stabilizer=0.0), (2, 1 / 3, 5 / 3), (3.6, 2.4, 0)),
    # bounds for each input, low (0, -2, -3), high (1, 2, 0): lw+ + hw- = (0, -2, 0) and (-3, -2, -3):
    # (2, 0, 2), 4/4; and (0, 4, 1), 6/5
    (ZBox(np.array([0.0, -2.0, -3.0]), np.array([1.0, 2.0, 0.0]), stabilizer=0.0), (2, 0, 2), (0, 4.8, 1.2)),
]
WITH_BIAS = [  # b = (2, -3): neuron 0 has the output 4, neuron 1 has -6
    # 4/4 and 6/-6
    (Zero(), (2, -2, 2), (3, -2, 2)),
    # 4/(4+2) and 6/(-6-2)
    (Epsilon(epsilon=2.0), (4 / 3, -4 / 3, 4 / 3), (2.25, -1.5, 1.5)),
    (Norm(stabilizer=2.0), (4 / 3, -4 / 3, 4 / 3), (2.25, -1.5, 1.5)),
    # the bias is doubled like the rest: (4, -2, 4), 4/(6+4); and (-6, 2, -4), 6/(-8-6)
    (Gamma(gamma=1.0, stabilizer=0.0), (1.6, -0.8, 1.6), (36 / 14, -12 / 14, 24 / 14)),
    # positive biases join the positive contributions: 4/(4+2); and 6/(2+0)
    (ZPlus(stabilizer=0.0), (4 / 3, 0, 4 / 3), (0, 6, 0)),
    # negative biases the negative ones: (0, -2, 0) 4/(-2+0); (-3, 0, -2) 6/(-5-3) = (2.25, 0, 1.5)
    (AlphaBeta(alpha=2, beta=1, stabilizer=0.0), (8 / 3, -4, 8 / 3), (-2.25, 12, -1.5)),
    # b^2 in the denominator: (4, 1, 1), 4/(6+4); and (9, 1, 1), 6/(11+9)
    (WSquare(stabilizer=0.0), (1.6, 0.4, 0.4), (2.7, 0.3, 0.3)),
    # no bias at all
    (Flat(stabilizer=0.0), (4 / 3, 4 / 3, 4 / 3), (2, 2, 2)),
    # cancels
    (ZBox(-2.0, 3.0, stabilizer=0.0), (2, 1 / 3, 5 / 3), (3.6, 2.4, 0)),
]


def ids(case: object) -> str | None:
    """Name a rule by its class."""
    return type(case).__name__ if isinstance(case, rules.Rule) else None


@pytest.mark.parametrize(("rule", "neuron0", "neuron1"), WITHOUT_BIAS, ids=ids)
def test_worked_out_without_bias(rule, neuron0, neuron1):
    expected = np.add(neuron0, neuron1)
    np.testing.assert_allclose(pylrp.relevance([W], [A], R, rules=rule), expected, rtol=1e-14, atol=1e-15)
    batch = pylrp.relevance([W], [np.stack([A, A])], np.array([[4.0, 0.0], [0.0, 6.0]]), rules=rule)
    np.testing.assert_allclose(batch, [neuron0, neuron1], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(("rule", "neuron0", "neuron1"), WITH_BIAS, ids=ids)
def test_worked_out_with_bias(rule, neuron0, neuron1):
    expected = np.add(neuron0, neuron1)
    np.testing.assert_allclose(pylrp.relevance([W], [A], R, rules=rule, biases=[B]), expected, rtol=1e-14, atol=1e-15)


WITH_OPTION = [case for case in WITHOUT_BIAS if "bias" in {f.name for f in dataclasses.fields(case[0])}]


@pytest.mark.parametrize(("rule", "neuron0", "neuron1"), WITH_OPTION, ids=ids)
def test_bias_false_leaves_the_bias_out(rule, neuron0, neuron1):
    rule = dataclasses.replace(rule, bias=False)
    R_in = pylrp.relevance([W], [A], R, rules=rule, biases=[B])
    np.testing.assert_allclose(R_in, np.add(neuron0, neuron1), rtol=1e-14, atol=1e-15)


def test_gamma_asks_the_biased_output_which_sign_to_favour():
    # a w = (2, -1), sum 1; b = -2 makes the output -1: negative contributions are doubled, bias or not (zennit's way).
    w, a, b, r = np.array([[2.0, -1.0]]), np.ones(2), np.array([-2.0]), np.array([3.0])
    # with the bias: 2 - 2 - 4 = -4, 3/-4 (2, -2); without: 2 - 2 = 0, no receiver
    np.testing.assert_allclose(pylrp.relevance([w], [a], r, rules=Gamma(1.0, stabilizer=0.0), biases=[b]), [-1.5, 1.5])
    without = pylrp.relevance([w], [a], r, rules=Gamma(1.0, stabilizer=0.0, bias=False), biases=[b])
    np.testing.assert_array_equal(without, [0.0, 0.0])


def test_pass_hands_relevance_on():
    R_in = pylrp.relevance([np.full((3, 3), 7.0)], [A], np.array([1.0, -2.0, 3.0]), rules=Pass())
    np.testing.assert_array_equal(R_in, [1.0, -2.0, 3.0])


def test_two_layers_worked_out():
    # the default: z+ then w^2, 2-2-1; hidden a = (1, 3), top w = (2, -1): z+ = 2, so R_1 = (6, 0);
    # bottom neuron 0: w = (3, -1), w^2 = (9, 1): 6 (0.9, 0.1)
    W_list = [np.array([[3.0, -1.0], [5.0, 5.0]]), np.array([[2.0, -1.0]])]
    acts = [np.array([1.0, 1.0]), np.array([1.0, 3.0])]
    np.testing.assert_allclose(pylrp.relevance(W_list, acts, np.array([6.0])), [5.4, 0.6], rtol=1e-15)


def question(W_list, acts, out):
    """The two equations as they stand, for one sample; w[j][i] leads from i to j."""
    R_j = [float(r) for r in out]
    for layer in reversed(range(1, len(W_list))):  # R_i = sum_j a_i w+_ij / (sum_k a_k w+_kj) R_j
        w, a = W_list[layer].tolist(), acts[layer].tolist()
        R_i = [0.0] * len(a)
        for i in range(len(a)):
            for j in range(len(w)):
                z = 0.0
                for k in range(len(a)):
                    z += a[k] * max(w[j][k], 0.0)
                if z > 0.0:
                    R_i[i] += a[i] * max(w[j][i], 0.0) / z * R_j[j]
        R_j = R_i
    w = W_list[0].tolist()
    R_i = [0.0] * len(w[0])
    for i in range(len(w[0])):  # R_i = sum_j w_ij^2 / (sum_k w_kj^2) R_j
        for j in range(len(w)):
            z = 0.0
            for k in range(len(w[0])):
                z += w[j][k] ** 2
            R_i[i] += w[j][i] ** 2 / z * R_j[j]
    return R_i


@pytest.mark.parametrize("widths", [(5, 3), (7, 6, 4), (13, 11, 9, 5)])
def test_default_is_the_question(rng, widths):
    net = forward_net(rng, widths, 3, biases=False)
    R_in = pylrp.relevance(net.W, [None, *net.acts[1:]], net.out)
    for n in range(3):
        expected = question(net.W, [a[n] for a in net.acts], net.out[n])
        np.testing.assert_allclose(R_in[n], expected, rtol=1e-13, atol=1e-15)


def assert_chain(result: list, net: Net, rule_list: list, dtype: type, exact: bool) -> None:
    """Compare `return_layers` with the oracle; the bound grows from layer to layer."""
    outcomes = propagate(net.W, net.acts, net.out, rule_list, net.biases)
    R, error = np.asarray(net.out, np.float64), 0.0
    np.testing.assert_array_equal(result[-1], net.out)
    for index in reversed(range(len(net.W))):
        allowed = bound(outcomes[index], R, dtype, error, exact).relevance
        assert_within(result[index], outcomes[index].relevance, allowed, f"{rule_list[index]}, layer {index}")
        R, error = outcomes[index].relevance, allowed


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("which", range(6))
def test_chains(rng, dtype, biases, which):
    net = random_net(rng, (19, 33, 17, 8, 5), 4, grid=True, zeros=0.2, biases=biases).astype(dtype)
    rule_list = chain_rules(19)[which]
    result = pylrp.relevance(net.W, net.acts, net.out, rules=rule_list, biases=net.biases, return_layers=True)
    assert [r.shape for r in result] == [(4, 19), (4, 33), (4, 17), (4, 8), (4, 5)]
    assert {r.dtype for r in result} == {np.dtype(dtype)}
    assert_chain(result, net, rule_list, dtype, exact=True)
    last = pylrp.relevance(net.W, net.acts, net.out, rules=rule_list, biases=net.biases)
    np.testing.assert_array_equal(last, result[0])


@pytest.mark.parametrize("rule", every_rule(40), ids=repr)
def test_a_real_forward_pass(rng, rule):
    net = forward_net(rng, (40, 30, 20, 10), 5)
    top = Net(net.W[2:], net.acts[2:], net.out, net.biases[2:])
    if isinstance(rule, ZBox):
        rule = ZBox(-50.0, 50.0)
    result = pylrp.relevance(top.W, top.acts, top.out, rules=rule, biases=top.biases, return_layers=True)
    assert_chain(result, top, [rule], np.float64, exact=False)


# Widths, batch, share of zeros in the relevance: past every block of the kernels, and so sparse that rows are skipped.
WIDE = [
    ((1031, 263), 1, 0.5),
    ((263, 1031), 4, 0.5),
    ((520, 600), 67, 0.5),
    ((300, 520), 67, 0.98),
    ((9, 800), 4100, 0.0),
]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("widths", "batch", "zeros"), WIDE, ids=str)
def test_wide_layers_and_large_batches(rng, widths, batch, zeros, dtype):
    rows = np.unique([0, batch // 2, batch - 1])  # the oracle looks at these
    for rule in (Epsilon(0.25), Gamma(stabilizer=0.25), AlphaBeta(), WSquare(), ZBox(-9.0, 9.0)):
        net = random_net(rng, widths, batch, zeros=0.1)
        net = Net(net.W, net.acts, np.where(rng.random(net.out.shape) < zeros, 0.0, net.out), net.biases).astype(dtype)
        part = settle(Net(net.W, [net.acts[0][rows]], net.out[rows], net.biases), rule, dtype)
        net.out[rows] = part.out
        R_in, ledger = pylrp.relevance(net.W, net.acts, net.out, rules=rule, biases=net.biases, ledger=True)
        expected = propagate(part.W, part.acts, part.out, [rule], part.biases)[0]
        allowed = bound(expected, part.out, dtype)
        assert_within(R_in[rows], expected.relevance, allowed.relevance, repr(rule))
        for cause in CAUSES:
            actual = getattr(ledger.layers[0], cause)[rows]
            assert_within(actual, expected.causes[cause], allowed.causes[cause], f"{rule}, {cause}")
        assert_within(ledger.layers[0].rounding[rows], np.zeros(len(rows)), allowed.rounding, f"{rule}, rounding")


def test_one_rule_serves_every_layer_and_a_list_each_its_own(rng):
    net = random_net(rng, (6, 5, 4), 3, grid=True)
    every = pylrp.relevance(net.W, net.acts, net.out, rules=Gamma())
    np.testing.assert_array_equal(every, pylrp.relevance(net.W, net.acts, net.out, rules=[Gamma(), Gamma()]))
    first, second = Epsilon(0.5), AlphaBeta()
    upper = pylrp.relevance(net.W[1:], net.acts[1:], net.out, rules=second)
    expected = pylrp.relevance(net.W[:1], net.acts[:1], upper, rules=first)
    np.testing.assert_array_equal(pylrp.relevance(net.W, net.acts, net.out, rules=[first, second]), expected)


def test_a_bias_may_be_missing_in_one_layer(rng):
    net = random_net(rng, (6, 5, 4), 3, grid=True)
    expected = pylrp.relevance(net.W, net.acts, net.out, rules="epsilon", biases=[np.zeros(5), net.biases[1]])
    actual = pylrp.relevance(net.W, net.acts, net.out, rules="epsilon", biases=[None, net.biases[1]])
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("rule", [WSquare(), Flat(), WSquare(stabilizer=0.5)], ids=repr)
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_input_may_be_unknown(rng, rule, batch):
    net = random_net(rng, (9, 7, 4), batch, grid=True)
    known = pylrp.relevance(net.W, net.acts, net.out, rules=[rule, ZPlus()], biases=net.biases)
    unknown = pylrp.relevance(net.W, [None, net.acts[1]], net.out, rules=[rule, ZPlus()], biases=net.biases)
    np.testing.assert_array_equal(unknown, known)
    alone = pylrp.relevance(net.W[:1], [None], net.acts[1], rules=rule)
    assert alone.shape == (batch, 9)


@pytest.mark.parametrize("rule", every_rule(19), ids=repr)
def test_a_sample_is_independent_of_its_batch(rng, rule):
    net = random_net(rng, (19, 33), 37, grid=True, zeros=0.2)
    batch = pylrp.relevance(net.W, net.acts, net.out, rules=rule, biases=net.biases)
    allowed = bound(propagate(net.W, net.acts, net.out, [rule], net.biases)[0], net.out, np.float64, exact=True)
    for n in (0, 17, 36):
        single = pylrp.relevance(net.W, [net.acts[0][n]], net.out[n], rules=rule, biases=net.biases)
        assert single.shape == (19,)
        assert_within(single, batch[n], allowed.relevance[n], repr(rule))
        row = pylrp.relevance(net.W, [net.acts[0][n : n + 1]], net.out[n : n + 1], rules=rule, biases=net.biases)
        np.testing.assert_array_equal(row[0], single)


@pytest.mark.parametrize("batch", [1, 3, 150])
@pytest.mark.parametrize("rule", every_rule(301), ids=repr)
def test_the_same_bits_for_any_number_of_threads(rng, rule, batch):
    net = random_net(rng, (301, 203), batch, zeros=0.3).astype(np.float32)
    results = [
        pylrp.relevance(net.W, net.acts, net.out, rules=rule, biases=net.biases, threads=threads, ledger=True)
        for threads in (1, 2, 3, 4)
    ]
    for R_in, ledger in results[1:]:
        np.testing.assert_array_equal(R_in, results[0][0])
        np.testing.assert_array_equal(ledger.layers[0].bias, results[0][1].layers[0].bias)
        np.testing.assert_array_equal(ledger.layers[0].stabilizer, results[0][1].layers[0].stabilizer)


def test_calls_from_several_python_threads(rng):
    nets = [random_net(rng, (120, 90, 30), 20 + n) for n in range(8)]

    def explain(net):
        return pylrp.relevance(net.W, net.acts, net.out, rules="epsilon", biases=net.biases)

    alone = [explain(net) for net in nets]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(explain, nets * 5))
    for index, result in enumerate(together):
        np.testing.assert_array_equal(result, alone[index % 8])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (AlphaBeta(alpha=1.0, beta=0.0), ZPlus()),
        (Gamma(gamma=0.0), Epsilon(1e-6)),
        (Zero(), Epsilon(0.0)),
        (Norm(), Epsilon(1e-6)),
        (ZBox(0.0, 0.0), Epsilon(1e-6, bias=False)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.filterwarnings("ignore:.*outside")
def test_equal_rules(rng, one, other, biases):
    net = random_net(rng, (23, 31), 6, grid=True, zeros=0.3, biases=biases)
    outcome = propagate(net.W, net.acts, net.out, [other], net.biases)[0]
    z = outcome.shares[0].inputs.sum(axis=2) + outcome.shares[0].bias
    out = np.where(z == 0, 0.0, net.out)  # where z = 0 gamma drops what epsilon multiplies with R / epsilon
    allowed = bound(propagate(net.W, net.acts, out, [other], net.biases)[0], out, np.float64, exact=True).relevance
    actual, expected = (pylrp.relevance(net.W, net.acts, out, rules=rule, biases=net.biases) for rule in (one, other))
    assert_within(actual, expected, 2 * allowed, f"{one} and {other}")
    assert (actual != 0).any()


def test_z_plus_of_nonnegative_relevance_is_nonnegative(rng):
    net = random_net(rng, (51, 37, 29), 12)
    R_in = pylrp.relevance(net.W, net.acts, np.abs(net.out), rules=ZPlus(), biases=net.biases)
    assert (R_in >= 0).all()
    assert (R_in > 0).any()


@pytest.mark.parametrize("rule", every_rule(21), ids=repr)
def test_linear_in_relevance(rng, rule):
    net = random_net(rng, (21, 14), 9, grid=True, zeros=0.2)
    other = rng.integers(-16, 17, net.out.shape) / 8.0
    R_sum, R_one, R_other = (
        pylrp.relevance(net.W, net.acts, out, rules=rule, biases=net.biases)
        for out in (net.out - 3.0 * other, net.out, other)
    )
    sizes = np.abs(net.out) + 3.0 * np.abs(other)
    allowed = bound(propagate(net.W, net.acts, sizes, [rule], net.biases)[0], sizes, np.float64, exact=True).relevance
    assert_within(R_sum, R_one - 3.0 * R_other, 3 * allowed, repr(rule))


@pytest.mark.parametrize("rule", every_rule(21), ids=repr)
def test_permuting_the_inputs_permutes_the_result(rng, rule):
    net = random_net(rng, (21, 14), 9, grid=True, zeros=0.2)
    order = rng.permutation(21)
    shuffled = rule
    if isinstance(rule, ZBox):
        low, high = (np.broadcast_to(side, 21)[order] for side in (rule.low, rule.high))
        shuffled = dataclasses.replace(rule, low=low, high=high)
    R_in = pylrp.relevance(net.W, net.acts, net.out, rules=rule, biases=net.biases)
    permuted = pylrp.relevance(
        [net.W[0][:, order]], [net.acts[0][:, order]], net.out, rules=shuffled, biases=net.biases
    )
    allowed = bound(propagate(net.W, net.acts, net.out, [rule], net.biases)[0], net.out, np.float64, exact=True)
    assert_within(permuted, R_in[:, order], 2 * allowed.relevance[:, order], repr(rule))


CONSERVING = [
    Zero(),
    ZPlus(stabilizer=0.0),
    AlphaBeta(stabilizer=0.0),
    Gamma(stabilizer=0.0),
    WSquare(stabilizer=0.0),
    Flat(stabilizer=0.0),
    ZBox(-9.0, 9.0, stabilizer=0.0),
]


@pytest.mark.parametrize("rule", CONSERVING, ids=repr)
def test_conservation_and_scale(rng, rule):
    net = random_net(rng, (60, 45), 7, biases=False)  # every output has contributions of both signs
    R_in = pylrp.relevance(net.W, net.acts, net.out, rules=rule)
    outcome = propagate(net.W, net.acts, net.out, [rule])[0]
    allowed = bound(outcome, net.out, np.float64).relevance
    assert_within(R_in.sum(axis=1), net.out.sum(axis=1), allowed.sum(axis=1), "sum of relevance")
    scaled = net.W[0] * 2.0 ** rng.integers(-6, 7, (45, 1))  # another unit for each neuron changes nothing
    assert_within(pylrp.relevance([scaled], net.acts, net.out, rules=rule), R_in, 2 * allowed, "scaled outputs")


def test_arguments_are_left_alone(rng):
    net = random_net(rng, (11, 7, 3), 2)
    before = [x.copy() for x in (*net.W, *net.acts, net.out, *net.biases)]
    result = pylrp.relevance(net.W, net.acts, net.out, rules="epsilon", biases=net.biases, return_layers=True)
    for layer in result:
        layer += 1.0  # ours to change, the top one too
    for x, y in zip((*net.W, *net.acts, net.out, *net.biases), before, strict=True):
        np.testing.assert_array_equal(x, y)


def catalogue() -> list[type]:
    """Return the rule classes of `pylrp.rules` that look at weights, or pass; test_weightless.py has the others."""
    kinds = [kind for kind in vars(rules).values() if isinstance(kind, type) and issubclass(kind, rules.Rule)]
    kinds = [kind for kind in kinds if not issubclass(kind, rules.Treatment)]
    return [kind for kind in kinds if kind is not rules.Rule and not kind.__name__.startswith("_")]


def test_every_rule_has_an_oracle_and_is_tried():
    assert set(catalogue()) == set(ORACLES) == set(rules.RULES)
    assert {type(rule) for rule in every_rule()} | {Pass} == set(ORACLES)
    assert {type(case[0]) for case in WITHOUT_BIAS} | {Pass} == set(ORACLES)


@pytest.mark.parametrize("rule", [*every_rule(), Pass()], ids=repr)
def test_rules_are_plain_values(rule):
    assert getattr(pylrp, type(rule).__name__) is type(rule)
    assert eval(repr(rule), {**vars(pylrp), "array": np.array}) == rule
    assert type(rule).__doc__
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.stabilizer = 1.0
    assert rule == dataclasses.replace(rule)
    assert hash(rule) == hash(dataclasses.replace(rule))
    assert rule != Epsilon(epsilon=0.125)


def test_defaults():
    assert (Epsilon().epsilon, Gamma().gamma, AlphaBeta().alpha, AlphaBeta().beta) == (1e-6, 0.25, 2, 1)
    carry = [Gamma(), ZPlus(), AlphaBeta(), WSquare(), Flat(), ZBox(0.0, 1.0), Norm()]
    assert {rule.stabilizer for rule in carry} == {1e-6}
