"""Which letters made this sound? A GRU that turns letters into phonemes, from bare arrays, explained one by one.

    python examples/which_letters.py [--output letters.png]

The weights are those of g2p-en (Apache-2.0), which keeps them as plain arrays: an encoder over the letters, a decoder
that begins with the encoder's last state and says one phoneme after the other. Both are one layer of pylrp; the
relevance of a phoneme's logit goes through the decoder's steps into that state and from there to the letters.

The script checks the map against the network: leave a letter out, and see how far the logit falls. For the phonemes of
23 words the two must agree: Pearson's correlation over a phoneme's letters, on average at least 0.5. (Gates are
constants; with a half to the gates it would be 0.) A map says which letter of the word counts for this phoneme, so
letters are compared within a phoneme. How far a logit falls at all differs from phoneme to phoneme more than relevance
does: all letters of all phonemes in one pot agree less, which is printed beside it. Exit code 1 if they do not. Needs

    pip install --no-deps g2p-en
    pip install matplotlib

tests/peers/test_examples.py runs it.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp.layers import GRU, PositionwiseDense, Transpose
from pylrp.network import Graph, Node

Array = NDArray[Any]
LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
_SOUNDS = """
<pad> <unk> <s> </s> AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B CH D DH EH0 EH1 EH2 ER0
ER1 ER2 EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH UH0 UH1 UH2 UW
UW0 UW1 UW2 V W Y Z ZH
"""
SOUNDS = _SOUNDS.split()
BEGIN, END = SOUNDS.index("<s>"), SOUNDS.index("</s>")
_WORDS = """
relevance network phoneme letters through knight daughter physics machine chemist garage nation question science rhythm
island gradient tongue laughter champagne pizza colonel explain
"""
WORDS = _WORDS.split()
SHOWN = "phoneme"
LEAST = 0.5  # Pearson's correlation with leaving letters out


def main(arguments: Sequence[str] | None = None) -> int:
    """Load, explain, check; return the exit code."""
    parser = argparse.ArgumentParser(description="Which letters made this sound?")
    parser.add_argument("--output", type=Path, default=Path("letters.png"))
    options = parser.parse_args(arguments)
    arrays = load()
    given: list[Array] = []
    measured: list[Array] = []
    shown = None
    for word in WORDS:
        net, sounds = spoken(arrays, word)
        maps = [relevance(arrays, net, word, sounds, k) for k in range(len(sounds))]
        falls = np.array([logits(arrays, word, sounds) - logits(arrays, without, sounds) for without in left_out(word)])
        given += list(np.array(maps)[:, : len(word)])
        measured += list(falls.T)
        if word == SHOWN:
            shown = np.array(maps)[:, : len(word)], sounds
    agreement = float(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(given, measured, strict=True)]))
    together = float(np.corrcoef(np.concatenate(given), np.concatenate(measured))[0, 1])
    alike = float(np.corrcoef(standardised(given), standardised(measured))[0, 1])
    print(f"{len(given)} phonemes of {len(WORDS)} words; Pearson's correlation of a letter's relevance with what the")
    print(f"phoneme's logit loses without it: {agreement:.2f} over a phoneme's letters, on average;")
    print(f"all letters of all phonemes together {together:.2f}, each phoneme in its own deviations {alike:.2f}")
    if shown is not None:
        for row, sound in zip(shown[0], shown[1], strict=True):
            print(f"{SOUNDS[sound]:>4}  " + "  ".join(f"{a}{r:+6.2f}" for a, r in zip(SHOWN, row, strict=True)))
        draw(*shown, options.output)
    return 0 if agreement >= LEAST else 1


def standardised(phonemes: list[Array]) -> Array:
    """Return the letters of all phonemes, each phoneme with a mean of 0 and a deviation of 1."""
    return np.concatenate([(letters - letters.mean()) / letters.std() for letters in phonemes])


def load() -> dict[str, Array]:
    """Return g2p-en's weights; its modules are not imported, they need data of their own."""
    found = importlib.util.find_spec("g2p_en")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("g2p-en is missing: pip install --no-deps g2p-en")
    with np.load(Path(next(iter(found.submodule_search_locations))) / "checkpoint20.npz") as stored:
        return {name: stored[name].astype(np.float64) for name in stored.files}


