"""Products whose left operand is mostly zeros: by lists or by tiles, the same relevance.

tests/cpp has the kernels (test_kernels_lists.cpp), every share of zeros and every kind of layer (test_lists.cpp).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

import pylrp
from pylrp import _core
from pylrp.layers import Conv, Dense, Flatten, ReLU


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    yield
    _core.force_left_path("counted")


def network() -> pylrp.Network:
    """Return convolutions of 3 x 3 and of 1 x 1 and a dense layer, behind ReLUs."""
    rng = np.random.default_rng(0)
    first = Conv(rng.normal(size=(64, 3, 3, 3)), bias=np.full(64, -2.0))
    second, third = Conv(rng.normal(size=(96, 64, 3, 3))), Conv(rng.normal(size=(128, 96, 1, 1)))
    top = rng.normal(size=(10, 128 * 24 * 24))
    layers = [first, ReLU(), second, ReLU(), third, ReLU(), Flatten(), Dense(top)]
    return pylrp.Network(layers, input_shape=(3, 28, 28))


def pixels() -> NDArray[np.float64]:
    return np.random.default_rng(1).random((2, 3, 28, 28))


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1", "epsilon"])
def test_lists_and_tiles_agree(composite: str) -> None:
    net, x = network(), pixels()
    bounds = {"low": 0.0, "high": 1.0} if composite.endswith("box") else {}
    rules = pylrp.composite(composite, **bounds)
    maps = {}
    for path in ("tiles", "lists", "pairs", "counted"):
        _core.force_left_path(path)
        maps[path] = net.explain(x, composite=rules).relevance
    for path in ("lists", "pairs", "counted"):
        np.testing.assert_allclose(maps[path], maps["tiles"], rtol=0, atol=1e-9 * np.abs(maps["tiles"]).max())


def test_what_is_counted_goes_by_lists() -> None:
    net, x = network(), pixels()
    before = _core.left_work()
    one = net.explain(x, composite="epsilon_plus", threads=1).relevance
    work = {name: count - before[name] for name, count in _core.left_work().items()}
    assert work["lists"] > work["tiles"] > 0
    assert 0 < work["done"] < 0.7 * work["lists"]
    np.testing.assert_array_equal(net.explain(x, composite="epsilon_plus", threads=2).relevance, one)


@pytest.mark.parametrize("size", [1, 3])
def test_work_is_counted_whichever_way_it_goes(size: int) -> None:
    rng = np.random.default_rng(4)
    pixels = 27 + size
    net = pylrp.Network([Conv(rng.normal(size=(96, 64, size, size)))], input_shape=(64, pixels, pixels))
    x = np.maximum(rng.normal(size=(1, 64, pixels, pixels)), 0)
    all_work = []
    for path in ("tiles", "lists", "pairs", "counted"):
        _core.force_left_path(path)
        before = _core.left_work()
        net.explain(x, np.ones((1, 96, 28, 28)), composite="epsilon")
        after = _core.left_work()
        all_work.append(sum(after[name] - before[name] for name in ("tiles", "lists")))
    assert len(set(all_work)) == 1
    assert all_work[0] >= 2 * 96 * 64 * size * size * 28 * 28  # forward and back, whole tiles


def test_batch_without_zeros_stays_in_tiles() -> None:
    rng = np.random.default_rng(2)
    weight, a, out = rng.normal(size=(200, 300)), rng.random((64, 300)), rng.random((64, 200))
    before = _core.left_work()
    pylrp.relevance([weight], [a], out, rules=pylrp.Epsilon())
    after = _core.left_work()
    assert after["tiles"] > before["tiles"]
    assert after["lists"] == before["lists"]


@pytest.mark.parametrize("path", ["tiles", "lists", "pairs"])
def test_weight_that_became_nan_is_an_error(path: str) -> None:
    """Where it meets nothing but zeros, too: lists never read it, packing does."""
    rng = np.random.default_rng(3)
    weight, a, out = rng.normal(size=(200, 300)), rng.random((64, 300)), rng.random((64, 200))
    a[:, 7] = 0
    pylrp.relevance([weight], [a], out, rules=pylrp.Epsilon())
    weight[5, 7] = np.nan
    _core.force_left_path(path)
    with pytest.raises(ValueError, match="nan"):
        pylrp.relevance([weight], [a], out, rules=pylrp.Epsilon())


def test_unknown_path() -> None:
    with pytest.raises(ValueError, match="dense"):
        _core.force_left_path("dense")
