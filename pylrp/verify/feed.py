"""What a model file takes for some of a network's samples: by its own names, with the batch where it has it.

``against.py`` runs the file on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pylrp.network.graph import Graph
from pylrp.network.requests import Inputs
from pylrp.verify.matching import input_pairs
from pylrp.verify.program import Array, Program

__all__ = ["Feed"]

_JOINED = 5  # axes of earlier keys and values in one input, (2, batch, heads, tokens, width)


@dataclass
class Feed:
    """A network's input for a program.

    Parameters
    ----------
    program : Program
    graph : Graph
        The network's.
    inputs : Inputs
        What the network was given.
    """

    program: Program
    graph: Graph
    inputs: Inputs

    def chunks(self) -> Iterator[tuple[Array, int]]:
        """Yield the rows of each run of the model, and how many of them count: a file may fix its batch."""
        batch, sizes = self.inputs.batch, self._fixed
        size = next(iter(sizes)) if len(sizes) == 1 else max(batch, 1)
        size = 1 if self.program.scales_follow_values or self.without_batch else size
        for first in range(0, batch, size):
            rows = np.arange(first, first + size)
            yield np.minimum(rows, batch - 1), min(size, batch - first)

    @cached_property
    def without_batch(self) -> set[str]:
        """Return the file's inputs of a single sequence, which have no axis for the batch."""
        return {
            value
            for value, name in self._pairs.items()
            if len(self.program.inputs[value]) == len(self.graph.shapes[name]) == 2 and self.program.is_recurrent
        }

    @cached_property
    def _pairs(self) -> dict[str, str]:
        return input_pairs(self.program, self.graph)

    @cached_property
    def _shared(self) -> set[str]:
        """Return the inputs that the file has once for all samples."""
        sides = self.graph.facts.sides
        return set() if sides is None else {name for name, side in sides.inputs.items() if not side.batched}

    @property
    def fixes_batch(self) -> bool:
        """Whether the file says how many samples there are."""
        return bool(self._fixed)

    @property
    def _fixed(self) -> set[int]:
        given = ((name, shape) for name, shape in self.program.inputs.items() if shape and name not in self._shared)
        return {size for name, shape in given if (size := shape[self._axis(name)]) is not None}

    def _axis(self, name: str) -> int:
        """Return the axis of the batch in an input of the file."""
        return self.graph.facts.batch_axes.get(self._pairs.get(name, name), 0)

    def given(self, rows: Array) -> dict[str, Array]:
        """Return what the model takes for some samples."""
        given: dict[str, Array] = {}
        for name, sizes in self.program.inputs.items():
            own = self._pairs.get(name)
            if own is not None:
                array = self.inputs.logical(own).astype(np.float64)
                array = array[None] if self.inputs.single else array
                if own in self.graph.channels_last and not _fits(array.shape[1:], sizes[1:]):
                    array = np.asarray(self.inputs.given[own], np.float64)
                    array = array[None] if self.inputs.single else array
                array = np.moveaxis(array[rows], 0, self._axis(name))
                given[name] = array[0] if name in self.without_batch else array
            elif name in self.inputs.given:  # token ids, or a mask
                array = np.asarray(self.inputs.given[name])
                array = (array[None] if self.inputs.single else array)[rows]
                given[name] = array[0] if name in self._shared else array
            else:  # it changes no output, or holds no tokens
                past = self.graph.facts.sides is not None and name in self.graph.facts.sides.past
                joined = past and len(sizes) == _JOINED and sizes[0] == 2
                shape = [n or (0 if past else 1) for n in sizes]
                shape[1 if joined else 0] = len(rows)
                given[name] = np.zeros(shape)
        return given


def _fits(shape: tuple[int, ...], sizes: list[int | None]) -> bool:
    return len(shape) == len(sizes) and all(want in (None, n) for n, want in zip(shape, sizes, strict=True))
