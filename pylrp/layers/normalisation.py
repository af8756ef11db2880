"""Layers that divide by a statistic of the sample itself: LayerNorm and its kin, division by a norm, LRN.

The statistic is a constant for relevance. Where that is all, relevance passes unchanged; the mean that most of them
subtract is a linear map, what they add takes its share like a bias. The core has one layer for all but LRN,
``csrc/layers/standardize.cpp``: each class here says which entries form a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from pylrp.layers.activations import CONSTANT
from pylrp.layers.base import Array, NamedLayer, Place, Shape, Spec, product, sole
from pylrp.layers.cause import Cause
from pylrp.network.layout import Order, steps

__all__ = ["GroupNorm", "InstanceNorm", "LayerNorm", "LocalResponseNorm", "Normalize", "RMSNorm", "Standardized"]

EpsilonAt = Literal["inside", "outside", "floor"]
# In the core's numbering.
_NORMS = ("max", "l1", "l2")
#: Neighbours that a normalisation may look at.
_MOST_CHANNELS = 1 << 31


def _axes_of(axes: int | Sequence[int], shape: Shape) -> tuple[int, ...]:
    """Return axes of a logical shape counted from 0, in order."""
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    if not given or any(not -len(shape) <= axis < len(shape) for axis in given):
        raise ValueError(f"axes is {axes}, the input has shape {shape} (without the batch)")
    found = tuple(sorted({axis % len(shape) for axis in given}))
    if len(found) != len(given):
        raise ValueError(f"axes is {axes}, which names an axis of the input {shape} twice")
    return found


def _axes_last(axes: int | Sequence[int], shape: Shape) -> Order:
    inside = _axes_of(axes, shape)
    return (*(axis for axis in range(len(shape)) if axis not in inside), *inside)


def _plain_axes(axes: int | Sequence[int]) -> int | tuple[int, ...]:
    return int(axes) if np.ndim(axes) == 0 else tuple(int(axis) for axis in axes)  # type: ignore[arg-type, union-attr]


def _require_epsilon(epsilon: float, at: str) -> None:
    if at not in ("inside", "outside", "floor"):
        raise ValueError(f"epsilon_at is {at!r}, expected 'inside', 'outside' or 'floor'")
    if epsilon < 0:
        raise ValueError(f"epsilon is {epsilon}, expected 0 or more")


def _spec(
    place: Place,
    extents: Shape,
    inside: Sequence[bool],
    arrays: Mapping[str, Array],
    *,
    norm: str = "l2",
    centred: bool = False,
    weight: float = 1.0,
    epsilon: float = 0.0,
    epsilon_at: str = "inside",
) -> Spec:
    """Return the core's layer. ``arrays`` have an axis for each of ``extents``, of size 1 where they do not vary."""
    shape = place.inputs[0]
    strides = list(steps(shape, place.orders[0]))
    if len(extents) > len(shape):  # the channels are cut into groups
        strides.insert(0, extents[1])
    common = np.broadcast_shapes((1,) * len(extents), *(array.shape for array in arrays.values()))
    scale_strides = [product(common[axis + 1 :]) if n > 1 else 0 for axis, n in enumerate(common)]
    at = {"inside": 0.0, "outside": 0.0, "floor": 0.0} | {epsilon_at: float(epsilon)}
    fields: dict[str, Any] = {
        name: np.ascontiguousarray(np.broadcast_to(array, common), dtype=place.dtype).reshape(-1)
        for name, array in arrays.items()
    }
    fields |= {
        "extents": list(extents),
        "strides": strides,
        "scale_strides": scale_strides,
        "of_group": [*map(int, inside)],
    }
    fields |= {"norm": _NORMS.index(norm), "centred": centred, "weight": weight}
    return "standardize", {**fields, "root_plus": at["inside"], "plus": at["outside"], "floor": at["floor"]}


