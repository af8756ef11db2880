"""Axes in another order, in the core: against NumPy's transpose, values forward and relevance back."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylrp import _core

# Lengths of one, below and above the core's blocks of 32.
ORDERED = st.lists(st.sampled_from([1, 2, 3, 5, 33, 40]), min_size=1, max_size=6).flatmap(
    lambda shape: st.tuples(st.just(shape), st.permutations(range(len(shape))))
)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=100, deadline=None)
@given(ORDERED, st.integers(1, 3))
def test_values_and_relevance_move(dtype, ordered, threads):
    shape, order = ordered
    size = math.prod(shape)
    if size > 50_000:
        return
    graph = _core.Graph(dtype, [([size], [0], 0)] * 2, [("permute", {"shape": shape, "order": order}, [0])])
    numbers = np.random.default_rng(0).standard_normal((2, 2, size)).astype(dtype)
    x, r = numbers
    axes = (0, *(axis + 1 for axis in order))
    moved = graph.forward([x], [1], threads)[0]
    np.testing.assert_array_equal(moved.reshape(2, -1), x.reshape(2, *shape).transpose(axes).reshape(2, -1))
    found = graph.plan([None], [None], threads).explain([x], [r], False, 1, [], [0], [], threads)[2][0]
    wanted = np.empty((2, *shape), dtype)
    wanted.transpose(axes)[...] = r.reshape(2, *(shape[axis] for axis in order))
    np.testing.assert_array_equal(found.reshape(2, -1), wanted.reshape(2, -1))
