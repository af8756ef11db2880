"""Which nodes of an ONNX model are read: those that outputs need, and of two that compute the same the first.

Some exporters write ``x - mean(x)`` of a normalisation twice, and optimisers may write a layer once for each of its
readers. ``onnx/reader.py`` asks before it translates anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

import numpy as np
from onnx import NodeProto, TensorProto

from pylrp.loaders.onnx.branches import captured

__all__ = ["needed_nodes", "without_repeats"]

#: What gives something else at every call, or holds nodes that take values by name; and weights of which a file has the
#: sizes alone, which stand for others.
_OWN = {
    "Bernoulli", "ConstantOfShape", "Dropout", "If", "Loop", "Multinomial", "RandomNormal", "RandomNormalLike",
    "RandomUniform", "RandomUniformLike", "Scan", "SequenceMap",
}  # fmt: skip
_MOST_ENTRIES = 1 << 16
#: Where a tensor's entries may be.
_DATA = ("raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data")


def without_repeats(nodes: Iterable[NodeProto], initial: Iterable[TensorProto], kept: Set[str]) -> list[NodeProto]:
    """Return the nodes without those that repeat an earlier one, which gives its values instead.

    Parameters
    ----------
    nodes : iterable of NodeProto
    initial : iterable of TensorProto
        Small ones with the same entries count as one.
    kept : set of str
        Names of nodes and values that stay: outputs, and nodes with a layer of the user's.
    """
    same = _equal(initial)
    first: dict[tuple[object, ...], NodeProto] = {}
    instead: dict[str, str] = {}
    found = []
    for node in nodes:
        if not instead.keys().isdisjoint(node.input):
            changed = NodeProto()
            changed.CopyFrom(node)
            changed.input[:] = [instead.get(name, name) for name in node.input]
            node = changed
        if node.op_type not in _OWN and kept.isdisjoint({node.name, *node.output}):
            settings = tuple(sorted(attribute.SerializeToString() for attribute in node.attribute))
            inputs = tuple(same.get(name, name) for name in node.input)
            key = node.domain, node.op_type, inputs, settings, len(node.output)
            known = first.setdefault(key, node)
            if known is not node:
                instead.update(zip(node.output, known.output, strict=True))
                continue
        found.append(node)
    return found


def needed_nodes(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> tuple[list[NodeProto], set[str]]:
    """Return the nodes that the outputs depend on, and the names of the values they need."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(filter(None, node.input), captured(node))
    return kept[::-1], needed


def _equal(initial: Iterable[TensorProto]) -> dict[str, str]:
    """Return for each small initialiser the first that is equal."""
    first: dict[bytes, str] = {}
    found = {}
    for tensor in initial:
        if tensor.data_location == TensorProto.EXTERNAL or np.prod(tensor.dims, initial=1) > _MOST_ENTRIES:
            continue
        if not any(getattr(tensor, field) for field in _DATA):  # those of a large one still lie in the file
            continue
        other = TensorProto()
        other.CopyFrom(tensor)
        other.name = ""
        found[tensor.name] = first.setdefault(other.SerializeToString(), tensor.name)
    return found
