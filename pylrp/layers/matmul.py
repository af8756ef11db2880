"""The product of two computed values as matrices: queries with keys, probabilities with values.

``csrc/layers/matmul.cpp`` has the formulas; ``rules/treatments.py`` says which factor takes what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pylrp.layers.base import NamedLayer, Place, Shape, Spec, pair
from pylrp.network.layout import Order, as_it_is, repeated_steps, steps

__all__ = ["MatMul"]


@dataclass(frozen=True)
class MatMul(NamedLayer):
    """``C = scale * A B`` for each place along the leading axes, as ``numpy.matmul``.

    Its two inputs have logical shapes ``(..., n, k)`` and ``(..., k, m)``; leading axes broadcast. Relevance is shared
    as :class:`pylrp.rules.Half` or :class:`pylrp.rules.Value` says.

    Parameters
    ----------
    scale : float, default 1
    """

    scale: float = 1.0
    kind: ClassVar[str] = "matmul"
    rule_kind: ClassVar[str | None] = "matmul"
    has_ledger_row: ClassVar[bool] = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return ``(..., n, m)``."""
        left, right = pair(self, shapes)
        if min(len(left), len(right)) < 2 or left[-1] != right[-2]:
            raise ValueError(f"MatMul can't multiply {left} by {right}, expected (..., n, k) and (..., k, m)")
        try:
            leading = np.broadcast_shapes(left[:-2], right[:-2])
        except ValueError:
            raise ValueError(f"MatMul can't multiply {left} by {right}: their leading axes do not broadcast") from None
        return (*leading, left[-2], right[-1])

    def wanted_orders(self, shapes: Sequence[Shape], output: Shape, wanted: Order | None) -> Sequence[Order | None]:
        """Return the logical order: rows of matrices lie together."""
        return [as_it_is(len(shape)) for shape in shapes]

    def stored_orders(
        self, shapes: Sequence[Shape], output: Shape, given: Sequence[Order], wanted: Order | None
    ) -> tuple[Sequence[Order], Order]:
        """Return the orders as they are given, and the one that is wanted if it has the columns last."""
        fits = wanted is not None and wanted[-1] == len(output) - 1
        return given, wanted if wanted is not None and fits else as_it_is(len(output))

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: lengths, and where the entries of each value lie."""
        (left, right), made = place.inputs, place.output
        return "matmul", {
            "leading": list(made[:-2]),
            "rows": left[-2],
            "depth": left[-1],
            "cols": right[-1],
            "a": _steps(left, place.orders[0], len(made)),
            "b": _steps(right, place.orders[1], len(made)),
            "c": _steps(made, place.order, len(made)),
            "scale": self.scale,
        }


def _steps(shape: Shape, order: Order, rank: int) -> list[int]:
    """Return the core's steps along so many axes, 0 along those that a value is repeated along."""
    own = repeated_steps(shape, order)
    return [0] * (rank - len(shape)) + list(own[:-2]) + list(steps(shape, order)[-2:])
