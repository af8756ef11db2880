"""What error messages advise, followed: those of pictures, reports, measures, files and the command line.

The others are in `test_ways_out.py`, whose table has the same form.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api.test_ways_out import ACTS, OUT, W, X, dense, images, two_inputs, two_outputs

import pylrp
from pylrp import demo, evaluate, plot
from pylrp import layers as L
from pylrp.cli import main
from pylrp.network.graph import Facts, Graph
from pylrp.report import Report

RNG = np.random.default_rng(3)
IMAGES = RNG.random((2, 3, 6, 6))


def explained(**options: Any) -> pylrp.Explanation:
    return dense().explain(X, composite="epsilon", **options)


def pictures(**options: Any) -> pylrp.Explanation:
    return images().explain(IMAGES, target=0, composite="epsilon", **options)


def ax() -> Any:
    return plot.new_figure(2, 2).subplots()


def report(**options: Any) -> Report:
    made = Report(dense(), options.pop("labels", None))
    made.add(options.pop("x", X), composites=options.pop("composites", "epsilon"), **options)
    return made


def named(*classes: Any) -> pylrp.Network:
    graph = Graph.sequential([L.Dense(W[1], name="z")], (4,))
    return pylrp.Network.from_graph(graph.changed(facts=Facts(classes=classes or ("cat", "dog", "owl"))))


def integers() -> pylrp.Network:
    return named(1, 3, 7)


def saved(name: str, **arrays: Any) -> str:
    np.savez(name, **arrays)
    return name


def unlike() -> list[pylrp.Explanation]:
    return [explained(), dense().explain(X[:2], composite="epsilon")]


BIG = dense().explain(RNG.random((20, 5)), composite="epsilon")
FLAT = pylrp.Network([L.Dense(RNG.normal(size=(2, 36)))])
FLAT_X = RNG.random((3, 36))
MINE = pylrp.Composite("epsilon", pylrp.ZPlus())
Call = Callable[[], Any]
WAYS_OUT: dict[str, tuple[Call, type[Exception], str, Call]] = {
    "a box by name": (
        lambda: dense().explain(X, composite="epsilon_gamma_box"), ValueError, "names={layer: ZBox(...)}",
        lambda: dense().explain(X, composite=pylrp.Composite("a", pylrp.Epsilon(), names={"below": pylrp.ZBox(0, 1)})),
    ),
    "a label that may be an index": (
        lambda: integers().explain(X[:, :4], target=1), ValueError, "net.class_index(label)",
        lambda: integers().explain(X[:, :4], target=integers().class_index(1)),
    ),
    "a class nearly called so": (
        lambda: named().explain(X[:, :4], target="Owll"), ValueError, "do you mean 'owl'",
        lambda: named().explain(X[:, :4], target="owl"),
    ),
    "a dense layer on an image": (
        lambda: pylrp.Network([L.Dense(np.ones((2, 8)))], input_shape=(2, 4)), ValueError, "put a Flatten before",
        lambda: pylrp.Network([L.Flatten(), L.Dense(np.ones((2, 8)))], input_shape=(2, 4)),
    ),
    "weights of two dtypes": (
        lambda: pylrp.Network([L.Dense(W[0]), L.Dense(W[1].astype("f"))]), TypeError, "convert to one dtype",
        lambda: pylrp.Network([L.Dense(W[0].astype("f")), L.Dense(W[1].astype("f"))]),
    ),
    "a convention of the comparison": (
        lambda: pylrp.compare(W, ACTS, OUT, conventions=["Captum"]), ValueError, "do you mean 'captum'",
        lambda: pylrp.compare(W, ACTS, OUT, conventions=["captum"]),
    ),
    "against, one a sample": (
        lambda: explained(against=[0, 1]), ValueError, "give one class, or one a sample",
        lambda: (explained(target=1, against=0), explained(target=1, against=[0] * 6)),
    ),
    "labels that are too few": (
        lambda: Report(dense(), ["a"]), ValueError, "one for each, or a dict",
        lambda: (Report(dense(), ["a", "b", "c"]), Report(dense(), {0: "a"})),
    ),
    "an empty report": (lambda: Report(dense()).html(), ValueError, "add(x) first", lambda: report().html()),
    "a report without composites": (
        lambda: report(composites=[]), ValueError, "pass at least one", lambda: report(composites=["epsilon"]),
    ),
    "two composites of one name": (
        lambda: report(composites=["epsilon", MINE]), ValueError, "give them different names",
        lambda: report(composites=["epsilon", pylrp.Composite("mine", pylrp.ZPlus())]),
    ),
    "names of a report": (
        lambda: report(name=["a"]), ValueError, "pass one each", lambda: report(name=list("abcdef")),
    ),
    "a report of nothing": (
        lambda: report(top=0), ValueError, "top of at least 1, or targets",
        lambda: (report(top=1), report(targets=[0])),
    ),
    "a report's picture": (
        lambda: report(x=X[0], image=np.zeros((2, 2), np.uint8)), ValueError, "pass one that has as many",
        lambda: report(x=X[0], image=np.zeros((1, 5), np.uint8)),
    ),
    "several targets in one Axes": (
        lambda: explained(targets=[0, 1]).plot(ax=ax()), TypeError, "pass target= with one of 0, 1",
        lambda: explained(targets=[0, 1]).plot(ax=ax(), target=1),
    ),
    "channels of several targets": (
        lambda: images().explain(IMAGES, targets=[0, 1]).plot(kind="channels"), ValueError, "pass target= with one",
        lambda: images().explain(IMAGES, targets=[0, 1]).plot(kind="channels", target=1),
    ),
    "channels in one Axes": (
        lambda: pictures().plot(kind="channels", ax=ax()), TypeError, "pass a figure or a SubFigure as ax, or leave",
        lambda: (pictures().plot(kind="channels", ax=plot.new_figure(4, 4)), pictures().plot(kind="channels")),
    ),
    "which of two inputs": (
        lambda: two_inputs().explain((X[:, :3], X[:, :3])).plot(), ValueError, "pass input= with one of a, b",
        lambda: two_inputs().explain((X[:, :3], X[:, :3])).plot(input="b"),
    ),
    "a row as an image": (
        lambda: FLAT.explain(FLAT_X).plot(kind="image"), ValueError, "pass shape=(height, width), or kind='table'",
        lambda: (FLAT.explain(FLAT_X).plot(shape=(6, 6)), FLAT.explain(FLAT_X).plot(kind="table")),
    ),
    "a flat heatmap": (
        lambda: plot.heatmap(ax(), FLAT_X[0]), ValueError, "R.reshape(",
        lambda: plot.heatmap(ax(), FLAT_X[0].reshape(6, 6)),
    ),
    "a heatmap over nothing": (
        lambda: plot.image(ax(), np.eye(6), overlay="grey"), ValueError, "pass image=",
        lambda: plot.image(ax(), np.eye(6), np.eye(6), overlay="grey"),
    ),
    "a line without a signal": (
        lambda: plot.signal(ax(), np.ones(9), overlay="line"), ValueError, "pass x",
        lambda: plot.signal(ax(), np.ones(9), np.ones(9), overlay="line"),
    ),
    "many samples in a grid": (
        lambda: plot.grid([BIG]), ValueError, "samples=range(16)", lambda: plot.grid([BIG], samples=range(16)),
    ),
    "several targets in a grid": (
        lambda: plot.grid([explained(targets=[0, 1])]), ValueError, "pass target= with one",
        lambda: plot.grid([explained(targets=[0, 1])], target=0),
    ),
    "different inputs in a grid": (
        lambda: plot.grid(unlike()), ValueError, "different numbers of samples",
        lambda: [plot.grid([ex]) for ex in unlike()],
    ),
    "an evaluation of nothing": (
        lambda: evaluate.evaluate(dense(), X, []), ValueError, "pass at least one",
        lambda: evaluate.evaluate(dense(), X, ["epsilon"], checks=["agreement"]),
    ),
    "patches of a row": (
        lambda: flipped(patch=2), ValueError, "pass layout=(channels, height, width)",
        lambda: flipped(patch=2, layout=(1, 6, 6)),
    ),
    "blur of a row": (
        lambda: flipped(replacement="blur"), ValueError, "pass layout=",
        lambda: flipped(replacement="blur", layout=(1, 6, 6)),
    ),
    "the mean of one sample": (
        lambda: flipped(1), ValueError, "pass an array", lambda: flipped(1, replacement=FLAT_X.mean(axis=0)),
    ),
    "an activation nearly called so": (
        lambda: pylrp.load(saved("a.npz", W1=W[0], W2=W[1], activations=["rellu"])), ValueError, "choose one of",
        lambda: pylrp.load(saved("a.npz", W1=W[0], W2=W[1], activations=["relu", "linear"])),
    ),
    "arrays without names": (
        lambda: pylrp.load(saved("b.npz", alpha=W[0])), ValueError, "name them W1, b1, W2, b2",
        lambda: pylrp.load(saved("b.npz", W1=W[0], b1=np.zeros(4), W2=W[1], b2=np.zeros(3))),
    ),
    "a source of another kind": (
        lambda: pylrp.load(3), TypeError, "a list of pylrp.layers", lambda: pylrp.load([L.Dense(W[0]), L.ReLU()]),
    ),
    "an output in a report": (
        lambda: Report(two_outputs()).add(X, output="c"), ValueError, "there are x, a, b",
        lambda: Report(two_outputs()).add(X, output="b"),
    ),
    "no digits": (
        lambda: demo.explain(0), ValueError, "ask for 1 to 100", lambda: demo.explain(1),
    ),
}  # fmt: skip


def flipped(count: int = 3, **options: Any) -> Any:
    x = FLAT_X[:count]
    return evaluate.pixel_flipping(FLAT, x, FLAT.explain(x).relevance, steps=3, repeats=1, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS_OUT)
def test_what_a_message_says_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, kind, advice, way_out = WAYS_OUT[name]
    with pytest.raises(kind) as caught:
        call()
    assert advice in str(caught.value)
    way_out()


EXPLAIN = ["explain", "m.npz", "x.npy"]
COMMANDS: dict[str, tuple[list[str], str, list[str]]] = {
    "a rule": ([*EXPLAIN, "--rule", "W1"], "write LAYER=RULE", [*EXPLAIN, "--rule", "0=Gamma(0.5)"]),
    "a rule's form": ([*EXPLAIN, "--rule", "0=Gamma 0.5"], "write it as Gamma(0.5)",
                      [*EXPLAIN, "--rule", "0=Gamma(0.5)"]),
    "an ending": ([*EXPLAIN, "-o", "r.txt"], "give an ending", [*EXPLAIN, "-o", "r.npz"]),
    "one picture": ([*EXPLAIN, "-o", "r.png"], "give a folder, or .html", [*EXPLAIN, "-o", "r.html"]),
    "an input as output": ([*EXPLAIN, "-o", "x.npy"], "", [*EXPLAIN, "-o", "y.npz"]),
    "no layers": ([*EXPLAIN, "--layers", ""], "give names of layers, or all", [*EXPLAIN, "--layers", "all"]),
    "a contrast in a report": ([*EXPLAIN, "--against", "1", "--target", "0", "-o", "r.html"], "write a picture or .npz",
                               [*EXPLAIN, "--against", "1", "--target", "0", "-o", "r.npz"]),
    "a picture of conventions": (["compare", "m.npz", "x.npy", "--conventions", "-o", "r.png"], "leave -o out",
                                 ["compare", "m.npz", "x.npy", "--conventions"]),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_says_works(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("m.npz", W1=W[0], b1=np.zeros(4), W2=W[1], b2=np.zeros(3))
    np.save("x.npy", X)
    wrong, advice, right = COMMANDS[name]
    assert main(wrong) != 0
    assert advice in capsys.readouterr().err
    assert main(right) == 0
