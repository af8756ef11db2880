"""ONNX models that can't be taken over as they are: refused by name, at once, and nothing is read as something else.

Also what is computed while a model is loaded, where onnx's own evaluator can't be relied on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from allocated import at_most_allocated
from reference.graph_forward import forward

import pylrp
from pylrp import layers as L
from pylrp.errors import BrokenFile, UnsupportedLayer
from pylrp.network.canonise import canonise

onnx = pytest.importorskip("onnx")

from onnx import helper, numpy_helper, parser  # noqa: E402

from pylrp.loaders.onnx.model import load_onnx  # noqa: E402

RNG = np.random.default_rng(12)


def array(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def model(text: str, shape: Any, opset: int = 17, outputs: str = "y", **constants: Any) -> Any:
    """Return the model of nodes, written one after the other, from "x" (and "mask", which has its shape)."""
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.split(";")],
        "test",
        [helper.make_tensor_value_info(name, 1, shape) for name in ("x", "mask") if name == "x" or "mask" in constants],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs.split()],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items() if name != "mask"],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize(
    ("text", "opset"),
    [
        ("r = LRN<size=3>(c)", 13),
        ("r = MaxPool<kernel_shape=[1, 1]>(c)", 12),
        ('r = AveragePool<kernel_shape=[3, 3], auto_pad="SAME_LOWER">(c)', 12),
        ("r = GlobalMaxPool(c)", 13),
        ("r = Hardmax(c)", 11),
        ("r = LpNormalization(c)", 13),
        ("r = Add<axis=1, broadcast=1>(c, v)", 6),
    ],
)
def test_constants_that_are_not_computed(text: str, opset: int) -> None:
    made = model(f"{text}; y = Add(x, r)", ["n", 3, 4, 4], opset, c=array(1, 3, 4, 4), v=array(3), s=np.ones(4, "f"))
    with pytest.raises(UnsupportedLayer, match=r"node 'r' .* nothing but constants .*: run onnxruntime's offline") as e:
        load_onnx(made)
    assert e.value.operator in text


def test_a_constant_in_training_is_not_computed() -> None:
    constants: Any = {"c": array(1, 3, 4), "s": np.ones(3, "f")}
    made = model("r, a, b, d, e = BatchNormalization(c, s, s, s, s); y = Add(x, r)", ["n", 3, 4], 9, **constants)
    with pytest.raises(UnsupportedLayer, match=r"\(BatchNormalization\) has more than one output.* evaluation mode"):
        load_onnx(made)
    made = model("r = Dropout(c, h, t); y = Add(x, r)", ["n", 3, 4], 13, c=array(1, 3, 4), h=np.float32(0.5), t=True)
    with pytest.raises(UnsupportedLayer, match=r"\(Dropout\) has training_mode=true: .* evaluation mode"):
        load_onnx(made)


def test_an_array_as_large_as_the_batch_is_one_sample() -> None:
    made = model("s = Shape(x); z = ConstantOfShape<value = float[1] {2.0}>(s); y = Mul(x, z)", ["n", 3, 64, 64])
    load_onnx(made)  # imports
    with at_most_allocated(2_000_000):
        graph = load_onnx(made)
    x = array(2, 3, 64, 64)
    np.testing.assert_array_equal(forward(graph, {"x": x})["y"], 2 * x)


SIZES = "s = Shape(x); b = Slice(s, zero, one); "


@pytest.mark.parametrize(
    "text",
    [
        "z = ConstantOfShape(s); t = Transpose<perm=[1, 0, 2]>(z); y = Add(x, t)",
        "t = Concat<axis=0>(one, b); z = ConstantOfShape(t); y = Add(x, z)",
        "t = Concat<axis=0>(b, b); z = ConstantOfShape(t); y = Add(x, z)",
        "n = Squeeze(b); t = Range(o, n, i); f = Cast<to=1>(t); y = Add(x, f)",
        "t = Concat<axis=0>(b, one, one); z = Expand(pair, t); y = Add(x, z)",
        "z = ConstantOfShape(b); y = Add(x, z)",
        "z = ConstantOfShape(s); y = Conv(x, z)",
        "z = ConstantOfShape(s); a = Mul(z, pair); y = Add(x, a)",
        "z = ConstantOfShape(b); y = Reshape(x, z)",
    ],
)
def test_arrays_as_large_as_the_batch_that_are_refused(text: str) -> None:
    constants: dict[str, Any] = {
        "zero": ints(0), "one": ints(1), "o": np.int64(0), "i": np.int64(1), "pair": array(2, 1, 1)
    }  # fmt: skip
    with pytest.raises(UnsupportedLayer, match=r"batch.*: export the model so that axis 0 is the batch"):
        load_onnx(model(SIZES + text, ["n", 3, 4], **constants))


def test_zeros_beside_the_input_are_padding() -> None:
    made = model("s = Shape(x); z = ConstantOfShape(s); y = Concat<axis=1>(z, x, z)", ["n", 2, 4, 4])
    graph = load_onnx(made)
    assert [(n.name, n.layer) for n in graph.nodes] == [("y", L.Pad([(2, 2), (0, 0), (0, 0)]))]


@pytest.mark.parametrize(
    ("text", "shape", "opset", "constants", "message"),
    [
        ("a = CastLike(x, c); y = CastLike(a, x)", ["n", 3], 17, {"c": ints(1)}, r"\(CastLike\) makes int64 of its"),
        (
            "y = Gemm(x, w, c)", [4, 5], 13, {"w": array(5, 4), "c": array(4, 1)},
            r"bias of shape \(4, 1\), another one for each sample",
        ),
        ("y = Gemm(x, w, c)", [4, 5], 13, {"w": array(5, 4), "c": array(1, 2)}, r"bias of shape \(1, 2\) for 4 out"),
        ("y = PRelu(x, s)", [4, 3], 16, {"s": array(4, 1)}, r"slopes of shape \(4, 1\), others for each sample"),
        ("y = PRelu(x, s)", [4, 3, 2], 16, {"s": array(4, 3, 1)}, r"slopes of shape \(4, 3, 1\), others for each"),
        (
            "y = Dropout(x, r, t)", ["n", 3], 13, {"r": np.float32(0.5), "t": np.array(True)},
            "has training_mode=true: export the model in evaluation mode",
        ),
        ("y, a, b, c, d = BatchNormalization(x, s, s, s, s)", ["n", 3], 9, {"s": np.ones(3, "f")}, "means training"),
    ],
)  # fmt: skip
def test_nothing_is_read_as_something_else(
    text: str, shape: Any, opset: int, constants: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedLayer, match=message):
        load_onnx(model(text, shape, opset, **constants))


def test_what_looks_like_training_and_is_none() -> None:
    text = "y, a, b, c, d = BatchNormalization<is_test=1>(x, s, s, s, s)"
    assert len(load_onnx(model(text, ["n", 3], 6, s=np.ones(3, "f"))).nodes) == 1
    made = model("y = Dropout(x, r, t)", ["n", 3], 13, r=np.float32(0.5), t=np.array(False))
    assert len(load_onnx(made).nodes) == 1


BROKEN: list[tuple[str, int, dict[str, Any], str]] = [
    ("y = Unsqueeze(x, a)", 13, {"a": ints(9)}, r"\(Unsqueeze\) names axis 9 of 4"),
    ("y = Unsqueeze(x, a)", 13, {"a": ints(1, 1)}, "names an axis twice"),
    ("y = Unsqueeze(x)", 13, {}, "has no axes"),
    ("y = Squeeze(x, a)", 13, {"a": ints(9)}, "names axis 9 of 3"),
    ("y = ReduceMean<axes=[9]>(x)", 13, {}, "names axis 9 of 3"),
    ("y = Pad(x, p)", 13, {"p": ints(0, 1, 0, 1)}, "has 4 pads for 3 axes"),
    ("y = MaxPool(x)", 13, {}, "has no attribute 'kernel_shape'"),
    ("y = Conv(x)", 13, {}, "has no input 1"),
    ("y = DepthToSpace(x)", 13, {}, "has no attribute 'blocksize'"),
    ('y = SpaceToDepth<blocksize=2, mode="CRD">(x)', 13, {}, r"takes a value of shape \(4, 3\)"),
    ("y = LRN(x)", 13, {}, "has no attribute 'size'"),
    ("y = Cast(x)", 13, {}, "has no attribute 'to'"),
    ("y = Cast<to=99>(x)", 13, {}, "makes type 99 of its input"),
    ("y = Add(x)", 13, {}, "has 1 inputs"),
    ("y = Neg()", 13, {}, "can't be computed from its constants"),
    ("y = Celu<alpha=0.0>(x)", 13, {}, "has alpha=0"),
    ("y = Swish<alpha=0.0>(x)", 24, {}, "has alpha=0"),
    ("y = Reshape(x, s)", 13, {"s": ints(-1, -1)}, r"reshapes to \(-1, -1\), in which more than one size"),
    ("y, z = Split<axis=1>(x, s)", 13, {"s": ints(1, 2)}, r"splits 4 values into 2 parts of \[1, 2\]"),
    ("y = Transpose<perm=[0, 1]>(x)", 13, {}, r"has perm \[0, 1\] for 3 axes"),
    ("y = Slice(x, s, e)", 13, {"s": ints(0, 1), "e": ints(1)}, "has 2 starts and another number"),
    ("y = Tile(x, r)", 13, {"r": ints(1, 1)}, "repeats 2 axes of 3"),
    ("y = Resize(x, , s)", 13, {"s": np.ones(2, "f")}, "has 2 sizes or scales for 3 axes"),
    ("y = ConvTranspose<strides=[1, 1]>(x, w)", 13, {"w": array(4, 2, 2)}, "do not fit a kernel of 1 axes"),
    ("y = Conv<pads=[1, 1, 1]>(x, w)", 13, {"w": array(4, 4, 2)}, "pads has 3 entries"),
    ("y = Div(x, c)", 13, {"c": np.zeros(3, "f")}, r"node 'y' \(Div\) divides by zero"),
    ("y = Add(x, c)", 13, {"c": np.full(3, np.inf, "f")}, r"node 'y' \(Add\) has a constant that is infinite"),
    ('y = Softmax<axis="a">(x)', 13, {}, "inputs or attributes are not as the standard has them: the model is broken"),
    ("r = Reshape(c, s); y = Add(x, r)", 13, {"c": array(4, 3), "s": ints(5, 5)}, "can't be computed from its const"),
]


@pytest.mark.parametrize(("text", "opset", "constants", "message"), BROKEN, ids=[f"{c[0]} {c[3]}" for c in BROKEN])
def test_broken_nodes(text: str, opset: int, constants: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedLayer, match=message):
        load_onnx(model(text, ["n", 4, 3], opset, "y z" if "z =" in text else "y", **constants))


def test_an_input_without_a_name() -> None:
    made = model("y = Add(x, x)", ["n", 3])
    made.graph.node[0].input[1] = ""
    with pytest.raises(UnsupportedLayer, match=r"node 'y' \(Add\) has no input 1: the model is broken"):
        load_onnx(made)


def test_an_output_that_nothing_makes() -> None:
    with pytest.raises(BrokenFile, match="output 'y' is made by none of the nodes"):
        load_onnx(model("z = Relu(x)", ["n", 3]))


def test_a_single_axis_without_a_list() -> None:
    for text, shape in (
        ("y = Unsqueeze(x, a)", (4, 1, 1)),
        ("y = Squeeze(x, a)", (4,)),
        ("y = ReduceSum(x, a)", (4, 1)),
    ):
        assert load_onnx(model(text, ["n", 4, 1], 13, a=np.int64(2))).shapes["y"] == shape


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        ("y = Relu(x); z = Tile(y, i)", "z y"),
        ("a = Relu(x); y = Identity(a); z = Identity(a)", "y z"),
        ("a = Relu(x); y = Identity(a); z = Identity(y)", "z y"),
    ],
)
def test_equal_outputs_stay_two(text: str, outputs: str) -> None:
    network = pylrp.load(model(text, ["n", 3], 13, outputs, i=ints(1, 1)))
    x = array(2, 3)
    found = network.forward(x)
    assert len(found) == 2
    for name, values in found.items():
        np.testing.assert_array_equal(values, np.maximum(x, 0))
        np.testing.assert_array_equal(network.explain(x, 0, "epsilon", output=name).output, values)
    if "Tile" in text:
        assert list(found) == ["z", "y"]


def test_a_softmax_and_a_copy_of_it() -> None:
    made = model("a = Gemm(x, w); s = Softmax(a); z = Identity(s)", ["n", 3], 13, "s z", w=array(3, 2))
    graph = canonise(load_onnx(made))
    assert (graph.outputs, [n.layer.kind for n in graph.nodes]) == (("s", "z"), ["dense"])
    assert {graph.value("s"), graph.value("z")} == {"a"}
    assert graph.notes == ("softmax 's' at the top removed: the logits are explained",)


def test_inputs_that_change_nothing() -> None:
    made = model("y = Relu(x)", ["n", 3], mask=None)
    for shape in (None, {"x": (3,)}, {"x": (3,), "mask": (3,)}):
        graph = load_onnx(made, input_shape=shape)
        assert list(graph.inputs) == ["x"]
        assert graph.notes == ("input 'mask' changes no output and is left out",)


def test_operators_that_are_not_there() -> None:
    made = model("a = Relu(x); y = custom.Thing(a)", ["n", 3])
    made.graph.node[0].name = "first"

    def passes(attributes: dict[str, Any], constants: list[Any]) -> L.Layer:
        return L.Identity()

    message = r"nothing in the model is called 'Rleu', 'Thing'; its operators are Relu, custom.Thing, its nodes first$"
    with pytest.raises(ValueError, match=message):
        load_onnx(made, operators={"Rleu": passes, "custom.Thing": passes, "Thing": passes})
    load_onnx(made, operators={"first": passes, "custom.Thing": passes})
    nothing: Any = {"Relu": None}
    with pytest.raises(TypeError, match=r"operators\['Relu'\] is None, expected a function of attributes and const"):
        load_onnx(made, operators=nothing)


def test_functions_for_operators_that_fail() -> None:
    made = model("y = Relu(x)", ["n", 3])

    def raises(error: Exception) -> Any:
        def function(attributes: dict[str, Any], constants: list[Any]) -> L.Layer:
            raise error

        return function

    with pytest.raises(ValueError, match=r"^operators: the function for Relu 'y' raised KeyError: 'power'$") as caught:
        load_onnx(made, operators={"Relu": raises(KeyError("power"))})
    assert not isinstance(caught.value, UnsupportedLayer)
    own = UnsupportedLayer("y", "Relu", "is too sharp", "blunt it")
    with pytest.raises(UnsupportedLayer, match="is too sharp: blunt it"):
        load_onnx(made, operators={"Relu": raises(own)})
    with pytest.raises(ValueError, match=r"for Relu 'y' returned Reshape.*, which does not fit: "):
        load_onnx(made, operators={"Relu": lambda attributes, constants: L.Reshape((5,))})


@pytest.mark.parametrize(
    ("text", "operator", "word"),
    [
        (
            "r = com.microsoft.DynamicQuantizeLSTM(x, w, w); y = Relu(r)",
            "com.microsoft.DynamicQuantizeLSTM",
            "recurrent",
        ),
        ("y = com.microsoft.PackedAttention<num_heads=2>(x, x, x)", "com.microsoft.PackedAttention", "attention"),
        ("q, s1, z1 = DynamicQuantizeLinear(x); i = MatMulInteger(q, b, z1); y = Cast<to=1>(i)", "DynamicQ", "quantis"),
        ("y = com.microsoft.SkipBiasGelu(x, v)", "com.microsoft.SkipBiasGelu", "ORT_ENABLE_BASIC"),
        ("y = com.microsoft.nchwc.Conv(x, w)", "com.microsoft.nchwc.Conv", "ORT_ENABLE_BASIC"),
    ],
)
def test_kinds_without_a_rule_are_named(text: str, operator: str, word: str) -> None:
    constants = {"w": array(4, 4), "v": array(4), "s": np.float32(0.1), "z": np.uint8(3), "b": np.ones((4, 4), "u1")}
    made = model(text, ["n", 4, 4], 21, **constants)
    with pytest.raises(UnsupportedLayer, match=word) as caught:
        load_onnx(made)
    assert caught.value.operator.startswith(operator)
    quantised = "quantis" in word
    assert ("before quantisation" in caught.value.way_out) == quantised


def test_a_layer_of_ones_own_goes_first() -> None:
    made = model("y = LSTM(x, w, w)", ["n", 4], 21, w=array(4, 4))
    loaded = load_onnx(made, operators={"LSTM": lambda attributes, constants: L.Identity()})
    assert [node.layer.kind for node in loaded.nodes] == ["identity"]
