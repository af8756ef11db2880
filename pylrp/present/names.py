"""What classes and composites are called in captions, tables and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Labels", "class_name", "composite_name", "numbered_class_name"]

#: Names of the classes, all of them or some.
Labels = Sequence[str] | Mapping[int, str] | None


def class_name(number: int, labels: Labels) -> str:
    """Return a class's label, or ``"class 3"`` where it has none.

    Raises
    ------
    ValueError
        If a sequence of labels is too short.
    """
    if labels is None:
        return f"class {number}"
    if isinstance(labels, Mapping):
        return str(labels.get(number, f"class {number}"))
    if number >= len(labels):
        raise ValueError(f"labels has {len(labels)} names, there is none for class {number}")
    return str(labels[number])


def numbered_class_name(number: int, labels: Sequence[str] | None) -> str:
    """Return ``"285 Egyptian cat"``, the number alone, or a label that is another number."""
    if labels is None:
        return str(number)
    label = labels[number]
    other = label.lstrip("-").isdigit() and label != str(number)
    return label if other else f"{number} {label}"


def composite_name(composite: Any) -> str:
    """Return what a composite is called: its name, or the rules that it is made of."""
    if isinstance(composite, str):
        return composite
    name = getattr(composite, "name", None)
    if isinstance(name, str):
        return name
    return ", ".join(map(repr, composite)) if isinstance(composite, list | tuple) else repr(composite)
