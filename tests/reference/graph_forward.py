"""The oracle's forward pass: every layer kind as plain loops in float64.

Layers are read as data (their fields); none of the library's methods is called. Loops run over output places and
kernel taps, arrays are (batch, channels, *space). `graph_relevance.py` pushes unit vectors through the same functions
to get a layer as a matrix; `network/test_graph_reference.py` checks them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pylrp import layers as kinds
from pylrp.network.graph import Graph
from reference.rounding import ROUNDING

Array = np.ndarray
Place = tuple[int, ...]
Run = Callable[..., Array]
FORWARD: dict[type, Run] = {}


def forward(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return every value of the graph, (batch, *shape), by name."""
    values = {name: np.asarray(inputs[name], np.float64) for name in graph.inputs}
    for node in graph.nodes:
        values[node.name] = apply(node.layer, *(values[name] for name in node.inputs))
    return values


def apply(layer: Any, *xs: Array) -> Array:
    """Return what a layer makes of its inputs, each (batch, *shape)."""
    for kind in type(layer).__mro__:
        if kind in FORWARD:
            return FORWARD[kind](layer, *xs)
    raise NotImplementedError(f"the oracle has no {type(layer).__name__}")


def runs(*of: type) -> Callable[[Run], Run]:
    """Register a function as the forward pass of the given layer classes."""

    def register(function: Run) -> Run:
        FORWARD.update(dict.fromkeys(of, function))
        return function

    return register


def number(value: Any) -> Array:
    """Return a layer's array in float64."""
    return np.asarray(value, np.float64)


def each(value: Any, axes: int) -> list[Any]:
    """Return one entry for each spatial axis."""
    return [value] * axes if np.ndim(value) == 0 else list(value)


