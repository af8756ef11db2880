"""Inputs that a network can't take: their numbers, columns, token ids, shapes, lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pylrp.present.text import shown

__all__ = [
    "FeatureMismatch",
    "NotFinite",
    "NotInVocabulary",
    "UnfitInput",
    "UnfitInputType",
    "UnfitLength",
]


class NotFinite(ValueError):
    """A number is NaN or infinite: in what was given, or in a result.

    Parameters
    ----------
    message : str
    layer : str, optional
    what : str
    sample : int, optional

    Attributes
    ----------
    layer : str or None
        The first layer where it happens; None for what the caller has given.
    what : str
        ``"output"``, ``"relevance"`` or ``"ledger"`` of that layer, else the argument's name: ``"x"``, ``"target"``.
    sample : int or None
        Where it is computed of token ids and masks, of which sample's.
    """

    def __init__(self, message: str, layer: str | None = None, what: str = "", sample: int | None = None):
        super().__init__(message)
        self.layer = layer
        self.what = what
        self.sample = sample

    def __reduce__(self) -> tuple[type[NotFinite], tuple[str, str | None, str, int | None]]:
        """Return how to make it again, in another process for example."""
        return type(self), (str(self), self.layer, self.what, self.sample)

    def among(self, which: Sequence[int]) -> NotFinite:
        """Return it with the sample's place in a list of samples, of which these were taken."""
        if self.sample is None:
            return self
        return NotFinite(f"x[{which[self.sample]}]: {self}", self.layer, self.what, which[self.sample])


class FeatureMismatch(ValueError):
    """The columns of a table are not the features of the network.

    Parameters
    ----------
    what : str
        The argument: ``"x"``.
    missing, unknown, repeated : sequence of str

    Attributes
    ----------
    missing : tuple of str
        Features of the network that are no columns of the table.
    unknown : tuple of str
        Columns that are no features of the network.
    repeated : tuple of str
        Columns that are there more than once.
    """

    def __init__(
        self, what: str, missing: Sequence[str] = (), unknown: Sequence[str] = (), repeated: Sequence[str] = ()
    ):
        said = [
            f"{text} {_listed(names)}"
            for text, names in (("lacks", missing), ("has no use for", unknown), ("has more than once", repeated))
            if names
        ]
        way_out = "select and rename the columns, or pass them as an array in the network's order"
        super().__init__(f"{what}: the table {', '.join(said)}: {way_out}")
        self.missing, self.unknown, self.repeated = tuple(missing), tuple(unknown), tuple(repeated)
        self._what = what

    def __reduce__(self) -> tuple[type[FeatureMismatch], tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
        """Return how to make it again, in another process for example."""
        return type(self), (self._what, self.missing, self.unknown, self.repeated)


def _listed(names: Sequence[str], most: int = 8) -> str:
    said = ", ".join(map(repr, names[:most]))
    return f"{said} and {len(names) - most} more" if len(names) > most else said


class NotInVocabulary(ValueError):
    """A token id has no row in the network's table.

    Parameters
    ----------
    input : str
        The input that holds it.
    token : int
    size : int
        How many rows the table has.
    at : tuple of int
        Where in the input, the batch first.

    Attributes
    ----------
    input : str
    token, size : int
    at : tuple of int
    """

    def __init__(self, input: str, token: int, size: int, at: tuple[int, ...]):
        self.input, self.token, self.size, self.at = input, token, size, at
        place = ", ".join(map(str, at))
        way_out = "shorten the text" if "position" in input.lower() else "use the network's own tokenizer"
        super().__init__(shown(f"{input}[{place}] is {token}, the table has rows 0 to {size - 1}: {way_out}"))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again: an exception crosses processes by its constructor's arguments."""
        return type(self), (self.input, self.token, self.size, self.at)

    def among(self, which: Sequence[int]) -> NotInVocabulary:
        """Return it with the sample's place in a list of samples, of which these were taken."""
        return NotInVocabulary(self.input, self.token, self.size, (which[self.at[0]], *self.at[1:]))


class UnfitInput(ValueError):
    """An input of a network is missing, or has a shape, a length or a kind of numbers that the network can't take.

    Parameters
    ----------
    message : str
    input : str, optional
    shape : tuple of int, optional
    sample : int, optional

    Attributes
    ----------
    input : str or None
        Its name; None where it is not one input's fault.
    shape : tuple of int or None
        As it was given.
    sample : int or None
        In a list of samples the one that it belongs to.
    """

    def __init__(
        self, message: str, input: str | None = None, shape: tuple[int, ...] | None = None, sample: int | None = None
    ):
        super().__init__(shown(message))
        self.input, self.shape, self.sample = input, shape, sample

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again, in another process for example."""
        return type(self), (str(self), self.input, self.shape, self.sample)

    def among(self, which: Sequence[int]) -> UnfitInput:
        """Return it with the sample's place in a list of samples, of which these were taken."""
        return type(self)(f"x[{which[0]}]: {self}", self.input, self.shape, which[0])


class UnfitInputType(UnfitInput, TypeError):
    """An input is not of the kind that the network takes: token ids that are no whole numbers, for example."""


class UnfitLength(UnfitInput):
    """Inputs are longer than the network can take, or shorter: than its table of positions, for example.

    Parameters
    ----------
    message : str
    length : int
    bound : int
        The longest that it takes, or the shortest, as far as it was tried.
    sample : int, optional

    Attributes
    ----------
    length, bound : int
    sample : int or None
    """

    def __init__(self, message: str, length: int, bound: int, sample: int | None = None):
        super().__init__(message, sample=sample)
        self.length, self.bound = length, bound

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again, in another process for example."""
        return type(self), (str(self), self.length, self.bound, self.sample)

    def among(self, which: Sequence[int]) -> UnfitLength:
        """Return it with the sample's place in a list of samples, of which these were taken."""
        return UnfitLength(f"x[{which[0]}]: {self}", self.length, self.bound, which[0])
