"""What a call asks for: masks, targets, empty batches, arrays that change later, networks in other processes."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.layers import Add, Conv, Dense, Flatten, ReLU, Reshape, Softmax
from pylrp.network.graph import Graph, Node


def image_network(seed: int = 0) -> pylrp.Network:
    random = np.random.default_rng(seed)
    layers = [
        Conv(random.normal(size=(4, 2, 3, 3)), random.normal(size=4), name="conv"),
        ReLU(),
        Flatten(),
        Dense(random.normal(size=(5, 144)), random.normal(size=5), name="top"),
    ]
    return pylrp.Network(layers, input_shape=(2, 8, 8))


def images(batch: int = 3) -> Any:
    return np.random.default_rng(1).normal(size=(batch, 2, 8, 8))


class TestMasks:
    def test_boolean_mask_is_the_channels_where_it_is_true(self) -> None:
        net, x = image_network(), images()
        by_index = net.explain(x, composite="epsilon", masks={"conv": [0, 2]}).relevance
        for mask in (np.array([True, False, True, False]), [True, False, True, False]):
            assert np.array_equal(net.explain(x, composite="epsilon", masks={"conv": mask}).relevance, by_index)

    @pytest.mark.parametrize(
        ("masks", "error", "message"),
        [
            ({"conv": [True, False]}, ValueError, "'conv' has 4 channels, the mask has 2 entries"),
            ({"conv": [1.5]}, TypeError, "channels of layer 'conv' must be a list of integers"),
            ({"conv": 0}, TypeError, "must be a list of integers, got 0"),
            ({"conv": [-1]}, ValueError, "there is no channel -1"),
            (["conv"], TypeError, "masks must be a dict"),
            ({0: [1]}, TypeError, "masks must be the name of a layer, got 0"),
        ],
    )
    def test_others_are_refused(self, masks: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            image_network().explain(images(), masks=masks)


class TestTargets:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"target": True}, TypeError, "target is True: a class must be an integer"),
            ({"target": "3"}, TypeError, "target is '3': a class must be an integer"),
            ({"target": 2.0}, ValueError, "or an integer for a class"),
            ({"target": np.eye(5, dtype=int)[:3]}, TypeError, "an array of int64: a class must be an integer"),
            ({"targets": 3}, TypeError, "targets must be a list of classes, got 3"),
            ({"targets": [[[1, 2, 3]]]}, ValueError, r"one class, or one a sample, got an array of shape \(1, 3\)"),
            ({"target": 0, "against": [1, 2]}, ValueError, r"against has shape \(2,\), x has 3 samples"),
            ({"target": 0, "against": [[1, 2, 3]]}, ValueError, r"against has shape \(1, 3\)"),
            ({"output": ["conv"]}, TypeError, "output must be the name of a layer"),
        ],
    )
    def test_others_are_refused(self, options: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            image_network().explain(images(), **options)

    def test_output_without_axes_takes_relevance(self) -> None:
        net = pylrp.Network([Dense(np.array([[1.0, 2.0]]), name="one"), Reshape(())])
        x = np.array([[1.0, 1.0], [2.0, 0.5]])
        assert net.forward(x).shape == (2,)
        given = net.explain(x, np.array([3.0, 6.0]), "epsilon").relevance
        assert np.allclose(given.sum(axis=1), [3, 6], atol=1e-5)
        assert np.allclose(net.explain(x[0], np.array(3.0), "epsilon").relevance, given[0])
        masked = net.explain(x, composite="epsilon", masks={net.graph.nodes[-1].name: []}).relevance
        assert not masked.any()


class TestEmptyBatch:
    def test_gives_empty_results(self) -> None:
        net, x = image_network(), images(0)
        assert net.forward(x).shape == (0, 5)
        for options in ({}, {"target": 1}, {"target": 0, "against": 1}, {"target": np.zeros((0, 5))}):
            assert net.explain(x, composite="epsilon_plus", **options).relevance.shape == x.shape
        assert net.explain(x, targets=[1, 2], composite="epsilon_plus").relevance.shape == (0, 2, 2, 8, 8)


class TestWhatChangesLater:
    def test_relevance_found_later_is_of_what_was_explained(self) -> None:
        net, x = image_network(), images()
        kept = net.explain(x, composite="epsilon", layers=["conv"])
        ex = net.explain(x, composite="epsilon")
        assert np.array_equal(ex.layers["conv"], kept.layers["conv"])
        later = net.explain(x, composite="epsilon")
        x[:] = images()[::-1]  # the next batch in the same memory
        with pytest.raises(RuntimeError, match=r"changed since. Explain with layers=\['conv'\]"):
            later.layers["conv"]

    def test_settings_are_those_of_the_call(self) -> None:
        targets, masks = [1, 2], {"conv": [0, 1]}
        ex = image_network().explain(images(), composite="epsilon", targets=targets, masks=masks)
        targets.append(3)
        masks["conv"].append(2)
        assert ex.settings["targets"] == [1, 2]
        assert ex.settings["masks"] == {"conv": [0, 1]}


class TestElsewhere:
    @pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
    def test_networks_can_be_copied(self, again: Any) -> None:
        net, x = image_network(), images()
        other = again(net)
        assert other is not net
        assert other.summary() == net.summary()
        assert np.array_equal(other.forward(x), net.forward(x))
        one, two = (n.explain(x, composite="epsilon_alpha2_beta1") for n in (net, other))
        assert np.array_equal(one.relevance, two.relevance)
        assert np.array_equal(one.ledger.data, two.ledger.data)

    def test_a_layer_used_twice_stays_one(self) -> None:
        shared = Dense(np.array([[2.0, 1.0], [0.5, 3.0]]))
        nodes = [
            Node("one", shared, ("a",)),
            Node("two", shared, ("one",)),
            Node("sum", Add(), ("one", "two")),
            Node("softmax", Softmax(), ("sum",)),
        ]
        net = pylrp.Network.from_graph(Graph({"a": (2,)}, nodes, ["softmax"]), keep_top=True)
        other = pickle.loads(pickle.dumps(net))
        assert other.graph.nodes[0].layer is other.graph.nodes[1].layer
        assert other.graph.outputs == ("softmax",)

    def test_explanations_go_without_their_network(self) -> None:
        ex = image_network().explain(images(), composite="epsilon", layers=["conv"])
        other = pickle.loads(pickle.dumps(ex))
        assert np.array_equal(other.relevance, ex.relevance)
        assert np.array_equal(other.layers["conv"], ex.layers["conv"])
        assert str(other.ledger) == str(ex.ledger)
        with pytest.raises(KeyError, match=r"was not kept: explain with layers=\['top'\]"):
            other.layers["top"]

    @pytest.mark.slow
    def test_more_rules_than_are_kept_from_several_threads(self) -> None:
        net, x = image_network(), images(1)
        errors: list[Exception] = []

        def work(seed: int) -> None:
            random = np.random.default_rng(seed)
            for _ in range(300):
                try:
                    net.explain(x, composite=pylrp.Epsilon(float(random.uniform(0.001, 1))), threads=1)
                    net.explain(x, composite="epsilon", threads=1)
                except Exception as error:
                    errors.append(error)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert not errors


class TestErrors:
    def test_names_of_what_is_not_there(self) -> None:
        ex = image_network().explain(images(), composite="epsilon")
        with pytest.raises(KeyError, match="'nope' has no row in the ledger; there are conv, top"):
            ex.ledger["nope"]
        with pytest.raises(KeyError, match="no layer is called 'nope'; there are input, conv"):
            ex.layers["nope"]

    def test_pixel_that_is_not_finite(self) -> None:
        x = images()
        x[1, 1, 2, 3] = np.nan
        with pytest.raises(ValueError, match=r"x\[1, 1, 2, 3\] is nan"):
            image_network().explain(x)

    def test_layer_whose_output_overflows(self) -> None:
        x = images().astype(np.float32)
        layers = [Conv(np.full((4, 2, 3, 3), 1e30, np.float32), name="wide"), ReLU(), Flatten()]
        net = pylrp.Network([*layers, Dense(np.ones((5, 144), np.float32), name="top")], input_shape=(2, 8, 8))
        with pytest.raises(ValueError, match="the output of layer 'wide' is not finite, though the input is"):
            net.explain(x * np.float32(1e10), 0, composite="epsilon")

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: pylrp.Composite("mine", "epsilon"), "composite mine: default is not a rule: 'epsilon'"),
            (lambda: pylrp.Composite("mine", pylrp.Epsilon(), first=pylrp.WSquare), r"first is not.*write WSquare\(\)"),
            (lambda: pylrp.Composite("mine", pylrp.Epsilon(), {"conv": 1}), r"kinds\['conv'\] is not a rule: 1"),
            (lambda: pylrp.Composite("mine", pylrp.Epsilon(), names={"top": "z"}), r"names\['top'\] is not a rule"),
            (lambda: image_network().explain(images(), composite=pylrp.ZPlus), r"composite is not.*write ZPlus\(\)"),
            (lambda: image_network().summary(1), "composite is not a rule: 1"),
        ],
    )
    def test_what_is_no_rule(self, make: Any, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            make()

    def test_names_given_and_found_do_not_meet(self) -> None:
        layers = [Dense(np.ones((4, 6)), name="relu0"), ReLU(), Dense(np.ones((3, 4)))]
        names = [node.name for node in pylrp.Network(layers).graph.nodes]
        assert len(set(names)) == 3
        assert names[0] == "relu0"

    def test_input_shape_of_other_kinds(self) -> None:
        conv = Conv(np.ones((1, 2, 3, 3)))
        assert pylrp.Network([conv], input_shape=np.array([2, 8, 8])).graph.inputs == {"input": (2, 8, 8)}
        with pytest.raises(ValueError, match="has shape 6, expected a tuple of sizes"):
            pylrp.Network([conv], input_shape=6)
