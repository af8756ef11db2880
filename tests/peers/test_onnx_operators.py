"""ONNX models against onnxruntime and the standard's own examples: what their graphs compute in the oracle.

Needs the packages onnx and onnxruntime (`make test-peers`). Files, options and errors are in `test_onnx_files.py`.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference.graph_forward import forward

from pylrp.errors import UnsupportedLayer
from pylrp.network.canonise import canonise
from pylrp.network.graph import Graph
from pylrp.network.network import Network

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper, parser, shape_inference  # noqa: E402

from pylrp.loaders.onnx.constants import attributes_of  # noqa: E402
from pylrp.loaders.onnx.model import load_onnx  # noqa: E402
from pylrp.loaders.onnx.operators import OPERATORS  # noqa: E402
from pylrp.network.side_operators import OPERATORS as SIDE_OPERATORS  # noqa: E402

RNG = np.random.default_rng(9)
DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"


def array(*shape: int, dtype: Any = np.float32) -> Any:
    return RNG.standard_normal(shape).astype(dtype)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def model(text: str, shape: Sequence[Any], opset: int = 17, dtype: Any = 1, **constants: Any) -> Any:
    """Return the model of nodes, written one after the other, from "x" to "y"."""
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.split(";")],
        "test",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(made: Any, x: Any) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    return runtime.InferenceSession(made.SerializeToString(), options).run(None, {"x": x})[0]


def assert_computes(graph: Graph, x: Any, expected: Any, tolerance: float = 2e-6) -> None:
    for variant in (graph, canonise(graph, keep_top=True)):
        got = forward(variant, {next(iter(graph.inputs)): x})[variant.value(variant.outputs[0])]
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * (np.abs(expected).max() + 1e-3))


def kinds(graph: Graph) -> list[str]:
    return [n.layer.kind for n in canonise(graph, keep_top=True).nodes]


IMAGE = (2, 4, 6, 5)
VARIANCE = RNG.uniform(0.5, 2, 4).astype("f")
#: What it is about: the input's shape, nodes as text, constants, opsets.
CASES: dict[str, tuple[Sequence[int], str, dict[str, Any], Sequence[int]]] = {
    "conv": (
        IMAGE, "y = Conv<strides=[2, 1], pads=[1, 0, 2, 1], group=2>(x, w, b)",
        {"w": array(6, 2, 3, 3), "b": array(6)}, (7, 11, 22),
    ),
    "conv same": (
        IMAGE, 'y = Conv<strides=[2, 2], auto_pad="SAME_UPPER">(x, w)', {"w": array(3, 4, 3, 2)}, (7, 22)
    ),
    "conv lower": (
        IMAGE, 'y = Conv<strides=[1, 2], auto_pad="SAME_LOWER">(x, w)', {"w": array(3, 4, 2, 2)}, (7, 22)
    ),
    "transposed conv": (
        IMAGE, "y = ConvTranspose<strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 2], group=2>(x, w, b)",
        {"w": array(4, 3, 3, 3), "b": array(6)}, (7, 11, 22),
    ),
    "transposed conv to a size": (
        IMAGE, "y = ConvTranspose<strides=[2, 2], output_shape=[12, 10]>(x, w)", {"w": array(4, 3, 3, 3)}, (11, 22)
    ),
    "transposed conv same": (
        IMAGE, 'y = ConvTranspose<strides=[2, 2], auto_pad="SAME_UPPER">(x, w)', {"w": array(4, 3, 3, 3)}, (11, 22)
    ),
    "gemm": (
        (3, 5), "y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b)", {"w": array(4, 5), "b": array(4)}, (7, 9, 13)
    ),
    "gemm and one bias": ((3, 5), "y = Gemm(x, w, b)", {"w": array(5, 4), "b": array(1)}, (7, 13)),
    "matmul": ((3, 5), "z = MatMul(x, w); y = Add(b, z)", {"w": array(5, 4), "b": array(4)}, (7, 13)),
    "matmul rank 3": ((3, 2, 5), "z = MatMul(x, w); y = Add(z, b)", {"w": array(5, 4), "b": array(4)}, (7, 13)),
    "matmul rank 4": ((3, 2, 3, 5), "y = MatMul(x, w)", {"w": array(5, 4)}, (13,)),
    "matmul from the left": ((3, 5, 2), "y = MatMul(w, x)", {"w": array(4, 5)}, (13,)),
    "batch norm": (
        IMAGE, "y = BatchNormalization<epsilon=0.001>(x, s, b, m, v)",
        {"s": array(4), "b": array(4), "m": array(4), "v": VARIANCE}, (7, 9, 14, 15),
    ),
    "constants on both sides": (
        IMAGE, "p = Sub(a, x); q = Mul(b, p); r = Div(q, c); y = Sub(r, a)",
        {"a": array(1, 4, 1, 1), "b": array(5), "c": np.float32(3)}, (7, 13, 14),
    ),
    "constants that repeat": ((2, 1, 3), "y = Add(x, a)", {"a": array(4, 1)}, (7, 13)),
    "sum": (IMAGE, "p = Relu(x); y = Sum(x, p, x)", {}, (8, 13)),
    "sum with constants": (IMAGE, "p = Relu(x); y = Sum(x, a, p)", {"a": array(6, 1)}, (8, 13)),
    "sum of unequal shapes": (IMAGE, "p = GlobalAveragePool(x); y = Add(p, x)", {}, (7, 13)),
    "difference and mean": (IMAGE, "p = Relu(x); q = Sub(x, p); y = Mean(q, p)", {}, (8, 13)),
    "concat": (IMAGE, "p = Relu(x); y = Concat<axis=-3>(x, p, x)", {}, (11, 13)),
    "max pool": (IMAGE, "y = MaxPool<kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]>(x)", {}, (7, 8, 12)),
    "max pool, ceil and dilation": (
        IMAGE, "y = MaxPool<kernel_shape=[2, 2], strides=[2, 2], dilations=[2, 1], ceil_mode=1>(x)", {}, (10, 12)
    ),
    "average pool": (
        IMAGE, "y = AveragePool<kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]>(x)", {}, (7, 10, 19)
    ),
    "average pool and padding": (
        IMAGE,
        "y = AveragePool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1, ceil_mode=1>(x)",
        {}, (10, 19),
    ),
    "average pool same": (
        IMAGE, 'y = AveragePool<kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER">(x)', {}, (7, 19)
    ),
    "global pools": (IMAGE, "p = GlobalMaxPool(x); q = GlobalAveragePool(x); y = Add(p, q)", {}, (7,)),
    "lrn": (IMAGE, "y = LRN<size=3, alpha=0.3, beta=0.6, bias=1.5>(x)", {}, (7, 13)),
    "sum of seven": ((2, 3), "a = Neg(x); b = Relu(x); y = Sum(x, a, b, x, b, x, x)", {}, (8, 13)),
    "flatten": (IMAGE, "y = Flatten(x)", {}, (7, 13)),
    "clip": (IMAGE, "y = Clip<min=-0.5, max=0.5>(x)", {}, (7, 10)),
    "clip by inputs": (IMAGE, "y = Clip(x, , h)", {"h": np.float32(0.5)}, (11, 13)),
    "prelu": (IMAGE, "y = PRelu(x, s)", {"s": array(4, 1, 1)}, (7, 16)),
    "softmax of old": ((2, 3, 4), "y = Softmax(x)", {}, (7, 11)),
    "softmax of old, last axis": ((2, 3, 4), "y = LogSoftmax<axis=2>(x)", {}, (7, 11)),
    "softmax": ((2, 3, 4), "y = Softmax<axis=1>(x)", {}, (13, 17)),
    "functions": (
        (2, 7),
        "a = HardSigmoid(x); b = Elu<alpha=0.3>(a); c = Selu(b); d = LeakyRelu<alpha=0.2>(c); e = Tanh(d);"
        "f = Softplus(e); y = Neg(f)",
        {}, (7, 13),
    ),
    "newer functions": ((2, 7), "a = HardSwish(x); b = Mish(a); c = Celu<alpha=0.4>(b); y = Gelu(c)", {}, (20, 22)),
    "split": (IMAGE, "p, q = Split<axis=1, split=[3, 1]>(x); y = Add(p, q)", {}, (7, 11)),
    "split by input": (IMAGE, "p, q = Split<axis=1>(x, s); y = Add(p, q)", {"s": ints(1, 3)}, (13, 17)),
    "split unevenly": ((2, 7), "p, q = Split<axis=1, num_outputs=2>(x); y = Concat<axis=1>(q, p)", {}, (18,)),
    "slice of old": (IMAGE, "y = Slice<starts=[1, -3], ends=[2147483647, -1], axes=[1, 2]>(x)", {}, (7, 9)),
    "slice": (
        IMAGE, "y = Slice(x, s, e, a, t)",
        {"s": ints(-1, 0), "e": ints(-99, 2**62), "a": ints(2, 0), "t": ints(-2, 1)}, (10, 13),
    ),
    "gather": (IMAGE, "y = Gather<axis=1>(x, i)", {"i": ints(3, 0, -1)}, (11, 13)),
    "reductions": (
        IMAGE, "p = ReduceMean<axes=[2, 3], keepdims=0>(x); q = ReduceMax<axes=[-2, -1], keepdims=0>(x);"
        "y = Add(p, q)", {}, (11, 13),
    ),
    "sums by input": (IMAGE, "y = ReduceSum(x, a)", {"a": ints(1)}, (13, 17)),
    "mean of NHWC": (IMAGE, "y = ReduceMean<axes=[1, 2], keepdims=0>(x)", {}, (13,)),
    "transpose and back": (
        IMAGE, "p = Transpose<perm=[0, 3, 1, 2]>(x); q = Conv(p, w); y = Transpose<perm=[0, 2, 3, 1]>(q)",
        {"w": array(3, 5, 2, 2)}, (7, 13),
    ),
    "squeeze of old": ((2, 1, 4, 1), "p = Squeeze<axes=[3]>(x); y = Unsqueeze<axes=[2]>(p)", {}, (7, 11)),
    "squeeze": (
        (2, 1, 4, 1), "p = Squeeze(x, a); y = Unsqueeze(p, b)", {"a": ints(-1), "b": ints(-1, 1)}, (13, 17)
    ),
    "pad of old": (
        IMAGE, 'y = Pad<pads=[0, 0, 1, 0, 0, 0, 2, 3], mode="constant", value=0.5>(x)', {}, (7, 10)
    ),
    "pad": (IMAGE, "y = Pad(x, p, v)", {"p": ints(0, 0, 1, -1, 0, 0, 2, 3), "v": np.float32(0.5)}, (11, 13)),
    "pad some axes": (IMAGE, 'y = Pad<mode="reflect">(x, p, , a)', {"p": ints(1, 2), "a": ints(3)}, (18, 19)),
    "upsample": (IMAGE, "y = Upsample(x, s)", {"s": np.array([1, 1, 2, 3], "f")}, (9,)),
    "resize of old": (IMAGE, 'y = Resize<mode="linear">(x, s)', {"s": np.array([1, 1, 2, 2], "f")}, (10,)),
    "resize": (
        IMAGE, "y = Resize(x, r, s)", {"r": np.zeros(0, "f"), "s": np.array([1, 1, 1.5, 0.6], "f")}, (11, 13, 19)
    ),
    "resize to a size": (
        IMAGE,
        "s = Shape(x); nc = Slice(s, zero, two); to = Concat<axis=0>(nc, hw);"
        'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , , to)',
        {"zero": ints(0), "two": ints(2), "hw": ints(9, 4)}, (13, 19),
    ),
    "depth and space": (
        (2, 8, 2, 4), 'p = DepthToSpace<blocksize=2, mode="CRD">(x); y = SpaceToDepth<blocksize=2>(p)', {}, (11, 13)
    ),
    "tile": ((2, 3, 1), "y = Tile(x, r)", {"r": ints(1, 2, 3)}, (7, 13)),
    "expand": ((2, 1, 3), "y = Expand(x, s)", {"s": ints(4, 1)}, (8, 13)),
    "dropout and casts": (
        (2, 3), "p = Dropout(x); q = Identity(p); r = Cast<to=1>(q); y = Relu(r)", {}, (7, 12, 13)
    ),
    "sizes from the shape": (
        IMAGE,
        "s = Shape(x); n = Gather<axis=0>(s, zero); c = Gather<axis=0>(s, one); n1 = Unsqueeze<axes=[0]>(n);"
        "h = Div(c, two); h1 = Unsqueeze<axes=[0]>(h); to = Concat<axis=0>(n1, h1, two1, rest);"
        "p = Reshape(x, to); q = Transpose<perm=[0, 2, 1, 3]>(p); k = Size(q); y = Reshape(q, flat)",
        {"zero": np.int64(0), "one": np.int64(1), "two": np.int64(2), "two1": ints(2), "rest": ints(-1),
         "flat": ints(0, -1)}, (11,),
    ),
    "a constant of a shape": (
        IMAGE, "z = ConstantOfShape<value = float[1] {0.5}>(s); t = Transpose(z); y = Conv(x, t)",
        {"s": ints(2, 3, 4, 5)}, (9, 17),
    ),
}  # fmt: skip


TRIALS = [pytest.param(case, opset, id=f"{name}, {opset}") for name, case in CASES.items() for opset in case[3]]


@pytest.mark.parametrize(("case", "opset"), TRIALS)
def test_operators(case: Any, opset: int) -> None:
    shape, text, constants, _ = case
    made = model(text, ["batch", *shape[1:]], opset, **constants)
    x = array(*shape)
    assert_computes(load_onnx(made), x, run(made, x))


@pytest.fixture(scope="module")
def cases() -> list[Any]:
    """Every operator's own examples."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(action="ignore"):
        return [case for case in collect_testcases(None) if case.data_sets]


