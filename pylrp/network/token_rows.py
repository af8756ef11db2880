"""Between samples of one length and rows of tokens: values, masks, targets, relevance and accounts, there and back.

``packed.py`` calls in for all lengths of a call; nothing here runs anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pylrp.layers import Shape
from pylrp.layers.attention import Attention
from pylrp.layers.base import Array, product
from pylrp.network.execution import Execution
from pylrp.network.explain import Call
from pylrp.network.graph import Graph
from pylrp.network.packing import MaskForm, NotPacked, Packing, as_rows

__all__ = [
    "Part", "added_to_scores", "by_sample", "each_added", "form_of", "mask_rows", "nothing", "pages_of", "relevance_of",
    "rows_of_mask", "starts_of", "values_of",
]  # fmt: skip

_LEAST_WIDTH = 16  # of a row of what is added to scores
_TOP, _NONE = -2, -1  # channels, csrc/bindings/top.hpp


class Part(NamedTuple):
    """Some samples of one length among the rows."""

    execution: Execution
    flat: list[Array]  # by input of the graph, (batch, size)
    batch: int
    first: int  # row
    tokens: int

    @property
    def graph(self) -> Graph:
        """Return the graph of this length, with attention as one layer."""
        return self.execution.joined.composed.graph

    @property
    def rows(self) -> slice:
        """Return where the tokens are."""
        return slice(self.first, self.first + self.batch * self.tokens)


def each_added(each: Any, layer: Attention, graph: Graph) -> Array | tuple[str, Shape]:
    """Return what is added to scores: a constant, (heads or 1, queries, keys), or an input and its shape."""
    if each.constant is None:
        return each.value, graph.shapes[each.value]
    made: Array = _by_head(np.asarray(each.constant)[None], each.leading, layer)[0]
    return made


def _by_head(array: Any, leading: Shape, layer: Attention) -> Any:
    """Return (samples, ..., queries or 1, keys) as (samples, heads or 1, queries or 1, keys)."""
    own = array.shape[1:-2] if array.ndim > 2 else ()
    if all(n == 1 for n in own):
        return array.reshape(len(array), 1, *array.shape[-2:])
    full = np.broadcast_to(array.reshape(len(array), *(1,) * (len(leading) - len(own)), *own, *array.shape[-2:]),
                           (len(array), *leading, *array.shape[-2:]))  # fmt: skip
    heads = product(layer.leading)
    if product(leading) != heads:
        raise NotPacked("what is added to scores is not added head by head")
    return full.reshape(len(array), heads, *array.shape[-2:])


def added_to_scores(what: Sequence[Any], part: Part) -> Array | None:
    """Return all that is added to the scores of some samples, (samples or 1, heads or 1, queries or 1, keys)."""
    total: Array | None = None
    for each in what:
        if isinstance(each, tuple):
            name, shape = each
            array = part.flat[list(part.graph.inputs).index(name)].reshape(part.batch, *shape)
            array = array.reshape(len(array), *(1,) * (3 - len(shape)), *shape) if len(shape) < 3 else array
            if array.ndim > 4 or array.shape[-1] != part.tokens:
                raise NotPacked("what is added to scores has other axes")
        else:
            array = each[None]
        if array.shape[2] > 1 and bool((array == array[:, :, :1]).all()):
            array = array[:, :, :1]
        if not array.any():
            continue
        if total is None:
            total = array
        else:
            most = np.finfo(array.dtype).max
            closed = (total >= most) | (array >= most)
            with np.errstate(over="ignore"):
                total = np.where(closed, most, total + array)
    return total


def form_of(added: dict[str, list[Array | None]], tokens: int) -> MaskForm:
    """Return the form that holds all that is added, by input and part; ``tokens`` is the largest length."""
    arrays = [array for each in added.values() for array in each if array is not None]
    if not arrays:
        return MaskForm()
    if all(array.shape[1:3] == (1, 1) for array in arrays):
        return MaskForm("keys")
    width = max(_LEAST_WIDTH, 1 << (tokens - 1).bit_length())
    return MaskForm("queries", width, any(array.shape[1] > 1 for array in arrays))


def mask_rows(added: Array | None, part: Part, form: MaskForm, shape: Shape) -> Array:
    """Return what is added to the scores of some samples, a row of this shape for each token."""
    batch, tokens = part.batch, part.tokens
    if added is None:
        return np.zeros((batch * tokens, *shape), part.graph.dtype)
    if form.kind == "keys":
        return np.broadcast_to(added, (batch, 1, 1, tokens)).reshape(-1, 1)
    heads = shape[0] // form.width
    made = np.zeros((batch, tokens, heads, form.width), part.graph.dtype)
    made[..., :tokens] = np.broadcast_to(added, (batch, heads, tokens, tokens)).swapaxes(1, 2)
    return made.reshape(batch * tokens, -1)


def rows_of_mask(stays: Array, part: Part, name: str, packed: Packing) -> Array:
    """Return which entries of a value stay, a row for each token."""
    shape, batch = part.graph.shapes[name], part.batch
    if stays.shape[1] != product(shape):
        stays = np.broadcast_to(stays.reshape(*stays.shape, *(1,) * (len(shape) - 1)), (len(stays), *shape))
    full = np.broadcast_to(stays.reshape(len(stays), -1), (batch, product(shape)))
    return as_rows(full, shape, packed.axes[name], part.tokens)


def starts_of(calls: Sequence[Call], parts: Sequence[Part], axis: int | None, count: int) -> list[Any]:
    """Return what the core starts from, one a target, for all rows."""
    return [_start([call.starts[t] for call in calls], calls, parts, axis, count) for t in range(len(calls[0].starts))]


def _start(each: Sequence[Any], calls: Sequence[Call], parts: Sequence[Part], axis: int | None, count: int) -> Any:
    if all(isinstance(one, tuple) for one in each):
        shapes = [part.graph.shapes[call.top] for call, part in zip(calls, parts, strict=True)]
        places = [_entry_rows(one[0], part, shape, axis) for one, part, shape in zip(each, parts, shapes, strict=True)]
        return np.concatenate(places), np.concatenate([one[1] for one in each])
    if all(one is None or (isinstance(one, np.ndarray) and one.dtype.kind == "i") for one in each):
        if axis is not None:
            raise NotPacked("a channel at all tokens is explained")
        rows = np.full(count, _NONE, np.int64)
        for one, part in zip(each, parts, strict=True):
            rows[part.rows][:: part.tokens] = _TOP if one is None else one
        return rows
    if any(one is None or isinstance(one, tuple) or one.dtype.kind == "i" for one in each):
        raise NotPacked("their targets are of several kinds")
    made = []
    for one, call, part in zip(each, calls, parts, strict=True):
        rows = as_rows(np.asarray(one), part.graph.shapes[call.top], axis, part.tokens)
        if axis is None:
            first = np.zeros_like(rows)
            first[:: part.tokens] = rows[:: part.tokens]
            rows = first
        made.append(rows)
    return np.ascontiguousarray(np.concatenate(made))


def _entry_rows(places: Array, part: Part, shape: Shape, axis: int | None) -> Array:
    """Return entries of samples, (sample, place), as entries of rows."""
    samples, at = places[:, 0], places[:, 1]
    token = np.zeros_like(samples)
    if axis is not None:
        index = list(np.unravel_index(at, shape))
        token = index.pop(axis)
        rest = shape[:axis] + shape[axis + 1 :]
        at = np.ravel_multi_index(index, rest) if rest else np.zeros_like(at)
    return np.stack([part.first + samples * part.tokens + token, at], axis=1).astype(np.int64)


def by_sample(pages: Array, parts: Sequence[Part], targets: int, count: int) -> Array:
    """Return the ledger's pages, (nodes, columns, targets, samples), of those of rows."""
    firsts = np.concatenate([np.arange(part.rows.start, part.rows.stop, part.tokens) for part in parts])
    return np.add.reduceat(pages.reshape(*pages.shape[:2], targets, count), firsts, axis=-1)


