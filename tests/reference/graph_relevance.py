"""The oracle on graphs: every layer as a dense matrix, every rule on full contribution tensors, in float64.

A layer either shares relevance out along contributions (`contributions.py`: weights, averages, sums, shifts) or only
moves it (data movement, winners of a pool, functions of one value). Its matrix comes from pushing unit vectors through
`graph_forward.py`, so nothing here knows strides or pads. `graph_errors.py` says how far a computation may lie from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pylrp import layers as kinds
from pylrp import rules
from pylrp.network.graph import Graph, Node

from .contributions import ORACLES, Array, Layer, Share, distribute
from .graph_forward import POINTWISE, apply, linear, number, per_channel, windows

CAUSES = ("bias", "stabilizer", "padding", "dead", "batchnorm", "masked")
Account = dict[str, dict[str, Array]]
WEIGHTED = (kinds.Dense, kinds.Conv, kinds.ConvTranspose)
SHIFTING = (kinds.BatchNorm, kinds.Affine)
SHARING = (kinds.AveragePool, kinds.GlobalAveragePool, kinds.AdaptiveAveragePool, kinds.Add, *SHIFTING)
PASSING = (*POINTWISE, kinds.PReLU, kinds.LocalResponseNorm, kinds.Softmax)
MAXIMA = (kinds.MaxPool, kinds.GlobalMaxPool, kinds.AdaptiveMaxPool)


@dataclass(frozen=True)
class Matrix:
    """A layer as ``y = W x + b`` on its inputs, flattened and joined; `connected` marks the pairs that it connects."""

    W: Array
    b: Array
    connected: Array


@dataclass(frozen=True)
class Step:
    """How a node hands relevance down: along `shares`, or each output's to the input place `source` (-1: to none)."""

    matrix: Matrix | None
    rule: Any = None
    shares: list[Share] | None = None
    source: Array | None = None


def joined(xs: Sequence[Array]) -> Array:
    """Return inputs (batch, *shape) side by side: (batch, all of their entries)."""
    return np.concatenate([x.reshape(len(x), -1) for x in xs], axis=1)


