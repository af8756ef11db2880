"""Names of classes: read from a file, found by number or name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pylrp.present.names import numbered_class_name
from pylrp.present.text import nearest, shown

__all__ = ["class_number", "outputs", "read_labels"]


def read_labels(path: str, classes: int) -> tuple[str, ...]:
    """Return the names of the classes in a file, in their order.

    One a line; or JSON: a list, or a dict from number to name, or to a list whose last entry is the name, as in
    Keras's ``imagenet_class_index.json``.

    Raises
    ------
    OSError
        If the file can't be read.
    ValueError
        If it does not hold one name for each of ``classes`` outputs, or two for one output.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"--labels {path}: it is no text") from None
    names = _from_json(path, text) if text.lstrip()[:1] in ("[", "{") else [line.strip() for line in text.splitlines()]
    while names and not names[-1]:
        names.pop()
    if len(names) != classes and (len(names), classes) != (2, 1):
        raise ValueError(f"--labels {path}: it has {len(names)} names, the network has {outputs(classes)}")
    return tuple(map(shown, names))


def _from_json(path: str, text: str) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--labels {path}: it is no JSON: {error}") from None
    if isinstance(found, dict):
        try:
            numbered = {int(key): value for key, value in found.items()}
        except ValueError:
            raise ValueError(f"--labels {path}: the keys of its dict must be the numbers of the classes") from None
        missing = [i for i in range(len(numbered)) if i not in numbered]
        if missing:
            raise ValueError(f"--labels {path}: there is no class {missing[0]} in it")
        found = [numbered[i] for i in range(len(numbered))]
    return [_name(value) for value in found]


def _name(value: Any) -> str:
    return str(value[-1] if isinstance(value, list) and value else value)


def outputs(classes: int) -> str:
    """Return "10 outputs", "1 output"."""
    return "1 output" if classes == 1 else f"{classes} outputs"


def class_number(text: str, labels: Sequence[str] | None, classes: int, option: str, *, numbered: bool = True) -> int:
    """Return the class that a user means by its number or its name.

    Where the model's labels are other integers than the classes' numbers (``numbered`` is False) an integer is a label.

    A name is found whole first, then as one of several names of a class that commas separate, then as a part of a
    name; in upper or lower case. It must belong to one class only.

    Raises
    ------
    ValueError
        If there is no such class, or more than one.
    """
    if numbered and text.lstrip("-").isdigit() and text.isascii():
        number = int(text)
        if not 0 <= number < classes:
            raise ValueError(f"{option} {number}: the network has {outputs(classes)}, 0 to {classes - 1}")
        return number
    if labels is None:
        raise ValueError(f"{option} {text}: to give a class by name say where the names are, --labels FILE")
    wanted = text.casefold().strip()
    known = [label.casefold() for label in labels]
    for fits in (
        lambda label: label == wanted,
        lambda label: wanted in [part.strip() for part in label.split(",")],
        lambda label: wanted in label,
    ):
        found = [i for i, label in enumerate(known) if fits(label)]
        if len(found) == 1:
            return found[0]
        if found:
            shown = "; ".join(numbered_class_name(i, labels) for i in found[:6]) + ("; ..." if len(found) > 6 else "")
            raise ValueError(f"{option} {text}: {len(found)} classes have that name, give a number: {shown}")
    raise ValueError(f"{option} {text}: no class has that name{nearest(text, labels)}")
