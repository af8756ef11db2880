"""`pylrp compare` and `pylrp evaluate`: what they print and write, against the library called by hand."""

import signal

import numpy as np
import pytest
from cli_world import photo_network, table_network, write_world

import pylrp
from pylrp.cli import main
from pylrp.evaluate import agreement, evaluate
from pylrp.evaluate import run as evaluate_run

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")


@pytest.fixture
def world(tmp_path, monkeypatch):
    write_world(tmp_path, 11)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def x(world):
    paths = sorted((world / "images").iterdir())
    return np.stack([np.asarray(Image.open(p)).transpose(2, 0, 1) / 255 for p in paths]).astype(np.float32)


@pytest.mark.slow
def test_compare_prints_the_agreement_of_maps_summed_over_channels(world, x, capsys):
    assert main(["compare", "photo.npz", "images", "--composites", "epsilon,epsilon_plus_flat"]) == 0
    out = capsys.readouterr().out
    net = photo_network()
    maps = {n: net.explain(x, composite=n).relevance.sum(axis=1) for n in ("epsilon", "epsilon_plus_flat")}
    assert agreement(maps).table() in out
    assert "11 inputs, means" in out
    assert out.endswith("wrote 0-compare.png (the first 8 inputs)\n")
    with Image.open("0-compare.png") as image:
        assert image.height > image.width  # eight rows of three


