"""Other libraries' numbers: published probes, and random layers against their formulas written element by element."""

import numpy as np
import pytest
from reference.contributions import as_layer, distribute, propagate
from reference.conventions import CONVENTIONS, GIVEN
from reference.errors import assert_within, bound
from reference.networks import forward_net, random_net, settle

import pylrp
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, WSquare, ZBox, Zero, ZPlus

ZENNIT, CAPTUM, INNVESTIGATE, TOOLBOX = "zennit", "captum", "innvestigate", "lrp_toolbox"

# One linear unit each: weights, bias, input, R = output; rule; what each library gives. Run on zennit 1.0.0, captum
# 0.9.0 and the toolbox's own modules; iNNvestigate from its published numbers (its issue 273; Appendix B of the
# innsight paper).
PROBES = {
    # Positive contributions 1, bias -1: captum and iNNvestigate divide by 1 - 1 = 0 plus their stabiliser.
    "A alpha1-beta0": (
        ([1, -1], -1, [1, 1], -1, ZPlus()),
        {ZENNIT: [-1, 0], CAPTUM: [-1e9, 0], INNVESTIGATE: [-1e7, 0], TOOLBOX: [-1, 0]},
    ),
    "A alpha1-beta0 as alpha-beta": (
        ([1, -1], -1, [1, 1], -1, AlphaBeta(1, 0)),
        {ZENNIT: [-1, 0], CAPTUM: [-1e9, 0], INNVESTIGATE: [-1e7, 0], TOOLBOX: [-1, 0]},
    ),
    "A alpha1-beta0, bias off": (
        ([1, -1], -1, [1, 1], -1, ZPlus(bias=False)),
        {ZENNIT: [-1, 0], CAPTUM: [-1, 0], INNVESTIGATE: [-1, 0], TOOLBOX: [-1, 0]},
    ),
    "A alpha2-beta1": (
        ([1, -1], -1, [1, 1], -1, AlphaBeta(2, 1)),
        {ZENNIT: [-2, 0.5], INNVESTIGATE: [-2e7, 0.5], TOOLBOX: [-2, 0.5]},
    ),
    "B alpha1-beta0": (
        ([1], -0.25, [1], 0.75, ZPlus()),
        {ZENNIT: [0.75], CAPTUM: [1.0], INNVESTIGATE: [1.0], TOOLBOX: [0.75]},
    ),
    "B alpha2-beta1": (
        ([1], -0.25, [1], 0.75, AlphaBeta(2, 1)),
        {ZENNIT: [1.5], INNVESTIGATE: [2.0], TOOLBOX: [1.5]},
    ),
    # Contributions (1, 2, -1); captum's (0, 2, -1) + 0.5 = 1.5, for the input is not split by sign.
    "C z+": (
        ([-1, 2, 0.5], 0.5, [-1, 1, -2], 2.5, ZPlus()),
        {
            ZENNIT: [2.5 / 3.5, 5 / 3.5, 0],
            CAPTUM: [0, 5 / 1.5, -2.5 / 1.5],
            INNVESTIGATE: [2.5 / 3.5, 5 / 3.5, 0],
            TOOLBOX: [2.5 / 3.5, 5 / 3.5, 0],
        },
    ),
    "C z+, bias ignored": (
        ([-1, 2, 0.5], 0.5, [-1, 1, -2], 2.5, ZPlus(bias=False)),
        {ZENNIT: [2.5 / 3, 5 / 3, 0], INNVESTIGATE: [2.5 / 3, 5 / 3, 0], TOOLBOX: [2.5 / 3, 5 / 3, 0]},
    ),
    # (1.25, -.25) + 1.25 * .3; captum leaves the bias at .3.
    "D gamma": (
        ([1, -0.5], 0.3, [1, 0.5], 1.05, Gamma(0.25)),
        {ZENNIT: [1.3125 / 1.375, -0.2625 / 1.375], CAPTUM: [1.3125 / 1.3, -0.2625 / 1.3]},
    ),
    # The output is negative: (-1.25, -.3125) + .3; captum strengthens positive weights: (-1.25, -.25) + .3.
    "D gamma, negative output": (
        ([1, -0.5], 0.3, [-1, 0.5], -0.95, Gamma(0.25)),
        {ZENNIT: [-1.1875 / 1.2625, -0.296875 / 1.2625], CAPTUM: [-1.1875 / 1.2, -0.2375 / 1.2]},
    ),
    # w^2 = (1, 4): zennit has b^2 = 1 in the denominator.
    "F w^2": (
        ([1, 2], 1, [3, 1], 6, WSquare()),
        {ZENNIT: [1, 4], INNVESTIGATE: [1.2, 4.8], TOOLBOX: [1.2, 4.8]},
    ),
    # z = 0, what LRP-0 makes of it. zennit's is infinite; here nothing receives, and the ledger says so.
    "E LRP-0 at z = 0": (
        ([1, -1], 0, [1, 1], 1, Zero()),
        {ZENNIT: [0, 0], CAPTUM: [1e9, -1e9], INNVESTIGATE: [1e7, -1e7], TOOLBOX: [1e16, -1e16]},
    ),
    "epsilon at z = 0": (
        ([1, -1], 0, [1, 1], 1, Epsilon()),
        {ZENNIT: [1e6, -1e6], CAPTUM: [1e9, -1e9], INNVESTIGATE: [1e7, -1e7], TOOLBOX: [1, -1]},
    ),
    "epsilon given": (
        ([1, 1], 0, [1, 2], 3, Epsilon(0.5)),
        {name: [3 / 3.5, 6 / 3.5] for name in (ZENNIT, CAPTUM, INNVESTIGATE, TOOLBOX)},
    ),
    "epsilon by default": (  # the toolbox's is 1.0
        ([1, 1], 0, [1, 2], 3, Epsilon()),
        {ZENNIT: [1, 2], CAPTUM: [1, 2], INNVESTIGATE: [1, 2], TOOLBOX: [0.75, 1.5]},
    ),
}
CASES = [(name, convention) for name, (_, results) in PROBES.items() for convention in results]


