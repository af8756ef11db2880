"""``ex.plot()``: the picture shows the explanation's own numbers, its words are true, wrong wishes are named."""

import base64
import io
import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

import pylrp
from pylrp import plot
from pylrp.layers import Conv, Dense, Flatten, MaxPool, ReLU
from pylrp.plot.captions import sums, title
from pylrp.plot.views import views


@pytest.fixture(scope="module")
def net():
    """Images of 3 x 12 x 16 to four classes, with biases."""
    rng = np.random.default_rng(4)
    return pylrp.Network(
        [
            Conv(rng.normal(size=(5, 3, 3, 3)), rng.normal(size=5), padding=1, name="conv"), ReLU(),
            MaxPool(2), Flatten(),
            Dense(rng.normal(size=(4, 5 * 6 * 8)), rng.normal(size=4), name="head"),
        ],
        input_shape=(3, 12, 16),
    )  # fmt: skip


@pytest.fixture
def x(rng):
    return rng.random((6, 3, 12, 16))


@pytest.fixture
def ex(net, x):
    return net.explain(x, composite="epsilon")


@pytest.fixture(scope="module")
def mlp():
    rng = np.random.default_rng(5)
    return pylrp.Network([Dense(rng.normal(size=(9, 20)), rng.normal(size=9)), ReLU(), Dense(rng.normal(size=(3, 9)))])


def below(figure):
    """The words under all panels; matplotlib 3.8 calls this get_supxlabel()."""
    return figure._supxlabel.get_text()


def captions(ax):
    return "\n".join(t.get_text() for t in ax.texts)


def test_plot_of_an_image_is_its_relevance_over_its_channels(ex):
    figure = ex.plot(sample=2)
    (ax,) = figure.axes
    R = ex.relevance[2].sum(axis=0)
    np.testing.assert_allclose(ax.images[0].get_array(), R)
    np.testing.assert_allclose(ax.images[0].get_clim()[1], np.percentile(np.abs(R), 99.5))
    assert isinstance(figure, Figure)


