"""Inputs of floating-point numbers that are added to attention scores and do nothing else: masks, as ids have.

A model whose user makes the mask, (batch, tokens, tokens) of 0 and -inf, has such an input. It is no activation: it
takes no relevance, and may hold -inf. ``onnx/reader.py`` asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from onnx import NodeProto, ValueInfoProto

from pylrp.loaders.onnx.operators import FLOATS

__all__ = ["added_masks"]

#: What a mask may go through, with constants beside it.
_OF_MASKS = {
    "Add", "Cast", "Div", "Expand", "Identity", "Mul", "Reshape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip
#: What scores go through on their way to the softmax, and from the product that made them.
_OF_SCORES = {
    "Add", "Cast", "Div", "Expand", "Identity", "Max", "Mul", "Reshape", "Squeeze", "Tanh", "Transpose", "Unsqueeze",
    "Where",
}  # fmt: skip
_PRODUCTS = {"Einsum", "FusedMatMul", "MatMul"}
#: At which place attention in one node takes what it adds.
_IN_ATTENTION = {"Attention": 3, "MultiHeadAttention": 5}


def added_masks(nodes: Sequence[NodeProto], inputs: Mapping[str, ValueInfoProto], outputs: Iterable[str]) -> set[str]:
    """Return the inputs that are added to attention scores alone, and have the batch that the others have.

    Parameters
    ----------
    nodes : sequence of NodeProto
        In the order of the file.
    inputs : mapping of str to ValueInfoProto
    outputs : iterable of str
        Of the model.
    """
    floats = {name for name, info in inputs.items() if info.type.tensor_type.elem_type in FLOATS}
    if len(inputs) < 2 or not floats:
        return set()
    ways = _Ways(nodes, inputs, outputs)
    found = {name for name in floats if ways.is_mask(name)}
    others = {_batch(inputs[name]) for name in inputs if name not in found}
    return {name for name in found if others == {_batch(inputs[name])}}


def _batch(info: ValueInfoProto) -> str | int:
    dims = info.type.tensor_type.shape.dim
    return (dims[0].dim_param or dims[0].dim_value) if dims else ""


class _Ways:
    """Where values of a model come from and go to."""

    def __init__(self, nodes: Sequence[NodeProto], inputs: Iterable[str], outputs: Iterable[str]):
        self._outputs = set(outputs)
        self._readers: dict[str, list[tuple[NodeProto, int]]] = {}
        self._makers: dict[str, NodeProto] = {}
        self._computed = set(inputs)
        for node in nodes:
            for place, name in enumerate(node.input):
                self._readers.setdefault(name, []).append((node, place))
            if any(name in self._computed for name in node.input):
                self._computed.update(node.output)
            self._makers.update(dict.fromkeys(node.output, node))

    def is_mask(self, name: str) -> bool:
        """Tell whether a value is added to scores, and nothing else, on all of its ways."""
        readers = self._readers.get(name, [])
        return bool(readers) and name not in self._outputs and all(self._masks(name, *reader) for reader in readers)

    def _masks(self, name: str, node: NodeProto, place: int) -> bool:
        if node.op_type in _IN_ATTENTION:
            return place == _IN_ATTENTION[node.op_type]
        others = [each for each in node.input if each != name and each in self._computed]
        if not others:
            return node.op_type in _OF_MASKS and self.is_mask(node.output[0])
        return node.op_type == "Add" and all(map(self._are_scores, others)) and self._is_normalised(node.output[0])

    def _are_scores(self, name: str) -> bool:
        """Tell whether a value comes from a product of two computed values."""
        node = self._makers.get(name)
        if node is None:
            return False
        computed = [each for each in node.input if each in self._computed]
        if node.op_type in _PRODUCTS:
            return len(computed) == 2
        return node.op_type in _OF_SCORES and any(map(self._are_scores, computed))

    def _is_normalised(self, name: str) -> bool:
        """Tell whether a value goes to a softmax on all of its ways."""
        readers = self._readers.get(name, [])
        return bool(readers) and all(
            node.op_type == "Softmax" or (node.op_type in _OF_SCORES and self._is_normalised(node.output[0]))
            for node, _ in readers
        )
