"""Alpha-beta and z+ of dense layers with inputs of both signs, in batches, against all contributions in float64.

The core makes them out of the forward pass's output and |W| |a| (csrc/layers/dense/cancelled.hpp says where it can't).
"""

import numpy as np
import pytest

import pylrp
from pylrp.layers import Dense, Tanh
from pylrp.network.graph import Graph, Node

ROWS, INTO, OUT = 24, 37, 21
RULES = {"alpha-beta": (pylrp.AlphaBeta(2, 1), 2, -1), "z+": (pylrp.ZPlus(), 1, 0)}


def by_contributions(a, weight, bias, relevance, alpha, beta, stabilizer):
    """Return relevance at the input and what the bias took, from the contribution of each input to each output."""
    parts = a[:, :, None] * weight.T[None]  # (rows, into, out)
    found, taken = np.zeros_like(a), 0.0
    for share, of in ((alpha, 1), (beta, -1)):
        kept, shift = np.where(parts * of > 0, parts, 0), np.where(bias * of > 0, bias, 0)
        total = kept.sum(1) + shift
        total = total + np.where(total < 0, -stabilizer, stabilizer)
        s = np.where(total == 0, 0, share * relevance / np.where(total == 0, 1, total))
        found += (kept * s[:, None]).sum(2)
        taken += (shift * s).sum()
    return found, taken


def explained(a, weight, bias, relevance, rule, threads=None):
    net = pylrp.Network.from_graph(Graph({"x": (INTO,)}, [Node("y", Dense(weight, bias), ("x",))], ["y"]))
    return net.explain(a, target=relevance, composite=rule, threads=threads)


def cancels_at(a, weight, part):
    """Outputs 3 and 4 have contributions of one sign at every fourth sample, but for this part."""
    weight[3], weight[4] = np.abs(weight[3]) + 0.25, -np.abs(weight[4]) - 0.25
    a[::4] = np.where(a[::4] < 0, part * a[::4], a[::4])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cancelled", [None, 0.0, 1 / 512, "all"])
def test_against_all_contributions(rng, name, dtype, bias, cancelled):
    rule, alpha, beta = RULES[name]
    a, weight = rng.standard_normal((ROWS, INTO)), rng.standard_normal((OUT, INTO)) / 6
    shift = rng.standard_normal(OUT) if bias else np.zeros(OUT)
    if cancelled == "all":  # of every other sample; another one has nothing but the bias
        a[::2], weight = -np.abs(a[::2]), np.abs(weight)
        a[2] = 0
    elif cancelled is not None:
        cancels_at(a, weight, cancelled)
    a, weight, shift = (array.astype(dtype) for array in (a, weight, shift))
    given = rng.standard_normal((ROWS, OUT)).astype(dtype)
    exact = [array.astype(np.float64) for array in (a, weight, shift, given)]
    stabilizer = rule.stabilizer
    wanted, taken = by_contributions(*exact, alpha, beta, stabilizer)
    ex = explained(a, weight, shift if bias else None, given, rule, 1)
    epsilon = np.finfo(dtype).eps
    # An entry whose sum is a 64th of its contributions keeps as many digits less.
    limit = 100 * epsilon * np.abs(wanted).max(1, keepdims=True)
    assert (np.abs(ex.relevance - wanted) <= limit).all()
    row = ex.ledger["y"]
    np.testing.assert_allclose(np.sum(row.bias), taken, rtol=0, atol=1e4 * epsilon * np.abs(given).sum())
    for threads in (2, 3, 4):
        again = explained(a, weight, shift if bias else None, given, rule, threads)
        np.testing.assert_array_equal(ex.relevance, again.relevance)
        np.testing.assert_array_equal(row.bias, again.ledger["y"].bias)


@pytest.mark.parametrize("name", RULES)
def test_numbers_that_are_not_finite_are_named(rng, name):
    a, weight = rng.standard_normal((ROWS, INTO)), rng.standard_normal((OUT, INTO))
    a[3, 5] = np.inf
    with pytest.raises(ValueError, match=r"inf|finite"):
        explained(a, weight, None, rng.standard_normal((ROWS, OUT)), RULES[name][0])


@pytest.mark.parametrize("name", RULES)
def test_several_targets_behind_a_function(rng, name):
    """Three classes are one by one, to the bit; the relevance of the layer below is that of the one above."""
    rule, alpha, beta = RULES[name]
    weights = rng.standard_normal((70, 45)) / 7, rng.standard_normal((33, 70)) / 8
    lower, upper = Dense(weights[0], rng.standard_normal(70)), Dense(weights[1])
    nodes = [Node("h", lower, ("x",)), Node("f", Tanh(), ("h",)), Node("y", upper, ("f",))]
    net = pylrp.Network.from_graph(Graph({"x": (45,)}, nodes, ["y"]))
    x = rng.standard_normal((ROWS, 45))
    hidden = np.tanh(x @ weights[0].T + lower.bias)
    logits = hidden @ weights[1].T
    for threads in (1, 2):
        found = net.explain(x, targets=[4, 0, 32], composite=rule, threads=threads).relevance
        for i, target in enumerate((4, 0, 32)):
            between, _ = by_contributions(
                hidden, weights[1], np.zeros(33), logits * np.eye(33)[target], alpha, beta, rule.stabilizer
            )
            wanted, _ = by_contributions(x, weights[0], lower.bias, between, alpha, beta, rule.stabilizer)
            np.testing.assert_allclose(found[:, i], wanted, rtol=0, atol=1e-11 * np.abs(wanted).max())
            alone = net.explain(x, target=target, composite=rule, threads=1).relevance
            np.testing.assert_array_equal(found[:, i], alone)


def test_same_bits_for_any_number_of_threads(rng):
    """Where entries of every panel cancel, found by tasks in any order."""
    rows, into, out = 256, 512, 256
    a, weight = rng.standard_normal((rows, into)).astype(np.float32), rng.standard_normal((out, into)) / 22
    weight[::4], a[::32] = np.abs(weight[::4]), np.abs(a[::32])
    net = pylrp.Network.from_graph(
        Graph({"x": (into,)}, [Node("y", Dense(weight.astype(np.float32), None), ("x",))], ["y"])
    )
    given = rng.standard_normal((rows, out)).astype(np.float32)
    alone = net.explain(a, target=given, composite=pylrp.AlphaBeta(2, 1), threads=1).relevance
    for threads in (2, 3, 4) * 3:
        again = net.explain(a, target=given, composite=pylrp.AlphaBeta(2, 1), threads=threads).relevance
        np.testing.assert_array_equal(alone, again)
