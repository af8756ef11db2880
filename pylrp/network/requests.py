"""What a user asks of a network, settled for the core: inputs, starts, layers. ``network.py`` calls in.

``tables.py`` puts columns in order, ``classes.py`` knows labels and indices, ``targets.py`` and ``masks.py`` do the
rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp._arrays import plain, settle
from pylrp.errors import AbsorbedValue, NotFinite, UnfitInput, UnfitInputType
from pylrp.layers import Shape
from pylrp.layers.base import product
from pylrp.network.columns import Columns, columns_of
from pylrp.network.frames import origin_of
from pylrp.network.front import Front
from pylrp.network.gaps import columns_as_numbers
from pylrp.network.graph import Graph
from pylrp.network.layout import channels_moved_first, moving_call, with_other_order
from pylrp.network.sides import SideInput, Sides, without_past

Array = NDArray[Any]
#: Inputs as users give them: an array, several by name or in a tuple, or a list of samples.
InputLike = ArrayLike | Mapping[str, ArrayLike] | tuple[ArrayLike, ...] | Sequence[Mapping[str, ArrayLike]]
_NO_TABLE = Columns(None)


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
    fed : dict of str to ndarray
        By input of the graph, what was computed of token ids and masks, or of a table, (batch, *shape).
    table : Columns
        Where there is a front, the columns before it.
    origin : Origin or None
        Of a data frame.
    expanded : bool
        Whether relevance is that of what a front makes, not of the columns.
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
        self.table = _NO_TABLE
        self.origin = origin_of(x)
        self.expanded = graph.facts.front is not None and graph.facts.front.expanded
        self.fed: dict[str, Array] = {}
        sides = graph.facts.sides
        names = list(graph.inputs) if sides is None else list(sides.names)
        given = x if sides is None else without_past(x, sides.past)
        for name, value in _by_name(names, given).items():
            what = "x" if len(names) == 1 else f"x[{name!r}]"
            if graph.facts.front is not None:
                self._add_table(name, graph.facts.front, value, what)
            elif sides is None or name not in sides.inputs:
                self._add(name, value, what)
            else:
                self._add_side(name, sides.inputs[name], value, what)
        if sides is not None:
            self._feed(sides)

    def _add(self, name: str, value: Any, what: str) -> None:
        graph = self._graph
        shape = self._graph.user_shape(name)
        columns = columns_of(value, graph.facts.features.get(name), what)
        array = settle(self._numbers_of(columns, what), what)
        if array.shape[-len(shape) :] != shape or array.ndim not in (len(shape), len(shape) + 1):
            text = _misfit(array, shape, what, name in graph.channels_last, self._said(name))
            raise UnfitInput(text, name, array.shape)
        batch = self._count(array, shape, what, name)
        self.given[name], self.columns[name] = array, columns
        if columns.order is not None:
            self.notes.append(f"{what}: columns were put into the network's order by name")
            array = columns.to_network(array)
        if array.dtype is not graph.dtype and array.dtype != graph.dtype:
            array = converted(array, graph.dtype, what, self.notes)
        self.flat.append(array if array.ndim <= 2 and len(shape) == 1 else as_rows(array, batch, shape))

    def _numbers_of(self, columns: Columns, what: str) -> Any:
        """Return what settle() takes: of a data frame's columns, whole numbers and truth values as float64, too."""
        if not columns.framed or columns.values.dtype.kind == "f":
            return columns.values
        self.notes.append(f"{what}: columns of the data frame were converted into float64")
        return columns_as_numbers(columns.values, columns.names, what)

    def _add_table(self, name: str, front: Front, value: Any, what: str) -> None:
        """Take columns of numbers, gaps and words, of which the front makes what the network takes."""
        known = self._graph.facts.features.get(name)
        columns = columns_of(value, known, what)
        array = np.asarray(columns.values)
        if array.ndim not in (1, 2) or array.shape[-1] != front.columns:
            raise UnfitInput(_misfit(array, (front.columns,), what, False), name, array.shape)
        self._count(array, (front.columns,), what, name)
        self.given[name], self.table = array, columns
        self.columns[name] = Columns(array, columns.names)  # of features, in the network's order
        if columns.order is not None:
            self.notes.append(f"{what}: columns were put into the network's order by name")
        ordered = np.atleast_2d(columns.to_network(array))
        encoded = front.encode(ordered, known, what, self.dtype)
        self.fed[name] = encoded[0] if self.single else encoded
        self.flat.append(encoded)

    def _said(self, name: str) -> str | None:
        """Return the shape that an input must have in words, where axes of it have any length."""
        lengths = self._graph.facts.lengths
        return None if lengths is None else lengths.said(name)

    def _count(self, array: Array, shape: Shape, what: str, name: str) -> int:
        """Return the number of samples of an input, which is that of the others."""
        single = array.ndim == len(shape)
        batch = 1 if single else len(array)
        if self.batch >= 0 and (batch != self.batch or single != self.single):
            text = f"{what} has {batch} samples, the inputs before it have {self.batch}"
            raise UnfitInput(text, name, array.shape)
        self.batch, self.single = batch, single
        return batch

    def _add_side(self, name: str, side: SideInput, value: Any, what: str) -> None:
        """Take token ids or a mask."""
        array = np.asarray(plain(value, what))
        require_kind(array, side, what, name)
        shape = side.shape
        if array.ndim not in (len(shape), len(shape) + 1) or array.shape[array.ndim - len(shape) :] != shape:
            raise UnfitInput(_misfit(array, shape, what, False, self._said(name)), name, array.shape)
        if side.batched or array.ndim > len(shape):
            self._count(array, shape, what, name)
        self.given[name] = array

    def _feed(self, sides: Sides) -> None:
        """Compute what the graph takes of token ids and masks."""
        for name, side in sides.inputs.items():
            if not self.single and self.given[name].ndim == len(side.shape):  # the same for all samples
                self.given[name] = np.broadcast_to(self.given[name], (self.batch, *side.shape))
        kinds = {"int": np.dtype(np.int64), "bool": np.dtype(bool), "float": self.dtype}
        with np.errstate(over="ignore"):  # what is too low for float32 is -inf, and closes a place
            given = {
                name: (array[None] if self.single else array).astype(kinds[sides.inputs[name].kind])
                for name, array in self.given.items()
                if name in sides.inputs
            }
        fed = sides.fed(given, self.batch, self.dtype)
        own = iter(self.flat)
        self.fed = fed
        self.flat = [
            as_rows(fed[name], self.batch, shape) if name in fed else next(own)
            for name, shape in self._graph.inputs.items()
        ]

    @property
    def takes_ids(self) -> bool:
        """Whether an input has token ids."""
        sides = self._graph.facts.sides
        return sides is not None and any(feed.source is not None for feed in sides.feeds.values())

    def by_input(self, maps: Mapping[str, Array]) -> dict[str, Array]:
        """Return the relevance of each input that it belongs to, of the maps of the graph's inputs."""
        sides, front = self._graph.facts.sides, self._graph.facts.front
        if front is not None and not self.expanded:
            return {name: self.table.to_caller(front.summed(maps[name])) for name in self._graph.inputs}
        if sides is None:
            return {name: maps[name] for name in self._graph.inputs}
        return {name: sides.summed(name, maps) if name in sides.inputs else maps[name] for name in sides.carrying}

    def explained(self, name: str) -> Array:
        """Return an input as it was given; what a front has made of it, where relevance is that of its features."""
        return self.fed[name] if self.expanded else self.given[name]

    def logical(self, name: str) -> Array:
        """Return an input of the graph with channels first and features in the network's order."""
        if name in self.fed:
            return self.fed[name]
        array = self.columns[name].to_network(self.given[name])
        if name not in self._graph.channels_last:
            return array
        return channels_moved_first(array, 0 if self.single else 1)

    def features(self, name: str) -> tuple[str, ...] | None:
        """Return the names of an input's features in the caller's order, None where they are not known."""
        columns = self.columns.get(name)
        front = self._graph.facts.front
        if front is not None and self.expanded:
            known = self._graph.facts.features.get(name) or (columns and columns.names)
            return front.names(known or [f"x{i}" for i in range(front.columns)])
        return (columns and columns.names) or self._graph.facts.features.get(name)

    def shaped(self, flat: Array, shape: Shape) -> Array:
        """Return (batch, size) as (batch, *shape), or (*shape,) for a single sample."""
        return flat.reshape(shape if self.single else (self.batch, *shape))

    def with_target_axis(self, flat: Array, shape: Shape, targets: int | None, name: str) -> Array:
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


