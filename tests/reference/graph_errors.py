"""How far a computation of a graph in float32 or float64 may lie from the oracle; `errors.py` goes through the graph.

Errors of values first (`value_errors`): of a sum of m terms at most (2 m + 8) u times their sizes, of a function what
its input's error makes of it. Then relevance (`bounds`): as in `errors.py`, with the error of the contributions added.
A sum whose terms lie on a common binary grid that holds it is exact in any order, so cancellation to exactly 0 stays
certain. A result is *undetermined* where relevance meets a denominator, a sign or a pool's winner that the errors
could turn; no bound is asked for then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pylrp import layers as kinds
from pylrp.network.graph import Graph

from .contributions import Array, Share
from .errors import unit
from .graph_forward import POINTWISE, apply, gather, resize, windows
from .graph_relevance import (
    CAUSES,
    MAXIMA,
    SHIFTING,
    Account,
    Matrix,
    Step,
    handing,
    joined,
    moved,
    only_moves,
    parted,
    pushed,
)

COORDINATE = 64 * np.finfo(np.float64).eps  # a linear resize's weights come from coordinates, in float64
COPYING = (kinds.Identity, kinds.ReLU, kinds.LeakyReLU, kinds.PReLU, kinds.Clip)  # of what they don't cut or scale
CUT = (kinds.HardSwish, kinds.HardSigmoid)  # exactly 0 from some place on
Errors = dict[str, Array]


class Undetermined(Exception):
    """No precision gives an answer here: the test has to ask for something else."""


def short(x: Array, dtype: Any) -> Array:
    """Mark numbers of so few digits that a product of three is exact."""
    mantissa, _ = np.frexp(x)
    digits = np.ldexp(mantissa, (np.finfo(dtype).nmant + 1) // 3)
    return digits == np.rint(digits)


def exact(terms: Array, total: Array, factors_short: Array, dtype: Any) -> Array:
    """Mark sums over the last axis without rounding: of exact terms that are multiples of what the sum resolves."""
    _, exponent = np.frexp(total)
    steps = np.ldexp(terms, (np.finfo(dtype).nmant + 1 - exponent)[..., None])
    return ((steps == np.rint(steps)) & (factors_short | (terms == 0))).all(axis=-1)


def sum_error(terms: Array, dterms: Array, size: Array, factors_short: Array, dtype: Any) -> Array:
    """Return the error of sums over the last axis, for terms known up to `dterms` and added in magnitudes `size`."""
    total = size.sum(axis=-1)
    rounding = (2 * np.count_nonzero(size, axis=-1) + 8) * unit(dtype) * total
    known = dterms.sum(axis=-1)
    return np.where((known == 0) & exact(terms, total, factors_short, dtype), 0.0, rounding + known)


def value_errors(graph: Graph, values: Mapping[str, Array], made: Mapping[str, Step], dtype: Any) -> Errors:
    """Return the error of every value; the inputs have none."""
    errors = {name: np.zeros(np.shape(values[name])) for name in graph.inputs}
    for node in graph.nodes:
        xs, dxs = [values[v] for v in node.inputs], [errors[v] for v in node.inputs]
        found = output_error(node.layer, made[node.name].matrix, xs, dxs, dtype)
        errors[node.name] = found.reshape(values[node.name].shape)
    return errors


def output_error(layer: Any, matrix: Matrix | None, xs: list[Array], dxs: list[Array], dtype: Any) -> Array:
    """Return the error of a layer's output for inputs known up to `dxs`."""
    if matrix is not None:
        a, da = joined(xs), joined(dxs)
        if only_moves(layer):
            return da @ matrix.connected.T
        dterms = da[:, None, :] * np.abs(matrix.W) + weight_errors(layer, matrix, a, xs[0].shape[1:], dtype)
        terms = np.concatenate(
            [a[:, None] * matrix.W, np.broadcast_to(matrix.b[:, None], (len(a), len(matrix.b), 1))], 2
        )
        tidy = with_bias(short(a, dtype)[:, None] & short(matrix.W, dtype))
        return sum_error(terms, dterms, np.abs(terms), tidy, dtype) + shift_error(layer, xs[0].shape, dtype)
    (x,), (dx,) = xs, dxs
    if isinstance(layer, MAXIMA):
        return np.stack([gather(dx, at).max(axis=2) for _, at, _ in windows(layer, x.shape[2:])], axis=2)
    u, y = unit(dtype), apply(layer, x)
    nought = (x == 0) & (dx == 0) & (y == 0)  # 0 gives exactly 0
    if isinstance(layer, (kinds.PReLU, *POINTWISE)):
        above, below = np.abs(apply(layer, x + dx) - y), np.abs(apply(layer, x - dx) - y)
        moves = np.maximum(above, below)
        if isinstance(layer, COPYING):
            return moves + np.where(y == x, 0.0, u * np.abs(y))
        nought |= (y == 0) & (moves == 0) & isinstance(layer, CUT)
        # Near a minimum of the function the largest move is not at an end: by f'' dx^2 / 2 more.
        return np.where(nought, 0.0, moves + 2 * dx**2 + 32 * u * (1 + np.abs(x)))
    # Functions of several values: to first order, from their derivatives.
    moves = np.zeros_like(y)
    for place in np.ndindex(*x.shape[1:]):
        h = np.zeros_like(x)
        h[(slice(None), *place)] = 1e-6
        slope = np.abs(apply(layer, x + h) - apply(layer, x - h)) / 2e-6
        moves += 2 * slope * dx[(slice(None), *place)].reshape(-1, *[1] * (x.ndim - 1))
    return np.where(nought, 0.0, moves + 64 * u * (1 + np.abs(x).max() + np.abs(y)))


