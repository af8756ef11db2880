"""The graph of samples packed end to end, whose tokens are the rows of one batch, made from those of two lengths.

An axis of a value whose size is the number of tokens in both graphs vanishes: each layer works on one token. Attention
works within segments (``layers/packed.py``), and so does what a sample takes of its tokens: their mean, the first, the
last. Constants that differ from token to token become inputs. Whether all other layers work token by token is tried: a
sample goes through both graphs. ``packed.py`` runs what is made here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pylrp.layers import Affine, Expand, GlobalAveragePool, Layer, Movement, Reshape, Shape, Shift, Take
from pylrp.layers.attention import Attention, Operand
from pylrp.layers.base import Array, product
from pylrp.layers.packed import AffineOfRows, SegmentedAttention, Segments, ShiftOfRows
from pylrp.network.facts import Facts
from pylrp.network.graph import Graph, Node

__all__ = ["SEGMENTS", "MaskForm", "NotPacked", "Packing", "as_rows", "packing"]

#: The input that says which rows are a sample's.
SEGMENTS = "packed/segments"


class NotPacked(Exception):
    """Why samples of unequal length can't be packed; never leaves the library."""


@dataclass(frozen=True)
class MaskForm:
    """What is added to scores of packed samples: nothing, a number for each key, or a row for each query.

    Attributes
    ----------
    kind : str
        "none", "keys", "queries".
    width : int
        Of a row.
    by_head : bool
        Whether each head has its own.
    """

    kind: str = "none"
    width: int = 0
    by_head: bool = False


@dataclass(frozen=True, eq=False)
class Packing:
    """What is the same for all lengths.

    Attributes
    ----------
    graph : Graph
        Of some length, with attention as one layer.
    axes : dict of str to (int or None)
        By value, the axis of the tokens.
    nodes : list of Node
        Of one token, but for attention.
    inputs : dict of str to tuple of int
        Of one token: those of the graph but for masks, and constants that are inputs.
    constants : dict of str to list of (str, str)
        By node, the names of its arrays that are inputs, and those of these.
    masks : dict of str to (str or None)
        By node of attention, the input that is added to its scores.
    before : dict of str to str
        By node, the one before it that takes something of a sample's tokens.
    """

    graph: Graph
    axes: dict[str, int | None]
    nodes: list[Node] = field(default_factory=list)
    inputs: dict[str, Shape] = field(default_factory=dict)
    constants: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    masks: dict[str, str | None] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)

    def of(self, form: MaskForm) -> Graph:
        """Return the graph of one token for masks of this form."""
        inputs = {**self.inputs, SEGMENTS: (2,)}
        nodes = []
        for node in self.nodes:
            if isinstance(node.layer, SegmentedAttention):
                mask = self.masks[node.name] if form.kind != "none" else None
                more = (SEGMENTS,) if mask is None else (SEGMENTS, mask)
                taken = (*node.inputs, *more)
                layer = replace(
                    node.layer, inputs=taken, segments=SEGMENTS, mask=mask or "", by_query=form.kind == "queries",
                    width=form.width, by_head=form.by_head,
                )  # fmt: skip
                if mask is not None:
                    heads = product(layer.leading) if form.by_head else 1
                    inputs[mask] = (heads * form.width,) if form.kind == "queries" else (1,)
                node = Node(node.name, layer, taken)
            nodes.append(node)
        # Inputs that nothing takes are none of the core's.
        used = {value for node in nodes for value in node.inputs}
        graph = self.graph
        made = graph.changed(
            inputs={name: shape for name, shape in inputs.items() if name in used or name == SEGMENTS},
            nodes=nodes, outputs=graph.output_values if graph.named_outputs else graph.outputs, facts=Facts(),
        )  # fmt: skip
        for name, shape in made.shapes.items():
            if name in self.axes and shape != self.one_token(name):
                raise NotPacked(f"layer {name!r} makes {shape} of one token")
        return made

    def one_token(self, name: str) -> Shape:
        """Return the shape of a value of one token."""
        shape, axis = self.graph.shapes[name], self.axes[name]
        return tuple(1 if at == axis else n for at, n in enumerate(shape))

    def require_like(self, graph: Graph) -> None:
        """Raise NotPacked where another length's graph has other layers."""
        if _plan(graph) != _plan(self.graph):
            raise NotPacked("its layers differ with the length")


