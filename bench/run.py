"""The benchmark: check every result, time everybody side by side, print the ratios, write JSON.

    python bench/run.py                 all cases
    python bench/run.py --quick         three cases, less than a minute
    python bench/run.py --case z-box    the cases whose name contains this
    python bench/run.py --sweep         also speed against batch size, for the plot (--case sweep: only that)

Ratios say how many times as long as pylrp somebody takes (without pylrp: as the fastest). What is not
installed is named. ``cases.py`` says what is measured, ``peers.py`` against whom, ``report.py`` makes the
the page's tables and the plot of the JSON.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import by_hand
import goals
import machine
import peers
from cases import CASES, QUICK, SWEEP, TOLERANCE, Case, Problem
from timing import QUIET, Entrant, alternate, wait_for_quiet

Row = dict[str, Any]
SWEEP_NAMES = ("pylrp", "NumPy by hand", "torch by hand", "torch forward", "zennit", "captum")
THREADS_NAMES = ("pylrp", "torch by hand")


class WrongResultError(Exception):
    """A competitor, or pylrp, does not compute what it says."""


def checked(competitor: peers.Competitor, problem: Problem, threads: int, tolerance: float) -> tuple[peers.Call, float]:
    """Prepare a competitor, compare its result with the reference, return the call and its error."""
    call = competitor.prepare(problem, threads)
    error = by_hand.relative_error(call(), problem.expected(competitor.computes))
    if not error <= tolerance:  # so that NaN fails
        raise WrongResultError(
            f"{competitor.name}: {competitor.computes} off by {error:.1e}, allowed are {tolerance:.0e}"
        )
    return call, error


def measure(case: Case, threads: int, min_rounds: int, budget: float) -> Row:
    """Check and time everybody on one case."""
    problem = case.problem()
    rows: list[Row] = []
    entrants: list[tuple[Row, Entrant]] = []
    chosen = {"threads": THREADS_NAMES, "sweep": SWEEP_NAMES}.get(case.group)
    for competitor in peers.COMPETITORS:
        if chosen and competitor.name not in chosen:
            continue
        for n in case.threads or (threads,):
            row: Row = {"name": competitor.name, "threads": n, "computes": competitor.computes}
            rows.append(row)
            row["obstacle"] = competitor.obstacle(problem)
            if not row["obstacle"]:
                prepare_threads = partial(peers.use_threads, n)
                prepare_threads()
                call, row["error"] = checked(competitor, problem, n, TOLERANCE[case.dtype])
                entrants.append((row, Entrant(call, prepare_threads)))
    others = alternate([entrant for _, entrant in entrants], min_rounds, budget)
    for row, entrant in entrants:
        row.update(entrant.summary())
    return {
        "name": case.name,
        "group": case.group,
        "widths": list(case.widths),
        "batch": case.batch,
        "dtype": case.dtype,
        "rules": list(problem.rules),
        "flops": problem.flops,
        "bytes": problem.bytes,
        "others": others,  # cores that other programs kept busy
        "rows": rows,
    }


def print_case(case: Row, ceilings: dict[str, dict[str, float]]) -> None:
    """Print a case's table: times, ratios and what share of the ceilings the needed work makes."""
    print(f"\n{case['name']}: {' '.join(case['rules'])}, {case['flops'] / 1e9:.3g} GFLOP and ", end="")
    print(f"{case['bytes'] / 1e6:.3g} MB needed")
    if case["others"] > QUIET:
        print(f"  CAREFUL: other programs kept {case['others']:.2f} cores busy meanwhile")
    timed = [row for row in case["rows"] if not row["obstacle"]]
    base = next((row for row in timed if row["name"] == "pylrp"), None)
    base = base or min(timed, key=lambda row: float(row["median"]))
    for row in case["rows"]:
        label = row["name"] + (f", {row['threads']} threads" if case["group"] == "threads" else "")
        if row["obstacle"]:
            print(f"  {label:<26} {row['obstacle']}")
            continue
        spread = (row["upper_quartile"] - row["lower_quartile"]) / row["median"]
        print(f"  {label:<26} {row['median'] * 1e3:10.3f} ms {row['median'] / base['median']:8.2f} x", end="")
        print(f"   +-{spread / 2:4.0%}  error {row['error']:.0e}", end="")
        if shares := goals.shares(case, row, ceilings):
            binding = max(shares, key=lambda ceiling: shares[ceiling])
            print(f"  {shares[binding]:.0%} of the {binding}", end="")
        print("" if row["computes"] == "relevance" else f"  ({row['computes']})")


def select(names: Sequence[str], quick: bool, sweep: bool) -> list[Case]:
    """Return the cases asked for."""
    cases = list(QUICK if quick else CASES) + list(SWEEP if sweep else ())
    return [case for case in cases if not names or any(name in case.name for name in names)]


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 1 if somebody's result is wrong."""
    parser = argparse.ArgumentParser(description="pylrp against other ways to compute relevance, side by side")
    parser.add_argument("--quick", action="store_true", help="three cases, little time")
    parser.add_argument(
        "--case", action="append", default=[], metavar="TEXT", help="only cases with this in their name"
    )
    parser.add_argument("--sweep", action="store_true", help="also batch sizes from 1 to 4096")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="for everybody (default: 2)")
    parser.add_argument(
        "--output",
        type=Path,
        help="JSON file (default: bench/results/<date>-<cpu>.json; with --quick or --case bench/build/partial.json)",
    )
    options = parser.parse_args(arguments)

    by_hand.check_reference()
    peers.use_threads(options.threads)
    facts = machine.describe(options.threads)
    print(f"{facts['cpu']}, {facts['isa']}, {options.threads} threads, {facts['compiler']}")
    print(", ".join(f"{name} {version}" for name, version in facts["versions"].items()))

    output = options.output or default_output(facts["cpu"], partial=bool(options.quick or options.case))
    output.parent.mkdir(parents=True, exist_ok=True)
    results: list[Row] = []
    sweep = options.sweep or "sweep" in options.case
    for case in select(options.case, options.quick, sweep):
        if case.threads and max(case.threads) > (os.cpu_count() or 1):
            continue
        wait_for_quiet(4.0 if options.quick else 20.0)
        machine.raise_ceilings(facts)
        rounds, budget = (5, 3.0) if case.group != "sweep" else (3 if case.batch < 1024 else 2, 1.0)
        try:
            results.append(measure(case, options.threads, rounds, 1.0 if options.quick else budget))
        except WrongResultError as wrong:
            print(f"\n{case.name}: {wrong}", file=sys.stderr)
            return 1
        print_case(results[-1], facts["ceilings"])
        document = {"date": datetime.date.today().isoformat(), "machine": facts, "cases": results}
        output.write_text(json.dumps(document, indent=1) + "\n")
    for threads, best in facts["ceilings"].items():
        print(f"\nCeilings of {threads} threads: " + ", ".join(f"{k} {v:.4g}" for k, v in best.items()), end="")
    goals.print_goals(results, facts["ceilings"])
    print(f"\nwritten: {output}")
    return 0


def default_output(cpu: str, partial: bool) -> Path:
    """Return where results go: full runs are kept, partial ones must not replace them."""
    if partial:
        return Path(__file__).parent / "build" / "partial.json"
    slug = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    return Path(__file__).parent / "results" / f"{datetime.date.today().isoformat()}-{slug}.json"


if __name__ == "__main__":
    sys.exit(main())
