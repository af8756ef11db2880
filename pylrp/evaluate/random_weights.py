"""The sanity check of Adebayo et al. (2018): a map must change when the weights are replaced by random ones.

``docs/evaluation.md`` discusses rules whose map does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from pylrp.evaluate.curves import draw, new_axes
from pylrp.evaluate.evaluated_batch import Array, EvaluatedBatch, Progress, Values, quiet
from pylrp.evaluate.statistics import cosine, spearman
from pylrp.layers import Layer
from pylrp.network.graph import Graph
from pylrp.network.network import Network
from pylrp.present import html
from pylrp.present.colours import AGAINST, BASELINE, FOR
from pylrp.rules.composites import either

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Randomisation", "randomisation", "randomised"]

Weights = Literal["permute", "normal"]
#: What is drawn of a layer, where it has it.
_ARRAYS = ("bias", "weight", "recurrent_bias", "recurrent")


@dataclass(frozen=True, eq=False)
class Randomisation:
    """How similar maps stay to the original while more and more layers, from the top down, get random weights.

    Attributes
    ----------
    layers : tuple of str
        Layers with weights from the output down, as they were randomised.
    depths : ndarray of shape (stages + 1,)
        How many of them had random weights, from 0.
    spearman : ndarray of shape (batch, stages + 1), float64
        Rank correlation with the original map; 0 where the map has become constant, NaN where the original was.
    spearman_absolute : ndarray of shape (batch, stages + 1), float64
        The same of the maps' absolute values.
    cosine : ndarray of shape (batch, stages + 1), float64
        Cosine similarity with the original map.
    """

    layers: tuple[str, ...]
    depths: Values
    spearman: Values
    spearman_absolute: Values
    cosine: Values

    def table(self) -> str:
        """Return the similarities as text, means over samples, a stage a line."""
        rows = self._rows()
        left = max(len(name) for name, *_ in rows) + 2
        return "\n".join(name.ljust(left) + "".join(f"{cell:>10}" for cell in row) for name, *row in rows)

    def _rows(self) -> list[list[str]]:
        """Return the table's cells, the head first."""
        columns = (self.spearman, self.spearman_absolute, self.cosine)
        names = ["none", *(self.layers[int(depth) - 1] for depth in self.depths[1:])]
        rows = [["random down to", "spearman", "absolute", "cosine"]]
        rows += [[name, *(f"{v[:, stage].mean():.3f}" for v in columns)] for stage, name in enumerate(names)]
        return rows

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html.html(html.table(self._rows()))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the similarities over the share of layers with random weights; returns the axes."""
        ax = new_axes() if ax is None else ax
        share = self.depths / len(self.layers)
        for values, label, colour, line in (
            (self.spearman, "rank correlation", FOR, "-"),
            (self.spearman_absolute, "of absolute values", AGAINST, "--"),
            (self.cosine, "cosine similarity", BASELINE, ":"),
        ):
            draw(ax, share, values, label, colour, line)
        ax.set_xlabel("share of layers with random weights, from the top")
        ax.set_ylabel("similarity with the original map")
        ax.legend(frameon=False)
        return ax

    def __repr__(self) -> str:
        return f"<Randomisation of {len(self.layers)} layers>\n{self.table()}"


def randomisation(
    net: Network,
    x: ArrayLike,
    composite: Any = None,
    *,
    rules: Any = None,
    target: int | ArrayLike | None = None,
    weights: Weights = "permute",
    stages: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Randomisation:
    """Replace the weights of layer after layer, from the output down, and compare the maps with the original.

    Dense layers and convolutions get random weights and biases. All maps explain the same class, divided by the
    size of its logit; maps of one sign only, which turn over with the logit, are taken as positive.

    Parameters
    ----------
    net : Network
    x : array_like of shape (batch, ...)
    composite : str, Composite, Rule or sequence of Rule, optional
        Default: that of :meth:`pylrp.Network.explain`.
    rules : optional
        Another name for ``composite``.
    target : int or sequence of int, optional
        Default: the top class of each sample, of the original network.
    weights : {"permute", "normal"}, default "permute"
        A layer's own weights in random order, or normal ones of the same mean and standard deviation.
    stages : int, optional
        Compare at so many depths only, evenly spread. Default: after each layer.
    seed : int, default 0
    progress : callable, optional
        Called as ``progress(done, total)``, in explained samples.

    Returns
    -------
    Randomisation
    """
    composite = either(composite, rules)
    evaluated = EvaluatedBatch(net, x, target)
    layers, at_length = with_weights(net.graph), net._execution_of(evaluated.x).graph
    if stages is not None and stages < 1:
        raise ValueError(f"stages is {stages}, expected at least 1")
    count = len(layers) if stages is None else min(stages, len(layers))
    depths = np.unique(np.rint(np.linspace(0, len(layers), count + 1)).astype(int))
    report, batch = progress or quiet, len(evaluated)
    base = evaluated.explain(composite, one=True).reshape(batch, -1).astype(np.float64)
    report(batch, len(depths) * batch)
    found = [_similarity(base, base)]
    for stage, depth in enumerate(depths[1:], start=2):
        changed = _randomised(at_length, layers[:depth], weights, seed)
        other = evaluated.explain(composite, net=changed, one=True).reshape(base.shape).astype(np.float64)
        found.append(_similarity(base, other))
        report(stage * batch, len(depths) * batch)
    signed, absolute, angle = (np.stack(values, axis=1) for values in zip(*found, strict=True))
    return Randomisation(tuple(layers), depths.astype(np.float64), signed, absolute, angle)


def _similarity(base: Values, other: Values) -> tuple[Values, Values, Values]:
    """Return the three measures; 0, nothing in common, where the other map has become constant."""
    usable = np.ptp(base, axis=1) > 0
    pairs = (spearman(base, other), spearman(abs(base), abs(other)), cosine(base, other))
    signed, absolute, angle = (np.where(np.isnan(values) & usable, 0.0, values) for values in pairs)
    return signed, absolute, angle


def with_weights(graph: Graph) -> list[str]:
    """Return the layers with weights from the output down; one that is used twice counts once."""
    first = {id(node.layer): node.name for node in reversed(graph.nodes) if node.layer.weighted}
    return list(first.values())


def randomised(net: Network, layers: Sequence[str], *, weights: Weights = "permute", seed: int = 0) -> Network:
    """Return the network with random weights and biases in some of its layers.

    Parameters
    ----------
    net : Network
    layers : sequence of str
        Names of dense and recurrent layers and convolutions.
    weights : {"permute", "normal"}, default "permute"
        As for :func:`randomisation`.
    seed : int, default 0
        A layer gets the same weights whichever others are named.

    Returns
    -------
    Network
    """
    if weights not in ("permute", "normal"):
        raise ValueError(f"weights must be 'permute' or 'normal', got {weights!r}")
    return _randomised(net.graph, layers, weights, seed)


def _randomised(graph: Graph, layers: Sequence[str], weights: Weights, seed: int) -> Network:
    """Return the network of a graph, for inputs of its length, with random weights in some layers."""
    known = {node.name: node.layer for node in graph.nodes}
    chosen: dict[int, Layer] = {}
    for name in layers:
        layer: Any = known.get(name)
        if layer is None or not layer.weighted:
            names = ", ".join(reversed(with_weights(graph)))
            raise ValueError(f"{name!r} is no layer with weights; these are: {names}")
        rng = np.random.default_rng([seed, list(known).index(name)])
        arrays = {each: getattr(layer, each, None) for each in _ARRAYS}
        drawn = {each: _drawn(np.asarray(a), weights, rng) for each, a in arrays.items() if a is not None}
        chosen[id(layer)] = replace(layer, **drawn)
    nodes = [replace(node, layer=chosen.get(id(node.layer), node.layer)) for node in graph.nodes]
    facts = replace(graph.facts, lengths=None)  # other lengths would be read with the weights that were
    return Network.from_graph(graph.changed(nodes=nodes, facts=facts), keep_top=True)


def _drawn(array: Array, weights: Weights, rng: np.random.Generator) -> Array:
    if weights == "permute":
        return rng.permutation(array.reshape(-1)).reshape(array.shape)
    return rng.normal(array.mean(), array.std(), array.shape).astype(array.dtype)
