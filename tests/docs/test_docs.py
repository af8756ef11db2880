"""README.md and docs/*.md against the library: code runs, printed results and measured tables hold, links resolve.

- ```python``` blocks run, page by page in one namespace, in an empty working directory. A statement that ends in
  `# -> text` prints (or is) that text; a ```text``` block right after a code block is all else that the block prints.
- `<!-- needs: torch, onnx -->` right before a block: it is left out, and the test skipped by name, where one of these
  packages is missing. Pages that name "model.onnx" find it: examples/write_onnx_model.py has written it.
- ```matlab run``` blocks run in Octave with examples/ and the MEX function on the path, and their ```text``` is
  compared, too; ```matlab``` blocks, which only MATLAB can run, begin with a comment that says they are untried.
- Any other language must be listed in UNCHECKED: no block is skipped without being named.

Machines round differently: a number may differ by one unit of its last digit where it was measured, and by 1e-12; by
1e-6 on the pages ROUNDED, whose ledgers are of float32, and in Octave.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import re
import sys
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest
from capi import LIBRARY
from capi import REQUIRED as BUILD_REQUIRED
from matlab.test_mex import mex  # noqa: F401  a fixture
from matlab.test_octave import EXAMPLES, OCTAVE, REQUIRED, octave

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
UNCHECKED = {"", "sh", "console", "cpp", "diff", "toml", "matlab"}  # diagrams and formulas, commands, excerpts
ROUNDED = {"README.md", "inside.md", "verify.md"}
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=indent)``` *$", re.DOTALL | re.MULTILINE)
NEEDS = re.compile(r"<!-- needs: ([\w, ]+) -->\s*\Z")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d*)?(?:e[-+]?\d+)?(?: %)?")
# What Keras says about torch's tensors and NumPy 2.
KERAS_ON_TORCH = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")


@dataclass(frozen=True)
class Block:
    """A fenced block, and the ```text``` block that follows it directly."""

    page: Path
    line: int
    info: str
    code: str
    output: str | None = None
    needs: tuple[str, ...] = ()  # packages

    def missing(self) -> list[str]:
        """Return the packages that the block needs and that are not here."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for m in FENCE.finditer(text):
        indent = m["indent"]
        code = "".join(line.removeprefix(indent) for line in m["code"].splitlines(keepends=True))
        before = text[end : m.start()]
        needs = re.findall(r"\w+", named[1]) if (named := NEEDS.search(before)) else []
        block = Block(page, text[: m.start()].count("\n") + 1, m["info"].strip(), code, needs=tuple(needs))
        if block.info == "text":
            assert not before.strip(), f"{block}: a text block must follow its code directly"
            found[-1] = replace(found[-1], output=code)
        else:
            found.append(block)
        end = m.end()
    return found


def prose(page: Path) -> str:
    """The page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def differs(expected: str, got: str, *, last_digit: int = 0, floor: float = 2e-6) -> str:
    """Say where two texts differ by more than white space, ``floor``, or so many units of a number's last digit."""
    wanted, have = (" ".join(text.split()) for text in (expected, got))
    if NUMBER.sub("#", wanted) != NUMBER.sub("#", have):
        return f"expected\n{expected}\ngot\n{got}"
    for a, b in zip(NUMBER.findall(wanted), NUMBER.findall(have), strict=True):
        mantissa, _, exponent = a.removesuffix(" %").partition("e")
        counted = not exponent and "." not in a and "%" not in a
        unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        x, y = (float(number.removesuffix(" %").replace(",", "")) for number in (a, b))
        if abs(x - y) > max(0 if counted else 1.0001 * last_digit * unit, floor):
            return f"{a} is now {b} in\n{got}"
    return ""


def test_differs_notices() -> None:
    """The comparison itself: what it lets pass, and what not."""
    assert differs("9.143e-06", "9e-06", floor=1e-12)
    assert not differs("0", "6e-16", floor=1e-12)
    for expected, got in (("a  b\n", "a b"), ("1.2e-09", "0"), ("0", "6e-16"), ("1e+09, -1", "1e+09,  -1")):
        assert not differs(expected, got)
    for expected, got in (
        ("0.81", "0.82"),
        ("3", "4"),
        ("a b", "a c"),
        ("1.5 x", "1.5"),
        ("1", "nan"),
        ("2e-3", "2e-4"),
    ):
        assert differs(expected, got), f"{expected} / {got}"
    for expected, got, one_apart in (
        ("0.81", "0.82", True),
        ("86 %", "85 %", True),
        ("86 %", "84 %", False),
        ("7", "8", False),
    ):
        assert bool(differs(expected, got, last_digit=1)) != one_apart


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_checked_or_named(page: Path) -> None:
    assert page.read_text(encoding="utf-8").strip(), f"{page.name} is empty"
    for block in blocks(page):
        assert block.info in UNCHECKED | {"python", "matlab run"}, f"{block}: what is a block of '{block.info}'?"
        assert block.output is None or block.info not in UNCHECKED, f"{block}: nobody checks this block's output"
        assert block.info != "matlab" or block.code.startswith("% untried"), f"{block}: say that nobody ran it"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@KERAS_ON_TORCH
