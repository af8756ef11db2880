"""Options that several commands share, in groups, and the functions that parse them; each command calls in."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pylrp
from pylrp.inputs.images import LAYOUTS
from pylrp.network.network import Network
from pylrp.present.text import nearest
from pylrp.rules.composites import rule_called
from pylrp.rules.conventions import CONVENTIONS
from pylrp.rules.defaults import usual_for

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = Any

__all__ = [
    "COMPOSITES_HELP",
    "MODEL",
    "PICTURES",
    "Commands",
    "Formatter",
    "add_classes",
    "add_convention",
    "add_images",
    "add_inputs",
    "add_network",
    "add_precision",
    "add_rules",
    "add_running",
    "add_tables",
    "add_target",
    "composites_for",
    "count",
    "names",
    "numbers",
]

#: Endings of pictures.
PICTURES = (".png", ".pdf", ".svg")

MODEL = "a network: .onnx, .npz, .mat, .keras, or one that net.save() has written (.pylrp.npz)"

#: Help of --composites.
COMPOSITES_HELP = f"which ones, of {', '.join(pylrp.COMPOSITES)} (default: the usual ones for such a network)"


def composites_for(given: Sequence[str] | None, network: Network, *, bounds: bool) -> tuple[str, ...]:
    """Return the composites to compare: those given, or the usual ones for such a network.

    ``bounds``: whether bounds of the input are known; a box is not among the usual ones without.
    """
    if given is None:
        return usual_for(network.graph, bounds=bounds)
    for name in given:
        pylrp.composite(name)  # which raises where there is none
    return tuple(dict.fromkeys(given))


class Parser(argparse.ArgumentParser):
    """A parser that names the command or choice that was meant."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = nearest(value, map(str, action.choices or ()))
            rule = rule_called(value) if action.dest == "composite" else None
            if rule is not None:
                hint = f" (a rule for all layers: --rule '*={rule}')"
            if value == "report" and action.metavar == "COMMAND":
                hint = " (a report is written by: pylrp explain MODEL INPUT -o report.html)"
            raise argparse.ArgumentError(action, f"{error.message}{hint}") from None


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as a page, with examples laid out as they are typed."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"max_help_position": 30, "width": 110, **options})

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


