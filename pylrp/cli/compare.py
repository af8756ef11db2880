"""``pylrp compare``: the same prediction by several composites, or under the conventions of several libraries."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp.cli import options
from pylrp.cli.arguments import CompareArguments
from pylrp.cli.pictures import drawable, require_picture
from pylrp.cli.progress import Progress, deferred_sigint, print_error
from pylrp.cli.request import ExplainRequest, explain_request
from pylrp.cli.results import atomically, free_path
from pylrp.cli.session import Session, bounded, open_session, rules_for
from pylrp.comparison import by_convention
from pylrp.network.explanation import Explanation
from pylrp.present.text import nearest
from pylrp.present.text import shown as readable
from pylrp.rules.conventions import CONVENTIONS

if TYPE_CHECKING:
    from pylrp.inputs import Entry, Item

__all__ = ["add", "maps_of"]

Array = NDArray[Any]

_EPILOG = """\
examples:
  pylrp compare model.onnx cat.jpg
      a picture with a heatmap by each of the usual composites, and how far they agree
  pylrp compare model.onnx photos/ --composites epsilon,epsilon_plus_flat,epsilon_gamma_box -o grid.png
  pylrp compare model.onnx cat.jpg --conventions
      the numerics of zennit, captum, ...: where, layer by layer, do their numbers part?

