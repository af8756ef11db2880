"""Memory that networks keep between calls: equal calls ask the system for nothing, and it goes back where it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import pylrp
from pylrp.layers import Conv, Dense, Flatten, ReLU

resource = pytest.importorskip("resource")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere memory comes in blocks of its own")
MEGABYTE = 1 << 20
CHANNELS, SIDE = 32, 64
VALUE = CHANNELS * SIDE * SIDE * 4  # bytes of a sample's largest values


def network() -> pylrp.Network:
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]))

    return pylrp.Network(
        [
            Conv(weights(CHANNELS, 3, 3, 3), padding=1), ReLU(),
            Conv(weights(CHANNELS, CHANNELS, 3, 3), padding=1), ReLU(),
            Conv(weights(8, CHANNELS, 3, 3), padding=1), ReLU(), Flatten(), Dense(weights(10, 8 * SIDE * SIDE)),
        ],
        input_shape=(3, SIDE, SIDE),
    )  # fmt: skip


def samples(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).random((batch, 3, SIDE, SIDE), dtype=np.float32)


def calls(net: pylrp.Network, threads: int = 2) -> dict[str, object]:
    small, large = samples(1), samples(16)
    box = pylrp.composite("epsilon_gamma_box", low=0, high=1)
    return {
        "alpha-beta, 16": lambda: net.explain(large, composite="epsilon_alpha2_beta1", threads=threads).relevance,
        "one": lambda: net.explain(small, threads=threads).relevance,
        "forward": lambda: net.forward(large, threads=threads),
        "flat, 16": lambda: net.explain(large, composite="epsilon_plus_flat", threads=threads).relevance,
        "ten targets": lambda: net.explain(small, targets=list(range(10)), threads=threads).relevance,
        "gamma, box": lambda: net.explain(large, composite=box, threads=threads).relevance,
    }


def faults_of_calls() -> None:
    """Print how many pages each call was given that it did not have, in the last of some rounds."""
    kept = calls(network())
    found = {}
    for _ in range(6):
        for name, call in kept.items():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            call()
            found[name] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    pylrp.set_kept_memory(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for call in kept.values():
        call()
    found["none kept"] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    print(json.dumps(found))


@linux
def test_equal_calls_ask_the_system_for_nothing():
    command = [sys.executable, "-c", "from test_kept_memory import faults_of_calls; faults_of_calls()"]
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(Path(pylrp.__file__).parents[1])}
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=here, env=environment)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    lost = found.pop("none kept")
    assert lost > 100  # the measurement sees something, huge pages or not
    assert max(found.values()) <= 40, found


@pytest.fixture
def limit():
    """Nothing is kept at first, and the limit is as before in the end."""
    pylrp.release_memory()
    before = pylrp.set_kept_memory(256 * MEGABYTE)
    yield
    pylrp.set_kept_memory(before)


@linux
def test_what_is_kept(limit):
    assert pylrp.kept_memory() == 0
    net, other = network(), network()
    for call in calls(net).values():
        call()
    kept = pylrp.kept_memory()
    assert 16 * 2 * VALUE < kept < 16 * 14 * VALUE
    other.explain(samples(4))
    both = pylrp.kept_memory()
    assert both > kept + 4 * VALUE
    assert pylrp.set_kept_memory(both - 1) == 256 * MEGABYTE  # the first has waited longest
    assert 0 < pylrp.kept_memory() < both
    pylrp.release_memory()
    assert pylrp.kept_memory() == 0
    expected = net.explain(samples(2)).relevance
    pylrp.set_kept_memory(0)
    np.testing.assert_array_equal(net.explain(samples(2)).relevance, expected)
    assert pylrp.kept_memory() == 0
    for _ in range(3):
        other.explain(samples(1))
    del net, other
    pylrp.set_kept_memory(256 * MEGABYTE)
    assert pylrp.kept_memory() == 0


@linux
def test_a_large_call_is_forgotten(limit):
    net = network()
    net.explain(samples(48))
    large = pylrp.kept_memory()
    for _ in range(40):
        net.explain(samples(1))
    assert pylrp.kept_memory() < large / 8


@pytest.mark.parametrize(
    ("wrong", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError), (None, TypeError)], ids=str
)
def test_limits_that_are_none(wrong, error):
    with pytest.raises(error, match="limit must be"):
        pylrp.set_kept_memory(wrong)


def test_threads_on_one_network_while_memory_goes(limit):
    """Several callers share a network's memory, and another takes away what they do not use."""
    net = network()
    kinds = calls(net, threads=1)
    expected = {name: np.asarray(call()) for name, call in kinds.items()}
    wrong: list[str] = []
    done = threading.Event()

    def explain(first: int) -> None:
        names = list(kinds)
        for k in range(2 * len(names)):
            name = names[(first + k) % len(names)]
            if not np.array_equal(np.asarray(kinds[name]()), expected[name]):
                wrong.append(name)

    def release() -> None:
        while not done.wait(0.005):
            pylrp.release_memory()

    workers = [threading.Thread(target=explain, args=(n,)) for n in range(3)]
    releasing = threading.Thread(target=release)
    for thread in (*workers, releasing):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    releasing.join()
    assert not wrong
    pylrp.release_memory()
    assert pylrp.kept_memory() == 0
