"""What Keras's layers with weights, pools and moves of data are in :mod:`pylrp.layers`.

One function for each layer: it adds nodes to a :class:`~pylrp.loaders.keras.builder.Builder` and returns the value they
make. ``keras/model.py`` comes here through the table in ``keras/builder.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pylrp.layers import (
    AdaptiveAveragePool,
    AdaptiveMaxPool,
    Affine,
    AveragePool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Divide,
    Expand,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool,
    Pad,
    PositionwiseDense,
    Reshape,
    Resize,
    ScaleBy,
    Transpose,
    Upsample,
)
from pylrp.loaders.contraction import Contraction, dense_along, letters_of
from pylrp.loaders.keras.activations import activated
from pylrp.loaders.keras.builder import Builder, Value, convert, reads
from pylrp.loaders.keras.cuts import cut, cuts_as_torch

__all__: list[str] = []

_PADDING = {"same": "same_upper", "valid": "valid"}


# Layers with weights.


@reads("Dense")
def dense(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Along the last axis, at each position where there are others."""
    rank = build.rank(value)
    if rank == 1:
        made = build.once(layer, lambda: Dense(build.array(layer.kernel, (1, 0)), bias(build, layer)))
    elif rank <= 4:
        value = build.to_front(value)
        made = build.once(layer, lambda: positionwise(build, layer, rank - 1), f"{rank - 1}d")
    else:
        build.refuse(name, layer, f"has an input with {rank} axes, 1 to 4 can be explained")
    return activated(build, layer, name, build.emit(name, made, value))


def positionwise(build: Builder, layer: Any, axes: int) -> PositionwiseDense:
    """Return a dense layer for a value with so many axes of positions."""
    return PositionwiseDense.along(axes, build.array(layer.kernel, (1, 0)), bias(build, layer))