def test_compare_conventions_says_how_far_and_where(world, x, capsys):
    arguments = ["compare", "photo.npz", "images", "--conventions", "zennit,lrp_toolbox,captum"]
    assert main([*arguments, "--rule", "block=AlphaBeta(2, 1)", "--target", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("layer"))
    assert lines[head].split() == ["layer", "lrp_toolbox"]
    assert lines[-1].startswith("not compared: captum has no ")
    net = photo_network()
    rules = ["Epsilon()", "AlphaBeta(2, 1)", "Epsilon()"]
    from pylrp.cli.rules import parse_rule

    names = ["head", "block", "avgpool0", "stem", "input"]
    ours, theirs = (
        net.explain(x, 3, [parse_rule(r) for r in rules], convention=c, layers=names) for c in ("zennit", "lrp_toolbox")
    )
    for name, line in zip(names, lines[head + 1 :], strict=False):
        a, b = (ex.layers[name].reshape(len(x), -1) for ex in (ours, theirs))
        worst = (np.abs(a - b).max(axis=1) / np.abs(a).max(axis=1)).max()
        assert line.split()[0] == name
        assert float(line.split()[1]) == pytest.approx(worst, rel=0.06, abs=1e-6)


@pytest.mark.slow
def test_evaluate_writes_what_the_library_finds(world, x, capsys):
    options = ["--checks", "flipping,agreement", "--steps", "6", "--patch", "4", "--repeats", "2", "--seed", "9"]
    (world / "truth.txt").write_text("\n".join(str(i % 5) for i in range(11)))
    arguments = ["evaluate", "photo.npz", "images", "--composites", "epsilon,epsilon_plus", *options]
    assert main([*arguments, "--labels-true", "truth.txt", "-o", "e.npz", "-o", "e.png"]) == 0
    found = evaluate(
        photo_network(), x, ["epsilon", "epsilon_plus"], target=np.arange(11) % 5, checks=("flipping", "agreement"),
        steps=6, patch=4, repeats=2, seed=9,
    )  # fmt: skip
    out = capsys.readouterr().out
    assert found.table() in out
    right = int((photo_network().forward(x).argmax(axis=1) == np.arange(11) % 5).sum())
    assert f"{right} of 11 are predicted right" in out
    with np.load("e.npz") as saved:
        np.testing.assert_allclose(saved["flipping/epsilon/most"], found.curves["epsilon"].scores["most"], rtol=1e-5)
    assert (world / "e.png").stat().st_size > 5000


def test_evaluate_takes_the_true_classes_from_the_table(world, capsys):
    assert main(["evaluate", "table.npz", "rows.csv", "--label-column", "kind", "--checks", "agreement"]) == 0
    out = capsys.readouterr().out
    rows = np.array([[1, 2, 3], [-1, 0.5, 2], [0, 0, 1]])
    right = int((table_network().forward(rows).argmax(axis=1) == [0, 1, 1]).sum())
    assert f"explained: the true class of each\n{right} of 3 are predicted right" in out


@pytest.fixture
def press(monkeypatch):
    """Let Ctrl-C be pressed at the n-th call of a function."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests' own parent ignores
    calls = []

    def press(owner, name, n):
        function = getattr(owner, name)
        calls.clear()

        def pressed(*args, **kwargs):
            calls.append(name)
            if len(calls) == n:
                signal.raise_signal(signal.SIGINT)
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, pressed)

    yield press
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_ctrl_c_keeps_the_composites_that_are_evaluated(world, x, capsys, press):
    names = ("epsilon", "epsilon_plus", "deep_taylor")
    asked = ["--checks", "flipping,agreement", "--steps", "6", "--composites", ",".join(names)]
    press(evaluate_run, "pixel_flipping", 4)  # the random order, two composites, the third
    assert main(["evaluate", "photo.npz", "images", *asked, "-o", "e.npz", "-o", "e.png"]) == 130
    out, err = capsys.readouterr()
    found = evaluate(photo_network(), x, names[:2], checks=("flipping", "agreement"), steps=6)
    assert out.endswith(f"\n{found.table()}\nwrote e.npz\nwrote e.png\n")
    assert err == "pylrp: interrupted: 2 of 3 composites are evaluated; kept: e.npz, e.png\n"
    with np.load("e.npz") as saved:
        assert saved["composites"].tolist() == list(names[:2])
    assert (world / "e.png").stat().st_size > 5000

    press(evaluate_run, "pixel_flipping", 2)
    assert main(["evaluate", "photo.npz", "images", *asked, "-o", "none.npz"]) == 130
    assert capsys.readouterr().err == "pylrp: interrupted\n"
    assert not (world / "none.npz").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "composites", "inputs"),
    [(2, 0, 0), (3, 2, 8), (6, 3, 8)],
    ids=["nothing", "two composites of the first batch", "the first batch"],
)
def test_ctrl_c_keeps_what_is_compared(world, x, capsys, press, n, composites, inputs):
    names = ("epsilon", "epsilon_plus", "deep_taylor")
    press(pylrp.Network, "explain", n)
    assert main(["compare", "photo.npz", "images", "--composites", ",".join(names), "-o", "c.png"]) == 130
    out, err = capsys.readouterr()
    assert (world / "c.png").exists() == (composites > 0)
    if not composites:
        assert (out, err) == ("", "pylrp: interrupted\n")
        return
    assert err == f"pylrp: interrupted: 8 of 11 inputs are compared by {composites} of 3 composites; kept: c.png\n"
    maps = {n: photo_network().explain(x[:inputs], composite=n).relevance.sum(axis=1) for n in names[:composites]}
    assert f"{inputs} inputs, means" in out
    assert agreement(maps).table() in out


def test_ctrl_c_keeps_the_conventions_that_are_compared(world, capsys, press):
    (world / "eight").mkdir()
    for i in range(8):
        (world / "images" / f"{i}.png").rename(world / "eight" / f"{i}.png")
    arguments = ["--conventions", "zennit,captum"]
    assert main(["compare", "photo.npz", "eight", *arguments]) == 0
    whole = capsys.readouterr().out
    press(pylrp.Network, "explain", 4)
    assert main(["compare", "photo.npz", "eight", "images", *arguments]) == 130
    out, err = capsys.readouterr()
    assert (out, err) == (whole, "pylrp: interrupted: 8 of 11 inputs are compared\n")
    press(pylrp.Network, "explain", 2)
    assert main(["compare", "photo.npz", "eight", *arguments]) == 130
    assert capsys.readouterr() == ("", "pylrp: interrupted\n")
