"""Normalisations that a model spells out in arithmetic, found by what they compute, not by how it is written.

Where a value comes from one other alone through sums over axes and roots, that part of the graph is run in float64 on a
few inputs: which entries depend on each other, how the result grows with the input, what is added. A layer with the
scale, shift and epsilon that these tell is taken only where it gives the same numbers for all inputs tried.
``onnx/arithmetic.py`` asks; ``network/canonise`` merges what stands behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from pylrp.layers import Affine, Layer, LayerNorm, Normalize, RMSNorm, Shape
from pylrp.layers.base import product
from pylrp.loaders.onnx.node import Call, Translation, Value
from pylrp.loaders.onnx.statistic_steps import COMPUTED, REDUCTIONS, Foreign, values_of
from pylrp.loaders.onnx.views import PLAIN, Times

__all__ = ["is_underway", "normalised"]

Floats = NDArray[np.float64]

_MOST_STEPS = 48
_MOST_BASES = 8
_MOST_ENTRIES = 1 << 24  # of the arrays that are looked at
_LARGE = 1e8
_SCALES = 10.0 ** -np.arange(0, 19)
_CLOSE = 1e-9
_ROUNDING = 1e-13  # of the largest entry


#: What a normalisation ends with.
_LAST = {"Add", "Div", "Mul", "Sub", "Sum"}
_ROOTS = {"Sqrt", "Pow", "ReduceL2", "ReduceL1", "Abs"}


def normalised(call: Call) -> Value | None:
    """Emit the normalisation that a node's output is; None if it is none."""
    translation = call.translation
    if call.op not in _LAST:
        return None
    bases, kinds = _bases(call.node, translation)
    found: tuple[list[tuple[str, Layer]], Value] | None = None
    for base in bases if kinds & REDUCTIONS.keys() and kinds & _ROOTS else ():
        try:
            layers, centred = _Chain(call.node, translation, base).layers()
        except Foreign:
            continue
        if centred or found is None:
            found = layers, translation.values[base]
        if centred:
            break
    if found is None:
        return None
    translation.normalised.update(call.node.output)
    return call.emit_all(*found)


def is_underway(call: Call) -> bool:
    """Tell whether a node computes something of one value alone that may be part of a normalisation."""
    bases, kinds = _bases(call.node, call.translation)
    constants = [name for name in call.node.input if name in call.translation.constants]
    product_of_two = call.op in ("Mul", "Div") and not constants
    if not kinds & REDUCTIONS.keys() or (product_of_two and not kinds & _ROOTS):
        return False
    for base in bases:
        try:
            _Chain(call.node, call.translation, base)
        except Foreign:
            continue
        return True
    return False


def _bases(node: NodeProto, translation: Translation) -> tuple[list[str], set[str]]:
    """Return the values that a node may be a normalisation of, nearest first, and the operators between."""
    found: list[str] = []
    kinds = {node.op_type}
    seen, front = {*node.input}, values_of(node)
    while front and len(seen) < _MOST_STEPS:
        name = front.pop(0)
        if name in translation.values and name not in translation.pending:
            found.append(name)
        above = translation.producers.get(name)
        if above is not None and _known(above) and not any(n in translation.normalised for n in above.output):
            kinds.add(above.op_type)
            front += [other for other in values_of(above) if other not in seen]
            seen.update(above.input)
    return found[:_MOST_BASES], kinds


def _known(node: NodeProto) -> bool:
    return (node.op_type in COMPUTED or node.op_type == "Expand") and node.domain in ("", "ai.onnx")


@dataclass(frozen=True)
class _Fit:
    """``(x - mean) / d * scale + shift`` over axes of a batch; d of the mean squares or the sum of magnitudes."""

    axes: tuple[int, ...]
    centred: bool
    magnitudes: bool
    scale: Any
    shift: Any
    epsilon: float = 0.0
    at: str = "inside"

    def left(self, x: Floats) -> Floats:
        return x - x.mean(axis=self.axes, keepdims=True) if self.centred else x

    def size(self, x: Floats) -> Floats:
        """Return what x is divided by without epsilon."""
        left = self.left(x)
        if self.magnitudes:
            return np.asarray(np.abs(left).mean(axis=self.axes, keepdims=True))
        return np.asarray(np.sqrt((left * left).mean(axis=self.axes, keepdims=True)))

    def divisor(self, x: Floats) -> Floats:
        size = self.size(x)
        if self.at == "inside":
            return np.asarray(np.sqrt(size * size + self.epsilon))
        return size + self.epsilon if self.at == "outside" else np.maximum(size, self.epsilon)

    def of(self, x: Floats) -> Floats:
        return np.asarray(self.left(x) / self.divisor(x) * self.scale + self.shift)


