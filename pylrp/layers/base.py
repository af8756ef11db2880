"""What every layer is: a kind, a shape function, and the names of its arrays; and the layer that users write.

The files beside this one define the layers, ``graph.py`` connects and checks them, the compiled core runs them.
A *logical shape* leaves the batch out and puts channels first: ``(n,)``, ``(C, L)``, ``(C, H, W)``, ``(C, D, H, W)``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "CustomLayer",
    "Layer",
    "NamedLayer",
    "Shape",
    "per_axis",
    "product",
    "require_finite_settings",
    "sole",
]

Array = NDArray[Any]
Shape = tuple[int, ...]


class Layer:
    """Base of all layers."""

    #: What it is: composites choose rules by it, and a node without a name is called after it.
    kind: ClassVar[str]
    #: The attributes that hold its arrays, in the network's dtype.
    arrays: ClassVar[tuple[str, ...]] = ()
    #: The settings that may be infinite; none may be NaN.
    unbounded: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse settings that are NaN or infinite. Arrays are looked through by the graph."""
        require_finite_settings(self)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the logical shape of the output.

        Parameters
        ----------
        *shapes : tuple of int
            The logical shape of each input.

        Raises
        ------
        ValueError
            If the layer can't take these inputs.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define output_shape")


@dataclasses.dataclass(frozen=True)
class NamedLayer(Layer):
    """Base of the layers whose name is told by keyword: ``ReLU(name="relu1")``."""

    name: str | None = dataclasses.field(default=None, kw_only=True, repr=False, compare=False)


class CustomLayer(Layer):
    """A layer that you write: its forward pass, and how it hands relevance down.

    Derive from it and define :meth:`output_shape`, :meth:`forward` and :meth:`relevance`. Arrays are
    ``(batch, *logical shape)`` in the network's dtype.

    Examples
    --------
    >>> class Square(CustomLayer):
    ...     def output_shape(self, *shapes):
    ...         return shapes[0]
    ...
    ...     def forward(self, *inputs):
    ...         return inputs[0] ** 2
    ...
    ...     def relevance(self, inputs, output, relevance):
    ...         return (relevance,)  # one array for each input
    """

    kind: ClassVar[str] = "custom"
    #: What it is called in a list of layers.
    name: str | None = None

    def __init__(self, *, name: str | None = None):
        self.name = name

    def __post_init__(self) -> None:
        """Leave the settings to whoever has written the layer."""

    def forward(self, *inputs: Array) -> Array:
        """Return the output for these inputs."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def relevance(self, inputs: tuple[Array, ...], output: Array, relevance: Array) -> tuple[Array, ...]:
        """Return the relevance of each input, given that of the output."""
        raise NotImplementedError(f"{type(self).__name__} does not define relevance")


def require_finite_settings(layer: Layer) -> None:
    """Raise ValueError naming the first number among a layer's fields that is NaN, or infinite where it must not be."""
    for field in dataclasses.fields(layer):  # type: ignore[arg-type]  # all layers but custom ones are dataclasses
        value = getattr(layer, field.name)
        several = isinstance(value, tuple | list) and field.name not in layer.arrays
        for number in value if several else (value,):
            if isinstance(number, np.ndarray) and number.ndim == 0:
                number = number[()]
            if not isinstance(number, float | np.floating) or math.isfinite(number):
                continue
            if math.isnan(number) or field.name not in layer.unbounded:
                raise ValueError(f"{type(layer).__name__}: {field.name} is {value}, expected finite numbers")


def sole(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    """Return the shape of a layer's one input."""
    if len(shapes) != 1:
        raise ValueError(f"{type(layer).__name__} takes 1 input, got {len(shapes)}")
    return shapes[0]


def product(shape: Sequence[int]) -> int:
    """Return the number of entries of a shape."""
    count = 1
    for n in shape:
        count *= n
    return count


def per_axis(value: int | Sequence[int], axes: int, what: str, least: int = 1) -> tuple[int, ...]:
    """Return one int for each spatial axis: one for all of them, or as given."""
    given: Any = value  # whatever the caller passes is looked at
    if np.ndim(given) > 1:
        raise ValueError(f"{what} is {value}, expected one number or one for each spatial axis")
    numbers = [int(n) for n in np.atleast_1d(np.asarray(given))]
    if any(n != m for n, m in zip(numbers, np.atleast_1d(np.asarray(given)), strict=True)):
        raise ValueError(f"{what} is {value}, expected whole numbers")
    if len(numbers) == 1:
        numbers *= axes
    if len(numbers) != axes:
        raise ValueError(f"{what} has {len(numbers)} entries, the layer has {axes} spatial axes")
    if min(numbers, default=least) < least:
        raise ValueError(f"{what} is {value}, expected at least {least}")
    return tuple(numbers)
