"""One block of a stream: bad samples are found, the others explained, and everything comes back in rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import NotFinite
from pylrp.info import get_threads
from pylrp.network.causes import COLUMNS
from pylrp.network.columns import Table
from pylrp.network.explanation import Explanation
from pylrp.network.ledger import by_sample
from pylrp.network.network import Network
from pylrp.stream.journal import BadRecord, Block
from pylrp.stream.reductions import Reduction
from pylrp.stream.settings import Settings
from pylrp.stream.sinks import Field
from pylrp.stream.sources import Read, Source

__all__ = ["Blocks", "Done"]

Array = NDArray[Any]


@dataclass
class Done:
    """A block that was explained.

    Attributes
    ----------
    block : Block
        For the journal.
    good : ndarray of int
        The positions of the samples that were.
    arrays : dict of str to ndarray
        Their results, a row each.
    fields : dict of str to Field or None
        What a row is; None where no sample was good.
    state : dict of str to ndarray
        Of the reductions, after this block.
    """

    block: Block
    good: NDArray[np.intp]
    arrays: dict[str, Array]
    fields: dict[str, Field] | None
    state: dict[str, Array] = field(default_factory=dict)


class Blocks:
    """Explains blocks one after the other, and lets the reductions see them.

    Attributes
    ----------
    spared : int
        How many threads the next block leaves to others; the bits of results do not depend on them.
    """

    def __init__(
        self,
        network: Network,
        settings: Settings,
        source: Source,
        reductions: Sequence[Reduction],
        threads: int | None,
    ):
        self.network, self.settings, self.source = network, settings, source
        self.reductions, self._threads = reductions, threads
        self.fields: dict[str, Field] | None = None
        self.about: dict[str, Any] = {}
        self.notes: dict[str, None] = {}
        self._bad: list[tuple[int, str, str]] = []
        self._any = False
        self.spared = 0

    def first_bad(self) -> BadRecord:
        """Return the error of the first sample that was skipped."""
        return BadRecord(*self._bad[0]) if self._bad else BadRecord(0, "the source", "it holds no samples")

    def prepared(self, read: Read) -> Read:
        """Return a block as the network takes it: prepared by the user's function, whole numbers converted."""
        x = read.x
        if _length(x) == 0:
            return read
        if self.settings.prepare is not None:
            x = self.settings.prepare(x)
        if isinstance(x, np.ndarray) and x.dtype.kind in "biu" and self.network.graph.facts.sides is None:
            x = x.astype(self.network.dtype)
        return replace(read, x=x)

    def explain(self, number: int, read: Read) -> Done:
        """Return a block's results.

        Raises
        ------
        BadRecord
            If a sample is bad, and bad ones are not to be skipped.
        ValueError
            If every sample fails for one reason, before any has been explained: then it is no sample's fault.
        """
        start = number * self.settings.batch
        bad = dict(read.bad)
        good = np.array([i for i in range(read.count) if i not in bad], np.intp)
        self._refuse(start, bad)
        x, rows = read.x, np.arange(len(good))
        ex = None
        if len(good):
            ex, rows, bad = self._explained(x, rows, good, start, bad)
        good = good[rows] if len(good) else good
        skipped = [(start + i, name, reason) for i, (name, reason) in sorted(bad.items())]
        self._bad += skipped[:1] if not self._bad else []
        state: dict[str, Array] = {}
        arrays: dict[str, Array] = {}
        if ex is not None:
            self._any = True
            self.notes.update(dict.fromkeys(ex.notes))
            for reduction in self.reductions:
                reduction.add(ex, self.network)
            arrays = self._arrays(ex)
            if self.fields is None:
                self.fields = {name: _field(array) for name, array in arrays.items()}
                self.about = _about(ex)
        for i, reduction in enumerate(self.reductions):
            state |= {f"{i}/{key}": np.asarray(array) for key, array in reduction.state().items()}
        block = Block(number, start + read.count, skipped, read.last, read.content, read.stamp)
        return Done(block, good, arrays, self.fields if ex is not None else None, state)

    def _refuse(self, start: int, bad: Mapping[int, tuple[str, str]]) -> None:
        if bad and not self.settings.skip:
            i = min(bad)
            raise BadRecord(start + i, *bad[i])

    def _explained(
        self, x: Any, rows: NDArray[np.intp], good: NDArray[np.intp], start: int, bad: dict[int, tuple[str, str]]
    ) -> tuple[Explanation | None, NDArray[np.intp], dict[int, tuple[str, str]]]:
        """Explain rows of a block; where that fails, each alone, to find out which one fails."""
        if not len(rows):
            return None, rows, bad
        try:
            return self._call(x if len(rows) == _length(x) else take(x, rows), start + good[rows]), rows, bad
        except ValueError as error:
            finite = _finite(x)[rows]
            if not finite.all() and isinstance(error, NotFinite):
                bad |= {
                    i: (self.source.name(start + i), "it holds NaN or infinite numbers")
                    for i in good[rows[~finite]].tolist()
                }
                self._refuse(start, bad)
                return self._explained(x, rows[finite], good, start, bad)
            failures: dict[int, ValueError] = {}
            for row in rows.tolist():
                try:
                    self._call(take(x, np.array([row])), start + good[[row]])
                except ValueError as alone:
                    failures[row] = alone
            texts = {str(reason) for reason in failures.values()}
            if not failures or (not self._any and len(failures) == len(rows) and len(texts | {str(error)}) == 1):
                raise
            for row, reason in failures.items():
                bad[int(good[row])] = (self.source.name(int(start + good[row])), str(reason))
            self._refuse(start, bad)
            rest = np.array([row for row in rows.tolist() if row not in failures], np.intp)
            return (self._call(take(x, rest), start + good[rest]) if len(rest) else None), rest, bad

    def _call(self, x: Any, indices: Any) -> Explanation:
        asked = dict(self.settings.explain)
        if self.settings.targets is not None:
            asked["target"] = self.settings.targets[indices]
        threads = self._threads if self.spared == 0 else max(1, (self._threads or get_threads()) - self.spared)
        return self.network.explain(x, threads=threads, **asked)

    def _arrays(self, ex: Explanation) -> dict[str, Array]:
        """Return an explanation's arrays by name, a row a sample."""
        found: dict[str, Any] = {}
        for what, value in (("relevance", ex.relevance), ("output", ex.output)):
            if isinstance(value, dict):
                found |= {f"{what}.{name}": array for name, array in value.items()}
            else:
                found[what] = value
        if ex.target is not None:
            found["target"] = np.asarray(ex.target)
        found["ledger"] = by_sample(ex.ledger)
        return {name: array for name, array in found.items() if name.partition(".")[0] in self.settings.keep}

    def rows(self, done: Done, fields: Mapping[str, Field]) -> dict[str, Array]:
        """Return arrays with a row for each sample of a block, those that were skipped included."""
        count = done.block.stop - done.block.number * self.settings.batch
        if len(done.good) == count:
            return done.arrays
        made = {name: each.rows(count) for name, each in fields.items()}
        if done.arrays:
            for name, array in done.arrays.items():
                made[name][done.good] = array
        return made


