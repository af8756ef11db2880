"""Threads: equal bits for any number, several Python threads at once, fork, Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

import pylrp
from pylrp.layers import Dense, ReLU

RULES = [
    None,
    pylrp.Epsilon(),
    pylrp.Gamma(),
    pylrp.AlphaBeta(),
    [pylrp.ZBox(-4, 4), pylrp.ZPlus()],
    pylrp.Flat(),
]


def network(sizes, batch, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((o, i)).astype(dtype) / np.sqrt(dtype(i)) for i, o in pairwise(sizes)]
    acts = [rng.standard_normal((batch, sizes[0])).astype(dtype).clip(-4, 4)]
    for w in weights[:-1]:
        acts.append(np.maximum(acts[-1] @ w.T, 0))
    return weights, acts, acts[-1] @ weights[-1].T


@pytest.mark.parametrize("batch", [1, 3, 70])
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_same_bits_for_any_number_of_threads(batch, rules):
    # Wide enough that several chunks of rows and several panels of columns are shared out.
    w, acts, out = network([1500, 1400, 90], batch)
    reference, ledger = pylrp.relevance(w, acts, out, rules=rules, threads=1, ledger=True)
    for threads in (2, 3, 4):
        mine, other = pylrp.relevance(w, acts, out, rules=rules, threads=threads, ledger=True)
        assert mine.tobytes() == reference.tobytes()
        assert other.data.tobytes() == ledger.data.tobytes()


def test_sparse_relevance_same_bits():
    w, acts, out = network([1500, 1400, 90], 40)
    top = np.zeros_like(out)
    top[np.arange(40), out.argmax(1)] = out.max(1)
    results = [pylrp.relevance(w, acts, top, threads=t).tobytes() for t in (1, 2, 3, 4)]
    assert len(set(results)) == 1


def test_several_python_threads_share_a_network():
    w, acts, out = network([300, 200, 10], 8)
    net = pylrp.Network([Dense(w[0]), ReLU(), Dense(w[1])])
    alone = pylrp.relevance(w, acts, out)
    explained = net.explain(acts[0], target=out).relevance
    with ThreadPoolExecutor(8) as pool:
        bare = [pool.submit(pylrp.relevance, w, acts, out) for _ in range(100)]
        made = [pool.submit(net.explain, acts[0], target=out) for _ in range(100)]
    assert {f.result().tobytes() for f in bare} == {alone.tobytes()}
    assert {f.result().relevance.tobytes() for f in made} == {explained.tobytes()}


def _child(queue, w, acts, out):
    queue.put(pylrp.relevance(w, acts, out, threads=2).tobytes())


def test_fork_after_a_parallel_region():
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system can't fork")
    w, acts, out = network([1500, 1400, 90], 64)
    expected = pylrp.relevance(w, acts, out, threads=2).tobytes()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue, w, acts, out))
    child.start()
    try:
        assert queue.get(timeout=60) == expected
    finally:
        child.join(10)
        child.kill()


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize("call", ["pylrp.relevance([W], [x], out, rules='epsilon')", "net.explain(x)"])
def test_ctrl_c_stops_a_long_call_within_a_second(call):
    code = f"""
        import numpy as np, pylrp, signal, sys, time
        from pylrp.layers import Dense
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
        W = np.ones((4096, 4096), np.float32)
        x = np.ones((6000, 4096), np.float32)
        out = np.ones((6000, 4096), np.float32)
        net = pylrp.Network([Dense(W), Dense(W), Dense(W)])
        print("ready", flush=True)
        try:
            for _ in range(20):
                {call}
        except KeyboardInterrupt:
            print(repr(time.monotonic()), flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, cwd=os.path.dirname(__file__)
    )
    try:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.7)  # well inside the first call
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        answer, _ = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 0
    assert float(answer) - sent < 1.0


def test_number_of_threads():
    before = pylrp.get_threads()
    try:
        pylrp.set_threads(3)
        assert pylrp.get_threads() == 3
        assert pylrp.info()["threads"] == 3
    finally:
        pylrp.set_threads(before)
    for wrong, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="threads"):
            pylrp.set_threads(wrong)
