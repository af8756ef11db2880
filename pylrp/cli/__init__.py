"""The command line ``pylrp``: one file a command, ``options.py`` has what they share; an error becomes one line.

A command is a module with ``add(commands)``, which describes it to argparse, and a function that takes the parsed
arguments and returns the exit status. Exit status: 0 all went well, 1 something failed (one line on stderr says why),
2 the command line was not understood, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pylrp
from pylrp.cli import compare, demo, evaluate, explain, info, texts, verify
from pylrp.cli.options import Formatter, Parser
from pylrp.cli.progress import print_error

__all__ = ["main"]

_EPILOG = """\
examples:
  pylrp demo                                        see what it is, no model needed
  pylrp info model.onnx                             what is in a model, and which rule each layer gets
  pylrp explain model.onnx cat.jpg                  why this prediction? a picture
  pylrp explain model.onnx photos/ -o report.html   all photos of a folder, one page to look at
  pylrp evaluate model.onnx photos/                 are the heatmaps faithful?
  pylrp compare model.onnx cat.jpg                  what do other rules say?
  pylrp verify model.onnx cat.jpg                   is the explanation right?

`pylrp COMMAND --help` has more for each. In Python: help(pylrp.load), help(pylrp.relevance).
"""


def _parser(words: Sequence[str]) -> Parser:
    parser = Parser(
        prog="pylrp",
        description="Layer-wise relevance propagation: which inputs led a trained network to its prediction.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action="version", version=f"pylrp {pylrp.__version__}")
    commands: Any = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (demo, info, explain, evaluate, compare, verify):
        if command in (explain, verify):
            command.add(commands, of_text=texts.stand_for_inputs(words))
        else:
            command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv`` by default) and return the exit status.

    With PYLRP_DEBUG=1 in the environment an error keeps its traceback.

    Examples
    --------
    >>> from pylrp.cli import main
    >>> main(["info"])  # doctest: +ELLIPSIS
    pylrp ...
    0
    """
    parser = _parser(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal can't write must not lose the results
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    if not hasattr(args, "run"):
        parser.print_help(sys.stderr)
        return 2
    try:
        with warnings.catch_warnings(), _threads(getattr(args, "threads", None)):
            warnings.showwarning = _show_warning
            status: int = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The pipe is closed, as in `pylrp demo | head`: Python must not flush again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print_error("interrupted", kind="")
        return 130
    except (ImportError, OSError, ValueError, TypeError, MemoryError) as error:
        if os.environ.get("PYLRP_DEBUG"):
            raise
        print_error(error)
        return 1


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = pylrp.get_threads()
    pylrp.set_threads(count or before)
    try:
        yield
    finally:
        pylrp.set_threads(before)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    print_error(str(message), kind="warning: ")
