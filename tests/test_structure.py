"""The shape of the house: who may include whom, where Python may be known, how long a file may be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
ORDER = ["base", "kernels", "layers", "engine", "capi", "bindings"]  # each may include itself and what stands before it


def sources() -> list[Path]:
    found = [p for p in CSRC.rglob("*") if p.suffix in {".cpp", ".hpp", ".inl"}]
    assert len(found) > 15
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(CSRC)))
def test_includes_point_one_way(path: Path) -> None:
    room = path.relative_to(CSRC).parts[0]
    for other in re.findall(r'#include "(\w+)/', path.read_text()):
        assert ORDER.index(other) <= ORDER.index(room), f"{path.name} in {room} includes {other}"


def test_only_the_bindings_know_python() -> None:
    rooms = {p.relative_to(CSRC).parts[0] for p in sources() if re.search(r"pybind11|Python\.h", p.read_text())}
    assert rooms == {"bindings"}


def test_openmp_has_one_place() -> None:
    assert [p.name for p in sources() if "#pragma omp" in p.read_text()] == ["parallel.cpp"]


def test_kernels_use_no_standard_library() -> None:
    for path in (CSRC / "kernels").glob("*.inl"):
        included = re.findall(r"#include <(\w+)>", path.read_text())
        assert set(included) <= {"cstdint"}, f"{path.name}: {included}"


def test_cpp_knows_no_rule_names() -> None:
    # The catalogue of the C interface says Python's once more; test_capi.py compares them.
    for path in set(sources()) - {CSRC / "capi" / "catalogue.cpp"}:
        words = re.findall(r"\b(Epsilon|ZPlus|AlphaBeta|WSquare|ZBox|z_plus|alpha_beta|zbox)\b", path.read_text())
        assert not words, f"{path.name}: {words}"


def test_files_are_short() -> None:
    files = sources() + [p for d in ("pylrp", "tests", "bench", "examples") for p in (ROOT / d).rglob("*.py")]
    long = {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > 500}
    assert not long