def weight_errors(layer: Any, matrix: Matrix, a: Array, shape: tuple[int, ...], dtype: Any) -> Array | float:
    """Return the error of the products a W, (n, k, j), that comes from W."""
    if isinstance(layer, kinds.BatchNorm):
        return 8 * unit(dtype) * np.abs(a[:, None, :] * matrix.W)
    if isinstance(layer, kinds.Resize) and layer.mode == "linear":
        # A place that lies on a value may come out just before or behind it.
        moved_by = [pushed(lambda x, by=by: resize(layer, x, by), [shape])[0] for by in (-1e-9, 1e-9)]
        return COORDINATE * np.abs(a)[:, None, :] * ((matrix.W != 0) | (moved_by[0] != 0) | (moved_by[1] != 0))
    return 0.0


def shift_error(layer: Any, shape: tuple[int, ...], dtype: Any) -> Array | float:
    """Return the error of a BatchNorm's shift b - mean s, (1, k)."""
    if not isinstance(layer, kinds.BatchNorm):
        return 0.0
    scale, shift, mean, variance = (
        np.asarray(v, np.float64) for v in (layer.scale, layer.shift, layer.mean, layer.variance)
    )
    size = np.abs(shift) + np.abs(mean * scale / np.sqrt(variance + layer.epsilon))
    return np.repeat(8 * unit(dtype) * size, int(np.prod(shape[2:])))[None]


def bounds(
    graph: Graph,
    made: Mapping[str, Step],
    values: Mapping[str, Array],
    errors: Errors,
    R: Mapping[str, Array],
    account: Account,
    dtype: Any,
    masks: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Errors, Account]:
    """Return the allowed deviation of each value's relevance, and of each node's causes, in and out, and rounding.

    Raises `Undetermined` where a result hangs on rounding.
    """
    u = unit(dtype)
    dR = {name: np.zeros(np.shape(value)) for name, value in values.items()}
    allowed: Account = {}
    for node in reversed(graph.nodes):
        xs, dxs = [values[v] for v in node.inputs], [errors[v] for v in node.inputs]
        arrives, off = R[node.name].reshape(len(xs[0]), -1), dR[node.name].reshape(len(xs[0]), -1)
        row = allowed[node.name] = {cause: np.zeros(len(arrives)) for cause in CAUSES}
        row["incoming"] = off.sum(axis=1) + 8 * u * (np.abs(arrives).sum(axis=1) + np.abs(account[node.name]["masked"]))
        if masks and node.name in masks:
            lost = np.ones(dR[node.name].shape)
            lost[:, list(masks[node.name])] = 0.0
            row["masked"] = row["incoming"].copy()
            off = (dR[node.name] * (1 - lost)).reshape(off.shape)
        how = made[node.name]
        down = through(node.layer, how, xs, dxs, arrives, off, row, dtype)
        row["outgoing"] = down.sum(axis=1)
        row["rounding"] = row["incoming"] + down.sum(axis=1) + sum(row[cause] for cause in CAUSES)
        for value, part in zip(node.inputs, parted(down, [x.shape[1:] for x in xs]), strict=True):
            dR[value] = dR[value] + part + 2 * u * np.abs(R[value])
    return dR, allowed