Agreement is no proof that maps are right: `pylrp evaluate` measures that.
"""


def add(commands: options.Commands) -> None:
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "compare",
        help="the same prediction by other rules, or under the conventions of other libraries",
        description="Explain the same predictions by several composites: a grid of pictures, and a table of how far "
        "their rankings of the pixels agree. Or under the conventions of several libraries: a table of how far their "
        "numbers lie apart, layer by layer.",
        epilog=_EPILOG,
        usage="pylrp compare MODEL INPUT [INPUT ...] [-o FILE] [--composites A,B | --conventions [A,B]] [options]",
        formatter_class=options.Formatter,
    )
    options.add_inputs(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--composites", type=options.names, metavar="A,B", help=options.COMPOSITES_HELP)
    what.add_argument(
        "--conventions",
        type=options.names,
        nargs="?",
        const=tuple(CONVENTIONS),
        metavar="A,B",
        help=f"compare libraries, the first is the reference: {', '.join(CONVENTIONS)} (all, if none is named)",
    )
    parser.add_argument(
        "--composite",
        choices=tuple(pylrp.COMPOSITES),
        metavar="NAME",
        help="the rules with --conventions (default: epsilon, which every library has)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="the picture, .png .pdf .svg (default: NAME-compare.png here; none with --conventions)",
    )
    options.add_target(parser, several=False)
    options.add_classes(parser)
    options.add_rules(parser, composite=False)
    options.add_convention(parser)
    options.add_images(parser)
    options.add_tables(parser)
    options.add_network(parser)
    options.add_running(parser)
    parser.set_defaults(run=_run)


def _run(namespace: argparse.Namespace) -> int:
    args = CompareArguments.read(namespace)
    session = open_session(args)
    request = explain_request(args, session)
    if args.conventions is not None:
        if args.output is not None:
            raise ValueError("--conventions gives a table, no picture: leave -o out")
        return _conventions(args, args.conventions, session, request)
    return _composites(args, session, request)


def _composites(args: CompareArguments, session: Session, request: ExplainRequest) -> int:
    from pylrp.evaluate import agreement

    chosen = options.composites_for(args.composites, session.network, bounds=bounded(args, session.plan))
    rules = {name: rules_for(args, session.network, session.plan, name) for name in chosen}
    path = _picture_path(args, session)
    maps: dict[str, list[Array]] = {name: [] for name in rules}
    drawn: dict[str, Explanation] = {}
    shown: list[tuple[Entry, Item]] = []
    found: dict[str, Explanation] = {}
    interrupted = False
    try:
        with Progress("comparing", len(session.entries), quiet=args.quiet) as bar:
            for looked_at, read in session.batches():
                if read:
                    shown = shown or read
                    x = session.stack([item for _, item in read])
                    found = {}
                    for name, each in rules.items():
                        found[name] = replace(request, composite=each).explain(session.network, x)
                    with deferred_sigint():
                        for name, ex in found.items():
                            maps[name].append(maps_of(session, ex))
                        drawn = drawn or found
                bar.advance(looked_at)
    except KeyboardInterrupt:
        interrupted = True
        if not drawn:
            if len(found) < 2:  # there is nothing to compare
                raise
            drawn = found
            maps = {name: [maps_of(session, ex)] for name, ex in found.items()}
    if not drawn:
        return 1
    count = sum(map(len, maps[chosen[0]]))
    if not args.quiet:
        if session.plan is not None:
            print(session.plan.describe())
        inputs = "1 input" if count == 1 else f"{count} inputs, means"
        print(f"{inputs}; the maps summed over channels, pixels ranked from most for to most against\n")
        print(agreement({name: np.concatenate(parts) for name, parts in maps.items()}).table())
    session.print_notes([note for ex in drawn.values() for note in ex.notes], quiet=args.quiet)
    if path is not None:
        _draw(session, path, drawn, shown)
        if not args.quiet:
            first = "" if len(shown) == count else f" (the first {len(shown)} inputs)"
            print(f"\nwrote {readable(str(path))}{first}")
    if interrupted:
        kept = "" if path is None else f"; kept: {path}"
        print_error(
            f"interrupted: {count} of {len(session.entries)} inputs are compared by {len(maps)} of {len(rules)} "
            f"composites{kept}",
            kind="",
        )
        return 130
    return 1 if session.failed else 0


def _picture_path(args: CompareArguments, session: Session) -> Path | None:
    """Return where the picture goes; None where there is none by default, as without matplotlib or of volumes."""
    path = Path(args.output or f"{session.entries[0].stem}-compare.png")
    if path.suffix.lower() not in options.PICTURES:
        raise ValueError(f"-o {path}: must end in {', '.join(options.PICTURES)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"-o {path}: there is no folder {path.parent}")
    free_path(path, {Path(args.model).resolve(), *(entry.path.resolve() for entry in session.entries)})
    try:
        require_picture(session, None)
    except (ImportError, ValueError):
        if args.output is not None:
            raise
        return None
    return path


def _draw(session: Session, path: Path, found: Mapping[str, Explanation], shown: list[tuple[Entry, Item]]) -> None:
    from pylrp.plot import grid

    ready = {name: drawable(*shown[0], ex) for name, ex in found.items()}
    known = dict(next(iter(ready.values()))[1])
    if "image" in known:
        known.pop("image")
        if all(item.image is not None for _, item in shown):
            known["images"] = [item.image for _, item in shown]
    labels = None if session.labels is None else list(session.labels)
    figure: Any = grid({name: ex for name, (ex, _) in ready.items()}, labels=labels, pyplot=False, **known)
    atomically(path, lambda part: figure.savefig(part))


def maps_of(session: Session, ex: Explanation) -> Array:
    """Return relevance as (batch, features): of images a feature is a pixel, its channels summed."""
    graph = session.network.graph
    if isinstance(ex.relevance, dict):
        return np.concatenate([r.reshape(len(r), -1) for r in ex.relevance.values()], axis=1)
    R: Array = ex.relevance
    if R.ndim > 3 - bool(graph.channels_last):
        last = bool(graph.channels_last) or (session.plan is not None and session.plan.layout == "NHWC")
        R = R.sum(axis=-1 if last else 1)
    return R.reshape(len(R), -1)


def _conventions(args: CompareArguments, conventions: Sequence[str], session: Session, request: ExplainRequest) -> int:
    unknown = [name for name in conventions if name not in CONVENTIONS]
    if unknown:
        raise ValueError(
            f"unknown convention {unknown[0]!r}{nearest(unknown[0], CONVENTIONS)}; choose from {', '.join(CONVENTIONS)}"
        )
    rules = rules_for(args, session.network, session.plan, args.composite or "epsilon")
    names = [*session.network.graph.inputs, *session.network.names]
    request = replace(request, composite=rules, layers=tuple(names))
    gaps: dict[str, Array] = {}
    missing: dict[str, str] = {}
    count = 0
    interrupted = False
    try:
        with Progress("comparing", len(session.entries), quiet=args.quiet) as bar:
            for looked_at, read in session.batches():
                if read:
                    x = session.stack([item for _, item in read])
                    found = _gaps_of(session, x, conventions, request, missing)
                    with deferred_sigint():
                        gaps = {name: np.maximum(gaps.get(name, 0), gap) for name, gap in found.items()}
                        count += len(read)
                bar.advance(looked_at)
    except KeyboardInterrupt:
        if not count:
            raise
        interrupted = True
    if count and not args.quiet:
        print(_table(session, rules.name, names, gaps, missing, count))
    if interrupted:
        print_error(f"interrupted: {count} of {len(session.entries)} inputs are compared", kind="")
        return 130
    return 1 if session.failed or not count else 0


def _gaps_of(
    session: Session,
    x: Any,
    conventions: Sequence[str],
    request: ExplainRequest,
    missing: dict[str, str],
) -> dict[str, Array]:
    """Return how far each convention is from the first, a number a layer; ``missing`` gets those without a rule."""
    found = by_convention(
        conventions,
        lambda name: replace(request, convention=name).explain(session.network, x),
        missing,
    )
    reference = next(iter(found.values()))
    return {
        name: np.array([_gap(ex.layers[value], reference.layers[value]) for value in request.layers or ()])
        for name, ex in found.items()
    }


def _gap(R: Array, reference: Array) -> float:
    """Return the largest difference, relative to the sample's largest relevance; of the worst sample."""
    gap = np.abs(R - reference).reshape(len(R), -1).max(axis=1)
    scale = np.abs(reference).reshape(len(R), -1).max(axis=1)
    return float(np.max(np.divide(gap, scale, out=np.where(gap > 0, np.inf, 0.0), where=scale > 0)))


def _table(
    session: Session, rules: str, names: list[str], gaps: dict[str, Array], missing: dict[str, str], count: int
) -> str:
    reference = next(iter(gaps))
    others = [name for name in gaps if name != reference]
    width = max(map(len, ["layer", *names]))
    lines = [
        f"rules: {rules}; {count} {'input' if count == 1 else 'inputs'}",
        f"largest difference to {reference}, relative to the largest relevance of the layer; output first",
        "",
        "layer".ljust(width) + "".join(f"{name:>14}" for name in others),
    ]
    for i in reversed(range(len(names))):
        lines.append(names[i].ljust(width) + "".join(f"{gaps[name][i]:>14.2g}" for name in others))
    return "\n".join([*lines, *(f"not compared: {why}" for why in missing.values())])
