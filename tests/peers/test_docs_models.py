"""Documentation with torch, Keras and the rest installed: on pages that need packages, every block runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs.test_docs import KERAS_ON_TORCH, PAGES, blocks, run_page

NEEDY = [page for page in PAGES if any(block.needs for block in blocks(page))]


def test_the_pages_are_found() -> None:
    assert {"README.md", "models.md"} <= {page.name for page in NEEDY}


@pytest.mark.parametrize("page", NEEDY, ids=lambda page: page.name)
@KERAS_ON_TORCH
@pytest.mark.filterwarnings("ignore:The set_:PendingDeprecationWarning")  # shap's, of matplotlib
def test_every_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    for block in blocks(page):
        assert not block.missing(), f"{block}: {', '.join(block.missing())} not installed, see the Makefile"
    run_page(blocks(page))
