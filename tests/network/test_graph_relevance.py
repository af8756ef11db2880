"""Networks of every layer kind against the oracle on graphs: outputs, relevance of every value, the ledger.

Random graphs, and a few by hand; `layers/test_graph_layers.py` goes on with each layer's corner cases. Bounds are
derived (`reference/graph_errors.py`), `test_graph_reference.py` checks the oracle itself.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from drawn import examples
from hypothesis import given
from hypothesis import strategies as st
from reference.errors import assert_within
from reference.graph_forward import forward
from reference.graph_relevance import CAUSES, WEIGHTED
from reference.networks import numbers
from reference.random_graphs import TRIES, Case, Undetermined, cases, expectation

import pylrp
from pylrp import layers as kinds
from pylrp.layers import (
    Add,
    AveragePool,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    ReLU,
    Softmax,
)
from pylrp.network.canonise import canonise
from pylrp.network.graph import Graph, Node
from pylrp.network.ledger import COLUMNS
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, Zero, ZPlus

DTYPES = [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)]


def as_users_pass_it(graph, name, x):
    """Return an array (batch, *shape) of a value with its channels last where the graph says so."""
    return np.moveaxis(x, 1, -1) if name in graph.channels_last else x


def given_inputs(case, samples=slice(None)):
    """Return x as `explain` takes it: an array, or a dict where there are several inputs."""
    x = {name: as_users_pass_it(case.graph, name, values)[samples] for name, values in case.inputs.items()}
    return x if len(x) > 1 else next(iter(x.values()))


def explained(net, case, samples=slice(None), **options):
    """Explain with the case's rules and relevance at the top, unless `options` say otherwise."""
    given_options = {
        "target": case.top[samples],
        "composite": pylrp.Composite("drawn", Epsilon(), {"function": Pass()}, names=case.rules),
        "layers": "all",
        "output": case.output,
        **options,
    }
    return net.explain(given_inputs(case, samples), **given_options)


def assert_ledger(ledger, case, expected):
    """Every column of every row within its bound; each row sums to zero; what has no row lost nothing."""
    for name, account in expected.account.items():
        allowed = expected.allowed[name]
        if name not in ledger.names:
            for cause in CAUSES:
                assert_within(account[cause], 0 * account[cause], allowed[cause], f"{name} has no row, {cause}")
            continue
        row = ledger[name]
        for cause in CAUSES:
            assert_within(getattr(row, cause), account[cause], allowed[cause], f"{name}, {cause}")
        arrives = expected.R[name].reshape(len(row.incoming), -1).sum(axis=1) + account["masked"]
        assert_within(row.incoming, arrives, allowed["incoming"], f"{name}, incoming")
        leaves = arrives - sum(account.values())
        assert_within(row.outgoing, leaves, allowed["outgoing"] + allowed["rounding"], f"{name}, outgoing")
        assert_within(row.rounding, 0 * leaves, allowed["rounding"], f"{name}, rounding")
        columns = [getattr(row, column) for column in COLUMNS]
        rest, size = columns[0] - sum(columns[1:]), sum(map(np.abs, columns))
        assert_within(rest, 0 * rest, 16 * np.finfo(np.float64).eps * size, f"{name}, the sum")


def assert_like_the_oracle(case, expected, net=None, **options):
    """Outputs, relevance of every value, ledger. Returns the explanation."""
    net = pylrp.Network.from_graph(case.original) if net is None else net
    assert net.graph.shapes == case.graph.shapes
    outputs = net.forward(given_inputs(case))
    for name in net.graph.outputs:
        found = outputs[name] if len(net.graph.outputs) > 1 else outputs
        assert found.dtype == case.graph.dtype
        assert_within(found, expected.values[name], expected.errors[name], f"output {name}")
    ex = explained(net, case, **options)
    assert set(ex.layers) == set(case.graph.shapes)
    for name, R in expected.R.items():
        mine, allowed = ex.layers[name], expected.dR[name]
        assert mine.dtype == case.graph.dtype
        assert_within(mine, *(as_users_pass_it(case.graph, name, a) for a in (R, allowed)), f"relevance of {name}")
    for name in case.inputs:
        mine = ex.relevance[name] if len(case.inputs) > 1 else ex.relevance
        np.testing.assert_array_equal(mine, ex.layers[name])
    assert_ledger(ex.ledger, case, expected)
    return ex


