"""What is explained: classes, relevance at the top, the difference of two classes. ``explain.py`` calls in.

``classes.py`` knows labels and indices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pylrp._arrays import plain, require_finite, settle
from pylrp.errors import UnfitTarget, UnfitTargetType
from pylrp.layers import Shape
from pylrp.layers.base import Array, product
from pylrp.network.classes import Classes, ClassIndex
from pylrp.network.entries import Entries, entries_of
from pylrp.network.requests import Inputs, as_rows, converted

__all__ = ["TWO_CLASSES", "Target", "TargetLike", "contrast", "explained", "starts", "to_pass_again"]

_TABLE = 2  # axes
#: A class, an entry of an output or several with weights, one of these a sample, or relevance.
TargetLike = int | str | ArrayLike | tuple[int, ...] | Mapping[Any, float] | Sequence[Any]


class Target:
    """What is explained, one a target: relevance that was given, or a class of each sample.

    Attributes
    ----------
    starts : list of ndarray, tuple of ndarray or None
        For the core: None (the top channel), channels, relevance (batch, size), or entries and their weights.
    classes : list of ndarray or None
        The classes' indices, where they were given.
    signs : list of ndarray or None
        By what each sample's relevance is multiplied, where a logit counts for another class than its own.
    notes : list of str
    """

    def __init__(self, of: Classes) -> None:
        self._of = of
        self.starts: list[Array | tuple[Array, Array] | None] = []
        self.classes: list[Array | None] = []
        self.signs: list[Array | None] = []
        self.notes: list[str] = []

    @property
    def two(self) -> bool:
        """Whether one logit decides between two classes."""
        return self._of.two

    def add(self, classes: Array | None, relevance: Array | None = None, entries: Entries | None = None) -> None:
        """Take one more: classes, relevance, entries of the output, or None for the top class."""
        given = relevance is not None or entries is not None
        if classes is None and not given and self._of.two:
            classes = np.ones(1, np.int64)
        sign = None if classes is None else self._of.sign(classes)
        if self._of.kept and (sign is not None or (entries is not None and bool((entries.weights < 0).any()))):
            raise ValueError(
                "the network's one output is the probability of class 1: load it without keep_top, so that class 0 is "
                "explained by minus the logit, or explain class 1"
            )
        if sign is not None:
            self.notes.append(TWO_CLASSES)
        if entries is not None:
            self.starts.append((entries.places, entries.weights))
        else:
            self.starts.append(relevance if classes is None else self._of.channel(classes))
        self.classes.append(classes)
        self.signs.append(sign)


TWO_CLASSES = "one logit decides between two classes: class 0 is explained by minus the logit, and its map is negated"


def starts(
    inputs: Inputs, shape: Shape, top: str, target: Any, targets: Sequence[Any] | None, classes: Classes
) -> Target:
    """Return what the core starts from."""
    asked = Target(classes)
    if targets is not None:
        if target is not None:
            raise ValueError("give target or targets, not both")
        if not hasattr(targets, "__len__") or isinstance(targets, str | Mapping):
            raise TypeError(f"targets must be a list of classes, got {targets!r}")
        if len(targets) == 0:
            raise ValueError("targets is empty")
        for each in targets:
            _add(asked, each, inputs, shape, top, classes, "a target")
        return asked
    if target is None:
        if len(shape) > 1 and product(shape[1:]) > 1:
            raise UnfitTarget(
                f"{top!r} has shape {shape}, no single class is on top: pass target=, an entry such as "
                f"{(-1,) * (len(shape) - 1) + (0,)}, a channel or an array",
                shape=shape,
            )
        asked.add(None)
        return asked
    _add(asked, target, inputs, shape, top, classes, "target")
    return asked


def _add(asked: Target, target: Any, inputs: Inputs, shape: Shape, top: str, classes: Classes, what: str) -> None:
    """Take one target, of whatever kind."""
    if type(target) is int and classes.labels is None and 0 <= target < classes.count:  # as nearly always
        _require_position(target, inputs, shape, top)
        asked.add(_one(target))
        return
    entries = entries_of(target, shape, inputs.batch, inputs.single, top, classes)
    if entries is not None:
        asked.add(None, entries=entries)
        return
    array = np.asarray(plain(target, what))
    expected = shape if inputs.single else (inputs.batch, *shape)
    one = what != "target"  # of several, where an array is rather a mistake
    if array.dtype.kind != "f" and (
        one or (array.ndim < _TABLE and (array.dtype.kind in "iu" or classes.labels is not None))
    ):
        _require_position(target, inputs, shape, top)
        asked.add(_classes(target, inputs, shape, top, classes, what))
        return
    if array.dtype.kind != "f":
        given_as = f"an array of {array.dtype}" if array.ndim else repr(target)
        raise UnfitTargetType(
            f"target is {given_as}: a class must be an integer, relevance an array of {inputs.dtype} with the output's "
            f"shape {expected}",
            target,
            shape,
        )
    if one and not array.ndim:
        raise UnfitTargetType(f"{what} must be an integer, got {target!r}", target, shape)
    given = settle(target, what)
    if given.shape != expected:
        also = ", or an integer for a class" if given.ndim < _TABLE else ""
        said = f"has shape {given.shape}" if given.ndim else f"is {target!r}"
        raise UnfitTarget(f"{what} {said}, the output has shape {expected}{also}", target, shape)
    require_finite(given, what)
    if given.dtype != inputs.dtype:
        given = converted(given, inputs.dtype, what, asked.notes)
    asked.add(None, given if given.ndim == _TABLE and not inputs.single else as_rows(given, inputs.batch, shape))


@lru_cache(1024)
def _one(index: int) -> Array:
    """Return the index of a class as an array, which nobody may write to."""
    made = np.array((index,), np.int64)
    made.setflags(write=False)
    return made


def _require_position(target: Any, inputs: Inputs, shape: Shape, top: str) -> None:
    """Raise where a class of an output of tokens by classes is asked for without its token."""
    if inputs.takes_ids and len(shape) == _TABLE:
        one = np.ndim(target) == 0
        entry = f"(-1, {target!r})" if one else f"[(-1, {np.ravel(target)[0]}), ...], one a sample"
        raise UnfitTarget(
            f"{top!r} has shape {shape}, tokens by classes: say of which token, target={entry}, or pass "
            "an array of relevance",
            target,
            shape,
        )


def _classes(target: Any, inputs: Inputs, shape: Shape, top: str, classes: Classes, what: str) -> Array:
    found = classes.resolve(target, what)
    if found.ndim > 1:
        said = f"a target must be one class, or one a sample, got an array of shape {found.shape}"
        raise UnfitTarget(said, target, shape)
    if found.ndim == 1 and len(found) != inputs.batch:
        raise UnfitTarget(f"target has {len(found)} entries, x has {inputs.batch} samples", target, shape)
    wrong = (found < 0) | (found >= classes.count)
    if wrong.any():
        kind = "classes" if classes.two else "outputs" if len(shape) < 2 else f"channels in {top!r}"
        said = f"target {found[wrong].flat[0]} is no class: the network has {classes.count} {kind}"
        raise UnfitTarget(f"{said}, 0 to {classes.count - 1}", target, shape)
    return np.atleast_1d(found).astype(np.int64)


def contrast(
    output: Array, asked: Target, against: Any, start: str, shape: Shape, classes: Classes
) -> tuple[Array, list[Any]]:
    """Return the explained classes and the start of their difference to others; ``output`` is (batch, size)."""
    batch = len(output)
    channels = output.reshape(batch, shape[0] if shape else 1, product(shape[1:]))
    if len(asked.starts) != 1 or (asked.classes[0] is None and asked.starts[0] is not None):
        raise ValueError("against goes with one target, a class")
    target = asked.classes[0]
    plus = channels[:, :, 0].argmax(1) if target is None else np.broadcast_to(target, (batch,))
    second = classes.resolve(against, "against")
    if second.shape not in ((), (batch,)):
        raise ValueError(f"against has shape {second.shape}, x has {batch} samples: give one class, or one a sample")
    minus = np.broadcast_to(second, (batch,))
    if ((minus < 0) | (minus >= classes.count)).any():
        raise ValueError(f"against is {minus.tolist()}, the network has {classes.count} classes")
    if (plus == minus).any():
        raise ValueError("against is the class that is explained: pass another one")
    top = np.zeros_like(channels)
    rows = np.arange(batch)
    for index, sign in ((plus, 1), (minus, -1)):
        channel, own = classes.channel(index), classes.sign(index)
        factor = (sign if own is None else sign * own.reshape(-1, 1)) * np.ones((batch, 1), output.dtype)
        top[rows, channel] += factor * channels[rows, channel]
    if start == "one":
        size = np.abs(top.sum(axis=(1, 2), dtype=np.float64))
        top /= np.where(size == 0, 1, size).astype(top.dtype)[:, None, None]
    return np.array(plus, dtype=np.int64), [as_rows(top, batch, shape)]


def to_pass_again(index: Array) -> Any:
    """Return indices of classes, one or a list, so that they can be passed again and written as JSON."""
    return ClassIndex(index.item()) if index.ndim == 0 else [ClassIndex(i) for i in index.tolist()]


def explained(chosen: list[Array | None], asked: Target, several: bool) -> Array | None:
    """Return the classes that were explained, (batch,) or (batch, targets); None where relevance was given.

    Parameters
    ----------
    chosen : list of ndarray or None
        What the core says: channels, one a sample.
    asked : Target
    several : bool
    """
    found = [
        one if one is None or classes is None or not asked.two else _repeated(classes, one.shape)
        for one, classes in zip(chosen, asked.classes, strict=True)
    ]
    if not several:
        return found[0]
    return None if any(one is None for one in found) else np.stack([one for one in found if one is not None], axis=1)


def _repeated(classes: Array, shape: Shape) -> Array:
    made = np.empty(shape, classes.dtype)
    made[...] = classes
    return made
