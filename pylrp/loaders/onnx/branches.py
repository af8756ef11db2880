"""ONNX's If with a constant condition: the nodes of the branch that is taken stand in its place.

Exporters write one where a module has a switch. ``onnx/model.py`` calls in before anything is read, ``onnx/reader.py``
where a condition of sizes is known (:func:`branch`); an If whose condition is computed of what inputs hold is refused
where it stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from pylrp.errors import BrokenFile
from pylrp.loaders.onnx.constants import attributes_of
from pylrp.loaders.onnx.file import ModelFile
from pylrp.network.side_operators import OPERATORS

__all__ = ["branch", "captured", "with_branches_taken"]

Array = NDArray[Any]

_MOST_ENTRIES = 64  # conditions are made of few numbers
_DEEPEST = 64
#: What conditions are made of.
_OPERATORS = {
    "And", "Equal", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Not", "Or", "Squeeze", "Unsqueeze",
    "Xor",
}  # fmt: skip


def with_branches_taken(file: ModelFile) -> ModelFile:
    """Return the file with the branch that is taken in the place of each If with a constant condition.

    Raises
    ------
    BrokenFile
        If a branch is not as the standard has it.
    """
    if not any(node.op_type == "If" for node in file.model.graph.node):
        return file
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    for _ in range(_DEEPEST):  # a branch may have another If
        if not _take(model.graph, file):
            made = ModelFile(model, file.path, file.spans)
            made.require_text()
            return made
    raise BrokenFile(file.path, "an If", f"has more than {_DEEPEST} others in it")


def _take(graph: onnx.GraphProto, file: ModelFile) -> bool:
    """Put branches in place of what is decided; return whether there was any."""
    known: dict[str, Array] = {
        tensor.name: file.array(tensor)
        for tensor in graph.initializer
        if math.prod(tensor.dims) <= _MOST_ENTRIES and tensor.name not in file.spans
    }
    taken = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    taken |= {info.name for info in graph.input}
    nodes: list[NodeProto] = []
    found = False
    for number, node in enumerate(graph.node):
        value = known.get(node.input[0]) if node.op_type == "If" and len(node.input) == 1 else None
        if value is not None and value.size == 1:
            nodes += _branch(graph, node, bool(value.reshape(())), f"{node.name or number}", taken, file)
            found = True
            continue
        nodes.append(node)
        made = _computed(node, known, file)
        if made is not None and len(node.output) == 1:
            known[node.output[0]] = made
    if found:
        kept = [_copied(node) for node in nodes]  # the graph's own go with it
        del graph.node[:]
        graph.node.extend(kept)
    return found


def captured(node: NodeProto) -> set[str]:
    """Return the names of values outside that the branches of a node take."""
    found: set[str] = set()
    for attribute in node.attribute:
        if attribute.HasField("g"):
            inside = {name for each in attribute.g.node for name in each.output}
            inside |= {tensor.name for tensor in attribute.g.initializer}
            taken = {name for each in attribute.g.node for name in (*each.input, *captured(each)) if name}
            found |= (taken | {info.name for info in attribute.g.output}) - inside
    return found


def branch(node: NodeProto, condition: bool, taken: set[str], file: ModelFile) -> Iterator[NodeProto]:
    """Yield the nodes that stand for an If, the constants of its branch among them.

    Parameters
    ----------
    node : NodeProto
    condition : bool
    taken : set of str
        Names that values have already; new ones are added.
    file : ModelFile
    """
    graph = onnx.GraphProto()
    written = list(_branch(graph, node, condition, node.name or node.output[0], taken, file))
    for tensor in graph.initializer:
        yield helper.make_node("Constant", [], [tensor.name], value=tensor)
    yield from written


def _copied(node: NodeProto) -> NodeProto:
    made = NodeProto()
    made.CopyFrom(node)
    return made


def _computed(node: NodeProto, known: Mapping[str, Array], file: ModelFile) -> Array | None:
    """Return what a node makes of small constants; None where it is not known."""
    if node.op_type == "Constant":
        for attribute in node.attribute:
            if attribute.name == "value" and math.prod(attribute.t.dims) <= _MOST_ENTRIES:
                return file.array(attribute.t)
            if attribute.name in ("value_int", "value_float"):
                return np.asarray(attributes_of(node)[attribute.name])
        return None
    inputs = [known.get(name) for name in node.input]
    given = [array for array in inputs if array is not None]
    if not given or len(given) < len(inputs):
        return None
    try:
        if node.op_type == "Cast":
            return given[0].astype(helper.tensor_dtype_to_np_dtype(attributes_of(node)["to"]))
        known_how = node.op_type in _OPERATORS
        made = np.asarray(OPERATORS[node.op_type](attributes_of(node), *given)) if known_how else None
    except (KeyError, TypeError, ValueError):  # what makes no sense is left to the reader, which says so
        return None
    return made if made is None or made.size <= _MOST_ENTRIES else None


def _branch(
    graph: onnx.GraphProto, node: NodeProto, condition: bool, prefix: str, taken: set[str], file: ModelFile
) -> Iterator[NodeProto]:
    """Yield the nodes of the branch that is taken; its constants go to the graph's."""
    wanted = "then_branch" if condition else "else_branch"
    branch = next((each.g for each in node.attribute if each.name == wanted), None)
    if branch is None or len(branch.output) != len(node.output):
        raise BrokenFile(file.path, f"node {node.name!r} (If)", f"has no {wanted} with {len(node.output)} outputs")
    inner = [name for each in branch.node for name in each.output if name]
    inner += [tensor.name for tensor in branch.initializer]
    # Two branches may call values alike; names in the graph must differ.
    names = {name: _free(name, prefix, taken) for name in inner}
    for tensor in branch.initializer:
        made = TensorProto()
        made.CopyFrom(tensor)
        made.name = names[tensor.name]
        graph.initializer.append(made)
    for each in branch.node:
        yield _renamed(each, names)
    for info, output in zip(branch.output, node.output, strict=True):
        if output:
            yield helper.make_node("Identity", [names.get(info.name, info.name)], [output])


def _free(name: str, prefix: str, taken: set[str]) -> str:
    made = name
    while made in taken:
        made = f"{prefix}/{made}"
    taken.add(made)
    return made


def _renamed(node: NodeProto, names: Mapping[str, str], depth: int = 0) -> NodeProto:
    """Return a node that takes and makes values by other names, in its own branches, too."""
    made = _copied(node)
    made.input[:] = [names.get(name, name) for name in node.input]
    if depth == 0:
        made.output[:] = [names.get(name, name) for name in node.output]
    for attribute in made.attribute:
        if attribute.HasField("g") and depth < _DEEPEST:
            inside = [_renamed(each, names, depth + 1) for each in attribute.g.node]
            del attribute.g.node[:]
            attribute.g.node.extend(inside)
            for info in attribute.g.output:
                info.name = names.get(info.name, info.name)
    return made
