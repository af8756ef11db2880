"""Pixel flipping, insertion and deletion, against curves worked by hand and against loops that rebuild every input."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import scipy.stats
from drawn import examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import pylrp
from pylrp.evaluate import evaluated_batch, insertion_deletion, pixel_flipping, spearman
from pylrp.evaluate.regions import Regions
from pylrp.evaluate.replacement import Inpainter, blurred, constant
from pylrp.evaluate.statistics import area, band, ranks
from pylrp.layers import Add, Conv, Dense, Flatten, ReLU, Sigmoid

LINEAR = pylrp.Network([Dense([[3.0, 2.0, 1.0]])])
ONES = np.ones((1, 3))


def conv_net(rng: np.random.Generator, shape=(2, 7, 5)) -> pylrp.Network:
    n = 4 * (shape[1] - 2) * (shape[2] - 2)
    layers = [Conv(rng.normal(size=(4, shape[0], 3, 3))), ReLU(), Flatten(), Dense(rng.normal(size=(3, n)))]
    return pylrp.Network(layers, input_shape=shape)


def test_linear_network_by_hand() -> None:
    curves = pixel_flipping(LINEAR, ONES, LINEAR.explain(ONES).relevance, replacement=0.0)
    np.testing.assert_array_equal(curves.fractions, [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_array_equal(curves.scores["most"], [[6, 3, 1, 0]])
    np.testing.assert_array_equal(curves.scores["least"], [[6, 5, 3, 0]])
    assert curves.aopc["most"] == pytest.approx((0 + 3 + 5 + 6) / 4)
    assert curves.aopc["least"] == pytest.approx((0 + 1 + 3 + 6) / 4)
    assert curves.abpc == pytest.approx((1 + 2 + 1) / 3)  # trapezoids of 0, 2, 2, 0, a third wide
    assert curves.target.tolist() == [0]
    assert "ABPC" in curves.table()


def test_half_of_the_regions_in_two_steps() -> None:
    net = pylrp.Network([Dense([[8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625]])])
    x = np.ones((1, 8))
    curves = pixel_flipping(net, x, net.explain(x).relevance, steps=2, until=0.5, order=("most",), replacement=0.0)
    np.testing.assert_array_equal(curves.fractions, [0, 0.25, 0.5])
    np.testing.assert_array_equal(curves.scores["most"], [[15.9375, 3.9375, 0.9375]])
    with pytest.raises(ValueError, match="needs order 'least'"):
        _ = curves.abpc


def test_random_order_falls_along_a_line() -> None:
    x = np.ones((400, 3))
    curves = pixel_flipping(LINEAR, x, x, order=("random",), replacement=0.0, repeats=5)
    np.testing.assert_allclose(curves.mean["random"], [6, 4, 2, 0], atol=0.1)
    low, high = curves.band("random")
    assert (low <= curves.mean["random"]).all()
    assert (high >= curves.mean["random"]).all()
    assert high[1] > low[1]


def test_insertion_and_deletion_by_hand() -> None:
    found = insertion_deletion(LINEAR, ONES, [[3.0, 2.0, 1.0]], deleted=0.0, inserted_into=0.0, score="logit")
    np.testing.assert_array_equal(found.deletion, [[6, 3, 1, 0]])
    np.testing.assert_array_equal(found.insertion, [[0, 3, 5, 6]])
    assert found.deletion_auc == pytest.approx((4.5 + 2 + 0.5) / 3)
    assert found.insertion_auc == pytest.approx((1.5 + 4 + 5.5) / 3)
    assert "deletion" in found.table()


floats = st.floats(-5, 5, allow_nan=False, width=32)


@pytest.mark.slow
@given(arrays(np.float64, 7, elements=floats), st.permutations(range(7)))
@examples(25)
def test_no_ranking_beats_the_contributions(weights: np.ndarray, other: list[int]) -> None:
    net = pylrp.Network([Dense(weights[None])])
    x = np.ones((1, 7))
    kwargs = {"order": ("most", "least"), "replacement": 0.0}
    best = pixel_flipping(net, x, weights[None], **kwargs)
    rest = pixel_flipping(net, x, np.array([other], float), **kwargs)
    assert best.aopc["most"] >= rest.aopc["most"] - 1e-12
    assert best.abpc >= rest.abpc - 1e-12


@given(st.permutations(range(9)), st.integers(0, 2**32 - 1))
@examples(20)
def test_order_of_the_features_does_not_matter(permutation: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    W, V, x = rng.normal(size=(5, 9)), rng.normal(size=(2, 5)), rng.normal(size=(4, 9))
    R, background = rng.normal(size=(4, 9)), rng.normal(size=9)
    kwargs = {"order": ("most", "least"), "target": 1, "steps": 4}
    there = pixel_flipping(pylrp.Network([Dense(W), ReLU(), Dense(V)]), x, R, replacement=background, **kwargs)
    p = list(permutation)
    here = pixel_flipping(
        pylrp.Network([Dense(W[:, p]), ReLU(), Dense(V)]), x[:, p], R[:, p], replacement=background[p], **kwargs
    )
    for order in ("most", "least"):
        np.testing.assert_allclose(here.scores[order], there.scores[order], rtol=1e-10, atol=1e-10)


def by_loops(net, x, region_of, R, replaced, target, counts, sign):
    """Rebuild each input from scratch: the first ``count`` regions are replaced."""
    regions = region_of.max() + 1
    scores = np.empty((len(x), len(counts)))
    for b in range(len(x)):
        sums = [R[b][region_of == r].sum() for r in range(regions)]
        order = np.argsort(-sign * np.array(sums))
        for k, count in enumerate(counts):
            state = x[b].copy()
            for r in order[:count]:
                state[region_of == r] = replaced[b][region_of == r]
            scores[b, k] = net.forward(state)[target[b]]
    return scores


@pytest.mark.parametrize("replacement", ["mean", "blur", 0.25, "array"])
@pytest.mark.parametrize("patch", [1, 2, (3, 4)])
def test_images_against_loops(replacement, patch, rng: np.random.Generator) -> None:
    net = conv_net(rng)
    x, R = rng.normal(size=(3, 2, 7, 5)), rng.normal(size=(3, 2, 7, 5))
    if replacement == "mean":
        replaced = np.broadcast_to(x.mean(axis=(2, 3), keepdims=True), x.shape)
    elif replacement == "blur":
        image = [scipy.ndimage.gaussian_filter(x, (0, 0, 0.7, 0.7), mode="constant", truncate=30)]
        image += [scipy.ndimage.gaussian_filter(np.ones_like(x), (0, 0, 0.7, 0.7), mode="constant", truncate=30)]
        replaced = image[0] / image[1]
    else:
        replacement = rng.normal(size=x.shape) if replacement == "array" else replacement
        replaced = np.broadcast_to(replacement, x.shape)
    target = np.array([2, 0, 1])
    curves = pixel_flipping(
        net, x, R, target=target, patch=patch, steps=4, order=("most", "least"), replacement=replacement
    )
    height, width = (patch, patch) if isinstance(patch, int) else patch
    region_of = np.arange(7)[:, None] // height * -(-5 // width) + np.arange(5) // width
    region_of = np.broadcast_to(region_of, (2, 7, 5))
    counts = np.rint(curves.fractions * curves.regions).astype(int)
    for order, sign in (("most", 1), ("least", -1)):
        expected = by_loops(net, x, region_of, R, replaced, target, counts, sign)
        np.testing.assert_allclose(curves.scores[order], expected, rtol=1e-9, atol=1e-9)


def test_map_without_channels_and_flat_images(rng: np.random.Generator) -> None:
    net = conv_net(rng)
    x, R = rng.normal(size=(3, 2, 7, 5)), rng.normal(size=(3, 7, 5))
    whole = pixel_flipping(net, x, np.repeat(R[:, None], 2, axis=1), steps=6, patch=2, replacement="blur")
    summed = pixel_flipping(net, x, R, steps=6, patch=2, replacement="blur")
    np.testing.assert_array_equal(whole.scores["most"], summed.scores["most"])

    flat = pylrp.Network([Dense(rng.normal(size=(3, 70)))])
    y = x.reshape(3, 70)
    image = pixel_flipping(flat, y, R, steps=6, patch=2, replacement="mean", layout=(2, 7, 5))
    assert image.regions == 12
    end = np.repeat(x.mean(axis=(2, 3)), 35, axis=1)
    np.testing.assert_allclose(image.scores["most"][:, -1], flat.forward(end)[np.arange(3), image.target])


def test_each_number_by_itself(rng: np.random.Generator) -> None:
    net, x, R = conv_net(rng), rng.normal(size=(2, 2, 7, 5)), rng.normal(size=(2, 2, 7, 5))
    curves = pixel_flipping(net, x, R, layout=(70,), steps=7, order=("most",), replacement=0.5)
    assert curves.regions == 70
    region_of, counts = np.arange(70).reshape(2, 7, 5), 10 * np.arange(8)
    expected = by_loops(net, x, region_of, R, np.full_like(x, 0.5), curves.target, counts, 1)
    np.testing.assert_allclose(curves.scores["most"], expected, rtol=1e-9)


def test_channels_last_gives_the_same_curves(rng: np.random.Generator) -> None:
    first = conv_net(rng)
    graph = pylrp.network.Graph(
        first.graph.inputs, first.graph.nodes, first.graph.outputs, channels_last=tuple(first.graph.inputs)
    )
    last = pylrp.Network.from_graph(graph)
    x, R = rng.normal(size=(3, 2, 7, 5)), rng.normal(size=(3, 2, 7, 5))
    for replacement in ("mean", "blur", "inpaint"):
        kwargs = {"steps": 5, "patch": 2, "replacement": replacement}
        a = pixel_flipping(first, x, R, **kwargs)
        b = pixel_flipping(last, np.moveaxis(x, 1, -1), np.moveaxis(R, 1, -1), **kwargs)
        for order in a.scores:
            np.testing.assert_allclose(a.scores[order], b.scores[order], rtol=1e-9, atol=1e-9)


def test_chunks_do_not_show(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, R = conv_net(rng), rng.normal(size=(5, 2, 7, 5)), rng.normal(size=(5, 2, 7, 5))
    whole = pixel_flipping(net, x, R, steps=9)
    for most in (1, 3, 7):
        monkeypatch.setattr(evaluated_batch, "_MOST_SAMPLES", most)
        parts = pixel_flipping(net, x, R, steps=9)
        for order in whole.scores:
            np.testing.assert_allclose(parts.scores[order], whole.scores[order], rtol=1e-12, atol=1e-12)


def test_what_did_not_change_is_not_predicted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    rows = []
    scores = evaluated_batch.EvaluatedBatch.scores
    monkeypatch.setattr(
        evaluated_batch.EvaluatedBatch, "scores", lambda self, r, *a: rows.append(len(r)) or scores(self, r, *a)
    )
    curves = pixel_flipping(LINEAR, x, np.array([[3.0, 2, 1], [3, 2, 1]]), order=("most",), replacement=0.0)
    np.testing.assert_array_equal(curves.scores["most"], [[4, 1, 1, 0], [0, 0, 0, 0]])
    assert sum(rows) == 4  # both inputs, and twice the first


def test_ties_fall_by_lot(rng: np.random.Generator) -> None:
    """A flat map must do as badly as chance, not as well as the order of the pixels happens to be."""
    weights = np.sort(rng.exponential(size=50))[::-1]
    net = pylrp.Network([Dense(weights[None])])
    found = [
        pixel_flipping(net, np.ones((1, 50)), np.zeros((1, 50)), order=("most",), replacement=0.0, seed=s).aopc["most"]
        for s in range(60)
    ]
    middle = weights.sum() / 2
    assert abs(np.mean(found) - middle) < 0.05 * middle
    assert np.std(found) > 0


def test_probability_and_sigmoid(rng: np.random.Generator) -> None:
    W, x = rng.normal(size=(3, 6)), rng.normal(size=(4, 6))
    net = pylrp.Network([Dense(W)])
    curves = pixel_flipping(net, x, x, score="probability", order=("most",), replacement=0.0)
    top = net.forward(x).argmax(1)
    expected = scipy.special.softmax(net.forward(x), axis=1)[np.arange(4), top]
    np.testing.assert_allclose(curves.scores["most"][:, 0], expected)
    np.testing.assert_allclose(curves.scores["most"][:, -1], 1 / 3)

    one = pylrp.Network([Dense(W[:1]), Sigmoid()])
    curves = pixel_flipping(one, x, x, score="probability", order=("most",), replacement=0.0)
    np.testing.assert_allclose(curves.scores["most"][:, 0], scipy.special.expit(x @ W[0]))


def test_inpainting_solves_its_equations(rng: np.random.Generator) -> None:
    """Each filled pixel is the mean of its neighbours with weights 1/6 and 1/12, up to the noise; a ramp comes back."""
    net = pylrp.Network([Flatten(), Dense(np.ones((1, 30)))], input_shape=(1, 6, 5))
    image = rng.normal(size=(6, 5))
    ramp = 2.0 * np.arange(6)[:, None] - np.arange(5)
    given = evaluated_batch.EvaluatedBatch(net, np.stack([image, ramp])[:, None])
    mask = np.zeros((6, 5), bool)
    mask[1:4, 1:4] = True
    inpainter = Inpainter(given, np.random.default_rng(0))
    inpainter._noise[:] = 0
    filled, again = inpainter.fill(np.stack([mask.reshape(-1)] * 2)).reshape(2, 6, 5)
    np.testing.assert_allclose(again, ramp, atol=1e-12)
    kernel = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12
    np.testing.assert_allclose(filled[mask], scipy.ndimage.correlate(filled, kernel)[mask], atol=1e-12)
    np.testing.assert_array_equal(filled[~mask], image[~mask])

    noisy = Inpainter(given, np.random.default_rng(0)).fill(np.stack([mask.reshape(-1)] * 2)).reshape(2, 6, 5)
    noise = (noisy[1] - ramp)[mask] / ramp.std()
    assert 0.003 < noise.std() < 0.03
    everything = Inpainter(given, np.random.default_rng(0)).fill(np.ones((2, 30), bool))
    np.testing.assert_allclose(everything.mean(axis=1), [image.mean(), ramp.mean()], atol=0.05)


def test_inpainted_curve_against_loops(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, R = conv_net(rng), rng.normal(size=(2, 2, 7, 5)), rng.normal(size=(2, 7, 5))
    monkeypatch.setattr("pylrp.evaluate.replacement._NOISE", 0.0)
    curves = pixel_flipping(net, x, R, steps=35, order=("most",), replacement="inpaint")
    kernel = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12
    state, spots = x[0].copy(), np.argsort(-R[0].reshape(-1))[:3]
    removed = np.zeros(35, bool)
    removed[spots] = True
    inside = scipy.ndimage.correlate(np.ones((7, 5)), kernel, mode="constant")
    for _ in range(500):  # relaxation, instead of a sparse solver
        means = np.stack([scipy.ndimage.correlate(c, kernel, mode="constant") / inside for c in state])
        state = np.where(removed.reshape(7, 5), means, x[0])
    np.testing.assert_allclose(curves.scores["most"][0, 3], net.forward(state)[curves.target[0]], rtol=1e-7)


def test_signals(rng: np.random.Generator) -> None:
    net = pylrp.Network([Conv(rng.normal(size=(3, 2, 3))), ReLU(), Flatten(), Dense(rng.normal(size=(2, 42)))], (2, 16))
    x = rng.normal(size=(3, 2, 16))
    for replacement in ("mean", "blur", "inpaint"):
        curves = pixel_flipping(net, x, x, patch=3, replacement=replacement)
        assert curves.regions == 6
        assert np.isfinite(curves.scores["random"]).all()


def test_constant_image_stays_under_blur() -> None:
    np.testing.assert_allclose(blurred(np.full((1, 2, 9, 4), 3.0)), 3.0)


def test_regions_cover_each_number_once(rng: np.random.Generator) -> None:
    given = evaluated_batch.EvaluatedBatch(conv_net(rng), rng.normal(size=(1, 2, 7, 5)))
    regions = Regions.of(given, 2)
    assert sorted(set(regions.members.reshape(-1))) == list(range(70))
    assert sum(len(set(row)) for row in regions.members) == 70
    assert constant(given, "mean").shape == (1, 70)


@given(arrays(np.int64, st.tuples(st.integers(1, 3), st.integers(2, 12)), elements=st.integers(-3, 3)))
@examples(30)
def test_ranks_and_spearman_against_scipy(values: np.ndarray) -> None:
    np.testing.assert_array_equal(ranks(values), scipy.stats.rankdata(values, axis=-1))
    other = np.roll(values, 1, axis=-1) + np.arange(values.shape[-1])
    for a, b, found in zip(values, other, spearman(values, other), strict=True):
        if len(set(a)) == 1 or len(set(b)) == 1:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)


def test_bootstrap_band_agrees_with_the_normal_one(rng: np.random.Generator) -> None:
    scores = rng.normal(3, 2, size=(200, 1))
    low, high = band(scores)
    half = 1.96 * scores.std() / np.sqrt(200)
    assert high[0] - low[0] == pytest.approx(2 * half, rel=0.1)
    assert (high[0] + low[0]) / 2 == pytest.approx(scores.mean(), abs=0.1 * half)
    assert np.isnan(band(scores[:1])).all()


def test_area_of_a_ramp() -> None:
    assert area(np.array([0.0, 0.25, 1.0]), np.array([[0.0, 0.5, 2.0]])) == pytest.approx(1.0)


def test_progress_counts_to_the_end() -> None:
    seen = []
    x = np.ones((2, 3))
    pixel_flipping(LINEAR, x, x, replacement=0.0, repeats=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4 * 2 * 4, 4 * 2 * 4)  # four runs, two samples, four points
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_plot_shows_curves_and_bands() -> None:
    x = np.array([[1.0, 1, 1], [2, 1, 1]])
    curves = pixel_flipping(LINEAR, x, x, replacement=0.0)
    ax = curves.plot()
    assert [line.get_label() for line in ax.lines] == ["most relevant first", "least relevant first", "random order"]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), curves.mean["most"])
    assert len(ax.collections) == 3
    assert curves.plot(ax) is ax
    games = insertion_deletion(LINEAR, x, x, deleted=0.0, inserted_into=0.0, score="logit")
    assert len(games.plot().lines) == 2


TWO = pylrp.Network([Dense(np.eye(2, 3))])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"relevance": np.ones((1, 4))}, r"relevance has shape \(1, 4\)"),
        ({"relevance": np.full((1, 3), np.nan)}, "3 values that are NaN"),
        ({"order": ("best",)}, "order is 'best'"),
        ({"score": "odds"}, "score must be"),
        ({"score": "probability"}, "score=.logit"),
        ({"steps": 0}, "steps is 0"),
        ({"until": 1.5}, "until is 1.5"),
        ({"repeats": 0}, "repeats is 0"),
        ({"patch": 2}, "without neighbours: pass layout="),
        ({"replacement": "grey"}, "'mean', 'blur', 'inpaint'"),
        ({"replacement": "mean"}, "x is one sample"),
        ({"replacement": "blur"}, "needs neighbours"),
        ({"replacement": "inpaint"}, "signals and images"),
        ({"replacement": np.ones(2)}, "does not broadcast"),
        ({"replacement": np.inf}, "NaN or infinite"),
        ({"layout": (1, 2)}, r"layout is \(1, 2\)"),
        ({"target": 1}, "classes are 0 to 0"),
        ({"target": [0, 0]}, r"target has shape \(2,\)"),
        ({"target": 0.5}, "must be an integer"),
        ({"x": np.ones((0, 3)), "relevance": np.ones((0, 3))}, "x is empty"),
    ],
)
def test_mistakes(kwargs: dict, words: str) -> None:
    call = {"x": ONES, "relevance": ONES, "replacement": 0.0, **kwargs}
    with pytest.raises((TypeError, ValueError), match=words):
        pixel_flipping(LINEAR, call.pop("x"), call.pop("relevance"), **call)


def test_networks_that_cannot_be_flipped(rng: np.random.Generator) -> None:
    positions = pylrp.Network([Conv(rng.normal(size=(2, 1, 3, 3)))], input_shape=(1, 4, 4))
    with pytest.raises(ValueError, match="one number a class"):
        pixel_flipping(positions, np.ones((1, 1, 4, 4)), np.ones((1, 1, 4, 4)))
    node = pylrp.network.Node("sum", Add(), ("a", "b"))
    two = pylrp.Network.from_graph(pylrp.network.Graph({"a": (3,), "b": (3,)}, [node], ["sum"], dtype=np.float64))
    with pytest.raises(ValueError, match="inputs a, b"):
        pixel_flipping(two, ONES, ONES)
