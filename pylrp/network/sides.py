"""Side values: what a network makes of token ids and masks in NumPy, before the core runs. They carry no relevance.

An input of whole numbers or of truth values is no activation. What is computed of it (comparisons, shapes, masks) is a
program of steps; what the core needs of it is fed to the graph as an input of its own: a row of a table for each id,
whose relevance, summed over the features, belongs to the ids; a mask, which gets none. Loaders write the program
(``onnx/sides.py``), ``requests.py`` runs it; ``side_operators.py`` has the operators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import NotFinite, NotInVocabulary, UnfitInput, UnsupportedLayer
from pylrp.layers import Shape
from pylrp.layers.shift import closed
from pylrp.network.side_operators import OPERATORS, Attributes

__all__ = ["Feed", "Fixed", "SideInput", "Sides", "Step", "without_past"]

Array = NDArray[Any]


@dataclass(frozen=True)
class SideInput:
    """An input of whole numbers or truth values, or a mask that is added to scores.

    Attributes
    ----------
    shape : tuple of int
        Of a sample.
    kind : str
        "int", "bool" or "float".
    batched : bool
        Whether the model has one for each sample; else one for all of them: positions, a mask of places.
    """

    shape: Shape
    kind: str = "int"
    batched: bool = True


@dataclass(frozen=True, eq=False)
class Fixed:
    """A constant of a program.

    Attributes
    ----------
    array : ndarray
    by_batch : ndarray, optional
        What is added to it for each sample of the batch, where it counts samples.
    per_sample : bool
        Whether axis 0 grows with the batch; here it is as long as for one sample: 1, or the number of heads.
    """

    array: Array
    by_batch: Array | None = None
    per_sample: bool = False

    def for_batch(self, batch: int) -> Array:
        """Return it for a batch of so many samples."""
        if self.per_sample:
            if len(self.array) != 1:
                return np.tile(self.array, (batch, *(1,) * (self.array.ndim - 1)))
            return np.broadcast_to(self.array, (batch, *self.array.shape[1:]))
        return self.array if self.by_batch is None else self.array + batch * self.by_batch


@dataclass(frozen=True)
class Step:
    """An operator and what it takes: names of side values, constants, None where an optional input is missing."""

    op: str
    inputs: tuple[str | Fixed | None, ...]
    output: str
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class Feed:
    """What the core is fed with.

    Attributes
    ----------
    value : str
        The side value.
    axis : int
        Its axis with the batch, which comes first for the core.
    shape : tuple of int
        Of a sample, as the graph has it.
    table : Fixed or None
        The rows that the value counts, where it is a lookup; or that it weighs, one-hot for example.
    source : str or None
        The input to which the relevance of such a lookup belongs; None: to none.
    adds : bool
        Whether it is added: -inf closes a place then.
    """

    value: str
    axis: int
    shape: Shape
    table: Fixed | None = None
    source: str | None = None
    adds: bool = False


@dataclass(frozen=True)
class Sides:
    """Inputs that are no activations, and what is made of them.

    Attributes
    ----------
    names : tuple of str
        Of all inputs of the network as users see them, in order; those of activations are inputs of the graph.
    inputs : mapping of str to SideInput
        The others.
    steps : tuple of Step
    feeds : mapping of str to Feed
        By input of the graph.
    past : tuple of str
        Inputs of earlier tokens' keys and values: empty, or left out.
    """

    names: tuple[str, ...]
    inputs: Mapping[str, SideInput]
    steps: tuple[Step, ...]
    feeds: Mapping[str, Feed]
    past: tuple[str, ...] = ()

    @property
    def carrying(self) -> tuple[str, ...]:
        """Return the inputs that relevance belongs to, in order: activations, and ids of a lookup."""
        sources = {feed.source for feed in self.feeds.values()}
        return tuple(name for name in self.names if name not in self.inputs or name in sources)

    def fed(self, given: Mapping[str, Array], batch: int, dtype: np.dtype[Any]) -> dict[str, Array]:
        """Return the arrays for the graph's inputs, (batch, *shape) each.

        Parameters
        ----------
        given : mapping of str to ndarray
            (batch, *shape), checked.
        batch : int
        dtype : dtype

        Raises
        ------
        NotInVocabulary
            If an id is not in its table.
        NotFinite
            If a mask has a NaN, or +inf.
        UnfitInput
            If samples differ in what the model has one of for all.
        """
        values = {name: array if self.inputs[name].batched else _common(name, array) for name, array in given.items()}
        for step in self.steps:
            values[step.output] = run(step, values, batch)
        return {name: _array(feed, values[feed.value], batch, dtype) for name, feed in self.feeds.items()}

    def summed(self, source: str, feeds: Mapping[str, Array]) -> Array:
        """Return the relevance of ids: that of their rows, (..., *ids, features), summed over the features."""
        parts = [feeds[name].sum(axis=-1) for name, feed in self.feeds.items() if feed.source == source]
        return np.asarray(sum(parts[1:], start=parts[0]))


def _common(name: str, array: Array) -> Array:
    """Return what all samples share."""
    if not len(array):  # no samples
        return np.zeros(array.shape[1:], array.dtype)
    if not np.array_equal(array, np.broadcast_to(array[:1], array.shape), equal_nan=array.dtype.kind == "f"):
        text = f"{name} differs between samples, the model has one for all: explain those that share it together"
        raise UnfitInput(text, name, array.shape)
    return np.asarray(array[0])


def without_past(x: Any, past: Sequence[str]) -> Any:
    """Return a user's inputs without those of earlier tokens' keys and values, which must be empty.

    Raises
    ------
    UnsupportedLayer
        If one holds tokens: their relevance would end there.
    """
    if not past or not isinstance(x, Mapping):
        return x
    for name in past:
        if name in x and np.size(x[name]):
            reason = f"holds a past of shape {np.shape(x[name])}, in which relevance would end before its tokens"
            raise UnsupportedLayer(name, "input", reason, "pass all tokens in one call, and leave the past out")
    return {name: value for name, value in x.items() if name not in past}


def run(step: Step, values: Mapping[str, Array], batch: int) -> Array:
    """Return what a step makes.

    Raises
    ------
    NotInVocabulary
        If it looks up what an array does not have: a position beyond its table.
    ValueError
        If it takes an entry that the sample does not have.
    """
    arrays = [
        each.for_batch(batch) if isinstance(each, Fixed) else None if each is None else values[each]
        for each in step.inputs
    ]
    with np.errstate(all="ignore"):  # infinities and divisions by zero are looked at where they are fed
        try:
            return np.asarray(OPERATORS[step.op](step.attributes, *arrays))
        except IndexError as error:
            if step.op == "Places":
                raise ValueError(f"{step.inputs[0]!r}, which is computed of the inputs, {error}") from None
            if step.op != "Gather":
                raise
            table, ids = (np.asarray(array) for array in arrays)
            size = table.shape[step.attributes.get("axis", 0)]
            at = tuple(int(i) for i in np.argwhere((ids < -size) | (ids >= size))[0])
            name = next(each for each in reversed(step.inputs) if isinstance(each, str))
            raise NotInVocabulary(name, int(ids[at]), size, at) from None


def _array(feed: Feed, value: Array, batch: int, dtype: np.dtype[Any]) -> Array:
    if feed.table is not None:
        value = _rows(feed, value)
    if feed.axis:
        value = value.transpose(feed.axis, *(axis for axis in range(value.ndim) if axis != feed.axis))
    value = value if value.ndim else value.reshape(1)
    if len(value) == 1 and batch != 1:
        value = np.broadcast_to(value, (batch, *value.shape[1:]))
    made: Array = np.ascontiguousarray(value.reshape(batch, *feed.shape), dtype=dtype)
    bad = np.isnan(made) | np.isposinf(made) if feed.adds else ~np.isfinite(made)
    if bad.any():
        sample = int(np.argwhere(bad)[0][0])
        if feed.table is not None:
            said = f"the table that {feed.value!r} looks up has a NaN or infinity"
            raise NotFinite(f"{said}: the model's weights are broken", what=feed.value)
        raise NotFinite(
            f"what is computed of the inputs for {feed.value!r} is NaN or infinite: where a model divides by "
            "the number of tokens, a sample whose mask is 0 throughout has no result, leave it out; a mask that is "
            "added may hold -inf, no NaN and no inf",
            what=feed.value,
            sample=sample,
        )
    return closed(made) if feed.adds else made


def _rows(feed: Feed, ids: Array) -> Array:
    assert feed.table is not None  # the caller looked
    table = feed.table.array
    if ids.dtype.kind == "f":  # a row of zeros with a one for each, or weights of several rows
        return np.asarray(ids @ table)
    wrong = (ids < 0) | (ids >= len(table))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise NotInVocabulary(feed.source or feed.value, int(ids[at]), len(table), at)
    return np.asarray(table[ids])
