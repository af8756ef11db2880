"""The HTML report without a browser: what it holds is what was explained, and nothing in it can run or connect.

``tests/browser`` looks at the page itself.
"""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import pylrp
from pylrp.layers import LSTM, Add, AveragePool, Conv, Dense, Flatten, ReLU, Sigmoid, Softmax
from pylrp.network.graph import Graph, Node
from pylrp.network.ledger import COLUMNS
from pylrp.present.numbers import percent
from pylrp.present.text import shown as readable
from pylrp.report import Report
from pylrp.report.encode import block_sum, packed

NASTY = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\u2028"


class Page(HTMLParser):
    """Elements with their attributes and text, as a browser would find them."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        self.elements.append([None, {}, ""])  # what follows is no longer its text

    def handle_data(self, data):
        if self.elements:
            self.elements[-1][2] += data

    def all(self, tag):
        return [(attrs, text) for t, attrs, text in self.elements if t == tag]


def data_of(report):
    return json.loads(next(text for attrs, text in Page(report.html()).all("script") if attrs.get("id") == "data"))


def unpack(entry):
    values = np.frombuffer(base64.b64decode(entry["data"]), "<i2") * entry["scale"]
    return values.reshape(entry["shape"])


def softmax(z):
    return np.exp(np.asarray(z, float)) / np.exp(np.asarray(z, float)).sum()


@pytest.fixture
def photo_net(rng):
    return pylrp.Network(
        [
            Conv(rng.normal(size=(6, 3, 3, 3)), rng.normal(size=6), padding=1, name="stem"), ReLU(), AveragePool(2),
            Conv(rng.normal(size=(5, 6, 3, 3)), name="block"), ReLU(), Flatten(),
            Dense(rng.normal(size=(4, 5 * 4 * 6)), rng.normal(size=4), name="head"),
        ],
        input_shape=(3, 12, 16),
    )  # fmt: skip


@pytest.fixture
def table_net():
    return pylrp.Network([Dense([[1.0, -1.0], [0.5, 2.0]], [0.0, 0.5]), ReLU(), Dense([[1.0, 1.0], [0.0, 1.0]])])


def test_maps_are_those_of_explain(photo_net, rng):
    X = rng.random((2, 3, 12, 16))
    composites = ("epsilon", "epsilon_plus_flat")
    report = Report(photo_net)
    report.add(X, composites=composites, targets=[2, 0])
    samples = data_of(report)["samples"]
    assert len(report) == len(samples) == 2
    for i, sample in enumerate(samples):
        for composite, by_target in zip(composites, sample["explanations"], strict=True):
            for target, shown in zip([2, 0], by_target, strict=True):
                ex = photo_net.explain(X[i], target=target, composite=composite, layers="all")
                R = ex.relevance.sum(axis=0)
                np.testing.assert_allclose(unpack(shown["maps"][0]), R, atol=np.abs(R).max() / 65000)
                assert shown["reached"] == pytest.approx(R.sum(), rel=1e-12)
                rows = np.array([[row[c] for c in COLUMNS] for row in shown["ledger"]])
                np.testing.assert_allclose(rows, ex.ledger.data[::-1, :, 0], rtol=1e-9, atol=1e-12)
                assert [row["layer"] for row in shown["ledger"]] == list(ex.ledger.names)[::-1]
                block = next(layer for layer in shown["layers"] if layer["name"] == "block")
                inner = ex.layers["block"]
                np.testing.assert_allclose(
                    unpack(block["map"]), inner.sum(axis=0), atol=np.abs(inner.sum(axis=0)).max() / 65000
                )
                best = int(np.abs(inner.sum(axis=(1, 2))).argmax())
                assert block["channels"][0]["index"] == best
                assert block["channels"][0]["sum"] == pytest.approx(inner[best].sum(), rel=1e-5)


def test_scores_and_probabilities_are_those_of_the_network(photo_net, rng):
    x = rng.random((3, 12, 16))
    logits = photo_net.forward(x) / 1.0
    report = Report(photo_net, labels={int(logits.argmax()): "winner"})
    report.add(x, top=2)
    (sample,) = data_of(report)["samples"]
    order = np.argsort(-logits)[:2]
    assert [t["index"] for t in sample["targets"]] == order.tolist()
    assert [t["label"] for t in sample["targets"]] == ["winner", f"class {order[1]}"]
    np.testing.assert_allclose([t["score"] for t in sample["targets"]], logits[order])
    np.testing.assert_allclose([t["probability"] for t in sample["targets"]], softmax(logits)[order])
    assert sample["answer"] == "winner"
    assert "softmax of the network's 4 outputs" in sample["how"]
    assert percent(softmax(logits)[order[1]]) in "".join(sample["certainty"])


def test_the_code_finds_the_same_relevance_again(photo_net, rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = rng.random((3, 12, 16))
    mine = pylrp.Composite("mine", pylrp.Epsilon(0.01), {"conv": pylrp.Gamma(0.1)}, first=pylrp.ZBox(0, 1))
    report = Report(photo_net)
    report.add(x, composites=mine, top=1)
    (sample,) = data_of(report)["samples"]
    np.save("input.npy", x)
    photo_net.save("model.pylrp.npz")
    names = {}
    exec(sample["code"], names)
    R = names["ex"].relevance[0].sum(axis=0)
    np.testing.assert_allclose(unpack(sample["explanations"][0][0]["maps"][0]), R, atol=np.abs(R).max() / 65000)
    assert hashlib.sha256(x.tobytes()).hexdigest() in sample["code"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_code_of_a_small_input_has_it_within(rng, tmp_path, monkeypatch, dtype):
    monkeypatch.chdir(tmp_path)
    net = pylrp.Network([Dense(rng.normal(size=(2, 6)).astype(dtype)), ReLU(), Dense(np.eye(2, dtype=dtype))])
    net.save("model.pylrp.npz")
    x = rng.normal(size=6).astype(dtype)
    report = Report(net)
    report.add(x, composites=[pylrp.Composite("mine", pylrp.ZPlus(), names={"0": pylrp.Gamma(0.5)})])
    (sample,) = data_of(report)["samples"]
    names = {}
    exec(sample["code"], names)
    assert names["x"].dtype == dtype
    np.testing.assert_array_equal(names["x"], x)
    for at, R in enumerate(names["ex"].relevance):
        np.testing.assert_allclose(sample["explanations"][0][at]["maps"][0]["values"], R, rtol=1e-5, atol=1e-7)


def test_the_code_of_several_inputs_runs(rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = [Node("sum", Add(), ("a", NASTY)), Node("top", Dense(rng.normal(size=(2, 100))), ("sum",))]
    net = pylrp.Network.from_graph(Graph({"a": (100,), NASTY: (100,)}, layers, ["top"]))
    net.save("model.pylrp.npz")
    x = {name: rng.normal(size=100) for name in net.graph.inputs}
    for number, array in enumerate(x.values()):
        np.save(f"input{number}.npy", array)
    report = Report(net)
    report.add(x, composites="epsilon", top=1)
    names = {}
    exec(data_of(report)["samples"][0]["code"], names)
    ex = net.explain(x, composite="epsilon")
    for name in net.graph.inputs:
        np.testing.assert_array_equal(names["ex"].relevance[name][0], ex.relevance[name])


def test_a_table_has_its_features_and_says_which_count_most(table_net):
    x = np.array([3.0, 1.0])  # hidden 2 and 4, outputs 6 and 4
    report = Report(table_net, labels=["stop", "go"])
    report.add(x, name="Tuesday", feature_names=["speed", "weight"], composites="epsilon", top=1)
    (sample,) = data_of(report)["samples"]
    assert sample["inputs"][0] == {
        "name": "input", "kind": "table", "shape": [2], "names": ["speed", "weight"], "values": [3, 1],
    }  # fmt: skip
    shown = sample["explanations"][0][0]
    # By hand: hidden 0 is 3 - 1, hidden 1 is 1.5 + 2 + 0.5, each handed down as it is.
    assert shown["maps"][0]["values"] == pytest.approx([4.5, 1], rel=1e-5)
    assert "".join(shown["where"][0]).endswith("Most for it: speed (4.5) and weight (1).")
    assert "".join(shown["account"]) == (
        "Of its score 6, 5.5 was traced to the inputs; "
        "0.5 stayed in the network's biases (fixed numbers it adds whatever it sees)."
    )


@pytest.mark.parametrize(
    ("x", "answer", "other", "sign"), [([3.0, 1.0], "ill", "well", 1), ([0.0, 3.0], "well", "ill", -1)]
)
def test_one_output_decides_between_two_classes(x, answer, other, sign):
    net = pylrp.Network([Dense([[1.0, -1.0]], [0.25])])
    report = Report(net, labels=["well", "ill"], probability="sigmoid")
    report.add(np.array(x), composites="epsilon")
    (sample,) = data_of(report)["samples"]
    logit = x[0] - x[1] + 0.25
    assert sample["answer"] == answer
    (target,) = sample["targets"]
    assert target["label"] == answer
    assert target["score"] == pytest.approx(abs(logit))
    assert target["probability"] == pytest.approx(1 / (1 + np.exp(-abs(logit))))
    shown = sample["explanations"][0][0]
    assert shown["maps"][0]["values"] == pytest.approx([sign * x[0], -sign * x[1]], rel=1e-5)
    assert shown["ledger"][0]["bias"] == pytest.approx(sign * 0.25, rel=1e-5)
    assert f"for “{answer}”" in "".join(shown["where"][0])
    assert f"for “{other}”" in "".join(shown["where"][0])


@pytest.mark.parametrize(
    ("layers", "probability", "expected"),
    [
        ([Dense(np.eye(2))], "auto", [0.7310586, 0.2689414]),
        ([Dense(np.eye(2))], "sigmoid", [0.8807971, 0.7310586]),
        ([Dense(np.eye(2)), Sigmoid()], "auto", [0.8807971, 0.7310586]),
        ([Dense(np.eye(2))], None, [None, None]),
        ([Dense(np.array([[1.0, 0.0]]))], "auto", [None]),
    ],
)
def test_what_a_probability_is(layers, probability, expected):
    report = Report(pylrp.Network(layers), probability=probability)
    report.add(np.array([2.0, 1.0]))
    (sample,) = data_of(report)["samples"]
    found = [t["probability"] for t in sample["targets"]]
    assert found == (expected if expected[0] is None else pytest.approx(expected, rel=1e-6))
    assert bool(sample["how"]) == (expected[0] is not None)


def test_a_kept_softmax_gives_the_probabilities():
    graph = Graph.sequential([Dense(np.eye(2)), Softmax()])
    report = Report(pylrp.Network.from_graph(graph, keep_top=True))
    report.add(np.array([2.0, 1.0]))
    (sample,) = data_of(report)["samples"]
    assert [t["probability"] for t in sample["targets"]] == pytest.approx(softmax([2, 1]))
    assert sample["targets"][0]["score"] == pytest.approx(softmax([2, 1])[0])


def test_an_image_gives_a_flat_input_its_shape(rng):
    net = pylrp.Network([Dense(rng.normal(size=(3, 24)))])
    image = rng.integers(0, 256, (4, 6), np.uint8)
    report = Report(net)
    report.add(np.stack([image, image]).reshape(2, 24) / 255, image=[image, image], composites="epsilon")
    sample = data_of(report)["samples"][1]
    assert sample["name"] == "sample 2"
    assert sample["inputs"][0]["kind"] == "image"
    assert sample["explanations"][0][0]["maps"][0]["shape"] == [4, 6]
    assert sample["inputs"][0]["image"].startswith("data:image/png;base64,")


def test_signals_several_inputs_and_outputs_with_positions(rng):
    conv = Conv(rng.normal(size=(2, 1, 3)), padding=1)
    nodes = [Node("a", conv, ("left",)), Node("b", conv, ("right",)), Node("sum", Add(), ("a", "b"))]
    net = pylrp.Network.from_graph(Graph({"left": (1, 9), "right": (1, 9)}, nodes, ["sum"]))
    x = {"left": rng.random((1, 9)), "right": rng.random((1, 9))}
    report = Report(net)
    report.add(x, composites="epsilon", targets=[1])
    (sample,) = data_of(report)["samples"]
    assert [i["kind"] for i in sample["inputs"]] == ["signal", "signal"]
    shown = sample["explanations"][0][0]
    ex = net.explain(x, target=1, composite="epsilon")
    for entry, name in zip(shown["maps"], x, strict=True):
        np.testing.assert_allclose(unpack(entry), ex.relevance[name], atol=np.abs(ex.relevance[name]).max() / 65000)
    assert sample["targets"][0]["probability"] is None
    assert sample["targets"][0]["score"] == pytest.approx(net.forward(x)[1].sum())
    assert shown["reached"] == pytest.approx(sum(r.sum() for r in ex.relevance.values()))


def test_many_features_are_shown_together_and_each_for_itself(rng):
    net = pylrp.Network([LSTM(rng.normal(size=(16, 13)), rng.normal(size=(16, 4)))], input_shape=(500, 13))
    x = rng.normal(size=(500, 13))
    report = Report(net)
    report.add(x, composites="cp_lrp", targets=[1])
    (sample,) = data_of(report)["samples"]
    relevance = net.explain(x, target=1, composite="cp_lrp").relevance.T
    entry = sample["explanations"][0][0]["maps"][0]
    room = np.abs(relevance).max() / 30000
    np.testing.assert_allclose(unpack(entry), relevance.sum(0, keepdims=True), atol=13 * room)
    assert sample["inputs"][0]["rows"] == {"count": 13, "names": None, "block": 2}
    wanted = np.pad(relevance, ((0, 1), (0, 0))).reshape(7, 2, 250, 2).sum((1, 3))
    np.testing.assert_allclose(unpack(entry["by_row"]), wanted, atol=4 * room)


def test_channels_last_and_volumes_are_maps_of_height_and_width(rng):
    conv = Node("c", Conv(rng.normal(size=(2, 3, 3, 3))), ("input",))
    graph = Graph({"input": (3, 7, 9)}, [conv], ["c"], channels_last=["input"])
    report = Report(pylrp.Network.from_graph(graph))
    report.add(rng.random((7, 9, 3)), targets=[0])
    volume = Report(pylrp.Network([Conv(rng.normal(size=(2, 1, 3, 3, 3)))], input_shape=(1, 5, 7, 9)))
    volume.add(rng.random((1, 5, 7, 9)), targets=[0])
    for each in (report, volume):
        assert data_of(each)["samples"][0]["explanations"][0][0]["maps"][0]["shape"] == [7, 9]


def test_a_photograph_stays_small(rng):
    net = pylrp.Network(
        [Conv(rng.normal(size=(8, 3, 7, 7)).astype(np.float32), stride=4), ReLU(), AveragePool(5), Flatten(),
         Dense(rng.normal(size=(10, 8 * 11 * 11)).astype(np.float32))], input_shape=(3, 224, 224)
    )  # fmt: skip
    image = rng.integers(0, 256, (224, 224, 3), np.uint8)  # noise: nothing is harder to compress
    report = Report(net)
    report.add(image.transpose(2, 0, 1).astype(np.float32) / 255, image=image)
    assert len(report.html().encode()) < 1.5e6


def test_nothing_that_is_passed_in_becomes_markup(table_net, tmp_path):
    report = Report(table_net, labels=[NASTY, "b"], title=NASTY)
    composite = pylrp.Composite(NASTY, pylrp.Epsilon())
    report.add(np.array([3.0, 1.0]), name=NASTY, feature_names=[NASTY, "w"], composites=composite)
    report.write(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text("utf-8")
    page = Page(text)
    assert len(page.all("script")) == 2
    assert not page.all("img")
    nasty = readable(NASTY)  # its control characters by their numbers
    assert page.all("title")[0][1] == nasty
    data = json.loads(page.all("script")[0][1])
    assert data["title"] == data["samples"][0]["name"] == data["samples"][0]["answer"] == nasty
    assert data["samples"][0]["inputs"][0]["names"][0] == nasty
    assert data["samples"][0]["composites"] == [NASTY]


@pytest.mark.slow
@given(st.text())
def test_any_text_comes_through(text):
    net = pylrp.Network([Dense(np.eye(2))])
    report = Report(net, labels=[text, "b"])
    report.add(np.array([2.0, 1.0]), name=text)
    page = Page(report.html())
    assert len(page.all("script")) == 2
    sample = json.loads(page.all("script")[0][1])["samples"][0]
    assert (sample["name"], sample["answer"]) == (readable(text), readable(text))


def test_the_policy_admits_these_scripts_and_nothing_else(table_net):
    report = Report(table_net)
    report.add(np.array([3.0, 1.0]))
    text = report.html()
    page = Page(text)
    policy = next(a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        inner = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert set(re.findall(r"https?://[^\s'\"<>\\]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|<link|innerHTML|\bstyle=", text)


@given(npst.arrays(np.float64, npst.array_shapes(max_dims=2, max_side=9), elements=st.floats(-1e6, 1e6)))
def test_packing_keeps_sixteen_bits(values):
    np.testing.assert_allclose(unpack(packed(values)), values, atol=np.abs(values).max() / 65000 + 1e-300, rtol=0)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12))
def test_blocks_keep_the_sum(height, width, most):
    plane = np.arange(height * width, dtype=float).reshape(height, width)
    blocks, n = block_sum(plane, most)
    assert max(blocks.shape) <= most
    assert blocks.sum() == plane.sum()
    assert blocks[0, 0] == plane[:n, :n].sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_names": ["a"]}, "1 feature_names for 2 features"),
        ({"image": np.zeros((3, 3), np.uint8)}, "image has 3 x 3 pixels, the input 2 features"),
        ({"composites": []}, "composites is empty"),
        ({"composites": ["epsilon", "epsilon"]}, "two composites are called 'epsilon'"),
        ({"composites": "nonsense"}, "unknown composite 'nonsense'"),
        ({"targets": []}, "nothing to explain"),
        ({"top": 0}, "nothing to explain"),
        ({"targets": [7]}, "7"),
        ({"name": ["a", "b"]}, "2 names for 1 samples"),
        ({"output": "relu0"}, "output must be one of 1, got 'relu0'"),
    ],
)
def test_errors_say_what_to_do_and_add_nothing(table_net, options, message):
    report = Report(table_net)
    with pytest.raises(ValueError, match=message):
        report.add(np.array([3.0, 1.0]), **options)
    assert len(report) == 0
    with pytest.raises(ValueError, match="the report is empty"):
        report.html()


def test_more_errors(table_net, photo_net, rng):
    with pytest.raises(ValueError, match="3 labels for 2 outputs"):
        Report(table_net, labels=["a", "b", "c"])
    with pytest.raises(ValueError, match="probability must be"):
        Report(table_net, probability="maybe")
    x = rng.random((3, 12, 16))
    report = Report(photo_net)
    with pytest.raises(TypeError, match="image is float64, expected uint8"):
        report.add(x, image=x)
    with pytest.raises(ValueError, match="pass the part of the picture that the network saw"):
        report.add(x, image=np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="feature_names are for a flat input"):
        report.add(x, feature_names=["a"])
    with pytest.raises(ValueError, match="1 images for 2 samples"):
        report.add(np.stack([x, x]), image=[np.zeros((12, 16), np.uint8)])
    report.add(x, composites=pylrp.Composite("mine", pylrp.Epsilon()))
    with pytest.raises(ValueError, match="another composite in this report is called 'mine'"):
        report.add(x, composites=pylrp.Composite("mine", pylrp.ZPlus()))


def test_importing_needs_numpy_only_and_pictures_say_what_they_need(tmp_path):
    code = (
        "import sys, numpy as np, pylrp, pylrp.report; from pylrp.layers import Conv\n"
        "assert not {'PIL', 'matplotlib'} & set(sys.modules); sys.modules['PIL'] = None\n"
        "report = pylrp.report.Report(pylrp.Network([Conv(np.ones((1, 1, 2, 2)))], input_shape=(1, 4, 4)))\n"
        "try: report.add(np.ones((1, 4, 4)), targets=[0])\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "pip install pillow" in run.stdout
