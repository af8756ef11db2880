"""examples/*.m under GNU Octave against pylrp.relevance, in float64: both equations of the question, and the z-box.

Matrices travel as text with 17 digits, which carries a double exactly. Without Octave these tests are skipped;
with PYLRP_REQUIRE_OCTAVE=1 in the environment (CI) a missing Octave is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.demo import load_demo_digits, load_demo_network

EXAMPLES = Path(__file__).parents[2] / "examples"
OCTAVE = shutil.which("octave-cli") or shutil.which("octave")
REQUIRED = os.environ.get("PYLRP_REQUIRE_OCTAVE") == "1"

pytestmark = pytest.mark.skipif(
    OCTAVE is None and not REQUIRED,
    reason="GNU Octave is not installed (Debian: apt install octave); PYLRP_REQUIRE_OCTAVE=1 makes this a failure",
)

INPUT_RULES = {
    "w2": pylrp.WSquare(stabilizer=0),
    "z+": pylrp.ZPlus(stabilizer=0),
    "zbox": pylrp.ZBox(-0.25, 1.5, stabilizer=0),  # wider than the data, so that both bounds count
}
DRIVER = """
addpath('{examples}');
W = cell(1, {layers});  acts = cell(1, {layers});
for l = 1:{layers}
    W{{l}} = load(sprintf('W%d.txt', l));
    if exist(sprintf('a%d.txt', l), 'file'), acts{{l}} = load(sprintf('a%d.txt', l)); end
