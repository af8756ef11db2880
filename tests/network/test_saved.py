"""Samples of an explained batch are what explaining them alone gives; a saved explanation comes back as it was."""

import importlib
import json
import pickle
import sys

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp._moved import OLD_NAMES
from pylrp.network.graph import Graph, Node


@pytest.fixture
def net(rng):
    weights = [rng.normal(size=(6, 5)), rng.normal(size=(3, 6))]
    return pylrp.Network([L.Dense(weights[0], rng.normal(size=6), name="below"), L.ReLU(), L.Dense(weights[1])])


@pytest.fixture
def x(rng):
    return rng.normal(size=(4, 5))


def two(rng):
    nodes = [
        Node("left", L.Dense(rng.normal(size=(3, 4))), ("a",)),
        Node("right", L.Dense(rng.normal(size=(3, 2))), ("b",)),
        Node("sum", L.Add(), ("left", "right")),
    ]
    graph = Graph({"a": (4,), "b": (2,)}, nodes, ["sum", "left"])
    return pylrp.Network.from_graph(graph), {"a": rng.normal(size=(4, 4)), "b": rng.normal(size=(4, 2))}


def same(one, other, exact=True):
    """Whether two explanations hold the same numbers, in the same places."""
    for attribute in ("relevance", "output", "input"):
        a, b = getattr(one, attribute), getattr(other, attribute)
        assert isinstance(a, dict) == isinstance(b, dict)
        for name in a if isinstance(a, dict) else [...]:
            u, v = (a[name], b[name]) if isinstance(a, dict) else (a, b)
            assert u.shape == v.shape
            np.testing.assert_allclose(u, v, rtol=0 if exact else 1e-12)
    assert np.array_equal(one.target, other.target)
    assert list(one.layers) == list(other.layers)
    assert isinstance(one.ledger, list) == isinstance(other.ledger, list)
    for a, b in zip(*(ex.ledger if isinstance(ex.ledger, list) else [ex.ledger] for ex in (one, other)), strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=0, atol=0 if exact else 1e-12)
        assert (a.names, a.rules, a.single) == (b.names, b.rules, b.single)
    assert (one.notes, one.features, one.composite) == (other.notes, other.features, other.composite)


ASKED = {
    "the top class": {},
    "one a sample": {"target": [0, 1, 2, 0]},
    "several": {"targets": [2, 0]},
    "a layer": {"layers": ["below"], "target": 1},
    "against one": {"target": 1, "against": 0},
    "against one a sample": {"target": 1, "against": [0, 2, 0, 2]},
}


def alone(asked, i):
    """What to ask for one sample of the batch."""
    pick = {key: value[i] for key, value in asked.items() if key in ("target", "against") and isinstance(value, list)}
    return {**asked, **pick}


@pytest.mark.parametrize("name", ASKED)
def test_a_sample_is_as_if_explained_alone(net, x, name):
    ex = net.explain(x, **ASKED[name])
    assert len(ex) == 4
    for i, one in enumerate(ex):
        want = net.explain(x[i], **alone(ASKED[name], i))
        same(one, want, exact=False)
        assert one.settings == want.settings
        np.testing.assert_allclose(one.layers["below"], want.layers["below"], atol=1e-12)
    same(ex[-1], ex[3])
    same(ex[np.int64(1)], ex[1])


@pytest.mark.parametrize("which", [slice(1, 3), slice(None), slice(None, None, 2), slice(3, 1)])
def test_some_samples(net, x, which):
    ex = net.explain(x, target=[0, 1, 2, 0])
    part = ex[which]
    assert len(part) == len(x[which])
    np.testing.assert_array_equal(part.relevance, ex.relevance[which])
    np.testing.assert_array_equal(part.target, ex.target[which])
    np.testing.assert_array_equal(part.layers["below"], ex.layers["below"][which])
    assert part.ledger.data.shape[2] == len(part)


def test_what_is_not_there(net, x):
    ex = net.explain(x)
    for index in (4, -5):
        with pytest.raises(IndexError):
            ex[index]
    with pytest.raises(TypeError):
        ex["below"]
    one = net.explain(x[0])
    assert one  # though it has no length
    assert net.explain(x[:0], target=0)
    for call in (lambda: len(one), lambda: one[0], lambda: list(one)):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("single", [False, True])
def test_what_is_saved_comes_back(net, x, name, single, tmp_path):
    ex = net.explain(x, **ASKED[name])
    ex = ex[2] if single else ex
    ex.save(tmp_path / "ex.npz")
    back = pylrp.Explanation.load(tmp_path / "ex.npz")
    same(back, ex)
    assert back.settings == {**ex.settings, "composite": ex.composite}
    assert back.layers.kept.keys() == ex.layers.kept.keys()
    with pytest.raises(KeyError, match="was not kept"):
        back.layers["relu0"]


