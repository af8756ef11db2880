"""``pylrp explain``: relevance of inputs as pictures, arrays or a report, and a table of what was explained."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from pylrp.cli import options, stream, text, texts
from pylrp.cli.arguments import ExplainArguments
from pylrp.cli.progress import Progress, deferred_sigint, print_error
from pylrp.cli.request import ExplainRequest, explain_request
from pylrp.cli.results import ExplainedSample, Results, report_request, writers_for
from pylrp.cli.session import Session, open_session, rules_for
from pylrp.cli.table import Table
from pylrp.inputs import Entry, Item
from pylrp.network.explanation import Explanation
from pylrp.present.text import shown

__all__ = ["add"]

_EPILOG = """\
examples:
  pylrp explain model.onnx cat.jpg
      why the top class? writes cat-relevance.png here
  pylrp explain model.onnx photos/ -o out/ -o report.html --labels imagenet.txt
      every photo of a folder: a picture each, and one page with all of them
  pylrp explain model.onnx cat.jpg --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --resize 256
      a network of torchvision; one that wants (rgb - 127) / 128: --pixel-max 255 --mean 127 --std 128
  pylrp explain model.onnx cat.jpg --labels imagenet.txt --target tabby --against "Egyptian cat"
      why a tabby, and not an Egyptian cat?
  pylrp explain model.onnx cat.jpg --composite epsilon_gamma_box --rule "/blocks.0*=Epsilon(0.1)"
      rules of your choice
  pylrp explain table.pylrp.npz patients.csv --label-column diagnosis -o out.npz
      a row a sample; relevance, ledger and targets for NumPy
  pylrp explain model.onnx photos/ --stream -o maps.zarr
      more than fits into memory; killed and typed again it goes on where it was
  pylrp explain sentiment.onnx --text "A dull film with good actors." -o report.html
      which words? by the tokenizer.json beside the model; files of lines (.txt, .jsonl) are INPUTs
  pylrp explain gpt2.onnx --text "The capital of France is" --target=-1,Paris
      why this token at this position?
"""


def add(commands: options.Commands, *, of_text: bool = False) -> None:
    """Describe the command to argparse; ``of_text``: --text stands for inputs."""
    parser = commands.add_parser(
        "explain",
        help="why does the network predict this? pictures, arrays or an HTML report",
        description="Predict, and show which inputs are evidence for the prediction and which against it. Prints for "
        "each input the class, the output where relevance starts, what of it reaches the input, and what absorbed the "
        "rest.",
        epilog=_EPILOG,
        usage="pylrp explain MODEL INPUT [INPUT ...] [-o OUT] [--target CLASS] [--composite NAME] [options]",
        formatter_class=options.Formatter,
    )
    options.add_inputs(parser, needed=not of_text)
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        metavar="OUT",
        help="what to write, by its ending: .png .pdf .svg (one input), .npz (arrays), .html (report), or a folder "
        "for a picture of each input; may be given again. Default: NAME-relevance.png here; of several images a "
        "picture each in relevance/; of several rows or arrays relevance.npz",
    )
    parser.add_argument(
        "--picture",
        choices=("image", "signal", "table", "channels", "layers", "ledger"),
        help="which picture of an input is drawn (default: image, signal or bars of a table, by its shape)",
    )
    parser.add_argument(
        "--overlay",
        choices=("none", "grey", "edges", "fill", "line"),
        help="how the input itself is drawn: of images none, grey or edges, of signals none, fill or line",
    )
    options.add_target(parser)
    options.add_classes(parser, probability=True)
    options.add_rules(parser)
    options.add_convention(parser)
    options.add_precision(parser)
    options.add_images(parser)
    options.add_tables(parser)
    options.add_network(parser)
    group = options.add_running(parser)
    group.add_argument(
        "--batch", type=options.count, metavar="N", help="inputs at a time (default: 8; rows of numbers: 256)"
    )
    group.add_argument(
        "--layers", metavar="A,B|all", help="keep the relevance of these layers, too, in the .npz (default: none)"
    )
    group.add_argument("--top", type=options.count, default=3, metavar="N", help="classes in the report (default: 3)")
    texts.add(parser)
    stream.add(parser)
    parser.set_defaults(run=_run)


def _run(namespace: argparse.Namespace) -> int:
    args = ExplainArguments.read(namespace)
    if texts.are_asked_for(args):
        return text.run(args)
    if args.stream:
        return stream.run(args)
    session = open_session(args)
    request = _request(args, session)
    writers = writers_for(args, session, request)  # before any work: an output that can't be written is known now
    request = replace(request, report=report_request(args, session))
    table = Table(session, request.against, quiet=args.quiet)
    if not args.quiet:
        print(f"rules: {request.composite.name if request.composite else ''}")
        if session.plan is not None:
            print(session.plan.describe())
    results = Results(session, writers)
    try:
        with Progress("explaining", len(session.entries), quiet=args.quiet) as bar:
            for looked_at, read in session.batches():
                bar.advance(looked_at - len(read))
                for sample in _explained(session, read, request):
                    if sample is not None:
                        with deferred_sigint():
                            results.add(sample)
                            table.show(sample.entry, sample.item, sample.ex)
                    bar.advance()
    except KeyboardInterrupt:
        results.close()
        written = results.written()
        print_error(
            f"interrupted: {results.count} of {len(session.entries)} inputs are explained"
            + (f"; kept: {written}" if written else ""),
            kind="",
        )
        return 130
    results.close()
    session.print_notes(results.notes, quiet=args.quiet)
    if not args.quiet:
        if session.failed:
            print(f"{results.count} of {len(session.entries)} inputs explained")
        print(f"wrote {shown(results.written())}" if results.count else "nothing written")
    return 1 if session.failed else 0


def _request(args: ExplainArguments, session: Session) -> ExplainRequest:
    composite = rules_for(args, session.network, session.plan)
    layers: Literal["all"] | tuple[str, ...] | None = None
    if args.layers is not None:
        if not args.layers.strip(", "):
            raise ValueError("--layers is empty: give names of layers, or all")
        layers = "all" if args.layers == "all" else options.names(args.layers)
    elif args.picture == "layers":
        layers = "all"
    return replace(explain_request(args, session), composite=composite, layers=layers)


def _explained(
    session: Session, read: list[tuple[Entry, Item]], request: ExplainRequest
) -> Iterator[ExplainedSample | None]:
    """Yield each sample of a batch with its explanation, None for one that fails.

    Where the batch fails, each is tried alone to find out which one fails; if all do, the reason is no input.
    """
    if not read:
        return
    try:
        ex = request.explain(session.network, session.stack([item for _, item in read]))
    except ValueError as error:
        parts = [_alone(session, item, request) for _, item in read]
        if len(session.entries) > 1 and all(isinstance(part, ValueError) and str(part) == str(error) for part in parts):
            raise
    else:
        parts = [ex[i] for i in range(len(read))]
    for (entry, item), part in zip(read, parts, strict=True):
        if isinstance(part, ValueError):
            session.fail(entry, part)
            yield None
        else:
            yield ExplainedSample(entry, item, request.asked_for(part), part)


def _alone(session: Session, item: Item, request: ExplainRequest) -> Explanation | ValueError:
    try:
        return request.explain(session.network, session.stack([item]))[0]
    except ValueError as error:
        return error
