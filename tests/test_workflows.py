"""The workflows of .github: they fit their schema, name what is there, and their Linux lines run."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason='pip install ".[test]"')

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# Lines that take no time run here, those of NIGHTLY at night, in a copy of the sources; .ci/run is what runs this test.
QUICK = {"python tools/release.py"}
NIGHTLY = {
    "python -m pip install build",
    "python -m build --sdist -o dist",
    "make docs PYTHON=python",
    "make test-fast PYTHON=python",
    "tests/cpp/run_windows.sh",
}
ELSEWHERE = {
    "bash .ci/run",  # every change
    'python3 tools/release.py "$GITHUB_REF_NAME"',  # test_a_tag_is_checked
    "python3 tools/wheels.py check dist",  # test_wheels_are_checked
}


def jobs() -> list[tuple[str, dict[str, Any]]]:
    loaded = [(path.stem, yaml.safe_load(path.read_text(encoding="utf-8"))) for path in WORKFLOWS]
    return [(f"{name}/{job}", content) for name, file in loaded for job, content in file["jobs"].items()]


def linux_lines() -> list[str]:
    lines = []
    for _, job in jobs():
        for step in job["steps"]:
            text = str(step.get("run", "")).replace("${{ matrix.python }}", "3.12")
            lines += [line.strip() for line in text.splitlines() if line.strip()]
    return list(dict.fromkeys(lines))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_four_are_there() -> None:
    assert {"tests", "wheels", "docs"} <= {path.stem for path in WORKFLOWS}
    published = dict(jobs())["wheels/publish"]
    assert published["needs"] == ["sdist", "wheels"]
    assert "refs/tags/v" in published["if"]
    assert {"ubuntu-24.04", "ubuntu-24.04-arm", "macos-14", "windows-2022"} == set(
        dict(jobs())["wheels/wheels"]["strategy"]["matrix"]["runs-on"]
    )


def test_they_fit_the_schema() -> None:
    checker = shutil.which("check-jsonschema", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if checker is None:
        pytest.skip('make lint checks it, too: pip install ".[lint]"')
    command = [checker, "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_line_is_run_somewhere() -> None:
    lines = {line for line in linux_lines() if not line.startswith("sudo apt-get ")}
    assert lines == QUICK | NIGHTLY | ELSEWHERE


@pytest.mark.parametrize("line", linux_lines())
def test_lines_are_sound(line: str) -> None:
    """Shell syntax, targets of the Makefile, scripts."""
    assert subprocess.run(["bash", "-n", "-c", line], check=False).returncode == 0
    for script in re.findall(r"(?:^| )((?:tools|tests|\.ci)/\S+)", line):
        assert (ROOT / script).exists(), script
    if line.startswith("make "):
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert line.split()[1] in targets


@pytest.mark.parametrize("line", sorted(QUICK))
def test_quick_lines_run(line: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-ec", line], cwd=ROOT, env={**os.environ, "PATH": path}, check=False)
    assert done.returncode == 0


@pytest.mark.nightly
@pytest.mark.serial
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the copy is made by git")
def test_the_others_run(tmp_path: Path) -> None:
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    copy = tmp_path / "copy"
    copy.mkdir()
    subprocess.run(["tar", "x", "-C", str(copy)], input=archive, check=True)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYLRP_"))}
    environment["PATH"] = f"{tmp_path / 'env' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for line in linux_lines():
        if line in NIGHTLY:
            done = subprocess.run(["bash", "-ec", line], cwd=copy, env=environment, check=False)
            assert done.returncode == 0, line


def test_a_tag_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = load("release")
    (tmp_path / "packaging" / "conda").mkdir(parents=True)
    files = {
        "pyproject.toml": 'version = "1.2.3"\n',
        "CHANGELOG.md": "## 1.2.3 (2026-12-01)\n",
        "CITATION.cff": "type: software\n",
        "packaging/conda/recipe.yaml": '  version: "1.2.3"\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    assert release.wrong(None) == release.wrong("v1.2.3") == []
    assert len(release.wrong("v1.2.4")) == 1
    for name, text in (
        ("CHANGELOG.md", "## 1.2.3 (not released yet)\n"),
        ("CITATION.cff", "version: 1.2.2\n"),
        ("packaging/conda/recipe.yaml", '  version: "1.2.2"\n'),
    ):
        (tmp_path / name).write_text(text)
        assert len(release.wrong("v1.2.3")) == 1, name
        (tmp_path / name).write_text(files[name])


def test_the_wheel_of_these_tests_is_small() -> None:
    """The one that make has built, and installed for them."""
    built = sorted((ROOT / "build" / "wheel").glob("pylrp-*.whl"))
    if not built and not os.environ.get("PYLRP_REQUIRE_BUILD"):
        pytest.skip("no wheel was built here: make .venv/installed")
    (wheel,) = built
    assert wheel.stat().st_size <= load("wheels").MOST_BYTES


def test_wheels_are_checked(tmp_path: Path) -> None:
    import tarfile
    import zipfile

    wheels = load("wheels")
    source = tmp_path / "source"
    for name in (
        "pyproject.toml",
        "CMakeLists.txt",
        "csrc/bindings/module.cpp",
        "pylrp/__init__.py",
        "LICENSE",
        "README.md",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x")

    def write(wheel: str, *members: tuple[str, int]) -> None:
        for old in tmp_path.glob("*.whl"):
            old.unlink()
        with zipfile.ZipFile(tmp_path / wheel, "w") as archive:
            for member, size in members:
                archive.writestr(member, os.urandom(size))

    with tarfile.open(tmp_path / "pylrp-1.tar.gz", "w:gz") as archive:
        archive.add(source, "pylrp-1")
    core = ("pylrp/_core.cpython-311.so", 100)
    name = "pylrp-1-cp311-cp311-manylinux_2_34_x86_64.whl"
    write(name, core)
    wheels.check(tmp_path)
    for broken in (
        [("pylrp/__init__.py", 1)],
        [("pylrp/_core.so", wheels.MOST_BYTES)],
        [core, ("pylrp.libs/libgomp.so.1", 9)],
    ):
        write(name, *broken)
        with pytest.raises(SystemExit):
            wheels.check(tmp_path)
    write("pylrp-1-cp311-cp311-linux_x86_64.whl", core)
    with pytest.raises(SystemExit):
        wheels.check(tmp_path)
