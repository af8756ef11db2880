"""Convolutions in 1 to 3 dimensions, their transposes, and dense layers along one axis of several.

The last is a :class:`PositionwiseDense`: dense for rules, a convolution for the core. ``graph.py`` settles the arrays'
dtype and layout.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from pylrp._arrays import contiguous_lines
from pylrp.errors import UnsupportedLayer
from pylrp.layers.base import Array, Layer, Place, Shape, Spec, per_axis, product, sole
from pylrp.layers.dense import Dense
from pylrp.layers.windows import Pads, normalise_padding, output_size, resolve_pads
from pylrp.network.layout import channels_moved_first, channels_moved_last, to_core

__all__ = ["Conv", "ConvTranspose", "PositionwiseDense", "Weighted"]

# What the core walks through at most: strides in all, and along one axis what 64 bits hold of places in an image; a
# small image counts as one of the least size.
_MOST_STEPS = 1 << 16
_FAR, _LEAST_SIZE = 1 << 60, 1 << 13
_SPATIAL = {1: "length", 2: "height, width", 3: "depth, height, width"}


@dataclass(frozen=True, eq=False, repr=False)
class _Convolution(Layer):
    """What a convolution and its transpose share; after construction every field has one form."""

    weight: ArrayLike
    bias: ArrayLike | None = None
    _: KW_ONLY
    stride: Any = 1  # a tuple, one int for each spatial axis
    padding: Any = 0  # pairs (low, high), or "same_upper", "same_lower"
    dilation: Any = 1  # a tuple
    groups: int = 1
    name: str | None = None
    rule_kind: ClassVar[str | None] = "conv"
    weighted: ClassVar[bool] = True
    has_ledger_row: ClassVar[bool] = True
    arrays: ClassVar[tuple[str, ...]] = ("weight", "bias")
    transposed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = np.shape(self.weight)
        if not 3 <= len(shape) <= 5 or 0 in shape:
            raise ValueError(f"weight has shape {shape}, expected two axes of channels and 1 to 3 of the kernel")
        axes = len(shape) - 2
        self._set("stride", per_axis(self.stride, axes, "stride"))
        self._set("dilation", per_axis(self.dilation, axes, "dilation"))
        self._set("padding", normalise_padding(self.padding, axes))
        if self.groups < 1 or shape[0] % self.groups:
            raise ValueError(f"groups is {self.groups}, weight has shape {shape}: {shape[0]} channels can't be divided")
        bias: Shape = () if self.bias is None else np.shape(self.bias)
        if self.bias is not None and (bias[:1] != (self.channels[1],) or len(bias) not in (1, 1 + axes)):
            raise ValueError(f"bias has shape {bias}, weight {shape} gives {self.channels[1]} output channels")

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)

    def __repr__(self) -> str:
        words = [str(np.shape(self.weight)), *(["bias"] if self.bias is not None else [])]
        usual = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}
        for field, value in usual.items():
            given = getattr(self, field, value)
            if isinstance(given, str) or np.any(np.asarray(given) != value):
                words.append(f"{field}={given!r}")
        return f"{type(self).__name__}({', '.join(words)})"

    @property
    def kernel(self) -> tuple[int, ...]:
        """Return the kernel's size along each spatial axis."""
        return tuple(np.shape(self.weight)[2:])

    @property
    def channels(self) -> tuple[int, int]:
        """Return the number of input channels and of output channels."""
        raise NotImplementedError

    def _spatial(self, shapes: Sequence[Shape]) -> tuple[int, ...]:
        shape = sole(self, shapes)
        weight = np.shape(self.weight)
        if len(shape) != len(weight) - 1:
            expected = _SPATIAL[len(weight) - 2]
            raise ValueError(f"weight is {weight}, its input has shape {shape}, expected (channels, {expected})")
        if shape[0] != self.channels[0]:
            groups = f" in {self.groups} groups" if self.groups > 1 else ""
            raise ValueError(
                f"weight is {weight}{groups} and takes {self.channels[0]} channels, its input {shape} has {shape[0]}"
            )
        return shape[1:]

    def _checked(self, shape: Shape) -> Shape:
        """Return the output's shape, which a bias by position must have."""
        bias: Shape = () if self.bias is None else np.shape(self.bias)
        if len(bias) > 1 and bias != shape:
            raise ValueError(
                f"bias has shape {bias}, the output is {shape}: one a channel, or one an entry of the output"
            )
        return shape

    def pads(self, shape: Shape) -> Pads:
        """Return the padding (low, high) along each spatial axis of an input of this logical shape."""
        raise NotImplementedError

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: a transpose is the convolution from its output to its input."""
        ends = place.inputs[0], place.output
        large, small = ends[::-1] if self.transposed else ends
        weight = np.asarray(self.weight)
        rows = weight[0, 0].size if self._depthwise else weight.shape[0]
        bias = None if self.bias is None else np.asarray(self.bias)
        stride, dilation, pad = self._steps(place, small, large)
        return "conv", {
            "in": _three(large[1:]),
            "out": _three(small[1:]),
            "kernel": _three(self.kernel),
            "stride": _three(stride),
            "dilation": _three(dilation),
            "pad": _three(pad, 0),
            "in_channels": large[0],
            "out_channels": small[0],
            "groups": self.groups,
            "transposed": self.transposed,
            "weight": np.transpose(weight, self._core_axes).reshape(rows, -1),
            "bias": None if bias is None else to_core(bias),
            "bias_by_position": bias is not None and bias.ndim > 1,
        }

    def stored_for_core(self) -> Layer:
        """Return the layer with weights as the core reads them, under a view of the usual shape."""
        axes = self._core_axes
        stored = contiguous_lines(np.transpose(np.asarray(self.weight), axes))
        shared = copy.copy(self)
        shared._set("weight", np.transpose(stored, np.argsort(axes)))
        if self.bias is not None and np.ndim(self.bias) > 1:
            by_position = np.ascontiguousarray(channels_moved_last(np.asarray(self.bias)))
            shared._set("bias", channels_moved_first(by_position))
        return shared

    @property
    def _core_axes(self) -> tuple[int, ...]:
        """Return the core's order of axes (out, in, *kernel): (out, *kernel, in), depthwise (*kernel, out)."""
        spatial = tuple(range(2, 2 + len(self.kernel)))
        return (*spatial, 1, 0) if self._depthwise else (0, *spatial, 1)

    @property
    def _depthwise(self) -> bool:
        return self.groups > 1 and self.channels == (self.groups, self.groups)

    def _steps(self, place: Place, small: Shape, large: Shape) -> tuple[list[int], list[int], list[int]]:
        """Return stride, dilation and padding along each axis, as near as the core can count.

        The core takes a walk over the larger image for each place within a stride: a stride far beyond it never ends.
        """
        pads = self.pads(place.inputs[0])
        most = max(product(small), product(large), _LEAST_SIZE)
        small, large = small[1:], large[1:]
        # With one window there is no step, with one tap no dilation.
        stride = [1 if m == 1 and s > n else s for m, n, s in zip(small, large, self.stride, strict=True)]
        dilation = [1 if k == 1 else d for k, d in zip(self.kernel, self.dilation, strict=True)]
        pad = [low for low, _ in pads]
        axes = zip(small, stride, self.kernel, dilation, pad, strict=True)
        reach = max(m * s + k * d + p for m, s, k, d, p in axes)
        if product(stride) > _MOST_STEPS or reach * most > _FAR:
            raise UnsupportedLayer(
                place.name,
                type(self).__name__,
                f"has stride {self.stride}, dilation {self.dilation} and padding {tuple(pads)}, "
                f"far beyond its image {large}",
                "a window that lies in the padding gives the bias alone: leave such windows out",
            )
        return stride, dilation, pad


