"""What ``pylrp explain`` writes: a picture of each input, arrays in one ``.npz``, an HTML report.

Each writer is given the explained samples one by one, so that what is finished stays when the work is interrupted. A
file is there whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import pylrp
from pylrp._files import atomically
from pylrp.cli.arguments import ExplainArguments
from pylrp.cli.options import PICTURES
from pylrp.cli.request import ExplainRequest, ReportRequest
from pylrp.cli.session import Session
from pylrp.inputs import Entry, Item
from pylrp.network.explanation import Explanation
from pylrp.network.ledger import COLUMNS
from pylrp.present.account import ledgers
from pylrp.present.outputs import Outputs
from pylrp.present.targets import some_targets
from pylrp.present.text import shown

__all__ = ["ExplainedSample", "Results", "Writer", "atomically", "free_path", "report_request", "writers_for"]


@dataclass(frozen=True)
class ExplainedSample:
    """One sample and what was explained of it.

    Attributes
    ----------
    entry : Entry
    item : Item
    ex : Explanation
        Of the classes that were asked for.
    everything : Explanation
        Of these and of the classes that a report shows.
    """

    entry: Entry
    item: Item
    ex: Explanation
    everything: Explanation


class Writer(Protocol):
    """Writes explained samples."""

    def add(self, sample: ExplainedSample) -> None:
        """Take one sample."""

    def close(self) -> str:
        """Write what is not written yet, and return what was written, in words; empty where it is nothing."""


class Results:
    """The writers of one run, how many samples they have, and what was noted on the way."""

    def __init__(self, session: Session, writers: Sequence[Writer]):
        self.count = 0
        self.notes: dict[str, None] = {}
        self._session, self._writers = session, writers
        self._written: list[str] = []

    def add(self, sample: ExplainedSample) -> None:
        """Hand one sample to all writers."""
        for writer in self._writers:
            writer.add(sample)
        self.notes |= dict.fromkeys(sample.ex.notes)
        self.count += 1

    def close(self) -> None:
        """Let all writers finish."""
        self._written = [written for writer in self._writers if (written := writer.close())]

    def written(self) -> str:
        """Return what was written, in words."""
        return ", ".join(self._written)


def writers_for(args: ExplainArguments, session: Session, request: ExplainRequest) -> list[Writer]:
    """Return the writers that ``-o`` asks for, or the default ones.

    Raises
    ------
    ValueError, OSError
        If something can't be written there, or would overwrite an input.
    ImportError
        If a package is missing.
    """
    outputs = args.output or [_default(session)]
    taken = [Path(args.model), *(entry.path for entry in session.entries)]
    taken += [Path(args.labels)] if args.labels else []
    return [_writer(text, args, session, request, {path.resolve() for path in taken}) for text in outputs]


def _default(session: Session) -> str:
    if len(session.entries) == 1:
        return f"{session.entries[0].stem}-relevance.png"
    return "relevance/" if session.plan is not None else "relevance.npz"


def _writer(text: str, args: ExplainArguments, session: Session, request: ExplainRequest, taken: set[Path]) -> Writer:
    path, suffix = Path(text), Path(text).suffix.lower()
    options = {"kind": args.picture, "overlay": args.overlay}
    options = {name: value for name, value in options.items() if value is not None}
    if not path.parent.is_dir():
        raise FileNotFoundError(f"-o {text}: there is no folder {path.parent}")
    if path.is_dir() or text.endswith(("/", os.sep)) or not suffix:
        if path.exists() and not path.is_dir():
            raise ValueError(f"-o {text}: there is a file of that name, no folder")
        return _Pictures(path, session, taken, options)
    free_path(path, taken)
    if suffix == ".npz":
        return _Arrays(path, request.layers or ())
    if suffix == ".html":
        return _Report(path, args, session, request)
    if suffix not in PICTURES:
        raise ValueError(f"-o {text}: give an ending, {', '.join(PICTURES)}, .npz or .html, or a folder")
    if len(session.entries) > 1:
        raise ValueError(f"-o {text} is one picture, there are {len(session.entries)} inputs: give a folder, or .html")
    return _Pictures(path.parent, session, taken, options, path.name)


def free_path(path: Path, taken: set[Path]) -> None:
    """Raise ValueError where a result would overwrite an input, the model or the labels."""
    if path.resolve() in taken:
        raise ValueError(f"{path} is an input: it is not overwritten, choose another output")


class _Pictures:
    def __init__(
        self, folder: Path, session: Session, taken: set[Path], options: dict[str, Any], name: str | None = None
    ):
        from pylrp.cli.pictures import require_picture

        require_picture(session, options.get("kind"))
        self._folder, self._session, self._options = folder, session, options
        self._paths = {}
        seen: dict[str, int] = {}
        for entry in session.entries:
            seen[entry.stem] = number = seen.get(entry.stem, 0) + 1
            again = f"-{number}" if number > 1 else ""
            self._paths[id(entry)] = folder / (name or f"{entry.stem}{again}-relevance.png")
        for path in self._paths.values():
            free_path(path, taken)
        self._written: list[Path] = []

    def add(self, sample: ExplainedSample) -> None:
        from pylrp.cli.pictures import picture

        figure = picture(self._session, sample.entry, sample.item, sample.ex, self._options)
        self._folder.mkdir(exist_ok=True)
        path = self._paths[id(sample.entry)]
        atomically(path, lambda part: figure.savefig(part))
        self._written.append(path)

    def close(self) -> str:
        if len(self._written) < 2:
            return str(self._written[0]) if self._written else ""
        return f"{len(self._written)} pictures in {self._folder}/"


class _Arrays:
    """Everything of all samples, as ``Explanation.save`` lays it out, with ``names`` and ``settings``."""

    def __init__(self, path: Path, layers: Sequence[str]):
        self._path, self._layers = path, layers
        self._names: list[str] = []
        self._parts: dict[str, list[Any]] = {}
        self._fixed: dict[str, Any] = {}
        self._notes: dict[str, None] = {}

    def add(self, sample: ExplainedSample) -> None:
        entry, item, ex = sample.entry, sample.item, sample.ex
        self._names.append(entry.name)
        found: dict[str, Any] = {"target": ex.target[0] if ex.target is not None else -1}
        for what, value in (("relevance", ex.relevance), ("output", ex.output)):
            found.update(
                {f"{what}/{name}": a for name, a in value.items()} if isinstance(value, dict) else {what: value}
            )
        layers = ex.layers if self._layers == "all" else self._layers
        found.update({f"layer/{name}": ex.layers[name] for name in layers})
        found["ledger"] = np.stack([ledger.data for ledger in ledgers(ex)])
        for name, value in found.items():
            self._parts.setdefault(name, []).append(value)
        first = ledgers(ex)[0]
        if item.features:
            self._fixed["features"] = np.array(item.features)
        self._notes |= dict.fromkeys(ex.notes)
        self._fixed.update(
            composite=np.array(ex.composite),
            ledger_columns=np.array(COLUMNS),
            ledger_layers=np.array(first.names),
            ledger_rules=np.array(first.rules),
            settings=np.array(json.dumps(_settings(ex), default=str)),
        )

    def close(self) -> str:
        if not self._names:
            return ""
        arrays: dict[str, Any] = {
            name: np.concatenate(parts, axis=-1) if name == "ledger" else np.stack(parts)
            for name, parts in self._parts.items()
        }
        arrays.update(self._fixed, names=np.array(self._names), notes=np.array(list(self._notes), dtype=str))
        atomically(self._path, lambda part: np.savez_compressed(part, **arrays))
        return str(self._path)


def _settings(ex: Explanation) -> dict[str, Any]:
    kept = {name: value for name, value in ex.settings.items() if name not in ("composite", "single") and value}
    return {"pylrp": pylrp.__version__, "composite": ex.composite, **kept}


class _Report:
    def __init__(self, path: Path, args: ExplainArguments, session: Session, request: ExplainRequest):
        from pylrp.report import Report

        for option, given in (("--against", request.against is not None), ("--start one", request.start == "one")):
            if given:
                raise ValueError(f"-o {path}: a report has no {option}; write a picture or .npz")
        if session.top not in session.network.graph.outputs:
            raise ValueError(f"-o {path}: a report begins at an output, not at {session.top}; write a picture or .npz")
        self._path = path
        title = shown(f"{Path(args.model).name}: why?")
        self._report = Report(session.network, session.labels, title, probability=session.probability)
        self._request = report_request(args, session)

    def add(self, sample: ExplainedSample) -> None:
        ex = sample.everything
        if self._request is not None and self._request.ranks_classes:
            ex = some_targets(ex, self._request.shown(ex))
        self._report.add(ex, name=sample.entry.name, image=sample.item.image)

    def close(self) -> str:
        if not len(self._report):
            return ""
        atomically(self._path, self._report.write)
        return str(self._path)


def report_request(args: ExplainArguments, session: Session) -> ReportRequest | None:
    """Return what a report among the outputs shows; None where there is none."""
    if not any(Path(text).suffix.lower() == ".html" for text in args.output):
        return None
    from pylrp.report.ledger_and_layers import chosen_layers

    # Of an output with positions no class is the top one: it has to be given.
    ranked = args.target is None and args.targets is None and len(session.network.graph.shapes[session.top]) < 2
    outputs = Outputs(session.network, session.top, {}, session.probability)
    layers = tuple(chosen_layers(session.network, session.top))
    return ReportRequest(outputs, session.top, layers, args.top if ranked else None, session.meaning.two)