def test_the_png_has_the_figures_size(ex, tmp_path):
    figure = ex.plot(tmp_path / "a.png", dpi=40)
    width, height = figure.get_size_inches()
    assert imread(tmp_path / "a.png").shape[:2] == (round(height * 40), round(width * 40))
    ex.plot(tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_nothing_is_cut_off_at_the_figures_edge(ex, tmp_path):
    for kind in (None, "channels", "layers", "ledger"):
        ex.plot(tmp_path / "a.png", kind=kind, dpi=60)
        picture = imread(tmp_path / "a.png")[..., :3]
        for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
            assert edge.min() > 0.99, kind


def test_axes_go_in_and_come_out(ex, tmp_path):
    left, right = plot.new_figure(6, 3).subplots(1, 2)
    assert ex.plot(ax=right) is right
    assert right.images
    assert not left.images
    upper, lower = plot.new_figure(4, 6).subfigures(2, 1)
    assert ex.plot(tmp_path / "whole.png", kind="channels", ax=lower) is lower
    assert not upper.axes
    assert len(lower.axes) == 3
    assert imread(tmp_path / "whole.png").shape[:2] == (600, 400)


def test_the_words_below_are_the_ledgers_numbers(net, x, ex):
    view = views(ex, 3)[0]
    logit, total = ex.output[3].max(), ex.relevance[3].sum()
    bias = ex.ledger.data[:, 2, 3].sum()
    words = sums(view)
    assert words.startswith(f"relevance sums to {total:.3g} of the logit {logit:.3g}; biases ")
    assert f"took {bias:.3g}" in words if bias > 0 else f"added {-bias:.3g}" in words
    assert words in captions(ex.plot(sample=3).axes[0]).replace("\n", " ")
    assert "colours end at ±" in captions(ex.plot(sample=3).axes[0])
    assert captions(ex.plot(sample=3, caption=False).axes[0]) == ""


@pytest.mark.parametrize("start", ["logit", "one"])
@pytest.mark.parametrize("against", [None, 1])
@pytest.mark.parametrize("single", [False, True])
def test_what_started_is_what_arrived_and_what_was_absorbed(net, x, start, against, single):
    target = 2
    ex = net.explain(x[0] if single else x, target, "epsilon", start=start, against=against)
    view = views(ex, 0)[0]
    logits = net.forward(x)[0]
    expected = {
        ("logit", None): logits[2],
        ("logit", 1): logits[2] - logits[1],
        ("one", None): np.sign(logits[2]),
        ("one", 1): np.sign(logits[2] - logits[1]),
    }[start, against]
    assert view.started == pytest.approx(expected, abs=1e-9)
    assert view.total + sum(view.account.causes.values()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("started", "bias", "words"),
    [
        (5, 2, "relevance sums to 3 of the output 5; biases took 2"),
        (5, -2, "relevance sums to 7 of the output 5; biases added 2"),
        (-5, -2, "relevance sums to −3 of the output −5; biases took −2"),
        (-5, 2, "relevance sums to −7 of the output −5; biases added −2"),
        (5, 0.001, "relevance sums to 5 of the output 5"),
    ],
)
def test_causes_take_or_add(started, bias, words):
    """One unit: W x + b = started, and epsilon gives W x to the input."""
    net = pylrp.Network([Dense([[float(started - bias)]], [float(bias)])])
    assert sums(views(net.explain(np.ones(1), composite="epsilon"))[0]) == words


def test_negative_logits_give_negative_shares(net, x):
    worst = net.forward(x)[0].argmin()
    ex = net.explain(x[0], int(worst), "epsilon")
    view = views(ex)[0]
    assert view.started < 0
    bias = view.account.causes["bias"]
    words = sums(view).replace("−", "-")
    assert f"biases took {bias:.3g}" in words if bias < 0 else f"biases added {-bias:.3g}" in words


@pytest.mark.parametrize(
    ("options", "labels", "expected"),
    [
        ({"target": 1}, None, "for class 1"),
        ({"target": 1}, ["a", "b", "c", "d"], "for b"),
        ({"target": 1}, {0: "a"}, "for class 1"),
        ({"target": 1, "against": 0}, {0: "a", 1: "b"}, "for b, not a"),
        ({"target": 3, "output": "conv"}, ["a", "b", "c", "d"], "for conv, channel 3"),
        ({"target": np.ones((6, 4))}, ["a"], "for the target given"),
    ],
)
def test_titles_name_what_was_explained(net, x, options, labels, expected):
    ex = net.explain(x, composite="epsilon", **options)
    assert title(views(ex)[0], labels) == expected


def test_of_a_networks_only_output_the_second_label_is_above_zero():
    net = pylrp.Network([Dense([[1.0, -2.0]])])
    ex = net.explain(np.ones(2), composite="epsilon")
    assert ex.plot().axes[0].get_title(loc="left") == "for the output"
    assert ex.plot(labels=["no", "yes"]).axes[0].get_title(loc="left") == "for yes"
    assert "of the output −1" in captions(ex.plot().axes[0])


def test_several_targets_are_rows_on_one_scale(net, x):
    ex = net.explain(x, targets=[3, 0], composite="epsilon")
    figure = ex.plot(sample=1)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["for class 3", "for class 0"]
    for t, ax in enumerate(figure.axes):
        np.testing.assert_allclose(ax.images[0].get_array(), ex.relevance[1, t].sum(axis=0))
    limit = np.percentile(np.abs(ex.relevance[1].sum(axis=1)), 99.5)  # of both maps
    for ax in figure.axes:
        np.testing.assert_allclose(ax.images[0].get_clim(), (-limit, limit))
    assert "percentile of |R| of all targets" in captions(figure.axes[0]).replace("\n", " ")
    (one,) = ex.plot(sample=1, target=0).axes
    np.testing.assert_allclose(one.images[0].get_array(), ex.relevance[1, 1].sum(axis=0))
    single = net.explain(x[1], targets=[3, 0], composite="epsilon")
    np.testing.assert_array_equal(single.plot(target=0).axes[0].images[0].get_array(), one.images[0].get_array())


def test_channels_last_is_an_image_all_the_same(net, x):
    ex = net.explain(x, composite="epsilon")
    last = replace(
        ex, relevance=np.moveaxis(ex.relevance, 1, -1), input=np.moveaxis(x, 1, -1),
        settings={**ex.settings, "channels_last": ["input"]},
    )  # fmt: skip
    one, other = (e.plot(sample=1).axes[0].images[0].get_array() for e in (ex, last))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(views(last, 1)[0].input, x[1])


def test_a_flat_row_is_a_table_and_an_image_only_if_you_say_so(rng):
    net = pylrp.Network([Dense(rng.normal(size=(3, 256)))])
    x = rng.random((2, 256))
    ex = net.explain(x, composite="epsilon")
    (ax,) = ex.plot(sample=1).axes
    assert not ax.images
    assert sum(p.get_width() for p in ax.patches) == pytest.approx(ex.relevance[1].sum())
    assert "256 = 16 x 16: if it is an image, shape=(16, 16) draws it as one" in captions(ax)
    (ax,) = ex.plot(sample=1, shape=(16, 16)).axes
    np.testing.assert_array_equal(ax.images[0].get_array(), ex.relevance[1].reshape(16, 16))
    assert "256" not in captions(ex.plot(feature_names=[str(i) for i in range(256)]).axes[0])


def test_a_table_shows_the_values_of_the_input_or_yours(mlp, rng):
    x = rng.normal(size=20)
    ex = mlp.explain(x, composite="epsilon")
    best = int(np.abs(ex.relevance).argmax())
    (ax,) = ex.plot(most=3).axes
    assert ax.get_yticklabels()[0].get_text() == f"feature {best} = {x[best]:.3g}".replace("-", "−")
    (ax,) = ex.plot(most=3, values=np.arange(20) * 10, feature_names=[f"f{i}" for i in range(20)]).axes
    assert ax.get_yticklabels()[0].get_text() == f"f{best} = {best * 10}"
    assert len(ax.patches) == 4


def test_a_signal_is_drawn_in_lanes(rng):
    net = pylrp.Network(
        [Conv(rng.normal(size=(4, 2, 5)), padding=2), ReLU(), Flatten(), Dense(rng.normal(size=(3, 240)))],
        input_shape=(2, 60),
    )
    ex = net.explain(rng.normal(size=(3, 2, 60)), composite="epsilon")
    (ax,) = ex.plot(sample=2, feature_names=["left", "right"]).axes
    np.testing.assert_array_equal([i.get_array()[0] for i in ax.images], ex.relevance[2])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["left", "right"]


def test_layers_are_drawn_from_the_input_on_without_activations(net, x):
    ex = net.explain(x, composite="epsilon", layers="all")
    figure = ex.plot(kind="layers", sample=4)
    drawn = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert list(drawn) == ["input", "conv", "maxpool0", "flatten0", "head"]  # relu0 has the relevance of conv
    np.testing.assert_allclose(drawn["conv"].images[0].get_array(), ex.layers["conv"][4].sum(axis=0))
    figure = ex.plot(kind="layers", layers=["relu0", "maxpool0"])
    assert [ax.get_title() for ax in figure.axes[:2]] == ["relu0", "maxpool0"]


def test_of_many_layers_the_last_of_each_size_is_drawn(rng):
    square = [Dense(rng.normal(size=(6, 6)), name=f"d{i}") for i in range(18)]
    net = pylrp.Network([*square, Dense(rng.normal(size=(2, 6)), name="top")])
    with pytest.raises(
        ValueError, match="relevance of 20 layers was not kept: explain with layers='all', or pass layers="
    ):
        net.explain(np.ones(6), composite="epsilon").plot(kind="layers")
    figure = net.explain(np.ones(6), composite="epsilon", layers="all").plot(kind="layers")
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == ["d17", "top"]
    assert "2 of 20 layers, the last of each size" in below(figure)


def test_channels_of_a_layer(ex):
    figure = ex.plot(kind="channels", layer="conv", most=2, sample=1)
    R = ex.layers["conv"][1]
    order = np.argsort(-np.abs(R.sum(axis=(1, 2))))
    for ax, c in zip(figure.axes, order, strict=False):
        np.testing.assert_array_equal(ax.images[0].get_array(), R[c])
    rest = R[order[2:]].sum()
    assert f"the other 3 of 5 channels sum to {rest:.3g}".replace("-", "−") in below(figure)


def test_the_ledger_of_the_sample_is_drawn(ex):
    (ax,) = ex.plot(kind="ledger", sample=5).axes
    bias = next(c for c in ax.containers if c.get_label() == "biases")
    np.testing.assert_allclose([bar.get_width() for bar in bias], ex.ledger.data[::-1, 2, 5])


def test_several_inputs_are_drawn_one_at_a_time(rng):
    from pylrp.layers import Add
    from pylrp.network.graph import Graph, Node

    nodes = [
        Node("a", Dense(rng.normal(size=(3, 4))), ("one",)),
        Node("b", Dense(rng.normal(size=(3, 5))), ("two",)),
        Node("sum", Add(), ("a", "b")),
    ]
    net = pylrp.Network.from_graph(Graph({"one": (4,), "two": (5,)}, nodes, ["sum"]))
    ex = net.explain({"one": rng.normal(size=4), "two": rng.normal(size=5)}, composite="epsilon")
    with pytest.raises(ValueError, match="several inputs: pass input= with one of one, two"):
        ex.plot()
    (ax,) = ex.plot(input="two").axes
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(ex.relevance["two"].sum())
    assert ax.get_title(loc="left").startswith("two: for class")
    ex.plot(kind="ledger")
    assert ex._repr_html_().count("<img") == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "heatmap"}, ValueError, "kind must be one of image, signal, .* got 'heatmap'"),
        ({"sample": 6}, ValueError, "sample 6 is not there: 6 samples explained"),
        ({"target": 9}, ValueError, r"target 9 was not explained for sample 0, but \d"),
        ({"layer": "conv9"}, ValueError, "no layer is called 'conv9'; there are input, conv"),
        ({"input": "image"}, ValueError, "no input is called 'image'; there is input"),
        (
            {"feature_names": ["a"]},
            ValueError,
            "feature_names= is for kind signal, time, table, channels; this is kind image",
        ),
        ({"kind": "ledger", "overlay": "grey"}, ValueError, "overlay= is for kind image, signal"),
        ({"shape": (5, 5)}, ValueError, r"shape=\(5, 5\) does not fit relevance of shape \(3, 12, 16\)"),
        ({"kind": "table"}, ValueError, r"shape \(3, 12, 16\) is no table: leave kind out"),
        ({"layer": "flatten0", "kind": "image"}, ValueError, r"shape \(240,\) is no image: pass shape="),
        ({"labels": ["a"], "target": None, "sample": 0}, ValueError, "labels has 1 names, there is none for class"),
        ({"ax": 3}, TypeError, "ax must be matplotlib Axes or a figure, got int"),
        ({"kind": "layers", "ax": "axes"}, TypeError, "kind layers has several panels: pass a figure"),
        ({"image": np.zeros((20, 20))}, ValueError, "image is 20 x 20 pixels, the relevance 12 x 16"),
        ({"percentile": 0}, ValueError, "percentile must be above 0"),
    ],
)
def test_wrong_wishes_are_named(net, x, options, error, message):
    ex = net.explain(x, 2, composite="epsilon")
    if options.get("ax") == "axes":
        options = {**options, "ax": plot.new_figure(2, 2).subplots()}
    with pytest.raises(error, match=message):
        ex.plot(**options)


