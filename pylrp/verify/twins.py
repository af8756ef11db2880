"""Nodes of a file that move the same value in the same way: the network has a layer for the first of them.

onnxruntime writes the queries', keys' and values' products as Gemms with a Reshape before each, all of one value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import NodeProto, TensorProto

__all__ = ["without_twins"]

_MOVING = {"Cast", "Expand", "Reshape", "Shape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
_MOST_ENTRIES = 64  # of a constant that says how


def without_twins(
    nodes: Sequence[NodeProto], tensors: Mapping[str, TensorProto], outputs: Sequence[str]
) -> list[NodeProto]:
    """Return the nodes, those that move what an earlier one moves left out; what they make is that one's.

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
        if node.op_type in _MOVING and not node.domain and set(outputs).isdisjoint(node.output):
            settings = tuple(sorted(each.SerializeToString() for each in node.attribute))
            known = first.setdefault((node.op_type, settings, *(_key(name, tensors) for name in node.input)), node)
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
