"""The onnx package's own cases of attention, normalisations, softmax, rotary embedding and Einsum: all of them.

Each predicts what the case says, or is refused with a reason: as :class:`pylrp.UnsupportedLayer` when it is loaded, or
as TypeError for values in 16 bits.
"""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

import pylrp

pytestmark = [pytest.mark.nightly, pytest.mark.filterwarnings("ignore")]
ABOUT = re.compile(r"attention|softmax|normalization|rotary|einsum|mvn|gelu|swish", re.IGNORECASE)
#: Fewer that work than this would be a loss: most others have no batch, or normalise over it.
AT_LEAST = 110
#: Inputs of the cases that files hold, or compute of position ids: constants here.
HELD = {"cos_cache", "sin_cache"}


def with_constants(model, inputs):
    """Return the model with the arrays that files hold in it; takes them out of the inputs."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.input[:]
    made.graph.input.extend(info for info in model.graph.input if info.name not in HELD)
    held = [name for name in inputs if name in HELD]
    made.graph.initializer.extend(onnx.numpy_helper.from_array(inputs.pop(name), name) for name in held)
    return made


def outcome(case):
    """Return "right", "refused" or in words what is wrong."""
    (given, expected), *_ = case.data_sets
    inputs = dict(zip((info.name for info in case.model.graph.input), given, strict=False))
    try:
        net = pylrp.load(with_constants(case.model, inputs), keep_top=True)
        sides = net.graph.facts.sides
        x = {name: inputs[name] for name in (net.graph.inputs if sides is None else sides.names)}
        found = net.forward(x if len(x) > 1 else next(iter(x.values())))
    except pylrp.UnsupportedLayer:
        return "refused"
    except TypeError as error:
        return "refused" if "float16" in str(error) else repr(error)
    found = next(iter(found.values())) if isinstance(found, dict) else found
    wanted = expected[0].astype(np.float64)
    if found.shape != wanted.shape:
        return f"shape {found.shape}, expected {wanted.shape}"
    error = np.abs(found - wanted).max(initial=0)
    return "right" if error <= 1e-4 * max(1, np.abs(wanted).max(initial=0)) else f"off by {error:.2g}"


def test_node_cases():
    cases = pytest.importorskip("onnx.backend.test.case.node").collect_testcases(None)
    found = {case.name: outcome(case) for case in cases if ABOUT.search(case.name)}
    wrong = {name: what for name, what in found.items() if what not in ("right", "refused")}
    assert not wrong
    rotary = [name for name in found if "rotary" in name and "no_position" not in name and "expanded" not in name]
    assert rotary
    assert {found[name] for name in rotary} == {"right"}
    assert sum(what == "right" for what in found.values()) >= AT_LEAST
