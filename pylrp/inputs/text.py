"""Text to a network's token ids: the tokenizer's own file, lines of ``.txt`` and ``.jsonl``; needs ``tokenizers``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pylrp.network.network import Network
from pylrp.network.requests import shapes_of_inputs
from pylrp.present.text import shown

__all__ = ["TextInput", "TextSample", "Tokenizer", "read_texts", "roles_of"]

SUFFIXES = (".txt", ".jsonl")


@dataclass(frozen=True)
class TextInput:
    """A text, or a pair of them.

    Attributes
    ----------
    name : str
        For tables and messages: ``--text``, ``lines.txt:3``.
    stem : str
        The beginning of a file name for its results.
    text : str
    pair : str or None
    target : object
        What a line of ``.jsonl`` says of it; None: nothing.
    """

    name: str
    stem: str
    text: str
    pair: str | None = None
    target: Any = None


@dataclass(frozen=True)
class TextSample:
    """A text as a network takes it.

    Attributes
    ----------
    given : TextInput
    x : dict of str to ndarray
        By input, without a batch axis.
    tokens : list of str
    left_out : int
        How many tokens of the text the tokenizer's file says are cut off.
    """

    given: TextInput
    x: dict[str, Any]
    tokens: list[str]
    left_out: int = 0


def roles_of(network: Network) -> dict[str, str]:
    """Return what each input of whole numbers is: "ids", "mask", "types", "positions"; "" where its name does not tell.

    A mask of numbers that are added is "added": a text does not make it.

    An input that relevance belongs to is one of ids, if its name says nothing else.
    """
    sides = network.graph.facts.sides
    if sides is None:
        return {}
    roles = {name: "added" if side.kind == "float" else _role(name) for name, side in sides.inputs.items()}
    open_ids = [name for name, role in roles.items() if not role and name in sides.carrying]
    if "ids" not in roles.values() and len(open_ids) == 1:
        roles[open_ids[0]] = "ids"
    rest = [name for name, role in roles.items() if not role and name not in sides.carrying]
    if "mask" not in roles.values() and len(rest) == 1:
        roles[rest[0]] = "mask"
    return roles


def _role(name: str) -> str:
    low = name.lower()
    for part, role in (("mask", "mask"), ("type", "types"), ("segment", "types"), ("position", "positions"),
                       ("input_id", "ids")):  # fmt: skip
        if part in low:
            return role
    return "ids" if low in ("ids", "tokens", "input", "inputs") else ""


#: The least share of a table's rows that its own tokenizer knows.
_PADDED = 0.9


class Tokenizer:
    """A tokenizer's file, for a network's inputs.

    Parameters
    ----------
    network : Network
        Of token ids.
    path : path-like
        ``tokenizer.json``, as the model's own tokenizer is saved.

    Attributes
    ----------
    doubts : list of str
        Notes where it seems to be another network's.

    Raises
    ------
    ImportError
        If the package tokenizers is not installed.
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no tokenizer, or it is not plain what an input of the network is.
    """

    def __init__(self, network: Network, path: str | Path):
        try:
            from tokenizers import Tokenizer as Read
        except ImportError as error:
            raise ImportError(
                "text needs the package tokenizers, of pylrp's extra text: pip install tokenizers"
            ) from error
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no tokenizer {path}: pass the model's own tokenizer.json")
        try:
            self._read = Read.from_file(str(path))
        except Exception as error:  # whatever the package raises for a file that it can't read
            raise ValueError(f"{path} is no tokenizer: {error}") from error
        self._roles = roles_of(network)
        shapes = shapes_of_inputs(network.graph)
        unknown = [name for name in shapes if self._roles.get(name, "") in ("", "added")]
        if unknown or "ids" not in self._roles.values():
            raise ValueError(
                f"it is not plain what the inputs {', '.join(unknown or shapes)} take: a text is made into ids, masks, "
                "types and positions, which their names must say; explain arrays in Python, net.explain({...})"
            )
        self._kinds = {} if network.graph.facts.sides is None else network.graph.facts.sides.inputs
        self._length = None if network.graph.facts.lengths is not None else next(iter(shapes.values()))[-1]
        self._read.no_padding()
        self.doubts = self._doubts(network)

    def _doubts(self, network: Network) -> list[str]:
        """Return notes where the network's table has another size than the tokenizer's vocabulary."""
        size = self._read.get_vocab_size()
        feeds = {} if network.graph.facts.sides is None else network.graph.facts.sides.feeds
        names = [name for name, role in self._roles.items() if role == "ids"]
        rows = {len(feed.table.array) for feed in feeds.values() if feed.table is not None and feed.source in names}
        most = max(rows, default=size)
        if _PADDED * most <= size <= most:  # tables are made a little larger, for multiples of 64
            return []
        return [f"the tokenizer knows {size} tokens, the network's table has {most} rows: is it the model's own?"]

    def __call__(self, given: TextInput) -> TextSample:
        """Return a text as the network takes it; of a network of one length it is padded where there is a mask.

        Raises
        ------
        ValueError
            If it does not fit a network of one length.
        """
        made = self._read.encode(given.text) if given.pair is None else self._read.encode(given.text, given.pair)
        ids, tokens = list(made.ids), list(made.tokens)
        cut = sum(mark == 0 for rest in made.overflowing for mark in rest.special_tokens_mask)
        rows = {"ids": ids, "mask": [1] * len(ids), "types": list(made.type_ids), "positions": list(range(len(ids)))}
        if self._length is not None:
            self._fit(rows, tokens)
        x: dict[str, Any] = {}
        for name, role in self._roles.items():
            dtype = np.bool_ if self._kinds[name].kind == "bool" else np.int64
            x[name] = np.array(rows[role], dtype)
        if not len(rows["ids"]):
            raise ValueError("the text is empty: it has no tokens")
        return TextSample(given, x, tokens, cut)

    def _fit(self, rows: dict[str, list[int]], tokens: list[str]) -> None:
        """Pad to the network's one length."""
        missing = (self._length or 0) - len(tokens)
        if missing < 0:
            raise ValueError(f"the text has {len(tokens)} tokens, the network takes {self._length}")
        if missing and "mask" not in self._roles.values():
            raise ValueError(f"the text has {len(tokens)} tokens, the network takes {self._length} and has no mask")
        padding = next((token for token in ("[PAD]", "<pad>") if self._read.token_to_id(token) is not None), None)
        number = 0 if padding is None else self._read.token_to_id(padding) or 0
        for role, fill in (("ids", number), ("mask", 0), ("types", 0), ("positions", 0)):
            rows[role] += [fill] * missing
        tokens += [padding or "[PAD]"] * missing

    def number(self, token: str) -> int:
        """Return the id of a token by its text, also without the mark of a word's beginning.

        Raises
        ------
        ValueError
            If there is none.
        """
        for text in (token, f"Ġ{token}", f"▁{token}"):
            found = self._read.token_to_id(text)
            if found is not None:
                return int(found)
        raise ValueError(f"the tokenizer has no token {token!r}")


