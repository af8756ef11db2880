"""Dask: two workers of one thread that read, explain and write, against one process of two threads that does the same.

    python bench/clusters.py                  256 images, EfficientNet-Lite0
    python bench/clusters.py --images 64
    python bench/clusters.py --data FOLDER    keeps the network's file there, for the next time

Images and maps lie in Zarr, a chunk a block. Wanted: at least 90 % of the one process's rate, by the clock. Beside
other programs the clock says little: then the processor's time of all processes is what counts. The cluster and its
workers' networks stand before the clock starts, as the one process's does. Needs torch, dask, distributed, zarr.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import peers
import streams

LEAST, BLOCK, COMPOSITE = 0.9, 8, "epsilon_plus_flat"


def spent(who: int) -> float:
    """Return the processor's seconds of this process or of its children that have ended."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def one_process(network: str, folder: Path, threads: int) -> tuple[float, float]:
    """Read, explain and write block by block; return seconds by the clock and of the processor."""
    zarr = peers.load("zarr")
    net = peers.load("pylrp").load(network, mapped=True)
    images = zarr.open_array(str(folder / "images.zarr"), mode="r")
    maps = zarr.create_array(str(folder / "one.zarr"), shape=images.shape, chunks=images.chunks, dtype="float32")
    net.explain(images[:BLOCK], composite=COMPOSITE, threads=threads)
    clock, own = time.perf_counter(), spent(resource.RUSAGE_SELF)
    for start in range(0, images.shape[0], BLOCK):
        x = images[start : start + BLOCK]
        maps[start : start + BLOCK] = net.explain(x, composite=COMPOSITE, threads=threads).relevance
    return time.perf_counter() - clock, spent(resource.RUSAGE_SELF) - own


def _times() -> float:
    return sum(os.times()[:2])


def workers(network: str, folder: Path, count: int) -> tuple[float, float]:
    """Let workers of one thread do the same; return seconds by the clock and of the processor."""
    da, distributed = peers.load("dask.array"), peers.load("distributed")
    net = peers.load("pylrp").load(network, mapped=True)
    dask = peers.load("pylrp.dask")
    with (
        distributed.LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        images = da.from_zarr(str(folder / "images.zarr"))
        ex = dask.explain(net, images, composite=COMPOSITE, by_file=True, folder=folder / "network")
        first = np.zeros((BLOCK, *images.shape[1:]), np.float32)
        client.run(dask.Explainer(net, composite=COMPOSITE, folder=folder / "network"), first)
        before, clock, own = sum(client.run(_times).values()), time.perf_counter(), _times()
        ex.relevance.to_zarr(str(folder / "many.zarr"))
        clock = time.perf_counter() - clock
        used = sum(client.run(_times).values()) - before + _times() - own
    return clock, used


def main() -> int:
    """Measure; 1 where the figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as raw:
        folder = Path(raw)
        network = streams.lite0(args.data or folder)
        x = np.random.default_rng(0).normal(size=(args.images, 3, 224, 224)).astype(np.float32)
        zarr: Any = peers.load("zarr")
        zarr.create_array(str(folder / "images.zarr"), data=x, chunks=(BLOCK, 3, 224, 224))
        one, one_own = one_process(network, folder, args.threads)
        many, many_own = workers(network, folder, args.threads)
        made = [zarr.open_array(str(folder / name), mode="r")[:BLOCK] for name in ("one.zarr", "many.zarr")]
        assert made[0].tobytes() == made[1].tobytes()
    rate, own = one / many, one_own / many_own
    print(f"dask: {args.images} images: {args.threads} workers of a thread {many:.1f} s ({many_own:.1f} s of ", end="")
    print(f"processor), one process {one:.1f} s ({one_own:.1f} s): {rate:.0%} by the clock, {own:.0%} by the ", end="")
    print(f"processor; wanted {LEAST:.0%}: {'reached' if rate >= LEAST else 'MISSED'}")
    return 0 if rate >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