def test_side_operators_agree_with_the_standard(cases: list[Any]) -> None:
    """What is computed of token ids and masks in NumPy: operators on their own, with numbers that NumPy has."""
    counted: Counter[str] = Counter()
    for case in cases:
        node, *more = case.model.graph.node
        if more or node.domain or node.op_type not in SIDE_OPERATORS or len(node.output) != 1:
            continue
        if node.op_type in ("Cast", "Dropout") or case.model.opset_import[0].version < 13:
            continue
        settings = attributes_of(node)
        inputs, outputs = case.data_sets[0]
        given = dict(zip([value.name for value in case.model.graph.input], inputs, strict=False))
        arrays = [given.get(name) for name in node.input]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and np.size(arrays[1]) != 1:  # a mask has one scale
            continue
        if all(array is None or (np.asarray(array).dtype.kind in "iufb" and np.size(array)) for array in arrays):
            with np.errstate(all="ignore"):
                made = SIDE_OPERATORS[node.op_type](settings, *(None if a is None else np.asarray(a) for a in arrays))
            np.testing.assert_allclose(made, outputs[0], rtol=1e-5, atol=1e-6, err_msg=case.name)
            counted[node.op_type] += 1
    assert len(counted) > 40


def test_examples_of_the_standard(cases: list[Any]) -> None:
    """Those that have a translation compute what the standard says."""
    differ = {
        # The doc's numbers have four digits.
        "test_averagepool_2d_ceil_last_window_starts_on_pad",
        # A factor of coordinates from a size that is not whole: onnxruntime and torch take the whole one, so do we.
        "test_resize_downsample_scales_linear_align_corners",
    }
    done: Counter[str] = Counter()
    for case in cases:
        inputs, outputs = case.data_sets[0]
        operators = {n.op_type for n in case.model.graph.node}
        if case.name in differ or not operators & set(OPERATORS):
            continue
        if not all(np.size(value) for value in outputs) or "empty_set" in case.name:  # nothing to explain
            continue
        if operators & {"LSTM", "GRU", "RNN"}:  # loaders/test_onnx_recurrent.py; the oracle of graphs has none
            continue
        if not all(isinstance(value, np.ndarray) for value in [*inputs, *outputs]) or outputs[0].dtype.kind != "f":
            continue
        first = next((i for i, value in enumerate(inputs) if value.ndim and value.dtype.kind == "f"), 0)
        made = onnx.ModelProto()
        made.CopyFrom(case.model)
        for i, (info, value) in enumerate(zip(case.model.graph.input, inputs, strict=False)):
            if i != first:
                made.graph.initializer.append(numpy_helper.from_array(np.asarray(value), info.name))
        try:
            graph = load_onnx(made)
        except UnsupportedLayer:
            continue
        if graph.facts.sides is not None or any("here it comes first" in note for note in graph.notes):
            continue
        if inputs[first].size < 4000:  # the oracle is slow
            assert_computes(graph, inputs[first], outputs[0], 2e-3 if outputs[0].dtype == np.float16 else 1e-5)
            done.update(operators)
    assert done.total() > 200
    assert len(done) > 40


