"""pylrp_relevance, the MEX function, under GNU Octave: its numbers and lrp_relevance.m's against Python's, its errors.

Everything starts from the zip of `make matlab-zip`, unpacked; the core in it is that of `make core`, except in the last
test (at night), which compiles all of it. Skipped without Octave or the library, as test_octave.py and
core/test_capi.py say.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from capi import BUILD, LIBRARY
from capi import REQUIRED as BUILD_REQUIRED
from matlab.test_octave import OCTAVE, REQUIRED, digits, octave

import pylrp
from pylrp import rules as R

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(OCTAVE is None and not REQUIRED, reason="GNU Octave is not installed"),
    pytest.mark.skipif(not LIBRARY.exists() and not BUILD_REQUIRED, reason="libpylrp.so is not built: make core"),
]
CAUSES = ("incoming", "outgoing", "bias", "stabilizer", "padding", "dead", "batchnorm", "masked", "rounding")


def unpacked(folder: Path) -> Path:
    make = ["make", "-s", "matlab-zip", f"TO={folder / 'made'}", f"PYTHON={sys.executable}"]
    subprocess.run(make, cwd=ROOT, check=True)
    zipfile.ZipFile(folder / "made" / "pylrp-matlab.zip").extractall(folder)
    return folder / "pylrp-matlab"


@pytest.fixture(scope="module")
def mex(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The line of Octave that puts the compiled function on the path."""
    folder = tmp_path_factory.mktemp("mex")
    sources = unpacked(folder)
    octave(f"addpath('{sources}/csrc/matlab'); pylrp_make('{BUILD}')", folder)
    made = {p.name for p in (sources / "build" / "matlab").iterdir()}
    assert made >= {"pylrp_mex.mex", "pylrp_relevance.m", "lrp_relevance.m", "lrp_example.m", "pylrp_example.m"}
    return f"addpath('{sources}/build/matlab');\n"


def cell(items: Any) -> np.ndarray:
    made = np.empty((1, len(items)), object)
    for i, item in enumerate(items):
        made[0, i] = item
    return made


def network(batch: int, dtype: type) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(batch)
    sizes = (30, 17, 20, 5)
    W = [rng.standard_normal((m, n)) for n, m in pairwise(sizes)]
    b = [rng.standard_normal(m) for m in sizes[1:]]
    W[1][4] = b[1][4] = 0  # a neuron without receivers
    acts = [rng.uniform(-1, 1, (batch, sizes[0]))]
    for w, c in zip(W[:-1], b[:-1], strict=True):
        acts.append(np.maximum(acts[-1] @ w.T + c, 0))
    acts[2][:, 4] = 0.5
    out = rng.standard_normal((batch, sizes[-1]))
    as_type = [[a.astype(dtype) for a in arrays] for arrays in (W, b, acts)]
    return as_type[0], as_type[1], as_type[2], out.astype(dtype)


LOW, HIGH = np.linspace(-1.5, -1, 30), np.linspace(1, 2, 30)
# What Octave is given, and Python's rules; both with biases.
CASES: list[tuple[str, Any]] = [
    ("'epsilon'", R.Epsilon()),
    ("{'epsilon', 0.25}", R.Epsilon(0.25)),
    ("'zero'", R.Zero()),
    ("{'gamma', 0.5}", R.Gamma(0.5)),
    ("{'alphabeta', 2, 1}", R.AlphaBeta(2, 1)),
    ("{'alphabeta', 1, 0, 'stabilizer', 0.125}", R.AlphaBeta(1, 0, stabilizer=0.125)),
    ("'zplus'", R.ZPlus()),
    ("{'zplus', 'bias', false}", R.ZPlus(bias=False)),
    ("'wsquare'", R.WSquare()),
    ("'flat'", R.Flat()),
    (
        "{{'zbox', low, high}, {'gamma', 0.25, 'stabilizer', 0.5}, {'epsilon', 0.5, 'bias', false}}",
        [R.ZBox(LOW, HIGH), R.Gamma(0.25, stabilizer=0.5), R.Epsilon(0.5, bias=False)],
    ),
    ("{'wsquare', 'zplus', 'epsilon'}", [R.WSquare(), R.ZPlus(), R.Epsilon()]),
]
COMPARE = """
load('in.mat');
results = cell({n}, 4);
cases = {{{cases}}};
for i = 1:numel(cases)
    [r, layers, ledger] = pylrp_relevance(W, acts, out, 'rules', cases{{i}}, 'biases', b, 'threads', 2);
    assert(isequal(layers{{1}}, r) && isequal(layers{{end}}, out) && isequal(class(r), class(out)));
    assert(isequal(pylrp_relevance(W, acts, out, 'rules', cases{{i}}, 'biases', b, 'threads', 1), r));
    results{{i, 1}} = layers;  results{{i, 2}} = ledger;
    [results{{i, 3}}, results{{i, 4}}] = lrp_relevance(W, acts, out, 'rules', cases{{i}}, 'biases', b);
end
save('-v7', 'out.mat', 'results');
"""


