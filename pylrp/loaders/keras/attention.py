"""What Keras's layers of attention are in :mod:`pylrp.layers`: projections, two products and a softmax between them.

``keras/model.py`` comes here through the table in ``keras/builder.py``, with the arguments of the call by name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Affine, Expand, MatMul, Multiply, Reshape, ScaleBy, Shift, ShiftBy, Softmax, Transpose
from pylrp.layers.shift import closed
from pylrp.loaders.keras.builder import Builder, Value, reads
from pylrp.loaders.keras.layers import einsum_dense

__all__ = ["SWITCHES", "TAKES_SEVERAL"]

#: Layers that are called with several values, each by its name.
TAKES_SEVERAL = {"MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention"}
#: Switches of layers that are called with a list of values.
SWITCHES = {"Attention": ("use_causal_mask", "return_attention_scores")}
_RANK = 2  # (tokens, features)
#: What Keras takes off scores of steps that are left out.
_LEFT_OUT = 1e9


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
    steps = [build.masks.get(each.name) for each in (query, value, key)]
    if isinstance(attention_mask, Value):
        build.refuse(name, layer, "has a mask that is computed", "load the model's ONNX export")
    mask = _mask(build, layer, given, use_causal_mask, attention_mask)
    left_out = _left_out(build, name, steps[0], [each for each in dict.fromkeys(steps[1:]) if each is not None])
    query, key, value = (
        einsum_dense(build, getattr(layer, f"_{part}_dense"), f"{name}.{part}", each)
        for part, each in zip(("query", "key", "value"), given, strict=True)
    )
    made = _attended(build, name, (query, key, value), mask, left_out)
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


@reads("Attention")
def dot_attention(
    build: Builder,
    layer: Any,
    name: str,
    query: Value,
    value: Value,
    key: Value | None = None,
    use_causal_mask: bool = False,
    return_attention_scores: bool = False,
) -> Value | list[Value]:
    """Shares of the values by a softmax over the products of queries and keys; without weights but for a scale."""
    key = value if key is None else key
    if layer.score_mode != "dot":
        build.refuse(name, layer, f"has the score_mode {layer.score_mode!r}", 'use score_mode="dot"')
    own, steps = build.masks.get(query.name), build.masks.get(value.name)
    query, value, key = (build.in_order(each) for each in (query, value, key))
    if any(build.rank(each) != _RANK for each in (query, value, key)):
        build.refuse(name, layer, "attends along several axes")
    scale = 1.0 if layer.scale is None else float(build.array(layer.scale))
    keys = build.emit(f"{name}.keys", Transpose((1, 0)), key, last=False)
    scores = build.emit(f"{name}.scores", MatMul(scale), query, keys)
    mask = np.tril(np.ones(build.shapes[scores.name], bool)) if use_causal_mask else None
    left_out = _left_out(build, name, None, [] if steps is None else [steps])
    shares = _shares(build, name, scores, mask, left_out)
    made = build.emit(name if own is None else f"{name}.all", MatMul(), shares, value)
    if own is not None:  # steps of queries that are left out are 0
        column = build.emit(f"{name}.queries", Reshape((build.shapes[query.name][0], 1)), own)
        made = build.emit(name, ScaleBy(), made, column)
        build.masks[made.name] = own
    return [made, shares] if return_attention_scores else made


def _left_out(build: Builder, name: str, queries: Value | None, keys: list[Value]) -> Value | None:
    """Return what is added to scores of steps that are left out, (1 or queries, keys); None where none is.

    Where a query is, all its scores lose the same: its shares are equal, as in Keras.
    """
    parts = [
        build.emit(f"{name}.key_steps.{number}", Reshape((1, build.shapes[each.name][0])), each)
        for number, each in enumerate(keys)
    ]
    if queries is not None:
        parts.append(build.emit(f"{name}.query_steps", Reshape((build.shapes[queries.name][0], 1)), queries))
    if not parts:
        return None
    shape = np.broadcast_shapes(*(build.shapes[part.name] for part in parts))
    made = parts[0] if build.shapes[parts[0].name] == shape else build.emit(f"{name}.spread", Expand(shape), parts[0])
    for number, other in enumerate(parts[1:]):
        made = build.emit(f"{name}.steps.{number}", ScaleBy(), made, other)
    return build.emit(f"{name}.left_out", Affine(_LEFT_OUT, -_LEFT_OUT), made)


def _shares(build: Builder, name: str, scores: Value, mask: NDArray[Any] | None, left_out: Value | None) -> Value:
    """Return the softmax of scores along the keys, of those that take part."""
    if left_out is not None:
        shape = build.shapes[left_out.name]
        spread = (1,) * (build.rank(scores) - len(shape)) + shape
        scores = build.emit(
            f"{name}.left_out_of_scores", ShiftBy(), scores, build.emit(f"{name}.each", Reshape(spread), left_out)
        )
    if mask is not None:
        shift = closed(np.where(mask, 0.0, -np.inf).astype(build.dtype))
        scores = build.emit(f"{name}.mask", Shift(shift), scores)
    return build.emit(f"{name}.softmax", Softmax(-1), scores)


def _attended(
    build: Builder,
    name: str,
    parts: tuple[Value, Value, Value],
    mask: NDArray[Any] | None,
    left_out: Value | None,
) -> Value:
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
    shares = _shares(build, name, scores, mask, left_out)
    made = build.emit(f"{name}.heads", MatMul(), shares, moved[2])
    if groups != heads:
        made = build.emit(f"{name}.ungrouped", Reshape((heads, tokens, build.shapes[made.name][-1])), made)
    return build.emit(f"{name}.tokens", Transpose((1, 0, 2)), made)
