"""Layers of samples packed end to end, whose tokens are the rows of one batch: what ``network/packing.py`` puts in.

They have no place in a graph that users see. Constants that differ from token to token are inputs, with a row a token;
what looks across tokens takes another input, (rows, 2), which says for each row where its sample begins and how many
rows it has (``csrc/layers/segments.hpp``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pylrp.layers.attention import Attention
from pylrp.layers.base import Layer, Place, Shape, Spec
from pylrp.layers.shift import Shift, fields_of_call

__all__ = ["PICKS", "AffineOfRows", "SegmentedAttention", "Segments", "ShiftOfRows"]

#: What a sample may take of its tokens, in the order of the core's numbers.
PICKS = ("first", "last", "sum", "mean")


@dataclass(frozen=True, eq=False)
class AffineOfRows(Layer):
    """``x * scale + shift``, where each row has its own: the second and the third input, of the first one's shape."""

    only_scales: bool
    only_adds: bool
    kind: ClassVar[str] = "affine_of_rows"
    rule_kind: ClassVar[str | None] = "batchnorm"
    has_ledger_row: ClassVar[bool] = True
    any_order: ClassVar[bool] = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the first input."""
        return shapes[0]

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        return "affine", {"only_scales": self.only_scales, "only_adds": self.only_adds}


@dataclass(frozen=True, eq=False)
class ShiftOfRows(Shift):
    """``x + shift``, where the shift is the second input: each row has its own."""

    arrays: ClassVar[tuple[str, ...]] = ()

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the first input."""
        return shapes[0]

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        return "shift", {**fields_of_call(place), "position": self.position}


@dataclass(frozen=True, eq=False)
class Segments(Layer):
    """What a sample takes of its tokens, in each of its rows.

    Attributes
    ----------
    pick : str
        One of ``PICKS``.
    """

    pick: str
    kind: ClassVar[str] = "segments"
    any_order: ClassVar[bool] = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the first input."""
        return shapes[0]

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        return "segments", {"pick": PICKS.index(self.pick)}


@dataclass(frozen=True, eq=False)
class SegmentedAttention(Attention):
    """Attention within each sample; where the heads lie is said of one token.

    Attributes
    ----------
    segments : str
        The name of the input that says what belongs together.
    mask : str
        That of what is added to the scores; empty: nothing.
    by_query : bool
        Whether that has a row for each query, of ``width`` keys for one head or for each. Else a number for each key.
    width : int
    by_head : bool
    """

    segments: str = ""
    mask: str = ""
    by_query: bool = False
    width: int = 0
    by_head: bool = False

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        kind, fields = super().to_core(place)
        mask = self.inputs.index(self.mask) if self.mask else -1
        step = self.width if self.by_query and self.by_head else 0
        fields["segments"] = [self.inputs.index(self.segments), mask, int(self.by_query), step]
        return kind, fields
