"""Adaptive pools whose windows differ in size: ONNX has no operator for them, so torch's exporter writes one of ours.

``torch/module.py`` asks for it where the exporter has refused a module, and hands :data:`LAYERS` to ``onnx/model.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pylrp.layers import AdaptiveAveragePool, AdaptiveMaxPool, Layer

__all__ = ["LAYERS", "as_operators"]

_OPSET = 9  # the exporter takes what is registered for an opset for all that follow

_OWN = -1  # along an axis that keeps its size


def _size(attributes: Mapping[str, Any]) -> list[int | None]:
    return [None if n == _OWN else n for n in attributes["size"]]


#: By operator, the layer of a node's attributes and constants.
LAYERS: dict[str, Callable[..., Layer]] = {
    "pylrp.AdaptiveAveragePool": lambda attributes, _: AdaptiveAveragePool(_size(attributes)),
    "pylrp.AdaptiveMaxPool": lambda attributes, _: AdaptiveMaxPool(_size(attributes)),
}


@contextmanager
def as_operators(torch: Any) -> Iterator[None]:
    """Let the exporter write adaptive pools as operators of these names."""
    names = {
        f"aten::adaptive_{short}_pool{axes}d": (f"Adaptive{long}Pool", outputs)
        for short, long, outputs in (("avg", "Average", 1), ("max", "Max", 2))
        for axes in (1, 2, 3)
    }
    for name, (operator, outputs) in names.items():
        torch.onnx.register_custom_op_symbolic(name, _symbolic(torch, operator, outputs), _OPSET)
    try:
        yield
    finally:
        for name in names:
            torch.onnx.unregister_custom_op_symbolic(name, _OPSET)


def _symbolic(torch: Any, operator: str, outputs: int) -> Callable[..., Any]:
    helper = torch.onnx.symbolic_helper

    def write(graph: Any, x: Any, size: Any) -> Any:
        wanted = helper._maybe_get_const(size, "is")
        if not isinstance(wanted, list):  # in torch None: there the input's own size stands, which is no constant
            entries = [helper._maybe_get_const(entry, "i") for entry in helper._unpack_list(size)]
            wanted = [entry if isinstance(entry, int) else _OWN for entry in entries]
        made = graph.op(f"pylrp::{operator}", x, size_i=wanted, outputs=outputs)
        sizes = helper._get_tensor_sizes(x)
        if sizes is not None:
            own = sizes[-len(wanted) :]
            sizes = sizes[: -len(wanted)] + [n if want == _OWN else want for n, want in zip(own, wanted, strict=True)]
            for value in made if outputs > 1 else (made,):
                value.setType(x.type().with_sizes(sizes))
        return made

    return write