@pytest.mark.parametrize(("batch", "dtype"), [(1, np.float64), (3, np.float32), (40, np.float64), (40, np.float32)])
def test_pythons_numbers(mex: str, batch: int, dtype: type, tmp_path: Path) -> None:
    W, b, acts, out = network(batch, dtype)
    given = {"W": cell(W), "acts": cell([a.T for a in acts]), "b": cell([c[:, None] for c in b]), "out": out.T}
    bounds = {"low": LOW.astype(dtype)[:, None], "high": HIGH.astype(dtype)[:, None]}
    scipy.io.savemat(tmp_path / "in.mat", given | bounds)
    cases = ", ".join(f"{{{text}}}{{1}}" if text[0] != "{" else text for text, _ in CASES)
    octave(mex + COMPARE.format(n=len(CASES), cases=cases), tmp_path)
    results = scipy.io.loadmat(tmp_path / "out.mat")["results"]
    precision = 1e-12 if dtype is np.float64 else 2e-5
    for (text, rules), (layers, ledger, m_layers, m_ledger) in zip(CASES, results, strict=True):
        expected, pages = pylrp.relevance(W, acts, out, rules=rules, biases=b, return_layers=True, ledger=True)
        assert len(expected) == 4
        for found in (layers, m_layers):
            for r, e in zip(found[0], expected, strict=True):
                np.testing.assert_allclose(r.T, e, rtol=0, atol=precision * np.abs(e).max(), err_msg=text)
        for found in (ledger, m_ledger):
            for l, page in enumerate(pages):
                # Sums of terms that cancel: rounding is relative to the terms.
                scale = precision * max(np.abs(page.incoming).max(), *(np.abs(e).sum(1).max() for e in expected))
                names = (
                    CAUSES if found is ledger else ("incoming", "outgoing", "bias", "stabilizer", "dead", "rounding")
                )
                for name in names:
                    sums = found[0, l][name]
                    assert sums.shape == (1, batch)
                    np.testing.assert_allclose(
                        sums[0], getattr(page, name), rtol=0, atol=scale, err_msg=f"{text} {name}"
                    )


def test_digits_as_cells_and_as_his_struct(mex: str, tmp_path: Path) -> None:
    W, b, x, hidden, out = digits(100)
    given = {"W": cell(W), "b": cell([c[:, None] for c in b]), "x": x.T, "h": hidden.T, "out": out.T}
    scipy.io.savemat(tmp_path / "in.mat", given)
    code = """load('in.mat');
    nn.layers = {struct('W', W{1}, 'b', b{1}, 'output', h), struct('W', W{2}, 'b', b{2}, 'output', out)};
    net.layers = [nn.layers{:}];
    R = pylrp_relevance(W, {x, h}, out);
    assert(isequal(R, pylrp_relevance(nn, x, out), pylrp_relevance(net, {x, h}, out), ...
                   pylrp_relevance(nn.layers, x, out), pylrp_relevance(W, {[], h}, out)));
    m = lrp_relevance(W, {x, h}, out);
    E = pylrp_relevance(nn, x, out, 'rules', 'epsilon', 'biases', true);
    C = pylrp_relevance(W, {x, h}, out, 'rules', 'epsilon', 'biases', b, 'convention', 'captum');
    B = pylrp_relevance(W, {x, h}, out, 'rules', {'deep_taylor_box', 0, 1});
    save('-v7', 'out.mat', 'R', 'm', 'E', 'C', 'B');
    """
    octave(mex + code, tmp_path)
    found = scipy.io.loadmat(tmp_path / "out.mat")
    expected = {
        "R": pylrp.relevance(W, [x, hidden], out),
        "E": pylrp.relevance(W, [x, hidden], out, rules="epsilon", biases=b),
        "C": pylrp.relevance(W, [x, hidden], out, rules="epsilon", biases=b, convention="captum"),
        "B": pylrp.relevance(W, [x, hidden], out, rules=[R.ZBox(0, 1, stabilizer=0), R.ZPlus(stabilizer=0)]),
    }
    for name, e in expected.items():
        np.testing.assert_allclose(found[name].T, e, rtol=0, atol=1e-12 * np.abs(e).max(), err_msg=name)
    e = expected["R"]
    np.testing.assert_allclose(found["m"][0, 0].T, e, rtol=0, atol=1e-12 * np.abs(e).max())


