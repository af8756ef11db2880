"""ONNX operators that move values: reshape, transpose, slice, pad, resize.

Each function translates one node, see ``onnx/node.py``; :data:`MOVEMENT` is part of the table of
``onnx/operators.py``. ONNX counts axes with the batch, layers without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp._limits import require_shape
from pylrp.layers import (
    Affine,
    Concat,
    DepthToSpace,
    Expand,
    Flatten,
    Identity,
    Pad,
    Reshape,
    Resize,
    Slice,
    SpaceToDepth,
    Take,
    Transpose,
)
from pylrp.layers.base import product
from pylrp.loaders.onnx.constants import Constant
from pylrp.loaders.onnx.node import Call, Value
from pylrp.loaders.onnx.places import PLACES, gather_by_side
from pylrp.loaders.onnx.views import PLAIN, Size, Times, regrouped

__all__ = ["MOVEMENT"]

Array = NDArray[Any]
Translate = Callable[[Call], Value | list[Value] | None]
_MIXES = "mixes the batch with other axes"


def _flatten(call: Call) -> Value:
    value, axis = call.viewed(), call.attribute("axis", 1)
    sizes = value.view.sizes(value.shape)
    axis = axis if axis == len(sizes) else call.axis_in_file(axis, len(sizes))
    if value.view == PLAIN and axis == 1:
        return call.emit(Flatten(), value)
    found = regrouped(value.view, value.shape, [_joined(sizes[:axis]), _joined(sizes[axis:])], call.translation.batch)
    if found is None:
        raise call.mixes_batch(_MIXES)
    return call.emit(Reshape(found[1]), value, view=found[0])


def _joined(sizes: Sequence[Size]) -> Size:
    """Return the size of axes that become one."""
    count = product([n.factor if isinstance(n, Times) else n for n in sizes])
    return Times(count) if any(isinstance(n, Times) for n in sizes) else count


def _reshape(call: Call) -> Value:
    value = call.viewed()
    target: list[Size] = call.required("shape") if call.opset < 5 else call.sizes(1)
    whole = value.view.sizes(value.shape)
    if not call.attribute("allowzero", 0):
        target = [whole[i] if n == 0 and i < len(whole) else n for i, n in enumerate(target)]
    if target.count(-1) > 1:
        raise call.broken(f"reshapes to {_written(target)}, in which more than one size is left open")
    found = regrouped(value.view, value.shape, target, call.translation.batch)
    if found is None:
        raise call.mixes_batch(f"reshapes {_written(whole)} to {_written(target)} and so {_MIXES}")
    view, shape = found
    return call.emit(Reshape(shape), value, view=view)


def _written(sizes: Sequence[Size]) -> str:
    words = [f"{n.factor} x batch" if isinstance(n, Times) and n.factor > 1 else n for n in sizes]
    return f"({', '.join('batch' if isinstance(n, Times) else str(n) for n in words)})"


def _transpose(call: Call) -> Value:
    value = call.viewed()
    permutation = list(call.attribute("perm", list(range(value.rank))[::-1]))
    if sorted(permutation) != list(range(value.rank)):
        raise call.broken(f"has perm {permutation} for {value.rank} axes")
    view, own = value.view.turned(permutation)
    return call.emit(Transpose(own), value, view=view)


def _squeeze(call: Call) -> Value:
    value = call.viewed()
    axes = call.integers("axes", 1)
    merged = value.view.block()
    ones = {axis for axis, n in enumerate(value.shape) if n == 1 and axis not in merged}
    gone = ones if axes is None else {call.axis(a) for a in axes}
    wrong = [axis for axis in gone if value.shape[axis] != 1]
    if wrong:
        raise call.unsupported(f"squeezes an axis which has size {value.shape[wrong[0]]}")
    view = replace(value.view, batch=value.view.batch - sum(axis < value.view.batch for axis in gone))
    return call.emit(Reshape([n for axis, n in enumerate(value.shape) if axis not in gone]), value, view=view)


def _unsqueeze(call: Call) -> Value:
    value = call.viewed()
    axes = call.integers("axes", 1)
    if axes is None:
        raise call.broken("has no axes")
    rank = value.rank + len(axes)
    new = {call.axis_in_file(a, rank) for a in axes}
    if len(new) != len(axes):
        raise call.broken(f"names an axis twice: {axes}")
    old = iter(value.view.sizes(value.shape))
    made = [1 if axis in new else next(old) for axis in range(rank)]
    batch = next(axis for axis, n in enumerate(made) if isinstance(n, Times))
    view = replace(value.view, batch=batch)
    shape: list[int] = []
    for n in made:
        shape += [value.shape[axis] for axis in value.view.block()] if isinstance(n, Times) else [n]
    return call.emit(Reshape(shape), value, view=view)


def _expand(call: Call) -> Value:
    value = call.viewed()
    if value.view != PLAIN:
        return _expand_viewed(call, value)
    batch, *rest = call.numbers(1) or [None]
    sizes = [n for n in rest if n is not None]
    if len(rest) != len(value.shape):
        # Right-aligned: a shorter target leaves the batch alone, a longer one would move it.
        sizes = [n for n in (batch, *rest) if n is not None]
        if len(sizes) > len(value.shape) or len(sizes) != len(rest) + 1:
            raise call.mixes_batch("adds axes before the batch")
    elif len(sizes) != len(rest) or not call.is_batch(batch):
        raise call.mixes_batch("repeats samples")
    return call.emit(Expand(np.broadcast_shapes(value.shape, tuple(sizes))), value)


def _expand_viewed(call: Call, value: Value) -> Value:
    """Repeat a value whose batch stands on another axis than 0: to as many axes as it has."""
    target: list[Size] = call.sizes(1)
    sizes = value.view.sizes(value.shape)
    target = [*[1] * (len(sizes) - len(target)), *target]
    batch = target.pop(value.view.batch) if len(target) == len(sizes) else None
    if batch is None or not (batch in (1, sizes[value.view.batch]) or call.is_batch(batch)) or value.view.merged:
        raise call.mixes_batch("repeats samples")
    own = tuple(n for n in target if isinstance(n, int))
    return call.emit(Expand(np.broadcast_shapes(value.shape, own)), value)


def _concat(call: Call) -> Value:
    positions = range(len(call.node.input))
    filled = [
        i for i in positions if not (call.is_per_sample(i) and not np.asarray(call.constant(i, per_sample=True)).size)
    ]
    if any(call.is_constant(i) for i in filled):
        return _concat_constants(call)
    values = [call.viewed(i) for i in filled]
    if len(values) == 1:
        return call.emit(Identity(), *values)
    return call.emit(Concat(call.axis(call.attribute("axis", 1))), *values)


def _concat_constants(call: Call) -> Value:
    """Join values and constants of each sample: zeros where those go, to which they are added.

    Exporters write ``cat([x, zeros_like(x)])`` this way.
    """
    positions = range(len(call.node.input))
    # Some input is computed, or the node would have been folded.
    rank = len(next(call.value(i) for i in positions if not call.is_constant(i)).shape)
    axis = call.axis(call.attribute("axis", 1), rank + 1)
    values: list[tuple[Value, list[int]]] = []  # each with the width of constants before and after it
    arrays: list[tuple[int, Array]] = []
    end = first = 0
    for i in positions:
        if call.is_constant(i):
            array = _of_each_sample(call, i)
            if array.ndim != rank:
                raise call.broken("joins values of different ranks")
            arrays.append((end, array))
            width = array.shape[axis]
            if values:
                values[-1][1][1] += width
            else:
                first += width
        else:
            value = call.value(i)
            width = value.shape[axis]
            values.append((value, [0 if values else first, 0]))
        end += width
    shape = values[0][0].shape
    shift = np.zeros((*shape[:axis], end, *shape[axis + 1 :]), call.translation.constants.dtype)
    for begin, array in arrays:
        place = (slice(None),) * axis + (slice(begin, begin + array.shape[axis]),)
        if shift[place].shape != array.shape:
            raise call.broken(f"can't join {shape} and {array.shape}")
        shift[place] = array
    several, added = len(values) > 1, bool(shift.any())
    padded = [
        call.emit(
            Pad([(0, 0)] * axis + [(low, high)] + [(0, 0)] * (rank - axis - 1)),
            value,
            part="pad" if several or added else "",
        )
        for value, (low, high) in values
    ]
    joined = call.emit(Concat(axis), *padded, part="concat" if added else "") if several else padded[0]
    return call.emit(Affine(1.0, shift), joined) if added else joined


def _of_each_sample(call: Call, position: int) -> Array:
    """Return a constant that is joined to every sample: a class token, repeated for the batch that a file declares."""
    array: Array = np.asarray(call.constant(position, per_sample=True))
    alike = array.ndim > 0 and len(array) > 0 and (array == array[:1]).all()
    of_each = len(array) == (1 if call.is_per_sample(position) else call.translation.batch)
    if not (alike and of_each):
        raise call.unsupported(f"takes the constant {call.node.input[position]!r} as input {position}")
    return np.asarray(array[0])


def _split(call: Call) -> list[Value]:
    value = call.viewed()
    axis = call.axis(call.attribute("axis", 0))
    size, parts = value.shape[axis], len(call.node.output)
    sizes = call.integers("split", 1)
    if sizes is None:
        each = -(-size // parts)
        sizes = [min(each, size - i * each) for i in range(parts)]
    if len(sizes) != parts or sum(sizes) != size or min(sizes) < 1 or call.attribute("num_outputs", parts) != parts:
        raise call.broken(f"splits {size} values into {parts} parts of {sizes}")
    ends = np.cumsum(sizes)
    return [
        call.emit(Slice([end - n], [end], [axis]), value, part=str(i))
        for i, (n, end) in enumerate(zip(sizes, ends, strict=True))
    ]


#: More samples than any batch has.
_ALL = 10**9


def _slice(call: Call) -> Value | None:
    value = call.viewed()
    if call.opset < 10:
        starts, stops = call.required("starts"), call.required("ends")
        axes, steps = call.attribute("axes"), None
    else:
        starts, stops = (_known(call, position) for position in (1, 2))
        axes, steps = (_known(call, position) if call.has(position) else None for position in (3, 4))
    count = len(starts)
    if any(given is not None and len(given) != count for given in (stops, axes, steps)):
        raise call.broken(f"has {count} starts and another number of ends, axes or steps")
    rank = value.rank
    kept: dict[int, tuple[int, int, int]] = {}
    for start, stop, axis, step in zip(starts, stops, axes or range(count), steps or (1,) * count, strict=True):
        if axis % rank == value.view.batch and start in (0, None) and step == 1 and (stop is None or stop >= _ALL):
            continue  # all samples
        at = call.axis(axis)
        if start is None or stop is None:
            raise call.mixes_batch("cuts where the batch size says")
        kept[at] = start, stop, step
    if not kept:
        return call.emit(Identity(), value)
    begin, end, step = zip(*kept.values(), strict=True)
    sizes = [len(range(n)[slice(*kept.get(axis, (None, None)))]) for axis, n in enumerate(value.shape)]
    if 0 in sizes and not value.view.merged:  # nothing is left, which is joined with something
        empty = np.zeros((*sizes[: value.view.batch], 1, *sizes[value.view.batch :]), call.translation.constants.dtype)
        made = Constant(empty, empty, per_sample=True, axis=value.view.batch)
        call.translation.constants[call.node.output[0]] = made
        return None
    return call.emit(Slice(begin, end, tuple(kept), step), value)


def _known(call: Call, position: int) -> list[Any]:
    return call.numbers(position)


def _gather(call: Call) -> Value:
    if call.is_side(1):
        return gather_by_side(call)
    value = call.viewed()
    axis = call.axis(call.attribute("axis", 0))
    indices = np.asarray(call.constant(1))
    moved = indices.ndim - 1 if axis < value.view.batch else 0
    return call.emit(Take(indices, axis), value, view=replace(value.view, batch=value.view.batch + moved))


def _space_to_depth(call: Call) -> Value:
    value, block = call.value(), call.required("blocksize")
    if call.attribute("mode", "DCR") == "DCR":
        return call.emit(SpaceToDepth(block), value)
    if len(value.shape) != 3:
        raise call.broken(f"takes a value of shape {value.shape} (without the batch)")
    channels, height, width = value.shape
    steps = [
        ("blocks", Reshape((channels, height // block, block, width // block, block))),
        ("move", Transpose((0, 2, 4, 1, 3))),
        ("join", Reshape((channels * block * block, height // block, width // block))),
    ]
    return call.emit_all(steps, value)


def _tile(call: Call) -> Value:
    value = call.value()
    first, *repeats = call.numbers(1) or [1]
    if len(repeats) != len(value.shape):
        raise call.broken(f"repeats {len(repeats) + 1} axes of {len(value.shape) + 1}")
    if first != 1 or None in repeats:
        raise call.mixes_batch("repeats samples")
    for axis, (n, times) in enumerate(zip(value.shape, repeats, strict=True)):
        if times != 1:
            require_shape(
                (*value.shape, max(times or 0, 0)), 8, f"node {call.name!r} (Tile): the places of repeated values"
            )
            value = call.emit(Take(np.tile(np.arange(n), times or 0), axis), value, part=f"axis{axis}")
    return call.emit(Identity(), value)


def _pad(call: Call) -> Value:
    value = call.viewed()
    rank, view = value.rank, value.view
    pads = call.integers("pads", 1) or []
    fill = call.setting("value", 2, 0.0)
    given = call.integers("axes", 3)
    axes = [a % rank for a in given] if given is not None else list(range(rank))
    if len(pads) != 2 * len(axes):
        raise call.broken(f"has {len(pads)} pads for {len(axes)} axes")
    widths = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        widths[axis] = pads[i], pads[i + len(axes)]
    if widths[view.batch] != (0, 0):
        raise call.mixes_batch("pads the batch axis")
    widths[view.batch : view.batch + 1] = [(0, 0)] * view.merged
    mode = call.attribute("mode", "constant")
    number = float(np.ravel(fill)[0]) if fill is not None and np.size(fill) else 0.0
    return call.emit(Pad(widths, mode, number), value)


def _resize(call: Call) -> Value:
    value = call.value()
    mode: Any = call.attribute("mode", "nearest")
    for name, plain in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch"), ("exclude_outside", 0)):
        if call.attribute(name, plain) != plain:
            raise call.unsupported(f"has {name}={call.attribute(name)!r}")
    if call.opset < 11:  # Upsample, and Resize as it was then: its scales, coordinates and rounding
        sizes, scales = None, call.setting("scales", 1)
        coordinates, nearest = "asymmetric", "floor"
    else:
        sizes = call.numbers(3) if call.has(3) else None
        scales = call.setting("", 2) if sizes is None else None
        coordinates = call.attribute("coordinate_transformation_mode", "half_pixel")
        nearest = call.attribute("nearest_mode", "round_prefer_floor")
    rank = len(value.shape) + 1
    axes = [int(a) % rank for a in call.attribute("axes", range(rank))]
    given: Sequence[Any] = sizes or scales or ()
    if len(given) != len(axes):
        raise call.broken(f"has {len(given)} sizes or scales for {len(axes)} axes")
    wanted: dict[int, Any] = dict(zip(axes, given, strict=True))
    first = wanted.pop(0, None)
    if not (call.is_batch(first) if scales is None else first in (None, 1)):
        raise call.mixes_batch("resizes the batch axis")
    old = {axis: value.shape[axis - 1] if scales is None else 1 for axis in wanted}
    changed = [axis for axis, n in wanted.items() if n != old[axis]]
    if not changed:
        return call.emit(Identity(), value)
    new = tuple(wanted[axis] for axis in changed)
    layer = Resize(
        new if scales is None else None,
        None if scales is None else new,
        "linear" if mode in ("bilinear", "trilinear") else mode,
        coordinates,
        nearest,
        axes=[axis - 1 for axis in changed],
    )
    return call.emit(layer, value)


MOVEMENT: dict[str, Translate] = {
    **PLACES,
    "Concat": _concat,
    "DepthToSpace": lambda call: call.emit(
        DepthToSpace(call.required("blocksize"), call.attribute("mode", "DCR")), call.value()
    ),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}
