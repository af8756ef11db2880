"""One-line errors, and a progress bar for long work, with its rate and the time left.

The bar is drawn by rich (extra ``cli``) on stderr, only on a terminal; without rich the work goes on without it.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from pylrp.inputs import Option, OptionError
from pylrp.present.text import shown

__all__ = ["Progress", "deferred_sigint", "one_line", "print_error"]

#: Flags that are called otherwise than their parameters.
_FLAGS = {"label": "--label-column"}
_LONG = 2.0  # seconds; shorter work needs no bar


def print_error(what: object, *, kind: str = "error: ") -> None:
    """Print one line on stderr: an error, or what ``kind`` calls it."""
    print(f"pylrp: {kind}{one_line(what)}", file=sys.stderr, flush=True)


def one_line(what: object) -> str:
    """Return an error in one line."""
    if isinstance(what, OSError) and what.filename:
        text = f"{what.filename}: {what.strerror}"
    elif isinstance(what, OptionError):
        text = what.worded(flag)
    elif isinstance(what, MemoryError):
        text = f"not enough memory: {what}" if str(what) else "not enough memory"
    else:
        text = str(what) or type(what).__name__
    return shown(" ".join(text.split()))


def flag(option: Option) -> str:
    """Return a parameter of ``pylrp.inputs`` as it is typed: ``--size 28x28``, ``--stretch``."""
    name = _FLAGS.get(option.name, f"--{option.name.replace('_', '-')}")
    value = option.value
    if value is None or value is True:
        return name
    return f"{name} {'x'.join(map(str, value)) if isinstance(value, tuple) else value}"


@contextmanager
def deferred_sigint() -> Iterator[None]:
    """Defer SIGINT (Ctrl-C) until the block has ended, so that all outputs have the same samples."""
    if threading.current_thread() is not threading.main_thread():  # signals are delivered to that one alone
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


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
        self._began = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._may = not quiet and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, steps: int = 1) -> None:
        """Count work as done."""
        self.reach(self._done + steps, self._total)

    def reach(self, done: int, total: int) -> None:
        """Say how much is done, and of how much."""
        self._done, self._total = done, total
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif self._may and 0 < self._done < self._total:
            spent = time.monotonic() - self._began
            if spent * self._total / self._done > _LONG:
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

        began = self._began

        class Rate(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(f"{task.completed / max(time.monotonic() - began, 1e-9):.3g}/s")

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
