"""Pictures made of arrays: what was drawn is read back from matplotlib's artists and compared with what was given."""

import numpy as np
import pytest
from drawn import examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.collections import LineCollection

from pylrp import plot
from pylrp.network.ledger import COLUMNS, Ledger
from pylrp.plot.colours import scale
from pylrp.plot.images import as_picture
from pylrp.present.kinds import kind_of
from pylrp.present.numbers import number

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


@pytest.fixture
def ax():
    return plot.new_figure(4, 3).subplots()


# Images


def test_an_image_shows_the_sum_of_the_channels_on_a_symmetrical_scale(ax, rng):
    R = rng.normal(1, 1, (3, 20, 30))
    drawn = plot.image(ax, R)
    np.testing.assert_allclose(drawn.get_array(), R.sum(axis=0))
    limit = np.percentile(np.abs(R.sum(axis=0)), 99.5)
    np.testing.assert_allclose(drawn.get_clim(), (-limit, limit))


def test_over_a_grey_picture_relevance_is_the_more_opaque_the_larger_it_is(ax, rng):
    R, photo = rng.normal(size=(64, 80)), rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
    drawn = plot.image(ax, R, photo, percentile=100)
    alpha, size = drawn.get_alpha(), np.abs(R)
    assert alpha.shape == R.shape
    assert np.all(np.diff(alpha.ravel()[np.argsort(size.ravel())]) >= 0)
    assert alpha.max() == alpha.ravel()[size.argmax()] == 1
    under = next(i for i in ax.images if i is not drawn)
    grey = photo @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(under.get_array(), 0.5 + grey / 2)
    assert under.get_zorder() < drawn.get_zorder()


def test_edges_are_dark_where_the_picture_changes(ax):
    photo = np.zeros((70, 70))
    photo[:, 35:] = 1
    drawn = plot.image(ax, np.ones((70, 70)), photo, overlay="edges")
    ink = next(i for i in ax.images if i is not drawn).get_array()
    assert drawn.get_alpha() is None
    assert ink[:, [34, 35], 3].min() > 0.5
    assert np.delete(ink[..., 3], [34, 35], axis=1).max() == 0


def test_small_pictures_get_an_outline_and_no_picture_none(ax):
    picture = np.zeros((10, 10))
    picture[3:7, 3:7] = 1
    plot.image(ax, np.ones((10, 10)), picture)
    assert len(ax.images) == 1
    assert len(ax.collections) == 1
    bare = plot.new_figure(2, 2).subplots()
    plot.image(bare, np.ones((10, 10)), picture, overlay="none")
    assert not bare.collections


def test_the_map_of_a_layer_lies_over_the_whole_picture(ax, rng):
    drawn = plot.image(ax, rng.normal(size=(5, 7, 7)), rng.random((70, 70)))
    under = next(i for i in ax.images if i is not drawn)
    assert under.get_extent() == drawn.get_extent()
    assert drawn.get_alpha().max() == pytest.approx(0.7)


def test_inputs_become_pictures():
    x = np.array([[0.0, 0.25], [0.5, 1.0]])
    np.testing.assert_array_equal(plot.to_picture(x[None]), x)
    np.testing.assert_allclose(plot.to_picture(4 * x - 2), x)
    rgb = np.stack([x, x / 2, x * 0])
    np.testing.assert_array_equal(plot.to_picture(rgb), np.moveaxis(rgb, 0, -1))
    np.testing.assert_array_equal(plot.to_picture(np.stack([*rgb, x])), np.moveaxis(rgb, 0, -1))
    np.testing.assert_allclose(plot.to_picture(np.stack([x, 0 * x])), x / 2)
    np.testing.assert_array_equal(plot.to_picture(np.full((2, 2), 7.0)), np.zeros((2, 2)))


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=FINITE))
def test_a_picture_of_any_input_can_be_shown(x):
    picture = plot.to_picture(x)
    assert picture.shape[:2] == x.shape[-2:]
    np.testing.assert_array_equal(as_picture(picture), picture)  # within 0 and 1, or this raises


