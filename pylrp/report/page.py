"""Puts the HTML file together: the template, style and scripts of ``page/``, and the data; ``report.py`` calls in.

Nothing that a user passes in becomes markup or code: the title is escaped, all else goes into a block of JSON that the
scripts only ever show as text. A content security policy lets the browser run these very scripts (by their hash) and
forbids every connection.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from string import Template
from typing import Any

from pylrp.network.causes import CAUSES
from pylrp.present.colours import COLOURS

__all__ = ["page"]

_SCRIPTS = (
    "base.js",
    "picture.js",
    "bars_and_signals.js",
    "time_by_feature.js",
    "text.js",
    "sankey.js",
    "heads.js",
    "layers.js",
    "main.js",
)


def page(title: str, data: dict[str, Any]) -> str:
    """Return the HTML file.

    Parameters
    ----------
    title : str
        Of the window.
    data : dict
        What ``page/main.js`` shows; JSON.
    """
    folder = files("pylrp.report").joinpath("page")

    def read(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    causes = [{"name": each.name, "label": each.legend} for each in CAUSES]
    style = read("style.css") + _cause_colours()
    script = "\n".join(["'use strict';", *map(read, _SCRIPTS)])
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(read("page.html")).substitute(
        title=html.escape(title),
        policy=policy,
        style=style,
        script=script,
        data=_json({"colours": COLOURS, "causes": causes, **data}),
        fallback="".join(
            f"<h2>{html.escape(sample['name'])}</h2><p>{html.escape(sample['answer'])}. "
            f"{html.escape(''.join(sample['certainty']))}</p>"
            for sample in data["samples"]
        ),
    )


def _cause_colours() -> str:
    """Return the style of the causes' classes, ``c-bias`` and so on: areas of the diagram and keys of the legend."""
    light, dark = ("".join(f" --cause-{each.name}: {each.page_colours[i]};" for each in CAUSES) for i in (0, 1))
    rules = [f":root {{{light} }}", f"@media (prefers-color-scheme: dark) {{ :root {{{dark} }} }}"]
    for each in CAUSES:
        colour = f"var(--cause-{each.name})"
        rules.append(f".c-{each.name} {{ fill: {colour}; }} .key.c-{each.name} {{ background: {colour}; }}")
    return "\n".join([*rules, ""])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _json(data: Any) -> str:
    """Return JSON that can stand within a script element: no text in it can end the element or begin another."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
