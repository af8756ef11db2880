"""Random layers against the oracle: every rule, odd shapes, signs, zeros, biases, dtypes and memory layouts.

The bound is derived (`reference/errors.py`). Examples are the same in every run; values come from a drawn seed, because
what matters is the shape of the case, and 70 x 70 drawn numbers shrink to nothing readable.
"""

import numpy as np
import pytest
from drawn import examples
from hypothesis import given
from hypothesis import strategies as st
from reference.contributions import CAUSES, propagate
from reference.errors import assert_within, bound
from reference.networks import LAYOUTS, Net, random_net, relayout, settle
from rules.test_rules import assert_chain

import pylrp
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, Pass, WSquare, ZBox, Zero, ZPlus

WIDTHS = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 31, 32, 33]), st.integers(1, 70))
BATCHES = st.one_of(st.integers(1, 6), st.sampled_from([7, 8, 9, 15, 17, 29]))
SEEDS = st.integers(0, 2**32 - 1)
DTYPES = st.sampled_from([np.float32, np.float64])
ZEROS = st.sampled_from([0.0, 0.3, 0.95])
COARSE = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])  # exact in binary
STABILIZERS = st.sampled_from([0.0, 1e-9, 1e-6, 0.25])


@st.composite
def a_rule(draw, width):
    """Any rule of the catalogue but Pass, with any of its options."""
    kind = draw(st.sampled_from([Zero, Epsilon, Gamma, ZPlus, AlphaBeta, WSquare, Flat, ZBox, Norm]))
    if kind is Zero:
        return Zero(bias=draw(st.booleans()))
    stabilizer = draw(STABILIZERS)
    if kind is Epsilon:
        return Epsilon(stabilizer, bias=draw(st.booleans()))
    options = {"stabilizer": stabilizer}
    if kind in (Gamma, ZPlus, AlphaBeta, WSquare):
        options["bias"] = draw(st.booleans())
    if kind is Gamma:
        options["gamma"] = draw(COARSE)
    if kind is AlphaBeta:
        beta = draw(COARSE)
        options |= {"alpha": 1.0 + beta, "beta": beta}
    if kind is ZBox:
        steps = np.arange(width) % 5 / 4
        low, high = draw(st.sampled_from([(-9.0, 9.0), (-9.0 - steps, 9.0), (-9.0 - steps, 9.0 + steps[::-1])]))
        options |= {"low": low, "high": high}
    return kind(**options)


@st.composite
def a_layer(draw, grid):
    """One layer as a network, its rule and the dtype; inputs of either sign or none negative."""
    width, height, batch = draw(WIDTHS), draw(WIDTHS), draw(BATCHES)
    rule, dtype = draw(a_rule(width)), draw(DTYPES)
    net = random_net(
        np.random.default_rng(draw(SEEDS)),
        (width, height),
        batch,
        grid=grid,
        zeros=draw(ZEROS),
        biases=draw(st.booleans()),
        signed=draw(st.booleans()),
    )
    return settle(net, rule, dtype, exact=grid), rule, dtype


def assert_like_the_oracle(net: Net, rule: object, dtype: type, exact: bool) -> None:
    """Relevance and ledger of one layer, each within its bound."""
    R_in, ledger = pylrp.relevance(net.W, net.acts, net.out, rules=rule, biases=net.biases, ledger=True)
    assert R_in.dtype == dtype
    expected = propagate(net.W, net.acts, net.out, [rule], net.biases)[0]
    allowed = bound(expected, net.out, dtype, exact=exact)
    assert_within(R_in, expected.relevance, allowed.relevance, f"{rule}, relevance")
    row = ledger.layers[0]
    for cause in CAUSES:
        assert_within(getattr(row, cause), expected.causes[cause], allowed.causes[cause], f"{rule}, {cause}")
    assert_within(row.rounding, np.zeros(len(net.out)), allowed.rounding, f"{rule}, rounding")


@pytest.mark.slow
@examples(100)
@given(a_layer(grid=False))
def test_layers_of_rounded_numbers(case):
    assert_like_the_oracle(*case, exact=False)


@pytest.mark.slow
@examples(100)
@given(a_layer(grid=True))
def test_layers_of_exact_numbers(case):
    # Sums cancel exactly: z = 0, outputs of exactly 0, rows of zeros.
    assert_like_the_oracle(*case, exact=True)


@examples(50)
@given(a_layer(grid=True), st.lists(st.sampled_from(LAYOUTS), min_size=4, max_size=4))
def test_memory_layout_does_not_matter(case, layouts):
    net, rule, _ = case
    expected = pylrp.relevance(net.W, net.acts, net.out, rules=rule, biases=net.biases)
    biases = None if net.biases is None else [relayout(net.biases[0], layouts[3])]
    actual = pylrp.relevance(
        [relayout(net.W[0], layouts[0])],
        [relayout(net.acts[0], layouts[1])],
        relayout(net.out, layouts[2]),
        rules=rule,
        biases=biases,
    )
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype.isnative
    single = pylrp.relevance(
        net.W, [relayout(net.acts[0][0], layouts[1])], relayout(net.out[0], layouts[2]), rules=rule, biases=net.biases
    )
    np.testing.assert_array_equal(
        single, pylrp.relevance(net.W, [net.acts[0][0]], net.out[0], rules=rule, biases=net.biases)
    )


@st.composite
def a_chain(draw):
    """Two to five layers, each with a rule of its own."""
    widths = draw(st.lists(WIDTHS, min_size=3, max_size=6))
    rule_list = [draw(a_rule(width)) for width in widths[:-1]]
    repeat = draw(st.integers(0, len(widths) - 1))
    widths.insert(repeat, widths[repeat])
    rule_list.insert(repeat, Pass())
    rng = np.random.default_rng(draw(SEEDS))
    dtype = draw(DTYPES)
    net = random_net(rng, widths, draw(BATCHES), grid=True, zeros=draw(ZEROS), biases=draw(st.booleans()))
    return net.astype(dtype), rule_list, dtype


@examples(50)
@given(a_chain())
def test_chains_of_any_rules(case):
    net, rule_list, dtype = case
    result = pylrp.relevance(net.W, net.acts, net.out, rules=rule_list, biases=net.biases, return_layers=True)
    assert_chain(result, net, rule_list, dtype, exact=True)
