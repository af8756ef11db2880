"""Numbers as captions, tables and reports show them: three digits, and a minus as long as a plus."""

from __future__ import annotations

__all__ = ["figure", "number", "percent"]

_MINUS = "−"


def number(value: float) -> str:
    """Return a number for a caption: three digits, of any magnitude.

    Examples
    --------
    >>> number(-0.012345), number(12345.6)
    ('−0.0123', '1.23e+04')
    """
    return f"{float(value) + 0.0:.3g}".replace("-", _MINUS)


def figure(value: float) -> str:
    """Return a number for a sentence: as :func:`number`, without exponents from 0.0001 up to a million.

    Examples
    --------
    >>> figure(-0.0123456), figure(12345.6)
    ('−0.0123', '12,346')
    """
    size = abs(value)
    if size >= 1e6:
        text = f"{size:.1e}".replace("e+0", "e").replace("e+", "e")
    else:
        text = f"{size:,.0f}" if size >= 1000 else f"{size:.2g}" if size < 0.01 else f"{size:.3g}"
    return (_MINUS if value < 0 and float(text.replace(",", "")) else "") + text


def percent(share: float) -> str:
    """Return a share as per cent; neither "0 %" nor "100 %" unless it is that.

    Examples
    --------
    >>> percent(0.386), percent(0.9999)
    ('39 %', 'more than 99.9 %')
    """
    if 0 < share < 0.0005:
        return "less than 0.1 %"
    if 0.9995 <= share < 1:
        return "more than 99.9 %"
    return f"{100 * share:.0f} %" if 0.0995 <= share < 0.9895 or share in (0, 1) else f"{100 * share:.1f} %"
