"""What a user asks of a network, settled for the core: inputs, targets, starts, masks. ``network.py`` calls in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp._arrays import plain, require_finite, settle
from pylrp.graph import Graph
from pylrp.layers import Shape
from pylrp.layers.base import product

__all__ = [
    "Inputs",
    "channel_masks",
    "contrast",
    "explained",
    "start_value",
    "starts",
    "wanted_values",
]

Array = NDArray[Any]


class Inputs:
    """The arrays for a graph's inputs, checked.

    Attributes
    ----------
    given : dict of str to ndarray
        By name, as the user passed them.
    flat : list of ndarray
        (batch, size) each.
    dtype : dtype
        The network's.
    batch : int
    single : bool
        Whether it is one sample without a batch axis.
    """

    def __init__(self, graph: Graph, x: Any):
        self._graph = graph
        self.dtype = graph.dtype
        self.given: dict[str, Array] = {}
        self.flat: list[Array] = []
        self.single = False
        self.batch = -1
        for name, value in _by_name(graph, x).items():
            self._add(name, value, "x" if len(graph.inputs) == 1 else f"x[{name!r}]")

    def _add(self, name: str, value: Any, what: str) -> None:
        graph = self._graph
        shape = self.user_shape(name)
        array = settle(value, what)
        if array.shape[-len(shape) :] != shape or array.ndim not in (len(shape), len(shape) + 1):
            raise ValueError(_misfit(array, shape, what, name in graph.channels_last))
        if array.dtype is not graph.dtype and array.dtype != graph.dtype:
            raise TypeError(
                f"{what} is {array.dtype}, the network is {graph.dtype}: convert {what.split('[')[0]}, or build it in "
                f"{array.dtype}"
            )
        single = array.ndim == len(shape)
        batch = 1 if single else len(array)
        if self.batch >= 0 and (batch != self.batch or single != self.single):
            raise ValueError(f"{what} has {batch} samples, the inputs before it have {self.batch}")
        self.batch, self.single = batch, single
        self.given[name] = array
        self.flat.append(array if array.ndim <= 2 and len(shape) == 1 else as_rows(array, batch, shape))

    def user_shape(self, name: str) -> Shape:
        """Return a value's shape as users see it: an input's may have its channels last."""
        shape = self._graph.shapes[name]
        return (*shape[1:], shape[0]) if name in self._graph.channels_last else shape

    def logical(self, name: str) -> Array:
        """Return an input with channels first."""
        array = self.given[name]
        if name not in self._graph.channels_last:
            return array
        return np.moveaxis(array, -1, 0 if self.single else 1)

    def shaped(self, flat: Array, shape: Shape) -> Array:
        """Return (batch, size) as (batch, *shape), resp. (*shape,) for a single sample."""
        return flat.reshape(shape if self.single else (self.batch, *shape))

    def several(self, flat: Array, shape: Shape, targets: int | None, name: str) -> Array:
        """Return (targets * batch, size) as (batch, targets, *shape), as the user asked for it."""
        if name in self._graph.channels_last:
            shape = self.user_shape(name)
        if targets is None:
            return self.shaped(flat, shape)
        if self.single:
            return flat.reshape(targets, *shape)
        return np.ascontiguousarray(flat.reshape(targets, self.batch, *shape).swapaxes(0, 1))


def as_rows(array: Array, batch: int, shape: Shape) -> Array:
    """Return samples as rows, (batch, size), for the core; there may be none of them."""
    return np.ascontiguousarray(array).reshape(batch, product(shape))


def _by_name(graph: Graph, x: Any) -> dict[str, Any]:
    names = list(graph.inputs)
    if isinstance(x, Mapping):
        if set(x) != set(names):
            raise ValueError(f"x has inputs {', '.join(map(str, x))}, the network takes {', '.join(names)}")
        return {name: x[name] for name in names}
    if len(names) == 1:
        return {names[0]: x}
    if not isinstance(x, tuple) or len(x) != len(names):
        raise ValueError(f"the network takes {len(names)} inputs, {', '.join(names)}: pass a dict by name or a tuple")
    return dict(zip(names, x, strict=True))


def _misfit(array: Array, shape: Shape, what: str, channels_last: bool) -> str:
    text = f"{what} has shape {array.shape}, the network takes (batch, {', '.join(map(str, shape))})"
    if len(shape) == 1:
        if array.ndim == 2 and array.shape[0] == shape[0]:
            text += "; samples are rows here, yours are columns: pass x.T"
        return text
    other = (*shape[1:], shape[0]) if not channels_last else (shape[-1], *shape[:-1])
    if array.shape[-len(shape) :] == other and array.ndim in (len(shape), len(shape) + 1):
        where, axes = ("first", (-len(shape), -1)) if channels_last else ("last", (-1, -len(shape)))
        text += f"; its channels come {where}: pass numpy.moveaxis(x, {axes[0]}, {axes[1]})"
    return text


def start_value(graph: Graph, output: str | None) -> str:
    """Return the value where relevance starts."""
    if output is None:
        if len(graph.outputs) > 1:
            raise ValueError(
                f"the network has several outputs, {', '.join(graph.outputs)}: pass output= with one's name"
            )
        return graph.outputs[0]
    return _known(graph, output, "output")


def wanted_values(graph: Graph, layers: str | Sequence[str] | None) -> list[str]:
    """Return the values whose relevance is asked for."""
    if layers is None:
        return []
    if isinstance(layers, str):
        if layers != "all":
            raise ValueError(f"layers must be 'all' or a list of names, got {layers!r}")
        return list(graph.shapes)
    return [_known(graph, name, "layers") for name in layers]


def channel_masks(
    graph: Graph, masks: Mapping[str, Sequence[int]] | None, values: Mapping[str, int]
) -> list[tuple[int, list[bool]]]:
    """Return for each masked value which channels stay."""
    if masks is None:
        return []
    if not isinstance(masks, Mapping):
        raise TypeError(f"masks must be a dict, from a layer's name to a list of its channels, got {masks!r}")
    made = []
    for name, given in masks.items():
        if _known(graph, name, "masks") in graph.inputs:
            raise ValueError(f"masks: {name!r} is an input, a mask belongs to a layer")
        count = (*graph.shapes[name], 1)[0]
        channels = np.asarray(given)
        stay = np.zeros(count, dtype=bool)
        if channels.ndim != 1 or (channels.size and channels.dtype.kind not in "iub"):
            raise TypeError(f"masks: channels of layer {name!r} must be a list of integers, got {given!r}")
        if channels.dtype.kind == "b" and len(channels) != count:
            raise ValueError(f"masks: layer {name!r} has {count} channels, the mask has {len(channels)} entries")
        for channel in np.flatnonzero(channels) if channels.dtype.kind == "b" else channels.tolist():
            if not 0 <= channel < count:
                raise ValueError(f"masks: layer {name!r} has {count} channels, there is no channel {channel}")
            stay[channel] = True
        made.append((values[name], stay.tolist()))
    return made


def _known(graph: Graph, name: str, what: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what} must be the name of a layer, got {name!r}")
    if name not in graph.shapes:
        raise ValueError(f"{what}: no layer is called {name!r}; there are {', '.join(graph.shapes)}")
    return name


def starts(
    inputs: Inputs, shape: Shape, top: str, target: int | ArrayLike | None, targets: Sequence[int] | None
) -> list[Array | None]:
    """Return what the core starts from, one a target: None (the top class), channels, or relevance (batch, size)."""
    if targets is not None:
        if target is not None:
            raise ValueError("give target or targets, not both")
        if np.ndim(targets) == 0:
            raise TypeError(f"targets must be a list of classes, got {targets!r}")
        if len(targets) == 0:
            raise ValueError("targets is empty")
        return [_classes(np.asarray(plain(t, "targets")), inputs, shape, top) for t in targets]
    if target is None:
        if len(shape) > 1 and product(shape[1:]) > 1:
            raise ValueError(
                f"{top!r} has shape {shape}, no single class is on top: pass target=, a channel or an array"
            )
        return [None]
    array = np.asarray(plain(target, "target"))
    expected = shape if inputs.single else (inputs.batch, *shape)
    if array.dtype.kind in "iu" and array.ndim < 2:
        return [_classes(array, inputs, shape, top)]
    if array.dtype.kind != "f":
        what = f"an array of {array.dtype}" if array.ndim else repr(target)
        raise TypeError(
            f"target is {what}: a class must be an integer, relevance an array of {inputs.dtype} with the output's "
            f"shape {expected}"
        )
    given = settle(target, "target")
    if given.shape != expected:
        classes = ", or an integer for a class" if given.ndim < 2 else ""
        raise ValueError(f"target has shape {given.shape}, the output has shape {expected}{classes}")
    if given.dtype != inputs.dtype:
        raise TypeError(f"target is {given.dtype}, the network is {inputs.dtype}")
    require_finite(given, "target")
    return [given if given.ndim == 2 and not inputs.single else as_rows(given, inputs.batch, shape)]


def _classes(target: Array, inputs: Inputs, shape: Shape, top: str) -> Array:
    if target.dtype.kind not in "iu":
        raise TypeError(f"a target must be an integer, got {target.dtype}")
    if target.ndim > 1:
        raise ValueError(f"a target must be one class, or one a sample, got an array of shape {target.shape}")
    if target.ndim == 1 and len(target) != inputs.batch:
        raise ValueError(f"target has {len(target)} entries, x has {inputs.batch} samples")
    classes = shape[0] if shape else 1
    wrong = (target < 0) | (target >= classes)
    if wrong.any():
        what = "outputs" if len(shape) < 2 else f"channels in {top!r}"
        raise ValueError(f"target {target[wrong].flat[0]} is no class: the network has {classes} {what}")
    return np.atleast_1d(target).astype(np.int64)


def contrast(
    output: Array, given: list[Array | None], against: int | ArrayLike, start: str, shape: Shape
) -> tuple[Array, list[Array | None]]:
    """Return the explained classes and the start of their difference to others; ``output`` is (batch, size)."""
    batch = len(output)
    channels = output.reshape(batch, shape[0] if shape else 1, product(shape[1:]))
    target = given[0]
    if len(given) != 1 or (target is not None and target.dtype.kind not in "iu"):
        raise ValueError("against goes with one target, a class")
    plus = channels[:, :, 0].argmax(1) if target is None else np.broadcast_to(target, (batch,))
    second = np.asarray(plain(against, "against"))
    if second.dtype.kind not in "iu":
        raise TypeError(f"against must be a class, got {second.dtype}")
    if second.shape not in ((), (batch,)):
        raise ValueError(f"against has shape {second.shape}, x has {batch} samples: give one class, or one a sample")
    minus = np.broadcast_to(second, (batch,))
    if ((minus < 0) | (minus >= channels.shape[1])).any():
        raise ValueError(f"against is {minus.tolist()}, the network has {channels.shape[1]} outputs")
    if (plus == minus).any():
        raise ValueError("against is the class that is explained: pass another one")
    top = np.zeros_like(channels)
    rows = np.arange(batch)
    top[rows, plus] = channels[rows, plus] if start == "logit" else 1
    top[rows, minus] = -channels[rows, minus] if start == "logit" else -1
    return np.array(plus, dtype=np.int64), [as_rows(top, batch, shape)]


def explained(chosen: list[Array | None], targets: Sequence[int] | None) -> Array | None:
    """Return the classes that were explained, (batch,) or (batch, targets); None where relevance was given."""
    if targets is None:
        return chosen[0]
    return np.stack([c for c in chosen if c is not None], axis=1)
