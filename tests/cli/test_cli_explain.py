"""`pylrp explain` in this process: what it writes and prints, against Network.explain on inputs prepared by hand."""

import json
import re

import numpy as np
import pytest
from cli_world import NAMES, photo_network, table_network, write_world

import pylrp
from pylrp.cli import main
from pylrp.cli.labels import class_number, read_labels
from pylrp.cli.results import atomically
from pylrp.cli.rules import override, parse_rule

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")


@pytest.fixture
def world(tmp_path, monkeypatch):
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def by_hand(world, mean=0.0, std=1.0):
    images = [np.asarray(Image.open(world / "images" / f"{i}.png")) for i in range(3)]
    return ((np.stack(images).transpose(0, 3, 1, 2) / 255 - mean) / std).astype(np.float32)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def is_png(path):
    with Image.open(path) as image:
        image.load()
        return image.format == "PNG" and np.asarray(image).std() > 5


def test_arrays_are_those_of_network_explain(world, capsys):
    arguments = ["explain", "photo.npz", "images", "--mean", "0.5", "--std", "0.25", "-o", "out.npz", "--batch", "2"]
    assert main([*arguments, "--composite", "epsilon_plus", "--targets", "3,0", "--layers", "avgpool0,block"]) == 0
    ex = photo_network().explain(
        by_hand(world, 0.5, 0.25), composite="epsilon_plus", targets=[3, 0], layers=["avgpool0", "block"]
    )
    with np.load("out.npz") as out:
        found = dict(out)
    np.testing.assert_allclose(found["relevance"], ex.relevance, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["output"], ex.output, rtol=1e-5)
    assert np.array_equal(found["target"], ex.target)
    np.testing.assert_allclose(found["ledger"], np.stack([a.data for a in ex.ledger]), rtol=1e-4, atol=1e-5)
    for name in ("avgpool0", "block"):
        np.testing.assert_allclose(found[f"layer/{name}"], ex.layers[name], rtol=1e-4, atol=1e-6)
    ex.save("own.npz")
    with np.load("own.npz") as own:
        assert {n: a.shape for n, a in own.items() if n not in ("layer/input", "input", "explanation")} == {
            n: a.shape for n, a in found.items() if n not in ("names", "settings")
        }
    assert found["names"].tolist() == [f"images/{i}.png" for i in range(3)]
    assert json.loads(str(found["settings"]))["composite"] == "epsilon_plus"
    assert capsys.readouterr().err == ""


def test_the_table_says_what_the_ledger_says(world, capsys):
    assert main(["explain", "photo.npz", "images", "--labels", "labels.txt", "-o", "out.npz"]) == 0
    printed = capsys.readouterr().out
    ex = photo_network().explain(by_hand(world), composite="epsilon_plus_flat")
    rows = [line for line in printed.splitlines() if line.startswith("images/") and ".png " in line]
    odds = np.exp(ex.output.astype(float))
    for i, row in enumerate(rows):
        target = int(ex.target[i])
        assert f" {target} {NAMES[target]}  " in row
        pattern = rf"{target} .*?  +(\S+)  +(\S+) %  +(\S+)  bias (\S+)"
        output, chance, relevance, bias = map(float, re.search(pattern, row.replace(",", " ")).groups())
        assert output == pytest.approx(ex.output[i, target], rel=1e-3)
        assert chance == pytest.approx(100 * odds[i, target] / odds[i].sum(), abs=0.06)
        assert relevance == pytest.approx(ex.relevance[i].sum(), rel=1e-3, abs=1e-4)
        assert bias == pytest.approx(ex.ledger.data[:, 2, i].sum(), rel=1e-3)
    assert len(rows) == 3
    assert "rules: epsilon_plus_flat" in printed
    assert "pixels 0 to 1: from 0 to 1" in printed
    assert printed.endswith("wrote out.npz\n")


@pytest.mark.slow
def test_where_pictures_go(world, capsys):
    assert main(["explain", "photo.npz", "images/1.png"]) == 0
    assert is_png("1-relevance.png")
    assert main(["explain", "photo.npz", "images"]) == 0
    assert files(world / "relevance") == [f"{i}-relevance.png" for i in range(3)]
    assert main(["explain", "photo.npz", "images/2.png", "-o", "x.pdf", "-o", "y.npz"]) == 0
    assert (world / "x.pdf").read_bytes().startswith(b"%PDF")
    (world / "images/1.jpg").write_bytes((world / "images/1.png").read_bytes())  # the same stem twice
    assert main(["explain", "photo.npz", "images/1.png", "images/1.jpg", "-o", "two/"]) == 0
    assert files(world / "two") == ["1-2-relevance.png", "1-relevance.png"]
    assert "wrote 2 pictures in two/" in capsys.readouterr().out


