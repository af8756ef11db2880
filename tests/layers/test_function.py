"""Functions of one value by their formula: every step, relevance and the ledger, bad formulas.

Expected numbers are NumPy's in float64, written here by hand.
"""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.layers.formula import OPERATIONS
from pylrp.rules import Norm, Pass, Zero

erf = np.vectorize(math.erf, otypes=[float])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


#: Each step of a program once, on arguments where it is defined.
STEPS = {
    "x + 0.5": lambda x: x + 0.5,
    "0.5 - x": lambda x: 0.5 - x,
    "x * -2": lambda x: -2 * x,
    "x / (abs(x) + 1)": lambda x: x / (np.abs(x) + 1),
    "abs(x) ** 1.3": lambda x: np.abs(x) ** 1.3,
    "x ** 2": lambda x: x * x,
    "pow(x, 3)": lambda x: x**3,
    "(abs(x) + 1) ** -1": lambda x: 1 / (np.abs(x) + 1),
    "min(x, 0.3)": lambda x: np.minimum(x, 0.3),
    "max(x, -0.3)": lambda x: np.maximum(x, -0.3),
    "where(x < 0.2, 2 * x, 1)": lambda x: np.where(x < 0.2, 2 * x, 1),
    "where(x <= 0, x, x * x)": lambda x: np.where(x <= 0, x, x * x),
    "where(0.1 > x, 0, x)": lambda x: np.where(x < 0.1, 0, x),
    "where(sign(x) == 1, x, 0)": lambda x: np.where(x > 0, x, 0),
    "where(both(x > 0, x < 1), x, 0)": lambda x: np.where((x > 0) & (x < 1), x, 0),
    "where(either(x > 1, x < 0), x, 0)": lambda x: np.where((x > 1) | (x < 0), x, 0),
    "no(x > 0) * x": lambda x: np.where(x > 0, 0, x),
    "-x": lambda x: -x,
    "sqrt(abs(x))": lambda x: np.sqrt(np.abs(x)),
    "exp(x)": np.exp,
    "expm1(x)": np.expm1,
    "log(1 + abs(x))": lambda x: np.log(1 + np.abs(x)),
    "log1p(abs(x))": lambda x: np.log1p(np.abs(x)),
    "sin(3 * x)": lambda x: np.sin(3 * x),
    "cos(x) - 1": lambda x: np.cos(x) - 1,
    "tan(tanh(x))": lambda x: np.tan(np.tanh(x)),
    "sinh(x)": np.sinh,
    "cosh(x)": np.cosh,
    "asin(0.9 * tanh(x))": lambda x: np.arcsin(0.9 * np.tanh(x)),
    "acos(0.9 * tanh(x))": lambda x: np.arccos(0.9 * np.tanh(x)),
    "atan(x)": np.arctan,
    "asinh(x)": np.arcsinh,
    "acosh(1.5 + abs(x))": lambda x: np.arccosh(1.5 + np.abs(x)),
    "atanh(0.9 * tanh(x))": lambda x: np.arctanh(0.9 * np.tanh(x)),
    "erf(x)": erf,
    "x * sigmoid(1.702 * x)": lambda x: x * sigmoid(1.702 * x),
    "softplus(x)": lambda x: np.log1p(np.exp(x)),
    "floor(x) + ceil(2 * x) + round(3 * x)": lambda x: np.floor(x) + np.ceil(2 * x) + np.round(3 * x),
    "v = x * x; w = exp(-v); v * w + w * x": lambda x: x**2 * np.exp(-(x**2)) + x * np.exp(-(x**2)),
    "x": lambda x: x,
    "2 * 3 + x": lambda x: 6 + x,
}


def network(layer, dtype, shape=(5,)):
    rng = np.random.default_rng(1)
    below = rng.normal(size=(int(np.prod(shape)), 4)).astype(dtype)
    above = rng.normal(size=(2, len(below))).astype(dtype)
    net = pylrp.Network(
        [L.Dense(below, name="z"), L.Reshape(shape), layer, L.Flatten(), L.Dense(above, name="top")], (4,)
    )
    return net, below.astype(float), above.astype(float)


def test_every_step_is_tried():
    text = " ".join(STEPS)
    signs = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "less_equal": "<=",
             "equal": "==", "negative": "-x"}  # fmt: skip
    assert all(signs.get(name, f"{name}(") in text for name in OPERATIONS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("formula", STEPS)
def test_values_and_relevance(formula, dtype):
    f = STEPS[formula]
    net, below, above = network(L.Function(formula, name="f"), dtype)
    x = np.random.default_rng(2).normal(size=(300, 4)).astype(dtype) / 2
    z = x.astype(float) @ below.T
    y, zero = f(z), f(np.zeros(1))
    found = {n: net.explain(x, 1, composite=Zero(), layers="all", threads=n) for n in (1, 2)}
    if dtype == np.float64:
        np.testing.assert_allclose(found[1].output, y @ above.T, rtol=1e-9, atol=1e-9)
    incoming = y * above[1]
    share = np.divide(y - zero, y, out=np.zeros_like(y), where=y != 0) if zero[0] != 0 else np.ones_like(y)
    # A step of the function may lie between a number and its rounding.
    stepped = any(name in formula for name in ("floor", "where", "no("))
    tolerance = 1e-9 if dtype == np.float64 else 1e-3
    sent, expected = found[1].layers["reshape0"], incoming * share
    close = np.abs(sent - expected) <= tolerance * (1 + np.abs(expected))
    assert close.mean() > (0.99 if stepped else 0.9999)
    np.testing.assert_array_equal(found[1].relevance, found[2].relevance)
    if zero[0] != 0:
        row = found[1].ledger["f"]
        size = np.abs(found[1].layers["f"]).sum(1)
        assert (np.abs(row.rounding) <= (1e-12 if dtype == np.float64 else 1e-5) * size).all()
        assert np.abs(row.constant).max() > 0
    else:
        np.testing.assert_array_equal(sent, found[1].layers["f"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 2, 2), (1, 2, 2), (3, 1, 1), (3, 1, 2)], ids=repr)
