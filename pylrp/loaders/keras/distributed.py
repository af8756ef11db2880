"""Keras's TimeDistributed in :mod:`pylrp.layers`: a layer, or a whole model, at every step.

What works at each place alone, along the features or in windows takes the steps as one more axis, with windows of one
step: one layer here, too. Everything else is written out step by step, with the same weights. ``keras/model.py`` comes
here through the table in ``keras/builder.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pylrp.errors import UnsupportedLayer
from pylrp.layers import AveragePool, Concat, MaxPool, Reshape, Slice, Transpose
from pylrp.loaders.keras.builder import Builder, Value, convert, reads
from pylrp.loaders.keras.layers import pairs
from pylrp.loaders.keras.traced import function_of
from pylrp.loaders.keras.walk import operations_of, run

__all__: list[str] = []

#: Layers that do the same with an axis more in front, where their own axis counts from the end.
_AS_THEY_ARE = {
    "Activation", "ActivityRegularization", "Add", "AlphaDropout", "Average", "BatchNormalization", "Concatenate",
    "Dense", "Dropout", "ELU", "GaussianDropout", "GaussianNoise", "Identity", "LayerNormalization", "LeakyReLU",
    "Multiply", "Normalization", "RMSNormalization", "ReLU", "Rescaling", "Softmax", "SpatialDropout1D",
    "SpatialDropout2D", "Subtract", "UnitNormalization",
}  # fmt: skip
#: Layers of windows, along one or two axes: there is none along four.
_WINDOWS = {
    f"{kind}{axes}D{transposed}"
    for kind, transposed in (
        ("Conv", ""), ("Conv", "Transpose"), ("DepthwiseConv", ""), ("SeparableConv", ""), ("MaxPooling", ""),
        ("AveragePooling", ""), ("ZeroPadding", ""), ("Cropping", ""), ("UpSampling", ""),
    )
    for axes in (1, 2)
}  # fmt: skip
_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
_ONES = ("kernel_size", "strides", "dilation_rate", "pool_size", "size")
#: Layers that take a mask, which belongs to the sequence within a step there.
_MASKED = {"LSTM", "GRU", "SimpleRNN", "Bidirectional", "TimeDistributed", "GlobalAveragePooling1D"}


@reads("TimeDistributed")
def time_distributed(build: Builder, layer: Any, name: str, value: Value, mask: Value | None = None) -> Value:
    """A layer or a model at every step."""
    inner = layer.layer
    kinds = {type(one).__name__ for one in _layers_of(build, inner)}
    if (mask is not None or value.name in build.masks) and kinds & _MASKED:
        build.refuse(name, layer, f"hands the mask of its steps to {', '.join(sorted(kinds & _MASKED))}")
    before = build.state()
    try:
        return _of_one(_run(build, inner, name, value, _along), build, layer, name)
    except UnsupportedLayer:
        build.back_to(before)
    value = build.in_order(value)
    steps, *shape = build.shapes[value.name]
    rows = []
    for t in range(steps):
        row = build.emit(f"{name}.{t}.row", Slice([t], [t + 1], [0]), value)
        one = build.emit(f"{name}.{t}.step", Reshape(shape), row)
        made = build.in_order(_of_one(_run(build, inner, f"{name}.{t}", one, convert), build, layer, name))
        rows.append(build.emit(f"{name}.{t}.made", Reshape((1, *build.shapes[made.name])), made, last=False))
    return build.emit(name, Concat(0), *rows)


def _layers_of(build: Builder, layer: Any) -> list[Any]:
    import keras

    function = function_of(keras, layer)
    return [layer] if function is None else list(operations_of(keras, build, function))


def _run(build: Builder, layer: Any, name: str, value: Value, how: Callable[..., Any]) -> list[Value]:
    """Add a layer, or all of a model, and return what it makes."""
    import keras

    function = function_of(keras, layer)
    if function is not None:
        return run(keras, build, function, f"{name}.", [value], how)
    made = how(build, layer, name, value)
    return made if isinstance(made, list) else [made]


def _of_one(made: list[Value], build: Builder, layer: Any, name: str) -> Value:
    if len(made) != 1:
        build.refuse(name, layer, f"goes over {type(layer.layer).__name__}, which returns {len(made)} values")
    return made[0]


def _along(build: Builder, layer: Any, name: str, *values: Any, **keywords: Any) -> Any:
    """Add a layer whose inputs have the steps as one more axis in front."""
    kind = type(layer).__name__
    from_the_end = all(axis < 0 for axis in np.atleast_1d(getattr(layer, "axis", -1)))
    if keywords or kind in build.operators or getattr(layer, "data_format", "") == "channels_first":
        build.refuse(name, layer)
    if kind in _AS_THEY_ARE and from_the_end:
        return convert(build, layer, name, *values)
    if kind in _WINDOWS:
        return convert(build, build.kept(layer, lambda: _widened(layer)), name, *values)
    if kind not in _MOVES or ".ops." in type(layer).__module__:
        build.refuse(name, layer)
    return _MOVES[kind](build, layer, name, *values)


def _widened(layer: Any) -> Any:
    """Return a stand-in for a layer of windows: the same with one more axis, along which a window has one step."""
    more: dict[str, Any] = {each: (1, *getattr(layer, each)) for each in _ONES if hasattr(layer, each)}
    for each in _KERNELS:
        if getattr(layer, each, None) is not None:
            import keras

            more[each] = np.asarray(keras.ops.convert_to_numpy(getattr(layer, each)))[None]
    for each in ("padding", "cropping"):
        if not isinstance(getattr(layer, each, ""), str):
            more[each] = [(0, 0), *pairs(getattr(layer, each))]
    if isinstance(extra := getattr(layer, "output_padding", None), tuple | list):
        more["output_padding"] = (0, *extra)
    elif extra is not None:
        more["output_padding"] = (0, *(extra,) * len(layer.kernel_size))

    def of_layer(_: Any, attribute: str) -> Any:
        return getattr(layer, attribute)

    kind = type(type(layer).__name__, (), {**more, "__getattr__": of_layer, "__module__": type(layer).__module__})
    return kind()


def _flatten(build: Builder, layer: Any, name: str, value: Value) -> Value:
    value = build.in_order(value)
    steps, *shape = build.shapes[value.name]
    return build.emit(name, Reshape((steps, int(np.prod(shape)))), value)


def _reshape(build: Builder, layer: Any, name: str, value: Value) -> Value:
    value = build.in_order(value)
    steps, *shape = build.shapes[value.name]
    target = [int(n) for n in np.empty(shape, bool).reshape(layer.target_shape).shape]
    return build.emit(name, Reshape((steps, *target)), value)


def _permute(build: Builder, layer: Any, name: str, value: Value) -> Value:
    return build.emit(name, Transpose([0, *layer.dims]), build.in_order(value))


def _global_pool(build: Builder, layer: Any, name: str, value: Value) -> Value:
    kind = AveragePool if "Average" in type(layer).__name__ else MaxPool
    value = build.to_front(value)
    channels, steps, *space = build.shapes[value.name]
    if len(space) not in (1, 2):
        build.refuse(name, layer)
    value = build.in_order(build.emit(f"{name}.pool", kind((1, *space), (1, *space)), value))
    shape = (*(1 for _ in space), channels) if layer.keepdims else (channels,)
    return build.emit(name, Reshape((steps, *shape)), value)


_MOVES: dict[str, Callable[..., Value]] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    **{f"Global{kind}Pooling{axes}D": _global_pool for kind in ("Average", "Max") for axes in (1, 2)},
}
