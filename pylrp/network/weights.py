"""The one policy for all arrays of a graph: a common dtype, settled layouts, finite values. ``graph.py`` calls in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from pylrp._arrays import memory_order, require_finite, settle
from pylrp.errors import NotFinite
from pylrp.layers import Layer
from pylrp.layers.base import Array

__all__ = ["Weights", "first_dtype"]


def first_dtype(layers: Iterable[Layer]) -> np.dtype[Any]:
    """Return the dtype of the first array that can be computed with; plain numbers follow it."""
    for layer in layers:
        for name in layer.arrays:
            value = getattr(layer, name)
            if value is not None and type(value) not in (int, float):
                dtype = np.asarray(value).dtype.newbyteorder("=")
                if dtype in (np.float32, np.float64):
                    return dtype
    return np.dtype(np.float32)


class Weights:
    """The one policy for all arrays of a graph: a common dtype, settled layouts, finite values."""

    def __init__(self, dtype: np.dtype[Any], finite: dict[int, Array]):
        self.dtype = dtype
        self.finite = finite  # by id; the arrays are held, so that an id stays theirs
        self._settled: dict[int, tuple[Layer, Layer]] = {}
        self._copies: dict[int, tuple[object, Array]] = {}
        self._counted: set[int] = set()
        self.size = 0  # bytes
        if dtype not in (np.float32, np.float64):
            raise TypeError(f"dtype is {dtype}, relevance is computed in float32 or float64")

    def settle(self, layer: Layer, where: str) -> Layer:
        """Return the layer with settled arrays: itself where they fit, one layer for one layer."""
        if id(layer) in self._settled:
            return self._settled[id(layer)][1]
        changes = {}
        for name in layer.arrays:
            value = getattr(layer, name)
            if value is None:
                continue
            array = self._settle(value, f"{where}: {name}")
            if array is not value:
                changes[name] = array
        made: Layer = replace(layer, **changes) if changes else layer  # type: ignore[type-var]
        self._settled[id(layer)] = layer, made
        return made

    def _settle(self, value: object, name: str) -> Array:
        if type(value) in (int, float):  # a plain number takes the graph's dtype
            return np.asarray(value, self.dtype)
        if id(value) not in self._copies:
            if type(value) is np.ndarray and value.dtype is self.dtype and value.flags.aligned and memory_order(value):
                array = value  # a kernel as the core has stored it
            else:
                array = settle(value, name)
                # Rows of a matrix may lie anywhere, a kernel's are walked through as one block.
                array = array if array.ndim <= 2 else np.ascontiguousarray(array)
            self._copies[id(value)] = value, array
        return self._copies[id(value)][1]

    def check(self, layer: Layer, where: str) -> None:
        """Raise if an array is of another dtype than those before it, or not finite."""
        for name in layer.arrays:
            array = getattr(layer, name)
            if array is None:
                continue
            if array.dtype != self.dtype:
                raise TypeError(
                    f"{where}: {name} is {array.dtype}, the first weight is {self.dtype}: convert to one dtype"
                )
            if id(array) not in self._counted:
                self._counted.add(id(array))
                self.size += array.nbytes
            if id(array) not in self.finite:
                axes = memory_order(array)
                try:
                    require_finite(array if axes is None else array.transpose(axes), f"{where}: {name}")
                except NotFinite:
                    require_finite(array, f"{where}: {name}")  # which names the place in the usual order
                self.finite[id(array)] = array
