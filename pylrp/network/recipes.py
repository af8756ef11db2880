"""How a description made of numbers, sequences and dataclasses follows from one length, learnt from three of them.

Whole numbers grow in proportion, arrays are left to the caller, everything else stays.
``patterns.py`` applies it to graphs and to what the core takes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrays", "Recipe", "Same", "Varies", "learnt"]

Array = NDArray[Any]
_MOST_NUMBERS = 64  # of an array that is numbers
_LARGEST = 1 << 24  # of a whole number in single precision


class Varies(Exception):
    """Something differs between lengths in a way that is not known."""


class Recipe:
    """Makes something for a length."""

    def at(self, length: int, arrays: Any) -> Any:
        """Return it."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class Same(Recipe):
    """What does not depend on the length."""

    value: Any

    def at(self, length: int, arrays: Any) -> Any:
        """Return it."""
        return self.value


@dataclasses.dataclass(frozen=True)
class _Number(Recipe):
    base: int
    slope: int

    def at(self, length: int, arrays: Any) -> int:
        return self.base + self.slope * length


@dataclasses.dataclass(frozen=True, eq=False)
class _Numbers(Recipe):
    """Whole numbers, or one divided by them, in an array of a dtype."""

    base: Array
    slope: Array
    dtype: np.dtype[Any]
    inverse: bool = False

    def at(self, length: int, arrays: Any) -> Array:
        whole = self.base + self.slope * length
        with np.errstate(divide="ignore"):
            return np.asarray(1.0 / whole if self.inverse else whole, self.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class _Sequence(Recipe):
    kind: type
    parts: tuple[Recipe, ...]

    def at(self, length: int, arrays: Any) -> Any:
        return self.kind([part.at(length, arrays) for part in self.parts])


@dataclasses.dataclass(frozen=True, eq=False)
class _Mapping(Recipe):
    known: dict[Any, Any]
    parts: dict[Any, Recipe]

    def at(self, length: int, arrays: Any) -> Any:
        return self.known | {key: part.at(length, arrays) for key, part in self.parts.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class _Made(Recipe):
    one: Any
    parts: dict[str, Recipe]

    def at(self, length: int, arrays: Any) -> Any:
        return dataclasses.replace(self.one, **{name: part.at(length, arrays) for name, part in self.parts.items()})


#: Returns how an array follows, of the arrays for the lengths; or raises Varies.
Arrays = Callable[[Sequence[Array]], Recipe]


def learnt(values: Sequence[Any], lengths: Sequence[int], arrays: Arrays) -> Recipe:
    """Return how something follows from the length.

    Parameters
    ----------
    values : sequence
        What it is for each of the lengths.
    lengths : sequence of int
        At least three that differ.
    arrays : callable

    Raises
    ------
    Varies
        If that is not known.
    """
    one = values[0]
    if all(value is one for value in values):
        return Same(one)
    if any(type(value) is not type(one) for value in values):
        raise Varies(f"types {', '.join(type(value).__name__ for value in values)}")
    if isinstance(one, np.ndarray):
        return _array(values, lengths, arrays)
    if isinstance(one, int) and not isinstance(one, bool):
        return _number(values, lengths)
    if isinstance(one, tuple | list):
        return _sequence(values, lengths, arrays)
    if isinstance(one, dict):
        if any(list(value) != list(one) for value in values):
            raise Varies("other keys")
        parts = {key: learnt([value[key] for value in values], lengths, arrays) for key in one}
        parts = {key: part for key, part in parts.items() if not isinstance(part, Same)}
        return _Mapping(dict(one), parts) if parts else Same(one)
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        names = [field.name for field in dataclasses.fields(one) if field.init]
        parts = {n: learnt([getattr(value, n) for value in values], lengths, arrays) for n in names}
        parts = {name: part for name, part in parts.items() if not isinstance(part, Same)}
        return _Made(one, parts) if parts else Same(one)
    if all(value == one for value in values):
        return Same(one)
    raise Varies(f"{one!r} and {values[-1]!r}")


def _number(values: Sequence[int], lengths: Sequence[int]) -> Recipe:
    slope, rest = divmod(values[-1] - values[0], lengths[-1] - lengths[0])
    found = _Number(values[0] - slope * lengths[0], slope)
    if rest or any(found.at(n, None) != value for n, value in zip(lengths, values, strict=True)):
        raise Varies(f"numbers {', '.join(map(str, values))}")
    return found if slope else Same(values[0])


def _sequence(values: Sequence[Any], lengths: Sequence[int], arrays: Arrays) -> Recipe:
    if len({len(value) for value in values}) > 1:
        raise Varies("other counts")
    parts = tuple(learnt(each, lengths, arrays) for each in zip(*values, strict=True))
    if all(isinstance(part, Same) for part in parts):
        return Same(values[0])
    return _Sequence(type(values[0]), parts)


def _array(values: Sequence[Array], lengths: Sequence[int], arrays: Arrays) -> Recipe:
    one = values[0]
    alike = all(value.dtype == one.dtype and value.shape == one.shape for value in values)
    if alike and all(np.array_equal(value, one) for value in values):
        return Same(one)
    if alike and one.dtype.kind in "iuf" and one.size <= _MOST_NUMBERS:
        for inverse in (False, True) if one.dtype.kind == "f" else (False,):
            with np.errstate(all="ignore"):
                whole = [np.rint(1.0 / v if inverse else v) for v in values]
            if any(not (np.abs(v) < _LARGEST).all() for v in whole):
                continue
            first, *_, last = (v.astype(np.int64) for v in whole)
            slope, _ = np.divmod(last - first, lengths[-1] - lengths[0])
            found = _Numbers(first - slope * lengths[0], slope, one.dtype, inverse)
            if all(np.array_equal(found.at(n, None), v) for n, v in zip(lengths, values, strict=True)):
                return found
    return arrays(values)
