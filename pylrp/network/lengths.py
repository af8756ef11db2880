"""Networks whose inputs have axes of any length: one graph for each length, made when it comes, weights shared.

A loader that can read a model for other lengths leaves a :class:`Lengths` with the graph. ``network.py`` asks for the
execution that fits an input.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pylrp.errors import UnsupportedLayer
from pylrp.layers import Shape
from pylrp.layers.base import product
from pylrp.network.sides import without_past

if TYPE_CHECKING:
    from pylrp.network.execution import Execution
    from pylrp.network.graph import Graph

__all__ = ["ByLength", "Lengths"]

#: What may be kept for lengths, in bytes, and how many; the one that was used longest ago goes.
MOST_BYTES, MOST = 128 << 20, 32
#: Of a node: its objects in Python and in the core, measured.
_NODE = 8 << 10
#: Larger arrays are weights, which all lengths share.
_SHARED = 1 << 16
#: What the core keeps of a workspace between calls, csrc/base/buffer.hpp.
_WORKSPACE = 192 << 20


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

    def of(self, x: Any) -> dict[str, Shape] | None:
        """Return the shapes of a user's inputs; None where they are no inputs of this network at all.

        Raises
        ------
        ValueError
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
            shape = np.shape(given[name])
            own = shape[len(shape) - len(expected) :] if len(shape) >= len(expected) else ()
            if len(shape) not in (len(expected), len(expected) + 1):
                return None
            made = list(expected)
            for axis, symbol in self.free[name].items():
                made[axis] = own[axis]
                if own[axis] < 1:
                    raise ValueError(f"{name} has shape {shape}: axis {axis} of a sample is empty")
                other, size = sizes.setdefault(symbol, (name, own[axis])) if symbol else (name, own[axis])
                if size != own[axis]:
                    raise ValueError(f"{name} has length {own[axis]}, {other} has length {size}: they must be equal")
            found[name] = tuple(made)
        return found


class ByLength:
    """The executions of a network, by the shapes of its inputs.

    Parameters
    ----------
    graph : Graph
        As a loader made it, with :class:`Lengths` among its facts.
    make : callable
        Returns the execution of such a graph.
    """

    def __init__(self, graph: Graph, make: Callable[[Graph], Execution]):
        lengths = graph.facts.lengths
        assert lengths is not None  # the caller looked
        self._lengths, self._make = lengths, make
        self._read = lengths.read or (lambda shapes: graph.changed(inputs=shapes))
        self._known: OrderedDict[tuple[tuple[str, Shape], ...], _Kept] = OrderedDict()
        self._lock = threading.Lock()

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
        kept.note(_batch(x, shapes))
        with self._lock:
            self._known[key] = kept
            self._known.move_to_end(key)
            while len(self._known) > 1 and (self.nbytes > MOST_BYTES or len(self._known) > MOST):
                self._known.popitem(last=False)
        return kept.execution

    def _made(self, shapes: dict[str, Shape]) -> Execution:
        try:
            made = self._make(self._read(shapes))
        except (UnsupportedLayer, ValueError) as error:
            sizes = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ValueError(f"the network can't take inputs of these lengths, {sizes}: {error}") from error
        return made


class _Kept:
    """An execution and what it takes: its own arrays, its nodes, the values of the largest batch so far."""

    def __init__(self, execution: Execution):
        self.execution = execution
        self._batch = 1
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
        return self._fixed + min(_WORKSPACE, self._batch * self._values)

    def note(self, batch: int) -> None:
        """Note how many samples come at once."""
        self._batch = max(self._batch, batch)


def _batch(x: Any, shapes: Mapping[str, Shape]) -> int:
    """Return how many samples a user's input has."""
    name, shape = next(iter(shapes.items()))
    value = x[name] if isinstance(x, Mapping) else x[0] if isinstance(x, tuple) else x
    given = np.shape(value)
    return 1 if len(given) == len(shape) else given[0]
