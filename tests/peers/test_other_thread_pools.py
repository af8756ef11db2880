"""One process with several pools of threads, torch's and scikit-learn's OpenMP and OpenBLAS beside pylrp's own.

None waits for another, also in a forked child; their threads do not pile up; the bits are those of pylrp alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

pytestmark = [
    pytest.mark.serial,
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc"),
]

ALONE = """
    import hashlib, os
    import numpy as np
    import pylrp
    from pylrp.layers import Dense, ReLU

    rng = np.random.default_rng(0)
    def w(o, i): return rng.standard_normal((o, i)).astype(np.float32) / np.sqrt(np.float32(i))
    net = pylrp.Network([Dense(w(900, 700)), ReLU(), Dense(w(500, 900)), ReLU(), Dense(w(10, 500))])
    x = rng.standard_normal((64, 700)).astype(np.float32)

    def explained(threads=3):
        return hashlib.sha256(net.explain(x, threads=threads).relevance.tobytes()).hexdigest()
    def mapped(): return open("/proc/self/maps").read()
    def count(): return len(os.listdir("/proc/self/task"))
"""
TOGETHER = """
    import torch
    from sklearn.cluster import KMeans
    from sklearn.ensemble import HistGradientBoostingClassifier

    torch.set_num_threads(3)
    layer = torch.nn.Linear(700, 900)
    def others():
        HistGradientBoostingClassifier(max_iter=2).fit(x[:, :5], np.arange(64) % 2)
        KMeans(3, n_init=1, random_state=0).fit(x)
        with torch.no_grad():
            for _ in range(20):
                layer(torch.as_tensor(x)).sum()
"""


def run(code: str) -> str:
    code = "\n".join(map(textwrap.dedent, (ALONE, code)))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, "-W", "ignore", "-c", code]
    with tempfile.TemporaryDirectory() as folder:  # beside the sources Python would find those
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=clean, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.fixture(scope="module")
def alone() -> str:
    return run("""
        assert not [lib for lib in ("libgomp", "libiomp", "libomp.") if lib in mapped()], "pylrp brings OpenMP"
        print(explained())
    """)


def test_in_turns_with_bounded_threads_and_equal_bits(alone: str) -> None:
    found = run(f"""
        {textwrap.indent(textwrap.dedent(TOGETHER), " " * 8).lstrip()}
        assert "gomp" in mapped()
        bits = set()
        for turn in range(6):
            others()
            bits |= {{explained(), explained(2), explained(1)}}
            if turn == 1:
                settled = count()
        assert len(bits) == 1, bits
        assert count() <= settled, (count(), settled)
        print(*bits)
    """)
    assert found == alone


def test_at_the_same_time(alone: str) -> None:
    found = run(f"""
        {textwrap.indent(textwrap.dedent(TOGETHER), " " * 8).lstrip()}
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(3) as pool:
            busy = [pool.submit(others) for _ in range(4)]
            made = [pool.submit(explained) for _ in range(12)]
            bits = {{one.result() for one in made}}
            [one.result() for one in busy]
        assert len(bits) == 1, bits
        print(*bits)
    """)
    assert found == alone


def test_in_a_forked_child(alone: str) -> None:
    """The others' OpenMP may not survive a fork; what was loaded before must not stop pylrp in the child."""
    found = run(f"""
        {textwrap.indent(textwrap.dedent(TOGETHER), " " * 8).lstrip()}
        import signal
        others()
        bits = explained()
        for _ in range(3):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                os._exit(0 if explained() == bits and explained(1) == bits and count() <= 4 else 1)
            assert os.waitpid(child, 0)[1] == 0
        others()
        assert explained() == bits
        print(bits)
    """)
    assert found == alone
