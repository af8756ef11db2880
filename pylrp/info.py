"""What was built, what the machine has and what runs. ``pylrp info`` prints it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import numpy as np

from pylrp import _core

__all__ = ["get_threads", "info", "set_threads"]


def info() -> dict[str, Any]:
    """Return versions, instruction sets (built, supported, active), threads and compiler.

    Raises
    ------
    ValueError
        If ``PYLRP_ISA`` names an instruction set that this build or this machine lacks.
    """
    openmp = _core.openmp_version()
    return {
        "pylrp": version("pylrp"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "isa_built": _core.isa_built(),
        "isa_supported": _core.isa_supported(),
        "isa": _core.isa(),
        "openmp": str(openmp) if openmp else "no: one thread",
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
    """
    if count < 1:
        raise ValueError(f"the number of threads must be at least 1, got {count}")
    _core.set_threads(count)


# A forked child must not start threads: the parent's OpenMP pool is gone there, and waiting for it hangs.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_core.forbid_threads)
