"""A progress bar for long work, with its rate and the time left, or a function of the caller's in its place.

The bar is drawn by rich (extra ``cli``) on stderr, only on a terminal; without rich the work goes on without it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

__all__ = ["Progress", "reporting"]

_LONG = 2.0  # seconds; shorter work needs no bar


@contextmanager
def reporting(
    progress: bool | Callable[[int, int], object], what: str, total: int | None
) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function to be told how much is done, and of how much: it draws a bar, calls the caller's, or neither.

    Parameters
    ----------
    progress : bool or callable
        A bar on a terminal; or what is called as ``progress(done, total)``, total 0 where it is not known.
    what : str
        In front of the bar.
    total : int or None
    """
    if callable(progress):
        told = progress
        yield lambda done, total: (told(done, total or 0), None)[1]
    elif progress:
        with Progress(what, total or 0) as bar:
            begun: list[int] = []

            def report(done: int, total: int | None) -> None:
                if not begun:
                    begun.append(done)
                    bar.skip(done)
                bar.reach(done, max(done, total or 0))

            yield report
    else:
        yield lambda done, total: None


class Progress:
    """A context that counts work done; shows a bar where the work takes longer than two seconds in all.

    Parameters
    ----------
    what : str
        In front of the bar.
    total : int
    quiet : bool
        Never show it.
    """

    def __init__(self, what: str, total: int, *, quiet: bool = False):
        self._what, self._total = what, total
        self._done = 0
        self._before = 0  # what an earlier process has done
        self._began = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._may = not quiet and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def skip(self, done: int) -> None:
        """Say what was done before, which does not count for the rate."""
        self._done = self._before = done

    def advance(self, steps: int = 1) -> None:
        """Count work as done."""
        self.reach(self._done + steps, self._total)

    def reach(self, done: int, total: int) -> None:
        """Say how much is done, and of how much."""
        self._done, self._total = done, total
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif self._may and self._before < self._done < self._total:
            spent = time.monotonic() - self._began
            if spent * (self._total - self._before) / (self._done - self._before) > _LONG:
                self._start()

    def _start(self) -> None:
        try:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                ProgressColumn,
                Task,
                TextColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar
            from rich.text import Text
        except ImportError:
            self._may = False
            return

        began, before = self._began, self._before

        class Rate(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(f"{(task.completed - before) / max(time.monotonic() - began, 1e-9):.3g}/s")

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        # On a terminal rich prints the table's lines above the bar; a table that goes into a file must not.
        self._bar = Bar(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty(), transient=True)
        self._bar.start()
        self._task = self._bar.add_task(self._what, total=self._total, completed=self._done)
