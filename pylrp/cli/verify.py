"""``pylrp verify``: is the explanation right? The model's file is evaluated anew and compared, layer by layer."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from pylrp.cli import options, texts
from pylrp.cli.arguments import VerifyArguments
from pylrp.cli.progress import print_error
from pylrp.cli.session import open_session, rules_for
from pylrp.network.network import Network
from pylrp.rules.composites import Composite

if TYPE_CHECKING:  # its package imports onnx, which the other commands do without
    from pylrp.verify.verification import Verification

__all__ = ["add"]

_EPILOG = """\
examples:
  pylrp verify model.onnx cat.jpg
      prediction, values, relevance and ledger against the file itself; exit status 0 if all agree
  pylrp verify model.onnx photos/ --composite epsilon --batch 2
      the first two photos, with other rules
  pylrp verify model.keras cat.jpg --file exported.onnx
      a network from elsewhere against the ONNX file that was exported from it
  pylrp verify sentiment.onnx --text "A dull film with good actors."
      a network of text, by the tokenizer.json beside the model; files of lines (.txt, .jsonl) are INPUTs

Read the table from the top: what arrives at a layer (incoming), what it hands down (outgoing), from the bottom what it
computes (value); each as the largest difference, a share of the largest entry.
"""


def add(commands: options.Commands, *, of_text: bool = False) -> None:
    """Describe the command to argparse; ``of_text``: --text stands for inputs."""
    parser = commands.add_parser(
        "verify",
        help="is the explanation right? compared with the model's file, layer by layer",
        description="Compute the model's file anew, by formulas that share nothing with pylrp's layers, and compare: "
        "the prediction (with onnxruntime where it is installed), the value and the relevance of each layer, and the "
        "ledger. Names the first layer that differs. Exit status: 0 if all agree, 1 if not.",
        epilog=_EPILOG,
        usage="pylrp verify MODEL INPUT [INPUT ...] [--target CLASS] [--composite NAME] [options]",
        formatter_class=options.Formatter,
    )
    options.add_inputs(parser, needed=not of_text)
    target = parser.add_argument_group("what to explain")
    target.add_argument("--target", metavar="CLASS", help="one class for all (default: the top class of each)")
    target.add_argument(
        "--from", dest="top_name", metavar="NAME", help="begin at this output, or at any layer, see info"
    )
    options.add_classes(parser)
    options.add_rules(parser)
    options.add_images(parser)
    options.add_tables(parser)
    options.add_network(parser)
    group = options.add_running(parser)
    group.add_argument(
        "--file", metavar="FILE", help="the ONNX file to compare with, where MODEL is none (default: MODEL)"
    )
    group.add_argument(
        "--batch", type=options.count, default=4, metavar="N", help="how many inputs are compared (default: 4)"
    )
    group.add_argument(
        "--tolerance",
        type=_tolerance,
        metavar="X",
        help="what an error may be, as a share of the largest entry (default: 1e-4 for float32, 1e-9 for float64)",
    )
    texts.add(parser)
    parser.set_defaults(run=_run)


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return value


def _run(namespace: argparse.Namespace) -> int:
    args = VerifyArguments.read(namespace)
    if texts.are_asked_for(args):
        return _texts(args)
    session = open_session(args)
    rules = rules_for(args, session.network, session.plan)
    items = next((batch for _, batch in session.batches() if batch), [])
    if not items:
        return 1
    target = None if args.target is None else session.class_number(args.target, "--target")
    found = _verified(args, session.network, session.stack([item for _, item in items]), target, rules)
    plan = [] if session.plan is None else [session.plan.describe()]
    _tell(args, found, rules, plan, [entry.name for entry, _ in items], len(session.entries))
    return 0 if found and not session.failed else 1


def _texts(args: VerifyArguments) -> int:
    given = texts.Texts(args)
    samples = given.samples(args.batch)
    if not samples:
        return 1
    given.print_notes()
    x = [sample.x for sample in samples]
    # One text as it is; several may differ in length, which lists may.
    target = given.target(samples)
    one = len(x) == 1
    found = _verified(args, given.network, x[0] if one else x, target[0] if one and target else target, given.rules)
    _tell(args, found, given.rules, [], [sample.given.name for sample in samples], len(given.given))
    return 0 if found and not given.failed else 1


def _verified(args: VerifyArguments, network: Network, x: Any, target: Any, rules: Composite) -> Verification:
    return network.verify(
        x, args.file, target=target, composite=rules, output=args.top_name, tolerance=args.tolerance
    )  # fmt: skip


def _tell(
    args: VerifyArguments, found: Verification, rules: Composite, more: list[str], names: list[str], count: int
) -> None:
    """Print what was compared, of how many, and the table; of errors only where --quiet is given."""
    if args.quiet:
        if not found:
            print_error(found.verdict)
        return
    print(f"rules: {rules.name}", *more, sep="\n")
    print(f"{len(names)} of {count} inputs" if count > 1 else names[0], end="\n\n")
    print(found)
