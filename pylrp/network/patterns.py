"""A network's graph for any length, out of the graphs for three: reading a model anew takes much longer.

Shapes, sizes and what layers say of them grow in proportion to the length or stay. That is learnt from two lengths and
tried on a third; and for each new length all that the model computes of sizes is computed (the loader's trace) and must
be what was learnt, and every layer must make of its inputs the shape that was learnt. Arrays (masks, rows of positions)
are found again among those constants. Where anything differs there is no pattern, and the model is read anew.
``lengths.py`` asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp import _core
from pylrp.errors import UnsupportedLayer
from pylrp.layers import Shape
from pylrp.layers.base import Place
from pylrp.layers.shift import closed
from pylrp.network.execution import Execution, Laid
from pylrp.network.graph import Graph, Node
from pylrp.network.lowering import Lowered
from pylrp.network.recipes import Recipe, Same, Varies, learnt
from pylrp.network.sides import Sides

__all__ = ["Pattern", "Patterns", "Reading"]

Array = NDArray[Any]
_MOST_NUMBERS = 64


@dataclass(frozen=True, eq=False)
class Reading:
    """A network laid out for one length, as it was read, and the loader's trace."""

    length: int
    laid: Laid
    execution: Execution
    trace: Any


@dataclass(frozen=True)
class _Way:
    """What a layer makes of a constant.

    Attributes
    ----------
    kind : str
        "same", "closed", "negative", or "choice" between two numbers.
    yes, no : float
        Of a choice.
    """

    kind: str
    yes: float = 0.0
    no: float = 0.0

    def of(self, constant: Array, dtype: np.dtype[Any]) -> Array:
        if self.kind == "choice":
            return np.where(constant, np.asarray(self.yes, dtype), np.asarray(self.no, dtype))
        with np.errstate(invalid="ignore", over="ignore"):  # numbers that are no places are tried as places, too
            made = constant.astype(dtype)
        return closed(made) if self.kind == "closed" else -made if self.kind == "negative" else made


@dataclass(frozen=True, eq=False)
class _Taken(Recipe):
    """An array that is a constant of the model in another shape, after what a layer makes of it.

    It may be one of several things as far as three lengths tell: zeros that become a mask for longer inputs.
    """

    name: str
    ways: tuple[_Way, ...]
    shape: Recipe
    dtype: np.dtype[Any]

    def at(self, length: int, arrays: dict[str, Any]) -> Array:
        own = f"array {id(self)}"  # one array wherever it stands
        if own not in arrays:
            made, *others = (way.of(arrays[self.name].first, self.dtype) for way in self.ways)
            if any(not np.array_equal(made, other) for other in others):
                raise Varies(f"what is made of {self.name!r}")
            arrays[own] = np.ascontiguousarray(_as(made, self.shape.at(length, arrays)))
        found: Array = arrays[own]
        return found


def _ways(constant: Array, value: Array) -> list[_Way]:
    """Return what a layer may have made of a constant if it holds these values."""
    if constant.dtype.kind == "b" and value.dtype.kind == "f":
        try:
            chosen = _as(constant, value.shape)
        except Varies:
            return []
        yes, no = value[chosen], value[~chosen]
        if not yes.size or not no.size or (yes != yes[0]).any() or (no != no[0]).any():
            return []
        return [_Way("choice", float(yes[0]), float(no[0]))]
    kinds = ("same", "closed", "negative") if value.dtype.kind == "f" else ("same",)
    return [way for way in map(_Way, kinds) if _equal(way.of(constant, value.dtype), value)]


def _as(array: Array, shape: Shape) -> Array:
    """Return an array in a shape that has other axes of length 1, or repeats it; raise Varies if it does not fit."""
    if [n for n in array.shape if n != 1] == [n for n in shape if n != 1]:
        return array.reshape(shape)
    more = max(0, array.ndim - len(shape))
    try:
        return np.broadcast_to(array.reshape(array.shape[more:]), shape)
    except ValueError:
        raise Varies(f"{array.shape} is not {shape}") from None


class Patterns:
    """Lays out graphs as a loader made them, and learns from them.

    Parameters
    ----------
    canonise : callable
        Of a graph as a loader made it.
    """

    def __init__(self, canonise: Callable[[Graph], Graph]):
        self._canonise = canonise

    def reading(self, length: int, graph: Graph) -> Reading:
        """Return a graph laid out, with what the loader noted."""
        trace = graph.facts.trace
        laid = Laid.of(self._canonise(graph.changed(facts=replace(graph.facts, trace=None))))
        return Reading(length, laid, Execution(laid), trace)

    def learnt(self, readings: Sequence[Reading]) -> Pattern | None:
        """Return the pattern of three readings, None where there is none."""
        try:
            return Pattern(readings)
        except (Varies, UnsupportedLayer, ValueError):
            return None


