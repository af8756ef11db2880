"""What positions took of the relevance, token by token: constants that differ along the tokens, rows counted in a mask.

``explain.py`` asks for the relevance and the values that are needed; the ledger's column ``position`` has the sums of
the constants, from the core. A table that is looked up with numbers which come from no input's ids (counted in a mask,
as RoBERTa's positions are) belongs to no input: its relevance is that of the positions, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pylrp.layers import Shift
from pylrp.layers.base import Array, product
from pylrp.network.graph import Graph
from pylrp.network.prepared import Prepared
from pylrp.network.requests import Inputs
from pylrp.rules.conventions import CONVENTIONS
from pylrp.rules.terms import Group

__all__ = ["Positions"]

#: Entries whose shares are computed together, in float64: beside the values of a long text they take no memory.
_AT_ONCE = 1 << 16


class Positions:
    """What a graph adds by position, under some rules.

    Parameters
    ----------
    graph : Graph
    prepared : Prepared
    convention : str
    absorbed : mapping
        Values that have no relevance of their own.

    Attributes
    ----------
    values : list of str
        Those whose values and relevance are needed.
    """

    def __init__(self, graph: Graph, prepared: Prepared, convention: str, absorbed: Mapping[str, Any]):
        self._graph, self._rules, self._convention = graph, prepared.assignment.rules, convention
        self._shifts = {
            node.name: node.layer
            for node in graph.nodes
            if isinstance(node.layer, Shift) and node.layer.position and node.name not in absorbed
        }
        self.values = list(self._shifts)
        sides = graph.facts.sides
        self._tables = (
            []
            if sides is None
            else [name for name, feed in sides.feeds.items() if feed.table is not None and feed.source is None]
        )

    def took(self, inputs: Inputs, values: Mapping[str, Array], relevance: Mapping[str, Array], count: int) -> Any:
        """Return the relevance of positions.

        Parameters
        ----------
        inputs : Inputs
        values : mapping of str to ndarray
            (batch, size), of ``self.values``.
        relevance : mapping of str to ndarray
            (count * batch, size), of the same and of the graph's inputs.
        count : int
            Targets.

        Returns
        -------
        ndarray of shape (count * batch, tokens), or dict of them by layer, or None
            Zeros where the network takes ids and adds nothing by position; a dict where there are several lengths;
            None where it has no tokens.
        """
        if not self.values and not self._tables:
            tokens = self._tokens()
            return None if tokens is None else np.zeros((count * inputs.batch, tokens), inputs.dtype)
        shapes = self._graph.shapes
        found = {name: self._of_shift(name, values[name], relevance[name], count) for name in self.values}
        found |= {name: relevance[name].reshape(-1, *shapes[name]).sum(axis=-1) for name in self._tables}
        found = {name: array.reshape(len(array), product(array.shape[1:])) for name, array in found.items()}
        lengths = {array.shape[1] for array in found.values()}
        if len(lengths) > 1:
            return found
        return np.asarray(sum(found.values()))

    def _of_shift(self, name: str, values: Array, relevance: Array, count: int) -> Array:
        """Return ``m R / stab(x + m)``, summed over the features."""
        shape, rule = self._graph.shapes[name], self._rules.get(name)
        if rule is None or rule.passes:
            return np.zeros((len(relevance), shape[0]), relevance.dtype)
        group = CONVENTIONS[self._convention](rule)[0]
        shift = np.broadcast_to(np.asarray(self._shifts[name].shift), shape).reshape(-1, shape[-1])
        took = np.empty((len(relevance), len(shift)), relevance.dtype)
        rows, places = max(1, _AT_ONCE // shift.size), max(1, _AT_ONCE // shape[-1])
        for row in range(0, len(relevance), rows):
            of = np.arange(row, min(row + rows, len(relevance))) % len(values)
            for place in range(0, len(shift), places):
                part = slice(place * shape[-1], (place + places) * shape[-1])
                m = shift[place : place + places].reshape(-1).astype(np.float64)
                each = _shares(values[of, part], m, relevance[row : row + rows, part], group)
                took[row : row + rows, place : place + places] = each.reshape(len(of), -1, shape[-1]).sum(axis=-1)
        return took.reshape(-1, *shape[:-1])

    def _tokens(self) -> int | None:
        sides = self._graph.facts.sides
        if sides is None:
            return None
        for feed in sides.feeds.values():
            if feed.source is not None:
                return int(np.prod(sides.inputs[feed.source].shape))
        return None


def _shares(values: Array, shift: Array, relevance: Array, group: Group) -> Array:
    """Return ``m R / stab(x + m)`` in float64, 0 where there is no sum."""
    z = values.astype(np.float64)
    if group.guard == "where_zero":
        stable = np.where(z == 0, group.stabilizer, z)
    else:
        stable = z + np.where(z < 0, -group.stabilizer, group.stabilizer)
    shares = np.zeros_like(z)
    np.divide(shift * relevance, stable, out=shares, where=(z != 0) & (relevance != 0))
    return shares
