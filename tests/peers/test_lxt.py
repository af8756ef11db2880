"""LXT 2.1, efficient: the same maps. It patches classes of the whole process, so it runs in one of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import pylrp

if find_spec("lxt") is None or find_spec("transformers") is None:
    pytest.skip("needs lxt (without its own needs), transformers", allow_module_level=True)

from .test_huggingface import batch, made

pytestmark = [pytest.mark.nightly, pytest.mark.filterwarnings("ignore")]
#: transformers computes RMSNorm and angles in float32 whatever the weights are.
TOLERANCES = {"gpt2": 1e-8, "bert": 1e-8, "llama": 1e-6, "qwen2": 1e-6}


@pytest.mark.parametrize("name", TOLERANCES)
def test_the_map_of_lxt(name, tmp_path):
    path = tmp_path / "theirs.npz"
    command = [sys.executable, str(Path(__file__).with_name("lxt_maps.py")), name, "eager", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    theirs = np.load(path)
    net = pylrp.load(made(name, "eager"), batch(name), dtype="float64")
    x = {key: value.numpy() for key, value in batch(name).items()}
    ex = net.explain(x, target=1 if name == "bert" else (-2, 1), composite="attnlrp")
    tolerance = TOLERANCES[name]
    np.testing.assert_allclose(ex.output, theirs["output"], rtol=0, atol=tolerance * np.abs(theirs["output"]).max())
    np.testing.assert_allclose(
        ex.relevance, theirs["relevance"], rtol=0, atol=tolerance * np.abs(theirs["relevance"]).max()
    )
