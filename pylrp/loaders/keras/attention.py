"""What Keras's layers of attention are in :mod:`pylrp.layers`: projections, two products and a softmax between them.

``keras/model.py`` comes here through the table in ``keras/builder.py``, with the arguments of the call by name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import MatMul, Multiply, Reshape, Shift, Softmax, Transpose
from pylrp.layers.shift import closed
from pylrp.loaders.keras.builder import Builder, Value, reads
from pylrp.loaders.keras.layers import einsum_dense

__all__ = ["TAKES_SEVERAL"]

#: Layers that are called with several values, each by its name.
TAKES_SEVERAL = {"MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention"}
_RANK = 2  # (tokens, features)


@reads(*sorted(TAKES_SEVERAL))
def attention(
    build: Builder,
    layer: Any,
    name: str,
    query: Value,
    value: Value,
    key: Value | None = None,
    use_causal_mask: bool = False,
    attention_mask: Any = None,
) -> Value:
    """In heads; keys and values may have fewer heads than queries, which share them in groups."""
    key = value if key is None else key
    given = [build.in_order(each) for each in (query, key, value)]
    if any(build.rank(each) != _RANK for each in given):
        build.refuse(name, layer, "attends along several axes")
    if any(each.name in build.masks for each in (query, key, value)):
        build.refuse(name, layer, "gets a mask of steps from the layers below", "give the mask as attention_mask=")
    if isinstance(attention_mask, Value):
        build.refuse(name, layer, "has a mask that is computed", "load the model's ONNX export")
    mask = _mask(build, layer, given, use_causal_mask, attention_mask)
    query, key, value = (
        einsum_dense(build, getattr(layer, f"_{part}_dense"), f"{name}.{part}", each)
        for part, each in zip(("query", "key", "value"), given, strict=True)
    )
    made = _attended(build, name, (query, key, value), mask)
    if getattr(layer, "use_gate", False) or getattr(layer, "_use_gate", False):
        made = build.emit(
            f"{name}.gated", Multiply(), made, einsum_dense(build, layer._gate_dense, f"{name}.gate", given[0])
        )
    found: Value = einsum_dense(build, layer._output_dense, name, made)
    return found


def _mask(build: Builder, layer: Any, given: list[Value], causal: bool, mask: Any) -> NDArray[Any] | None:
    """Return the mask as the layer computes it, (queries, keys); None where it has none."""
    import keras

    query, _, value = (np.zeros((1, *build.shapes[each.name]), np.float32) for each in given)
    made = layer._compute_attention_mask(query, value, attention_mask=mask, use_causal_mask=causal)
    if made is None:
        return None
    found = np.asarray(keras.ops.convert_to_numpy(made), bool)
    return found.reshape(found.shape[-2:]) if found.size == np.prod(found.shape[-2:]) else found[0]


def _attended(build: Builder, name: str, parts: tuple[Value, Value, Value], mask: NDArray[Any] | None) -> Value:
    """Return (tokens, heads, width) of queries, keys and values of that form."""
    (tokens, heads, width), (_, groups, _) = (build.shapes[each.name] for each in parts[:2])
    orders = {"query": (1, 0, 2), "key": (1, 2, 0), "value": (1, 0, 2)}
    moved = []
    for (part, order), each in zip(orders.items(), parts, strict=True):
        each = build.emit(f"{name}.{part}_heads", Transpose(order), each, last=False)
        if groups != heads:
            rows, columns = build.shapes[each.name][1:]
            shape = (groups, heads // groups if part == "query" else 1, rows, columns)
            each = build.emit(f"{name}.{part}_groups", Reshape(shape), each)
        moved.append(each)
    scores = build.emit(f"{name}.scores", MatMul(float(width) ** -0.5), moved[0], moved[1])
    if mask is not None:
        shift = closed(np.where(mask, 0.0, -np.inf).astype(build.dtype))
        scores = build.emit(f"{name}.mask", Shift(shift), scores)
    shares = build.emit(f"{name}.softmax", Softmax(-1), scores)
    made = build.emit(f"{name}.heads", MatMul(), shares, moved[2])
    if groups != heads:
        made = build.emit(f"{name}.ungrouped", Reshape((heads, tokens, build.shapes[made.name][-1])), made)
    return build.emit(f"{name}.tokens", Transpose((1, 0, 2)), made)
