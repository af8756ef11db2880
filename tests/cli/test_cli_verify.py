"""`pylrp verify`: the table, the verdict and the exit status."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from verify_models import make  # noqa: E402

import pylrp  # noqa: E402
from pylrp.cli import main  # noqa: E402


@pytest.fixture
def files(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    model, x = make("conv")
    onnx.save(model, tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", x)
    other, _ = make("conv")
    weight = next(t for t in other.graph.initializer if t.name == "W2")
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * np.float32(1.1)).tobytes()
    onnx.save(other, tmp_path / "other.onnx")
    pylrp.load(model).save(tmp_path / "net.pylrp.npz")
    monkeypatch.chdir(tmp_path)
    return x


def test_an_intact_model_is_said_to_be(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "model.onnx", "x.npy", "--target", "2", "--composite", "epsilon"]) == 0
    printed = capsys.readouterr().out
    found = pylrp.load("model.onnx").verify(files, target=2, composite="epsilon")
    assert printed.rstrip().endswith(str(found))
    assert printed.startswith("rules: epsilon\n3 of 3 inputs\n\nlayer ")


def test_a_wrong_one_fails_and_is_named(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "model.onnx", "x.npy", "--file", "other.onnx", "--batch", "2"]) == 1
    printed = capsys.readouterr().out
    assert "2 of 3 inputs" in printed
    assert "'d'" in printed.splitlines()[-1]
    assert main(["verify", "model.onnx", "x.npy", "--file", "other.onnx", "--quiet"]) == 1
    quiet = capsys.readouterr()
    assert not quiet.out
    assert "'d'" in quiet.err
    assert main(["verify", "model.onnx", "x.npy", "--file", "other.onnx", "-q", "--tolerance", "1e9"]) == 0


def test_a_network_from_elsewhere_needs_a_file(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "net.pylrp.npz", "x.npy"]) == 1
    assert "model.onnx" in capsys.readouterr().err
    assert main(["verify", "net.pylrp.npz", "x.npy", "--file", "model.onnx", "-q"]) == 0
    with pytest.raises(SystemExit):
        main(["verify", "model.onnx", "x.npy", "--tolerance", "nan"])