def network(arrays: dict[str, Array], letters: int, sounds: int) -> pylrp.Network:
    """Return encoder and decoder for a word of so many letters and phonemes; its inputs are embedded."""

    def gru(which: str, **settings: Any) -> GRU:
        return GRU(*(arrays[f"{which}_{name}"] for name in ("w_ih", "w_hh", "b_ih", "b_hh")), **settings)

    width = arrays["enc_emb"].shape[1]
    nodes = [
        Node("encoder", gru("enc"), ("letters",)),
        Node("decoder", gru("dec", returns="sequence", takes=("h",)), ("said", "encoder")),
        Node("turned", Transpose((1, 0)), ("decoder",)),
        Node("scores", PositionwiseDense.along(1, arrays["fc_w"], arrays["fc_b"]), ("turned",)),
        Node("logits", Transpose((1, 0)), ("scores",)),
    ]
    return pylrp.Network.from_graph(Graph({"letters": (letters, width), "said": (sounds, width)}, nodes, ["logits"]))


def embedded(arrays: dict[str, Array], word: str, sounds: Sequence[int]) -> dict[str, Array]:
    """Return the rows of the word's letters and of what has been said before each phoneme."""
    ids = [LETTERS.index(letter) for letter in word] + [LETTERS.index("</s>")]
    return {"letters": arrays["enc_emb"][ids], "said": arrays["dec_emb"][[BEGIN, *sounds[:-1]]]}


def spoken(arrays: dict[str, Array], word: str) -> tuple[pylrp.Network, list[int]]:
    """Return the network for a word, and the phonemes that it says."""
    sounds: list[int] = []
    while len(sounds) < 20:
        net = network(arrays, len(word) + 1, len(sounds) + 1)
        best = int(net.forward(embedded(arrays, word, [*sounds, END]))[-1].argmax())
        if best == END:
            break
        sounds.append(best)
    return network(arrays, len(word) + 1, len(sounds)), sounds


def relevance(arrays: dict[str, Array], net: pylrp.Network, word: str, sounds: Sequence[int], at: int) -> Array:
    """Return the relevance of each letter, and of the word's end, for the phoneme at a place."""
    ex = net.explain(embedded(arrays, word, sounds), target=(at, sounds[at]))
    found: Array = ex.relevance["letters"].sum(axis=1)
    return found


def left_out(word: str) -> list[str]:
    """Return the word without each of its letters."""
    return [word[:k] + word[k + 1 :] for k in range(len(word))]


def logits(arrays: dict[str, Array], word: str, sounds: Sequence[int]) -> Array:
    """Return the logit of each phoneme that was said."""
    found: Array = network(arrays, len(word) + 1, len(sounds)).forward(embedded(arrays, word, sounds))
    return found[np.arange(len(sounds)), list(sounds)]


def draw(rows: Array, sounds: Sequence[int], path: Path) -> None:
    """Write a table of letters by phonemes, coloured by relevance."""
    from pylrp.plot import new_figure

    figure = new_figure(0.6 * rows.shape[1] + 1, 0.45 * rows.shape[0] + 1)
    axes = figure.add_subplot()
    most = np.abs(rows).max()
    axes.imshow(rows, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    axes.set_xticks(range(rows.shape[1]), list(SHOWN))
    axes.set_yticks(range(rows.shape[0]), [SOUNDS[sound] for sound in sounds])
    axes.set_xlabel("letter")
    axes.set_ylabel("phoneme")
    figure.savefig(path)


if __name__ == "__main__":
    raise SystemExit(main())
