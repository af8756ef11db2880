"""Reports of explanations that are there already: the same page as of inputs, and nothing is computed again."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import NAMES, photo_network, run, table_network, write_world
from network.test_composition import CASES as CASES_OF_COMPOSITION

import pylrp
from pylrp.cli import main
from pylrp.layers import Conv, Dense, Flatten, ReLU, Sigmoid
from pylrp.network.columns import Table
from pylrp.network.graph import Graph, Node
from pylrp.report import Report

LogisticRegression = pytest.importorskip("sklearn.linear_model").LogisticRegression


def samples_of(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found is not None
    samples: list[dict[str, Any]] = json.loads(found[1])["samples"]
    return samples


def assert_alike(a: Any, b: Any) -> None:
    """Compare JSON; the core sums batches and single samples in different orders."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_alike(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_alike(one, other)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-12)
    else:
        assert a == b


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every call of Network.explain and Network.forward, with the number of samples."""
    made: list[str] = []
    for name in ("explain", "forward"):
        method = getattr(pylrp.Network, name)

        def counted(self: Any, x: Any, *args: Any, _of: Any = method, _name: str = name, **named: Any) -> Any:
            made.append(f"{_name} {len(getattr(x, '_values', x))}")
            return _of(self, x, *args, **named)

        monkeypatch.setattr(pylrp.Network, name, counted)
    return made


def last_channels() -> pylrp.Network:
    rng = np.random.default_rng(8)
    net = pylrp.Network([Conv(rng.normal(size=(4, 3, 3, 3))), ReLU(), Flatten(), Dense(rng.normal(size=(3, 144)))],
                        input_shape=(3, 8, 8))  # fmt: skip
    graph = net.graph
    return pylrp.Network.from_graph(
        Graph(graph.inputs, graph.nodes, graph.outputs, channels_last=list(graph.inputs), dtype=graph.dtype)
    )


CASES: dict[str, tuple[Callable[[], pylrp.Network], tuple[int, ...]]] = {
    "images": (photo_network, (3, 12, 16)),
    "channels last": (last_channels, (8, 8, 3)),
    "rows": (table_network, (3,)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("single", [True, False])
def test_the_page_is_that_of_the_input(case: str, single: bool, calls: list[str]) -> None:
    made, shape = CASES[case]
    net = made()
    x = np.random.default_rng(1).random((2, *shape)).astype(net.dtype)
    x = x[0] if single else x
    composites = ["epsilon", "epsilon_plus"]
    explained = [net.explain(x, targets=[1, 0], composite=name, layers="all") for name in composites]
    calls.clear()
    report = Report(net)
    report.add(explained)
    assert calls == []
    expected = Report(net)
    expected.add(x, targets=[1, 0], composites=composites)
    assert_alike(samples_of(report.html()), samples_of(expected.html()))
    assert len(samples_of(report.html())[0]["explanations"][0][0]["layers"]) > 0


def test_one_class_and_no_layers(calls: list[str]) -> None:
    net = table_network()
    ex = net.explain(np.array([[1.0, 0.5, -2.0], [0.0, 1.0, 1.0]]))
    calls.clear()
    report = Report(net)
    report.add(ex, name=["a", "b"], feature_names=["age", "weight", "size"])
    samples = samples_of(report.html())
    assert calls == []
    for i, sample in enumerate(samples):
        assert [target["index"] for target in sample["targets"]] == [ex.target[i]]
        shown = sample["explanations"][0][0]
        np.testing.assert_allclose(shown["maps"][0]["values"], ex.relevance[i], rtol=1e-5)
        assert shown["layers"] == []  # none was kept
        assert sample["inputs"][0]["names"] == ["age", "weight", "size"]


def test_columns_are_put_into_the_networks_order(rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    model = LogisticRegression().fit(X, y)
    model.feature_names_in_ = np.array(["age", "weight", "size"], dtype=object)
    net = pylrp.load(model)
    table = Table(X[:2, [2, 0, 1]], ["size", "age", "weight"])
    ex = net.explain(table, targets=[0, 2])
    report, expected = Report(net), Report(net)
    report.add(ex)
    expected.add(table, targets=[0, 2], composites=ex.settings["composite"])
    shown, other = samples_of(report.html()), samples_of(expected.html())
    for sample in (*shown, *other):
        sample["explanations"] = [[{**each, "layers": []} for each in one] for one in sample["explanations"]]
    assert shown == other
    assert shown[0]["inputs"][0]["names"] == ["age", "weight", "size"]


def test_an_explanation_from_a_file(tmp_path: Path) -> None:
    net = photo_network()
    x = np.random.default_rng(1).random((2, 3, 12, 16)).astype(np.float32)
    ex = net.explain(x, targets=[0, 1], layers=["block"], composite=pylrp.Gamma(0.3))
    ex.save(tmp_path / "ex.npz")
    report, expected = Report(net), Report(net)
    report.add(pylrp.Explanation.load(tmp_path / "ex.npz"))
    expected.add(ex)
    found = samples_of(report.html())
    assert [s["explanations"] for s in found] == [s["explanations"] for s in samples_of(expected.html())]
    assert [layer["name"] for layer in found[0]["explanations"][0][0]["layers"]] == ["block"]


@pytest.mark.parametrize(
    "how",
    [
        {"target": 0, "against": 1},
        {"start": "one"},
        {"masks": {"hidden": [0]}},
        {"target": np.array([[0.5, 0.0]])},
        {"output": "hidden", "target": 0},
    ],
    ids=str,
)
def test_what_a_report_cannot_show_is_refused(how: dict[str, Any]) -> None:
    net = table_network()
    report = Report(net)
    with pytest.raises(ValueError, match=r"."):
        report.add(net.explain(np.ones((1, 3)), **how))
    assert len(report) == 0


def test_what_the_explanation_settles_is_not_given_again() -> None:
    net = table_network()
    ex = net.explain(np.ones(3))
    for given in ({"top": 2}, {"targets": [1]}, {"composites": "epsilon"}, {"convention": "captum"}):
        with pytest.raises(ValueError, match=f"{next(iter(given))}="):
            Report(net).add(ex, **given)
    with pytest.raises(ValueError, match="epsilon"):
        Report(net).add([ex, ex])
    with pytest.raises(ValueError, match="same samples"):
        Report(net).add([ex, net.explain(np.zeros(3) + 0.5, composite="epsilon_plus")])
    with pytest.raises(ValueError, match="has shape"):
        Report(photo_network()).add(net.explain(np.ones(3)))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_command_line_explains_a_sample_once(world: Path, calls: list[str]) -> None:
    assert main(["explain", "photo.npz", "images", "-o", "r.html", "-o", "p/", "-o", "a.npz", "-q"]) == 0
    assert calls == ["forward 3", "explain 3"]  # the forward pass finds the top classes
    calls.clear()
    assert main(["explain", "photo.npz", "images", "-o", "r.html", "--targets", "0,2", "-q"]) == 0
    assert calls == ["explain 3"]
    calls.clear()
    assert main(["explain", "photo.npz", "images", "-o", "b.npz", "-q"]) == 0
    assert calls == ["explain 3"]
    with np.load("a.npz") as a, np.load("b.npz") as b:  # what else is written does not show that a report is
        assert set(a.files) == set(b.files)
        assert all(np.array_equal(a[name], b[name]) for name in a.files)
    net = pylrp.load("photo.npz")
    assert len(NAMES) == 5
    for sample in samples_of(Path("r.html").read_text(encoding="utf-8")):
        assert [target["index"] for target in sample["targets"]] == [0, 2]
    assert net.graph.outputs


@pytest.mark.parametrize("top", [1, 2])
@pytest.mark.parametrize("keep", [False, True])
def test_two_classes_with_one_logit(world: Path, top: int, keep: bool) -> None:
    """The table and the arrays have class 1, the report begins with the class that is predicted."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(40, 3))
    graph = Graph.sequential([Dense(rng.normal(size=(1, 3)), rng.normal(size=1)), Sigmoid()], (3,))
    graph = graph.changed(facts=dataclasses.replace(graph.facts, classes=("no", "yes")))
    net = pylrp.Network.from_graph(graph, keep_top=keep)
    net.save("two.npz")
    np.save("rows.npy", rows)
    found = run(world, "explain", "two.npz", "rows.npy", "-o", "r.html", "-o", "a.npz", "--top", str(top), "--keep-top")
    assert found.returncode == 0, found.stderr
    ex = net.explain(rows)
    with np.load("a.npz") as arrays:
        np.testing.assert_array_equal(arrays["relevance"], ex.relevance)
    z = net.forward(rows)[:, 0]
    for value, sample in zip(z, samples_of(Path("r.html").read_text(encoding="utf-8")), strict=True):
        predicted = int(value > (0.5 if keep else 0))
        expected = [1] if keep else [predicted, 1 - predicted][:top]
        assert [target["index"] for target in sample["targets"]] == expected


