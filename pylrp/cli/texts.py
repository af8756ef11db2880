"""Texts for a network on the command line, ``--text`` and files of lines, by the model's tokenizer; their targets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pylrp.cli.arguments import TextArguments
from pylrp.cli.labels import class_number, read_labels
from pylrp.cli.progress import print_error
from pylrp.cli.session import open_network, rules_for
from pylrp.inputs.text import SUFFIXES, TextInput, TextSample, Tokenizer, read_texts
from pylrp.network.classes import ClassIndex, classes_of
from pylrp.network.network import Network

__all__ = ["Texts", "add", "are_asked_for", "stand_for_inputs"]

_TOKENIZER = "tokenizer.json"
_PAIR = 2  # axes of an output of tokens by vocabulary


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of texts."""
    group = parser.add_argument_group(
        "text", "Networks of token ids; INPUT may be .txt, a line a text, or .jsonl, an object with text a line."
    )
    group.add_argument("--text", action="append", default=[], metavar="TEXT", help="take this; may be given again")
    group.add_argument("--text-pair", metavar="TEXT", help="the second sentence of --text")
    group.add_argument(
        "--tokenizer", metavar="FILE", help="the model's tokenizer.json (default: the one beside the model)"
    )


def stand_for_inputs(words: Sequence[str]) -> bool:
    """Return whether words of a command line have --text, with which no INPUT is needed."""
    return any(word.partition("=")[0] == "--text" for word in words)


def are_asked_for(args: TextArguments) -> bool:
    """Return whether texts are given: --text, or files of lines where there is a tokenizer."""
    if args.text:
        return True
    lines = any(Path(word).suffix.lower() in SUFFIXES for word in args.inputs)
    return lines and (args.tokenizer is not None or Path(args.model).with_name(_TOKENIZER).is_file())


class Texts:
    """A network, its tokenizer, and the texts that are given.

    Parameters
    ----------
    args : TextArguments

    Raises
    ------
    ValueError
        If the network takes none, or there are none.
    """

    def __init__(self, args: TextArguments):
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
        self.top = args.top_name or graph.outputs[0]
        self.meaning = classes_of(graph, self.top)
        self.labels = self.meaning.names if args.labels is None else read_labels(args.labels, self.meaning.count)
        self.rules = rules_for(args, self.network)
        #: Whether a text could not be taken.
        self.failed = False

    @property
    def by_position(self) -> bool:
        """Whether the output has a row for each token."""
        return len(self.network.graph.shapes[self.top]) == _PAIR

    def samples(self, most: int | None = None) -> list[TextSample]:
        """Return the texts as the network takes them, at most so many; tells of those that are cut, or not taken."""
        found: list[TextSample] = []
        for given in self.given:
            if len(found) == most:
                break
            try:
                found.append(self.tokenizer(given))
            except ValueError as error:
                if len(self.given) == 1:
                    raise
                print_error(f"{given.name}: {error}")
                self.failed = True
                continue
            if found[-1].left_out and not self.args.quiet:
                print(f"note: {given.name} is cut to {len(found[-1].tokens)} tokens, as the tokenizer's file says: "
                      f"{found[-1].left_out} more are not seen (--tokenizer without truncation sees all)")  # fmt: skip
        return found

    def print_notes(self) -> None:
        """Print the notes of loading, and doubts about the tokenizer."""
        if not self.args.quiet:
            for note in (*self.network.notes, *self.tokenizer.doubts):
                print(f"note: {note}")

    def target(self, samples: Sequence[TextSample]) -> Any:
        """Return what is explained of each text; None: the top class, where there is one output."""
        target = [self._target_of(sample) for sample in samples]
        if all(each is None for each in target):
            return self._default([sample.x for sample in samples])
        if any(each is None for each in target):
            raise ValueError("some lines have a target, others none: give one to each, or --target for all")
        return target

    def _default(self, x: Any) -> Any:
        """Return the token that is predicted behind each text; None, the top class, where there is one output."""
        if not self.by_position:
            return None
        found = self.network.forward(x)
        rows = found[self.top] if isinstance(found, dict) else found
        return [(-1, int(np.argmax(row[-1]))) for row in rows]

    def _target_of(self, sample: TextSample) -> Any:
        if self.args.target is not None:
            return self.entry(self.args.target, "--target")
        given = sample.given.target
        return self.entry(given, sample.given.name) if isinstance(given, str) else given

    def entry(self, text: str, option: str) -> Any:
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
