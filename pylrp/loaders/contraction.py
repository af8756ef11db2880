"""A product of a value with one constant matrix along some of its axes, as layers: dense, with movement around it.

``onnx/operators.py`` (MatMul, Einsum) and ``keras/layers.py`` (EinsumDense) come here with the letters of the axes, as
``einsum`` has them, without the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Dense, Layer, PositionwiseDense, Reshape, Shape, Transpose

__all__ = ["Contraction", "dense_along", "letters_of"]

Array = NDArray[Any]
_MOST_POSITIONS = 3  # axes that the core's convolutions have


def letters_of(equation: str, rank: int) -> tuple[str, str, str]:
    """Return the letters of a value of so many axes (the batch included), of a constant, and of the result.

    ``equation`` is one of ``einsum`` for two operands, the value first; an ellipsis stands for axes of the value.

    Raises
    ------
    ValueError
        If it is none, or not about one value and one constant.
    """
    text = "".join(equation.split())
    terms, arrow, result = text.partition("->")
    operands = terms.split(",")
    if len(operands) != 2 or not arrow:
        raise ValueError(f"the equation is {equation!r}, expected two operands and an arrow")
    given, constant = operands
    if "..." in constant:
        raise ValueError(f"the equation is {equation!r}: an ellipsis stands for axes of the constant")
    if "..." in given:
        free = iter(letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in text)
        dots = "".join(next(free) for _ in range(rank - len(given) + 3))
        given, result = given.replace("...", dots), result.replace("...", dots)
    if len(given) != rank or not all(map(str.isalpha, (given, constant, result))):
        raise ValueError(f"the equation is {equation!r}, its first operand has {rank} axes")
    return given, constant, result


@dataclass(frozen=True)
class Contraction:
    """Which axes of a value and a matrix meet.

    Attributes
    ----------
    summed : tuple of int
        The value's axes along which the product is taken.
    kept : tuple of int
        The others.
    axes : tuple of int
        Of the constant, so that those of the result come first and the summed ones last.
    made : int
        How many axes of the constant are the result's.
    order : tuple of int
        Which of (those of the constant, those kept) each axis of the result is.
    """

    summed: tuple[int, ...]
    kept: tuple[int, ...]
    axes: tuple[int, ...]
    made: int
    order: tuple[int, ...]

    @classmethod
    def of(cls, given: str, constant: str, result: str) -> Contraction:
        """Return it by the letters of the axes, without the batch.

        Raises
        ------
        ValueError
            If it is no product with one matrix.
        """
        shared = set(given) & set(constant)
        if any(len(set(term)) != len(term) for term in (given, constant, result)):
            raise ValueError("takes a diagonal")
        if shared & set(result):
            raise ValueError("multiplies by one matrix for each part of its input")
        kept, made = [a for a in given if a not in shared], [a for a in constant if a not in shared]
        if not shared or not result or sorted(kept + made) != sorted(result):
            raise ValueError("is no product with a matrix")
        summed = [a for a in given if a in shared]
        return cls(
            tuple(map(given.index, summed)),
            tuple(map(given.index, kept)),
            tuple(map(constant.index, made + summed)),
            len(made),
            tuple(map((made + kept).index, result)),
        )

    def matrix(self, constant: Array) -> Array:
        """Return the constant as a matrix with a row for each output."""
        moved = constant.transpose(self.axes)
        return np.ascontiguousarray(moved.reshape(math.prod(moved.shape[: self.made]), -1))

    def bias(self, constant: Array, shape: Shape) -> Array | None:
        """Return a constant that is added to the result as one number for each output; None where positions differ.

        ``shape`` is that of the matrix's constant.
        """
        full = constant.reshape((1,) * (len(self.order) - constant.ndim) + constant.shape)
        moved = full.transpose([self.order.index(axis) for axis in range(len(self.order))])
        if math.prod(moved.shape[self.made :]) > 1:
            return None
        made = tuple(shape[axis] for axis in self.axes[: self.made])
        return np.broadcast_to(moved.reshape(moved.shape[: self.made]), made).ravel()

    def layers(self, shape: Shape, constant: Shape, product: Callable[[int | None], Layer]) -> list[tuple[str, Layer]]:
        """Return the layers for a value of this shape, each with a name for its part; the product's is empty.

        Parameters
        ----------
        shape : tuple of int
            Of the value.
        constant : tuple of int
            The shape of the constant.
        product : callable
            Makes the layer with weights: for so many axes of positions, dense for None.
        """
        kept = tuple(shape[axis] for axis in self.kept)
        positions = kept if len(kept) <= _MOST_POSITIONS else (math.prod(kept),)
        made = tuple(constant[axis] for axis in self.axes[: self.made])
        front = (*self.summed, *self.kept)
        steps: list[tuple[str, Layer]] = []
        steps += [("channels_first", Transpose(front))] if front != tuple(range(len(front))) else []
        now = tuple(shape[axis] for axis in front)
        flat = (math.prod(now[: len(self.summed)]), *positions)
        steps += [("channels", Reshape(flat))] if flat != now else []
        steps += [("", product(len(positions) if positions else None))]
        now, spread = (math.prod(made), *positions), (*made, *kept)
        steps += [("axes", Reshape(spread))] if spread != now else []
        steps += [("channels_last", Transpose(self.order))] if self.order != tuple(range(len(self.order))) else []
        return steps


def dense_along(axes: int | None, matrix: Array, bias: Array | None = None) -> Layer:
    """Return the layer for a matrix, for so many axes of positions or none."""
    return Dense(matrix, bias) if axes is None else PositionwiseDense.along(axes, matrix, bias)
