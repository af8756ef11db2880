"""Layers one after the other for inputs of any length: laid out for one length first, for others when they come.

:class:`pylrp.Network` and the loaders of arrays call in; ``lengths.py`` keeps what is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pylrp.layers import Layer
from pylrp.layers.recurrent import Recurrent
from pylrp.network.graph import Graph
from pylrp.network.lengths import Lengths

__all__ = ["FIRST_SIZES", "sequential"]

#: For which size an axis of any length is laid out first: the first one that the layers can take.
FIRST_SIZES = (8, 32, 128, 512, 2048, 8192)


def sequential(layers: Sequence[Layer], shape: Sequence[int | None] | None = None) -> Graph:
    """Return the graph of layers one after the other.

    Parameters
    ----------
    layers : sequence of Layer
    shape : sequence of int or None, optional
        Of a sample; None stands for any size. Default: as the first layer says, of a recurrent one any number of steps.

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    if shape is None and layers and isinstance(layers[0], Recurrent):
        shape = (None, np.shape(layers[0].weight)[-1])
    given: Any = shape
    if shape is None or np.ndim(given) != 1 or None not in tuple(shape):
        return Graph.sequential(layers, given)
    graph = _laid_out(layers, shape)
    axes = [axis for axis, n in enumerate(shape) if n is None]
    lengths = Lengths(dict(graph.inputs), {"input": dict.fromkeys(axes, "")})
    what = (
        "any number of steps" if axes == [0] and len(shape) > 1 else f"any size along axis {', '.join(map(str, axes))}"
    )
    notes = [*graph.notes, f"input: {what}, for which the network is laid out when it comes"]
    return graph.changed(notes=notes, facts=replace(graph.facts, lengths=lengths))


def _laid_out(layers: Sequence[Layer], shape: Sequence[int | None]) -> Graph:
    error: ValueError | None = None
    for size in FIRST_SIZES:
        try:
            return Graph.sequential(layers, tuple(size if n is None else n for n in shape))
        except ValueError as given:
            error = error or given  # of the smallest
    assert error is not None  # sizes were tried
    raise error
