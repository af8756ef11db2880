"""examples/ that need neither torch nor a photograph: each runs, its claim holds, and it notices when it does not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from docs.test_docs import EXAMPLES, load_example

import pylrp

# What each writes, and what it says if its claim holds.
SCRIPTS = {
    "mnist_arrays": ("map.png", "most relevant pixels the logit falls by"),
    "matlab_user": ("map.mat", "R is 28 x 28 x 10"),
    "breast_cancer": ("map.png", "loudest measurements at the average"),
    "find_the_beat": ("map.png", "within the beat in"),
}
SLOWEST = "find_the_beat"  # it trains a network


@pytest.fixture(params=[*(s for s in SCRIPTS if s != SLOWEST), pytest.param(SLOWEST, marks=pytest.mark.slow)])
def script(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "breast_cancer":
        pytest.importorskip("sklearn")
    if request.param == "matlab_user":
        pytest.importorskip("scipy")
    return load_example(request.param)


@pytest.mark.slow
def test_it_runs_and_its_claim_holds(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written, says = SCRIPTS[script.__name__]
    assert script.main(["--output", str(tmp_path / written)]) == 0
    printed = capsys.readouterr().out
    assert says in printed, printed
    content = (tmp_path / written).read_bytes()
    assert len(content) > 10_000
    assert content.startswith(b"\x89PNG" if written.endswith("png") else b"MATLAB 5.0")


@pytest.mark.slow
def test_it_notices_a_wrong_map(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the relevance of the inputs shuffled every script must fail: its claim is about where relevance lies."""
    rng = np.random.default_rng(0)

    def shuffled(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrong(*args: Any, **options: Any) -> Any:
            found = function(*args, **options)
            if isinstance(found, tuple):  # relevance and ledger
                return rng.permuted(found[0], axis=-1), *found[1:]
            object.__setattr__(found, "relevance", rng.permuted(found.relevance, axis=-1))
            return found

        return wrong

    monkeypatch.setattr(pylrp, "relevance", shuffled(pylrp.relevance))
    monkeypatch.setattr(pylrp.Network, "explain", shuffled(pylrp.Network.explain))
    assert script.main(["--output", str(tmp_path / SCRIPTS[script.__name__][0])]) == 1


def test_every_example_is_on_the_page_and_says_how_to_run_it() -> None:
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.*"):
        assert f"../examples/{path.name}" in page, path.name
        if path.suffix == ".py":
            assert f"python examples/{path.name}" in path.read_text(encoding="utf-8"), path.name
            assert path.stem not in sys.stdlib_module_names, f"{path.name} would hide Python's own module"
