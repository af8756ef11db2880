"""Rows of ``.csv`` and ``.tsv`` files as samples of a tabular model; called by ``files.py``."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pylrp.inputs.base import Entry, Item, Wanted, as_network_takes_it, refuse
from pylrp.inputs.errors import Option, OptionError

__all__ = ["TableOptions", "table_entries"]


@dataclass(frozen=True)
class TableOptions:
    """Which columns of a table are no features.

    Parameters
    ----------
    label : str, optional
        The column with the true class, by name or number (from 1).
    drop : sequence of str
        Columns to leave out.
    """

    label: str | None = None
    drop: Sequence[str] = ()


def table_entries(path: Path, wanted: Wanted, options: TableOptions) -> list[Entry]:
    """Return one sample a row.

    A first row in which a cell is no number is a header, and names the features. Cells are separated by commas, in
    ``.tsv`` files by tabs. Empty lines are skipped.
    """
    name = wanted.only_input("a table")
    shape = wanted.shapes[name]
    if len(shape) != 1:
        refuse(f"rows of a table are for networks that take a row of numbers, this one takes {shape}")
    lines = _lines(path)
    header = None
    if any(_number(cell) is None for cell in lines[0][1]):
        header = [cell.strip() for cell in lines.pop(0)[1]]
        if not lines:
            refuse("it holds a header and no rows")
    width = len(lines[0][1]) if header is None else len(header)
    names = header or [f"column {i + 1}" for i in range(width)]
    label = None if options.label is None else _column(options.label, names)
    left_out = {_column(column, names) for column in options.drop} | ({label} if label is not None else set())
    kept = [i for i in range(width) if i not in left_out]
    _require_width(len(kept), shape[0], names, options)
    features = tuple(names[i] for i in kept)
    entries = []
    for number, cells in lines:
        if len(cells) != width:
            refuse(f"line {number} has {len(cells)} cells, {'the header' if header else 'the first row'} has {width}")
        values = [_value(cells[i], number, names[i]) for i in kept]
        row = as_network_takes_it(np.array(values), wanted.dtype, f"line {number}")
        truth = None if label is None else cells[label].strip()
        item = Item({name: row}, features=features, truth=truth)
        entries.append(Entry(f"{path}:{number}", f"{path.stem}-{number}", path, partial(_same, item)))
    return entries


def _same(item: Item) -> Item:
    return item


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the rows that are not empty, with the number of the line on which each ends."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"it can't be read as a table: {error}") from None
    if not lines:
        refuse("it is empty")
    return lines


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _value(cell: str, line: int, column: str) -> float:
    value = _number(cell)
    if value is None or not math.isfinite(value):
        what = "is empty" if not cell.strip() else f"is {cell.strip()!r}, not a number"
        refuse(f"line {line}, {column}: the cell {what}")
    return value


def _column(wanted: str, names: Sequence[str]) -> int:
    if wanted in names:
        return list(names).index(wanted)
    if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    refuse(f"there is no column {wanted!r}; there are {len(names)}: {shown}")


def _require_width(have: int, need: int, names: Sequence[str], options: TableOptions) -> None:
    if have == need:
        return
    text = f"it has {have} columns of features, the network takes {need}"
    if have > need:
        last = f" (the last one is {names[-1]!r})" if have == need + 1 and options.label is None else ""
        raise OptionError(
            f"{text}: name those that are none, ",
            Option("label"),
            " for the true class, ",
            Option("drop"),
            f" for others{last}",
        )
    if len(names) == 1:
        text += ": are its cells separated by commas?"
    refuse(text)