@pytest.mark.parametrize(
    ("picture", "options", "message"),
    [
        (np.zeros((300, 451, 3), np.uint8), {}, "image is 300 x 451 pixels, the relevance 64 x 64: crop"),
        (np.full((64, 64), 200.0), {}, "uint8, or float from 0 to 1; it is float64 from 200 to 200"),
        (np.full((64, 64), np.nan), {}, "uint8, or float from 0 to 1"),
        (np.zeros((3, 64, 64)), {}, r"image has shape \(3, 64, 64\)"),
        (None, {"overlay": "grey"}, "overlay='grey' needs the picture"),
        (np.zeros((64, 64)), {"overlay": "gray"}, "overlay must be one of none, grey, edges, got 'gray'"),
        (None, {"limit": -1}, "limit must be above 0"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(ax, picture, options, message):
    with pytest.raises(ValueError, match=message):
        plot.image(ax, np.ones((64, 64)), picture, **options)


def test_the_colour_bar_says_where_the_colours_end(ax):
    plot.image(ax, [[2.0, -1.0]], percentile=100)
    (bar,) = ax.child_axes
    assert [t.get_text() for t in bar.get_yticklabels()] == ["−2\nagainst", "0", "+2\nfor"]
    assert bar.get_ylim() == (-2, 2)


# Words about the scale


@pytest.mark.parametrize(
    ("R", "options", "words"),
    [
        ([1.0] * 1000 + [9.0], {}, "colours end at ±1, the 99.5th percentile of |R|"),
        ([0.0] * 1000 + [-9.0], {}, "colours end at ±9, the largest |R|"),
        ([1.0, -4.0], {"percentile": 100}, "colours end at ±4, the largest |R|"),
        ([1.0, 1.0], {"percentile": 91}, "colours end at ±1, the 91st percentile of |R|"),
        ([1.0, 1.0], {"percentile": 12}, "colours end at ±1, the 12th percentile of |R|"),
        ([0.0, 0.0], {}, "all relevance is 0"),
        ([0.0, 3.0], {"limit": 0.25}, "colours end at ±0.25"),
    ],
)
def test_the_caption_of_the_scale_is_true(R, options, words):
    assert scale(R, **options) == words


@given(FINITE)
def test_numbers_in_captions_are_within_half_a_percent(value):
    assert float(number(value).replace("−", "-")) == pytest.approx(value, rel=5e-3)


# Signals


def test_a_filled_signal_has_its_line_over_its_relevance(ax, rng):
    R, x = rng.normal(size=300), rng.normal(size=300)
    (ground,) = plot.signal(ax, R, x)
    np.testing.assert_array_equal(ground.get_array(), R[None])
    np.testing.assert_allclose(ground.get_clim(), np.array([-1, 1]) * np.percentile(np.abs(R), 99.5))
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.stack([np.arange(300), x], 1))
    left, right, bottom, top = ground.get_extent()
    assert (left, right) == (-0.5, 299.5)
    assert bottom < x.min() < x.max() < top


def test_channels_lie_in_lanes_of_their_own_from_top_to_bottom(ax, rng):
    R, x = rng.normal(size=(3, 50)), rng.normal(size=(3, 50)) * [[1], [100], [0]]
    grounds = plot.signal(ax, R, x, names=["a", "b", "c"])
    curves = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == 50]
    for lane, (ground, r, curve) in enumerate(zip(grounds, R, curves, strict=True)):
        np.testing.assert_array_equal(ground.get_array()[0], r)
        assert ground.get_extent()[2:] == [2 - lane, 3 - lane]
        assert 2 - lane < curve.min() <= curve.max() < 3 - lane
        assert ground.get_clim() == grounds[0].get_clim()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c"]
    assert np.corrcoef(curves[1], x[1])[0, 1] == pytest.approx(1)


def test_a_coloured_line_passes_through_the_signal(ax, rng):
    R, x = rng.normal(size=20), rng.normal(size=20)
    (line,) = plot.signal(ax, R, x, overlay="line")
    assert isinstance(line, LineCollection)
    np.testing.assert_array_equal(line.get_array(), R)
    pieces = np.array(line.get_segments())
    np.testing.assert_allclose(pieces[:, 1], np.stack([np.arange(20), x], 1))
    np.testing.assert_allclose(pieces[1:, 0], pieces[:-1, 2])  # no gaps


def test_without_a_signal_relevance_is_a_curve_with_the_right_area(ax, rng):
    R = rng.normal(size=40)
    above, below = plot.signal(ax, R)
    np.testing.assert_allclose(above.get_data().values + below.get_data().values, R)
    assert above.get_data().values.min() == 0 == below.get_data().values.max()


@pytest.mark.parametrize(
    ("R", "options", "message"),
    [
        (np.ones((2, 3, 4)), {}, r"R has shape \(2, 3, 4\), expected \(length,\)"),
        (np.ones(5), {"x": np.ones(6)}, r"x has shape \(6,\), R has shape \(5,\)"),
        (np.ones((2, 5)), {"names": ["a"]}, "names has 1 entries, the signal has 2 channels"),
        (np.ones(5), {"overlay": "line"}, "overlay='line' needs the signal"),
        (np.ones(5), {"x": np.ones(5), "overlay": "grey"}, "one of fill, line, none for a signal"),
        ([1.0, np.nan], {}, "1 values that are NaN"),
    ],
)
def test_signals_that_do_not_fit_are_refused(ax, R, options, message):
    with pytest.raises(ValueError, match=message):
        plot.signal(ax, R, **options)


# Rows


def test_bars_are_sorted_signed_and_named(ax):
    bars = plot.table(ax, [0.5, -2.0, 1.0], [7, 8.25, 9], names=["age", "height", "weight"])
    assert [bar.get_width() for bar in bars] == [-2, 1, 0.5]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["height = 8.25", "weight = 9", "age = 7"]
    assert len({bar.get_facecolor() for bar in bars}) == 2
    assert ax.yaxis_inverted()
    assert [t.get_text() for t in ax.texts] == ["−2", "+1", "+0.5"]


def test_words_may_stand_for_values(ax):
    plot.table(ax, [1.0, 2.0], ["red", "blue"])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["feature 1 = blue", "feature 0 = red"]


def test_the_others_get_one_bar(ax):
    bars = plot.table(ax, [1.0, 5.0, -3.0, 0.25, 4.0], most=2, noun="unit")
    assert [bar.get_width() for bar in bars] == [5, 4, -1.75]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["unit 1", "unit 4", "the other 3 units"]


@pytest.mark.slow
@examples(25)
@given(hnp.arrays(np.float64, st.integers(1, 40), elements=FINITE), st.integers(1, 45))
def test_bars_add_up_to_the_relevance(R, most):
    bars = plot.table(plot.new_figure(3, 3).subplots(), R, most=most)
    widths = np.array([bar.get_width() for bar in bars])
    np.testing.assert_allclose(widths.sum(), R.sum(), atol=1e-9 * (1 + np.abs(R).sum()))
    own = widths[: min(most, len(R))]
    assert np.all(np.diff(np.abs(own)) <= 0)
    assert len(R) <= most + 1 or len(widths) == most + 1


@pytest.mark.parametrize(
    ("R", "options", "message"),
    [
        (np.ones((2, 2)), {}, r"R has shape \(2, 2\), expected \(features,\)"),
        (np.ones(3), {"names": ["a"]}, "feature_names has 1 entries, the row has 3 features"),
        (np.ones(3), {"values": [1, 2]}, "values has 2 entries"),
        (np.ones(3), {"most": 0}, "most must be at least 1"),
    ],
)
def test_rows_that_do_not_fit_are_refused(ax, R, options, message):
    with pytest.raises(ValueError, match=message):
        plot.table(ax, R, **options)


# The ledger


def account(rows):
    """A ledger of one sample; rows from input to output: dicts of columns, what is missing is 0."""
    data = np.array([[row.get(column, 0.0) for column in COLUMNS] for row in rows])[:, :, None]
    return Ledger(data, [f"l{i}" for i in range(len(rows))], ["Epsilon()"] * len(rows))


def test_a_bar_of_the_ledger_is_divided_as_its_row(ax):
    bars = plot.ledger(
        ax,
        account(
            [
                {"incoming": 6, "outgoing": 3, "bias": 2, "padding": 1},
                {"incoming": 5, "outgoing": 6, "bias": -1.5, "stabilizer": 0.5},
            ]
        ),
    )
    assert list(bars) == ["outgoing", "bias", "stabilizer", "padding"]
    spans = {
        name: [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in container] for name, container in bars.items()
    }
    assert spans["outgoing"] == [(0, 6), (0, 3)]  # the output's layer on top
    assert spans["bias"] == [(0, -1.5), (3, 5)]
    assert spans["stabilizer"][0] == (6, 6.5)
    assert spans["padding"][1] == (5, 6)
    ticks = ax.collections[0].get_offsets()
    np.testing.assert_array_equal(ticks, [(5, 0), (6, 1)])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["l1   Epsilon()", "l0   Epsilon()"]
    assert [t.get_text() for t in ax.texts] == ["adds 1", "absorbs 3"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "arrived", "handed on", "biases", "stabilizers", "padding",
    ]  # fmt: skip


@pytest.mark.slow
@examples(20)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.just(len(COLUMNS) - 1), st.just(1)), elements=FINITE),
    st.integers(1, 14),
)
def test_no_layer_is_left_out_of_the_ledgers_picture(parts, most):
    data = np.concatenate([parts.sum(axis=1, keepdims=True), parts], axis=1)
    names = [str(i) for i in range(len(data))]
    bars = plot.ledger(plot.new_figure(4, 3).subplots(), Ledger(data, names, names), most=most)
    absorbed = sum(bar.get_width() for name, c in bars.items() if name != "outgoing" for bar in c)
    np.testing.assert_allclose(absorbed, parts[:, 1:].sum(), atol=1e-6)
    assert {len(container) for container in bars.values()} == {min(len(data), most + 1)}


