"""Errors about how inputs are to be read: they name parameters, so that a command line can name its flags instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["EmptyFolder", "Option", "OptionError"]


@dataclass(frozen=True)
class Option:
    """A parameter that an error speaks of.

    Attributes
    ----------
    name : str
        Of :class:`Preparation`, :class:`TableOptions` or :func:`read_inputs`.
    value : object, optional
        The value that it has or should have; None where any is meant.
    """

    name: str
    value: Any = None

    def __str__(self) -> str:
        if isinstance(self.value, tuple):
            return f"{self.name}=({', '.join(map(str, self.value))})"
        return f"{self.name}=" + ("" if self.value is None else repr(self.value))


class OptionError(ValueError):
    """Parameters of reading do not go together, or do not fit the network or the file.

    Parameters
    ----------
    *parts : str or Option
        The message in pieces.

    Attributes
    ----------
    options : tuple of Option
        The parameters that the message names, in its order.
    """

    def __init__(self, *parts: str | Option):
        super().__init__(*parts)
        self._parts = parts

    @property
    def options(self) -> tuple[Option, ...]:
        """Return the parameters that the message names."""
        return tuple(part for part in self._parts if isinstance(part, Option))

    def worded(self, write: Callable[[Option], str]) -> str:
        """Return the message with parameters as ``write`` writes them."""
        return "".join(write(part) if isinstance(part, Option) else part for part in self._parts)

    def __str__(self) -> str:
        return self.worded(str)


class EmptyFolder(OptionError, FileNotFoundError):
    """A folder holds no file that can be read."""
