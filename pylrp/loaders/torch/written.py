"""Functions of torch that its exporter does not write, or writes wrongly, written as operators of ONNX.

``torch/export.py`` has them in force while it exports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["written_rightly"]

_OPSET = 13  # what is registered for an opset holds for all that follow; its own are of this one or earlier
_Symbolic = Callable[..., Any]


@contextmanager
def written_rightly(torch: Any) -> Iterator[None]:
    """Let the exporter write these functions so."""
    functions = _functions(torch)
    for name, symbolic in functions.items():
        torch.onnx.register_custom_op_symbolic(f"aten::{name}", symbolic, _OPSET)
    try:
        yield
    finally:
        for name in functions:
            torch.onnx.unregister_custom_op_symbolic(f"aten::{name}", _OPSET)


def _functions(torch: Any) -> dict[str, _Symbolic]:
    helper = torch.onnx.symbolic_helper

    def number(value: Any, kind: str = "i") -> Any:
        """Return a constant as a number of its own: the exporter's is a tensor that may be written to."""
        found = helper._maybe_get_const(value, kind)
        return found.item() if isinstance(found, torch.Tensor) else found

    def plain(operator: str) -> _Symbolic:
        return lambda graph, x: graph.op(operator, x)

    def taken(graph: Any, x: Any, index: Any, axis: int) -> Any:
        return graph.op("Gather", x, graph.op("Constant", value_t=index), axis_i=axis)

    def size(x: Any, axis: int) -> int | None:
        sizes = helper._get_tensor_sizes(x)
        return None if sizes is None else sizes[axis]

    def expm1(graph: Any, x: Any) -> Any:
        return graph.op("Sub", graph.op("Exp", x), graph.op("Constant", value_t=torch.tensor(1.0)))

    def threshold(graph: Any, x: Any, limit: Any, value: Any) -> Any:
        limit, value = (graph.op("Constant", value_t=torch.tensor(float(number(n, "f")))) for n in (limit, value))
        return graph.op("Where", graph.op("Greater", x, limit), x, value)

    def unfold(graph: Any, x: Any, dimension: Any, width: Any, step: Any) -> Any:
        """The exporter counts an axis from the end of more axes than there are."""
        rank, width, step = helper._get_tensor_rank(x), number(width), number(step)
        axis = number(dimension) % rank
        length = size(x, axis)
        if length is None:
            return helper._unimplemented("unfold", "of an axis of any size")
        starts = torch.arange(0, length - width + 1, step)
        windows = taken(graph, x, starts[:, None] + torch.arange(width), axis)
        order = [i for i in range(rank + 1) if i != axis + 1] + [axis + 1]
        return graph.op("Transpose", windows, perm_i=order)

    def repeat_interleave(graph: Any, x: Any, repeats: Any, dim: Any = None, output_size: Any = None) -> Any:
        """The exporter adds to its constant -1, which other functions have, too."""

        def constant(*numbers: int) -> Any:
            return graph.op("Constant", value_t=torch.tensor(numbers))

        rank, counts = helper._get_tensor_rank(x), helper._maybe_get_const(repeats, "t")
        if dim is None or helper._is_none(dim):
            x, rank, axis = graph.op("Reshape", x, constant(-1)), 1, 0
        else:
            axis = number(dim) % rank
        if not isinstance(counts, torch.Tensor | int):
            return helper._unimplemented("repeat_interleave", "by counts that are computed")
        counts, length = torch.as_tensor(counts).reshape(-1), size(x, axis)
        if len(counts) > 1 or length is not None:
            places = torch.arange(len(counts) if length is None else length)
            return taken(graph, x, places.repeat_interleave(counts.expand(len(places))), axis)
        each = graph.op("Unsqueeze", x, constant(axis + 1))
        tiled = graph.op("Tile", each, constant(*[1] * (axis + 1), int(counts), *[1] * (rank - axis - 1)))
        sizes = graph.op("Shape", x)
        before = graph.op("Slice", sizes, constant(0), constant(axis))
        behind = graph.op("Slice", sizes, constant(axis + 1), constant(rank))
        return graph.op("Reshape", tiled, graph.op("Concat", before, constant(-1), behind, axis_i=0))

    return {
        **{name: plain(name.title()) for name in ("sinh", "cosh", "asinh", "acosh", "atanh")},
        "expm1": expm1,
        "special_expm1": expm1,
        "threshold": threshold,
        "unfold": unfold,
        "repeat_interleave": repeat_interleave,
    }
