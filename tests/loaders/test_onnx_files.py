"""ONNX files: where weights lie, what is shared, open sizes, several inputs and outputs, options, and every error."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from allocated import at_most_allocated
from reference.graph_forward import forward

import pylrp
from pylrp import layers as L
from pylrp._limits import TooLarge, at_most
from pylrp.errors import BrokenFile, UnsupportedLayer
from pylrp.network.canonise import canonise

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from pylrp.loaders.onnx.model import load_onnx  # noqa: E402

RNG = np.random.default_rng(10)


def array(*shape: int, dtype: Any = np.float32) -> Any:
    return RNG.standard_normal(shape).astype(dtype)


def info(name: str, shape: Any, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    text: str, inputs: dict[str, Any], outputs: str = "y", kind: int = TensorProto.FLOAT, **constants: Any
) -> Any:
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.split(";")],
        "test",
        [info(name, shape, kind) for name, shape in inputs.items()],
        [info(name, None, kind) for name in outputs.split()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def layers(graph: Any) -> list[Any]:
    return [node.layer for node in graph.nodes]


@pytest.mark.parametrize("external", [False, True])
def test_weights_in_the_file_and_beside_it(tmp_path: Path, external: bool) -> None:
    w, b, wide = array(80, 60), array(80), array(3, 80, dtype=np.float16)
    made = model("z = Gemm<transB=1>(x, w, b); y = Gemm<transB=1>(z, v)", {"x": ["n", 60]}, w=w, b=b, v=wide)
    path = tmp_path / "net.onnx"
    onnx.save(made, str(path), save_as_external_data=external, location="net.data", size_threshold=0)
    graph = load_onnx(path)
    first, second = layers(graph)
    np.testing.assert_array_equal(first.weight, w)
    np.testing.assert_array_equal(first.bias, b)
    np.testing.assert_array_equal(second.weight, wide.astype("f"))
    assert graph.notes == ("float16 weights converted to float32",)
    for weight in (first.weight, second.weight):
        assert weight.flags.aligned
        assert weight.flags.writeable
    if external:
        (tmp_path / "net.data").write_bytes(b"short")
        with pytest.raises(
            ValueError, match=r"weight 'w' has \d+ bytes in .*net.data, expected 4800 numbers of 32 bits"
        ):
            load_onnx(path)
        (tmp_path / "net.data").unlink()
        with pytest.raises(ValueError, match=r"weight 'w' lies in .*net.data, which is missing"):
            load_onnx(str(path))


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    made = model("y = Gemm(x, w)", {"x": ["n", 60]}, w=array(60, 80))
    onnx.external_data_helper.set_external_data(made.graph.initializer[0], location="../secret")
    path = tmp_path / "net.onnx"
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ValueError, match="outside the model's folder"):
        load_onnx(path)


def test_a_large_weight_is_in_memory_once(tmp_path: Path) -> None:
    weight = array(1024, 1024)
    path = tmp_path / "net.onnx"
    made = model("y = Gemm<transB=1>(x, w)", {"x": ["n", 1024]}, w=weight)
    path.write_bytes(made.SerializeToString())
    load_onnx(path)  # imports
    with at_most_allocated(weight.nbytes * 6 // 5):
        graph = load_onnx(path)
    np.testing.assert_array_equal(layers(graph)[0].weight, weight)


@pytest.mark.parametrize("damage", [b"", b"no model at all", b"\x08\x07", b"\xff" * 40])
def test_files_that_are_no_model(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(damage)
    with pytest.raises(ValueError, match=r"net.onnx is no ONNX model: save it with"):
        load_onnx(path)


def field(number: int, payload: bytes) -> bytes:
    """Return a field of a message whose length takes three bytes."""
    n = len(payload)
    return bytes([number << 3 | 2, n & 127 | 128, n >> 7 & 127 | 128, n >> 14]) + payload


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [b"\x3a\x00" * 500_000, b"\x08\x08" * 500_000, *(field(7, bytes([n << 3 | 2, 0]) * 500_000) for n in (1, 5, 11))],
)
def test_files_of_many_empty_parts(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    begin = time.process_time()
    with pytest.raises(BrokenFile):
        load_onnx(tmp_path / "net.onnx")
    assert time.process_time() - begin < 2


def test_a_graph_in_pieces(tmp_path: Path) -> None:
    """Protobuf merges a message that comes several times; the large weights are cut out of each piece."""
    whole = model("z = Gemm<transB=1>(x, w); y = Relu(z)", {"x": ["n", 40]}, w=(weight := array(40, 40)))
    first, second = whole.__class__(), whole.__class__()
    first.CopyFrom(whole)
    del first.graph.node[1:], first.graph.initializer[:]
    second.graph.node.append(whole.graph.node[1])
    second.graph.initializer.extend(whole.graph.initializer)
    (tmp_path / "net.onnx").write_bytes(first.SerializeToString() + second.SerializePartialToString())
    graph = load_onnx(tmp_path / "net.onnx")
    np.testing.assert_array_equal(layers(graph)[0].weight, weight)
    assert [layer.kind for layer in layers(graph)] == [layer.kind for layer in layers(load_onnx(whole))]


def test_a_file_cut_short_anywhere(tmp_path: Path) -> None:
    whole = model("y = Gemm(x, w)", {"x": ["n", 40]}, w=array(40, 40)).SerializeToString()
    path = tmp_path / "net.onnx"
    for end in range(0, len(whole) - 1, 61):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="is no ONNX model"):
            load_onnx(path)


def test_shared_weights_stay_one_array() -> None:
    text = "a = Gemm(x, w); v = Identity(w); b = Gemm(a, v); y = Conv(i, k); z = Conv(y, k)"
    made = model(text, {"x": ["n", 4], "i": ["n", 2, 5, 5]}, "b z", w=array(4, 4), k=array(2, 2, 1, 1))
    first, _, *convs = layers(load_onnx(made))
    assert convs[0].weight is convs[1].weight
    twice = layers(load_onnx(model("a = Gemm(x, w); y = Gemm(a, w)", {"x": ["n", 4]}, w=array(4, 4))))
    assert twice[0].weight is twice[1].weight
    assert first.weight.flags.c_contiguous


def test_several_inputs_and_outputs() -> None:
    text = "a = Relu(x1); b = Add(a, x2); c = Neg(b)"
    graph = load_onnx(model(text, {"x1": ["n", 3], "unused": ["n", 7], "x2": ["n", 3]}, "c a"))
    assert graph.inputs == {"x1": (3,), "x2": (3,)}
    assert graph.outputs == ("c", "a")
    values = forward(graph, {"x1": array(2, 3), "x2": array(2, 3)})
    np.testing.assert_allclose(values["c"], -values["b"])


def test_names() -> None:
    made = model("a = Relu(x); b = Relu(a); y = Relu(b)", {"x": ["n", 3]})
    made.graph.node[0].name = "act"
    made.graph.node[1].name = "act"
    made.graph.node[2].name = "x"
    assert [node.name for node in load_onnx(made).nodes] == ["act", "act_2", "x_2"]


@pytest.mark.parametrize("batch", ["n", None, 1, 4])
@pytest.mark.parametrize("target", [[-1, 24], [0, -1], [0, 24], [1, 24], [4, -1], [4, 2, 12]])
def test_the_batch_in_a_reshape(batch: Any, target: list[int]) -> None:
    made = model("y = Reshape(x, s)", {"x": [batch, 2, 3, 4]}, s=np.array(target))
    if target[0] in (4,) and batch != 4:
        with pytest.raises(UnsupportedLayer, match=r"(mixes|mix) (the batch )?with other axes"):
            load_onnx(made)
    else:
        shape = (2, 12) if len(target) == 3 else (24,)
        assert load_onnx(made).shapes["y"] == shape


@pytest.mark.parametrize(
    ("text", "shape", "axis"),
    [
        ("y = Transpose<perm=[1, 0, 2, 3]>(x)", (2, 3, 4), 1),
        ("y = Transpose<perm=[3, 1, 2, 0]>(x)", (4, 2, 3), 3),
        ("y = Unsqueeze(x, zero)", (1, 2, 3, 4), 1),
        ("t = Transpose<perm=[1, 0, 2, 3]>(x); y = Gather<axis=0>(t, one)", (3, 4), 0),
        ("t = Transpose<perm=[1, 0, 2, 3]>(x); r = Reshape(t, rows); y = Reshape(r, back)", (2, 3, 4), 1),
        ("t = Transpose<perm=[1, 2, 0, 3]>(x); y = ReduceSum<keepdims=0>(t, zero)", (3, 4), 1),
        ("t = Transpose<perm=[1, 2, 0, 3]>(x); y = Concat<axis=1>(t, t)", (2, 6, 4), 2),
        ("t = Transpose<perm=[1, 2, 0, 3]>(x); y = Softmax<axis=3>(t)", (2, 3, 4), 2),
        ("t = Transpose<perm=[1, 2, 0, 3]>(x); y = MatMul(t, w)", (2, 3, 5), 2),
        ("t = Transpose<perm=[1, 0, 2, 3]>(x); y = Add(t, v)", (2, 3, 4), 1),
        (
            "r = Reshape(x, heads); t = Transpose<perm=[0, 2, 1]>(r); m = MatMul(r, t); y = Reshape(m, apart)",
            (2, 3, 3),
            0,
        ),
    ],
)
def test_the_batch_on_another_axis(text: str, shape: tuple[int, ...], axis: int) -> None:
    constants = {
        "zero": np.array([0]), "one": np.array(1), "rows": np.array([-1, 4]), "back": np.array([2, -1, 3, 4]),
        "w": array(4, 5), "v": array(2, 1, 3, 4), "heads": np.array([-1, 3, 4]), "apart": np.array([-1, 2, 3, 3]),
    }  # fmt: skip
    made = model(text, {"x": ["n", 2, 3, 4]}, **{name: a for name, a in constants.items() if name in text})
    graph = load_onnx(made)
    assert graph.shapes["y"] == shape
    assert ("in the file, here it comes first" in "".join(graph.notes)) == (axis > 0)
    x = array(5, 2, 3, 4)
    expected = ReferenceEvaluator(made).run(None, {"x": x})[0]
    np.testing.assert_allclose(forward(graph, {"x": x})[graph.value("y")], np.moveaxis(expected, axis, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "constants", "message"),
    [
        ("y = Reshape(x, s)", {"s": [-1]}, r"Reshape\) makes the output 'y', in which samples .* mix"),
        ("y = Reshape(x, s)", {"s": [-1, 3, 4]}, "in which samples of the batch mix with other axes"),
        ("y = Reshape(x, s)", {"s": [5, -1, 4]}, r"reshapes \(batch, 2, 3, 4\) to \(5, -1, 4\)"),
        ("y = Flatten<axis=2>(x)", {}, "mix with other axes"),
        ("y = Flatten<axis=0>(x)", {}, "mix with other axes"),
        ("y = Concat<axis=0>(x, x)", {}, "works along the batch axis"),
        ("y = Softmax<axis=0>(x)", {}, "works along the batch axis"),
        ("y = ReduceMean(x)", {}, "reduces over all axes"),
        ("y = Gather(x, a)", {"a": [0]}, "works along the batch axis"),
        ("y = Tile(x, a)", {"a": [2, 1, 1, 1]}, "repeats samples"),
        ("y = Expand(x, a)", {"a": [3, 2, 3, 4]}, "repeats samples"),
        ("y = Expand(x, a)", {"a": [2, 1, 1, 1, 1]}, "adds axes before the batch"),
        ("y = Pad(x, a)", {"a": [1, 0, 0, 0, 0, 0, 0, 0]}, "pads the batch axis"),
        (
            "y = Add(x, a)",
            {"a": np.arange(5, dtype="f").reshape(5, 1, 1, 1)},
            r"has a constant of shape \(5, 1, 1, 1\), another one for",
        ),
        ("s = Shape(x); t = Concat<axis=0>(s, s); y = Reshape(x, t)", {}, r"to \(batch, 2, 3, 4, batch"),
        ("s = Shape(x); t = Add(s, s); y = Reshape(x, t)", {}, r"to \(2 x batch, 4, 6, 8\)"),
        ("g = GlobalMaxPool(x); f = Flatten(g); y = Add(x, f)", {}, "joins values of different ranks"),
    ],
)
def test_samples_must_not_meet(text: str, constants: Any, message: str) -> None:
    with pytest.raises(UnsupportedLayer, match=f"{message}.*: export the model so that axis 0 is the batch") as caught:
        load_onnx(model(text, {"x": ["n", 2, 3, 4]}, **constants))
    assert caught.value.node == "y"


@pytest.mark.parametrize(
    ("text", "constants", "message"),
    [
        (
            "y = Exp(x)",
            {},
            r"node 'y' \(Exp\) has no rule of LRP: give a layer of your own.*operators={'Exp': function}",
        ),
        ("y = Det(x)", {}, "has no rule of LRP"),
        ("s = GlobalMaxPool(x); y = Max(x, s)", {}, "has no rule of LRP"),
        ("y = MatMul(x, x)", {}, "can't multiply"),
        ("y = MatMul(x, w)", {"w": np.ones((1, 1, 2, 4, 4), "f")}, "multiplies a value of 4 axes"),
        ("y = Conv(x, x)", {}, "takes 'x', which is computed, where a constant must be"),
        ("y = Concat<axis=1>(x, w)", {"w": np.ones((1, 2, 3, 4), "f")}, "takes the constant 'w' as input 1"),
        ("y = Cast<to=7>(x)", {}, "makes int64 of its input"),
        ("y = PRelu(x, s)", {"s": np.ones(4, "f")}, "not one for each channel"),
        ("y, z = MaxPool<kernel_shape=[2, 2]>(x); v = Relu(z)", {}, "has an output 'z' that can't be explained"),
        ('y = Resize<mode="cubic">(x, , w)', {"w": np.array([1, 1, 2, 2], "f")}, "mode is 'cubic'"),
        ("y = Resize<antialias=1>(x, , w)", {"w": np.array([1, 1, 2, 2], "f")}, "has antialias=1"),
        ("y = Conv(x, w)", {"w": np.ones((1, 3, 1, 1), "f")}, r"can't be taken over \(weight is .* takes 3 channels"),
        ("y = BatchNormalization<training_mode=1>(x, s, s, s, s)", {"s": np.ones(2, "f")}, "export .* evaluation mode"),
        ("r = RandomNormal<shape=[1]>(); y = Add(x, r)", {}, r"\(RandomNormal\) takes nothing .* in evaluation mode"),
        ("y = custom.Thing(x)", {}, r"\(custom.Thing\) has no rule of LRP"),
    ],
)
def test_what_has_no_translation(text: str, constants: Any, message: str) -> None:
    outputs = "y v" if "v =" in text else "y"
    with pytest.raises(UnsupportedLayer, match=message):
        load_onnx(model(text, {"x": ["n", 2, 3, 4]}, outputs, **constants))


def test_what_no_output_needs_is_not_looked_at() -> None:
    graph = load_onnx(model("y = Relu(x); z = Det(x)", {"x": ["n", 2]}))
    assert len(graph.nodes) == 1


def test_open_sizes() -> None:
    made = model("y = GlobalAveragePool(x)", {"x": ["n", 3, "height", None]})
    with pytest.raises(
        ValueError, match=r"input 'x' has shape \(batch, 3, \?, \?\) in the model.*input_shape=\(3, 224"
    ):
        load_onnx(made)
    assert load_onnx(made, input_shape=(3, 8, 9)).inputs == {"x": (3, 8, 9)}
    assert load_onnx(made, input_shape={"x": (3, 8, 9)}).inputs == {"x": (3, 8, 9)}
    with pytest.raises(ValueError, match=r"input_shape is \(1, 3, 8, 9\), input 'x' has 3 axes without the batch"):
        load_onnx(made, input_shape=(1, 3, 8, 9))
    with pytest.raises(ValueError, match="input_shape names z, the inputs are x"):
        load_onnx(made, input_shape={"z": (3, 8, 9)})
    shapeless = model("y = Relu(x)", {"x": None})
    with pytest.raises(ValueError, match="input 'x' has no shape in the model: give"):
        load_onnx(shapeless)
    assert load_onnx(shapeless, input_shape=(5,)).shapes["y"] == (5,)
    two = model("y = Add(x, z)", {"x": ["n", 3], "z": ["n", 3]})
    with pytest.raises(ValueError, match=r"input_shape is \(3,\), the model has the inputs x, z: give a dict"):
        load_onnx(two, input_shape=(3,))


def test_inputs_that_are_no_activations() -> None:
    with pytest.raises(UnsupportedLayer, match=r"makes the output 'y' of token ids or masks alone"):
        load_onnx(model("y = Relu(x)", {"x": ["n", 3]}, kind=TensorProto.INT64))
    with pytest.raises(UnsupportedLayer, match=r"node 'x' \(input\) holds string: cut the model"):
        load_onnx(model("y = Relu(x)", {"x": ["n", 3]}, kind=TensorProto.STRING))
    with pytest.raises(UnsupportedLayer, match="type 33"):  # of a broken file
        load_onnx(model("y = Relu(x)", {"x": ["n", 3]}, kind=33))
    with pytest.raises(UnsupportedLayer, match="has 1 axes, of which the first is the batch"):
        load_onnx(model("y = Relu(x)", {"x": [3]}))


def test_broken_models() -> None:
    with pytest.raises(BrokenFile, match=r"node '' \(Relu\) takes 'q'"):
        load_onnx(model("y = Relu(q)", {"x": ["n", 3]}))
    with pytest.raises(ValueError, match="output 'y' of the model is a constant"):
        load_onnx(model("y = Relu(w)", {"x": ["n", 3]}, w=array(3)))


@pytest.mark.parametrize(("kind", "dtype"), [(TensorProto.FLOAT, np.float32), (TensorProto.DOUBLE, np.float64)])
def test_the_inputs_decide_the_dtype(kind: int, dtype: Any) -> None:
    made = model(
        "a = Gemm(x, w); y = Mul(a, c)", {"x": ["n", 3]}, kind=kind, w=array(3, 2, dtype=np.float64), c=np.float32(2)
    )
    graph = load_onnx(made)
    assert graph.dtype == dtype
    expected = ("float64 weights converted to float32",) if dtype == np.float32 else ()
    assert graph.notes == expected


def test_bfloat16_weights() -> None:
    made = model("y = Gemm(x, w)", {"x": ["n", 2]})
    made.graph.initializer.append(helper.make_tensor("w", TensorProto.BFLOAT16, [2, 2], [1.0, 0.5, -2.0, 3.0]))
    graph = load_onnx(made)
    np.testing.assert_array_equal(layers(graph)[0].weight, [[1, -2], [0.5, 3]])
    assert graph.notes == ("bfloat16 weights converted to float32",)


class Cube(L.CustomLayer):
    """A layer of a user's."""

    def output_shape(self, *shapes: L.Shape) -> L.Shape:
        return shapes[0]


