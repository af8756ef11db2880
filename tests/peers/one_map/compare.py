"""What a writer's file is explained by, beside the twin: errors in units of the largest relevance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

import pylrp
from peers.one_map import keras_writers, onnx_writers, runtime_writers, torch_writers
from peers.one_map.networks import NETWORKS, Array, Net
from peers.one_map.twin import COMPOSITES, HIGH, LOW, maps, outputs

FLOAT64 = 1e-9
#: How much more than a composite's own error in float32 an error in float32 may be.
TIMES = 10


class Given(NamedTuple):
    """What a writer is given: the network, a batch as the writer has its axes, and a folder of its own."""

    net: Net
    x: Array
    folder: Path


class Writer(NamedTuple):
    """A way from a network to a file or a model, and from there to pylrp.

    ``load`` raises ``CannotWrite`` where the writer has no such thing.
    """

    load: Callable[[Given], pylrp.Network]
    channels_last: bool = False
    needs: str = ""


class CannotWrite(Exception):
    """The writer can't write this network in this dtype."""


def _style(style: str | None) -> Callable[[Given], pylrp.Network]:
    return lambda given: pylrp.load(onnx_writers.written(given.net, given.x.dtype, style))


def _optimised(level: str, style: str | None, without: Sequence[str] = ()) -> Callable[[Given], pylrp.Network]:
    def load(given: Given) -> pylrp.Network:
        model = onnx_writers.written(given.net, given.x.dtype, style)
        try:
            path = runtime_writers.optimised(model, given.folder / "optimised.onnx", level, without)
        except Exception as error:  # onnxruntime has no kernels for float64 for most layers
            if "NOT_IMPLEMENTED" in str(error) and given.x.dtype == np.float64:
                raise CannotWrite(str(error)) from error
            raise
        return pylrp.load(path)

    return load


def _exported(dynamo: bool) -> Callable[[Given], pylrp.Network]:
    return lambda given: pylrp.load(torch_writers.exported(given.net, given.x, given.folder / "torch.onnx", dynamo))


def _keras_file(batch: int | None) -> Callable[[Given], pylrp.Network]:
    def load(given: Given) -> pylrp.Network:
        path = keras_writers.exported(given.net, given.x, given.folder / "keras.onnx", batch)
        stored = onnx.load(path).graph.initializer
        if given.x.dtype == np.float64 and any(tensor.data_type == onnx.TensorProto.FLOAT for tensor in stored):
            raise CannotWrite("Keras writes BatchNorms and dense layers of a float64 model in float32")
        return pylrp.load(path)

    return load


WRITERS: dict[str, Writer] = {
    "torch module": Writer(lambda given: pylrp.load(*torch_writers.module(given.net, given.x))),
    "torch, TorchScript": Writer(_exported(False)),
    "torch, dynamo": Writer(_exported(True), needs="onnxscript"),
    "Keras model": Writer(lambda given: pylrp.load(keras_writers.model(given.net, str(given.x.dtype))), True),
    "Keras export": Writer(_keras_file(None), True),
    "Keras export, fixed batch": Writer(_keras_file(1), True, "onnxscript"),
    "ONNX": Writer(_style(None)),
    **{f"channels last, {style}": Writer(_style(style), True) for style in onnx_writers.STYLES},
    **{f"onnxruntime, {level}": Writer(_optimised(level, None)) for level in runtime_writers.LEVELS},
    "onnxruntime, all, plain layout": Writer(_optimised("all", None, ["NchwcTransformer"])),
    **{
        f"onnxruntime, {level}, channels last": Writer(_optimised(level, onnx_writers.STYLES[1]), True)
        for level in runtime_writers.LEVELS
    },
}


class Case(NamedTuple):
    """A network with an input, relevance at its output, and the reference by composite."""

    net: Net
    x: Array
    R: Array
    expected: dict[str, Array]
    own_error: dict[str, float]  # of zennit in float32, beside float64


@cache
def case(name: str) -> Case:
    """Return a network with its maps; its weights and input are exact in float32."""
    net = NETWORKS[name]()
    for op in net.ops:
        for key, value in op.settings.items():
            if isinstance(value, np.ndarray):
                op.settings[key] = value.astype(np.float32).astype(np.float64)
    x = np.random.default_rng(0).standard_normal((2, *net.shapes["x"])).astype(np.float32).astype(np.float64)
    y = outputs(net, x)
    R = np.zeros_like(y)
    R[:, 1] = y[:, 1]
    # A box is for convolutions.
    names = [composite for composite in COMPOSITES if not (net.rows and composite.endswith("box"))]
    expected = {composite: maps(net, x, R, composite) for composite in names}
    short = {composite: maps(net, x.astype("f"), R, composite) for composite in names}
    return Case(net, x, R, expected, {key: _off(short[key], expected[key]) for key in names})


def _off(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


class Result(NamedTuple):
    """The largest errors over composites: of maps, and of maps in units of what is allowed."""

    error: float
    beside_allowed: float


def measured(network: str, writer: str, dtype: Any, folder: Path) -> Result:
    """Return how far a writer's maps are from the twin's.

    Raises
    ------
    CannotWrite
        If the writer can't write it.
    """
    net, x, R, expected, own_error = case(network)
    how = WRITERS[writer]
    turn = how.channels_last and not net.rows
    given, top = (np.moveaxis(v, 1, -1) if turn and v.ndim > 2 else v for v in (x, R))
    given, top = (np.ascontiguousarray(v).astype(dtype) for v in (given, top))
    loaded = how.load(Given(net, given, folder))
    assert loaded.dtype == dtype
    errors = {}
    for composite, want in expected.items():
        rules: Any = pylrp.composite(composite, low=LOW, high=HIGH) if composite.endswith("box") else composite
        found = loaded.explain(given, top, composite=rules).relevance
        errors[composite] = _off(np.moveaxis(found, -1, 1) if turn else found, want)
    allowed = {key: FLOAT64 if dtype == np.float64 else TIMES * own_error[key] for key in errors}
    return Result(max(errors.values()), max(errors[key] / allowed[key] for key in errors))
