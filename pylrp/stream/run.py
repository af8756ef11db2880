"""``pylrp.stream.explain``: blocks of samples are read, explained and written at the same time, three in turn.

``settings.py`` settles what is asked, ``blocks.py`` explains one block. A thread reads ahead, the caller's thread
explains, another one writes and commits; queues of one block between them bound the memory. Blocks are committed in
order, so that what the journal holds is always a beginning of the result.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pylrp.network.network import Network
from pylrp.present.progress import reporting
from pylrp.stream.blocks import Blocks, Done
from pylrp.stream.content import compare, read_marked
from pylrp.stream.journal import Journal
from pylrp.stream.reductions import Reduction
from pylrp.stream.result import StreamResult
from pylrp.stream.settings import KEPT, Settings, settle
from pylrp.stream.sinks import Field, Sink, open_sink
from pylrp.stream.sources import ArraySource, Read, open_source

__all__ = ["explain"]


def explain(
    network: Network,
    source: Any,
    sink: str | os.PathLike[str],
    *,
    batch: int | None = None,
    memory: int | str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    resume: bool = True,
    keep: Sequence[str] = KEPT,
    reductions: Sequence[Reduction] = (),
    prepare: Callable[[Any], Any] | None = None,
    progress: bool | Callable[[int, int], object] = False,
    target: Any = None,
    targets: Sequence[Any] | None = None,
    against: Any = None,
    composite: Any = None,
    rules: Any = None,
    start: Literal["logit", "one"] = "logit",
    output: str | None = None,
    convention: str = "zennit",
    precision: str | None = None,
    threads: int | None = None,
    **files: Any,
) -> StreamResult:
    """Explain all samples of a source, of any size, and write the results; go on where a killed process was.

    The samples lie on a grid of batches, which is stored with the result. A batch counts when its results, the state of
    the reductions and a line of the journal beside the result have reached the disk: a process that is killed at any
    time and started again goes on behind the last one that counts, and the result has the same bits as if it had not
    been killed.

    Parameters
    ----------
    network : Network
    source : path, array, data frame, dict of arrays, or iterator
        A folder or pattern of images, ``.npy`` (mapped), ``.h5``, ``.zarr``, ``.parquet`` (a file or a folder of
        parts), an array of NumPy, h5py or zarr, a data frame, a dict of arrays by input, or any iterator over samples,
        which can't be read again: it is refused where something is to be gone on with.
    sink : path
        ``NAME.zarr``; ``NAME.npy``, with ``NAME.output.npy`` and so on beside it; or ``NAME.parquet``, a folder of
        parts. Beside it stands the folder ``NAME.zarr.journal``.
    batch : int, optional
        Samples at a time. Default: what ``memory`` allows, at most 4096.
    memory : int or str, optional
        What samples on their way may take, in bytes or as "500 MB", whatever the size of the source: default 512 MB.
        What the program and the network take by themselves comes on top.
    on_error : {"raise", "skip"}
        What happens where a sample can't be read or explained: :class:`BadRecord` names it; or its row is NaN (its
        target -1), ``StreamResult.skipped`` names it, and the others go on.
    resume : bool, default True
        Go on with what is in the sink. A complete result is returned at once. False: begin anew.
    keep : sequence of {"relevance", "output", "target", "ledger"}
        What is written.
    reductions : sequence of Reduction
        Computed on the way: :class:`ClassMeans`, :class:`TopFeatures`, :class:`LedgerSum`, :class:`FlippingCurves`.
    prepare : callable, optional
        Makes of a block of the source what the network takes: ``lambda x: x.astype("float32") / 255``. Whole numbers
        are converted without it.
    progress : bool or callable
        A bar with the rate and the time left, on a terminal; or a function, called as ``progress(done, total)``.
    target, targets, against, composite, rules, start, output, convention, precision, threads
        As for :meth:`pylrp.Network.explain`; an array of targets has one for each sample of the source.
    **files
        Of a source in files: ``preparation`` (``pylrp.inputs.Preparation``), ``table``, ``recursive``; ``dataset``
        (the array in HDF5 or Zarr), ``columns`` (of Parquet).

    Returns
    -------
    StreamResult

    Raises
    ------
    BadRecord
        If a sample can't be read or explained, and ``on_error`` is "raise".
    DifferentRun
        If the sink holds what was begun with another network, source, batch or setting, by another version, or on
        another instruction set, whose bits differ.
    FileExistsError
        If the sink exists and is no stream's.
    BlockingIOError
        If another process writes to the sink.
    ValueError
        If a batch needs more than ``memory``, or the source is an iterator and there is something to go on with.
    ImportError
        If zarr, h5py or pyarrow is needed and not installed.

    Examples
    --------
    >>> import numpy as np, pylrp, tempfile, os
    >>> from pylrp.layers import Dense
    >>> net = pylrp.Network([Dense([[3.0, 2.0], [1.0, 1.0]])])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = pylrp.stream.explain(net, np.ones((5, 2)), os.path.join(folder, "maps.npy"), batch=2)
    ...     print(result.count, result.arrays()["relevance"][4].round(3))
    5 [3. 2.]
    """
    asked = {
        "target": target, "targets": targets, "against": against, "composite": composite, "rules": rules,
        "start": start, "output": output, "convention": convention, "precision": precision,
    }  # fmt: skip
    opened = open_source(source, network, **files)
    try:
        settings = settle(network, opened, batch, memory, keep, reductions, prepare, on_error, asked)
        return _explain(Blocks(network, settings, opened, reductions, threads), Path(sink), resume, progress)
    finally:
        if isinstance(opened, ArraySource):
            opened.close()


def _explain(blocks: Blocks, sink: Path, resume: bool, progress: bool | Callable[[int, int], object]) -> StreamResult:
    """Go on with what a sink holds, or begin; return what is there in the end."""
    settings, source, reductions = blocks.settings, blocks.source, blocks.reductions
    target_sink, journal = open_sink(sink), Journal(sink)
    if not journal.exists and sink.exists():
        raise FileExistsError(f"{sink} exists and was not written by pylrp.stream: move it, or choose another name")
    with journal.alone():
        stored = journal.go_on(settings.run) if journal.exists and resume else {}
        if journal.blocks:
            with reporting(progress is True, "comparing what is explained", source.count) as report:
                compare(source, journal.blocks, settings.batch, sink, report)
            if source.count is None and not journal.blocks[-1].last:
                raise ValueError(
                    f"{sink} holds {journal.blocks[-1].stop} samples of an iterator, which can't be read again to go "
                    "on: resume=False begins anew"
                )
            fields = {name: Field(tuple(s), d, m) for name, (s, d, m) in stored["fields"].items()}
            target_sink.reopen(fields, settings.batch, _attributes(stored["about"], settings))
        else:
            fields = {}
        for reduction, state in zip(reductions, _states(journal, reductions), strict=True):
            reduction.restore(state)
        run = _Run(blocks, target_sink, journal, fields)
        if not (journal.blocks and journal.blocks[-1].last):
            with reporting(progress, "explaining", source.count) as report:
                run.go(report)
        found = {reduction.name: reduction.result() for reduction in reductions}
        return StreamResult.of(journal, found, tuple(blocks.notes))


def _states(journal: Journal, reductions: Sequence[Reduction]) -> list[dict[str, Any]]:
    """Return the state of each reduction after the last block that counts."""
    held = journal.state()
    return [
        {key.partition("/")[2]: array for key, array in held.items() if key.startswith(f"{number}/")}
        for number in range(len(reductions))
    ]


class _Run:
    """The three threads of a run."""

    def __init__(self, blocks: Blocks, sink: Sink, journal: Journal, fields: dict[str, Field]):
        self.blocks, self.sink, self.journal, self.fields = blocks, sink, journal, fields
        self.settings, self.source = blocks.settings, blocks.source
        self._read: queue.Queue[Read | BaseException | None] = queue.Queue(1)
        self._made: queue.Queue[tuple[int, Done] | None] = queue.Queue(1)
        self._over = threading.Event()
        self._failed: BaseException | None = None

    def go(self, report: Callable[[int, int | None], None]) -> None:
        """Run to the end of the source; what is explained is written, whatever happens."""
        first = len(self.journal.blocks)
        report(first * self.settings.batch, self.source.count)
        reader = threading.Thread(target=self._reading, args=(first,), name="pylrp.stream reads", daemon=True)
        writer = threading.Thread(target=self._writing, args=(report,), name="pylrp.stream writes", daemon=True)
        reader.start()
        writer.start()
        try:
            for number, read in enumerate(self._blocks_read(), first):
                # Where writing takes longer than explaining, what waits in the queue says so: a processor for it.
                self.blocks.spared = int(self._made.full())
                done = self.blocks.explain(number, read)
                self._put(self._made, (number, done))
        finally:
            self._over.set()
            self._put(self._made, None)
            writer.join()
            reader.join()
        if self._failed is not None:
            raise self._failed
        self.sink.finish(self.journal.blocks[-1].stop if self.journal.blocks else 0)

    def _blocks_read(self) -> Iterator[Read]:
        while self._failed is None:
            found = self._read.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                return
            yield found
            del found  # before the next one is waited for

    def _put(self, line: queue.Queue[Any], item: Any) -> None:
        """Wait for room in a queue, while there is somebody who takes from it."""
        while not (self._over.is_set() if line is self._read else self._failed is not None):
            try:
                line.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def _reading(self, number: int) -> None:
        try:
            last = False
            while not last and not self._over.is_set():
                start = number * self.settings.batch
                read = read_marked(self.source, start, start + self.settings.batch)
                last = read.last
                if read.count == 0 and number > 0:
                    break
                self._put(self._read, self.blocks.prepared(read))
                del read
                number += 1
            self._put(self._read, None)
        except BaseException as error:
            self._put(self._read, error)

    def _writing(self, report: Callable[[int, int | None], None]) -> None:
        held: list[tuple[int, Done]] = []  # blocks of bad samples only, before it is known what a row is
        try:
            while (item := self._made.get()) is not None:
                held.append(item)
                if not self.fields and item[1].fields is None and not item[1].block.last:
                    continue
                for number, done in held:
                    self._write(number, done)
                    report(done.block.stop, self.source.count)
                held.clear()
        except BaseException as error:
            self._failed = error

    def _write(self, number: int, done: Done) -> None:
        if not self.fields:
            self._create(done)
        arrays = self.blocks.rows(done, self.fields)
        if done.block.stop > number * self.settings.batch:
            self.sink.write(number, number * self.settings.batch, arrays)
        self.journal.commit(done.block, done.state)

    def _create(self, done: Done) -> None:
        found = self.blocks.fields
        if found is None:
            raise self.blocks.first_bad()
        about = {"fields_version": 1, **self.blocks.about}
        stored = {name: [list(field.shape), field.dtype, field.missing] for name, field in found.items()}
        self.journal.begin({"run": self.settings.run, "fields": stored, "about": about})
        self.sink.create(found, self.source.count, self.settings.batch, _attributes(about, self.settings))
        self.fields = found


def _attributes(about: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    return {**about, "run": settings.run}
