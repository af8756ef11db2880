"""The layer that users write in Python, and how the core calls it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from pylrp.layers.base import Array, Layer, Place, Shape, Spec
from pylrp.network.layout import batch_from_core, batch_to_core

__all__ = ["CustomLayer"]


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
    differentiable: ClassVar[bool] = False
    has_ledger_row: ClassVar[bool] = True
    effect_without_rule: ClassVar[str] = "its own"
    #: What it is called in a list of layers.
    name: str | None = None

    def __init__(self, *, name: str | None = None):
        self.name = name

    def __post_init__(self) -> None:
        """Check nothing: the settings are those of the layer's author."""

    def forward(self, *inputs: Array) -> Array:
        """Return the output for these inputs."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def relevance(self, inputs: tuple[Array, ...], output: Array, relevance: Array) -> tuple[Array, ...]:
        """Return the relevance of each input, given that of the output."""
        raise NotImplementedError(f"{type(self).__name__} does not define relevance")

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        return "custom", {"object": _Flat(self, place)}


class _Flat:
    """A layer in Python as the core calls it: flat arrays in the core's layout on both sides."""

    def __init__(self, layer: CustomLayer, place: Place):
        self.layer, self.place = layer, place

    def forward(self, inputs: list[Array]) -> Array:
        return self._flat(self.layer.forward(*self._logical(inputs)), self.place.output, inputs[0], "forward")

    def relevance(self, inputs: list[Array], relevance: Array) -> list[Array]:
        arrays = self._logical(inputs)
        output = np.asarray(self.layer.forward(*arrays))
        given = self.layer.relevance(tuple(arrays), output, batch_from_core(relevance, self.place.output))
        if not isinstance(given, (tuple, list)) or len(given) != len(inputs):
            raise ValueError(
                f"layer {self.place.name!r}: relevance() must return a tuple of {len(inputs)} arrays, one an input"
            )
        return [
            self._flat(array, shape, inputs[0], "relevance")
            for array, shape in zip(given, self.place.inputs, strict=True)
        ]

    def _logical(self, inputs: list[Array]) -> list[Array]:
        return [batch_from_core(array, shape) for array, shape in zip(inputs, self.place.inputs, strict=True)]

    def _flat(self, value: Any, shape: Shape, like: Array, what: str) -> Array:
        array = np.asarray(value, dtype=like.dtype)
        expected = (len(like), *shape)
        if array.shape != expected:
            raise ValueError(f"layer {self.place.name!r}: {what}() returned shape {array.shape}, expected {expected}")
        return batch_to_core(array)
