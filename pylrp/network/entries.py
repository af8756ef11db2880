"""Targets that are single entries of an output: ``(position, token)``, or some of them with weights.

``targets.py`` calls in; the core reads the entries' values and starts there (``csrc/bindings/entries.hpp``), so that an
output of tokens by vocabulary is not written out for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pylrp.errors import UnfitTarget, UnfitTargetType
from pylrp.layers import Shape
from pylrp.layers.base import Array
from pylrp.network.classes import Classes

__all__ = ["Entries", "entries_of", "to_pass_again"]

_PAIR = 2  # axes of an output of tokens by classes


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries of an output and their weights: relevance starts at weight times value.

    Attributes
    ----------
    places : ndarray of int64, shape (entries, 2)
        The sample, and where the entry lies in it, counted along the axes that the user sees.
    weights : ndarray of float64, shape (entries,)
    """

    places: Array
    weights: Array


def entries_of(target: Any, shape: Shape, batch: int, single: bool, top: str, classes: Classes) -> Entries | None:
    """Return the entries that a target names; None where it is of another kind.

    Parameters
    ----------
    target : tuple of int, mapping to float, or sequence of them, one a sample
        A tuple has an index for each axis of the output; a mapping goes from such tuples, or from the classes of an
        output with one axis, to weights. Negative indices count from the end, but not those of classes.
    shape : tuple of int
        Of a sample of the output.
    batch : int
    single : bool
        Whether there is one sample without a batch axis.
    top : str
        What the output is called.
    classes : Classes

    Raises
    ------
    ValueError, TypeError
    """
    if _is_one(target, shape):
        each: Sequence[Any] = [target] * batch
    elif isinstance(target, list) and target and all(_is_one(one, shape) for one in target):
        if len(target) != batch:
            raise UnfitTarget(f"target has {len(target)} entries, x has {batch} samples", target, shape)
        each = target
    elif _is_table(target, shape, batch) and not single:
        each = [tuple(row) for row in np.asarray(target).tolist()]
    else:
        return None
    places, weights = [], []
    for sample, one in enumerate(each):
        weighted = one if isinstance(one, Mapping) else {one: 1.0}
        if not weighted:
            entry = "{(position, class): 1}" if len(shape) > 1 else "{class: 1}"
            raise UnfitTarget(f"target is an empty dict: give it an entry of the output, {entry}", target, shape)
        for key, weight in weighted.items():
            place, sign = _place(key, shape, top, classes)
            places.append((sample, place))
            weights.append(sign * _weight(weight, key))
    return Entries(np.array(places, np.int64).reshape(-1, 2), np.array(weights, np.float64))


def to_pass_again(target: Any) -> Any:
    """Return a target so that it can be written as JSON: a dict as pairs of its keys and weights."""
    if isinstance(target, Mapping):
        return [[list(key) if isinstance(key, tuple) else key, float(weight)] for key, weight in target.items()]
    return [to_pass_again(one) for one in target] if isinstance(target, list) else target


def _is_one(target: Any, shape: Shape) -> bool:
    if isinstance(target, Mapping):
        return True
    return isinstance(target, tuple) and len(target) == len(shape) > 1 and all(map(_is_integer, target))


def _is_table(target: Any, shape: Shape, batch: int) -> bool:
    """Whether a target is an array of indices, a row for each sample."""
    array = target if isinstance(target, np.ndarray) else np.empty(0)
    return len(shape) > 1 and array.dtype.kind in "iu" and array.shape == (batch, len(shape))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)


def _weight(weight: Any, key: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float | np.integer | np.floating):
        raise UnfitTargetType(f"target: the weight of {key!r} is {weight!r}, it must be a number", {key: weight})
    if not math.isfinite(weight):
        raise UnfitTarget(f"target: the weight of {key!r} is {weight}, it must be finite", {key: weight})
    return float(weight)


def _place(key: Any, shape: Shape, top: str, classes: Classes) -> tuple[int, int]:
    """Return where an entry lies, and by what its value is multiplied."""
    if len(shape) < _PAIR:
        key = key[0] if isinstance(key, tuple) and len(key) == 1 else key
        found = np.empty(1) if isinstance(key, tuple) else classes.resolve(key, "target")
        if found.ndim or not 0 <= found < classes.count:
            said = f"target {key!r} is no class: the network has {classes.count}, 0 to {classes.count - 1}"
            raise UnfitTarget(said, key, shape)
        sign = classes.sign(np.atleast_1d(found))
        return int(classes.channel(np.atleast_1d(found))[0]), 1 if sign is None else int(sign[0])
    if not isinstance(key, tuple) or len(key) != len(shape) or not all(map(_is_integer, key)):
        raise UnfitTargetType(
            f"target: {key!r} is no entry of {top!r}, whose shape is {shape}: give an index for each axis, "
            f"{{{(-1,) * (len(shape) - 1) + (0,)}: 1}}",
            key,
            shape,
        )
    of_classes = len(shape) - 1 if len(shape) == _PAIR else 0
    indices = []
    for axis, (index, count) in enumerate(zip(key, shape, strict=True)):
        least = 0 if axis == of_classes else -count
        if not least <= index < count:
            what = "class" if axis == of_classes else "position"
            raise UnfitTarget(
                f"target {tuple(map(int, key))}: {top!r} has shape {shape}, there is no {what} {index} along axis "
                f"{axis}: {least} to {count - 1}",
                key,
                shape,
            )
        indices.append(int(index) % count)
    return int(np.ravel_multi_index(indices, shape)), 1
