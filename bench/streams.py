"""Streams: what a whole stream takes beside its parts, reading, explaining and writing, each measured alone.

    python bench/streams.py digits                     200,000 made-up digits, Zarr to Zarr, bundled network
    python bench/streams.py digits --count 1000000     the million of the target
    python bench/streams.py photographs                2,000 JPEG files, EfficientNet-Lite0, folder to Zarr
    python bench/streams.py photographs --paper        and what 100 million of them would take on 64 machines

``--data FOLDER`` keeps what is made up, and takes it from there the next time. Each part runs in a process of its own.
Wanted: digits by the clock in at most 1.1 times the parts' processor times over the cores, at most 500 MB; photographs
at 80 % or more of the rate of ``Network.explain`` alone. Beside other programs the clock says little: then the same
with the processor's time of the whole stream is what counts. Photographs are crops of those that scikit-image and
scikit-learn bring; they need these, torch and EfficientNet-Lite0's packages.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peers

MOST_TIMES, MOST_BYTES, LEAST_RATE = 1.1, 500e6, 0.8
MACHINES, CORES, MANY = 64, 16, 100_000_000
SOURCES = {
    "skimage": ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg"),
    "sklearn": ("china.jpg", "flower.jpg"),
}


@dataclass(frozen=True)
class Taken:
    """Seconds by the clock and of the processor, and the most memory of the process."""

    clock: float
    own: float
    peak: float


@dataclass(frozen=True)
class Case:
    """A stream: its network's file, its source, and how that is read."""

    network: str
    source: str
    count: int
    batch: int
    threads: int
    kind: str


def scaled(x: Any) -> Any:
    """Return pixels as the network takes them."""
    return x.astype(np.float32) / 255


def opened(case: Case) -> tuple[Any, Any, dict[str, Any]]:
    """Return the network, the open source, and the options of the stream."""
    pylrp = peers.load("pylrp")
    net = pylrp.load(case.network, mapped=True)
    if case.kind == "digits":
        files, options = {}, {"prepare": scaled}
    else:
        files = options = {"preparation": peers.load("pylrp.inputs").Preparation((0.498,), (0.502,), layout="NCHW")}
    return net, peers.load("pylrp.stream.sources").open_source(case.source, net, **files), options


def blocks(case: Case, source: Any, most: int | None = None) -> Any:
    """Yield blocks as arrays, all or the first few."""
    stop = min(case.count, (most or case.count) * case.batch)
    for start in range(0, stop, case.batch):
        x = source.read(start, min(start + case.batch, case.count)).x
        yield scaled(x) if case.kind == "digits" else x


def reading(case: Case, folder: str) -> tuple[float, float]:
    """Read everything."""
    _, source, _ = opened(case)
    clock, own = time.perf_counter(), time.process_time()
    for _ in blocks(case, source):
        pass
    return time.perf_counter() - clock, time.process_time() - own


def explaining(case: Case, folder: str) -> tuple[float, float]:
    """Explain as many blocks, the first four again and again."""
    net, source, _ = opened(case)
    held = list(blocks(case, source, 4))
    net.explain(held[0], threads=case.threads)
    clock, own = time.perf_counter(), time.process_time()
    for number, start in enumerate(range(0, case.count, case.batch)):
        net.explain(held[number % len(held)][: case.count - start], threads=case.threads)
    return time.perf_counter() - clock, time.process_time() - own


def writing(case: Case, folder: str) -> tuple[float, float]:
    """Write results of as many blocks, those of the first four again and again."""
    sinks, worker = peers.load("pylrp.stream.sinks"), peers.load("pylrp.dask.worker")
    net, source, _ = opened(case)
    held = [worker.results(net.explain(x, threads=case.threads)) for x in blocks(case, source, 4)]
    sink = sinks.open_sink(Path(folder) / "alone.zarr")
    fields = {name: sinks.Field(array.shape[1:], array.dtype.str, 0) for name, array in held[0].items()}
    clock, own = time.perf_counter(), time.process_time()
    sink.create(fields, case.count, case.batch, {})
    for number, start in enumerate(range(0, case.count, case.batch)):
        rows = {name: array[: case.count - start] for name, array in held[number % len(held)].items()}
        sink.write(number, start, rows)
    return time.perf_counter() - clock, time.process_time() - own


def streaming(case: Case, folder: str) -> tuple[float, float]:
    """Do all of it."""
    stream = peers.load("pylrp.stream")
    net, source, options = opened(case)
    options.pop("preparation", None)
    clock, own = time.perf_counter(), time.process_time()
    out = Path(folder) / "maps.zarr"
    done = stream.explain(net, source, out, batch=case.batch, threads=case.threads, **options)
    assert done.complete
    assert done.count == case.count
    return time.perf_counter() - clock, time.process_time() - own


def _run(part: Callable[[Case, str], tuple[float, float]], case: Case, folder: str, answer: Any) -> None:
    clock, own = part(case, folder)
    status = Path("/proc/self/status").read_text().splitlines()
    answer.send((clock, own, int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) * 1024))


