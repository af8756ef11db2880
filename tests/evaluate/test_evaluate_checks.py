"""Randomised weights, noise, agreement, and all of it together: against hand-worked cases and SciPy."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import pylrp
from pylrp.evaluate import (
    Randomisation,
    Sensitivity,
    agreement,
    evaluate,
    insertion_deletion,
    pixel_flipping,
    randomisation,
    randomised,
    sensitivity,
)
from pylrp.evaluate.random_weights import with_weights
from pylrp.layers import Conv, Dense, Flatten, ReLU, Softmax


@pytest.fixture
def net(rng: np.random.Generator) -> pylrp.Network:
    layers = [Conv(rng.normal(size=(6, 2, 3, 3)), rng.normal(size=6)), ReLU(), Flatten()]
    layers += [Dense(rng.normal(size=(12, 96)), rng.normal(size=12)), ReLU(), Dense(rng.normal(size=(4, 12)))]
    return pylrp.Network(layers, input_shape=(2, 6, 6))


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(12, 2, 6, 6))


# Randomised weights


@pytest.mark.parametrize("weights", ["permute", "normal"])
def test_random_weights_destroy_the_correlation(net: pylrp.Network, x: np.ndarray, weights: str) -> None:
    found = randomisation(net, x, "epsilon", weights=weights)
    assert found.layers == ("2", "1", "0")
    np.testing.assert_array_equal(found.depths, [0, 1, 2, 3])
    for values in (found.spearman, found.spearman_absolute, found.cosine):
        assert values.shape == (12, 4)
        np.testing.assert_allclose(values[:, 0], 1)
    assert abs(found.spearman[:, -1].mean()) < 0.15
    assert abs(found.cosine[:, -1].mean()) < 0.15
    assert found.spearman[:, 1].mean() > found.spearman[:, -1].mean()
    assert "random down to" in found.table()
    assert len(found.plot().lines) == 3


def test_a_map_that_ignores_the_weights_is_found_out(net: pylrp.Network, x: np.ndarray) -> None:
    found = randomisation(net, x, [pylrp.Flat(), pylrp.Flat(), pylrp.Flat()])
    np.testing.assert_allclose(found.spearman[:, -1], 1, atol=1e-12)


def test_similarities_against_scipy(net: pylrp.Network, x: np.ndarray) -> None:
    found = randomisation(net, x, "epsilon", target=2, stages=1, seed=3)
    other = randomised(net, ["0", "1", "2"], seed=3)
    maps = [n.explain(x, 2, "epsilon", start="one").relevance.reshape(12, -1) for n in (net, other)]
    for sample, (a, b) in enumerate(zip(*maps, strict=True)):
        assert found.spearman[sample, 1] == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
        assert found.spearman_absolute[sample, 1] == pytest.approx(scipy.stats.spearmanr(abs(a), abs(b)).statistic)
        assert found.cosine[sample, 1] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_randomised_changes_what_is_named_and_nothing_else(net: pylrp.Network) -> None:
    layers = {node.name: node.layer for node in net.graph.nodes}
    top = {node.name: node.layer for node in randomised(net, ["2"], seed=1).graph.nodes}
    assert not np.array_equal(top["2"].weight, layers["2"].weight)
    np.testing.assert_array_equal(np.sort(top["2"].weight, axis=None), np.sort(layers["2"].weight, axis=None))
    for name in ("0", "1"):
        np.testing.assert_array_equal(top[name].weight, layers[name].weight)
    both = {node.name: node.layer for node in randomised(net, ["1", "2"], seed=1).graph.nodes}
    np.testing.assert_array_equal(both["2"].weight, top["2"].weight)  # a cascade goes on where it was
    assert not np.array_equal(both["1"].bias, layers["1"].bias)

    normal = {node.name: node.layer for node in randomised(net, ["1"], weights="normal").graph.nodes}
    assert normal["1"].weight.mean() == pytest.approx(layers["1"].weight.mean(), abs=0.1)
    assert normal["1"].weight.std() == pytest.approx(layers["1"].weight.std(), rel=0.1)
    with pytest.raises(ValueError, match="'relu0' is no layer with weights; these are: 0, 1, 2"):
        randomised(net, ["relu0"])
    with pytest.raises(ValueError, match="'permute' or 'normal'"):
        randomised(net, ["0"], weights="zero")


def test_a_layer_that_is_used_twice_stays_one(rng: np.random.Generator) -> None:
    twice = Dense(rng.normal(size=(5, 5)))
    net = pylrp.Network([twice, ReLU(), twice, Dense(rng.normal(size=(3, 5)))])
    assert with_weights(net.graph) == ["2", "0"]  # from the top, once each, by the first name
    nodes = {node.name: node.layer for node in randomised(net, ["0"]).graph.nodes}
    assert nodes["0"] is nodes["0_2"]
    assert not np.array_equal(nodes["0"].weight, twice.weight)


def test_a_softmax_that_was_kept_is_kept(rng: np.random.Generator) -> None:
    graph = pylrp.network.Graph.sequential([Dense(rng.normal(size=(3, 5))), Softmax()])
    net = pylrp.Network.from_graph(graph, keep_top=True)
    x = rng.normal(size=(2, 5))
    np.testing.assert_allclose(randomised(net, ["0"]).forward(x).sum(axis=1), 1)
    np.testing.assert_allclose(
        pixel_flipping(net, x, x, score="probability").scores["most"][:, 0], net.forward(x).max(axis=1)
    )


def test_a_map_that_becomes_constant_has_nothing_in_common() -> None:
    net = pylrp.Network([Dense([[2.0, 1.0], [-5.0, 0.5]]), ReLU(), Dense([[1.0, 0.0]])])
    for seed in range(20):  # until the weight from the first unit comes to rest on the second, which is dead
        x = np.array([[1.0, 1.0]])
        other = randomised(net, ["1"], seed=seed).explain(x, composite="epsilon", start="one").relevance
        if not other.any():
            found = randomisation(net, x, "epsilon", stages=2, seed=seed)
            assert found.spearman[0, 1] == found.cosine[0, 1] == 0
            return
    pytest.fail("no seed swaps two weights")


# Noise


def test_sensitivity_of_one_weight() -> None:
    """R = w x, so that the change is |noise| / |x|; the outer samples set the range, the middle one is free of it."""
    net = pylrp.Network([Dense([[3.0]])])
    x = np.array([[0.0], [2.0], [4.0]])
    found = sensitivity(net, x, pylrp.Zero(), radius=0.5, draws=400)
    assert found.changes.shape == (400, 3)
    assert np.isnan(found.changes[:, 0]).all()  # its map is 0
    assert found.maximum[1] == pytest.approx(0.25, rel=0.02)
    assert found.maximum[1] <= 0.25
    assert found.average[1] == pytest.approx(0.125, rel=0.1)
    assert found.changes[:, 2].min() == 0  # noise upwards is cut off at the range of x
    assert "largest" in found.table()


def test_radius() -> None:
    net = pylrp.Network([Dense([[1.0, 1.0]])])
    x = np.array([[0.0, 0.0], [1.0, 5.0]])
    assert sensitivity(net, x, "epsilon").radius == pytest.approx(0.1)
    still = sensitivity(net, np.array([[1.0, 0.0], [1.0, 5.0]]), pylrp.Zero(), radius=[0.0, 1.0], draws=50)
    assert 0 < still.maximum[1] <= 1 / np.sqrt(26)  # only the second feature moves
    for radius in (-1.0, 0.0, np.nan):
        with pytest.raises(ValueError, match="radius"):
            sensitivity(net, x, radius=radius)
    with pytest.raises(ValueError, match="draws is 0"):
        sensitivity(net, x, draws=0)


def test_noise_stays_within_a_box() -> None:
    """A z-box warns if the input leaves it, and warnings are errors here."""
    net = pylrp.Network([Dense([[1.0, -2.0], [0.5, 1.0]]), ReLU(), Dense([[1.0, 1.0]])])
    x = np.array([[0.0, 1.0], [1.0, 0.5]])
    assert np.isfinite(sensitivity(net, x, "deep_taylor_box").changes).all()


# Agreement


def test_agreement_by_hand_and_against_scipy(rng: np.random.Generator) -> None:
    found = agreement({"a": [[3.0, 2, 1, 0]], "b": [[9.0, 0, 1, 5]]}, k=2)
    assert found.spearman[0, 1] == pytest.approx(0.2)  # ranks 4 3 2 1 and 4 1 2 3: 1 - 6 * 8 / 60
    assert found.overlap[0, 1] == 0.5
    assert agreement({"a": [[3.0, 2, 1, 0]], "b": [[9.0, 0, 1, 5]]}, k=1).overlap[0, 1] == 1
    maps = {name: rng.normal(size=(3, 2, 5, 5)).round(1) for name in "abc"}
    found = agreement(maps, k=0.2)
    assert found.k == 10
    for i, p in enumerate("abc"):
        for j, q in enumerate("abc"):
            for sample in range(3):
                a, b = maps[p][sample].reshape(-1), maps[q][sample].reshape(-1)
                assert found.spearman[i, j, sample] == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    np.testing.assert_allclose(found.overlap[range(3), range(3)], 1)
    np.testing.assert_array_equal(found.overlap, found.overlap.swapaxes(0, 1))
    assert "by chance 0.20" in found.table()


def test_maps_that_have_nothing_to_do_with_each_other(rng: np.random.Generator) -> None:
    found = agreement({name: rng.normal(size=(40, 300)) for name in "ab"})
    assert abs(found.spearman[0, 1].mean()) < 0.03
    assert found.overlap[0, 1].mean() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("maps", "k", "words"),
    [
        ({}, 0.1, "maps is empty"),
        ({"a": np.ones((2, 3)), "b": np.ones((2, 4))}, 0.1, "'b' has shape"),
        ({"a": np.ones(3)}, 0.1, "expected"),
        ({"a": np.full((1, 3), np.nan)}, 0.1, "NaN"),
        ({"a": np.ones((1, 3))}, 4, "k is 4"),
        ({"a": np.ones((1, 3))}, 0, "k is 0"),
    ],
)
def test_mistakes_in_maps(maps: dict, k: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        agreement(maps, k=k)


# All together


def test_evaluate(net: pylrp.Network, x: np.ndarray, tmp_path) -> None:
    seen = []
    found = evaluate(
        net, x, {"eps": "epsilon", "mine": pylrp.Epsilon(0.1)}, steps=6, draws=2, target=1,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    R = net.explain(x, 1, "epsilon").relevance
    np.testing.assert_allclose(found.relevance["eps"], R)
    alone = pixel_flipping(net, x, R, target=1, steps=6)
    for order in ("most", "least"):
        np.testing.assert_allclose(found.curves["eps"].scores[order], alone.scores[order])
    assert found.curves["mine"].scores["random"] is found.curves["eps"].scores["random"]
    np.testing.assert_allclose(found.curves["eps"].mean["random"][[0, -1]], alone.mean["random"][[0, -1]])
    assert found.agreement is not None
    assert found.agreement.features == 36  # pixels: channels are summed
    table = found.table()
    for word in ("eps", "mine", "random order", "ABPC", "all random", "Spearman"):
        assert word in table
    figure = found.plot()
    assert len(figure.axes) == 4
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()

    found.save(tmp_path / "found.npz")
    with np.load(tmp_path / "found.npz") as saved:
        np.testing.assert_array_equal(saved["flipping/eps/most"], found.curves["eps"].scores["most"])
        np.testing.assert_array_equal(saved["relevance/mine"], found.relevance["mine"])
        assert saved["randomisation/eps/spearman"].shape == (12, 4)
        assert json.loads(str(saved["settings"]))["steps"] == 6


def test_best_composite_comes_first(net: pylrp.Network, x: np.ndarray) -> None:
    """Against the gradient's map upside down."""
    found = evaluate(net, x, ("excitation_backprop", "epsilon"), checks=("flipping",), steps=9)
    lines = found.table().splitlines()
    order = [line.split()[0] for line in lines[2:4]]
    assert order == sorted(order, key=lambda name: -found.curves[name].abpc.mean())
    assert found.agreement is None
    assert not found.insertion
    assert len([ax for ax in found.plot().axes if ax.axison]) == 3


