"""Every instruction set that was built and that this machine has gives the right result; forcing a wrong one fails."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import pylrp

CODE = """
import numpy as np, pylrp
assert pylrp.info()["isa"] == {isa!r}, pylrp.info()
rng = np.random.default_rng(0)
worst = 0.0
for dtype, tolerance in ((np.float32, 2e-5), (np.float64, 1e-13)):
    for batch in (1, 5, 6, 7, 12, 13, 14, 15, 29):
        for n_in, n_out in ((1, 1), (15, 17), (31, 33), (64, 64), (300, 40), (257, 129)):
            W = rng.standard_normal((n_out, n_in))
            a = rng.standard_normal((batch, n_in))
            R = rng.standard_normal((batch, n_out))
            Wd, ad, Rd = (v.astype(dtype) for v in (W, a, R))
            W, a, R = (v.astype(np.float64) for v in (Wd, ad, Rd))
            C = a[:, None, :] * W[None]
            up = np.maximum(C, 0)
            z = up.sum(2) + 1e-6
            expected = (up * (R / z)[:, :, None]).sum(1)
            got = pylrp.relevance([Wd], [ad], Rd, rules=pylrp.ZPlus())
            scale = (up * abs(R / z)[:, :, None]).sum(1) + 1e-30
            error = np.max(abs(got - expected) / scale)
            assert error < tolerance, (dtype, batch, n_in, n_out, error)
            worst = max(worst, error / tolerance)
            square = W**2
            expected = (R / (square.sum(1) + 1e-6)) @ square
            got = pylrp.relevance([Wd], [None], Rd, rules=pylrp.WSquare())
            assert np.max(abs(got - expected)) < tolerance * np.max(abs(R / (square.sum(1) + 1e-6)) @ square)
print("worst share of the tolerance", worst)
"""


def run(isa: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYLRP_ISA": isa}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=os.path.dirname(__file__)
    )


@pytest.mark.slow
@pytest.mark.parametrize("isa", pylrp.info()["isa_supported"])
def test_each_supported_isa(isa):
    result = run(isa, CODE.format(isa=isa))
    assert result.returncode == 0, result.stderr


def test_the_best_supported_one_runs():
    info = pylrp.info()
    forced = os.environ.get("PYLRP_ISA")
    assert info["isa"] == (forced or info["isa_supported"][0])
    assert set(info["isa_supported"]) <= set(info["isa_built"])
    if info["machine"].endswith("x86_64"):
        assert info["isa_built"] == ["avx512", "avx2", "baseline"]


@pytest.mark.slow
def test_an_isa_that_is_not_there_is_an_error():
    result = run("sse9", "import pylrp; pylrp.info()")
    assert result.returncode != 0
    assert "PYLRP_ISA=sse9: this build has avx512" in result.stderr or "PYLRP_ISA=sse9: this build has" in result.stderr
    result = run("sse9", "import pylrp, numpy as np; pylrp.relevance([np.ones((2, 2))], [np.ones(2)], np.ones(2))")
    assert result.returncode != 0
    assert "PYLRP_ISA=sse9" in result.stderr
