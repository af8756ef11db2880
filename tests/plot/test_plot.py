"""Heatmaps: the scale is symmetrical and clips what it says, the colours can be told apart, errors say what to do."""

import subprocess
import sys

import numpy as np
import pytest

from pylrp import plot

# Machado, Oliveira & Fernandes 2009, severity 1.0: what is left of linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(rgb, blindness="none"):
    """(n, 3) sRGB in [0, 1], as an eye with that blindness sees it -> CIE L*a*b* (D65)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(BLINDNESS[blindness]), 0, 1)
    xyz = linear @ np.transpose([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = xyz / [0.9505, 1.0, 1.089]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def colours(values):
    """Colours of relevance in [-1, 1]."""
    return plot.diverging_map()((np.asarray(values) + 1) / 2)[:, :3]


@pytest.fixture
def ax():
    return plot.new_figure(3, 2).subplots()


def test_limits_are_symmetrical_about_zero(ax, rng):
    R = rng.normal(3, 1, (28, 28))  # nearly all positive: the scale still has zero in its middle
    low, high = plot.heatmap(ax, R).get_clim()
    assert low == -high
    assert high == plot.symmetric_limit(R)


@pytest.mark.parametrize(("percentile", "clipped"), [(99.5, 4), (95, 40), (50, 392), (100, 0)])
def test_the_limit_clips_the_stated_share(rng, percentile, clipped):
    R = rng.standard_normal((28, 28))
    assert (np.abs(R) > plot.symmetric_limit(R, percentile)).sum() == clipped


def test_one_outlier_does_not_pale_the_rest(ax):
    R = np.ones((28, 28))
    R[3, 4] = -1e6
    image = plot.heatmap(ax, R)
    assert image.get_clim() == (-1, 1)
    assert image.to_rgba(R)[3, 4] == pytest.approx(image.cmap(0.0))


@pytest.mark.parametrize(("R", "limit"), [(np.zeros((28, 28)), 1), (-3 * np.eye(784)[0].reshape(28, 28), 3)])
def test_all_zero_and_nearly_all_zero_maps_have_a_scale(ax, R, limit):
    assert plot.heatmap(ax, R).get_clim() == (-limit, limit)


def test_a_given_limit_puts_maps_on_one_scale(ax, rng):
    assert plot.heatmap(ax, rng.random((5, 7)), limit=0.25).get_clim() == (-0.25, 0.25)


def test_first_row_is_on_top_and_the_colours_have_signs():
    figure = plot.new_figure(2, 2, dpi=50)
    plot.heatmap(figure.add_axes((0, 0, 1, 1)), [[1.0, -1.0], [0.0, 0.0]], percentile=100)
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[:, :, :3].astype(int)
    (for_it, against_it), zero = picture[25, [25, 75]], picture[75, 50]
    assert picture.shape == (100, 100, 3)
    assert for_it[0] > for_it[2] + 60
    assert against_it[2] > against_it[0] + 60
    assert zero.min() > 235


def test_equal_amounts_look_equally_strong_and_more_is_darker():
    steps = np.linspace(0, 1, 9)
    above, below = lab(colours(steps))[:, 0], lab(colours(-steps))[:, 0]
    assert np.all(np.diff(above) < 0)
    assert np.all(np.diff(below) < 0)
    np.testing.assert_allclose(above, below, atol=8)  # of 100


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_signs_can_be_told_apart_by_colour_blind_eyes(blindness):
    # A difference of 2.3 is just noticeable side by side.
    steps = np.linspace(0.25, 1, 7)
    distance = np.linalg.norm(lab(colours(steps), blindness) - lab(colours(-steps), blindness), axis=1)
    assert distance.min() > 15


def test_the_outline_follows_the_image(ax):
    image = np.zeros((20, 20))
    image[5:15, 8:12] = 255
    plot.heatmap(ax, image * 0.0, outline=image)
    (contour,) = ax.collections
    corners = np.concatenate([path.vertices for path in contour.get_paths()])
    np.testing.assert_allclose([corners.min(axis=0), corners.max(axis=0)], [(7.5, 4.5), (11.5, 14.5)])


def test_a_blank_image_has_no_outline(ax):
    plot.heatmap(ax, np.ones((4, 4)), outline=np.zeros((4, 4)))
    assert not ax.collections


@pytest.mark.parametrize(
    ("R", "options", "message"),
    [
        (np.ones(784), {}, r"R has shape \(784,\), expected \(height, width\): reshape it"),
        (np.ones((2, 3, 3)), {}, r"R has shape \(2, 3, 3\)"),
        (np.ones((0, 3)), {}, "R is empty"),
        ([[1.0, np.nan], [np.inf, 0.0]], {}, "2 values that are NaN or infinite"),
        (np.ones((2, 2)), {"limit": 0}, "limit must be above 0 and finite, got 0"),
        (np.ones((2, 2)), {"limit": np.nan}, "limit must be above 0 and finite, got nan"),
        (np.ones((2, 2)), {"percentile": 0}, "percentile must be above 0 and at most 100, got 0"),
        (np.ones((2, 2)), {"percentile": 101}, "percentile must be above 0"),
        (np.ones((2, 2)), {"outline": np.ones((2, 3))}, r"outline has shape \(2, 3\), R has shape \(2, 2\)"),
    ],
)
def test_errors_name_what_is_wrong(ax, R, options, message):
    with pytest.raises(ValueError, match=message):
        plot.heatmap(ax, R, **options)


@pytest.mark.slow
def test_drawing_leaves_pyplot_alone_and_importing_leaves_matplotlib_alone(tmp_path):
    code = (
        "import sys, pylrp, pylrp.plot, pylrp.demo, pylrp.cli; assert 'matplotlib' not in sys.modules\n"
        "figure = pylrp.plot.new_figure(1, 1); pylrp.plot.heatmap(figure.subplots(), [[1.0]])\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        plot.new_figure(1, 1)
