"""What :meth:`pylrp.Network.verify` returns: a table of layers, the largest errors and one sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pylrp.present import html

__all__ = ["LayerCheck", "Verification"]

Deviation = Literal["prediction", "values", "relevance", "ledger", "attention"]


@dataclass(frozen=True)
class LayerCheck:
    """One layer of the network beside the file.

    Errors are the largest difference of an entry, as a share of the largest entry of the sample; the largest of the
    batch. None where there is nothing to compare: the value is not in the file, or no relevance came there.

    Attributes
    ----------
    name, kind, rule : str
    value_error : float or None
        Of the layer's output.
    incoming_error : float or None
        Of the relevance that arrives at its output.
    outgoing_error : float or None
        Of the relevance at its inputs: the largest of them.
    rounding : float or None
        The ledger's column, as a share of the sum of the incoming relevance's magnitudes.
    """

    name: str
    kind: str
    rule: str
    value_error: float | None = None
    incoming_error: float | None = None
    outgoing_error: float | None = None
    rounding: float | None = None


@dataclass(frozen=True, eq=False)
class Verification:
    """Whether a network and its explanation are what the model's file says.

    It is true if it passed: ``assert net.verify(x)``. Printed, it is a table of layers from the output down, and the
    verdict.

    Attributes
    ----------
    passed : bool
    verdict : str
        One sentence.
    first_wrong : str or None
        The layer to look at: of values that differ the lowest; else of relevance the highest layer that hands down
        something else; else of the ledger the highest that does not close; else the product with the values of fused
        attention that differs from its nodes one by one. None where all is right.
    deviation : {"prediction", "values", "relevance", "ledger", "attention"} or None
        What is wrong there.
    layers : tuple of LayerCheck
        From input to output.
    prediction_error, relevance_error, ledger_error : float
        Of the output against ``evaluator``; the largest of all layers' relevance; the largest rounding in the ledger.
    tolerance : float
        What an error may be.
    evaluator : str
        What computed the file's prediction: "onnxruntime", "onnx" (its reference evaluator) or "numpy".
    compared : tuple of (int, int)
        How many layers' values, and how many layers' relevance, were compared.
    notes : tuple of str
        What was taken over from the network, or could not be compared.
    fused_error : float or None
        Of attention that is one layer in the core (a call that asks for its values takes it apart): the largest
        difference of an output, or of the inputs' relevance, from that call. None where there is none.
    """

    passed: bool
    verdict: str
    first_wrong: str | None
    deviation: Deviation | None
    layers: tuple[LayerCheck, ...]
    prediction_error: float
    relevance_error: float
    ledger_error: float
    tolerance: float
    evaluator: str
    compared: tuple[int, int]
    notes: tuple[str, ...] = field(default=())
    fused_error: float | None = None

    @property
    def ok(self) -> bool:
        """Whether it passed."""
        return self.passed

    def __bool__(self) -> bool:
        """Return whether it passed."""
        return self.passed

    def __getitem__(self, name: str) -> LayerCheck:
        """Return the row of a layer by its name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer is called {name!r}; there are {', '.join(layer.name for layer in self.layers)}")

    def table(self) -> str:
        """Return the layers as text, output first."""
        rows = self._rows()
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
            + "".join(f"{cell:>11}" for cell in row[3:7])
            + row[7]
            for row in rows
        )

    def _rows(self) -> list[list[str]]:
        rows = [["layer", "kind", "rule", "value", "incoming", "outgoing", "rounding", ""]]
        for layer in reversed(self.layers):
            errors = (layer.value_error, layer.incoming_error, layer.outgoing_error, layer.rounding)
            mark = "  <- first" if layer.name == self.first_wrong else ""
            rows.append([layer.name, layer.kind, layer.rule, *map(_shown, errors), mark])
        return rows

    def __str__(self) -> str:
        lines = [self.table(), *(f"note: {note}" for note in self.notes), self.verdict]
        return "\n".join(line.rstrip() for line in "\n".join(lines).split("\n"))

    def __repr__(self) -> str:
        return f"<Verification {'passed' if self.passed else 'failed'}: {self.verdict}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html.html(html.table(self._rows(), words=3), html.lines([*self.notes, self.verdict]))


def _shown(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}" if error else "0"
