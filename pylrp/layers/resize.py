"""Resizing by nearest neighbour or linearly, with ONNX's choices of coordinates.

Nearest is a move; linear is a weighted sum of at most two values an axis, which :meth:`Resize.taps` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pylrp._limits import require_shape
from pylrp.layers.base import NamedLayer, Place, Shape, Spec, product, sole
from pylrp.layers.movement import sparse_table
from pylrp.network.layout import positions, to_core

__all__ = ["COORDINATES", "Resize"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_BYTES_OF_TAP = 32  # a place and a weight, and what they are made of

# Where output i lies on the input's grid: f(i, scale, size of the input, size of the output).
COORDINATES: dict[str, Callable[[Floats, float, int, int], Floats]] = {
    "half_pixel": lambda i, scale, n, m: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale, n, m: (i + 0.5) / scale - 0.5 if m > 1 else 0 * i,
    "half_pixel_symmetric": lambda i, scale, n, m: n / 2 * (1 - m / (scale * n)) + (i + 0.5) / scale - 0.5,
    "align_corners": lambda i, scale, n, m: i * ((n - 1) / (m - 1)) if m > 1 else 0 * i,
    "asymmetric": lambda i, scale, n, m: i / scale,
    "tf_half_pixel_for_nn": lambda i, scale, n, m: (i + 0.5) / scale,
}
_ROUNDING: dict[str, Callable[[Floats], Floats]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class Resize(NamedLayer):
    """Another size along some axes.

    Parameters
    ----------
    size : sequence of int, optional
        The output's size along each of ``axes``.
    scales : sequence of float, optional
        Or by which factor it grows; the size is rounded down.
    mode : {"nearest", "linear"}, default "nearest"
    coordinates : str, default "half_pixel"
        ONNX's ``coordinate_transformation_mode``: "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric",
        "align_corners", "asymmetric" or "tf_half_pixel_for_nn".
    nearest : str, default "round_prefer_floor"
        ONNX's ``nearest_mode``: "round_prefer_floor", "round_prefer_ceil", "floor" or "ceil".
    axes : sequence of int, optional
        Axes of the logical shape. Default: the spatial ones, all but axis 0.
    """

    size: Sequence[int] | None = None
    scales: Sequence[float] | None = None
    mode: Literal["nearest", "linear"] = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    axes: Sequence[int] | None = None
    kind: ClassVar[str] = "resize"
    rule_kind: ClassVar[str | None] = "resize"
    has_ledger_row: ClassVar[bool] = True
    moves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("size", "scales", "axes"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, tuple(getattr(self, field)))
        if (self.size is None) == (self.scales is None):
            raise ValueError("give size or scales to Resize, one of them")
        if min(self.size or self.scales or (0,)) <= 0:
            raise ValueError(f"{'size' if self.size else 'scales'} is {self.size or self.scales}, expected more than 0")
        choices = {
            "mode": (self.mode, ("nearest", "linear")),
            "coordinates": (self.coordinates, tuple(COORDINATES)),
            "nearest": (self.nearest, tuple(_ROUNDING)),
        }
        for field, (value, known) in choices.items():
            if value not in known:
                raise ValueError(f"{field} is {value!r}, expected one of {', '.join(known)}")

    def _grid(self, shape: Shape) -> dict[int, tuple[int, float]]:
        """Return, for each axis that is resized, the output's size and the factor of the coordinates."""
        axes = tuple(range(1, len(shape))) if self.axes is None else tuple(a % max(len(shape), 1) for a in self.axes)
        wanted = self.size or self.scales or ()
        if len(wanted) != len(axes) or max(axes, default=0) >= len(shape):
            what = "size" if self.size else "scales"
            raise ValueError(f"{what} has {len(wanted)} entries for axes {axes} of the input {shape}")
        if self.size is not None:
            return {axis: (m, m / shape[axis]) for axis, m in zip(axes, self.size, strict=True)}
        grid = {}
        for axis, scale in zip(axes, self.scales or (), strict=True):
            # In float32, as files hold their factors: 3 * float32(5 / 3) is 5 there, 4.99... in float64.
            with np.errstate(over="ignore"):
                size = np.float32(shape[axis]) * np.float32(scale)
            if not np.isfinite(size):
                raise ValueError(f"scales is {self.scales}, expected finite numbers")
            m = int(size)
            if m < 1:
                raise ValueError(f"scales is {self.scales}, nothing of the input {shape} is left")
            grid[axis] = m, float(scale)
        return grid

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the new shape."""
        shape = sole(self, shapes)
        grid = self._grid(shape)
        return tuple(grid[axis][0] if axis in grid else n for axis, n in enumerate(shape))

    def _places(self, n: int, m: int, scale: float) -> Floats:
        return np.asarray(COORDINATES[self.coordinates](np.arange(m, dtype=np.float64), scale, n, m), np.float64)

    def nearest_of(self, n: int, m: int, scale: float) -> Ints:
        """Return which of n values is the nearest one for each of m."""
        places = self._places(n, m, scale)
        # A place meant to be whole or half must not be rounded the wrong way by the division.
        halves = np.round(2 * places) / 2
        places = np.where(np.abs(places - halves) < 1e-5, halves, places)
        return np.clip(_ROUNDING[self.nearest](places), 0, n - 1).astype(np.int64)

    def move(self, index: Ints) -> Ints:
        """Return the indices of the nearest values; for ``mode="nearest"`` only."""
        if self.mode != "nearest":
            raise ValueError(f"a resize of mode {self.mode!r} mixes values: use taps")
        for axis, (m, scale) in self._grid(index.shape).items():
            index = np.take(index, self.nearest_of(index.shape[axis], m, scale), axis=axis)
        return index

    def taps(self, shape: Shape) -> tuple[Ints, Floats]:
        """Return what each output value is made of.

        Parameters
        ----------
        shape : tuple of int
            The input's logical shape.

        Returns
        -------
        index : ndarray of int, shape (n_out, k)
            Places in the flattened input; k is at most 2 to the number of axes that are resized.
        weight : ndarray of float64, shape (n_out, k)
            Each row sums to 1; an index may stand in a row twice.
        """
        index = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(*shape, 1)
        weight = np.ones((*shape, 1))
        for axis, (m, scale) in self._grid(shape).items():
            n = shape[axis]
            if self.mode == "nearest":
                near = self.nearest_of(n, m, scale)
                index, weight = np.take(index, near, axis=axis), np.take(weight, near, axis=axis)
                continue
            places = np.clip(self._places(n, m, scale), 0, n - 1)
            low = np.minimum(places.astype(np.int64), max(n - 2, 0))
            high = np.minimum(low + 1, n - 1)
            share = (places - low).reshape(-1, *(1,) * (len(shape) - axis))
            if not share.any():  # whole places: one value each
                index, weight = np.take(index, low, axis=axis), np.take(weight, low, axis=axis)
                continue
            index = np.concatenate([np.take(index, low, axis=axis), np.take(index, high, axis=axis)], axis=-1)
            weight = np.concatenate(
                [np.take(weight, low, axis=axis) * (1 - share), np.take(weight, high, axis=axis) * share], axis=-1
            )
        k = index.shape[-1]
        return index.reshape(-1, k), weight.reshape(-1, k)

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: the places and weights of each output value, in the core's order."""
        shape = place.inputs[0]
        grid = self._grid(shape)
        most = 1 if self.mode == "nearest" else 2 ** len(grid)
        what = f"layer {place.name!r}: the places of resized values and their weights"
        require_shape((*place.output, most), _BYTES_OF_TAP, what)
        if shape and 0 not in grid:  # every channel moves alike: a table of positions tells all
            index, weight = self.taps((1, *shape[1:]))
            channels = np.arange(shape[0])[:, None]
            index = (index[:, None, :] * shape[0] + channels).reshape(-1, index.shape[1])
            weight = np.repeat(weight.astype(place.dtype), shape[0], axis=0)
        else:
            index, weight = self.taps(shape)
            order = to_core(np.arange(len(index)).reshape(place.output))
            index, weight = positions(shape).reshape(-1)[index[order]], weight[order].astype(place.dtype)
        return "sparse", sparse_table(index, None if index.shape[1] == 1 else weight, product(shape), 0.0)
