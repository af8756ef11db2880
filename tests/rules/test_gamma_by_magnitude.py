"""Generalised gamma in networks, out of the forward pass's output and |W| |a|, against all contributions in float64."""

import numpy as np
import pytest

import pylrp
from pylrp.layers import Dense, PositionwiseDense, Tanh
from pylrp.network.graph import Graph, Node

# Samples or tokens: enough for products of packed panels.
ROWS, INTO, OUT = 24, 37, 21


def by_contributions(a, weight, bias, relevance, gamma, stabilizer):
    """Return relevance at the input and what the bias took, from the contribution of each input to each output."""
    parts = a[:, :, None] * weight.T[None]  # (rows, into, out)
    z = parts.sum(1) + bias
    sign = np.sign(z)

    def favoured(x, of):
        return x + gamma * np.where(np.sign(x) == of, x, 0)

    parts, shift = favoured(parts, sign[:, None]), favoured(np.broadcast_to(bias, z.shape), sign)
    total = parts.sum(1) + shift
    share = np.where(z == 0, 0, relevance / (total + np.where(total < 0, -stabilizer, stabilizer)))
    return (parts * share[:, None]).sum(2), (shift * share).sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gamma", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("zeros", [0, 0.9])
@pytest.mark.parametrize("positions", [False, True])
def test_against_all_contributions(rng, dtype, gamma, positions, zeros):
    a = rng.standard_normal((ROWS, INTO)) * (rng.random((ROWS, INTO)) >= zeros)
    weight, bias = rng.standard_normal((OUT, INTO)) / 6, rng.standard_normal(OUT)
    a[:, 3], weight[:, 5], weight[2], bias[2] = 0, 0, 0, 0  # an output that is 0 everywhere has no receiver
    if positions:
        layer = PositionwiseDense.along(1, weight.astype(dtype), bias.astype(dtype))
        shape, x = (INTO, ROWS // 2), a.reshape(2, ROWS // 2, INTO).transpose(0, 2, 1)
    else:
        layer, shape, x = Dense(weight.astype(dtype), bias.astype(dtype)), (INTO,), a
    net = pylrp.Network.from_graph(Graph({"x": shape}, [Node("y", layer, ("x",))], ["y"]))
    a, weight, bias = (array.astype(dtype).astype(np.float64) for array in (a, weight, bias))
    given = rng.standard_normal((ROWS, OUT))
    given = given.astype(dtype).astype(np.float64)
    wanted, taken = by_contributions(a, weight, bias, given, gamma, 1e-6)
    top = given.reshape(2, ROWS // 2, OUT).transpose(0, 2, 1) if positions else given
    ex = net.explain(x.astype(dtype), target=top.astype(dtype), composite=pylrp.Gamma(gamma))
    found = ex.relevance.transpose(0, 2, 1).reshape(ROWS, INTO) if positions else ex.relevance
    epsilon = np.finfo(dtype).eps
    np.testing.assert_allclose(found, wanted, rtol=0, atol=100 * epsilon * np.abs(wanted).max())
    row = ex.ledger["y"]
    np.testing.assert_allclose(np.sum(row.bias), taken, rtol=0, atol=1e3 * epsilon * np.abs(given).sum())
    np.testing.assert_allclose(np.sum(row.dead), given[:, 2].sum(), atol=1e3 * epsilon * np.abs(given).sum())
    assert np.abs(row.rounding).max() < 1e3 * epsilon * np.abs(given).sum()


@pytest.mark.parametrize("bias", [False, True])
def test_several_targets_and_threads(rng, bias):
    """With a function between two layers; three classes are one by one, to the bit, for any number of threads."""
    weights = rng.standard_normal((70, 45)) / 7, rng.standard_normal((33, 70)) / 8
    biases = [rng.standard_normal(len(weight)) if bias else np.zeros(len(weight)) for weight in weights]
    lower, upper = (Dense(weight, shift if bias else None) for weight, shift in zip(weights, biases, strict=True))
    nodes = [Node("h", lower, ("x",)), Node("f", Tanh(), ("h",)), Node("y", upper, ("f",))]
    net = pylrp.Network.from_graph(Graph({"x": (45,)}, nodes, ["y"]))
    x = rng.standard_normal((ROWS, 45))
    hidden = np.tanh(x @ weights[0].T + biases[0])
    logits = hidden @ weights[1].T + biases[1]
    classes = [4, 0, 32]
    for threads in (1, 2, 3):
        found = net.explain(x, targets=classes, composite=pylrp.Gamma(0.5), threads=threads).relevance
        for i, target in enumerate(classes):
            alone = net.explain(x, target=target, composite=pylrp.Gamma(0.5), threads=1).relevance
            np.testing.assert_array_equal(found[:, i], alone)
            between, _ = by_contributions(hidden, weights[1], biases[1], logits * np.eye(33)[target], 0.5, 1e-6)
            wanted, _ = by_contributions(x, weights[0], biases[0], between, 0.5, 1e-6)
            np.testing.assert_allclose(alone, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