def parted(flat: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Undo `joined`."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [part.reshape(len(flat), *s) for part, s in zip(np.split(flat, ends[:-1], axis=1), shapes, strict=True)]


def pushed(run: Any, shapes: Sequence[tuple[int, ...]]) -> tuple[Array, Array]:
    """Return W (n_out, n_in) and what comes out for zeros, of a function that is linear but for a constant."""
    size = sum(int(np.prod(shape)) for shape in shapes)
    constant = run(*parted(np.zeros((1, size)), shapes)).reshape(-1)
    return run(*parted(np.eye(size), shapes)).reshape(size, -1).T - constant[:, None], constant


def matrix(layer: Any, shapes: Sequence[tuple[int, ...]]) -> Matrix | None:
    """Return the layer as a matrix, None where it has none."""
    if isinstance(layer, (*MAXIMA, *PASSING, kinds.CustomLayer)):
        return None
    if isinstance(layer, WEIGHTED):
        weight = number(layer.weight)
        W, _ = pushed(lambda x: linear(layer, x, weight), shapes)
        connected, _ = pushed(lambda x: linear(layer, x, np.ones_like(weight)), shapes)
        bias = np.zeros(1) if layer.bias is None else number(layer.bias).ravel()
        return Matrix(W, np.repeat(bias, len(W) // len(bias)), connected)
    if isinstance(layer, SHIFTING):
        # y(1) - y(0) would cancel: the factor and the shift are what the definition says.
        ones = np.ones((1, *shapes[0]))
        if isinstance(layer, kinds.BatchNorm):
            bare = replace(layer, shift=np.zeros(shapes[0][0]), mean=np.zeros(shapes[0][0]))
        else:
            bare = replace(layer, shift=0.0)
        return Matrix(np.diag(apply(bare, ones).ravel()), apply(layer, 0 * ones).ravel(), np.eye(ones.size))
    W, constant = pushed(lambda *xs: apply(layer, *xs), shapes)
    return Matrix(W, constant, (W != 0) * 1.0)


def only_moves(layer: Any) -> bool:
    """Tell whether every output is one of the inputs or a constant."""
    return isinstance(layer, (kinds.Movement, kinds.Concat)) or (
        isinstance(layer, kinds.Resize) and layer.mode == "nearest"
    )


def step(node: Node, rule: Any, xs: Sequence[Array], made: Matrix | None) -> Step:
    """Return how a node hands relevance down with this rule (None: its kind's own) on these inputs."""
    layer = node.layer
    a = joined(xs)
    whole = np.arange(a.shape[1])[None]
    if isinstance(rule, rules.Pass) or isinstance(layer, PASSING):
        return Step(made, source=whole)
    if isinstance(layer, SHIFTING) and made is not None and not np.any(made.b):
        return Step(made, source=whole)  # a factor alone, whatever the rule
    if isinstance(layer, MAXIMA):
        return Step(made, source=winners(layer, xs[0]))
    if isinstance(layer, kinds.CustomLayer):
        return Step(made)
    assert made is not None
    if only_moves(layer):
        return Step(made, source=np.where(made.connected.any(axis=1), made.connected.argmax(axis=1), -1)[None])
    if isinstance(layer, SHIFTING):
        rule = rules.Epsilon(1e-6) if rule is None else rule
    elif not isinstance(layer, WEIGHTED):
        rule = rules.Norm(stabilizer=1e-6) if rule is None else rule
    assert rule is not None, f"node {node.name} needs a rule"
    if isinstance(rule, rules.ZBox):
        low, high = (np.broadcast_to(one_a_channel(bound, xs[0]), xs[0].shape[1:]).ravel() for bound in rule.bounds())
        rule = rules.ZBox(low, high, stabilizer=rule.stabilizer)
    return Step(made, rule, handing(rule, made, a))


def one_a_channel(bound: Any, x: Array) -> Array:
    """Return a bound with its axis where the channels of x are, if it has one number for each."""
    return per_channel(bound, x) if np.shape(bound) == x.shape[1:2] else number(bound)


def handing(rule: Any, made: Matrix, a: Array) -> list[Share]:
    """Return the shares by which a rule hands relevance to inputs a, (n, j)."""
    shares = ORACLES[type(rule)](rule, Layer(made.W, made.b, a, len(a)))
    if isinstance(rule, rules.Flat):
        shares = [replace(share, inputs=share.inputs * made.connected) for share in shares]
    return shares


def winners(layer: Any, x: Array) -> Array:
    """Return (batch, outputs): the place of each window's largest value, the first of several."""
    places = np.arange(x[0].size).reshape(x.shape[1:])
    found = []
    for _, at, _ in windows(layer, x.shape[2:]):
        values = np.stack([x[(..., *p)] for p in at], axis=2)
        here = np.stack([places[(..., *p)] for p in at], axis=1)
        found.append(np.take_along_axis(here[None], values.argmax(axis=2)[:, :, None], axis=2)[:, :, 0])
    return np.stack(found, axis=2).reshape(len(x), -1)


def matrices(graph: Graph) -> dict[str, Matrix | None]:
    """Return every node's matrix; nodes that share a layer share it where their inputs have the same shapes."""
    known: dict[Any, Matrix | None] = {}
    found = {}
    for node in graph.nodes:
        shapes = tuple(graph.shapes[value] for value in node.inputs)
        key = id(node.layer), shapes
        if key not in known:
            known[key] = matrix(node.layer, shapes)
        found[node.name] = known[key]
    return found


def steps(graph: Graph, rule_of: Mapping[str, Any], values: Mapping[str, Array]) -> dict[str, Step]:
    """Return every node's step; `rule_of` has a rule for each node with weights, and for others that get their own."""
    made = matrices(graph)
    return {
        node.name: step(node, rule_of.get(node.name), [values[v] for v in node.inputs], made[node.name])
        for node in graph.nodes
    }


def relevance(
    graph: Graph,
    rule_of: Mapping[str, Any],
    values: Mapping[str, Array],
    top: Mapping[str, Array],
    masks: Mapping[str, Sequence[int]] | None = None,
    made: Mapping[str, Step] | None = None,
) -> tuple[dict[str, Array], Account]:
    """Return the relevance of every value, and for each node what it absorbed of it, by cause, (batch,).

    `masks` keeps some channels of what arrives at a node's value; the relevance returned is what it keeps.
    """
    made = steps(graph, rule_of, values) if made is None else made
    R = {name: np.zeros(np.shape(value)) for name, value in values.items()}
    for name, given in top.items():
        R[name] = R[name] + given
    account: Account = {}
    for node in reversed(graph.nodes):
        batch = len(R[node.name])
        row = account[node.name] = {cause: np.zeros(batch) for cause in CAUSES}
        if masks and node.name in masks:
            kept = np.zeros_like(R[node.name])
            kept[:, list(masks[node.name])] = R[node.name][:, list(masks[node.name])]
            row["masked"] = (R[node.name] - kept).reshape(batch, -1).sum(axis=1)
            R[node.name] = kept
        xs = [values[name] for name in node.inputs]
        for name, part in zip(node.inputs, handed_down(node, made[node.name], xs, values, R, row), strict=True):
            R[name] = R[name] + part
    return R, account


def handed_down(
    node: Node, how: Step, xs: list[Array], values: Mapping[str, Array], R: Mapping[str, Array], row: dict[str, Array]
) -> list[Array]:
    """Return the relevance for each input of a node; `row` takes what none receives."""
    arrives = R[node.name]
    flat = arrives.reshape(len(arrives), -1)
    if isinstance(node.layer, kinds.CustomLayer):
        return [number(part) for part in node.layer.relevance(tuple(xs), values[node.name], arrives)]
    if how.shares is not None:
        outcome = distribute(how.shares, flat)
        row.update(outcome.causes)
        if isinstance(node.layer, SHIFTING):
            adds = isinstance(node.layer, kinds.Affine) and np.all(node.layer.scale == 1)
            cause = "constant" if adds else "batchnorm"
            row[cause], row["bias"] = row["bias"], np.zeros(len(flat))
        down = outcome.relevance
    else:
        assert how.source is not None
        down, row["padding"] = moved(how.source, flat, joined(xs).shape[1])
    return parted(down, [x.shape[1:] for x in xs])


def moved(source: Array, R: Array, size: int) -> tuple[Array, Array]:
    """Return R (n, k) added up at the places it comes from, (n, size), and what comes from none, (n,)."""
    source = np.broadcast_to(source, R.shape)
    down = np.zeros((len(R), size + 1))
    for sample, (places, relevances) in enumerate(zip(source, R, strict=True)):
        np.add.at(down[sample], places, relevances)
    return down[:, :size], down[:, size]
