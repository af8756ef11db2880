"""Token ids and masks in pylrp's own file: the program of side values, or the ONNX model where lengths are free.

``native.py`` calls in. A network that is laid out anew for each length is saved as the model that it is read from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.network.graph import Graph
from pylrp.network.sides import Feed, Fixed, SideInput, Sides, Step

__all__ = ["decode_sides", "encode_model", "encode_sides", "read_model"]

Array = NDArray[Any]
Encode = Callable[[object, str], object]
Decode = Callable[[object], Any]
_MODEL = "model.onnx"


def encode_sides(sides: Sides, encode: Encode) -> dict[str, Any]:
    """Return a program as JSON has it.

    Parameters
    ----------
    sides : Sides
    encode : callable
        Returns a value as JSON has it; takes a name for its arrays.
    """

    def fixed(value: Fixed | str | None, name: str) -> Any:
        if not isinstance(value, Fixed):
            return value
        return {"array": encode(value.array, name), "by_batch": encode(value.by_batch, f"{name}.by_batch"),
                "per_sample": value.per_sample}  # fmt: skip

    return {
        "names": list(sides.names),
        "past": list(sides.past),
        "inputs": [[name, list(each.shape), each.kind] for name, each in sides.inputs.items()],
        "steps": [
            [
                step.op,
                [fixed(each, f"{step.output}.{i}") for i, each in enumerate(step.inputs)],
                step.output,
                {key: encode(value, f"{step.output}.{key}") for key, value in step.attributes.items()},
            ]
            for step in sides.steps
        ],
        "feeds": [
            [name, feed.value, feed.axis, list(feed.shape), fixed(feed.table, f"{name}.table"), feed.source, feed.adds]
            for name, feed in sides.feeds.items()
        ],
    }


def decode_sides(stored: Mapping[str, Any], decode: Decode) -> Sides:
    """Return a program that :func:`encode_sides` has written."""

    def fixed(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return Fixed(np.asarray(decode(value["array"])), decode(value["by_batch"]), bool(value["per_sample"]))

    return Sides(
        tuple(stored["names"]),
        {name: SideInput(tuple(shape), kind) for name, shape, kind in stored["inputs"]},
        tuple(
            Step(op, tuple(map(fixed, inputs)), output, {key: decode(value) for key, value in attributes.items()})
            for op, inputs, output, attributes in stored["steps"]
        ),
        {
            name: Feed(value, axis, tuple(shape), fixed(table), source, adds)
            for name, value, axis, shape, table, source, adds in stored["feeds"]
        },
        tuple(stored.get("past", ())),
    )


def encode_model(graph: Graph) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return how a network of free lengths is read again, and its model as an array of bytes.

    Raises
    ------
    TypeError
        If it has operators that are functions in Python.
    """
    again = None if graph.facts.lengths is None else graph.facts.lengths.again
    assert again is not None  # the caller looked
    model, options = again()
    ranges = {name: list(bounds) for name, bounds in graph.facts.ranges.items()}
    told = {**options, "dtype": graph.dtype.name, "keep_top": not graph.facts.top, "ranges": ranges}
    return told, {_MODEL: np.frombuffer(model, np.uint8)}


def read_model(told: Mapping[str, Any], arrays: Mapping[str, Array]) -> Graph:
    """Return the graph of a model that :func:`encode_model` has written."""
    from dataclasses import replace

    try:
        import onnx

        from pylrp.loaders.onnx.model import load_onnx
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise ImportError("a network of free lengths is read with the package onnx: pip install onnx") from None
    model = onnx.load_model_from_string(arrays[_MODEL].tobytes())
    shapes = told["input_shape"]
    graph = load_onnx(model, input_shape=shapes, outputs=told["outputs"], dtype=told["dtype"])
    lengths = graph.facts.lengths
    facts = replace(
        graph.facts,
        ranges={name: (float(low), float(high)) for name, (low, high) in told["ranges"].items()},
        lengths=None if lengths is None else replace(lengths, keep_top=bool(told["keep_top"])),
    )
    return graph.changed(facts=facts)
