"""Pipelines with imputers, encoders, projections: what is done before the core, and the layers behind that.

``sklearn/estimator.py`` calls in for steps that ``sklearn/steps.py`` does not read. The steps up to the last imputer or
encoder of a branch, with the scalers between, are the network's front (``network/front.py``); what follows is layers:
scalers, choices of columns, PCA, whose centring passes relevance on and whose projection is a layer with weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import UnsupportedLayer
from pylrp.layers import Affine, Concat, Dense, Layer, Take
from pylrp.loaders.sklearn.columnwise import COLUMN_BY_COLUMN, IMPUTERS, features_of, knows_none, takes_words
from pylrp.loaders.sklearn.steps import WAY_OUT, layers_of, pipeline_steps, places_of, require_fitted
from pylrp.network.front import Front, Part
from pylrp.network.graph import Graph, Node

__all__ = ["front_of", "needs_front", "with_front"]

_PROJECTIONS = (
    "PCA", "TruncatedSVD", "IncrementalPCA", "FastICA", "GaussianRandomProjection", "SparseRandomProjection",
)  # fmt: skip
_BRANCHING = ("ColumnTransformer", "FeatureUnion")
_SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")


def _kind(step: Any) -> str:
    return type(step).__name__


def needs_front(steps: Sequence[tuple[str, Any]]) -> bool:
    """Return whether a step is an imputer, an encoder, a projection, a choice of features, or holds one.

    Or leaves out columns of a data frame: they may hold words.
    """
    for name, step in steps:
        if _kind(step) in (*COLUMN_BY_COLUMN, *_PROJECTIONS, "FeatureUnion") or _chooses(step):
            return True
        if _kind(step) == "ColumnTransformer" and hasattr(step, "transformers_"):
            inner = [pair for each, part, _ in step.transformers_ for pair in pipeline_steps(f"{name}.{each}", part)]
            if needs_front([pair for pair in inner if not isinstance(pair[1], str)]) or _leaves_out(step):
                return True
    return False


@dataclass
class _Branch:
    """Columns on their way: fitted steps first, then layers.

    Attributes
    ----------
    places : list of int
        The columns of the table.
    origins : list of int
        Of each feature behind the fitted steps.
    labels : list of str
    steps : list
    layers : list of Layer
    width : int
        Features behind the layers.
    """

    places: list[int]
    origins: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    width: int = 0
    words: bool = False

    @classmethod
    def of(cls, places: list[int]) -> _Branch:
        """Return the columns as they are."""
        return cls(places, list(places), [""] * len(places), width=len(places))

    def part(self) -> Part:
        """Return what is done before the core."""
        origins = np.array(self.origins, np.intp)
        gap = None if any(map(knows_none, self.steps)) else np.nan  # an imputer of NaN leaves None as it is
        return Part(np.array(self.places, np.intp), tuple(self.steps), self.words, origins, tuple(self.labels), gap)


class _Front:
    """Goes through steps and collects branches and what follows their concatenation."""

    def __init__(self, dtype: np.dtype[Any]):
        self.dtype = dtype

    def walk(self, steps: Sequence[tuple[str, Any]], branch: _Branch) -> tuple[list[_Branch], list[Layer]]:
        """Return the branches of some steps, and the layers behind all of them."""
        branches, after = [branch], list[Layer]()
        for position, (name, step) in enumerate(steps):
            later = [each for _, each in steps[position + 1 :]]
            if _kind(step) in _BRANCHING:
                if len(branches) > 1 or branches[0].layers:
                    raise UnsupportedLayer(
                        name, _kind(step), "stands behind other steps than imputers and scalers", WAY_OUT
                    )
                branches = self._split(name, step, branches[0])
            elif len(branches) == 1 and not after:
                self._step(name, step, branches[0], later)
            else:
                whole = _Branch.of(list(range(sum(each.width for each in branches))))
                whole.layers = after
                self._step(name, step, whole, [], layers_only=True)
                after = whole.layers
        return branches, after

    def _split(self, name: str, step: Any, before: _Branch) -> list[_Branch]:
        """Return a branch for each transformer of a ColumnTransformer or FeatureUnion."""
        parts: list[tuple[str, Any, list[int]]] = []
        if _kind(step) == "FeatureUnion":
            parts = [(each, part, list(range(before.width))) for each, part in step.transformer_list]
        else:
            parts = [(each, part, places_of(step, columns)) for each, part, columns in step.transformers_]
        made: list[_Branch] = []
        for each, part, places in parts:
            if not places or (isinstance(part, str) and part == "drop"):
                continue
            branch = _taken(before, places)
            inner = [pair for pair in pipeline_steps(f"{name}.{each}", part) if not isinstance(pair[1], str)]
            branches, after = self.walk(inner, branch)
            if len(branches) > 1:
                if after:
                    raise UnsupportedLayer(
                        f"{name}.{each}", "Pipeline", "goes on behind a ColumnTransformer within", WAY_OUT
                    )
                made += branches
            else:
                branches[0].layers += after
                weight = (step.transformer_weights or {}).get(each, 1.0)
                if weight != 1:
                    branches[0].layers.append(Affine(np.full(branches[0].width, weight, self.dtype)))
                made += branches
        if not made:
            raise UnsupportedLayer(name, _kind(step), "keeps no column", WAY_OUT)
        return made

    def _step(self, name: str, step: Any, branch: _Branch, later: list[Any], *, layers_only: bool = False) -> None:
        """Add one step to a branch: to what is done before the core, or as layers."""
        kind = _kind(step)
        ahead = [each for each in later if _kind(each) in (*COLUMN_BY_COLUMN, *_BRANCHING)]
        if kind in COLUMN_BY_COLUMN:
            if layers_only or branch.layers:
                if kind in IMPUTERS and not getattr(step, "add_indicator", False):
                    return  # behind layers there are no gaps
                raise UnsupportedLayer(name, kind, "stands behind layers", WAY_OUT)
            require_fitted(step)
            _encoded(name, step, branch)
        elif kind in _SCALERS and ahead and not branch.layers and not layers_only:
            require_fitted(step)
            branch.steps.append(step)  # an imputer behind it fills gaps of what it has scaled
        elif kind in _PROJECTIONS:
            branch.layers += _projection(name, step, self.dtype)
            branch.width = step.components_.shape[0]
        elif _chooses(step):
            kept = np.flatnonzero(step.get_support())
            branch.layers.append(Take(kept, name=name))
            branch.width = len(kept)
        else:
            branch.layers += layers_of(name, step, self.dtype)


def _taken(before: _Branch, places: list[int]) -> _Branch:
    """Return some of the features of a branch whose steps are done before."""
    if not before.steps:
        return _Branch.of([before.places[i] for i in places])
    branch = _Branch(list(before.places), width=len(places), words=before.words)
    branch.steps = [*before.steps, _Columns(tuple(places))]
    branch.origins = [before.origins[i] for i in places]
    branch.labels = [before.labels[i] for i in places]
    return branch


@dataclass(frozen=True)
class _Columns:
    """Chooses columns between fitted steps."""

    places: tuple[int, ...]

    def transform(self, block: NDArray[Any]) -> NDArray[Any]:
        """Return these columns."""
        return block[:, list(self.places)]


def _leaves_out(step: Any) -> bool:
    """Return whether a ColumnTransformer, fitted with a data frame, uses some of its columns only."""
    used = [
        places_of(step, columns)
        for _, part, columns in step.transformers_
        if not (isinstance(part, str) and part == "drop")
    ]
    return hasattr(step, "feature_names_in_") and len({i for places in used for i in places}) < step.n_features_in_


def _chooses(step: Any) -> bool:
    return hasattr(step, "get_support") and hasattr(step, "transform") and not hasattr(step, "transformers_")


def _encoded(name: str, step: Any, branch: _Branch) -> None:
    """Let a fitted encoder or imputer come next, and say which feature belongs to which column."""
    if not branch.steps:
        branch.words = takes_words(step)
    before = list(branch.origins), list(branch.labels)
    branch.steps.append(step)
    chosen, labels = features_of(name, step, len(before[0]))
    branch.origins = [before[0][i] for i in chosen]
    branch.labels = [f"{before[1][i]}{label}" for i, label in zip(chosen, labels, strict=True)]
    branch.width = len(chosen)


def _projection(name: str, step: Any, dtype: np.dtype[Any]) -> list[Layer]:
    """Return a PCA's layers: the mean is subtracted, which passes relevance on, then comes a layer with weights.

    Those of FastICA and of random projections, too.
    """
    require_fitted(step, "components_")
    components = step.components_
    weight = np.asarray(components.toarray() if hasattr(components, "toarray") else components, np.float64)
    if getattr(step, "whiten", False) and hasattr(step, "explained_variance_"):  # FastICA's are whitened
        weight = weight / np.sqrt(np.maximum(step.explained_variance_, np.finfo(dtype).eps))[:, None]
    mean = getattr(step, "mean_", None)
    centred = (
        []
        if mean is None
        else [Affine(np.ones(len(mean), dtype), -np.asarray(mean).astype(dtype), name=f"{name}.centre")]
    )
    return [*centred, Dense(np.ascontiguousarray(weight, dtype), name=name)]


def front_of(
    steps: Sequence[tuple[str, Any]], columns: int, dtype: np.dtype[Any], expanded: bool
) -> tuple[Front, list[Node], list[Layer], int]:
    """Return what is done before the core, the nodes of branches, and the layers behind them.

    Returns
    -------
    front : Front
    nodes : list of Node
        From the value "input" to the last one's; empty where nothing is to be put together.
    after : list of Layer
    width : int
        Features that these layers take.
    """
    branches, after = _Front(dtype).walk(steps, _Branch.of(list(range(columns))))
    front = Front(columns, tuple(branch.part() for branch in branches), expanded)
    if len(branches) == 1:
        return front, [], [*branches[0].layers, *after], len(front.origins)
    if all(isinstance(layer, Affine) for branch in branches for layer in branch.layers):
        scaling = _one_scaling(branches, dtype)
        return front, [], [*([] if scaling is None else [scaling]), *after], len(front.origins)
    nodes, tops, begin = [], [], 0
    for number, branch in enumerate(branches):
        size = len(branch.origins)
        below = f"columns{number}"
        nodes.append(Node(below, Take(np.arange(begin, begin + size)), ("input",)))
        begin += size
        for place, layer in enumerate(branch.layers):
            own = getattr(layer, "name", None) or f"{below}.{place}"
            nodes.append(Node(own, layer, (below,)))
            below = own
        tops.append(below)
    nodes.append(Node("columns", Concat(), tuple(tops)))
    return front, nodes, after, sum(branch.width for branch in branches)


def _one_scaling(branches: Sequence[_Branch], dtype: np.dtype[Any]) -> Affine | None:
    """Return the scalings of branches as one."""
    factors, shifts = [], []
    for branch in branches:
        factor, shift = np.ones(branch.width), np.zeros(branch.width)
        for layer in branch.layers:
            assert isinstance(layer, Affine)
            scale = np.asarray(layer.scale, np.float64)
            factor, shift = factor * scale, shift * scale + np.asarray(0 if layer.shift is None else layer.shift)
        factors.append(factor)
        shifts.append(shift)
    factor, shift = np.concatenate(factors), np.concatenate(shifts)
    if (factor == 1).all() and (shift == 0).all():
        return None
    return Affine(factor.astype(dtype), shift.astype(dtype), name="scaling")


def with_front(front: Front, nodes: list[Node], graph: Graph) -> Graph:
    """Return a graph whose input is made by a front, with the nodes of its branches before it."""
    size = len(front.origins)
    if not nodes:
        return graph
    (source,) = graph.inputs
    renamed = [
        Node(node.name, node.layer, tuple(nodes[-1].name if name == source else name for name in node.inputs))
        for node in graph.nodes
    ]
    return Graph({"input": (size,)}, [*nodes, *renamed], list(graph.outputs), notes=graph.notes, facts=graph.facts)
