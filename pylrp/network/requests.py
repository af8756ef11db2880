"""What a user asks of a network, settled for the core: inputs, targets, starts, masks. ``network.py`` calls in.

``tables.py`` puts columns in order, ``classes.py`` knows labels and indices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp._arrays import plain, require_finite, settle
from pylrp.errors import AbsorbedValue, NotFinite
from pylrp.layers import Shape
from pylrp.layers.base import product
from pylrp.network.classes import Classes, ClassIndex
from pylrp.network.columns import Columns, columns_of
from pylrp.network.graph import Graph

__all__ = [
    "Inputs",
    "Target",
    "by_value",
    "channel_masks",
    "contrast",
    "explained",
    "require_outside",
    "start_value",
    "starts",
    "to_pass_again",
    "wanted_values",
]

Array = NDArray[Any]


class Inputs:
    """The arrays for a graph's inputs, checked.

    Attributes
    ----------
    given : dict of str to ndarray
        By name, as the user passed them.
    columns : dict of str to Columns
        By name: of a table its names and their order.
    flat : list of ndarray
        (batch, size) each, in the network's dtype and order of features.
    dtype : dtype
        The network's.
    batch : int
    single : bool
        Whether it is one sample without a batch axis.
    notes : list of str
        What was converted or put in order.
    """

    def __init__(self, graph: Graph, x: Any):
        self._graph = graph
        self.dtype = graph.dtype
        self.given: dict[str, Array] = {}
        self.columns: dict[str, Columns] = {}
        self.flat: list[Array] = []
        self.single = False
        self.batch = -1
        self.notes: list[str] = []
        for name, value in _by_name(graph, x).items():
            self._add(name, value, "x" if len(graph.inputs) == 1 else f"x[{name!r}]")

    def _add(self, name: str, value: Any, what: str) -> None:
        graph = self._graph
        shape = self._graph.user_shape(name)
        columns = columns_of(value, graph.facts.features.get(name), what)
        array = settle(columns.values, what)
        if array.shape[-len(shape) :] != shape or array.ndim not in (len(shape), len(shape) + 1):
            raise ValueError(_misfit(array, shape, what, name in graph.channels_last))
        single = array.ndim == len(shape)
        batch = 1 if single else len(array)
        if self.batch >= 0 and (batch != self.batch or single != self.single):
            raise ValueError(f"{what} has {batch} samples, the inputs before it have {self.batch}")
        self.batch, self.single = batch, single
        self.given[name], self.columns[name] = array, columns
        if columns.order is not None:
            self.notes.append(f"{what}: columns were put into the network's order by name")
            array = columns.to_network(array)
        if array.dtype is not graph.dtype and array.dtype != graph.dtype:
            array = converted(array, graph.dtype, what, self.notes)
        self.flat.append(array if array.ndim <= 2 and len(shape) == 1 else as_rows(array, batch, shape))

    def logical(self, name: str) -> Array:
        """Return an input with channels first and features in the network's order."""
        array = self.columns[name].to_network(self.given[name])
        if name not in self._graph.channels_last:
            return array
        return np.moveaxis(array, -1, 0 if self.single else 1)

    def features(self, name: str) -> tuple[str, ...] | None:
        """Return the names of an input's features in the caller's order, None where they are not known."""
        return self.columns[name].names or self._graph.facts.features.get(name)

    def shaped(self, flat: Array, shape: Shape) -> Array:
        """Return (batch, size) as (batch, *shape), or (*shape,) for a single sample."""
        return flat.reshape(shape if self.single else (self.batch, *shape))

    def several(self, flat: Array, shape: Shape, targets: int | None, name: str) -> Array:
        """Return (targets * batch, size) as (batch, targets, *shape), as the user asked for it."""
        if name in self._graph.channels_last:
            shape = self._graph.user_shape(name)
        if name in self.columns:
            flat = self.columns[name].to_caller(flat)
        if targets is None:
            return self.shaped(flat, shape)
        if self.single:
            return flat.reshape(targets, *shape)
        return np.ascontiguousarray(flat.reshape(targets, self.batch, *shape).swapaxes(0, 1))


