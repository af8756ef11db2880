"""``pylrp explain --text``: texts by the model's tokenizer, words coloured in the terminal; ``explain.py`` calls."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pylrp._files import atomically
from pylrp.cli.arguments import ExplainArguments
from pylrp.cli.labels import class_number, read_labels
from pylrp.cli.progress import print_error
from pylrp.cli.session import open_network, rules_for
from pylrp.inputs.text import SUFFIXES, TextInput, TextSample, Tokenizer, read_texts
from pylrp.network.classes import ClassIndex, classes_of
from pylrp.network.explanation import Explanation
from pylrp.network.network import Network
from pylrp.present.account import Account, absorbed, ledgers
from pylrp.present.names import numbered_class_name
from pylrp.present.numbers import number
from pylrp.present.text import shown
from pylrp.present.words import joined, terminal_of

__all__ = ["add", "is_asked_for", "run"]

_AT_ONCE = 64
_TOKENIZER = "tokenizer.json"
_PAIR = 2  # axes of an output of tokens by vocabulary


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of texts."""
    group = parser.add_argument_group(
        "text", "Networks of token ids; INPUT may be .txt, a line a text, or .jsonl, an object with text a line."
    )
    group.add_argument("--text", action="append", default=[], metavar="TEXT", help="explain this; may be given again")
    group.add_argument("--text-pair", metavar="TEXT", help="the second sentence of --text")
    group.add_argument(
        "--tokenizer", metavar="FILE", help="the model's tokenizer.json (default: the one beside the model)"
    )


def is_asked_for(args: ExplainArguments) -> bool:
    """Return whether there are texts to explain: --text, or files of lines where there is a tokenizer."""
    if args.text:
        return True
    lines = any(Path(word).suffix.lower() in SUFFIXES for word in args.inputs)
    return lines and (args.tokenizer is not None or Path(args.model).with_name(_TOKENIZER).is_file())


def run(args: ExplainArguments) -> int:
    """Explain texts, and return the exit status."""
    job = _Job(args)
    status = 0
    samples = []
    for given in job.given:
        try:
            samples.append(job.tokenizer(given))
            if samples[-1].left_out and not args.quiet:
                kept = len(samples[-1].tokens)
                print(f"note: {given.name} is cut to {kept} tokens, as the tokenizer's file says: "
                      f"{samples[-1].left_out} more are not seen")  # fmt: skip
        except ValueError as error:
            if len(job.given) == 1:
                raise
            print_error(f"{given.name}: {error}")
            status = 1
    if not samples:
        return 1
    at_once = len(samples) if any(path.suffix.lower() == ".npz" for path in job.outputs) else args.batch or _AT_ONCE
    for first in range(0, len(samples), at_once):
        job.explain(samples[first : first + at_once])
    for path in job.finish():
        if not args.quiet:
            print(f"wrote {shown(str(path))}")
    return status


