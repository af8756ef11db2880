"""Names from model files and users, made safe to print: in terminals, reports and messages.

Names of layers, classes and files may hold characters that control a terminal, turn the direction of writing, or are
no Unicode at all. ``graph.py``, ``pylrp.errors`` and the command line show them by their numbers instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["nearest", "shown"]

#: Marks that turn the direction of what follows, and separators of lines and paragraphs.
_MARKS = {0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def shown(text: str) -> str:
    r"""Return a text with characters that are not for reading written by their numbers.

    Control characters, marks of direction (which can make one name look like another), line separators, and the bytes
    of file names that are no UTF-8.

    Examples
    --------
    >>> print(shown("\x1b[2Jname"))
    \x1b[2Jname
    """
    if text.isprintable():
        return text
    return "".join(_number(ord(c)) if _controls(ord(c)) else c for c in text)


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``" (do you mean 'epsilon_plus'?)"`` where a name is nearly one of those known, else nothing.

    Examples
    --------
    >>> nearest("Epsilon-Plus", ["epsilon", "epsilon_plus"])
    " (do you mean 'epsilon_plus'?)"
    """
    plain = {_plain(each): each for each in reversed(list(known))}
    near = difflib.get_close_matches(_plain(str(name)), plain, 1)
    return f" (do you mean {plain[near[0]]!r}?)" if near else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def _controls(code: int) -> bool:
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code in _MARKS


def _number(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name, as Python keeps it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
