"""The ledger: for each layer and sample, where the relevance went. Filled by the core; ``docs/ledger.md`` reads one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import make_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pylrp.network.causes import CAUSES, COLUMNS
from pylrp.present import html

__all__ = ["COLUMNS", "Ledger", "LedgerRow", "by_sample", "with_columns"]

Values = NDArray[np.float64]
#: Version 0.1 pickled ledgers without the names of their columns.
_COLUMNS_OF_0_1 = "incoming outgoing bias stabilizer padding dead batchnorm masked rounding".split()  # noqa: SIM905

if TYPE_CHECKING:

    class _Columns:
        """For type checkers: a field of a row for each column."""

        def __init__(self, name: str, rule: str, *columns: Values): ...

        name: str
        rule: str

        def __getattr__(self, column: str) -> Values: ...

else:
    _FIELDS = [("name", str), ("rule", str), *((column, Values) for column in COLUMNS)]
    _Columns = make_dataclass("_Columns", _FIELDS, frozen=True, repr=False)


class LedgerRow(_Columns):
    """One layer's account; each field ``(batch,)``, float64, in units of relevance (shape ``()`` for one sample).

    ``incoming = outgoing +`` the causes' sum.

    Attributes
    ----------
    name, rule : str
        The layer, and the rule that was applied.
    incoming : ndarray
        Arrives from the layer above.
    outgoing : ndarray
        Reaches the layer's input.
    """

    if __doc__:  # there is none under python -OO
        __doc__ += "".join(f"{each.name} : ndarray\n        {each.help}\n    " for each in CAUSES)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what was pickled; causes that were not known then took nothing."""
        nothing = np.zeros_like(state["incoming"])
        self.__dict__.update(dict.fromkeys(COLUMNS, nothing) | state)

    @property
    def absorbed(self) -> Values:
        """Return ``incoming - outgoing``: all that did not reach the layer's input."""
        return self.incoming - self.outgoing

    def __repr__(self) -> str:
        """Return one line: sums over the batch, of the columns that are not zero."""
        sums = {column: float(np.sum(getattr(self, column))) for column in COLUMNS}
        shown = [f"{c}={n:.4g}" for c, n in sums.items() if n or c in ("incoming", "outgoing", "rounding")]
        batch = f" of {np.size(self.incoming)} samples, summed" if np.ndim(self.incoming) else ""
        return f"<LedgerRow {self.name!r}, {self.rule}{batch}: {', '.join(shown)}>"


def with_columns(pages: Values, columns: Sequence[str]) -> Values:
    """Return pages (layers, columns, ...) with the columns of this version: causes that were not known took nothing."""
    made = np.zeros((len(pages), len(COLUMNS), *pages.shape[2:]), pages.dtype)
    for i, column in enumerate(columns):
        made[:, COLUMNS.index(column)] = pages[:, i]
    return made


class Ledger:
    """Where the relevance of an explanation went, layer by layer.

    Parameters
    ----------
    data : ndarray, shape (layers, columns, batch), float64
        Columns as in :data:`pylrp.network.ledger.COLUMNS`.
    names, rules : sequence of str
        One a layer, from input to output.
    single : bool
        Whether the explanation was of one sample without a batch axis.
    """

    def __init__(self, data: Values, names: Sequence[str], rules: Sequence[str], *, single: bool = False):
        self.data = data
        self.names = tuple(names)
        self.rules = tuple(rules)
        self.single = single

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: the columns' names, too, since later versions may have more."""
        return {**self.__dict__, "columns": COLUMNS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what was pickled, with the columns of this version."""
        columns = state.pop("columns", _COLUMNS_OF_0_1)
        self.__dict__.update(state)
        if tuple(columns) != COLUMNS:
            self.data = with_columns(self.data, columns)

    @property
    def layers(self) -> list[LedgerRow]:
        """Return one row a layer, from input to output."""
        pages = self.data[:, :, 0] if self.single else self.data
        return [LedgerRow(name, rule, *page) for name, rule, page in zip(self.names, self.rules, pages, strict=True)]

    def __iter__(self) -> Iterator[LedgerRow]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, layer: int | str) -> LedgerRow:
        if isinstance(layer, str) and layer not in self.names:
            raise KeyError(f"{layer!r} has no row in the ledger; there are {', '.join(self.names)}")
        index = self.names.index(layer) if isinstance(layer, str) else layer
        return self.layers[index]

    def table(self, sample: int | None = None) -> str:
        """Return the account as text, output first.

        Parameters
        ----------
        sample : int, optional
            One sample of the batch; the default sums over the batch.
        """
        rows = self._rows(sample)
        width = max(len(name) for name, *_ in rows)
        return "\n".join(name.ljust(width) + "".join(f"{cell:>12}" for cell in row) for name, *row in rows)

    def _rows(self, sample: int | None = None) -> list[list[str]]:
        """Return the table's cells, the head first."""
        values = self.data.sum(axis=2) if sample is None else self.data[:, :, sample]
        shown = [i for i, c in enumerate(COLUMNS) if i < 2 or c == "rounding" or np.any(values[:, i])]
        names = [f"{n} {r}" for n, r in zip(self.names, self.rules, strict=True)]
        rows = [["layer", *(COLUMNS[i] for i in shown)]]
        for name, row in zip(reversed(names), values[::-1], strict=True):
            rows.append([name, *(f"{row[i] + 0.0:.4g}" for i in shown)])
        return rows

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        count = self.data.shape[2]
        note = [] if count == 1 else [f"sums over {count} samples; ledger.table(sample=...) has one"]
        return html.html(html.table(self._rows()), html.lines(note))

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"<Ledger of {len(self)} layers, {self.data.shape[2]} samples>\n{self.table()}"


def by_sample(ledger: Ledger | Sequence[Ledger]) -> Values:
    """Return an account as rows of samples: (samples, layers, columns); of several targets (samples, targets, ...)."""
    if isinstance(ledger, Ledger):
        return ledger.data.transpose(2, 0, 1)
    return np.stack([by_sample(each) for each in ledger], axis=1)