def converted(array: Array, dtype: np.dtype[Any], what: str, notes: list[str]) -> Array:
    """Return a float32 or float64 array in the other dtype, with a note.

    Raises
    ------
    NotFinite
        If a finite number is too large for the dtype.
    """
    with np.errstate(over="ignore"):  # looked for below
        made = array.astype(dtype)
    lost = np.isinf(made) & np.isfinite(array)
    if lost.any():
        at = tuple(int(i) for i in np.argwhere(lost)[0])
        index = f"[{', '.join(map(str, at))}]" if at else ""
        raise NotFinite(f"{what}{index} is {array[at]}, too large for the network's {dtype}", what=what)
    notes.append(f"{what} was converted from {array.dtype} to {dtype}, in which the network computes")
    return made


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
    name = _known(graph, output, "output")
    named = {value: name for name, value in reversed(graph.output_values.items())}
    return name if name in graph.outputs else named.get(name, name)


def wanted_values(graph: Graph, layers: str | Sequence[str] | None) -> list[str]:
    """Return the values whose relevance is asked for."""
    if layers is None:
        return []
    if isinstance(layers, str):
        if layers != "all":
            raise ValueError(f"layers must be 'all' or a list of names, got {layers!r}")
        return list(graph.shapes)
    return [graph.value(_known(graph, name, "layers")) for name in layers]


def by_value(graph: Graph, masks: Any) -> Any:
    """Return masks by the values' own names, where they are given by an output's."""
    if not isinstance(masks, Mapping):
        return masks
    return {graph.value(name) if isinstance(name, str) else name: channels for name, channels in masks.items()}


def require_outside(names: Sequence[str], absorbed: Mapping[str, AbsorbedValue]) -> None:
    """Raise AbsorbedValue for a value that has no relevance of its own."""
    for name in names:
        if name in absorbed:
            raise absorbed[name]


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
        names = dict.fromkeys([*graph.shapes, *graph.outputs])
        raise ValueError(f"{what}: no layer is called {name!r}; there are {', '.join(names)}")
    return name


class Target:
    """What is explained, one a target: relevance that was given, or a class of each sample.

    Attributes
    ----------
    starts : list of ndarray or None
        For the core: None (the top channel), channels, or relevance (batch, size).
    classes : list of ndarray or None
        The classes' indices, where they were given.
    signs : list of ndarray or None
        By what each sample's relevance is multiplied, where a logit counts for another class than its own.
    notes : list of str
    """

    def __init__(self, of: Classes) -> None:
        self._of = of
        self.starts: list[Array | None] = []
        self.classes: list[Array | None] = []
        self.signs: list[Array | None] = []
        self.notes: list[str] = []

    def add(self, classes: Array | None, relevance: Array | None = None) -> None:
        """Take one more: classes, relevance, or None for the top class."""
        if classes is None and relevance is None and self._of.two:
            classes = np.ones(1, np.int64)
        sign = None if classes is None else self._of.sign(classes)
        if sign is not None and self._of.kept:
            raise ValueError(
                "the network's one output is the probability of class 1: load it without keep_top, so that class 0 is "
                "explained by minus the logit, or explain class 1"
            )
        if sign is not None:
            self.notes.append(TWO_CLASSES)
        self.starts.append(relevance if classes is None else self._of.channel(classes))
        self.classes.append(classes)
        self.signs.append(sign)


TWO_CLASSES = "one logit decides between two classes: class 0 is explained by minus the logit, and its map is negated"


def starts(
    inputs: Inputs, shape: Shape, top: str, target: Any, targets: Sequence[Any] | None, classes: Classes
) -> Target:
    """Return what the core starts from."""
    asked = Target(classes)
    if targets is not None:
        if target is not None:
            raise ValueError("give target or targets, not both")
        if isinstance(targets, str) or np.ndim(targets) == 0:
            raise TypeError(f"targets must be a list of classes, got {targets!r}")
        if len(targets) == 0:
            raise ValueError("targets is empty")
        for each in targets:
            asked.add(_classes(each, inputs, shape, top, classes, "a target"))
        return asked
    if target is None:
        if len(shape) > 1 and product(shape[1:]) > 1:
            raise ValueError(
                f"{top!r} has shape {shape}, no single class is on top: pass target=, a channel or an array"
            )
        asked.add(None)
        return asked
    if isinstance(target, tuple) and len(target) == len(shape) > 1:  # a place, as Captum takes it
        raise TypeError(
            f"target is the tuple {target!r}, {top!r} has shape {shape}: one entry of it is explained by an array, "
            f"start = numpy.zeros({(inputs.batch, *shape) if not inputs.single else shape}, numpy.{inputs.dtype}); "
            f"start[..., {', '.join(map(str, target))}] = 1; pass target=start"
        )
    array = np.asarray(plain(target, "target"))
    expected = shape if inputs.single else (inputs.batch, *shape)
    if array.ndim < 2 and array.dtype.kind != "f" and (array.dtype.kind in "iu" or classes.labels is not None):
        asked.add(_classes(target, inputs, shape, top, classes, "target"))
        return asked
    if array.dtype.kind != "f":
        what = f"an array of {array.dtype}" if array.ndim else repr(target)
        raise TypeError(
            f"target is {what}: a class must be an integer, relevance an array of {inputs.dtype} with the output's "
            f"shape {expected}"
        )
    given = settle(target, "target")
    if given.shape != expected:
        also = ", or an integer for a class" if given.ndim < 2 else ""
        raise ValueError(f"target has shape {given.shape}, the output has shape {expected}{also}")
    require_finite(given, "target")
    if given.dtype != inputs.dtype:
        given = converted(given, inputs.dtype, "target", asked.notes)
    asked.add(None, given if given.ndim == 2 and not inputs.single else as_rows(given, inputs.batch, shape))
    return asked


