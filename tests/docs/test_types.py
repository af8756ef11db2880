"""README's and docs' Python under mypy, strict: what a user types is typed, names that are loaded late too."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from docs.test_docs import PAGES, ROOT, blocks

import pylrp

WRONG = """import pylrp
pylrp.Report()
pylrp.no_such_name
pylrp.plot.grid()
"""

#: Of other packages, which have no types; and what pages leave to the reader.
SETTINGS = """\
[mypy]
strict = True
ignore_missing_imports = True
# The pages' own functions have no annotations, as in a notebook.
disallow_untyped_defs = False
disallow_incomplete_defs = False
disallow_untyped_calls = False
disallow_subclassing_any = False
check_untyped_defs = True
# A page uses a name for several things, as a notebook does.
allow_redefinition_new = True
local_partial_types = True
"""
USER = """\
import numpy as np
import pylrp

net: pylrp.Network = pylrp.load("model.onnx")
ex: pylrp.Explanation = net.explain(np.zeros((1, 28, 28), np.float32), rules="epsilon")
ex.plot("five.png", cmap="PiYG")
report: pylrp.Report = pylrp.Report(net, labels=["a", "b"])
report.add(np.zeros((1, 28, 28), np.float32))
report.write("five.html")
found: pylrp.evaluate.Evaluation = pylrp.evaluate.evaluate(net, np.zeros((4, 1, 28, 28), np.float32))
text: str = found.table()
grid = pylrp.plot.grid([ex], "grid.png")
reveal_type(pylrp.Report)
"""


def check(folder: Path, files: dict[str, str]) -> str:
    """Return what mypy says about these files."""
    for name, code in files.items():
        (folder / name).write_text(code, encoding="utf-8")
    (folder / "mypy.ini").write_text(SETTINGS)
    cache = ["--cache-dir", str(ROOT / ".mypy_cache" / "docs")]
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", *cache, *files]
    # The pylrp that the other tests see; what is installed mypy finds by itself.
    place = str(Path(pylrp.__file__).parents[1])
    path = {} if "site-packages" in place else {"MYPYPATH": place}
    done = subprocess.run(command, cwd=folder, env={**os.environ, **path}, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed: pip install mypy")
def test_the_pages_and_a_users_script_pass_and_what_is_wrong_does_not(tmp_path: Path) -> None:
    files = {"script.py": USER, "wrong.py": WRONG}
    for page in PAGES:
        code = "".join(block.code + "\n" for block in blocks(page) if block.info == "python")
        if code:
            files[page.stem.replace("-", "_") + ".py"] = code
    assert "README.py" in files
    said = check(tmp_path, files)
    lines = said.splitlines()
    assert [line.split(":")[1] for line in lines if line.startswith("wrong.py:")] == ["2", "3", "4"]
    (shown,) = (line for line in lines if "Revealed type is" in line)
    assert "pylrp.report.report.Report" in shown
    others = [line for line in lines if ": error:" in line and not line.startswith("wrong.py")]
    assert not others, said
