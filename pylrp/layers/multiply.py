"""Products and quotients of two values: gates, gated units, attention over channels and positions.

``network/canonise/factors.py`` finds out which factor is the signal, ``rules/treatments.py`` has what a product can do
with relevance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pylrp.layers.base import Layer, NamedLayer, Place, Shape, Spec, pair
from pylrp.network.layout import repeated_steps

__all__ = ["Divide", "Multiply"]


@dataclass(frozen=True)
class Multiply(NamedLayer):
    """``u * v`` of two values, element by element; sizes of 1 are repeated, as NumPy does.

    Relevance goes to the signal, or a half to each factor: :class:`~pylrp.rules.Signal`, :class:`~pylrp.rules.Half`.

    Parameters
    ----------
    signal : {0, 1}, optional
        Which factor is the signal. Default: the other one of what comes from a sigmoid, hard sigmoid or softmax.
    soft : bool, default False
        Whether the gate is a function such as SiLU, which is a signal by itself: a composite may choose
        :class:`~pylrp.rules.Half` then.
    """

    signal: Literal[0, 1] | None = None
    soft: bool = False
    kind: ClassVar[str] = "multiply"
    rule_kind: ClassVar[str | None] = "product"
    has_ledger_row: ClassVar[bool] = True
    any_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.signal not in (None, 0, 1):
            raise ValueError(f"signal is {self.signal!r}, expected 0 or 1: the first or the second factor")

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape that both are repeated to."""
        return _common(self, shapes)

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        return "multiply", {"signal": self.signal or 0, **_steps(place)}


@dataclass(frozen=True)
class Divide(NamedLayer):
    """``u / v`` of two values, element by element; sizes of 1 are repeated, as NumPy does.

    The divisor counts as a constant: the numerator takes all relevance.
    """

    kind: ClassVar[str] = "divide"
    differentiable: ClassVar[bool] = False
    any_order: ClassVar[bool] = True
    effect_without_rule: ClassVar[str] = "all to the numerator"

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape that both are repeated to."""
        return _common(self, shapes)

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        return "divide", {"signal": 0, **_steps(place)}


def _common(layer: Layer, shapes: tuple[Shape, ...]) -> Shape:
    one, other = pair(layer, shapes)
    if len(one) != len(other) or any(n != m and 1 not in (n, m) for n, m in zip(one, other, strict=True)):
        name = type(layer).__name__
        raise ValueError(f"{name} takes values with as many axes, each of one size or 1, got {one} and {other}")
    return tuple(m if n == 1 else n for n, m in zip(one, other, strict=True))


def _steps(place: Place) -> dict[str, Any]:
    """Return the axes of the output in the core's order, and a step along each in both inputs, 0 where repeated."""
    axes: list[list[int]] = []  # size and the two steps, from the last axis on
    strides = [repeated_steps(*value) for value in zip(place.inputs, place.orders, strict=True)]
    for size, *steps in ([sizes[axis] for sizes in (place.output, *strides)] for axis in reversed(place.order)):
        if size == 1:
            continue
        if axes and all(step == axes[-1][0] * inner for step, inner in zip(steps, axes[-1][1:], strict=True)):
            axes[-1][0] *= size
        else:
            axes.append([size, *steps])
    axes = axes[::-1] or [[1, 1, 1]]
    return {"shape": [axis[0] for axis in axes], "strides": [[axis[k] for axis in axes] for k in (1, 2)]}
