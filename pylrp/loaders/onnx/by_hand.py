"""Layers that a user gives for operators or nodes of an ONNX model: they go before pylrp's own translation.

``onnx/reader.py`` comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from onnx import NodeProto

from pylrp.errors import UnsupportedLayer
from pylrp.layers import Layer
from pylrp.loaders.onnx.node import Call, Value, operator_of

__all__ = ["Operator", "checked", "made_by_hand"]

Operator = Callable[[dict[str, Any], list[NDArray[Any]]], Layer]


def made_by_hand(call: Call, function: Operator) -> Value:
    """Return what a user's layer makes of the inputs that are no constants."""
    positions = [i for i in range(len(call.node.input)) if call.has(i)]
    constants = [i for i in positions if call.is_constant(i)]
    arrays = [call.weight(i) for i in constants]
    values = [call.value(i) for i in positions if i not in constants]
    what = f"operators: the function for {call.op} {call.name!r}"
    try:
        layer = function(call.attributes, arrays)
    except UnsupportedLayer:
        raise
    except Exception as error:  # whatever the user's code meets
        raise ValueError(f"{what} raised {type(error).__name__}: {error}") from error
    if not isinstance(layer, Layer):
        raise TypeError(f"{what} returned {layer!r}, which is no layer")
    try:
        return call.emit(layer, *values)
    except Exception as error:
        raise ValueError(f"{what} returned {layer!r}, which does not fit: {error}") from error


def checked(operators: Mapping[str, Operator], nodes: Sequence[NodeProto]) -> Mapping[str, Operator]:
    """Return what a user gives for operators: each is a function, and for something that is there."""
    for key, function in operators.items():
        if not callable(function):
            raise TypeError(f"operators[{key!r}] is {function!r}, expected a function of attributes and constants")
    known = sorted({operator_of(node) for node in nodes})
    names = [node.name for node in nodes if node.name]
    wrong = [repr(key) for key in operators if key not in {*known, *names}]
    if wrong:
        there = f"its operators are {', '.join(known)}"
        if names:
            there += f", its nodes {', '.join(names[:20])}" + ", ..." * (len(names) > 20)
        raise ValueError(f"operators: nothing in the model is called {', '.join(wrong)}; {there}")
    return operators
