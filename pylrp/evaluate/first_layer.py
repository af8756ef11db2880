"""Pixel flipping through a network that begins with a dense layer: its outputs are updated by the changed inputs.

A step changes few inputs, and so ``z = W x + b`` by the weights of these alone; the rest of the network then takes z.
``flipping.py`` asks :meth:`FirstLayer.of` whether a network has it; where not, every state is predicted as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pylrp.evaluate.evaluated_batch import Array, EvaluatedBatch, Values
from pylrp.evaluate.regions import Index
from pylrp.layers import Dense
from pylrp.layers.base import product
from pylrp.layers.movement import Movement
from pylrp.network.graph import Graph, Node
from pylrp.network.layout import positions
from pylrp.network.network import Network

__all__ = ["FirstLayer"]

_FEWEST_STEPS = 24  # with fewer the compiled core predicts everything as fast
_LARGEST = 1 << 26  # weights: they are copied, transposed
_NUMBERS = 1 << 18  # of weights that are gathered at a time: they stay in a core's cache


@dataclass(frozen=True)
class FirstLayer:
    """A dense layer at the input, apart from the network behind it.

    Attributes
    ----------
    evaluated : EvaluatedBatch
    weight : ndarray of shape (n, n_out)
        A row for each number of a flat sample.
    first : Network
        The layer itself. NumPy's product would do, but its threads keep spinning and slow those of the core down.
    index : ndarray of shape (n,)
        Which number of a sample is which input of ``first``.
    rest : Network
        Takes z, and has the output of the whole.
    """

    evaluated: EvaluatedBatch
    weight: Array
    first: Network
    index: Index
    rest: Network

    @classmethod
    def of(cls, evaluated: EvaluatedBatch, steps: int) -> FirstLayer | None:
        """Return the first layer of the network; None if it has none, or too few steps are to be taken."""
        graph = evaluated.net.graph
        found = _dense_at_the_input(graph)
        if steps < _FEWEST_STEPS or found is None:
            return None
        passed, node, index = found
        behind = [each for each in graph.nodes if each.name not in passed]
        layer = node.layer
        assert isinstance(layer, Dense)
        given = np.asarray(layer.weight)
        if not behind or given.size > _LARGEST:
            return None
        weight = np.empty(given.shape[::-1], given.dtype)
        weight[index] = given.T
        rest = Graph({node.name: graph.shapes[node.name]}, behind, graph.output_values, dtype=graph.dtype)
        first = Network([Dense(given, layer.bias)])
        return cls(evaluated, weight, first, index, Network.from_graph(rest, keep_top=True))

    def states(self, start: Array, end: Array, order: Index, counts: Index) -> Iterator[tuple[Values, Index]]:
        """Yield z of all samples on their way from ``start`` to ``end``, and which of them a step has changed.

        The array is the same one each time; sums are carried in float64.

        Parameters
        ----------
        start, end : ndarray of shape (batch, n)
        order : ndarray of shape (batch, m)
            Which number of a sample is replaced after which. One may come again right behind itself.
        counts : ndarray of shape (steps + 1,)
            How many of them are replaced after each step, from 0, rising to m.
        """
        change = np.take_along_axis(end, order, axis=1) - np.take_along_axis(start, order, axis=1)
        change[:, 1:][order[:, 1:] == order[:, :-1]] = 0
        changed = np.logical_or.reduceat(change != 0, counts[:-1], axis=1)
        z = self.first.forward(start[:, self.index]).astype(np.float64)
        yield z, np.arange(len(start))
        for step, (low, high) in enumerate(itertools.pairwise(counts)):
            rows = np.flatnonzero(changed[:, step])
            size = max(1, _NUMBERS // ((high - low) * self.weight.shape[1]))
            for i in range(0, len(rows), size):
                # Without gaps a slice, which copies nothing.
                part = slice(i, min(i + size, len(rows))) if len(rows) == len(z) else rows[i : i + size]
                columns = self.weight.take(order[part, low:high], axis=0)
                z[part] += (change[part, None, low:high] @ columns)[:, 0]
            yield z, rows


def _dense_at_the_input(graph: Graph) -> tuple[set[str], Node, Index] | None:
    """Return the dense layer that alone takes the input, maybe reshaped, and which number of a sample each of its is.

    First come the names of the values up to its own.
    """
    ((value, shape),) = graph.inputs.items()
    n = product(shape)
    index: Index = positions(shape) if value in graph.channels_last else np.arange(n, dtype=np.int64).reshape(shape)
    passed: set[str] = set()
    while len(users := graph.consumers(value)) == 1 and value not in graph.output_values.values():
        node = users[0][0]
        value = node.name
        passed.add(value)
        if isinstance(node.layer, Dense):
            whole = index.size == n and np.array_equal(np.sort(index), np.arange(n))
            return (passed, node, index) if whole else None
        if not isinstance(node.layer, Movement):
            return None
        index = node.layer.move(index)
    return None
