"""From a graph of layers to the core's: values get numbers and layouts, each layer describes itself (`Layer.to_core`).

``network.py`` calls in; ``csrc/layers`` reads what the layers write. ``layout.py`` has the order in which the core
stores values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from pylrp import _core
from pylrp._limits import TooLarge
from pylrp.errors import BrokenNode, UnsupportedLayer
from pylrp.layers import Layer
from pylrp.layers.base import Place, product
from pylrp.network.canonise import stands_at_top
from pylrp.network.graph import Graph, Node
from pylrp.network.layout import channel_count

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
    """

    core: _core.Graph
    graph: Graph
    values: dict[str, int]


def lower(graph: Graph) -> Lowered:
    """Return a graph in the core's form.

    Raises
    ------
    UnsupportedLayer
        If the core has nothing for a layer, or no rule of LRP where it stands; BrokenNode where it refuses its
        settings.
    """
    values = {name: i for i, name in enumerate([*graph.inputs, *(node.name for node in graph.nodes)])}
    layouts = [
        (channel_count(shape), product(shape[1:]), name in graph.channels_last) for name, shape in graph.shapes.items()
    ]
    stored: dict[int, tuple[Layer, Layer]] = {}  # by the id of a layer, which is kept alive: layers may be shared
    specs, nodes = [], []
    for node in graph.nodes:
        if id(node.layer) not in stored:  # weights of a layer that is used twice are turned once
            stored[id(node.layer)] = node.layer, node.layer.stored_for_core()
        layer = stored[id(node.layer)][1]
        _require_top(node, graph)
        shapes = tuple(graph.shapes[value] for value in node.inputs)
        try:
            kind, fields = layer.to_core(Place(node.name, shapes, graph.shapes[node.name], graph.dtype))
        except TooLarge as error:
            raise TooLarge(f"node {node.name!r} ({type(node.layer).__name__}): {error}") from None
        specs.append((kind, fields, [values[value] for value in node.inputs]))
        nodes.append(node if layer is node.layer else replace(node, layer=layer))
    try:
        core = _core.Graph(graph.dtype.name, layouts, specs)
    except _core.CoreError as error:
        if error.node is None:
            raise
        node = graph.nodes[error.node]
        raise BrokenNode(
            node.name,
            type(node.layer).__name__,
            f"has settings that do not fit its input {', '.join(str(graph.shapes[value]) for value in node.inputs)} "
            f"({error})",
            "look at them where the model was made",
        ) from error
    return Lowered(core, graph.with_shared_storage(nodes), values)


def _require_top(node: Node, graph: Graph) -> None:
    """Raise for a function that has no rule of LRP, unless what is explained is the value before it."""
    if node.layer.only_at_top and not stands_at_top(graph, node):
        raise UnsupportedLayer(
            node.name,
            type(node.layer).__name__,
            "stands inside the network",
            "give it a rule of your own: a CustomLayer",
        )
