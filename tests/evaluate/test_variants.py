"""Variants of a text, run with what they share computed once: the scores of each alone, whatever ends a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import small_text

import pylrp
from pylrp.evaluate import leave_one_out, token_flipping
from pylrp.network import variants
from pylrp.network.packing import NotPacked
from pylrp.network.requests import Inputs

TOPS = ("classes", "last", "mean", "sum", "masked mean", "largest", "tokens")
SHARED = ("classes", "last", "mean", "masked mean", "tokens")
MASK = 10


def text(rng: Any, tokens: int = 12, closed: int = 0) -> dict[str, Any]:
    mask = np.ones(tokens, np.int64)
    mask[tokens - closed :] = 0
    return {"ids": rng.integers(0, 10, tokens), "mask": mask}


def alone(net: pylrp.Network, x: dict[str, Any], i: int, how: str) -> Any:
    if how == "delete":
        return net.forward({name: np.delete(row, i) for name, row in x.items()})
    return net.forward({**x, "ids": np.where(np.arange(len(x["ids"])) == i, MASK, x["ids"])})


@pytest.mark.parametrize("closed", [0, 3])
@pytest.mark.parametrize("how", ["delete", "mask"])
@pytest.mark.parametrize("top", TOPS)
def test_each_variant_is_what_it_is_alone(rng: Any, top: str, how: Any, closed: int) -> None:
    net = pylrp.load(small_text.model(top), dtype="float64")
    x = text(rng, closed=closed)
    net.forward({name: row[:-1] for name, row in x.items()})
    whole = net.forward(x)
    by_token = whole.ndim == 2
    target: Any = {(0, 1): 1.0, (7, 2): -0.5} if by_token else 1
    found = leave_one_out(net, x, target, how=how, mask=MASK)
    for i in range(len(x["ids"])):
        if not x["mask"][i]:
            assert np.isnan(found[i])
            continue
        less = alone(net, x, i, how)
        if not by_token:
            expected = whole[1] - less[1]
        else:
            places = [(place - (how == "delete" and place > i), token, weight)
                      for (place, token), weight in target.items() if how == "mask" or place != i]  # fmt: skip
            own = sum(weight * less[place, token] for place, token, weight in places)
            expected = sum(weight * whole[entry] for entry, weight in target.items()) - own
        assert found[i] == pytest.approx(expected, abs=1e-12)


def outputs(net: pylrp.Network, batch: dict[str, Any], rows: Any = None) -> Any:
    assert net._packs is not None
    execution = net._execution_of(batch)
    return variants.Variants(net._packs).outputs(execution, Inputs(execution.graph, batch), rows, 1)


@pytest.mark.parametrize("top", SHARED)
def test_distinct_rows_run_once_and_only_those_that_are_asked_for_at_the_end(
    rng: Any, top: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[int, int]] = []
    run = variants._Stage.run

    def counted(self: Any, values: Any, *rest: Any) -> Any:
        ran.append((len(self.lowered.graph.nodes), len(next(iter(values.values())))))
        return run(self, values, *rest)

    monkeypatch.setattr(variants._Stage, "run", counted)
    net = pylrp.load(small_text.model(top), dtype="float64")
    x = text(rng, tokens=40)
    batch = {name: np.stack([np.delete(row, i) for i in range(40)]) for name, row in x.items()}
    rows = np.zeros((40, 1), int) if top == "tokens" else None
    found = outputs(net, batch, rows)
    expected = net.forward(batch)
    np.testing.assert_allclose(found, expected if rows is None else expected[:, :1], rtol=0, atol=1e-12)
    assert ran[0][1] <= 2 * 40  # a token stands at two places at most
    assert all(n <= variants.ROWS for _, n in ran[1:-1])
    assert sum(n for _, n in ran[1:-1]) == 40 * 39
    assert ran[-1][1] == 40  # one row a variant


def test_scores_of_bfloat16_are_near(rng: Any) -> None:
    net = pylrp.load(small_text.model("mean"))
    x = text(rng, tokens=30)
    exact, rounded = (leave_one_out(net, x, 1, precision=precision) for precision in (None, "bfloat16"))
    assert not np.array_equal(exact, rounded)
    assert np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()
    with pytest.raises(pylrp.UnsuitablePrecision):
        leave_one_out(net, x, 1, precision="float16")
    with pytest.raises(pylrp.UnsuitablePrecision):
        leave_one_out(pylrp.load(small_text.model("mean"), dtype="float64"), x, 1, precision="bfloat16")


def test_what_is_not_packed_runs_as_before(rng: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise NotPacked("for a test")

    net, x = pylrp.load(small_text.model("mean"), dtype="float64"), text(rng)
    shared = leave_one_out(net, x, 1)
    monkeypatch.setattr(variants.Variants, "outputs", refused)
    np.testing.assert_allclose(leave_one_out(net, x, 1), shared, rtol=0, atol=1e-12)


def test_curves_of_masked_tokens_share_too(rng: Any) -> None:
    net, x = pylrp.load(small_text.model("classes"), dtype="float64"), text(rng, tokens=14)
    R = rng.normal(size=14)
    curves = token_flipping(net, x, R, 1, how="mask", mask=MASK, steps=6)
    order = np.argsort(-R)
    for count, score in zip(np.rint(curves.fractions * 13).astype(int), curves.scores["most"][0], strict=True):
        ids = x["ids"].copy()
        ids[order[:count]] = MASK
        assert score == pytest.approx(net.forward({**x, "ids": ids})[1], abs=1e-12)
