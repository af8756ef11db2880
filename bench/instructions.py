"""How many instructions the compiled core executes for small fixed pieces of work: a guard against regressions.

Wall time is noise on a shared machine, a count of instructions is not. ``tests/cpp/workload.cpp`` is built with the
flags of the library and run under valgrind's callgrind, once for each piece of work and instruction set that valgrind
can simulate (it does not know AVX-512). The counts are compared with ``instructions.json``: more than a few per cent
above the limit fails. Limits hold for one compiler; with another one the counts are printed and nothing is compared.
With any compiler twice the steps of a recurrent layer must take at most twice the instructions, but for the tolerance.

    python bench/instructions.py             compare
    python bench/instructions.py --update    make the counts of this run the limits of this compiler
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMITS = ROOT / "bench" / "instructions.json"
TOLERANCE = 0.03  # the C library's part (memory, clearing) differs a little between machines

#: Pieces of work, the second of which has twice the steps of the first.
DOUBLED = [("LSTM 64 to 128, explained, 50 steps", "LSTM 64 to 128, explained, 100 steps")]

Counts = dict[str, dict[str, int]]  # instruction set -> piece of work -> instructions


def output(*command: str | Path, **environment: str) -> str:
    """Return what a program prints; stop with its words where it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    except OSError as error:
        raise SystemExit(f"{words[0]}: {error.strerror}") from None
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def build(folder: Path) -> Path:
    """Build the program in a folder and return its path."""
    cmake = shutil.which("cmake", path=str(Path(sys.executable).parent)) or "cmake"
    if not (folder / "CMakeCache.txt").exists():
        output(cmake, "-S", ROOT, "-B", folder, "-DPYLRP_BINDINGS=OFF", "-DPYLRP_CORE_TESTS=ON")
    output(cmake, "--build", folder, "--target", "workload", "--parallel", "2")
    return folder / "tests" / "cpp" / "workload"


def count(program: Path, isa: str, work: str) -> int:
    """Return the instructions executed between entry and return of ``measured()``."""
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        options = ["--tool=callgrind", "--toggle-collect=measured*", f"--callgrind-out-file={profile}"]
        output("valgrind", *options, program, work, PYLRP_ISA=isa, OMP_NUM_THREADS="1")
        found = re.search(r"^(?:totals|summary): (\d+)", profile.read_text(), re.MULTILINE)
    if not found or int(found[1]) == 0:
        raise SystemExit(f"callgrind did not see measured() of {program}")
    return int(found[1])


def compare(counts: Counts, limits: Counts) -> bool:
    """Print counts beside limits; return whether all are within them."""
    good = True
    for isa, works in counts.items():
        for work, instructions in works.items():
            limit = limits.get(isa, {}).get(work)
            remark = "no limit"
            if limit is not None:
                change = instructions / limit - 1
                remark = f"{change:+8.2%} of {limit:13,}"
                if change > TOLERANCE:
                    good = False
                    remark += "  TOO MANY"
                elif change < -TOLERANCE:
                    remark += "  fewer: --update lowers the limit"
            print(f"{isa:9} {work:40} {instructions:13,}  {remark}")
        for work in sorted(limits.get(isa, {}).keys() - works.keys()):
            good = False
            print(f"{isa:9} {work:40} is gone, but has a limit: --update removes it")
    return good


def doubled(counts: Counts) -> bool:
    """Print what twice the steps take; return whether that is at most twice as much, but for the tolerance."""
    good = True
    for isa, works in counts.items():
        for one, two in DOUBLED:
            grown = works[two] / works[one]
            allowed = grown <= 2 * (1 + TOLERANCE)
            good = good and allowed
            print(f"{isa:9} {two}: {grown:.3f} x those of half the steps{'' if allowed else ', more than twice'}")
    return good


def main() -> int:
    """Build, count, compare; the result is the program's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--update", action="store_true", help="make these counts the limits of this compiler")
    parser.add_argument("--build", type=Path, help="build folder with the C++ tests, kept (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = build(arguments.build or Path(folder))
        compiler, isas, *works = output(program).splitlines()
        pieces = [(isa, work) for isa in isas.split() if isa != "avx512" for work in works]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # counts do not depend on what else runs
            found = list(pool.map(lambda piece: count(program, *piece), pieces))
    counts: Counts = {}
    for (isa, work), instructions in zip(pieces, found, strict=True):
        counts.setdefault(isa, {})[work] = instructions
    limits: dict[str, Counts] = json.loads(LIMITS.read_text()) if LIMITS.exists() else {}
    if arguments.update:
        limits[compiler] = counts
        LIMITS.write_text(json.dumps(limits, indent=2, sort_keys=True) + "\n")
        print(f"{LIMITS.name}: limits for {compiler}")
    good = compare(counts, limits.get(compiler, {}))
    good = doubled(counts) and good
    if compiler not in limits:
        print(f"instructions: no limits for {compiler}, only for {', '.join(limits) or 'none'}: nothing was compared")
    else:
        print(f"instructions: {'within' if good else 'NOT within'} the limits for {compiler}, {TOLERANCE:.0%} allowed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