@reads("EinsumDense")
def einsum_dense(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """A product with one matrix along some axes, and a bias."""
    value = build.in_order(value)
    try:
        given, constant, result = letters_of(layer.equation, build.rank(value) + 1)
        if given[0] != result[0] or given[0] in constant:
            raise ValueError(f"the equation {layer.equation!r} moves or sums the batch axis")
        meeting = Contraction.of(given[1:], constant, result[1:])
    except ValueError as error:
        build.refuse(name, layer, f"can't be explained: {error}")
    shape = tuple(map(int, layer.kernel.shape))

    shift = None if layer.bias is None else build.array(layer.bias)
    own = None if shift is None else meeting.bias(shift, shape)

    def make(axes: int | None) -> Any:
        return build.once(layer, lambda: dense_along(axes, meeting.matrix(build.array(layer.kernel)), own), f"{axes}d")

    for part, made in meeting.layers(build.shapes[value.name], shape, make):
        value = build.emit(f"{name}.{part}" if part else name, made, value, last=False)
    if shift is not None and own is None:  # another one at each position
        value = build.emit(f"{name}.bias", Affine(1.0, build.constant(value, shift)), value)
    return activated(build, layer, name, value)


def bias(build: Builder, layer: Any) -> Any:
    """Return a layer's bias or None."""
    return build.array(layer.bias) if layer.use_bias else None


def kernel_first(build: Builder, kernel: Any) -> Any:
    """Return a kernel ``(*space, a, b)`` as ``(b, a, *space)``."""
    axes = len(kernel.shape) - 2
    return build.array(kernel, (axes + 1, axes, *range(axes)))


def depthwise(build: Builder, kernel: Any) -> Any:
    """Return a kernel ``(*space, channels, multiplier)`` as ``(channels * multiplier, 1, *space)``."""
    axes = len(kernel.shape) - 2
    array = build.array(kernel, (axes, axes + 1, *range(axes)))
    return array.reshape(-1, 1, *array.shape[2:])


def spatial(build: Builder, layer: Any, value: Value) -> Value:
    """Return the value with its channels first in the graph."""
    channels_first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return build.in_order(value) if channels_first else build.to_front(value)


def steps(layer: Any) -> dict[str, Any]:
    """Return stride, dilation and padding of a convolution."""
    if layer.padding == "causal":  # along the last axis, all before the beginning
        before = (layer.kernel_size[-1] - 1) * layer.dilation_rate[-1]
        padding: Any = [*[(0, 0)] * (len(layer.kernel_size) - 1), (before, 0)]
    else:
        padding = _PADDING[layer.padding]
    return {"stride": layer.strides, "dilation": layer.dilation_rate, "padding": padding}


@reads("Conv1D", "Conv2D", "Conv3D")
def conv(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """A convolution in groups."""
    made = build.once(
        layer,
        lambda: Conv(kernel_first(build, layer.kernel), bias(build, layer), groups=layer.groups, **steps(layer)),
    )
    return activated(build, layer, name, build.emit(name, made, spatial(build, layer, value)))


@reads("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise_conv(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """A convolution of each channel alone."""
    groups = int(layer.kernel.shape[-2])
    made = build.once(
        layer, lambda: Conv(depthwise(build, layer.kernel), bias(build, layer), groups=groups, **steps(layer))
    )
    return activated(build, layer, name, build.emit(name, made, spatial(build, layer, value)))


@reads("SeparableConv1D", "SeparableConv2D")
def separable_conv(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """A convolution of each channel alone, then one with a kernel of 1."""
    groups = int(layer.depthwise_kernel.shape[-2])
    first = build.once(
        layer, lambda: Conv(depthwise(build, layer.depthwise_kernel), groups=groups, **steps(layer)), "depthwise"
    )
    second = build.once(layer, lambda: Conv(kernel_first(build, layer.pointwise_kernel), bias(build, layer)))
    value = build.emit(f"{name}.depthwise", first, spatial(build, layer, value))
    return activated(build, layer, name, build.emit(name, second, value))


@reads("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def conv_transpose(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """The transpose of a convolution; its kernel is ``(*space, out, in)``."""

    def make() -> ConvTranspose:
        axes = len(layer.kernel_size)
        extra = layer.output_padding
        extras = extra if isinstance(extra, tuple | list) else (extra,) * axes
        along = list(zip(layer.kernel_size, layer.strides, layer.dilation_rate, extras, strict=True))
        cuts = usual = [cut(k, s, d, layer.padding, e) for k, s, d, e in along]
        if cuts_as_torch():
            cuts = [cut(k, s, d, layer.padding, e, torch=True) for k, s, d, e in along]
        if cuts != usual:
            build.notes.append(
                f"{name}: cut off as this version of Keras does on torch; other backends, and Keras 3.15 on torch, "
                "cut off one place more at the other end"
            )
        return ConvTranspose(
            kernel_first(build, layer.kernel),
            bias(build, layer),
            stride=layer.strides,
            dilation=layer.dilation_rate,
            padding=[(low, max(high, 0)) for low, high in cuts],
            output_padding=[max(-high, 0) for _, high in cuts],
        )

    value = build.emit(name, build.once(layer, make), spatial(build, layer, value))
    return activated(build, layer, name, value)


@reads("SpectralNormalization")
def spectral_normalization(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """The layer within: training leaves it with the normalised weights."""
    found: Value = convert(build, layer.layer, name, value)
    return found


# Pooling.


@reads("MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D")
def pool(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Padding does not count in an average."""
    kind = MaxPool if type(layer).__name__.startswith("Max") else AveragePool
    made = kind(layer.pool_size, layer.strides, _PADDING[layer.padding])
    return build.emit(name, made, spatial(build, layer, value))


@reads(*(f"Global{kind}Pooling{axes}D" for kind in ("Average", "Max") for axes in (1, 2, 3)))
def global_pool(build: Builder, layer: Any, name: str, value: Value, mask: Value | None = None) -> Value:
    """One number for each channel; of an average over steps with a mask those that it leaves."""
    kind = GlobalAveragePool if "Average" in type(layer).__name__ else GlobalMaxPool
    mask = mask or (build.masks.get(value.name) if type(layer).__name__ == "GlobalAveragePooling1D" else None)
    value = spatial(build, layer, value)
    if mask is None:
        value = build.emit(name, kind(), value)
    else:
        steps = build.emit(f"{name}.mask", Reshape((1, *build.shapes[mask.name])), mask, last=value.last)
        kept = build.emit(f"{name}.kept", ScaleBy(), value, steps)
        mean, share = build.emit(f"{name}.mean", kind(), kept), build.emit(f"{name}.share", kind(), steps)
        value = build.emit(name, Divide(), mean, share)
    return value if layer.keepdims else build.emit(f"{name}.flatten", Flatten(), value, last=False)


@reads(*(f"Adaptive{kind}Pooling{axes}D" for kind in ("Average", "Max") for axes in (1, 2, 3)))
def adaptive_pool(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """A given number of windows."""
    kind = AdaptiveAveragePool if "Average" in type(layer).__name__ else AdaptiveMaxPool
    return build.emit(name, kind(layer.output_size), spatial(build, layer, value))


# Scalings.


@reads("BatchNormalization")
def batch_norm(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """With its moving averages."""
    value = build.to_front(value) if layer.axis in (-1, build.rank(value)) else build.in_order(value)
    if build.axis(value, layer.axis) != 0:
        build.refuse(name, layer, f"normalises axis {layer.axis}, which is not the channels")

    def make() -> BatchNorm:
        mean, variance = build.array(layer.moving_mean), build.array(layer.moving_variance)
        scale = build.array(layer.gamma) if layer.scale else np.ones_like(mean)
        shift = build.array(layer.beta) if layer.center else np.zeros_like(mean)
        return BatchNorm(scale, shift, mean, variance, float(layer.epsilon))

    return build.emit(name, build.once(layer, make), value)


@reads("Rescaling")
def rescaling(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """``x * scale + offset``."""
    import keras

    scale, offset = np.asarray(layer.scale), np.asarray(layer.offset)
    if scale.ndim and keras.config.image_data_format() == "channels_first":
        scale = scale.reshape(*scale.shape, *(1,) * (3 - scale.ndim))  # the offset Keras leaves as it is
    return build.emit(name, Affine(build.constant(value, scale), build.constant(value, offset)), value)


@reads("Normalization")
def normalization(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """``(x - mean) / deviation``, or the other way round."""
    import keras

    mean, variance = (np.asarray(keras.ops.convert_to_numpy(v), np.float64) for v in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    scale, shift = (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)
    return build.emit(name, Affine(build.constant(value, scale), build.constant(value, shift)), value)


# Data movement.


@reads("Flatten")
def flatten(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """In Keras's order, the channels last even where the images have them first."""
    rank = build.rank(value)
    if rank == 1:
        return value
    value = build.in_order(value)
    if layer.data_format == "channels_first":
        value = build.emit(f"{name}.channels_last", Transpose((*range(1, rank), 0)), value)
    return build.emit(name, Flatten(), value)


@reads("Reshape")
def reshape(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """In Keras's order."""
    return build.emit(name, Reshape(layer.target_shape), build.in_order(value))


@reads("Permute")
def permute(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """In Keras's order, axes counted from 1."""
    return build.emit(name, Transpose([axis - 1 for axis in layer.dims]), build.in_order(value))


@reads("RepeatVector")
def repeat_vector(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """``(n,)`` becomes ``(times, n)``."""
    size = build.order(value)[0]
    value = build.emit(f"{name}.row", Reshape((1, size)), value)
    return build.emit(name, Expand((layer.n, size)), value)


def pairs(value: Any) -> list[tuple[int, int]]:
    """Return (low, high) for each spatial axis; Keras writes one axis without its own brackets."""
    return [value] if isinstance(value[0], int) else list(value)


@reads("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def zero_padding(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Zeros around the image."""
    return build.emit(name, Pad([(0, 0), *pairs(layer.padding)]), spatial(build, layer, value))


@reads("Cropping1D", "Cropping2D", "Cropping3D")
def cropping(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Less of the image."""
    widths = [(-low, -high) for low, high in pairs(layer.cropping)]
    return build.emit(name, Pad([(0, 0), *widths]), spatial(build, layer, value))


@reads("UpSampling1D", "UpSampling2D", "UpSampling3D")
def up_sampling(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Nearest neighbour or bilinear."""
    value = spatial(build, layer, value)
    how = getattr(layer, "interpolation", "nearest")
    if how == "nearest":
        return build.emit(name, Upsample(layer.size), value)
    if how != "bilinear":
        build.refuse(name, layer, f"interpolates {how!r}, which can't be explained")
    return build.emit(name, Resize(scales=layer.size, mode="linear"), value)


@reads(
    "Identity",
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "ActivityRegularization",
    "RandomFlip",
    "RandomRotation",
    "RandomZoom",
    "RandomTranslation",
    "RandomBrightness",
    "RandomContrast",
)
def nothing(build: Builder, layer: Any, name: str, value: Value) -> Value:
    """Does something in training only."""
    return value