class _Job:
    """A network, its tokenizer, and what is asked."""

    def __init__(self, args: ExplainArguments):
        self.args = args
        others = [word for word in args.inputs if Path(word).suffix.lower() not in SUFFIXES]
        if others:
            raise ValueError(f"{others[0]} is no text: with --text or files of lines all inputs are .txt or .jsonl")
        if args.text_pair is not None and len(args.text) != 1:
            raise ValueError("--text-pair goes with one --text")
        self.network: Network = open_network(args)
        graph = self.network.graph
        if graph.facts.sides is None:
            raise ValueError("the network takes no token ids: --text is for networks of text")
        self.tokenizer = Tokenizer(self.network, args.tokenizer or Path(args.model).with_name(_TOKENIZER))
        self.given = [TextInput("--text", "text", text, args.text_pair) for text in args.text]
        self.given += read_texts([Path(word) for word in args.inputs])
        if not self.given:
            raise ValueError("the files have no lines: there is nothing to explain")
        self.outputs = [Path(text) for text in args.output]
        for path in self.outputs:
            if path.suffix.lower() not in (".png", ".pdf", ".svg", ".npz", ".html"):
                raise ValueError(f"-o {path}: of texts .png, .pdf, .svg (one text), .npz or .html are written")
            if path.suffix.lower() in (".png", ".pdf", ".svg") and len(self.given) > 1:
                raise ValueError(f"-o {path} is one picture, there are {len(self.given)} texts: write .html")
            if not path.parent.is_dir():
                raise FileNotFoundError(f"-o {path}: there is no folder {path.parent}")
        self.top = args.top_name or graph.outputs[0]
        self.meaning = classes_of(graph, self.top)
        self.labels = self.meaning.names if args.labels is None else read_labels(args.labels, self.meaning.count)
        if self.by_position and any(path.suffix.lower() == ".html" for path in self.outputs):
            raise ValueError(f"a report shows classes, {self.top!r} has a row for each token: write .png or .npz")
        self.rules = rules_for(args, self.network)
        self.written: list[Path] = []
        self._report: Any = None

    @property
    def by_position(self) -> bool:
        """Whether the output has a row for each token."""
        return len(self.network.graph.shapes[self.top]) == _PAIR

    def explain(self, samples: Sequence[TextSample]) -> None:
        """Explain some texts: print them, and write what is asked for."""
        x = [sample.x for sample in samples]
        targets = None
        if self.args.targets is not None:
            targets = [self._target(text, "--targets") for text in self.args.targets]
        target: Any = None
        if targets is None:
            target = [self._target_of(sample) for sample in samples]
            if all(each is None for each in target):
                target = self._default(x)
            elif any(each is None for each in target):
                raise ValueError("some lines have a target, others none: give one to each, or --target for all")
        against = None if self.args.against is None else self._target(self.args.against, "--against")
        ex = self.network.explain(
            x, target, self.rules, targets=targets, against=against, start=self.args.start, output=self.args.top_name,
            convention=self.args.convention, precision=self.args.precision,
        ).with_tokens([sample.tokens for sample in samples])  # fmt: skip
        for i, sample in enumerate(samples):
            if not self.args.quiet:
                self._tell(sample, ex[i])
            self._write(sample, ex[i], None if target is None else target[i], targets)
        for path in self.outputs:
            if path.suffix.lower() == ".npz":
                ex.save(path)
                self.written.append(path)

    def _default(self, x: Any) -> Any:
        """Return the token that is predicted behind each text; None, the top class, where there is one output."""
        if not self.by_position:
            return None
        found = self.network.forward(x)
        rows = found[self.top] if isinstance(found, dict) else found
        return [(-1, int(np.argmax(row[-1]))) for row in rows]

    def _target_of(self, sample: TextSample) -> Any:
        if self.args.target is not None:
            return self._target(self.args.target, "--target")
        given = sample.given.target
        return self._target(given, sample.given.name) if isinstance(given, str) else given

    def _target(self, text: str, option: str) -> Any:
        """Return a class, or of an output of tokens by vocabulary POSITION,TOKEN."""
        if not self.by_position:
            numbered = self.meaning.numbered or self.args.labels is not None
            return ClassIndex(class_number(text, self.labels, self.meaning.count, option, numbered=numbered))
        position, comma, token = text.partition(",")
        if not comma:
            position, token = "-1", text
        try:
            place = int(position)
        except ValueError:
            raise ValueError(f"{option} {text}: give POSITION,TOKEN, for example -1,{token or 'the'}") from None
        return place, int(token) if token.lstrip("-").isdigit() else self.tokenizer.number(token)

    def _tell(self, sample: TextSample, ex: Explanation) -> None:
        first = next(iter(ex.relevance)) if isinstance(ex.relevance, dict) else None
        R = ex.relevance if first is None else ex.relevance[first]
        maps = R if isinstance(ex.ledger, list) else R[None]
        classes = [None] * len(maps) if ex.target is None else [int(t) for t in np.ravel(ex.target)]
        for relevance, target, ledger in zip(maps, classes, ledgers(ex), strict=True):
            reached = float(np.sum(relevance, dtype=np.float64))
            name = "the target given" if target is None else numbered_class_name(target, self.labels)
            taken = absorbed(ledger)
            account = Account(sum(taken.values()) + reached, reached, taken)
            causes = ", ".join(f"{each.name} {value:.4g}" for each, value in account.main_causes(0.001))
            print(f"{sample.given.name}: {name}, relevance {number(reached)}; absorbed: {causes or 'nothing'}")
            _print_words(joined(sample.tokens, relevance))

    def _write(self, sample: TextSample, ex: Explanation, target: Any, targets: Any) -> None:
        if any(path.suffix.lower() == ".html" for path in self.outputs):  # one report, however many files of it
            self._add(sample, target, targets)
        for path in self.outputs:
            if path.suffix.lower() not in (".html", ".npz"):
                figure = ex.plot(labels=None if self.labels is None else list(self.labels), pyplot=False)
                atomically(path, lambda part, figure=figure: figure.savefig(part))  # type: ignore[misc]
                self.written.append(path)

    def _add(self, sample: TextSample, target: Any, targets: Any) -> None:
        from pylrp.report import Report

        if self._report is None:
            probability = None if self.args.probability == "none" else self.args.probability
            self._report = Report(self.network, self.labels, probability=probability)
        asked = targets if targets is not None else None if target is None else [target]
        self._report.add(
            sample.x, name=shown(sample.given.text[:60]), tokens=sample.tokens, composites=self.rules,
            targets=asked, top=self.args.top, output=self.args.top_name, convention=self.args.convention,
        )  # fmt: skip

    def finish(self) -> list[Path]:
        """Write what is not written yet; return all that was."""
        for path in self.outputs:
            if path.suffix.lower() == ".html":
                self._report.write(path)
                self.written.append(path)
        return list(dict.fromkeys(self.written))


def _print_words(words: Any) -> None:
    if sys.stdout.isatty():
        try:
            from rich.console import Console

            Console().print(terminal_of(words))
            return
        except ImportError:  # plain, then
            pass
    print("  " + " ".join(f"{shown(word.text)} {number(word.relevance)}" for word in words))