def test_several_targets_do_not_fit_where_one_is_shown(net, x):
    ex = net.explain(x, targets=[1, 2], composite="epsilon")
    with pytest.raises(TypeError, match="2 targets need a figure, ax is one Axes: pass target= with one of 1, 2"):
        ex.plot(ax=plot.new_figure(2, 2).subplots())
    with pytest.raises(ValueError, match="kind channels shows one target: pass target= with one of 1, 2"):
        ex.plot(kind="channels")


# Grids


def test_a_grid_has_a_row_for_each_sample_and_a_column_for_each_composite(net, x, tmp_path):
    named = {c: net.explain(x, composite=c) for c in ("epsilon", "epsilon_plus")}
    figure = plot.grid(named, tmp_path / "grid.png", samples=[4, 0], labels=list("abcd"))
    axes = np.array(figure.axes).reshape(2, 3)
    assert [ax.get_title() for ax in axes[0]] == ["input", "epsilon", "epsilon_plus"]
    for row, sample in zip(axes, [4, 0], strict=True):
        np.testing.assert_array_equal(row[0].images[0].get_array(), np.moveaxis(x[sample], 0, -1))
        for ax, ex in zip(row[1:], named.values(), strict=True):
            R = ex.relevance[sample]
            np.testing.assert_allclose(ax.images[0].get_array(), R.sum(axis=0))
            share = 100 * R.sum() / ex.output[sample].max()
            assert captions(ax) == f"sum {R.sum():.3g}, {round(share):.3g} %".replace("-", "−")
        assert row[0].get_ylabel() == f"for {'abcd'[named['epsilon'].target[sample]]}"
    assert (tmp_path / "grid.png").exists()