@pytest.mark.parametrize("folder", ["pytorch-converted", "pytorch-operator", "simple"])
def test_small_models_of_the_onnx_package(folder: str) -> None:
    loaded, refused = 0, 0
    for path in sorted((DATA / folder).glob("*/model.onnx")):
        try:
            graph = load_onnx(path)
        except UnsupportedLayer:
            refused += 1
            continue
        loaded += 1
        assert shapes_of(graph) == inferred(path)
        if np.prod(next(iter(graph.inputs.values()))) > 1e5:
            continue
        data = path.parent / "test_data_set_0"
        inputs = [tensor(data / f"input_{i}.pb") for i in range(len(graph.inputs))]
        if graph.facts.sides is not None:
            found = Network.from_graph(graph, keep_top=True).forward(inputs[0])
        else:
            with np.errstate(invalid="ignore"):  # the root of what is negative
                found = forward(graph, dict(zip(graph.inputs, inputs, strict=True)))[graph.value(graph.outputs[0])]
        np.testing.assert_allclose(found, tensor(data / "output_0.pb"), rtol=1e-5, atol=1e-5)
    assert (loaded, refused) == {"pytorch-converted": (81, 1), "pytorch-operator": (20, 15), "simple": (1, 22)}[folder]


def tensor(path: Path) -> Any:
    made = onnx.TensorProto()
    made.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(made)