end
R = lrp_relevance(W, acts, load('out.txt'), '{rule}', -0.25, 1.5);
for l = 1:{layers} + 1
    file = fopen(sprintf('R%d.txt', l), 'w');
    fprintf(file, [repmat(' %.17g', 1, size(R{{l}}, 2)) '\\n'], R{{l}}');
    fclose(file);
end
"""


def octave(code: str, folder: Path) -> str:
    """What `code` prints; a test fails with Octave's own message where it stops with an error."""
    assert OCTAVE is not None, "PYLRP_REQUIRE_OCTAVE=1, and neither octave-cli nor octave is on the PATH"
    (folder / "driver.m").write_text(code + "\nprintf('driver: done\\n');\n")
    run = subprocess.run(
        [OCTAVE, "--no-gui", "--norc", "driver.m"], cwd=folder, capture_output=True, text=True, timeout=300
    )
    # Not the exit code: Octave 7 can stumble while closing down, after all work is done.
    assert run.stdout.endswith("driver: done\n"), run.stdout + run.stderr
    return run.stdout.removesuffix("driver: done\n")


def through_octave(
    W: list[np.ndarray], acts: list[np.ndarray | None], out: np.ndarray, rule: str, folder: Path
) -> list[np.ndarray]:
    """[R_input, ..., R_output], (batch, n) each, as lrp_relevance.m computes it (columns are samples there)."""
    for number, (weight, a) in enumerate(zip(W, acts, strict=True), start=1):
        np.savetxt(folder / f"W{number}.txt", weight, fmt="%.17g")
        if a is not None:
            np.savetxt(folder / f"a{number}.txt", a.T, fmt="%.17g")
    np.savetxt(folder / "out.txt", out.T, fmt="%.17g")
    octave(DRIVER.format(examples=EXAMPLES, layers=len(W), rule=rule), folder)
    return [np.loadtxt(folder / f"R{number}.txt", ndmin=2).T for number in range(1, len(W) + 2)]


def check(W: list[np.ndarray], acts: list[np.ndarray | None], out: np.ndarray, rule: str, folder: Path) -> None:
    rules = [INPUT_RULES[rule]] + [pylrp.ZPlus(stabilizer=0)] * (len(W) - 1)
    ours = pylrp.relevance(W, acts, out, rules=rules, return_layers=True)
    theirs = through_octave(W, acts, out, rule, folder)
    assert len(ours) == len(theirs)
    for layer, (r, expected) in enumerate(zip(theirs, ours, strict=True)):
        assert r.shape == expected.shape
        scale = np.abs(expected).max()
        assert scale > 0, f"layer {layer}: nothing to compare"
        np.testing.assert_allclose(r, expected, rtol=0, atol=1e-12 * scale, err_msg=f"layer {layer}")


@pytest.mark.slow
@pytest.mark.parametrize("rule", INPUT_RULES)
@pytest.mark.parametrize("batch", [1, 5])
def test_random_network_with_dead_neurons(rule: str, batch: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    sizes = [9, 6, 7, 4]
    W: list[np.ndarray] = [rng.normal(size=(n_out, n_in)) for n_in, n_out in pairwise(sizes)]
    W[0][2] = 0  # no weights at all: w^2 and z-box have 0/0 here ...
    W[1][3] = -np.abs(W[1][3])  # ... and no positive weight: so has z+
    # Any activations >= 0 will do: relevance does not ask where they came from. Half of the hidden ones are 0.
    acts: list[np.ndarray] = [np.maximum(rng.uniform(-1, 1, (batch, n)), 0) for n in sizes[:-1]]
    acts[0] = rng.random((batch, sizes[0]))
    acts[1][:, 2] = acts[2][:, 3] = 0.5  # the two dead ends are active, so relevance does reach them
    out = rng.normal(size=(batch, sizes[-1]))
    check(W, [None, *acts[1:]] if rule == "w2" else [*acts], out, rule, tmp_path)


def test_inputs_of_both_signs(tmp_path: Path) -> None:
    """z+ at the input of a standardised data set: negative values on negative weights count as positive."""
    rng = np.random.default_rng(8)
    W = [rng.normal(size=(6, 9)), rng.normal(size=(3, 6))]
    x = rng.normal(size=(4, 9))
    hidden = np.maximum(x @ W[0].T, 0)
    check(W, [x, hidden], hidden @ W[1].T, "z+", tmp_path)


def digits(count: int) -> tuple[list[Any], list[Any], Any, Any, Any]:
    """Return the bundled network's weights and biases, some digits, what is hidden, and the largest logit alone."""
    W, b = (list(map(np.float64, arrays)) for arrays in load_demo_network())
    x = load_demo_digits()[0][:count].reshape(count, -1) / 255.0
    hidden = np.maximum(x @ W[0].T + b[0], 0)
    logits = hidden @ W[1].T + b[1]
    return W, b, x, hidden, np.where(logits == logits.max(axis=1, keepdims=True), logits, 0)


@pytest.mark.slow
@pytest.mark.parametrize("rule", INPUT_RULES)
def test_bundled_network_and_digits(rule: str, tmp_path: Path) -> None:
    W, _, x, hidden, out = digits(10)
    check(W, [x, hidden], out, rule, tmp_path)


def test_example_script(tmp_path: Path) -> None:
    printed = octave(f"cd('{EXAMPLES}'); lrp_example", tmp_path)
    assert "largest difference between the loops and lrp_relevance" in printed


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("lrp_relevance({ones(2, 3)}, {ones(4, 1)}, ones(2, 1))", "there are 1 samples, acts{1} is 4x1"),
        ("lrp_relevance({ones(2, 3)}, {[]}, ones(1, 2))", "W{1} is 2x3, the relevance above has 1 rows"),
        ("lrp_relevance({ones(2, 3)}, {[], []}, ones(2, 1))", "1 weights, but activations for 2 layers"),
        ("lrp_relevance({ones(2, 3)}, {[]}, ones(2, 1), 'w3')", "input rule is 'w3'"),
    ],
)
def test_mistakes_are_named(call: str, message: str, tmp_path: Path) -> None:
    code = f"addpath('{EXAMPLES}'); try, {call}; catch mistake, printf('%s\\n', mistake.message); end"
    assert message in octave(code, tmp_path)
