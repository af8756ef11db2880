"""What Keras's recurrent layers and masks are in :mod:`pylrp.layers`.

LSTM, GRU, SimpleRNN and Bidirectional; a mask is a number a step, 0 where the step is left out.
``keras/model.py`` comes here through the table in ``keras/builder.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pylrp.layers import (
    GRU,
    LSTM,
    RNN,
    Add,
    Affine,
    Concat,
    Function,
    GlobalMaxPool,
    Multiply,
    Reshape,
    ScaleBy,
    Slice,
)
from pylrp.loaders.keras.builder import Builder, Value, reads
from pylrp.loaders.keras.lookup import differing

__all__ = ["KEYWORDS"]

#: Classes that may be called with ``mask`` and ``initial_state``.
KEYWORDS = ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "TimeDistributed", "GlobalAveragePooling1D")

#: Keras's functions by name, where they are called otherwise here or have numbers.
_FUNCTIONS: dict[str, Any] = {
    "leaky_relu": ("leaky_relu", 0.2, 0.0),
    "elu": ("elu", 1.0, 0.0),
    "hard_sigmoid": ("hard_sigmoid", 1 / 6, 0.5),
    "exponential": "exp",
    "gelu": "gelu",
    "silu": "silu",
    "hard_silu": "hard_swish",
}
_SAME = {"sigmoid", "tanh", "relu", "softplus", "softsign", "linear", "mish"}
#: By class of Keras: the layer, its order of gates.
_KINDS: dict[str, tuple[Any, str]] = {"LSTM": (LSTM, "ifco"), "GRU": (GRU, "zrh"), "SimpleRNN": (RNN, "n")}


def _kind(layer: Any) -> str:
    """Return the class of a layer, of ``RNN`` the one that has its cell."""
    kind = type(layer).__name__
    return type(layer.cell).__name__.removesuffix("Cell") if kind == "RNN" else kind


@reads(*_KINDS, "RNN")
def recurrent(
    build: Builder, layer: Any, name: str, value: Value, mask: Value | None = None, initial_state: Any = None
) -> Value | list[Value]:
    """One direction; with ``go_backwards`` the sequence comes out backwards, too."""
    if type(layer.cell).__name__ == "StackedRNNCells":
        return _stacked(build, layer, name, value, mask, initial_state)
    if _kind(layer) not in _KINDS or not type(layer.cell).__module__.startswith("keras."):
        build.refuse(name, layer, f"goes over the cell {type(layer.cell).__name__}, which is not known here")
    if layer.stateful:
        build.refuse(name, layer, "keeps its state from call to call", "build the model with stateful=False")
    if mask is None and not _listed(initial_state):  # a layer that is called with several values is told no mask
        mask = build.masks.get(value.name)
    every, states = layer.return_sequences, layer.return_state
    value = build.in_order(value)
    returns = "all" if states else "sequence" if every else "last"
    settings, inputs = _settings(build, layer, name, mask, initial_state), [value]
    direction = "reverse" if layer.go_backwards else "forward"
    made = build.once(
        layer, lambda: _made(build, layer, direction, returns, settings), f"{direction} {settings['takes']}"
    )
    inputs += [mask] if mask else []
    inputs += [build.in_order(state) for state in _listed(initial_state)]
    result = build.emit(name, made, *inputs, last=False)
    if not states:
        return _backwards(build, name, result) if every and layer.go_backwards else result
    return _parts(build, layer, name, result, build.shapes[value.name][0])


def _stacked(build: Builder, layer: Any, name: str, value: Value, mask: Value | None, initial_state: Any) -> Value:
    """Cells one on top of the other: layers one behind the other, whose steps are those of the stack."""
    import keras

    if layer.return_state or initial_state is not None:
        build.refuse(name, layer, "takes or returns the states of several cells", "make a layer of each cell")
    cells = layer.cell.cells
    mask = mask or build.masks.get(value.name)
    for number, cell in enumerate(cells):
        inner = number < len(cells) - 1
        settings = {
            "return_sequences": inner or layer.return_sequences,
            "go_backwards": layer.go_backwards,
            "zero_output_for_mask": layer.zero_output_for_mask,
        }
        own = build.kept(cell, lambda cell=cell, settings=settings: keras.layers.RNN(cell, **settings))  # type: ignore[misc]
        found = recurrent(build, own, name if not inner else f"{name}.{number}", value, mask)
        assert isinstance(found, Value)  # no states are returned
        # The next cell takes the steps in their own order.
        value = _backwards(build, f"{name}.{number}", found) if inner and layer.go_backwards else found
    return value


def _parts(build: Builder, layer: Any, name: str, value: Value, steps: int) -> list[Value]:
    """Return the output and the last states of a layer that returns both."""
    units = layer.cell.units
    ends = [0, steps * units, (steps + 1) * units, (steps + 2) * units][: 3 + (_kind(layer) == "LSTM")]
    pieces = [
        build.emit(f"{name}.{part}", Slice([first], [last], [0]), value)
        for part, first, last in zip(("sequence", "h", "c"), ends, ends[1:], strict=False)
    ]
    if not layer.return_sequences:
        return [pieces[1], *pieces[1:]]
    sequence = build.emit(f"{name}.steps", Reshape((steps, units)), pieces[0])
    return [_backwards(build, name, sequence) if layer.go_backwards else sequence, *pieces[1:]]


def _backwards(build: Builder, name: str, value: Value) -> Value:
    steps = build.shapes[value.name][0]
    return build.emit(f"{name}.backwards", Slice([-1], [-steps - 1], [0], [-1]), value)


def _settings(build: Builder, layer: Any, name: str, mask: Value | None, initial_state: Any) -> dict[str, Any]:
    kind, cell = _kind(layer), layer.cell
    functions = [cell.activation] if kind == "SimpleRNN" else [cell.recurrent_activation, cell.activation]
    curves = [_function(build, layer, name, function) for function in functions]
    if kind == "LSTM":
        curves.append(curves[1])
    count = len(_listed(initial_state))
    if count not in (0, 2 if kind == "LSTM" else 1):
        build.refuse(name, layer, f"takes {count} first states")
    takes = (["lengths"] if mask else []) + ["h", "c"][:count]
    return {"takes": tuple(takes), "activations": tuple(curves), "carried": not layer.zero_output_for_mask}


def _function(build: Builder, layer: Any, name: str, function: Any) -> Any:
    called = getattr(function, "__name__", str(function))
    if called not in _SAME and called not in _FUNCTIONS:
        build.refuse(name, layer, f"has the activation {called!r}, which is not known here")
    return _FUNCTIONS.get(called, called)


def _made(build: Builder, layer: Any, direction: str, returns: str, settings: dict[str, Any]) -> Any:
    kind, gates = _KINDS[_kind(layer)]
    cell = layer.cell
    weight, state = build.array(cell.kernel, (1, 0)), build.array(cell.recurrent_kernel, (1, 0))
    bias = None if cell.bias is None else build.array(cell.bias)
    more: dict[str, Any] = {}
    if kind is GRU:
        more["reset_after"] = bool(cell.reset_after)
        if bias is not None and bias.ndim == 2:
            bias, more["recurrent_bias"] = np.ascontiguousarray(bias[0]), np.ascontiguousarray(bias[1])
    return kind(weight, state, bias, direction=direction, returns=returns, gates=gates, **settings, **more)


def _listed(states: Any) -> list[Value]:
    if states is None:
        return []
    return [states] if isinstance(states, Value) else [state for state in states if state is not None]


@reads("Bidirectional")
def bidirectional(
    build: Builder, layer: Any, name: str, value: Value, mask: Value | None = None, initial_state: Any = None
) -> Value | list[Value]:
    """Two directions and how they are merged; first states are those of one direction, then of the other."""
    first = _listed(initial_state)
    half = len(first) // 2
    parts, states = [], list[Value]()
    for part, own, given in (
        ("forward", layer.forward_layer, first[:half]),
        ("backward", layer.backward_layer, first[half:]),
    ):
        if type(own).__name__ not in (*_KINDS, "RNN"):
            build.refuse(name, layer, f"goes over {type(own).__name__}")
        found = recurrent(build, own, f"{name}.{part}", value, mask, given or None)
        made, *ends = found if isinstance(found, list) else [found]
        if own.return_sequences and own.go_backwards:  # in the order of the steps again
            made = _backwards(build, f"{name}.{part}", made)
        parts.append(made)
        states += ends
    merged = parts if layer.merge_mode is None else [_merged(build, name, layer.merge_mode, parts)]
    return [*merged, *states] if states or len(merged) > 1 else merged[0]


def _merged(build: Builder, name: str, mode: str, parts: list[Value]) -> Value:
    if mode == "concat":
        return build.emit(name, Concat(-1), *parts)
    if mode == "mul":
        return build.emit(name, Multiply(), *parts)
    if mode == "sum":
        return build.emit(name, Add(), *parts)
    return build.emit(name, Affine(0.5, 0.0), build.emit(f"{name}.sum", Add(), *parts))


@reads("Masking")
def masking(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Steps of which all features are a number are left out by recurrent layers behind; they become 0."""
    value = build.in_order(value)
    steps, _ = build.shapes[value.name]
    number = float(layer.mask_value)
    differs = build.emit(f"{name}.differs", Function(f"where(x == {number!r}, 0, 1)"), value)
    any_does = build.emit(f"{name}.steps", GlobalMaxPool(), differs)
    mask = build.emit(f"{name}.mask", Reshape((steps,)), any_does)
    made = value if number == 0 else build.emit(name, ScaleBy(), value, any_does)
    build.masks[made.name] = mask
    return made


@reads("NotEqual", module="ops")
def not_equal(build: Builder, operation: Any, name: str, value: Any, other: Any) -> Value:
    """Where a value is not a number: 1."""
    if not isinstance(value, Value) or not isinstance(other, int | float):
        build.refuse(name, operation, "compares two computed values")
    if value.name in build.ids:
        return differing(build, value, other)
    return build.emit(name, Function(f"where(x == {float(other)!r}, 0, 1)"), build.in_order(value))


@reads("Any", module="ops")
def any_of_features(build: Builder, operation: Any, name: str, value: Any, *args: Any) -> Value:
    """Whether any feature of a step is not 0, which a mask says."""
    if operation.axis not in (-1, [-1], (-1,)) or operation.keepdims or build.rank(value) != 2:
        build.refuse(name, operation, "looks along other axes than the features")
    steps = build.shapes[value.name][0]
    return build.emit(name, Reshape((steps,)), build.emit(f"{name}.most", GlobalMaxPool(), value))
