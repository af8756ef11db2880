"""What a stream has made: arrays on disk, what was skipped, what reductions found, and what reproduces it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pylrp.stream.journal import Journal
from pylrp.stream.sinks import open_sink

__all__ = ["StreamResult"]


@dataclass(frozen=True, eq=False)
class StreamResult:
    """The result of :func:`pylrp.stream.explain`.

    Attributes
    ----------
    path : Path
    count : int
        Samples that are done, those that were skipped included.
    complete : bool
        Whether the source ended.
    skipped : list of (index, name, reason)
    run : dict
        What reproduces it: network (a hash), source, ``content`` (a hash of the samples that are done), batch,
        settings, version, instruction set; the names of the ledger's layers, rules and columns, and features.
    reductions : dict of str to object
        What each reduction found, by its ``name``; empty where the result was only opened.
    notes : tuple of str
        What explaining changed in what it was given.
    """

    path: Path
    count: int
    complete: bool
    skipped: list[tuple[int, str, str]]
    run: Mapping[str, Any]
    reductions: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> StreamResult:
        """Return what is done so far in a path, of this or another process.

        Raises
        ------
        FileNotFoundError
            If no stream was written there.
        """
        journal = Journal(Path(path))
        if not journal.exists:
            raise FileNotFoundError(f"no stream was written to {path}: there is no {journal.folder}")
        return cls.of(journal)

    @classmethod
    def of(
        cls, journal: Journal, reductions: Mapping[str, Any] | None = None, notes: tuple[str, ...] = ()
    ) -> StreamResult:
        """Return what a journal says."""
        stored = journal.stored()
        blocks = journal.blocks
        content = hashlib.sha256("".join(block.content for block in blocks).encode())
        return cls(
            journal.result,
            blocks[-1].stop if blocks else 0,
            bool(blocks) and blocks[-1].last,
            [told for block in blocks for told in block.skipped],
            {**stored["run"], **stored["about"], "content": content.hexdigest()[:16]},
            dict(reductions or {}),
            notes,
        )

    def arrays(self) -> dict[str, Any]:
        """Return what was written, by name: ``relevance``, ``output``, ``target``, ``ledger``.

        They are read from the disk a slice at a time, ``arrays()["relevance"][5:10]``; those of Parquet are in memory.
        """
        return open_sink(self.path).arrays()

    def __repr__(self) -> str:
        state = "complete" if self.complete else "unfinished"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        found = f", {', '.join(self.reductions)}" if self.reductions else ""
        return f"<StreamResult {str(self.path)!r}: {self.count} samples, {state}{skipped}{found}>"

    def to_json(self) -> str:
        """Return what reproduces the result as a text."""
        return json.dumps(dict(self.run), indent=1)
