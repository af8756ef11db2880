"""A stream's results as a folder of Parquet parts, one a block: for tables. Called by ``sinks.py``; pyarrow writes.

Relevance of named features has a column each, ``relevance.NAME``; an array of a sample is a list of its numbers, whose
shape stands in the column's metadata.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pylrp._files import atomically
from pylrp.stream.journal import sync_file, sync_folder
from pylrp.stream.sinks import Array, Field
from pylrp.stream.sources import missing

__all__ = ["ParquetSink"]


class ParquetSink:
    """``NAME.parquet/part-000000.parquet`` and so on."""

    def __init__(self, path: Path):
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise missing("pyarrow", "Parquet is written", error) from None
        self._arrow = pyarrow
        self.path = path
        self._about: Mapping[str, Any] = {}
        self._features: list[str] | None = None

    def create(self, fields: Mapping[str, Field], count: int | None, batch: int, about: Mapping[str, Any]) -> None:
        """Make the folder, without parts."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True)
        sync_folder(self.path.absolute().parent)
        self._take(about)

    def reopen(self, fields: Mapping[str, Field], batch: int, about: Mapping[str, Any]) -> None:
        """Go on in the folder."""
        self._take(about)

    def _take(self, about: Mapping[str, Any]) -> None:
        self._about = about
        features = about.get("features")
        self._features = list(features) if isinstance(features, list | tuple) else None

    def write(self, number: int, start: int, arrays: Mapping[str, Array]) -> None:
        """Write a part, whole or not at all."""
        count = len(next(iter(arrays.values())))
        columns: dict[str, Any] = {"index": np.arange(start, start + count)}
        shapes = {}
        for name, rows in arrays.items():
            if rows.ndim == 1:
                columns[name] = rows
            elif name == "relevance" and rows.ndim == 2 and self._features and len(self._features) == rows.shape[1]:
                columns |= {f"relevance.{feature}": rows[:, i] for i, feature in enumerate(self._features)}
            else:
                size = int(np.prod(rows.shape[1:], dtype=np.int64))
                flat = self._arrow.array(np.ascontiguousarray(rows).ravel())
                columns[name] = self._arrow.FixedSizeListArray.from_arrays(flat, size)
                shapes[name] = list(rows.shape[1:])
        table = self._arrow.table(columns)
        told = {"pylrp": json.dumps({**self._about, "shapes": shapes})}
        table = table.replace_schema_metadata(told)
        path = self.path / f"part-{number:06d}.parquet"

        def write(part: Path) -> None:
            self._arrow.parquet.write_table(table, part, compression="zstd")
            sync_file(part)

        atomically(path, write)
        sync_folder(self.path)

    def finish(self, count: int) -> None:
        """Do nothing: the parts are whole."""

    def arrays(self) -> dict[str, Any]:
        """Return all columns as arrays, in memory."""
        parts = sorted(self.path.glob("part-*.parquet"))
        if not parts:
            return {}
        table = self._arrow.parquet.read_table(self.path)
        shapes = json.loads(table.schema.metadata[b"pylrp"])["shapes"]
        found: dict[str, Any] = {}
        for name in table.column_names:
            column = table.column(name).combine_chunks()
            if name in shapes:
                found[name] = column.flatten().to_numpy().reshape(table.num_rows, *shapes[name])
            else:
                found[name] = column.to_numpy(zero_copy_only=False)
        named = [name for name in found if name.startswith("relevance.")]
        if named:
            found["relevance"] = np.column_stack([found.pop(name) for name in named])
        return found
