"""What networks keep of their memory from one call to the next."""

from __future__ import annotations

from pylrp import _core
from pylrp.info import whole_number

__all__ = ["kept_memory", "release_memory", "set_kept_memory"]

_MOST = 1 << 62


def kept_memory() -> int:
    """Return how many bytes the networks of this process keep between calls.

    A call's memory stays with its network, since the next call probably takes as much; after some calls that need half
    of it or less, the rest goes back to the system. See :func:`set_kept_memory` for the limit.
    """
    return _core.kept_memory()


def set_kept_memory(limit: int) -> int:
    """Let the networks of this process keep so many bytes between calls, all together; 1 GB without it.

    Beyond that, networks that have not been used for longest give theirs back first. A call takes what it needs,
    whatever the limit; with 0 all of it goes back when the call ends, and the next one takes a few percent longer.

    Returns
    -------
    int
        The limit before.

    Raises
    ------
    ValueError
        If ``limit`` is negative.
    TypeError
        If it is not a whole number.
    """
    wanted = whole_number("limit", limit, 0)
    before = _core.kept_memory_limit()
    _core.limit_kept_memory(min(wanted, _MOST))
    return before


def release_memory() -> None:
    """Give back to the system what networks keep between calls; calls that run at the moment lose nothing."""
    _core.release_kept_memory()
