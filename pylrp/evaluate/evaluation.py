"""``evaluate``: the same questions put to several composites, one table, one figure; the command line prints them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp._files import save_arrays
from pylrp.evaluate.curves import Curves, InsertionDeletion
from pylrp.evaluate.evaluated_batch import Array, EvaluatedBatch, Progress, Score, Values, quiet
from pylrp.evaluate.flipping import insertion_deletion, pixel_flipping
from pylrp.evaluate.map_agreement import Agreement, agreement
from pylrp.evaluate.random_weights import Randomisation, Weights, randomisation
from pylrp.evaluate.replacement import Replacement
from pylrp.evaluate.robustness import Sensitivity, sensitivity
from pylrp.evaluate.statistics import band
from pylrp.layers.base import Shape
from pylrp.network.network import Network
from pylrp.present import html
from pylrp.rules.defaults import usual_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CHECKS", "Evaluation", "evaluate"]

Check = Literal["flipping", "insertion", "sensitivity", "randomisation", "agreement"]
#: What :func:`evaluate` can do, in its order.
CHECKS: tuple[Check, ...] = ("flipping", "insertion", "sensitivity", "randomisation", "agreement")

_SQUARES = 28  # along the longest side of an image, unless a patch is given


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
        from pylrp.plot.colours import hand_over

        drawn = figure(self)
        if path is not None:
            drawn.savefig(path)
        hand_over(drawn, path, None)
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


def evaluate(
    net: Network,
    x: ArrayLike,
    composites: Sequence[str] | Mapping[str, Any] | None = None,
    *,
    target: int | ArrayLike | None = None,
    checks: Sequence[Check] = CHECKS,
    steps: int = 100,
    patch: int | Sequence[int] | None = None,
    replacement: Replacement = "mean",
    score: Score = "logit",
    repeats: int = 3,
    draws: int = 10,
    weights: Weights = "permute",
    stages: int | None = 10,
    layout: Shape | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    finished: Callable[[Evaluation], object] | None = None,
) -> Evaluation:
    """Put the same questions to the maps of several composites.

    Parameters
    ----------
    net : Network
        With one input, and one output without positions.
    x : array_like of shape (batch, ...)
        As the network takes it. More samples make narrower bands; some 20 are little.
    composites : sequence of str, or mapping of str to str, Composite, Rule or sequence of Rule, optional
        The maps to compare. A mapping gives names to composites of your own. Default: the usual ones for such a
        network, the default of :meth:`pylrp.Network.explain` among them.
    target : int or sequence of int, optional
        The class that is explained and scored. Default: the top class of each sample.
    checks : sequence of str
        Which of "flipping" (:func:`pixel_flipping`), "insertion" (:func:`insertion_deletion`), "sensitivity",
        "randomisation" and "agreement" to run. Default: all.
    steps, repeats, replacement, score, layout, seed
        As for :func:`pixel_flipping`. "inpaint" is for flipping alone; deletion then takes "mean". Insertion begins
        with a blurred input, or with the replacement where features have no positions.
    patch : int or sequence of int, optional
        Pixels along a square. Default: some 28 squares along the longest side.
    draws : int, default 10
        As for :func:`sensitivity`.
    weights, stages
        As for :func:`randomisation`; ``stages`` is by default at most 10.
    progress : callable, optional
        Called as ``progress(done, total)`` over everything, in samples that are predicted; an explained one counts 4.
    finished : callable, optional
        Called after each composite with an :class:`Evaluation` of those that are done, so that an interruption of long
        work loses only what has just been begun.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If a check or composite is unknown, or shapes or options do not fit.
    """
    composites = usual_for(net.graph, bounds=False) if composites is None else composites
    named = dict(composites) if isinstance(composites, Mapping) else {name: name for name in composites}
    if not named:
        raise ValueError("composites is empty: pass at least one")
    for check in checks:
        if check not in CHECKS:
            raise ValueError(f"check {check!r} is unknown, there are {', '.join(CHECKS)}")
    evaluated = EvaluatedBatch(net, x, target, score, layout)
    if patch is None:
        patch = max(1, round(max(evaluated.shape[1:]) / _SQUARES)) if len(evaluated.shape) > 1 else 1
    batch, positions = len(evaluated), len(evaluated.shape) > 1
    layers = sum(node.layer.weighted for node in net.graph.nodes)
    explained = 4 * batch
    costs = {
        "flipping": 2 * batch * (steps + 1),
        "insertion": 2 * batch * (steps + 1),
        "sensitivity": explained * (draws + 1),
        "randomisation": explained * (1 + (layers if stages is None else min(stages, layers))),
    }
    random = batch * (steps + 1) * repeats if "flipping" in checks else 0
    total = random + len(named) * (explained + sum(costs.get(check, 0) for check in checks))
    report = _Parts(progress, total)

    common: dict[str, Any] = {"target": evaluated.target, "seed": seed}
    flipping = {**common, "steps": steps, "patch": patch, "score": score, "layout": layout}
    deleted = "mean" if isinstance(replacement, str) and replacement == "inpaint" else replacement
    into = "blur" if positions else deleted
    maps: dict[str, Array] = {}
    curves: dict[str, Curves] = {}
    inserted: dict[str, InsertionDeletion] = {}
    sensitive: dict[str, Sensitivity] = {}
    cascades: dict[str, Randomisation] = {}
    flip: dict[str, Any] = {**flipping, "replacement": replacement}
    settings = {
        "composites": {name: str(c) for name, c in named.items()}, "checks": list(checks), "steps": steps,
        "patch": patch,
        "replacement": replacement if isinstance(replacement, str | float | int) else "array", "score": score,
        "repeats": repeats, "draws": draws, "weights": weights, "stages": stages, "seed": seed,
    }  # fmt: skip

    def so_far() -> Evaluation:
        agreed = agreement({name: _pixels(evaluated, R) for name, R in maps.items()}) if "agreement" in checks else None
        given = {name: evaluated.columns.to_caller(R) for name, R in maps.items()}
        return Evaluation(
            tuple(maps), given, evaluated.target, dict(curves), dict(inserted), dict(sensitive), dict(cascades),
            agreed, settings,
        )  # fmt: skip

    baseline: dict[str, Values] = {}
    for name, composite in named.items():
        R = evaluated.explain(composite)
        report.part(explained)(1, 1)
        if "flipping" in checks:
            if not baseline:  # of all: a random order does not look at the map
                part = report.part(random)
                found = pixel_flipping(net, evaluated.x, R, order=("random",), repeats=repeats, progress=part, **flip)
                baseline = found.scores
            part = report.part(costs["flipping"])
            found = pixel_flipping(net, evaluated.x, R, order=("most", "least"), progress=part, **flip)
            curves[name] = replace(found, scores={**found.scores, **baseline})
        if "insertion" in checks:
            part = report.part(costs["insertion"])
            inserted[name] = insertion_deletion(
                net, evaluated.x, R, deleted=deleted, inserted_into=into, progress=part, **flipping
            )
        if "sensitivity" in checks:
            part = report.part(costs["sensitivity"])
            sensitive[name] = sensitivity(net, evaluated.x, composite, draws=draws, progress=part, **common)
        if "randomisation" in checks:
            part = report.part(costs["randomisation"])
            cascades[name] = randomisation(
                net, evaluated.x, composite, weights=weights, stages=stages, progress=part, **common
            )
        maps[name] = R  # now the composite is finished
        if finished is not None:
            finished(so_far())
    return so_far()


class _Parts:
    """Adds up the progress of several calls for one callback."""

    def __init__(self, progress: Progress | None, total: int):
        self._progress, self._total, self._before = progress or quiet, total, 0

    def part(self, cost: int) -> Progress:
        before = self._before
        self._before += cost
        return lambda done, whole: self._progress(before + cost * done // whole, self._total)


def _pixels(evaluated: EvaluatedBatch, R: Array) -> Values:
    """Return a map summed over channels, (batch, pixels or features)."""
    image = evaluated.channels_first(R.reshape(len(R), -1)).astype(np.float64)
    return image.reshape(len(R), -1) if image.ndim == 2 else image.sum(axis=1).reshape(len(R), -1)


def _last(found: Randomisation) -> float:
    return float(found.spearman[:, -1].mean())


def _shown_band(values: Values) -> str:
    if len(values) == 1:
        return "one sample"
    low, high = band(values)
    return f"{low:.3g} to {high:.3g}"
