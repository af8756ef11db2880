"""``pylrp explain --stream``: one source of any size into one file, to be gone on with; ``explain.py`` calls."""

from __future__ import annotations

import argparse
from typing import Any

from pylrp.cli.arguments import ExplainArguments
from pylrp.cli.labels import class_number, read_labels
from pylrp.cli.options import names
from pylrp.cli.progress import print_error
from pylrp.cli.session import open_network, rules_for
from pylrp.inputs import ImagePlan, Wanted
from pylrp.network.classes import ClassIndex, classes_of
from pylrp.network.network import Network
from pylrp.present.text import shown
from pylrp.stream import BadRecord, DifferentRun, StreamResult, explain

__all__ = ["add", "run"]

_ENDINGS = (".zarr", ".npy", ".parquet")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of streams."""
    group = parser.add_argument_group("streams", "Sources and results that may be larger than memory.")
    group.add_argument(
        "--stream",
        action="store_true",
        help="read one source (also .h5, .zarr, .parquet) a batch at a time and write -o OUT.zarr, .npy or .parquet; "
        "the same command goes on with what is there",
    )
    group.add_argument("--memory", metavar="SIZE", help="what batches on their way may take (default: 512MB)")
    group.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="a sample that can't be read or explained ends the run, or keeps its row as NaN (default: raise)",
    )
    group.add_argument("--fresh", action="store_true", help="begin anew, whatever is there")
    group.add_argument("--dataset", metavar="NAME", help="the array in an .h5 or .zarr with several")
    group.add_argument("--columns", type=names, metavar="A,B", help="the features in a .parquet, in order")


def run(args: ExplainArguments) -> int:
    """Stream, and return the exit status."""
    if len(args.output) != 1 or not args.output[0].endswith(_ENDINGS):
        raise ValueError(f"--stream writes one file: -o OUT{', -o OUT'.join(_ENDINGS)}")
    if args.layers or args.picture or args.overlay:
        raise ValueError("--stream writes arrays: leave --layers, --picture and --overlay out")
    network = open_network(args)
    try:
        result = _streamed(args, network)
    except BadRecord as error:  # the ways out are options here
        name = shown(error.name)
        raise ValueError(
            f"sample {error.index}, {name}: {error.reason}. --on-error skip keeps its row as NaN and goes on"
        ) from error
    except DifferentRun as error:
        raise ValueError(f"{error.told()}. --fresh begins anew") from error
    except KeyboardInterrupt:
        print_error("interrupted: the same command goes on where it was", kind="")
        return 130
    if not args.quiet:
        _tell(result)
    return 1 if result.skipped else 0


def _streamed(args: ExplainArguments, network: Network) -> StreamResult:
    top = args.top_name or network.graph.outputs[0]
    known = classes_of(network.graph, top)
    labels = known.names if args.labels is None else read_labels(args.labels, known.count)
    numbered = known.numbered or args.labels is not None

    def index(text: str | None, option: str) -> ClassIndex | None:
        return None if text is None else ClassIndex(class_number(text, labels, known.count, option, numbered=numbered))

    targets = None if args.targets is None else [index(text, "--targets") for text in args.targets]
    wanted = Wanted.of(network)
    files: dict[str, Any] = {
        "preparation": args.preparation,
        "table": args.table,
        "recursive": args.recursive,
    }
    plan = None
    if all(len(shape) > 1 for shape in wanted.shapes.values()) and len(wanted.shapes) == 1:
        try:
            plan = ImagePlan.of(wanted, args.preparation)
        except ValueError:  # no images: it is not asked for
            plan = None
    return explain(
        network,
        args.inputs[0] if len(args.inputs) == 1 else list(args.inputs),
        args.output[0],
        batch=args.batch,
        memory=args.memory,
        on_error=args.on_error,
        resume=not args.fresh,
        progress=not args.quiet,
        target=index(args.target, "--target"),
        targets=targets,
        against=index(args.against, "--against"),
        composite=rules_for(args, network, plan),
        start=args.start,
        output=args.top_name,
        convention=args.convention,
        precision=args.precision,
        dataset=args.dataset,
        columns=args.columns,
        **files,
    )


def _tell(result: StreamResult) -> None:
    for index, name, reason in result.skipped[:20]:
        print_error(f"sample {index}, {shown(name)}: {reason}")
    if len(result.skipped) > 20:
        print_error(f"and {len(result.skipped) - 20} more are skipped")
    print(f"rules: {result.run['composite']}")
    print(f"{result.count - len(result.skipped)} of {result.count} inputs explained")
    print(f"wrote {shown(str(result.path))}")
