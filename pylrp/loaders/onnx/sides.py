"""Token ids and masks of an ONNX model: what is computed of them becomes a program, what activations need of it inputs.

``onnx/reader.py`` hands over the nodes that take no activation; the operators ask for a side value where an activation
meets one. ``network/sides.py`` is the program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pylrp.layers import Shape
from pylrp.layers.base import product
from pylrp.loaders.onnx.constants import BATCHES, Constant
from pylrp.loaders.onnx.views import Size, Times, View
from pylrp.network.side_operators import OPERATORS
from pylrp.network.sides import Feed, Fixed, SideInput, Sides, Step, run

__all__ = ["SIDE_KINDS", "SideValues"]

Array = NDArray[Any]

#: Types of inputs that are no activations.
SIDE_KINDS = {
    **dict.fromkeys(
        (
            TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
            TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
        ),
        "int",
    ),
    TensorProto.BOOL: "bool",
}  # fmt: skip
#: Batches that a program is tried with, to learn the sizes of what it makes.
_TRIALS = (2, 3)
#: Operators behind which an entry is still the id that it was, in its place or another.
_SAME = {"Cast", "Dropout", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
_MOVES = {*_SAME, "Concat", "Gather", "GatherElements", "GatherND", "Pad", "ScatterND", "Split", "Tile"}


@dataclass
class SideValues:
    """The side values of a model while it is read.

    Attributes
    ----------
    inputs : dict of str to SideInput
    steps : list of Step
    feeds : dict of str to Feed
    """

    inputs: dict[str, SideInput] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    feeds: dict[str, Feed] = field(default_factory=dict)
    _tried: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    _origin: dict[str, str] = field(default_factory=dict)
    #: Values with ids that do not stand where they stood.
    _moved: set[str] = field(default_factory=set)
    #: The inputs that each is computed of.
    _inputs: dict[str, frozenset[str]] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self._tried

    def add_input(self, name: str, shape: Shape, kind: str, batched: bool) -> None:
        """Note an input of whole numbers, of truth values, or a mask that is added."""
        self.inputs[name] = SideInput(shape, kind, batched)
        dtype = {"int": np.int64, "bool": np.bool_, "float": np.float32}[kind]
        first, second = ((n, *shape) if batched else shape for n in _TRIALS)
        self._tried[name] = np.zeros(first, dtype), np.zeros(second, dtype)
        self._origin[name] = name
        self._inputs[name] = frozenset({name})

    def step(
        self, op: str, attributes: Mapping[str, Any], inputs: Sequence[str | Constant | None], output: str
    ) -> None:
        """Add what a node computes.

        Raises
        ------
        KeyError
            If the operator is not known.
        ValueError
            If it can't be computed, or its size follows the values of its inputs.
        """
        settings = dict(attributes)
        if op not in OPERATORS:
            raise KeyError(op)
        if op == "Cast":
            kind = np.dtype(helper.tensor_dtype_to_np_dtype(settings["to"])).name
            settings = {"to": "float32" if kind in ("float16", "bfloat16") else kind}  # as all that has 16 bits
        given = tuple(fixed(each) if isinstance(each, Constant) else each for each in inputs)
        step = Step(op, given, output, settings)
        trial = replace(step, attributes=settings | {"trial": True})  # what is tried has no ids of a user's
        first, second = (
            run(trial, {name: tried[i] for name, tried in self._tried.items()}, batch)
            for i, batch in enumerate(_TRIALS)
        )
        self.steps.append(step)
        self._tried[output] = first, second
        sources = [each for each in given if isinstance(each, str)]
        self._inputs[output] = frozenset().union(*(self._inputs[each] for each in sources))
        of_ids = [each for each in sources if each in self._origin or each in self._moved]
        if op in _SAME and sources and sources[0] in self._origin and self._in_place(trial, sources[0]):
            self._origin[output] = self._origin[sources[0]]
        elif op in _MOVES and of_ids and given[0] in of_ids:
            self._moved.add(output)

    def _in_place(self, trial: Step, source: str) -> bool:
        """Tell whether a step leaves all entries of a value where they are, one after the other."""
        made, numbers = [], []
        for i, batch in enumerate(_TRIALS):
            tried = self._tried[source][i]
            numbers.append(np.arange(tried.size).reshape(tried.shape))
            given = {name: each[i] for name, each in self._tried.items()} | {source: numbers[-1]}
            made.append(run(trial, given, batch))
        if self._tried[source][0].dtype.kind == "b":
            return bool(made[0].size == numbers[0].size)
        return np.array_equal(_by_sample(made), _by_sample(numbers))

    def sizes(self, name: str) -> list[Size]:
        """Return the sizes of a side value's axes in the file.

        Raises
        ------
        ValueError
            If one follows neither the model nor the batch.
        """
        found: list[Size] = []
        for one, other in zip(*(tried.shape for tried in self._tried[name]), strict=True):
            factor = one // _TRIALS[0]
            if one != other and (factor * _TRIALS[0], factor * _TRIALS[1]) != (one, other):
                raise ValueError(f"{name!r} has an axis whose size follows its values")
            found.append(one if one == other else Times(factor))
        return found

    def is_float(self, name: str) -> bool:
        """Tell whether a side value is of a floating-point type."""
        return self._tried[name][0].dtype.kind == "f"

    def source(self, name: str) -> str | None:
        """Return the input whose ids a side value is, None where it is computed of several or of comparisons."""
        return self._origin.get(name)

    def has_moved_ids(self, name: str) -> bool:
        """Tell whether a side value is made of ids that were cut out, joined or put elsewhere."""
        return name in self._moved

    def weighs(self, name: str) -> str | None:
        """Return the input of whole numbers for each entry of which a side value has weights along its last axis.

        One-hot rows for example, whose product with a matrix is a lookup. None where it is no such value.
        """
        found = self._inputs.get(name, frozenset())
        if len(found) != 1 or not self.is_float(name):
            return None
        (source,) = found
        given = self.inputs[source]
        fits = given.kind == "int" and self.sizes(name)[:-1] == [Times(), *given.shape]
        return source if fits else None

    def lookup(self, name: str, ids: str, table: Array) -> tuple[Shape, View]:
        """Feed the graph with the rows of a table that ids count, or weigh; return the shape, and where the batch is.

        Raises
        ------
        ValueError
            If the ids have no batch.
        """
        weighed = self.weighs(ids) if self.is_float(ids) else None
        sizes = self.sizes(ids)[:-1] if weighed else self.sizes(ids)
        batch = next((axis for axis, n in enumerate(sizes) if isinstance(n, Times)), None)
        source = weighed or self.source(ids)
        if batch is None and source is not None and not self.inputs[source].batched:  # the same for all samples
            shape = (*(n for n in sizes if isinstance(n, int)), *table.shape[1:])
            self.feeds[name] = Feed(self._with_batch(ids), 0, shape, Fixed(table), source)
            return shape, View()
        if batch is None or sizes[batch] != Times(1):
            raise ValueError("looks up ids that are not those of the samples")
        shape = (*(n for n in sizes if isinstance(n, int)), *table.shape[1:])
        self.feeds[name] = Feed(ids, batch, shape, Fixed(table), source)
        return shape, View(batch)

    def beside(self, name: str, side: str, shape: Shape, view: View, *, adds: bool) -> Shape | None:
        """Feed the graph with a side value that meets an activation; return its logical shape, None where it can't.

        Parameters
        ----------
        name : str
            Of the graph's input.
        side : str
        shape : tuple of int
            Of the activation.
        view : View
            Where its batch stands.
        adds : bool
            Whether it is added to the activation.
        """
        rank = view.rank(shape)
        sizes = self.sizes(side)
        if len(sizes) > rank or view.before:
            return None
        sizes = [*[1] * (rank - len(sizes)), *sizes]
        batch = sizes.pop(view.batch)
        merged = tuple(shape[axis] for axis in view.block())
        if not all(isinstance(n, int) for n in sizes) or batch not in (1, Times(product(merged))):
            return None
        inner = merged if isinstance(batch, Times) else (1,) * len(merged)
        own = [n for n in sizes if isinstance(n, int)]
        made: Shape = (*own[: view.batch], *inner, *own[view.batch :])
        if view.batch and view.merged:
            return None
        axis = view.batch - (rank - len(self.sizes(side)))
        if axis < 0:  # the same for all samples
            self.feeds[name] = Feed(self._with_batch(side), 0, made, adds=adds)
        else:
            self.feeds[name] = Feed(side, axis, made, adds=adds)
        return made

    def _with_batch(self, side: str) -> str:
        """Return a value that has an axis more in front: a batch of one."""
        value = f"{side}:first"
        if value not in self._tried:
            self.step("Unsqueeze", {"axes": [0]}, [side], value)
        return value

    def program(self, names: Sequence[str], past: tuple[str, ...] = ()) -> Sides | None:
        """Return the program, None where all inputs are activations; ``past`` are inputs that must be empty."""
        if not self.inputs:
            return None
        return Sides(tuple(names), dict(self.inputs), tuple(self._needed()), dict(self.feeds), past)

    def _needed(self) -> list[Step]:
        wanted = {feed.value for feed in self.feeds.values()}
        kept = []
        for step in reversed(self.steps):
            if step.output in wanted:
                kept.append(step)
                wanted.update(each for each in step.inputs if isinstance(each, str))
        return kept[::-1]


def _by_sample(arrays: Sequence[Array]) -> Array:
    """Return the entries of the first of two batches, sample after sample."""
    first, second = arrays
    axes = [axis for axis, (n, m) in enumerate(zip(first.shape, second.shape, strict=True)) if n != m]
    return np.ravel(first.transpose(sorted(range(first.ndim), key=lambda axis: axis not in axes[:1])))


def fixed(constant: Constant) -> Fixed:
    """Return a constant of the model as one of a program: what follows the batch is worked out for any."""
    if constant.per_sample and constant.axis:
        raise ValueError("takes an array whose batch is not its first axis")
    if constant.per_sample or not constant.follows_batch:
        return Fixed(constant.first, per_sample=constant.per_sample)
    slope = (constant.second - constant.first) // (BATCHES[1] - BATCHES[0])
    base = constant.first - slope * BATCHES[0]
    if not np.array_equal(base + slope * BATCHES[1], constant.second):
        raise ValueError("takes a number that does not grow with the batch")
    return Fixed(base, slope)
