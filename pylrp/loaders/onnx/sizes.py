"""How large what an ONNX model declares would become: functions written out, constants computed.

``onnx/model.py`` and ``onnx/folding.py`` ask before they let onnx do it. A file of a few kilobytes can ask for more
than any machine has: functions that call each other twice, constants joined with themselves again and again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, FunctionProto, NodeProto

from pylrp._limits import require

__all__ = ["folded_size", "require_functions"]

Array = NDArray[Any]
Key = tuple[str, str, str]
_MOST_NODES = 1 << 17


def require_functions(model: onnx.ModelProto) -> None:
    """Raise ValueError if a model's own functions call each other in a circle, or would be too much written out."""
    functions: dict[Key, FunctionProto] = {(f.domain, f.name, getattr(f, "overload", "")): f for f in model.functions}
    done: dict[Key, tuple[int, int]] = {}
    open_: set[Key] = set()

    def written_out(nodes: Sequence[NodeProto]) -> tuple[int, int]:
        """Return how many nodes and bytes."""
        count = size = 0
        for node in nodes:
            key = node.domain, node.op_type, getattr(node, "overload", "")
            inner = of(key) if key in functions else (1, node.ByteSize())
            below = [written_out(graph.node) for graph in _graphs(node)]
            count += inner[0] + sum(n for n, _ in below)
            size += inner[1] + sum(n for _, n in below)
        return count, size

    def of(key: Key) -> tuple[int, int]:
        if key in open_:
            raise ValueError(f"call themselves: {key[1]!r}")
        if key not in done:
            open_.add(key)
            done[key] = written_out(functions[key].node)
            open_.discard(key)
        return done[key]

    count, size = written_out(model.graph.node)
    if count > _MOST_NODES + len(model.graph.node):
        raise ValueError(f"are {count} nodes written out, more than any network has")
    require(size, "its functions written out")


def _graphs(node: NodeProto) -> list[onnx.GraphProto]:
    found = []
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            found.append(attribute.g)
        elif attribute.type == AttributeProto.GRAPHS:
            found += attribute.graphs
    return found


def folded_size(op: str, attributes: dict[str, Any], inputs: Sequence[Array | None]) -> tuple[int, int]:
    """Return how many entries an operator makes of constants, at most, and how many steps it takes.

    Sizes are Python's integers. What can't be worked out here, for it makes no sense, is left to the evaluator.
    """
    given = [array for array in inputs if array is not None]
    total = sum(array.size for array in given)
    shapes = [array.shape for array in given]
    try:
        made = _made(op, attributes, given, shapes, total)
    except (IndexError, KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError):
        made = total
    steps = made
    if op in ("MatMul", "Gemm") and given:
        steps = made * max(given[0].shape, default=1)
    elif op in ("Conv", "ConvTranspose") and len(given) > 1:
        steps = made * math.prod(shapes[1])
    elif op in ("AveragePool",):
        steps = made * math.prod(int(n) for n in attributes.get("kernel_shape", ()))
    return made, max(steps, total)


def _made(
    op: str, attributes: dict[str, Any], given: Sequence[Array], shapes: Sequence[tuple[int, ...]], total: int
) -> int:
    if op in ("Tile", "Expand", "ConstantOfShape", "Pad", "Range", "OneHot"):
        return _declared(op, attributes, given)
    if op == "Einsum":
        return _einsum(attributes["equation"], shapes)
    if op in ("MatMul", "Gemm"):
        rows, columns = (shape or (1,) for shape in shapes[:2])
        batch = math.prod(_broadcast([rows[:-2], columns[:-2]]))
        return batch * math.prod(rows[-2:]) * math.prod(columns[-2:]) if op == "Gemm" else (
            batch * math.prod(rows[-2:-1]) * math.prod(columns[-1:] if len(columns) > 1 else ())
        )  # fmt: skip
    if op in ("Conv", "ConvTranspose", "AveragePool"):
        return _windows(op, attributes, shapes)
    if op in ("Gather", "GatherND"):
        return math.prod(shapes[0]) * math.prod(shapes[1])
    if op == "NonZero":
        return total * max(len(shapes[0]), 1)
    if op in ("Concat", "ScatterND", "ScatterElements", "Split", "GatherElements"):
        return total
    broadcast = math.prod(_broadcast(shapes))
    return max(broadcast, total)


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    rank = max(map(len, shapes), default=0)
    aligned = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return [max(sizes) for sizes in zip(*aligned, strict=True)]


def _declared(op: str, attributes: dict[str, Any], given: Sequence[Array]) -> int:
    """Return the size of what is as large as an input says."""
    first = given[0]
    if op == "ConstantOfShape":
        return math.prod(int(n) for n in first.ravel())
    if op == "Range":
        begin, end, step = (float(array.ravel()[0]) for array in given)
        return max(0, math.ceil((end - begin) / step))
    if op == "Pad":
        widths = attributes.get("pads", attributes.get("paddings"))
        pads = [int(n) for n in (given[1].ravel() if widths is None else widths)]
        if len(pads) != 2 * first.ndim:  # along some axes
            return math.prod(n + sum(map(abs, pads)) for n in first.shape)
        half = len(pads) // 2
        return math.prod(max(n + pads[i] + pads[half + i], 0) for i, n in enumerate(first.shape))
    numbers = [int(n) for n in given[1].ravel()]
    if op == "Tile":
        return first.size * math.prod(numbers)
    if op == "OneHot":
        return first.size * max(numbers)
    return math.prod(_broadcast([first.shape, tuple(numbers)]))


def _einsum(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the product of all its axes' sizes: also the steps it takes."""
    sizes: dict[str, int] = {}
    plain = equation.replace(" ", "").replace("...", "")
    for letters, shape in zip(plain.split("->")[0].split(","), shapes, strict=True):
        sizes.update({letter: max(n, sizes.get(letter, 1)) for letter, n in zip(letters, shape, strict=False)})
        if "..." in equation:
            sizes["..."] = max(math.prod(shape), sizes.get("...", 1))
    return math.prod(sizes.values())


def _windows(op: str, attributes: dict[str, Any], shapes: Sequence[tuple[int, ...]]) -> int:
    """Return how many values a convolution or a pool makes at most."""
    spatial = shapes[0][2:]
    pads = [int(n) for n in attributes.get("pads", [0] * (2 * len(spatial)))]
    strides = [int(n) for n in attributes.get("strides", [1] * len(spatial))]
    channels = shapes[0][1] if op == "AveragePool" else max(shapes[1][:2]) * int(attributes.get("group", 1))
    sizes = []
    for axis, n in enumerate(spatial):
        wide = n + pads[axis] + pads[len(spatial) + axis]
        if op == "ConvTranspose":
            reach = shapes[1][2 + axis] * int(attributes.get("dilations", [1] * len(spatial))[axis])
            wide = n * strides[axis] + reach + int(attributes.get("output_padding", [0] * len(spatial))[axis])
        sizes.append(wide)
    return shapes[0][0] * channels * math.prod(sizes)