@pytest.mark.parametrize(("scale", "limits"), [("own", 4), ("row", 2), ("all", 1)])
def test_a_grid_shares_the_scale_it_says(net, x, scale, limits):
    found = [net.explain(x[:2], composite=c) for c in ("epsilon", "epsilon_plus")]
    figure = plot.grid(found, scale=scale, percentile=100)
    clims = [ax.images[0].get_clim() for i, ax in enumerate(figure.axes) if i % 3]
    assert len(set(clims)) == limits
    largest = max(np.abs(ex.relevance.sum(axis=1)).max() for ex in found)
    assert max(c[1] for c in clims) == pytest.approx(largest)


def test_grids_of_signals_and_of_rows(mlp, rng):
    ex = [mlp.explain(rng.normal(size=(2, 20)), composite=c) for c in ("epsilon", "epsilon")]
    axes = np.array(plot.grid(ex).axes).reshape(2, 2)
    assert [ax.get_title() for ax in axes[0]] == ["epsilon (1)", "epsilon (2)"]
    for s, row in enumerate(axes):
        for ax, e in zip(row, ex, strict=True):
            assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(e.relevance[s].sum())
    axes = np.array(plot.grid(ex, kind="signal").axes).reshape(2, 3)
    np.testing.assert_array_equal(axes[1, 2].images[0].get_array()[0], ex[1].relevance[1])
    np.testing.assert_array_equal(axes[1, 0].lines[0].get_ydata(), ex[0].input[1])