class _Chain:
    """What leads from one value to a node."""

    def __init__(self, node: NodeProto, translation: Translation, base: str):
        self._node, self._translation, self._base = node, translation, base
        self._order: list[NodeProto] = []
        self._constants: dict[str, Floats] = {}
        self._collect(node, set())
        value = translation.values[base]
        self._view, block = value.view, value.view.block()
        self._sizes = value.view.sizes(value.shape)
        # As in the file: what is merged with the batch is like more samples.
        self.shape = tuple(n for axis, n in enumerate(value.shape) if axis not in block)
        self._probed = self._smallest(self.shape)
        if product(self._probed) * len(_SCALES) > _MOST_ENTRIES:
            raise Foreign

    def _collect(self, node: NodeProto, seen: set[str]) -> None:
        """Note the nodes in order. Raises Foreign where one depends on something else."""
        if not _known(node) or len(self._order) > _MOST_STEPS:
            raise Foreign
        for name in values_of(node):
            if name == self._base or name in seen or name in self._constants:
                continue
            if name in self._translation.constants:
                constant = self._translation.constants[name]
                if constant.follows_batch or constant.first.dtype.kind not in "fi":
                    raise Foreign
                self._constants[name] = constant.first.astype(np.float64)
                continue
            above = self._translation.producers.get(name)
            if above is None:
                raise Foreign
            self._collect(above, seen)
        seen.update(node.output)
        self._order.append(node)

    def _smallest(self, shape: Shape) -> Shape:
        """Return the shape without the length of axes along which all is the same: broadcast, and never summed."""
        calls = [Call.again(node, self._translation) for node in self._order]
        kept = set(range(len(shape) + 1)) - {self._view.batch}
        for call in calls:
            reduces = call.op in REDUCTIONS
            if call.op in ("Reshape", "Squeeze", "Unsqueeze") or (reduces and not call.attribute("keepdims", 1)):
                if self._view != PLAIN:
                    raise Foreign
                return shape  # axes have other numbers behind it
            if reduces:
                kept -= {axis % (len(shape) + 1) for axis in call.integers("axes", 1) or ()}
        for constant in self._constants.values():
            if constant.ndim > len(shape) + 1:
                raise Foreign
            sizes = (1,) * (len(shape) + 1 - constant.ndim) + constant.shape
            kept -= {axis for axis, n in enumerate(sizes) if n > 1}
        file_axes = [axis for axis in range(len(shape) + 1) if axis != self._view.batch]
        return tuple(1 if axis in kept else n for axis, n in zip(file_axes, shape, strict=True))

    def run(self, x: Floats) -> Floats:
        """Return the node's output for a batch of the value, both with the batch first."""
        batch = self._view.batch
        order = [*range(1, batch + 1), 0, *range(batch + 1, x.ndim)]
        known = {self._base: x.transpose(order), **self._constants}
        with np.errstate(all="ignore"):
            for node in self._order:
                call = Call.again(node, self._translation)
                inputs = [known[name] for name in values_of(node)]
                try:
                    known[node.output[0]] = (
                        self._expanded(call, inputs[0], known[self._base].shape)
                        if call.op == "Expand"
                        else COMPUTED[call.op](call, *inputs)
                    )
                except (IndexError, TypeError, ValueError):  # nothing that could be computed
                    raise Foreign from None
                if known[node.output[0]].shape[batch : batch + 1] != (len(x),):  # samples meet
                    raise Foreign
        made = known[self._node.output[0]]
        made = made.transpose([batch, *(axis for axis in range(made.ndim) if axis != batch)])
        if made.shape != x.shape or not np.isfinite(made).all():
            raise Foreign
        return made

    def _expanded(self, call: Call, x: Floats, shape: Shape) -> Floats:
        """Return what an Expand makes: an array of the base's shape, which may have been made smaller."""
        wanted = call.sizes(1)
        own = self._sizes[len(self._sizes) - len(wanted) :]
        pairs = zip(wanted, own, strict=True) if len(wanted) == len(own) else [(0, 1)]
        batch = (None, Times(), self._translation.batch)
        fits = all(n in (1, m) or (isinstance(m, Times) and m.factor == 1 and n in batch) for n, m in pairs)
        if not fits or x.ndim > len(shape):
            raise Foreign
        return np.broadcast_to(x, shape)

    def layers(self) -> tuple[list[tuple[str, Layer]], bool]:
        """Return the layers that are the same, and whether they subtract a mean. Raises Foreign if there are none."""
        rng = np.random.default_rng(self.shape)
        x = rng.normal(size=(2, *self._probed)) + 0.4
        place = (0, *(n // 2 for n in self._probed))
        moved = x[:1].copy()
        moved[place] += 1.37
        plain, minus, other, large = self.run(np.concatenate([x[:1], -x[:1], moved, _LARGE * x[:1]]))
        axes = tuple(
            axis + 1
            for axis in range(len(self._probed))
            if _moves_beyond(np.abs(other - plain) > _CLOSE * np.abs(plain).max(), axis, place[axis + 1])
        )
        if not axes:
            raise Foreign
        shift = (plain + minus) / 2
        shift[np.abs(shift) <= _ROUNDING * np.abs(plain).max()] = 0  # NumPy may round x and -x differently
        scaled = _SCALES.reshape(-1, *(1,) * len(self._probed)) * x[:1]
        tried = np.concatenate([scaled, x[1:], 3e-3 * x[1:], -_LARGE * x[1:], moved])
        made = self.run(tried)
        for fit in _fits(axes, x[:1], large - shift, shift):
            for whole in _with_epsilon(fit, scaled, made[: len(scaled)]):
                if _same(whole.of(tried), made):
                    return list(self._as_layers(whole)), whole.centred
        raise Foreign

    def _as_layers(self, fit: _Fit) -> Iterator[tuple[str, Layer]]:
        within_file = tuple(axis - 1 for axis in fit.axes)
        count = product([self.shape[axis] for axis in within_file])
        batch = self._view.batch
        axes = tuple(self._view.own(axis if axis < batch else axis + 1) for axis in within_file)
        scale, shift = _plain_array(fit.scale), _plain_array(fit.shift)
        divide = 1 / count if fit.magnitudes else count**-0.5
        if fit.magnitudes or (not fit.centred and scale.ndim == 0 and abs(scale / divide - 1) < _CLOSE):
            # The sum in place of the mean.
            epsilon = fit.epsilon / divide**2 if fit.at == "inside" else fit.epsilon / divide
            norm = "l1" if fit.magnitudes else "l2"
            yield "norm", Normalize(norm, axes, epsilon=_meant(epsilon), epsilon_at=fit.at)  # type: ignore[arg-type]
            scale = np.asarray(1.0) if scale.ndim == 0 and abs(scale / divide - 1) < _CLOSE else scale / divide
        else:
            kind: type[LayerNorm] = LayerNorm if fit.centred else RMSNorm
            within = all(_varies_within(array, within_file) for array in (scale, shift))
            dtype = self._translation.constants.dtype
            arrays: list[Any] = [
                None if not within or np.array_equal(array, neutral) else _over(array, within_file).astype(dtype)
                for array, neutral in ((scale, 1.0), (shift, 0.0))
            ]
            epsilon_at: Any = fit.at
            yield "norm", kind(arrays[0], arrays[1], axes=axes, epsilon=_meant(fit.epsilon), epsilon_at=epsilon_at)
            scale, shift = (np.asarray(1.0), np.asarray(0.0)) if within else (scale, shift)
        if np.any(scale != 1) or np.any(shift != 0):
            dtype = self._translation.constants.dtype
            # What is merged with the batch has axes of its own in the value.
            ones = (1,) * self._view.merged
            factor, added = (
                float(v) if v.ndim == 0 else v.astype(dtype).reshape(*v.shape[:batch], *ones, *v.shape[batch:])
                for v in (scale, shift)
            )
            yield "", Affine(factor, added)


def _moves_beyond(changed: NDArray[np.bool_], axis: int, place: int) -> bool:
    """Tell whether entries that differ from a place along an axis have changed with it."""
    along = changed.any(axis=tuple(a for a in range(changed.ndim) if a != axis))
    return bool(np.delete(along, place).any())


def _fits(axes: tuple[int, ...], x: Floats, large: Floats, shift: Floats) -> Iterator[_Fit]:
    """Return the candidates without epsilon, which does not count for large inputs; ``large`` lacks the shift."""
    for centred, magnitudes in ((True, False), (False, False), (False, True)):
        fit = _Fit(axes, centred, magnitudes, 1.0, shift[None])
        with np.errstate(all="ignore"):
            scale = large[None] / (fit.left(_LARGE * x) / fit.size(_LARGE * x))
        if np.isfinite(scale).all():
            yield _Fit(axes, centred, magnitudes, scale, shift[None])


def _with_epsilon(fit: _Fit, scaled: Floats, made: Floats) -> Iterator[_Fit]:
    """Return a candidate with the epsilon that small inputs show, in each of its places."""
    yield fit
    along = tuple(range(1, scaled.ndim))
    size = fit.size(scaled)
    with np.errstate(all="ignore"):
        unit = fit.left(scaled) * fit.scale
        divisor = (unit * unit).sum(axis=along) / (unit * (made - fit.shift)).sum(axis=along)
        ratio = divisor / size.mean(axis=along)
    # Where epsilon and the input's own size count about alike; with several groups they may differ.
    order = np.argsort(np.abs(np.log(np.where((ratio > 1.05) & (ratio < 1e4), ratio / 2, np.inf))))
    best = int(order[0])
    if not 1.05 < ratio[best] < 1e4:
        return
    # One group's is exact.
    first = (best, *(slice(None) if axis in fit.axes else slice(0, 1) for axis in range(1, scaled.ndim)))
    one, result = unit[first], (made - fit.shift)[first]
    whole = float((one * one).sum() / (one * result).sum())
    own = float(size[best].reshape(-1)[0])
    for at, epsilon in (("inside", whole**2 - own**2), ("outside", whole - own), ("floor", whole)):
        if epsilon > 0 and not (at == "inside" and fit.magnitudes):
            yield _Fit(fit.axes, fit.centred, fit.magnitudes, fit.scale, fit.shift, epsilon, at)


def _same(one: Floats, other: Floats) -> bool:
    largest = np.abs(other).reshape(len(other), -1).max(axis=1).reshape(-1, *(1,) * (other.ndim - 1))
    return bool((np.abs(one - other) <= _CLOSE * largest).all())


def _meant(value: float) -> float:
    """Return the short number that a float32 constant stands for, where it is one."""
    short = float(f"{value:.6g}")
    return short if abs(short - value) <= 1e-7 * abs(value) else value


def _plain_array(values: Floats) -> Floats:
    """Return an array without its batch axis and without axes along which it does not vary; one number as such."""
    array = np.asarray(values[0])
    size = max(float(np.abs(array).max()), 1.0)
    for axis in range(array.ndim):
        first = array.take([0], axis)
        if np.abs(array - first).max() <= 1e-11 * size:
            array = first
    if array.size > 1:
        return np.asarray(array)
    number = float(array.reshape(()))
    return np.asarray(next((n for n in (0.0, 1.0, -1.0) if abs(number - n) < 1e-11), number))


def _varies_within(array: Floats, axes: tuple[int, ...]) -> bool:
    return array.ndim == 0 or all(n == 1 or axis in axes for axis, n in enumerate(array.shape))


def _over(array: Floats, axes: tuple[int, ...]) -> Floats:
    """Return a scale or shift with the normalised axes alone."""
    return array if array.ndim == 0 else np.ascontiguousarray(array.reshape([array.shape[axis] for axis in axes]))
