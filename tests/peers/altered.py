"""ONNX graphs that compute the same in another form: nodes in another order, other names, copies, dead nodes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["ALTERED"]


def copy_of(model):
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def reordered(model, seed=0):
    """Return the model with its nodes in another order in which each comes behind what it takes."""
    made, rng = copy_of(model), np.random.default_rng(seed)
    waiting = list(model.graph.node)
    unknown = {name for node in waiting for name in node.output}
    del made.graph.node[:]
    while waiting:
        ready = [i for i, node in enumerate(waiting) if unknown.isdisjoint(node.input)]
        node = waiting.pop(ready[rng.integers(len(ready))])
        made.graph.node.append(node)
        unknown.difference_update(node.output)
    return made


def renamed(model):
    """Return the model with numbers for names, but for its inputs and outputs."""
    made = copy_of(model)
    kept = {"", *(info.name for info in (*made.graph.input, *made.graph.output))}
    names = {}

    def name(old):
        return old if old in kept else names.setdefault(old, f"{len(names)}")

    for number, node in enumerate(made.graph.node):
        node.name = f"n{number}"
        for entries in (node.input, node.output):
            for i, entry in enumerate(entries):
                entries[i] = name(entry)
    for tensor in made.graph.initializer:
        tensor.name = name(tensor.name)
    del made.graph.value_info[:]
    return made


def duplicated(model):
    """Return the model with a copy of each node and each small initialiser for each that takes it."""
    made = copy_of(model)
    outputs = {info.name for info in made.graph.output}
    small = {t.name: t for t in model.graph.initializer if np.prod(t.dims, initial=1) <= 4096}
    makers = {node.output[0]: node for node in made.graph.node if len(node.output) == 1}
    seen, nodes = {}, []
    for node in made.graph.node:
        for i, name in enumerate(node.input):
            number = seen[name] = seen.get(name, -1) + 1
            if not number or name in outputs or not (name in small or name in makers):
                continue
            copy = f"{name}/copy{number}"
            if name in small:
                array = numpy_helper.to_array(small[name])
                made.graph.initializer.append(numpy_helper.from_array(array, copy))
            else:
                other = onnx.NodeProto()
                other.CopyFrom(makers[name])
                other.name, other.output[0] = f"{other.name}/copy{number}", copy
                nodes.append(other)
            node.input[i] = copy
        nodes.append(node)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    del made.graph.value_info[:]
    return made


def with_dead_nodes(model):
    """Return the model with nodes that nothing takes, of operators that are refused where they count."""
    made = copy_of(model)
    made.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2), np.float32), "dead/w"))
    made.graph.node.insert(0, helper.make_node("Det", ["dead/w"], ["dead/0"], name="dead/Det"))
    for number, node in enumerate(list(model.graph.node)[:: max(1, len(model.graph.node) // 8)]):
        made.graph.node.append(
            helper.make_node("Sign", [node.output[0]], [f"dead/{number + 1}"], name=f"dead/{number}")
        )
    return made


ALTERED = {
    "reordered": reordered,
    "renamed": renamed,
    "duplicated": duplicated,
    "dead nodes": with_dead_nodes,
    "all of it": lambda model: renamed(reordered(with_dead_nodes(duplicated(model)), 1)),
}
