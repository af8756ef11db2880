"""The composites that are used where none is named: chosen by the network, never by its input.

``network.py``, the report, the evaluation and the command line ask here. Why these: ``docs/choosing-a-rule.md``.
"""

from __future__ import annotations

from pylrp.layers import Shape
from pylrp.network.attention import has_attention
from pylrp.network.graph import Graph
from pylrp.rules.composites import TRANSFORMERS

__all__ = ["default_for", "usual_for"]

_CONVOLUTIONS = ("conv", "conv_transpose")


def default_for(graph: Graph) -> str:
    """Return the name of the composite that a network is explained by where none is named.

    ``"epsilon"`` for networks without convolutions. For others it depends on what the first layers with weights look
    at (those that no other stands before; of several the one with most axes counts): ``"epsilon_plus_flat"`` for
    images and volumes, with 2 or 3 spatial axes, and ``"epsilon_plus"`` for signals, with one, and for features
    without any, of a decoder. An axis of length 1 is none, unless all are. Networks with attention get
    ``"attnlrp_gamma"`` where they have convolutions, as vision transformers do, else ``"cp_lrp"``.

    Parameters
    ----------
    graph : Graph
    """
    convolutions = any(node.layer.kind in _CONVOLUTIONS for node in graph.nodes)
    if has_attention(graph):
        return "attnlrp_gamma" if convolutions else "cp_lrp"
    if not convolutions:
        return "epsilon"
    return "epsilon_plus_flat" if max(_axes(shape) for shape, _ in _first(graph)) > 1 else "epsilon_plus"


def usual_for(graph: Graph, *, bounds: bool) -> tuple[str, ...]:
    """Return the names of the composites that are compared where none are named; the default is one of them.

    Parameters
    ----------
    graph : Graph
    bounds : bool
        Whether bounds of the input are known: composites with a box are not among the usual ones without.
    """
    default = default_for(graph)
    if default in TRANSFORMERS:
        return (*TRANSFORMERS, "epsilon")
    if default == "epsilon":  # on dense layers the epsilon composites are all the same
        return ("epsilon", "deep_taylor", *(("deep_taylor_box",) if bounds else ()), "excitation_backprop")
    flat = "_flat" if default == "epsilon_plus_flat" else ""
    boxed = bounds and any(kind in _CONVOLUTIONS for _, kind in _first(graph))
    return ("epsilon", default, f"epsilon_alpha2_beta1{flat}", *(("epsilon_gamma_box",) if boxed else ()))


def _first(graph: Graph) -> list[tuple[Shape, str]]:
    """Return the shape of the input and the kind of each layer with weights that no other stands before."""
    found = []
    behind: set[str] = set()
    for node in graph.nodes:
        kind = node.layer.kind
        if not behind.isdisjoint(node.inputs):
            behind.add(node.name)
        elif kind in ("dense", *_CONVOLUTIONS):
            behind.add(node.name)
            found.append((graph.shapes[node.inputs[0]], kind))
    return found


def _axes(shape: Shape) -> int:
    """Return how many spatial axes there are in a shape with channels first."""
    long = sum(size > 1 for size in shape[1:])
    return long or len(shape) - 1
