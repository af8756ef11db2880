"""Names that others have chosen, as they are shown: in terminals, reports and messages.

Names of layers, classes and files may hold characters that control a terminal, turn the direction of writing, or are
no Unicode at all. ``graph.py``, ``errors.py`` and the command line show them by their numbers instead.
"""

from __future__ import annotations

import unicodedata

__all__ = ["shown"]


def shown(text: str) -> str:
    r"""Return a text with characters that are not for reading written by their numbers.

    Control characters, marks of direction (which can make one name look like another), line separators, and the bytes
    of file names that are no UTF-8.

    Examples
    --------
    >>> print(shown("\x1b[2Jname"))
    \x1b[2Jname
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or _is_space(c) else _number(c) for c in text)


def _is_space(character: str) -> bool:
    return unicodedata.category(character) == "Zs"


def _number(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name, as Python keeps it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