def test_the_ends_of_the_network_always_have_a_bar(ax):
    rows = [{"incoming": 9, "outgoing": 9 - i % 4, "bias": i % 4} for i in range(9)]
    plot.ledger(ax, account(rows), most=4)
    texts = [t.get_text().split()[0] for t in ax.get_yticklabels()]
    assert texts == ["l8", "l7", "l3", "l0", "the"]


def test_ledgers_that_can_not_be_drawn_are_refused(ax):
    with pytest.raises(ValueError, match="the ledger is empty"):
        plot.ledger(ax, Ledger(np.zeros((0, len(COLUMNS), 1)), [], []))
    with pytest.raises(ValueError, match="sample 1 is not there: the ledger has 1"):
        plot.ledger(ax, account([{}]), sample=1)
    with pytest.raises(ValueError, match="most must be at least 1"):
        plot.ledger(ax, account([{}]), most=0)


# Channels and layers


def test_channels_are_sorted_by_their_sum_and_share_a_scale(rng):
    R = rng.normal(size=(6, 5, 4)) * 0.01
    R[4] -= 2
    R[1] += 1
    drawn = plot.channels(plot.new_figure(4, 3), R, most=3, names=list("abcdef"), percentile=100)
    np.testing.assert_array_equal(drawn[0].get_array(), R[4])
    np.testing.assert_array_equal(drawn[1].get_array(), R[1])
    assert len(drawn) == 3
    assert {image.get_clim() for image in drawn} == {(R[4].min(), -R[4].min())}
    assert drawn[0].axes.get_title() == f"e: {number(R[4].sum())}"


