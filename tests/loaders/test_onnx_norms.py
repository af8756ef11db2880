"""Normalisations in ONNX: the operators on the standard's own cases, and chains of arithmetic that are the same.

A chain is compared with onnx's reference evaluator, and its map with the gradient form of the definition in NumPy.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

import pylrp  # noqa: E402
from pylrp import layers as L  # noqa: E402
from pylrp.loaders.onnx.normalisations import COMPUTED  # noqa: E402

D = 6
RNG = np.random.default_rng(4)
G, B = RNG.normal(size=D) + 1.5, RNG.normal(size=D)
C4 = RNG.normal(size=(4, 1, 1)) + 1.5


def model(text: str, shape: Any = ("n", 5, D), opset: int = 17, **constants: Any) -> Any:
    """Return a model of nodes in double precision."""
    own = {"g": G, "b": B, "eps": np.array(1e-5), "two": np.array(2.0), "half": np.array(-0.5), "one": np.array(1.0)}
    own |= {"last": np.array([-1]), "n": np.array(float(D)), "zero": np.array(0.0)} | constants
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.split(";") if part.strip()],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in own.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


MEAN = "m = ReduceMean<axes=[-1]>(x); d = Sub(x, m);"
VAR = "q = Pow(d, two); v = ReduceMean<axes=[-1]>(q); e = Add(v, eps);"
LN = {
    "torch": f"{MEAN}{VAR} s = Sqrt(e); u = Div(d, s); w = Mul(u, g); y = Add(w, b)",
    "d times d": f"{MEAN} q = Mul(d, d); v = ReduceMean<axes=[-1]>(q); e = Add(eps, v); s = Sqrt(e);"
    "u = Div(d, s); w = Mul(g, u); y = Add(b, w)",
    "reciprocal": f"{MEAN}{VAR} s = Sqrt(e); r = Reciprocal(s); u = Mul(r, d); w = Mul(u, g); y = Add(w, b)",
    "one over": f"{MEAN}{VAR} s = Sqrt(e); r = Div(one, s); u = Mul(d, r); w = Mul(u, g); y = Add(w, b)",
    "power": f"{MEAN}{VAR} r = Pow(e, half); u = Mul(d, r); w = Mul(u, g); y = Add(w, b)",
    "the mean twice": "m1 = ReduceMean<axes=[-1]>(x); d = Sub(x, m1); m2 = ReduceMean<axes=[-1]>(x); f = Sub(x, m2);"
    "q = Pow(f, two); v = ReduceMean<axes=[-1]>(q); e = Add(v, eps); s = Sqrt(e); u = Div(d, s); w = Mul(u, g);"
    "y = Add(w, b)",
    "sums": "a = ReduceSum(x, last); m = Div(a, n); d = Sub(x, m); q = Mul(d, d); c = ReduceSum(q, last);"
    "v = Div(c, n); e = Add(v, eps); s = Sqrt(e); u = Div(d, s); w = Mul(u, g); y = Add(w, b)",
    "mean of squares": "m = ReduceMean<axes=[-1]>(x); q = Mul(x, x); a = ReduceMean<axes=[-1]>(q); k = Mul(m, m);"
    "v = Sub(a, k); e = Add(v, eps); s = Sqrt(e); d = Sub(x, m); u = Div(d, s); w = Mul(u, g); y = Add(w, b)",
    "scale first": f"{MEAN}{VAR} s = Sqrt(e); r = Reciprocal(s); k = Mul(r, g); w = Mul(d, k); y = Add(w, b)",
    "as batch norm": f"{MEAN}{VAR} s = Sqrt(e); r = Reciprocal(s); k = Mul(r, g); h = Mul(x, k); j = Mul(m, k);"
    "o = Sub(b, j); y = Add(h, o)",
    "as batch norm, minus": f"{MEAN}{VAR} s = Sqrt(e); r = Reciprocal(s); k = Mul(r, g); h = Mul(x, k); j = Mul(m, k);"
    "o = Sub(h, j); y = Add(o, b)",
    "casts": f"{MEAN} c = Cast<to=11>(d); q = Pow(c, two); v = ReduceMean<axes=[-1]>(q); e = Add(v, eps); s = Sqrt(e);"
    "t = Cast<to=11>(s); u = Div(d, t); w = Mul(u, g); y = Add(w, b)",
    "no axes kept": "m0 = ReduceMean<axes=[-1], keepdims=0>(x); m = Unsqueeze(m0, last); d = Sub(x, m); q = Mul(d, d);"
    "v = ReduceMean<axes=[-1]>(q); e = Add(v, eps); s = Sqrt(e); u = Div(d, s); w = Mul(u, g); y = Add(w, b)",
    "operator": "y = LayerNormalization<epsilon=0.00001>(x, g, b)",
}


def layer_norm(x: Any, R: Any, g: Any = G, b: Any = B, epsilon: float = 1e-5, axes: Any = (-1,)) -> Any:
    """Return the definition's output and its relevance, the deviation a constant: input times gradient of R / y."""
    mean, deviation = x.mean(axes, keepdims=True), np.sqrt(x.var(axes, keepdims=True) + epsilon)
    y = (x - mean) / deviation * g + b
    t = R / y * g / deviation
    return y, x * (t - t.mean(axes, keepdims=True))


