"""Names, order and two classes where they are used: evaluation, report, pictures, command line; by hand in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.cli import main
from pylrp.evaluate import evaluate
from pylrp.layers import Dense, Sigmoid
from pylrp.network.columns import Table
from pylrp.network.graph import Facts, Graph
from pylrp.report import Report

NAMES = ("age", "height", "weight")
W = np.array([[1.0, -2.0, 0.5]])
X = np.array([[1.0, 2.0, 3.0], [4.0, 0.5, -1.0], [0.5, 2.0, 2.0], [3.0, 1.0, 1.0]])
ORDER = [2, 0, 1]
Z = X @ W.T  # of both signs


def network(classes: Any = ("no", "yes"), W: Any = W, **facts: Any) -> pylrp.Network:
    graph = Graph.sequential([Dense(W, name="z")], (3,))
    return pylrp.Network.from_graph(
        graph.changed(facts=Facts(classes=classes, features={"input": NAMES}, **facts), notes=["a note on loading"])
    )


def shuffled() -> Table:
    return Table(X[:, ORDER], [NAMES[i] for i in ORDER])


class TestEvaluation:
    def test_columns_in_another_order(self) -> None:
        rules = {"epsilon": pylrp.Epsilon(0.0)}
        mine = evaluate(network(), shuffled(), rules, checks=("flipping",), steps=3, repeats=1, replacement=0.0)
        plain = evaluate(network(), X, rules, checks=("flipping",), steps=3, repeats=1, replacement=0.0)
        np.testing.assert_allclose(mine.relevance["epsilon"], (X * W)[:, ORDER])
        for order, scores in mine.curves["epsilon"].scores.items():
            np.testing.assert_array_equal(scores, plain.curves["epsilon"].scores[order])

    @pytest.mark.parametrize(("target", "sign"), [(None, 1), (1, 1), (0, -1), ("no", -1)])
    def test_two_classes(self, target: Any, sign: int) -> None:
        found = evaluate(
            network(), X, {"epsilon": pylrp.Epsilon(0.0)}, target=target, checks=("flipping",), steps=3, repeats=1,
            replacement=0.0,
        )  # fmt: skip
        np.testing.assert_allclose(found.relevance["epsilon"], sign * X * W)
        most = found.curves["epsilon"].scores["most"]
        np.testing.assert_allclose(most.reshape(len(X), -1)[:, 0], sign * Z[:, 0])
        first = (sign * X * W).max(axis=1)
        np.testing.assert_allclose(most.reshape(len(X), -1)[:, 1], sign * Z[:, 0] - first)

    def test_labels_that_are_integers(self) -> None:
        net = network((1, 2, 3), np.vstack([W, -W, 2 * W]))
        ex = net.explain(X, composite="epsilon")
        found = evaluate(net, X, ["epsilon"], checks=("flipping",), steps=3, repeats=1)
        np.testing.assert_allclose(found.relevance["epsilon"], ex.relevance)
        with pytest.raises(ValueError, match="class_index"):
            evaluate(net, X, ["epsilon"], target=1, checks=("flipping",), steps=3, repeats=1)


class TestReport:
    def test_two_classes_and_columns(self) -> None:
        report = Report(network())
        report.add(shuffled(), composites=pylrp.Epsilon(0.0))
        for i, sample in enumerate(report._samples):
            z = Z[i, 0]
            best = "yes" if z > 0 else "no"
            assert sample["answer"] == best
            assert [t["label"] for t in sample["targets"]] == (["yes", "no"] if z > 0 else ["no", "yes"])
            np.testing.assert_allclose([t["score"] for t in sample["targets"]], [abs(z), -abs(z)])
            p = 1 / (1 + np.exp(-abs(z)))
            np.testing.assert_allclose([t["probability"] for t in sample["targets"]], [p, 1 - p])
            reached = [one["reached"] for one in sample["explanations"][0]]
            np.testing.assert_allclose(reached, [abs(z), -abs(z)])
            for name, value in zip(NAMES, X[i], strict=True):
                assert name in json.dumps(sample["inputs"]), value
        notes = report.html().count("were put into the network")
        assert notes == 1
        assert report.html().count("a note on loading") >= 1

    def test_a_class_by_its_label(self) -> None:
        report = Report(network())
        report.add(X, composites=pylrp.Epsilon(0.0), targets=["no"])
        reached = [sample["explanations"][0][0]["reached"] for sample in report._samples]
        np.testing.assert_allclose(reached, -Z[:, 0])

    def test_a_probability_that_was_kept(self) -> None:
        graph = Graph.sequential([Dense(W, name="z"), Sigmoid()], (3,))
        net = pylrp.Network.from_graph(graph.changed(facts=Facts(classes=("no", "yes"))), keep_softmax=True)
        if not isinstance(net.graph.nodes[-1].layer, Sigmoid):
            pytest.skip("the sigmoid was removed")
        with pytest.raises(ValueError, match="probability of class 1"):
            net.explain(X, "no")
        assert net.explain(X).target.tolist() == [1] * 4
        Report(net).add(X)


class TestPictures:
    def test_have_the_names(self) -> None:
        pytest.importorskip("matplotlib")
        net = network()
        for x, names in ((X, NAMES), (shuffled(), [NAMES[i] for i in ORDER])):
            ex = net.explain(x, 0, pylrp.Epsilon(0.0))
            (ax,) = ex.plot(sample=0).axes
            shown = [label.get_text() for label in ax.get_yticklabels()]
            order = np.argsort(-np.abs((X * W)[0]), kind="stable")
            found = [next(name for name in names if name in text) for text in shown]
            assert found == [NAMES[i] for i in order]
            assert f"{-Z[0, 0]:.2g}"[:3].lstrip("-") in ax.get_xlabel() + "".join(t.get_text() for t in ax.texts)

    def test_have_the_names_in_a_grid(self) -> None:
        pytest.importorskip("matplotlib")
        ex = network().explain(shuffled(), 1, pylrp.Epsilon(0.0))
        figure = pylrp.plot.grid({"epsilon": ex}, samples=[0])
        text = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert all(any(name in one for one in text) for name in NAMES)


class TestCommandLine:
    def explain(self, folder: Path, *options: str, classes: Any = ("no", "yes"), W: Any = W) -> tuple[int, Any]:
        network(classes, W).save(folder / "net.pylrp.npz")
        lines = [",".join(NAMES[i] for i in ORDER), *(",".join(map(str, row)) for row in X[:, ORDER])]
        (folder / "rows.csv").write_text("\n".join(lines) + "\n")
        out = folder / "out.npz"
        out.unlink(missing_ok=True)
        code = main(["explain", str(folder / "net.pylrp.npz"), str(folder / "rows.csv"), "-o", str(out),
                     "--rule", "*=Epsilon(0)", *options])  # fmt: skip
        return code, np.load(out) if out.exists() else None

    @pytest.mark.parametrize(("options", "sign"), [((), 1), (("--target", "no"), -1), (("--target", "0"), -1)])
    def test_columns_and_two_classes(self, tmp_path: Path, capsys: Any, options: Any, sign: int) -> None:
        code, found = self.explain(tmp_path, *options)
        assert code == 0
        np.testing.assert_allclose(found["relevance"], sign * (X * W)[:, ORDER])
        assert found["features"].tolist() == [NAMES[i] for i in ORDER]
        printed = capsys.readouterr().out
        assert printed.count("note: a note on loading") == 1
        assert printed.count("note: x: columns") == 1
        assert ("yes" in printed) == (sign == 1)
        assert f"{sign * Z[0, 0]:.4g}" in printed
        assert f"{100 / (1 + np.exp(-sign * Z[0, 0])):.1f} %" in printed

    def test_integers_are_labels_where_the_classes_are_others(self, tmp_path: Path) -> None:
        rows = np.vstack([W, -W, 2 * W])
        code, found = self.explain(tmp_path, "--target", "2", classes=(1, 2, 3), W=rows)
        assert code == 0
        np.testing.assert_allclose(found["relevance"], -(X * W)[:, ORDER])
        assert self.explain(tmp_path, "--target", "0", classes=(1, 2, 3), W=rows)[0] != 0

    def test_other_columns(self, tmp_path: Path, capsys: Any) -> None:
        network().save(tmp_path / "net.pylrp.npz")
        (tmp_path / "rows.csv").write_text("age,height,width\n1,2,3\n")
        assert main(["explain", str(tmp_path / "net.pylrp.npz"), str(tmp_path / "rows.csv"), "-o", "out.npz"]) != 0
        assert "'weight'" in capsys.readouterr().err
