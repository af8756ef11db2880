"""The command line: ``pylrp demo``, ``pylrp info``. Parses, calls the library, turns errors into one line.

A subcommand is one function that takes the parsed arguments and returns what to print, and one block in ``_parser``.
Exit status: 0 all went well, 1 the command failed (one line on stderr says why), 2 the command line was not understood.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pylrp

__all__ = ["main"]

_PICTURES = (".png", ".pdf", ".svg")


def _demo(args: argparse.Namespace) -> str:
    from pylrp import demo

    explained = demo.explain(args.digits)
    # The picture first: who can't have it should not have to look for the reason below a long table.
    demo.picture(explained).savefig(args.output)
    return f"{demo.table(explained)}\n\nThe heatmaps are in {args.output.resolve()}"


def _info(args: argparse.Namespace) -> str:
    entries = pylrp.info()
    width = max(map(len, entries))
    return "\n".join(
        f"{key:<{width}}  {', '.join(value) if isinstance(value, (list, tuple)) else value}"
        for key, value in entries.items()
    )


def _picture_path(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        raise argparse.ArgumentTypeError(f"'{text}' must end in {', '.join(_PICTURES[:-1])} or {_PICTURES[-1]}")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pylrp",
        description="Layer-wise relevance propagation: which inputs made a trained network say what it says.",
        epilog="Start with `pylrp demo`. In Python: pylrp.relevance(W_list, acts, out), see help(pylrp.relevance).",
    )
    parser.add_argument("--version", action="version", version=f"pylrp {pylrp.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="explain bundled MNIST digits: a picture of heatmaps and a table",
        description="Explain bundled MNIST digits with a bundled network, 784-300-10, by five rules. Writes a picture, "
        "one row a digit and one column a rule, and prints how much relevance went in, came out, and was absorbed, "
        "by which layer and why.",
        epilog='Needs matplotlib: pip install "pylrp[plot]". Example: pylrp demo --digits 20 -o heatmaps.pdf',
    )
    demo.add_argument(
        "-o",
        "--output",
        type=_picture_path,
        default=Path("pylrp-demo.png"),
        metavar="FILE",
        help=f"the picture, {' '.join(_PICTURES)} (default: pylrp-demo.png, here)",
    )
    demo.add_argument(
        "--digits", type=int, default=10, metavar="N", help="how many digits, 1 to 100 (default: 10, one of each class)"
    )
    demo.set_defaults(run=_demo)

    info = commands.add_parser(
        "info",
        help="versions, compiler, threads and instruction sets",
        description="Print what was built and what runs here: put it into bug reports. Settings from the environment: "
        "OMP_NUM_THREADS (threads), PYLRP_ISA (instruction set, for comparisons).",
    )
    info.set_defaults(run=_info)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv`` by default) and return the exit status.

    Examples
    --------
    >>> from pylrp.cli import main
    >>> main(["info"])  # doctest: +ELLIPSIS
    pylrp ...
    0
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if not hasattr(args, "run"):
        parser.print_help(sys.stderr)
        return 2
    try:
        print(args.run(args), flush=True)
    except BrokenPipeError:
        # The reader has left, as in `pylrp demo | head`; keep Python from flushing once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("pylrp: interrupted", file=sys.stderr)
        return 130
    except (ImportError, OSError, ValueError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        print(f"pylrp: error: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