@pytest.mark.parametrize(("name", "convention"), CASES)
def test_probes(name, convention):
    (w, b, x, out, rule), results = PROBES[name]
    W, B, X, R = (np.asarray(v, float) for v in ([w], [b], x, [out]))
    R_in = pylrp.relevance([W], [X], R, rules=rule, biases=[B], convention=convention)
    np.testing.assert_allclose(R_in, results[convention], rtol=3e-6, atol=1e-12)


def test_zennit_is_the_default(rng):
    net = random_net(rng, (9, 7), 4)
    for rule in (AlphaBeta(), WSquare(), Gamma()):
        default = pylrp.relevance(net.W, net.acts, net.out, rules=rule, biases=net.biases)
        named = pylrp.relevance(net.W, net.acts, net.out, rules=rule, biases=net.biases, convention=ZENNIT)
        np.testing.assert_array_equal(default, named)


def variants(kind: type, width: int) -> list[object]:
    """Return a rule of this kind with its defaults, without bias, and with a stabiliser that is given."""
    fixed = {AlphaBeta: (2.0, 1.0), ZBox: (-9.0, np.full(width, 9.0)), Gamma: (1.5,)}.get(kind, ())
    if kind is Pass:
        return [Pass()]
    if kind is Zero:
        return [Zero(), Zero(bias=False)]
    if kind is Epsilon:
        return [Epsilon(), Epsilon(bias=False), Epsilon(GIVEN)]
    off = [] if kind in (Flat, ZBox) else [kind(*fixed, bias=False)]
    return [kind(*fixed), kind(*fixed, stabilizer=GIVEN), *off]


LIBRARY_RULES = [(name, kind) for name in (CAPTUM, INNVESTIGATE, TOOLBOX) for kind in CONVENTIONS[name]]


