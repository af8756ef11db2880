"""Names of torch's modules for the nodes of a graph that its exporter has named.

``torch/module.py`` calls in, behind the loader of ONNX.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from pylrp.layers import Conv, ConvTranspose, Dense, Identity
from pylrp.layers.normalisation import Standardized
from pylrp.network.graph import Graph, Node

__all__ = ["module_of", "renamed"]


def renamed(graph: Graph, modules: Mapping[str, Any]) -> Graph:
    """Call nodes after the modules they stand for; functions keep the names they have in ONNX."""
    with_parts = {name.rpartition(".")[0] for name in modules}
    heads: dict[str, Node] = {}  # for each use of a module, which has its own path in ONNX, the node that gets its name
    owner: dict[str, str] = {}
    for node in graph.nodes:
        module, use = module_of(node.name, modules)
        if not module:
            continue
        # A module with parts is no layer, unless it has weights of its own: then it is where those are.
        own = module in with_parts and any(True for _ in modules[module].parameters(recurse=False))
        if module not in with_parts or (own and isinstance(node.layer, Dense | Conv | ConvTranspose)):
            owner[use] = module
            # Of several nodes the last, unless an earlier one has the weights: a Linear's bias may come behind it.
            if use not in heads or _heaviness(node) >= _heaviness(heads[use]):
                heads[use] = node
    new: dict[str, str] = {}
    taken = {*graph.inputs, *(node.name for node in graph.nodes)}
    named = graph.output_values if graph.named_outputs else {}
    for use, node in heads.items():
        name, number = owner[use], 1
        while name in taken or named.get(name, node.name) != node.name:
            number += 1
            name = f"{owner[use]}_{number}"
        taken.add(name)
        new[node.name] = name

    nodes = [
        replace(node, name=new.get(node.name, node.name), inputs=tuple(new.get(value, value) for value in node.inputs))
        for node in graph.nodes
    ]
    values = {name: new.get(value, value) for name, value in graph.output_values.items()}
    if not graph.named_outputs:
        return graph.changed(nodes=nodes, outputs=list(values.values()))
    nodes += [Node(name, Identity(), (value,)) for name, value in values.items() if name != value]
    return graph.changed(nodes=nodes, outputs={name: name for name in values})


def _heaviness(node: Node) -> int:
    """Return 2 for a layer with weights or a norm, 1 for another with arrays, 0 for the rest."""
    main = isinstance(node.layer, Dense | Conv | ConvTranspose | Standardized)
    return 2 if main else int(bool(node.layer.arrays))


def module_of(node: str, modules: Collection[str]) -> tuple[str, str]:
    """Return the module that a node of the exporter's belongs to, and the part of its name that says so.

    Nodes are called "/layer1/layer1.0/conv/Conv": a path of modules, where those in a Sequential repeat its name, and
    the operator. A module's second use ends in "_1".
    """
    module, last, depth = "", "", 0
    parts = node.split("/")[1:]
    for part in parts:
        again = re.fullmatch(r"(.+)_\d+", part)
        found = []
        for text in (part, again[1]) if again else (part,):
            path = f"{module}{text[len(last) :]}" if last and text.startswith(f"{last}.") else f"{module}.{text}"
            if path.lstrip(".") in modules:
                found.append((path.lstrip("."), text))
        if len(found) != 1:  # no module; or one called "act_1" beside "act", which might be the second use of that
            break
        module, last = found[0]
        depth += 1
    return module, "/".join(parts[:depth])