def pad_widths(padding: Any, space: Sequence[int], kernel: Place, stride: Place, dilation: Place) -> list[Place]:
    """Return (before, after) for each spatial axis."""
    if padding == "valid":
        return [(0, 0)] * len(space)
    if isinstance(padding, str):
        total = [
            max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
            for size, k, s, d in zip(space, kernel, stride, dilation, strict=True)
        ]
        smaller, larger = [t // 2 for t in total], [t - t // 2 for t in total]
        return list(zip(*{"same_upper": (smaller, larger), "same_lower": (larger, smaller)}[padding], strict=True))
    return [(p, p) if np.ndim(p) == 0 else (int(p[0]), int(p[1])) for p in each(padding, len(space))]


def inside(place: Sequence[int], space: Sequence[int]) -> bool:
    """Tell whether a place is one, not padding."""
    return all(0 <= p < size for p, size in zip(place, space, strict=True))


# Layers with weights. `weight` may differ from the layer's own: the relevance oracle asks for connectivity.
def linear(layer: Any, x: Array, weight: Array) -> Array:
    """Return the output of a dense layer, a convolution or its transpose with these weights and without bias."""
    if isinstance(layer, kinds.Dense):
        return x @ weight.T
    axes = weight.ndim - 2
    kernel, space = weight.shape[2:], x.shape[2:]
    stride, dilation = each(layer.stride, axes), each(layer.dilation, axes)
    pads = pad_widths(layer.padding, space, kernel, stride, dilation)
    by_group = weight.reshape(layer.groups, len(weight) // layer.groups, *weight.shape[1:])
    groups = x.reshape(len(x), layer.groups, -1, *space)
    if isinstance(layer, kinds.ConvTranspose):
        extra = each(layer.output_padding, axes)
        size = [
            (n - 1) * s - sum(p) + (k - 1) * d + 1 + e
            for n, s, p, k, d, e in zip(space, stride, pads, kernel, dilation, extra, strict=True)
        ]
        y = np.zeros((len(x), layer.groups, weight.shape[1], *size))
        for place in np.ndindex(*space):
            for tap in np.ndindex(*kernel):
                to = [
                    p * s + t * d - lo for p, s, t, d, (lo, _) in zip(place, stride, tap, dilation, pads, strict=True)
                ]
                if inside(to, size):
                    brought = np.einsum("ngi,gio->ngo", groups[(..., *place)], by_group[(..., *tap)])
                    y[(..., *to)] += brought
    else:
        size = [
            (n + sum(p) - (k - 1) * d - 1) // s + 1
            for n, s, p, k, d in zip(space, stride, pads, kernel, dilation, strict=True)
        ]
        y = np.zeros((len(x), layer.groups, by_group.shape[1], *size))
        for place in np.ndindex(*size):
            for tap in np.ndindex(*kernel):
                at = [
                    p * s + t * d - lo for p, s, t, d, (lo, _) in zip(place, stride, tap, dilation, pads, strict=True)
                ]
                if inside(at, space):
                    y[(..., *place)] += np.einsum("ngi,goi->ngo", groups[(..., *at)], by_group[(..., *tap)])
    return y.reshape(len(x), -1, *size)


@runs(kinds.Dense, kinds.Conv, kinds.ConvTranspose)
def weighted(layer, x):
    y = linear(layer, x, number(layer.weight))
    if layer.bias is None:
        return y
    bias = number(layer.bias)  # one a channel, or one an entry
    return y + (bias.reshape(-1, *[1] * (y.ndim - 2)) if bias.ndim == 1 else bias)


# Pooling.
def windows(layer: Any, space: Sequence[int]) -> Iterator[tuple[Place, list[Place], int]]:
    """Yield (output place, input places in row-major order, divisor of an average) for every window."""
    axes = []  # for each axis: the taps along it and their number, padding counted where the layer says so
    if isinstance(layer, (kinds.GlobalAveragePool, kinds.GlobalMaxPool)):
        axes = [[(list(range(size)), size)] for size in space]
    elif isinstance(layer, (kinds.AdaptiveAveragePool, kinds.AdaptiveMaxPool)):
        for size, wanted in zip(space, each(layer.size, len(space)), strict=True):
            out = size if wanted is None else wanted
            taps = [list(range(math.floor(i * size / out), math.ceil((i + 1) * size / out))) for i in range(out)]
            axes.append([(t, len(t)) for t in taps])
    else:
        n = len(space)
        kernel = each(layer.kernel, n)
        stride = kernel if layer.stride is None else each(layer.stride, n)
        dilation = each(layer.dilation, n)
        pads = pad_widths(layer.padding, space, kernel, stride, dilation)
        for size, k, s, d, (lo, hi) in zip(space, kernel, stride, dilation, pads, strict=True):
            steps = (size + lo + hi - (k - 1) * d - 1) / s
            out = (math.ceil if layer.ceil_mode else math.floor)(steps) + 1
            if layer.ceil_mode and (out - 1) * s >= size + lo:
                out -= 1  # a window must not start in the padding behind the input
            axis = []
            for i in range(out):
                taps = [i * s - lo + t * d for t in range(k)]
                real = [t for t in taps if 0 <= t < size]
                padded = [t for t in taps if -lo <= t < size + hi]
                axis.append((real, len(padded if getattr(layer, "count_include_pad", False) else real)))
            axes.append(axis)
    for place in np.ndindex(*map(len, axes)):
        chosen = [axis[p] for axis, p in zip(axes, place, strict=True)]
        places = [()]
        for taps, _ in chosen:
            places = [(*at, t) for at in places for t in taps]
        yield place, places, math.prod(count for _, count in chosen)


def pooled(layer: Any, x: Array, reduce: Callable[[Array, int], Array]) -> Array:
    """Return one number a window: `reduce` takes (batch, channels, taps) and the divisor."""
    found = {place: reduce(gather(x, at), count) for place, at, count in windows(layer, x.shape[2:])}
    y = np.zeros((*x.shape[:2], *(n + 1 for n in max(found))))
    for place, result in found.items():
        y[(..., *place)] = result
    return y


def gather(x: Array, places: Sequence[Place]) -> Array:
    """Return (batch, channels, places)."""
    return np.stack([x[(..., *at)] for at in places], axis=2)


@runs(kinds.MaxPool, kinds.GlobalMaxPool, kinds.AdaptiveMaxPool)
def max_pool(layer, x):
    return pooled(layer, x, lambda window, _: window.max(axis=2))


@runs(kinds.AveragePool, kinds.GlobalAveragePool, kinds.AdaptiveAveragePool)
def average_pool(layer, x):
    return pooled(layer, x, lambda window, count: window.sum(axis=2) / count)


# One number at a time, or channel by channel.
def per_channel(values: Any, x: Array) -> Array:
    """Return a number for each channel in a shape that goes with x (batch, channels, ...)."""
    return number(values).reshape(-1, *[1] * (x.ndim - 2))


@runs(kinds.BatchNorm)
def batch_norm(layer, x):
    scale, shift, mean, variance = (per_channel(v, x) for v in (layer.scale, layer.shift, layer.mean, layer.variance))
    return (x - mean) / np.sqrt(variance + layer.epsilon) * scale + shift


@runs(kinds.Affine)
def affine(layer, x):
    return x * np.broadcast_to(number(layer.scale), x.shape[1:]) + np.broadcast_to(number(layer.shift), x.shape[1:])


@runs(kinds.PReLU)
def p_relu(layer, x):
    slope = number(layer.slope)
    return np.where(x < 0, x * (slope.reshape(()) if slope.size == 1 else per_channel(slope, x)), x)


@runs(kinds.LocalResponseNorm)
def local_response_norm(layer, x):
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        first, last = c - (layer.size - 1) // 2, c + math.ceil((layer.size - 1) / 2)
        squares = (x[:, max(first, 0) : last + 1] ** 2).sum(axis=1)
        y[:, c] = x[:, c] / (layer.bias + layer.alpha / layer.size * squares) ** layer.beta
    return y


@runs(kinds.Softmax)
def softmax(layer, x):
    axis = layer.axis + 1 if layer.axis >= 0 else layer.axis
    most = x.max(axis=axis, keepdims=True)
    e = np.exp(x - np.where(np.isneginf(most), 0, most))
    return e / np.maximum(e.sum(axis=axis, keepdims=True), 1e-300)  # zeros where all is masked


@runs(kinds.MatMul)
def matmul(layer, a, b):
    return layer.scale * np.einsum("...ij,...jk->...ik", a, b)


@runs(kinds.Shift, kinds.ShiftBy, kinds.ScaleBy)
def shift(layer, x, *given):
    m = given[0].reshape(len(x), *(1,) * (x.ndim - given[0].ndim), *given[0].shape[1:]) if given else layer.shift
    if isinstance(layer, kinds.ScaleBy):
        return x * number(m)
    return np.where(number(m) > 1e38, -np.inf, x + number(m))


def divided(layer, x, size, at):
    """Return x divided as a normalisation with an epsilon at one of its places does."""
    if at == "inside":
        size = np.sqrt(size**2 + layer.epsilon)
    elif at == "outside":
        size = size + layer.epsilon
    elif layer.epsilon:
        size = np.maximum(size, layer.epsilon)
    return x / np.where(size == 0, 1, size)


def batch_axes(axes, x):
    return tuple(axis % (x.ndim - 1) + 1 for axis in np.atleast_1d(axes))


@runs(kinds.Normalize)
def normalize(layer, x):
    axes = batch_axes(layer.axes, x)
    size = {
        "l1": np.abs(x).sum(axis=axes, keepdims=True),
        "l2": np.sqrt((x**2).sum(axis=axes, keepdims=True)),
        "max": x.max(axis=axes, keepdims=True),
    }[layer.norm]
    return divided(layer, x, size, layer.epsilon_at)


def standardized(layer, x, axes, arrays):
    """Return x standardised over batch axes; `arrays` turns a scale or shift into one that broadcasts to x."""
    left = x - x.mean(axis=axes, keepdims=True) if layer.centred else x
    y = divided(layer, left, np.sqrt((left**2).mean(axis=axes, keepdims=True)), layer.epsilon_at)
    y = y if layer.scale is None else y * arrays(number(layer.scale))
    return y if layer.shift is None else y + arrays(number(layer.shift))


@runs(kinds.LayerNorm)
def layer_norm(layer, x):
    axes = batch_axes(layer.axes, x)

    def arrays(v):
        v = np.broadcast_to(v, [x.shape[a] for a in sorted(axes)])
        return v.reshape([x.shape[a] if a in axes else 1 for a in range(1, x.ndim)])

    return standardized(layer, x, axes, arrays)


@runs(kinds.InstanceNorm)
def instance_norm(layer, x):
    return standardized(layer, x, tuple(range(2, x.ndim)), lambda v: per_channel(v, x))


@runs(kinds.GroupNorm)
def group_norm(layer, x):
    cut = x.reshape(len(x), layer.groups, -1)
    plain = standardized(replace(layer, scale=None, shift=None), cut, (2,), None).reshape(x.shape)
    return plain * (1 if layer.scale is None else per_channel(layer.scale, x)) + (
        0 if layer.shift is None else per_channel(layer.shift, x)
    )


@runs(kinds.LogSoftmax)
def log_softmax(layer, x):
    return np.log(softmax(layer, x))


def phi(x: Array) -> Array:
    """Return the normal distribution function, from its tail where it is small."""
    return np.vectorize(lambda v: math.erfc(-v / math.sqrt(2)) / 2, otypes=[float])(x)


def gelu(layer, x):
    if layer.approximate:
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x * phi(x)


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x))."""
    return np.logaddexp(0, x)


#: Functions of one number, with the layer for its parameters.
POINTWISE: dict[type, Callable[[Any, Array], Array]] = {
    kinds.Identity: lambda _, x: x,
    kinds.ReLU: lambda _, x: np.where(x < 0, 0.0, x),
    kinds.LeakyReLU: lambda f, x: np.where(x < 0, f.slope * x, x),
    kinds.ELU: lambda f, x: np.where(x < 0, f.alpha * np.expm1(x), x),
    kinds.Clip: lambda f, x: np.minimum(np.maximum(x, f.low), f.high),
    kinds.GELU: gelu,
    kinds.SiLU: lambda _, x: x / (1 + np.exp(-x)),
    kinds.HardSwish: lambda _, x: x * np.clip(x + 3, 0, 6) / 6,
    kinds.Mish: lambda _, x: x * np.tanh(softplus(x)),
    kinds.Tanh: lambda _, x: np.tanh(x),
    kinds.Sigmoid: lambda _, x: 1 / (1 + np.exp(-x)),
    kinds.HardSigmoid: lambda f, x: np.clip(f.alpha * x + f.beta, 0, 1),
    kinds.Softplus: lambda _, x: softplus(x),
    kinds.Exp: lambda _, x: np.exp(x),
    kinds.Log: lambda _, x: np.log(x),
}
FORWARD.update(POINTWISE | ROUNDING | {kinds.Multiply: lambda _, u, v: u * v, kinds.Divide: lambda _, u, v: u / v})


# Several values.
@runs(kinds.Add)
def add(layer, *xs):
    return sum(xs[1:], xs[0])


@runs(kinds.Concat)
def concat(layer, *xs):
    return np.concatenate(xs, axis=layer.axis + 1 if layer.axis >= 0 else layer.axis)


@runs(kinds.CustomLayer)
def custom(layer, *xs):
    return number(layer.forward(*xs))


# Data movement, each as "which input place does an output place show".
def at_axis(x: Array, axis: int, places: Sequence[int], fill: float = 0.0) -> Array:
    """Return x along a logical axis at these places; `fill` where a place is None."""
    axis = axis % (x.ndim - 1) + 1
    parts = [np.full_like(x.take([0], axis), fill) if place is None else x.take([place], axis) for place in places]
    return np.concatenate(parts, axis)


@runs(kinds.Flatten)
def flatten(layer, x):
    return x.reshape(*x.shape[: layer.axis % (x.ndim - 1) + 1], -1)


@runs(kinds.Reshape)
def reshape(layer, x):
    return x.reshape(len(x), *layer.shape)


@runs(kinds.Transpose)
def transpose(layer, x):
    return np.moveaxis(x, [p + 1 for p in layer.permutation], range(1, x.ndim))


@runs(kinds.Expand)
def expand(layer, x):
    shape = np.broadcast_shapes(x.shape[1:], tuple(layer.shape))
    x = x.reshape(len(x), *[1] * (len(shape) + 1 - x.ndim), *x.shape[1:])
    for axis, n in enumerate(shape):
        x = at_axis(x, axis, [min(i, x.shape[axis + 1] - 1) for i in range(n)])
    return x


@runs(kinds.Pad)
def pad(layer, x):
    several = np.ndim(layer.value) > 0
    for axis, (before, after) in enumerate(layer.widths):
        # What is cropped on one side does not come back on the other.
        x = at_axis(x, axis, range(max(-before, 0), x.shape[axis + 1] - max(-after, 0)))
        n = x.shape[axis + 1]
        shown = {
            "constant": lambda p, n: p if 0 <= p < n else None,
            "reflect": lambda p, n: -p if p < 0 else 2 * (n - 1) - p if p >= n else p,
            "edge": lambda p, n: min(max(p, 0), n - 1),
            "wrap": lambda p, n: p % n,
        }[layer.mode]
        fill = np.nan if several else layer.value  # a mark of the places
        x = at_axis(x, axis, [shown(p, n) for p in range(-max(before, 0), n + max(after, 0))], fill)
    return np.where(np.isnan(x), layer.value, x) if several else x


@runs(kinds.Slice)
def cut(layer, x):
    count = len(layer.starts)
    axes = range(count) if layer.axes is None else layer.axes
    steps = [1] * count if layer.steps is None else layer.steps
    for start, stop, axis, step in zip(layer.starts, layer.stops, axes, steps, strict=True):
        x = at_axis(x, axis, range(x.shape[1:][axis])[start:stop:step])
    return x


@runs(kinds.Take)
def take(layer, x):
    axis = layer.axis % (x.ndim - 1) + 1
    indices = np.asarray(layer.indices)
    picked = at_axis(x, axis - 1, [int(i) % x.shape[axis] for i in indices.ravel()])
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@runs(kinds.Upsample)
def upsample(layer, x):
    for axis, scale in enumerate(each(layer.scale, x.ndim - 2), start=1):
        x = at_axis(x, axis, [p // scale for p in range(x.shape[axis + 1] * scale)])
    return x


@runs(kinds.DepthToSpace)
def depth_to_space(layer, x):
    b = layer.block
    _, channels, height, width = x.shape
    deep = channels // b**2
    y = np.empty((len(x), deep, height * b, width * b))
    for c, i, j in np.ndindex(deep, b, b):
        y[:, c, i::b, j::b] = x[:, (i * b + j) * deep + c if layer.mode == "DCR" else c * b * b + i * b + j]
    return y


@runs(kinds.SpaceToDepth)
def space_to_depth(layer, x):
    b = layer.block
    return np.concatenate([x[:, :, i::b, j::b] for i, j in np.ndindex(b, b)], axis=1)


@runs(kinds.ChannelShuffle)
def channel_shuffle(layer, x):
    return np.concatenate([x[:, i :: x.shape[1] // layer.groups] for i in range(x.shape[1] // layer.groups)], axis=1)


def place_on_input(layer: Any, i: int, n: int, m: int, scale: float) -> float:
    """Return where place i of m lies on an axis of n (ONNX's coordinate transformations)."""
    if layer.coordinates == "align_corners":
        return i * (n - 1) / (m - 1) if m > 1 else 0.0
    if layer.coordinates == "asymmetric":
        return i / scale
    if layer.coordinates == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if layer.coordinates == "pytorch_half_pixel" and m == 1:
        return 0.0
    centre = (i + 0.5) / scale - 0.5
    return centre + n / 2 * (1 - m / (scale * n)) if layer.coordinates == "half_pixel_symmetric" else centre


@runs(kinds.Resize)
def resize(layer, x, shift=0.0):
    """`shift` moves every place: `graph_errors.py` asks which values are near."""
    rounded = {
        "round_prefer_floor": lambda p: math.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: math.floor(p + 0.5),
        "floor": math.floor,
        "ceil": math.ceil,
    }[layer.nearest]
    axes = range(1, x.ndim - 1) if layer.axes is None else layer.axes
    for number_of_axis, axis in enumerate(axes):
        n = x.shape[1:][axis]
        m = layer.size[number_of_axis] if layer.size else math.floor(n * layer.scales[number_of_axis])
        scale = m / n if layer.size else layer.scales[number_of_axis]
        places = [place_on_input(layer, i, n, m, scale) + shift for i in range(m)]
        if layer.mode == "nearest":
            x = at_axis(x, axis, [min(max(rounded(p), 0), n - 1) for p in places])
            continue
        places = [min(max(p, 0.0), n - 1.0) for p in places]
        lower = [math.floor(p) for p in places]
        part = np.array([p - low for p, low in zip(places, lower, strict=True)])
        part = part.reshape(-1, *[1] * (x.ndim - 2 - axis % (x.ndim - 1)))
        upper = [min(low + 1, n - 1) for low in lower]
        x = at_axis(x, axis, lower) * (1 - part) + at_axis(x, axis, upper) * part
    return x
