"""Compile ``question_loops.pyx`` into ``bench/build/`` when ``peers.py`` asks for the module.

The flags are -O3 -march=native: the file runs on the machine that compiles it and goes nowhere else. There
is no -ffast-math, so the compiler keeps the order of the sums as the loops have it, as it does in pylrp.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FLAGS = ("-O3", "-march=native")


@lru_cache(maxsize=1)
def load() -> Any:
    """Return the compiled module; compile it first where it is missing or older than its source."""
    source = HERE / "question_loops.pyx"
    target = HERE / "build" / f"question_loops{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(exist_ok=True)
        c_file = target.with_name("question_loops.c")
        compiler = shlex.split(os.environ.get("CC", "cc"))
        include = f"-I{sysconfig.get_path('include')}"
        _run([sys.executable, "-m", "cython", "-3", str(source), "-o", str(c_file)])
        _run([*compiler, *FLAGS, "-shared", "-fPIC", "-w", include, str(c_file), "-o", str(target)])
    spec = importlib.util.spec_from_file_location("question_loops", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}")
