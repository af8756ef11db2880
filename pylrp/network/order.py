"""Nodes in an order in which each follows those it takes; ``graph.py`` asks once for each graph."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pylrp.network.graph import Node

__all__ = ["in_order"]


def in_order(nodes: Sequence[Node], inputs: Collection[str]) -> list[Node]:
    """Return the nodes so that each follows those it takes, otherwise in their order."""
    made = set(inputs)
    for node in nodes:
        if not made.issuperset(node.inputs):
            break
        made.add(node.name)
    else:
        return list(nodes)
    numbers = {node.name: number for number, node in enumerate(nodes)}
    takers: dict[int, list[int]] = {}
    missing = []  # how many of a node's inputs are not made yet
    for number, node in enumerate(nodes):
        made_by = {numbers[value] for value in node.inputs if value not in inputs}
        missing.append(len(made_by))
        for maker in made_by:
            takers.setdefault(maker, []).append(number)
    ready = [number for number, count in enumerate(missing) if not count]  # in order, and so a heap
    done: list[Node] = []
    while ready:
        number = heapq.heappop(ready)
        done.append(nodes[number])
        for taker in takers.get(number, ()):
            missing[taker] -= 1
            if not missing[taker]:
                heapq.heappush(ready, taker)
    if len(done) < len(nodes):
        circle = [node.name for node, count in zip(nodes, missing, strict=True) if count]
        raise ValueError(f"nodes take each other's values in a circle: {', '.join(circle)}")
    return done