WORLD = """
W = {[1 -1; 0.5 2], [1 1]};  x = [1; 0.5];  h = max(W{1} * x, 0);  out = W{2} * h;  acts = {x, h};
nn.layers = {struct('W', W{1}, 'b', [0; 0], 'output', h), struct('W', W{2}, 'b', 0, 'output', out)};
"""
MISTAKES = """
pylrp_relevance()
pylrp_relevance(W, acts)
pylrp_relevance(W, acts, [1; 2])
pylrp_relevance(W, acts, ones(1, 2))
pylrp_relevance(W, {x}, out)
pylrp_relevance(W, {x, h, out}, out)
pylrp_relevance(W, {x', h}, out)
pylrp_relevance(W, {x, []}, out)
pylrp_relevance(W, {x, ones(3, 1)}, out)
pylrp_relevance(W, acts, sparse(out))
pylrp_relevance({sparse(W{1}), W{2}}, acts, out)
pylrp_relevance({int8(W{1}), W{2}}, acts, out)
pylrp_relevance({logical(W{1}), W{2}}, acts, out)
pylrp_relevance(W, {uint8(x), h}, out)
pylrp_relevance({W{1} + 1i, W{2}}, acts, out)
pylrp_relevance(W, {x, complex(h)}, out)
pylrp_relevance({}, {}, out)
pylrp_relevance({[]}, {[]}, [])
pylrp_relevance({W{1}, []}, acts, out)
pylrp_relevance({zeros(0, 3)}, {zeros(3, 1)}, zeros(0, 1))
pylrp_relevance({[NaN 1; 1 1], W{2}}, acts, out)
pylrp_relevance(W, {[Inf; 1], h}, out)
pylrp_relevance(W, acts, NaN)
pylrp_relevance(W, acts, out, 'biases', {[NaN 1], []})
pylrp_relevance('abc', acts, out)
pylrp_relevance({'abc', W{2}}, acts, out)
pylrp_relevance(W, 'abc', out)
pylrp_relevance(W, acts, 'a')
pylrp_relevance(W, acts, true)
pylrp_relevance(W, acts, {out})
pylrp_relevance(W, acts, @sin)
pylrp_relevance(W, acts, nn)
pylrp_relevance({W}, acts, out)
pylrp_relevance({W{1}, {W{2}}}, acts, out)
pylrp_relevance({W{1}, ones(1, 7)}, acts, out)
pylrp_relevance(W, x, out)
pylrp_relevance(W{1}, x, h)
pylrp_relevance({ones(2, 2, 2), W{2}}, acts, out)
pylrp_relevance({single(W{1}), W{2}}, acts, out)
pylrp_relevance({single(W{1}), single(W{2})}, acts, out)
pylrp_relevance(struct(), x, out)
pylrp_relevance(struct('layers', 5), x, out)
pylrp_relevance(struct('layers', struct('W', W)), x, out)
pylrp_relevance(struct('W', {W}), acts, out)
pylrp_relevance([nn nn], acts, out)
pylrp_relevance(W, acts, out, 'ruls', 'epsilon')
pylrp_relevance(W, acts, out, 'epsilon')
pylrp_relevance(W, acts, out, 5, 6)
pylrp_relevance(W, acts, out, 'rules', 'epsilom')
pylrp_relevance(W, acts, out, 'rules', repmat('x', 1, 100000))
pylrp_relevance(W, acts, out, 'rules', {'w2', 'z+', 'z+'})
pylrp_relevance(W, acts, out, 'rules', {})
pylrp_relevance(W, acts, out, 'rules', 3)
pylrp_relevance(W, acts, out, 'rules', {3, 4})
pylrp_relevance(W, acts, out, 'rules', {{}, {}})
pylrp_relevance(W, acts, out, 'rules', {'epsilon', NaN})
pylrp_relevance(W, acts, out, 'rules', {'epsilon', -1})
pylrp_relevance(W, acts, out, 'rules', {'epsilon', [1 2]})
pylrp_relevance(W, acts, out, 'rules', {'epsilon', 1, 2, 3})
pylrp_relevance(W, acts, out, 'rules', {'gamma', 0.5, 'stabiliser', 0})
pylrp_relevance(W, acts, out, 'rules', {'alphabeta', 2, 2})
pylrp_relevance(W, acts, out, 'rules', {{'zbox', 1, 0}, 'zplus'})
pylrp_relevance(W, acts, out, 'rules', {{'zbox', NaN, 1}, 'zplus'})
pylrp_relevance(W, acts, out, 'rules', {{'zbox', [0 0 0], 1}, 'zplus'})
pylrp_relevance(W, acts, out, 'rules', {'zbox', 'zplus'})
pylrp_relevance(W, acts, out, 'rules', {'zplus', 'pass'})
pylrp_relevance(W, acts, out, 'rules', 'epsilon_gamma_box')
pylrp_relevance(W, acts, out, 'rules', 'gamma', 'convention', 'lrp_toolbox')
pylrp_relevance(W, acts, out, 'convention', 'zenit')
pylrp_relevance(W, acts, out, 'convention', 1)
pylrp_relevance(W, acts, out, 'threads', 1.5)
pylrp_relevance(W, acts, out, 'threads', 'many')
pylrp_relevance(W, acts, out, 'threads', 1e9)
pylrp_relevance(W, acts, out, 'threads', [])
pylrp_relevance(W, acts, out, 'biases', {1, 2, 3})
pylrp_relevance(W, acts, out, 'biases', {[1 2 3], []})
pylrp_relevance(W, acts, out, 'biases', [1 2])
pylrp_relevance(W, acts, out, 'biases', {'a', []})
pylrp_mex()
pylrp_mex(W, acts, out, {}, {}, 0)
pylrp_mex(W, acts, out, {1, 2}, {}, 0)
pylrp_mex(W, acts, out, {{'epsilon'}, {}}, {}, 0)
pylrp_mex(1, 2, 3, 4, 5, 6)
pylrp_relevance({[1 -1]}, {1e200 * [1; 1 - 2 ^ -53]}, 1e300, 'rules', 'zero')
""".strip().splitlines()


