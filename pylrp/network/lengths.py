"""Networks whose inputs have axes of any length: one graph for each length, made when it comes, weights shared.

A loader that can read a model for other lengths leaves a :class:`Lengths` with the graph. ``network.py`` asks for the
execution that fits an input.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pylrp import _core
from pylrp.errors import UnfitInput, UnfitLength, UnsupportedLayer
from pylrp.layers import Shape
from pylrp.layers.base import product
from pylrp.network.sides import without_past

if TYPE_CHECKING:
    from pylrp.network.execution import Execution
    from pylrp.network.graph import Graph
    from pylrp.network.patterns import Pattern, Reading

__all__ = ["ByLength", "Lengths"]

#: What may be kept for lengths, in bytes, and how many; the one that was used longest ago goes.
MOST_BYTES, MOST = 128 << 20, 32
#: Of a node: its objects in Python and in the core, measured.
_NODE = 8 << 10
#: Larger arrays are weights, which all lengths share.
_SHARED = 1 << 16
#: How often it is tried to learn from a reading what other lengths are.
_MOST_TRIES = 2


@dataclass(frozen=True, eq=False)
class Lengths:
    """What a loader knows of a model whose inputs may have other lengths.

    Attributes
    ----------
    shapes : mapping of str to tuple of int
        Of the inputs, as users see them, for which the graph was made.
    free : mapping of str to mapping of int to str
        By input and axis of a sample: what the size is called; equal names are equal sizes, an empty one is any.
    read : callable, optional
        Makes the graph for other shapes, by input. Default: its layers are the same for all of them.
    again : callable, optional
        Returns the model as bytes, and the options with which it was read; for saving. Default: the layers are saved.
    keep_top : bool
        Whether a function at the top is kept, where the model was saved so.
    past : tuple of str
        Inputs that must be empty, as in :class:`Sides`.
    """

    shapes: Mapping[str, Shape]
    free: Mapping[str, Mapping[int, str]]
    read: Callable[[Mapping[str, Shape]], Graph] | None = None
    again: Callable[[], tuple[bytes, dict[str, Any]]] | None = None
    keep_top: bool = False
    past: tuple[str, ...] = ()

    def said(self, name: str) -> str:
        """Return the shape that an input must have, in words."""
        sizes = ("any length" if axis in self.free[name] else str(n) for axis, n in enumerate(self.shapes[name]))
        return f"(batch, {', '.join(sizes)})"

    def of(self, x: Any) -> dict[str, Shape] | None:
        """Return the shapes of a user's inputs; None where they are no inputs of this network at all.

        Raises
        ------
        UnfitInput
            If sizes that must be equal are not, or one is 0.
        """
        names = list(self.shapes)
        if isinstance(x, Mapping):
            given = dict(without_past(x, self.past))
        elif isinstance(x, tuple) and len(names) > 1:
            given = dict(zip(names, x, strict=False))
        else:
            given = {names[0]: x} if len(names) == 1 else {}
        if set(given) != set(names):
            return None
        found: dict[str, Shape] = {}
        sizes: dict[str, tuple[str, int]] = {}
        for name, expected in self.shapes.items():
            shape = self._shape(name, given[name])
            own = shape[len(shape) - len(expected) :]
            made = list(expected)
            for axis, symbol in self.free[name].items():
                made[axis] = own[axis]
                if own[axis] < 1:
                    raise UnfitInput(f"{name} has shape {shape}: axis {axis} of a sample is empty", name, shape)
                other, size = sizes.setdefault(symbol, (name, own[axis])) if symbol else (name, own[axis])
                if size != own[axis]:
                    said = f"{name} has length {own[axis]}, {other} has length {size}: they must be equal"
                    raise UnfitInput(said, name, shape)
            found[name] = tuple(made)
        return found

    def _shape(self, name: str, value: Any) -> Shape:
        """Return the shape of an input as it was given, with or without the batch."""
        try:
            shape: Shape = tuple(np.shape(value))
        except ValueError:  # a list of lists of unequal length
            raise UnfitInput(
                f"{name} is no array, its rows differ in length: pass a list of samples, "
                f"[{{{name!r}: ..., ...}}, ...], each of its own length",
                name,
            ) from None
        if len(shape) - len(self.shapes[name]) not in (0, 1):
            what = "x" if len(self.shapes) == 1 else f"x[{name!r}]"
            raise UnfitInput(f"{what} has shape {shape}, the network takes {self.said(name)}", name, shape)
        return shape


class Patterns(Protocol):
    """Makes executions of graphs as they were read, and learns from them what those for other lengths are."""

    def reading(self, length: int, graph: Graph) -> Reading:
        """Return a graph laid out, with what the loader noted."""

    def learnt(self, readings: Sequence[Reading]) -> Pattern | None:
        """Return the pattern of three readings, None where there is none."""


class ByLength:
    """The executions of a network, by the shapes of its inputs.

    Parameters
    ----------
    graph : Graph
        As a loader made it, with :class:`Lengths` among its facts.
    patterns : Patterns
    """

    def __init__(self, graph: Graph, patterns: Patterns):
        lengths = graph.facts.lengths
        assert lengths is not None  # the caller looked
        self._lengths, self._patterns = lengths, patterns
        self._read = lengths.read or (lambda shapes: graph.changed(inputs=shapes))
        self._known: OrderedDict[tuple[tuple[str, Shape], ...], _Kept] = OrderedDict()
        self._lock, self._learning = threading.Lock(), threading.Lock()
        self._pattern: Pattern | None = None
        self._tries = _MOST_TRIES if lengths.read is not None and len(_symbols(lengths)) == 1 else 0

    @property
    def nbytes(self) -> int:
        """Return what is kept for lengths, about: memory that each has of its own."""
        return sum(kept.nbytes for kept in self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def of(self, x: Any, usual: Execution) -> Execution:
        """Return the execution for a user's inputs; the usual one where that fits, or nothing does.

        Raises
        ------
        ValueError
            If the network can't take inputs of these lengths.
        """
        shapes = self._lengths.of(x)
        if shapes is None or shapes == dict(self._lengths.shapes):
            return usual
        key = tuple(shapes.items())
        with self._lock:
            kept = self._known.get(key)
        if kept is None:
            kept = _Kept(self._made(shapes))
        with self._lock:
            self._known[key] = kept
            self._known.move_to_end(key)
            while len(self._known) > 1 and (self.nbytes > MOST_BYTES or len(self._known) > MOST):
                self._known.popitem(last=False)
        return kept.execution

    def _made(self, shapes: dict[str, Shape]) -> Execution:
        length = self._length(shapes)
        if self._pattern is not None and length > 1:
            made = self._pattern.execution(length)
            if made is not None:
                return made
        try:
            graph = self._read(shapes)
            reading = self._patterns.reading(length, graph)
        except (UnsupportedLayer, ValueError) as error:
            raise self._unfit(shapes, length, error) from error
        if (
            self._tries
            and self._pattern is None
            and length > 1
            and reading.trace is not None
            and self._learning.acquire(blocking=False)
        ):
            try:
                self._tries -= 1
                self._pattern = self._learnt(reading)
            finally:
                self._learning.release()
        return reading.execution

    def _unfit(self, shapes: dict[str, Shape], length: int, error: ValueError) -> UnfitInput:
        """Return what to say of shapes that the model was not read for."""
        reason = error.sentence if isinstance(error, UnsupportedLayer) else str(error)
        fits = self._length(self._lengths.shapes)
        if not length or not fits:
            sizes = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            return UnfitInput(f"the network can't take inputs of these lengths, {sizes}: {reason}")
        fails, step = length, 1 if length > fits else -1
        while abs(fails - fits) > 1:  # in growing steps: for lengths far beyond a bound much would be laid out
            tried = fits + step
            if abs(tried - fits) >= abs(fails - fits):
                tried, step = (fits + fails) // 2, step // abs(step)
            try:
                self._read(self._shapes(tried))
                fits, step = tried, 2 * step
            except (UnsupportedLayer, ValueError):
                fails, step = tried, step // abs(step)
        bound = f"at most {fits}: cut them, or explain them in parts" if fits < length else f"at least {fits}"
        return UnfitLength(f"the network can't take inputs of length {length}, it takes {bound}", length, fits)

    def _length(self, shapes: Mapping[str, Shape]) -> int:
        """Return the size of the axes of any length; 0 where there are several."""
        sizes = {shapes[name][axis] for name, axes in self._lengths.free.items() for axis in axes}
        return sizes.pop() if len(sizes) == 1 else 0

    def _learnt(self, reading: Reading) -> Pattern | None:
        """Return the pattern of a reading and two more, of a length beside it and a longer or shorter one."""
        length = reading.length
        for others in ((length + 1, length + 3), (length - 1, length - 3)):
            if min(others) > 1:
                with suppress(UnsupportedLayer, ValueError):  # a table may have no more positions
                    more = [self._patterns.reading(other, self._read(self._shapes(other))) for other in others]
                    return self._patterns.learnt([reading, *more])
        return None

    def _shapes(self, length: int) -> dict[str, Shape]:
        free = self._lengths.free
        return {
            name: tuple(length if axis in free[name] else n for axis, n in enumerate(shape))
            for name, shape in self._lengths.shapes.items()
        }


def _symbols(lengths: Lengths) -> set[str]:
    """Return what the sizes of free axes are called, each one without a name for itself."""
    return {
        symbol or f"{name} {axis}" for name, axes in lengths.free.items() for axis, symbol in axes.items()
    }  # fmt: skip


class _Kept:
    """An execution and what it takes: its own arrays, its nodes, the values of the largest batch that it has run."""

    def __init__(self, execution: Execution):
        self.execution = execution
        graph = execution.graph
        own: dict[int, int] = {}
        for node in graph.nodes:
            for array in vars(node.layer).values():
                if isinstance(array, np.ndarray) and array.size <= _SHARED:
                    own[id(array)] = array.nbytes
        self._fixed = sum(own.values()) + _NODE * len(graph.nodes)
        self._values = sum(product(shape) for shape in graph.shapes.values()) * graph.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self._fixed + min(_core.kept_memory_limit(), self.execution.largest_batch * self._values)
