"""The dense layer: a matrix of weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from pylrp.layers.base import Layer, Place, Shape, Spec, sole

__all__ = ["Dense"]


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Layer):
    """``z = W a + b``.

    Parameters
    ----------
    weight : array_like of shape (n_out, n_in)
        A row holds the weights of one neuron. float32 or float64.
    bias : array_like of shape (n_out,), optional
    name : str, optional
        Default: its position among the layers with weights, "0", "1", ...
    """

    weight: ArrayLike
    bias: ArrayLike | None = None
    name: str | None = None
    kind: ClassVar[str] = "dense"
    rule_kind: ClassVar[str | None] = "dense"
    weighted: ClassVar[bool] = True
    has_ledger_row: ClassVar[bool] = True
    arrays: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __repr__(self) -> str:
        shape = getattr(self.weight, "shape", "?")
        return f"Dense({shape}{', bias' if self.bias is not None else ''})"

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return ``(n_out,)``."""
        weight = np.shape(self.weight)
        if len(weight) != 2:
            raise ValueError(f"weight has shape {weight}, expected (n_out, n_in)")
        shape = sole(self, shapes)
        if len(shape) != 1:
            raise ValueError(f"weight is {weight}, its input has shape {shape}: put a Flatten before a dense layer")
        if shape[0] != weight[1]:
            raise ValueError(f"weight is {weight}, its input has {shape[0]} features")
        if self.bias is not None and np.shape(self.bias) != weight[:1]:
            raise ValueError(f"bias has shape {np.shape(self.bias)}, its weight is {weight}")
        return (weight[0],)

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        return "dense", {"weight": self.weight, "bias": self.bias}
