"""What notebooks show of networks, summaries, ledgers, reports and measures: tables that hold their own numbers."""

from __future__ import annotations

import pickle
from html.parser import HTMLParser

import numpy as np
import pytest

import pylrp
from pylrp.demo import load_demo_network
from pylrp.evaluate import evaluate
from pylrp.layers import Dense, ReLU
from pylrp.network.graph import Facts, Graph
from pylrp.report import Report

HOSTILE = "<script>alert(1)</script>&$x$"


class Tables(HTMLParser):
    """The cells of all tables in a piece of HTML, and the text around them."""

    def __init__(self, html: str):
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.tags == [], "every tag is closed"

    def handle_starttag(self, tag, attrs):
        assert tag in {"div", "table", "thead", "tbody", "tr", "th", "td"}, tag
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.tags.pop() == tag

    def handle_data(self, data):
        if self.tags[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += data
        else:
            self.text += data + "\n"


def table(html: str) -> list[list[str]]:
    (found,) = Tables(html).tables
    assert {len(row) for row in found} == {len(found[0])}
    return found


@pytest.fixture(scope="module")
def net():
    rng = np.random.default_rng(1)
    graph = Graph.sequential(
        [Dense(rng.normal(size=(5, 20)), name=HOSTILE), ReLU(), Dense(rng.normal(size=(3, 5)), name="top")], (20,)
    )
    return pylrp.Network.from_graph(graph.changed(notes=[f"a note on {HOSTILE}"]))


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(2).random((6, 20))


def test_summary_and_network(net):
    summary = net.summary("epsilon")
    rows = table(summary._repr_html_())
    assert rows[0] == ["layer", "kind", "rule", "output", "parameters"]
    assert rows[1:] == [
        ["input", "input", "", "(20,)", ""],
        [HOSTILE, "dense", "Epsilon(1e-06)", "(5,)", "100"],
        ["relu0", "relu", "passes", "(5,)", ""],
        ["top", "dense", "Epsilon(1e-06)", "(3,)", "15"],
    ]
    assert f"note: a note on {HOSTILE}" in Tables(summary._repr_html_()).text
    assert isinstance(summary, str)
    assert "<" not in summary.replace(HOSTILE, "")
    again = pickle.loads(pickle.dumps(summary))
    assert (str(again), again._repr_html_()) == (str(summary), summary._repr_html_())
    assert table(net._repr_html_()) == table(net.summary()._repr_html_())


def test_ledger(net, x):
    ledger = net.explain(x, composite="epsilon").ledger
    rows = table(ledger._repr_html_())
    assert rows[0][:3] == ["layer", "incoming", "outgoing"]
    for row, page in zip(rows[1:], ledger.data[::-1].sum(axis=2), strict=True):
        np.testing.assert_allclose([float(cell) for cell in row[1:3]], page[:2], rtol=1e-3)
    assert len(table(ledger._repr_html_())) == len(ledger.table().splitlines())


def test_comparison():
    W, b = load_demo_network()
    hidden = np.maximum(W[0] @ np.ones(784, np.float32) + b[0], 0)
    found = pylrp.compare(W, [np.ones(784, np.float32), hidden], np.eye(10, dtype=np.float32)[3])
    rows = table(found._repr_html_())
    assert rows[0] == ["layer", *found.relevance]
    assert [row[0] for row in rows[1:]] == ["output", "R_1", "input"]
    for at, name in enumerate(found.relevance, start=1):
        shown = [float(row[at].split()[0]) for row in rows[:0:-1]]
        np.testing.assert_allclose(shown, found.difference(name), rtol=0.01)


def test_evaluation_and_its_parts(net, x):
    found = evaluate(net, x, {HOSTILE: "epsilon", "flat": "epsilon_plus"}, steps=4, repeats=1, draws=2)
    html = found._repr_html_()
    main, spearman, overlap = Tables(html).tables
    assert main[0][:2] == ["composite", "ABPC"]
    by_name = {row[0]: row for row in main[2:]}
    for name, curves in found.curves.items():
        assert float(by_name[name][1]) == pytest.approx(curves.abpc.mean(), rel=0.01)
        assert table(curves._repr_html_())[1][1] == f"{curves.aopc['most'].mean():.4g}"
        inserted = found.insertion[name]
        assert table(inserted._repr_html_())[2][1] == f"{inserted.insertion_auc.mean():.4g}"
        assert table(found.sensitivity[name]._repr_html_())[1][1] == f"{found.sensitivity[name].maximum.mean():.4g}"
        stages = table(found.randomisation[name]._repr_html_())
        assert [row[1] for row in stages[1:]] == [f"{v:.3f}" for v in found.randomisation[name].spearman.mean(axis=0)]
    assert found.agreement is not None
    assert spearman[1][2] == f"{found.agreement.spearman[0, 1].mean():.2f}"
    assert overlap[2][1] == f"{found.agreement.overlap[1, 0].mean():.2f}"


def test_report(net, x):
    report = Report(net, labels=[HOSTILE, "b", "c"], title=HOSTILE)
    assert len(table(report._repr_html_())) == 1
    report.add(x[:2], name=["one", HOSTILE], targets=[0])
    rows = table(report._repr_html_())
    assert [row[0] for row in rows[1:]] == ["one", HOSTILE]
    logits = net.forward(x[:2])
    for row, z in zip(rows[1:], logits, strict=True):
        assert row[1] == [HOSTILE, "b", "c"][int(z.argmax())]
        assert row[3].startswith(HOSTILE)
    assert HOSTILE in Tables(report._repr_html_()).text
    assert "2 samples" in repr(report)


def test_labels_of_classes_are_text(x):
    graph = Graph.sequential([Dense(np.ones((2, 20)), name="z")], (20,))
    report = Report(pylrp.Network.from_graph(graph.changed(facts=Facts(classes=("<b>", "&amp;")))))
    report.add(x[0])
    assert {"<b>", "&amp;"} & {row[1] for row in table(report._repr_html_())}