def take(x: Any, rows: NDArray[np.intp]) -> Any:
    """Return some samples of a block."""
    if isinstance(x, Mapping):
        return {name: take(array, rows) for name, array in x.items()}
    if isinstance(x, Table):
        return Table(x.to_numpy()[rows], x.columns)
    return x.iloc[rows] if hasattr(x, "iloc") else x[rows]


def _length(x: Any) -> int:
    if isinstance(x, Mapping):
        return _length(next(iter(x.values()))) if x else 0
    return len(x.to_numpy()) if isinstance(x, Table) else len(x)


def _finite(x: Any) -> NDArray[np.bool_]:
    """Return for each sample whether its numbers are finite."""
    if isinstance(x, Mapping):
        return np.asarray(np.logical_and.reduce([_finite(array) for array in x.values()]))
    array = x if isinstance(x, np.ndarray) else np.asarray(x.to_numpy() if hasattr(x, "to_numpy") else x)
    if array.dtype.kind != "f":
        return np.ones(len(array), bool)
    return np.asarray(np.isfinite(array).reshape(len(array), -1).all(axis=1))


def _field(array: Array) -> Field:
    return Field(array.shape[1:], array.dtype.str, float("nan") if array.dtype.kind == "f" else -1)


def _about(ex: Explanation) -> dict[str, Any]:
    """Return the names that go with the arrays."""
    ledger = ex.ledger[0] if isinstance(ex.ledger, list) else ex.ledger
    features = ex.features
    return {
        "ledger_layers": list(ledger.names),
        "ledger_rules": list(ledger.rules),
        "ledger_columns": list(COLUMNS),
        "features": {k: v and list(v) for k, v in features.items()}
        if isinstance(features, dict)
        else features and list(features),
    }