def test_grids_that_can_not_be_drawn_are_refused(net, x, mlp):
    ex = net.explain(x, composite="epsilon")
    with pytest.raises(ValueError, match="no explanation to draw"):
        plot.grid({})
    with pytest.raises(ValueError, match="different numbers of samples: a of 6, b of 2"):
        plot.grid({"a": ex, "b": net.explain(x[:2], composite="epsilon")})
    with pytest.raises(ValueError, match="inputs of different shapes"):
        plot.grid({"a": ex, "b": mlp.explain(np.ones((6, 20)), composite="epsilon")})
    with pytest.raises(ValueError, match="scale must be one of own, row, all"):
        plot.grid([ex], scale="one")
    with pytest.raises(ValueError, match=r"of 20 samples: choose some, samples=range\(16\)"):
        plot.grid([mlp.explain(np.ones((20, 20)), composite="epsilon")])
    with pytest.raises(ValueError, match="explains several targets, 1, 2: pass target="):
        plot.grid([net.explain(x, targets=[1, 2], composite="epsilon")])
    with pytest.raises(ValueError, match="images has 1 entries, 6 samples are drawn"):
        plot.grid([ex], images=[np.zeros((12, 16))])


# Notebooks


def test_a_notebook_shows_a_picture_and_a_line(ex):
    html = ex._repr_html_()
    assert html.count("<img") == 1
    assert "http" not in html
    data = html.split("base64,")[1].split('"')[0]
    assert imread(io.BytesIO(base64.b64decode(data))).ndim == 3
    logit, total = ex.output[0].max(), ex.relevance[0].sum()
    ledger = ex.ledger.data[:, 2:, 0].sum()
    line = f"for class {ex.target[0]} by epsilon: the logit {logit:.3g}; relevance sums to {total:.3g}; "
    line += f"the ledger&#x27;s total is {ledger:.3g}"
    assert line.replace("-", "−") in html.replace("-", "−")
    assert "sample 0 of 6" in html
    assert len(html) < 100_000


