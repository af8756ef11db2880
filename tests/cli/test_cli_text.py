"""`pylrp explain --text`: texts by a tokenizer, files of lines, targets, what is written, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import small_text

import pylrp
from pylrp.cli import main

onnx = pytest.importorskip("onnx")
tokenizers = pytest.importorskip("tokenizers")

WORDS = ["[PAD]", "[CLS]", "[SEP]", "the", "film", "was", "good", "bad", "un", "##seen", "[UNK]"]


@pytest.fixture
def folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    onnx.save(small_text.model(), tmp_path / "model.onnx")
    onnx.save(small_text.model("tokens"), tmp_path / "decoder.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ids(*words: str) -> Any:
    numbers = np.array([WORDS.index(word) for word in words])
    return {"ids": numbers, "mask": np.ones_like(numbers)}


def test_a_text(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "model.onnx", "--text", "the unseen film", "--target", "2", "-o", "ex.npz"]) == 0
    printed = capsys.readouterr().out
    net = pylrp.load("model.onnx")
    expected = net.explain(ids("[CLS]", "the", "un", "##seen", "film", "[SEP]"), 2)
    ex = pylrp.Explanation.load("ex.npz")
    np.testing.assert_allclose(ex.relevance[0], expected.relevance, rtol=1e-5)
    assert ex.settings["tokens"] == [["[CLS]", "the", "un", "##seen", "film", "[SEP]"]]
    assert " unseen " in printed
    assert "wrote ex.npz" in printed


def test_files_of_lines(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "lines.txt").write_text("the film\n\nthe film was bad\n")
    lines = [{"text": "good", "target": 1}, {"text": "the film", "text_pair": "was good", "target": 0}]
    (folder / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main(["explain", "model.onnx", "lines.txt", "-o", "ex.npz", "-o", "report.html", "--quiet"]) == 0
    ex = pylrp.Explanation.load("ex.npz")
    assert [len(row) for row in ex.relevance] == [4, 6]
    assert "bad" in (folder / "report.html").read_text()
    options = ["-o", "ex2.NPZ", "-o", "one.html", "-o", "other.HTML", "--quiet", "--batch", "1"]
    assert main(["explain", "model.onnx", "lines.txt", *options]) == 0
    assert [len(row) for row in pylrp.Explanation.load("ex2.NPZ").relevance] == [4, 6]
    for name in ("one.html", "other.HTML"):  # each text once
        assert (folder / name).read_text().count('"certainty"') == 2
    assert main(["explain", "model.onnx", "lines.jsonl", "-o", "ex.npz"]) == 0
    ex = pylrp.Explanation.load("ex.npz")
    assert ex.target.tolist() == [1, 0]
    net = pylrp.load("model.onnx")
    pair = net.explain(ids("[CLS]", "the", "film", "[SEP]", "was", "good", "[SEP]"), 0)
    np.testing.assert_allclose(ex.relevance[1], pair.relevance, rtol=1e-5)
    assert "lines.jsonl:2" in capsys.readouterr().out


@pytest.mark.parametrize(("target", "entry"), [("-1,bad", (-1, 7)), ("0,4", (0, 4)), ("film", (-1, 4)), (None, None)])
def test_a_token_of_a_decoder(folder: Any, target: str | None, entry: Any) -> None:
    options = [] if target is None else ["--target", target] if target[0] != "-" else [f"--target={target}"]
    assert main(["explain", "decoder.onnx", "--text", "the film was", *options, "-o", "ex.npz", "--quiet"]) == 0
    net, x = pylrp.load("decoder.onnx"), ids("[CLS]", "the", "film", "was", "[SEP]")
    entry = entry or (-1, int(net.forward(x)[-1].argmax()))
    np.testing.assert_allclose(
        pylrp.Explanation.load("ex.npz").relevance[0], net.explain(x, entry).relevance, rtol=1e-4, atol=1e-5
    )


def test_a_text_that_the_tokenizer_cuts_is_told(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made = tokenizers.Tokenizer.from_file("tokenizer.json")
    made.enable_truncation(max_length=5)
    made.save("tokenizer.json")
    words = ["explain", "model.onnx", "--text", "the film was good the film", "--target", "0", "-o", "ex.npz"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert len(pylrp.Explanation.load("ex.npz").relevance[0]) == 5
    assert "5 tokens" in printed
    assert "3 more" in printed
    assert main([*words[:3], "the film", *words[4:]]) == 0
    assert "more" not in capsys.readouterr().out


def test_a_picture(folder: Any) -> None:
    pytest.importorskip("matplotlib")
    assert main(["explain", "model.onnx", "--text", "the film", "-o", "words.png", "--quiet"]) == 0
    assert (folder / "words.png").stat().st_size > 3000


def test_info_tells_ids_from_masks(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "model.onnx"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("takes")]
    assert "token ids; relevance belongs to it" in lines[0]
    assert "a mask; takes no relevance" in lines[1]
    assert "any length" in lines[0]


def test_one_length_is_padded(folder: Any) -> None:
    net = pylrp.load(small_text.model(), input_shape={"ids": (8,), "mask": (8,)})
    net.save("net.pylrp.npz")
    assert main(["explain", "net.pylrp.npz", "--text", "the film", "--target", "1", "-o", "ex.npz", "--quiet"]) == 0
    ex = pylrp.Explanation.load("ex.npz")
    assert ex.relevance.shape == (1, 8)
    assert not ex.relevance[0, 4:].any()


def test_texts_are_verified(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "model.onnx", "--text", "the unseen film", "--target", "2"]) == 0
    printed = capsys.readouterr().out
    found = pylrp.load("model.onnx").verify(ids("[CLS]", "the", "un", "##seen", "film", "[SEP]"), target=2)
    assert printed.rstrip().endswith(str(found))
    assert "\n--text\n\nlayer " in printed
    (folder / "lines.jsonl").write_text('{"text": "good", "target": 1}\n{"text": "the film was bad", "target": 0}\n')
    assert main(["verify", "model.onnx", "lines.jsonl", "--batch", "1"]) == 0
    assert "1 of 2 inputs" in capsys.readouterr().out
    assert main(["verify", "model.onnx", "lines.jsonl", "--quiet"]) == 0
    assert main(["verify", "decoder.onnx", "--text", "the film was", "--target=-1,bad", "--quiet"]) == 0
    other = onnx.load("model.onnx")
    weight = max(other.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = (1.1 * np.frombuffer(weight.raw_data, np.float32)).astype(np.float32).tobytes()
    onnx.save(other, "other.onnx")
    capsys.readouterr()
    assert main(["verify", "model.onnx", "lines.jsonl", "--file", "other.onnx", "--quiet"]) == 1
    assert "lines.jsonl" not in capsys.readouterr().out


def test_lines_end_where_editors_end_them(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "lines.txt").write_bytes(b"\xef\xbb\xbfthe film\r\ngood\r\n")
    (folder / "lines.jsonl").write_text('{"text": "the\u2028film"}\n', encoding="utf-8")  # one object
    assert main(["explain", "model.onnx", "lines.txt", "lines.jsonl", "--target", "1", "-o", "ex.npz"]) == 0
    assert [len(row) for row in pylrp.Explanation.load("ex.npz").relevance] == [4, 3, 4]
    (folder / "latin.txt").write_bytes("gut für".encode("latin-1"))
    assert main(["explain", "model.onnx", "latin.txt"]) == 1
    assert "latin.txt is not in UTF-8, from byte 5" in capsys.readouterr().err


def test_notes_of_loading_are_printed(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("explain", "verify"):
        words = [command, "model.onnx", "--text", "the film", "--target", "1"]
        assert main(words) == 0
        printed = capsys.readouterr().out
        assert all(f"note: {note}\n" in printed for note in pylrp.load("model.onnx").notes)
        assert "note: " in printed
        assert main([*words, "--quiet"]) == 0
        assert "note: " not in capsys.readouterr().out


@pytest.mark.parametrize(("count", "doubted"), [(5, True), (10, False), (11, False), (12, True)])
def test_another_networks_tokenizer_is_doubted(
    folder: Any, capsys: pytest.CaptureFixture[str], count: int, doubted: bool
) -> None:
    words = {("[UNK]" if i == 0 else f"w{i}"): i for i in range(count)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]")).save(str(folder / "other.json"))
    assert main(["explain", "model.onnx", "--text", "w1", "--tokenizer", "other.json"]) == 0
    note = f"note: the tokenizer knows {count} tokens, the network's table has 11 rows: is it the model's own?"
    assert (note in capsys.readouterr().out) == doubted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explain", "model.onnx", "x.npy"], "pylrp explain and verify take texts"),
        (["explain", "model.onnx", "--text", "a", "--tokenizer", "no.json"], "there is no tokenizer no.json"),
        (["explain", "model.onnx", "x.png", "--text", "a"], "x.png is no text"),
        (["explain", "model.onnx", "--text", "a", "--text", "b", "--text-pair", "c"], "--text-pair goes with one"),
        (["explain", "model.onnx", "--text", "a", "--text", "b", "-o", "a.png"], "is one picture"),
        (["explain", "model.onnx", "bad.jsonl"], 'bad.jsonl:1 has no "text"'),
        (["explain", "decoder.onnx", "--text", "a", "--target", "0,nothing"], "no token 'nothing'"),
        (["explain", "decoder.onnx", "--text", "a", "--target", "9,3"], "no position 9"),
        (["explain", "model.onnx", "pair.jsonl"], 'pair.jsonl:1 has a "text_pair" that is no text: 4'),
        (["explain", "model.onnx", "long.txt"], "of length 703, it takes at most 600"),
        (["verify", "model.onnx", "x.npy"], "pylrp explain and verify take texts"),
        (["verify", "model.onnx", "x.npy", "--text", "a"], "x.npy is no text"),
        (["explain", "decoder.onnx", "--text", "a", "-o", "r.html"], "a report shows classes"),
    ],
)
def test_what_is_refused(folder: Any, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    (folder / "bad.jsonl").write_text('{"words": 1}')
    (folder / "pair.jsonl").write_text('{"text": "good", "text_pair": 4}')
    (folder / "long.txt").write_text("good " * 701)
    assert main(words) == 1
    assert message in capsys.readouterr().err