@pytest.mark.filterwarnings("ignore:The set_:PendingDeprecationWarning")  # shap's, of matplotlib
def test_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = [f"{block} ({', '.join(block.missing())})" for block in blocks(page) if block.missing()]
    monkeypatch.chdir(tmp_path)
    run_page([block for block in blocks(page) if not block.missing()])
    if left_out:
        pytest.skip(f"the rest of {page.name} runs; packages are missing for {'; '.join(left_out)}")


def run_page(chosen: Sequence[Block]) -> None:
    """Run the Python blocks among these in one namespace, here."""
    if any('"model.onnx"' in block.code for block in chosen if block.info == "python"):
        load_example("write_onnx_model").write_model(Path("model.onnx"))
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in chosen:
        if block.info == "python":
            run_python(block, namespace)


def run_python(block: Block, namespace: dict[str, object]) -> None:
    comments = {
        token.start[0]: token.string.removeprefix("# -> ")
        for token in tokenize.generate_tokens(io.StringIO(block.code).readline)
        if token.type == tokenize.COMMENT and token.string.startswith("# -> ")
    }
    floor = 1e-6 if block.page.name in ROUNDED else 1e-12
    rest = ""
    for statement in ast.parse(block.code).body:
        printed, value = io.StringIO(), None
        with contextlib.redirect_stdout(printed):
            if isinstance(statement, ast.Expr):
                value = eval(compile(ast.Expression(statement.value), str(block), "eval"), namespace)
            else:
                exec(compile(ast.Module([statement], []), str(block), "exec"), namespace)
        assert statement.end_lineno is not None
        if (expected := comments.pop(statement.end_lineno, None)) is None:
            rest += printed.getvalue()
        else:
            problem = differs(expected, printed.getvalue() or repr(value), floor=floor)
            assert not problem, f"{block}, line {statement.end_lineno} of the block: {problem}"
    assert not comments, f"{block}: '# ->' must stand at the end of a statement: {comments}"
    if block.output is not None:
        problem = differs(block.output, rest, floor=floor)
        assert not problem, f"{block}: {problem}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [b for page in PAGES if page.exists() for b in blocks(page) if b.info == "matlab run"], ids=str
)
@pytest.mark.skipif(OCTAVE is None and not REQUIRED, reason="GNU Octave is not installed (Debian: apt install octave)")
def test_matlab_blocks(block: Block, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    compiled = ""
    if "pylrp_relevance" in block.code:
        if not LIBRARY.exists() and not BUILD_REQUIRED:
            pytest.skip("libpylrp.so is not built: make core")
        compiled = request.getfixturevalue("mex")
    printed = octave(f"addpath('{EXAMPLES}');\n{compiled}{block.code}", tmp_path)
    assert block.output is not None, f"{block}: show what it prints"
    problem = differs(block.output, printed)
    assert not problem, f"{block}: {problem}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    heads = re.findall(r"^#+ +(.*?) *$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links(page: Path) -> None:
    targets = re.findall(r"\]\(\s*([^)\s]+)[^)]*\)", prose(page))
    targets += re.findall(r"""(?:src|href)=["']([^"']+)""", prose(page))
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name}: {target} does not exist"
        if anchor:
            assert anchor in anchors(path), f"{page.name}: {target}: no such heading, there are {sorted(anchors(path))}"


@pytest.mark.slow
def test_measured_tables() -> None:
    """Every number on the page comes out of examples/heatmap_evidence.py today."""
    evidence = load_example("heatmap_evidence")
    text = evidence.PAGE.read_text(encoding="utf-8")
    tables = evidence.measure()
    assert sorted(re.findall(r"<!-- measured: (.*?) -->", text)) == sorted(tables)
    for name, table in tables.items():
        found = evidence.marked(name).search(text)
        assert found is not None, name
        problem = differs(found[2], str(table), last_digit=1)
        assert not problem, f"table '{name}' (python examples/heatmap_evidence.py --write renews it): {problem}"
