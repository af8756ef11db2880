"""ONNX's LSTM, GRU and RNN; where the batch stands in the inputs of a model that has them.

They take a sequence as (steps, batch, features) unless ``layout`` is 1, so that in many files the batch is axis 1 of
an input, and in some, which are made for one sequence at a time, axis 0 is the steps and there is no batch at all:
:func:`places_of_batch` finds out. :data:`RECURRENT` is part of the table of ``onnx/operators.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from pylrp.layers import GRU, LSTM, RNN, Recurrent, Reshape, Slice
from pylrp.loaders.onnx.constants import attributes_of
from pylrp.loaders.onnx.node import Call, Value
from pylrp.loaders.onnx.views import PLAIN, View
from pylrp.network.sides import Feed

__all__ = ["RECURRENT", "STEPS_FIRST", "places_of_batch"]

Array = NDArray[Any]

#: The layer of each operator, its order of gates, how many functions it has.
_KINDS: dict[str, tuple[type[Recurrent], str, int]] = {
    "LSTM": (LSTM, "iofc", 3),
    "GRU": (GRU, "zrh", 2),
    "RNN": (RNN, "n", 1),
}
#: ONNX's functions: their names here, and the defaults of alpha and beta where they take them.
_FUNCTIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "relu": ("relu", ()),
    "tanh": ("tanh", ()),
    "sigmoid": ("sigmoid", ()),
    "softsign": ("softsign", ()),
    "softplus": ("softplus", ()),
    "affine": ("affine", (1.0, 0.0)),
    "leakyrelu": ("leaky_relu", (0.01,)),
    "thresholdedrelu": ("thresholded_relu", (1.0,)),
    "scaledtanh": ("scaled_tanh", (1.0, 1.0)),
    "hardsigmoid": ("hard_sigmoid", (0.2, 0.5)),
    "elu": ("elu", (1.0,)),
}
#: A file for one sequence at a time: its axis 0 is the steps, which every sample has of its own.
STEPS_FIRST = View(0, 0, 1)


def _recurrent(call: Call) -> list[Value]:
    kind, gates, functions = _KINDS[call.op]
    batch_first = bool(call.attribute("layout", 0))
    sequence = _sequence(call, batch_first)
    w, u = call.weight(1), call.weight(2)
    if w.ndim != 3 or u.ndim != 3 or u.shape[0] != w.shape[0] or u.shape[1] != w.shape[1]:
        raise call.broken(f"has weights of shapes {w.shape} and {u.shape}")
    directions, units = w.shape[0], u.shape[2]
    direction = call.attribute("direction", "forward")
    settings: dict[str, Any] = {"gates": gates, "direction": direction, **_functions(call, functions, directions)}
    if call.attribute("clip"):
        settings["clip"] = float(call.attribute("clip"))
    if call.has(3):
        both = call.weight(3)
        if both.shape != (directions, 2 * w.shape[1]):
            raise call.broken(f"has biases of shape {both.shape}")
        settings["bias"], settings["recurrent_bias"] = (np.ascontiguousarray(b) for b in np.split(both, 2, axis=1))
    if call.op == "GRU":
        settings["reset_after"] = bool(call.attribute("linear_before_reset", 0))
    if call.op == "LSTM":
        settings["coupled"] = bool(call.attribute("input_forget", 0))
        if call.has(7):
            i, o, f = np.split(call.weight(7), 3, axis=1)
            settings["peepholes"] = np.concatenate([i, f, o], axis=1)
    inputs, takes = [sequence], []
    lengths = _lengths(call, sequence.shape[0])
    if lengths is not None:
        inputs.append(lengths)
        takes.append("lengths")
    for name, position in (("h", 5), ("c", 6)) if call.op == "LSTM" else (("h", 5),):
        given = _state(call, position, batch_first, directions, units)
        if isinstance(given, Value):
            inputs.append(given)
            takes.append(name)
        elif given is not None:
            settings[f"first_{name}"] = given
    wanted = [name if name in call.translation.needed else "" for name in call.node.output]
    wanted += [""] * (3 - len(wanted))
    returns = "all" if sum(map(bool, wanted)) > 1 or wanted[2] else "sequence" if wanted[0] else "last"
    plain = directions == 1 and call.op == "RNN"
    arrays = (w[0], u[0]) if plain else (w, u)
    if plain:
        settings |= {name: settings[name][0] for name in ("bias", "recurrent_bias") if name in settings}
    layer = kind(*arrays, returns=returns, takes=tuple(takes), **settings)  # type: ignore[arg-type]
    made = call.emit(layer, *inputs, part="states", view=PLAIN)
    return _outputs(call, made, wanted, (sequence.shape[0], directions, units), batch_first)


def _sequence(call: Call, batch_first: bool) -> Value:
    """Return the sequence as (steps, features)."""
    value = call.viewed()
    if value.rank != 3:
        raise call.broken(f"takes a value with {value.rank} axes, expected steps, batch and features")
    if not batch_first and value.view == STEPS_FIRST and value.shape[1] == 1:
        steps, _, features = value.shape
        return call.emit(Reshape((steps, features)), value, part="sequence", view=PLAIN)
    if value.view != View(0 if batch_first else 1):
        raise call.mixes_batch("takes its steps from the axis that is the batch of the model's input")
    return Value(value.name, value.shape)


def _lengths(call: Call, steps: int) -> Value | None:
    """Return the number of steps of each sample as an input of the graph."""
    if not call.has(4):
        return None
    if call.is_side(4):
        name = call.translation.unique(f"{call.name}/lengths")
        call.translation.sides.feeds[name] = Feed(call.node.input[4], 0, (1,))
        return Value(name, (1,))
    if np.any(np.asarray(call.constant(4, per_sample=True)) < steps):
        raise call.unsupported("has sequences whose lengths are written into the model", "make them an input")
    return None


def _state(call: Call, position: int, batch_first: bool, directions: int, units: int) -> Value | Array | None:
    """Return the first state: None for zeros, an array for the same one for all samples, or what is computed."""
    name = call.node.input[position] if call.has(position) else ""
    if not name:
        return None
    constants = call.translation.constants
    if name not in constants:
        value = call.viewed(position)
        if value.view != View(0 if batch_first else 1) or value.shape != (directions, units):
            raise call.mixes_batch(f"takes a first state of shape {value.shape} (without the batch)")
        part = "first_h" if position == 5 else "first_c"
        return call.emit(Reshape((directions * units,)), value, part=part, view=PLAIN)
    array = constants[name].first
    if array.ndim != 3:
        raise call.broken(f"has a first state of shape {array.shape}")
    axis = 0 if batch_first else 1
    one = np.take(array, [0], axis)
    if any(array.strides) and not np.array_equal(array, np.broadcast_to(one, array.shape)):
        raise call.mixes_batch("has another first state for each sample of the batch")
    state = np.asarray(one.reshape(directions, units), dtype=constants.dtype)
    return state if state.any() else None


def _functions(call: Call, count: int, directions: int) -> dict[str, Any]:
    names = call.attribute("activations")
    if not names:
        return {}
    alphas, betas = (iter(call.attribute(f"activation_{which}", ())) for which in ("alpha", "beta"))
    found: list[Any] = []
    for given in names:
        name = (given.decode() if isinstance(given, bytes) else given).lower()
        if name not in _FUNCTIONS:
            raise call.unsupported(f"has the function {given!r}, which ONNX does not name")
        ours, defaults = _FUNCTIONS[name]
        numbers = [next(values, default) for values, default in zip((alphas, betas), defaults, strict=False)]
        found.append((ours, *numbers, *[0.0] * (2 - len(numbers))) if numbers else ours)
    if len(found) != count * directions:
        raise call.broken(f"has {len(found)} functions, expected {count} for each direction")
    return {"activations": [found[k * count : (k + 1) * count] for k in range(directions)]}


def _outputs(
    call: Call, made: Value, wanted: Sequence[str], sizes: tuple[int, int, int], batch_first: bool
) -> list[Value]:
    """Return the sequence and the last states as the file has them."""
    steps, directions, units = sizes
    shapes = [(steps, directions, units), (directions, units), (directions, units)]
    ends = np.cumsum([steps * directions * units, directions * units, directions * units])
    views = [View(0), View(0), View(0)] if batch_first else [View(2), View(1), View(1)]
    several = sum(map(bool, wanted)) > 1 or bool(wanted[2])
    found: list[Value] = []
    for at, (name, shape, view) in enumerate(zip(wanted, shapes, views, strict=True)):
        if not name:
            found.append(made)  # nobody takes it
            continue
        part = ("", "last_h", "last_c")[at] if several else ""
        value = made
        if several:
            value = call.emit(Slice([ends[at] - ends[0] if at == 0 else ends[at - 1]], [ends[at]], [0]), made,
                              part=f"{part or 'sequence'}_flat")  # fmt: skip
        found.append(call.emit(Reshape(shape), value, part=part, view=view))
    return found


#: Operators that leave all axes where they are; the first input that is no initialiser has them.
_STAYS = {
    "Add", "BatchNormalization", "Cast", "Clip", "Div", "Dropout", "Elu", "Exp", "Gelu", "Identity",
    "LayerNormalization", "LeakyRelu", "Log", "Mul", "PRelu", "Pow", "Relu", "Selu", "Sigmoid", "Softplus", "Sqrt",
    "Sub", "Tanh",
}  # fmt: skip
#: Operators that leave axis 0 where it is.
_KEEPS_FIRST = {"AveragePool", "Concat", "Conv", "Gemm", "MatMul", "MaxPool", "Pad", "Slice"}


def places_of_batch(nodes: Sequence[NodeProto], inputs: Mapping[str, int], constants: set[str]) -> dict[str, View]:
    """Return where the batch stands in the inputs of a model with recurrent layers, for those that have it elsewhere.

    Parameters
    ----------
    nodes : sequence of NodeProto
    inputs : mapping of str to int
        The rank of each input of floating-point numbers.
    constants : set of str
        Names of initialisers.
    """
    producers = {name: node for node in nodes for name in node.output if name}
    layers = [node for node in nodes if node.op_type in _KINDS and not attributes_of(node).get("layout", 0)]
    found = {state: View(1) for node in layers for state in node.input[5:7] if state in inputs}
    for node in layers:
        batch = _traced(node.input[0], 1, producers, inputs, constants)
        if batch is not None:
            found[batch[0]] = View(batch[1])
    for node in layers:  # no axis of an input is its batch
        steps = _traced(node.input[0], 0, producers, inputs, constants)
        if steps is not None and steps[1] == 0:
            found.setdefault(steps[0], STEPS_FIRST)
    return {name: view for name, view in found.items() if view != PLAIN}


def _traced(
    name: str, axis: int, producers: Mapping[str, NodeProto], inputs: Mapping[str, int], constants: set[str]
) -> tuple[str, int] | None:
    """Return the input, and its axis, that an axis of a value is; None where it is none's."""
    for _ in range(len(producers) + 1):
        if name in inputs:
            return name, axis
        node = producers.get(name)
        if node is None:
            return None
        settings = attributes_of(node)
        computed = [each for each in node.input if each and each not in constants]
        if node.op_type in _STAYS:
            name = _widest(computed, producers, constants)
        elif node.op_type == "Transpose" and "perm" in settings:
            name, axis = node.input[0], settings["perm"][axis]
        elif node.op_type in _KINDS and not settings.get("layout", 0) and name == node.output[0]:
            if axis not in (0, 2):
                return None
            name, axis = node.input[0], axis // 2
        elif node.op_type in ("Squeeze", "Unsqueeze", "Reshape") and axis == 0:
            name = node.input[0]  # what stands behind it is another's
        elif node.op_type == "Squeeze" and axis == 1:  # of one direction: (steps, 1, batch, units)
            name, axis = node.input[0], 2
        elif node.op_type in _KEEPS_FIRST and axis == 0:
            name = _widest(computed, producers, constants)
        elif node.op_type == "MatMul" and computed[:1] == [node.input[0]]:
            name = node.input[0]
        else:
            return None
    return None


def _widest(computed: Sequence[str], producers: Mapping[str, NodeProto], constants: set[str]) -> str:
    """Return the first value that is not made by a node without inputs."""
    return next((each for each in computed if each not in producers or producers[each].input), computed[0])


RECURRENT: dict[str, Callable[[Call], list[Value]]] = dict.fromkeys(_KINDS, _recurrent)
