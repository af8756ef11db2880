"""``pylrp evaluate``: are the heatmaps faithful? ``pylrp.evaluate`` measures, the tables are printed here."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pylrp.cli import options
from pylrp.cli.arguments import EvaluateArguments
from pylrp.cli.progress import Progress, print_error
from pylrp.cli.results import atomically, free_path
from pylrp.cli.session import Session, bounded, open_session, rules_for
from pylrp.inputs import Entry, Item
from pylrp.network.classes import as_indices
from pylrp.present.names import numbered_class_name
from pylrp.present.text import shown

if TYPE_CHECKING:
    from pylrp.evaluate import Evaluation

__all__ = ["add"]

_CHECKS = ("flipping", "insertion", "sensitivity", "randomisation", "agreement")

_EPILOG = """\
examples:
  pylrp evaluate model.onnx photos/
      which of the usual composites marks what the network needs? a table
  pylrp evaluate model.onnx photos/ --composites epsilon,epsilon_plus_flat -o curves.png -o numbers.npz
  pylrp evaluate model.onnx photos/ --checks flipping --steps 50 --patch 16
      only pixel flipping, faster
  pylrp evaluate table.pylrp.npz patients.csv --label-column diagnosis
      explain the true class of each row, and say how many are predicted right

Read the table from the top: the best composite by ABPC, the area between the curves of flipping the least relevant
and the most relevant first. 0 is no better than chance.
"""


def add(commands: options.Commands) -> None:
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "evaluate",
        help="are the heatmaps faithful? pixel flipping and other checks, as table and curves",
        description="Measure heatmaps: change the pixels that they call relevant, and see what the network does. "
        "flipping: most and least relevant first, against random order. insertion: bring them back. sensitivity: "
        "noise in the input. randomisation: a map must change when the network's weights are shuffled. agreement: "
        "of the composites' rankings. Some 20 inputs are little, 100 are good.",
        epilog=_EPILOG,
        usage="pylrp evaluate MODEL INPUT [INPUT ...] [-o OUT] [--composites A,B] [options]",
        formatter_class=options.Formatter,
    )
    options.add_inputs(parser)
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        type=_output,
        metavar="OUT",
        help="curves as .png .pdf .svg, or all numbers as .npz; may be given again (default: the table alone)",
    )
    parser.add_argument("--composites", type=options.names, metavar="A,B", help=options.COMPOSITES_HELP)
    group = parser.add_argument_group("checks")
    group.add_argument(
        "--checks", type=options.names, default=_CHECKS, metavar="A,B", help=f"of {', '.join(_CHECKS)} (default: all)"
    )
    group.add_argument("--steps", type=options.count, default=100, metavar="N", help="of flipping (default: 100)")
    group.add_argument("--patch", type=options.count, metavar="N", help="pixels along a square (default: a 28th)")
    group.add_argument(
        "--replacement",
        choices=("mean", "blur", "inpaint"),
        default="mean",
        help="what pixels are changed into (default: mean)",
    )
    group.add_argument(
        "--score", choices=("logit", "probability"), default="logit", help="what is watched (default: logit)"
    )
    group.add_argument("--repeats", type=options.count, default=3, metavar="N", help="random orders (default: 3)")
    group.add_argument("--draws", type=options.count, default=10, metavar="N", help="of noise (default: 10)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is random (default: 0)")
    target = parser.add_argument_group("what to explain")
    target.add_argument("--target", metavar="CLASS", help="one class for all (default: the top class of each)")
    target.add_argument(
        "--labels-true",
        metavar="FILE",
        help="explain the true classes: a class for each input in their order, one a line, numbers or names",
    )
    options.add_classes(parser)
    options.add_rules(parser, composite=False)
    options.add_images(parser)
    options.add_tables(parser)
    options.add_network(parser)
    options.add_running(parser)
    parser.set_defaults(run=_run)


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in (*options.PICTURES, ".npz"):
        raise argparse.ArgumentTypeError(f"'{text}' must end in {', '.join(options.PICTURES)} or .npz")
    return path


def _run(namespace: argparse.Namespace) -> int:
    from pylrp.evaluate import evaluate

    args = EvaluateArguments.read(namespace)
    session = open_session(args)
    for path in args.output:
        _require_place(path, args, session)
    chosen = options.composites_for(args.composites, session.network, bounds=bounded(args, session.plan))
    rules = {name: rules_for(args, session.network, session.plan, name) for name in chosen}
    truths = _truths(args, session)
    read = [pair for _, batch in session.batches() for pair in batch]
    if not read:
        return 1
    target = _target(args, session, read, truths)
    x = session.stack([item for _, item in read])
    if not args.quiet:
        _print_inputs(session, x, target, len(read))
    layout = None
    if session.plan is not None and session.plan.layout == "N":
        layout = (1, session.plan.height, session.plan.width)
    done: list[Evaluation] = []
    interrupted = False
    try:
        with Progress("evaluating", 1, quiet=args.quiet) as bar:
            evaluate(
                session.network,
                x,
                rules,
                target=target,
                checks=args.checks,
                steps=args.steps,
                patch=args.patch,
                replacement=args.replacement,
                score=args.score,
                repeats=args.repeats,
                draws=args.draws,
                layout=layout,
                seed=args.seed,
                progress=bar.reach,
                finished=done.append,
            )
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = True
    found = done[-1]
    if not args.quiet:
        print(f"\n{found.table()}")
    for path in args.output:
        atomically(path, found.save if path.suffix.lower() == ".npz" else found.plot)
        if not args.quiet:
            print(f"wrote {shown(str(path))}")
    if interrupted:
        kept = f"; kept: {', '.join(map(str, args.output))}" if args.output else ""
        print_error(f"interrupted: {len(found.composites)} of {len(rules)} composites are evaluated{kept}", kind="")
        return 130
    return 1 if session.failed else 0


def _require_place(path: Path, args: EvaluateArguments, session: Session) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"-o {path}: there is no folder {path.parent}")
    free_path(path, {Path(args.model).resolve(), *(entry.path.resolve() for entry in session.entries)})
    if path.suffix.lower() != ".npz":
        from pylrp.plot import new_figure

        new_figure(1, 1)  # without matplotlib it fails now, not after the work


def _truths(args: EvaluateArguments, session: Session) -> dict[int, str] | None:
    """Return the true class of each entry, as it is written in --labels-true, by the entry's id."""
    if args.labels_true is None:
        return None
    if args.target is not None:
        raise ValueError("give --target or --labels-true, not both")
    try:
        lines = Path(args.labels_true).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise ValueError(f"--labels-true {args.labels_true}: it is no text") from None
    found = [line.strip() for line in lines if line.strip()]
    if len(found) != len(session.entries):
        raise ValueError(
            f"--labels-true {args.labels_true}: it has {len(found)} classes, there are {len(session.entries)} inputs"
        )
    return {id(entry): text for entry, text in zip(session.entries, found, strict=True)}


