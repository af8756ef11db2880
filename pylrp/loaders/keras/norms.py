"""What Keras's normalisations by the statistics of a sample are in :mod:`pylrp.layers`.

``keras/model.py`` comes here through the table in ``keras/builder.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import GroupNorm, LayerNorm, Normalize, RMSNorm
from pylrp.loaders.keras.builder import Builder, Value, reads

__all__: list[str] = []

Array = NDArray[Any]
_LEAST_NORM = 1e-12  # of UnitNormalization


def placed(build: Builder, layer: Any, name: str, value: Value) -> tuple[Value, list[int]]:
    """Return the value and the logical axes of a layer's ``axis``, in Keras's order of axes."""
    given = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    rank = build.rank(value)
    keras_axes = sorted(int(axis) % (rank + 1) for axis in given)
    if 0 in keras_axes:
        build.refuse(name, layer, "normalises along the batch axis")
    if len(keras_axes) > 1:
        value = build.in_order(value)
    return value, [build.axis(value, axis) for axis in keras_axes]


def weights(build: Builder, *variables: Any) -> list[Array | None]:
    """Return arrays of a layer in the model's dtype, None for those it has not."""
    return [None if variable is None else build.array(variable) for variable in variables]


@reads("LayerNormalization")
def layer_norm(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Along some axes; ``rms_scaling`` divides by the deviation and leaves the mean in, which no other norm does."""
    if getattr(layer, "rms_scaling", False):
        build.refuse(name, layer, "has rms_scaling=True, which can't be explained", "take RMSNormalization instead")
    value, axes = placed(build, layer, name, value)

    def make() -> LayerNorm:
        scale, shift = weights(build, layer.gamma, layer.beta)
        return LayerNorm(scale, shift, axes=axes, epsilon=float(layer.epsilon))

    return build.emit(name, build.once(layer, make, f"{axes}"), value)


@reads("RMSNormalization")
def rms_norm(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Along some axes."""
    value, axes = placed(build, layer, name, value)
    made = build.once(
        layer,
        lambda: RMSNorm(weights(build, layer.scale)[0], axes=axes, epsilon=float(layer.epsilon)),
        f"{axes}",
    )
    return build.emit(name, made, value)


@reads("GroupNormalization")
def group_norm(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """In groups of channels; as many groups as channels where ``groups`` is -1."""
    value = build.to_front(value) if layer.axis in (-1, build.rank(value)) else build.in_order(value)
    if build.axis(value, layer.axis) != 0:
        build.refuse(name, layer, f"has groups along axis {layer.axis}, which is not the channels")
    channels = build.shapes[value.name][0]

    def make() -> GroupNorm:
        scale, shift = weights(build, layer.gamma if layer.scale else None, layer.beta if layer.center else None)
        groups = channels if layer.groups == -1 else int(layer.groups)
        return GroupNorm(scale, shift, groups=groups, epsilon=float(layer.epsilon))

    return build.emit(name, build.once(layer, make), value)


@reads("UnitNormalization")
def unit_norm(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Divided by the root of the sum of squares along some axes."""
    value, axes = placed(build, layer, name, value)
    return build.emit(name, Normalize("l2", np.asarray(axes).tolist(), epsilon=_LEAST_NORM), value)
