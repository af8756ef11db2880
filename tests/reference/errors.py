"""How far a computation in a given precision may lie from the oracle: a bound derived, not chosen.

With u the spacing of the dtype at 1 and the usual bound for a sum of m terms in any order, |error| <= m u sum |terms|:

- a denominator z of J contributions is off by at most dz = (2J + 8) u * sum of its terms' sizes (2J: a product with the
  positive and one with the negative part of the input are added); dz = 0 where all terms lie on a coarse binary grid;
- s = R / stab(z) is then off by the fraction rel = dz / (|stab(z)| - dz) + 4u;
- R_in = sum_k terms * s is off by sum_k size * |s| * (rel + (2K + 8) u), plus what the error of R itself becomes.

A neuron with |z| <= 100 dz is *undetermined*: its result depends on the order of additions. Tests give such neurons no
relevance (`undetermined`), so that every bound stays below 2 % of the size of what was added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .contributions import CAUSES, Array, Outcome, Share


@dataclass(frozen=True)
class Bound:
    """Largest allowed deviation of the relevance (n, j), of every cause and of the books' rounding column (n,)."""

    relevance: Array
    causes: dict[str, Array]
    rounding: Array


def unit(dtype: np.dtype | type) -> float:
    """Spacing of the dtype at 1, with the oracle's own added."""
    return float(np.finfo(dtype).eps + np.finfo(np.float64).eps)


def denominators(share: Share, u: float, exact: bool) -> tuple[Array, Array]:
    """Return the denominators z (n, k) of a share and the error dz of their sums."""
    size = np.abs(share.inputs) if share.size is None else share.size
    terms = size.sum(axis=2) + np.abs(share.bias)
    dz = 0.0 if exact else (2 * size.shape[2] + 8) * u
    return share.inputs.sum(axis=2) + share.bias, dz * terms


def undetermined(outcome: Outcome, dtype: np.dtype | type, exact: bool = False) -> Array:
    """Mark the neurons (n, k) whose result hangs on the order of additions: a denominator or a mask too near 0."""
    u = unit(dtype)
    marks = np.zeros(outcome.shares[0].inputs.shape[:2], bool)
    for share in outcome.shares:
        asked = np.broadcast_to(np.asarray(share.part) != 0, marks.shape)
        z, dz = denominators(share, u, exact)
        marks |= asked & (np.abs(z) <= 100 * dz) & (dz > 0)
        if share.plain is not None:
            z, dz = denominators(Share(share.plain, np.zeros(marks.shape[1]), 0.0), u, exact)
            marks |= (np.abs(z) <= 100 * dz) & (dz > 0)
    return marks


def bound(
    outcome: Outcome, R: Array, dtype: np.dtype | type, error_of_R: Array | float = 0.0, exact: bool = False
) -> Bound:
    """Derive the allowed deviation of one layer's results for incoming relevance R known up to `error_of_R`."""
    R = np.asarray(R, np.float64)
    error_of_R = np.broadcast_to(np.asarray(error_of_R, np.float64), R.shape)
    assert not (undetermined(outcome, dtype, exact) & (R != 0)).any(), "the test asks for what no precision can give"
    u, width = unit(dtype), (2 * R.shape[1] + 8)
    relevance = np.zeros_like(outcome.relevance)
    causes = {name: np.zeros(len(R)) for name in CAUSES}
    for share in outcome.shares:
        part = np.abs(np.broadcast_to(share.part, R.shape))
        z, dz = denominators(share, u, exact)
        stab = np.abs(z + share.shift(z))
        receives = stab != 0
        inverse = np.divide(part, stab, out=np.zeros_like(stab), where=receives)
        rel = np.divide(dz, stab - dz, out=np.zeros_like(stab), where=receives & (dz > 0) & (stab > dz)) + 4 * u
        s = inverse * np.abs(R)
        off = s * (rel + width * u) + inverse * error_of_R
        size = np.abs(share.inputs) if share.size is None else share.size
        relevance += (size * off[:, :, None]).sum(axis=1)
        causes["bias"] += (np.abs(share.bias) * off).sum(axis=1)
        lost = (part * (np.abs(R) * width * u + error_of_R)).sum(axis=1)
        causes["stabilizer"] += (share.epsilon * off).sum(axis=1) + lost
        causes["dead"] += lost
    added = (np.abs(R) * width * u + error_of_R).sum(axis=1)
    causes["dead"] += added  # what no share asks for
    total = relevance.sum(axis=1) + sum(causes.values()) + added
    return Bound(relevance, causes, total)


def assert_within(actual: Array, expected: Array, allowed: Array, what: str = "") -> None:
    """Fail, naming the worst element, unless |actual - expected| <= allowed everywhere. NaN fails."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    allowed = np.asarray(allowed, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    assert np.isfinite(allowed).all(), f"{what}: a bound that is not finite proves nothing"
    good = np.abs(actual - expected) <= allowed
    if not good.all():
        worst = np.unravel_index(np.argmin(np.where(good, 1.0, 0.0)), good.shape)
        raise AssertionError(
            f"{what}: {(~good).sum()} of {good.size} outside the bound; first at {tuple(map(int, worst))}: "
            f"{actual[worst]!r}, expected {expected[worst]!r} +- {np.broadcast_to(allowed, good.shape)[worst]!r}"
        )
