"""Nodes of a file that do the same with the same value: the network has a layer for the first of them.

onnxruntime writes the queries', keys' and values' products as Gemms with a Reshape before each, all of one value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import NodeProto, TensorProto

__all__ = ["without_twins"]

#: What differs from call to call, holds nodes of its own, or makes weights of a size alone.
_APART = {
    "Bernoulli", "ConstantOfShape", "Dropout", "If", "Loop", "Multinomial", "RandomNormal", "RandomNormalLike",
    "RandomUniform", "RandomUniformLike", "Scan",
}  # fmt: skip
_MOST_ENTRIES = 64  # of a constant that says how


def without_twins(
    nodes: Sequence[NodeProto], tensors: Mapping[str, TensorProto], outputs: Sequence[str]
) -> list[NodeProto]:
    """Return the nodes, those that do what an earlier one does left out; what they make is that one's.

    Parameters
    ----------
    nodes : sequence of NodeProto
    tensors : mapping of str to TensorProto
        Constants by name.
    outputs : sequence of str
        Of the file: who makes one stays.
    """
    first: dict[object, NodeProto] = {}
    instead: dict[str, str] = {}
    found = []
    for given in nodes:
        node = given
        if not instead.keys().isdisjoint(given.input):
            node = NodeProto()
            node.CopyFrom(given)
            node.input[:] = [instead.get(name, name) for name in given.input]
        if node.op_type not in _APART and len(node.output) == 1 and set(outputs).isdisjoint(node.output):
            settings = tuple(sorted(each.SerializeToString() for each in node.attribute))
            known = first.setdefault(
                (node.domain, node.op_type, settings, *(_key(name, tensors) for name in node.input)), node
            )
            if known is not node:
                instead[node.output[0]] = known.output[0]
                continue
        found.append(node)
    return found


def _key(name: str, tensors: Mapping[str, TensorProto]) -> object:
    tensor = tensors.get(name)
    if tensor is None or sum(tensor.dims) > _MOST_ENTRIES:
        return name
    other = TensorProto()
    other.CopyFrom(tensor)
    other.name = ""
    return other.SerializeToString()
