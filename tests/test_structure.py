"""The structure of the code: which file may include which, where Python may be known, how long a file may be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
# Each may include itself and what stands before it.
ORDER = ["base", "kernels", "rules", "products", "layers", "engine", "capi", "bindings"]


def sources() -> list[Path]:
    found = [p for p in CSRC.rglob("*") if p.suffix in {".cpp", ".hpp", ".inl"}]
    assert len(found) > 15
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(CSRC)))
def test_includes_point_one_way(path: Path) -> None:
    folder = path.relative_to(CSRC).parts[0]
    for other in re.findall(r'#include "(\w+)/', path.read_text()):
        assert ORDER.index(other) <= ORDER.index(folder), f"{path.name} in {folder} includes {other}"


def test_only_the_bindings_know_python() -> None:
    folders = {p.relative_to(CSRC).parts[0] for p in sources() if re.search(r"pybind11|Python\.h", p.read_text())}
    assert folders == {"bindings"}


def test_threads_have_one_place() -> None:
    started = re.compile(r"#pragma omp|std::(jthread|async|thread\b(?!::hardware_concurrency))")
    assert [p.name for p in sources() if started.search(p.read_text())] == ["pool.cpp"]


def test_kernels_use_no_standard_library() -> None:
    for path in (CSRC / "kernels").glob("*.inl"):
        included = re.findall(r"#include <(\w+)>", path.read_text())
        assert set(included) <= {"cstdint"}, f"{path.name}: {included}"


def test_cpp_knows_no_rule_names() -> None:
    # The catalogue of the C interface says Python's once more; core/test_capi.py compares them.
    for path in set(sources()) - {CSRC / "capi" / "catalogue.cpp"}:
        words = re.findall(r"\b(Epsilon|ZPlus|AlphaBeta|WSquare|ZBox|z_plus|alpha_beta|zbox)\b", path.read_text())
        assert not words, f"{path.name}: {words}"


# For each the field has a word that people search for: faithful, at random, "a caller who", "or", Sankey diagram.
WORDS = re.compile(
    r"\b(belief|by lot|whoever|resp\.|rivers?|hold still|shake|one room|worth a word|hands? axes back|"
    r"hopeless|doubtful|who came)(?!\w)",
    re.IGNORECASE,
)


def test_words_that_do_not_come_back() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "docs").rglob("*.rst"),
    ]
    files = [
        *pages,
        *(ROOT / "pylrp").rglob("*.py"),
        *(ROOT / "pylrp").rglob("*.js"),
        *(ROOT / "examples").rglob("*.py"),
        *(path for folder in (CSRC, ROOT / "tests" / "cpp") for path in folder.rglob("*.?pp")),
        *CSRC.rglob("*.inl"),
        *CSRC.rglob("*.m"),
    ]
    assert len(files) > 250
    found = {str(p.relative_to(ROOT)): m for p in files if (m := WORDS.findall(p.read_text(encoding="utf-8")))}
    assert not found


# Which turn other axes: a blur along each axis, values by channel, pads of each axis, a torch module's batch, tokens,
# the batch of a file that is verified.
OTHER_AXES = {"packing.py", "token_rows.py", "module.py", "replacement.py", "ranges.py", "slices.py", "feed.py",
              "against.py"}  # fmt: skip


def test_channels_last_is_turned_in_one_place() -> None:
    turned = re.compile(r"np\.moveaxis|\(\*\w+(?:\.shape)?\[1:\], \w+(?:\.shape)?\[0\]\)")
    found = {p.name for p in (ROOT / "pylrp").rglob("*.py") if turned.search(p.read_text(encoding="utf-8"))}
    assert found - OTHER_AXES == {"layout.py"}


# What shows results, and which of the others each may import: what they share lies in present, the terminal on top.
SHOWING = {
    "present": set(),
    "inputs": {"present"},
    "plot": {"present"},
    "report": {"present"},
    "evaluate": {"present", "plot"},
    "cli": {"present", "inputs", "plot", "report", "evaluate"},
}


@pytest.mark.parametrize("package", SHOWING)
def test_what_shows_results_imports_one_way(package: str) -> None:
    files = list((ROOT / "pylrp" / package).rglob("*.py"))
    assert len(files) > 3
    for path in files:
        text = path.read_text(encoding="utf-8")
        modules = re.findall(r"^\s*(?:from|import) pylrp\.(\w+)", text, re.MULTILINE)
        modules += re.findall(r"\w+", " ".join(re.findall(r"^\s*from pylrp import (.+)$", text, re.MULTILINE)))
        wrong = set(modules) & set(SHOWING) - SHOWING[package] - {package}
        assert not wrong, f"{path.name} of {package} imports {', '.join(sorted(wrong))}"


def test_files_are_short() -> None:
    files = sources() + [p for d in ("pylrp", "tests", "bench", "examples") for p in (ROOT / d).rglob("*.py")]
    long = {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > 500}
    assert not long
