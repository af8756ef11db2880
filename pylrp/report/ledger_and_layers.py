"""The ledger's rows and the relevance of some layers, for the page; ``sample.py`` calls in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.network.causes import COLUMNS
from pylrp.network.explanation import Explanation
from pylrp.network.ledger import Ledger
from pylrp.network.network import Network
from pylrp.report.encode import block_sum, packed, short

__all__ = ["chosen_layers", "heads_data", "kept_layers", "layer_data", "ledger_data"]

Array = NDArray[Any]

#: Layers whose relevance is shown, at most.
MOST_LAYERS = 8
#: Channels of a layer that are named, and those of which a map is shown.
NAMED, MAPPED = 6, 4
#: A map of a layer has at most so many points a side.
MOST_POINTS = 56
_BY_TOKEN = 2  # axes of a value of text: tokens and width
_BY_HEAD = 3


def chosen_layers(network: Network, output: str) -> list[str]:
    """Return the layers whose relevance is shown, spread evenly from the input to the one below ``output``."""
    order = [node.name for node in network.graph.nodes]
    top = network.graph.value(output)  # an output has a name of its own
    below = set(order[: order.index(top)]) if top in order else set()
    # Layers that move values have the relevance of the layer before.
    moving = {node.name for node in network.graph.nodes if node.layer.moves}
    if network.graph.facts.sides is not None:  # of text what a norm hands on, (tokens, width): attention stays whole
        norms = [node.name for node in network.graph.nodes if node.layer.rule_kind == "normalisation"]
        return _spread([name for name in norms if name in below and len(network.graph.shapes[name]) == _BY_TOKEN])
    return _spread([name for name in network.names if name in below and name not in moving])


def kept_layers(network: Network, ex: Explanation) -> list[str]:
    """Return the layers to show whose relevance an explanation holds: nothing is explained once more."""
    kept = ex.layers.kept
    chosen = [name for name in chosen_layers(network, ex.settings["output"]) if name in kept]
    return chosen or _spread([name for name in network.names if name in kept and name not in network.heads])


def heads_data(layers: Mapping[str, Array]) -> dict[str, Any] | None:
    """Return relevance by layer, the last one first, and head; None where heads are not known.

    Parameters
    ----------
    layers : mapping of str to ndarray of shape (heads, tokens, ...)
        Relevance of what heads put out, from the input up.
    """
    several = {name: R for name, R in layers.items() if R.ndim == _BY_HEAD and len(R) > 1}
    if not several or len({len(R) for R in several.values()}) > 1:
        return None
    values = [[short(value) for value in R.sum(axis=(1, 2), dtype=np.float64)] for R in several.values()]
    return {"layers": list(several)[::-1], "values": values[::-1]}


def _spread(names: list[str]) -> list[str]:
    if len(names) <= MOST_LAYERS:
        return names
    return [names[i] for i in np.linspace(0, len(names) - 1, MOST_LAYERS).round().astype(int)]


def layer_data(name: str, kind: str, relevance: Array, *, by_token: bool = False) -> dict[str, Any]:
    """Return one layer for the page: its relevance summed over channels, and its strongest channels.

    Parameters
    ----------
    name, kind : str
    relevance : ndarray, shape of the value without a batch
        (channels, ...).
    by_token : bool, default False
        Whether the axes are tokens and features.
    """
    values = np.asarray(relevance, np.float64)
    values = values.T if by_token and values.ndim == _BY_TOKEN else values
    channels = values.reshape(len(values), -1).sum(axis=1)
    total = float(np.abs(channels).sum()) or 1.0
    strongest = np.argsort(-np.abs(channels), kind="stable")[:NAMED]
    data: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "shape": list(values.shape),
        "sum": short(values.sum()),
        "channels": [
            {"index": int(c), "sum": short(channels[c]), "share": short(abs(channels[c]) / total)} for c in strongest
        ],
    }
    if values.size > len(values):  # it has positions
        planes = values.reshape(len(values), -1, *values.shape[-2:]).sum(axis=1) if values.ndim > 2 else values
        data["map"] = _map(planes.sum(axis=0))
        for entry in data["channels"][:MAPPED]:
            entry["map"] = _map(planes[entry["index"]])
    return data


def _map(plane: Array) -> dict[str, Any]:
    return packed(block_sum(np.atleast_2d(plane), MOST_POINTS)[0])


def ledger_data(ledger: Ledger) -> list[dict[str, Any]]:
    """Return a sample's ledger as rows from output to input, to the last bit: the page adds them up again.

    Parameters
    ----------
    ledger : Ledger
        Of one sample.
    """
    return [
        {"layer": name, "rule": rule, **{c: float(v) for c, v in zip(COLUMNS, page[:, 0], strict=True)}}
        for name, rule, page in zip(reversed(ledger.names), reversed(ledger.rules), ledger.data[::-1], strict=True)
    ]
