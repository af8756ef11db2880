"""`pylrp compare` and `pylrp evaluate`: what they print and write, against the library called by hand."""

import numpy as np
import pytest
from cli_world import photo_network, table_network, write_world

from pylrp.cli import main
from pylrp.evaluate import agreement, evaluate

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
