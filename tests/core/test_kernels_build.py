"""No AVX instruction can reach a machine without AVX: what each object of the core exports, and what code it holds.

The core is built once, without Python, with the flags of CMakeLists.txt. An object made for an instruction set may
export its table and nothing that the linker could merge with another object's copy (a weak symbol: an inline
function, a template of the standard library); all other objects must do with the baseline's instructions. Without the
tools these tests are skipped; with PYLRP_REQUIRE_BUILD=1 in the environment (CI) their absence is a failure.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def runs(*command: str) -> bool:
    try:
        return subprocess.run([*command, "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def tool(name: str) -> str | None:
    """Find a program that works, beside this Python first (pip installs CMake there)."""
    for found in (shutil.which(name, path=os.path.dirname(sys.executable)), shutil.which(name)):
        if found and runs(found):
            return found
    return None


CXX = os.environ.get("CXX", "g++")
CMAKE, NM, OBJDUMP = tool("cmake"), tool("nm"), tool("objdump")
GENERATOR = "Ninja" if tool("ninja") else "Unix Makefiles"
MISSING = [name for name, there in (("cmake", CMAKE), ("nm", NM), ("objdump", OBJDUMP), (CXX, tool(CXX))) if not there]
pytestmark = pytest.mark.skipif(
    bool(MISSING) and os.environ.get("PYLRP_REQUIRE_BUILD") != "1",
    reason=f"not installed: {', '.join(MISSING)}; PYLRP_REQUIRE_BUILD=1 makes this a failure",
)


def output(*command: str | Path) -> str:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stdout


def exported(obj: Path) -> dict[str, list[str]]:
    """Symbols that other objects see, by strength: "strong", or "weak" (nm's W, V and u)."""
    symbols: dict[str, list[str]] = {"strong": [], "weak": []}
    for line in output(NM, "--demangle", "--defined-only", "--extern-only", obj).splitlines():
        kind, name = re.fullmatch(r"[0-9a-f]+ (\w) (.+)", line).groups()
        symbols["weak" if kind in "WwVvu" else "strong"].append(name)
    return symbols


def registers(obj: Path) -> set[str]:
    """Kinds of vector instructions in an x86-64 object: "zmm", "ymm" and "vex" (AVX's encoding, also of xmm)."""
    code = output(OBJDUMP, "--disassemble", "--no-show-raw-insn", obj)
    assert "file format elf64-x86-64" in code
    assert re.search(r"%[er]?[abcd]x", code)  # there is code, and it is in the syntax we look for
    return {kind for kind in ("zmm", "ymm") if f"%{kind}" in code} | (
        {"vex"} if re.search(r"\tv[a-z0-9]+ .*%[xyz]mm", code) else set()
    )


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> dict[str, Path]:
    """Build the core, or take the build that PYLRP_CORE_BUILD names; return its objects by the name of their source."""
    given = os.environ.get("PYLRP_CORE_BUILD")
    folder = ROOT / given if given else tmp_path_factory.mktemp("core")
    if not given:
        output(CMAKE, "-S", ROOT, "-B", folder, "-G", GENERATOR, "-DPYLRP_BINDINGS=OFF", f"-DCMAKE_CXX_COMPILER={CXX}")
    output(CMAKE, "--build", folder, "--target", "pylrp_core", "--parallel", "2")
    parts = (folder / "CMakeFiles" / f"{target}.dir" for target in ("pylrp_core", "pylrp_kernels"))
    built = [path for part in parts for path in part.rglob("*.cpp.o")]
    found = {path.name.removesuffix(".cpp.o"): path for path in built}
    found |= {f"{path.parent.name}/{path.name}": path for path in built if path not in found.values()}
    assert len(found) == len(built)
    assert {"isa_baseline", "dispatch", "dense", "parallel", "lower", "taps"} <= set(found)
    return found


def of_an_isa(objects: dict[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in objects.items() if name.startswith(("isa_", "bfloat16_"))}


def x86(obj: Path) -> bool:
    return "elf64-x86-64" in output(OBJDUMP, "--file-headers", obj)


def test_isa_objects_export_their_table_only(objects):
    sources = {path.stem for path in (ROOT / "csrc" / "kernels").glob("*_*.cpp")} - {"bfloat16_neon"}
    built = of_an_isa(objects)
    assert set(built) == (sources if x86(objects["dispatch"]) else {"isa_baseline", "bfloat16_neon"})
    for name, path in built.items():
        tables = {name, f"cells_of_{name}"} if name.startswith("isa_") else {name}
        if name in ("isa_avx2", "isa_avx512"):
            tables |= {f"contributions_of_{name}", f"quads_of_{name}"}
        if name == "isa_avx512":
            tables |= {f"signs_of_{name}"}
        symbols = exported(path)
        assert set(symbols["strong"]) == {f"pylrp::kernels::{table}" for table in tables}
        assert symbols["weak"] == []


@pytest.mark.slow
def test_only_isa_objects_hold_avx(objects):
    if not x86(objects["dispatch"]):
        pytest.skip("not an x86-64 machine: there is no AVX to leak")
    for name, path in objects.items():
        if name not in ("isa_avx2", "isa_avx512", "bfloat16_avx512"):
            assert registers(path) == set(), name
    assert registers(objects["isa_avx2"]) == {"ymm", "vex"}
    assert registers(objects["isa_avx512"]) >= {"zmm", "vex"}
    assert registers(objects["bfloat16_avx512"]) >= {"zmm"}


LEAKY = """
#include <vector>
extern "C" void pylrp_leak(std::vector<float>& v, const float* x) {
  for (int i = 0; i < 64; ++i) v.push_back(x[i] * x[i]);
}
"""


def test_a_leak_would_be_seen(tmp_path, objects):
    if not x86(objects["dispatch"]):
        pytest.skip("not an x86-64 machine: there is no AVX to leak")
    source, obj = tmp_path / "leaky.cpp", tmp_path / "leaky.o"
    source.write_text(LEAKY)
    output(CXX, "-O2", "-mavx2", "-c", source, "-o", obj)
    assert any("vector" in name for name in exported(obj)["weak"])
    assert "vex" in registers(obj)
