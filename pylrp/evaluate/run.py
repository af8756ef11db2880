"""``evaluate``: the same checks of the heatmaps of several composites; ``evaluation.py`` has the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from pylrp.evaluate.curves import Curves, InsertionDeletion
from pylrp.evaluate.evaluated_batch import Array, EvaluatedBatch, Progress, Score, Values, quiet
from pylrp.evaluate.evaluation import Evaluation
from pylrp.evaluate.flipping import insertion_deletion, pixel_flipping
from pylrp.evaluate.map_agreement import agreement
from pylrp.evaluate.random_weights import Randomisation, Weights, randomisation
from pylrp.evaluate.replacement import Replacement
from pylrp.evaluate.robustness import Sensitivity, sensitivity
from pylrp.evaluate.tokens import evaluate_tokens
from pylrp.layers.base import Shape
from pylrp.network.network import Network
from pylrp.rules.defaults import usual_for

__all__ = ["CHECKS", "evaluate"]

Check = Literal["flipping", "insertion", "sensitivity", "randomisation", "agreement"]
#: What :func:`evaluate` can do, in its order.
CHECKS: tuple[Check, ...] = ("flipping", "insertion", "sensitivity", "randomisation", "agreement")

_SQUARES = 28  # along the longest side of an image, unless a patch is given
_COST = 4  # of an explained sample, in predicted ones: for the progress


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
    """Run the same checks on the heatmaps of several composites.

    Of a network of token ids maps are compared with what leaving tokens out does: :func:`evaluate_tokens`.

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
    Evaluation, or TokenEvaluation of a network of token ids

    Raises
    ------
    ValueError
        If a check or composite is unknown, or shapes or options do not fit.
    """
    if net.graph.facts.sides is not None:
        if tuple(checks) != CHECKS:
            raise ValueError("checks are not for networks of token ids, whose tokens are left out: leave them out")
        # Another result, which type checkers are not told of: they know no kinds of networks.
        found: Any = evaluate_tokens(net, x, composites, target=target, seed=seed)
        return found  # type: ignore[no-any-return]
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
    settings = _Settings(tuple(checks), steps, patch, replacement, score, repeats, draws, weights, stages, layout, seed)
    run = _Run(evaluated, settings, named, progress)
    for name, composite in named.items():
        run.check(name, composite)
        if finished is not None:
            finished(run.found())
    return run.found()


@dataclass(frozen=True)
class _Settings:
    """The options of :func:`evaluate` that its checks take."""

    checks: tuple[Check, ...]
    steps: int
    patch: int | Sequence[int]
    replacement: Replacement
    score: Score
    repeats: int
    draws: int
    weights: Weights
    stages: int | None
    layout: Shape | None
    seed: int

    def saved(self, composites: Mapping[str, Any]) -> dict[str, Any]:
        """Return them as an :class:`Evaluation` keeps them: enough to repeat the call, and JSON."""
        return {
            "composites": {name: str(c) for name, c in composites.items()}, "checks": list(self.checks),
            "steps": self.steps, "patch": self.patch,
            "replacement": self.replacement if isinstance(self.replacement, str | float | int) else "array",
            "score": self.score, "repeats": self.repeats, "draws": self.draws, "weights": self.weights,
            "stages": self.stages, "seed": self.seed,
        }  # fmt: skip

    @property
    def flipping(self) -> dict[str, Any]:
        """Return what pixel flipping, insertion and deletion have in common."""
        return {
            "steps": self.steps, "patch": self.patch, "score": self.score, "layout": self.layout, "seed": self.seed,
        }  # fmt: skip

    def costs(self, batch: int, layers: int) -> dict[str, int]:
        """Return what each check costs for one composite, in predicted samples."""
        stages = layers if self.stages is None else min(self.stages, layers)
        return {
            "flipping": 2 * batch * (self.steps + 1),
            "insertion": 2 * batch * (self.steps + 1),
            "sensitivity": _COST * batch * (self.draws + 1),
            "randomisation": _COST * batch * (1 + stages),
        }


class _Run:
    """The checks of one call of :func:`evaluate`, composite by composite."""

    def __init__(
        self,
        evaluated: EvaluatedBatch,
        settings: _Settings,
        composites: Mapping[str, Any],
        progress: Progress | None,
    ):
        self._evaluated, self._settings, self._composites = evaluated, settings, composites
        batch = len(evaluated)
        self._costs = settings.costs(batch, sum(node.layer.weighted for node in evaluated.net.graph.nodes))
        self._random = batch * (settings.steps + 1) * settings.repeats if "flipping" in settings.checks else 0
        each = _COST * batch + sum(self._costs.get(check, 0) for check in settings.checks)
        self._report = _ProgressParts(progress, self._random + len(composites) * each)
        self._baseline: dict[str, Values] = {}
        self._maps: dict[str, Array] = {}
        self._curves: dict[str, Curves] = {}
        self._inserted: dict[str, InsertionDeletion] = {}
        self._sensitive: dict[str, Sensitivity] = {}
        self._cascades: dict[str, Randomisation] = {}

    def check(self, name: str, composite: Any) -> None:
        """Run the checks of one composite."""
        evaluated, settings = self._evaluated, self._settings
        net, x = evaluated.net, evaluated.x
        common: dict[str, Any] = {"target": evaluated.target, "seed": settings.seed}
        R = evaluated.explain(composite)
        self._report.part(_COST * len(evaluated))(1, 1)
        if "flipping" in settings.checks:
            self._curves[name] = self._flipped(R)
        if "insertion" in settings.checks:
            self._inserted[name] = self._insertion(R)
        if "sensitivity" in settings.checks:
            part = self._part("sensitivity")
            self._sensitive[name] = sensitivity(net, x, composite, draws=settings.draws, progress=part, **common)
        if "randomisation" in settings.checks:
            part = self._part("randomisation")
            self._cascades[name] = randomisation(
                net, x, composite, weights=settings.weights, stages=settings.stages, progress=part, **common
            )
        self._maps[name] = R  # now the composite is finished

    def found(self) -> Evaluation:
        """Return what was found for the composites that are finished."""
        evaluated, maps = self._evaluated, self._maps
        agreed = None
        if "agreement" in self._settings.checks:
            agreed = agreement({name: _pixels(evaluated, R) for name, R in maps.items()})
        given = {name: evaluated.columns.to_caller(R) for name, R in maps.items()}
        return Evaluation(
            tuple(maps), given, evaluated.target, dict(self._curves), dict(self._inserted), dict(self._sensitive),
            dict(self._cascades), agreed, self._settings.saved(self._composites),
        )  # fmt: skip

    def _part(self, check: str) -> Progress:
        return self._report.part(self._costs[check])

    def _flipped(self, R: Array) -> Curves:
        evaluated, settings = self._evaluated, self._settings
        flip: dict[str, Any] = {"target": evaluated.target, "replacement": settings.replacement, **settings.flipping}
        if not self._baseline:  # shared: a random order does not depend on the map
            part = self._report.part(self._random)
            self._baseline = pixel_flipping(
                evaluated.net, evaluated.x, R, order=("random",), repeats=settings.repeats, progress=part, **flip
            ).scores
        part = self._part("flipping")
        found = pixel_flipping(evaluated.net, evaluated.x, R, order=("most", "least"), progress=part, **flip)
        return replace(found, scores={**found.scores, **self._baseline})

    def _insertion(self, R: Array) -> InsertionDeletion:
        evaluated, given = self._evaluated, self._settings.replacement
        deleted = "mean" if isinstance(given, str) and given == "inpaint" else given
        return insertion_deletion(
            evaluated.net,
            evaluated.x,
            R,
            target=evaluated.target,
            deleted=deleted,
            inserted_into="blur" if len(evaluated.shape) > 1 else deleted,
            progress=self._part("insertion"),
            **self._settings.flipping,
        )


class _ProgressParts:
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
