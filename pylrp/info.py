"""What was built, what the machine has and what runs. ``pylrp info`` prints it."""

from __future__ import annotations

import operator
import platform
from importlib.metadata import version
from typing import Any

import numpy as np

from pylrp import _core

__all__ = ["get_threads", "info", "set_threads"]


def info() -> dict[str, Any]:
    """Return versions, instruction sets (built, supported, active), threads and compiler.

    ``"bfloat16"`` is the processor's instruction for it, or "emulated".

    Raises
    ------
    ValueError
        If ``PYLRP_ISA`` names an instruction set that this build or this machine lacks.
    """
    return {
        "pylrp": version("pylrp"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "isa_built": _core.isa_built(),
        "isa_supported": _core.isa_supported(),
        "isa": _core.isa(),
        "bfloat16": _core.bfloat16_instruction(),
        "threads": _core.threads(),
        "compiler": _core.compiler(),
    }


def get_threads() -> int:
    """Return how many threads a call without ``threads=`` uses."""
    return _core.threads()


def set_threads(count: int) -> None:
    """Let calls without ``threads=`` use so many threads.

    Raises
    ------
    ValueError
        If ``count`` is below 1.
    TypeError
        If it is not a whole number.
    """
    _core.set_threads(thread_count(count))


def thread_count(value: int) -> int:
    """Return a number of threads that is one."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"threads must be a whole number, got {value!r}") from None
    if count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    return min(count, 1024)
