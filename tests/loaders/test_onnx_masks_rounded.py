"""Files whose quantiser took a mask's lowest number for a value: told, with the nodes to leave out; or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx.parser
from onnx import numpy_helper

import pylrp

TEXT = """
<ir_version: 10, opset_import: ["": 21]>
g (float[n, 4] x, int64[n, 4] mask) => (float[n, 4] y)
<float one = {{1}}, float step = {{0.01}}, int16 zero = {{0}}> {{
  seen = Cast <to = 1> (mask)
  closed = Sub (one, seen)
  low_q = QuantizeLinear (low, low_step, low_zero)
  low_r = DequantizeLinear (low_q, low_step, low_zero)
  added = Mul (closed, low_r)
  masked = Add (x, added)
  masked_q = QuantizeLinear (masked, {step}, {zero})
  masked_r = DequantizeLinear (masked_q, {step}, {zero})
  y = Softmax (masked_r)
}}"""


def model(low: float, step: float, kind: Any, quantised: bool) -> onnx.ModelProto:
    made = onnx.parser.parse_model(TEXT.format(step="low_step" if quantised else "step", zero="zero"))
    zero = np.array(np.iinfo(kind).max, kind)
    given = (("low", np.float32(low)), ("low_step", np.float32(step)), ("low_zero", zero))
    made.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in given)
    for node in made.graph.node:
        node.name = f"/{node.output[0]}"
    return made


LOWEST = float(np.finfo(np.float32).min)


def told(net: pylrp.Network) -> list[str]:
    return [note for note in net.notes if "nodes_to_exclude" in note]


def test_a_constant_of_huge_steps_is_told() -> None:
    (note,) = told(pylrp.load(model(LOWEST, -LOWEST / 65535, np.int16, quantised=False)))
    assert "'/low_r' rounds by steps of 5.2e+33" in note
    assert note.endswith("nodes_to_exclude=['/added'])")


def test_scores_of_huge_steps_are_told_once() -> None:
    (note,) = told(pylrp.load(model(LOWEST, -LOWEST / 65535, np.int16, quantised=True)))
    assert note.endswith("nodes_to_exclude=['/added', '/masked', '/y'])")


def test_infinite_steps_are_refused() -> None:
    with pytest.raises(pylrp.UnsupportedLayer, match=r"steps that are infinite.*-inf.*nodes_to_exclude=\['/added'\]"):
        pylrp.load(model(-np.inf, np.inf, np.int16, quantised=False))


@pytest.mark.parametrize("low", [-20.0, -300.0])
def test_usual_steps_are_not_told(low: float) -> None:
    assert not told(pylrp.load(model(low, -low / 255, np.uint8, quantised=False)))