@dataclass(frozen=True, eq=False, repr=False)
class Standardized(NamedLayer):
    """Base of the normalisations by mean squares: ``(x - mean) / d * scale + shift``, or the same without the mean.

    ``epsilon_at`` tells what ``d`` is: ``"inside"``, ``sqrt(variance + epsilon)``; ``"outside"``, ``sqrt(variance) +
    epsilon``; ``"floor"``, ``max(sqrt(variance), epsilon)``. Where it is 0, so is ``x - mean``, and stays it.
    """

    scale: ArrayLike | None = None
    shift: ArrayLike | None = None
    _: KW_ONLY
    epsilon: float = 1e-5
    epsilon_at: EpsilonAt = "inside"
    rule_kind: ClassVar[str | None] = "normalisation"
    has_ledger_row: ClassVar[bool] = True
    causes: ClassVar[tuple[Cause, ...]] = (CONSTANT,)
    arrays: ClassVar[tuple[str, ...]] = ("scale", "shift")
    centred: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_epsilon(self.epsilon, self.epsilon_at)

    def __repr__(self) -> str:
        words = [f"{name}={np.shape(getattr(self, name))}" for name in self._given()]
        words.append(f"epsilon={self.epsilon:g}")
        words += [f"epsilon_at={self.epsilon_at!r}"] if self.epsilon_at != "inside" else []
        return f"{type(self).__name__}({', '.join([*self._words(), *words])})"

    def _words(self) -> list[str]:
        return []

    def _given(self) -> list[str]:
        return [name for name in self.arrays if getattr(self, name) is not None]

    @property
    def passes_detached(self) -> bool:
        """Whether relevance passes unchanged where the statistic is a constant."""
        return not self.centred and self.shift is None

    def cut(self, shape: Shape) -> tuple[Shape, tuple[bool, ...]]:
        """Return the axes that a sample is cut into, in the order of the logical ones, and which span a group.

        Raises
        ------
        ValueError
            If the layer can't take a sample of this shape.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define cut")

    def over_cut(self, array: Array, shape: Shape) -> Array:
        """Return a scale or shift with the axes of ``cut()``, of size 1 where it does not vary.

        Raises
        ------
        ValueError
            If it does not fit a sample of this shape.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define over_cut")

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the input."""
        shape = sole(self, shapes)
        self.cut(shape)
        for name in self._given():
            try:
                self.over_cut(np.asarray(getattr(self, name)), shape)
            except ValueError as error:
                raise ValueError(f"{name} has shape {np.shape(getattr(self, name))}, {error}") from None
        return shape

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        extents, inside = self.cut(place.inputs[0])
        count = product([n for n, within in zip(extents, inside, strict=True) if within])
        return _spec(
            place,
            extents,
            inside,
            {name: self.over_cut(np.asarray(getattr(self, name)), place.inputs[0]) for name in self._given()},
            centred=self.centred,
            weight=1 / count,
            epsilon=self.epsilon,
            epsilon_at=self.epsilon_at,
        )


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(Standardized):
    """``(x - mean) / sqrt(variance + epsilon) * scale + shift``, mean and variance over some axes of a sample.

    Parameters
    ----------
    scale, shift : array_like, optional
        They broadcast to the sizes of ``axes``.
    axes : int or sequence of int, default -1
        Of the logical shape: ``-1`` the last one, the features of tokens; ``0`` the channels at each position; all of
        them the whole sample.
    epsilon : float, default 1e-5
    epsilon_at : {"inside", "outside", "floor"}, default "inside"
        Of the root: under it, added to it, or the least that it may be.

    Notes
    -----
    Relevance, with the deviation ``d`` as a constant (:class:`pylrp.rules.Detach`): ``R_in = x (t - mean(t))``,
    ``t = scale / d * R / y``. ``shift`` takes ``shift R / y``, in the ledger under ``bias``. Where ``y`` is 0, ``R`` is
    counted as ``dead``.

    References
    ----------
    Ba, Kiros, Hinton, "Layer normalization", 2016; Ali et al., "XAI for Transformers", ICML 2022, section 4.2.
    """

    axes: int | Sequence[int] = -1
    kind: ClassVar[str] = "layernorm"
    any_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "axes", _plain_axes(self.axes))

    def wanted_orders(self, shapes: Sequence[Shape], output: Shape, wanted: Order | None) -> Sequence[Order | None]:
        """Return the order that the readers want, or one that has the normalised axes last."""
        return [_axes_last(self.axes, output) if wanted is None else wanted]

    def _words(self) -> list[str]:
        return [f"axes={self.axes}"]

    def cut(self, shape: Shape) -> tuple[Shape, tuple[bool, ...]]:
        """Return the sample's own axes."""
        axes = _axes_of(self.axes, shape)
        return shape, tuple(axis in axes for axis in range(len(shape)))

    def over_cut(self, array: Array, shape: Shape) -> Array:
        """Return an array over the normalised axes."""
        axes = _axes_of(self.axes, shape)
        sizes = tuple(shape[axis] for axis in axes)
        padded = (1,) * (len(axes) - array.ndim) + array.shape
        if len(padded) > len(axes) or any(n not in (1, m) for n, m in zip(padded, sizes, strict=True)):
            raise ValueError(f"which does not broadcast to the axes {axes} of the input {shape}")
        full = [1] * len(shape)
        for axis, n in zip(axes, padded, strict=True):
            full[axis] = n
        return array.reshape(full)


@dataclass(frozen=True, eq=False, repr=False)
class RMSNorm(LayerNorm):
    """``x / sqrt(mean(x^2) + epsilon) * scale``, the mean over some axes of a sample; parameters as of LayerNorm.

    Relevance passes unchanged: the root is a constant. A ``shift``, where there is one, takes its share like a bias.

    References
    ----------
    Zhang, Sennrich, "Root mean square layer normalization", NeurIPS 2019.
    """

    kind: ClassVar[str] = "rmsnorm"
    centred: ClassVar[bool] = False