def _three(sizes: Sequence[int], fill: int = 1) -> list[int]:
    return [fill] * (3 - len(sizes)) + [int(n) for n in sizes]


@dataclass(frozen=True, eq=False, repr=False)
class Conv(_Convolution):
    """A convolution along 1 to 3 spatial axes (a cross-correlation, as in torch and ONNX).

    Parameters
    ----------
    weight : array_like of shape ``(out, in / groups, *kernel)``
    bias : array_like of shape ``(out,)`` or ``(out, *spatial)``, optional
        One for each channel, or one for each entry of the output: a shift before a padded convolution, which does not
        reach the padding, makes such a bias.
    stride, dilation : int or sequence of int, default 1
        One for all spatial axes, or one each.
    padding : int, sequence of int, sequence of (low, high), or str, default 0
        Zeros around the input. ``"same_upper"`` and ``"same_lower"`` make the output ``ceil(input / stride)`` and put
        an odd zero at the end or at the beginning; ``"valid"`` is 0.
    groups : int, default 1
    name : str, optional
        Default: its position among the layers with weights, "0", "1", ...
    """

    kind: ClassVar[str] = "conv"

    @property
    def channels(self) -> tuple[int, int]:
        """Return the number of input channels and of output channels."""
        out, per_group, *_ = np.shape(self.weight)
        return per_group * self.groups, out

    def pads(self, shape: Shape) -> Pads:
        """Return the padding (low, high) along each spatial axis of an input of this logical shape."""
        return resolve_pads(self.padding, shape[1:], self.kernel, self.stride, self.dilation)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return ``(out, *spatial)``."""
        spatial = self._spatial(shapes)
        steps = zip(spatial, self.kernel, self.stride, self.dilation, self.pads(shapes[0]), strict=True)
        return self._checked((self.channels[1], *(output_size(*step) for step in steps)))


@dataclass(frozen=True, eq=False, repr=False)
class PositionwiseDense(Conv):
    """``z = W a + b`` for the channels at each position: a dense layer along one axis of ``(channels, ...)``.

    The core computes it as one, for all positions of a batch together. For rules it is dense: a loader makes one of
    ``torch.nn.Linear`` on ``(N, L, C)``, of Keras's Dense there, of a MatMul by a constant.

    Parameters
    ----------
    weight : array_like of shape ``(out, in, 1)``, ``(out, in, 1, 1)`` or ``(out, in, 1, 1, 1)``
        A row holds the weights of one neuron; an axis of length 1 for each axis of positions. ``in / groups`` in place
        of ``in`` where there are groups.
    bias : array_like of shape (out,), optional
    groups : int, default 1
        Channels of a group, one head for example, see no others.
    name : str, optional
        Default: its position among the layers with weights, "0", "1", ...
    """

    kind: ClassVar[str] = "dense"
    rule_kind: ClassVar[str | None] = "dense"

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.kernel) > 1 or max(self.stride) > 1:
            raise ValueError(f"{self!r} looks at more than one position or skips some: that is a Conv")

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: dense, a row a position.

        A convolution where it is in groups, its bias is by position, or a pad of positions was merged into it.
        """
        if self.groups > 1 or (self.bias is not None and np.ndim(self.bias) > 1) or np.any(self.padding):
            return super().to_core(place)
        weight = np.asarray(self.weight)
        positions = product(place.output[1:])
        return "dense", {"weight": weight.reshape(weight.shape[:2]), "bias": self.bias, "positions": positions}

    @classmethod
    def along(cls, axes: int, weight: Array, bias: ArrayLike | None = None) -> PositionwiseDense:
        """Return the layer for a matrix ``(out, in)`` and so many axes of positions."""
        return cls(weight.reshape(*weight.shape, *(1,) * axes), bias)


