"""From a graph of layers to the core's description: layouts, channels-last weights, tables of indices.

``network.py`` calls in; ``csrc/bindings/make_layer.cpp`` reads what this writes. The core stores a value of logical
shape ``(d0, d1, ..., dk)`` with axis 0 last: ``(d1, ..., dk, d0)``. A new kind of layer has one function here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pylrp import _core
from pylrp.canonise import at_the_top
from pylrp.errors import UnsupportedLayer
from pylrp.graph import Graph, Node
from pylrp.layers import (
    Activation,
    Add,
    Affine,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    CustomLayer,
    Dense,
    Exp,
    Layer,
    LocalResponseNorm,
    Log,
    LogSoftmax,
    Movement,
    Normalize,
    PReLU,
    Resize,
    Shape,
    Softmax,
)
from pylrp.layers.base import product
from pylrp.layers.pooling import Pool

__all__ = ["Lowered", "from_core", "lower", "to_core"]

Array = NDArray[Any]
Fields = dict[str, Any]
Spec = tuple[str, Fields]
_MOST_STEPS = 1 << 16
_FAR = 1 << 40
L = TypeVar("L", bound=Layer)


class Lowered:
    """A graph in the core.

    Attributes
    ----------
    core : _core.Graph
    graph : Graph
        The same graph; convolutions' weights are views of the core's arrays, so that they are stored once.
    values : dict of str to int
        The core's number of each value.
    """

    def __init__(self, graph: Graph):
        self.values = {name: i for i, name in enumerate([*graph.inputs, *(node.name for node in graph.nodes)])}
        weights: dict[int, tuple[Layer, Layer]] = {}
        layouts = [
            (_channels(shape), product(shape[1:]), name in graph.channels_last) for name, shape in graph.shapes.items()
        ]
        specs, nodes = [], []
        for node in graph.nodes:
            layer = _share_weights(node.layer, weights)
            shapes = [graph.shapes[value] for value in node.inputs]
            kind, fields = _lower(Node(node.name, layer, node.inputs), shapes, graph)
            specs.append((kind, fields, [self.values[value] for value in node.inputs]))
            nodes.append(Node(node.name, layer, node.inputs))
        self.core = _core.Graph(graph.dtype.name, layouts, specs)
        self.graph = graph.stored_anew(nodes)


def lower(graph: Graph) -> Lowered:
    """Return a graph in the core's form.

    Raises
    ------
    UnsupportedLayer
        If the core has nothing for a layer.
    """
    return Lowered(graph)


def _channels(shape: Shape) -> int:
    return shape[0] if shape else 1


def to_core(values: Array) -> Array:
    """Return an array of a logical shape as the core stores it, flat."""
    return np.ascontiguousarray(np.moveaxis(values, 0, -1) if values.ndim else values).reshape(-1)


def from_core(flat: Array, shape: Shape) -> Array:
    """Return a core's flat array in its logical shape."""
    return np.moveaxis(flat.reshape(*shape[1:], shape[0]), -1, 0) if shape else flat.reshape(())


def _positions(shape: Shape) -> NDArray[np.int64]:
    """Return where the core stores each entry of a logical shape."""
    return from_core(np.arange(product(shape)), shape)


def _share_weights(layer: Layer, seen: dict[int, tuple[Layer, Layer]]) -> Layer:
    """Return a convolution whose weights are stored as the core reads them, under a view of the usual shape."""
    if not isinstance(layer, (Conv, ConvTranspose)):
        return layer
    if id(layer) not in seen:
        axes = _core_axes(layer)
        stored = np.ascontiguousarray(np.transpose(np.asarray(layer.weight), axes))
        shared = copy.copy(layer)
        object.__setattr__(shared, "weight", np.transpose(stored, np.argsort(axes)))
        if layer.bias is not None and np.ndim(layer.bias) > 1:
            by_position = np.ascontiguousarray(np.moveaxis(np.asarray(layer.bias), 0, -1))
            object.__setattr__(shared, "bias", np.moveaxis(by_position, -1, 0))
        seen[id(layer)] = layer, shared
    return seen[id(layer)][1]


def _core_axes(layer: Conv | ConvTranspose) -> tuple[int, ...]:
    """Return the core's order of a weight's axes (out, in, *kernel): (out, *kernel, in), depthwise (*kernel, out)."""
    spatial = tuple(range(2, 2 + len(layer.kernel)))
    return (*spatial, 1, 0) if _depthwise(layer) else (0, *spatial, 1)


def _depthwise(layer: Conv | ConvTranspose) -> bool:
    return layer.groups > 1 and layer.channels == (layer.groups, layer.groups)


