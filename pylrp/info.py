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
    return min(whole_number("threads", value, 1), 1024)


def whole_number(name: str, value: int, least: int) -> int:
    """Return what is a whole number and not below ``least``.

    Raises
    ------
    TypeError, ValueError
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number
