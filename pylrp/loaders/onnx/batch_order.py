"""Samples that a file sorts and puts back into their order: the two steps cancel out and are taken away.

``torch.nn.utils.rnn.pack_padded_sequence(..., enforce_sorted=False)`` sorts the batch by its lengths. Samples do not
know of each other here, so nothing between the two steps depends on their order. ``onnx/model.py`` calls in before
anything is read; where samples would be mixed with others, or leave the model in another order, the nodes stay, and are
refused where they stand.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import NodeProto, helper

from pylrp.loaders.onnx.constants import attributes_of
from pylrp.loaders.onnx.file import ModelFile

__all__ = ["with_samples_in_order"]

_SAME = ("Cast", "Identity")
_OF_A_SHAPE = ("Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze")
_CONSTANT = ("Constant", "ConstantOfShape", "Range", "Shape")


def with_samples_in_order(file: ModelFile) -> ModelFile:
    """Return the file without what sorts its samples, where that is undone again."""
    if not any(node.op_type == "TopK" for node in file.model.graph.node):
        return file
    found = _Sorting(file.model.graph)
    if not found.is_undone():
        return file
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    kept = list(found.nodes())
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return ModelFile(model, file.path, file.spans)


class _Sorting:
    """What of a graph is in an order of its own."""

    def __init__(self, graph: onnx.GraphProto):
        self._graph = graph
        self._makers = {name: node for node in graph.node for name in node.output if name}
        #: By value: one entry a sample of the batch, which is sorted by it; where that has its order from.
        self._orders: dict[str, str] = {}
        self._inverses: dict[str, str] = {}
        #: Values in another order, and values that are another one now.
        self._sorted: dict[str, str] = {}
        self._is: dict[str, str] = {}
        self._given = {info.name for info in graph.input} - {tensor.name for tensor in graph.initializer}
        self._depends = set(self._given)
        self._mixed = False
        for node in graph.node:
            self._look(node)

    def is_undone(self) -> bool:
        """Whether samples are sorted, all of what is sorted goes on alone, and ends in the order that it had."""
        outputs = {info.name for info in self._graph.output}
        loose = set(self._sorted) | set(self._orders) | set(self._inverses)
        return bool(self._orders) and not self._mixed and outputs.isdisjoint(loose)

    def _look(self, node: NodeProto) -> None:
        kind, inputs = node.op_type, list(node.input)
        if kind == "TopK" and (by := self._sorted_by(node)):
            values, order = node.output
            self._orders[order], self._sorted[values], self._is[values] = order, order, by
            self._depends.add(values)
        elif kind in _SAME and inputs[0] in self._orders:
            self._orders[node.output[0]] = self._orders[inputs[0]]
        elif kind in _SAME and inputs[0] in self._inverses:
            self._inverses[node.output[0]] = self._inverses[inputs[0]]
        elif order := self._undone_by(node):
            self._inverses[node.output[0 if kind == "ScatterElements" else 1]] = order
        elif kind == "Gather" and inputs[1] in self._orders and inputs[0] not in self._sorted:
            self._sorted[node.output[0]], self._is[node.output[0]] = self._orders[inputs[1]], inputs[0]
            self._depends.add(node.output[0])
        elif kind == "Gather" and inputs[1] in self._inverses:
            self._mixed |= self._sorted.get(inputs[0]) != self._inverses[inputs[1]]
            self._is[node.output[0]] = inputs[0]
            self._depends.add(node.output[0])
        elif kind not in _CONSTANT:
            self._hand_on(node)

    def _hand_on(self, node: NodeProto) -> None:
        """A node of one order hands it on; of two it mixes samples."""
        takes = [name for name in node.input if name in self._depends]
        orders = {self._sorted.get(name) for name in takes}
        self._mixed |= len(orders) > 1
        if any(name in self._orders or name in self._inverses for name in node.input):
            self._mixed |= not self._is_of_a_shape(node)
        for name in filter(None, node.output if takes else ()):
            self._depends.add(name)
            if order := next(iter(orders)):
                self._sorted[name] = order

    def _is_of_a_shape(self, node: NodeProto) -> bool:
        return node.op_type in ("Shape", "Size")

    def _sorted_by(self, node: NodeProto) -> str:
        """Return the numbers by which a TopK sorts the batch: an input with one axis, all of it; else nothing."""
        root = self._root(node.input[0])
        sizes = next((info.type.tensor_type.shape.dim for info in self._graph.input if info.name == root), ())
        whole = len(node.input) > 1 and self._counts(node.input[1], root)
        return str(node.input[0]) if len(sizes) == 1 and root in self._given and whole else ""

    def _undone_by(self, node: NodeProto) -> str:
        """Return the order that a value undoes: 0, 1, ... written to the places of the order, or the order sorted."""
        if node.op_type == "ScatterElements":
            numbers = self._makers.get(node.input[2])
            return self._orders.get(node.input[1], "") if numbers is not None and numbers.op_type == "Range" else ""
        if node.op_type == "TopK" and not attributes_of(node).get("largest", 1):
            return self._orders.get(node.input[0], "")
        return ""

    def _root(self, name: str) -> str:
        maker = self._makers.get(name)
        return self._root(maker.input[0]) if maker is not None and maker.op_type in _SAME else name

    def _counts(self, name: str, root: str) -> bool:
        """Whether a number is the size of the value ``root``."""
        maker = self._makers.get(name)
        if maker is None:
            return False
        if maker.op_type == "Shape":
            return self._root(maker.input[0]) == root
        return maker.op_type in _OF_A_SHAPE and self._counts(maker.input[0], root)

    def nodes(self) -> Iterator[NodeProto]:
        """Yield the nodes that are still needed, each with what it takes now."""
        made: list[NodeProto] = []
        wanted = {info.name for info in self._graph.output}
        for node in reversed(self._graph.node):
            if wanted.isdisjoint(node.output):
                continue
            if any(name in self._is for name in node.output):
                (name,) = (name for name in node.output if name in self._is)
                copy = helper.make_node("Identity", [self._is[name]], [name], node.name)
            else:
                copy = NodeProto()
                copy.CopyFrom(node)
            wanted.update(filter(None, copy.input))
            for attribute in copy.attribute:  # what branches take
                wanted.update(name for inner in attribute.g.node for name in inner.input)
            made.append(copy)
        yield from reversed(made)