def test_a_figure_shows_itself_without_pyplot(ex):
    assert ex.plot(dpi=30)._repr_png_().startswith(b"\x89PNG")


def test_where_nothing_can_be_drawn_a_notebook_shows_text(rng):
    net = pylrp.Network([Flatten(), Dense(rng.normal(size=(2, 16)))], input_shape=(1, 2, 2, 4))
    assert net.explain(rng.random((1, 2, 2, 4)), composite="epsilon")._repr_html_() is None


@pytest.mark.slow
def test_without_matplotlib_a_notebook_shows_text_and_pyplot_is_never_imported(tmp_path):
    code = (
        "import sys, numpy, pylrp\n"
        "if {gone}: sys.modules['matplotlib'] = None\n"
        "net = pylrp.Network([pylrp.layers.Dense([[1.0, 2.0]])])\n"
        "ex = net.explain(numpy.ones(2), composite='epsilon')\n"
        "assert 'pylrp.plot' not in sys.modules\n"
        "assert (ex._repr_html_() is None) == {gone}\n"
        "if not {gone}: ex.plot('a.png'); ex.plot(kind='ledger'); ex.plot(kind='layers'); pylrp.plot.grid([ex])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    for gone in (True, False):
        subprocess.run([sys.executable, "-c", code.format(gone=gone)], cwd=tmp_path, check=True)


def test_drawing_leaves_the_explanation_as_it_was(ex):
    before = ex.relevance.copy(), ex.input.copy(), ex.ledger.data.copy()
    for kind in (None, "channels", "layers", "ledger"):
        ex.plot(kind=kind)
    assert isinstance(ex.plot(ax=plot.new_figure(3, 3).subplots()), Axes)
    for was, now in zip(before, (ex.relevance, ex.input, ex.ledger.data), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.slow
def test_a_single_picture_names_its_composite(ex, net, x):
    figure = ex.plot()
    assert "rules: epsilon;" in captions(figure.axes[0])
    mine = net.explain(x, composite=pylrp.Composite("mine", pylrp.ZPlus()), layers="all")
    assert "rules: mine" in captions(mine.plot(kind="ledger").axes[0])
    for kind in ("channels", "layers"):
        assert "rules: mine" in below(mine.plot(kind=kind))
    rules = net.explain(x, composite=[pylrp.Flat(), pylrp.Epsilon(0.25)])
    assert "rules: Flat(), Epsilon(0.25)" in captions(rules.plot().axes[0])
    assert "by mine" in mine._repr_html_()


@pytest.mark.slow
@pytest.mark.parametrize("heading", ["epsilon_alpha2_beta1_flat", "[ZBox(0, 1), Epsilon(1e-06), ZPlus()]", "a b"])
@pytest.mark.parametrize("kind", ["image", "table"])
def test_heads_of_a_grid_do_not_overlap(ex, net, x, mlp, rng, kind, heading):
    if kind == "table":
        ex = mlp.explain(rng.normal(size=(2, 20)), composite="epsilon")
    figure = plot.grid({f"{heading}{'_' * i}": ex for i in range(4)}, samples=[0, 1])
    for _ in range(2):  # the layout settles
        figure.draw_without_rendering()
    boxes = [ax.title.get_window_extent() for ax in figure.axes[: 4 + (kind == "image")]]
    for left, right in itertools.pairwise(boxes):
        assert left.x1 < right.x0
    assert boxes[-1].x1 <= figure.bbox.x1
    assert all(box.y1 <= figure.bbox.y1 for box in boxes)
    assert "".join(figure.axes[1].get_title().split()) != ""
