"""Keras writes the networks: a model with channels last, and its file by ``model.export(format="onnx")``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers as L

from peers.one_map.networks import EPSILON, Array, Net, Op
from peers.one_map.onnx_writers import columns


@contextmanager
def _floats(dtype: str) -> Iterator[None]:
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


def model(net: Net, dtype: str, batch: int | None = None) -> Any:
    """Return a functional model of the network."""
    with _floats(dtype):
        return _model(net, batch)


def _model(net: Net, batch: int | None) -> Any:
    shape = net.shapes["x"]
    image = keras.Input(shape if net.rows else (*shape[1:], shape[0]), batch_size=batch, name="x")
    values: dict[str, Any] = {"x": image}
    for op in net.ops:
        given = [values[name] for name in op.inputs]
        value = given if len(given) > 1 else given[0]
        for layer, arrays in _layers(net, op):
            value = layer(value)
            layer.set_weights([array for array in arrays if array is not None])
        values[op.name] = value
    return keras.Model(image, values[net.output])


def _layers(net: Net, op: Op) -> list[tuple[Any, list[Array | None]]]:
    """Return layers one after the other, each with its weights."""
    flat = len(net.shapes[op.inputs[0]]) == 2
    if op.kind == "conv":
        return _conv(op, flat)
    bias = {"use_bias": op.settings.get("bias") is not None}
    if op.kind == "back":
        kernel = op.weight.transpose(2, 3, 1, 0)
        return [(L.Conv2DTranspose(op.shape[0], 2, strides=2, name=op.name, **bias), [kernel, op.bias])]
    if op.kind == "dense":
        weight = columns(net, op, op.weight)
        return [(L.Dense(op.shape[-1], name=op.name, **bias), [weight.T, op.bias])]
    if op.kind == "norm":
        layer = L.BatchNormalization(epsilon=EPSILON, name=op.name)
        return [(layer, [op.scale, op.shift, op.mean, op.variance])]
    makers: dict[str, Any] = {
        "relu": lambda: L.ReLU(name=op.name),
        "relu6": lambda: L.ReLU(6.0, name=op.name),
        "add": lambda: L.Add(name=op.name),
        "concat": lambda: L.Concatenate(name=op.name),
        "max": lambda: (L.MaxPooling1D if flat else L.MaxPooling2D)(2, name=op.name),
        "average": lambda: (L.AveragePooling1D if flat else L.AveragePooling2D)(2, name=op.name),
        "mean": lambda: (L.GlobalAveragePooling1D if flat else L.GlobalAveragePooling2D)(name=op.name),
        "grow": lambda: L.UpSampling2D(name=op.name),
        "flat": lambda: L.Flatten(name=op.name),
    }
    return [(makers[op.kind](), [])]


def _conv(op: Op, flat: bool) -> list[tuple[Any, list[Array | None]]]:
    size, (before, behind) = op.weight.shape[2], op.pads
    reach = op.dilation * (size - 1)
    made: list[tuple[Any, list[Array | None]]] = []
    padding = "valid"
    if (before, behind) == (reach, 0) and flat:
        padding = "causal"
    elif before == behind == reach // 2 and reach % 2 == 0 and op.stride == 1:
        padding = "same"
    elif before or behind:
        made.append((L.ZeroPadding2D(before, name=f"{op.name}_pad"), []))
    settings: dict[str, Any] = {
        "strides": op.stride, "padding": padding, "use_bias": op.bias is not None, "name": op.name,
    }  # fmt: skip
    if op.groups == op.shape[0] and op.weight.shape[1] == 1 and not flat:
        kernel = op.weight.transpose(2, 3, 0, 1)
        return [*made, (L.DepthwiseConv2D(size, **settings), [kernel, op.bias])]
    settings.update(dilation_rate=op.dilation, groups=op.groups)
    kernel = np.moveaxis(op.weight, (0, 1), (-1, -2))
    return [*made, ((L.Conv1D if flat else L.Conv2D)(op.shape[0], size, **settings), [kernel, op.bias])]


def exported(net: Net, x: Array, path: Path, batch: int | None = None) -> Path:
    """Write an ONNX file; x has the channels last. A fixed batch makes Keras use torch's newer exporter."""
    with _floats(str(x.dtype)):
        made = _model(net, batch)
        made(x[:1])
        made.export(path, format="onnx", verbose=False)
    return path
