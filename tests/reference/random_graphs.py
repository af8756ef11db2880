"""Random small graphs, their rules and relevance at an output, as Hypothesis strategies.

The number of layers and a seed are drawn; the seed alone decides which layers, so a failing graph shrinks to its first
ones (drawn layer by layer, most examples come out alike). Where the numbers put a denominator, a sign or a pool's
winner so close to the edge that rounding decides, or the bound would say little, the same structure is tried with the
next numbers. Every value has at most `MOST` entries, so that the oracle's matrices stay small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from pylrp import layers as kinds
from pylrp.network.canonise import canonise
from pylrp.network.graph import Graph, Node
from pylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, Pass, WSquare, ZBox, Zero, ZPlus

from .contributions import Array
from .graph_errors import Undetermined, bounds, value_errors
from .graph_forward import forward
from .graph_relevance import SHARING, WEIGHTED, Account, matrix, relevance, steps
from .networks import numbers

MOST = 160
SHARP = {
    np.dtype(np.float32): 1e-2,
    np.dtype(np.float64): 1e-7,
}  # the largest bound, as a part of the largest relevance
TRIES = 12
Shape = tuple[int, ...]
COARSE = [0.0, 0.25, 0.5, 1.0, 2.0]  # exact in binary
STABILIZERS = [0.0, 1e-9, 1e-6, 0.25]
ACTIVATIONS = [
    *[kinds.ReLU()] * 12,
    *[kinds.LeakyReLU(0.25), kinds.ELU(0.5), kinds.Clip(0.0, 6.0), kinds.Clip(-0.5, 0.75), kinds.GELU()],
    *[kinds.GELU(approximate=True), kinds.SiLU(), kinds.HardSwish(), kinds.Tanh(), kinds.Sigmoid(), kinds.Softplus()],
    *[kinds.Mish(), kinds.HardSigmoid(), kinds.HardSigmoid(0.25, 0.5), kinds.Identity(), kinds.Dropout()],
]


REPEATING = (kinds.Upsample, kinds.Resize, kinds.Expand, kinds.Pad, kinds.Take, kinds.Concat)


@dataclass(frozen=True, repr=False)
class Case:
    """A graph as networks keep it (canonised), what goes in, the rules by node and the relevance at one output."""

    original: Graph
    graph: Graph
    inputs: dict[str, Array]
    rules: dict[str, Any]
    output: str
    top: Array
    recipe: str = ""

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """Tell Hypothesis what to show of a failing example: the graphs, layer by layer."""
        lines = [self.recipe, f"{len(self.top)} samples of {self.graph.dtype}, {self.output!r} is explained"]
        for graph in (self.original, self.graph):
            last = [f"{name} (channels last)" for name in graph.channels_last]
            lines.append(f"{graph.inputs}, {', '.join(last)}, outputs {graph.outputs}")
            for node in graph.nodes:
                rule = self.rules.get(node.name, "") if graph is self.graph else ""
                layer = f"{type(node.layer).__name__} {node.layer}"
                lines.append(f"  {node.name}: {layer} of {node.inputs} -> {graph.shapes[node.name]} {rule}")
        printer.text("\n".join(["", *lines, ""]))


@dataclass(frozen=True, repr=False)
class Expected:
    """What the oracle says about a case, and how far a computation in the graph's dtype may lie from it."""

    values: dict[str, Array]
    errors: dict[str, Array]
    R: dict[str, Array]
    account: Account
    dR: dict[str, Array]
    allowed: Account

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text("its answer")


def expectation(case: Case, masks: dict[str, list[int]] | None = None) -> Expected:
    """Return the oracle's answer. Raises `Undetermined` where rounding decides."""
    graph, dtype = case.graph, case.graph.dtype
    values = forward(graph, case.inputs)
    made = steps(graph, case.rules, values)
    R, account = relevance(graph, case.rules, values, {case.output: np.asarray(case.top, np.float64)}, masks, made)
    errors = value_errors(graph, values, made, dtype)
    dR, allowed = bounds(graph, made, values, errors, R, account, dtype, masks)
    return Expected(values, errors, R, account, dR, allowed)