def test_every_mistake_is_an_error_with_an_identifier(mex: str, tmp_path: Path) -> None:
    calls = "\n".join(
        f"try, {call}; printf('no error\\n'); catch e, printf('%s|%d\\n', e.identifier, numel(e.message)); end"
        for call in MISTAKES
    )
    good = "assert(isequal(pylrp_relevance(W, acts, out), right));"
    code = f"{WORLD} right = pylrp_relevance(W, acts, out);\n{calls}\n{good} clear mex; {good}\n"
    code += "try, [a, b, c, d] = pylrp_relevance(W, acts, out); disp(1); catch, disp(0); end\n"
    code += "clear all; clear functions;" + WORLD + "pylrp_relevance(W, acts, out);"
    *lines, outputs = octave(mex + code, tmp_path).splitlines()
    assert outputs == "0"
    for call, line in zip(MISTAKES, lines, strict=True):
        identifier, _, length = line.partition("|")
        assert identifier in ("pylrp:invalid", "pylrp:notFinite", "pylrp:unsupported"), f"{call}: {line}"
        assert int(length) > 30, call


def test_what_can_be_left_out(mex: str, tmp_path: Path) -> None:
    code = """
    right = pylrp_relevance(W, acts, out);
    assert(isequal(pylrp_relevance(W', acts', out, 'Threads', int8(1), 'RULES', 'Deep_Taylor'), right));
    assert(isequal(size(pylrp_relevance(W, {x(:, []), h(:, [])}, out(:, []))), [2 0]));
    e = pylrp_relevance(W, acts, out, 'rules', {'epsilon', 0.5});
    assert(isequal(e, pylrp_relevance(W, acts, out, 'rules', {'epsilon', 'epsilon', 0.5})));
    assert(isequal(e, pylrp_relevance(W, acts, out, 'rules', {{'Epsilon', 0.5}, {'EPSILON', 'epsilon', single(0.5)}})));
    assert(isequal(e, pylrp_relevance(W, acts, out, 'rules', {'epsilon', 0.5}, 'biases', {[], 0})));
    """
    octave(mex + WORLD + code, tmp_path)