def pages_of(packed: Graph, graph: Graph, pages: Array) -> Array:
    """Return the pages of a call's nodes, (nodes, columns, targets * samples)."""
    at = {node.name: i for i, node in enumerate(packed.nodes)}
    return pages[[at[node.name] for node in graph.nodes]].reshape(len(graph.nodes), pages.shape[1], -1)


def values_of(packed: Packing, name: str, rows: Array, part: Part) -> Array:
    """Return a value of some samples, (samples, size), of their rows."""
    if packed.axes[name] is None:
        return np.ascontiguousarray(rows[:: part.tokens])
    return _together(rows, part, part.graph.shapes[name], packed.axes[name])


def relevance_of(packed: Packing, name: str, part: Part, rows: Array, count: int) -> Array:
    """Return the relevance of a value, (targets * samples, size), of all rows of all targets."""
    own = rows.reshape(-1, count, rows.shape[1])[:, part.rows]
    if packed.axes[name] is None:
        made = own.reshape(len(own) * part.batch, part.tokens, -1).sum(axis=1)
        return np.ascontiguousarray(made)
    return _together(own.reshape(-1, rows.shape[1]), part, part.graph.shapes[name], packed.axes[name])


def _together(rows: Array, part: Part, shape: Shape, axis: int | None) -> Array:
    assert axis is not None  # the callers looked
    rest = shape[:axis] + shape[axis + 1 :]
    made = np.moveaxis(rows.reshape(-1, part.tokens, *rest), 1, axis + 1)
    return np.ascontiguousarray(made).reshape(len(made), -1)


def nothing(part: Part, name: str, targets: int) -> Array:
    """Return the relevance of an input that is only added to scores."""
    return np.zeros((targets * part.batch, product(part.graph.shapes[name])), part.graph.dtype)