def test_layers_inside_another_layer_are_left_out(world: Path) -> None:
    """Under a rule that does not look at the input, what comes before the first layer has no relevance of its own."""
    graph = CASES_OF_COMPOSITION["stacked"]
    nodes = [*graph.nodes, Node("relu", ReLU(), ("first",)), Node("flat", Flatten(), ("relu",))]
    size = int(np.prod(graph.shapes["first"]))
    nodes.append(Node("head", Dense(np.random.default_rng(2).normal(size=(3, size))), ("flat",)))
    net = pylrp.Network.from_graph(Graph(graph.inputs, nodes, ["head"]))
    x = np.random.default_rng(3).random((2, *graph.shapes["input"])).astype(net.dtype)
    inner = next(node.name for node in graph.nodes if "pool" in node.name)
    composite = pylrp.Composite("flat first", pylrp.Epsilon(), first=pylrp.Flat())
    with pytest.raises(pylrp.errors.AbsorbedValue):
        net.explain(x, composite=composite, layers=[inner])
    report = Report(net)
    report.add(x, composites=[composite, "epsilon"])
    for sample in samples_of(report.html()):
        absorbed, other = ([layer["name"] for layer in each[0]["layers"]] for each in sample["explanations"])
        assert inner in other
        assert absorbed == ["first"]
    net.save("net.npz")
    np.save("x.npy", x)
    assert main(["explain", "net.npz", "x.npy", "-o", "r.html", "-q", "--rule", "first=Flat()"]) == 0
    shown = samples_of(Path("r.html").read_text(encoding="utf-8"))[0]["explanations"][0][0]["layers"]
    assert [layer["name"] for layer in shown] == ["first"]