def require_front(graph: Graph) -> None:
    """Raise ValueError where features are the input itself, so that they can't be asked for beside it."""
    if graph.facts.front is None:
        raise ValueError("expanded: no step before the network makes several features of a column")


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
    array = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    return array.reshape(batch, product(shape))


def _by_name(names: Sequence[str], x: Any) -> dict[str, Any]:
    if isinstance(x, Mapping):
        require_names(x, names, "x")
        return {name: x[name] for name in names}
    if len(names) == 1:
        return {names[0]: x}
    if not isinstance(x, tuple) or len(x) != len(names):
        raise UnfitInput(f"the network takes {len(names)} inputs, {', '.join(names)}: pass a dict by name or a tuple")
    return dict(zip(names, x, strict=True))


#: What an input that is no activation holds, of which kinds of NumPy's, and what to pass.
_HELD = {
    "int": ("token ids or a mask, whole numbers", "iu", "integers"),
    "bool": ("truth values", "iub", "integers"),
    "float": ("a mask that is added, 0 and -inf for example", "f", "floating-point numbers"),
}


def require_kind(array: Array, side: SideInput, what: str, name: str, sample: int | None = None) -> None:
    """Raise UnfitInputType where token ids or a mask are of another kind; an empty array may be of any."""
    held, kinds, wanted = _HELD[side.kind]
    if array.dtype.kind not in (kinds if array.size else f"{kinds}f"):
        said = f"{what} has dtype {array.dtype}, the network takes {held}: pass an array of {wanted}"
        raise UnfitInputType(said, name, array.shape, sample)


