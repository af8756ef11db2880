"""A graph as a model file has it, made into one that rules of LRP are meant for.

Passes from graph to graph, in order: what no output needs goes, and what does nothing (dropout); a softmax at the top
goes with a note (``top.py``); zeros around an image become the padding of the convolution they are for
(``padding.py``); scalings (BatchNorm, constants) become part of the convolution or dense layer before or after them,
past whatever only moves values (``scalings.py``). The output stays the same but for the softmax. Loaders make the
graph, ``network.py`` hands the result to the compiled core.
"""

from __future__ import annotations

from collections.abc import Callable

from pylrp.canonise.padding import merge_padding
from pylrp.canonise.rewiring import drop_identities, drop_unused
from pylrp.canonise.scalings import fold_scalings
from pylrp.canonise.top import at_the_top, drop_softmax
from pylrp.graph import Graph

__all__ = ["at_the_top", "canonise"]


def canonise(graph: Graph, *, keep_softmax: bool = False) -> Graph:
    """Return an equal graph of fewer layers.

    Parameters
    ----------
    graph : Graph
    keep_softmax : bool, default False
        Leave a softmax at the top, which is otherwise removed with a note: explaining a probability mixes what speaks
        for a class with what speaks against the others.

    Returns
    -------
    Graph
        A node that takes in others keeps its name; the values of those others are gone. An output of the graph whose
        node is gone is called by the node that makes it now; an identity between two outputs stays.
    """
    passes: list[Callable[[Graph], Graph]] = [drop_unused, drop_identities]
    passes += [] if keep_softmax else [drop_softmax]
    # Once more where a scaling stood between the zeros and the convolution.
    passes += [merge_padding, fold_scalings, merge_padding]
    for step in passes:
        graph = step(graph)
    return graph
