"""The documentation site: it builds without a warning, has every public name, and needs nothing from the network."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import pylrp

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PUBLIC = (
    "pylrp",
    "pylrp.layers",
    "pylrp.plot",
    "pylrp.dask",
    "pylrp.evaluate",
    "pylrp.report",
    "pylrp.stream",
    "pylrp.verify",
    "pylrp.demo",
)
BENCH = re.compile(r"<!-- bench:begin -->.*?<!-- bench:end -->", re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it as `make docs` does; every warning is an error, a name that leads nowhere, too.

    PYLRP_SITE names a folder where `make docs` has just built it (CI).
    """
    if given := os.environ.get("PYLRP_SITE"):
        return ROOT / given
    for name in ("sphinx", "myst_parser", "furo", "numpydoc"):
        pytest.importorskip(name, reason='pip install ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", str(DOCS), "site", "-d", "doctrees"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def inventory(site: Path) -> set[str]:
    """Return every Python name that the site describes, from Sphinx's inventory (version 2: 4 lines, then zlib)."""
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(packed).decode().splitlines()
    return {line.split()[0] for line in lines if line.split()[1].startswith("py:")}


@pytest.mark.slow
def test_every_public_name_is_on_a_page(site: Path) -> None:
    described = inventory(site)
    public = [f"{module}.{name}" for module in PUBLIC for name in importlib.import_module(module).__all__]
    public += [f"pylrp.rules.{rule.__name__}" for rule in pylrp.rules.TREATMENTS]
    assert len(public) > 100
    assert [name for name in public if name not in described] == []


@pytest.mark.slow
def test_every_page_is_there(site: Path) -> None:
    for page in DOCS.glob("*.md"):
        assert (site / f"{page.stem}.html").exists(), page.name
    start = (site / "index.html").read_text(encoding="utf-8")
    assert "Ten lines" in start, "the start page is README.md"
    assert 'href="choosing-a-rule.html"' in start


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r"""<(?:script|img|link|iframe)[^>]*(?:src|href)=["'](https?:[^"']+)""", page.read_text())
        assert not loaded, f"{page.name} loads {loaded}"


def test_pictures_are_shown_and_shown_pictures_exist() -> None:
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    shown = {name for page in pages for name in re.findall(r"pictures/([\w.-]+)", page.read_text(encoding="utf-8"))}
    assert shown == {path.name for path in (DOCS / "pictures").iterdir()}


def test_measured_tables_are_on_the_performance_page_only() -> None:
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    assert [page.name for page in pages if BENCH.search(page.read_text("utf-8"))] == ["performance.md"]
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


MODULES = sorted(m.name for m in pkgutil.walk_packages(pylrp.__path__, "pylrp.") if "_" not in m.name.rsplit(".", 1)[1])


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the API pages show after >>> is what comes out."""
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