def require_names(given: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    """Raise UnfitInput where inputs are missing, or there are others than the network's."""
    missing = [name for name in names if name not in given]
    unknown = [name for name in given if name not in names]
    if not missing and not unknown:
        return
    text = f"{what} has inputs {', '.join(map(str, given)) or 'none'}, the network takes {', '.join(names)}"
    said = [f"add {', '.join(missing)}"] * bool(missing) + [f"leave {', '.join(map(str, unknown))} out"] * bool(unknown)
    raise UnfitInput(f"{text}: {', '.join(said)}", missing[0] if missing else str(unknown[0]))


def _misfit(array: Array, shape: Shape, what: str, channels_last: bool, said: str | None = None) -> str:
    said = said or f"(batch, {', '.join(map(str, shape))})"
    text = f"{what} has shape {array.shape}, the network takes {said}"
    if len(shape) == 1:
        if array.ndim == 2 and array.shape[0] == shape[0]:
            text += "; samples are rows here, yours are columns: pass x.T"
        return text
    other = with_other_order(shape, channels_last)
    if array.shape[-len(shape) :] == other and array.ndim in (len(shape), len(shape) + 1):
        where = "first" if channels_last else "last"
        text += f"; its channels come {where}: pass {moving_call(len(shape), channels_last)}"
    return text


def shapes_of_inputs(graph: Graph) -> dict[str, Shape]:
    """Return the shapes of samples of all inputs, ids and masks too, as users see them."""
    sides = graph.facts.sides
    if sides is None:
        return {name: graph.user_shape(name) for name in graph.inputs}
    return {name: sides.inputs[name].shape if name in sides.inputs else graph.user_shape(name) for name in sides.names}


def start_value(graph: Graph, output: str | None) -> str:
    """Return the value where relevance starts."""
    if output is None:
        if len(graph.outputs) > 1:
            raise ValueError(
                f"the network has several outputs, {', '.join(graph.outputs)}: pass output= with one's name"
            )
        return graph.outputs[0]
    name = known(graph, output, "output")
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
    return [graph.value(known(graph, name, "layers")) for name in layers]


def require_outside(names: Sequence[str], absorbed: Mapping[str, AbsorbedValue]) -> None:
    """Raise AbsorbedValue for a value that has no relevance of its own."""
    for name in names:
        if name in absorbed:
            raise absorbed[name].with_traceback(None)


def known(graph: Graph, name: str, what: str) -> str:
    """Return the name of a value, if it is one."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be the name of a layer, got {name!r}")
    if name not in graph.shapes:
        names = dict.fromkeys([*graph.shapes, *graph.outputs])
        raise ValueError(f"{what}: no layer is called {name!r}; there are {', '.join(names)}")
    return name
