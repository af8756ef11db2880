"""Threads: equal bits for any number, several Python threads at once, fork, Ctrl-C, a busy neighbour."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

import pylrp
from pylrp.layers import Dense, ReLU

pytestmark = pytest.mark.serial

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


def _run(code, **environment):
    """Run a program of its own; what it printed."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))} | environment
    here = os.path.dirname(__file__)
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=here, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


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


# The signal comes after as much of the process's own time as a twentieth of the call takes: no matter what else runs.
@pytest.mark.parametrize("call", ["pylrp.relevance([W] * 3, [x] * 3, x, rules='epsilon')", "net.explain(x)"])
def test_ctrl_c_ends_a_call_long_before_it_is_done(call):
    code = f"""
        import numpy as np, os, pylrp, signal, time
        from pylrp.layers import Dense
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
        signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        W = np.ones((2048, 2048), np.float32)
        net = pylrp.Network([Dense(W), Dense(W), Dense(W)])

        def timed(x):
            begun = time.process_time()
            {call}
            return time.process_time() - begun

        all_of_it, part = np.ones((12000, 2048), np.float32), np.ones((600, 2048), np.float32)
        twentieth = min(timed(part), timed(part))
        begun = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, twentieth)
        try:
            timed(all_of_it)
        except KeyboardInterrupt:
            print((time.process_time() - begun) / twentieth)
    """
    assert float(_run(code)) < 10


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_forked_child_has_threads_of_its_own():
    code = """
        import numpy as np, os, pylrp
        from pathlib import Path
        W, x = np.ones((1500, 1500), np.float32), np.ones((64, 1500), np.float32)
        def helpers():
            pylrp.relevance([W, W], [x, x], x, rules="epsilon", threads=2)
            return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()].count("pylrp")
        assert helpers() == 1
        child = os.fork()
        if child == 0:
            os._exit(helpers())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    """
    _run(code)


def test_the_process_ends_while_calls_run():
    code = """
        import numpy as np, pylrp, threading
        W, x = np.ones((1500, 1500), np.float32), np.ones((64, 1500), np.float32)
        def work():
            while True:
                pylrp.relevance([W, W], [x, x], x, rules="epsilon", threads=2)
        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        pylrp.relevance([W, W], [x, x], x, rules="epsilon", threads=2)
    """
    _run(code)


@pytest.mark.skipif(sys.platform != "linux", reason="affinity, /proc")
def test_default_number_of_threads():
    ask = "import pylrp; print(pylrp.get_threads())"
    assert int(_run(ask, OMP_NUM_THREADS="3")) == 3
    assert int(_run(ask, OMP_NUM_THREADS="5,2")) == 5
    one = min(os.sched_getaffinity(0))
    pinned = f"import os; os.sched_setaffinity(0, {{{one}}}); " + ask
    assert int(_run(pinned)) == 1
    assert 1 <= int(_run(ask)) <= len(os.sched_getaffinity(0))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_no_runtime_and_no_variable_for_others():
    code = """
        import ctypes
        from pathlib import Path
        variables = lambda: [n for n in (b"OMP_NUM_THREADS", b"OMP_WAIT_POLICY", b"GOMP_SPINCOUNT") if getenv(n)]
        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_char_p
        import pylrp
        pylrp.relevance([[[2.0, 1.0]]], [[1.0, 3.0]], [5.0], rules="epsilon")
        assert not variables()
        assert not [line for line in Path("/proc/self/maps").read_text().splitlines() if "omp" in line.rsplit("/")[-1]]
    """
    _run(code)


# Calls beside a program that keeps one processor busy: on two threads and on one, in turns.
BESIDE = """
    import numpy as np, os, pylrp, subprocess, sys, time
    from pylrp.layers import Dense, ReLU
    batch, beside = {batch}, {beside}
    rng = np.random.default_rng(0)
    W = [rng.standard_normal(s).astype(np.float32) / 20 for s in ((300, 784), (10, 300))]
    net = pylrp.Network([Dense(W[0]), ReLU(), Dense(W[1])])
    x = rng.random((batch, 784), np.float32)
    taken = {{}}
    pin = "import os; os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])\\nprint(flush=True)\\nwhile True: pass"
    neighbour = subprocess.Popen([sys.executable, "-c", pin], stdout=subprocess.PIPE) if beside else None
    try:
        if neighbour:
            neighbour.stdout.readline()
        for _ in range(15):
            for threads in (1, 2):
                for _ in range(20):
                    wall, own = time.perf_counter(), time.process_time()
                    net.explain(x, threads=threads)
                    own = time.process_time() - own
                    taken.setdefault(threads, []).append((own, time.perf_counter() - wall))
    finally:
        if neighbour:
            neighbour.kill()
    for threads in (1, 2):
        own, wall = np.array(taken[threads]).T
        print(own.mean(), np.median(wall), np.quantile(wall, 0.9))
"""
two_processors = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="two processors, one for a neighbour"
)


def _beside(batch, beside):
    return np.array(_run(BESIDE.format(batch=batch, beside=beside)).split(), float).reshape(2, 3)


@two_processors
@pytest.mark.parametrize("batch", [1, 100])
def test_processor_time_beside_a_neighbour(batch):
    one, two = _beside(batch, True)[:, 0]
    assert two <= 1.5 * one


@two_processors
@pytest.mark.nightly
@pytest.mark.parametrize("batch", [1, 100])
def test_wall_time_beside_a_neighbour(batch):
    alone = _beside(batch, False)[0, 1]  # the median of one thread
    assert _beside(batch, True)[1, 2] <= 3 * alone


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
