"""A graph while passes change it: nodes are taken out, renamed and replaced, and who takes a value is always known.

``scalings.py`` and ``padding.py`` work on it and hand a :class:`Graph` on.
"""

from __future__ import annotations

from pylrp.layers import Layer, Shape
from pylrp.network.canonise.rewiring import with_output_values
from pylrp.network.graph import Graph, Node

__all__ = ["Draft"]


class Draft:
    """The nodes of a graph, to be changed one by one.

    Attributes
    ----------
    layers : dict of str to Layer
        By the node's name.
    inputs : dict of str to tuple of str
        The values each node takes.
    shapes : dict of str to tuple of int
        Of every value.
    outputs : dict of str to str
        The value of each output.
    """

    def __init__(self, graph: Graph):
        self.layers: dict[str, Layer] = {node.name: node.layer for node in graph.nodes}
        self.inputs: dict[str, tuple[str, ...]] = {node.name: node.inputs for node in graph.nodes}
        self.shapes: dict[str, Shape] = dict(graph.shapes)
        self.outputs = dict(graph.output_values)
        self._takers: dict[str, list[str]] = {}
        for node in graph.nodes:
            for value in node.inputs:
                self._takers.setdefault(value, []).append(node.name)

    def takers(self, value: str) -> list[str]:
        """Return the nodes that take a value, one that takes it twice twice."""
        return self._takers.get(value, [])

    def is_output(self, value: str) -> bool:
        """Return whether a value is an output of the graph."""
        return value in self.outputs.values()

    def only_for(self, value: str) -> str | None:
        """Return the node that alone takes a value; None where several do, or the value is an output."""
        takers = self.takers(value)
        return takers[0] if len(takers) == 1 and not self.is_output(value) else None

    def drop(self, name: str) -> None:
        """Take out a node of one input; what took its value takes that input."""
        (source,) = self.inputs[name]
        self._takers[source].remove(name)
        for taker in dict.fromkeys(self.takers(name)):
            self.inputs[taker] = tuple(source if value == name else value for value in self.inputs[taker])
        self._takers[source] += self._takers.pop(name, [])
        self.outputs = {output: source if value == name else value for output, value in self.outputs.items()}
        del self.layers[name], self.inputs[name], self.shapes[name]

    def drop_and_pass_on_name(self, name: str) -> None:
        """Take out a node of one input; the node below, which nothing else reads, makes the value of its name."""
        (below,) = self.inputs[name]
        self.layers[name], self.inputs[name] = self.layers.pop(below), self.inputs.pop(below)
        for value in self.inputs[name]:
            self._takers[value] = [name if taker == below else taker for taker in self._takers[value]]
        del self._takers[below], self.shapes[below]

    def graph(self, of: Graph) -> Graph:
        """Return the graph as it is now."""
        nodes = [Node(name, layer, self.inputs[name]) for name, layer in self.layers.items()]
        return with_output_values(of, nodes, self.outputs)
