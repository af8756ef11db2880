"""Attention as one layer of the core: what ``network/fused.py`` puts in place of two products and a softmax.

It has no place in a graph that users see. Its queries, keys and values are not moved but read where they lie: each is
a value and the layers that only move it, from which :meth:`Attention.to_core` finds the places of every head.
``csrc/layers/attention`` has the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pylrp.layers.base import Array, Layer, Place, Shape, Spec, product
from pylrp.layers.movement import Flatten, Movement, Reshape, Transpose
from pylrp.network.layout import Order, as_it_is, channels_last, from_core

__all__ = ["Added", "Attention", "Operand", "turned_back"]

Ints = NDArray[np.int64]
#: By name of a value: its logical shape and its stored order.
Stored = dict[str, tuple[Shape, Order]]


@dataclass(frozen=True)
class Operand:
    """Queries, keys or values: a value, and what moves it until its last axes are the matrix of a head.

    Attributes
    ----------
    value : str
        Its name in the graph.
    moves : tuple of Movement
        In order.
    """

    value: str
    moves: tuple[Movement, ...] = ()


@dataclass(frozen=True, eq=False)
class Added:
    """What is added to the scores.

    Attributes
    ----------
    leading : tuple of int
        The axes before those of queries and keys where it is added.
    constant : ndarray or None
        It broadcasts to the scores there; None: the value is an input.
    value : str
        That input's name in the graph.
    """

    leading: Shape
    constant: Array | None = None
    value: str = ""


@dataclass(frozen=True)
class _Matrix:
    """Where the matrices of the heads lie in a value: where each begins, the steps of rows and columns."""

    at: Ints
    row: int
    col: int

    def turned(self) -> _Matrix:
        """Return the places of the transposed matrices."""
        return _Matrix(self.at, self.col, self.row)


@dataclass(frozen=True, eq=False)
class Attention(Layer):
    """``softmax(scale q k^T + added) v`` for some heads, ``cap tanh(scale q k^T / cap)`` in place of the scores.

    Attributes
    ----------
    query, key, value : Operand
        ``(..., queries, width)``, ``(..., width, keys)`` (the keys as the product has them) and ``(..., keys, m)``;
        their leading axes broadcast.
    leading : tuple of int
        The lengths of these.
    back : tuple of Movement
        What moves the result, ``(*leading, queries, m)``, to the output.
    added : tuple of Added
    scale, cap : float
        A cap of 0: none.
    inputs : tuple of str
        The names of the values that the layer takes: of the operands, then of what is added.
    """

    query: Operand
    key: Operand
    value: Operand
    leading: Shape
    back: tuple[Movement, ...]
    added: tuple[Added, ...]
    scale: float
    cap: float
    inputs: tuple[str, ...]
    kind: ClassVar[str] = "attention"
    has_ledger_row: ClassVar[bool] = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape that ``back`` gives."""
        return _moved(self._result(dict(zip(self.inputs, shapes, strict=True))), self.back)

    def _result(self, shapes: dict[str, Shape]) -> Shape:
        """Return the shape of the product, before it is moved."""
        query, value = (_moved(shapes[each.value], each.moves) for each in (self.query, self.value))
        return *self.leading, query[-2], value[-1]

    def wanted_orders(self, shapes: Sequence[Shape], output: Shape, wanted: Order | None) -> Sequence[Order | None]:
        """Return that any order will do."""
        return [None] * len(shapes)

    def stored_orders(
        self, shapes: Sequence[Shape], output: Shape, given: Sequence[Order], wanted: Order | None
    ) -> tuple[Sequence[Order], Order]:
        """Return the orders as given if heads lie in steps there, and the first for the output where they do."""
        known = self._stored(shapes, given)
        taken = given if self._operands(known) else [channels_last(len(shape)) for shape in shapes]
        made = self._result(dict(zip(self.inputs, shapes, strict=True)))
        flat = np.zeros(product(output), np.int8)
        for order in [*([] if wanted is None else [wanted]), as_it_is(len(output))]:
            if np.may_share_memory(turned_back(from_core(flat, output, order), made, self.back), flat):
                return taken, order
        return taken, channels_last(len(output))

    def _stored(self, shapes: Sequence[Shape], orders: Sequence[Order] | None = None) -> Stored:
        orders = [channels_last(len(shape)) for shape in shapes] if orders is None else orders
        return dict(zip(self.inputs, zip(shapes, orders, strict=True), strict=True))

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: lengths, and for each head where its matrices lie."""
        known = self._stored(place.inputs, place.orders)
        shapes = [_moved(known[each.value][0], each.moves) for each in (self.query, self.key, self.value)]
        (*_, queries, width), (*_, keys), (*_, made) = shapes
        operands = self._operands(known)
        if operands is None:
            raise ValueError("the heads of an attention do not lie in steps")
        query, key, value = operands
        numbers = {name: number for number, name in enumerate(self.inputs)}
        fields: dict[str, Any] = {"lengths": [queries, keys, width, made], "scale": self.scale, "cap": self.cap}

        def put(name: str, matrix: _Matrix, number: int) -> None:
            fields[name], fields[f"{name}_at"] = [number, matrix.row, matrix.col], matrix.at.tolist()

        put("q", query, numbers[self.query.value])
        put("k", key.turned(), numbers[self.key.value])
        put("v", value, numbers[self.value.value])
        flat = np.zeros(product(place.output), np.int8)
        view = turned_back(from_core(flat, place.output, place.order), (*self.leading, queries, made), self.back)
        put("out", _steps_of(view, flat), 0)
        fields["added"] = len(self.added)
        for number, each in enumerate(self.added):
            self._put_added(fields, f"added{number}", each, known, (queries, keys), put)
        covered = self._covered(known)
        fields["covered"] = [int(covered.get(name) or name not in covered) for name in self.inputs]
        return "attention", fields

    def _put_added(self, fields: dict[str, Any], name: str, each: Added, known: Any, last: Shape, put: Any) -> None:
        shape = (*each.leading, *last)
        if each.constant is None:
            flat = np.zeros(product(known[each.value][0]), np.int8)
            put(name, _steps_of(np.broadcast_to(from_core(flat, *known[each.value]), shape), flat), self._number(each))
            return
        constant = np.ascontiguousarray(each.constant)
        view = np.broadcast_to(np.zeros(constant.shape, np.int8), shape)
        put(name, _steps_of(view, view), 0)
        fields[f"{name}_constant"] = constant.reshape(-1)

    def _number(self, each: Added) -> int:
        return self.inputs.index(each.value)

    def fits(self, shapes: Sequence[Shape]) -> bool:
        """Whether the heads lie in steps, no two of them in the same place but keys together with their values."""
        operands = self._operands(self._stored(shapes))
        if operands is None:
            return False
        query, key, value = (matrix.at for matrix in operands)
        pairs = {(int(k), int(v)) for k, v in zip(key, value, strict=True)}
        alone = len(set(query.tolist())) == len(query)
        return alone and len(pairs) == len({k for k, _ in pairs}) == len({v for _, v in pairs})

    def shares_input(self, shapes: Sequence[Shape]) -> bool:
        """Whether operands that are parts of one value are parts that do not meet."""
        return all(count is not None for count in self._covered(self._stored(shapes)).values())

    def _operands(self, known: Stored) -> tuple[_Matrix, _Matrix, _Matrix] | None:
        made = [_matrix(*known[each.value], each.moves, self.leading) for each in (self.query, self.key, self.value)]
        return None if any(matrix is None for matrix in made) else tuple(made)  # type: ignore[return-value]

    def _covered(self, known: Stored) -> dict[str, bool | None]:
        """Return whether the operands cover each value together; None where two of them meet."""
        counts: dict[str, Array] = {}
        for each in (self.query, self.key, self.value):
            count = counts.setdefault(each.value, np.zeros(product(known[each.value][0]), np.int8))
            view = _through(from_core(count, *known[each.value]), each.moves)
            if view.flags.writeable and np.may_share_memory(view, count):
                once = tuple(slice(0, 1) if step == 0 else slice(None) for step in view.strides)
                writable = np.lib.stride_tricks.as_strided(view[once], writeable=True)
                writable += 1
            else:
                places = np.arange(count.size).astype(np.int64)
                count[np.unique(_through(from_core(places, *known[each.value]), each.moves))] += 1
        return {name: None if (count > 1).any() else bool(count.all()) for name, count in counts.items()}


def _moved(shape: Shape, moves: Sequence[Movement]) -> Shape:
    for move in moves:
        shape = move.output_shape(shape)
    return shape


def _through(array: Array, moves: Sequence[Movement]) -> Array:
    for move in moves:
        array = move.move(array)  # any array is moved alike: here one whose steps are those of the core's memory
    return array


def turned_back(array: Array, shape: Shape, moves: Sequence[Movement]) -> Array:
    """Return an array that such moves of a shape have made as it was before them."""
    shapes = [shape]
    for move in moves:
        shapes.append(move.output_shape(shapes[-1]))
    for move, before in zip(reversed(moves), reversed(shapes[:-1]), strict=True):
        if isinstance(move, Transpose):
            array = array.transpose(np.argsort(move.permutation))
        else:
            assert isinstance(move, Reshape | Flatten)  # what else is there has no way back
            array = array.reshape(before)
    return array


def _matrix(shape: Shape, order: Order, moves: Sequence[Movement], leading: Shape) -> _Matrix | None:
    """Return where the heads lie, None where they don't lie in steps."""
    flat = np.zeros(product(shape), np.int8)
    view = _through(from_core(flat, shape, order), moves)
    if np.may_share_memory(view, flat):
        made = np.broadcast_to(view, (*leading, *view.shape[-2:]))
        return _steps_of(made, flat) if min(made.strides, default=0) >= 0 else None
    places = _through(
        from_core(np.arange(flat.size), shape, order), moves
    )  # something was repeated, and joined with others
    made = np.broadcast_to(places, (*leading, *places.shape[-2:])).reshape(-1, *places.shape[-2:])
    at = made[:, 0, 0]
    row = int(made[0, 1, 0] - at[0]) if made.shape[1] > 1 else 1
    col = int(made[0, 0, 1] - at[0]) if made.shape[2] > 1 else 1
    steps = at[:, None, None] + row * np.arange(made.shape[1])[:, None] + col * np.arange(made.shape[2])
    if min(row, col, int(made.min(initial=0))) < 0 or not (made == steps).all():
        return None
    alone = np.unique(made[np.unique(at, return_index=True)[1]])
    return _Matrix(at, row, col) if alone.size == len(set(at.tolist())) * made[0].size else None


def _steps_of(view: Array, flat: Array) -> _Matrix:
    """Return the places of a view of bytes, whose strides are steps."""
    begin = view.__array_interface__["data"][0] - flat.__array_interface__["data"][0]
    at = np.full((), begin, np.int64)
    for length, stride in zip(view.shape[:-2], view.strides[:-2], strict=True):
        at = at[..., None] + stride * np.arange(length)
    return _Matrix(at.reshape(-1), *view.strides[-2:])
