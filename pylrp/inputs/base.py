"""What the readers share: what a network takes, an entry that can be read, and the sample that was read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from pylrp.network.network import Network
from pylrp.present.text import shown

if TYPE_CHECKING:
    from pylrp.inputs.images import ImagePlan

__all__ = ["Entry", "Item", "Wanted", "as_network_takes_it", "refuse"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Wanted:
    """What a network takes.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Of one sample, as users pass it: channels last where the network takes them last.
    channels_last : frozenset of str
        The inputs whose channels are last.
    dtype : dtype
    """

    shapes: Mapping[str, tuple[int, ...]]
    channels_last: frozenset[str]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, network: Network) -> Wanted:
        """Return what this network takes."""
        graph = network.graph
        last = frozenset(graph.channels_last) & frozenset(graph.inputs)
        shapes = {name: graph.user_shape(name) for name in graph.inputs}
        return cls(shapes, last, graph.dtype)

    def only_input(self, what: str) -> str:
        """Return the name of the network's input; it must have one only."""
        if len(self.shapes) > 1:
            names = ", ".join(self.shapes)
            raise ValueError(
                f"the network takes {len(self.shapes)} inputs, {names}: give an .npz with them, not {what}"
            )
        return next(iter(self.shapes))


@dataclass(frozen=True)
class Item:
    """One sample, as the network takes it.

    Attributes
    ----------
    x : dict of str to ndarray
        By name of the input, without a batch axis, in the network's dtype.
    image : ndarray of uint8, (height, width) or (height, width, 3), optional
        What of an image the network sees, to be shown.
    features : tuple of str
        Names of the columns of a table.
    truth : str, optional
        The true class, from the label column of a table.
    note : str
        A remark of the reader: which of several frames it took.
    """

    x: dict[str, Array]
    image: NDArray[np.uint8] | None = None
    features: tuple[str, ...] = ()
    truth: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(map(shown, self.features)))
        object.__setattr__(self, "truth", None if self.truth is None else shown(self.truth))


@dataclass(frozen=True)
class Entry:
    """A sample that can be read.

    Attributes
    ----------
    name : str
        For tables and messages: ``photos/cat.png``, ``rows.csv:3`` (line 3), ``batch.npy[3]``.
    stem : str
        The beginning of a file name for its results: ``cat``, ``rows-3``, ``batch-3``.
    path : Path
        The file it comes from.
    load : callable
        Returns the :class:`Item`; raises ValueError or OSError with the reason why not, without the name.
    plan : ImagePlan or None
        Of an image: how it becomes an input.
    """

    name: str
    stem: str
    path: Path
    load: Callable[[], Item]
    plan: ImagePlan | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", shown(self.name))

    @classmethod
    def broken(cls, path: Path, reason: Exception) -> Entry:
        """Return the entry of a file that could not be opened; loading it raises the reason."""

        def load() -> NoReturn:
            raise reason

        return cls(str(path), path.stem, path, load)


def as_network_takes_it(array: Array, dtype: np.dtype[Any], what: str) -> Array:
    """Return numbers in the network's dtype, finite; raise ValueError otherwise."""
    if array.dtype.kind not in "biuf":
        refuse(f"{what} holds {array.dtype}, not numbers")
    with np.errstate(over="ignore"):  # what is too large for float32 is caught below, as infinite
        made = np.ascontiguousarray(array, dtype=dtype)
    wrong = ~np.isfinite(made)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        kind = "NaN" if np.isnan(made[where]) else "infinite"
        refuse(f"{what} is {kind} at index {where}")
    return made


def refuse(reason: str) -> NoReturn:
    """Raise the ValueError with this reason."""
    raise ValueError(reason)
