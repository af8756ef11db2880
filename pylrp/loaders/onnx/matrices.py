"""MatMul and Einsum of an ONNX model: with one constant matrix, with one for each head, of two computed values.

:data:`MATRICES` is part of the table of ``onnx/operators.py``.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Expand, Layer, MatMul, PositionwiseDense, Reshape, Shape, Transpose
from pylrp.layers.base import product
from pylrp.loaders.contraction import Contraction, dense_along, letters_of
from pylrp.loaders.onnx.attention import einsum_of_two
from pylrp.loaders.onnx.node import Call, Value
from pylrp.loaders.onnx.views import View

__all__ = ["MATRICES", "contracted"]

Array = NDArray[np.floating]
_MATRIX = 2  # axes


def _matmul(call: Call) -> Value:
    at = 1 if call.is_constant(0) else 0  # of the value
    if not call.is_constant(1 - at):
        return call.emit(MatMul(), *_factors(call))
    value, left = call.viewed(at), at == 1
    shape = call.translation.constants[call.node.input[1 - at]].first.shape
    if not _MATRIX <= len(shape) <= value.rank:
        raise call.unsupported(f"multiplies a value of {value.rank} axes by an array of shape {shape}")
    summed = value.rank - (2 if left else 1)
    if summed == value.view.batch:
        raise call.mixes_batch("multiplies along the batch axis")
    if product(shape[:-_MATRIX]) > 1:
        return _by_group(call, value, 1 - at)
    axes = string.ascii_lowercase[: len(value.shape)]
    letter = axes[value.view.own(summed)]
    constant = f"Z{letter}" if left else f"{letter}Z"
    return contracted(call, Contraction.of(axes, constant, axes.replace(letter, "Z")), 1 - at, value, shape[-_MATRIX:])


def _factors(call: Call) -> tuple[Value, Value]:
    """Return the two computed values that a MatMul takes; the batch is a leading axis of both."""
    left, right = call.viewed(0), call.viewed(1)
    if left.view != right.view or left.rank != right.rank or left.view.batch >= left.rank - 2:
        raise call.mixes_batch(
            f"multiplies values of shapes {left.shape} and {right.shape} (without the batch), the batch of one meets "
            "another axis of the other, or is summed over"
        )
    return left, right


def _by_group(call: Call, value: Value, position: int) -> Value:
    """Emit the product with constants that differ from head to head.

    The value is ``(..., rows, k)`` before constants ``(..., k, m)``, or ``(..., k, rows)`` behind ``(..., m, k)``.
    """
    left, leading = position == 0, len(value.shape) - _MATRIX
    array = _met(call, position, value)
    value = _repeated(call, value, array.shape[:leading])
    axes = string.ascii_lowercase[: len(value.shape)]
    heads = "".join(letter for letter, n in zip(axes, array.shape[:leading], strict=False) if n != 1)
    shape = (*(n for n in array.shape[:leading] if n != 1), *array.shape[-_MATRIX:])
    if left:
        return _in_groups(call, value, position, shape, (axes, f"{heads}Z{axes[-2]}", f"{axes[:-2]}Z{axes[-1]}"))
    return _in_groups(call, value, position, shape, (axes, f"{heads}{axes[-1]}Z", f"{axes[:-1]}Z"))


def _in_groups(call: Call, value: Value, position: int, shape: Shape, terms: Sequence[str]) -> Value:
    """Emit an Einsum of a value with a constant of which there is one matrix for each group: dense layers in groups.

    ``terms`` are the letters of the value, of the constant, whose shape is given, and of the result, without the batch.
    """
    given, constant, result = terms
    heads = [a for a in given if a in constant and a in result]
    summed = [a for a in given if a in constant and a not in result]
    kept = [a for a in given if a not in constant]
    made = [a for a in constant if a not in given]
    if any(len(set(term)) != len(term) for term in terms) or sorted(heads + kept + made) != sorted(result):
        raise ValueError("is no product with a matrix for each group")
    size = dict(zip(constant + given, shape + value.shape, strict=True))

    def lengths(letters: list[str]) -> Shape:
        return tuple(size[a] for a in letters)

    groups = product(lengths(heads))

    def make(weight: Array) -> Array:
        order = [constant.index(a) for a in heads + made + summed]
        return weight.reshape(shape).transpose(order).reshape(groups * product(lengths(made)), -1, 1)

    name = call.node.input[position]
    weight = call.translation.constants.weight(name, f"matrices {terms}", make)
    steps: list[tuple[str, Layer]] = [
        ("heads_first", Transpose([given.index(a) for a in heads + summed + kept])),
        ("channels", Reshape((groups * product(lengths(summed)), product(lengths(kept))))),
        ("", PositionwiseDense(weight, groups=groups)),
        ("axes", Reshape(lengths(heads + made + kept))),
        ("heads_back", Transpose([(heads + made + kept).index(a) for a in result])),
    ]
    for part, layer in steps:
        value = call.emit(layer, value, part=part)
    return value


def _met(call: Call, position: int, value: Value) -> Array:
    """Return a constant with the axes of a value (without the batch), the last two as they are."""
    constant = call.translation.constants[call.node.input[position]]
    array = constant.first
    view, merged = value.view, tuple(value.shape[axis] for axis in value.view.block())
    full = array.reshape((1,) * (value.rank - array.ndim) + array.shape)
    rows = full.shape[view.batch]
    of_heads = constant.per_sample and constant.axis == 0 and rows == product(merged)
    moved = constant.per_sample and constant.axis + value.rank - array.ndim != view.batch
    if view.batch >= value.rank - _MATRIX or view.before or moved or not (rows == 1 or of_heads):
        raise call.mixes_batch(
            f"multiplies by an array of shape {array.shape}, another matrix for each sample of the batch"
        )
    inner: Shape = merged if rows > 1 else (1,) * len(merged)
    return full.reshape(*full.shape[: view.batch], *inner, *full.shape[view.batch + 1 :])


def _repeated(call: Call, value: Value, leading: Sequence[int]) -> Value:
    """Return a value as often as there are constants for it."""
    own = value.shape[: len(leading)]
    if any(n != m and 1 not in (n, m) for n, m in zip(own, leading, strict=True)):
        raise call.broken(f"multiplies a value of shape {value.shape} by matrices for {tuple(leading)} parts")
    wanted = (*np.broadcast_shapes(own, tuple(leading)), *value.shape[len(leading) :])
    return value if wanted == value.shape else call.emit(Expand(wanted), value, part="repeated")


def _einsum(call: Call) -> Value:
    if len(call.node.input) != _MATRIX:
        raise call.unsupported("is no product of two values")
    equation = call.required("equation")
    text = equation.decode() if isinstance(equation, bytes) else equation
    if not call.is_constant(0) and not call.is_constant(1):
        return einsum_of_two(call, text)
    at = 1 if call.is_constant(0) else 0  # of the value
    if at:
        terms, arrow, result = text.partition("->")
        text = f"{','.join(reversed(terms.split(',')))}{arrow}{result}"
    value = call.viewed(at)
    try:
        terms = letters_of(text, value.rank)
        batch = terms[0][value.view.batch]
        array = call.translation.constants[call.node.input[1 - at]]
        shape, own = array.first.shape, terms[1].find(batch)
        alike = own == -1 and not array.per_sample  # or the same for each sample, and as many as there are
        alike = alike or (array.per_sample and array.axis == own and shape[own] == 1)
        if value.view.merged or batch not in terms[2] or not alike:
            raise call.mixes_batch(f"has the equation {text!r}, which sums over the batch")
        given, constant, result = (term.replace(batch, "") for term in terms)
        shape = tuple(n for axis, n in enumerate(shape) if axis != own)
        if set(given) & set(constant) & set(result):
            made = _in_groups(call, value, 1 - at, shape, (given, constant, result))
        else:
            made = contracted(call, Contraction.of(given, constant, result), 1 - at, value, shape)
    except ValueError as error:
        raise call.unsupported(str(error)) from None
    return replace(made, view=View(terms[2].index(batch)))


def contracted(call: Call, meeting: Contraction, position: int, value: Value, shape: Shape) -> Value:
    """Emit the product of a value with the constant at a position; the layer with weights has the node's name."""
    name = call.node.input[position]

    def make(axes: int | None) -> Layer:
        def matrix(weight: Array) -> Array:
            return meeting.matrix(weight.reshape(shape))

        return dense_along(axes, call.translation.constants.weight(name, f"product {meeting} {axes}", matrix))

    for step, layer in meeting.layers(value.shape, shape, make):
        value = call.emit(layer, value, part=step)
    return value


MATRICES: dict[str, Callable[[Call], Value]] = {"Einsum": _einsum, "MatMul": _matmul}
