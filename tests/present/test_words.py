"""Tokens as people read them: pieces joined, special tokens known, sentences told apart, colours, HTML."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pylrp.present.words import colour, html_of, joined, largest, segments_of, terminal_of

CASES = {
    "WordPiece": (
        ["[CLS]", "un", "##believ", "##able", "film", "[SEP]", "[PAD]"],
        ["[CLS]", "unbelievable", "film", "[SEP]"],
    ),
    "SentencePiece": (["<s>", "▁un", "believ", "able", "▁film", ".", "</s>"], ["<s>", "unbelievable", "film.", "</s>"]),
    "bytes": (["un", "believ", "able", "Ġfilm", "ĠgrÃ¼n", "<|end|>"], ["unbelievable", "film", "grün", "<|end|>"]),
    "words": (["the", "film"], ["the", "film"]),
    "RoBERTa": (
        ["<s>", "The", "Ġfilm", "Ġ", "ðŁ", "ĺ", "Ģ", "</s>", "</s>", "So", "Ġlong", "</s>"],
        ["<s>", "The", "film", "·", "😀", "</s>", "</s>", "So", "long", "</s>"],
    ),
    "lines": (["One", "Ċ", "two", "Ġthree"], ["One", "\\x0a", "two", "three"]),
    "bytes of SentencePiece": (
        ["<s>", "▁a", "▁", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "s", "</s>"],
        ["<s>", "a", "😀s", "</s>"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_pieces_are_joined(case):
    tokens, expected = CASES[case]
    R = np.arange(len(tokens)) + 1.0
    R[[token == "[PAD]" for token in tokens]] = 0
    words = joined(tokens, R)
    assert [word.text for word in words] == expected
    assert sum(word.relevance for word in words) == pytest.approx(R.sum())
    for word in words:
        assert word.relevance == pytest.approx(R[word.first : word.last + 1].sum())
    assert [word.text for word in words if word.special] == [t for t in expected if re.fullmatch(r"[\[<].*[\]>]", t)]


def test_unknown_and_masked_words_stand_in_their_places():
    tokens = ["[CLS]", "the", "[MASK]", "of", "[UNK]", "!", "[SEP]", "[UNK]", "[SEP]"]
    words = joined(tokens, np.ones(9))
    assert [word.text for word in words if not word.special] == ["the", "[MASK]", "of", "[UNK]", "!", "[UNK]"]
    assert [word.segment for word in words if word.text == "[UNK]"] == [0, 1]
    words = joined(["<s>", "Paris", "Ġis", "<mask>", ".", "</s>"], np.ones(6))
    assert [(word.text, word.special) for word in words[1:-1]] == [("Paris", False), ("is", False), ("<mask>.", False)]
    words = joined(["▁a", "▁", "<unk>", "▁b"], np.ones(4))
    assert [word.text for word in words] == ["a", "<unk>", "b"]


def test_padding_that_has_relevance_is_shown():
    assert [word.text for word in joined(["a", "[PAD]"], [1.0, 0.5])] == ["a", "[PAD]"]


def test_sentences():
    assert segments_of(["[CLS]", "a", "[SEP]", "b", "##c", "[SEP]", "[PAD]"]).tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert segments_of(["<s>", "a", "</s>", "</s>", "b", "</s>"]).tolist() == [0, 0, 0, 0, 1, 1]
    given = joined(["a", "##b", "##c"], [1, 2, 3], segments=[0, 0, 1])
    assert [(word.text, word.segment) for word in given] == [("ab", 0), ("c", 1)]


def test_colours_are_symmetrical():
    assert colour(0, 1)[0] == "#f5f4f1"
    assert colour(1, 1) == ("#64091f", "#ffffff")
    assert colour(-5, 1) == ("#072b5c", "#ffffff")
    assert colour(0.25, 1)[0] == "#f8cfb5"
    words = joined(["[CLS]", "a", "b"], [9.0, -2.0, 1.0])
    assert largest(words) == 2
    assert largest(joined(["[CLS]"], [3.0])) == 3


def test_html_is_escaped():
    page = html_of(joined(["<b>&", "[SEP]", "x"], [1.0, 0.0, -1.0]))
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;" in page
    assert page.count("flex:1") == 2


def test_terminal():
    pytest.importorskip("rich")
    assert terminal_of(joined(["a", "##b", "c"], [1.0, 2.0, -1.0])).plain.split() == ["ab", "c"]


def test_other_lengths():
    with pytest.raises(ValueError, match="2 tokens and relevance of shape"):
        joined(["a", "b"], [1.0])
    with pytest.raises(ValueError, match="1 segments"):
        joined(["a", "b"], [1.0, 2.0], segments=[0])
