"""ONNX graphs by hand: channels first, and channels last as tf2onnx writes them, in three ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper as h
from onnx import numpy_helper as nh

from peers.one_map.networks import EPSILON, Array, Net, Op

#: How a BatchNorm is written in a graph with channels last.
STYLES = ("norm between transposes", "Mul, Add", "Sub, Mul, Add")


def columns(net: Net, op: Op, weight: Array) -> Array:
    """Return a dense layer's weight for an image flattened with the channels last."""
    below = net.op(op.inputs[0])
    if below is None or below.kind != "flat" or net.rows:
        return weight
    shape = net.shapes[below.inputs[0]]
    return np.moveaxis(weight.reshape(-1, *shape), 1, -1).reshape(weight.shape)


class Writer:
    """A graph in the making.

    Parameters
    ----------
    net : Net
    dtype : numpy dtype
    style : str or None
        One of :data:`STYLES`; None for channels first.
    """

    def __init__(self, net: Net, dtype: Any, style: str | None = None):
        self.net, self.dtype, self.style = net, np.dtype(dtype), style
        self.last = style is not None and not net.rows  # channels are
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}

    def node(self, kind: str, output: str, *inputs: Any, **settings: Any) -> str:
        """Add a node; inputs that are arrays become constants."""
        names = []
        for position, given in enumerate(inputs):
            if not isinstance(given, str):
                array = np.asarray(given)
                name = f"{output}.{position}"
                self.constants[name] = array.astype(self.dtype) if array.dtype == np.float64 else array
                given = name
            names.append(given)
        self.nodes.append(h.make_node(kind, names, [output], name=output, **settings))
        return output

    def model(self) -> onnx.ModelProto:
        """Return the model."""
        for op in self.net.ops:
            self._write(op)
        kind = h.np_dtype_to_tensor_dtype(self.dtype)
        graph = h.make_graph(
            self.nodes,
            "network",
            [h.make_tensor_value_info("x", kind, ["batch", *self._shape("x")])],
            [h.make_tensor_value_info(self.net.output, kind, ["batch", *self._shape(self.net.output)])],
            [nh.from_array(array, name) for name, array in self.constants.items()],
        )
        made = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made)
        return made

    def _shape(self, value: str) -> tuple[int, ...]:
        shape = self.net.shapes[value]
        return (*shape[1:], shape[0]) if self.last and len(shape) > 1 else shape

    def _around(self, op: Op, kind: str, output: str, *inputs: Any, **settings: Any) -> str:
        """Add a node that wants channels first, between transposes where they are last."""
        if not self.last or len(op.shape) == 1:
            return self.node(kind, output, *inputs, **settings)
        rank = len(op.shape) + 1
        first = self.node("Transpose", f"{output}/first", inputs[0], perm=[0, rank - 1, *range(1, rank - 1)])
        made = self.node(kind, f"{output}/inner", first, *inputs[1:], **settings)
        return self.node("Transpose", output, made, perm=[0, *range(2, rank), 1])

    def _write(self, op: Op) -> None:
        (x, *_), axes = op.inputs, len(self.net.shapes[op.inputs[0]]) - 1
        simple: dict[str, Any] = {
            "relu": lambda: self.node("Relu", op.name, x),
            "relu6": lambda: self.node("Clip", op.name, x, np.zeros(()), np.full((), 6.0)),
            "add": lambda: self.node("Add", op.name, *op.inputs),
            "concat": lambda: self.node("Concat", op.name, *op.inputs, axis=axes + 1 if self.last else 1),
            "max": lambda: self._around(op, "MaxPool", op.name, x, kernel_shape=[2] * axes, strides=[2] * axes),
            "average": lambda: self._around(op, "AveragePool", op.name, x, kernel_shape=[2] * axes, strides=[2] * axes),
            "flat": lambda: self.node("Reshape", op.name, x, np.array([-1, op.shape[0]])),
            "grow": lambda: self._around(
                op, "Resize", op.name, x, "", np.array([1, 1, *[2] * axes], "f"),
                mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
            ),
            "mean": lambda: self._mean(op, axes),
            "norm": lambda: self._norm(op),
            "dense": lambda: self._dense(op),
            "conv": lambda: self._conv(op, axes),
            "back": lambda: self._back(op, axes),
        }  # fmt: skip
        simple[op.kind]()

    def _mean(self, op: Op, axes: int) -> None:
        if self.last:
            self.node("ReduceMean", op.name, *op.inputs, axes=[*range(1, axes + 1)], keepdims=0)
        else:
            self.node("Flatten", op.name, self.node("GlobalAveragePool", f"{op.name}/pool", *op.inputs), axis=1)

    def _norm(self, op: Op) -> None:
        (x,), arrays = op.inputs, (op.scale, op.shift, op.mean, op.variance)
        if self.net.rows and self.style in (None, STYLES[0]):
            first = self.node("Transpose", f"{op.name}/first", x, perm=[0, 2, 1])
            made = self.node("BatchNormalization", f"{op.name}/inner", first, *arrays, epsilon=EPSILON)
            self.node("Transpose", op.name, made, perm=[0, 2, 1])
        elif self.style in (None, STYLES[0]):
            self._around(op, "BatchNormalization", op.name, x, *arrays, epsilon=EPSILON)
        elif self.style == "Mul, Add":
            factor = op.scale / np.sqrt(op.variance + EPSILON)
            self.node("Add", op.name, self.node("Mul", f"{op.name}/mul", x, factor), op.shift - op.mean * factor)
        else:
            centred = self.node("Sub", f"{op.name}/sub", x, op.mean)
            scaled = self.node("Mul", f"{op.name}/mul", centred, op.scale / np.sqrt(op.variance + EPSILON))
            self.node("Add", op.name, scaled, op.shift)

    def _dense(self, op: Op) -> None:
        (x,) = op.inputs
        weight = columns(self.net, op, op.weight) if self.last else op.weight
        if self.style is None and len(op.shape) == 1:
            self.node("Gemm", op.name, x, weight, *([] if op.bias is None else [op.bias]), transB=1)
        elif op.bias is None:
            self.node("MatMul", op.name, x, weight.T)
        else:
            self.node("Add", op.name, self.node("MatMul", f"{op.name}/product", x, weight.T), op.bias)

    def _conv(self, op: Op, axes: int) -> None:
        (x,), (before, behind) = op.inputs, op.pads
        settings: dict[str, Any] = {"group": op.groups}
        if not self.last:
            settings.update(strides=[op.stride] * axes, dilations=[op.dilation] * axes)
            pads = [before] * axes + [behind] * axes
            self.node("Conv", op.name, x, op.weight, *([] if op.bias is None else [op.bias]), pads=pads, **settings)
            return
        if before != behind:  # padding of its own, before the axes are moved
            x = self.node("Pad", f"{op.name}/pad", x, np.array([0, *[before] * axes, 0, 0, *[behind] * axes, 0]))
            before = behind = 0
        made = op.name if op.bias is None else f"{op.name}/conv"
        if axes == 1:  # as an image of one row
            row = self.node("Unsqueeze", f"{op.name}/row", x, np.array([1]))
            first = self.node("Transpose", f"{op.name}/first", row, perm=[0, 3, 1, 2])
            settings.update(strides=[1, op.stride], dilations=[1, op.dilation], pads=[0, before, 0, behind])
            inner = self.node("Conv", f"{op.name}/inner", first, op.weight[:, :, None], **settings)
            again = self.node("Transpose", f"{op.name}/last", inner, perm=[0, 2, 3, 1])
            self.node("Squeeze", made, again, np.array([1]))
        else:
            settings.update(strides=[op.stride] * 2, dilations=[op.dilation] * 2, pads=[before] * 2 + [behind] * 2)
            self._around(op, "Conv", made, x, op.weight, **settings)
        if op.bias is not None:
            self.node("Add", op.name, made, op.bias)

    def _back(self, op: Op, axes: int) -> None:
        made = op.name if op.bias is None or not self.last else f"{op.name}/conv"
        bias = [] if op.bias is None or self.last else [op.bias]
        self._around(op, "ConvTranspose", made, *op.inputs, op.weight, *bias, strides=[2] * axes)
        if made != op.name:
            self.node("Add", op.name, made, op.bias)


def written(net: Net, dtype: Any, style: str | None = None) -> onnx.ModelProto:
    """Return the network as a model."""
    return Writer(net, dtype, style).model()
