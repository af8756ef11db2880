"""Small ONNX models by their nodes, for the tests of `pylrp.verify`."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper, parser

RNG = np.random.default_rng(15)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:], dtype=int), 1))


def model(text: str, shape: tuple[Any, ...], *, opset: int = 17, double: bool = False, **constants: Any) -> ModelProto:
    """Return the model of nodes, written one after the other, from "x" to "y"; floats in one precision."""
    kind, dtype = (11, np.float64) if double else (1, np.float32)
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.strip().rstrip(";").split(";")],
        "test",
        [helper.make_tensor_value_info("x", kind, ("n", *shape))],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(a if a.dtype.kind == "i" else a.astype(dtype), name) for name, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def positive(*shape: int) -> Any:
    return RNG.uniform(0.5, 1.5, shape)


#: Nodes, shape of a sample, constants: models of every kind that is explained today.
MODELS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "dense": (
        """h = Gemm<transB=1, alpha=0.5, beta=2.0>(x, W, B); a = Relu(h); k = MatMul(a, V); l = Add(k, c);
        y = Softmax(l)""",
        (6,),
        {"W": normal(8, 6), "B": normal(8), "V": normal(8, 3), "c": normal(3)},
    ),
    "conv": (
        """c = Conv<pads=[1,1,1,1]>(x, W, B); n = BatchNormalization(c, s, t, m, v); a = Relu(n);
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a);
        d = Conv<strides=[2,2], group=2, auto_pad="SAME_UPPER">(p, W2);
        e = Add(d, B2); f = Relu(e); g = GlobalAveragePool(f); h = Flatten(g); y = Gemm(h, V)""",
        (3, 8, 8),
        {"W": normal(4, 3, 3, 3), "B": normal(4), "s": positive(4), "t": normal(4), "m": normal(4), "v": positive(4),
         "W2": normal(6, 2, 3, 3), "B2": normal(6, 1, 1), "V": normal(6, 5)},
    ),
    "dilated": (
        """c = Conv<dilations=[2,1], pads=[2,0,1,1], strides=[1,2]>(x, W); a = LeakyRelu<alpha=0.2>(c);
        p = AveragePool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,1], count_include_pad=1>(a);
        q = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(p); f = Flatten(q); y = Gemm(f, V, d)""",
        (2, 9, 8),
        {"W": normal(3, 2, 3, 2), "V": normal(12, 4), "d": normal(4)},
    ),
    "residual": (
        """c = Conv<pads=[1,1,1,1]>(x, W, B); a = Relu(c); d = Conv<pads=[1,1,1,1]>(a, W2, B2);
        n = BatchNormalization(d, s, t, m, v); r = Add(n, a); b = Relu(r); e = Conv(b, W3); k = Concat<axis=1>(e, b);
        g = ReduceMean<axes=[2,3], keepdims=0>(k); y = Gemm(g, V)""",
        (2, 6, 6),
        {"W": normal(4, 2, 3, 3), "B": normal(4), "W2": normal(4, 4, 3, 3), "B2": normal(4), "s": positive(4),
         "t": normal(4), "m": normal(4), "v": positive(4), "W3": normal(3, 4, 1, 1), "V": normal(7, 3)},
    ),
    "norm_first": (
        """a = Relu(x); n = BatchNormalization(a, s, t, m, v); c = Conv<pads=[1,1,1,1]>(n, W); b = Relu(c);
        o = BatchNormalization(b, s2, t2, m2, v2); d = Conv<pads=[1,1,0,0]>(o, W2, B2); f = Flatten(d);
        y = Gemm(f, V)""",
        (3, 5, 5),
        {"s": positive(3), "t": normal(3), "m": normal(3), "v": positive(3), "W": normal(4, 3, 3, 3),
         "s2": -positive(4),
         "t2": normal(4), "m2": normal(4), "v2": positive(4), "W2": normal(2, 4, 2, 2), "B2": normal(2),
         "V": normal(50, 3)},
    ),
    "scaled_twice": (
        """c = Conv(x, W); h = HardSwish(c); m = Mul(h, s); b = Add(m, t); d = Conv<pads=[1,1,1,1]>(b, W2); a = Relu(d);
        n = Mul(a, s2); o = Add(n, t2); l = LayerNormalization<axis=1>(o, g); u = Mul(l, k); v = Add(u, q);
        f = Flatten(v); y = Gemm(f, V)""",
        (2, 4, 4),
        {"W": normal(3, 2, 1, 1), "s": np.array(-1.2), "t": np.array(0.4), "W2": normal(2, 3, 3, 3),
         "s2": positive(2, 1, 1), "t2": normal(2, 1, 1), "g": positive(2, 4, 4), "k": np.array(0.7),
         "q": normal(4), "V": normal(32, 3)},
    ),
    "transposed": (
        """c = ConvTranspose<strides=[2,2], pads=[1,0,0,1], output_padding=[1,0], group=2>(x, W, B);
        a = Elu<alpha=0.7>(c); d = ConvTranspose<auto_pad="SAME_LOWER", strides=[2,1]>(a, W2); m = GlobalMaxPool(d);
        f = Flatten(m); y = Gemm(f, V)""",
        (4, 4, 3),
        {"W": normal(4, 3, 3, 3), "B": normal(6), "W2": normal(6, 5, 3, 2), "V": normal(5, 3)},
    ),
    "moves": (
        """t = Transpose<perm=[0,2,3,1]>(x); r = Reshape(t, sizes); u = Unsqueeze(r, one); q = Squeeze(u, one);
        l, m = Split<axis=2>(q, parts); k = Concat<axis=2>(m, l); s = Slice(k, starts, ends, axes, steps);
        g = Gather<axis=1>(s, ids); p = Pad(g, pads); h = MatMul(p, W); b = Add(h, c); a = Relu(b); f = Flatten(a);
        y = Gemm(f, V)""",
        (4, 3, 5),
        {"sizes": np.array([0, 15, 4]), "one": np.array([1]), "parts": np.array([3, 1]), "starts": np.array([14]),
         "ends": np.array([-16]), "axes": np.array([1]), "steps": np.array([-2]), "ids": np.array([0, 3, 3, 5]),
         "pads": np.array([0, 1, 0, 0, 0, 1]), "W": normal(5, 4), "c": normal(4), "V": normal(20, 3)},
    ),
    "padded": (
        """p = Pad(x, pads); c = Conv(p, W, B); a = Relu(c); z = Resize<mode="nearest">(a, none, scales);
        d = Conv<strides=[2,2]>(z, W2); u = Resize<mode="linear">(d, none, scales); f = Flatten(u); y = Gemm(f, V)""",
        (2, 4, 4),
        {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "W": normal(3, 2, 3, 3), "B": normal(3), "none": np.zeros(0),
         "scales": np.array([1.0, 1, 2, 2]), "W2": normal(2, 3, 3, 3), "V": normal(72, 3)},
    ),
    "functions": (
        """c = Conv(x, W, B); a = PRelu(c, slope); d = Conv(a, W2, B); e = Clip(d, low, high); g = Conv(e, W2);
        s = Sigmoid(g); h = Conv(s, W2); t = Tanh(h); i = Conv(t, W2, B); o = Selu(i); j = Conv(o, W2); k = Softplus(j);
        l = HardSwish(k); f = Flatten(l); y = Gemm(f, V)""",
        (2, 3, 3),
        {"W": normal(3, 2, 1, 1), "B": normal(3), "slope": positive(3, 1, 1) / 4, "W2": normal(3, 3, 1, 1),
         "low": np.array(-0.5), "high": np.array(0.5), "V": normal(27, 3)},
    ),
    "written_out": (
        """h = MatMul(x, W); b = Add(h, B); q = Div(b, two); e = Erf(q); o = Add(e, one); m = Mul(b, o);
        g = Mul(m, half); k = MatMul(g, V); s = Sigmoid(k); a = Mul(k, s); y = MatMul(a, U)""",
        (5,),
        {"W": normal(5, 7), "B": normal(7), "two": np.array(np.sqrt(2)), "one": np.array(1.0), "half": np.array(0.5),
         "V": normal(7, 4), "U": normal(4, 3)},
    ),
    "norms": (
        """c = Conv(x, W, B); l = LRN<size=3, alpha=0.1, beta=0.75, bias=1.5>(c); a = Relu(l); d = Conv(a, W2);
        s = Softmax<axis=1>(d); e = Conv(s, W3); r = ReduceSum<keepdims=0>(e, axes); y = Gemm(r, V)""",
        (2, 4, 4),
        {"W": normal(5, 2, 2, 2), "B": normal(5), "W2": normal(4, 5, 1, 1), "W3": normal(3, 4, 2, 2),
         "axes": np.array([2, 3]), "V": normal(3, 3)},
    ),
    "differences": (
        """h = Gemm(x, W, B); a = Relu(h); k = Gemm(x, W2); d = Sub(a, k); m = Mul(d, s); n = Neg(m); b = Add(n, t);
        e = Relu(b); w = Mean(e, a); o = Max(w, low); y = Gemm(o, V)""",
        (4,),
        {"W": normal(4, 6), "B": normal(6), "W2": normal(4, 6), "s": normal(6), "t": normal(6), "low": np.array(0.1),
         "V": normal(6, 3)},
    ),
    "selu": (
        """c = Conv(x, W); o = Selu(c); f = Flatten(o); h = Gemm(f, V); e = Celu<alpha=0.8>(h); u = Unsqueeze(e, axes);
        p = Squeeze(u, axes); y = Gemm(p, U, b)""",
        (2, 3, 3),
        {"W": normal(3, 2, 2, 2), "V": normal(12, 6), "axes": np.array([2]), "U": normal(6, 3), "b": normal(3)},
    ),
    "attention": (
        """q = MatMul(x, Q); k = MatMul(x, K); v = MatMul(x, V);
        t = Attention<q_num_heads=4, kv_num_heads=2, is_causal=1, softcap=2.0>(q, k, v);
        o = MatMul(t, O); r = Add(o, x); g = Gather<axis=1>(r, last); y = MatMul(g, H)""",
        (5, 8),
        {"Q": normal(8, 12), "K": normal(8, 6), "V": normal(8, 8), "O": normal(16, 8), "last": np.array(4),
         "H": normal(8, 3)},
    ),
    "attention_written_out": (
        """p = Add(x, positions); q = MatMul(p, Q); k = MatMul(p, K); v = MatMul(p, V); t = Transpose<perm=[0,2,1]>(k);
        s = MatMul(q, t); d = Mul(s, scale); m = Add(d, mask); w = Softmax<axis=-1>(m); c = MatMul(w, v); r = Add(c, p);
        g = Sigmoid(r); e = Mul(g, c); f = ReduceMean<axes=[1], keepdims=0>(e); y = MatMul(f, H)""",
        (5, 8),
        {"positions": normal(5, 8), "Q": normal(8, 6), "K": normal(8, 6), "V": normal(8, 8), "scale": np.array(0.4),
         "mask": np.where(np.tri(5) > 0, 0, -np.inf), "H": normal(8, 3)},
    ),
    "volume": (
        """c = Conv<pads=[1,0,1,1,0,1]>(x, W, B); a = Relu(c);
        p = AveragePool<kernel_shape=[2,1,2], strides=[2,1,2]>(a); f = Flatten(p); y = Gemm(f, V)""",
        (2, 4, 3, 4),
        {"W": normal(3, 2, 3, 1, 3), "B": normal(3), "V": normal(36, 3)},
    ),
    "signal": (
        """c = Conv<strides=[2], pads=[3,3]>(x, W); n = BatchNormalization(c, s, t, m, v); a = Relu(n);
        p = MaxPool<kernel_shape=[3], strides=[2], pads=[1,1]>(a); d = Conv<group=4, pads=[1,1]>(p, W2); e = Relu(d);
        f = Transpose<perm=[0,2,1]>(e); g = MatMul(f, W3); o = Add(g, B3); r = ReduceMean<axes=[1], keepdims=0>(o);
        y = Gemm(r, V)""",
        (2, 24),
        {"W": normal(4, 2, 7), "s": positive(4), "t": normal(4), "m": normal(4), "v": positive(4),
         "W2": normal(4, 1, 3), "W3": normal(4, 5), "B3": normal(5), "V": normal(5, 3)},
    ),
}  # fmt: skip


OPSETS = {"attention": 23}


def make(name: str, *, double: bool = False) -> tuple[ModelProto, Any]:
    """Return a model and an input of three samples."""
    text, shape, constants = MODELS[name]
    x = np.random.default_rng(3).standard_normal((3, *shape))
    return model(text, shape, opset=OPSETS.get(name, 17), double=double, **constants), x if double else x.astype(
        np.float32
    )
