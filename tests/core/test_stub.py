"""The hand-written types of the core name what the module has, with the same arguments."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pylrp
from pylrp import _core
from pylrp.network.causes import COLUMNS

STUB = ast.parse((Path(pylrp.__file__).parent / "_core.pyi").read_text())


def test_same_names() -> None:
    stub = {n.name for n in STUB.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))}
    stub |= {n.target.id for n in STUB.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    assert stub == {name for name in dir(_core) if not name.startswith("_")}


def test_same_arguments() -> None:
    checked = 0
    owners = [(_core, STUB.body)] + [(getattr(_core, n.name), n.body) for n in STUB.body if isinstance(n, ast.ClassDef)]
    for owner, body in owners:
        for node in body:
            if not isinstance(node, ast.FunctionDef):
                continue
            signature = getattr(owner, node.name).__doc__.splitlines()[0]
            names = re.findall(r"(\w+): ", signature.partition("(")[2])
            assert [a.arg for a in node.args.args if a.arg != "self"] == [n for n in names if n != "self"], signature
            checked += 1
    assert checked >= 10


def test_the_causes_in_words_are_the_cores() -> None:
    assert _core.LEDGER_COLUMNS == COLUMNS


def test_typed_marker_is_installed() -> None:
    assert (Path(pylrp.__file__).parent / "py.typed").exists()