class _Found:
    """Looks for a model's constants in arrays."""

    def __init__(self, lengths: Sequence[int], traces: Sequence[Any], same: Mapping[str, str]):
        self.place = ""
        self._lengths, self._same = lengths, same
        self._known: dict[int, Recipe] = {}  # by the id of the first array
        self.constants = {
            name: [trace.constant(name) for trace in traces]
            for name in traces[0].taken
            if all(name in trace.taken for trace in traces)
        }
        self.large = {
            same[name] for name, each in self.constants.items() if max(c.first.size for c in each) > _MOST_NUMBERS
            or len({c.first.shape for c in each}) > 1
        }  # fmt: skip
        self._taken = traces[0].taken
        self.used: set[str] = set()

    def __call__(self, values: Sequence[Array]) -> Recipe:
        """Return the constant that an array is for all lengths."""
        if id(values[0]) not in self._known:
            self._known[id(values[0])] = self._of(values)
        return self._known[id(values[0])]

    def _stands_at(self, name: str) -> bool:
        """Tell whether the layer that is looked at was made of a node that takes a constant."""
        labels = [label for labels in self._taken[name] for label in labels]
        return any(self.place == label or self.place.startswith(f"{label}/") for label in labels)

    def _of(self, values: Sequence[Array]) -> Recipe:
        fits = []
        for name, constants in self.constants.items():
            if self._same[name] not in self.large or any(c.follows_batch for c in constants):
                continue
            possible = [set(_ways(c.first, value)) for c, value in zip(constants, values, strict=True)]
            fits += [(name, way) for way in set.intersection(*possible)]
        if len({self._same[name] for name, _ in fits}) > 1:  # equal for these lengths, perhaps not for others
            fits = [(name, way) for name, way in fits if self._stands_at(name)]
        if len({self._same[name] for name, _ in fits}) != 1:
            raise Varies(f"an array of {self.place!r}, which is {len(fits)} constants")
        name, ways = fits[0][0], tuple(way for name, way in fits if name == fits[0][0])
        self.used.add(self._same[name])
        shape = learnt([value.shape for value in values], self._lengths, self)
        return _Taken(self._same[name], ways, shape, values[0].dtype)


def _equal(made: Array, value: Array) -> bool:
    try:
        return bool(np.array_equal(_as(made, value.shape), value, equal_nan=made.dtype.kind == "f"))
    except Varies:
        return False


