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

PACKAGES = ("pylrp", "numpy", "Cython", "torch", "zennit", "captum")
READ_BYTES = 512 * 2**20  # far more than any cache holds
REPEATS = 3

Facts = dict[str, Any]


def cpu_name() -> str:
    """Return the processor's own name, or the kind of machine where it does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def ceilings(threads: int) -> dict[str, float]:
    """Measure GFLOP/s of float32 and GB/s of reading, best of some attempts, as far as the core can."""
    core = peers.load("pylrp._core") if peers.installed("pylrp") else None
    found = {}
    for name, arguments in (("measure_fma_peak", ()), ("measure_read_bandwidth", (READ_BYTES,))):
        measure = getattr(core, name, None)
        if measure is not None:
            found[name.removeprefix("measure_")] = max(measure(threads, *arguments) for _ in range(REPEATS))
    return found


def busy_seconds_of_others() -> float:
    """Return the CPU seconds that all other programs have used since the machine started (Linux; else 0)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
    total = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return total - sum(os.times()[:4])


def describe(threads: int) -> Facts:
    """Collect the facts; ``ceilings`` holds one entry for each number of threads up to the run's."""
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
        "ceilings": {str(n): ceilings(n) for n in sorted({1, threads})},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
