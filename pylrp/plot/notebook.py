"""What a notebook shows of an explanation: HTML that needs no other file. ``Explanation._repr_html_`` calls it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from typing import Any

from pylrp.network.causes import cause
from pylrp.network.explanation import Explanation
from pylrp.plot import captions
from pylrp.plot.explanations import explanation
from pylrp.plot.views import View, samples_of, views
from pylrp.present.names import composite_name
from pylrp.present.numbers import number
from pylrp.present.words import html_of, joined

__all__ = ["to_html"]

_DPI = 80


def to_html(ex: Explanation) -> str | None:
    """Return a picture and a line of text as HTML that needs no other file; None where nothing can be drawn.

    The picture is that of the first sample, a PNG within the page. Without matplotlib, and where there is no picture
    for the shape, it is None, and a notebook shows the text form.

    Parameters
    ----------
    ex : Explanation
    """
    if ex.settings.get("tokens") is not None:
        return _words(ex)
    with suppress(ImportError, ValueError):
        names = list(ex.relevance) if isinstance(ex.relevance, Mapping) else [None]
        pictures = [_img(explanation(ex, input=name, caption=False, pyplot=False)) for name in names]
        lines = [f"<div>{escape(_line(view))}</div>" for view in views(ex, input=names[0])]
        count = samples_of(ex)
        if count > 1:
            lines.append(f"<div>sample 0 of {count}; <code>ex.plot(sample=...)</code> draws the others</div>")
        return f'<div style="font-size:90%">{"".join(pictures)}{"".join(lines)}</div>'
    return None


def _words(ex: Explanation) -> str:
    """Return the words of the first sample, coloured, for each target; no matplotlib is needed."""
    tokens = ex.settings["tokens"] if ex.settings.get("single") else ex.settings["tokens"][0]
    first = next(iter(ex.relevance)) if isinstance(ex.relevance, Mapping) else None
    parts = [
        f"{html_of(joined(tokens, view.relevance))}<div>{escape(_line(view))}</div>" for view in views(ex, input=first)
    ]
    if samples_of(ex) > 1:
        parts.append(f"<div>sample 0 of {samples_of(ex)}; <code>ex[1]</code> is the next</div>")
    return f'<div style="font-size:90%">{"".join(parts)}</div>'


def _img(figure: Any) -> str:
    from pylrp.plot.figures import png

    data = b64encode(png(figure, dpi=_DPI)).decode()
    return f'<img alt="relevance" style="max-width:100%" src="data:image/png;base64,{data}">'


def _line(view: View) -> str:
    absorbed = view.account.causes
    causes = ", ".join(f"{cause(c).label} {number(amount)}" for c, amount in absorbed.items() if amount)
    text = (
        f"{captions.title(view, None)} by {composite_name(view.composite)}: {view.beginning} "
        f"{number(view.started)}; relevance sums to "
        f"{number(view.total)}; the ledger's total is {number(sum(absorbed.values()))}"
    )
    return f"{text} ({causes})" if causes else text
