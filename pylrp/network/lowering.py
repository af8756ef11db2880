"""From a graph of layers to the core's: values get numbers and layouts, each layer describes itself (`Layer.to_core`).

``network.py`` calls in; ``csrc/layers`` reads what the layers write. ``orders.py`` chooses the order in which the core
stores each value.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from pylrp import _core
from pylrp._limits import TooLarge
from pylrp.errors import BrokenNode, UnsupportedLayer
from pylrp.layers import Layer
from pylrp.layers.base import Place, Spec
from pylrp.network.canonise import stands_at_top
from pylrp.network.graph import Graph, Node
from pylrp.network.layout import Order, with_channels_last
from pylrp.network.orders import StoredOrders, alike

__all__ = ["Lowered", "lower"]


class Lowered(NamedTuple):
    """A graph in the core.

    Attributes
    ----------
    core : _core.Graph
    graph : Graph
        The same graph; convolutions' weights are views of the core's arrays, so that they are stored once.
    values : dict of str to int
        The core's number of each value.
    rows : list of int
        The core's number of each node. It has others besides, which copy values into another order of axes.
    core_nodes : int
        How many nodes the core has.
    layouts, specs : list
        What the core's graph is made of.
    orders : StoredOrders
    """

    core: _core.Graph
    graph: Graph
    values: dict[str, int]
    rows: list[int]
    core_nodes: int
    layouts: list[Any]
    specs: list[Any]
    orders: StoredOrders


def lower(graph: Graph) -> Lowered:
    """Return a graph in the core's form.

    Raises
    ------
    UnsupportedLayer
        If the core has nothing for a layer, or no rule of LRP where it stands; BrokenNode where it refuses its
        settings.
    """
    stored: dict[int, tuple[Layer, Layer]] = {}  # by the id of a layer, which is kept alive: layers may be shared
    orders = StoredOrders(graph)
    made = _CoreNodes(graph, orders)
    nodes = []
    for node in graph.nodes:
        if id(node.layer) not in stored:  # weights of a layer that is used twice are turned once
            stored[id(node.layer)] = node.layer, node.layer.stored_for_core()
        layer = stored[id(node.layer)][1]
        _require_top(node, graph)
        shapes = tuple(graph.shapes[value] for value in node.inputs)
        taken = orders.taken[node.name]
        place = Place(node.name, shapes, graph.shapes[node.name], graph.dtype, tuple(taken), orders.of[node.name])
        try:
            kind, fields = layer.to_core(place)
        except TooLarge as error:
            raise TooLarge(f"node {node.name!r} ({type(node.layer).__name__}): {error}") from None
        made.add(node, kind, fields)
        nodes.append(node if layer is node.layer else replace(node, layer=layer))
    try:
        core = _core.Graph(graph.dtype.name, made.layouts, made.specs)
    except _core.CoreError as error:
        if error.node is None:
            raise
        node = made.of_node[error.node]
        raise BrokenNode(
            node.name,
            type(node.layer).__name__,
            f"has settings that do not fit its input {', '.join(str(graph.shapes[value]) for value in node.inputs)} "
            f"({error})",
            "look at them where the model was made",
        ) from error
    return Lowered(
        core,
        graph.with_shared_storage(nodes),
        made.values,
        made.rows,
        len(made.specs),
        made.layouts,
        made.specs,
        orders,
    )


class _CoreNodes:
    """The core's nodes, one for each of the graph's and one wherever a value is copied into another order of axes."""

    def __init__(self, graph: Graph, orders: StoredOrders):
        self._graph, self._orders = graph, orders
        self._turned: dict[tuple[str, Order], int] = {}  # values in another order
        self.values = {name: number for number, name in enumerate(graph.inputs)}
        self.layouts = [self._layout(name, orders.of[name]) for name in graph.inputs]
        self.specs: list[tuple[str, dict[str, Any], list[int]]] = []
        self.rows: list[int] = []
        self.of_node: list[Node] = []  # by the core's number: the node that it is, or that it turns a value for

    def add(self, node: Node, kind: str, fields: dict[str, Any]) -> None:
        taken = zip(node.inputs, self._orders.taken[node.name], strict=True)
        inputs = [self._in_order(value, order, node) for value, order in taken]
        self.rows.append(len(self.specs))
        self.values[node.name] = self._append((kind, fields), inputs, node, node.name, self._orders.of[node.name])

    def _in_order(self, value: str, order: Order, node: Node) -> int:
        shape, own = self._graph.shapes[value], self._orders.of[value]
        if alike(shape, own, order):
            return self.values[value]
        if (value, order) not in self._turned:
            fields = {"shape": [shape[axis] for axis in own], "order": [own.index(axis) for axis in order]}
            self._turned[value, order] = self._append(("permute", fields), [self.values[value]], node, value, order)
        return self._turned[value, order]

    def _append(self, spec: Spec, inputs: list[int], node: Node, value: str, order: Order) -> int:
        self.specs.append((*spec, inputs))
        self.layouts.append(self._layout(value, order))
        self.of_node.append(node)
        return len(self.layouts) - 1

    def _layout(self, name: str, order: Order) -> tuple[list[int], list[int], int]:
        """Return the axes as users see them, which of them each stored axis is, and which has the channels."""
        shape = self._graph.shapes[name]
        if not shape:
            return [1], [0], 0
        users = with_channels_last(tuple(range(len(shape)))) if name in self._graph.channels_last else range(len(shape))
        places = list(users)
        return [shape[axis] for axis in places], [places.index(axis) for axis in order], places.index(0)


def _require_top(node: Node, graph: Graph) -> None:
    """Raise for a function that has no rule of LRP, unless what is explained is the value before it."""
    if node.layer.only_at_top and not stands_at_top(graph, node):
        raise UnsupportedLayer(
            node.name,
            type(node.layer).__name__,
            "stands inside the network",
            "give it a rule of your own: a CustomLayer",
        )
