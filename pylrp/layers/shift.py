"""Constants that are added to a value: tables of positions, class tokens, masks.

:class:`Shift` adds one of the network, :class:`ShiftBy` one that is computed anew for every call and takes no relevance
(``network/sides.py``), :class:`ScaleBy` multiplies by such a one. ``csrc/layers/shift.cpp`` has the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from pylrp.layers.base import Array, Layer, NamedLayer, Place, Shape, Spec, pair, sole
from pylrp.layers.cause import Cause
from pylrp.network.layout import Order, repeated_steps, to_core

__all__ = ["ScaleBy", "Shift", "ShiftBy", "closed", "fields_of_call"]

_POSITION = Cause(
    "position",
    label="positions",
    legend="absorbed by positions",
    stayed="in what the network adds by position",
    help="Share of constants that differ from token to token: tables of positions, class tokens.",
    colour="#332288",
    page_colours=("#332288", "#9a8cf0"),
)


def closed(array: Array) -> Array:
    """Return what is added, with -inf, which closes a place, as the core has it: the largest number of the dtype.

    That number itself is added as the one below it: a mask of 2 makes it in files that add (1 - mask) times the lowest.
    """
    most = np.finfo(array.dtype).max
    below: Array = np.minimum(array, np.nextafter(most, array.dtype.type(0)))
    return np.where(np.isneginf(array), most, below)


@dataclass(frozen=True, eq=False, repr=False)
class Shift(Layer):
    """``x + shift``; the shift takes its share of the relevance.

    Parameters
    ----------
    shift : array_like
        It broadcasts to the logical shape. Where it is the largest number of its dtype the sum is -inf, which a softmax
        leaves out, see ``closed``.
    position : bool, default False
        Whether it differs from token to token: then its share is the ledger's ``position``, else ``constant``.
    name : str, optional
    """

    shift: ArrayLike
    position: bool = False
    name: str | None = None
    kind: ClassVar[str] = "shift"
    any_order: ClassVar[bool] = True
    rule_kind: ClassVar[str | None] = "batchnorm"
    has_ledger_row: ClassVar[bool] = True
    causes: ClassVar[tuple[Cause, ...]] = (_POSITION,)
    arrays: ClassVar[tuple[str, ...]] = ("shift",)

    def __repr__(self) -> str:
        return f"Shift({np.shape(self.shift)}{', position=True' if self.position else ''})"

    def in_dtype(self, dtype: np.dtype[Any]) -> Array:
        """Return the constant in a dtype; what is closed stays so: the largest number is another one there."""
        array = np.asarray(self.shift)
        if array.dtype == dtype or array.dtype.kind != "f":
            return array.astype(dtype)
        opened = np.where(array == np.finfo(array.dtype).max, -np.inf, array)
        with np.errstate(over="ignore"):
            return closed(opened.astype(dtype))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the input."""
        shape = sole(self, shapes)
        _require_broadcast(np.shape(self.shift), shape)
        return shape

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        array = self.in_dtype(place.dtype)
        full = array.reshape((1,) * (len(place.output) - array.ndim) + array.shape)
        fields = _fields(full.shape, place.order, place)
        return "shift", {**fields, "shift": to_core(full, place.order), "position": self.position}


@dataclass(frozen=True)
class ShiftBy(NamedLayer):
    """The first input plus the second, which broadcasts to it, counts as a constant and gets no relevance: a mask."""

    kind: ClassVar[str] = "shift_by"
    any_order: ClassVar[bool] = True
    rule_kind: ClassVar[str | None] = "add"
    has_ledger_row: ClassVar[bool] = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the first input."""
        return _first(self, shapes)

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        return "shift", {**fields_of_call(place), "position": False}


@dataclass(frozen=True)
class ScaleBy(NamedLayer):
    """The first input times the second, which broadcasts to it and gets no relevance: a mask of zeros and ones.

    Relevance passes where the factor is not 0; elsewhere it has no receiver.
    """

    kind: ClassVar[str] = "scale_by"
    any_order: ClassVar[bool] = True
    has_ledger_row: ClassVar[bool] = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the first input."""
        return _first(self, shapes)

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        return "factor", fields_of_call(place)


def _first(layer: Layer, shapes: tuple[Shape, ...]) -> Shape:
    """Return the shape of a layer's first input, to which the second broadcasts."""
    value, given = pair(layer, shapes)
    _require_broadcast(given, value)
    return value


def fields_of_call(place: Place) -> dict[str, Any]:
    """Return the fields of a constant that is the second input and broadcasts to the first."""
    shape, order = place.inputs[1], place.orders[1]
    more = len(place.output) - len(shape)
    return _fields((1,) * more + tuple(shape), (*range(more), *(axis + more for axis in order)), place)


def _require_broadcast(given: Sequence[int], shape: Shape) -> None:
    padded = (1,) * (len(shape) - len(given)) + tuple(given)
    if len(given) > len(shape) or any(n not in (1, m) for n, m in zip(padded, shape, strict=True)):
        raise ValueError(f"what is added has shape {tuple(given)}, which does not broadcast to the input {shape}")


def _fields(shape: Shape, order: Order, place: Place) -> dict[str, Any]:
    """Return the lengths of the stored axes and the constant's step along each, 0 where it is repeated."""
    found = repeated_steps(shape, order)
    return {
        "lengths": [place.output[axis] for axis in place.order],
        "steps": [found[axis] for axis in place.order],
    }
