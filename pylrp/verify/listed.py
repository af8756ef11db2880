"""Verification of a list of samples: of each by itself, and of the list's maps, which the core makes in one call.

``network.py`` calls in; ``against.py`` does the work for a batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pylrp.network.requests import start_value
from pylrp.network.samples import Samples, own_targets, samples_in
from pylrp.verify import against
from pylrp.verify.verification import Verification

if TYPE_CHECKING:
    from pylrp.network.network import Network

__all__ = ["verify"]


def verify(network: Network, x: Any, model: Any, **asked: Any) -> Verification:
    """Return how a network and its explanation compare with a model; :meth:`pylrp.Network.verify` describes it."""
    listed = samples_in(x, network.graph)
    if listed is None:
        return against.verify(network, x, model, **asked)
    target = asked.pop("target", None)
    rank = len(network.graph.shapes[start_value(network.graph, asked.get("output"))])
    found = [
        against.verify(
            network, listed.batch([i]), model, target=own_targets(target, [i], len(listed), rank, "target"), **asked
        )
        for i in range(len(listed))
    ]
    at = next((i for i, each in enumerate(found) if not each), int(np.argmax([each.relevance_error for each in found])))
    made = replace(found[at], notes=(*found[at].notes, f"of {len(found)} samples this is number {at}"))
    return made if not made else _with_list(made, network, x, listed, target, rank, asked)


def _with_list(
    made: Verification, network: Network, x: Any, listed: Samples, target: Any, rank: int, asked: dict[str, Any]
) -> Verification:
    """Return what passed, or that a sample has another map in the list than by itself."""
    settings: dict[str, Any] = {"composite": asked.get("composite"), "output": asked.get("output")}
    together = network.explain(x, target, **settings)
    for i in range(len(listed)):
        own = own_targets(target, [i], len(listed), rank, "target")
        alone = network.explain(listed.batch([i]), own, **settings)[0]
        for one, other in zip(_maps(together[i].relevance), _maps(alone.relevance), strict=True):
            error = float(np.abs(one - other).max(initial=0) / (np.abs(other).max(initial=0) or 1))
            if not error <= made.tolerance:
                verdict = f"sample {i} has another map in the list than by itself: {error:.1e} of its largest entry"
                return replace(
                    made, passed=False, verdict=verdict, deviation="relevance", relevance_error=error, first_wrong=None
                )
    return made


def _maps(relevance: Any) -> list[Any]:
    return list(relevance.values()) if isinstance(relevance, dict) else [relevance]
