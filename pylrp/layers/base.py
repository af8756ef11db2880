"""What every layer is: its facts, its shape and what the core needs to know of it.

The files beside this one define the layers, ``custom.py`` the one that users write. ``graph.py`` connects and checks
them, ``assignment.py`` and ``network.py`` read their facts, ``lowering.py`` hands them to the compiled core.
A *logical shape* leaves the batch out and puts channels first: ``(n,)``, ``(C, L)``, ``(C, H, W)``, ``(C, D, H, W)``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import UnsupportedLayer
from pylrp.layers.cause import Cause
from pylrp.network.layout import Order, channels_last

__all__ = [
    "Array",
    "Layer",
    "NamedLayer",
    "Place",
    "Shape",
    "Spec",
    "per_axis",
    "product",
    "require_finite_settings",
    "sole",
]

Array = NDArray[Any]
Shape = tuple[int, ...]
#: What the core takes for a layer: the name of a kind (``csrc/layers/registry.hpp``) and its fields.
Spec = tuple[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a layer stands in a graph.

    Parameters
    ----------
    name : str
        Of its node, for messages.
    inputs : tuple of tuple of int
        The logical shape of each input.
    output : tuple of int
        The logical shape of what it makes.
    dtype : dtype
        float32 or float64.
    orders : tuple of tuple of int, optional
        The stored order of each input, as :meth:`Layer.stored_orders` gave it. Default: channels last.
    order : tuple of int, optional
        That of what it makes.
    """

    name: str
    inputs: tuple[Shape, ...]
    output: Shape
    dtype: np.dtype[Any]
    orders: tuple[Order, ...] = ()
    order: Order = ()

    def __post_init__(self) -> None:
        """Fill in the usual order of axes."""
        object.__setattr__(self, "orders", self.orders or tuple(channels_last(len(shape)) for shape in self.inputs))
        object.__setattr__(self, "order", self.order or channels_last(len(self.output)))


