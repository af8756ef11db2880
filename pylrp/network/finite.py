"""Results are finite, or an error names the layer: looked at after the core is done, searched only where it failed.

``network.py`` calls in after every forward pass and every explanation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp import _core
from pylrp.errors import NotFinite
from pylrp.layers import Concat, Movement
from pylrp.network.graph import Graph

__all__ = ["beyond", "finite", "overflow_in_relevance", "require_ledger", "require_values"]

Array = NDArray[Any]


def beyond(dtype: np.dtype[Any]) -> str:
    """Return what to do where relevance leaves the range of a dtype.

    A share is a product of input and weight over a denominator; with a stabilizer of the products' size it is no larger
    than the relevance that is shared out.
    """
    stabilizer = "a rule with a stabilizer as large as that layer's largest product of an input and a weight"
    if dtype == np.float32:
        return f"give weights and inputs as numpy.float64, or use {stabilizer}"
    return f"use {stabilizer}, or smaller inputs"


def finite(arrays: Sequence[Array]) -> bool:
    """Return whether all entries of (rows, columns) arrays are finite."""
    return all(_core.first_not_finite(array) is None for array in arrays)


def require_values(graph: Graph, forward: Callable[[list[str]], list[Array]], outputs: Sequence[str]) -> None:
    """Raise NotFinite naming the first layer whose output is NaN or infinite.

    Parameters
    ----------
    graph : Graph
    forward : callable
        Returns values by their names, (batch, size) each.
    outputs : sequence of str
        What must be finite, though layers may make it that only move values.
    """
    names = [node.name for node in graph.nodes]
    wrong = {name for name, values in zip(names, forward(names), strict=True) if not np.isfinite(values).all()}
    # What only moves values hands on what it is given; below a max pool it may pad with -inf.
    moves = {node.name for node in graph.nodes if isinstance(node.layer, Movement | Concat)}
    for name in [n for n in names if n in wrong - moves] or [n for n in map(graph.value, outputs) if n in wrong]:
        raise NotFinite(
            f"the output of layer {name!r} is not finite, though the input is: its values leave the range of "
            f"{graph.dtype}, or its weights were changed",
            name,
            "output",
        )


def overflow_in_relevance(graph: Graph, top: str, explain: Callable[[str], object]) -> NotFinite:
    """Return the error that names the layer, from the top down, that makes relevance NaN or infinite.

    Parameters
    ----------
    graph : Graph
    top : str
        Where relevance starts.
    explain : callable
        Finds the relevance of one value; raises CoreError where it is not finite.
    """
    top = layer = graph.value(top)
    names = list(graph.shapes)
    for name in reversed(names[: names.index(top)]):
        try:
            explain(name)
        except _core.CoreError:
            layer = next((node.name for node, _ in graph.consumers(name)), name)
            break
    return NotFinite(
        f"the relevance that layer {layer!r} hands down is not finite: it leaves the range of {graph.dtype}, as "
        f"where a denominator is nearly zero; {beyond(graph.dtype)}",
        layer,
        "relevance",
    )


def require_ledger(graph: Graph, ledger: Array) -> None:
    """Raise NotFinite naming the highest layer whose row of the ledger, (nodes, columns, samples), is not finite."""
    if ledger.size == 0 or _core.first_not_finite(ledger.reshape(len(ledger), -1)) is None:
        return
    for node, page in zip(reversed(graph.nodes), reversed(ledger), strict=True):
        if not np.isfinite(page).all():
            raise NotFinite(
                f"the ledger of layer {node.name!r} is not finite: relevance there leaves the range of {graph.dtype}; "
                f"{beyond(graph.dtype)}",
                node.name,
                "ledger",
            )
