"""Fair timing: everybody in one process, in turn, round after round; the median of the rounds counts.

``run.py`` hands over calls whose results it has checked.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

SAMPLE_SECONDS = 0.005  # a shorter call is repeated within a round until it takes as long as this
PAUSE_SECONDS = 0.03  # some thread pools, OpenBLAS's for one, keep their cores busy for a while after their work


@dataclass
class Entrant:
    """Somebody who takes part, and the seconds a call took in each round."""

    call: Callable[[], object]
    before: Callable[[], None]  # untimed, before each round: sets the number of threads
    seconds: list[float] = field(default_factory=list)
    number: int = 1

    def calibrate(self) -> None:
        """Double the calls of a sample until they take long enough; the first ones are cold."""
        while True:
            self.round()
            if self.seconds.pop() * self.number >= SAMPLE_SECONDS:
                return
            self.number *= 2

    def round(self) -> None:
        """Time ``number`` calls in a row."""
        self.before()
        time.sleep(PAUSE_SECONDS)
        start = time.perf_counter()
        for _ in range(self.number):
            self.call()
        self.seconds.append((time.perf_counter() - start) / self.number)

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


def alternate(entrants: Sequence[Entrant], min_rounds: int, budget: float) -> None:
    """Run rounds A B C, A B C, ... at least ``min_rounds`` and then until ``budget`` seconds are spent.

    What comes before, to find the number of repetitions, does not count.
    """
    start = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for entrant in entrants:
            entrant.calibrate()
        rounds = 0
        while rounds < min_rounds or time.perf_counter() - start < budget:
            for entrant in entrants:
                entrant.round()
            rounds += 1
    finally:
        if collecting:
            gc.enable()
