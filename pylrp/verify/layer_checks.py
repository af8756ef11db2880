"""What a comparison has found, layer by layer: the rows of its table, and which layer hands down what is wrong.

``against.py`` has run the file and the network, and asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylrp.verify.alignment import Errors
from pylrp.verify.rules import Share
from pylrp.verify.verification import LayerCheck

if TYPE_CHECKING:
    from pylrp.verify.against import Check

__all__ = ["culprit", "layer_checks"]


def layer_checks(check: Check) -> list[LayerCheck]:
    """Return one row for each input and each layer."""
    assignment, graph = check.assignment, check.graph
    rounding = _rounding(check)
    rows = [
        LayerCheck(name, "input", "", None, check.incoming.found.get(name))
        for name in graph.inputs
        if name in check.matching.values
    ]
    for node in graph.nodes:
        below = [check.incoming.found[value] for value in node.inputs if value in check.incoming.found]
        rows.append(
            LayerCheck(
                node.name,
                node.layer.kind,
                assignment.text(node),
                check.values.found.get(node.name),
                check.incoming.found.get(node.name),
                max(below, default=None),
                rounding.get(node.name),
            )
        )
    return rows


def _rounding(check: Check) -> dict[str, float]:
    """Return the ledger's rounding of each layer as a share of the magnitudes that arrive."""
    found = {}
    for row in check.ex.ledger.layers:
        ours = check.ours(row.name, np.arange(check.inputs.batch))
        scale = np.maximum(np.abs(row.incoming), np.abs(row.outgoing))
        if ours is not None:
            scale = np.maximum(scale, np.abs(ours).reshape(len(ours), -1).sum(axis=1).reshape(scale.shape))
        error = np.divide(np.abs(row.rounding), scale, out=np.zeros_like(scale), where=scale != 0)
        found[row.name] = float(np.max(error, initial=0.0))
    return found


def culprit(check: Check, value: str) -> str:
    """Return the layer that hands the wrong relevance to a value: of several, by what each hands down alone."""
    takers = check.matching.consumers(value)
    if not takers:
        return value
    if len(takers) == 1:
        (taker,) = takers
        # A part of a node that only moves values, and is not in the file, is passed by.
        alone = taker in check.movements and taker not in check.matching.values
        return culprit(check, taker) if alone else taker
    errors = {name: _alone(check, name, value) for name in takers}
    return max(takers, key=lambda name: errors[name])


def _alone(check: Check, layer: str, value: str) -> float:
    """Return the error of what one layer hands to a value, from the network's own relevance of the layer."""
    if layer not in check.matching.values or layer not in check.ex.layers:
        return 0.0
    ours = np.asarray(check.ex.layers[layer])
    above, below = (check.tapes[0][1].values[check.matching.values[name]] for name in (layer, value))
    if not check.alignment.is_plain(layer, above) or len(below) != len(above):
        return 0.0
    given: Any = check.inputs.given if len(check.inputs.given) > 1 else next(iter(check.inputs.given.values()))
    again = check.network.explain(given, ours, check.ex.settings["composite"], output=layer, layers=[value]).layers[
        value
    ]
    again = np.asarray(again, np.float64)
    ours = np.asarray(ours, np.float64)
    again, ours = (array[None] if check.inputs.single else array for array in (again, ours))
    found = Errors()
    for rows, tape in check.tapes:
        own = check.tape(tape.values, tape.decided)
        own.taken = tape.taken
        name = check.matching.values[layer]
        count = rows.stop - rows.start
        padded = np.zeros(tape.values[name].shape)
        padded[:count] = ours[rows].reshape(count, *padded.shape[1:])
        own.back({name: Share(0.0, padded)})
        found.add(layer, again[rows], own.relevance(check.matching.values[value])[:count])
    return found.found.get(layer, 0.0)
