"""Small good files for every loader, to be altered: ``__main__.py`` writes them once a run."""

from __future__ import annotations

import math
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse
from onnx import TensorProto, helper, numpy_helper, parser

sys.path.insert(0, str(Path(__file__).parent.parent))
from loaders.test_native import examples
from mat_files import cell, struct_array, write_73

import pylrp
from pylrp import layers as L
from pylrp.loaders.plain.native import save_graph
from pylrp.network.graph import Graph, Node

RNG = np.random.default_rng(12)


def some(*shape: int, dtype: Any = np.float32) -> Any:
    return RNG.standard_normal(shape).astype(dtype)


def write_seeds(folder: Path) -> list[Path]:
    """Write the files; those of Keras only where it is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_onnx(folder)
    write_native(folder)
    write_arrays(folder)
    write_matlab(folder)
    write_keras(folder)
    write_refused(folder)
    return sorted(folder.iterdir())


def onnx_file(path: Path, text: str, inputs: dict[str, Any], outputs: str = "y", **constants: Any) -> None:
    graph = helper.make_graph(
        [parser.parse_node(part.strip()) for part in text.split(";")],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path.write_bytes(helper.make_model(graph, opset_imports=domains, ir_version=8).SerializeToString())


def write_onnx(folder: Path) -> None:
    image, ints = {"x": [1, 2, 6, 6]}, {"s": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    onnx_file(
        folder / "conv.onnx",
        "c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b); n = BatchNormalization(c, g, b, m, v); r = Relu(n);"
        "p = MaxPool<kernel_shape=[2,2], strides=[1,1]>(r); f = Flatten(p); y = Gemm<transB=1>(f, d)",
        image,
        w=some(3, 2, 3, 3),
        b=some(3),
        g=some(3),
        m=some(3),
        v=np.ones(3, np.float32),
        d=some(4, 12),
    )
    onnx_file(
        folder / "residual.onnx",
        "a = Conv<pads=[1,1,1,1]>(x, w); r = Relu(a); c = Conv<group=2, dilations=[2,2], pads=[2,2,2,2]>(r, v);"
        "s = Add(c, r); t = Concat<axis=1>(s, x); q = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(t);"
        "l = LRN<size=3>(q); g = GlobalAveragePool(l); f = Flatten(g); z = MatMul(f, d); y = Softmax(z)",
        image,
        w=some(4, 2, 3, 3),
        v=some(4, 2, 3, 3),
        d=some(6, 3),
    )
    onnx_file(
        folder / "moves.onnx",
        'p = Pad(x, s); r = Resize<mode="linear">(p, , k); t = Transpose<perm=[0,2,3,1]>(r); i = Slice(t, o, e, h);'
        "u = Tile(i, n); q = Reshape(u, w); a, b = Split<axis=1>(q, j); m = Sub(a, b); y = Gemm(m, d)",
        image,
        **ints,
        k=np.array([1, 1, 2, 2], np.float32),
        o=np.array([1, 1]),
        e=np.array([9, 9]),
        h=np.array([1, 2]),
        n=np.array([1, 1, 1, 2]),
        w=np.array([1, -1]),
        j=np.array([128, 128]),
        d=some(128, 3),
    )
    onnx_file(
        folder / "signal.onnx",
        "c = ConvTranspose<strides=[2]>(x, w); l = LeakyRelu(c); n = Mul(l, k); m = Add(n, k); e = Sigmoid(m);"
        "h = HardSwish(e); r = ReduceMean<axes=[2], keepdims=0>(h); y = Gemm(r, d)",
        {"x": [1, 3, 7]},
        w=some(3, 4, 3),
        k=some(4, 1),
        d=some(4, 2),
    )
    onnx_file(
        folder / "constants.onnx",
        "s = Shape(x); o = Constant<value_ints=[0]>(); n = Gather(s, o); k = Constant<value_ints=[-1]>();"
        "c = Concat<axis=0>(n, k); f = Reshape(x, c); e = ConstantOfShape(z); w = Add(e, v); q = Gemm<transB=1>(f, w);"
        "r = Clip(q, l, h); y = ArgMax(r); p = Identity(r)",
        image,
        "p y",
        z=np.array([3, 72]),
        v=some(3, 72),
        l=np.float32(0),
        h=np.float32(6),
    )
    onnx_file(
        folder / "two.onnx",
        "a = Gemm<transB=1>(x, w); b = Gemm<transB=1>(z, v); s = Sum(a, b); t = Tanh(s); y = Gemm(t, d)",
        {"x": ["n", 3], "z": ["n", 2]},
        w=some(4, 3),
        v=some(4, 2),
        d=some(4, 2),
    )
    write_onnx_of_other_domains(folder)


def write_onnx_of_other_domains(folder: Path) -> None:
    tables = helper.make_graph(
        [
            helper.make_node("Scaler", ["x"], ["s"], domain="ai.onnx.ml", offset=[0.5, 1.0], scale=[2.0, 0.5]),
            helper.make_node(
                "LinearRegressor", ["s"], ["y"], domain="ai.onnx.ml", coefficients=[1.0, -2.0], intercepts=[0.5]
            ),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    own = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("my", 1)]
    (folder / "tables.onnx").write_bytes(helper.make_model(tables, opset_imports=own, ir_version=8).SerializeToString())
    function = helper.make_function(
        "my", "Twice", ["a"], ["c"], [parser.parse_node("b = Relu(a)"), parser.parse_node("c = Add(b, b)")], own[:1]
    )
    calls = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["t"], domain="my"), helper.make_node("Gemm", ["t", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(some(3, 2), "w")],
    )
    made = helper.make_model(calls, opset_imports=own, functions=[function], ir_version=8)
    (folder / "function.onnx").write_bytes(made.SerializeToString())


def write_native(folder: Path) -> None:
    for i, (layer, *shapes) in enumerate(examples(RNG)):
        inputs = {f"x{k}": shape for k, shape in enumerate(shapes)}
        try:
            alone = Graph(inputs, [Node("node", layer, tuple(inputs))], ["node"])
            size = math.prod(alone.shapes["node"])
            top = [Node("flat", L.Flatten(), ("node",)), Node("top", L.Dense(some(2, size)), ("flat",))]
            graph = Graph(inputs, [*alone.nodes, *top], ["top"])
            net = pylrp.Network.from_graph(graph)
            net.explain({name: np.zeros((1, *shape), net.dtype) for name, shape in inputs.items()})
        except ValueError:  # one that can't be explained alone
            continue
        save_graph(graph, folder / f"layer{i:02}.pylrp.npz")
    layers = [
        L.Conv(some(3, 1, 3, 3), some(3), padding=1, name="c"),
        L.BatchNorm(some(3), some(3), some(3), some(3) ** 2),
        L.ReLU(),
        L.MaxPool(2),
        L.Flatten(),
        L.Dense(some(4, 27), some(4)),
        L.ReLU(),
        L.Dense(some(2, 4)),
        L.Softmax(),
    ]
    for name in ("net", "again", "thrice"):  # most files of this kind are networks
        pylrp.Network(layers, input_shape=(1, 6, 6)).save(folder / f"{name}.pylrp.npz")


def write_arrays(folder: Path) -> None:
    weights = {"W1": some(5, 4), "b1": some(5), "W2": some(3, 5), "b2": some(3)}
    np.savez(folder / "plain.npz", **weights)
    np.savez_compressed(folder / "packed.npz", **{name: value.astype(float) for name, value in weights.items()})
    np.savez(folder / "named.npz", **{f"layers.{i}.weight": some(4, 4) for i in range(3)}, activations=["relu"] * 3)


def write_matlab(folder: Path) -> None:
    weights = {"W1": some(5, 4), "b1": some(5), "W2": some(3, 5), "b2": some(3), "activations": cell(["relu", "none"])}
    scipy.io.savemat(folder / "five.mat", weights)
    scipy.io.savemat(folder / "seven.mat", weights, do_compression=True)
    scipy.io.savemat(folder / "four.mat", {"W1": some(5, 4), "W2": some(3, 5), "b2": some(3)}, format="4")
    both = {"nn": {"layers": cell([{"W": some(4, 3)}, {"W": some(2, 4)}])}, "note": "größe"}
    scipy.io.savemat(folder / "structs.mat", both)
    more = {"s": scipy.sparse.csc_matrix(np.eye(3)), "z": 1j * np.ones(2), "flag": np.array([True])}
    array = {"net": struct_array([{"W": some(4, 3), "b": some(4)}, {"W": some(2, 4), "b": some(2)}])}
    scipy.io.savemat(folder / "more.mat", {**array, **more})
    write_73(folder / "hdf5.mat", {**weights, "activations": ["relu", "none"]})
    write_73(folder / "hdf5_structs.mat", {"nn": {"layers": [{"W": some(4, 3)}, {"W": some(2, 4)}]}})


def write_keras(folder: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError:
        return
    k = keras.layers
    x = keras.Input((6, 6, 2))
    y = k.Conv2D(3, 3, padding="same", activation="relu")(x)
    y = k.Add()([k.BatchNormalization()(y), y])
    y = k.Dense(3, activation="softmax")(k.Flatten()(k.MaxPooling2D()(y)))
    keras.Model(x, y).save(folder / "image.keras")
    made = keras.Sequential([keras.Input((4,)), k.Dense(5, activation="relu"), k.Dense(2)])
    made.save(folder / "dense.keras")
    made.save(folder / "dense.h5")


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def write_refused(folder: Path) -> None:
    """Write what is refused unread: files that may run code. ``child.py`` looks for what the trap leaves behind."""
    trap = pickle.dumps({"weights": [some(3, 4)], "trap": Trap(folder.parent / "unpickled")})
    for name in ("refused.pkl", "refused.joblib", "refused.pt", "refused.pth"):
        (folder / name).write_bytes(trap)
    np.savez(folder / "refused.npz", W1=np.array([Trap(folder.parent / "unpickled"), 1], object))
    try:
        import torch
    except ImportError:
        return
    module = torch.nn.Sequential(torch.nn.Linear(4, 3))
    torch.save(module.state_dict(), folder / "refused_state.pt")
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, 4)), folder / "refused_script.pt")
