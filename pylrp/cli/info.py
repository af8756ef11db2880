"""``pylrp info``: this installation, or a model: its layers, what goes in and out, and the rule each layer gets."""

from __future__ import annotations

import argparse
from pathlib import Path

import pylrp
from pylrp.cli import options
from pylrp.cli.arguments import Arguments
from pylrp.cli.session import open_network, rules_for
from pylrp.inputs import ImagePlan, Preparation, Wanted
from pylrp.inputs.text import roles_of
from pylrp.network.network import Network
from pylrp.network.requests import shapes_of_inputs
from pylrp.present.text import shown

__all__ = ["add"]

_EPILOG = """\
examples:
  pylrp info                                        for bug reports
  pylrp info model.onnx                             layers, shapes, parameters, rules
  pylrp info model.onnx --composite epsilon_gamma_box
  pylrp info model.onnx --rule "conv*=Gamma(0.5)"   try rules before you use them

Settings from the environment: OMP_NUM_THREADS (threads), PYLRP_ISA (instruction set, for comparisons).
"""


def add(commands: options.Commands) -> None:
    """Describe the command to argparse."""
    info = commands.add_parser(
        "info",
        help="what is in a model; without one: versions, threads and instruction sets",
        description="Print what a model is made of: inputs and outputs, its layers with their parameters, the rule "
        "that each gets, and what loading changed. Without a model: what was built and what runs here; put it into "
        "bug reports.",
        epilog=_EPILOG,
        usage="pylrp info [MODEL] [--composite NAME] [options]",
        formatter_class=options.Formatter,
    )
    info.add_argument("model", nargs="?", metavar="MODEL", help=options.MODEL)
    options.add_network(info)
    options.add_rules(info)
    info.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    print(_installation() if args.model is None else _model(Arguments.read(args)))
    return 0


def _installation() -> str:
    entries = pylrp.info()
    width = max(map(len, entries))
    return "\n".join(
        f"{key:<{width}}  {', '.join(value) if isinstance(value, (list, tuple)) else value}"
        for key, value in entries.items()
    )


def _model(args: Arguments) -> str:
    network = open_network(args)
    rules = rules_for(args, network)
    wanted = Wanted.of(network)
    lines = [f"{shown(args.model)}: {Path(args.model).stat().st_size / 1e6:.3g} MB", ""]
    if network.graph.facts.sides is None:
        for name, shape in wanted.shapes.items():
            lines.append(f"takes    {name}: {_shape(shape)} {network.dtype} a sample{_as_image(wanted)}")
    else:
        lines += _sides(network)
    for name in network.graph.outputs:
        lines.append(f"returns  {name}: {_shape(network.graph.shapes[name])}")
    lines += [f"rules    {rules.name}", "", network.summary(rules)]
    return "\n".join(lines)


def _sides(network: Network) -> list[str]:
    """Return a line for each input of a network of token ids: which are ids, and which masks."""
    roles, lengths = roles_of(network), network.graph.facts.lengths
    sides = network.graph.facts.sides
    lines = []
    for name, shape in shapes_of_inputs(network.graph).items():
        free = {} if lengths is None else lengths.free.get(name, {})
        sizes = " x ".join("any length" if axis in free else str(n) for axis, n in enumerate(shape)) or "one number"
        if sides is None or name not in sides.inputs:
            lines.append(f"takes    {name}: {sizes} {network.dtype} a sample")
            continue
        kind = {"int": "whole numbers", "bool": "truth values", "float": "numbers"}[sides.inputs[name].kind]
        what = _ROLES[roles[name]]
        carries = "relevance belongs to it" if name in sides.carrying else "takes no relevance"
        lines.append(f"takes    {name}: {sizes} {kind} a sample, {what}; {carries}")
    return lines


_ROLES = {
    "ids": "token ids",
    "mask": "a mask",
    "types": "which sentence a token belongs to",
    "positions": "positions",
    "added": "a mask that is added to the scores of attention",
    "": "numbers that its name says nothing of",
}


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _as_image(wanted: Wanted) -> str:
    try:
        plan = ImagePlan.of(wanted, Preparation())
    except ValueError:
        return ""
    kind = "grey" if plan.channels == 1 else "RGB"
    return f", as an image: {kind}, {plan.height} high, {plan.width} wide (axes {plan.layout})"
