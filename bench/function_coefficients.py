"""The polynomials of ``csrc/kernels/functions.inl``, through Chebyshev's nodes: pip install mpmath."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp

Number = Any  # of mpmath's
Function = Callable[[Number], Number]

mp.mp.dps = 60


def interpolate(function: Function, low: Number, high: Number, degree: int) -> list[Number]:
    """Return the monomial coefficients of the polynomial through Chebyshev's nodes."""
    middle, half = (mp.mpf(low) + high) / 2, (mp.mpf(high) - low) / 2
    nodes = [middle + half * mp.cos(mp.pi * (2 * k + 1) / (2 * (degree + 1))) for k in range(degree + 1)]
    powers = mp.matrix(degree + 1, degree + 1)
    for i, node in enumerate(nodes):
        for j in range(degree + 1):
            powers[i, j] = node**j
    return list(mp.lu_solve(powers, mp.matrix([function(node) for node in nodes])))


def over_square(function: Function) -> Function:
    """Return u -> f(sqrt(u)) / sqrt(u) - 1."""
    return lambda u: function(mp.sqrt(u)) / mp.sqrt(u) - 1


def show(name: str, function: Function, low: Number, high: Number, degree: int, digits: int) -> None:
    """Print the coefficients and the largest error on 400 points, absolute."""
    found = interpolate(function, low, high, degree)
    points = [low + (mp.mpf(high) - low) * (k + mp.mpf("0.5")) / 400 for k in range(400)]
    error = max(abs(mp.polyval(found[::-1], x) - function(x)) for x in points)
    print(f"{name} (error {mp.nstr(error, 3)}): {', '.join(mp.nstr(c, digits) for c in found)}")


def erf_tail(centre: Number) -> Function:
    """Return t -> erfc(x) e^(x^2) with t = (x - centre) / (x + centre)."""

    def of(t: Number) -> Number:
        x = centre * (1 + t) / (1 - t)
        return mp.erfc(x) * mp.exp(x * x)

    return of


for name, digits, erf_degree, tanh_degree, centre, end, tail_degree in (
    ("float", 9, 6, 5, 2, 4, 7),
    ("double", 18, 11, 11, 3, 6, 14),
):
    show(f"{name} erf", over_square(mp.erf), 0, 1, erf_degree, digits)
    show(f"{name} tanh", lambda u: over_square(mp.tanh)(u) / u, 0, mp.mpf("0.36"), tanh_degree, digits)
    ends = [(x - mp.mpf(centre)) / (x + centre) for x in (1, end)]
    show(f"{name} erf tail", erf_tail(mp.mpf(centre)), ends[0], ends[1], tail_degree, digits)
for name, bits in (("float", 15), ("double", 33)):
    high = mp.floor(mp.log(2) * 2**bits) / 2**bits
    print(f"{name} ln 2: {mp.nstr(high, 20)} + {mp.nstr(mp.log(2) - high, 20)}")
