"""Products with operands in bfloat16: what is rounded, what is summed, and that nothing changes where it is not asked.

References round in NumPy and sum in float64. The kernels themselves are looked at in
tests/cpp/test_kernels_bfloat16.cpp, for each instruction set.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pylrp
from pylrp import _core
from pylrp.layers import Conv, ConvTranspose, Dense, Flatten, ReLU
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Rule, WSquare, ZBox, ZPlus

Array = NDArray[Any]
PATHS = ("best", "words", "emulated", "numbers")
RULES = (Epsilon(0.1), ZPlus(), Gamma(0.25), AlphaBeta(2, 1), WSquare(), Flat(), ZBox(-3, 4))


@pytest.fixture(autouse=True)
def best() -> Iterator[None]:
    yield
    _core.force_bfloat16_path("best")


def rounded(numbers: Any) -> NDArray[np.float64]:
    """Round to 8 bits of mantissa, ties to even; denormals are zero."""
    x = np.asarray(numbers, np.float32)
    bits = x.view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    found = bits.astype(np.uint32).view(np.float32).reshape(x.shape)
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, 0, found).astype(np.float64)


def numbers(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def part(x: Array, name: str, rule: Rule) -> Array:
    low, high = rule.bounds() or (0, 0)
    parts = {
        "input": x,
        "positive": np.maximum(x, 0),
        "negative": np.minimum(x, 0),
        "one": np.ones_like(x),
        "low": np.full_like(x, low),
        "high": np.full_like(x, high),
    }
    return parts[name]


def read(W: Array, how: Any) -> Array:
    if isinstance(how, str):
        return W * W if how == "square" else np.ones_like(W)
    return how[0] * np.maximum(W, 0) + how[1] * np.minimum(W, 0)


def by_formula(rule: Rule, W: Array, a: Array, R: Array, batch: bool) -> Array:
    """Return R_in in float64; of a batch both operands are rounded, of few samples the weights before they are read."""

    def operand(x: Array) -> Array:
        return rounded(x) if batch else x.astype(np.float64)

    a, exact, R = a.astype(np.float64), rounded(W), R.astype(np.float64)

    # (p, n) multiplies sums over rounded W+ and W-.
    def weights(how: Any) -> Array:
        return rounded(W * W) if how == "square" and batch else read(exact, how)

    total = np.zeros_like(a)
    plain = operand(a) @ weights((1, 1)).T
    for group in rule.groups():
        z = np.zeros_like(R)
        for term in group.terms:
            constant = term.part in ("one", "low", "high")
            x = part(a, term.part, rule)
            z += term.sign * (x @ read(exact, term.weight).T if constant else operand(x) @ weights(term.weight).T)
        s = group.coefficient * R / np.where(z < 0, z - group.stabilizer, z + group.stabilizer)
        if group.mask != "all":
            s = np.where(plain > 0 if group.mask == "positive" else plain < 0, s, 0)
        for term in group.terms:
            total += term.sign * part(a, term.part, rule) * (operand(s) @ weights(term.weight))
    return total


def test_rounding() -> None:
    ties = np.array([0x3F808000, 0x3F818000, 0x007FFFFF, 0x80000001], np.uint32).view(np.float32)
    bits = np.random.default_rng(0).integers(0, 0x7F7F0000, 1000, dtype=np.uint32)
    for x in (ties, bits.view(np.float32), -bits.view(np.float32)):
        np.testing.assert_array_equal(_core.rounded_to_bfloat16(x), rounded(x))
    largest, nan = _core.rounded_to_bfloat16(np.array([0x7F7FFFFF, 0x7FC00001], np.uint32).view(np.float32))
    assert np.isposinf(largest)
    assert np.isnan(nan)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("rows", [7, 64])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (33, 17), (40, 300)])
def test_a_batch_rounds_both_operands(path: str, rows: int, shape: tuple[int, int]) -> None:
    _core.force_bfloat16_path(path)
    W, a = numbers(0, *shape), numbers(1, rows, shape[1])
    net = pylrp.Network([Dense(W)])
    out = net.explain(a, composite="epsilon", precision="bfloat16").output
    terms = np.abs(rounded(a)) @ np.abs(rounded(W)).T
    bound = (shape[1] + 1) * np.finfo(np.float32).eps * terms
    assert (np.abs(out - rounded(a) @ rounded(W).T) <= bound).all()
    exact = a.astype(np.float64) @ W.T.astype(np.float64)
    assert np.abs(out - exact).max() > 10 * bound.max() / (shape[1] + 1)  # it did round


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(("path", "rows"), [("numbers", 32), ("emulated", 32), ("best", 1), ("best", 3)])
def test_rules(path: str, rows: int, rule: Rule) -> None:
    _core.force_bfloat16_path(path)
    W, a, R = numbers(2, 41, 67), np.clip(numbers(3, rows, 67), -3, 4), np.abs(numbers(4, rows, 41))
    found = pylrp.relevance([W], [a], R, rules=rule, precision="bfloat16")
    expected = by_formula(rule, W, a, R, batch=rows > 3)
    exact = pylrp.relevance([W.astype(np.float64)], [a.astype(np.float64)], R.astype(np.float64), rules=rule)
    error, rounding = np.abs(found - expected), np.abs(found - exact)
    # A share close to the middle between two numbers may round the other way in float64: few entries are further off.
    assert np.median(error) < 1e-5 * np.abs(expected).max()
    assert error.max() < 0.01 * np.abs(expected).max()
    if not isinstance(rule, Flat):
        assert np.median(rounding) > 10 * np.median(error)


@pytest.mark.parametrize("rule", [Epsilon(1.0), ZPlus(), AlphaBeta(), WSquare(), Gamma()], ids=str)
def test_few_samples_read_weights_that_are_kept_so(rule: Rule) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for shape in [(5, 3), (300, 257)]:
        W, a, R = numbers(5, *shape), np.abs(numbers(6, shape[1])), np.abs(numbers(7, shape[0]))
        half = W.astype(ml_dtypes.bfloat16)
        given = pylrp.relevance([W], [a], R, rules=rule, precision="bfloat16")
        np.testing.assert_array_equal(pylrp.relevance([half], [a], R, rules=rule, precision="bfloat16"), given)
        np.testing.assert_array_equal(
            pylrp.relevance([W.T.copy().T], [a], R, rules=rule, precision="bfloat16").round(3), given.round(3)
        )
        batch = [np.tile(a, (9, 1))], np.tile(R, (9, 1))
        np.testing.assert_array_equal(
            pylrp.relevance([half], *batch, rules=rule, precision="bfloat16"),
            pylrp.relevance([half.astype(np.float32)], *batch, rules=rule, precision="bfloat16"),
        )
        whole = pylrp.relevance([half.astype(np.float32)], [a], R, rules=rule)
        np.testing.assert_allclose(given, whole, rtol=0, atol=1e-5 * np.abs(whole).max())


KINDS = {
    "3x3": (Conv(numbers(8, 40, 33, 3, 3), padding=1), (33, 9, 10)),
    "few channels": (Conv(numbers(9, 32, 3, 7, 7), stride=2, padding=3), (3, 20, 21)),
    "strided": (Conv(numbers(10, 24, 10, 3, 3), stride=2), (10, 11, 12)),
    "groups of an odd size": (Conv(numbers(11, 12, 5, 3, 3), groups=3, padding=1), (15, 8, 8)),
    "1x1": (Conv(numbers(12, 48, 21, 1, 1)), (21, 16, 16)),
    "depthwise": (Conv(numbers(13, 12, 1, 3, 3), groups=12), (12, 8, 8)),
    "transposed": (ConvTranspose(numbers(14, 9, 14, 3, 3), stride=2), (9, 6, 7)),
    "along a line": (Conv(numbers(15, 20, 300, 3), padding=1), (300, 15)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer(kind: str) -> None:
    layer, shape = KINDS[kind]
    net, x = pylrp.Network([layer], input_shape=shape), np.abs(numbers(16, 2, *shape)).clip(0, 4)
    top = net.forward(x)
    wide = pylrp.Network([_rounded_layer(layer)], input_shape=shape)
    for rule in RULES:
        exact = net.explain(x, top, rule)
        maps = []
        for path in ("numbers", "emulated"):
            _core.force_bfloat16_path(path)
            ex = net.explain(x, top, rule, precision="bfloat16")
            maps.append(ex.relevance)
            if kind != "depthwise":
                output = wide.forward(rounded(x))
                np.testing.assert_allclose(ex.output, output, rtol=0, atol=2e-6 * np.abs(output).max())
        scale = np.abs(exact.relevance).max()
        assert np.median(np.abs(maps[0] - maps[1])) < 1e-6 * scale
        assert np.abs(maps[0] - maps[1]).max() < 0.004 * scale
        assert np.median(np.abs(maps[0] - exact.relevance)) < 0.004 * scale
        assert kind == "depthwise" or isinstance(rule, Flat) or (maps[0] != exact.relevance).any()
        if kind == "depthwise":  # nothing to gain: not rounded
            np.testing.assert_array_equal(maps[0], exact.relevance)


def _rounded_layer(layer: Conv | ConvTranspose) -> Any:
    twin = copy.copy(layer)
    object.__setattr__(twin, "weight", rounded(layer.weight))
    return twin


def network(dtype: Any = np.float32) -> pylrp.Network:
    layers = [
        Conv(numbers(20, 32, 3, 3, 3).astype(dtype), padding=1),
        ReLU(),
        Conv(numbers(21, 24, 32, 3, 3).astype(dtype), stride=2),
        ReLU(),
        Flatten(),
        Dense(numbers(22, 10, 24 * 7 * 7).astype(dtype)),
    ]
    return pylrp.Network(layers, input_shape=(3, 16, 16))


COMPOSITES = ("epsilon", "epsilon_plus_flat", "epsilon_alpha2_beta1", "deep_taylor")


@pytest.mark.parametrize("path", ["numbers", "emulated"])
@pytest.mark.parametrize("composite", COMPOSITES)
def test_threads_have_equal_bits(path: str, composite: str) -> None:
    _core.force_bfloat16_path(path)
    net, x = network(), np.abs(numbers(23, 5, 3, 16, 16))
    one, two = (net.explain(x, composite=composite, precision="bfloat16", threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.relevance, two.relevance)
    np.testing.assert_array_equal(one.ledger.data, two.ledger.data)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_the_default_is_exact(composite: str) -> None:
    net, x = network(), np.abs(numbers(24, 5, 3, 16, 16))
    before = net.explain(x, composite=composite)
    rounding = net.explain(x, composite=composite, precision="bfloat16")
    for after in (net.explain(x, composite=composite), net.explain(x, composite=composite, precision="float32")):
        np.testing.assert_array_equal(after.relevance, before.relevance)
        np.testing.assert_array_equal(after.output, before.output)
        assert after.settings["precision"] == "float32"
    assert rounding.settings["precision"] == "bfloat16"
    gap = np.abs(rounding.relevance - before.relevance).max() / np.abs(before.relevance).max()
    assert 1e-5 < gap < 0.3
    np.testing.assert_array_equal(net.forward(x), before.output)


def test_the_ledger_balances() -> None:
    net, x = network(), np.abs(numbers(25, 6, 3, 16, 16))
    ledger = net.explain(x, composite="epsilon_plus", precision="bfloat16").ledger
    for row in ledger:  # three operands are rounded, by at most 2^-9 each
        assert (np.abs(row.rounding) < 3 * 2.0**-9 * np.abs(row.incoming)).all()


def test_coefficients_and_layers_are_of_the_same_precision() -> None:
    net, x = network(), np.abs(numbers(26, 5, 3, 16, 16))
    ex = net.explain(x, composite="epsilon", precision="bfloat16")
    name = net.names[1]
    values = net.explain(x, composite="epsilon", precision="bfloat16", layers=[name])
    np.testing.assert_array_equal(ex.layers[name], values.layers[name])
    found, a = ex.coefficients[net.graph.nodes[0].name], ex.layers[net.graph.nodes[0].name]
    assert np.isfinite(found).all()
    assert found.shape == a.shape


def test_denormal_weights_count_as_zero() -> None:
    W = np.array([[1.0, 1e-39], [0.0, 2.0]], np.float32)
    for rows in (1, 9):
        a = np.ones((rows, 2), np.float32)
        found = pylrp.relevance([W], [a], a, rules=ZPlus(0), precision="bfloat16")
        np.testing.assert_array_equal(found, a)


@pytest.mark.parametrize("precision", ["bfloat", "float16", 16, "float64", np.float32, True])
def test_other_precisions_are_refused(precision: Any) -> None:
    net, x = network(), np.abs(numbers(27, 1, 3, 16, 16))
    with pytest.raises(pylrp.UnsuitablePrecision) as caught:
        net.explain(x, precision=precision)
    assert (caught.value.precision, caught.value.dtype) == (precision, "float32")
    with pytest.raises(pylrp.UnsuitablePrecision):
        pylrp.relevance([numbers(0, 3, 2)], [numbers(1, 2)], numbers(2, 3), rules="epsilon", precision=precision)


def test_float64_is_refused() -> None:
    x = np.abs(numbers(28, 1, 3, 16, 16)).astype(np.float64)
    with pytest.raises(pylrp.UnsuitablePrecision) as caught:
        network(np.float64).explain(x, precision="bfloat16")
    assert (caught.value.precision, caught.value.dtype) == ("bfloat16", "float64")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.reason) == (str(caught.value), caught.value.reason)
    assert network(np.float64).explain(x, precision="float64").settings["precision"] == "float64"


def test_arrays_in_bfloat16_are_for_that_precision() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    W, a, R = numbers(0, 3, 2).astype(ml_dtypes.bfloat16), np.abs(numbers(1, 2)), numbers(2, 3)
    with pytest.raises(TypeError):
        pylrp.relevance([W], [a], R, rules="epsilon")
    with pytest.raises(TypeError):
        pylrp.relevance([W], [a.astype(np.float64)], R.astype(np.float64), rules="epsilon", precision="bfloat16")
    broken = W.copy()
    broken[2, 1] = np.nan
    with pytest.raises(pylrp.NotFinite) as caught:
        pylrp.relevance([broken], [a], R, rules="epsilon", precision="bfloat16")
    assert caught.value.what == "W_list[0]"


@pytest.mark.parametrize(("n_out", "n_in"), [(300, 70), (700, 25089)])  # blocks of 64 rows and 8
def test_squares_of_rows_that_come_next_are_summed_beside_those_before(n_out: int, n_in: int) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    W = numbers(31, n_out, n_in).astype(ml_dtypes.bfloat16)
    R = numbers(32, n_out)
    R[::3] = 0
    found = [pylrp.relevance([W], [None], R, rules=WSquare(0), threads=t, precision="bfloat16") for t in (1, 2)]
    np.testing.assert_array_equal(*found)
    square = W.astype(np.float64) ** 2
    expected = (R / square.sum(1)) @ square
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_precision_is_kept_in_files(tmp_path: Path) -> None:
    net, x = network(), np.abs(numbers(29, 2, 3, 16, 16))
    ex = net.explain(x, precision="bfloat16")
    ex.save(tmp_path / "ex.npz")
    assert pylrp.Explanation.load(tmp_path / "ex.npz").settings["precision"] == "bfloat16"
    stream = pylrp.stream.explain(net, x, tmp_path / "maps.npy", batch=2, precision="bfloat16")
    np.testing.assert_array_equal(stream.arrays()["relevance"], ex.relevance)
    with pytest.raises(pylrp.stream.DifferentRun):
        pylrp.stream.explain(net, x, tmp_path / "maps.npy", batch=2)
