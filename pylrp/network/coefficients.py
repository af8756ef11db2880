"""Coefficients of a value, ``c = R / a``: what the rules of hidden layers carry, ``ex.coefficients``.

Rules for hidden layers give ``R_i = a_i c_i``. Where ``a_i`` is 0 so is ``R_i``, and ``c_i`` is found by explaining
once more with a number in its place that is too small to change anything else. ``explain.py`` makes the calls.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pylrp.layers.base import Array
from pylrp.network.composition import reads_constants
from pylrp.network.graph import Graph
from pylrp.rules.terms import Rule

__all__ = ["quotient", "require_coefficients", "stand_in"]

#: Times the largest entry of a value: what stands for zeros. Far below rounding, far above the smallest float32.
_SMALL = 1e-20


def require_coefficients(graph: Graph, rules: Mapping[str, Rule], name: str) -> None:
    """Raise ValueError where a layer that reads a value shares relevance by constants: there is no ``R / a`` then."""
    for node, _ in graph.consumers(name):
        rule = rules.get(node.name)
        if rule is not None and node.layer.weighted and reads_constants(rule):
            raise ValueError(
                f"coefficients: {name!r} has none, {rule} of layer {node.name!r} does not give relevance in proportion "
                "to its input"
            )
        if not node.layer.weighted and (rule is None or rule.passes):
            require_coefficients(graph, rules, node.name)


def stand_in(values: Array) -> float:
    """Return the number to take for the zeros of a value."""
    finite = np.abs(values[np.isfinite(values)])
    return _SMALL * (float(finite.max(initial=0)) or 1.0)


def quotient(relevance: Array, values: Array, small: Array, by: float) -> Array:
    """Return ``R / a``; where a is 0 what was found with a small number, NaN where relevance stays there all the same.

    Parameters
    ----------
    relevance, values, small : ndarray
        Of one shape: R, a, and R with ``by`` for zeros.
    by : float
    """
    at_zero = np.where(relevance == 0, small / by, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values == 0, at_zero, relevance / values).astype(relevance.dtype)
