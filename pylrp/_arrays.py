"""The one policy for arrays: float32 or float64, aligned, rows contiguous, finite.

Anything else is converted (layout, byte order) or refused with a sentence (kinds that would lose meaning). Arrays
that fit are used in place, without a copy. ``api.py`` calls in, the compiled core trusts the result.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp import _core
from pylrp.errors import NotFinite, UnsuitablePrecision

__all__ = [
    "bits_of_bfloat16",
    "contiguous_lines",
    "name_of",
    "plain",
    "require_finite",
    "require_finite_once",
    "rounds_to_bfloat16",
    "settle",
]

Array = NDArray[Any]

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
_LINE = 64  # bytes
_NAMES = {FLOAT32: "float32", FLOAT64: "float64"}


def name_of(dtype: np.dtype[Any]) -> str:
    """Return a dtype's name, without what NumPy does to find it."""
    return _NAMES.get(dtype) or dtype.name


def settle(value: Any, name: str) -> Array:
    """Return ``value`` as an array the core can read; a copy only where dtype order or layout call for one."""
    array = value if type(value) is np.ndarray else _to_array(value, name)
    dtype = array.dtype
    if dtype is not FLOAT32 and dtype is not FLOAT64:
        array = _to_native(array, name)
        dtype = array.dtype
    # Rows may lie anywhere, also backwards; within a row the entries must be neighbours.
    strides = array.strides
    size = dtype.itemsize
    if not array.flags.aligned or (
        array.ndim and ((array.shape[-1] > 1 and strides[-1] != size) or any(s % size for s in strides[:-1]))
    ):
        array = np.array(array, order="C")
    return array


def contiguous_lines(array: Array) -> Array:
    """Return an array in C order that begins at a cache line: the same where it does, else a copy.

    Vectors that lie across two lines of the cache take twice as long to read.
    """
    if array.flags.c_contiguous and array.ctypes.data % _LINE == 0:
        return array
    memory = np.empty(array.nbytes + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    made = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def _to_array(value: Any, name: str) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array: fill it first, for example with .filled(0)")
    return np.asarray(plain(value, name))


def plain(value: Any, name: str) -> Any:
    """Return a torch tensor as the array of its values, whether gradients are kept for it or not; or what was given.

    Raises
    ------
    TypeError
        If NumPy can't hold the tensor: it lies on another device, is sparse, or of a dtype that NumPy lacks.
    ValueError
        If what was given can't be read as an array.
    """
    if any(kind.__name__ == "Tensor" and kind.__module__ == "torch" for kind in type(value).__mro__):
        device = value.device.type
        if device != "cpu":
            raise TypeError(
                f"{name} is a tensor on {value.device}, "
                + (
                    "which holds no values"
                    if device == "meta"
                    else f"relevance is computed on the CPU: pass {name}.cpu()"
                )
            )
        try:
            return value.detach().resolve_conj().resolve_neg().numpy()
        except (RuntimeError, TypeError) as error:  # sparse, quantised, bfloat16, within torch.func
            raise TypeError(f"{name} is a tensor that can't be read as an array: {error}") from None
    if isinstance(value, np.ndarray) or value is None:
        return value
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} can't be read as an array: {error}") from None


def _to_native(array: Array, name: str) -> Array:
    for dtype in (FLOAT32, FLOAT64):
        if array.dtype == dtype:  # an equal dtype that is another object, from unpickling for example
            return array.view(dtype)
        if array.dtype.newbyteorder("=") == dtype:
            return array.astype(dtype)
    way_out = "convert it first, for example with .astype(numpy.float32)"
    raise TypeError(f"{name} has dtype {array.dtype}; relevance is computed in float32 or float64: {way_out}")


def memory_order(array: Array) -> tuple[int, ...] | None:
    """Return the order of axes in which an array of three axes or more is one block of memory; None for the usual one.

    So lie kernels that the core has put into its own order.
    """
    if array.ndim <= 2 or array.flags.c_contiguous:
        return None
    axes = tuple(int(axis) for axis in np.argsort([-stride for stride in array.strides], kind="stable"))
    return axes if array.transpose(axes).flags.c_contiguous else None


def require_finite(array: Array, name: str) -> None:
    """Raise NotFinite naming the first entry of a settled array that is NaN or infinite."""
    rows = array if array.ndim in (1, 2) else np.ascontiguousarray(array).reshape(len(array) if array.ndim else 1, -1)
    at = _core.first_not_finite(rows)
    if at is not None:
        if rows is not array:
            at = tuple(map(int, np.unravel_index(int(np.ravel_multi_index(at, rows.shape)), array.shape)))
        index = ", ".join(map(str, at))
        raise NotFinite(f"{name} is not finite: {name}[{index}] is {array[at]}", what=name)


_seen: dict[int, weakref.ref[Array]] = {}


def require_finite_once(array: Array, name: str) -> None:
    """Check an array object the first time it is seen.

    A second pass over hundreds of megabytes of weights would cost as much as the explanation itself. Weights that are
    changed in place afterwards are still caught wherever they take part in a result, see ``api.py``.
    """
    key = id(array)
    known = _seen.get(key)
    if known is not None and known() is array:
        return
    require_finite(array, name)
    _remember(array)


def _remember(array: Array) -> None:
    key = id(array)
    _seen[key] = weakref.ref(array, lambda _: _seen.pop(key, None))


def rounds_to_bfloat16(precision: Any, dtype: np.dtype[Any]) -> bool:
    """Whether products are to round their operands to bfloat16.

    Parameters
    ----------
    precision : object
        What the caller asked for: None or the dtype's own name for exact products, or "bfloat16".
    dtype : dtype
        In which everything is computed.

    Raises
    ------
    UnsuitablePrecision
        If it is something else, or the dtype is not float32.
    """
    if precision is None or (isinstance(precision, str) and precision == dtype.name):
        return False
    if not isinstance(precision, str) or precision not in ("bfloat16", "float32", "float64"):
        raise UnsuitablePrecision(
            precision, dtype.name, f'there are "bfloat16" and, of arrays in {dtype}, "{dtype}", the default'
        )
    if precision != "bfloat16":
        raise UnsuitablePrecision(
            precision, dtype.name, f"the arrays are {dtype}: convert them, a network by pylrp.load(..., dtype=)"
        )
    if dtype != FLOAT32:
        raise UnsuitablePrecision(
            precision,
            dtype.name,
            f"sums are float32, the arrays are {dtype}: convert them to float32, a network by "
            'pylrp.load(..., dtype="float32")',
        )
    return True


def bits_of_bfloat16(value: Any, name: str) -> Array | None:
    """Return an array in bfloat16 (of the package ml_dtypes, of JAX) as its bits, uint16; None for any other.

    Raises
    ------
    NotFinite
        If an entry is NaN or infinite, the first time that the array is seen.
    """
    if type(value) is not np.ndarray or value.dtype.name != "bfloat16":
        return None
    bits = value.view(np.uint16)
    if not bits.flags.aligned or (bits.ndim and bits.shape[-1] > 1 and bits.strides[-1] != bits.itemsize):
        bits = np.array(bits, order="C")
    known = _seen.get(id(value))
    if known is None or known() is not value:
        infinite = np.uint16(0x7F80)
        for i, row in enumerate(np.atleast_2d(bits)):
            at = np.flatnonzero((row & infinite) == infinite)
            if at.size:
                index = f"{i}, {at[0]}" if bits.ndim > 1 else f"{at[0]}"
                raise NotFinite(f"{name} is not finite: {name}[{index}] is {value[..., at[0]].flat[i]}", what=name)
        _remember(value)
    return bits
