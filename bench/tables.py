"""Tables: what 100,000 rows of 40 columns take, and how much longer shap's DeepExplainer takes for 1,000 of them.

    python bench/tables.py              one line each: seconds and memory, then the ratio to shap
    python bench/tables.py --rows 20000

A pipeline of ``StandardScaler`` and a network of 100 and 50 neurons, as ``docs/tables.md`` has it. shap explains the
same network as a torch module with 100 rows as background, on as many threads. Times by the clock, and of the
processor, which other programs hardly disturb. Needs scikit-learn, shap and torch.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import peers

COLUMNS, HIDDEN, BACKGROUND, EXPLAINED = 40, (100, 50), 100, 1000
MOST_SECONDS, MOST_BYTES, LEAST_RATIO = 1.5, 200e6, 20.0


def pipeline(x: Any) -> Any:
    """Return a fitted pipeline; a few steps of training are enough for its speed."""
    make = peers.load("sklearn.pipeline").make_pipeline
    network = peers.load("sklearn.neural_network").MLPClassifier(HIDDEN, max_iter=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        return make(peers.load("sklearn.preprocessing").StandardScaler(), network).fit(x, x[:, 0] * x[:, 1] > 0)


def module(fitted: Any) -> Any:
    """Return the network behind the scaler as a torch module."""
    torch = peers.load("torch")
    layers: list[Any] = []
    for W, b in zip(fitted[-1].coefs_, fitted[-1].intercepts_, strict=True):
        linear = torch.nn.Linear(*W.shape)
        linear.weight.data, linear.bias.data = torch.from_numpy(W.T.astype("f4")), torch.from_numpy(b.astype("f4"))
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).eval()


def seconds(call: Callable[[], Any], rounds: int = 5) -> tuple[float, float]:
    """Return the median of the clock's and of the processor's seconds."""
    taken = []
    for _ in range(rounds):
        clock, own = time.perf_counter(), time.process_time()
        call()
        taken.append((time.perf_counter() - clock, time.process_time() - own))
    return median(each for each, _ in taken), median(each for _, each in taken)


def resident(peak: bool) -> int:
    """Return the bytes that this process has in memory, or had at most since the last ``forget_peak``."""
    key = "VmHWM:" if peak else "VmRSS:"
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def many_rows(rows: int, threads: int) -> bool:
    """Print time and memory of one call, and return whether they are within the limits."""
    x = np.random.default_rng(0).normal(size=(rows, COLUMNS))
    net = peers.load("pylrp").load(pipeline(x[:5000]))
    net.explain(x[:1000], threads=threads)
    before = resident(peak=False)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is forgotten
    ex = net.explain(x, threads=threads)
    more = resident(peak=True) - before
    logit = net.forward(x[:100], threads=threads)
    assert np.allclose(ex.output[:100], logit, rtol=1e-4, atol=1e-5)
    clock, own = seconds(lambda: net.explain(x, threads=threads), 3)
    good = clock <= MOST_SECONDS and more <= MOST_BYTES
    print(f"tables: {rows} rows x {COLUMNS}: {clock:.2f} s (processor {own:.2f} s), {more / 1e6:.0f} MB more; ", end="")
    print(f"wanted {MOST_SECONDS} s, {MOST_BYTES / 1e6:.0f} MB: {'reached' if good else 'MISSED'}", flush=True)
    return good


def against_shap(threads: int) -> bool:
    """Print how many times as long DeepExplainer takes, and return whether that is enough."""
    torch, shap = peers.load("torch"), peers.load("shap")
    x = np.random.default_rng(0).normal(size=(5000, COLUMNS))
    fitted = pipeline(x)
    net, model = peers.load("pylrp").load(fitted), module(fitted)
    scaled = torch.from_numpy(fitted[0].transform(x).astype("f4"))
    rows = x[:EXPLAINED]
    assert np.allclose(model(scaled[:EXPLAINED]).detach(), net.forward(rows, threads=threads), rtol=1e-3, atol=1e-4)
    explainer = shap.DeepExplainer(model, scaled[-BACKGROUND:])

    def theirs() -> Any:
        return explainer.shap_values(scaled[:EXPLAINED], check_additivity=False)

    def ours() -> Any:
        return net.explain(rows, threads=threads)

    ours()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shap about torch
        their_clock, their_own = seconds(theirs, 1)
    our_clock, our_own = seconds(ours, 15)
    ratio = their_clock / our_clock
    good = ratio >= LEAST_RATIO
    print(
        f"tables: shap's DeepExplainer, {BACKGROUND} background rows, {EXPLAINED} rows: {their_clock:.2f} s, ", end=""
    )
    print(f"pylrp {our_clock * 1e3:.1f} ms: {ratio:.0f} times as long (processor {their_own / our_own:.0f}); ", end="")
    print(f"wanted {LEAST_RATIO:.0f}: {'reached' if good else 'MISSED'}", flush=True)
    return good


def main() -> int:
    """Measure; 1 where a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    peers.use_threads(args.threads)
    good = [many_rows(args.rows, args.threads)]
    if all(map(peers.installed, ("shap", "torch"))):
        good.append(against_shap(args.threads))
    else:
        print("tables: shap or torch is not installed: not compared")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