class Builder:
    """A graph in the making. Layers are added on top of a value and return the name of theirs."""

    def __init__(self, seed: int, attempt: int, dtype: Any, grid: bool):
        self.structure, self.rng = np.random.default_rng(seed), np.random.default_rng([seed, attempt])
        self.dtype, self.grid = dtype, grid
        self.recipe = f"Builder({seed}, {attempt}, np.{np.dtype(dtype)}, {grid})"
        self.inputs: dict[str, Shape] = {}
        self.shapes: dict[str, Shape] = {}
        self.nodes: list[Node] = []
        self.repeats: set[str] = set()  # values in which equal sums may stand side by side: no pool decides there

    def integer(self, low: int, high: int) -> int:
        """Pick a number, both ends included."""
        return int(self.structure.integers(low, high + 1))

    def choice(self, options: Sequence[Any]) -> Any:
        """Pick one of several."""
        return options[self.integer(0, len(options) - 1)]

    def flip(self) -> bool:
        """Pick True or False."""
        return bool(self.integer(0, 1))

    def array(self, *shape: int, scale: float = 1.0) -> Array:
        """Signed random numbers, a few of them 0; on a coarse grid where the graph is to be exact."""
        if self.grid:
            return (self.rng.integers(-2, 3, shape) / 2).astype(self.dtype)
        return (numbers(self.rng, shape, grid=False, zeros=0.1) * scale).astype(self.dtype)

    def add(self, layer: kinds.Layer, *inputs: str) -> str | None:
        """Add a node unless its value would be too large (or empty)."""
        shape = layer.output_shape(*(self.shapes[v] for v in inputs))
        if not 0 < prod(shape) <= MOST:
            return None
        name = f"{layer.kind}_{len(self.nodes)}"
        self.nodes.append(Node(name, layer, inputs))
        self.shapes[name] = shape
        if self.repeats & set(inputs) or isinstance(layer, REPEATING):
            self.repeats.add(name)
        return name

    def leaves(self) -> list[str]:
        """Return the values that no node takes."""
        used = {value for node in self.nodes for value in node.inputs}
        return [name for name in self.shapes if name not in used]


def space_of(b: Builder, value: str) -> Shape:
    return b.shapes[value][1:]


# Each adds a layer on top of a value, or nothing where it does not fit.
def dense(b: Builder, value: str) -> str | None:
    (n,) = b.shapes[value]
    out = b.integer(1, 12)
    return b.add(kinds.Dense(b.array(out, n, scale=n**-0.5), b.array(out) if b.flip() else None), value)


def placed(b: Builder, size: int, least: int = 0) -> tuple[int, int, int, tuple[int, int]]:
    """Draw kernel, stride, dilation and padding along an axis; the kernel fits."""
    kernel, stride, dilation = b.integer(1, 3), b.choice([1, 1, 1, 2, 3, 4]), b.choice([1, 1, 1, 2])
    pads = (b.choice([0, 0, 1, 2]), b.choice([0, 0, 1, 2])) if b.flip() else (0, 0)
    if (kernel - 1) * dilation + 1 > size + sum(pads):
        kernel = least or 1
    return kernel, stride, dilation, pads


