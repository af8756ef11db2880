"""The cases of Attention in the onnx package: predictions as they say, one layer that gives the map of its parts."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of other operators' cases
    from onnx.backend.test.case.node import collect_testcases

    # Of all operators: the package collects once in a process, and other tests want the others.
    CASES = {case.name: case for case in collect_testcases(None) if case.name.startswith("test_attention")}
CASES = {name: case for name, case in CASES.items() if not name.endswith("_expanded")}
#: A mask that is an input of floating-point numbers takes relevance: a sum of two values, not one layer.
COMPUTED = {"test_attention_4d_attn_mask_3d", "test_attention_4d_attn_mask_3d_causal"}
COMPUTED |= {"test_attention_4d_attn_mask_4d", "test_attention_4d_attn_mask_4d_causal"}


def runs(case):
    """Whether it is one output of numbers in single precision, without a cache."""
    node = next(node for node in case.model.graph.node if node.op_type == "Attention")
    plain = not any(node.input[4:]) and not any(node.output[1:])
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in case.model.graph.input}
    mask = shapes.get(node.input[3]) if len(node.input) > 3 else None
    by_sample = mask is None or (len(mask) == 4 and mask[0] == shapes[node.input[0]][0]) or len(mask) == 3
    single = all(i.type.tensor_type.elem_type in (1, 9) for i in case.model.graph.input)
    return plain and by_sample and single


def test_there_are_some():
    assert sum(map(runs, CASES.values())) >= 25


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if runs(case)])
def test_case(name):
    case = CASES[name]
    (inputs, (expected, *_)), *_ = case.data_sets
    net = pylrp.load(case.model)
    x = {i.name: np.asarray(array) for i, array in zip(case.model.graph.input, inputs, strict=True)}
    made = net.forward(x)
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)
    for composite in ("attnlrp", "cp_lrp"):
        ex = net.explain(x, target=made, composite=composite)
        apart = net.explain(x, target=made, composite=composite, layers="all")
        # Without weights below, a bias that is added is a scaling, through which relevance passes.
        assert len(ex.ledger.layers) < len(apart.ledger.layers) or name in COMPUTED
        for each, array in apart.relevance.items():
            np.testing.assert_allclose(ex.relevance[each], array, rtol=0, atol=2e-5 * max(1, np.abs(array).max()))
