"""Keras's Embedding: an input of ids, whose rows of the table are what the core explains.

Ids and what is computed of them before the lookup, a mask of padding, are side values (``network/sides.py``): they are
no values of the graph. ``keras/model.py`` asks which inputs are ids before it walks through the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pylrp.loaders.keras.builder import Builder, Value, reads
from pylrp.network.sides import Feed, Fixed, SideInput, Sides, Step

__all__ = ["looked_up", "sides_of"]


def looked_up(function: Any, nodes: Callable[[Any], Iterator[Any]], inner: Callable[[Any], Any]) -> set[int]:
    """Return the positions of the inputs of a model that an Embedding reads, also within models that it calls.

    Parameters
    ----------
    function : keras.Function
    nodes : function
        The calls of layers of a function.
    inner : function
        The function of a call of a layer that is read as a model, None for others.
    """
    positions = {id(tensor): at for at, tensor in enumerate(function.inputs)}
    found = set()
    for node in nodes(function):
        within = inner(node)
        if within is not None:
            read = [node.input_tensors[at] for at in looked_up(within, nodes, inner)]
        else:
            read = list(node.input_tensors) if type(node.operation).__name__ == "Embedding" else []
        found |= {positions[id(tensor)] for tensor in read if id(tensor) in positions}
    return found


@reads("Embedding")
def embedding(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Rows of a table; with ``mask_zero`` recurrent layers and means behind leave the id 0 out."""
    if value.name not in build.ids:
        build.refuse(name, layer, "looks up ids that are computed, or activations", "give the ids as an input")
    ids = build.ids[value.name]
    table = build.array(layer.embeddings)
    rows = build.feed(name, Feed(value.name, 0, (*ids, table.shape[1]), Fixed(table), value.name))
    if layer.mask_zero:
        build.masks[rows.name] = differing(build, value, 0)
    return rows


def differing(build: Builder, value: Value, number: float) -> Value:
    """Return 1 where the ids are not a number, 0 where they are."""
    name = f"{value.name}.not_{number:g}"
    if name not in build.shapes:
        build.steps += [
            Step("Equal", (value.name, Fixed(np.asarray(int(number)))), f"{name}:equal"),
            Step("Not", (f"{name}:equal",), name),
        ]
        build.feed(name, Feed(name, 0, build.ids[value.name]))
    return Value(name)


def sides_of(build: Builder, names: tuple[str, ...]) -> Sides | None:
    """Return the program of the side values, None for a model without ids.

    Raises
    ------
    UnsupportedLayer
        If ids are read as numbers, too.
    """
    if not build.ids:
        return None
    read = {name: node for node in build.nodes for name in node.inputs}
    for name in build.ids:
        if name in read:
            build.refuse(read[name].name, read[name].layer, f"computes with the ids {name!r}, which an Embedding reads")
    feeds = {name: feed for name, feed in build.feeds.items() if name in read}
    inputs = {name: SideInput(shape) for name, shape in build.ids.items()}
    return Sides(names, inputs, tuple(build.steps), feeds)