def _classes(target: Any, inputs: Inputs, shape: Shape, top: str, classes: Classes, what: str) -> Array:
    found = classes.resolve(target, what)
    if found.ndim > 1:
        raise ValueError(f"a target must be one class, or one a sample, got an array of shape {found.shape}")
    if found.ndim == 1 and len(found) != inputs.batch:
        raise ValueError(f"target has {len(found)} entries, x has {inputs.batch} samples")
    wrong = (found < 0) | (found >= classes.count)
    if wrong.any():
        kind = "classes" if classes.two else "outputs" if len(shape) < 2 else f"channels in {top!r}"
        raise ValueError(f"target {found[wrong].flat[0]} is no class: the network has {classes.count} {kind}")
    return np.atleast_1d(found).astype(np.int64)


def contrast(
    output: Array, asked: Target, against: Any, start: str, shape: Shape, classes: Classes
) -> tuple[Array, list[Array | None]]:
    """Return the explained classes and the start of their difference to others; ``output`` is (batch, size)."""
    batch = len(output)
    channels = output.reshape(batch, shape[0] if shape else 1, product(shape[1:]))
    if len(asked.starts) != 1 or (asked.classes[0] is None and asked.starts[0] is not None):
        raise ValueError("against goes with one target, a class")
    target = asked.classes[0]
    plus = channels[:, :, 0].argmax(1) if target is None else np.broadcast_to(target, (batch,))
    second = classes.resolve(against, "against")
    if second.shape not in ((), (batch,)):
        raise ValueError(f"against has shape {second.shape}, x has {batch} samples: give one class, or one a sample")
    minus = np.broadcast_to(second, (batch,))
    if ((minus < 0) | (minus >= classes.count)).any():
        raise ValueError(f"against is {minus.tolist()}, the network has {classes.count} classes")
    if (plus == minus).any():
        raise ValueError("against is the class that is explained: pass another one")
    top = np.zeros_like(channels)
    rows = np.arange(batch)
    for index, sign in ((plus, 1), (minus, -1)):
        channel, own = classes.channel(index), classes.sign(index)
        factor = (sign if own is None else sign * own.reshape(-1, 1)) * np.ones((batch, 1), output.dtype)
        top[rows, channel] += factor * channels[rows, channel]
    if start == "one":
        size = np.abs(top.sum(axis=(1, 2), dtype=np.float64))
        top /= np.where(size == 0, 1, size).astype(top.dtype)[:, None, None]
    return np.array(plus, dtype=np.int64), [as_rows(top, batch, shape)]


def to_pass_again(index: Array) -> Any:
    """Return indices of classes, one or a list, so that they can be passed again and written as JSON."""
    return ClassIndex(index.item()) if index.ndim == 0 else [ClassIndex(i) for i in index.tolist()]


def explained(chosen: list[Array | None], asked: Target, several: bool) -> Array | None:
    """Return the classes that were explained, (batch,) or (batch, targets); None where relevance was given.

    Parameters
    ----------
    chosen : list of ndarray or None
        What the core says: channels, one a sample.
    asked : Target
    several : bool
    """
    found = [
        one if one is None or classes is None else np.array(np.broadcast_to(classes, one.shape))
        for one, classes in zip(chosen, asked.classes, strict=True)
    ]
    return np.stack([one for one in found if one is not None], axis=1) if several else found[0]
