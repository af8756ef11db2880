"""One-line errors, and when Ctrl-C counts; the progress bar is that of ``pylrp.present``."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pylrp.inputs import Option, OptionError
from pylrp.present.progress import Progress
from pylrp.present.text import shown

__all__ = ["Progress", "deferred_sigint", "one_line", "print_error"]

#: Flags that are called otherwise than their parameters.
_FLAGS = {"label": "--label-column"}


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