def _per_channel(array: Array, shape: Shape) -> Array:
    if array.shape not in ((), (1,), shape[:1]):
        raise ValueError(f"the input {shape} has {shape[0]} channels")
    return array.reshape(-1, *(1,) * (len(shape) - 1))


@dataclass(frozen=True, eq=False, repr=False)
class InstanceNorm(Standardized):
    """LayerNorm of each channel over its positions.

    Parameters
    ----------
    scale, shift : array_like of shape (C,), optional
    epsilon, epsilon_at : optional
        As of :class:`LayerNorm`.
    """

    kind: ClassVar[str] = "instancenorm"

    def cut(self, shape: Shape) -> tuple[Shape, tuple[bool, ...]]:
        """Return the sample's own axes."""
        if len(shape) < 2:
            raise ValueError(f"the input {shape} has no positions to take a mean over")
        return shape, (False, *(True,) * (len(shape) - 1))

    def over_cut(self, array: Array, shape: Shape) -> Array:
        """Return an array over the channels."""
        return _per_channel(array, shape)


@dataclass(frozen=True, eq=False, repr=False)
class GroupNorm(Standardized):
    """LayerNorm of each group of channels over its channels and positions.

    Parameters
    ----------
    scale, shift : array_like of shape (C,), optional
    groups : int
        The channels are cut into so many groups.
    epsilon, epsilon_at : optional
        As of :class:`LayerNorm`.

    References
    ----------
    Wu, He, "Group normalization", ECCV 2018.
    """

    groups: int = 1
    kind: ClassVar[str] = "groupnorm"

    def _words(self) -> list[str]:
        return [f"groups={self.groups}"]

    def cut(self, shape: Shape) -> tuple[Shape, tuple[bool, ...]]:
        """Return the channels in two axes, and those of the positions."""
        if self.groups < 1 or shape[0] % self.groups:
            raise ValueError(f"groups is {self.groups}, the input {shape} has {shape[0]} channels")
        return (self.groups, shape[0] // self.groups, *shape[1:]), (False, *(True,) * len(shape))

    def over_cut(self, array: Array, shape: Shape) -> Array:
        """Return an array over the channels, which are two axes."""
        channels = _per_channel(array, shape)
        whole = channels.shape[0] == shape[0]
        return channels.reshape(self.groups if whole else 1, -1, *channels.shape[1:])


@dataclass(frozen=True)
class Normalize(NamedLayer):
    """``f(x) = x / max(norm(x), epsilon)`` over some axes of a sample; x where that is 0.

    The norm counts as a constant, so relevance passes through unchanged, as through a scaling.

    Parameters
    ----------
    norm : {"l1", "l2", "max"}, default "l2"
        The sum of absolute values, the root of the sum of squares, or the largest value (ONNX's Normalizer).
    axes : int or sequence of int, default 0
        Of the logical shape: the channels at each position.
    epsilon : float, default 0
    epsilon_at : {"inside", "outside", "floor"}, default "floor"
        The least that the norm may be; or added to it; or, in that of squares, added under the root.
    """

    norm: Literal["l1", "l2", "max"] = "l2"
    axes: int | Sequence[int] = 0
    _: KW_ONLY
    epsilon: float = 0.0
    epsilon_at: EpsilonAt = "floor"
    kind: ClassVar[str] = "normalize"
    rule_kind: ClassVar[str | None] = "normalisation"
    any_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in _NORMS:
            raise ValueError(f"norm is {self.norm!r}, expected l1, l2 or max")
        _require_epsilon(self.epsilon, self.epsilon_at)
        object.__setattr__(self, "axes", _plain_axes(self.axes))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the input."""
        shape = sole(self, shapes)
        _axes_of(self.axes, shape)
        return shape

    def wanted_orders(self, shapes: Sequence[Shape], output: Shape, wanted: Order | None) -> Sequence[Order | None]:
        """Return the order that the readers want, or one that has the normalised axes last."""
        return [_axes_last(self.axes, output) if wanted is None else wanted]

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        shape = place.inputs[0]
        axes = _axes_of(self.axes, shape)
        inside = [axis in axes for axis in range(len(shape))]
        return _spec(place, shape, inside, {}, norm=self.norm, epsilon=self.epsilon, epsilon_at=self.epsilon_at)


@dataclass(frozen=True)
class LocalResponseNorm(NamedLayer):
    """``f(x) = x / (bias + alpha / size * s) ** beta``, ``s`` the sum of x² over the ``size`` channels around x.

    Relevance passes through unchanged, as through an activation: the usual treatment. AlexNet, ZFNet and GoogLeNet
    have it.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0
    kind: ClassVar[str] = "lrn"
    differentiable: ClassVar[bool] = False
    rule_kind: ClassVar[str | None] = "normalisation"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.size < _MOST_CHANNELS:
            raise ValueError(f"size is {self.size}, expected at least 1 channel and less than 2^31")

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the input."""
        return sole(self, shapes)

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        settings = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "bias": self.bias}
        return "lrn", {"channels": place.inputs[0][0], **settings}
