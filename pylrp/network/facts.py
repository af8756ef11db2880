"""What a loader knows about a model beyond its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pylrp.network.front import Front
from pylrp.network.lengths import Lengths
from pylrp.network.sides import Sides
from pylrp.present.text import shown

__all__ = ["Facts", "readable_facts"]


@dataclass(frozen=True)
class Facts:
    """What a loader knows about a model beyond its layers.

    Parameters
    ----------
    top : mapping of str to str
        By output: the function at the top that was removed, so that its argument is explained: "softmax",
        "log_softmax", "sigmoid", "hard_sigmoid", "softplus", "exp".
    classes : tuple, optional
        The label of each class, in the order of the outputs.
    features : mapping of str to tuple of str
        By input: the name of each feature.
    ranges : mapping of str to (low, high)
        By input: the range of values that the model was made for.
    batch_axes : mapping of str to int
        By input: the axis of the batch in the model, where it is not 0. Here it comes first.
    sides : Sides, optional
        Inputs that are token ids or masks, and what is made of them.
    front : Front, optional
        What makes features of a table's columns.
    lengths : Lengths, optional
        How the model is read for inputs of other lengths.
    trace : object, optional
        What a loader noted of constants that depend on lengths, for ``patterns.py``.
    """

    top: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[Any, ...] | None = None
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    batch_axes: Mapping[str, int] = field(default_factory=dict)
    sides: Sides | None = None
    front: Front | None = None
    lengths: Lengths | None = None
    trace: Any = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process takes: the file that is read for other lengths stays here."""
        lengths = self.lengths if self.lengths is not None and self.lengths.read is None else None
        return {**self.__dict__, "lengths": lengths, "trace": None}


def readable_facts(facts: Facts) -> Facts:
    """Return the same with labels and names that may be shown."""
    classes = None if facts.classes is None else tuple(shown(c) if isinstance(c, str) else c for c in facts.classes)
    return Facts(
        top={shown(name): function for name, function in facts.top.items()},
        classes=classes,
        features={shown(name): tuple(map(shown, names)) for name, names in facts.features.items()},
        ranges={shown(name): bounds for name, bounds in facts.ranges.items()},
        batch_axes={shown(name): axis for name, axis in facts.batch_axes.items()},
        sides=None
        if facts.sides is None
        else replace(facts.sides, feeds={shown(name): feed for name, feed in facts.sides.feeds.items()}),
        front=facts.front,
        lengths=facts.lengths,
    )
