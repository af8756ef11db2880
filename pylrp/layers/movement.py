"""Layers that only move values, and the first of them: reshape, transpose, repeat. ``slices.py``, ``blocks.py`` go on.

Each applies itself to an array of indices (:meth:`Movement.move`): entry i of the result names the input value that
output i is, -1 a constant. The compiled core turns a chain of them into one table; relevance goes back the same ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp._limits import TooLarge, require_shape
from pylrp.layers.base import Array, NamedLayer, Place, Shape, Spec, product, sole
from pylrp.network.layout import Order, as_it_is, channels_last, positions, regrouped, to_core

__all__ = ["ENTRY_BYTES", "Expand", "Flatten", "Movement", "Reshape", "Transpose", "axis_of", "sparse_table"]

_MOST_PLACES = (1 << 31) - 1
#: Bytes of a table for each value: where it comes from and, in the core, what reads it.
ENTRY_BYTES = 8


class Movement(NamedLayer):
    """Base of the layers that only move values."""

    moves: ClassVar[bool] = True
    #: What output values are that come from no input.
    fill: ArrayLike = 0.0

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the input's indices where they end up, -1 where a constant stands.

        Parameters
        ----------
        index : ndarray of int
            Of the input's logical shape.
        """
        raise NotImplementedError

    def wanted_orders(self, shapes: Sequence[Shape], output: Shape, wanted: Order | None) -> Sequence[Order | None]:
        """Return what the readers want, where the axes are the same."""
        return [wanted if len(shapes[0]) == len(output) else None]

    def stored_orders(
        self, shapes: Sequence[Shape], output: Shape, given: Sequence[Order], wanted: Order | None
    ) -> tuple[Sequence[Order], Order]:
        """Return the order as it is given, for the output too where the axes are the same."""
        if len(shapes[0]) == len(output):
            return given, given[0]
        usual = given[0] == channels_last(len(shapes[0]))
        return given, channels_last(len(output)) if usual else as_it_is(len(output))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape that the move gives."""
        shape = sole(self, shapes)
        # No memory behind it: every entry is the same one.
        return self.move(np.broadcast_to(np.int64(0), shape)).shape

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: for each output value the place of its input."""
        size = product(place.inputs[0])
        require_shape(place.output, ENTRY_BYTES, "the places of moved values")
        # In 32 bits where they count it: half the memory of what may be large.
        dtype = np.int32 if max(size, product(place.output)) < _MOST_PLACES else np.int64
        index = to_core(self.move(positions(place.inputs[0], place.orders[0]).astype(dtype)), place.order)
        # Layers with a row in the ledger stay what they are.
        if not self.has_ledger_row and index.size == size and bool((index == np.arange(size)).all()):
            return "identity", {"a": 0.0, "b": 0.0}
        fill = np.asarray(self.fill, np.float64)
        if fill.ndim:
            fill = to_core(np.broadcast_to(fill, place.output), place.order)
        return "sparse", sparse_table(index.reshape(-1, 1), None, size, fill)


def sparse_table(index: Array, weight: Array | None, inputs: int, fill: Array | float) -> dict[str, Any]:
    """Return the core's fields for outputs that are weighted sums of a few inputs.

    Parameters
    ----------
    index : ndarray of int, shape (outputs, taps)
        Places in the core's order; -1: ``fill``.
    weight : ndarray of the same shape, optional
        In the network's dtype; None for one tap of weight 1.
    inputs : int
        The size of the input.
    fill : float or ndarray, shape (outputs,)

    Raises
    ------
    TooLarge
        If the core's 32 bits don't count them.
    """
    most = max(index.size, inputs)
    if most >= _MOST_PLACES:
        raise TooLarge(f"asks for too much: it moves {most} values at once, the core counts to 2^31")
    return {
        "index": index.astype(np.int32, copy=False),
        "weight": weight,
        "inputs": inputs,
        "fill": fill if np.ndim(fill) else float(fill),
    }


def axis_of(axis: int, shape: Shape) -> int:
    """Return an axis of a logical shape counted from the front, or raise ValueError."""
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis is {axis}, the input has {len(shape)} axes (without the batch): {shape}")
    return axis % len(shape)


