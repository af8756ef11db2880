"""Layers that join values: sum, concatenation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pylrp.layers.base import NamedLayer, Place, Shape, Spec, product

__all__ = ["Add", "Concat"]


@dataclass(frozen=True)
class Add(NamedLayer):
    """The sum of two or more values of one shape; relevance is split in proportion to what each contributes."""

    kind: ClassVar[str] = "add"
    rule_kind: ClassVar[str | None] = "add"
    has_ledger_row: ClassVar[bool] = True
    any_order: ClassVar[bool] = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the inputs' common shape."""
        if len(shapes) < 2:
            raise ValueError(f"Add takes 2 or more inputs, got {len(shapes)}")
        if len(set(shapes)) > 1:
            raise ValueError(f"Add takes inputs of one shape, got {' and '.join(map(str, shapes))}: use Expand")
        return shapes[0]

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        return "add", {}


@dataclass(frozen=True)
class Concat(NamedLayer):
    """Values one after the other along an axis of the logical shape (0: channels)."""

    axis: int = 0
    kind: ClassVar[str] = "concat"
    any_order: ClassVar[bool] = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the whole."""
        if not shapes:
            raise ValueError("Concat takes 1 or more inputs, got 0")
        first = shapes[0]
        if not -len(first) <= self.axis < len(first):
            raise ValueError(f"axis is {self.axis}, the inputs have {len(first)} axes (without the batch): {first}")
        axis = self.axis % len(first)
        rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
        if len(rest) > 1 or len({len(shape) for shape in shapes}) > 1:
            raise ValueError(f"Concat on axis {self.axis} can't join {' and '.join(map(str, shapes))}")
        return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: so many times, a block of each input in turn."""
        shapes = place.inputs
        at = place.order.index(self.axis % len(shapes[0]))
        stored = [[shape[axis] for axis in place.order] for shape in shapes]
        return "concat", {"outer": product(stored[0][:at]), "blocks": [product(shape[at:]) for shape in stored]}