def test_one_tabular_sample(rng: np.random.Generator) -> None:
    net = pylrp.Network([Dense(rng.normal(size=(6, 5))), ReLU(), Dense(rng.normal(size=(3, 6)))])
    found = evaluate(net, rng.normal(size=5), ("epsilon",), replacement=0.0, draws=2)
    assert "one sample" in found.table()
    assert found.plot().axes
    with pytest.raises(ValueError, match="nothing to draw"):
        evaluate(net, rng.normal(size=5), ("epsilon",), checks=("agreement",)).plot()


def test_mistakes(net: pylrp.Network, x: np.ndarray) -> None:
    with pytest.raises(ValueError, match="check 'magic' is unknown"):
        evaluate(net, x, checks=("magic",))
    with pytest.raises(ValueError, match="composites is empty"):
        evaluate(net, x, ())
    with pytest.raises(ValueError, match="no_such_composite"):
        evaluate(net, x, ("no_such_composite",))
    with pytest.raises(ValueError, match="stages is 0"):
        randomisation(net, x, stages=0)


def test_nothing_to_evaluate(net: pylrp.Network) -> None:
    x = np.empty((0, 2, 6, 6))
    calls = (
        lambda: pixel_flipping(net, x, x),
        lambda: insertion_deletion(net, x, x),
        lambda: randomisation(net, x),
        lambda: sensitivity(net, x),
        lambda: evaluate(net, x),
        lambda: agreement({"a": x}),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"^(x is empty: there is nothing to evaluate|map 'a' has shape .*)$"):
            call()