class _Regrouping(Movement):
    """Base of the layers that cut the same values into other axes: a view where the stored order allows it."""

    def wanted_orders(self, shapes: Sequence[Shape], output: Shape, wanted: Order | None) -> Sequence[Order | None]:
        """Return the order of which the one that is wanted is a view."""
        found = None if wanted is None else regrouped(output, wanted, shapes[0])
        return [found if found is not None or wanted is None else as_it_is(len(shapes[0]))]

    def stored_orders(
        self, shapes: Sequence[Shape], output: Shape, given: Sequence[Order], wanted: Order | None
    ) -> tuple[Sequence[Order], Order]:
        """Return the order of a view; where there is none, the usual order becomes the usual one, others logical."""
        found = regrouped(shapes[0], given[0], output)
        if found is not None:
            return given, found
        usual = channels_last(len(shapes[0]))
        if given[0] == usual:
            return given, channels_last(len(output))
        return [as_it_is(len(shapes[0]))], as_it_is(len(output))

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        if regrouped(place.inputs[0], place.orders[0], place.output) == place.order:
            return "identity", {"a": 0.0, "b": 0.0}
        return super().to_core(place)


@dataclass(frozen=True)
class Flatten(_Regrouping):
    """All axes from ``axis`` on become one: ``(C, H, W)`` becomes ``(C * H * W,)``."""

    axis: int = 0
    kind: ClassVar[str] = "flatten"

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the flattened shape."""
        shape = sole(self, shapes)
        kept = shape[: axis_of(self.axis, shape)] if shape else ()
        return (*kept, product(shape[len(kept) :]))

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices, flattened."""
        return index.reshape(self.output_shape(index.shape))


@dataclass(frozen=True)
class Reshape(_Regrouping):
    """Another logical shape for the same values; one entry may be -1."""

    shape: Sequence[int]
    kind: ClassVar[str] = "reshape"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if sum(n == -1 for n in self.shape) > 1 or min(self.shape, default=1) < -1:
            raise ValueError(f"shape is {self.shape}, expected sizes and at most one -1")

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the new shape."""
        shape = sole(self, shapes)
        known = product([n for n in self.shape if n != -1])
        total = product(shape)
        if total % known if -1 in self.shape else total != known:
            raise ValueError(f"the input {shape} has {total} values, they don't fit into {self.shape}")
        return tuple(total // known if n == -1 else n for n in self.shape)

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices in the new shape."""
        return index.reshape(self.output_shape(index.shape))


@dataclass(frozen=True)
class Transpose(Movement):
    """Output axis i is axis ``permutation[i]`` of the logical shape."""

    permutation: Sequence[int]
    kind: ClassVar[str] = "transpose"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "permutation", tuple(int(n) for n in self.permutation))
        if sorted(self.permutation) != list(range(len(self.permutation))):
            raise ValueError(f"permutation is {self.permutation}, expected each of 0 to n - 1 once")

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices, transposed."""
        if index.ndim != len(self.permutation):
            raise ValueError(f"permutation is {self.permutation}, the input has shape {index.shape}")
        return index.transpose(self.permutation)

    def wanted_orders(self, shapes: Sequence[Shape], output: Shape, wanted: Order | None) -> Sequence[Order | None]:
        """Return the order of which the one that is wanted is a view."""
        return [None if wanted is None else tuple(self.permutation[axis] for axis in wanted)]

    def stored_orders(
        self, shapes: Sequence[Shape], output: Shape, given: Sequence[Order], wanted: Order | None
    ) -> tuple[Sequence[Order], Order]:
        """Return the order of a view."""
        return given, tuple(self.permutation.index(axis) for axis in given[0])

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: its axes are stored as they were."""
        require_shape(place.output, 0, "moved values")
        return "identity", {"a": 0.0, "b": 0.0}


@dataclass(frozen=True)
class Expand(Movement):
    """The input repeated to a larger shape, by NumPy's rules of broadcasting on the logical shape."""

    shape: Sequence[int]
    kind: ClassVar[str] = "expand"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the larger shape."""
        shape, wanted = sole(self, shapes), tuple(self.shape)
        aligned = (1,) * (len(wanted) - len(shape)) + shape
        if len(aligned) > len(wanted) or any(n not in (1, m) for n, m in zip(aligned, wanted, strict=True)):
            raise ValueError(f"the input {shape} does not broadcast to {wanted}")
        return wanted

    def move(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices, repeated."""
        return np.broadcast_to(index, self.output_shape(index.shape))
