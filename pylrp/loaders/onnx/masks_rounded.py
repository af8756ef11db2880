"""Quantisers that took a mask's lowest number for a value: steps of 5e33, by which scores and 0 are lost.

``onnx/quantised.py`` and ``onnx/folding.py`` ask about each rounding; what is told names all nodes of the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from pylrp.loaders.onnx.node import Call, Translation

__all__ = ["require_steps"]

#: Steps so large are those of a mask: -1e4 in 8 bits has steps of 39.
_OF_MASKS = 30.0
_QUANTISE, _READ = "QuantizeLinear", "DequantizeLinear"
_SUFFIX = "_quant"  # what onnxruntime's quantiser calls the operators of whole numbers


def require_steps(call: Call, scale: NDArray[Any]) -> None:
    """Note steps that are a mask's.

    Raises
    ------
    UnsupportedLayer
        If they are infinite, so that nothing is left of what is rounded.
    """
    with np.errstate(invalid="ignore"):
        if not np.isfinite(scale).all():
            raise call.unsupported(
                "rounds by steps that are infinite: the quantiser took a mask's -inf for a value", _way_out(call)
            )
        if np.max(scale, initial=0.0) > _OF_MASKS:
            _tell(call, f"rounds by steps of {float(np.max(scale)):.1e}, so that scores beside it are all the same")


def _tell(call: Call, what: str) -> None:
    begin, notes = "the quantiser took a mask's lowest number for a value: ", call.translation.notes
    if not any(note.startswith(begin) for note in notes):
        notes.append(f"{begin}{call.name!r} {what}; {_way_out(call)}")


def _way_out(call: Call) -> str:
    names = ", ".join(map(repr, _around_masks(call.translation)))
    return f"quantise the model without the mask's nodes: quantize_static(..., nodes_to_exclude=[{names}])"


def _around_masks(translation: Translation) -> list[str]:
    """Return the names, before quantisation, of the nodes that make and take what is rounded by such steps."""
    nodes = list({id(node): node for node in translation.producers.values()}.values())
    found: dict[str, None] = {}
    for node in nodes:
        if node.op_type != _QUANTISE or len(node.input) <= 1 or node.input[1] not in translation.constants:
            continue
        scale = translation.constants[node.input[1]].first
        if np.isfinite(scale).all() and np.max(scale, initial=0.0) <= _OF_MASKS:
            continue
        maker = translation.producers.get(node.input[0])
        for each in ([] if maker is None or maker.op_type == "Constant" else [maker], _takers(nodes, node)):
            found.update(dict.fromkeys(one.name.split(_SUFFIX)[0] for one in each if one.name))
    return list(found)


def _takers(nodes: list[NodeProto], made: NodeProto) -> list[NodeProto]:
    """Return the nodes that take a quantised value, through its reader."""
    found = []
    for node in nodes:
        if made.output[0] in node.input:
            found += _takers(nodes, node) if node.op_type == _READ else [node]
    return found