def test_a_table_with_a_label_column(world, capsys):
    assert main(["explain", "table.npz", "rows.csv", "--label-column", "kind"]) == 0
    printed = capsys.readouterr().out
    assert "rows.csv:3 " in printed
    assert printed.count("true class 1") == 2
    x = np.array([[1, 2, 3], [-1, 0.5, 2], [0, 0, 1]])
    with np.load("relevance.npz") as out:
        assert np.array_equal(out["relevance"], table_network().explain(x, composite="epsilon").relevance)
        assert out["features"].tolist() == ["age", "weight", "size"]
    (world / "one.csv").write_text("age,weight,size\n1,2,3\n")
    assert main(["explain", "table.npz", "one.csv"]) == 0
    assert is_png("one-2-relevance.png")


def test_a_report_holds_names_and_pictures(world):
    arguments = ["explain", "photo.npz", "images", "rows.npy", "--labels", "labels.txt", "-o", "why.html"]
    np.save("rows.npy", by_hand(world)[:1])
    assert main([*arguments, "--targets", "tabby,cup"]) == 0
    text = (world / "why.html").read_text(encoding="utf-8")
    for word in ("images/2.png", "rows.npy[0]", "tabby", "cup", "epsilon_plus_flat", "data:image/png"):
        assert word in text


def test_against_and_start(world, capsys):
    assert main(["explain", "photo.npz", "images/0.png", "--target", "4", "--against", "1", "-o", "a.npz"]) == 0
    assert "4, not 1" in capsys.readouterr().out
    assert main(["explain", "photo.npz", "images/0.png", "--start", "one", "-o", "b.npz"]) == 0
    x, net = by_hand(world)[:1], photo_network()
    expected = (
        net.explain(x, target=4, against=1, composite="epsilon_plus_flat"),
        net.explain(x, start="one", composite="epsilon_plus_flat"),
    )
    for name, ex in zip("ab", expected, strict=True):
        with np.load(f"{name}.npz") as out:
            np.testing.assert_allclose(out["relevance"], ex.relevance, rtol=1e-4, atol=1e-6)


def test_begin_at_a_layer_under_a_convention(world):
    arguments = ["explain", "photo.npz", "images/0.png", "--from", "block", "--target", "2", "-o", "a.npz"]
    assert main([*arguments, "--convention", "captum", "--composite", "epsilon", "--threads", "1"]) == 0
    ex = photo_network().explain(by_hand(world)[:1], 2, "epsilon", output="block", convention="captum")
    with np.load("a.npz") as out:
        np.testing.assert_allclose(out["relevance"], ex.relevance, rtol=1e-4, atol=1e-6)


def test_bfloat16_where_it_is_asked_for(world, capsys):
    assert main(["explain", "photo.npz", "images/0.png", "--precision", "bfloat16", "-o", "a.npz"]) == 0
    x, net = by_hand(world)[:1], photo_network()
    ex, exact = (net.explain(x, composite="epsilon_plus_flat", precision=each) for each in ("bfloat16", None))
    scale = np.abs(exact.relevance).max()
    with np.load("a.npz") as out:
        np.testing.assert_allclose(out["relevance"], ex.relevance, rtol=0, atol=1e-4 * scale)
        assert np.abs(out["relevance"] - exact.relevance).max() > 3e-4 * scale
    assert main(["explain", "photo.npz", "images/0.png", "--precision", "float64", "-o", "b.npz"]) == 1
    assert "float64" in capsys.readouterr().err


def test_a_box_has_the_bounds_of_the_pixels(world):
    """Without them the default box from 0 to 1 would warn, and warnings are errors here."""
    arguments = ["explain", "photo.npz", "images", "--composite", "epsilon_gamma_box", "-o", "a.npz"]
    assert main([*arguments, "--mean", "0.5,0.4,0.3", "--std", "0.25"]) == 0
    mean = np.array([0.5, 0.4, 0.3])
    box = pylrp.composite("epsilon_gamma_box", low=-mean / 0.25, high=(1 - mean) / 0.25)
    ex = photo_network().explain(by_hand(world, mean[:, None, None], 0.25), composite=box)
    with np.load("a.npz") as out:
        np.testing.assert_allclose(out["relevance"], ex.relevance, rtol=1e-4, atol=1e-6)
    np.save("x.npy", by_hand(world))
    given = ["explain", "photo.npz", "x.npy", "--composite", "epsilon_gamma_box", "--low=-1", "--high", "2"]
    assert main([*given, "-o", "b.npz"]) == 0
    box = pylrp.composite("epsilon_gamma_box", low=-1, high=2)
    with np.load("b.npz") as out:
        np.testing.assert_array_equal(
            out["relevance"], photo_network().explain(by_hand(world), composite=box).relevance
        )


@pytest.mark.slow
def test_pictures_of_every_kind(world):
    for kind in ("image", "channels", "layers", "ledger"):
        assert main(["explain", "photo.npz", "images/0.png", "--picture", kind, "-o", f"{kind}.png", "-q"]) == 0
        assert is_png(f"{kind}.png")
    assert len({(world / f"{kind}.png").read_bytes() for kind in ("image", "channels", "layers", "ledger")}) == 4


