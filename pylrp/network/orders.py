"""The order in which the core stores the axes of each value of a graph: chosen so that little has to be copied.

First from the outputs down: in which order would each value serve its readers best (`Layer.wanted_orders`)? Then from
the inputs up: in which order does each layer take its inputs and leave its output (`Layer.stored_orders`)? Transposes
and reshapes are views so, for the most part; where a layer takes a value in another order than it has, ``lowering.py``
puts a copy in between.
"""

from __future__ import annotations

from pylrp.layers import Shape
from pylrp.network.graph import Graph
from pylrp.network.layout import Order, channels_last

__all__ = ["StoredOrders", "alike"]


class StoredOrders:
    """Stored orders for a graph.

    Attributes
    ----------
    of : dict of str to tuple of int
        The order in which each value is stored.
    taken : dict of str to list of tuple of int
        By node, the order in which it takes each input.
    """

    def __init__(self, graph: Graph):
        wanted = _wanted(graph)
        self.of: dict[str, Order] = {
            name: wanted.get(name) or channels_last(len(shape)) for name, shape in graph.inputs.items()
        }
        self.taken: dict[str, list[Order]] = {}
        for node in graph.nodes:
            shapes = [graph.shapes[value] for value in node.inputs]
            given = [self.of[value] for value in node.inputs]
            taken, self.of[node.name] = node.layer.stored_orders(
                shapes, graph.shapes[node.name], given, wanted.get(node.name)
            )
            self.taken[node.name] = list(taken)


def _wanted(graph: Graph) -> dict[str, Order]:
    """Return the order in which a value would serve the first of its readers that prefers one."""
    wanted: dict[str, Order] = {}
    for node in reversed(graph.nodes):
        shapes = [graph.shapes[value] for value in node.inputs]
        orders = node.layer.wanted_orders(shapes, graph.shapes[node.name], wanted.get(node.name))
        wanted.update((value, order) for value, order in zip(node.inputs, orders, strict=True) if order is not None)
    return wanted


def alike(shape: Shape, one: Order, other: Order) -> bool:
    """Whether values of a logical shape lie the same in two orders: axes of one entry may stand anywhere."""
    return one == other or [a for a in one if shape[a] > 1] == [a for a in other if shape[a] > 1]
