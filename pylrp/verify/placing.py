"""Where a step that moves values has taken each of them from, and what stands where it takes none.

``tape.py`` takes the constants that are part of a layer back over such steps, ``backward.py`` relevance.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from pylrp.verify import pooling
from pylrp.verify.moving import MOVES
from pylrp.verify.program import Array, Step

__all__ = ["completed", "places", "read_by"]

#: Whose channels are on axis 1; those of other steps are on the last axis.
_CHANNELS_FIRST = ("Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization")


def places(step: Step, given: list[Array | None], positions: Collection[int]) -> list[Array]:
    """Return, for each output of a step that moves values, which entry each of its entries is: from 1 on, 0 for none.

    Entries of the inputs at ``positions`` are counted one input after the other.
    """
    numbered: list[Array | None] = list(given)
    first = 1
    for i in positions if step.op in ("Concat", "Where") else [*positions][:1]:
        array = given[i]
        assert array is not None
        numbered[i] = np.arange(first, first + array.size).reshape(array.shape)
        first += array.size
    if step.op in ("Concat", "Where"):
        for i, array in enumerate(given):
            if i not in positions and array is not None and not (step.op == "Where" and i == 0):
                numbered[i] = np.zeros(array.shape, np.int64)
    if step.op == "Pad":  # its constant is none of the entries
        step = replace(step, attributes={k: v for k, v in step.attributes.items() if k != "value"})
        numbered = [None if i == 2 else v for i, v in enumerate(numbered)]
    if step.op in ("MaxPool", "GlobalMaxPool"):
        assert given[0] is not None
        return [pooling.largest(step, given[0]) + 1]
    if step.op == "Where":
        return [np.where(*[np.asarray(v) for v in numbered])]
    made = MOVES[step.op](step, *numbered)
    return [np.asarray(v).astype(np.int64) for v in (made if isinstance(made, tuple) else (made,))]


def read_by(step: Step, reader: Step) -> int:
    """Return which output of a step another one reads."""
    return next((i for i, name in enumerate(step.outputs) if name and name in reader.inputs), 0)


def completed(array: Array, fill: float, step: Step) -> Array:
    """Return an array of the shape of what a step makes with numbers where there is none.

    It is the channel's where each channel has one number: so a layer has it that adds one bias a channel wherever a
    crop is. ``fill`` stands in channels without any, and where they differ within a channel.
    """
    missing = np.isnan(array)
    channel = 1 if step.op in _CHANNELS_FIRST else array.ndim - 1
    if not missing.any():
        return array
    low, high = np.where(missing, np.inf, array), np.where(missing, -np.inf, array)
    others = tuple(axis for axis in range(array.ndim) if axis != channel)
    least, most = low.min(axis=others, keepdims=True), high.max(axis=others, keepdims=True)
    # Nowhere read: the least is inf.
    known = (least == most) | (least > most)
    each = np.where(np.isfinite(least) & known.all(), least, fill)
    return np.where(missing, each, array)