def test_each_finished_composite_is_handed_over(net: pylrp.Network, x: np.ndarray) -> None:
    seen = []
    asked = {"steps": 5, "draws": 2, "stages": 1, "repeats": 1}
    found = evaluate(net, x, ("epsilon", "deep_taylor"), finished=seen.append, **asked)
    assert [each.composites for each in seen] == [("epsilon",), ("epsilon", "deep_taylor")]
    assert seen[0].table() == evaluate(net, x, ("epsilon",), **asked).table()
    assert seen[1].table() == found.table()


@pytest.mark.parametrize(
    ("old", "result"),
    [
        ("pairs", lambda: agreement({"a": [[3.0, 2.0, 1.0]], "b": [[1.0, 2.0, 3.0]]}, k=1)),
        ("noise", lambda: Sensitivity(np.ones((2, 3)), np.array(0.1))),
        ("cascade", lambda: Randomisation(("head",), np.arange(2.0), *np.ones((3, 4, 2)))),
    ],
)
def test_pickles_of_results_keep_loading_by_the_modules_of_0_1(
    old: str, result: Callable[[], object], tmp_path: Path
) -> None:
    made = result()
    new = type(made).__module__
    text = pickle.dumps(made, protocol=0)
    assert new.encode() in text
    renamed = text.replace(new.encode() + b"\n", f"pylrp.evaluate.{old}\n".encode())
    assert renamed != text
    # In a process of its own: nothing else may have imported the old name first.
    code = "import sys, pickle; print(type(pickle.loads(sys.stdin.buffer.read())).__name__)"
    run = subprocess.run([sys.executable, "-c", code], input=renamed, capture_output=True, check=True, cwd=tmp_path)
    assert run.stdout.decode().strip() == type(made).__name__