def add_inputs(parser: argparse.ArgumentParser, *, needed: bool = True) -> None:
    """Add MODEL and INPUT; ``needed``: whether there must be one."""
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+" if needed else "*",
        help='images (any that pillow reads), .npy, .npz, .csv with a row a sample; folders and patterns ("*.jpg") too',
    )
    parser.add_argument("-r", "--recursive", action="store_true", help="go into the folders of folders")


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add how the model is loaded."""
    group = parser.add_argument_group("the network")
    group.add_argument(
        "--input-shape",
        type=_shape,
        metavar="N,N,N",
        help="the shape of a sample, where the model leaves sizes open: 3,224,224",
    )
    group.add_argument(
        "--keep-top",
        "--keep-softmax",
        dest="keep_top",
        action="store_true",
        help="explain probabilities, where logits are explained otherwise",
    )


def add_classes(parser: argparse.ArgumentParser, *, probability: bool = False) -> None:
    """Add what is known about the outputs."""
    group = parser.add_argument_group("the classes")
    group.add_argument("--labels", metavar="FILE", help="their names: one a line, or a JSON list or dict")
    if not probability:
        return
    group.add_argument(
        "--probability",
        choices=("auto", "softmax", "sigmoid", "given", "none"),
        default="auto",
        help="how outputs become the probabilities that are shown; none: regression (default: auto, softmax of several "
        "outputs)",
    )


def add_target(parser: argparse.ArgumentParser, *, several: bool = True) -> None:
    """Add what is explained; ``several``: whether several classes can be."""
    group = parser.add_argument_group("what to explain")
    group.add_argument(
        "--target", metavar="CLASS", help="a class by number, or by name with --labels (default: the top class of each)"
    )
    if several:
        group.add_argument("--targets", type=names, metavar="A,B", help="several classes, each with a map of its own")
    group.add_argument("--against", metavar="CLASS", help="why the target rather than this class")
    group.add_argument(
        "--start",
        choices=("logit", "one"),
        default="logit",
        help="begin with the class's output, or with 1: maps of different inputs then have one scale (default: logit)",
    )
    group.add_argument(
        "--from", dest="top_name", metavar="NAME", help="begin at this output, or at any layer, see info"
    )


def add_rules(parser: argparse.ArgumentParser, *, composite: bool = True) -> None:
    """Add the rules of the layers."""
    group = parser.add_argument_group("rules")
    if composite:
        group.add_argument(
            "--composite",
            choices=tuple(pylrp.COMPOSITES),
            metavar="NAME",
            help="rules for all layers by name: %(choices)s (default: epsilon_plus_flat for images, epsilon_plus for "
            "signals, epsilon where there are no convolutions)",
        )
    group.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="LAYER=RULE",
        help='another rule for a layer, "conv1=Gamma(0.5)", or by a pattern for all layers with weights that it fits, '
        '"conv*=ZPlus"; may be given again, the last one counts. Names: pylrp info MODEL',
    )
    group.add_argument(
        "--low",
        type=numbers,
        metavar="X",
        help="least value of the input, for rules with a box: one, or one a channel; --low=-1 with the equals sign "
        "(default: of images what the scale below gives, else 0)",
    )
    group.add_argument("--high", type=numbers, metavar="X", help="largest value of the input (default: likewise, 1)")


def add_convention(parser: argparse.ArgumentParser) -> None:
    """Add the choice of another library's numerics."""
    parser.add_argument(
        "--convention", choices=tuple(CONVENTIONS), default="zennit", help="the numerics of this library (%(default)s)"
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add the choice of products with rounded operands."""
    parser.add_argument(
        "--precision",
        choices=("float32", "float64", "bfloat16"),
        metavar="bfloat16",
        help="products round to bfloat16: faster in some cases, docs/precision.md (default: the model's own precision)",
    )


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add how an image becomes an input."""
    group = parser.add_argument_group(
        "images", "What the network was trained with; it can't be read from a model. Nothing is guessed from pixels."
    )
    group.add_argument(
        "--pixel-max",
        type=_pixel_max,
        default=1.0,
        metavar="1|255",
        help="pixels are numbers from 0 to this, before mean and std (default: 1)",
    )
    group.add_argument(
        "--mean", type=numbers, default=(0.0,), metavar="X", help="is subtracted: one, or one a channel (default: 0)"
    )
    group.add_argument("--std", type=numbers, default=(1.0,), metavar="X", help="then divides (default: 1)")
    group.add_argument(
        "--resize", type=count, metavar="N", help="shorter side to N pixels, then the centre is cropped (default: fits)"
    )
    group.add_argument("--stretch", action="store_true", help="the whole image, its proportions changed, no crop")
    group.add_argument("--interpolation", choices=("bilinear", "bicubic", "nearest"), default="bilinear")
    group.add_argument("--layout", choices=LAYOUTS, help="order of the network's axes (default: from its shape)")
    group.add_argument("--size", type=_size, metavar="HxW", help="for a network that takes a row of pixels: 28x28")
    group.add_argument("--bgr", action="store_true", help="channels blue, green, red")
    group.add_argument("--background", default="white", metavar="COLOUR", help="behind transparent pixels (white)")


def add_tables(parser: argparse.ArgumentParser) -> None:
    """Add which columns of a table are no features."""
    group = parser.add_argument_group("tables")
    group.add_argument("--label-column", metavar="NAME", help="the column with the true class, by name or number")
    group.add_argument("--drop", type=names, default=(), metavar="A,B", help="columns to leave out")


def add_running(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add how the work is done, and return the group."""
    group = parser.add_argument_group("running")
    group.add_argument("--threads", type=count, metavar="N", help="threads (default: all, see pylrp info)")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress bar and no table; errors are shown")
    return group


def names(text: str) -> tuple[str, ...]:
    """Read ``a,b,c``."""
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise argparse.ArgumentTypeError("is empty")
    return parts


def numbers(text: str) -> tuple[float, ...]:
    """Read ``0.5`` or ``0.485,0.456,0.406``."""
    values = _each(float, text, "numbers, as in 0.5 or 0.485,0.456,0.406")
    if not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"{text!r}: must be finite")
    return values


def count(text: str) -> int:
    """Read a whole number from 1."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _shape(text: str) -> tuple[int, ...]:
    return _each(count, text.replace("x", ","), "sizes, as in 3,224,224")


def _size(text: str) -> tuple[int, int]:
    sizes = _each(count, text.replace("x", ","), "height and width, as in 28x28")
    if len(sizes) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not height and width, as in 28x28")
    return sizes[0], sizes[1]


def _pixel_max(text: str) -> float:
    if text not in ("1", "255"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither 1 nor 255")
    return float(text)


def _each(kind: Callable[[str], Any], text: str, expected: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(part.strip()) for part in text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}") from None
