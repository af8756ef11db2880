"""A user's mistakes: one line on stderr that says what to do, the exit status, and no file left behind."""

import subprocess
import sys

import numpy as np
import pytest
from cli_world import command, run, write_world

from pylrp.cli import main

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")


@pytest.fixture
def world(tmp_path, monkeypatch):
    write_world(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    (tmp_path / "model.xyz").touch()
    (tmp_path / "nan.csv").write_text("age,weight,size\n1,nan,3\n")
    (tmp_path / "text.csv").write_text("age,weight,size\n1,2,heavy\n")
    (tmp_path / "few.txt").write_text("cat\ndog\n")
    (tmp_path / "bad.json").write_text("[1,")
    np.save(tmp_path / "last.npy", np.zeros((2, 12, 16, 3)))
    np.save(tmp_path / "nan.npy", np.full((3, 12, 16), np.nan))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(folder):
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


PHOTO, IMAGE = "photo.npz", "images/0.png"
MISTAKES = [
    (["explain", "nothing.onnx", IMAGE], "there is no file nothing.onnx"),
    (["explain", "model.xyz", IMAGE], "a network is read from .onnx"),
    (["info", "broken.png"], "a network is read from .onnx"),
    (["explain", "rows.csv", IMAGE], "a network is read from"),
    (["explain", PHOTO, "nothing.png"], "there is no file nothing.png"),
    (["explain", PHOTO, "*.gif"], "no file matches *.gif"),
    (["explain", PHOTO, "empty"], "folder empty holds no images"),
    (["explain", PHOTO, "broken.png"], "broken.png: it is no image that pillow can read"),
    (["explain", PHOTO, "few.txt"], "few.txt: it is no image that pillow can read"),
    (["explain", PHOTO, "last.npy"], "numpy.moveaxis(x, -1, -3)"),
    (["explain", PHOTO, "nan.npy"], "nan.npy: it is NaN at index (0, 0, 0)"),
    (["explain", PHOTO, "rows.csv"], "rows of a table are for networks that take a row"),
    (["explain", "table.npz", "nan.csv"], "nan.csv: line 2, weight: the cell is 'nan', not a number"),
    (["explain", "table.npz", "text.csv"], "text.csv: line 2, size: the cell is 'heavy', not a number"),
    (["explain", "table.npz", "rows.csv"], "--label-column for the true class"),
    (["explain", "table.npz", "rows.csv", "--label-column", "knd"], "there is no column 'knd'"),
    (["explain", "table.npz", IMAGE], "--size HEIGHTxWIDTH"),
    (["explain", PHOTO, IMAGE, "--target", "5"], "--target 5: the network has 5 outputs, 0 to 4"),
    (["explain", PHOTO, IMAGE, "--target=-1"], "--target -1: the network has 5 outputs"),
    (["explain", PHOTO, IMAGE, "--target", "tabby"], "--labels FILE"),
    (["explain", PHOTO, IMAGE, "--target", "dog", "--labels", "labels.txt"], "--target dog: no class has that name"),
    (["explain", PHOTO, IMAGE, "--target", "1", "--targets", "1,2"], "not both"),
    (["explain", PHOTO, IMAGE, "--target", "1", "--against", "1"], "pass another one"),
    (["explain", PHOTO, IMAGE, "--labels", "few.txt"], "it has 2 names, the network has 5 outputs"),
    (["explain", PHOTO, IMAGE, "--labels", "nothing.txt"], "nothing.txt: No such file or directory"),
    (["explain", PHOTO, IMAGE, "--labels", "bad.json"], "it is no JSON"),
    (["explain", PHOTO, IMAGE, "--rule", "stm=ZPlus"], "no layer with a rule is called stm, do you mean stem?"),
    (["explain", PHOTO, IMAGE, "--rule", "relu0=ZPlus"], "ZPlus() does not fit a layer of kind function"),
    (["explain", PHOTO, IMAGE, "--rule", "avgpool0=ZPlus"], "does not fit a layer of kind pool"),
    (["explain", PHOTO, IMAGE, "--rule", "stem=Gama(1)"], "do you mean Gamma?"),
    (["explain", PHOTO, IMAGE, "--rule", "stem"], "write LAYER=RULE"),
    (["explain", PHOTO, IMAGE, "--mean", "127"], "--pixel-max 255"),
    (["explain", PHOTO, IMAGE, "--mean", "0.1,0.2"], "the network takes 3 channels"),
    (["explain", PHOTO, IMAGE, "--background", "rde"], "rde"),
    (["explain", PHOTO, IMAGE, "--from", "nothing"], "--from nothing: no layer has that name"),
    (["explain", PHOTO, IMAGE, "--from", "block"], "pass target="),
    (["explain", PHOTO, IMAGE, "--layers", "nothing", "-o", "x.npz"], "no layer is called 'nothing'"),
    (["explain", PHOTO, IMAGE, "--overlay", "fill"], "overlay"),
    (["explain", PHOTO, IMAGE, "--input-shape", "3,8,8"], "takes no --input-shape"),
    (["explain", PHOTO, IMAGE, "-o", "no/such/x.png"], "-o no/such/x.png: there is no folder no/such"),
    (["explain", PHOTO, IMAGE, "-o", "no/such/folder/"], "there is no folder no/such"),
    (["explain", PHOTO, IMAGE, "-o", "x.gif"], "give an ending"),
    (["explain", PHOTO, IMAGE, "-o", "few.txt/"], "a file of that name"),
    (["explain", PHOTO, "images", "-o", "x.png"], "3 inputs: give a folder"),
    (["explain", PHOTO, IMAGE, "-o", IMAGE], "images/0.png is an input: it is not overwritten"),
    (["explain", PHOTO, "last.npy", "-o", "./last.npy"], "last.npy is an input"),
    (["explain", PHOTO, IMAGE, "-o", "empty/../photo.npz"], "is an input: it is not overwritten"),
    (["explain", PHOTO, IMAGE, "--against", "1", "-o", "x.html"], "a report has no --against"),
    (["compare", PHOTO, IMAGE, "--composites", "epsilon,nothing"], "unknown composite 'nothing'"),
    (["compare", PHOTO, IMAGE, "--conventions", "nothing"], "unknown convention 'nothing'"),
    (["compare", PHOTO, IMAGE, "--conventions", "-o", "x.png"], "no picture"),
    (["compare", PHOTO, IMAGE, "-o", IMAGE], "is an input"),
    (["evaluate", PHOTO, IMAGE, "--checks", "nothing"], "check 'nothing' is unknown"),
    (["evaluate", PHOTO, "images", "--labels-true", "few.txt"], "it has 2 classes, there are 3 inputs"),
    (["evaluate", PHOTO, IMAGE, "-o", "no/x.png"], "there is no folder no"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_a_mistake_is_one_line(world, capsys, arguments, words):
    before = content(world)
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("pylrp: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert content(world) == before


MISUSES = [
    (["explain", PHOTO], "INPUT"),
    (["explain", PHOTO, IMAGE, "--composite", "nothing"], "--composite"),
    (["explain", PHOTO, IMAGE, "--mean", "a"], "'a' is not numbers"),
    (["explain", PHOTO, IMAGE, "--mean", "nan"], "finite"),
    (["explain", PHOTO, IMAGE, "--pixel-max", "2"], "neither 1 nor 255"),
    (["explain", PHOTO, IMAGE, "--batch", "0"], "no whole number above 0"),
    (["explain", PHOTO, IMAGE, "--size", "28"], "not height and width"),
    (["explain", PHOTO, IMAGE, "--layout", "CHW"], "--layout"),
    (["evaluate", PHOTO, IMAGE, "-o", "x.html"], "must end in .png, .pdf, .svg or .npz"),
    (["compare", PHOTO, IMAGE, "--composites", "epsilon", "--conventions", "captum"], "not allowed with"),
]


@pytest.mark.parametrize(("arguments", "words"), MISUSES, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_a_misuse_is_shown_with_the_usage(world, capsys, arguments, words):
    before = content(world)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert err.startswith("usage: pylrp ")
    assert words in err.splitlines()[-1]
    assert content(world) == before


@pytest.mark.slow
def test_in_a_process_of_its_own_there_is_no_traceback(world):
    result = run(world, "explain", PHOTO, "broken.png")
    assert (result.returncode, result.stdout.count("wrote")) == (1, 0)
    assert result.stderr.startswith("pylrp: error: broken.png: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_one_bad_input_among_many_does_not_stop_the_others(world, capsys):
    (world / "images/1.png").write_bytes(b"broken")
    np.save("images/9.npy", np.full((2, 3, 12, 16), 0.5))
    np.save("images/8.npy", np.full((3, 12, 16), np.inf))
    assert main(["explain", PHOTO, "images", "-o", "out", "-o", "out.npz", "-o", "out.html"]) == 1
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "pylrp: error: images/1.png: it is no image that pillow can read",
        "pylrp: error: images/8.npy: it is infinite at index (0, 0, 0)",
    ]
    assert "4 of 6 inputs explained" in out
    names = ["0-relevance.png", "2-relevance.png", "9-0-relevance.png", "9-1-relevance.png"]
    assert sorted(p.name for p in (world / "out").iterdir()) == names
    with np.load("out.npz") as found:
        assert found["names"].tolist() == ["images/0.png", "images/2.png", "images/9.npy[0]", "images/9.npy[1]"]
        assert found["relevance"].shape == (4, 3, 12, 16)
    for command_ in (["compare"], ["evaluate", "--checks", "agreement"]):
        assert main([command_[0], PHOTO, "images", *command_[1:]]) == 1
        assert capsys.readouterr().err.count("\n") == 2


def test_an_input_that_only_the_network_refuses_does_not_stop_the_others(world, capsys):
    """Against the top class of one of three inputs."""
    from cli_world import photo_network

    net = photo_network()
    rng = np.random.default_rng(0)
    tops = {}
    while len(set(tops.values())) < 2:  # until the network says different things of the images
        for i in range(3):
            pixels = rng.integers(0, 256, 3, dtype=np.uint8) * np.ones((12, 16, 1), np.uint8)
            Image.fromarray(pixels).save(f"images/{i}.png")
            tops[i] = int(net.forward(pixels.transpose(2, 0, 1).astype(np.float32) / 255).argmax())
    other = tops[0]
    assert main(["explain", PHOTO, "images", "--against", str(other), "-o", "out.npz"]) == 1
    out, err = capsys.readouterr()
    bad = [f"images/{i}.png" for i in range(3) if tops[i] == other]
    assert [line.split(": ")[2] for line in err.splitlines()] == bad
    with np.load("out.npz") as found:
        assert len(found["names"]) == 3 - len(bad)
    assert f"{3 - len(bad)} of 3 inputs explained" in out


@pytest.mark.slow
def test_results_are_no_inputs_of_the_next_run(world, capsys):
    """A second run over a folder that holds the first one's pictures would overwrite what it reads."""
    assert main(["explain", PHOTO, "images", "-o", "images", "-q"]) == 0
    assert main(["explain", PHOTO, "images/0.png", "images/0-relevance.png", "-o", "images", "-q"]) == 1
    assert "images/0-relevance.png is an input: it is not overwritten" in capsys.readouterr().err


def test_an_operator_that_can_not_be_explained(world, capsys):
    onnx = pytest.importorskip("onnx")
    parser = pytest.importorskip("onnx.parser")
    gated = """<ir_version: 8, opset_import: ["": 17]> gated (float[batch, 3] x) => (float[batch, 2] y)
    <float[2, 3] W = {1, 0, 2, -1, 1, 0}, float[2, 3] G = {0, 1, 0, 1, 1, 0}> {
      h = Gemm <transB = 1> (x, W)
      z = Gemm <transB = 1> (x, G)
      g = Sigmoid (z)
      y = Mod <fmod = 1> (h, g)
    }"""
    onnx.save(parser.parse_model(gated), "gated.onnx")
    assert main(["explain", "gated.onnx", "rows.csv", "--label-column", "kind"]) == 1
    err = capsys.readouterr().err
    assert "(Mod) has no rule of LRP" in err
    assert err.count("\n") == 1
    assert main(["info", "model.onnx"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("pylrp: error: ")
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "arguments", "words"),
    [
        ("PIL", [PHOTO, IMAGE, "-o", "x.npz"], "pillow: pip install pillow"),
        ("matplotlib", [PHOTO, IMAGE], "matplotlib: pip install matplotlib"),
        ("onnx", ["model.onnx", IMAGE], "onnx: pip install onnx"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(world, missing, arguments, words):
    block = f"import sys; sys.modules[{missing!r}] = None; "
    python, flag, code, *rest = command("explain", *arguments)
    result = subprocess.run([python, flag, block + code, *rest], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_a_debugger_can_have_the_traceback(world, monkeypatch):
    monkeypatch.setenv("PYLRP_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        main(["explain", PHOTO, "nothing.png"])


def test_a_warning_is_one_line(world):
    np.save("x.npy", np.full((1, 3, 12, 16), 3.0))
    result = run(world, "explain", PHOTO, "x.npy", "--composite", "epsilon_gamma_box", "-o", "x.npz")
    assert result.returncode == 0
    assert result.stderr == ("pylrp: warning: the input reaches from 3 to 3, outside the bounds of ZBox(0, 1)\n")


def test_threads_are_those_asked_for_and_only_for_this_command(world, monkeypatch):
    import pylrp

    before, seen = pylrp.get_threads(), []
    monkeypatch.setattr("pylrp.cli.explain.Results", lambda *_: seen.append(pylrp.get_threads()) or sys.exit(7))
    with pytest.raises(SystemExit):
        main(["explain", PHOTO, IMAGE, "--threads", "1", "-q"])
    assert (seen, pylrp.get_threads()) == ([1], before)
