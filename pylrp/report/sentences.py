"""The sentences of a report, for readers without knowledge of the method; ``sample.py`` calls in with the numbers.

A sentence is a list of strings; every second one is emphasised by the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.present.account import Account
from pylrp.present.numbers import figure, percent
from pylrp.present.outputs import Prediction
from pylrp.report.input_display import InputDisplay, focus
from pylrp.report.text_display import TextDisplay

__all__ = ["account", "certainty", "where"]

Array = NDArray[Any]

_PARTS = {"image": "parts of the picture", "signal": "stretches of the signal", "table": "bars", "text": "words"}
_SHARE_SHOWN = 0.005  # of the score: causes of less are left out


def certainty(predicted: Prediction) -> list[str]:
    """Return how certain the prediction is, and the next classes."""
    if predicted.probability is None:
        return ["Its output for it is ", figure(predicted.score), "; it gives no probability."]
    p = predicted.probability
    sure = "almost certain" if p >= 0.95 else "fairly sure" if p >= 0.8 else "not very sure" if p >= 0.5 else "unsure"
    sentence = ["It is ", f"{sure}: {percent(p)}", ""]
    if predicted.others:
        sentence[2] = ". Next: " + ", ".join(f"{label} ({percent(q)})" for label, q in predicted.others)
    sentence[2] += "."
    return sentence


def where(view: InputDisplay | TextDisplay, relevance: Array, label: str, against: str) -> list[str]:
    """Return what the colours mean, and where most of the positive relevance is."""
    plane = view.plane(relevance)
    parts = _PARTS[view.kind]
    positive, negative = float(plane[plane > 0].sum()), float(-plane[plane < 0].sum())
    sentence = ["", f"Red {parts}", f" are evidence for “{label}”, ", "blue", f" ones {against}. "]
    if not positive and not negative:
        return [f"Nothing in the input made a difference to “{label}” by these rules."]
    if negative < 0.001 * positive:
        sentence[4] = f" ones would be evidence {against}; there are none here that count. "
    elif positive < 0.001 * negative:
        sentence[4] += "Nothing that counts is evidence for it. "
        return sentence
    if isinstance(view, TextDisplay) or view.kind == "table":
        sentence[4] += _features(view, plane[0])
        return sentence
    found = focus(plane if view.kind == "image" else plane.sum(axis=0, keepdims=True))
    if found is None:
        return sentence
    if view.kind == "signal":
        first, last = _stretch(found.mask[0], found.peak[1])
        return [*sentence, f"Look first {view.place(first, last)}", ", where the evidence for it is strongest."]
    if found.share > 0.4:
        return [*sentence, "No single place stands out", ": the evidence is spread over the whole picture."]
    return [*sentence, f"Look first {_place(found.peak, plane.shape)}", (
        f": half of the evidence for it lies inside the outline, on {percent(found.share)} of the picture."
    )]  # fmt: skip


def _features(view: InputDisplay | TextDisplay, values: Array) -> str:
    order = np.argsort(-values, kind="stable")
    text = []
    for what, ranked, sign in (("for it", order, 1), ("against it", order[::-1], -1)):
        best = [i for i in ranked if sign * values[i] > 0 and view.speaks(i)][:2]
        if best:
            text.append(f"Most {what}: " + " and ".join(f"{view.feature(i)} ({figure(values[i])})" for i in best) + ".")
    return " ".join(text)


def _stretch(mask: NDArray[np.bool_], peak: int) -> tuple[int, int]:
    """Return the first and last position of the masked stretch around the peak."""
    off = np.flatnonzero(~mask)
    before, after = off[off < peak], off[off > peak]
    return int(before[-1]) + 1 if before.size else 0, int(after[0]) - 1 if after.size else len(mask) - 1


def _place(peak: tuple[int, ...], shape: tuple[int, ...]) -> str:
    row, column = (min(3 * at // size, 2) for at, size in zip(peak, shape, strict=True))
    if row == column == 1:
        return "in the middle"
    high, wide = ("upper", "", "lower")[row], ("left", "", "right")[column]
    if not high:
        return f"at the {wide}, half-way up"
    return f"at the {'top' if row == 0 else 'bottom'}" if not wide else f"at the {high} {wide}"


def account(score: float, reached: float, causes: Mapping[str, float], kind: str) -> list[str]:
    """Return what became of the score: ``score = reached + sum of causes``.

    Parameters
    ----------
    score, reached : float
    causes : mapping of str to float
        By column of the ledger, summed over the layers.
    kind : {"image", "signal", "table", "text"}
        What the input is shown as.
    """
    thing = {"image": "picture", "signal": "signal", "table": "inputs", "text": "words"}[kind]
    ranked = Account(score, reached, causes).main_causes(_SHARE_SHOWN)
    if all((v < 0) == (score < 0) for v in [reached, *(v for _, v in ranked)]):
        rest = "; ".join(f"{figure(v)} stayed {each.stayed}" for each, v in ranked)
        sentence = [f"Of its score {figure(score)}, ", f"{figure(reached)} was traced to the {thing}"]
        sentence.append(f"; {rest}." if rest else ". Nothing was lost on the way.")
    else:  # "of" does not fit where one part is larger than the whole
        rest = " and ".join(f"{figure(v)} {each.stayed}" for each, v in ranked)
        sentence = [f"Its score {figure(score)} is the sum of ", f"{figure(reached)} traced to the {thing}", ""]
        sentence[2] = f" and {rest}."
    if abs(reached) < 0.1 * abs(score):
        sentence[2] += " "
        sentence += [f"The map shows {percent(abs(reached / score))} of the score", (
            ": where the evidence lies, but little of how much there was."
        )]  # fmt: skip
        if ranked and ranked[0][0].name == "bias":
            sentence[-1] += " Rules with bias=False hand on what they can of the biases' share."
    if abs(reached) > 10 * abs(score) > 0:
        sentence[2] += " "
        sentence += [f"The map holds {figure(abs(reached / score))} times the score", (
            ": contributions of both signs nearly cancel in some layers, and what they get has grown on the way down."
            " Don't trust this map; choose other rules."
        )]  # fmt: skip
    return sentence
