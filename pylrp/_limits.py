"""How much memory a network may ask for: sizes that a file declares are looked at before anything is allocated.

``loaders/guard.py`` sets the limit for what is read; the layers, ``graph.py`` and the loaders ask here. Products are of
Python's integers, which do not overflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["TooLarge", "allowed", "at_most", "default_limit", "require", "require_shape"]

#: What no machine has: the limit of networks that are built by hand.
_BY_HAND = 1 << 47
_LEAST, _TIMES = 4 << 30, 16
_limit: ContextVar[int] = ContextVar("pylrp_limit", default=_BY_HAND)


class TooLarge(ValueError):
    """Something would take more memory than it may."""


def default_limit(size: int) -> int:
    """Return the limit for a file of so many bytes: 4 GiB or 16 times the file, whichever is more."""
    return max(_LEAST, _TIMES * size)


def allowed() -> int:
    """Return how many bytes the network that is being made may take."""
    return _limit.get()


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Limit what networks that are made within the block may take."""
    token = _limit.set(size)
    try:
        yield
    finally:
        _limit.reset(token)


def require(size: int, what: str) -> None:
    """Raise if so many bytes are more than the network may take.

    Raises
    ------
    TooLarge
    """
    limit = _limit.get()
    if size > limit:
        way_out = "" if limit == _BY_HAND else ": if that is meant, pylrp.load(..., max_bytes=) allows it"
        raise TooLarge(f"asks for too much: {what} take {_written(size)}, the limit is {_written(limit)}{way_out}")


def require_shape(shape: Sequence[int], itemsize: int, what: str) -> None:
    """Raise if an array of this shape is more than the network may take."""
    size = itemsize
    for n in shape:
        size *= int(n)
    if size > _limit.get():
        require(size, f"{what} of shape {tuple(shape)}")


def _written(size: int) -> str:
    return f"{size / (1 << 30):.3g} GiB" if size < 1 << 80 else "more than 2^80 bytes"
