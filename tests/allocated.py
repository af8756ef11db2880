"""How much Python and NumPy allocate: counted, whatever the process has in memory besides."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most_allocated(limit: int) -> Iterator[None]:
    """Fail if more than `limit` bytes are in use at once, of what is allocated in the block."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit, f"{peak:,} bytes at once"
