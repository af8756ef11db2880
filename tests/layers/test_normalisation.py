"""LayerNorm, RMSNorm, GroupNorm, InstanceNorm and division by a norm: forward, relevance, ledger, bad settings.

The expected numbers are the formulas written out in float64 NumPy on arrays cut and summed by NumPy's own axes; nothing
of the library computes them.
"""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.rules import Detach, DetachAll, Epsilon, Pass, Zero

SHAPE = (6, 4, 5)


def in_double(layer, shape=SHAPE):
    """Return a network of a layer without arrays: a factor of 1 below it has float64."""
    return pylrp.Network([L.Affine(np.ones((1,) * len(shape))), layer], shape)


class Case:
    """A layer, and the same as NumPy has it: how a batch is cut, over which axes, its arrays over the cut batch."""

    def __init__(self, make, cut, axes, arrays, centred=True):
        self.make, self.cut, self.axes, self.arrays, self.centred = make, cut, axes, arrays, centred


def over(axes):
    return tuple(n if a in axes else 1 for a, n in enumerate(SHAPE))


def of(shape, full):
    return lambda rng: (rng.normal(size=shape) + 1.5, rng.normal(size=shape), full)


CASES = {
    "last axis": Case(lambda g, b, e: L.LayerNorm(g, b, epsilon=e), SHAPE, (3,), of((5,), over((2,)))),
    "channels": Case(lambda g, b, e: L.LayerNorm(g, b, axes=0, epsilon=e), SHAPE, (1,), of((6,), over((0,)))),
    "middle axis": Case(lambda g, b, e: L.LayerNorm(g, b, axes=1, epsilon=e), SHAPE, (2,), of((4,), over((1,)))),
    "last two": Case(lambda g, b, e: L.LayerNorm(g, b, axes=(-2, -1), epsilon=e), SHAPE, (2, 3), of((4, 5), (1, 4, 5))),
    "first and last": Case(lambda g, b, e: L.LayerNorm(g, b, axes=(0, 2), epsilon=e), SHAPE, (1, 3),
                           of((6, 5), (6, 1, 5))),
    "sample": Case(lambda g, b, e: L.LayerNorm(g, b, axes=(0, 1, 2), epsilon=e), SHAPE, (1, 2, 3), of(SHAPE, SHAPE)),
    "a scale by rows": Case(lambda g, b, e: L.LayerNorm(g, b, axes=(1, 2), epsilon=e), SHAPE, (2, 3),
                            of((4, 1), (1, 4, 1))),
    "groups": Case(lambda g, b, e: L.GroupNorm(g, b, groups=3, epsilon=e), (3, 2, 4, 5), (2, 3, 4),
                   of((6,), (3, 2, 1, 1))),
    "one group": Case(lambda g, b, e: L.GroupNorm(g, b, groups=1, epsilon=e), (1, 6, 4, 5), (2, 3, 4),
                      of((6,), (1, 6, 1, 1))),
    "groups of one": Case(lambda g, b, e: L.GroupNorm(g, b, groups=6, epsilon=e), (6, 1, 4, 5), (2, 3, 4),
                          of((6,), (6, 1, 1, 1))),
    "instance": Case(lambda g, b, e: L.InstanceNorm(g, b, epsilon=e), SHAPE, (2, 3), of((6,), (6, 1, 1))),
    "rms": Case(lambda g, b, e: L.RMSNorm(g, b, epsilon=e), SHAPE, (3,), of((5,), (1, 1, 5)), centred=False),
    "rms of channels": Case(lambda g, b, e: L.RMSNorm(g, b, axes=0, epsilon=e), SHAPE, (1,), of((6,), (6, 1, 1)),
                            centred=False),
}  # fmt: skip


def parts(case, x, g, b, epsilon=1e-5):
    """Return the mean, the deviation, and the output, over the cut batch."""
    cut = x.reshape(len(x), *case.cut)
    mean = cut.mean(axis=case.axes, keepdims=True) if case.centred else 0.0
    deviation = np.sqrt(((cut - mean) ** 2).mean(axis=case.axes, keepdims=True) + epsilon)
    return cut, mean, deviation, (cut - mean) / deviation * g + b


def relevance_by_hand(case, x, R, g, b, mean_too):
    """Return R_in, and what the shift and the mean take, one a sample."""
    cut, mean, deviation, y = parts(case, x, g, b)
    s = R.reshape(cut.shape) / y
    t = g * s / deviation
    down = t if mean_too or not case.centred else t - t.mean(axis=case.axes, keepdims=True)
    of_mean = -(mean * t) if mean_too else np.zeros_like(t)
    totals = ((b * s), of_mean)
    return (cut * down).reshape(x.shape), *(v.reshape(len(x), -1).sum(1) for v in totals)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", CASES)
