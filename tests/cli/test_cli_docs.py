"""docs/command-line.md: each command is typed as written, and prints what the page says."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from cli_world import NAMES
from docs.test_docs import blocks, differs, load_example

import pylrp
from pylrp.cli import main
from pylrp.demo import load_demo_digits
from pylrp.layers import Conv, Dense, Flatten, ReLU

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")
pytest.importorskip("onnx")

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"


def write_files():
    """Write what the page speaks of, here."""
    load_example("write_onnx_model").write_model(Path("model.onnx"))
    images, labels = load_demo_digits()
    for folder in ("digits", "photos"):
        Path(folder).mkdir()
    for i in range(80, 90):
        Image.fromarray(images[i]).save(f"digits/{i}-is-{labels[i]}.png")
    Path("labels.txt").write_text("zero one two three four five six seven eight nine".replace(" ", "\n"))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)).save("photos/a.jpg")
    Path("imagenet.txt").write_text("\n".join(NAMES))
    conv = Conv(rng.normal(size=(4, 3, 16, 16)).astype(np.float32), stride=16)
    head = Dense(rng.normal(size=(5, 4 * 14 * 14)).astype(np.float32))
    pylrp.Network([conv, ReLU(), Flatten(), head], input_shape=(3, 224, 224)).save("net.npz")
    weights = [np.array([[1.0, 0, 1], [0, 1.0, 0]]), np.array([[1.0, 0], [0, 1.0]])]
    pylrp.Network([Dense(weights[0]), ReLU(), Dense(weights[1])]).save("table.npz")
    Path("patients.csv").write_text("id,age,weight,size,diagnosis\n17,1,0,3,0\n18,-4,3,2,1\n")


@pytest.mark.slow
def test_every_command_prints_what_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_files()
    commands = 0
    for block in blocks(PAGE):
        assert block.info != "python", "commands make the files that Python would read: python -c"
        if block.info != "console":
            continue
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.code, re.MULTILINE):
            program, *arguments = shlex.split(command)
            assert program in ("pylrp", "python")
            if program == "python":
                exec(arguments[1], {})
            else:
                assert main(arguments) == 0, command
            printed = capsys.readouterr()
            assert printed.err == "", command
            problem = differs(expected, printed.out, last_digit=1)
            assert not problem, f"{command}: {problem}"
            commands += 1
    assert commands == PAGE.read_text(encoding="utf-8").count("\n$ ") > 8
    for name in ("85-is-5-relevance.png", "six.png", "both.png", "compare.png", "curves.png", "report.html"):
        assert (tmp_path / name).stat().st_size > 5000


def test_the_examples_of_the_help_are_understood(capsys):
    """Each example of --help parses; the files are not there, so what fails is the first of them."""
    for command in ("explain", "evaluate", "compare", "info"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        examples = re.findall(r"^  (pylrp .*)$", capsys.readouterr().out.split("examples:")[1], re.MULTILINE)
        assert len(examples) > 2
        for example in examples:
            arguments = shlex.split(re.split(r"  +", example)[0])[1:]
            if len(arguments) > 1:
                assert main(arguments) == 1
                assert "there is no file" in capsys.readouterr().err
