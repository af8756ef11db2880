"""Memory: nothing is left behind by many calls, and a call takes little beside its inputs and outputs."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import pylrp
from pylrp.layers import Dense, ReLU

pytestmark = pytest.mark.serial
CALLS = 300
SMALLEST = 32  # bytes of the smallest block of glibc's malloc, 24 of them for the caller


class MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
if mallinfo2 is not None:
    mallinfo2.restype = MallInfo
counted = pytest.mark.skipif(mallinfo2 is None, reason="bytes in use are counted by glibc 2.33 or newer")


def in_use() -> int:
    """Bytes that malloc has given out, small blocks and large ones; Python's own small objects are not among them."""
    info = mallinfo2()
    return info.uordblks + info.hblkhd


def collect() -> None:
    """Free what nothing refers to, and the names that CPython's cache of attributes holds: up to 4,096 of them.

    A name that C code looks up is a new string at each call in Python 3.11 and older, and a new entry there.
    """
    gc.collect()
    if hasattr(sys, "_clear_type_cache"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            sys._clear_type_cache()


def growth(call) -> tuple[float, float]:
    """Return bytes and Python objects that one call leaves behind, over many calls; the first ones fill caches."""
    for _ in range(CALLS // 3):
        call()
    collect()
    size, blocks = in_use(), sys.getallocatedblocks()
    for _ in range(CALLS):
        call()
    collect()
    return (in_use() - size) / CALLS, (sys.getallocatedblocks() - blocks) / CALLS


def calls():
    """One-shot calls and a network's, with and without errors on the way, in all sorts of places."""
    rng = np.random.default_rng(0)
    W = [rng.standard_normal((30, 40)).astype(np.float32), rng.standard_normal((5, 30)).astype(np.float32)]
    x = rng.random((8, 40)).astype(np.float32)  # more samples than go row by row
    hidden = np.maximum(x @ W[0].T, 0)
    out = hidden @ W[1].T
    bad = x.copy()
    bad[3, 7] = np.nan
    net = pylrp.Network([Dense(W[0]), ReLU(), Dense(W[1])])
    huge = np.full((5, 30), 1e38, np.float32)

    def fails(function, *arguments, **keywords):
        with pytest.raises(ValueError, match=r"."):
            function(*arguments, **keywords)

    def errors():
        fails(pylrp.relevance, W, [bad, hidden], out, rules="epsilon")
        fails(pylrp.relevance, W, [x, hidden], out[:, :4])
        fails(pylrp.relevance, [W[0], huge], [x, hidden], out, rules="epsilon")  # overflows on the way
        fails(net.explain, bad)
        fails(net.explain, x, target=99)
        pylrp.relevance(W, [x, hidden], out, rules="epsilon")

    return {
        "relevance, one sample": lambda: pylrp.relevance(W, [x[0], hidden[0]], out[0]),
        "relevance, ledger and layers": lambda: pylrp.relevance(W, [x, hidden], out, ledger=True, return_layers=True),
        "new arrays each time": lambda: pylrp.relevance([w.copy() for w in W], [x, hidden], out, rules="epsilon"),
        "explain": lambda: net.explain(x),
        "explain, several targets": lambda: net.explain(x, targets=[0, 3], composite="epsilon_plus"),
        "new networks": lambda: pylrp.Network([Dense(W[0]), ReLU(), Dense(W[1])]).explain(x[0]),
        "errors": errors,
    }


@counted
@pytest.mark.parametrize("name", calls())
def test_many_calls_leave_nothing_behind(name):
    size, blocks = growth(calls()[name])
    assert size < SMALLEST / 2  # one forgotten block in two calls
    assert blocks < 0.9


@counted
def test_a_forgotten_block_would_be_seen():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    forgotten = (ctypes.c_void_p * (2 * CALLS))()
    places = iter(range(2 * CALLS))

    def forgets():
        forgotten[next(places)] = libc.malloc(ctypes.c_size_t(1))

    try:
        assert growth(forgets)[0] >= SMALLEST
    finally:
        for block in forgotten:
            libc.free(ctypes.c_void_p(block))


# Runs by itself: what is measured is a whole process.
LARGE = """
import numpy as np, pylrp
from pylrp.layers import Dense, ReLU

def status(field):
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return int(lines[field].split()[0]) / 1024

rng = np.random.default_rng(0)
W = np.empty((1024, 25088), np.float32)  # 103 MB
W[:] = rng.standard_normal(25088, dtype=np.float32)
W *= rng.standard_normal((1024, 1), dtype=np.float32)
top = Dense(rng.standard_normal((10, 1024), dtype=np.float32))
small = rng.random((100, 100), dtype=np.float32)
for rules in ("epsilon", "deep_taylor"):  # code and threads
    pylrp.relevance([small], [small], small, rules=rules, threads=2)
pylrp.Network([Dense(small), ReLU(), Dense(small)]).explain(small, composite="epsilon_plus", threads=2, layers="all")
own = status("VmRSS") - W.nbytes / 2**20

def beyond(call, *arrays, activations=0):
    # Megabytes at the peak of a call that are neither this program, nor weights, nor arrays given or returned.
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    returned = call()
    mine = W.nbytes + sum(array.nbytes for array in (*arrays, *returned)) + activations * W.itemsize
    return status("VmHWM") - own - mine / 2**20

for threads in (1, 2):
    for batch in (1, 4, 32):
        for rule in (pylrp.ZPlus(), pylrp.AlphaBeta(), pylrp.WSquare()):
            x = rng.standard_normal((batch, 25088), dtype=np.float32)
            R = rng.random((batch, 1024), dtype=np.float32)
            extra = beyond(lambda: [pylrp.relevance([W], [x], R, rules=rule, threads=threads)], x, R)
            print(threads, batch, f"{extra:.1f}", "relevance", rule)
    for batch in (1, 32):
        x = rng.random((batch, 25088), dtype=np.float32)

        def explain():
            net = pylrp.Network([Dense(W), ReLU(), top])
            ex = net.explain(x, composite="epsilon_plus", threads=threads, layers="all")
            return [ex.output, *ex.layers.values()]

        hidden = 2 * batch * 1024  # before and behind the activation
        print(threads, batch, f"{beyond(explain, x, activations=hidden):.1f}", "explain")
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of a process are read from /proc")
def test_a_large_layer_needs_16_mb_a_thread(tmp_path):
    # The C library gives NumPy's large arrays back at once: memory that it kept would look like the core's.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", LARGE]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    if "PermissionError" in result.stderr or "OSError" in result.stderr:
        pytest.skip("/proc/self/clear_refs can't be written here, so peaks can't be told apart")
    assert result.returncode == 0, result.stderr
    rows = [line.split(maxsplit=3) for line in result.stdout.splitlines()]
    assert len(rows) == 2 * (3 * 3 + 2)
    too_much = [row for row in rows if float(row[2]) > 16 * int(row[0])]
    assert not too_much
    assert max(float(row[2]) for row in rows) > 0.5  # the measurement sees something
