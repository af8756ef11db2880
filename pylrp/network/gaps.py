"""Numbers, words and gaps in the columns of tables: what of an array of objects is a number, and what is missing.

A data frame of several types of columns comes as an array of objects. Gaps are None, NaN, pandas's NA and NaT.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["columns_as_numbers", "gaps", "numbers", "one_gap"]

Array = NDArray[Any]
_GAPS = ("NoneType", "NAType", "NaTType")


def _is_gap(value: Any) -> bool:
    return type(value).__name__ in _GAPS or (isinstance(value, float) and value != value)


def gaps(block: Array) -> NDArray[np.bool_]:
    """Return where a block has gaps of any kind."""
    return np.array([_is_gap(value) for value in block.ravel()], bool).reshape(block.shape)


def one_gap(block: Array, gap: float | None) -> Array:
    """Return a block of words with gaps of any kind as one."""
    if not block.dtype.hasobject:
        return block
    made = block.copy()
    made[gaps(block)] = gap
    return made


def numbers(block: Array) -> Array:
    """Return a block as floating-point numbers, gaps of any kind as NaN."""
    if block.dtype.kind == "f":
        return block
    if block.dtype.kind in "biu":
        return block.astype(np.float64)
    try:
        if block.dtype.kind == "O":
            flat = [np.nan if _is_gap(value) else value for value in block.ravel()]
            return np.array(flat, dtype=np.float64).reshape(block.shape)
        return block.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a column of numbers holds something else: {error}") from None


def _is_of_numbers(kind: type[Any]) -> bool:
    return issubclass(kind, Real | Decimal | np.bool_) or kind.__name__ in _GAPS


def columns_as_numbers(block: Array, names: Sequence[str] | None, what: str) -> Array:
    """Return the columns of a data frame, or a row of one, as floating-point numbers.

    Raises
    ------
    TypeError
        If a column holds anything else; it is named.
    """
    for place in range(block.shape[-1] if block.dtype.kind not in "fbiu" and block.ndim else 0):
        column = block[..., place].ravel().tolist()
        for kind in set(map(type, column)):
            if not _is_of_numbers(kind):
                value = next(value for value in column if type(value) is kind)
                name = repr(names[place]) if names is not None else place
                raise TypeError(
                    f"{what}: column {name} holds {reprlib.repr(value)}, no number: encode it first, or load the whole "
                    "pipeline that does"
                )
    return numbers(block)