def through(
    layer: Any, how: Step, xs: list[Array], dxs: list[Array], R: Array, dR: Array, row: dict[str, Array], dtype: Any
) -> Array:
    """Return the bound of what a node hands down, (n, j), for relevance R known up to dR; fills the causes in `row`."""
    u, asked = unit(dtype), (R != 0) | (dR != 0)
    if how.shares is None:
        assert how.source is not None
        if isinstance(layer, MAXIMA):
            require_winners(layer, xs[0], dxs[0], asked)
        collected = max(np.bincount(places[places >= 0]).max(initial=1) for places in how.source)
        down, row["padding"] = moved(how.source, dR + 2 * (collected + 2) * u * np.abs(R), joined(xs).shape[1])
        return down
    assert how.matrix is not None
    a, da = joined(xs), joined(dxs)
    wrong = weight_errors(layer, how.matrix, a, xs[0].shape[1:], dtype)
    tidy = with_bias(short(a, dtype)[:, None] & short(how.matrix.W, dtype))
    dplain = da[:, None, :] * np.abs(how.matrix.W) + wrong
    shift = np.broadcast_to(shift_error(layer, xs[0].shape, dtype), R.shape)
    cause_of_bias = "batchnorm" if isinstance(layer, SHIFTING) else "bias"
    width = (2 * np.count_nonzero(how.matrix.connected, axis=0) + 8) * u  # the products added for an input
    most = float(width.max()) + len(how.matrix.b) * u
    down = np.zeros((len(R), how.matrix.W.shape[1]))
    for share, dshare in zip(how.shares, share_errors(how, a, da), strict=True):
        dC = dshare + wrong
        part = np.abs(np.broadcast_to(share.part, R.shape))
        size = np.abs(share.inputs) if share.size is None else share.size
        z, dz = denominators(share, dC, size, shift, tidy, dtype)
        uncertain = (np.abs(z) <= 8 * dz) & (dz > 0) & (part != 0)
        if share.plain is not None:
            dy = np.concatenate([dplain, shift[:, :, None]], axis=2)
            dy = sum_error(share.plain, dy, np.abs(share.plain), tidy, dtype)
            uncertain |= (np.abs(share.plain.sum(axis=2)) <= 8 * dy) & (dy > 0)
        if (uncertain & asked).any():
            raise Undetermined
        stab = np.abs(z + share.shift(z))
        inverse = np.divide(part, stab, out=np.zeros_like(stab), where=stab != 0)
        rel = np.divide(dz, stab - dz, out=np.zeros_like(stab), where=stab > dz) + 4 * u
        s = inverse * np.abs(R)
        off = s * rel + inverse * dR
        down += (size * (off[:, :, None] + s[:, :, None] * width) + dC * (s + off)[:, :, None]).sum(axis=1)
        row[cause_of_bias] += (np.abs(share.bias) * (off + s * most) + shift * (s + off)).sum(axis=1)
        lost = (part * (np.abs(R) * most + dR)).sum(axis=1)
        row["stabilizer"] += (share.epsilon * off).sum(axis=1) + lost
        row["dead"] += lost
    row["dead"] += (np.abs(R) * most + dR).sum(axis=1)  # what no share asks for
    return down


def with_bias(factors_short: Array) -> Array:
    """Return the marks (n, k, j) with those of a bias behind them, which is a number as it is."""
    return np.concatenate([factors_short, np.ones((*factors_short.shape[:2], 1), bool)], axis=2)


def denominators(share: Share, dC: Array, size: Array, shift: Array, tidy: Array, dtype: Any) -> tuple[Array, Array]:
    """Return the denominators z (n, k) of a share and their errors."""
    bias = np.broadcast_to(share.bias, shift.shape)[:, :, None]
    terms = np.concatenate([share.inputs, bias], axis=2)
    dterms = np.concatenate([dC, np.where(bias != 0, shift[:, :, None], 0.0)], axis=2)
    return terms.sum(axis=2), sum_error(terms, dterms, np.concatenate([size, np.abs(bias)], axis=2), tidy, dtype)


def share_errors(how: Step, a: Array, da: Array) -> list[Array]:
    """Return, for each share, the error (n, k, j) that its terms have from that of the inputs a.

    A term depends on one input, in straight pieces that go one way: it moves most at the ends.
    """
    assert how.shares is not None
    ends = [handing(how.rule, how.matrix, a + da), handing(how.rule, how.matrix, a - da)]
    return [
        np.maximum(np.abs(high.inputs - share.inputs), np.abs(low.inputs - share.inputs))
        for share, high, low in zip(how.shares, *ends, strict=True)
    ]


def require_winners(layer: Any, x: Array, dx: Array, asked: Array) -> None:
    """Raise where a window that has relevance has two values that the errors could put in either order."""
    for at, mine in zip(windows(layer, x.shape[2:]), np.moveaxis(asked.reshape(*x.shape[:2], -1), 2, 0), strict=True):
        values, off = gather(x, at[1]), gather(dx, at[1])
        best = values.argmax(axis=2)[:, :, None]
        gap = np.take_along_axis(values, best, 2) - values
        either = off + np.take_along_axis(off, best, 2)
        close = (gap <= either) & (either > 0)
        np.put_along_axis(close, best, False, 2)
        if (close.any(axis=2) & mine).any():
            raise Undetermined
