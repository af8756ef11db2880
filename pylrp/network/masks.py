"""Masks of an explanation, ``masks=``: through which channels, heads or entries of a layer relevance may pass.

``explain.py`` calls in; the core closes what they leave out (``csrc/engine/backward.cpp``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pylrp._arrays import plain
from pylrp.layers import Shape
from pylrp.layers.base import Array, product
from pylrp.network.graph import Graph
from pylrp.network.requests import known

__all__ = ["by_value", "for_core", "has_rows", "kept", "settled"]

_TWO = 2  # axes


def by_value(graph: Graph, masks: Any) -> Any:
    """Return masks by the values' own names, where they are given by an output's."""
    if not isinstance(masks, Mapping):
        return masks
    return {graph.value(name) if isinstance(name, str) else name: channels for name, channels in masks.items()}


def settled(graph: Graph, masks: Any, batch: int, single: bool) -> dict[str, Array]:
    """Return for each masked value what stays, booleans of shape (1 or batch, channels) or (1 or batch, size).

    Parameters
    ----------
    graph : Graph
    masks : mapping of str to sequence or array_like, or None
        By layer a list of channels, booleans of all channels, or an array of booleans: one that broadcasts to a
        sample of the value, (batch, channels), or (batch, ...) with the value's axes behind.
    batch : int
    single : bool
        Whether samples have no batch axis.

    Raises
    ------
    TypeError, ValueError
    """
    if masks is None:
        return {}
    if not isinstance(masks, Mapping):
        raise TypeError(f"masks must be a dict, from a layer's name to a list of its channels, got {masks!r}")
    made = {}
    for name, given in masks.items():
        if known(graph, name, "masks") in graph.inputs:
            raise ValueError(f"masks: {name!r} is an input, a mask belongs to a layer")
        shape = graph.shapes[name]
        array = np.asarray(plain(given, f"masks[{name!r}]"))
        made[name] = (
            _entries(name, array, shape, batch, single) if array.ndim > 1 else _channels(name, array, given, shape)
        )
    return made


def for_core(stays: Mapping[str, Array], values: Mapping[str, int]) -> list[tuple[int, Array]]:
    """Return the masks by the core's numbers of their values."""
    return [(values[name], array) for name, array in stays.items()]


def kept(masks: Mapping[str, Any] | None, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Return what an explanation keeps of its masks: a copy, and which of them have a row for each sample."""
    if masks is None:
        return {"masks": None}
    by_sample = [name for name, given in masks.items() if has_rows(given, shapes[name])]
    copies = {name: np.asarray(given).tolist() for name, given in masks.items()}
    return {"masks": copies, **({"masks_by_sample": by_sample} if by_sample else {})}


def has_rows(given: Any, shape: Shape) -> bool:
    """Whether a mask of a value of this shape has a batch axis with more than one entry."""
    axes = np.ndim(given)
    return axes > 1 and len(given) > 1 and (axes == len(shape) + 1 or (axes == _TWO and len(shape) > _TWO))


def _channels(name: str, channels: Array, given: Any, shape: Shape) -> Array:
    count = (*shape, 1)[0]
    stay = np.zeros((1, count), dtype=bool)
    if channels.ndim != 1 or (channels.size and channels.dtype.kind not in "iub"):
        raise TypeError(f"masks: channels of layer {name!r} must be a list of integers, got {given!r}")
    if channels.dtype.kind == "b" and len(channels) != count:
        raise ValueError(f"masks: layer {name!r} has {count} channels, the mask has {len(channels)} entries")
    for channel in np.flatnonzero(channels) if channels.dtype.kind == "b" else channels.tolist():
        if not 0 <= channel < count:
            raise ValueError(f"masks: layer {name!r} has {count} channels, there is no channel {channel}")
        stay[0, channel] = True
    return stay


def _entries(name: str, stays: Array, shape: Shape, batch: int, single: bool) -> Array:
    if stays.dtype.kind != "b":
        raise TypeError(
            f"masks: an array of {stays.ndim} axes for layer {name!r} must be of booleans, got {stays.dtype}; channels "
            "are a list of integers"
        )
    if not single and stays.shape == (batch, *shape[:1]) and len(shape) != _TWO:  # channels, sample by sample
        return np.ascontiguousarray(stays)
    rank = len(shape)
    if stays.ndim == rank:
        stays = stays[None]
    fits = stays.ndim == rank + 1 and all(n in (1, m) for n, m in zip(stays.shape[1:], shape, strict=True))
    if not fits or stays.shape[0] not in (1, batch):
        raise ValueError(
            f"masks: the mask of layer {name!r} has shape {stays.shape}, a sample of it {shape}: give one that "
            f"broadcasts to {shape}" + ("" if single else f", or to {(batch, *shape)} for a mask a sample")
        )
    return np.ascontiguousarray(np.broadcast_to(stays, (len(stays), *shape))).reshape(len(stays), product(shape))
