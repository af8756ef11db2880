"""A network as a graph of layers: named values, each made by one node, checked once and then trusted.

Loaders build it, ``canonise`` simplifies it, ``network.py`` hands it to the compiled core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pylrp._limits import TooLarge, require
from pylrp.layers import Dense, Layer, Shape
from pylrp.layers.base import product
from pylrp.network.facts import Facts, readable_facts
from pylrp.network.layout import with_channels_last
from pylrp.network.order import in_order
from pylrp.network.shapes import Shapes, checked_shape, require_axes
from pylrp.network.time_axis import has_steps_first
from pylrp.network.weights import Weights, first_dtype
from pylrp.present.text import shown

__all__ = ["Facts", "Graph", "Node"]

Outputs = Sequence[str] | Mapping[str, str]

Array = NDArray[Any]


@dataclass(frozen=True)
class Node:
    """A layer in its place.

    Parameters
    ----------
    name : str
        Also the name of the value it makes.
    layer : Layer
    inputs : tuple of str
        The values it takes: names of nodes or of the graph's inputs.
    """

    name: str
    layer: Layer
    inputs: tuple[str, ...]


class Graph:
    """Layers and how they are connected.

    Parameters
    ----------
    inputs : mapping of str to tuple of int
        The logical shape of each input: without the batch, channels first.
    nodes : sequence of Node
        In any order; they are sorted so that each follows what it takes.
    outputs : sequence of str, or mapping of str to str
        The values that are the network's outputs: their names, or, by the name that each has for users, its value.
    channels_last : collection of str, optional
        The inputs that users pass with channels last. Their shapes here have channels first all the same.
    notes : sequence of str, optional
        What a loader did to the model, for people to read.
    facts : Facts, optional
        What a loader knows beyond the layers.
    dtype : dtype, optional
        float32 or float64, for a graph without arrays. Default: the dtype of its arrays, else float32.

    Attributes
    ----------
    inputs : dict of str to tuple of int
    nodes : tuple of Node
        Arrays in their layers are settled: one dtype, aligned, rows contiguous; an array that fits is used in place.
    outputs : tuple of str
        Names for users, in order; :meth:`value` has the value of each.
    output_values : dict of str to str
        The value of each output.
    named_outputs : bool
        Whether the outputs' names were given for themselves: then they stay, whatever makes the values.
    shapes : mapping of str to tuple of int
        The logical shape of every value, inputs included; to be asked for by an output's name, too.
    channels_last : frozenset of str
    notes : tuple of str
    facts : Facts
    dtype : dtype
    nbytes : int
        What the weights and the values of one sample take.

    Raises
    ------
    ValueError
        If names repeat or are unknown, nodes form a circle, shapes do not fit, or a weight is NaN or infinite.
    TypeError
        If arrays are of mixed or other dtypes.
    """

    def __init__(
        self,
        inputs: Mapping[str, Shape],
        nodes: Sequence[Node],
        outputs: Outputs,
        *,
        channels_last: Collection[str] = (),
        notes: Sequence[str] = (),
        facts: Facts | None = None,
        dtype: DTypeLike | None = None,
    ):
        self.facts = facts or Facts()
        if not all(text.isprintable() for text in (*inputs, *outputs, *(node.name for node in nodes), *notes)):
            inputs, nodes, outputs, channels_last, notes = _readable(inputs, nodes, outputs, channels_last, notes)
            self.facts = readable_facts(self.facts)
        self._build(inputs, nodes, outputs, channels_last, notes, dtype, _place, {})

    def _build(
        self,
        inputs: Mapping[str, Shape],
        nodes: Sequence[Node],
        outputs: Outputs,
        channels_last: Collection[str],
        notes: Sequence[str],
        dtype: DTypeLike | None,
        place: Callable[[Node], str],
        finite: Mapping[int, Array],
    ) -> None:
        self.inputs = {name: checked_shape(name, shape) for name, shape in inputs.items()}
        self.outputs = tuple(outputs)
        self.named_outputs = isinstance(outputs, Mapping)
        self.output_values = dict(outputs) if isinstance(outputs, Mapping) else {name: name for name in outputs}
        self.channels_last = frozenset(channels_last)
        self.notes = tuple(notes)
        self._require_names(nodes)
        ordered = in_order(nodes, self.inputs)
        arrays = Weights(
            first_dtype(node.layer for node in ordered) if dtype is None else np.dtype(dtype), dict(finite)
        )
        self.shapes = Shapes(self.inputs, self.output_values)
        settled = []
        taken = sum(product(shape) for shape in self.inputs.values()) * arrays.dtype.itemsize
        require(taken, "the inputs of one sample")
        for node in ordered:
            where = place(node)
            layer = arrays.settle(node.layer, where)
            try:
                self.shapes[node.name] = layer.output_shape(*(self.shapes[value] for value in node.inputs))
            except TooLarge as error:
                raise TooLarge(f"{where}: {error}") from None
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            require_axes(node.name, node.layer, self.shapes[node.name])
            arrays.check(layer, where)
            taken += product(self.shapes[node.name]) * arrays.dtype.itemsize
            require(taken + arrays.size, f"{where}: the weights and the values of one sample up to here")
            settled.append(node if layer is node.layer else replace(node, layer=layer))
        self.dtype = arrays.dtype
        self.nbytes = taken + arrays.size
        self._finite = arrays.finite
        self._connect(settled)

    def _connect(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)
        self._consumers: dict[str, list[tuple[Node, int]]] = {}
        for node in self.nodes:
            for at, value in enumerate(node.inputs):
                self._consumers.setdefault(value, []).append((node, at))

    def _require_names(self, nodes: Sequence[Node]) -> None:
        if not self.inputs:
            raise ValueError("a graph needs at least one input")
        if not self.outputs:
            raise ValueError("a graph needs at least one output")
        for name, count in Counter([*self.inputs, *(node.name for node in nodes)]).items():
            if count > 1:
                raise ValueError(f"names in a graph must differ, {name!r} is there {count} times")
        known = {*self.inputs, *(node.name for node in nodes)}
        for node in nodes:
            for value in node.inputs:
                if value not in known:
                    raise ValueError(f"{_place(node)} takes {value!r}, which is no input and no node of the graph")
        for name, value in self.output_values.items():
            if value not in known:
                raise ValueError(f"output {value!r} is no input and no node of the graph")
            if name in known and name != value:
                raise ValueError(f"output {name!r} is the value {value!r}, but another value is called {name!r}")
        if len(set(self.outputs)) != len(self.outputs):
            raise ValueError(f"outputs must differ, got {', '.join(self.outputs)}")
        if not self.channels_last <= set(self.inputs):
            wrong = ", ".join(sorted(self.channels_last - set(self.inputs)))
            raise ValueError(f"channels_last names {wrong}, the inputs are {', '.join(self.inputs)}")

    @classmethod
    def sequential(cls, layers: Sequence[Layer], input_shape: Shape | None = None) -> Graph:
        """Return the graph of layers one after the other; its input is called "input".

        Parameters
        ----------
        layers : sequence of Layer
            Dense layers and convolutions are called by their ``name``, else "0", "1", ... by their position among
            those; others by kind and number: "relu0", "maxpool1". A layer that comes twice shares its weights.
        input_shape : tuple of int, optional
            The logical shape of the input. Not needed where the first layer is dense.
        """
        for position, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layers[{position}] is not a layer of pylrp.layers: {layer!r}")
        if not layers:
            raise ValueError("layers is empty: a network needs at least one layer")
        if input_shape is None:
            first = layers[0]
            weight = np.shape(first.weight) if isinstance(first, Dense) else ()
            if not isinstance(first, Dense):
                raise ValueError(
                    f"layers[0] is {first}: pass input_shape=, only a dense layer tells the shape of its input"
                )
            if len(weight) != 2:
                raise ValueError(f"layers[0]: weight has shape {weight}, expected (n_out, n_in)")
            input_shape = (weight[1],)
        names = _sequential_names(layers)
        if len(set(names)) != len(names):
            raise ValueError(f"names of layers must differ, got {', '.join(names)}")
        nodes = [
            Node(name, layer, (below,)) for name, layer, below in zip(names, layers, ["input", *names], strict=False)
        ]
        places = {name: f"layers[{position}]" for position, name in enumerate(names)}
        graph = cls.__new__(cls)
        graph.facts = Facts()
        graph._build({"input": input_shape}, nodes, names[-1:], (), (), None, lambda node: places[node.name], {})
        return graph

    def changed(
        self,
        *,
        inputs: Mapping[str, Shape] | None = None,
        nodes: Sequence[Node] | None = None,
        outputs: Outputs | None = None,
        notes: Sequence[str] | None = None,
        facts: Facts | None = None,
    ) -> Graph:
        """Return a graph with other parts or facts; arrays seen here are not looked through again."""
        graph = self._twin()
        graph.facts = self.facts if facts is None else facts
        if inputs is None and nodes is None and outputs is None:
            graph.notes = self.notes if notes is None else tuple(notes)
            return graph
        graph._build(
            self.inputs if inputs is None else inputs,
            self.nodes if nodes is None else nodes,
            self._given_outputs() if outputs is None else outputs,
            self.channels_last,
            self.notes if notes is None else notes,
            self.dtype,
            _place,
            self._finite,
        )
        return graph

    def with_shared_storage(self, nodes: Sequence[Node]) -> Graph:
        """Return the same graph with equal arrays in other memory; nothing of it holds the old ones."""
        graph = self._twin()
        graph._connect(nodes)
        graph._finite = {
            id(array): array
            for node in nodes
            for name in node.layer.arrays
            if (array := getattr(node.layer, name)) is not None
        }
        return graph

    def resized(
        self, inputs: Mapping[str, Shape], nodes: Sequence[Node], shapes: Mapping[str, Shape], facts: Facts
    ) -> Graph:
        """Return the same graph for inputs of other sizes, of nodes and shapes that are known to fit."""
        graph = self._twin()
        graph.facts, graph.inputs = facts, dict(inputs)
        graph.shapes = Shapes(shapes, graph.output_values)
        graph._finite = dict(self._finite)
        arrays, before = Weights(self.dtype, graph._finite), Weights(self.dtype, graph._finite)
        for new, old in zip(nodes, self.nodes, strict=True):
            if new.layer is not old.layer:
                arrays.check(new.layer, _place(new))
                before.check(old.layer, _place(old))
        more = (_count(shapes) - _count(self.shapes)) * self.dtype.itemsize + arrays.size - before.size
        graph.nbytes = self.nbytes + more
        require(graph.nbytes, "the weights and the values of one sample")
        graph._connect(nodes)
        return graph

    def _twin(self) -> Graph:
        """Return the same graph as another object; copy.copy would build it anew."""
        graph = type(self).__new__(type(self))
        graph.__dict__.update(self.__dict__)
        return graph

    def value(self, name: str) -> str:
        """Return the value that is called by this name: an output's, or the value's own."""
        return self.output_values.get(name, name)

    def user_shape(self, name: str) -> Shape:
        """Return a value's shape as users see it: an input's may have its channels last."""
        shape = self.shapes[name]
        return with_channels_last(shape) if name in self.channels_last else shape

    def _given_outputs(self) -> Outputs:
        return self.output_values if self.named_outputs else self.outputs

    @cached_property
    def features_last(self) -> frozenset[str]:
        """The inputs whose features or channels come last for users: ``(steps, features)`` of recurrent layers, too."""
        steps_first = (name for name in self.inputs if has_steps_first(self, name))
        return frozenset({*self.channels_last, *steps_first}.intersection(self.inputs))

    def consumers(self, value: str) -> list[tuple[Node, int]]:
        """Return the nodes that take a value, each with the position of the value among its inputs."""
        return self._consumers.get(value, [])

    def __reduce__(self) -> tuple[Callable[..., Graph], tuple[Any, ...]]:
        """Return how to make it again: what has been looked through is known by its place in memory."""
        parts = self.inputs, self.nodes, self._given_outputs(), self.channels_last, self.notes, self.dtype, self.facts
        return _again, parts

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} {shape}" for name, shape in self.inputs.items())
        outputs = ", ".join(f"{name} {self.shapes[name]}" for name in self.outputs)
        return f"<Graph {inputs} -> {outputs}, {len(self.nodes)} nodes, {self.dtype}>"


def _again(
    inputs: Mapping[str, Shape],
    nodes: Sequence[Node],
    outputs: Outputs,
    channels_last: Collection[str],
    notes: Sequence[str],
    dtype: DTypeLike,
    facts: Facts | None = None,
) -> Graph:
    return Graph(inputs, nodes, outputs, channels_last=channels_last, notes=notes, dtype=dtype, facts=facts)


def _readable(
    inputs: Mapping[str, Shape],
    nodes: Sequence[Node],
    outputs: Outputs,
    channels_last: Collection[str],
    notes: Sequence[str],
) -> tuple[dict[str, Shape], list[Node], Outputs, list[str], list[str]]:
    """Return the same with names that may be shown: a file can call a layer after what clears a terminal."""
    return (
        {shown(name): shape for name, shape in inputs.items()},
        [replace(node, name=shown(node.name), inputs=tuple(map(shown, node.inputs))) for node in nodes],
        {shown(name): shown(value) for name, value in outputs.items()}
        if isinstance(outputs, Mapping)
        else [shown(name) for name in outputs],
        [shown(name) for name in channels_last],
        [shown(note) for note in notes],
    )


def _count(shapes: Mapping[str, Shape]) -> int:
    return sum(map(product, shapes.values()))


def _place(node: Node) -> str:
    return f"node {node.name!r} ({type(node.layer).__name__})"


def _sequential_names(layers: Sequence[Layer]) -> list[str]:
    names: list[str] = []
    uses, numbers = Counter[int](), Counter[str]()
    of_layer: dict[int, str] = {}
    given = {getattr(layer, "name", None) for layer in layers}
    for layer in layers:
        group = "" if layer.weighted else layer.kind  # layers with weights are called "0", "1", ...
        number = numbers[group]
        numbers[group] += 1
        uses[id(layer)] += 1
        own = f"{group}{number}"
        while own in given:  # somebody gave it to another layer
            own += "_"
        name = of_layer.setdefault(id(layer), getattr(layer, "name", None) or own)
        # Only weights make two uses one layer: ReLU() may be one object or two.
        if uses[id(layer)] > 1:
            name = f"{name}_{uses[id(layer)]}" if layer.arrays else own
        names.append(name)
    return names
