"""What every command with MODEL and INPUT does first: load the network, find rules and inputs, read them in batches."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp.cli.arguments import Arguments
from pylrp.cli.labels import class_number, read_labels
from pylrp.cli.progress import one_line, print_error
from pylrp.cli.rules import override
from pylrp.errors import UnknownOption
from pylrp.inputs import Entry, ImagePlan, Item, Wanted, read_inputs
from pylrp.network.classes import Classes, ClassIndex, classes_of
from pylrp.network.columns import Table
from pylrp.network.network import Network
from pylrp.present.outputs import Probability
from pylrp.rules.composites import Composite
from pylrp.rules.defaults import default_for

__all__ = ["Session", "bounded", "open_network", "open_session", "rules_for"]

Array = NDArray[Any]
_BATCH, _BATCH_OF_ROWS = 8, 256


@dataclass
class Session:
    """A network and the inputs to explain.

    Attributes
    ----------
    network : Network
    labels : tuple of str or None
        Names of the classes.
    entries : list of Entry
    plan : ImagePlan or None
        How images become inputs, where there are any.
    top : str
        The value where relevance starts.
    meaning : Classes
        The classes that can be explained.
    numbered : bool
        Whether integers are numbers of classes, not labels.
    batch : int
    probability : str or None
        How outputs become probabilities, as for :class:`pylrp.report.Report`.
    failed : int
        How many entries could not be read or explained.
    printed : set of str
        The notes that were printed.
    """

    network: Network
    labels: tuple[str, ...] | None
    entries: list[Entry]
    plan: ImagePlan | None
    top: str
    meaning: Classes
    numbered: bool
    batch: int
    probability: Probability
    failed: int = field(default=0)
    printed: set[str] = field(default_factory=set)

    @property
    def classes(self) -> int:
        """Return how many classes there are to explain."""
        return self.meaning.count

    @property
    def two(self) -> bool:
        """Return whether the one output decides between two classes that only --labels names."""
        return self.classes == 1 and self.labels is not None and len(self.labels) == 2

    @property
    def middle(self) -> float:
        """Return the output between two classes."""
        return 0.5 if self.probability == "given" else 0.0

    def fail(self, entry: Entry, reason: Exception) -> None:
        """Report an entry that could not be read or explained; alone, it is the command's own error."""
        text = one_line(reason)
        line = text if entry.name in text else f"{entry.name}: {text}"
        if len(self.entries) == 1:
            raise ValueError(line) from None
        self.failed += 1
        print_error(line)

    def load(self, entry: Entry) -> Item | None:
        """Return what is in an entry, or report why it can't be read and return None."""
        try:
            return entry.load()
        except (OSError, ValueError) as reason:
            self.fail(entry, reason)
            return None

    def batches(self) -> Iterator[tuple[int, list[tuple[Entry, Item]]]]:
        """Yield how many entries have been looked at since the last batch, and those that could be read."""
        for i in range(0, len(self.entries), self.batch):
            part = self.entries[i : i + self.batch]
            read = [(entry, item) for entry in part if (item := self.load(entry)) is not None]
            yield len(part), read

    def stack(self, items: Sequence[Item]) -> Any:
        """Return samples as one batch: an array, a table where columns have names, or a dict of several inputs."""
        arrays = {name: np.stack([item.x[name] for item in items]) for name in self.network.graph.inputs}
        if len(arrays) > 1:
            return arrays
        (array,) = arrays.values()
        return Table(array, items[0].features) if items[0].features else array

    def print_notes(self, notes: Iterable[str], *, quiet: bool) -> None:
        """Print the notes that were not printed before."""
        for note in notes:
            if note not in self.printed and not quiet:
                print(f"note: {note}")
            self.printed.add(note)

    def class_number(self, text: str, option: str) -> ClassIndex:
        """Return the class that a user means."""
        return ClassIndex(class_number(text, self.labels, self.classes, option, numbered=self.numbered))


def open_network(args: Arguments) -> Network:
    """Return the network that the options name."""
    options: dict[str, Any] = {} if args.input_shape is None else {"input_shape": args.input_shape}
    try:
        return pylrp.load(args.model, keep_top=args.keep_top, **options)
    except UnknownOption as error:
        raise ValueError(f"{error.source} takes no --{error.option.replace('_', '-')}") from None


def open_session(args: Arguments) -> Session:
    """Return the network and its inputs; prints the notes of loading."""
    network = open_network(args)
    sides = network.graph.facts.sides
    if sides is not None:
        raise ValueError(
            f"the network takes token ids or masks, {', '.join(sides.inputs)}: pylrp explain and verify take texts, "
            "--text or lines in .txt and .jsonl, with the model's tokenizer.json; arrays are explained in Python, "
            "net.explain({...})"
        )
    top = args.top_name or network.graph.outputs[0]
    if args.top_name is None and len(network.graph.outputs) > 1:
        raise ValueError(f"the network has several outputs, {', '.join(network.graph.outputs)}: choose one with --from")
    if top not in network.graph.shapes:
        raise ValueError(f"--from {top}: no layer has that name; pylrp info lists them")
    meaning = classes_of(network.graph, top)
    labels = meaning.names if args.labels is None else read_labels(args.labels, meaning.count)
    numbered = meaning.numbered or args.labels is not None
    wanted = Wanted.of(network)
    entries = read_inputs(args.inputs, wanted, args.preparation, table=args.table, recursive=args.recursive)
    rows = all(len(s) == 1 for s in wanted.shapes.values())
    batch = args.batch or (_BATCH_OF_ROWS if rows else _BATCH)
    probability: Probability = None if args.probability == "none" else args.probability
    plan = next((entry.plan for entry in entries if entry.plan is not None), None)
    session = Session(network, labels, entries, plan, top, meaning, numbered, batch, probability)
    session.print_notes(network.notes, quiet=args.quiet)
    return session


def rules_for(args: Arguments, network: Network, plan: ImagePlan | None = None, name: str | None = None) -> Composite:
    """Return the composite that the options ask for.

    Parameters
    ----------
    args : Arguments
        Of which ``composite``, ``rule``, ``low`` and ``high`` count.
    network : Network
    plan : ImagePlan, optional
        Where inputs are images: a box has the bounds of their pixels, if none are given.
    name : str, optional
        Instead of ``args.composite``.
    """
    name = name or args.composite or default_for(network.graph)
    if name not in pylrp.COMPOSITES:
        pylrp.composite(name)  # which raises
    boxed = "low" in inspect.signature(pylrp.COMPOSITES[name]).parameters
    low, high = (None if plan is None else bound for bound in (plan.bounds if plan is not None else (0, 0)))
    bounds = {
        key: _bound(given, found)
        for key, given, found in (("low", args.low, low), ("high", args.high, high))
        if given is not None or found is not None
    }
    made = pylrp.composite(name, **bounds) if boxed else pylrp.composite(name)
    return override(made, args.rule, network)


def bounded(args: Arguments, plan: ImagePlan | None) -> bool:
    """Return whether the bounds of the input are known: images have some, others if they are given."""
    return plan is not None or args.low is not None or args.high is not None


def _bound(given: tuple[float, ...] | None, found: Any) -> Any:
    if given is None:
        return found
    return given[0] if len(given) == 1 else np.array(given)