class Pattern:
    """A network for any length.

    Parameters
    ----------
    readings : sequence of Reading
        Three of different lengths, of which not all are even or odd.

    Raises
    ------
    Varies
        If they differ in what is not known to follow from the length.
    """

    def __init__(self, readings: Sequence[Reading]):
        self._lengths = [reading.length for reading in readings]
        graphs = [reading.laid.graph for reading in readings]
        traces = [reading.trace for reading in readings]
        if any(trace is None for trace in traces):
            raise Varies("the loader left no trace")
        self._like, self._graph = readings[0].execution, graphs[0]
        self._replay = traces[0].replay(traces[1:])
        self._found = found = _Found(self._lengths, traces, self._replay.same)
        self._sources = self._learnt([dict(trace.sources) for trace in traces])
        self._checked = {
            same: self._learnt([(c.first, c.second, c.per_sample) for c in found.constants[name]])
            for name in found.constants
            if (same := self._replay.same[name]) not in found.large
        }
        if any(_words(graph) != _words(graphs[0]) for graph in graphs):
            raise Varies("notes or outputs")
        self._inputs = self._learnt([graph.inputs for graph in graphs])
        self._shapes = self._learnt([dict(graph.shapes) for graph in graphs])
        self._sides = self._learnt_sides([graph.facts.sides for graph in graphs])
        self._layers = self._learnt_layers([graph.nodes for graph in graphs])
        if found.large - found.used:
            raise Varies(f"constants that are not found again: {', '.join(sorted(found.large - found.used))}")
        self._learn_core([reading.laid for reading in readings])
        del self._found

    def _learnt(self, values: Sequence[Any]) -> Recipe:
        return learnt(values, self._lengths, self._found)

    def _learnt_sides(self, sides: Sequence[Sides | None]) -> tuple[Recipe, list[Recipe]]:
        """Return how side values follow, and the steps that make them."""
        steps: list[Recipe] = []
        bare = [None if each is None else replace(each, steps=()) for each in sides]
        programs = [() if each is None else each.steps for each in sides]
        if len({tuple(step.output for step in program) for program in programs}) > 1:
            raise Varies("side values")
        for alike in zip(*programs, strict=True):
            self._found.place = alike[0].output
            steps.append(self._learnt(alike))
        return self._learnt(bare), steps

    def _sides_at(self, length: int, constants: dict[str, Any]) -> Sides | None:
        recipe, steps = self._sides
        sides: Sides | None = recipe.at(length, constants)
        return sides and replace(sides, steps=tuple(step.at(length, constants) for step in steps))

    def _learnt_layers(self, nodes: Sequence[Sequence[Node]]) -> dict[int, Recipe]:
        """Return the layers that follow the length, by the number of their node."""
        layers: dict[int, Recipe] = {}
        if len({len(each) for each in nodes}) > 1:
            raise Varies("numbers of nodes")
        for number, alike in enumerate(zip(*nodes, strict=True)):
            if len({(node.name, node.inputs) for node in alike}) > 1:
                raise Varies(f"names: {', '.join(node.name for node in alike)}")
            self._found.place = alike[0].name
            recipe = self._learnt([node.layer for node in alike])
            if not isinstance(recipe, Same):
                layers[number] = recipe
        return layers

    def _learn_core(self, laid: Sequence[Laid]) -> None:
        """Learn what the core takes, and which layers have to say it anew."""
        self._fusions = [self._learnt(alike) for alike in zip(*(each.fusions for each in laid), strict=True)]
        self._lowered = one = laid[0].lowered
        self._core_layers = self._learnt_layers([each.lowered.graph.nodes for each in laid])
        if any((each.lowered.values, each.lowered.rows, each.lowered.orders.of, each.lowered.orders.taken)
               != (one.values, one.rows, one.orders.of, one.orders.taken) for each in laid):  # fmt: skip
            raise Varies("orders of axes")
        self._layouts = self._learnt([each.lowered.layouts for each in laid])
        self._specs: dict[int, Recipe] = {}
        self._anew: dict[int, int] = {}  # by the core's number, the number of the node
        numbers = {row: number for number, row in enumerate(one.rows)}
        for row, alike in enumerate(zip(*(each.lowered.specs for each in laid), strict=True)):
            try:
                recipe = self._learnt(alike)
            except Varies:
                if row not in numbers or len({(spec[0], tuple(spec[2])) for spec in alike}) > 1:
                    raise
                self._anew[row] = numbers[row]
                continue
            if not isinstance(recipe, Same):
                self._specs[row] = recipe

    def execution(self, length: int) -> Execution | None:
        """Return the network for a length, None where it has to be read."""
        try:
            return self.at(length)
        except (Varies, UnsupportedLayer, ValueError):  # the reader says what is wrong, if anything is
            return None

    def at(self, length: int) -> Execution:
        """Return the network for a length.

        Raises
        ------
        Varies
            If the model computes something else of this length than was learnt.
        UnsupportedLayer, ValueError
            If it can't compute with this length.
        """
        constants = self._constants(length)
        nodes = _changed(self._graph.nodes, self._layers, length, constants)
        facts = replace(self._graph.facts, sides=self._sides_at(length, constants))
        shapes = self._shapes.at(length, constants)
        _require_shapes(nodes, shapes)
        graph = self._graph.resized(self._inputs.at(length, constants), nodes, shapes, facts)
        fusions = [recipe.at(length, constants) for recipe in self._fusions]
        lowered = self._lowered_at(length, constants, graph)
        return Execution(Laid(graph, fusions, lowered), self._like)

    def _constants(self, length: int) -> dict[str, Any]:
        """Return the model's constants for a length, which must be those that were learnt."""
        constants: dict[str, Any] = self._replay.constants(self._sources.at(length, {}))
        for name, recipe in self._checked.items():
            first, second, per_sample = recipe.at(length, {})
            made = constants[name]
            if made.per_sample != per_sample or not (_alike(made.first, first) and _alike(made.second, second)):
                raise Varies(f"constant {name!r} for {length}")
        return constants

    def _lowered_at(self, length: int, constants: dict[str, Any], graph: Graph) -> Lowered:
        one = self._lowered
        nodes = _changed(one.graph.nodes, self._core_layers, length, constants)
        layouts, specs = self._layouts.at(length, constants), list(one.specs)
        for row, recipe in self._specs.items():
            specs[row] = recipe.at(length, constants)
        for row, number in self._anew.items():
            node = nodes[number]
            given, taken = tuple(graph.shapes[value] for value in node.inputs), tuple(one.orders.taken[node.name])
            place = Place(node.name, given, graph.shapes[node.name], graph.dtype, taken, one.orders.of[node.name])
            kind, fields = node.layer.to_core(place)
            if kind != specs[row][0]:
                raise Varies(f"what {node.name!r} is in the core")
            specs[row] = kind, fields, specs[row][2]
        core = _core.Graph(graph.dtype.name, layouts, specs)
        return one._replace(core=core, graph=graph.with_shared_storage(nodes), layouts=layouts, specs=specs)


def _words(graph: Graph) -> tuple[Any, ...]:
    """Return what must be the same for all lengths."""
    return graph.notes, graph.outputs, graph.output_values, graph.facts.classes, graph.facts.top


def _changed(
    nodes: Sequence[Node], recipes: Mapping[int, Recipe], length: int, constants: dict[str, Any]
) -> list[Node]:
    made = list(nodes)
    for number, recipe in recipes.items():
        made[number] = replace(made[number], layer=recipe.at(length, constants))
    return made


def _alike(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _require_shapes(nodes: Sequence[Node], shapes: Mapping[str, Shape]) -> None:
    """Raise Varies where a layer makes another shape than was learnt."""
    known: dict[tuple[Any, ...], Shape] = {}
    for node in nodes:
        given = tuple(shapes[value] for value in node.inputs)
        key = id(node.layer), given
        if key not in known:
            known[key] = node.layer.output_shape(*given)
        if known[key] != shapes[node.name]:
            raise Varies(f"the shape of {node.name!r}")