@dataclass(frozen=True, eq=False, repr=False)
class ConvTranspose(_Convolution):
    """The transpose of a convolution, as in torch and ONNX.

    Parameters
    ----------
    weight : array_like of shape ``(in, out / groups, *kernel)``
    bias : array_like of shape ``(out,)`` or ``(out, *spatial)``, optional
        One for each channel, or one for each entry of the output.
    stride, dilation : int or sequence of int, default 1
        One for all spatial axes, or one each.
    padding : int, sequence of int or sequence of (low, high), default 0
        What is cut off the output's ends.
    output_padding : int or sequence of int, default 0
        What the output is longer at its end.
    groups : int, default 1
    name : str, optional
        Default: its position among the layers with weights, "0", "1", ...
    """

    _: KW_ONLY
    output_padding: Any = 0
    kind: ClassVar[str] = "conv_transpose"
    transposed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.padding, str):
            raise ValueError(f"padding is {self.padding!r}: a transposed convolution takes numbers")
        self._set("output_padding", per_axis(self.output_padding, len(self.kernel), "output_padding", least=0))

    @property
    def channels(self) -> tuple[int, int]:
        """Return the number of input channels and of output channels."""
        into, per_group, *_ = np.shape(self.weight)
        return into, per_group * self.groups

    def pads(self, shape: Shape) -> Pads:
        """Return what is cut off (low, high) along each spatial axis."""
        pads: Pads = self.padding
        return pads

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return ``(out, *spatial)``."""
        spatial = self._spatial(shapes)
        steps = zip(spatial, self.kernel, self.stride, self.dilation, self.padding, self.output_padding, strict=True)
        out = tuple((n - 1) * s + (k - 1) * d + 1 - sum(p) + extra for n, k, s, d, p, extra in steps)
        if min(out) < 1:
            raise ValueError(f"padding is {self.padding}, nothing of the output is left: {out}")
        return self._checked((self.channels[1], *out))


#: The layers that state ``weighted``: each has ``weight`` and ``bias``.
Weighted = Dense | Conv | ConvTranspose
