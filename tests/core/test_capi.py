"""The C interface, csrc/capi/pylrp.h: its catalogue against Python's, its numbers, its errors; a C program, valgrind.

The library comes from `make core`. Without it, or without a C compiler or valgrind, these tests are skipped; with
PYLRP_REQUIRE_BUILD=1 in the environment (CI) that is a failure.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from capi import BUILD, LIBRARY, REQUIRED, ROOT, STATUS, Call, Core, Failed

import pylrp
from pylrp import rules as R
from pylrp.rules.composites import COMPOSITES, TRANSFORMERS, assign_to_dense, composite
from pylrp.rules.conventions import CONVENTIONS

HEADER = ROOT / "csrc" / "capi"
pytestmark = pytest.mark.skipif(
    not LIBRARY.exists() and not REQUIRED,
    reason="libpylrp.so is not built: make core; PYLRP_REQUIRE_BUILD=1 makes this a failure",
)


@pytest.fixture
def core() -> Iterator[Core]:
    made = Core()
    yield made
    made.close()


# name -> Python's class, and parameters by name; a z-box's bounds are no parameters here.
BOX = {"low": 0.0, "high": 1.0}
RULES = {
    "zero": (R.Zero, [{}]),
    "epsilon": (R.Epsilon, [{}, {"epsilon": 0.5}, {"epsilon": 1e-6}, {"epsilon": 0}]),
    "gamma": (R.Gamma, [{}, {"gamma": 0.5}, {"gamma": 0, "stabilizer": 0.01}]),
    "zplus": (R.ZPlus, [{}, {"stabilizer": 0}]),
    "alphabeta": (R.AlphaBeta, [{}, {"alpha": 1, "beta": 0}, {"alpha": 1.5, "beta": 0.5, "stabilizer": 1e-3}]),
    "wsquare": (R.WSquare, [{}, {"stabilizer": 0.1}]),
    "flat": (R.Flat, [{}, {"stabilizer": 0}]),
    "zbox": (R.ZBox, [{}, {"stabilizer": 0.25}]),
    "norm": (R.Norm, [{}, {"stabilizer": 0.5}]),
    "pass": (R.Pass, [{}]),
}


def as_data(groups: tuple[R.Group, ...]) -> list[tuple]:
    return [
        (
            [(t.part, t.weight, float(t.sign)) for t in g.terms],
            g.bias,
            float(g.coefficient),
            g.mask,
            g.guard,
            float(g.stabilizer),
        )
        for g in groups
    ]


# The C interface explains dense networks: no attention, nor LXT's way with it.
DENSE = [name for name in COMPOSITES if name not in TRANSFORMERS]
LIBRARIES = [name for name in CONVENTIONS if name not in ("lxt", "arras")]


def test_same_names(core: Core) -> None:
    assert core.names("rule") == list(RULES)
    assert {made for made, _ in RULES.values()} == set(R.RULES)
    assert core.names("composite") == DENSE
    assert core.names("convention") == LIBRARIES
    for also, name in (("z+", "zplus"), ("w^2", "wsquare"), ("z_box", "zbox"), ("Alpha-Beta", "alphabeta")):
        assert core.groups(core.rule(also)) == core.groups(core.rule(name))


@pytest.mark.parametrize("convention", LIBRARIES)
@pytest.mark.parametrize("name", RULES)
def test_same_catalogue(core: Core, name: str, convention: str) -> None:
    made, settings = RULES[name]
    biased = [{}, {"bias": True}, {"bias": False}] if "bias" in made.__dataclass_fields__ else [{}]
    for given, bias in product(settings, biased):
        parameters = given | bias
        rule = made(**parameters, **(BOX if made is R.ZBox else {}))
        try:
            expected = as_data(CONVENTIONS[convention](rule))
        except ValueError:
            with pytest.raises(Failed) as failed:
                core.rule(name, convention, parameters)
            assert failed.value.status == "unsupported"
            continue
        assert core.groups(core.rule(name, convention, parameters)) == expected, (parameters, convention)


def network(dtype: type, batch: int, sizes: tuple[int, ...] = (9, 7, 8, 4)) -> tuple[list, list, list, np.ndarray]:
    rng = np.random.default_rng(batch)
    W = [rng.standard_normal((m, n)).astype(dtype) for n, m in pairwise(sizes)]
    b = [rng.standard_normal(m).astype(dtype) for m in sizes[1:]]
    W[1][3] = 0  # a neuron without receivers where there is no bias
    b[1][3] = 0
    acts = [rng.uniform(0, 1, (batch, sizes[0])).astype(dtype)]
    for w, c in zip(W[:-1], b[:-1], strict=True):
        acts.append(np.maximum(acts[-1] @ w.T + c, 0).astype(dtype))
    return W, b, acts, rng.standard_normal((batch, sizes[-1])).astype(dtype)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """1e-12 of the largest entry in double, the same number of units of the last place in single."""
    tolerance = 1e-12 * np.finfo(expected.dtype).eps / np.finfo(np.float64).eps
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


COLUMNS = ("incoming", "outgoing", "bias", "stabilizer", "padding", "dead", "batchnorm", "masked", "rounding")


def check_against_python(core: Core, handle: ctypes.c_void_p, rules: list[R.Rule], data: tuple, **options) -> None:
    W, b, acts, out = data
    widths = [w.shape[1] for w in W]
    found, ledger = core.relevance(handle, acts, out, widths)
    expected, pages = pylrp.relevance(W, acts, out, rules=rules, biases=b, return_layers=True, ledger=True, **options)
    for r, e in zip(found, expected, strict=False):
        close(r, e)
    precision = 1e-12 * np.finfo(out.dtype).eps / np.finfo(np.float64).eps
    for l, page in enumerate(pages):
        for c, name in enumerate(COLUMNS):
            scale = np.abs(page.incoming).max() + np.abs(expected[l]).sum()
            np.testing.assert_allclose(ledger[l, c], getattr(page, name), rtol=0, atol=precision * scale, err_msg=name)
    again, _ = core.relevance(handle, acts, out, widths, threads=3, only_input=True)
    assert again[0].tobytes() == found[0].tobytes()


@pytest.mark.parametrize("name", DENSE)
def test_composites_give_pythons_relevance(core: Core, name: str) -> None:
    data = network(np.float64, 3)
    handle = core.network(data[0], data[1])
    set_composite = core.lib.pylrp_network_set_composite
    try:
        rules = assign_to_dense(composite(name), [str(l) for l in range(len(data[0]))])
    except ValueError:  # a box that no dense layer gets
        assert STATUS[set_composite(handle, name.encode(), None, None, None)] == "invalid"
        return
    core.must(set_composite(handle, name.encode(), None, None, None))
    check_against_python(core, handle, rules, data)


def test_a_new_network_is_deep_taylor(core: Core) -> None:
    data = network(np.float64, 2)
    handle = core.network(data[0], data[1])
    assert core.lib.pylrp_network_depth(handle) == 3
    check_against_python(core, handle, [R.WSquare(0, bias=False)] + [R.ZPlus(0, bias=False)] * 2, data)


@pytest.mark.parametrize("by_columns", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [1, 3, 20])
def test_rules_give_pythons_relevance(core: Core, batch: int, dtype: type, by_columns: bool) -> None:
    data = network(dtype, batch, (40, 31, 29, 5))
    W = [np.asfortranarray(w) if by_columns else w for w in data[0]]
    handle = core.network(W, data[1], by_columns)
    low, high = np.linspace(-1, 0, 40).astype(dtype), np.linspace(1, 2, 40).astype(dtype)
    for first, above, name, parameters in (
        (R.ZBox(low, high), R.Gamma(0.5), "gamma", {"gamma": 0.5}),
        (R.ZBox(low, high), R.AlphaBeta(2, 1), "alphabeta", {}),
        (R.ZBox(low, high, stabilizer=1), R.Epsilon(0.25), "epsilon", {"epsilon": 0.25}),
    ):
        core.set_rule(handle, 0, core.rule("zbox", None, {"stabilizer": float(first.stabilizer)}), low, high)
        for l in (1, 2):
            core.set_rule(handle, l, core.rule(name, None, parameters))
        check_against_python(core, handle, [first, above, above], data)


def test_a_rule_of_groups(core: Core) -> None:
    """What pylrp_rule_groups() shows makes the same rule again."""
    for name in RULES:
        count = ctypes.c_size_t()
        groups = core.lib.pylrp_rule_groups(core.rule(name), ctypes.byref(count))
        made = ctypes.c_void_p()
        core.must(core.lib.pylrp_rule_from_groups(groups, count, ctypes.byref(made)))
        core.rules.append(made)
        assert core.groups(made) == core.groups(core.rule(name))


@pytest.mark.parametrize(
    ("status", "wrong"),
    [
        ("invalid", lambda c, h, d: c.rule("z-plus-plus")),
        ("invalid", lambda c, h, d: c.rule("epsilon", "zennits")),
        ("invalid", lambda c, h, d: c.rule("epsilon", None, {"gamma": 1})),
        ("invalid", lambda c, h, d: c.rule("epsilon", None, {"epsilon": -1})),
        ("invalid", lambda c, h, d: c.rule("gamma", None, {"gamma": float("nan")})),
        ("invalid", lambda c, h, d: c.rule("alphabeta", None, {"alpha": 3})),
        ("unsupported", lambda c, h, d: c.rule("flat", "captum")),
        ("invalid", lambda c, h, d: c.set_rule(h, 3, c.rule("flat"))),
        ("invalid", lambda c, h, d: c.set_rule(h, -1, c.rule("flat"))),
        ("invalid", lambda c, h, d: c.set_rule(h, 0, c.rule("pass"))),
        ("invalid", lambda c, h, d: c.set_rule(h, 0, c.rule("zbox"))),
        ("invalid", lambda c, h, d: c.set_rule(h, 0, c.rule("zbox"), np.ones(9), np.zeros(9))),
        ("invalid", lambda c, h, d: c.set_rule(h, 0, c.rule("zbox"), np.full(9, np.nan), np.ones(9))),
        ("invalid", lambda c, h, d: c.network([np.ones((3, 4)), np.ones((2, 4))])),
        ("not finite", lambda c, h, d: c.network([np.full((3, 4), np.nan)])),
        ("not finite", lambda c, h, d: c.network([np.ones((3, 4))], [np.full(3, np.inf)])),
        ("invalid", lambda c, h, d: c.relevance(h, [d[2][0], None, d[2][2]], d[3], (9, 7, 8))),
        ("not finite", lambda c, h, d: c.relevance(h, [np.nan * d[2][0], *d[2][1:]], d[3], (9, 7, 8))),
        ("not finite", lambda c, h, d: c.relevance(h, d[2], d[3] * np.inf, (9, 7, 8))),
        ("invalid", lambda c, h, d: c.relevance(h, d[2], d[3], (9, 7, 8), threads=-1)),
        ("invalid", lambda c, h, d: c.relevance(c.network_without_layers(), d[2], d[3], (9, 7, 8))),
        ("invalid", lambda c, h, d: c.must(c.lib.pylrp_relevance(None, None))),
        ("invalid", lambda c, h, d: c.must(c.lib.pylrp_relevance(h, None))),
        ("invalid", lambda c, h, d: c.must(c.lib.pylrp_relevance(h, ctypes.byref(Call(size=8))))),
        ("invalid", lambda c, h, d: c.must(c.lib.pylrp_network_new(7, ctypes.byref(ctypes.c_void_p())))),
        ("invalid", lambda c, h, d: c.must(c.lib.pylrp_network_new(1, None))),
        ("invalid", lambda c, h, d: c.must(c.lib.pylrp_network_add_dense(h, 2, 4, None, 0, None))),
        ("invalid", lambda c, h, d: c.must(c.lib.pylrp_network_add_dense(h, 2**62, 4, d[0][0].ctypes.data, 0, None))),
        ("invalid", lambda c, h, d: c.must(c.lib.pylrp_network_add_dense(h, 2, 4, d[0][0].ctypes.data, 5, None))),
        ("invalid", lambda c, h, d: c.must(c.lib.pylrp_rule_from_groups(None, 1, ctypes.byref(ctypes.c_void_p())))),
        ("invalid", lambda c, h, d: c.must(c.lib.pylrp_network_set_composite(h, b"deep", None, None, None))),
        (
            "unsupported",
            lambda c, h, d: c.must(c.lib.pylrp_network_set_composite(h, b"deep_taylor", b"captum", None, None)),
        ),
    ],
)
def test_mistakes_have_a_status_and_a_text(core: Core, status: str, wrong) -> None:
    data = network(np.float64, 2)
    handle = core.network(data[0])
    with pytest.raises(Failed) as failed:
        wrong(core, handle, data)
    assert failed.value.status == status
    assert str(failed.value)
    # What failed left the network as it was.
    found, _ = core.relevance(handle, data[2], data[3], (9, 7, 8))
    close(found[0], pylrp.relevance(data[0], data[2], data[3]))


@pytest.mark.parametrize("batch", [1, 50])
@pytest.mark.parametrize("rule", ["wsquare", "zplus"])
def test_weights_that_are_looked_at_later(core: Core, rule: str, batch: int) -> None:
    """Wherever the entry stands: below an input of 0, above an output without relevance, all are looked at."""
    rng = np.random.default_rng(0)
    for bad, dark, dim in product([(0, 0), (19, 29), (3, 7)], [False, True], [False, True]):
        x, out = rng.uniform(0.5, 1, (batch, 30)), rng.uniform(0.5, 1, (batch, 20))
        x[:, bad[1]] *= not dark
        if dim:
            out[:] = np.eye(20)[(bad[0] + 1) % 20]
        w = np.asfortranarray(rng.standard_normal((20, 30)))
        handle = ctypes.c_void_p()
        core.must(core.lib.pylrp_network_new(1, ctypes.byref(handle)))
        core.networks.append(handle)
        core.must(core.lib.pylrp_network_check_later(handle))
        core.must(core.lib.pylrp_network_add_dense(handle, 20, 30, w.ctypes.data, 1, None))
        core.set_rule(handle, 0, core.rule(rule))
        found, _ = core.relevance(handle, [x], out, [30])
        made = {"wsquare": R.WSquare(), "zplus": R.ZPlus()}[rule]
        close(found[0], pylrp.relevance([w], [x], out, rules=[made]))
        w[bad] = np.nan
        with pytest.raises(Failed) as failed:
            core.relevance(handle, [x], out, [30])
        assert failed.value.status == "not finite"


def test_no_samples(core: Core) -> None:
    W, _, acts, out = network(np.float64, 0)
    found, _ = core.relevance(core.network(W), acts, out, (9, 7, 8))
    assert found[0].shape == (0, 9)


def test_an_overflow_is_an_error(core: Core) -> None:
    handle = core.network([np.array([[1.0, -1.0]])])
    core.set_rule(handle, 0, core.rule("zero"))
    with pytest.raises(Failed) as failed:
        core.relevance(handle, [np.array([[1e200, 1e200 * (1 - 2**-53)]])], np.array([[1e300]]), (2,))
    assert failed.value.status == "not finite"


def test_the_last_error_belongs_to_its_thread(core: Core) -> None:
    with pytest.raises(Failed):
        core.rule("none such")
    seen: list[bytes] = []
    other = threading.Thread(target=lambda: seen.append(core.lib.pylrp_last_error()))
    other.start()
    other.join()
    assert seen == [b""]
    assert core.lib.pylrp_last_error()


@pytest.mark.serial
def test_a_long_call_can_be_stopped(core: Core) -> None:
    rng = np.random.default_rng(0)
    W = [rng.standard_normal((2000, 2000)) for _ in range(4)]
    acts = [rng.uniform(0, 1, (600, 2000)) for _ in W]
    handle = core.network(W)
    asked = []
    with pytest.raises(Failed) as failed:
        core.relevance(handle, acts, acts[0], [2000] * 4, stop=lambda _: asked.append(1) or 1)
    assert failed.value.status == "interrupted"
    assert len(asked) == 1


def test_the_library_shows_its_functions_only_and_brings_its_runtime() -> None:
    symbols = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True).stdout
    names = {re.sub("@.*", "", line.split()[-1]) for line in symbols.splitlines()}
    declared = set(re.findall(r"PYLRP_EXPORT [\w *]+?(pylrp_\w+)\(", (HEADER / "pylrp.h").read_text()))
    assert names - {"PYLRP_1"} == declared
    assert len(declared) == 18
    needed = subprocess.run(["readelf", "-d", LIBRARY], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in needed
    assert "libstdc++" not in needed
    assert "libgcc_s" not in needed
    assert "python" not in needed


@pytest.mark.slow
@pytest.mark.parametrize("source", ["examples/relevance.c", "tests/cpp/hostile.c"])
def test_c_programs_run_without_a_leak(source: str, tmp_path: Path) -> None:
    cc, valgrind = shutil.which("cc"), shutil.which("valgrind")
    if not REQUIRED and (cc is None or valgrind is None):
        pytest.skip("needs a C compiler and valgrind")
    program = tmp_path / "program"
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g"]
    link = [f"-L{BUILD}", "-lpylrp", f"-Wl,-rpath,{BUILD}", "-lm"]
    subprocess.run([cc, *strict, f"-I{HEADER}", ROOT / source, *link, "-o", program], check=True)
    run = subprocess.run([program], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert len(run.stdout.splitlines()) == (4 if source.startswith("examples") else 1)
    checked = subprocess.run(
        [valgrind, "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYLRP_ISA": "avx2"} if os.uname().machine == "x86_64" else os.environ,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout == run.stdout
