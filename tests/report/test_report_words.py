"""The report's sentences: where to look and where the score went, against cases worked out by hand."""

import numpy as np
import pytest

from pylrp.present.numbers import figure, percent
from pylrp.report.input_display import InputDisplay, focus
from pylrp.report.sentences import account, where


def test_focus_is_the_least_part_with_half_of_what_speaks_for_it():
    plane = np.zeros((8, 8))
    plane[1, 6], plane[1, 5], plane[6, 2], plane[7, 7] = 3, 2, 4, -50
    found = focus(plane)  # 9 in all; a map this small is not smoothed
    assert np.argwhere(found.mask).tolist() == [[1, 6], [6, 2]]
    assert found.peak == (6, 2)
    assert found.share == 2 / 64
    assert focus(-np.ones((4, 4))) is None


def test_focus_prefers_a_patch_to_a_single_pixel():
    plane = np.zeros((64, 64))
    plane[40:44, 10:14] = 1.0
    plane[5, 60] = 4.0  # alone
    found = focus(plane)
    assert found.mask[40:44, 10:14].sum() >= 10
    assert 40 <= found.peak[0] < 44
    assert 10 <= found.peak[1] < 14
    assert found.mask[5, 60] == 0


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ((0, 0), "at the upper left"),
        ((0, 4), "at the top"),
        ((4, 4), "in the middle"),
        ((4, 8), "at the right, half-way up"),
        ((8, 4), "at the bottom"),
        ((8, 0), "at the lower left"),
    ],
)
def test_where_to_look_in_words(at, words):
    R = np.full((1, 9, 9), -0.001)
    R[0, at[0], at[1]] = 1.0
    said = "".join(where(InputDisplay("x", R, None, None), R, "cat", "against it"))
    assert said.startswith("Red parts of the picture are evidence for “cat”, blue ones against it. ")
    assert f"Look first {words}: half of the evidence for it lies inside the outline, on 1.2 % of the picture." in said


def test_where_to_look_when_there_is_no_blue_no_red_or_nothing():
    R = np.zeros((1, 9, 9))
    view = InputDisplay("x", R, None, None)
    assert "Nothing in the input" in "".join(where(view, R, "cat", "against it"))
    assert "there are none here that count" in "".join(where(view, R + 1, "cat", "against it"))
    assert "No single place stands out" in "".join(where(view, R + 1, "cat", "against it"))
    assert "Nothing that counts is evidence for it" in "".join(where(view, R - 1, "cat", "against it"))


@pytest.mark.parametrize(
    ("score", "reached", "causes", "words"),
    [
        (
            9.31,
            8.9,
            {"bias": 0.41},
            "Of its score 9.31, 8.9 was traced to the picture; 0.41 stayed in the network's biases",
        ),
        (3.0, 3.0, {"bias": 0.0}, "Of its score 3, 3 was traced to the picture. Nothing was lost on the way."),
        (
            3.0,
            -0.62,
            {"bias": 2.81, "stabilizer": 0.81},
            "is the sum of −0.62 traced to the picture and 2.81 in",
        ),
        (9.0, 0.002, {"bias": 8.998}, "The map shows less than 0.1 % of the score: where the evidence lies"),
        (2.0, 500.0, {"dead": -498.0}, "The map holds 250 times the score"),
    ],
)
def test_the_account_in_words(score, reached, causes, words):
    assert words in "".join(account(score, reached, causes, "image"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9.314, "9.31"),
        (-0.0, "0"),
        (-2.5, "−2.5"),
        (0.00209, "0.0021"),
        (1234.5, "1,234"),
        (6.9e22, "6.9e22"),
        (1e6, "1.0e6"),
    ],
)
def test_figures(value, text):
    assert figure(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.386, "39 %"),
        (0.9997, "more than 99.9 %"),
        (1, "100 %"),
        (0.99, "99.0 %"),
        (0.006, "0.6 %"),
        (1e-5, "less than 0.1 %"),
        (0, "0 %"),
    ],
)
def test_shares(share, text):
    assert percent(share) == text
