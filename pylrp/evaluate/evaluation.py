"""What the checks found for several composites: one table, one figure, one file; ``run.py`` fills it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pylrp._files import save_arrays
from pylrp.evaluate.curves import Curves, InsertionDeletion
from pylrp.evaluate.evaluated_batch import Array, Values
from pylrp.evaluate.map_agreement import Agreement
from pylrp.evaluate.random_weights import Randomisation
from pylrp.evaluate.robustness import Sensitivity
from pylrp.evaluate.statistics import band
from pylrp.present import html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Evaluation"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the checks found, each a dict by composite; empty, or None, where a check was not run.

    Attributes
    ----------
    composites : tuple of str
    relevance : dict of str to ndarray of shape (batch, ...)
    target : ndarray of shape (batch,)
    curves : dict of str to Curves
        Pixel flipping; all share one random baseline.
    insertion : dict of str to InsertionDeletion
    sensitivity : dict of str to Sensitivity
    randomisation : dict of str to Randomisation
    agreement : Agreement or None
    settings : dict
    """

    composites: tuple[str, ...]
    relevance: dict[str, Array]
    target: NDArray[np.int64]
    curves: dict[str, Curves]
    insertion: dict[str, InsertionDeletion]
    sensitivity: dict[str, Sensitivity]
    randomisation: dict[str, Randomisation]
    agreement: Agreement | None
    settings: dict[str, Any]

    def table(self) -> str:
        """Return a line a composite, best first by the area between its curves, and the agreement below.

        Means over samples, and the 95 % bootstrap band of the area between the curves; below the names of the columns
        what is good.
        """
        rows = self._rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        text = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
        if self.agreement is not None:
            text += ["", self.agreement.table()]
        return "\n".join(text)

    def _rows(self) -> list[list[str]]:
        """Return the table's cells: two rows of heads, then one a composite."""
        columns: list[tuple[str, str, Callable[[str], str]]] = []
        if self.curves:
            columns += [
                ("ABPC", "high", lambda name: f"{self.curves[name].abpc.mean():.3g}"),
                ("95 % band", "", lambda name: _shown_band(self.curves[name].abpc)),
                ("AOPC most", "high", lambda name: f"{self.curves[name].aopc['most'].mean():.3g}"),
                ("least", "low", lambda name: f"{self.curves[name].aopc['least'].mean():.3g}"),
            ]
        if self.insertion:
            columns += [
                ("deletion", "low", lambda name: f"{self.insertion[name].deletion_auc.mean():.3g}"),
                ("insertion", "high", lambda name: f"{self.insertion[name].insertion_auc.mean():.3g}"),
            ]
        if self.sensitivity:
            columns.append(("max-sens.", "low", lambda name: f"{self.sensitivity[name].maximum.mean():.3g}"))
        if self.randomisation:
            columns.append(("all random", "near 0", lambda name: f"{_last(self.randomisation[name]):.2f}"))
        rows = [["composite", *(title for title, _, _ in columns)], ["", *(good for _, good, _ in columns)]]
        rows += [[name, *(cell(name) for _, _, cell in columns)] for name in self._ranked()]
        if self.curves:
            baseline = next(iter(self.curves.values())).aopc["random"].mean()
            known = {"ABPC": "0", "AOPC most": f"{baseline:.3g}", "least": f"{baseline:.3g}"}
            rows.append(["random order", *(known.get(title, "") for title, _, _ in columns)])
        return rows

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        title = f"{len(self.composites)} composites, {len(self.target)} samples"
        agreed = "" if self.agreement is None else self.agreement._repr_html_()
        return html.html(html.lines([title]), html.table(self._rows()), agreed)

    def _ranked(self) -> list[str]:
        if not self.curves:
            return list(self.composites)
        return sorted(self.composites, key=lambda name: -float(self.curves[name].abpc.mean()))

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Return a figure: curves of all composites with the random baseline and bands, areas, randomised weights.

        Parameters
        ----------
        path : path-like, optional
            Write it to this file, too: PNG, PDF, SVG. Without, ``plt.show()`` shows it where pyplot is imported.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from pylrp.evaluate.figure import figure
        from pylrp.plot.colours import register_with_pyplot

        drawn = figure(self)
        if path is not None:
            drawn.savefig(path)
        register_with_pyplot(drawn, path, None)
        return drawn

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a ``.npz`` file.

        Arrays are called ``relevance/<composite>``, ``flipping/<composite>/<order>``, ``insertion/<composite>``,
        ``deletion/<composite>``, ``sensitivity/<composite>``, ``randomisation/<composite>/<measure>``,
        ``agreement/<measure>``, ``flipping/fractions`` and so on; ``settings`` is JSON.
        """
        arrays: dict[str, Any] = {"composites": np.array(self.composites), "target": self.target}
        arrays["settings"] = np.array(json.dumps(self.settings, default=str))
        for name in self.composites:
            arrays[f"relevance/{name}"] = self.relevance[name]
            if self.curves:
                arrays["flipping/fractions"] = self.curves[name].fractions
                arrays |= {f"flipping/{name}/{order}": s for order, s in self.curves[name].scores.items()}
            if self.insertion:
                arrays["insertion/fractions"] = self.insertion[name].fractions
                arrays[f"insertion/{name}"] = self.insertion[name].insertion
                arrays[f"deletion/{name}"] = self.insertion[name].deletion
            if self.sensitivity:
                arrays[f"sensitivity/{name}"] = self.sensitivity[name].changes
            if self.randomisation:
                found = self.randomisation[name]
                arrays |= {"randomisation/layers": np.array(found.layers), "randomisation/depths": found.depths}
                for measure in ("spearman", "spearman_absolute", "cosine"):
                    arrays[f"randomisation/{name}/{measure}"] = getattr(found, measure)
        if self.agreement is not None:
            arrays |= {"agreement/spearman": self.agreement.spearman, "agreement/overlap": self.agreement.overlap}
        save_arrays(path, arrays)

    def __repr__(self) -> str:
        return f"<Evaluation of {len(self.composites)} composites, {len(self.target)} samples>\n{self.table()}"


def _last(found: Randomisation) -> float:
    return float(found.spearman[:, -1].mean())


def _shown_band(values: Values) -> str:
    if len(values) == 1:
        return "one sample"
    low, high = band(values)
    return f"{low:.3g} to {high:.3g}"