def settled(graph, make_rules, dtype, batch=2, zeros=0.1):
    """Return a case of random inputs, some of them `zeros`, with its answer. `make_rules` maps a node to its rule."""
    rule_of = {node.name: make_rules(node) for node in canonise(graph).nodes if isinstance(node.layer, WEIGHTED)}
    for seed in range(5 * TRIES):
        rng = np.random.default_rng(seed)
        simple = canonise(graph)
        inputs = {
            name: numbers(rng, (batch, *shape), False, zeros).clip(-4, 4).astype(dtype)
            for name, shape in graph.inputs.items()
        }
        output = simple.outputs[0]
        top = numbers(rng, (batch, *simple.shapes[output]), False).astype(dtype)
        case = Case(graph, simple, inputs, rule_of, output, top)
        try:
            return case, expectation(case)
        except Undetermined:
            continue
    raise AssertionError("no numbers found for which rounding does not decide")


def weights(*shape, seed=0, dtype=np.float64):
    rng = np.random.default_rng([seed, *shape])
    return (rng.standard_normal(shape) / np.sqrt(prod(shape[1:]))).astype(dtype)


def conv(out, into, *kernel, bias=True, dtype=np.float64, **options):
    groups = options.get("groups", 1)
    return Conv(
        weights(out, into // groups, *kernel, dtype=dtype), weights(out, dtype=dtype) if bias else None, **options
    )


def back(into, out, *kernel, bias=True, dtype=np.float64, **options):
    groups = options.get("groups", 1)
    return ConvTranspose(
        weights(into, out // groups, *kernel, dtype=dtype), weights(out, dtype=dtype) if bias else None, **options
    )


# Random graphs.
@pytest.mark.slow
@examples(100)
@given(cases(np.float64))
def test_random_graphs(case_and_answer):
    assert_like_the_oracle(*case_and_answer)


@pytest.mark.slow
@examples(60)
@given(cases(np.float64, grid=True))
def test_random_graphs_of_exact_numbers(case_and_answer):
    # Sums cancel exactly: z = 0, equal values in a pool, outputs of exactly 0.
    assert_like_the_oracle(*case_and_answer)


@pytest.mark.slow
@examples(60)
@given(cases(np.float32))
def test_random_graphs_in_float32(case_and_answer):
    assert_like_the_oracle(*case_and_answer)


@pytest.mark.slow
@examples(20)
@given(cases(np.float64))
def test_every_value_of_the_forward_pass(case_and_answer):
    case, expected = case_and_answer
    net = pylrp.Network.from_graph(case.original)
    for node in case.graph.nodes:
        none = np.zeros_like(expected.values[node.name])
        found = explained(net, case, target=none, output=node.name, layers=None).output
        assert_within(found, expected.values[node.name], expected.errors[node.name], f"value {node.name}")


@pytest.mark.slow
@examples(50)
@given(cases(np.float64))
def test_a_simpler_graph_has_the_same_outputs(case_and_answer):
    case, _ = case_and_answer
    simple = canonise(case.original, keep_top=True)  # without it an output may be the argument of what it was
    before, after = forward(case.original, case.inputs), forward(simple, case.inputs)
    if len(case.original.outputs) == len(simple.outputs):  # two that are equal become one
        for old, new in zip(case.original.outputs, simple.outputs, strict=True):
            size = max(np.abs(before[old]).max(), np.abs(after[new]).max())
            np.testing.assert_allclose(after[new], before[old], rtol=1e-10, atol=1e-10 * size)


@pytest.mark.slow
@examples(30)
@given(cases(np.float32))
def test_equal_bits_for_any_number_of_threads(case_and_answer):
    case, _ = case_and_answer
    net = pylrp.Network.from_graph(case.original)
    alone, *more = (explained(net, case, threads=threads) for threads in (1, 2, 3))
    for ex in more:
        assert ex.ledger.data.tobytes() == alone.ledger.data.tobytes()
        for name, R in alone.layers.items():
            assert ex.layers[name].tobytes() == R.tobytes(), name


@examples(25)
@given(cases(np.float64))
def test_a_batch_is_its_samples(case_and_answer):
    case, expected = case_and_answer
    net = pylrp.Network.from_graph(case.original)
    ex = explained(net, case)
    for i in range(len(case.top)):
        for samples, at in ((slice(i, i + 1), slice(0, 1)), (i, ...)):  # a batch of one; without a batch axis
            single = explained(net, case, samples)
            for name in expected.R:
                allowed = 2 * as_users_pass_it(case.graph, name, expected.dR[name])
                assert_within(
                    single.layers[name][at], ex.layers[name][samples], allowed[samples], f"{name} of sample {i}"
                )


@pytest.mark.slow
@examples(20)
@given(cases(np.float64), st.sampled_from(["one", "logit"]))
def test_several_targets_are_one_after_the_other(case_and_answer, start):
    case, answer = case_and_answer
    channels = case.graph.shapes[case.output][0]
    targets = [channels - 1, 0, channels // 2, 0]
    net = pylrp.Network.from_graph(case.original)
    try:
        together = explained(net, case, target=None, targets=targets, start=start)
        for i, target in enumerate(targets):
            top = np.zeros_like(case.top)
            top[:, target] = answer.values[case.output][:, target]
            size = np.abs(top).max(initial=0.0)
            cancelled = 1.0  # how much larger the error of a sum is, beside its size
            if start == "one":
                values = np.abs(top).reshape(len(top), -1).sum(axis=1)
                sums = np.abs(top.reshape(len(top), -1).sum(axis=1))
                top /= np.where(sums == 0, 1, sums).reshape(-1, *(1,) * (top.ndim - 1))
                cancelled = 1 + (values / np.where(sums == 0, 1, sums)).max(initial=0.0)
            expected = expectation(replace(case, top=top))
            # The logit itself has an error: relevance is linear in it.
            wrong = cancelled * answer.errors[case.output].max() / size if size else 0.0
            wrong += cancelled * len(top[0].ravel()) * 2.3e-16 if start == "one" else 0.0
            alone = explained(net, case, target=target, start=start)
            for name, R in expected.R.items():
                allowed = expected.dR[name] + 4 * wrong * np.abs(R).max(initial=0.0)
                R, allowed = (as_users_pass_it(case.graph, name, a) for a in (R, allowed))
                assert_within(alone.layers[name], R, allowed, f"{name}, target {target}")
                assert_within(together.layers[name][:, i], alone.layers[name], 2 * allowed, f"{name}, targets[{i}]")
            for cause in CAUSES:
                for name in together.ledger[i].names:
                    slack = 2 * expected.allowed[name][cause] + 8 * wrong * np.abs(expected.account[name][cause])
                    mine, other = (getattr(ledger[name], cause) for ledger in (together.ledger[i], alone.ledger))
                    assert_within(mine, other, slack, f"{name}, {cause}, targets[{i}]")
    except Undetermined:
        return


@pytest.mark.slow
@examples(30)
@given(cases(np.float64), st.randoms(use_true_random=False))
def test_masks(case_and_answer, random):
    case, _ = case_and_answer
    masks = {}
    for node in case.graph.nodes:
        channels = case.graph.shapes[node.name][0]
        if random.random() < 0.4:
            masks[node.name] = sorted(random.sample(range(channels), random.randint(1, channels)))
    try:
        expected = expectation(case, masks)
    except Undetermined:
        return
    assert_like_the_oracle(case, expected, masks=masks)


# Graphs by hand.
def residual(dtype):
    """Two inputs, a layer used twice, a skip, a concatenation, two outputs."""
    shared = conv(4, 4, 3, 3, padding=1, dtype=dtype)
    nodes = [
        Node("a", conv(4, 3, 3, 3, padding=1, dtype=dtype), ("image",)),
        Node("once", shared, ("a",)),
        Node("f", ReLU(), ("once",)),
        Node("twice", shared, ("f",)),
        Node("sum", Add(), ("a", "twice", "f")),
        Node("all", Concat(), ("sum", "mask", "f")),
        Node("pool", GlobalAveragePool(), ("all",)),
        Node("flat", Flatten(), ("pool",)),
        Node("scores", Dense(weights(5, 10, dtype=dtype), weights(5, dtype=dtype)), ("flat",)),
        Node("map", conv(1, 4, 1, 1, dtype=dtype), ("sum",)),
    ]
    return Graph({"image": (3, 4, 5), "mask": (2, 4, 5)}, nodes, ["scores", "map"], channels_last=["image"])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", [Epsilon(), Gamma(), AlphaBeta(), ZPlus(), Zero(bias=False)], ids=repr)
@pytest.mark.parametrize("output", ["scores", "map", "f"])
def test_a_graph_with_everything(output, rule, dtype):
    case, _ = settled(residual(dtype), lambda node: Flat() if node.name == "a" else rule, dtype, batch=3)
    rng = np.random.default_rng(0)
    for _ in range(TRIES):
        top = rng.standard_normal((3, *case.graph.shapes[output])).astype(dtype)
        case = replace(case, output=output, top=top)
        try:
            expected = expectation(case)
            break
        except Undetermined:
            continue
    assert_like_the_oracle(case, expected)


@pytest.mark.parametrize("keep", [False, True])
def test_a_softmax_at_the_top(keep):
    nodes = [
        Node("scores", Dense(weights(4, 6), weights(4)), ("x",)),
        Node("odds", Softmax(), ("scores",)),
    ]
    graph = Graph({"x": (6,)}, nodes, ["odds"])
    simple = canonise(graph, keep_top=keep)
    assert simple.outputs == (("odds",) if keep else ("scores",))
    net = pylrp.Network.from_graph(graph, keep_top=keep)
    rng = np.random.default_rng(0)
    case = Case(
        graph, simple, {"x": rng.standard_normal((2, 6))}, {"scores": Epsilon()}, simple.outputs[0], rng.random((2, 4))
    )
    assert_like_the_oracle(case, expectation(case), net)


class Product(kinds.CustomLayer):
    """Two values multiplied; a third of the relevance to the first, the rest to the second."""

    def output_shape(self, *shapes):
        return shapes[0]

    def forward(self, *inputs):
        return inputs[0] * inputs[1]

    def relevance(self, inputs, output, relevance):
        assert all(x.shape == relevance.shape == output.shape for x in inputs)
        np.testing.assert_array_equal(inputs[0] * inputs[1], output)
        return relevance / 4, relevance * 0.75


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layer_of_ones_own(dtype):
    nodes = [
        Node("a", conv(3, 2, 2, 2, dtype=dtype), ("x",)),
        Node("f", kinds.Sigmoid(), ("a",)),
        Node("own", Product(), ("a", "f")),
        Node("top", conv(2, 3, 2, 2, dtype=dtype), ("own",)),
    ]
    graph = Graph({"x": (2, 4, 5)}, nodes, ["top"])
    rng = np.random.default_rng(0)
    x, top = (rng.standard_normal((2, *shape)).astype(dtype) for shape in ((2, 4, 5), (2, 2, 3)))
    net = pylrp.Network.from_graph(graph)
    ex = net.explain(x, top, "epsilon", layers="all")
    values = forward(graph, {"x": x})
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(net.forward(x), values["top"], rtol=tolerance, atol=tolerance)
    size = np.abs(ex.layers["own"]).max()
    np.testing.assert_allclose(ex.layers["f"], 0.75 * ex.layers["own"], atol=tolerance * size)
    np.testing.assert_allclose(ex.layers["a"], ex.layers["own"], atol=tolerance * size)  # 1/4, and 3/4 through f
    np.testing.assert_allclose(ex.ledger["own"].rounding, 0, atol=40 * tolerance * size)


def test_large_layers_have_equal_bits_for_any_number_of_threads():
    # Wide enough that several tasks are shared out.
    nodes = [
        Node("a", conv(48, 3, 3, 3, padding=1, dtype=np.float32), ("x",)),
        Node("f", ReLU(), ("a",)),
        Node("pool", MaxPool(3, 2, padding=1), ("f",)),
        Node("b", conv(64, 48, 3, 3, padding=1, dtype=np.float32), ("pool",)),
        Node("g", ReLU(), ("b",)),
        Node("c", conv(64, 64, 3, 3, padding=1, groups=64, dtype=np.float32), ("g",)),
        Node("sum", Add(), ("g", "c")),
        Node("mean", AveragePool(2), ("sum",)),
        Node("flat", Flatten(), ("mean",)),
        Node("top", Dense(weights(10, 64 * 64, dtype=np.float32)), ("flat",)),
    ]
    net = pylrp.Network.from_graph(Graph({"x": (3, 32, 32)}, nodes, ["top"]))
    x = np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype(np.float32)
    for composite in ("epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1"):
        if composite == "epsilon_gamma_box":
            composite = pylrp.composite(composite, low=-9.0, high=9.0)
        alone, *more = (net.explain(x, composite=composite, layers="all", threads=threads) for threads in (1, 2, 3))
        for ex in more:
            assert ex.ledger.data.tobytes() == alone.ledger.data.tobytes()
            for name, R in alone.layers.items():
                assert ex.layers[name].tobytes() == R.tobytes(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("a", "bias"), [(1e-3, 1.0), (1e-2, 100.0), (1e-5, 3.0), (3e-6, 1e3)])
def test_alpha_beta_behind_a_relu_where_the_bias_outweighs_the_inputs(dtype, a, bias):
    # One neuron with the weights 1 and -1/2: z+ = a + bias, z- = -a/2.
    kernel = np.zeros((1, 2, 1, 3), dtype)
    kernel[0, :, 0, 1] = 1, -0.5
    layers = [Conv(kernel, np.array([bias], dtype), padding=(0, 1), name="neuron"), ReLU()]
    layers.append(Conv(np.ones((1, 1, 1, 1), dtype), name="top"))  # below it, what the ReLU cuts off has no relevance
    net = pylrp.Network(layers, input_shape=(2, 1, 1))
    x = np.full((2, 1, 1), a, dtype)
    ex = net.explain(x, np.ones((1, 1, 1), dtype), [AlphaBeta(2, 1), Zero()])
    z = float(x[0, 0, 0])
    expected = [2 * z / (z + bias + 1e-6), -(z / 2) / (z / 2 + 1e-6)]
    np.testing.assert_allclose(ex.relevance.ravel(), expected, rtol=10 * np.finfo(dtype).eps)
