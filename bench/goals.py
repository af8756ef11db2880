"""The figures pylrp sets itself and the ceilings that bound them; ``run.py`` prints what is reached.

An explanation cannot be faster than its needed multiply-adds at the machine's peak, nor than one read of
its needed weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from timing import QUIET

Row = dict[str, Any]
Ceilings = dict[str, dict[str, float]]


def shares(case: Row, row: Row, ceilings: Ceilings) -> dict[str, float]:
    """Return what share of each ceiling one of pylrp's rows reaches, counting needed work only."""
    if row["name"] != "pylrp" or row["obstacle"]:
        return {}
    limits = ceilings.get(str(row["threads"]), {})
    found = {}
    if "fma_peak" in limits:
        peak = limits["fma_peak"] / (2 if case["dtype"] == "float64" else 1)
        found["FMA peak"] = case["flops"] / row["median"] / 1e9 / peak
    if "read_bandwidth" in limits:
        found["bandwidth"] = case["bytes"] / row["median"] / 1e9 / limits["read_bandwidth"]
    return found


@dataclass(frozen=True)
class Goal:
    """A wanted figure: times as fast as somebody, or a share of a ceiling."""

    case: str
    against: str  # a competitor's name or a ceiling's
    wanted: float
    name: str = "pylrp"
    their_case: str = ""  # where it is not the same

    def reached(self, cases: Sequence[Row], ceilings: Ceilings) -> float | None:
        """Return the measured figure, or None where it was not measured."""
        named = {case["name"]: case for case in cases}
        case = named.get(self.case)
        ours = _row(case, self.name)
        if case is None or ours is None:
            return None
        theirs = _row(named.get(self.their_case or self.case), self.against)
        if theirs is not None:
            return float(theirs["median"] / ours["median"])
        return shares(case, ours, ceilings).get(self.against)


def _row(case: Row | None, name: str, threads: int | None = None) -> Row | None:
    rows: list[Row] = case["rows"] if case else []
    for row in rows:
        if row["name"] == name and not row["obstacle"] and threads in (None, row["threads"]):
            return row
    return None


SQUARE, VGG = "4096-4096-4096-1000", "25088-4096-4096-1000"
GOALS = (
    Goal(f"{SQUARE} b256", "zennit", 4),
    Goal(f"{SQUARE} b256", "captum", 3),
    Goal(f"{SQUARE} b256", "torch by hand", 1.6),
    Goal(f"{SQUARE} b256", "FMA peak", 0.85),
    Goal(f"{VGG} b1", "torch forward", 1),
    Goal(f"{VGG} b1", "zennit", 15),
    Goal(f"{VGG} b1", "captum", 15),
    Goal(f"{VGG} b1", "torch by hand", 15),
    Goal(f"{VGG} b1", "NumPy by hand", 15),
    Goal(f"{VGG} b1", "bandwidth", 0.85),
    Goal(f"{VGG} b32", "zennit", 5),
    Goal(f"{VGG} b32", "torch by hand", 4),
    Goal("784-300-10 b1", "zennit", 60),
    Goal("784-300-10 b1", "zennit", 60, name="pylrp explain"),
    Goal("784-1000-1000-10 b1024", "zennit", 4),
    Goal("784-1000-1000-10 b1024", "torch by hand", 1.5),
    *(Goal(f"{rule} 4096-4096 b256", "FMA peak", 0.8) for rule in ("epsilon", "gamma", "alpha2-beta1", "z-box")),
    Goal(f"{SQUARE} b256 float64", "pylrp", 0.5, their_case=f"{SQUARE} b256"),  # half the speed of float32
)


def print_goals(cases: Sequence[Row], ceilings: Ceilings) -> None:
    """Print every goal that this run can judge, then how pylrp and the machine scale with threads."""
    lines = [(goal, reached) for goal in GOALS if (reached := goal.reached(cases, ceilings)) is not None]
    others = {case["name"]: case["others"] for case in cases}
    if lines:
        print("\nGoals (times as fast as, or share of)")
    for goal, reached in lines:
        verdict = "reached" if reached >= goal.wanted else "MISSED"
        if others[goal.case] > QUIET:
            verdict = "not judged, the machine was busy"
        print(f"  {goal.case:<34} {goal.name:<14} {goal.against:<14} ", end="")
        print(f"wanted {goal.wanted:5.2f}  got {reached:6.2f}  {verdict}")
    threads = next((case for case in cases if case["group"] == "threads"), None)
    one, two = _row(threads, "pylrp", 1), _row(threads, "pylrp", 2)
    if one and two and "fma_peak" in ceilings.get("2", {}):
        machine = ceilings["2"]["fma_peak"] / ceilings["1"]["fma_peak"]
        ours = one["median"] / two["median"]
        print(f"  2 threads instead of 1: pylrp {ours:.2f} times as fast (wanted 1.80), FMA peak {machine:.2f}")
