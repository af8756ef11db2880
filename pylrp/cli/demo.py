"""``pylrp demo``: the bundled digits; ``pylrp/demo.py`` does the work."""

from __future__ import annotations

import argparse
from pathlib import Path

from pylrp.cli.options import PICTURES, Commands, Formatter

__all__ = ["add"]

_EPILOG = """\
examples:
  pylrp demo                                writes pylrp-demo.png here
  pylrp demo --digits 20 -o heatmaps.pdf
  pylrp demo --each                         the account of every digit, too

Needs matplotlib: pip install matplotlib.
"""


def add(commands: Commands) -> None:
    """Describe the command to argparse."""
    demo = commands.add_parser(
        "demo",
        help="explain bundled MNIST digits: a picture of heatmaps and a table",
        description="Explain bundled MNIST digits with a bundled network, 784-300-10, by five rules. Writes a picture, "
        "one row a digit and one column a rule, and prints how much relevance went in, came out, and was absorbed, "
        "by which layer and why.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    demo.add_argument(
        "-o",
        "--output",
        type=_picture_path,
        default=Path("pylrp-demo.png"),
        metavar="FILE",
        help=f"the picture, {' '.join(PICTURES)} (default: pylrp-demo.png, here)",
    )
    demo.add_argument(
        "--digits", type=int, default=10, metavar="N", help="how many digits, 1 to 100 (default: 10, one of each class)"
    )
    demo.add_argument("--each", action="store_true", help="print the account of each digit instead of means")
    demo.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from pylrp import demo

    explained = demo.explain(args.digits)
    # The picture first: an error about it must not stand below a long table.
    demo.picture(explained).savefig(args.output)
    account = demo.table(explained) if args.each else demo.summary(explained)
    print(f"{account}\n\nThe heatmaps are in {args.output.resolve()}")
    return 0


def _picture_path(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(f"'{text}' must end in {', '.join(PICTURES[:-1])} or {PICTURES[-1]}")
    return path
