"""What the numbers of a run depend on: machine, ceilings (measured in the same run) and versions.

The ceilings come from the compiled core, so that they are measured with the instructions that pylrp uses:
how fast multiply-adds can go when nothing is read, and how fast memory can be read when nothing is
computed. ``run.py`` stores all this in its JSON.
"""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import peers

PACKAGES = ("pylrp", "numpy", "Cython", "torch", "zennit", "captum", "onnxruntime")
READ_BYTES = 512 * 2**20  # far more than any cache holds

Facts = dict[str, Any]


def cpu_name() -> str:
    """Return the processor's own name, or the kind of machine where it does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def raise_ceilings(facts: Facts) -> None:
    """Measure GFLOP/s of float32 and GB/s of reading, as far as the core can, and keep the best so far.

    ``run.py`` calls this before every case: a single moment may be a bad one, and a ceiling is the best there is.
    """
    core = peers.load("pylrp._core") if peers.installed("pylrp") else None
    for threads in sorted({1, facts["threads"]}):
        best = facts["ceilings"].setdefault(str(threads), {})
        for name, arguments in (("fma_peak", ()), ("read_bandwidth", (READ_BYTES,))):
            measure = getattr(core, "measure_" + name, None)
            if measure is not None:
                best[name] = max(best.get(name, 0.0), measure(threads, *arguments))


def describe(threads: int) -> Facts:
    """Collect the facts; the ceilings are filled in by :func:`raise_ceilings`."""
    pylrp_info = peers.load("pylrp").info() if peers.installed("pylrp") else {}
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "isa": pylrp_info.get("isa", "unknown"),
        "compiler": pylrp_info.get("compiler", "unknown"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "ceilings": {},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
