"""Attention as one layer: found whatever moves, masks and scales it; forward, relevance, ledger, by NumPy in float64.

The reference is written on whole arrays from the formulas (AttnLRP's propositions 3.1 and 3.3, CP-LRP's value path).
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.layers.shift import closed
from pylrp.network.graph import Graph, Node

# Nothing here has weights: what is added would be a scaling of the input, which hands relevance on as it is.
KINDS = {"scaling": pylrp.Zero(), "add": pylrp.Zero(), "batchnorm": pylrp.Zero()}
RULES = {
    "taylor": {"softmax": pylrp.rules.Taylor(), "matmul": pylrp.rules.Half()},
    "stop": {"softmax": pylrp.rules.Stop(), "matmul": pylrp.rules.Half()},
    "value": {"softmax": pylrp.rules.Stop(), "matmul": pylrp.rules.Value()},
}
MODES = {name: pylrp.Composite(name, pylrp.Zero(), {**KINDS, **rules}) for name, rules in RULES.items()}
TOLERANCE = {np.float64: 1e-12, np.float32: 2e-5}


@dataclass
class Case:
    heads: int = 2
    shared: int = 1  # heads that have the same keys
    queries: int = 5
    keys: int = 7
    width: int = 3
    value_width: int = 2
    scale: float = 0.7
    cap: float = 0.0
    constants: list[Any] = field(default_factory=list)  # added to the scores, -inf closes
    fed: tuple[int, ...] = ()  # shape of a mask that is an input

    @property
    def inputs(self):
        groups = self.heads // self.shared
        shapes = {"q": (self.heads, self.queries, self.width), "k": (groups, self.keys, self.width)}
        shapes["v"] = (groups, self.keys, self.value_width)
        return {**shapes, **({"mask": self.fed} if self.fed else {})}

    def nodes(self):
        key, value = "k", "v"
        nodes = []
        if self.shared > 1:  # as exporters write it: repeated, then joined
            for name in (key, value):
                groups, tokens, width = self.inputs[name]
                nodes += [
                    Node(f"{name}1", L.Reshape((groups, 1, tokens, width)), (name,)),
                    Node(f"{name}2", L.Expand((groups, self.shared, tokens, width)), (f"{name}1",)),
                    Node(f"{name}3", L.Reshape((groups * self.shared, tokens, width)), (f"{name}2",)),
                ]
            key, value = "k3", "v3"
        nodes += [Node("kt", L.Transpose((0, 2, 1)), (key,)), Node("s", L.MatMul(self.scale), ("q", "kt"))]
        last = "s"
        if self.cap:
            nodes += [Node("c1", L.Affine(1 / self.cap, 0.0), (last,)), Node("c2", L.Tanh(), ("c1",))]
            nodes.append(Node("c3", L.Affine(self.cap, 0.0), ("c2",)))
            last = "c3"
        for number, array in enumerate(self.constants):
            nodes.append(Node(f"m{number}", L.Shift(closed(np.asarray(array, np.float64))), (last,)))
            last = f"m{number}"
        if self.fed:
            nodes.append(Node("masked", L.ShiftBy(), (last, "mask")))
            last = "masked"
        return [*nodes, Node("p", L.Softmax(-1), (last,)), Node("o", L.MatMul(), ("p", value))]

    def network(self, dtype):
        def settled(node):
            if isinstance(node.layer, L.Shift):
                with np.errstate(over="ignore"):
                    array = np.minimum(np.asarray(node.layer.shift), np.finfo(dtype).max).astype(dtype)
                return Node(node.name, L.Shift(array), node.inputs)
            return node

        return pylrp.Network.from_graph(Graph(self.inputs, list(map(settled, self.nodes())), ["o"], dtype=dtype))


def reference(case, x, relevance, mode, made=None):
    """Return the output, the relevance of q, k, v, and what softmax and constants keep, a sample each.

    made: the output that relevance is shared out by, where sums that cancel would make a difference.
    """
    q, k, v = (np.float64(x[name]) for name in "qkv")
    k, v = (np.repeat(a, case.shared, axis=1) for a in (k, v))
    s = case.scale * q @ k.swapaxes(-1, -2)
    t = case.cap * np.tanh(s / case.cap) if case.cap else s
    added = np.zeros_like(s) + sum(case.constants, start=np.zeros(()))
    if case.fed:
        added = added + np.where(x["mask"] >= np.finfo(x["mask"].dtype).max, -np.inf, np.float64(x["mask"]))
    z = t + added
    top = z.max(-1, keepdims=True)
    e = np.exp(z - np.where(np.isneginf(top), 0, top))
    p = e / np.where(e.sum(-1, keepdims=True) == 0, 1, e.sum(-1, keepdims=True))
    o = p @ v
    if relevance is None:
        return o
    made = o if made is None else np.float64(made)
    c = np.divide(relevance, made, out=np.zeros_like(o), where=made != 0)
    share = 1.0 if mode == "value" else 0.5
    to_v = v * (p.swapaxes(-1, -2) @ c) * share
    to_p = p * (c @ v.swapaxes(-1, -2)) * (1 - share)
    if mode == "taylor":
        to_z = np.where(np.isneginf(z), 0, np.where(np.isneginf(z), 0, z) * (to_p - p * to_p.sum(-1, keepdims=True)))
        to_s = np.where(np.isneginf(z), 0, np.divide(t * to_z, z, out=np.zeros_like(z), where=z != 0))
    else:
        to_z = to_s = np.zeros_like(z)
    c = case.scale / 2 * np.divide(to_s, s, out=np.zeros_like(s), where=s != 0)
    to_q, to_k = q * (c @ k), k * (c.swapaxes(-1, -2) @ q)
    groups = (len(q), case.heads // case.shared, case.shared)
    to_k, to_v = (a.reshape(*groups, *a.shape[2:]).sum(2) for a in (to_k, to_v))
    lost = {"softmax": (to_p - to_z).sum((1, 2, 3)), "constant": (to_z - to_s).sum((1, 2, 3))}
    return o, {"q": to_q, "k": to_k, "v": to_v}, lost


RNG = np.random.default_rng(1)
CAUSAL = np.where(np.tri(5, 7, 2, dtype=bool), 0, -np.inf)  # bottom right
WINDOW = np.where(np.tri(130, 130, 3, dtype=bool) & ~np.tri(130, 130, -9, dtype=bool), 0, -np.inf)
HOLES = np.where(RNG.random((2, 5, 7)) < 0.4, -np.inf, 0)
HOLES[0, 2] = HOLES[:, 4] = -np.inf  # rows without any key
CASES = {
    "plain": Case(),
    "one of each": Case(heads=1, queries=1, keys=1, width=1, value_width=1),
    "one token, many keys": Case(queries=1, keys=90),
    "just a block": Case(heads=1, queries=64, keys=64, width=33, value_width=40),
    "more than a block": Case(queries=65, keys=67, width=32, value_width=33),
    "several blocks": Case(heads=3, queries=150, keys=300, width=16, value_width=8),
    "shared keys": Case(heads=6, shared=3, queries=70, keys=66),
    "a cap": Case(cap=1.5),
    "causal": Case(constants=[CAUSAL]),
    "a window": Case(queries=130, keys=130, constants=[WINDOW]),
    "closed places and rows": Case(constants=[HOLES]),
    "a bias a head": Case(constants=[RNG.normal(size=(2, 5, 7))]),
    "a bias of keys": Case(constants=[RNG.normal(size=(1, 1, 7))]),
    "a bias, a cap and a mask": Case(cap=2.0, constants=[RNG.normal(size=(2, 5, 7)), CAUSAL]),
    "a mask that is fed": Case(fed=(1, 1, 7)),
    "a mask of all that is fed": Case(fed=(2, 5, 7)),
    "a fed mask and others": Case(fed=(1, 5, 7), constants=[CAUSAL, RNG.normal(size=(5, 7))], heads=4, shared=2),
}


def sample(case, dtype, batch=3):
    x = {name: RNG.normal(size=(batch, *shape)).astype(dtype) for name, shape in case.inputs.items()}
    if case.fed:
        x["mask"][RNG.random(x["mask"].shape) < 0.4] = np.finfo(dtype).max
        x["mask"][0, ..., -2:] = np.finfo(dtype).max
        x["mask"][1] = 0
    return x


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_by_the_formulas(name, dtype):
    case = CASES[name]
    net = case.network(dtype)
    x = sample(case, dtype)
    given = reference(case, x, None, "")
    np.testing.assert_allclose(net.forward(x), given, rtol=0, atol=TOLERANCE[dtype] * np.abs(given).max())
    start = (net.forward(x) * RNG.normal(size=given.shape)).astype(dtype)
    for mode, composite in MODES.items():
        ex = net.explain(x, target=start, composite=composite)
        o, expected, lost = reference(case, x, start, mode, net.forward(x))
        for each in "qkv":
            size = np.abs(expected[each]).max() + TOLERANCE[dtype]
            np.testing.assert_allclose(ex.relevance[each], expected[each], rtol=0, atol=30 * TOLERANCE[dtype] * size)
        (row,) = ex.ledger
        scale = sum(np.abs(a).sum() for a in expected.values()) + np.abs(start).sum()
        for cause, amount in lost.items():
            np.testing.assert_allclose(getattr(row, cause), amount, rtol=0, atol=30 * TOLERANCE[dtype] * scale)
        np.testing.assert_allclose(row.dead, (start * (o == 0)).sum((1, 2, 3)), atol=TOLERANCE[dtype] * scale)
        assert np.abs(row.rounding).max() <= 30 * TOLERANCE[dtype] * scale
        assert not ex.relevance.get("mask", np.zeros(1)).any()


def test_several_targets():
    case = CASES["more than a block"]
    net, x = case.network(np.float64), sample(case, np.float64)
    for mode, composite in MODES.items():
        ex = net.explain(x, targets=[1, 0], composite=composite)
        for t, head in enumerate((1, 0)):
            start = np.where(np.arange(2)[:, None, None] == head, ex.output, 0)
            _, expected, _ = reference(case, x, start, mode)
            for each in "qkv":
                np.testing.assert_allclose(ex.relevance[each][:, t], expected[each], rtol=1e-9, atol=1e-12)


def test_rows_without_a_key_are_zeros():
    case = CASES["closed places and rows"]
    net, x = case.network(np.float32), sample(case, np.float32)
    assert not net.forward(x)[:, :, 4].any()
    start = np.zeros((3, 2, 5, 2), np.float32)
    start[:, :, 4] = 1
    ex = net.explain(x, target=start, composite="attnlrp")
    assert not any(array.any() for array in ex.relevance.values())
    np.testing.assert_allclose(ex.ledger.layers[0].dead, 4)


def test_by_hand():
    """Two keys, scores ln 2 and 0: p = (2/3, 1/3), o = 2/3 * 3 + 1/3 * 6 = 4."""
    case = Case(heads=1, queries=1, keys=2, width=1, value_width=1, scale=1.0)
    x = {"q": np.ones((1, 1, 1)), "k": np.log([[[2.0], [1.0]]]), "v": np.array([[[3.0], [6.0]]])}
    net = case.network(np.float64)
    ex = net.explain(x, target=np.full((1, 1, 1), 4.0), composite="attnlrp")
    np.testing.assert_allclose(ex.output.ravel(), 4)
    np.testing.assert_allclose(ex.relevance["v"].ravel(), [1, 1])
    # The probabilities get 1 each, 2 in all; the first score ln 2 (1 - 2/3 * 2), half of it each side.
    np.testing.assert_allclose(ex.relevance["k"].ravel(), [-np.log(2) / 6, 0], atol=1e-15)
    np.testing.assert_allclose(ex.relevance["q"].ravel(), [-np.log(2) / 6])
    np.testing.assert_allclose(ex.ledger.layers[0].softmax, 2 + np.log(2) / 3)
    alone = net.explain(x, target=np.full((1, 1, 1), 4.0), composite="cp_lrp")
    np.testing.assert_allclose(alone.relevance["v"].ravel(), [2, 2])


def test_the_nodes_apart_give_the_same():
    case = CASES["a fed mask and others"]
    net, x = case.network(np.float64), sample(case, np.float64)
    for composite in MODES.values():
        ex = net.explain(x, target=net.forward(x), composite=composite)
        assert [row.name for row in ex.ledger] == ["o"]
        apart = net.explain(x, target=net.forward(x), composite=composite, layers="all")
        assert {"s", "p", "o"} <= {row.name for row in apart.ledger}
        for name in "qkv":
            np.testing.assert_allclose(ex.relevance[name], apart.relevance[name], rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(ex.layers["p"], apart.layers["p"], rtol=1e-10, atol=1e-13)
        for cause in ("softmax", "constant", "dead"):
            np.testing.assert_allclose(
                sum(getattr(row, cause) for row in ex.ledger), sum(getattr(row, cause) for row in apart.ledger)
            )
    assert "o       matmul" in str(net.summary("cp_lrp"))
    assert "Value(), fused" in str(net.summary("cp_lrp"))


def test_what_needs_the_nodes_apart():
    case = Case()
    net, x = case.network(np.float64), sample(case, np.float64)
    named = pylrp.Composite("named", pylrp.Zero(), RULES["taylor"], names={"p": pylrp.rules.Stop()})
    ex = net.explain(x, target=net.forward(x), composite=named)
    assert [row.rule for row in ex.ledger if row.name == "p"] == ["Stop()"]
    ex = net.explain(x, target=net.forward(x), composite="attnlrp", masks={"p": [0]})
    assert np.abs(next(row for row in ex.ledger if row.name == "p").masked).min() > 0
    ex = net.explain(x, output="s", target=np.ones((3, 2, 5, 7)), composite="attnlrp")
    np.testing.assert_allclose(ex.relevance["q"].sum() + ex.relevance["k"].sum(), 3 * 2 * 5 * 7)
    assert not ex.relevance["v"].any()


def packed(heads=3, tokens=70, width=4):
    """Queries, keys and values in one value, the heads joined behind."""
    shape = (tokens, 3 * heads * width)
    nodes = [
        Node("split", L.Reshape((tokens, 3, heads, width)), ("x",)),
        Node("turned", L.Transpose((1, 2, 0, 3)), ("split",)),
        *(Node(f"{n}0", L.Slice((i,), (i + 1,)), ("turned",)) for i, n in enumerate("qkv")),
        *(Node(n, L.Reshape((heads, tokens, width)), (f"{n}0",)) for n in "qkv"),
        Node("scaled", L.Affine(0.5, 0.0), ("q",)),
        Node("kt", L.Transpose((0, 2, 1)), ("k",)),
        Node("s", L.MatMul(), ("scaled", "kt")),
        Node("p", L.Softmax(-1), ("s",)),
        Node("o", L.MatMul(), ("p", "v")),
        Node("back", L.Transpose((1, 0, 2)), ("o",)),
        Node("y", L.Reshape((tokens, heads * width)), ("back",)),
    ]
    return Graph({"x": shape}, nodes, ["y"], dtype=np.float64)


def test_parts_of_one_value():
    net = pylrp.Network.from_graph(packed())
    core = net._execution._core_graph
    assert "back" not in core.values
    assert "turned" not in core.values
    x = RNG.normal(size=(2, 70, 36))
    q, k, v = x.reshape(2, 70, 3, 3, 4).transpose(2, 0, 3, 1, 4)
    case = Case(heads=3, queries=70, keys=70, width=4, value_width=4, scale=0.5)
    start = net.forward(x) * RNG.normal(size=(2, 70, 12))
    for mode, composite in MODES.items():
        ex = net.explain(x, target=start, composite=composite)
        by_head = start.reshape(2, 70, 3, 4).swapaxes(1, 2)
        o, expected, _ = reference(case, {"q": q, "k": k, "v": v}, by_head, mode)
        np.testing.assert_allclose(ex.output, o.swapaxes(1, 2).reshape(2, 70, 12), atol=1e-12)
        joined = np.stack([expected[n] for n in "qkv"]).transpose(1, 3, 0, 2, 4).reshape(2, 70, 36)
        np.testing.assert_allclose(ex.relevance, joined, rtol=0, atol=1e-11 * np.abs(joined).max())


def test_queries_keys_and_values_that_are_one_value():
    nodes = [
        Node("kt", L.Transpose((1, 0)), ("x",)),
        Node("s", L.MatMul(0.3), ("x", "kt")),
        Node("p", L.Softmax(-1), ("s",)),
        Node("o", L.MatMul(), ("p", "x")),
    ]
    net = pylrp.Network.from_graph(Graph({"x": (6, 4)}, nodes, ["o"], dtype=np.float64))
    x = RNG.normal(size=(2, 6, 4))
    start = net.forward(x) * RNG.normal(size=(2, 6, 4))
    case = Case(heads=1, queries=6, keys=6, width=4, value_width=4, scale=0.3)
    for mode, composite in MODES.items():
        _, expected, _ = reference(case, dict.fromkeys("qkv", x[:, None]), start[:, None], mode)
        found = net.explain(x, target=start, composite=composite).relevance
        np.testing.assert_allclose(found, sum(expected.values())[:, 0], rtol=0, atol=1e-11 * np.abs(found).max())


def test_equal_bits_for_any_number_of_threads():
    case = Case(heads=4, queries=200, keys=200, width=32, value_width=32)
    net, x = case.network(np.float32), sample(case, np.float32, 2)
    start = net.forward(x, threads=1)
    assert (net.forward(x, threads=2) == start).all()
    one, two = (net.explain(x, target=start, composite="attnlrp", threads=n).relevance for n in (1, 2))
    assert all((one[name] == two[name]).all() for name in "qkv")


@pytest.mark.slow
@pytest.mark.parametrize("isa", [name for name in pylrp.info()["isa_supported"] if name != pylrp.info()["isa"]])
def test_other_instruction_sets(isa, tmp_path):
    tests = [f"{__file__}::test_by_the_formulas", f"{__file__}::test_parts_of_one_value"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        env={**os.environ, "PYLRP_ISA": isa},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
