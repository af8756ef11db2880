"""ONNX's If in a model that is verified: where its condition is a constant, the nodes of the branch that is taken.

The condition is computed by onnx's own evaluator. ``program.py`` asks before it reads the steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

__all__ = ["with_branches"]

_DEEPEST = 64


def with_branches(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without those of its If nodes whose condition no input changes."""
    if not any(node.op_type == "If" for node in model.graph.node):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for _ in range(_DEEPEST):
        nodes: list[onnx.NodeProto] = []
        known = {name for node in made.graph.node for name in node.output}
        known |= {each.name for each in (*made.graph.initializer, *made.graph.input)}
        found = False
        for number, node in enumerate(made.graph.node):
            taken = _taken(made, node)
            found = found or taken is not None
            nodes += [node] if taken is None else _inside(made, node, taken, node.name or str(number), known)
        if not found:
            break
        copies = [_renamed(node, {}) for node in nodes]
        del made.graph.node[:]
        made.graph.node.extend(copies)
    return made


def _taken(model: onnx.ModelProto, node: onnx.NodeProto) -> onnx.GraphProto | None:
    """Return the branch that is taken; None where the node is no If, or an input decides."""
    if node.op_type != "If":
        return None
    nodes = list(model.graph.node)
    makers: dict[Any, int] = {name: number for number, each in enumerate(nodes) for name in each.output}
    constants: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
    needed: set[int] = set()
    waiting = [node.input[0]]
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        if name in makers:
            needed.add(makers[name])
            more = [value for value in nodes[makers[name]].input if value and value not in seen]
            seen.update(more)
            waiting += more
        elif name not in constants:
            return None
    condition = helper.make_tensor_value_info(node.input[0], onnx.TensorProto.BOOL, None)
    steps = [nodes[number] for number in sorted(needed)]
    given = [constants[name] for name in seen if name in constants]
    graph = helper.make_graph(steps, "condition", [], [condition], given)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    found: Any = ReferenceEvaluator(part).run(None, {})
    wanted = "then_branch" if bool(found[0].reshape(())) else "else_branch"
    branch: onnx.GraphProto = next(each.g for each in node.attribute if each.name == wanted)
    return branch


def _inside(
    model: onnx.ModelProto, node: onnx.NodeProto, branch: onnx.GraphProto, prefix: str, known: set[str]
) -> Iterator[onnx.NodeProto]:
    """Yield a branch's nodes, under other names where the graph has theirs; its constants become the model's."""
    names: dict[str, str] = {}
    inner = [name for each in branch.node for name in each.output if name]
    for name in (*inner, *(tensor.name for tensor in branch.initializer)):
        names[name] = name
        while names[name] in known:
            names[name] = f"{prefix}/{names[name]}"
        known.add(names[name])
    for tensor in branch.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = names[tensor.name]
        model.graph.initializer.append(copy)
    for each in branch.node:
        yield _renamed(each, names)
    for info, out in zip(branch.output, node.output, strict=True):
        if out:
            yield helper.make_node("Identity", [names.get(info.name, info.name)], [out])


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.input[:] = [names.get(name, name) for name in node.input]
    made.output[:] = [names.get(name, name) for name in node.output]
    for attribute in made.attribute:
        if attribute.HasField("g"):
            inner = [_renamed(each, names) for each in attribute.g.node]
            del attribute.g.node[:]
            attribute.g.node.extend(inner)
            for info in attribute.g.output:
                info.name = names.get(info.name, info.name)
    return made
