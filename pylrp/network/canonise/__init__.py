"""A graph as a model file has it, made into one that rules of LRP are meant for.

Passes from graph to graph, in order: what no output needs goes, and what does nothing (dropout); products learn which
factor is their signal (``factors.py``), and constants under a gate are none (``gated.py``); softmax, sigmoid and their
kin at the top go with a note (``top.py``); what belongs to a normalisation joins it (``normalisations.py``); a function
without a value at 0 takes in what gives it one (``functions.py``); tables of positions stay apart (``positions.py``);
zeros around an image become the padding of the convolution they are for (``padding.py``); scalings (BatchNorm,
constants) become part of the convolution or dense layer before or after them, past whatever only moves values
(``scalings.py``).
The output stays the same but for the function at the top.
Loaders make the graph, ``network.py`` hands the result to the compiled core.
"""

from __future__ import annotations

from collections.abc import Callable

from pylrp.network.canonise.factors import find_signals, roots
from pylrp.network.canonise.functions import complete_functions
from pylrp.network.canonise.gated import shift_by_gated_constants
from pylrp.network.canonise.normalisations import complete_normalisations
from pylrp.network.canonise.padding import merge_padding
from pylrp.network.canonise.positions import positions_apart
from pylrp.network.canonise.rewiring import drop_identities, drop_unused
from pylrp.network.canonise.scalings import fold_scalings
from pylrp.network.canonise.top import drop_top, function_at_the_top, stands_at_top
from pylrp.network.graph import Graph

__all__ = ["canonise", "function_at_the_top", "roots", "stands_at_top"]


def canonise(graph: Graph, *, keep_top: bool = False) -> Graph:
    """Return an equal graph of fewer layers.

    Parameters
    ----------
    graph : Graph
    keep_top : bool, default False
        Leave a softmax, sigmoid, softplus or exponential function at the top, which is otherwise removed with a note:
        explaining a probability mixes what speaks for a class with what speaks against the others, and turns over
        where the logit is negative.

    Returns
    -------
    Graph
        A node that takes in others keeps its name; the values of those others are gone. An output whose node is gone
        keeps a name that was given to it, else it is called by the node that makes it now; an identity between two
        outputs stays then.
    """
    passes: list[Callable[[Graph], Graph]] = [drop_unused, drop_identities, find_signals, shift_by_gated_constants]
    passes += [] if keep_top else [drop_top]
    passes += [complete_normalisations, complete_functions, positions_apart]
    # Once more where a scaling stood between the zeros and the convolution.
    passes += [merge_padding, fold_scalings, merge_padding]
    for step in passes:
        graph = step(graph)
    return graph