def test_a_layer_of_your_own() -> None:
    seen = []

    def translate(attributes: dict[str, Any], constants: list[Any]) -> L.Layer:
        seen.append((attributes, constants))
        return Cube()

    made = model("a = Cubic<power=3>(x, w); y = Relu(a)", {"x": ["n", 2]}, w=array(2))
    assert isinstance(layers(load_onnx(made, operators={"Cubic": translate}))[0], Cube)
    assert seen[0][0] == {"power": 3}
    assert seen[0][1][0].shape == (2,)
    gated = model("s = Sigmoid(x); p = Tanh(s); y = Mul(x, p)", {"x": ["n", 2]})
    gated.graph.node[2].name = "gate"
    graph = load_onnx(gated, operators={"gate": lambda attributes, constants: Cube()})
    assert graph.nodes[-1].inputs == ("x", "p")
    wrong: Any = {"gate": lambda attributes, constants: 3}
    with pytest.raises(TypeError, match=r"the function for Mul 'gate' returned 3, which is no layer"):
        load_onnx(gated, operators=wrong)


def test_functions_of_the_model_are_inlined() -> None:
    body = [parser.parse_node("t = Neg(a)"), parser.parse_node("b = Relu(t)")]
    function = helper.make_function("local", "Ramp", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    made = model("y = local.Ramp(x)", {"x": ["n", 3]})
    made.functions.append(function)
    made.opset_import.append(helper.make_opsetid("local", 1))
    assert [node.layer.kind for node in load_onnx(made).nodes] == ["affine", "relu"]


def test_softmax_at_the_top_is_noted() -> None:
    graph = canonise(load_onnx(model("a = Gemm(x, w); y = Softmax(a)", {"x": ["n", 3]}, w=array(3, 2))))
    assert graph.notes == ("softmax 'y' at the top removed: the logits are explained",)
    assert (graph.outputs, graph.value("y"), graph.facts.top) == (("y",), "a", {"y": "softmax"})


def test_repeats_are_looked_at_before_anything_is_allocated() -> None:
    with at_most_allocated(1 << 20), at_most(1 << 20), pytest.raises(TooLarge):
        load_onnx(model("y = Tile(x, r)", {"x": ["n", 2]}, r=np.array([1, 1 << 22])))


@pytest.mark.parametrize("entries", [4, 2000])
def test_equal_nodes_with_other_weights_stay_apart(tmp_path: Path, entries: int) -> None:
    """Large weights still lie in the file when repeated nodes are looked for: equal shapes are no equal weights."""
    one, two = (np.random.default_rng(seed).normal(size=entries).astype("f") for seed in (1, 2))
    nodes = [
        helper.make_node("Mul", ["x", "one"], ["a"]),
        helper.make_node("Mul", ["x", "two"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info(name, 1, ["n", entries]) for name in "xy"]
    tensors = [numpy_helper.from_array(array, name) for array, name in ((one, "one"), (two, "two"))]
    model = helper.make_model(
        helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    x = np.ones((1, entries), "f")
    np.testing.assert_allclose(pylrp.load(tmp_path / "m.onnx").forward(x), (one + two)[None], rtol=1e-6)
