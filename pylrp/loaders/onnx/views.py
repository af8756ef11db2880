"""Where the batch stands among the axes that a value has in the file; the values themselves have none.

Exporters write (tokens, batch, features), and (batch * heads, tokens, width) or (tokens * batch, features) where the
batch is merged with axes beside it. Layers never see the batch: a :class:`View` says how to read an axis of the file.
``onnx/node.py`` has the values, ``onnx/movement.py`` turns and regroups axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pylrp.layers import Shape
from pylrp.layers.base import product

__all__ = ["PLAIN", "Size", "Times", "View", "regrouped", "without_batch"]


@dataclass(frozen=True)
class Times:
    """A size that is so many times the batch."""

    factor: int = 1


#: A size in a file: a number, -1 for what is left, or a multiple of the batch.
Size = int | Times


@dataclass(frozen=True)
class View:
    """The batch among the axes of a file.

    Attributes
    ----------
    batch : int
        The axis in the file that holds it.
    before, after : int
        How many of the value's own axes are merged with it, in front of it and behind it.
    """

    batch: int = 0
    before: int = 0
    after: int = 0

    @property
    def merged(self) -> int:
        """Return how many of the value's own axes lie in the batch's."""
        return self.before + self.after

    def rank(self, shape: Shape) -> int:
        """Return how many axes a value of this logical shape has in the file."""
        return len(shape) + 1 - self.merged

    def own(self, axis: int) -> int:
        """Return the value's own axis for one of the file that does not hold the batch."""
        return axis if axis < self.batch else axis - 1 + self.merged

    def block(self) -> range:
        """Return the value's own axes that are merged with the batch."""
        return range(self.batch, self.batch + self.merged)

    def sizes(self, shape: Shape) -> list[Size]:
        """Return the sizes of a value's axes in the file."""
        block = self.block()
        merged = Times(product([shape[axis] for axis in block]))
        return [*shape[: self.batch], merged, *shape[block.stop :]]

    def turned(self, order: Sequence[int]) -> tuple[View, list[int]]:
        """Return the view with the file's axes in another order, and the order of the value's own axes then."""
        own: list[int] = []
        for axis in order:
            own += list(self.block()) if axis == self.batch else [self.own(axis)]
        return View(list(order).index(self.batch), self.before, self.after), own


#: The batch first and alone.
PLAIN = View()


def regrouped(view: View, shape: Shape, target: Sequence[Size], declared: int | None) -> tuple[View, Shape] | None:
    """Return what a reshape makes of a value; None where it would take the batch apart.

    Parameters
    ----------
    view : View
    shape : tuple of int
        The logical shape.
    target : sequence of Size
    declared : int or None
        The batch that the file declares: a multiple of it may be one of the batch. An open one may be written as 1.
    """
    at = view.batch + view.before
    front, back = product(shape[:at]), product(shape[at:])
    found: list[tuple[tuple[bool, bool, int], View, Shape]] = []
    as_many = len(target) == view.rank(shape)
    for axis, size in enumerate(target):
        others = [n for i, n in enumerate(target) if i != axis]
        if any(isinstance(n, Times) for n in others):
            continue
        for factor in _factors(size, declared):
            sizes = _split(front, back, _numbers(target[:axis]), _numbers(target[axis + 1 :]), factor)
            if sizes is not None:
                before, left, right, after = sizes
                merged = View(axis, int(left > 1), int(right > 1))
                own = (*before, *((left,) if left > 1 else ()), *((right,) if right > 1 else ()), *after)
                # Of several readings (a batch of 1 is anywhere) the one that merges least, and moves the batch least.
                found.append(((bool(merged.merged), as_many and axis != view.batch, axis), merged, own))
    if not found:
        return None
    _, made, own = min(found, key=lambda each: each[0])
    return made, own


def _factors(size: Size, declared: int | None) -> list[int | None]:
    """Return what an axis may be a multiple of the batch by; None where that is open."""
    if isinstance(size, Times):
        return [size.factor]
    if size == -1:
        return [None]
    multiple = _ratio(size, declared) if declared else None
    return [n for n in dict.fromkeys([1 if size == 1 else None, multiple]) if n]


def _numbers(sizes: Sequence[Size]) -> list[int]:
    return [n for n in sizes if isinstance(n, int)]


def _ratio(size: int, by: int) -> int | None:
    return size // by if by > 0 and size > 0 and size % by == 0 else None


def _split(
    front: int, back: int, before: list[int], after: list[int], factor: int | None
) -> tuple[list[int], int, int, list[int]] | None:
    """Return (sizes before, what is merged in front of the batch, what behind it, sizes after).

    ``front`` values lie in front of the batch, ``back`` behind it; ``factor`` is what both merged parts make, None
    where it is open.
    """
    known = [product([n for n in part if n != -1]) for part in (before, after)]
    if factor is None:  # the batch's own axis is what is left
        left, right = _ratio(front, known[0]), _ratio(back, known[1])
    elif -1 in before:
        right = _ratio(back, known[1])
        left = _ratio(factor, right) if right else None
        rest = _ratio(front, known[0] * left) if left else None
        before = [rest if n == -1 and rest else n for n in before]
    else:
        left = _ratio(front, known[0])
        right = _ratio(factor, left) if left else None
        rest = _ratio(back, known[1] * right) if right else None
        after = [rest if n == -1 and rest else n for n in after]
    if not left or not right or product([*before, left]) != front or product([right, *after]) != back:
        return None
    return before, left, right, after


def without_batch(sizes: Mapping[str, Sequence[int | str | None]]) -> dict[str, str]:
    """Return the inputs that look as if they had no batch, and for each one that has it.

    The first size of such an input stands on another axis of another one; the batch is a first size of which that is
    not so, and stands on no axis of it.

    Parameters
    ----------
    sizes : mapping of str to sequence of int, str or None
        Of each input in the file, numbers or names; None is open.
    """
    ranked = {name: own for name, own in sizes.items() if own}
    inner = {
        name
        for name, own in ranked.items()
        if any(own[0] in each[1:] for other, each in ranked.items() if other != name)
    }
    batches = {name: own[0] for name, own in ranked.items() if own[0] is None or name not in inner}
    found = {}
    for name in inner & {name for name, own in ranked.items() if own[0] not in (None, 1)}:
        if batches and not set(batches.values()) & set(ranked[name]):
            found[name] = next(iter(batches))
    return {name: found[name] for name in sizes if name in found}