def test_forward_and_relevance(rng, name, dtype):
    case = CASES[name]
    g, b, full = case.arrays(rng)
    g, b = g.astype(dtype), b.astype(dtype)
    x = (rng.normal(size=(7, *SHAPE)) * 2 + 1).astype(dtype)
    R = rng.normal(size=x.shape).astype(dtype)
    G, B = (np.asarray(v, np.float64).reshape(full) for v in (g, b))
    wide = x.astype(np.float64)
    net = pylrp.Network([case.make(g, b, 1e-5)], SHAPE)
    assert net.dtype == dtype
    tolerance = 1e-12 if dtype == np.float64 else 3e-6
    y = parts(case, wide, G, B)[3].reshape(x.shape)
    np.testing.assert_allclose(net.forward(x), y, atol=tolerance * np.abs(y).max())
    for rule in (None, Detach(), DetachAll()):
        kinds = {} if rule is None else {"normalisation": rule}
        ex = net.explain(x, R, composite=pylrp.Composite("mine", Zero(), kinds))
        expected, bias, constant = relevance_by_hand(case, wide, R.astype(np.float64), G, B, rule == DetachAll())
        np.testing.assert_allclose(ex.relevance, expected, atol=tolerance * np.abs(expected).max())
        row, size = ex.ledger[net.names[0]], tolerance * np.abs(expected).reshape(len(x), -1).sum(1).max()
        np.testing.assert_allclose(row.bias, bias, atol=size)
        np.testing.assert_allclose(row.constant, constant if case.centred else 0, atol=size)
        np.testing.assert_allclose(row.dead, 0)
        np.testing.assert_allclose(row.rounding, 0, atol=(1e-12 if dtype == np.float64 else 1e-5) * size / tolerance)
        assert row.rule == repr(rule or Detach())


@pytest.mark.parametrize("name", CASES)
def test_without_scale_and_shift(rng, name):
    case = CASES[name]
    x, R = rng.normal(size=(2, 3, *SHAPE))
    net = in_double(case.make(None, None, 1e-5))
    np.testing.assert_allclose(net.forward(x), parts(case, x, 1, 0)[3].reshape(x.shape), atol=1e-12)
    ex = net.explain(x, R, composite="epsilon")
    if not case.centred:
        np.testing.assert_array_equal(ex.relevance, R)
        return
    np.testing.assert_allclose(ex.relevance, relevance_by_hand(case, x, R, 1, 0, False)[0], atol=1e-10)
    # Without a shift nothing is lost.
    np.testing.assert_allclose(ex.relevance.reshape(3, -1).sum(1), R.reshape(3, -1).sum(1), atol=1e-10)


def test_by_hand():
    # x = 1, 3: mean 2, deviation 1, y = -1, 1 times 2 plus 4 = 2, 6; s = 4, 2; t = 8, 4, their mean 6
    net = pylrp.Network([L.LayerNorm([2.0, 2.0], [4.0, 4.0], epsilon=0.0)], (2,))
    np.testing.assert_allclose(net.forward([[1.0, 3.0]]), [[2.0, 6.0]])
    ex = net.explain([[1.0, 3.0]], np.array([[8.0, 12.0]]), composite="epsilon")
    np.testing.assert_allclose(ex.relevance, [[2.0, -6.0]])
    np.testing.assert_allclose(ex.ledger[net.names[0]].bias, [24.0])
    ex = net.explain([[1.0, 3.0]], np.array([[8.0, 12.0]]),
                     composite=pylrp.Composite("m", Zero(), {"normalisation": DetachAll()}))  # fmt: skip
    np.testing.assert_allclose(ex.relevance, [[8.0, 12.0]])
    np.testing.assert_allclose(ex.ledger[net.names[0]].constant, [-24.0])
    # 3, 4: root of the mean square sqrt(12.5); the norm 5
    np.testing.assert_allclose(in_double(L.RMSNorm(epsilon=0.0), (2,)).forward([[3.0, 4.0]]) * math.sqrt(12.5),
                               [[3.0, 4.0]])  # fmt: skip
    np.testing.assert_allclose(in_double(L.Normalize(), (2,)).forward([[3.0, 4.0]]), [[0.6, 0.8]])


