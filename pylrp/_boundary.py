"""What ``pylrp.relevance`` asks of its arrays: kinds, lengths, shapes and dtypes, each held against its neighbours.

``api.py`` calls in; ``_arrays.py`` has what one array must be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp._arrays import bits_of_bfloat16, require_finite, require_finite_once, settle

__all__ = ["check_dtypes", "check_shapes", "sequences", "settle_biases"]

Array = NDArray[Any]


def sequences(W_list: Any, acts: Any, out: Any) -> tuple[list[Array], list[Array | None], Array]:
    """Settle the arrays; lengths and numbers of axes."""
    for name, value in (("W_list", W_list), ("acts", acts)):
        if not isinstance(value, (list, tuple)):
            shape = f" of shape {value.shape}" if isinstance(value, np.ndarray) else ""
            hint = "; a network explains by itself: call its explain(x)" if hasattr(value, "explain") else ""
            raise TypeError(f"{name} must be a list, one entry a layer, got {type(value).__name__}{shape}{hint}")
    depth = len(W_list)
    if depth == 0:
        raise ValueError("W_list is empty: there must be at least one layer")
    if len(acts) != depth:
        hint = (
            " (acts holds the input of each layer; the network's output goes into `out`: pass acts[:-1])"
            if len(acts) == depth + 1
            else ""
        )
        raise ValueError(f"W_list has {depth} entries, acts has {len(acts)}{hint}")
    weights = []
    for l, value in enumerate(W_list):
        name = f"W_list[{l}]"
        bits = bits_of_bfloat16(value, name)
        weight = settle(value, name) if bits is None else bits
        if weight.ndim != 2:
            raise ValueError(f"layer {l}: {name} has shape {weight.shape}, expected (n_out, n_in)")
        if bits is None:
            require_finite_once(weight, name)
        weights.append(weight)
    inputs = [None if a is None else settle(a, f"acts[{l}]") for l, a in enumerate(acts)]
    return weights, inputs, settle(out, "out")


def settle_biases(biases: Sequence[ArrayLike | None] | None, weights: list[Array]) -> list[Array | None]:
    if biases is None:
        return []
    if not isinstance(biases, (list, tuple)):
        raise TypeError(f"biases must be a list, one entry a layer, got {type(biases).__name__}")
    if len(biases) != len(weights):
        raise ValueError(f"W_list has {len(weights)} entries, biases has {len(biases)}")
    result: list[Array | None] = []
    for l, value in enumerate(biases):
        if value is None:
            result.append(None)
            continue
        bias = settle(value, f"biases[{l}]")
        if bias.shape != weights[l].shape[:1]:
            raise ValueError(
                f"layer {l}: biases[{l}] has shape {bias.shape}, "
                f"its weight is {weights[l].shape}: expected ({weights[l].shape[0]},)"
            )
        require_finite(bias, f"biases[{l}]")
        result.append(bias)
    return result


def check_shapes(weights: list[Array], inputs: list[Array | None], top: Array) -> None:
    """Every array against its neighbours; messages show both sides."""
    for l in range(1, len(weights)):
        if weights[l].shape[1] != weights[l - 1].shape[0]:
            raise ValueError(
                f"layer {l}: weight is {weights[l].shape}, its input has {weights[l - 1].shape[0]} features "
                f"(layer {l - 1}: weight is {weights[l - 1].shape}){_transposed(weights)}"
            )
    if top.ndim not in (1, 2):
        raise ValueError(f"out has shape {top.shape}, expected (batch, {weights[-1].shape[0]}) or one sample")
    last = len(weights) - 1
    for l, a in enumerate(inputs):
        if a is None:
            continue
        width = weights[l].shape[1]
        if a.ndim not in (1, 2):
            raise ValueError(f"layer {l}: acts[{l}] has shape {a.shape}, expected (batch, {width}) or ({width},)")
        if a.shape[-1] != width:
            raise ValueError(
                f"layer {l}: weight is {weights[l].shape}, its input acts[{l}] has {a.shape[-1]} features "
                f"(shape {a.shape}){_columns(a, width, f'acts[{l}]') or _transposed(weights)}"
            )
        if a.ndim != top.ndim or a.shape[:-1] != top.shape[:-1]:
            raise ValueError(
                f"layer {l}: acts[{l}] has shape {a.shape}, out has shape {top.shape}: the batches differ"
                f"{_columns(top, weights[last].shape[0], 'out')}"
            )
    width = weights[last].shape[0]
    if top.shape[-1] != width:
        raise ValueError(
            f"layer {last}: weight is {weights[last].shape}, out has {top.shape[-1]} entries a sample "
            f"(shape {top.shape}){_columns(top, width, 'out')}"
        )


def _columns(array: Array, width: int, name: str) -> str:
    if array.ndim == 2 and array.shape[0] == width and array.shape[1] != width:
        return f"; samples are rows here, yours are columns: pass {name}.T"
    return ""


def _transposed(weights: list[Array]) -> str:
    if all(a.shape[0] == b.shape[1] for a, b in zip(weights[1:], weights, strict=False)) and len(weights) > 1:
        return "; the weights look transposed (n_in, n_out): pass [W.T for W in W_list]"
    return "; a weight is (n_out, n_in), a row for each neuron of the next layer"


def check_dtypes(weights: list[Array], inputs: list[Array | None], top: Array, biases: list[Array | None]) -> None:
    dtype = weights[0].dtype
    if any(weight.dtype == np.uint16 for weight in weights):
        _check_beside_bfloat16(weights, inputs, top, biases)
        return
    named = (("W_list", weights), ("acts", inputs), ("biases", biases))
    for name, arrays in named:
        for l, array in enumerate(arrays):
            if array is not None and array.dtype is not dtype:
                _mixed("W_list[0]", dtype, f"{name}[{l}]", array.dtype)
    if top.dtype is not dtype:
        _mixed("W_list[0]", dtype, "out", top.dtype)


def _check_beside_bfloat16(
    weights: list[Array], inputs: list[Array | None], top: Array, biases: list[Array | None]
) -> None:
    """Beside weights in bfloat16 all is float32."""
    at = next(l for l, weight in enumerate(weights) if weight.dtype == np.uint16)
    float32 = [weight for weight in weights if weight.dtype != np.uint16]
    named = (("W_list", float32), ("acts", inputs), ("biases", biases), ("out", [top]))
    for name, arrays in named:
        for array in arrays:
            if array is not None and array.dtype != np.float32:
                raise TypeError(f"W_list[{at}] is bfloat16, {name} is {array.dtype}: beside bfloat16 all is float32")


def _mixed(first: str, first_dtype: Any, second: str, second_dtype: Any) -> NoReturn:
    raise TypeError(
        f"{first} is {first_dtype}, {second} is {second_dtype}: convert all arrays to one of float32 and float64"
    )
