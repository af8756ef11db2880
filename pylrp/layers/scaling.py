"""Factors and shifts with constants: batch normalisation of a trained network, and any other.

``canonise`` folds them into layers with weights where the result is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from pylrp.layers.activations import CONSTANT
from pylrp.layers.base import Array, Layer, Place, Shape, Spec, sole
from pylrp.layers.cause import Cause
from pylrp.network.layout import to_core

__all__ = ["Affine", "BatchNorm", "one_a_channel"]


_SHIFT = Cause(
    "batchnorm",
    label="normalisation shifts",
    legend="normalisation shifts",
    stayed="in the shifts of its normalisations",
    help="Share of an unfolded BatchNorm's shift.",
    colour="#cc79a7",
    page_colours=("#b9a800", "#d8c840"),
)


@dataclass(frozen=True, eq=False, repr=False)
class BatchNorm(Layer):
    """``(x - mean) / sqrt(variance + epsilon) * scale + shift`` for each channel: batch normalisation, trained.

    Parameters
    ----------
    scale, shift, mean, variance : array_like of shape (C,)
    epsilon : float, default 1e-5
    name : str, optional
    """

    scale: ArrayLike
    shift: ArrayLike
    mean: ArrayLike
    variance: ArrayLike
    epsilon: float = 1e-5
    name: str | None = None
    kind: ClassVar[str] = "batchnorm"
    rule_kind: ClassVar[str | None] = "batchnorm"
    has_ledger_row: ClassVar[bool] = True
    causes: ClassVar[tuple[Cause, ...]] = (_SHIFT,)
    arrays: ClassVar[tuple[str, ...]] = ("scale", "shift", "mean", "variance")

    def __repr__(self) -> str:
        return f"BatchNorm({np.shape(self.scale)}, epsilon={self.epsilon:g})"

    def affine(self) -> tuple[Array, Array]:
        """Return ``(scale, shift)`` of ``x * scale + shift``, computed in float64, in the layer's dtype."""
        scale, shift = self.affine64()
        dtype = np.asarray(self.scale).dtype
        return scale.astype(dtype), shift.astype(dtype)

    def affine64(self) -> tuple[Array, Array]:
        """Return the same in float64."""
        scale, shift, mean, variance = (np.asarray(getattr(self, name), np.float64) for name in self.arrays)
        factor = scale / np.sqrt(variance + self.epsilon)
        return factor, shift - mean * factor

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the input."""
        shape = sole(self, shapes)
        for name in self.arrays:
            if np.shape(getattr(self, name)) != shape[:1]:
                raise ValueError(f"{name} has shape {np.shape(getattr(self, name))}, the input is {shape}")
        if np.any(np.asarray(self.variance) + self.epsilon <= 0):
            raise ValueError("variance + epsilon is not positive everywhere")
        return shape

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        return _affine_in_core(*self.affine(), place)


@dataclass(frozen=True, eq=False, repr=False)
class Affine(Layer):
    """``x * scale + shift`` with constants.

    The shift's share is the ledger's ``batchnorm``, or ``constant`` where nothing is scaled.

    Parameters
    ----------
    scale, shift : float or array_like
        They broadcast to the logical shape: one number, ``(C, 1, 1)`` for channels, or all of it.
    name : str, optional
    """

    scale: ArrayLike = 1.0
    shift: ArrayLike = 0.0
    name: str | None = None
    kind: ClassVar[str] = "affine"
    rule_kind: ClassVar[str | None] = "batchnorm"
    has_ledger_row: ClassVar[bool] = True
    causes: ClassVar[tuple[Cause, ...]] = (_SHIFT, CONSTANT)
    arrays: ClassVar[tuple[str, ...]] = ("scale", "shift")
    any_order: ClassVar[bool] = True

    def __repr__(self) -> str:
        words = [f"{v:g}" if np.ndim(v) == 0 else str(np.shape(v)) for v in (self.scale, self.shift)]
        return f"Affine({', '.join(words)})"

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the input."""
        shape = sole(self, shapes)
        for name in self.arrays:
            given = np.shape(getattr(self, name))
            padded = (1,) * (len(shape) - len(given)) + given
            if len(given) > len(shape) or any(n not in (1, m) for n, m in zip(padded, shape, strict=True)):
                raise ValueError(f"{name} has shape {given}, which does not broadcast to the input {shape}")
        return shape

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: one number, one a channel, or one an entry."""
        scale, shift = np.asarray(self.scale), np.asarray(self.shift)
        if not scale.size == shift.size == 1:
            scale, shift = one_a_channel([scale, shift], place)
        return _affine_in_core(scale, shift, place)


def _affine_in_core(scale: Array, shift: Array, place: Place) -> Spec:
    arrays = {"scale": scale, "shift": shift}
    return "affine", {name: np.ascontiguousarray(a, dtype=place.dtype).reshape(-1) for name, a in arrays.items()}


def one_a_channel(arrays: Sequence[Array], place: Place) -> list[Array]:
    """Return arrays that broadcast to a layer's input in the core's order, flat.

    One number for each place along the axis that is stored last, if none of them varies elsewhere; else one an entry.
    """
    shape, order = place.inputs[0], place.orders[0]
    whole = [to_core(np.broadcast_to(array, shape), order).reshape(-1, shape[order[-1]]) for array in arrays]
    if all(bool((rows == rows[:1]).all()) for rows in whole):
        return [rows[0] for rows in whole]
    return [rows.reshape(-1) for rows in whole]
