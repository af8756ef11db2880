"""Sphinx builds the site from these pages: sphinx-build -W --keep-going -n docs docs/_build.

The pages are Markdown that reads well on a code host, too. What the site has beyond that is made here: the start page
(README.md, then the list of pages of index.md), and the navigation at its side. docs/api/ is written in
reStructuredText and takes its text from the docstrings. Nothing is fetched from the network.
"""

from __future__ import annotations

import re
from importlib.metadata import version as installed
from pathlib import Path

from sphinx.application import Sphinx

project = "pylrp"
author = "the pylrp developers"
copyright = "the pylrp developers, BSD-3-Clause"
release = version = installed("pylrp")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode", "numpydoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_title = f"pylrp {release}"
html_show_sphinx = False
html_theme_options = {"sidebar_hide_name": False, "navigation_with_keys": True}

myst_heading_anchors = 4  # links to headings, named as code hosts name them
suppress_warnings = ["myst.xref_ambiguous"]
highlight_language = "none"

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say them in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

PAGES = {
    "Begin": ["install", "first-network", "choosing-a-rule", "examples"],
    "Use": [
        "models",
        "text-classifier",
        "vision-transformer",
        "time-series",
        "from-matlab",
        "which-models",
        "writers",
        "inside",
        "command-line",
        "report",
        "verify",
        "evaluation",
        "tables",
        "stream",
        "dask",
        "service",
        "performance",
        "precision",
    ],
    "Coming from": [
        "coming-from-zennit",
        "coming-from-captum",
        "coming-from-shap",
        "coming-from-innvestigate",
        "coming-from-lxt",
    ],
    "Understand": ["rules", "ledger", "conventions", "why-is-my-heatmap-wrong"],
    "Extend": ["adding-a-rule", "adding-a-layer", "architecture", "releasing"],
    "Look up": ["api/index"],
}


README = Path(__file__).parents[1] / "README.md"


def start_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Make the site's start page: README.md, the list of pages, the navigation; and send links to README.md there."""
    if name == "index":
        trees = [
            f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
            for caption, pages in PAGES.items()
        ]
        pages = source[0].replace("# pylrp: where", "## Where", 1)
        source[0] = "\n\n".join([from_docs(README.read_text(encoding="utf-8")), pages, *trees])
        app.env.note_dependency(str(README))
    source[0] = source[0].replace("](../README.md", "](index.md").replace("](../SECURITY.md", "](path:../SECURITY.md")


def from_docs(readme: str) -> str:
    """Return README.md with links as they read from this folder; what is no page becomes a file to load."""
    inside = re.sub(r"\]\((?:docs/)", "](", readme)
    outside = re.compile(r"\]\((?!\w+:|#)([^)#]+)(?=[)#])")
    here = Path(__file__).parent
    return outside.sub(lambda m: m[0] if (here / m[1]).exists() else f"](path:../{m[1]}", inside)


def setup(app: Sphinx) -> None:
    """Tell Sphinx about the start page."""
    app.connect("source-read", start_page)
