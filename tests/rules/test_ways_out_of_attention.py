"""Rules that do not fit attention and its norms: what the error names instead works there."""

from __future__ import annotations

import re

import numpy as np
import pytest

import pylrp
from pylrp import rules
from pylrp.layers import LayerNorm, MatMul, Reshape, RMSNorm, Softmax, Transpose
from pylrp.network import Graph, Node

X = np.random.default_rng(0).normal(size=(2, 3, 4))


@pytest.fixture(scope="module")
def net():
    nodes = [
        Node("norm", LayerNorm(np.full(4, 2.0), np.ones(4), axes=(1,)), ("in",)),
        Node("rms", RMSNorm(np.full(4, 2.0), axes=(1,)), ("norm",)),
        Node("turned", Transpose((1, 0)), ("rms",)),
        Node("scores", MatMul(), ("rms", "turned")),
        Node("seen", Softmax(-1), ("scores",)),
        Node("heard", MatMul(), ("seen", "rms")),
        Node("y", Reshape((12,)), ("heard",)),
    ]
    return pylrp.Network.from_graph(Graph({"in": (3, 4)}, nodes, ["y"]))


@pytest.mark.parametrize("wrong", [pylrp.Epsilon(), rules.Taylor(), rules.Half(), rules.Value(), rules.Detach()])
@pytest.mark.parametrize("name", ["norm", "rms", "scores", "seen", "heard"])
def test_what_an_error_names_works(net, name, wrong):
    def explain(rule):
        return net.explain(X, 3, composite=pylrp.Composite("m", pylrp.Zero(), names={name: rule}))

    fits = {
        "norm": rules.Detach, "rms": rules.Detach, "scores": rules.Half, "seen": rules.Taylor,
        "heard": (rules.Half, rules.Value),
    }  # fmt: skip
    if isinstance(wrong, fits[name]):
        explain(wrong)
        return
    with pytest.raises(pylrp.UnsuitableRule) as caught:
        explain(wrong)
    assert caught.value.node == name
    named = re.findall(r"(\w+)\(\)", caught.value.way_out)
    assert named
    for rule in named:
        assert np.isfinite(explain(getattr(rules, rule)()).relevance).all()
