"""Inputs that a model has once for all samples: positions of (tokens,), masks of (tokens, tokens).

``onnx/reader.py`` reads them as if the file declared them with a batch; ``network/sides.py`` takes it off again.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from onnx import NodeProto, TensorShapeProto, ValueInfoProto

from pylrp.loaders.onnx.added_masks import added_masks
from pylrp.loaders.onnx.node import Call
from pylrp.loaders.onnx.sides import SIDE_KINDS
from pylrp.loaders.onnx.views import without_batch

__all__ = ["masks_and_shared", "require_added"]


def masks_and_shared(
    nodes: Sequence[NodeProto], inputs: Mapping[str, ValueInfoProto], outputs: Iterable[str]
) -> tuple[set[str], dict[str, ValueInfoProto]]:
    """Return the inputs that are added to attention scores, and those without a batch as if they were declared with it.

    The latter are ids and masks alone.
    """
    outputs = list(outputs)
    shared = _without_batch(inputs)
    masks = added_masks(nodes, {**inputs, **shared}, outputs)
    beside = {name for name, info in inputs.items() if info.type.tensor_type.elem_type in SIDE_KINDS} | masks
    return masks, {name: info for name, info in shared.items() if name in beside}


def _without_batch(inputs: Mapping[str, ValueInfoProto]) -> dict[str, ValueInfoProto]:
    """Return what looks as if it had no batch, with one."""
    sizes = {name: [dim.dim_param or dim.dim_value or None for dim in _dims(info)] for name, info in inputs.items()}
    found = {}
    for name, batched in without_batch(sizes).items():
        made = ValueInfoProto()
        made.CopyFrom(inputs[name])
        del made.type.tensor_type.shape.dim[:]
        made.type.tensor_type.shape.dim.extend([_dims(inputs[batched])[0], *_dims(inputs[name])])
        found[name] = made
    return found


def _dims(info: ValueInfoProto) -> list[TensorShapeProto.Dimension]:
    return list(info.type.tensor_type.shape.dim)


def require_added(call: Call, source: str | None, shared: Container[str], nodes: Iterable[NodeProto]) -> None:
    """Raise UnsupportedLayer where rows that are looked up for all samples at once meet other than a sum."""
    output = call.node.output[0]
    if source in shared and any(output in node.input and node.op_type != "Add" for node in nodes):
        raise call.unsupported(
            f"looks up {source!r}, which has no batch axis, and the rows are not added to those of other inputs",
            "export the model with the batch as axis 0 of all inputs",
        )