def test_epsilon_in_its_three_places():
    x = [[3.0, 5.0]]  # deviation 1
    for at, divisor in (("inside", 2.0), ("outside", 4.0), ("floor", 3.0)):
        net = in_double(L.LayerNorm(epsilon=3.0, epsilon_at=at), (2,))
        np.testing.assert_allclose(net.forward(x), [[-1 / divisor, 1 / divisor]])
    for at, divisor in (("inside", math.sqrt(28.0)), ("outside", 8.0), ("floor", 5.0)):
        net = in_double(L.Normalize(epsilon=3.0, epsilon_at=at), (2,))
        np.testing.assert_allclose(net.forward([[3.0, 4.0]]), [[3 / divisor, 4 / divisor]])


@pytest.mark.parametrize("axes", [0, 1, (0, 1), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize(("norm", "of"), [
    ("l1", lambda x, a: np.abs(x).sum(axis=a, keepdims=True)),
    ("l2", lambda x, a: np.sqrt((x**2).sum(axis=a, keepdims=True))),
    ("max", lambda x, a: x.max(axis=a, keepdims=True)),
])  # fmt: skip
def test_norms_over_any_axes(rng, axes, norm, of):
    x = rng.normal(size=(4, *SHAPE))
    batch_axes = tuple(a + 1 for a in ((axes,) if isinstance(axes, int) else axes))
    net = in_double(L.Normalize(norm, axes))
    np.testing.assert_allclose(net.forward(x), x / of(x, batch_axes), atol=1e-13)
    R = rng.normal(size=x.shape)
    np.testing.assert_array_equal(net.explain(x, R, composite="epsilon").relevance, R)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("epsilon", [1e-5, 0.0])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.7e4])
def test_a_constant_input(dtype, epsilon, value):
    """The variance is 0: what is left of x is exactly 0, so that all there is is the shift's."""
    shift = np.arange(1, 6).astype(dtype)
    net = pylrp.Network([L.LayerNorm(None, shift, epsilon=epsilon)], (3, 5))
    x = np.full((1, 3, 5), value, dtype)
    np.testing.assert_array_equal(net.forward(x), np.broadcast_to(shift, x.shape))
    ex = net.explain(x, np.ones_like(x), composite="epsilon")
    np.testing.assert_allclose(ex.ledger[net.names[0]].bias, [15.0], rtol=1e-6)
    size = np.abs(ex.relevance).sum() + 15
    np.testing.assert_allclose(ex.ledger[net.names[0]].rounding, [0.0], atol=1e-5 * size)
    no_shift = pylrp.Network([L.LayerNorm(np.ones(5, dtype), epsilon=epsilon)], (3, 5))
    np.testing.assert_array_equal(no_shift.forward(x), np.zeros_like(x))
    ex = no_shift.explain(x, np.ones_like(x), composite="epsilon")
    np.testing.assert_array_equal(ex.relevance, np.zeros_like(x))
    np.testing.assert_allclose(ex.ledger[no_shift.names[0]].dead, [15.0])


def test_groups_of_one_entry():
    net = pylrp.Network([L.LayerNorm([2.0], [3.0])], (4, 1))
    np.testing.assert_array_equal(net.forward(np.arange(8.0).reshape(2, 4, 1)), np.full((2, 4, 1), 3.0))
    one = pylrp.Network([L.RMSNorm(epsilon=0.0)], (1,))
    np.testing.assert_array_equal(one.forward([[-7.0]]), [[-1.0]])


@pytest.mark.parametrize(("dtype", "mean"), [(np.float32, 1e4), (np.float64, 1e9)])
@pytest.mark.parametrize("axes", [-1, 0])
def test_a_mean_far_above_the_deviation(rng, dtype, mean, axes):
    x = (mean + rng.normal(size=(3, 40, 50))).astype(dtype)
    exact = x.astype(np.longdouble)
    axis = 2 if axes == -1 else 1
    centred = exact - exact.mean(axis=axis, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(axis=axis, keepdims=True) + np.longdouble(1e-5))
    found = pylrp.Network([L.LayerNorm(np.ones(x.shape[axis], dtype), axes=axes)], x.shape[1:]).forward(x)
    np.testing.assert_allclose(found, y.astype(np.float64), atol=5e-7 if dtype == np.float32 else 5e-13 * 1e3)