def _target(
    args: EvaluateArguments, session: Session, read: Sequence[tuple[Entry, Item]], truths: dict[int, str] | None
) -> Any:
    """Return the class to explain: one, one a sample, or None for the top classes."""
    if args.target is not None:
        return session.class_number(args.target, "--target")
    if session.classes == 1:  # there is nothing to choose
        return None
    if truths is not None:
        return as_indices([session.class_number(truths[id(entry)], "--labels-true") for entry, _ in read])
    if args.table.label is not None and all(item.truth is not None for _, item in read):
        return as_indices([session.class_number(str(item.truth), "--label-column") for _, item in read])
    return None


def _print_inputs(session: Session, x: Any, target: Any, count: int) -> None:
    if session.plan is not None:
        print(session.plan.describe())
    if isinstance(target, int):
        what = f"class {numbered_class_name(target, session.labels)}"
    else:
        what = "the top class of each" if session.classes > 1 else "the output"
        if session.meaning.two:
            what = f"class {numbered_class_name(1, session.labels)}"
        what = what if target is None else "the true class of each"
    print(f"{count} {'input' if count == 1 else 'inputs'}; explained: {what}")
    if isinstance(target, np.ndarray):
        output = session.meaning.scores(session.network.forward(x))
        right = int((np.argmax(output, axis=1) == target).sum())
        print(f"{right} of {count} are predicted right")