class Layer:
    """Base of all layers.

    A class states what holds for its kind; nothing else in the library lists kinds of layers for these purposes.
    """

    #: What it is; a node without a name is called after it.
    kind: ClassVar[str]
    #: By what name composites choose its rule: "dense", "conv", or a key of :data:`pylrp.rules.WEIGHTLESS`. None: no
    #: rule.
    rule_kind: ClassVar[str | None] = None
    #: Whether it multiplies its input by weights: rules that look at weights fit it, and it ends what comes "first".
    weighted: ClassVar[bool] = False
    #: Whether relevance can get lost in it: it has a row in the ledger.
    has_ledger_row: ClassVar[bool] = False
    #: The causes of the ledger that only such layers have; the core's list has their names, too.
    causes: ClassVar[tuple[Cause, ...]] = ()
    #: What the ledger calls its rule if it takes none.
    effect_without_rule: ClassVar[str] = "passes"
    #: Whether it only moves values or mixes neighbours: its relevance is its input's in another place.
    moves: ClassVar[bool] = False
    #: Whether there is no rule of LRP for it but at the top, where the value before it is explained.
    only_at_top: ClassVar[bool] = False
    #: Whether the core computes its derivative where a composite asks for gradients.
    differentiable: ClassVar[bool] = True
    #: The attributes that hold its arrays, in the network's dtype.
    arrays: ClassVar[tuple[str, ...]] = ()
    #: Whether its values may be stored in any order of axes, inputs with as many axes as the output in the output's.
    any_order: ClassVar[bool] = False
    #: The settings that may be infinite; none may be NaN.
    unbounded: ClassVar[tuple[str, ...]] = ()

    @property
    def passes_detached(self) -> bool:
        """Whether relevance passes unchanged where the statistic of a normalisation is a constant: no mean, no shift.

        Else the core is told of the rule, and relevance may not be passed on as it is.
        """
        return True

    def __post_init__(self) -> None:
        """Refuse settings that are NaN or infinite. Arrays are looked through by the graph."""
        require_finite_settings(self)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the logical shape of the output.

        Parameters
        ----------
        *shapes : tuple of int
            The logical shape of each input.

        Raises
        ------
        ValueError
            If the layer can't take these inputs.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define output_shape")

    def wanted_orders(self, shapes: Sequence[Shape], output: Shape, wanted: Order | None) -> Sequence[Order | None]:
        """Return the stored order in which each input would serve best, None where that is all one.

        Parameters
        ----------
        shapes : sequence of tuple of int
            Logical shapes of the inputs.
        output : tuple of int
            That of the output.
        wanted : tuple of int or None
            The stored order in which the output would serve its readers best.
        """
        if self.any_order:
            return [wanted if len(shape) == len(output) else None for shape in shapes]
        return [channels_last(len(shape)) for shape in shapes]

    def stored_orders(
        self, shapes: Sequence[Shape], output: Shape, given: Sequence[Order], wanted: Order | None
    ) -> tuple[Sequence[Order], Order]:
        """Return the stored orders in which it takes its inputs, and the one in which it leaves its output.

        Where it takes an input in another order than the one it is ``given`` in, that is copied. :meth:`to_core` finds
        both in the place. Unless a layer says otherwise: channels last, or any where it states ``any_order``.
        """
        if not self.any_order:
            return [channels_last(len(shape)) for shape in shapes], channels_last(len(output))
        alike = [order for shape, order in zip(shapes, given, strict=True) if len(shape) == len(output)]
        chosen = wanted if wanted is not None and wanted in alike else alike[0]
        return [chosen if len(s) == len(output) else o for s, o in zip(shapes, given, strict=True)], chosen

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it.

        Parameters
        ----------
        place : Place

        Returns
        -------
        maker : str
            A kind that a file of ``csrc/layers`` registers.
        fields : dict
            What the maker reads. Arrays are kept alive by the core where they are contiguous.

        Raises
        ------
        UnsupportedLayer
            If the core has nothing for it.
        """
        raise UnsupportedLayer(
            place.name, type(self).__name__, "is not in the compiled core", "derive from pylrp.layers.CustomLayer"
        )

    def stored_for_core(self) -> Layer:
        """Return the layer with its arrays as views of what the core reads, so that they are stored once."""
        return self


@dataclasses.dataclass(frozen=True)
class NamedLayer(Layer):
    """Base of the layers whose name is told by keyword: ``ReLU(name="relu1")``."""

    name: str | None = dataclasses.field(default=None, kw_only=True, repr=False, compare=False)


def require_finite_settings(layer: Layer) -> None:
    """Raise ValueError naming the first number among a layer's fields that is NaN, or infinite where it must not be."""
    for field in dataclasses.fields(layer):  # type: ignore[arg-type]  # all layers but custom ones are dataclasses
        value = getattr(layer, field.name)
        several = isinstance(value, tuple | list) and field.name not in layer.arrays
        for number in value if several else (value,):
            if isinstance(number, np.ndarray) and number.ndim == 0:
                number = number[()]
            if not isinstance(number, float | np.floating) or math.isfinite(number):
                continue
            if math.isnan(number) or field.name not in layer.unbounded:
                raise ValueError(f"{type(layer).__name__}: {field.name} is {value}, expected finite numbers")


def sole(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    """Return the shape of a layer's one input."""
    if len(shapes) != 1:
        raise ValueError(f"{type(layer).__name__} takes 1 input, got {len(shapes)}")
    return shapes[0]


def pair(layer: Layer, shapes: Sequence[Shape]) -> tuple[Shape, Shape]:
    """Return the shapes of a layer's two inputs."""
    if len(shapes) != 2:
        raise ValueError(f"{type(layer).__name__} takes 2 inputs, got {len(shapes)}")
    one, other = shapes
    return one, other


def product(shape: Sequence[int]) -> int:
    """Return the number of entries of a shape."""
    count = 1
    for n in shape:
        count *= n
    return count


def per_axis(value: int | Sequence[int], axes: int, what: str, least: int = 1) -> tuple[int, ...]:
    """Return one int for each spatial axis: one for all of them, or as given."""
    given: Any = value  # whatever the caller passes is looked at
    if np.ndim(given) > 1:
        raise ValueError(f"{what} is {value}, expected one number or one for each spatial axis")
    numbers = [int(n) for n in np.atleast_1d(np.asarray(given))]
    if any(n != m for n, m in zip(numbers, np.atleast_1d(np.asarray(given)), strict=True)):
        raise ValueError(f"{what} is {value}, expected whole numbers")
    if len(numbers) == 1:
        numbers *= axes
    if len(numbers) != axes:
        raise ValueError(f"{what} has {len(numbers)} entries, the layer has {axes} spatial axes")
    if min(numbers, default=least) < least:
        raise ValueError(f"{what} is {value}, expected at least {least}")
    return tuple(numbers)