@pytest.mark.parametrize("name", CASES)
def test_equal_bits_on_any_number_of_threads_and_for_many_targets(rng, name):
    case = CASES[name]
    g, b, _ = case.arrays(rng)
    for dtype in (np.float32, np.float64):
        layers = [L.Conv(rng.normal(size=(6, 6, 1, 1)).astype(dtype))]
        layers += [case.make(g.astype(dtype), b.astype(dtype), 1e-5), L.Flatten()]
        layers += [L.Dense(rng.normal(size=(3, math.prod(SHAPE))).astype(dtype))]
        net = pylrp.Network(layers, SHAPE)
        x = rng.normal(size=(9, *SHAPE)).astype(dtype)
        together = net.explain(x, targets=[0, 2], composite="epsilon", threads=2)
        for t, target in enumerate((0, 2)):
            alone = net.explain(x, target, composite="epsilon", threads=1)
            np.testing.assert_array_equal(together.relevance[:, t], alone.relevance)
        np.testing.assert_array_equal(net.forward(x, threads=1), net.forward(x, threads=2))


def test_identity_is_refused_where_a_mean_is_subtracted(rng):
    for layer in (L.LayerNorm(name="n"), L.GroupNorm(groups=2, name="n"), L.RMSNorm(None, np.ones(4), name="n")):
        net = pylrp.Network([L.Conv(np.ones((2, 2, 1))), layer, L.Flatten(), L.Dense(np.ones((2, 8)))], (2, 4))
        composite = pylrp.Composite("mine", Epsilon(), {"normalisation": Pass()})
        with pytest.raises(pylrp.UnsuitableRule, match="Detach") as caught:
            net.explain(rng.normal(size=(1, 2, 4)), 0, composite=composite)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.node, again.rule, str(again)) == ("n", "Pass()", str(caught.value))
        # The way out that it names.
        way_out = pylrp.Composite("mine", Epsilon(), {"normalisation": Detach()})
        net.explain(rng.normal(size=(1, 2, 4)), 0, composite=way_out)
    plain = pylrp.Network([L.Conv(np.ones((2, 2, 1))), L.RMSNorm(np.ones(4)), L.Flatten(), L.Dense(np.ones((2, 8)))],
                          (2, 4))  # fmt: skip
    plain.explain(rng.normal(size=(1, 2, 4)), 0, composite=composite)


@pytest.mark.parametrize(("make", "shape"), [
    (lambda: L.LayerNorm(axes=3), SHAPE), (lambda: L.LayerNorm(axes=(0, 0)), SHAPE),
    (lambda: L.LayerNorm(axes=(0, -3)), SHAPE), (lambda: L.LayerNorm(axes=()), SHAPE),
    (lambda: L.LayerNorm(np.ones(4)), SHAPE), (lambda: L.LayerNorm(np.ones((4, 5))), SHAPE),
    (lambda: L.LayerNorm(None, np.ones(6)), SHAPE), (lambda: L.LayerNorm(epsilon=-1.0), SHAPE),
    (lambda: L.LayerNorm(epsilon=math.nan), SHAPE), (lambda: L.LayerNorm(epsilon_at="under"), SHAPE),
    (lambda: L.GroupNorm(groups=4), SHAPE), (lambda: L.GroupNorm(groups=0), SHAPE),
    (lambda: L.GroupNorm(np.ones(3), groups=3), SHAPE), (lambda: L.InstanceNorm(), (6,)),
    (lambda: L.InstanceNorm(np.ones(5)), SHAPE), (lambda: L.Normalize("l3"), SHAPE),
    (lambda: L.Normalize(axes=5), SHAPE), (lambda: L.Normalize(epsilon=-1.0), SHAPE),
    (lambda: L.LayerNorm(np.full(5, np.nan)), SHAPE),
])  # fmt: skip
def test_settings_that_do_not_fit(make, shape):
    with pytest.raises(ValueError, match=r"axes|scale|shift|epsilon|groups|positions|norm|NaN|nan"):
        pylrp.Network([make()], shape)


def test_saved_and_read_again(rng, tmp_path):
    layers = [L.LayerNorm(rng.normal(size=5)), L.RMSNorm(None, rng.normal(size=(6, 5)), axes=(0, 2)),
              L.GroupNorm(rng.normal(size=6), groups=3, epsilon=1e-3, epsilon_at="outside"), L.InstanceNorm(),
              L.Normalize("l1", (1, 2), epsilon=1e-9)]  # fmt: skip
    net = pylrp.Network(layers, SHAPE)
    net.save(tmp_path / "net.pylrp.npz")
    again = pylrp.load(tmp_path / "net.pylrp.npz")
    x = rng.normal(size=(2, *SHAPE))
    np.testing.assert_array_equal(again.forward(x), net.forward(x))
    assert str(again.summary("epsilon")) == str(net.summary("epsilon"))
