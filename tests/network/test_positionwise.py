"""A product with a matrix along one axis of several: dense for rules and in names, whatever the core makes of it."""

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.loaders.contraction import Contraction, dense_along, letters_of
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, ZPlus

RNG = np.random.default_rng(8)


def by_hand(W, a, R, rule):
    """Relevance of the rows of a, (..., n), for relevance at their products: `pylrp.relevance` is tested elsewhere."""
    made = pylrp.relevance([W], [a.reshape(-1, a.shape[-1])], R.reshape(-1, R.shape[-1]), rules=[rule])
    return made.reshape(a.shape)


@pytest.mark.parametrize("positions", [(5,), (3, 4), (2, 3, 2), (1,), (1, 1)], ids=str)
@pytest.mark.parametrize("rule", [Epsilon(), ZPlus(), Gamma(), AlphaBeta(), Flat()], ids=str)
def test_as_dense_at_each_position(positions, rule):
    W = RNG.standard_normal((4, 6))
    net = pylrp.Network([L.PositionwiseDense.along(len(positions), W)], input_shape=(6, *positions))
    a, R = RNG.standard_normal((3, *positions, 6)), RNG.standard_normal((3, *positions, 4))
    x = np.moveaxis(a, -1, 1)
    np.testing.assert_allclose(np.moveaxis(net.forward(x), 1, -1), a @ W.T, atol=1e-12)
    found = np.moveaxis(net.explain(x, np.moveaxis(R, -1, 1), composite=rule).relevance, 1, -1)
    expected = by_hand(W, a, R, rule)
    np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())


def test_it_is_dense_for_rules():
    dense = L.PositionwiseDense.along(1, RNG.standard_normal((4, 6)), RNG.standard_normal(4))
    conv = L.Conv(RNG.standard_normal((4, 4, 1)), name="kernel of 1")
    net = pylrp.Network([dense, L.ReLU(), conv, L.ReLU(), L.Flatten()], input_shape=(6, 5))
    mine = pylrp.Composite("mine", Epsilon(0.5), {"conv": Gamma(), "dense": AlphaBeta()}, first={"conv": Flat()})
    ex = net.explain(RNG.standard_normal((2, 6, 5)), composite=mine)
    assert {row.name: row.rule for row in ex.ledger.layers} == {"kernel of 1": "Gamma(0.25)", "0": "AlphaBeta(2, 1)"}
    rows = [line.split()[:2] for line in net.summary().splitlines()]
    assert ["0", "dense"] in rows
    assert any(line.startswith("kernel of 1  conv") for line in net.summary().splitlines())


@pytest.mark.parametrize(
    "options", [{"weight": np.ones((4, 4, 3))}, {"stride": 2}, {"groups": 2, "weight": np.ones((4, 2, 3))}], ids=str
)
def test_what_is_a_convolution(options):
    with pytest.raises(ValueError, match="Conv"):
        L.PositionwiseDense(**{"weight": np.ones((4, 4, 1)), **options})


@pytest.mark.parametrize("rule", [Epsilon(), ZPlus(), AlphaBeta()], ids=str)
def test_groups_see_their_own_channels(rule):
    W = RNG.standard_normal((4, 2, 1))
    net = pylrp.Network([L.PositionwiseDense(W, groups=2)], input_shape=(4, 5))
    a, R = RNG.standard_normal((3, 5, 4)), RNG.standard_normal((3, 5, 4))
    found = net.explain(np.moveaxis(a, -1, 1), np.moveaxis(R, -1, 1), composite=rule).relevance
    halves = [by_hand(W[i : i + 2, :, 0], a[..., i : i + 2], R[..., i : i + 2], rule) for i in (0, 2)]
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), np.concatenate(halves, -1), atol=1e-9)


EQUATIONS = [  # with the shapes of the value, without the batch, and of the constant
    ("abc,cd->abd", (5, 6), (6, 4)),
    ("abc,dc->abd", (5, 6), (4, 6)),
    ("...c,cd->...d", (5, 6), (6, 4)),
    ("...i,io->...o", (6,), (6, 4)),
    ("ab,bc->ac", (6,), (6, 4)),
    ("abc,cde->abde", (5, 6), (6, 2, 3)),
    ("abcd,cde->abe", (5, 2, 3), (2, 3, 4)),
    ("abc,bd->adc", (5, 6), (5, 4)),
    ("abc,bcd->ad", (5, 6), (5, 6, 4)),
    ("abc,bcd->ad", (1, 6), (1, 6, 4)),
    ("abcdef,fg->abcdeg", (2, 3, 2, 3, 6), (6, 4)),
    ("b n h d , h d e -> b e n", (5, 2, 3), (2, 3, 4)),
]


@pytest.mark.parametrize(("equation", "shape", "constant"), EQUATIONS)
def test_contractions(equation, shape, constant):
    value, matrix = RNG.standard_normal((3, *shape)), RNG.standard_normal(constant)
    expected = np.einsum(equation, value, matrix)
    given, letters, result = letters_of(equation, value.ndim)
    meeting = Contraction.of(given[1:], letters, result[1:])
    layers = [layer for _, layer in meeting.layers(shape, constant, lambda n: dense_along(n, meeting.matrix(matrix)))]
    assert [layer.kind for layer in layers].count("dense") == 1
    net = pylrp.Network(layers, input_shape=shape)
    np.testing.assert_allclose(net.forward(value), expected, atol=1e-12)
    # The epsilon rule without a stabiliser is the gradient times the input.
    R = RNG.standard_normal(expected.shape)
    gradient = np.einsum(f"{result},{letters}->{given}", R / expected, matrix)
    found = net.explain(value, R, composite=pylrp.Zero()).relevance
    np.testing.assert_allclose(found, value * gradient, atol=1e-9 * np.abs(value * gradient).max())
    own = RNG.standard_normal(meeting.matrix(matrix).shape[0])
    made = [constant[axis] for axis in meeting.axes[: meeting.made]]
    kept = [shape[axis] for axis in meeting.kept]
    bias = np.transpose(own.reshape(*made, *(1,) * len(kept)), meeting.order)
    np.testing.assert_array_equal(meeting.bias(bias, constant), own)


@pytest.mark.parametrize("equation", ["abc,acb->abc", "abb,bc->ac", "abc,cd->ab", "abc,d->abcd", "abc,bc->a"])
def test_what_is_no_product_with_one_matrix(equation):
    given, constant, result = letters_of(equation, 3)
    with pytest.raises(ValueError, match=r"matrix|diagonal"):
        Contraction.of(given[1:], constant, result[1:])


@pytest.mark.parametrize("equation", ["abc->ab", "abc,cd,de->abe", "abc,cd", "ab,bc->ac", "abc,...cd->abd", ""])
def test_what_is_no_equation_of_two(equation):
    with pytest.raises(ValueError, match="equation"):
        letters_of(equation, 3)
