"""The classes of an output: their labels, their indices, and one logit that decides between two of them.

``requests.py`` settles targets with it, ``network.py`` offers :meth:`pylrp.Network.class_index`; what shows results
asks here which number belongs to which class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp._arrays import plain
from pylrp.errors import UnfitTarget, UnfitTargetType
from pylrp.layers import HardSigmoid, Sigmoid
from pylrp.layers.base import product
from pylrp.network.graph import Graph
from pylrp.present.text import nearest

__all__ = ["ClassIndex", "ClassIndices", "Classes", "as_indices", "classes_of"]

Array = NDArray[Any]
#: Functions at the top that make one logit the probability of the second of two classes.
_LOGISTIC = ("sigmoid", "logistic")


class ClassIndex(int):
    """The index of a class: an int that is known not to be a label."""


class ClassIndices(np.ndarray):
    """Indices of classes, one a sample: an int64 array whose entries are known not to be labels."""

    def __getitem__(self, key: Any) -> Any:
        """Return one index, or some of them."""
        found = super().__getitem__(key)
        return ClassIndex(found) if isinstance(found, np.integer) else found

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """Return what is computed with indices as a plain array: it need not be an index."""
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain


def as_indices(indices: Any) -> ClassIndices:
    """Return indices under the type that says so."""
    made: ClassIndices = np.asarray(indices, np.int64).view(ClassIndices)
    return made


@dataclass(frozen=True)
class Classes:
    """The classes of one value of a network.

    Attributes
    ----------
    channels : int
        What can be explained: entries of the value along its first axis.
    labels : tuple or None
        In the order of their indices.
    two : bool
        Whether the only channel is the logit of class 1 against class 0.
    kept : bool
        Whether that channel is a probability, its logistic function being part of the network.
    """

    channels: int
    labels: tuple[Any, ...] | None = None
    two: bool = False
    kept: bool = False

    @property
    def count(self) -> int:
        """Return the number of classes."""
        return 2 if self.two else self.channels

    @property
    def numbered(self) -> bool:
        """Return whether an integer can be an index only, because the labels are none or the same integers."""
        labels = self.labels
        if labels is None or not any(isinstance(label, int | float) for label in labels):
            return True
        return all(label == i for i, label in enumerate(labels))

    @property
    def names(self) -> tuple[str, ...] | None:
        """Return what the classes are called, None where that says no more than their indices."""
        labels = self.labels
        if labels is None or all(not isinstance(label, str) and label == i for i, label in enumerate(labels)):
            return None
        return tuple(map(str, labels))

    def index(self, y: Any) -> ClassIndex | ClassIndices:
        """Return the index of a label, or of each of an array of labels.

        Raises
        ------
        ValueError
            If labels are not known, or there is no such class.
        """
        y = plain(y, "y")
        if self.labels is None:
            raise ValueError("the labels of the network's classes are not known: its classes are their indices")
        by_label = {label: i for i, label in enumerate(self.labels)}
        given = y if isinstance(y, str) else np.asarray(y)
        if isinstance(given, str) or given.ndim == 0:
            return ClassIndex(self._find(by_label, given if isinstance(given, str) else given.item()))
        return as_indices(
            np.array([self._find(by_label, label) for label in given.ravel().tolist()], np.int64).reshape(given.shape)
        )

    def _find(self, by_label: dict[Any, int], label: Any) -> int:
        try:
            return by_label[label]
        except (KeyError, TypeError):
            shown = ", ".join(map(repr, by_label))
            near = nearest(label, [known for known in by_label if isinstance(known, str)])
            raise UnfitTarget(f"no class is called {label!r}{near}; there are {shown}", label) from None

    def resolve(self, target: Any, what: str = "target") -> Array:
        """Return indices of classes, from indices or labels; of one class without axes.

        An integer is an index. Where the labels are other integers it must be the label of the class with that index,
        or come from :meth:`index`.

        Raises
        ------
        ValueError
            If an integer may be an index or a label, or no class has the label.
        TypeError
            If it is neither an integer nor a label.
        """
        if isinstance(target, ClassIndex | ClassIndices) or _all_indices(target):
            return np.asarray(target)
        target = plain(target, what)
        array = np.asarray(target)
        if self.labels is not None and (array.dtype.kind in "UO" or (array.dtype.kind == "b" and self._truths)):
            return np.asarray(self.index(target))
        if array.dtype.kind not in "iu":
            said = f"{what} must be an integer{self._or_label()}, got {_shown(target, array)}"
            raise UnfitTargetType(said, target)
        if not self.numbered:
            for i in array.ravel().tolist():
                self._require_label(i, what)
        return array

    @property
    def _truths(self) -> bool:
        return self.labels is not None and all(isinstance(label, bool) for label in self.labels)

    def _or_label(self) -> str:
        return "" if self.labels is None else f", or one of {', '.join(map(repr, self.labels))}"

    def _require_label(self, i: int, what: str) -> None:
        if self.labels is not None and not (0 <= i < self.count and self.labels[i] == i):
            raise ValueError(
                f"{what} {i} may be a label or an index, and the labels are {', '.join(map(repr, self.labels))}: pass "
                "the index of a label, net.class_index(label)"
            )

    def channel(self, index: Array) -> NDArray[np.int64]:
        """Return the channels of classes."""
        return np.zeros_like(index, np.int64) if self.two else np.asarray(index, np.int64)

    def sign(self, index: Array) -> Array | None:
        """Return by what the channel is multiplied, 1 or -1; None where it is 1 for all."""
        return np.where(index == 0, -1, 1) if self.two and bool((index == 0).any()) else None

    def scores(self, values: Array) -> Array:
        """Return one number a class, from one a channel (last axis)."""
        if not self.two:
            return values
        return np.concatenate([1 - values if self.kept else -values, values], axis=-1)


def _shown(target: Any, array: Array) -> str:
    if isinstance(target, np.ndarray) and not target.ndim:
        target = target.item()
    return f"an array of {array.dtype}" if array.ndim else repr(target)


def _all_indices(target: Any) -> bool:
    return isinstance(target, list | tuple) and len(target) > 0 and all(isinstance(t, ClassIndex) for t in target)


def classes_of(graph: Graph, value: str) -> Classes:
    """Return the classes of a value: those of the model where it is an output, else its channels."""
    shape = graph.shapes[value]
    channels = shape[0] if shape else 1
    if value not in graph.outputs:
        return Classes(channels)
    labels = graph.facts.classes
    one = product(shape) == 1
    if labels is not None and len(labels) != channels and not (one and len(labels) == 2):
        labels = None
    two = one and (len(labels) == 2 if labels is not None else graph.facts.top.get(value) in _LOGISTIC)
    kept = two and any(
        node.name == graph.value(value) and isinstance(node.layer, Sigmoid | HardSigmoid) for node in graph.nodes
    )
    return Classes(channels, labels, two, kept)
