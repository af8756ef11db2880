"""Targets that an output does not have."""

from __future__ import annotations

from typing import Any

from pylrp.present.text import shown

__all__ = [
    "UnfitTarget",
    "UnfitTargetType",
]


class UnfitTarget(ValueError):
    """A target is no class or entry of the output, or no array of its shape.

    Parameters
    ----------
    message : str
    target : object, optional
    shape : tuple of int, optional

    Attributes
    ----------
    target : object
        As it was given.
    shape : tuple of int or None
        Of a sample of the output.
    """

    def __init__(self, message: str, target: Any = None, shape: tuple[int, ...] | None = None):
        super().__init__(shown(message))
        self.target, self.shape = target, shape

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again, in another process for example."""
        return type(self), (str(self), self.target, self.shape)


class UnfitTargetType(UnfitTarget, TypeError):
    """A target is neither a class, nor an entry of the output, nor an array of relevance."""