def read_texts(paths: Sequence[Path]) -> list[TextInput]:
    """Return the texts in files: a line each of ``.txt``, an object a line of ``.jsonl``.

    An object has ``"text"``, and may have ``"text_pair"`` and ``"target"``. Empty lines are left out.

    Raises
    ------
    ValueError
        If a line is no such object, or a file is not in UTF-8.
    """
    found = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not in UTF-8, from byte {error.start} on: save it as UTF-8") from None
        # Not splitlines(): JSON's strings may hold what Unicode has for ends of lines beside the usual one.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                found.append(_line(path, number, line.rstrip("\r")))
    return found


def _line(path: Path, number: int, line: str) -> TextInput:
    name, stem = f"{path}:{number}", f"{path.stem}-{number}"
    if path.suffix.lower() != ".jsonl":
        return TextInput(shown(name), stem, line.strip())
    try:
        given = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error}") from None
    if not isinstance(given, Mapping) or not isinstance(given.get("text"), str):
        raise ValueError(f'{name} has no "text": each line is an object like {{"text": "...", "target": 1}}')
    pair = given.get("text_pair")
    if pair is not None and not isinstance(pair, str):
        raise ValueError(f'{name} has a "text_pair" that is no text: {shown(json.dumps(pair)[:60])}')
    target = given.get("target")
    target = tuple(target) if isinstance(target, list) else target
    return TextInput(shown(name), stem, given["text"], pair, target)
