"""Outputs of ONNX models: names as in the file, labels left out, a choice of them; classical models' operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.cli import main
from pylrp.layers import Affine, Dense, ReLU, Softmax

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402

RNG = np.random.default_rng(30)
X = RNG.normal(size=(6, 4)).astype(np.float32)
W, B = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=3).astype(np.float32)
LOGITS = X @ W.T + B


def model(text: str, outputs: str, **constants: Any) -> Any:
    """A model of nodes in text; ``name:`` in front of an output that is no float."""
    kinds = {"i": TensorProto.INT64, "b": TensorProto.BOOL}
    declared = []
    for entry in outputs.split():
        kind, _, name = entry.rpartition(":")
        declared.append(helper.make_tensor_value_info(name, kinds.get(kind, TensorProto.FLOAT), None))
    constants = {"w": W, "b": B, **constants}
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.split(";")],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        declared,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


GEMM = "z = Gemm<transB=1>(x, w, b)"


def explained(net: Any, target: int | None, **options: Any) -> Any:
    return net.explain(X, target, pylrp.Epsilon(0), **options).relevance


def test_names_are_those_of_the_file(tmp_path: Path) -> None:
    made = model(
        f"{GEMM}; r = Relu(z); boxes = Gemm<transB=1>(r, v); t = Gemm<transB=1>(r, v); scores = Reshape(t, k)",
        "boxes scores",
        v=np.eye(3, dtype=np.float32),
        k=np.array([-1, 3, 1]),
    )
    for node, name in zip(made.graph.node, ("/a", "/b", "/box/Gemm", "boxes", "/Reshape"), strict=True):
        node.name = name  # one is called as an output that it does not make
    path = tmp_path / "net.onnx"
    onnx.save(made, path)
    net = pylrp.load(path)
    assert net.graph.outputs == ("boxes", "scores")
    found = net.forward(X)
    assert {name: array.shape for name, array in found.items()} == {"boxes": (6, 3), "scores": (6, 3, 1)}
    np.testing.assert_allclose(found["boxes"], np.maximum(LOGITS, 0), rtol=1e-5, atol=1e-6)
    R = explained(net, 1, output="boxes")
    for name in ("/box/Gemm",):
        np.testing.assert_array_equal(explained(net, 1, output=name), R)
    ex = net.explain(X, 1, "epsilon", output="scores")
    np.testing.assert_array_equal(ex.layers["scores"], ex.layers["/Reshape"])
    np.testing.assert_array_equal(ex.layers["scores"].sum(axis=(1, 2)), found["scores"][:, 1, 0])
    assert {name: output.shape for name, output in net.explain(X, 0, output="boxes").layers.items()}["/b"] == (6, 3)
    np.savez(tmp_path / "x.npz", x=X[0])
    arguments = ["explain", str(path), str(tmp_path / "x.npz"), "--target", "1", "--composite", "epsilon"]
    assert main([*arguments, "--from", "scores", "-o", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as saved:
        np.testing.assert_allclose(saved["relevance"].ravel(), ex.relevance[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="boxes, scores"):
        net.explain(X, 0)


LABELS = {
    "ArgMax": ("label = ArgMax<axis=1, keepdims=0>(z)", "i:label"),
    "ArgMax of a softmax": ("p = Softmax(z); label = ArgMax(p)", "i:label"),
    "TopK": ("best, label = TopK(z, one)", "best i:label"),
    "threshold": ("p = Sigmoid(z); label = Greater(p, half)", "b:label"),
    "cast": ("p = Sigmoid(z); yes = GreaterOrEqual(p, half); label = Cast<to=7>(yes)", "i:label"),
    "names": ("i = ArgMax<keepdims=0>(z); label = Gather(classes, i)", "i:label"),
    "NMS": ("u = Unsqueeze(z, ones); label = NonMaxSuppression(u, u)", "i:label"),
}
CONSTANTS = {
    "one": np.array([1]), "ones": np.array([1]), "half": np.float32(0.5), "classes": np.array([7, 8, 9]),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_left_out(name: str) -> None:
    text, outputs = LABELS[name]
    net = pylrp.load(model(f"{GEMM}; {text}", f"z {outputs}", **CONSTANTS))
    left_out = {entry.rpartition(":")[2] for entry in outputs.split()}
    assert net.graph.outputs == ("z",)
    assert len(net.notes) == len(left_out)
    assert all(repr(label) in "".join(net.notes) for label in left_out)
    target = 1
    if name == "names":
        assert net.graph.facts.classes == (7, 8, 9)
        target = net.class_index(8)
    np.testing.assert_allclose(explained(net, target), X * W[1], rtol=1e-4, atol=1e-5)


def test_nothing_but_a_label_is_what_it_is_made_of() -> None:
    net = pylrp.load(model(f"{GEMM}; p = Softmax(z); i = ArgMax<keepdims=0>(p); label = Identity(i)", "i:label"))
    assert (net.graph.outputs, net.top) == (("p",), "softmax")
    np.testing.assert_allclose(net.forward(X), LOGITS, rtol=1e-4, atol=1e-5)
    assert any("label" in note for note in net.notes)


def test_a_decision_inside_is_refused() -> None:
    text = f"{GEMM}; i = ArgMax<axis=1, keepdims=1>(z); f = Cast<to=1>(i); y = Add(z, f)"
    with pytest.raises(pylrp.UnsupportedLayer) as error:
        pylrp.load(model(text, "y"))
    assert error.value.operator == "ArgMax"


def test_chosen_outputs() -> None:
    made = model(f"{GEMM}; r = Relu(z); p = Softmax(z); hard = Det(r); a = Neg(z)", "p hard a")
    made.graph.node[1].name = "/relu"
    with pytest.raises(pylrp.UnsupportedLayer):
        pylrp.load(made)
    net = pylrp.load(made, outputs=["p"])  # what only others need is not looked at
    assert (net.graph.outputs, net.top) == (("p",), "softmax")
    inner = pylrp.load(made, outputs=["z", "/relu"])
    assert inner.graph.outputs == ("z", "/relu")
    np.testing.assert_allclose(inner.forward(X)["/relu"], np.maximum(LOGITS, 0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"'q'.*p, hard, a.*z"):
        pylrp.load(made, outputs=["q"])
    for wrong in ("p", [3]):
        with pytest.raises(TypeError):
            pylrp.load(made, outputs=wrong)  # type: ignore[arg-type]
    for twice in ([], ["p", "p"]):
        with pytest.raises(ValueError, match="outputs"):
            pylrp.load(made, outputs=twice)


def test_chosen_outputs_of_layers(tmp_path: Path) -> None:
    layers = [Dense(W), ReLU(), Dense(np.ones((2, 3), np.float32)), Softmax()]
    net = pylrp.load(layers, outputs=["0", "softmax0"])
    assert (net.graph.outputs, net.top) == (("0", "softmax0"), {"softmax0": "softmax"})
    net.save(tmp_path / "net.pylrp.npz")
    again = pylrp.load(tmp_path / "net.pylrp.npz", outputs=["softmax0"])
    assert (again.graph.outputs, again.top) == (("softmax0",), "softmax")
    with pytest.raises(ValueError, match="relu0"):
        pylrp.load(layers, outputs=["2"])


def test_inputs_copies_and_one_value_of_two_names() -> None:
    net = pylrp.load(model(f"{GEMM}; again = Identity(z); same = Identity(x); p = Sigmoid(z)", "z again same p x"))
    assert net.graph.outputs == ("z", "again", "same", "p", "x")
    found = net.forward(X)
    np.testing.assert_array_equal(found["same"], X)
    np.testing.assert_array_equal(found["x"], X)
    for name in ("z", "again", "p"):
        np.testing.assert_array_equal(found[name], found["z"])
        np.testing.assert_allclose(explained(net, 1, output=name), X * W[1], rtol=1e-4, atol=1e-5)
    assert net.top == {"p": "sigmoid"}


def test_an_output_that_is_read_inside() -> None:
    net = pylrp.load(model(f"{GEMM}; h = Relu(z); p = Sigmoid(h); y = Gemm(p, v)", "h p y", v=np.ones((3, 2), "f")))
    found = net.forward(X)
    assert list(found) == ["h", "p", "y"]
    h = np.maximum(LOGITS, 0)
    np.testing.assert_allclose(found["h"], h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["p"], h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["y"], 1 / (1 + np.exp(-h)) @ np.ones((3, 2)), rtol=1e-4)


WRITTEN = {
    "sigmoid": ("n = Neg(z); e = Exp(n); s = Add(e, one); y = Div(one, s)", "sigmoid", 1),
    "sigmoid of minus": ("e = Exp(z); s = Add(e, one); y = Reciprocal(s)", "sigmoid", -1),
    "softplus": ("e = Exp(z); s = Add(e, one); y = Log(s)", "softplus", 1),
    "exp": ("e = Exp(z); y = Mul(e, two)", "exp", 1),
    "softmax": ("e = Exp(z); s = ReduceSum(e, axis); y = Div(e, s)", "softmax", 1),
    "shifted": (
        "m = ReduceMax<axes=[-1]>(z); d = Sub(z, m); e = Exp(d); s = ReduceSum(e, axis); y = Div(e, s)", "softmax", 1,
    ),
    "reciprocal": ("e = Exp(z); s = ReduceSum(e, axis); i = Reciprocal(s); y = Mul(e, i)", "softmax", 1),
    "log softmax": ("l = ReduceLogSumExp<axes=[1]>(z); y = Sub(z, l)", "log_softmax", 1),
    "log of softmax": ("p = Softmax(z); e = Add(p, tiny); y = Log(e)", "log_softmax", 1),
    "log sum exp": ("e = Exp(z); s = ReduceSum(e, axis); l = Log(s); y = Sub(z, l)", "log_softmax", 1),
    "share": ("p = Sigmoid(z); s = ReduceSum(p, axis); y = Div(p, s)", "sigmoid", 1),
    "hard sigmoid": ("a = Mul(z, fifth); s = Add(a, half); y = Clip(s, zero, one)", "hard_sigmoid", 1),
    "1 - p": ("p = Sigmoid(z); y = Sub(one, p)", "sigmoid", -1),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_functions_that_are_written_out(name: str) -> None:
    text, kind, sign = WRITTEN[name]
    numbers = {"one": 1, "two": 2, "half": 0.5, "zero": 0, "fifth": 0.2, "tiny": 1e-7}
    constants = {key: np.float32(value) for key, value in numbers.items()}
    made = model(f"{GEMM}; {text}", "y", axis=np.array([1]), **constants)
    net = pylrp.load(made)
    assert (net.top, net.graph.outputs) == (kind, ("y",))
    np.testing.assert_allclose(net.forward(X), sign * LOGITS, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(explained(net, 2), sign * X * W[2], rtol=1e-4, atol=1e-5)
    evaluator = onnx.reference.ReferenceEvaluator(made)
    expected = evaluator.run(None, {"x": X})[0]
    np.testing.assert_allclose(pylrp.load(made, keep_top=True).forward(X), expected, rtol=1e-4, atol=1e-6)


def test_an_exponential_function_of_the_input_is_refused() -> None:
    with pytest.raises(pylrp.UnsupportedLayer) as error:
        pylrp.load(model(f"{GEMM}; y = Exp(x)", "y"))
    assert error.value.operator == "Exp"


@pytest.mark.parametrize("text", ["e = Exp(z); y = Gemm(e, v)", "e = Exp(z); s = ReduceSum(e, k); y = Gemm(s, u)"])
def test_an_exponential_function_inside(text: str) -> None:
    constants = {"v": np.ones((3, 2), "f"), "u": np.ones((1, 2), "f"), "k": np.array([1])}
    made = model(f"{GEMM}; {text}", "y", **constants)
    net = pylrp.load(made)
    assert net.top is None
    expected = onnx.reference.ReferenceEvaluator(made).run(None, {"x": X})[0]
    np.testing.assert_allclose(net.forward(X), expected, rtol=1e-5)


def ml(operator: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), outputs.split(), domain="ai.onnx.ml", **attributes)


def classical(nodes: list[Any], outputs: str, **constants: Any) -> Any:
    made = model("unused = Identity(x)", outputs, **constants)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


@pytest.mark.parametrize("zipmap", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_logistic_regression_has_one_logit(zipmap: bool, mirrored: bool) -> None:
    offset, scale = X.mean(0), 1 / X.std(0)
    rows, bias = ([-W[0], W[0]], [-B[0], B[0]]) if mirrored else ([W[0]], [B[0]])
    nodes = [
        ml("Scaler", "x", "scaled", offset=offset.tolist(), scale=scale.tolist()),
        ml(
            "LinearClassifier", "scaled", "label raw", coefficients=np.ravel(rows).tolist(),
            intercepts=np.ravel(bias).tolist(), classlabels_strings=["no", "yes"], post_transform="LOGISTIC",
        ),
        ml("Normalizer", "raw", "probabilities", norm="L1"),
        *([ml("ZipMap", "probabilities", "named", classlabels_strings=["no", "yes"])] if zipmap else []),
    ]  # fmt: skip
    net = pylrp.load(classical(nodes, f"label {'named' if zipmap else 'probabilities'}"))
    assert net.graph.outputs == ("named" if zipmap else "probabilities",)
    assert (net.top, net.graph.facts.classes) == ("sigmoid", ("no", "yes"))
    scaled = (X - offset) * scale
    np.testing.assert_allclose(net.forward(X), scaled @ W[:1].T + B[0], rtol=1e-4, atol=1e-5)
    for target, sign in (("yes", 1), (0, -1), (None, 1)):
        R = net.explain(X, target, [pylrp.Epsilon(0)]).relevance
        # How a shift below the first layer shares is the layers' own matter, not that of the file.
        same = pylrp.Network([Affine(scale, -offset * scale), Dense(W[:1], B[:1])], (4,))
        np.testing.assert_allclose(R, sign * same.explain(X, 0, [pylrp.Epsilon(0)]).relevance, rtol=1e-4, atol=1e-5)


def test_multinomial_and_regression() -> None:
    settings = {"coefficients": W.ravel().tolist(), "intercepts": B.tolist()}
    classes = {"classlabels_ints": [0, 1, 2]}
    for function, kind in (("SOFTMAX", "softmax"), ("LOGISTIC", "sigmoid"), ("NONE", None)):
        node = ml("LinearClassifier", "x", "label scores", post_transform=function, **classes, **settings)
        net = pylrp.load(classical([node], "i:label scores"))
        assert (net.top, net.graph.outputs) == (kind, ("scores",))
        np.testing.assert_allclose(net.forward(X), LOGITS, rtol=1e-4, atol=1e-5)
    only_label = pylrp.load(classical([node], "i:label"))
    np.testing.assert_allclose(only_label.forward(X), LOGITS, rtol=1e-4, atol=1e-5)
    net = pylrp.load(classical([ml("LinearRegressor", "x", "y", targets=3, **settings)], "y"))
    np.testing.assert_allclose(net.forward(X), LOGITS, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(explained(net, 1), X * W[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "size"),
    [
        ("L1", lambda x: np.abs(x).sum(1, keepdims=True)),
        ("L2", lambda x: np.sqrt((x**2).sum(1, keepdims=True))),
        ("MAX", lambda x: x.max(1, keepdims=True)),
    ],
)
def test_a_norm_is_a_constant(norm: str, size: Any) -> None:
    """R = c x / |x|: the weights of the linear function, at the normalised input."""
    gemm = parser.parse_node("y = Gemm<transB=1>(u, w, b)")
    net = pylrp.load(classical([ml("Normalizer", "x", "u", norm=norm), gemm], "y"))
    x = X.copy()
    x[0] = 0  # stays as it is
    divisor = np.where(size(x) == 0, 1, size(x))
    np.testing.assert_allclose(net.forward(x), x / divisor @ W.T + B, rtol=1e-4, atol=1e-5)
    R = net.explain(x, 1, pylrp.Epsilon(0)).relevance
    np.testing.assert_allclose(R, x / divisor * W[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operator", ["Imputer", "TreeEnsembleClassifier", "OneHotEncoder", "SVMRegressor"])
def test_other_classical_operators_are_refused_by_name(operator: str) -> None:
    with pytest.raises(pylrp.UnsupportedLayer) as error:
        pylrp.load(classical([ml(operator, "x", "u"), parser.parse_node("y = Gemm<transB=1>(u, w)")], "y"))
    assert error.value.operator == f"ai.onnx.ml.{operator}"