def shapes_of(graph: Graph) -> list[tuple[int, ...]]:
    return [graph.shapes[name] for name in graph.outputs]


def inferred(path: Path) -> list[tuple[int, ...]]:
    outputs = shape_inference.infer_shapes(onnx.load(str(path))).graph.output
    return [tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)[1:] for info in outputs]


LIGHT = {
    "bvlc_alexnet": {"conv": 5, "dense": 3, "lrn": 2, "maxpool": 3},
    "densenet121": {"conv": 121, "batchnorm": 62, "concat": 58, "avgpool": 4},
    "inception_v1": {"conv": 57, "dense": 1, "lrn": 2, "concat": 9, "maxpool": 13},
    "inception_v2": {"conv": 69, "dense": 1, "concat": 10, "avgpool": 8},
    "resnet50": {"conv": 53, "dense": 1, "add": 16, "avgpool": 1},
    "shufflenet": {"conv": 49, "dense": 1, "transpose": 16, "add": 13, "concat": 3},
    "squeezenet": {"conv": 26, "concat": 8},
    "vgg19": {"conv": 16, "dense": 3, "maxpool": 5},
    "zfnet512": {"conv": 5, "dense": 3, "lrn": 2},
}


@pytest.mark.parametrize("name", LIGHT)
def test_well_known_networks(name: str) -> None:
    path = DATA / "light" / f"light_{name}.onnx"
    graph = load_onnx(path)
    assert shapes_of(graph) == inferred(path)
    found = canonise(graph)
    counts = Counter(n.layer.kind for n in found.nodes)
    assert {kind: counts[kind] for kind in LIGHT[name]} == LIGHT[name]
    assert counts["softmax"] == counts["affine"] == 0
    assert counts["batchnorm"] == LIGHT[name].get("batchnorm", 0)
    assert len(found.notes) == (name != "densenet121")