BYTES_IN_USE = """
#include <malloc.h>
#include "mex.h"
void mexFunction(int nl, mxArray* l[], int nr, const mxArray* r[]) {
  const struct mallinfo2 info = mallinfo2();
  l[0] = mxCreateDoubleScalar((double)(info.uordblks + info.hblkhd));
}
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_memory_stays_flat(mex: str, tmp_path: Path) -> None:
    """2,500 calls, some of them with a mistake that is found late: what leaks, leaks in each of five stretches.

    Counted are the bytes that malloc has given out (glibc's mallinfo2, whose smallest block has 32 bytes). Those of one
    stretch may grow for other reasons: a thread of the core that gets its first task late.
    """
    (tmp_path / "bytes_in_use.c").write_text(BYTES_IN_USE)
    code = """
    mkoctfile('--mex', 'bytes_in_use.c');
    function use(W, acts, out, n)
        broken = acts;  broken{2}(3) = NaN;
        rules = {{'epsilon', 'zennit', {'epsilon'}, 0.5, [], []}, {'zplus', 'zennit', {}, [], [], []}};
        for i = 1:n
            for k = 1:8
                [R, layers, ledger] = pylrp_mex(W, acts, out, rules, {}, 0);
            end
            R = pylrp_relevance(W, acts, out);
            try, [R, layers, ledger] = pylrp_mex(W, broken, out, rules, {}, 0); catch, end
        end
    end
    W = {rand(40, 60), rand(10, 40)};  acts = {rand(60, 8), rand(40, 8)};  out = rand(10, 8);
    use(W, acts, out, 20);
    for k = 1:5
        before = bytes_in_use(); use(W, acts, out, 50); printf('%d ', bytes_in_use() - before);
    end
    """
    grown = [int(n) for n in octave(mex + code, tmp_path).split()]
    assert len(grown) == 5
    assert min(grown) < 32 * 50 / 2, "one forgotten block in two rounds"


@pytest.mark.serial
def test_ctrl_c(mex: str, tmp_path: Path) -> None:
    """The prompt is back before the call is done, and works; without the signal the call would take half a minute."""
    process = subprocess.Popen(
        [str(OCTAVE), "--norc", "--interactive", "--quiet", "--no-gui"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(
        mex + "W = repmat({ones(2000)}, 1, 60); a = W; disp('started'); fflush(stdout);\n"
        "R = pylrp_relevance(W, a, W{1}, 'rules', 'alphabeta', 'threads', 2); disp('finished')\n"
        "printf('alive %g\\n', pylrp_relevance({1}, {1}, 5));\nexit\n"
    )
    process.stdin.flush()
    while "started" not in process.stdout.readline():
        pass
    tasks = Path(f"/proc/{process.pid}/task")
    while "pylrp" not in [
        (task / "comm").read_text().strip() for task in tasks.iterdir()
    ]:  # the core's thread: it runs
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=100)
    assert "alive 5" in printed
    assert "interrupted" in printed
    assert "finished" not in printed


def test_the_example_and_the_help(mex: str, tmp_path: Path) -> None:
    printed = octave(mex + "pylrp_example; help pylrp_relevance\n", tmp_path)
    assert "largest difference" in printed
    for taught in ("W{l}", "acts{l}", "'rules'", "'biases'", "'convention'", "zbox", "ledger", "Example"):
        assert taught in printed


@pytest.mark.nightly  # compiles the core once more
def test_the_zip_alone_is_enough(tmp_path: Path) -> None:
    sources = unpacked(tmp_path)
    code = f"addpath('{sources}/csrc/matlab'); addpath(pylrp_make('', '-O0')); pylrp_example"
    assert "largest difference" in octave(code, tmp_path)
