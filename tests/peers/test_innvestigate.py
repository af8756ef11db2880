"""iNNvestigate 2.1.2: what docs/coming-from-innvestigate.md says is the same map, analyzer by analyzer.

It runs in the Python that the environment variable INNVESTIGATE_PYTHON names; `make nightly` sets one up.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.layers import Conv, Dense, Flatten, MaxPool, ReLU

pytestmark = pytest.mark.nightly

PYTHON = os.environ.get("INNVESTIGATE_PYTHON") or None
PRESET_A = pylrp.Composite("preset_a", pylrp.Epsilon(0.1), {"conv": pylrp.AlphaBeta(1, 0)})
PRESET_B = pylrp.Composite("preset_b_flat", pylrp.Epsilon(0.1), {"conv": pylrp.AlphaBeta(2, 1)}, first=pylrp.Flat())
SAME: dict[str, Any] = {
    "lrp.epsilon": pylrp.Epsilon(1e-7),
    "lrp.z": pylrp.Zero(),
    "lrp.alpha_2_beta_1": pylrp.AlphaBeta(2, 1),
    "lrp.alpha_1_beta_0": pylrp.ZPlus(),
    "lrp.w_square": pylrp.WSquare(),
    "lrp.flat": pylrp.Flat(),
    "lrp.sequential_preset_a": PRESET_A,
    "lrp.sequential_preset_b_flat": PRESET_B,
    "deep_taylor.bounded": pylrp.composite("deep_taylor_box", low=0, high=1),
}


@pytest.fixture(scope="module", params=["mlp", "cnn"])
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if PYTHON is None:
        pytest.skip("INNVESTIGATE_PYTHON names no Python")
    path = tmp_path_factory.mktemp("innvestigate") / f"{request.param}.npz"
    subprocess.run(
        [PYTHON, str(Path(__file__).with_name("innvestigate_maps.py")), request.param, str(path)],
        check=True,
        capture_output=True,
    )
    return np.load(path)


def network(theirs: Any) -> tuple[pylrp.Network, Any]:
    """Return the network, channels first, and the input."""
    w = [theirs[f"w{i}"] for i in range(6)]
    if theirs["x"].ndim == 2:
        return pylrp.Network([Dense(w[0].T, w[1]), ReLU(), Dense(w[2].T, w[3]), ReLU(), Dense(w[4].T, w[5])]), theirs[
            "x"
        ]
    convs = [Conv(kernel.transpose(3, 2, 0, 1), bias) for kernel, bias in (w[:2], w[2:4])]
    top = w[4].reshape(2, 2, 4, 3).transpose(3, 2, 0, 1).reshape(3, -1)
    layers = [convs[0], ReLU(), MaxPool(2), convs[1], ReLU(), Flatten(), Dense(top, w[5])]
    return pylrp.Network(layers, input_shape=(2, 8, 8)), theirs["x"].transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", [*SAME, "lrp.z of 1"])
def test_the_map_of_innvestigate(theirs: Any, name: str) -> None:
    net, x = network(theirs)
    target = 1 if name.endswith("1") and name not in SAME else None
    ex = net.explain(x, target, composite=SAME[name.partition(" ")[0]], convention="innvestigate")
    np.testing.assert_allclose(ex.output, theirs["output"], atol=1e-6)
    expected = theirs[name] if x.ndim == 2 else theirs[name].transpose(0, 3, 1, 2)
    ours = ex.relevance
    if name.startswith("deep_taylor"):  # theirs is 0 where the logit is below 0
        positive = ex.output[np.arange(len(x)), ex.target] > 0
        assert positive.any()
        expected, ours = expected[positive], ours[positive]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