def test_constants_by_channel_and_by_entry(shape, dtype):
    """Snake (Ziyin et al. 2020), x + sin²(a x) / a, with an a for each channel or entry; and a shift that differs."""
    rng = np.random.default_rng(0)
    a = rng.uniform(0.5, 2, size=shape).astype(dtype)
    full = np.broadcast_to(a, (3, 2, 2)).ravel().astype(float)
    for formula, f, zero in (
        ("x + sin(c0 * x) ** 2 / c0", lambda x: x + np.sin(full * x) ** 2 / full, 0.0),
        ("x + c0", lambda x: x + full, full),
    ):
        net, below, above = network(L.Function(formula, a[None], name="f"), dtype, (3, 2, 2))
        x = rng.normal(size=(40, 4)).astype(dtype)
        z = x.astype(float) @ below.T
        tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype == np.float64 else {"rtol": 1e-3, "atol": 1e-3}
        np.testing.assert_allclose(net.forward(x), f(z) @ above.T, **tolerance)
        ex = net.explain(x, 0, composite=Zero(), layers="all")
        expected = (f(z) - zero) * above[0]
        np.testing.assert_allclose(ex.layers["reshape0"].reshape(40, -1), expected, **tolerance)


def test_pass_and_norm_by_kind():
    net, below, above = network(L.Function("1 + x * x", name="f"), np.float64)
    x = np.random.default_rng(5).normal(size=(6, 4))
    ex = net.explain(x, 0, composite=pylrp.Composite("m", Zero(), {"function": Pass()}), layers="all")
    np.testing.assert_array_equal(ex.layers["reshape0"], ex.layers["f"])
    ex = net.explain(x, 0, composite=pylrp.Composite("m", Zero(), {"function": Norm()}), layers="all")
    z = x @ below.T
    np.testing.assert_allclose(ex.layers["reshape0"], z**2 * above[0] * (1 + z**2) / (1 + z**2 + 1e-6), rtol=1e-10)


def test_zero_stays_without_relevance():
    """f(x) / x has a limit at 0; relu and sqrt at 0: nothing arrives where the value is 0."""
    for formula in ("max(x, 0)", "sqrt(max(x, 0))", "x * sigmoid(x)", "tanh(x)"):
        net = pylrp.Network([L.Dense(np.eye(3)), L.Function(formula), L.Dense(np.ones((1, 3)))])
        found = net.explain(np.array([0.0, -0.0, 1.0]), 0, composite=Zero()).relevance
        assert found[0] == found[1] == 0
        assert found[2] > 0


@pytest.mark.parametrize(("formula", "x"), [("log(x)", -1.0), ("1 / x", 0.0), ("exp(exp(x))", 50.0)])
def test_what_is_not_finite_is_named(formula, x):
    net = pylrp.Network([L.Dense(np.eye(2)), L.Function(formula, name="f"), L.Dense(np.ones((1, 2)))])
    with pytest.raises(pylrp.NotFinite) as caught:
        net.explain(np.array([x, 1.0]), 0, composite="epsilon")
    assert (caught.value.layer, caught.value.what) == ("f", "output")


@pytest.mark.parametrize(
    "formula",
    ["", "y", "x +", "x; x", "import os", "x.real", "f(x)", "min(x)", "where(x, 1)", "x if x > 0 else 0", "x and x",
     "'x'", "x < x < x",
     "c0 * x", "__import__('os')", "lambda: x", "(" * 300 + "x" + ")" * 300, "-" * 5000 + "x", "True * x",
     "x " * 20000],
)  # fmt: skip
def test_what_is_no_formula(formula):
    with pytest.raises(ValueError, match="formula"):
        L.Function(formula)


def test_what_is_no_text():
    with pytest.raises(TypeError, match="formula"):
        L.Function(np.tanh)


def test_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match="takes 1 arrays"):
        L.Function("c0 * x", np.ones((2, 3)))
    with pytest.raises(ValueError, match="broadcast"):
        L.Function("c0 * x", np.ones((1, 4))).output_shape((3,))


def test_equal_and_stored():
    layer = L.Function("v = x * x; v * exp(-v)", name="f")
    again = pickle.loads(pickle.dumps(layer))
    assert (again.formula, again.name, repr(again)) == (layer.formula, "f", f"Function({layer.formula!r})")
