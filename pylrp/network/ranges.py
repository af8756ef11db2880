"""Inputs that plainly were not scaled as the network expects, wherever something can tell.

``network.py`` asks once what is expected of each input, and looks at every x that it explains. What tells: a range that
the file or the caller of :func:`pylrp.load` gives, and the scaling that a network begins with, statistics of a
BatchNorm or of a scaler. False alarms cost trust: only what is far off is said, bytes instead of 0 to 1 for example.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Affine, BatchNorm, Identity, Movement, Shape
from pylrp.layers.base import product
from pylrp.network.graph import Graph, Node

__all__ = ["Expected", "expected_of", "warn_unscaled"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Places = NDArray[np.int64]

_FAR = 20.0  # standard deviations
_BEYOND = 0.1  # of a range's width: resampled pictures reach a little over their ends
_NARROW = 0.01  # of a range's width
_FLAT = 0.02  # standard deviations
_EQUAL = 1e-6  # standard deviations, of values that are all the same
_FEWEST = 16  # values a channel, to speak of their spread
_SAMPLES = 4  # that statistics are compared with
_BYTES = (100.0, 260.0)  # divisors that make bytes small: 255, 127.5, 128, 127


@dataclass(frozen=True)
class Expected:
    """What an input is expected to be.

    Attributes
    ----------
    name : str
        Of the input.
    range : (float, float) or None
    inferred : bool
        Whether the range is that of bytes, because the network divides by 255 or so.
    mean, deviation : ndarray of the input's logical shape, or None
        Before a scaling that takes it to values around 0 of size 1.
    """

    name: str
    range: tuple[float, float] | None = None
    inferred: bool = False
    mean: Floats | None = None
    deviation: Floats | None = None


def expected_of(graph: Graph) -> list[Expected]:
    """Return what is expected of the inputs of which something is known."""
    found = []
    sides = graph.facts.sides
    for name in graph.inputs:
        if sides is not None and name in sides.feeds:
            continue
        known = graph.facts.ranges.get(name)
        if known is not None:
            found.append(Expected(name, known))
        elif (scaled := _scaled(graph, name)) is not None:
            found.append(scaled)
    return found


def _scaled(graph: Graph, name: str) -> Expected | None:
    """Return what the scaling at an input tells of it."""
    shape = graph.inputs[name]
    nodes = _first_nodes(graph, name)
    scale, shift = np.ones(()), np.zeros(())  # of values of the shape there, or as broadcasts to it
    place: Places | None = None  # of each value in the input; None: where it is
    standardises, there = False, shape
    for node in nodes:
        layer = node.layer
        if isinstance(layer, Movement):
            moved = layer.move(np.arange(product(there), dtype=np.int64).reshape(there))
            if not _is_permutation(moved):
                break
            place = moved if place is None else place.reshape(-1)[moved]
            scale, shift = (np.broadcast_to(a, there).reshape(-1)[moved] if a.ndim else a for a in (scale, shift))
            there = moved.shape
        elif isinstance(layer, BatchNorm):
            across = (-1, *(1,) * (len(there) - 1))
            mean, variance = (np.asarray(a, np.float64).reshape(across) for a in (layer.mean, layer.variance))
            deviation = np.sqrt(variance + layer.epsilon)
            scale, shift, standardises = scale / deviation, (shift - mean) / deviation, True
        elif isinstance(layer, Affine):
            factor, more = (np.asarray(a, np.float64) for a in (layer.scale, layer.shift))
            scale, shift = scale * factor, shift * factor + more
            standardises = standardises or (factor.size > 1 and bool(np.any(more != 0)))
    if standardises and (scale > 0).all():
        mean, deviation = (_at(place, np.broadcast_to(a, there), shape) for a in (-shift / scale, 1 / scale))
        return Expected(name, mean=mean, deviation=deviation)
    low, high = _BYTES
    divides = len(shape) == 3 and bool(((scale > 1 / high) & (scale < 1 / low)).all())
    return Expected(name, (0.0, 255.0), inferred=True) if divides else None


def _first_nodes(graph: Graph, name: str) -> list[Node]:
    """Return the nodes from an input up that move and scale all its values, to the last scaling."""
    value, found, last = name, [], 0
    while len(consumers := graph.consumers(value)) == 1:
        ((node, _),) = consumers
        moves = isinstance(node.layer, Movement) and product(graph.shapes[node.name]) == product(graph.shapes[value])
        scales = isinstance(node.layer, Affine | BatchNorm)
        if not (moves or scales or isinstance(node.layer, Identity)):
            break
        found.append(node)
        last = len(found) if scales else last
        if isinstance(node.layer, BatchNorm):
            break
        value = node.name
    return found[:last]


def _is_permutation(moved: Places) -> bool:
    """Tell whether each number from 0 is there once."""
    seen = np.zeros(moved.size, bool)
    seen[moved[moved >= 0]] = True
    return bool(seen.all())


def _at(place: Places | None, values: Floats, shape: Shape) -> Floats:
    """Return values in their places of the input."""
    if place is None:
        return values
    made = np.empty(place.size)
    made[place.reshape(-1)] = values.reshape(-1)
    return made.reshape(shape)


def warn_unscaled(expected: Expected, x: Array, stacklevel: int) -> None:
    """Warn if samples of logical shape, (batch, *shape) or (*shape,), are plainly not scaled as expected."""
    if x.size == 0 or not np.isfinite(low := float(x.min())) or not np.isfinite(high := float(x.max())):
        return
    said = None
    if expected.range is not None:
        said = _off_range(*expected.range, low, high, inferred=expected.inferred)
    elif expected.mean is not None and expected.deviation is not None:
        said = _off_statistics(expected.mean, expected.deviation, x)
    if said is not None:
        warnings.warn(
            f"the input {expected.name!r} reaches from {low:g} to {high:g}, {said}: "
            "scale it as the network was trained",
            stacklevel=stacklevel,
        )


def _off_range(low: float, high: float, least: float, most: float, *, inferred: bool) -> str | None:
    width = high - low
    what = f"values from {low:g} to {high:g} are expected"
    if not inferred and (least < low - _BEYOND * width or most > high + _BEYOND * width):
        return what
    return what if least < most and most - least <= _NARROW * width else None


def _off_statistics(mean: Floats, deviation: Floats, x: Array) -> str | None:
    samples = x.reshape(-1, *mean.shape)[:_SAMPLES]
    z = (samples - mean) / deviation
    if np.count_nonzero(np.abs(z) > _FAR) > z.size / 2:
        return f"most of it more than {_FAR:g} standard deviations from the mean of the data it was trained with"
    # A value a channel says nothing of its spread.
    rows = np.moveaxis(z, 1, 0).reshape(z.shape[1], -1)
    if mean.ndim > 1 and rows.shape[1] >= _FEWEST:
        spread = rows.std(axis=1)
        if _EQUAL < spread.max() < _FLAT:
            return f"within {spread.max():.2g} standard deviations of the data that the network was trained with"
    return None
