"""Fair timing: everybody in one process, in turn, round after round; the median of the quiet rounds counts.

Quiet, because on a busy machine the ratios are wrong, not only the times: a second thread that has to wait for a
core costs a library with many short parallel regions a hundred times its own time. ``run.py`` hands over calls
whose results it has checked.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SAMPLE_SECONDS = 0.02  # a shorter call is repeated within a round until it takes as long as this
PAUSE_SECONDS = 0.03  # some thread pools, OpenBLAS's for one, keep their cores busy for a while after their work
# A virtual machine's cores come back from that pause at half their speed, for some 20 ms: the time of a call of 30 ms
# was seen to rise by half, and that of one of 300 ms hardly. So a call shorter than this is made once more, untimed,
# between the pause and the clock.
SHORT_SECONDS = 0.5
QUIET = 0.05  # cores that other programs may keep busy
PATIENCE = 2  # times the budget to wait for quiet rounds


class Bystanders:
    """How many cores other programs have kept busy since this object was made (Linux; elsewhere always 0)."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), self._busy_seconds()

    def cores(self) -> float:
        """Return the average since the start; what a hypervisor took away counts too."""
        then, busy = self._start
        return (self._busy_seconds() - busy) / (time.perf_counter() - then)

    @staticmethod
    def _busy_seconds() -> float:
        stat = Path("/proc/stat")
        if not stat.exists():
            return 0.0
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
        total = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return total - sum(os.times()[:4])


def wait_for_quiet(limit: float) -> None:
    """Wait until other programs leave the machine alone for a second, up to a limit."""
    deadline = time.perf_counter() + limit
    while time.perf_counter() < deadline:
        others = Bystanders()
        time.sleep(1)
        if others.cores() < QUIET:
            return


@dataclass
class Entrant:
    """Somebody who takes part, and the seconds a call took in each round."""

    call: Callable[[], object]
    before: Callable[[], None]  # untimed, before each sample: sets the number of threads
    seconds: list[float] = field(default_factory=list)
    number: int = 1
    short: bool = True

    def sample(self) -> float:
        """Return the seconds of a call, the mean of ``number`` calls in a row."""
        self.before()
        time.sleep(PAUSE_SECONDS)
        if self.short:
            self.call()
        start = time.perf_counter()
        for _ in range(self.number):
            self.call()
        return (time.perf_counter() - start) / self.number

    def calibrate(self) -> None:
        """Double the calls of a sample until they take long enough; the first ones are cold."""
        while (seconds := self.sample()) * self.number < SAMPLE_SECONDS:
            self.number *= 2
        self.short = seconds < SHORT_SECONDS

    def summary(self) -> dict[str, float]:
        """Median, quartiles and minimum in seconds."""
        low, median, high = np.percentile(self.seconds, [25, 50, 75])
        return {
            "median": float(median),
            "lower_quartile": float(low),
            "upper_quartile": float(high),
            "minimum": min(self.seconds),
            "rounds": len(self.seconds),
        }


def alternate(entrants: Sequence[Entrant], min_rounds: int, budget: float) -> float:
    """Run rounds A B C, A B C, ... for ``budget`` seconds and until at least ``min_rounds`` of them were quiet.

    Rounds that were not are dropped; if patience ends too early, the quietest ``min_rounds`` count. Returns the
    cores that other programs kept busy in the rounds that count, on average.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        for entrant in entrants:
            entrant.calibrate()
        rounds: list[tuple[float, list[float]]] = []
        start, quiet = time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < budget or quiet < min_rounds:
            if spent > PATIENCE * budget and len(rounds) >= min_rounds:
                break
            others = Bystanders()
            seconds = [entrant.sample() for entrant in entrants]
            rounds.append((others.cores(), seconds))
            quiet += rounds[-1][0] < QUIET
    finally:
        if collecting:
            gc.enable()
    rounds.sort()
    kept = rounds[: max(quiet, min_rounds)]
    for index, entrant in enumerate(entrants):
        entrant.seconds = [seconds[index] for _, seconds in kept]
    return float(np.mean([cores for cores, _ in kept]))