def test_layers_are_maps_or_bars_each_with_its_own_scale(rng):
    maps = {"conv": rng.normal(size=(4, 9, 9)), "pooled": rng.normal(size=(5, 1, 1)), "dense": rng.normal(size=7)}
    drawn = plot.layers(plot.new_figure(5, 3), {**maps, "wave": rng.normal(size=(3, 50))}, percentile=100)
    np.testing.assert_allclose(drawn["conv"].get_array(), maps["conv"].sum(axis=0))
    assert drawn["conv"].get_clim()[1] == pytest.approx(np.abs(maps["conv"].sum(axis=0)).max())
    for name in ("pooled", "dense"):
        above, below = drawn[name]
        np.testing.assert_allclose(above.get_data().values + below.get_data().values, maps[name].ravel())
    assert drawn["wave"][0].get_data().values.shape == (50,)
    with pytest.raises(ValueError, match="relevance of x holds 1 values that are NaN"):
        plot.layers(plot.new_figure(2, 2), {"x": [np.nan]})
    with pytest.raises(ValueError, match="no layer to draw"):
        plot.layers(plot.new_figure(2, 2), {})


@pytest.mark.parametrize(
    ("shape", "sequence", "kind"),
    [
        ((784,), False, "table"),
        ((1, 28, 28), False, "image"),
        ((12, 28, 28), False, "image"),
        ((28, 28), False, "image"),
        ((28, 28), True, "signal"),
        ((12, 500), False, "signal"),
        ((1, 28), False, "signal"),
        ((64, 100), False, "image"),
    ],
)
def test_the_shape_decides_what_is_drawn(shape, sequence, kind):
    assert kind_of(shape, sequence) == kind


def test_volumes_have_no_picture():
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8, 8\): draw slices of it"):
        kind_of((1, 8, 8, 8))