@pytest.mark.parametrize(("convention", "kind"), LIBRARY_RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_layers(rng, convention, kind, dtype):
    oracles = CONVENTIONS[convention]
    for rule in variants(kind, 17):
        for batch, zeros, biases, grid in ((1, 0.3, True, True), (19, 0.0, True, False), (6, 0.9, False, True)):
            net = random_net(rng, (17, 17), batch, grid=grid, zeros=zeros, biases=biases)
            net = settle(net, rule, dtype, oracles, exact=grid)
            R_in, ledger = pylrp.relevance(
                net.W, net.acts, net.out, rules=rule, biases=net.biases, convention=convention, ledger=True
            )
            layer = as_layer(net.W[0], net.acts[0], None if net.biases is None else net.biases[0], batch)
            expected = distribute(oracles[kind](rule, layer), np.asarray(net.out, np.float64))
            allowed = bound(expected, net.out, dtype, exact=grid)
            assert_within(R_in, expected.relevance, allowed.relevance, f"{convention} {rule}")
            row = ledger.layers[0]
            for cause, values in expected.causes.items():
                assert_within(getattr(row, cause), values, allowed.causes[cause], f"{convention} {rule}, {cause}")
            assert_within(row.rounding, np.zeros(batch), allowed.rounding, f"{convention} {rule}, rounding")


def test_chains_under_a_convention(rng):
    net = forward_net(rng, (23, 19, 11, 5), 6)
    for convention, rule_list in (
        (CAPTUM, [Epsilon(0.25), Gamma(), ZPlus()]),
        (INNVESTIGATE, [Flat(), AlphaBeta(), Epsilon(0.25)]),
        (TOOLBOX, [WSquare(), AlphaBeta(), Epsilon(0.25)]),
    ):
        oracles = {kind: CONVENTIONS[convention][kind] for kind in map(type, rule_list)}
        oracles[Epsilon] = CONVENTIONS[ZENNIT][Epsilon]  # epsilon is given: the same in all
        expected = propagate(net.W, net.acts, net.out, rule_list, net.biases, oracles)
        actual = pylrp.relevance(
            net.W, net.acts, net.out, rules=rule_list, biases=net.biases, convention=convention, return_layers=True
        )
        for index, outcome in enumerate(expected):
            scale = np.abs(outcome.relevance).max()
            np.testing.assert_allclose(actual[index], outcome.relevance, rtol=1e-9, atol=1e-11 * scale)


MISSING = [
    (CAPTUM, AlphaBeta(2, 1)),
    (CAPTUM, WSquare()),
    (CAPTUM, Flat()),
    (CAPTUM, ZBox(0, 1)),
    (INNVESTIGATE, Gamma()),
    (TOOLBOX, Gamma()),
    (TOOLBOX, ZBox(0, 1)),
]


@pytest.mark.parametrize(("convention", "rule"), MISSING, ids=str)
def test_a_rule_the_library_lacks(rng, convention, rule):
    net = random_net(rng, (4, 3), 2)
    with pytest.raises(ValueError, match=rf"(?s)(?=.*{convention})(?=.*{type(rule).__name__})"):
        pylrp.relevance(net.W, net.acts, net.out, rules=rule, convention=convention)


def test_unknown_convention(rng):
    net = random_net(rng, (4, 3), 2)
    with pytest.raises(
        ValueError, match=r"(?s)(?=.*torchlrp)(?=.*zennit)(?=.*captum)(?=.*innvestigate)(?=.*lrp_toolbox)"
    ):
        pylrp.relevance(net.W, net.acts, net.out, rules="epsilon", convention="torchlrp")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("convention", [CAPTUM, INNVESTIGATE, TOOLBOX])
def test_an_explicit_default_is_not_a_default(convention, first):
    # z = 0: Epsilon() takes the library's epsilon, Epsilon(1e-6) takes 1e-6, whichever is asked first.
    W, X, R = np.array([[1.0, -1.0]]), np.array([1.0, 1.0]), np.array([1.0])
    library = {CAPTUM: 1e9, INNVESTIGATE: 1e7, TOOLBOX: 1.0}[convention]
    cases = [(Epsilon(), library), (Epsilon(1e-6), 1e6)]
    for rule, expected in (cases[first], cases[1 - first]):
        R_in = pylrp.relevance([W], [X], R, rules=rule, convention=convention)
        np.testing.assert_allclose(R_in, [expected, -expected], rtol=1e-6)


def test_where_the_conventions_agree(rng):
    # Same epsilon; z+ and gamma without bias on inputs >= 0; flat.
    net = random_net(rng, (21, 13), 5, biases=False, signed=False)
    out = np.where(np.abs(net.acts[0] @ net.W[0].T) < 0.1, 0.0, net.out)
    out[(net.acts[0] @ net.W[0].T) < 0] = 0.0  # captum's gamma knows no negative outputs
    for rule, conventions in (
        (Epsilon(0.25), CONVENTIONS),
        (ZPlus(), CONVENTIONS),
        (Gamma(), (ZENNIT, CAPTUM)),
        (Flat(), (ZENNIT, INNVESTIGATE, TOOLBOX)),
    ):
        results = [pylrp.relevance(net.W, net.acts, out, rules=rule, convention=name) for name in conventions]
        for other in results[1:]:
            np.testing.assert_allclose(other, results[0], rtol=2e-5, atol=1e-6)


def test_compare(rng):
    net = forward_net(rng, (12, 9, 4), 3)
    table = pylrp.compare(net.W, net.acts, net.out, rules=[AlphaBeta(2, 1), Epsilon(0.25)], biases=net.biases)
    results = {
        name: pylrp.relevance(
            net.W,
            net.acts,
            net.out,
            rules=[AlphaBeta(2, 1), Epsilon(0.25)],
            biases=net.biases,
            convention=name,
            return_layers=True,
        )
        for name in (ZENNIT, INNVESTIGATE, TOOLBOX)
    }
    assert list(table.relevance) == list(results)
    assert "AlphaBeta" in table.missing[CAPTUM]
    for name, layers in results.items():
        expected = [np.abs(r - z).max() / np.abs(z).max() for r, z in zip(layers, results[ZENNIT], strict=True)]
        np.testing.assert_allclose(table.difference(name), expected, rtol=1e-12)
        for mine, theirs in zip(table.relevance[name], layers, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert table.difference(INNVESTIGATE)[0] > 1e-3  # the bias in both groups
    text = str(table)
    for word in ("zennit", "innvestigate", "lrp_toolbox", "captum", "input", "output", "R_1"):
        assert word in text
    assert f"{table.difference(INNVESTIGATE)[0]:.3g}" in text


def test_compare_refuses_what_it_cannot_compare(rng):
    net = forward_net(rng, (5, 4, 3), 2)
    with pytest.raises(ValueError, match=r"(?=.*lrp)(?=.*captum)"):
        pylrp.compare(net.W, net.acts, net.out, conventions=("zennit", "lrp"))
    with pytest.raises(ValueError, match=r"(?s)(?=.*captum)(?=.*WSquare)"):
        pylrp.compare(net.W, net.acts, net.out, rules=WSquare(), conventions=("captum",))
    with pytest.raises(ValueError, match=r"acts"):  # an ordinary mistake is not taken for a missing rule
        pylrp.compare(net.W, net.acts[:1], net.out)