def conv(b: Builder, value: str) -> str | None:
    channels, *space = b.shapes[value]
    kernel, stride, dilation, pads = zip(*(placed(b, size) for size in space), strict=True)
    groups = b.choice([g for g in range(1, channels + 1) if channels % g == 0])
    out = groups * b.integer(1, 3 if groups > 2 else 4)
    weight = b.array(out, channels // groups, *kernel, scale=(prod(kernel) * channels / groups) ** -0.5)
    padding: Any = b.choice([pads, pads, pads, "same_upper", "same_lower"])
    layer = kinds.Conv(weight, None, stride=stride, padding=padding, dilation=dilation, groups=groups)
    return b.add(replace(layer, bias=conv_bias(b, layer, value)), value)


def conv_bias(b: Builder, layer: Any, value: str) -> Any:
    """Draw a bias: none, one number a channel, or one an entry of the output."""
    shape = layer.output_shape(b.shapes[value])
    return b.array(*b.choice([shape[:1], shape[:1], shape])) if b.flip() else None


def conv_transpose(b: Builder, value: str) -> str | None:
    channels, *space = b.shapes[value]
    steps_of = [(b.integer(1, 3), b.choice([1, 2, 3]), b.choice([1, 1, 2])) for _ in space]
    kernel, stride, dilation = zip(*steps_of, strict=True)
    extra = tuple(b.integer(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
    sizes = [(n - 1) * s + (k - 1) * d + 1 + e for n, (k, s, d), e in zip(space, steps_of, extra, strict=True)]
    pads = tuple((b.integer(0, min(1, n - 1)), 0) if n > 2 else (0, 0) for n in sizes)
    groups = b.choice([g for g in range(1, channels + 1) if channels % g == 0])
    weight = b.array(channels, b.integer(1, 2), *kernel, scale=(channels / groups) ** -0.5)
    options = {"stride": stride, "padding": pads, "output_padding": extra, "dilation": dilation, "groups": groups}
    layer = kinds.ConvTranspose(weight, None, **options)
    return b.add(replace(layer, bias=conv_bias(b, layer, value)), value)


def pool(b: Builder, value: str) -> str | None:
    kind = b.choice([kinds.AveragePool, kinds.MaxPool])
    if kind is kinds.MaxPool and value in b.repeats:
        return None
    kernel, stride, pads = [], [], []
    for size in space_of(b, value):
        k = min(b.integer(1, 3), size)
        kernel.append(k)
        stride.append(b.integer(1, 4))
        pads.append((b.integer(0, k // 2), b.integer(0, k // 2)))
    options: dict[str, Any] = {"padding": b.choice([pads, pads, 0, "same_upper", "same_lower"])}
    options["stride"] = b.choice([None, stride])
    options["ceil_mode"] = b.flip()
    if options["padding"] == 0 and all(2 * k - 1 <= n for k, n in zip(kernel, space_of(b, value), strict=True)):
        options["dilation"] = b.choice([1, 2])
    if kind is kinds.AveragePool:
        options["count_include_pad"] = b.flip()
    return b.add(kind(kernel, **options), value)


def whole_pool(b: Builder, value: str) -> str | None:
    size = [b.integer(1, n + 1) for n in space_of(b, value)]
    averages = [kinds.GlobalAveragePool(), kinds.AdaptiveAveragePool(size)]
    maxima = [kinds.GlobalMaxPool(), kinds.AdaptiveMaxPool(size)]
    return b.add(b.choice(averages if value in b.repeats else averages + maxima), value)


def normalise(b: Builder, value: str) -> str | None:
    channels, *space = b.shapes[value]
    which = b.choice(["batchnorm", "batchnorm", "shift", "scale", "lrn"])
    if which == "batchnorm":
        variance = (b.rng.uniform(0.25, 2.0, channels)).astype(b.dtype)
        return b.add(kinds.BatchNorm(b.array(channels), b.array(channels), b.array(channels), variance, 1e-3), value)
    if which == "lrn":
        return b.add(kinds.LocalResponseNorm(b.choice([1, 2, 3, 4, 5]), alpha=0.5, beta=0.75, bias=2.0), value)
    shape = b.choice([(), (channels, *[1] * len(space)), (channels, *space)])
    shift: Any = b.array(*shape) if which == "shift" else 0.0
    return b.add(kinds.Affine(b.array(*shape), shift), value)


def activation(b: Builder, value: str) -> str | None:
    if b.integer(0, 9) == 0:
        return b.add(kinds.PReLU(b.array(b.choice([1, b.shapes[value][0]]))), value)
    return b.add(b.choice(ACTIVATIONS), value)


def residual(b: Builder, value: str) -> str | None:
    same = [v for v, shape in b.shapes.items() if shape == b.shapes[value]]
    others = [b.choice(same) for _ in range(b.choice([1, 1, 1, 2]))]
    return b.add(kinds.Add(), value, *others)


def block(b: Builder, value: str) -> str | None:
    """A residual block: something that keeps the shape, added to its input."""
    shape = b.shapes[value]
    if len(shape) == 1:
        made = b.add(kinds.Dense(b.array(shape[0], shape[0], scale=shape[0] ** -0.5), b.array(shape[0])), value)
    else:
        weight = b.array(shape[0], shape[0], *[3] * (len(shape) - 1), scale=(shape[0] * 3) ** -0.5)
        made = b.add(kinds.Conv(weight, b.array(shape[0]), padding=1), value)
    assert made is not None
    made = b.add(kinds.ReLU(), made) if b.flip() else made
    return b.add(kinds.Add(), *b.choice([(value, made), (made, value)]))


def concat(b: Builder, value: str) -> str | None:
    shape = b.shapes[value]
    axis = b.integer(0, len(shape) - 1)
    fits = [
        v
        for v, s in b.shapes.items()
        if len(s) == len(shape) and s[:axis] + s[axis + 1 :] == shape[:axis] + shape[axis + 1 :]
    ]
    return b.add(kinds.Concat(axis - b.choice([0, len(shape)])), b.choice(fits), value)


def again(b: Builder, value: str) -> str | None:
    """A layer with weights that is in the graph already, on another value."""
    fits = [n.layer for n in b.nodes if isinstance(n.layer, WEIGHTED) and b.shapes[n.inputs[0]] == b.shapes[value]]
    return b.add(b.choice(fits), value) if fits else None


def move(b: Builder, value: str) -> str | None:
    shape = b.shapes[value]
    rank = len(shape)
    axis = b.integer(0, rank - 1)
    n = shape[axis]
    pads = [
        (0, 0) if i != axis else (b.integer(-min(1, n - 1), min(2, n - 1)), b.integer(0, min(2, n - 1)))
        for i in range(rank)
    ]
    start, stop = sorted((b.integer(0, n - 1), b.integer(0, n - 1)))
    bounds_of = b.choice([(start, stop + 1, 1), (start - n, n + 7, 2), (stop, start - n - 1, -1)])
    options = [
        kinds.Flatten(axis),
        kinds.Reshape((-1,) if rank > 3 else (*shape[:axis], 1, *shape[axis:])),
        kinds.Transpose(b.structure.permutation(rank)),
        kinds.Pad(pads, "constant", b.choice([0.0, 0.0, 0.5])),
        kinds.Pad(pads, b.choice(["reflect", "edge", "wrap"])) if pads[axis][0] >= 0 else kinds.Pad(pads, "edge"),
        kinds.Slice((bounds_of[0],), (bounds_of[1],), (axis,), (bounds_of[2],)),
        kinds.Take([b.integer(-n, n - 1) for _ in range(b.integer(1, n + 1))], axis),
    ]
    if rank > 1:
        options += [kinds.Take(b.integer(0, n - 1), axis), kinds.Upsample([b.integer(1, 2) for _ in shape[1:]])]
        options.append(kinds.ChannelShuffle(b.choice([g for g in range(1, shape[0] + 1) if shape[0] % g == 0])))
        options += [resize(b, shape)] * 2
    if 1 in shape:
        options += [kinds.Expand([b.integer(2, 3) if i == 1 else i for i in shape])] * 2
    if rank == 3 and shape[0] % 4 == 0:
        options += [kinds.DepthToSpace(2, b.choice(["DCR", "CRD"]))] * 2
    if rank == 3 and shape[1] % 2 == shape[2] % 2 == 0:
        options += [kinds.SpaceToDepth(2)] * 2
    return b.add(b.choice(options), value)


def resize(b: Builder, shape: Shape) -> kinds.Resize:
    """Draw a resize. Where a place lies on an edge, it lies there exactly: rounding must not put it elsewhere."""
    mode = b.choice(["nearest", "linear", "linear"])
    coordinates = b.choice(["half_pixel", "asymmetric", "pytorch_half_pixel", *["align_corners"] * (mode == "linear")])
    nearest = b.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    by_scale = mode == "nearest" or b.flip()
    scales = [b.choice([0.5, 1.0, 2.0, 4.0] if n > 1 else [1.0, 2.0]) for n in shape[1:]]
    size = [b.integer(1, 2 * n) for n in shape[1:]]
    given: dict[str, Any] = {"scales": scales} if by_scale else {"size": size}
    made = kinds.Resize(mode=mode, coordinates=coordinates, nearest=nearest, **given)
    # One that mixes nothing is a move, whatever it is called.
    return made if mode == "nearest" or mixes(made, shape) else kinds.Resize(scales=scales, coordinates="asymmetric")


def mixes(layer: kinds.Resize, shape: Shape) -> bool:
    """Tell whether a linear resize makes anything of more than one value."""
    made = matrix(layer, [shape])
    return made is not None and bool((np.count_nonzero(made.W, axis=1) > 1).any())


FLAT = [dense, dense, dense, activation, activation, normalise, residual, block, concat, again, move]
SPATIAL = [
    *[conv] * 4, conv_transpose, pool, pool, whole_pool, normalise, activation, activation, activation,
    residual, block, concat, again, move, move,
]  # fmt: skip


def grow(b: Builder, value: str) -> str:
    """Add a layer on top of a value; the value itself where what was drawn does not fit."""
    rank = len(b.shapes[value])
    kind = b.choice(FLAT if rank == 1 else SPATIAL if rank <= 4 else [move, activation])
    return kind(b, value) or value


def input_shape(b: Builder, rank: int) -> Shape:
    """Draw a shape: some channels, up to three axes of space."""
    shape = {
        1: lambda: (b.choice([1, 2, 5, 9, 17, 33]),),
        2: lambda: (b.choice([1, 2, 3, 4, 8, 17]), b.integer(2, 9)),
        3: lambda: (b.choice([1, 2, 3, 4, 5, 8]), b.integer(2, 6), b.integer(2, 6)),
        4: lambda: (b.choice([1, 2, 3]), *(b.integer(2, 4) for _ in range(3))),
    }[rank]()
    return shape if prod(shape) <= MOST else (1, *shape[1:])


def build(b: Builder, layers: int) -> Case:
    """Draw everything: one or two inputs, layers, a head, rules, the output to explain and its relevance."""
    for number in range(b.choice([1, 1, 1, 2])):
        name = f"x{number}"
        same = b.inputs and b.flip()
        b.inputs[name] = b.inputs["x0"] if same else input_shape(b, b.choice([1, 2, 3, 3, 3, 4]))
        b.shapes[name] = b.inputs[name]
    for name in list(b.inputs):
        first = conv if len(b.shapes[name]) > 1 else dense
        if first(b, name) is None:
            b.add(kinds.ReLU(), name)
    for _ in range(layers):
        last = list(b.shapes)[-1]
        grow(b, last if b.integer(0, 3) else b.choice(list(b.shapes)))
    if b.flip():
        ends = [b.add(kinds.Flatten(), leaf) if len(b.shapes[leaf]) > 1 else leaf for leaf in b.leaves()]
        head = [end for end in ends if end is not None]
        joined = b.add(kinds.Concat(), *head) if len(head) > 1 else head[0]
        if joined is not None:
            dense(b, joined)
    channels_last = [name for name, shape in b.inputs.items() if len(shape) > 1 and b.integer(0, 3) == 0]
    original = Graph(b.inputs, b.nodes, b.leaves(), channels_last=channels_last, dtype=b.dtype)
    graph = canonise(original)
    batch = b.choice([1, 1, 2, 3, 3, 6])
    inputs = {
        name: numbers(b.rng, (batch, *shape), b.grid, 0.2).clip(-4, 4).astype(b.dtype)
        for name, shape in b.inputs.items()
    }
    drawn = {node.name: a_rule(b, node, graph) for node in graph.nodes}
    for node in graph.nodes:  # scalings of the input pass
        if drawn[node.name] is None and isinstance(node.layer, (kinds.BatchNorm, kinds.Affine)):
            drawn[node.name] = Pass() if not any(isinstance(k, WEIGHTED) for k in below(graph, node)) else None
    inner = [node.name for node in graph.nodes] * (b.integer(0, 7) == 0)  # relevance may start anywhere
    output = b.choice(inner or [graph.outputs[-1], *graph.outputs])
    top = numbers(b.rng, (batch, *graph.shapes[output]), b.grid, b.choice([0.0, 0.0, 0.5, 0.9])).astype(b.dtype)
    rules = {name: rule for name, rule in drawn.items() if rule is not None}
    return Case(original, graph, inputs, rules, output, top, f"build({b.recipe}, {layers})")


def below(graph: Graph, node: Node) -> list[kinds.Layer]:
    """Return all layers that a node depends on."""
    nodes = {n.name: n for n in graph.nodes}
    found, waiting = [], [value for value in node.inputs if value in nodes]
    while waiting:
        one = nodes[waiting.pop()]
        found.append(one.layer)
        waiting += [value for value in one.inputs if value in nodes]
    return found


def a_rule(b: Builder, node: Node, graph: Graph) -> Any:
    """Draw a rule that is valid for a node; for those without weights mostly None, their own."""
    value, shape = node.inputs[0], graph.shapes[node.inputs[0]]
    if not isinstance(node.layer, WEIGHTED):
        options = (
            [Norm(stabilizer=0.25), Epsilon(0.25), Epsilon(1e-9), Zero()] if isinstance(node.layer, SHARING) else []
        )
        options += [Pass()] if isinstance(node.layer, (kinds.BatchNorm, kinds.Affine)) else []
        return b.choice([None] * (6 if options else 1) + options)
    kinds_of = [Zero, Epsilon, Gamma, ZPlus, AlphaBeta, Norm]
    layers = below(graph, node)
    # Under these a first layer takes in what mixes values before it: network/test_composition.py.
    if any(isinstance(k, WEIGHTED) for k in layers) or not any(isinstance(k, (*SHARING, kinds.Resize)) for k in layers):
        kinds_of += [WSquare, Flat]
    kinds_of += [ZBox] * 4 * (value in graph.inputs) + [Pass] * (shape == graph.shapes[node.name])
    kind = b.choice(kinds_of)
    if kind is Pass:
        return Pass()
    given: dict[str, Any] = {}
    if kind in (Zero, Epsilon, Gamma, ZPlus, AlphaBeta, WSquare):
        given["bias"] = b.flip()
    if kind is Epsilon:
        given["epsilon"] = b.choice(STABILIZERS)
    elif kind is not Zero:
        given["stabilizer"] = b.choice(STABILIZERS)
    if kind is Gamma:
        given["gamma"] = b.choice(COARSE)
    if kind is AlphaBeta:
        given["beta"] = b.choice(COARSE)
        given["alpha"] = 1.0 + given["beta"]
    if kind is ZBox:
        steps_of = np.arange(shape[0]) % 4 / 4  # one bound a channel
        given["low"], given["high"] = b.choice([(-9.0, 9.0), (-9.0 - steps_of, 8.0 + steps_of)])
    return kind(**given)


@st.composite
def cases(draw: Any, dtype: Any = np.float64, grid: bool = False) -> tuple[Case, Expected]:
    """Draw a case that has an answer in this dtype, with the oracle's."""
    layers, seed = draw(st.integers(1, 12)), draw(st.integers(0, 2**32 - 1))
    for attempt in range(TRIES):
        case = build(Builder(seed, attempt, dtype, grid), layers)
        try:
            expected = expectation(case)
        except Undetermined:
            continue
        if blurred(case, expected) <= SHARP[case.graph.dtype]:
            return case, expected
    reject()


def blurred(case: Case, expected: Expected) -> float:
    """Return the largest bound of the inputs' relevance as a part of the largest relevance there is."""
    largest = max(np.abs(R).max() for R in expected.R.values())
    return float(max(expected.dR[name].max() for name in case.inputs) / largest) if largest else 0.0
