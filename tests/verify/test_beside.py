"""What no relevance lies on and has no formula in the verification is computed by onnx's own evaluator."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")

from verify_models import model, normal

import pylrp


def test_constants_of_any_operator():
    """Scattered masks, tables that are resized by the cubic filter."""
    made = model(
        """
        t = Resize<mode="cubic", coordinate_transformation_mode="half_pixel">(table, , , sizes);
        p = Reshape(t, flat);
        m = ScatterND(zeros, at, ones);
        a = Add(x, p);
        b = Mul(a, m);
        y = MatMul(b, w)
        """,
        (12,), table=normal(1, 1, 3, 3), sizes=np.array([1, 1, 4, 3]), flat=np.array([1, 12]), zeros=np.zeros(12),
        at=np.array([[0], [3], [7]]), ones=np.ones(3), w=normal(12, 2),
    )  # fmt: skip
    net = pylrp.load(made, dtype="float64")
    found = net.verify(np.ones((2, 12)), target=1, composite="attnlrp")
    assert found.ok, str(found)
