"""A network's identity: a hash of all that decides its numbers, the same in every process and on every machine.

``pylrp.stream`` stores it beside results, ``pylrp.dask`` keeps a worker's networks by it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from pylrp.network.graph import Graph

__all__ = ["digest", "fingerprint"]


def fingerprint(graph: Graph) -> str:
    """Return 64 hexadecimal digits that two graphs share if and only if they compute the same from the same input.

    Names, shapes, layers with all their arrays, and what is computed of token ids; notes do not count. Of layers
    written in Python it takes the code and what the object holds.
    """
    facts = graph.facts
    return digest(
        [
            graph.inputs,
            list(graph.outputs),
            graph.output_values,
            sorted(graph.channels_last),
            graph.dtype,
            [(node.name, node.layer, node.inputs) for node in graph.nodes],
            (dict(facts.top), facts.classes, dict(facts.features), facts.sides, facts.front),
        ]
    )


def digest(value: Any) -> str:
    """Return 64 hexadecimal digits of a value: of numbers, texts, arrays, containers and objects of these."""
    state = hashlib.sha256()
    _add(state, value, ())
    return state.hexdigest()


def _add(state: Any, value: Any, within: tuple[int, ...]) -> None:
    """Hash a value, each with its kind and its length, so that no two structures give the same bytes."""
    if id(value) in within:  # a circle, which the value above has begun
        state.update(b"circle;")
        return
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        state.update(f"array {value.dtype.str} {value.shape};".encode())
        state.update(np.ascontiguousarray(value).view(np.uint8).data if value.size else b"")
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic | np.dtype):
        text = repr(value).encode()
        state.update(f"{type(value).__name__} {len(text)};".encode() + text)
    elif isinstance(value, CodeType):
        _add(state, (value.co_code, value.co_consts, value.co_names), (*within, id(value)))
    elif isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        _add(state, (value.__qualname__, value.__code__, value.__defaults__, cells), (*within, id(value)))
    else:
        parts = _parts(value)
        state.update(f"{type(value).__module__}.{type(value).__qualname__} {len(parts)};".encode())
        for part in parts:
            _add(state, part, (*within, id(value)))


def _parts(value: Any) -> list[Any]:
    """Return what an object consists of, in an order that depends on nothing else."""
    if isinstance(value, Mapping):
        return sorted(([key, part] for key, part in value.items()), key=lambda pair: repr(pair[0]))
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, np.ndarray):
        return value.ravel().tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [[field.name, getattr(value, field.name)] for field in dataclasses.fields(value)]
    if isinstance(value, type):
        return [value.__module__, value.__qualname__]
    held = getattr(value, "__dict__", None)
    return [repr(value)] if held is None else [[name, held[name]] for name in sorted(held)]