def _plan(graph: Graph) -> list[tuple[str, type[Layer], tuple[str, ...]]]:
    return [(node.name, type(node.layer), node.inputs) for node in graph.nodes]


def as_rows(flat: Array, shape: Shape, axis: int | None, tokens: int) -> Array:
    """Return a value, (samples, size), as rows of tokens; one without tokens is repeated."""
    if axis is None:
        return np.repeat(flat, tokens, axis=0)
    return np.moveaxis(flat.reshape(-1, *shape), axis + 1, 1).reshape(len(flat) * tokens, -1)


def packing(one: Graph, tokens: int, other: Graph, others_tokens: int) -> Packing:
    """Return what graphs of two lengths, with attention as one layer, have in common.

    Raises
    ------
    NotPacked
        If a layer looks across tokens in a way that is not known.
    """
    if one.channels_last:
        raise NotPacked("an input has its channels last")
    made = Packing(one, {})
    made.require_like(other)
    masks = _masks(one)
    for name in (*one.inputs, *(node.name for node in one.nodes)):
        if name not in masks:
            made.axes[name] = _axis(name, one.shapes[name], other.shapes[name], (tokens, others_tokens))
    made.inputs.update({name: made.one_token(name) for name in one.inputs if name not in masks})
    names: dict[Any, str] = {}
    for node, twin in zip(one.nodes, other.nodes, strict=True):
        try:
            _add(made, node, twin.layer, names, others_tokens)
        except ValueError as error:
            raise NotPacked(f"layer {node.name!r} ({type(node.layer).__name__}): {error}") from None
    return made


def _masks(graph: Graph) -> set[str]:
    """Return the inputs that are added to scores and nothing else."""
    added = {
        each.value for node in graph.nodes if isinstance(node.layer, Attention) for each in node.layer.added
        if each.constant is None
    }  # fmt: skip
    only = {
        name for name in added
        if name in graph.inputs
        and all(isinstance(taker.layer, Attention) for taker, _ in graph.consumers(name))
    }  # fmt: skip
    if added - only:
        raise NotPacked("what is added to scores is computed")
    return only


def _axis(name: str, shape: Shape, other: Shape, tokens: tuple[int, int]) -> int | None:
    differ = [at for at, sizes in enumerate(zip(shape, other, strict=False)) if sizes[0] != sizes[1]]
    if len(shape) != len(other) or len(differ) > 1 or (differ and (shape[differ[0]], other[differ[0]]) != tokens):
        raise NotPacked(f"value {name!r} has the shapes {shape} and {other} for {tokens[0]} and {tokens[1]} tokens")
    return differ[0] if differ else None


def _add(made: Packing, node: Node, twin: Layer, names: dict[Any, str], others_tokens: int) -> None:
    """Add a node for one token, and what has to stand before it."""
    layer, axis = node.layer, made.axes[node.name]
    taken = [made.axes.get(value) for value in node.inputs]
    if isinstance(layer, Attention):
        assert isinstance(twin, Attention)  # graphs are alike
        made.masks[node.name] = _mask_input(layer, made.graph, names)
        made.nodes.append(_attention(node, layer, twin))
        return
    if isinstance(layer, Affine | Shift):
        made.nodes.append(_with_constants(made, node, twin, taken[0]))
        return
    inputs = node.inputs
    if axis is None and any(at is not None for at in taken):
        one = len(inputs) == 1
        pick = _pick(layer, twin, made.graph.shapes[inputs[0]], taken[0], others_tokens) if one else None
        if pick is None:
            raise NotPacked(f"layer {node.name!r} ({type(layer).__name__}) mixes tokens")
        before = f"packed/{pick}/{node.name}"
        made.nodes.append(Node(before, Segments(pick), (inputs[0], SEGMENTS)))
        made.before[node.name], inputs = before, (before,)
        if isinstance(layer, Take):
            layer = twin = replace(layer, indices=np.zeros_like(np.asarray(layer.indices)))
    made.nodes.append(Node(node.name, _of_one(layer, twin), inputs))


def _of_one(layer: Layer, twin: Layer) -> Layer:
    """Return a layer for one token."""
    if isinstance(layer, Reshape | Expand):
        assert isinstance(twin, Reshape | Expand)  # graphs are alike
        if len(layer.shape) != len(twin.shape):
            raise NotPacked(f"{layer} differs with the length")
        return replace(layer, shape=[n if n == m else 1 for n, m in zip(layer.shape, twin.shape, strict=True)])
    if not _same(layer, twin):
        raise NotPacked(f"{layer} differs with the length")
    return layer