def test_several_inputs_and_outputs(rng, tmp_path):
    net, x = two(rng)
    ex = net.explain(x, target=1, output="sum")
    same(ex[1], net.explain({name: array[1] for name, array in x.items()}, target=1, output="sum"), exact=False)
    ex.save(tmp_path / "ex.npz")
    same(pylrp.Explanation.load(tmp_path / "ex.npz"), ex)


def test_relevance_that_was_given(net, x, tmp_path):
    ex = net.explain(x, target=np.ones((4, 3)))
    ex.save(tmp_path / "ex")  # NumPy's ending is added
    back = pylrp.Explanation.load(tmp_path / "ex.npz")
    same(back, ex)
    assert back.target is None


def test_drawn_after_loading(net, x, tmp_path):
    pytest.importorskip("matplotlib")
    from pylrp.plot.views import views

    ex = net.explain(x)
    ex.save(tmp_path / "ex.npz")
    one, other = (views(each, 2)[0] for each in (ex, pylrp.Explanation.load(tmp_path / "ex.npz")))
    assert (one.started, one.beginning, one.outputs) == (other.started, other.beginning, other.outputs)
    np.testing.assert_array_equal(one.input, other.input)


def test_files_that_are_none(net, x, tmp_path):
    with pytest.raises(FileNotFoundError):
        pylrp.Explanation.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", relevance=x)
    with pytest.raises(pylrp.BrokenFile):
        pylrp.Explanation.load(tmp_path / "other.npz")
    np.load(tmp_path / "other.npz")  # as the message says
    net.explain(x).save(tmp_path / "ex.npz")
    with np.load(tmp_path / "ex.npz") as data:
        arrays = dict(data)
    for change in (
        {"explanation": "{"},
        {"explanation": "[]"},
        {"explanation": json.dumps({"format": 99})},
        {"ledger": np.ones(3)},
    ):
        np.savez(tmp_path / "bad.npz", **{**arrays, **change})
        with pytest.raises(pylrp.BrokenFile) as caught:
            pylrp.Explanation.load(tmp_path / "bad.npz")
        assert caught.value.path == str(tmp_path / "bad.npz")
    for missing in ("target", "relevance", "ledger"):
        np.savez(tmp_path / "bad.npz", **{name: array for name, array in arrays.items() if name != missing})
        with pytest.raises(pylrp.BrokenFile):
            pylrp.Explanation.load(tmp_path / "bad.npz")


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_old_names_of_modules(old: str, new: str) -> None:
    assert importlib.import_module(f"pylrp.{old}") is importlib.import_module(f"pylrp.{new}")
    above, _, last = f"pylrp.{old}".rpartition(".")
    assert getattr(sys.modules[above], last) is sys.modules[f"pylrp.{new}"]


@pytest.mark.parametrize(
    "place",
    ["layers.linear.Conv", "layers.movement.Pad", "layers.movement.Upsample", "rules._Default", "network._again"],
)
def test_pickles_by_old_names(place: str) -> None:
    module, _, name = f"pylrp.{place}".rpartition(".")
    found = pickle.loads(f"c{module}\n{name}\n.".encode())
    assert found.__name__ == name
    assert found.__module__ != module


def test_what_is_made_late_is_as_it_was_asked_for(net, x):
    asked = [1, 2]
    ex = net.explain(x, targets=asked, composite="epsilon")
    asked[0] = 0
    x_again = x.copy()
    other = net.explain(x_again, targets=[1, 2], composite="epsilon")
    x_again[:] = 0  # which the account does not look at
    copied = pickle.loads(pickle.dumps(net.explain(x, targets=[1, 2], composite="epsilon")))
    assert not hasattr(ex, "lodger")
    with pytest.raises(AttributeError, match="'Explanation' object has no attribute 'lodger'"):
        ex.lodger  # noqa: B018  # the error is what is tried
    for each in (ex, other, copied):
        assert each.settings["targets"] == [1, 2]
        np.testing.assert_array_equal(each.ledger[0].data, ex.ledger[0].data)
        assert each.ledger is each.ledger
        assert list(each.layers) == list(ex.layers)


def test_questions_are_kept_with_their_plans(net, x):
    once = net.explain(x, 1, "epsilon")
    for number in range(70):
        net.explain(x, 1, pylrp.Epsilon(1e-3 * (number + 1)))
    net.explain(x, 1, "epsilon", output="below")
    again = net.explain(x, 1, "epsilon")
    np.testing.assert_array_equal(once.relevance, again.relevance)
    assert once.settings == again.settings