def measured(part: Callable[[Case, str], tuple[float, float]], case: Case, folder: str) -> Taken:
    """Run a part in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_run, args=(part, case, folder, there))
    process.start()
    there.close()
    try:
        return Taken(*here.recv())
    finally:
        process.join()


def made_up_digits(folder: Path, count: int, threads: int) -> Case:
    """Write noisy digits to Zarr, and the bundled network to a file."""
    demo, pylrp = peers.load("pylrp.demo"), peers.load("pylrp")
    weights, biases = demo.load_demo_network()
    layers = peers.load("pylrp.layers")
    stack = [layers.Dense(weights[0], biases[0]), layers.ReLU(), layers.Dense(weights[1], biases[1])]
    pylrp.Network(stack).save(folder / "digits.pylrp.npz")
    images, batch = demo.load_demo_digits()[0].reshape(-1, 784), 4096
    place = folder / f"digits-{count}.zarr"
    case = Case(str(folder / "digits.pylrp.npz"), str(place), count, batch, threads, "digits")
    if place.exists():
        return case
    array = peers.load("zarr").create_array(str(place), shape=(count, 784), chunks=(batch, 784), dtype="uint8")
    rng = np.random.default_rng(0)
    for start in range(0, count, batch):
        chosen = images[rng.integers(0, len(images), min(batch, count - start))]
        noise = rng.integers(0, 40, chosen.shape, np.uint8) * (chosen > 0)
        array[start : start + len(chosen)] = np.maximum(chosen, noise)
    return case


def photographs(folder: Path, count: int, threads: int) -> Case:
    """Write crops of photographs as JPEG files, and EfficientNet-Lite0 to a file."""
    place = folder / f"photographs-{count}"
    case = Case(lite0(folder), str(place), count, 16, threads, "photographs")
    if place.exists():
        return case
    image = peers.load("PIL.Image")
    places = {"skimage": "data", "sklearn": "datasets/images"}
    photos = [
        image.open(Path(peers.load(package).__file__).parent / places[package] / name).convert("RGB")
        for package, names in SOURCES.items()
        for name in names
    ]
    place.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        photo = photos[i % len(photos)]
        side = int(rng.integers(256, min(photo.size) + 1))
        left, top = (int(rng.integers(0, whole - side + 1)) for whole in photo.size)
        photo.crop((left, top, left + side, top + side)).save(place / f"{i:06d}.jpg", quality=90)
    return case


def lite0(folder: Path) -> str:
    """Write EfficientNet-Lite0 with its trained weights to a file that can be mapped, and return it."""
    path = folder / "lite0.pylrp.npz"
    if path.exists():
        return str(path)
    import convnets

    torch, pylrp = peers.load("torch"), peers.load("pylrp")
    net = pylrp.load(convnets.network("efficientnet-lite0"), torch.zeros(1, 3, 224, 224))
    net.save(path)
    return str(path)


def report(case: Case, parts: dict[str, Taken]) -> bool:
    """Print the figures, and return whether the targets are reached."""
    cores = min(case.threads, os.cpu_count() or 1)
    for name, taken in parts.items():
        print(f"  {name:9} {taken.clock:8.2f} s, processor {taken.own:8.2f} s, at most {taken.peak / 1e6:5.0f} MB")
    whole, alone = parts["stream"], sum(taken.own for name, taken in parts.items() if name != "stream")
    if case.kind == "digits":
        times = whole.clock / (alone / cores)
        good = times <= MOST_TIMES and whole.peak <= MOST_BYTES
        print(f"streams: {case.count} digits: {times:.2f} times the parts by the clock, ", end="")
        print(f"{whole.own / alone:.2f} by the processor, {whole.peak / 1e6:.0f} MB; wanted {MOST_TIMES}, ", end="")
        print(f"{MOST_BYTES / 1e6:.0f} MB: {'reached' if good else 'MISSED'}")
        return good
    rate, own = parts["explain"].clock / whole.clock, parts["explain"].own / whole.own
    print(f"streams: {case.count} photographs: {rate:.0%} of explain()'s rate by the clock, {own:.0%} by the ", end="")
    print(f"processor; wanted {LEAST_RATE:.0%}: {'reached' if rate >= LEAST_RATE else 'MISSED'}")
    return rate >= LEAST_RATE


def on_paper(case: Case, parts: dict[str, Taken], folder: Path) -> None:
    """Print what many photographs take on many machines, all of it from this one run: the page docs/dask.md has it."""
    read = sum(path.stat().st_size for path in Path(case.source).iterdir()) / case.count
    written = sum(path.stat().st_size for path in (folder / "maps.zarr").rglob("*") if path.is_file()) / case.count
    own = {name: taken.own / case.count for name, taken in parts.items()}
    rate = MACHINES * CORES / own["stream"]
    hours = MANY / rate / 3600
    print("paper: processor's ms a photograph: " + ", ".join(f"{name} {1e3 * own[name]:.1f}" for name in own))
    print(f"paper: {MACHINES} machines of {CORES} cores: {rate:,.0f} photographs a second, ", end="")
    print(f"{hours:.2f} hours, {hours * MACHINES:.0f} machine-hours for {MANY:,}")
    for what, size in (("read", read), ("written", written)):
        print(f"paper: {what}: {size / 1e3:.0f} kB each, {size * MANY / 1e12:.1f} TB in all, ", end="")
        print(f"{size * rate / 1e9:.2f} GB a second, {size * rate / MACHINES / 1e6:.0f} MB a second and machine")


def main() -> int:
    """Measure; 1 where a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("digits", "photographs"))
    parser.add_argument("--count", type=int)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--data", type=Path, help="where made-up data is kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as raw:
        folder = Path(raw)
        data = args.data or folder
        data.mkdir(parents=True, exist_ok=True)
        if args.what == "digits":
            case = made_up_digits(data, args.count or 200_000, args.threads)
        else:
            case = photographs(data, args.count or 2_000, args.threads)
        found = {"read": reading, "explain": explaining, "write": writing, "stream": streaming}
        parts = {name: measured(part, case, raw) for name, part in found.items()}
        good = report(case, parts)
        if args.paper and args.what == "photographs":
            on_paper(case, parts, folder)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