@pytest.mark.parametrize("name", LN)
def test_chains_that_are_layer_norms(name: str) -> None:
    net = pylrp.load(model(LN[name]))
    (node,) = net.graph.nodes
    assert type(node.layer) is L.LayerNorm
    assert node.layer.epsilon == 1e-5
    np.testing.assert_allclose(node.layer.scale, G, rtol=1e-10)
    np.testing.assert_allclose(node.layer.shift, B, rtol=1e-10)
    x, R = RNG.normal(size=(2, 3, 5, D)) * 3 + 1
    y, expected = layer_norm(x, R)
    np.testing.assert_allclose(net.forward(x), y, atol=1e-12)
    ex = net.explain(x, R, composite="epsilon")
    np.testing.assert_allclose(ex.relevance, expected, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(ex.ledger[node.name].rounding, 0, atol=1e-10 * np.abs(expected).sum())


RMS = {
    "rsqrt": "q = Mul(x, x); v = ReduceMean<axes=[-1]>(q); e = Add(v, eps); s = Sqrt(e); r = Reciprocal(s);"
    "u = Mul(x, r); y = Mul(g, u)",
    "division": "q = Pow(x, two); v = ReduceMean<axes=[-1]>(q); e = Add(v, eps); s = Sqrt(e); u = Div(x, s);"
    "y = Mul(u, g)",
    "sum of squares": "v = ReduceSumSquare<axes=[-1]>(x); k = Div(v, n); e = Add(k, eps); r = Pow(e, half);"
    "u = Mul(r, x); y = Mul(u, g)",
}


@pytest.mark.parametrize("name", RMS)
def test_chains_that_are_rms_norms(name: str) -> None:
    net = pylrp.load(model(RMS[name]))
    (node,) = net.graph.nodes
    assert type(node.layer) is L.RMSNorm
    assert node.layer.epsilon == 1e-5
    x, R = RNG.normal(size=(2, 3, 5, D))
    np.testing.assert_allclose(net.forward(x), x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * G, atol=1e-12)
    np.testing.assert_array_equal(net.explain(x, R, composite="epsilon").relevance, R)


def test_a_power_that_rounds_x_and_its_negative_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    """As NumPy 1.24 does, whose vectors and remainders have powers of their own: no shift is made of that."""
    power = COMPUTED["Pow"]
    monkeypatch.setitem(COMPUTED, "Pow", lambda call, x, p: power(call, x, p) * np.where(x < 0, 1 + 2.3e-16, 1))
    (node,) = pylrp.load(model(RMS["division"])).graph.nodes
    assert type(node.layer) is L.RMSNorm


UNIT = {
    "plain": ("s = ReduceL2<axes=[-1]>(x); y = Div(x, s)", 0.0, None),
    "clip": ("s = ReduceL2<axes=[-1]>(x); c = Clip(s, small); y = Div(x, c)", 1e-3, "floor"),
    "expand": ("s = ReduceL2<axes=[-1]>(x); c = Max(s, small); h = Shape(x); k = Expand(c, h); y = Div(x, k)",
               1e-3, "floor"),
    "inside": ("q = Mul(x, x); a = ReduceSum(q, last); e = Add(a, small); s = Sqrt(e); y = Div(x, s)", 1e-3, "inside"),
    "outside": ("s = ReduceL2<axes=[-1]>(x); e = Add(s, small); y = Div(x, e)", 1e-3, "outside"),
    "root of the larger": ("q = Mul(x, x); a = ReduceSum(q, last); e = Max(a, square); r = Pow(e, half);"
                           "y = Mul(x, r)", 1e-3, "floor"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNIT)
def test_chains_that_divide_by_a_norm(name: str) -> None:
    text, epsilon, at = UNIT[name]
    made = model(text, small=np.array(1e-3), square=np.array(1e-6))
    net = pylrp.load(made)
    (node,) = net.graph.nodes
    assert type(node.layer) is L.Normalize
    assert (node.layer.norm, node.layer.axes) == ("l2", (1,))
    np.testing.assert_allclose(node.layer.epsilon, epsilon, rtol=1e-9)
    assert at in (None, node.layer.epsilon_at)
    for size in (1e-4, 1.0):
        x = RNG.normal(size=(3, 5, D)) * size
        (expected,) = ReferenceEvaluator(made).run(None, {"x": x})
        # A network without arrays computes in the model's precision.
        np.testing.assert_allclose(net.forward(x), expected, rtol=1e-11)


def test_division_by_the_mean_of_magnitudes() -> None:
    made = model("a = Abs(x); m = ReduceMean<axes=[-1]>(a); e = Add(m, eps); u = Div(x, e); y = Mul(u, g)")
    net = pylrp.load(made)
    assert [type(node.layer) for node in net.graph.nodes] == [L.Normalize, L.Affine]
    x, R = RNG.normal(size=(2, 3, 5, D))
    np.testing.assert_allclose(net.forward(x), x / (np.abs(x).mean(-1, keepdims=True) + 1e-5) * G, atol=1e-12)
    np.testing.assert_array_equal(net.explain(x, R, composite="epsilon").relevance, R)


#: With something that is no normalisation: what looks like one must be refused, or be exactly what it is.
OTHERS = {
    "another mean": "m = ReduceMean<axes=[1]>(x); d = Sub(x, m); q = Pow(d, two); v = ReduceMean<axes=[-1]>(q);"
    "e = Add(v, eps); s = Sqrt(e); y = Div(d, s)",
    "the mean stays": f"{MEAN}{VAR} s = Sqrt(e); y = Div(x, s)",
    "a power of 3": f"{MEAN} q = Pow(d, three); v = ReduceMean<axes=[-1]>(q); e = Add(v, eps); s = Sqrt(e);"
    "y = Div(d, s)",
    "a third of it": f"{MEAN}{VAR} s = Pow(e, third); y = Div(d, s)",
    "clipped": f"{MEAN} c = Clip(d, zero, two); q = Pow(c, two); v = ReduceMean<axes=[-1]>(q); e = Add(v, eps);"
    "s = Sqrt(e); y = Div(c, s)",
    "a deviation that has a bound": f"{MEAN}{VAR} s = Sqrt(e); c = Clip(s, zero, hundred); y = Div(d, c)",
    "a variance and more": f"{MEAN}{VAR} k = Mul(m, m); f = Add(e, k); s = Sqrt(f); y = Div(d, s)",
    "two of them": "m = ReduceMean<axes=[-1]>(x); d = Sub(x, m); q = Mul(x, x); v = ReduceMean<axes=[-1]>(q);"
    "e = Add(v, eps); s = Sqrt(e); y = Div(d, s)",
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_normalisation_is_not_taken_for_one(name: str) -> None:
    made = model(OTHERS[name], three=np.array(3.0), third=np.array(1 / 3), hundred=np.array(100.0))
    try:
        net = pylrp.load(made)
    except pylrp.UnsupportedLayer:
        return
    # As products and quotients, or with a part of it as a normalisation: then the numbers are those of the file.
    assert not getattr(net.graph.nodes[-1].layer, "centred", False)
    x = np.abs(RNG.normal(size=(3, 5, D))) * 1e3
    with np.errstate(invalid="ignore"):
        (expected,) = ReferenceEvaluator(made).run(None, {"x": x})
    if np.isfinite(expected).all():
        np.testing.assert_allclose(net.forward(x), expected, rtol=1e-9)
    else:  # the root of a sum of cubes
        with pytest.raises(pylrp.NotFinite):
            net.forward(x)


def test_over_channels_and_over_positions() -> None:
    over = {
        "[1]": (L.LayerNorm, (0,), (4, 1, 1)),
        "[2, 3]": (L.InstanceNorm, (1, 2), (4, 1, 1)),
        "[1, 2, 3]": (L.GroupNorm, (0, 1, 2), (4, 1, 1)),
        "[3]": (L.LayerNorm, (2,), (5,)),
    }
    for axes, (kind, own, shape) in over.items():
        g, b = RNG.normal(size=(2, *shape)) + 1.5
        made = model(
            f"m = ReduceMean<axes={axes}>(x); d = Sub(x, m); q = Pow(d, two); v = ReduceMean<axes={axes}>(q);"
            "e = Add(v, eps); s = Sqrt(e); u = Div(d, s); w = Mul(u, g); y = Add(w, b)",
            ["n", 4, 3, 5], g=g, b=b,
        )  # fmt: skip
        net = pylrp.load(made)
        (node,) = net.graph.nodes
        assert type(node.layer) is kind, axes
        x, R = RNG.normal(size=(2, 3, 4, 3, 5)) + 0.5
        y, expected = layer_norm(x, R, g, b, axes=tuple(axis + 1 for axis in own))
        np.testing.assert_allclose(net.forward(x), y, atol=1e-12)
        found = net.explain(x, R, composite="epsilon").relevance
        np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())


def test_a_group_norm_by_reshapes() -> None:
    rows = "s = Shape(x); r = Reshape(x, rows); i = InstanceNormalization<epsilon=0.01>(r, ones, zeros);"
    text = f"{rows} k = Reshape(i, s); w = Mul(k, g); y = Add(w, b)"
    g, b = RNG.normal(size=(2, 6, 1, 1)) + 1.5
    constants = {"rows": np.array([0, 3, -1]), "ones": np.ones(3), "zeros": np.zeros(3), "g": g, "b": b}
    net = pylrp.load(model(text, ["n", 6, 2, 4], **constants))
    (node,) = net.graph.nodes
    assert type(node.layer) is L.GroupNorm
    assert (node.layer.groups, node.layer.epsilon) == (3, 0.01)
    x, R = RNG.normal(size=(2, 3, 6, 2, 4))
    cut = x.reshape(3, 3, 2, 2, 4)
    y, expected = layer_norm(cut, R.reshape(cut.shape), g.reshape(3, 2, 1, 1), b.reshape(3, 2, 1, 1), 0.01, (2, 3, 4))
    np.testing.assert_allclose(net.forward(x), y.reshape(x.shape), atol=1e-12)
    found = net.explain(x, R, composite="epsilon").relevance
    np.testing.assert_allclose(found, expected.reshape(x.shape), atol=1e-9 * np.abs(expected).max())


def test_the_batch_on_another_axis() -> None:
    turn, back = "t = Transpose<perm=[1, 0, 2]>(x);", "y = Transpose<perm=[1, 0, 2]>(z)"
    chain = LN["torch"].replace("(x", "(t").replace("y = Add", "z = Add")
    for middle in (chain, "z = LayerNormalization<epsilon=0.00001>(t, g, b)"):
        net = pylrp.load(model(f"{turn}{middle};{back}"))
        assert [type(node.layer) for node in net.graph.nodes if not isinstance(node.layer, L.Transpose)] == [
            L.LayerNorm
        ]
        x, R = RNG.normal(size=(2, 3, 5, D))
        y, expected = layer_norm(x, R)
        np.testing.assert_allclose(net.forward(x), y, atol=1e-12)
        found = net.explain(x, R, composite="epsilon").relevance
        np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("name", LN)
def test_layers_are_called_as_their_values_in_the_file(name: str, tmp_path: Any) -> None:
    weight = RNG.normal(size=(D, 3))
    made = model(f"{LN[name]}; mean = ReduceMean<axes=[1], keepdims=0>(y); out = MatMul(mean, weight)", weight=weight)
    made.graph.output[0].name = "out"
    onnx.save(made, str(tmp_path / "model.onnx"))
    net = pylrp.load(tmp_path / "model.onnx")
    assert net.graph.nodes[0].name == "y"
    assert net.verify(RNG.normal(size=(2, 5, D)), target=1).passed


def test_a_residual_sum_of_normalisations() -> None:
    """Two blocks one after the other: neither's chain takes the other's for its own."""
    block = LN["torch"]
    names = ("m", "d", "q", "v", "e", "s", "u", "w")
    first, second = block, block
    for name in names:
        second = second.replace(f"{name} =", f"{name}2 =").replace(f"({name},", f"({name}2,").replace(
            f" {name})", f" {name}2)").replace(f"({name})", f"({name}2)")  # fmt: skip
    first = first.replace("y = Add", "z = Add")
    second = second.replace("(x", "(h").replace("y = Add", "k = Add")
    net = pylrp.load(model(f"{first}; h = Add(x, z); {second}; y = Add(h, k)"))
    assert [type(node.layer) for node in net.graph.nodes] == [L.LayerNorm, L.Add, L.LayerNorm, L.Add]
    x = RNG.normal(size=(2, 5, D))
    h = x + layer_norm(x, x)[0]
    np.testing.assert_allclose(net.forward(x), h + layer_norm(h, h)[0], atol=1e-12)


def standard_cases() -> dict[str, Any]:
    """Return onnx's own cases for these operators, without the hundreds of others that it would collect."""
    from onnx.backend.test.case import node

    files = "groupnormalization instance_normalization layernormalization lpnormalization meanvariancenormalization"
    for name in f"{files} rmsnormalization".split():
        if importlib.util.find_spec(f"onnx.backend.test.case.node.{name}"):
            with np.errstate(all="ignore"):
                importlib.import_module(f"onnx.backend.test.case.node.{name}")
    words = ("layer_norm", "rms_norm", "group_norm", "instancenorm", "l1norm", "l2norm", "lpnorm", "mvn")
    return {case.name: case for case in node._NodeTestCases if any(word in case.name for word in words)}


@pytest.mark.slow
def test_the_standards_cases() -> None:
    """Every case is computed as the standard has it, or refused because its samples meet."""
    computed = set()
    for name, case in standard_cases().items():
        inputs, outputs = case.data_sets[0]
        made = onnx.ModelProto()
        made.CopyFrom(case.model)
        for info, value in list(zip(made.graph.input, inputs, strict=True))[1:]:
            made.graph.initializer.append(numpy_helper.from_array(np.asarray(value), info.name))
        del made.graph.input[1:]
        x = np.asarray(inputs[0])
        try:
            net = pylrp.load(made, outputs=[made.graph.output[0].name])
        except pylrp.UnsupportedLayer:
            operator = case.model.graph.node[0]
            axes = [a for a in operator.attribute if a.name == "axis"]
            first = axes and helper.get_attribute_value(axes[0]) in (0, -x.ndim)
            if not ("expanded" in name or "mvn" in name or x.ndim == 1 or first):
                raise
            continue
        np.testing.assert_allclose(net.forward(x), outputs[0], atol=2e-6, err_msg=name)
        computed.add(name)
    assert len(computed) >= 50


@pytest.mark.parametrize(("text", "constants"), [
    ("y = LayerNormalization<axis=0>(x, g, b)", {}),
    ("y = LayerNormalization(x, h, b)", {"h": np.ones((5, D))}),
    ("y = LayerNormalization(x, h)", {"h": np.ones(D + 1)}),
    ("y = MeanVarianceNormalization(x)", {}),
    ("y = LpNormalization<p=3>(x)", {}),
    ("y = GroupNormalization<num_groups=4>(x, h, h)", {"h": np.ones(5)}),
    ("y, m = LayerNormalization(x, g, b); y2 = Add(y, m)", {}),
])  # fmt: skip
def test_operators_that_can_not_be_taken_over(text: str, constants: dict[str, Any]) -> None:
    made = model(text, opset=21 if "Group" in text else 17, **constants)
    if "y2" in text:
        made.graph.output[0].name = "y2"
    with pytest.raises(pylrp.UnsupportedLayer):
        pylrp.load(made)


def test_mean_variance_normalisation_of_each_sample() -> None:
    made = model("y = MeanVarianceNormalization<axes=[1, 2]>(x)")
    net = pylrp.load(made)
    x = RNG.normal(size=(3, 5, D))
    mean, deviation = x.mean((1, 2), keepdims=True), x.std((1, 2), keepdims=True)
    np.testing.assert_allclose(net.forward(x), (x - mean) / (deviation + 1e-9), atol=1e-12)


@pytest.mark.parametrize("op", ["LayerNormalization<axis=-1>(t, g, b)", "LayerNormalization<axis=0>(t, one)"])
def test_a_norm_of_a_constant(op):
    """Latents of a Perceiver, tables of relative positions: computed when the model is loaded."""
    made = model(f"c = {op}; s = Add(x, c); y = MatMul(s, w)", t=RNG.normal(size=(5, D)), w=RNG.normal(size=(D, 2)))
    x = RNG.normal(size=(3, 5, D))
    expected = ReferenceEvaluator(made).run(None, {"x": x})[0]
    np.testing.assert_allclose(pylrp.load(made).forward(x), expected, atol=1e-6)
