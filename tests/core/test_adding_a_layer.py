"""The page on adding a layer is followed in a copy of the sources: files, lines, the core built, a model explained.

At night: it compiles the core once more (without optimisation).
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
PAGE = ROOT / "docs" / "adding-a-layer.md"
BLOCK = re.compile(r"^```(?P<language>cpp|python|diff)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)

USE = """
import sys
import numpy as np, onnx, pylrp
from onnx import TensorProto, helper, numpy_helper

W, V = np.random.default_rng(0).normal(size=(2, 6, 6)).astype(np.float32)
nodes = [
    helper.make_node("Gemm", ["x", "W"], ["a"], transB=1),
    helper.make_node("Shrink", ["a"], ["s"], name="s", lambd=0.4, bias=0.3),
    helper.make_node("Gemm", ["s", "V"], ["y"], transB=1),
]
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 6])
arrays = [numpy_helper.from_array(W, "W"), numpy_helper.from_array(V, "V")]
graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], arrays)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), sys.argv[1])

net = pylrp.load(sys.argv[1])
x = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
ex = net.explain(x, 2, composite=pylrp.Zero(), layers="all")
a = x.astype(float) @ W.T.astype(float)
s = np.where(a > 0.4, a - 0.3, np.where(a < -0.4, a + 0.3, 0))
R = s * V[2]
expected = np.divide(a * R, s, out=np.zeros_like(a), where=s != 0)
assert (s == 0).any() and (s != 0).any()
np.testing.assert_allclose(ex.output, s @ V.T, atol=1e-5)
np.testing.assert_allclose(ex.layers[net.graph.nodes[0].name], expected, atol=1e-4)
row = ex.ledger["s"]
np.testing.assert_allclose(row.shrinkage, (R - expected).sum(1), atol=1e-4)
assert abs(row.shrinkage).max() > 0.01
np.testing.assert_allclose(row.rounding, 0, atol=1e-4)
assert "shrinkage" in str(ex.ledger) and "in proportion" in str(net.summary())
assert pylrp.layers.Shrink().limit == 0.5
print("as the formula says")
"""


def section() -> str:
    text = PAGE.read_text()
    return text[text.index("## A built-in layer") : text.index("## Reference")]


def inserted(text: str, change: str) -> str:
    """Add the lines with + after the line before them, which stands in the file once."""
    after: str | None = None
    for line in change.splitlines():
        body = line[1:]
        if line.startswith("+"):
            assert after is not None
            text = text.replace(f"{after}\n", f"{after}\n{body}\n", 1)
            after = f"{after}\n{body}"
        else:
            assert text.count(f"\n{body}\n") == 1, body
            after = f"\n{body}"
    return text


def follow(copy: Path) -> set[str]:
    """Do what the page says; return the files that were touched."""
    touched = set()
    for block in BLOCK.finditer(section()):
        head, rest = block["code"].split("\n", 1)
        path = head.split(maxsplit=1)[1]
        if block["language"] == "diff":
            (copy / path).write_text(inserted((copy / path).read_text(), rest))
        else:
            assert not (copy / path).exists()
            (copy / path).write_text(rest)
        touched.add(path)
    return touched


def copied(to: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a checkout, with git")
    for name in listed.stdout.splitlines():
        if name.startswith(("csrc/", "pylrp/", "CMakeLists.txt")) and (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return to


def test_the_page_can_be_followed_on_todays_files(tmp_path: Path) -> None:
    touched = follow(copied(tmp_path))
    assert len(touched) <= 6
    assert {"csrc/layers/shrink.cpp", "pylrp/layers/shrink.py", "CMakeLists.txt"} <= touched


@pytest.mark.nightly
def test_a_built_in_layer_as_the_page_says(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pybind11 = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, cwd=tmp_path
    )
    if pybind11.returncode:
        pytest.skip("needs pybind11")
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if cmake is None:
        pytest.skip("needs cmake")
    copy = copied(tmp_path / "copy")
    follow(copy)
    lists = copy / "CMakeLists.txt"
    lists.write_text(lists.read_text().replace("INTERFACE -O3", "INTERFACE -O0"))
    settings = [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.stdout.strip()}"]
    subprocess.run([cmake, "-S", copy, "-B", copy / "build", "-DPYLRP_WERROR=ON", *settings], check=True)
    subprocess.run([cmake, "--build", copy / "build", "--parallel", "2", "--target", "_core"], check=True)
    for made in (copy / "build").glob("_core*.so"):
        shutil.copy(made, copy / "pylrp")
    run = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "shrink.onnx")],
        env={**os.environ, "PYTHONPATH": str(copy)}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout == "as the formula says\n"