def test_a_row_of_pixels_is_an_image_when_its_size_is_said(world):
    rng = np.random.default_rng(0)
    net = pylrp.Network([pylrp.layers.Dense(rng.normal(size=(2, 12 * 16)))])
    net.save("flat.npz")
    assert main(["explain", "flat.npz", "images/0.png", "--size", "12x16", "-o", "a.png", "-o", "a.npz"]) == 0
    grey = np.asarray(Image.open("images/0.png").convert("L")).reshape(1, -1) / 255
    with np.load("a.npz") as out:
        np.testing.assert_allclose(out["relevance"], net.explain(grey, composite="epsilon").relevance, rtol=1e-6)
    assert is_png("a.png")


@pytest.mark.slow
def test_quiet_says_nothing(world, capsys):
    assert main(["explain", "photo.npz", "images", "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert len(files(world / "relevance")) == 3


def test_rules_by_pattern():
    net = photo_network()
    base = pylrp.composite("epsilon_plus_flat")
    mine = override(base, ["*=Epsilon(0.01)", "b*=Gamma(gamma=0.5)", "avgpool0=Epsilon(0.3)"], net)
    table = {line.split()[0]: line.split("  ")[-1] for line in net.summary(mine).splitlines()[1:-1]}
    assert table["stem"].strip() == table["head"].strip() == "Epsilon(0.01)"
    assert table["block"].strip() == "Gamma(0.5)"
    assert table["avgpool0"].strip() == "Epsilon(0.3)"
    assert override(base, [], net) == base
    assert "avgpool0" not in override(base, ["*=ZPlus"], net).names  # patterns are for layers with weights


def test_a_failed_write_leaves_neither_half_nor_old_file_changed(tmp_path):
    (tmp_path / "x.npz").write_text("old")

    def fail(part):
        part.write_text("half")
        raise OSError(28, "No space left on device", str(part))

    with pytest.raises(OSError, match="No space") as caught:
        atomically(tmp_path / "x.npz", fail)
    assert caught.value.filename == str(tmp_path / "x.npz")
    assert files(tmp_path) == ["x.npz"]
    assert (tmp_path / "x.npz").read_text() == "old"


@pytest.mark.parametrize(
    "rule",
    [pylrp.Zero(), pylrp.Epsilon(0.25, bias=False), pylrp.ZPlus(stabilizer=0), pylrp.AlphaBeta(3, 2), pylrp.Gamma(0.5),
     pylrp.WSquare(bias=False), pylrp.Flat(), pylrp.ZBox([-2.0, -1], [1.5, 2]), pylrp.Norm(), pylrp.Pass()],
    ids=repr,
)  # fmt: skip
def test_every_rule_is_typed_as_it_is_printed(rule):
    assert parse_rule(repr(rule)) == rule


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Gama(0.5)", "there is no rule 'Gama' (do you mean Gamma?)"),
        ("__import__('os').system('x')", "write it as Gamma(0.5)"),
        ("Gamma(open('x'))", "values are numbers"),
        ("Gamma(**{'gamma': 1})", "values are numbers"),
        ("Gamma(0.5", "write it as"),
        ("Gamma(delta=1)", "it takes stabilizer, bias, gamma"),
        ("Gamma(-1)", "at least 0"),
        ("AlphaBeta(1, 1)", "alpha - beta must be 1"),
        ("ZBox", "low, high"),
        ("Gamma('a')", "must be a number"),
        ("(" * 500 + ")" * 500, "write it as"),
    ],
)
def test_rules_that_are_none(text, words):
    with pytest.raises(ValueError, match=".") as caught:  # noqa: RUF043
        parse_rule(text)
    for word in words.split(", "):
        assert word in str(caught.value)


def test_labels_in_each_form(tmp_path):
    forms = {
        "a.txt": "cat\ntabby, tabby cat\ncup\n\n",
        "a.json": json.dumps(["cat", "tabby, tabby cat", "cup"]),
        "b.json": json.dumps({"2": "cup", "0": "cat", "1": "tabby, tabby cat"}),
        "c.json": json.dumps({"0": ["n1", "cat"], "1": ["n2", "tabby, tabby cat"], "2": ["n3", "cup"]}),
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        assert read_labels(str(tmp_path / name), 3) == ("cat", "tabby, tabby cat", "cup")


def test_classes_by_name():
    for text, number in (("tabby", 1), ("TABBY CAT", 1), ("cat", 0), ("egyptian", 2), ("roc", 4), ("3", 3)):
        assert class_number(text, NAMES, 5, "--target") == number
    for text, words in (("c", "5 classes have that name"), ("dog", "no class has that name"), ("5", "0 to 4")):
        with pytest.raises(ValueError, match=words):
            class_number(text, NAMES, 5, "--target")