def _same(layer: Layer, twin: Layer) -> bool:
    if layer is twin:
        return True
    names: list[str] = [each.name for each in dataclasses.fields(layer)] if dataclasses.is_dataclass(layer) else []
    return bool(names) and all(_equal(getattr(layer, name), getattr(twin, name)) for name in names)


def _equal(one: Any, other: Any) -> bool:
    return one is other or np.array_equal(one, other)


def _pick(layer: Layer, twin: Layer, shape: Shape, axis: int | None, count_of_twin: int) -> str | None:
    """Return what a layer takes of a sample's tokens; None where it is something else."""
    assert axis is not None  # the caller looked
    if isinstance(layer, GlobalAveragePool):
        return "mean" if axis > 0 else None
    if not isinstance(layer, Movement) or not isinstance(twin, Movement):
        return None
    found: set[str | None] = set()
    for each, count in ((layer, shape[axis]), (twin, count_of_twin)):
        whole = tuple(count if at == axis else n for at, n in enumerate(shape))
        of_token = np.arange(count).reshape([-1 if at == axis else 1 for at in range(len(shape))])
        places = np.unique(each.move(np.broadcast_to(of_token, whole)))
        known = len(places) == 1 and places[0] in (0, count - 1)
        found.add(("first" if places[0] == 0 else "last") if known else None)
    return found.pop() if len(found) == 1 else None


def _with_constants(made: Packing, node: Node, twin: Layer, axis: int | None) -> Node:
    """Return a node whose constants are inputs where they differ from token to token, or with the length."""
    layer: Any = node.layer
    rank = len(made.graph.shapes[node.name])
    fixed = {}
    for name in layer.arrays:
        one, other = (_first_token(getattr(each, name), rank, axis) for each in (layer, twin))
        if one is not None and other is not None and one.shape == other.shape and (one == other).all():
            fixed[name] = one
    if len(fixed) == len(layer.arrays):
        return Node(node.name, replace(layer, **fixed), node.inputs)
    inputs = [(name, f"packed/{name}/{node.name}") for name in layer.arrays]
    made.constants[node.name] = inputs
    made.inputs.update({input: made.one_token(node.name) for _, input in inputs})
    taken = (*node.inputs, *(input for _, input in inputs))
    if isinstance(layer, Shift):
        return Node(node.name, ShiftOfRows(0.0, layer.position), taken)
    return Node(node.name, AffineOfRows(not np.any(layer.shift), bool(np.all(np.equal(layer.scale, 1)))), taken)


def _first_token(value: Any, rank: int, axis: int | None) -> Array | None:
    """Return an array for one token, where it is the same for all."""
    array = np.asarray(value)
    if axis is None or array.ndim < rank - axis:
        return array
    at = axis - (rank - array.ndim)
    first = array.take([0], axis=at)
    return first if bool((array == first).all()) else None


def _mask_input(layer: Attention, graph: Graph, names: dict[Any, str]) -> str | None:
    """Return the name of the input that is added to the scores: one for all layers that get the same."""
    key: list[Any] = []
    feeds: Mapping[str, Any] = graph.facts.sides.feeds if graph.facts.sides is not None else {}
    for each in layer.added:
        if each.constant is not None:
            key.append((each.constant.shape, each.constant.tobytes()))
        else:
            feed = feeds.get(each.value)
            key.append(each.value if feed is None else (feed.value, feed.axis, feed.shape))
    return names.setdefault((product(layer.leading), *key), f"packed/mask{len(names)}") if key else None


def _attention(node: Node, layer: Attention, twin: Attention) -> Node:
    def moves(own: Iterable[Movement], others: Iterable[Movement]) -> Any:
        return tuple(_of_one(one, other) for one, other in zip(own, others, strict=True))

    query, key, value = operands = [
        Operand(one.value, moves(one.moves, other.moves))
        for one, other in ((layer.query, twin.query), (layer.key, twin.key), (layer.value, twin.value))
    ]
    own = tuple(dict.fromkeys(each.value for each in operands))
    made = SegmentedAttention(
        query, key, value, leading=layer.leading, back=moves(layer.back, twin.back), added=(), scale=layer.scale,
        cap=layer.cap, inputs=own,
    )  # fmt: skip
    return Node(node.name, made, own)