PATTERNS = {
    "silu": "s = Sigmoid(x); y = Mul(s, x)",
    "silu, by exponents": "n = Neg(x); e = Exp(n); d = Add(e, one); y = Div(x, d)",
    "gelu": "a = Div(x, root); e = Erf(a); f = Add(e, one); g = Mul(x, f); y = Mul(g, half)",
    "gelu, half first": "h = Mul(x, half); a = Div(x, root); e = Erf(a); f = Add(one, e); y = Mul(h, f)",
    "gelu, tanh": "q = Mul(x, x); c = Mul(q, x); d = Mul(c, k); e = Add(x, d); f = Mul(e, r); g = Tanh(f);"
    "h = Add(g, one); i = Mul(x, half); y = Mul(i, h)",
    "gelu, power": "c = Pow(x, three); d = Mul(c, k); e = Add(x, d); f = Mul(e, r); g = Tanh(f); h = Add(g, one);"
    "i = Mul(x, h); y = Mul(i, half)",
    "hard_swish": "s = HardSigmoid<alpha=0.16666667>(x); y = Mul(x, s)",
    "hard_swish, clipped": "a = Add(x, three); c = Clip(a, zero, six); m = Mul(x, c); y = Div(m, six)",
    "mish": "s = Softplus(x); t = Tanh(s); y = Mul(x, t)",
    "relu": "a = Abs(x); b = Add(x, a); y = Mul(b, half)",
}
NUMBERS = {
    "half": 0.5, "one": 1, "three": 3, "six": 6, "zero": 0, "root": 2**0.5, "k": 0.044715, "r": (2 / np.pi) ** 0.5
}  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("behind", ["", "x1 = Relu(x0);"])
def test_functions_written_out(name: str, behind: str) -> None:
    steps = re.sub(r"\bx\b", "x1" if behind else "x0", PATTERNS[name])
    text = f"x0 = Gemm(x, w); {behind} {steps}"
    constants: dict[str, Any] = {key: np.float32(value) for key, value in NUMBERS.items()}
    whole = model(text, ["batch", 3], w=3 * array(3, 8), **constants)
    graph = load_onnx(whole)
    x = array(4, 3)
    assert_computes(graph, x, run(whole, x))
    if (name, bool(behind)) != ("relu", True):  # that is nothing but a sum
        assert kinds(graph) == ["dense", *(["relu"] if behind else []), name.partition(",")[0]]


def test_what_looks_like_the_beginning_of_a_known_function_is_a_function() -> None:
    made = model("e = Erf(x); f = Add(e, one); y = Relu(f)", ["batch", 3], one=np.float32(1))
    graph = load_onnx(made)
    x = array(4, 3)
    assert_computes(graph, x, run(made, x))
    assert kinds(graph) == ["function", "relu"]


@pytest.mark.parametrize("factors", ["x, s", "s, x"])
def test_a_product_of_two_values_is_one_layer(factors: str) -> None:
    made = model(f"p = GlobalAveragePool(x); s = Sigmoid(p); y = Mul({factors})", IMAGE)
    graph = load_onnx(made)
    x = array(2, *IMAGE[1:])
    assert_computes(graph, x, run(made, x))
    assert kinds(graph) == ["avgpool", "sigmoid", "multiply"]


def test_a_quotient_of_two_values_is_one_layer() -> None:
    made = model("p = GlobalAveragePool(x); s = Sigmoid(p); y = Div(x, s)", IMAGE)
    graph = load_onnx(made)
    x = array(2, *IMAGE[1:])
    assert_computes(graph, x, run(made, x))
    assert kinds(graph)[-1] == "divide"