def _lower(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    for kind, function in _LOWERINGS:
        if isinstance(node.layer, kind):
            return function(node, shapes, graph)
    raise UnsupportedLayer(
        node.name, type(node.layer).__name__, "is not in the compiled core", "derive from pylrp.layers.CustomLayer"
    )


def _dense(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    layer = _as(Dense, node)
    return "dense", {"weight": layer.weight, "bias": layer.bias}


def _conv(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    layer = node.layer
    assert isinstance(layer, (Conv, ConvTranspose))
    transposed = isinstance(layer, ConvTranspose)
    small, large = (shapes[0], graph.shapes[node.name]) if transposed else (graph.shapes[node.name], shapes[0])
    weight = np.asarray(layer.weight)
    rows = weight[0, 0].size if _depthwise(layer) else weight.shape[0]
    bias = None if layer.bias is None else np.asarray(layer.bias)
    stride, dilation, pad = _steps(node, small[1:], large[1:], layer.pads(shapes[0]))
    return "conv", {
        "in": _three(large[1:]),
        "out": _three(small[1:]),
        "kernel": _three(layer.kernel),
        "stride": _three(stride),
        "dilation": _three(dilation),
        "pad": _three(pad, 0),
        "in_channels": large[0],
        "out_channels": small[0],
        "groups": layer.groups,
        "transposed": transposed,
        "weight": np.transpose(weight, _core_axes(layer)).reshape(rows, -1),
        "bias": None if bias is None else to_core(bias),
        "bias_by_position": bias is not None and bias.ndim > 1,
    }


def _steps(
    node: Node, small: Shape, large: Shape, pads: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int], list[int]]:
    """Return stride, dilation and padding of a convolution along each axis, as near as the core can count.

    The core takes a walk over the larger image for each place within a stride: a stride far beyond it never ends.
    """
    layer = node.layer
    assert isinstance(layer, (Conv, ConvTranspose))
    # With one window there is no step, with one tap no dilation.
    stride = [1 if m == 1 and s > n else s for m, n, s in zip(small, large, layer.stride, strict=True)]
    dilation = [1 if k == 1 else d for k, d in zip(layer.kernel, layer.dilation, strict=True)]
    pad = [low for low, _ in pads]
    if product(stride) > _MOST_STEPS or max(*dilation, *pad, *stride) > _FAR:
        raise UnsupportedLayer(
            node.name,
            type(layer).__name__,
            f"has stride {layer.stride}, dilation {layer.dilation} and padding {tuple(pads)}, "
            f"far beyond its image {large}",
            "a window that lies in the padding gives the bias alone: leave such windows out",
        )
    return stride, dilation, pad


def _three(sizes: Any, fill: int = 1) -> list[int]:
    return [fill] * (3 - len(sizes)) + [int(n) for n in sizes]


def _pool(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    layer = _as(Pool, node)
    windows = layer.windows(shapes[0])
    axes: list[Any] = [([0], [1], [1], 1, 1)] * (3 - len(windows))
    for axis, size in zip(windows, shapes[0][1:], strict=True):
        axes.append((axis.begin.tolist(), axis.end.tolist(), axis.divisor.tolist(), int(axis.step), size))
    return layer.kind, {"axes": axes, "channels": shapes[0][0]}


def _movement(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    layer = _as(Movement, node)
    index = to_core(layer.move(_positions(shapes[0])))
    size = product(shapes[0])
    # Layers with a row in the ledger stay what they are.
    if layer.kind not in ("pad", "slice") and index.size == size and bool((index == np.arange(size)).all()):
        return "identity", {"a": 0.0, "b": 0.0}
    return "sparse", _table(index.reshape(-1, 1), None, size, layer.fill)


def _resize(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    layer = _as(Resize, node)
    index, weight = layer.taps(shapes[0])
    order = to_core(np.arange(len(index)).reshape(graph.shapes[node.name]))  # the core's order of outputs
    index = _positions(shapes[0]).reshape(-1)[index[order]]
    if index.shape[1] == 1:
        return "sparse", _table(index, None, product(shapes[0]), 0.0)
    return "sparse", _table(index, np.ascontiguousarray(weight[order], dtype=graph.dtype), product(shapes[0]), 0.0)


def _table(index: Array, weight: Array | None, inputs: int, fill: float) -> Fields:
    return {"index": index.astype(np.int32), "weight": weight, "inputs": inputs, "fill": float(fill)}


def _add(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    return "add", {}


def _concat(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    layer = _as(Concat, node)
    axis = layer.axis % len(shapes[0])
    if axis == 0:
        return "concat", {"outer": product(shapes[0][1:]), "blocks": [shape[0] for shape in shapes]}
    blocks = [product(shape[axis:]) * shape[0] for shape in shapes]
    return "concat", {"outer": product(shapes[0][1:axis]), "blocks": blocks}


def _affine(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    layer, shape = node.layer, shapes[0]
    if isinstance(layer, BatchNorm):
        scale, shift = layer.affine()
    else:
        assert isinstance(layer, Affine)
        scale, shift = np.asarray(layer.scale), np.asarray(layer.shift)
        if scale.size == shift.size == 1:
            pass
        else:
            scale, shift = (_of_entries(array, shape) for array in (scale, shift))
            if all(_constant_over_positions(array) for array in (scale, shift)):
                scale, shift = (array.reshape(shape[0], -1)[:, 0] for array in (scale, shift))
            else:
                scale, shift = to_core(scale), to_core(shift)
    return "affine", {
        name: np.ascontiguousarray(array, dtype=graph.dtype).reshape(-1)
        for name, array in (("scale", scale), ("shift", shift))
    }


def _of_entries(array: Array, shape: Shape) -> Array:
    return np.ascontiguousarray(np.broadcast_to(array, shape))


def _constant_over_positions(array: Array) -> bool:
    rows = array.reshape(array.shape[0], -1)
    return bool((rows == rows[:, :1]).all())


def _prelu(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    slope = np.asarray(_as(PReLU, node).slope)
    if slope.size not in (1, shapes[0][0]) or slope.ndim > 1:
        slope = to_core(np.broadcast_to(slope, shapes[0]))
    return "prelu", {"slope": np.ascontiguousarray(slope, dtype=graph.dtype).reshape(-1)}


def _softmax(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    layer = node.layer
    assert isinstance(layer, (Softmax, LogSoftmax))
    _require_top(node, graph)
    if layer.axis % len(shapes[0]) != 0:
        raise UnsupportedLayer(
            node.name, type(layer).__name__, f"goes over axis {layer.axis}", "put the classes on axis 0"
        )
    return "softmax", {"channels": shapes[0][0], "logarithm": isinstance(layer, LogSoftmax)}


def _require_top(node: Node, graph: Graph) -> None:
    """Raise for a function that has no rule of LRP, unless what is explained is the value before it."""
    outputs = graph.output_values.values()
    if node.name not in outputs and node.inputs[0] not in outputs and not at_the_top(graph, node.name):
        raise UnsupportedLayer(
            node.name,
            type(node.layer).__name__,
            "stands inside the network",
            "give it a rule of your own: a CustomLayer",
        )


def _normalize(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    norm = {"max": 0, "l1": 1, "l2": 2}[_as(Normalize, node).norm]
    return "normalize", {"channels": _channels(shapes[0]), "norm": norm}


def _lrn(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    layer = _as(LocalResponseNorm, node)
    return "lrn", {
        "channels": shapes[0][0],
        "size": layer.size,
        "alpha": layer.alpha,
        "beta": layer.beta,
        "bias": layer.bias,
    }


def _activation(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    if isinstance(node.layer, (Exp, Log)):
        _require_top(node, graph)
    kind, a, b = _as(Activation, node).core()
    return kind, {"a": a, "b": b}


class _Custom:
    """A layer in Python as the core calls it: flat arrays in the core's layout on both sides."""

    def __init__(self, layer: CustomLayer, shapes: list[Shape], shape: Shape, name: str):
        self.layer, self.shapes, self.shape, self.name = layer, shapes, shape, name

    def forward(self, inputs: list[Array]) -> Array:
        return self._flat(self.layer.forward(*self._logical(inputs)), self.shape, inputs[0], "forward")

    def relevance(self, inputs: list[Array], relevance: Array) -> list[Array]:
        arrays = self._logical(inputs)
        output = np.asarray(self.layer.forward(*arrays))
        given = self.layer.relevance(tuple(arrays), output, _batch_from_core(relevance, self.shape))
        if not isinstance(given, (tuple, list)) or len(given) != len(inputs):
            raise ValueError(
                f"layer {self.name!r}: relevance() must return a tuple of {len(inputs)} arrays, one an input"
            )
        return [
            self._flat(array, shape, inputs[0], "relevance") for array, shape in zip(given, self.shapes, strict=True)
        ]

    def _logical(self, inputs: list[Array]) -> list[Array]:
        return [_batch_from_core(array, shape) for array, shape in zip(inputs, self.shapes, strict=True)]

    def _flat(self, value: Any, shape: Shape, like: Array, what: str) -> Array:
        array = np.asarray(value, dtype=like.dtype)
        expected = (len(like), *shape)
        if array.shape != expected:
            raise ValueError(f"layer {self.name!r}: {what}() returned shape {array.shape}, expected {expected}")
        return np.ascontiguousarray(np.moveaxis(array, 1, -1)).reshape(len(like), -1)


def _batch_from_core(flat: Array, shape: Shape) -> Array:
    return np.moveaxis(flat.reshape(len(flat), *shape[1:], shape[0]), -1, 1)


def _custom(node: Node, shapes: list[Shape], graph: Graph) -> Spec:
    layer = _as(CustomLayer, node)
    return "custom", {"object": _Custom(layer, shapes, graph.shapes[node.name], node.name)}


def _as(kind: type[L], node: Node) -> L:
    assert isinstance(node.layer, kind)
    return node.layer


_LOWERINGS: tuple[tuple[Any, Callable[[Node, list[Shape], Graph], Spec]], ...] = (
    (Dense, _dense),
    ((Conv, ConvTranspose), _conv),
    (Pool, _pool),
    (Movement, _movement),
    (Resize, _resize),
    (Add, _add),
    (Concat, _concat),
    ((BatchNorm, Affine), _affine),
    (PReLU, _prelu),
    ((Softmax, LogSoftmax), _softmax),
    (LocalResponseNorm, _lrn),
    (Normalize, _normalize),
    (Activation, _activation),
    (CustomLayer, _custom),
)
