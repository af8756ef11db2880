"""Errors of reading name parameters; the command line writes the same message with its flags."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from pylrp.cli.progress import flag, one_line
from pylrp.inputs import EmptyFolder, ImagePlan, Option, OptionError, Preparation, Wanted, expand

ROW = Wanted({"x": (784,)}, frozenset(), np.dtype(np.float32))


def test_parameters_are_named_and_typed_as_flags() -> None:
    with pytest.raises(OptionError) as caught:
        ImagePlan.of(ROW, Preparation())
    assert caught.value.options == (Option("size", (28, 28)),)
    assert "size=(28, 28)" in str(caught.value)
    assert "--" not in str(caught.value)
    assert one_line(caught.value) == str(caught.value).replace("size=(28, 28)", "--size 28x28")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.options) == (OptionError, str(caught.value), caught.value.options)


def test_a_folder_of_folders(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.png").touch()
    with pytest.raises(FileNotFoundError) as caught:
        expand([tmp_path])
    assert isinstance(caught.value, EmptyFolder)
    assert caught.value.options == (Option("recursive", True),)
    assert "--recursive goes into them" in one_line(caught.value)
    (tmp_path / "deep" / "x.png").unlink()
    with pytest.raises(EmptyFolder) as empty:
        expand([tmp_path])
    assert empty.value.options == ()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (Option("pixel_max", 255), "--pixel-max 255"),
        (Option("stretch", True), "--stretch"),
        (Option("label"), "--label-column"),
        (Option("layout", "NHW"), "--layout NHW"),
    ],
)
def test_flags(option: Option, text: str) -> None:
    assert flag(option) == text
