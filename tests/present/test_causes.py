"""The causes of the ledger: one table, from which rows, columns, saved files, plots and pages take theirs."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pylrp
from pylrp import _core
from pylrp.layers import Dense, ReLU
from pylrp.network.causes import CAUSES, COLUMNS, cause
from pylrp.network.ledger import LedgerRow
from pylrp.report import Report

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ex() -> pylrp.Explanation:
    net = pylrp.Network([Dense([[1.0, -1.0], [0.5, 2.0]], [0.5, -0.25]), ReLU(), Dense([[1.0, 1.0], [0.0, 1.0]])])
    return net.explain(np.array([[1.0, 0.5], [0.25, 2.0]]), target=0, composite="epsilon")


def test_the_columns_are_the_cores(ex: pylrp.Explanation) -> None:
    assert ex.ledger.data.shape[1] == len(COLUMNS) == 2 + len(CAUSES)
    assert COLUMNS == _core.LEDGER_COLUMNS


def test_another_list_of_causes_is_found_at_import() -> None:
    """In a process of its own, with a core that counts one more: numbers would stand under other names."""
    code = (
        "import sys, types; package = types.ModuleType('pylrp'); package.__path__ = [sys.argv[1]];"
        "sys.modules['pylrp'] = package; from pylrp import _core; _core.LEDGER_COLUMNS += ('gate',);"
        "import pylrp.network.causes"
    )
    folder = str(Path(pylrp.__file__).parent)
    run = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "ImportError" in run.stderr
    assert "gate" in run.stderr


def test_a_row_has_a_field_for_each_column(ex: pylrp.Explanation) -> None:
    assert tuple(field.name for field in dataclasses.fields(LedgerRow)) == ("name", "rule", *COLUMNS)
    row = ex.ledger.layers[0]
    for i, column in enumerate(COLUMNS):
        np.testing.assert_array_equal(getattr(row, column), ex.ledger.data[0, i])
    assert (row.bias != 0).any()
    np.testing.assert_allclose(row.absorbed, sum(getattr(row, each.name) for each in CAUSES))
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.bias = row.dead  # type: ignore[misc]
    with pytest.raises(AttributeError):
        _ = row.nothing
    assert LedgerRow.__doc__ is not None
    assert all(f"{each.name} : ndarray" in LedgerRow.__doc__ for each in CAUSES)


def test_rows_are_pickled(ex: pylrp.Explanation) -> None:
    row = ex.ledger.layers[0]
    again = pickle.loads(pickle.dumps(row))
    assert type(again) is LedgerRow
    assert (again.name, again.rule) == (row.name, row.rule)
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(again, column), getattr(row, column))


def test_a_row_pickled_before_a_cause_was_known_has_none_of_it(ex: pylrp.Explanation) -> None:
    row = ex.ledger.layers[0]
    state = {name: value for name, value in vars(row).items() if name != "masked"}
    old = LedgerRow.__new__(LedgerRow)
    vars(old).update(state)  # as an older version would have it
    again = pickle.loads(pickle.dumps(old))
    np.testing.assert_array_equal(again.masked, np.zeros_like(row.incoming))
    np.testing.assert_array_equal(again.bias, row.bias)
    assert "LedgerRow" in repr(again)


def test_a_file_from_before_a_cause_was_known_is_read(ex: pylrp.Explanation, tmp_path: Path) -> None:
    ex.save(tmp_path / "new.npz")
    arrays = dict(np.load(tmp_path / "new.npz"))
    kept = [i for i, column in enumerate(COLUMNS) if column != "masked"][::-1]  # and in another order
    arrays["ledger"] = arrays["ledger"][:, :, kept]
    arrays["ledger_columns"] = arrays["ledger_columns"][kept]
    np.savez(tmp_path / "old.npz", **arrays)
    np.testing.assert_array_equal(pylrp.Explanation.load(tmp_path / "old.npz").ledger.data, ex.ledger.data)
    arrays["ledger_columns"] = np.array([*arrays["ledger_columns"][:-1], "unheard"])
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(pylrp.BrokenFile):
        pylrp.Explanation.load(tmp_path / "other.npz")


def test_the_page_gets_the_causes_as_data(ex: pylrp.Explanation) -> None:
    report = Report(pylrp.Network([Dense([[1.0, -1.0]])]))
    report.add(np.array([1.0, 0.5]))
    page = report.html()
    found = re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found is not None
    sent = json.loads(found[1])["causes"]
    assert [each["name"] for each in sent] == [each.name for each in CAUSES]
    assert all(f".c-{each.name} {{ fill:" in page for each in CAUSES)
    assert all(cause(each.name) is each for each in CAUSES)


def test_no_other_file_lists_the_causes() -> None:
    word = re.compile(rf"['\".\-]({'|'.join(each.name for each in CAUSES)})['\",: ]")
    files = [p for p in (ROOT / "pylrp").rglob("*") if p.suffix in {".py", ".js", ".css"} and p.name != "causes.py"]
    assert len(files) > 150
    listing = {str(p.relative_to(ROOT)): found for p in files if len(found := set(word.findall(p.read_text()))) > 3}
    assert not listing


def test_the_page_of_the_ledger_explains_each_cause() -> None:
    page = (ROOT / "docs" / "ledger.md").read_text()
    assert all(f"| `{column}` |" in page for column in COLUMNS)
