"""What runs in a worker: a callable that explains a block, whose network is loaded once in a process.

The callable is small: it has the network's hash and where it is. A process that has the network of that hash uses it;
else it maps the file, which processes of a machine share, or takes the bytes that came along. Ray, Spark and others
that run a Python function on parts of data take the same callable.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import sys
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp._files import atomically
from pylrp.info import get_threads
from pylrp.loaders.plain.native import load_graph
from pylrp.network.explanation import Explanation
from pylrp.network.identity import fingerprint
from pylrp.network.ledger import by_sample
from pylrp.network.network import Network

__all__ = ["Explainer", "results"]

_KEPT = 4
_networks: OrderedDict[str, Network] = OrderedDict()
_lock = threading.Lock()


def results(ex: Explanation) -> dict[str, NDArray[Any]]:
    """Return an explanation's arrays, a row a sample: relevance, output, target, ledger."""
    found = {"relevance": ex.relevance, "output": ex.output, "ledger": by_sample(ex.ledger)}
    if ex.target is not None:
        found["target"] = np.asarray(ex.target)
    return found


class Explainer:
    """Explains blocks of samples, in any process: ``explainer(block)`` is a dict of arrays.

    Parameters
    ----------
    network : Network
    by_file : bool, default True
        Pickled, it names a file, which other processes of this machine map. False: it brings the network along,
        as bytes, for machines that do not share files.
    threads : int, optional
        Of the core, for each block. Default: those that the process may use, divided by the tasks that run in it.
    folder : path, optional
        Where the file is; default a folder of this user among the temporary files.
    **options
        As for :meth:`pylrp.Network.explain`.

    Examples
    --------
    >>> import numpy as np, pylrp
    >>> from pylrp.dask import Explainer
    >>> net = pylrp.Network([pylrp.layers.Dense([[3.0, 2.0]])])
    >>> Explainer(net, composite="epsilon")(np.ones((2, 2)))["relevance"].round(3)
    array([[3., 2.],
           [3., 2.]])
    """

    def __init__(
        self, network: Network, *, by_file: bool = True, threads: int | None = None,
        folder: str | os.PathLike[str] | None = None, **options: Any,
    ):  # fmt: skip
        self.hash = fingerprint(network.graph)
        self.threads, self.options = threads, options
        self._path = _written(network, self.hash, folder) if by_file else None
        self._bytes = None if by_file else pickle.dumps(network, protocol=5)
        with _lock:
            _keep(self.hash, network)

    def __call__(self, x: Any, target: Any = None) -> dict[str, NDArray[Any]]:
        """Return the explanation of a block: ``relevance``, ``output``, ``target``, ``ledger``, a row a sample."""
        options = self.options if target is None else {**self.options, "target": target}
        return results(self.network().explain(x, threads=self.threads or threads_of_a_task(), **options))

    def network(self) -> Network:
        """Return the network, loaded if this process does not have it."""
        with _lock:
            found = _networks.get(self.hash)
            if found is None:
                _keep_pages()
                found = self._loaded()
            _keep(self.hash, found)
        return found

    def _loaded(self) -> Network:
        if self._path is None:
            made: Network = pickle.loads(self._bytes or b"")
            return made
        path = Path(self._path)
        if not path.exists():
            raise FileNotFoundError(
                f"the network's file {path} is not on this machine: share the folder, or use by_file=False, which "
                "sends the network along"
            )
        if path.suffix == ".pickle":
            with path.open("rb") as file:
                made = pickle.load(file)
            return made
        return Network.from_graph(load_graph(path, mapped=True), keep_top=True)


def _keep_pages() -> None:
    """Let this process keep some of the memory that it has freed, where Dask's default is that it keeps none.

    ``distributed`` starts workers with MALLOC_TRIM_THRESHOLD_=65536: each block of samples would fetch its memory from
    the system page by page anew, which takes nearly as long as explaining it. These are the values that glibc comes to
    by itself; another setting than Dask's default is its user's, and stays.
    """
    if os.environ.get("MALLOC_TRIM_THRESHOLD_") != "65536" or sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
        mallopt(-1, 64 << 20)  # M_TRIM_THRESHOLD


def _keep(key: str, network: Network) -> None:
    _networks[key] = network
    _networks.move_to_end(key)
    while len(_networks) > _KEPT:
        _networks.popitem(last=False)


def _written(network: Network, key: str, folder: str | os.PathLike[str] | None) -> str:
    """Write a network where it is not yet, by its hash, and return the file."""
    if folder is None:
        user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
        place = Path(tempfile.gettempdir()) / f"pylrp-{user}"
        place.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and (place.stat().st_uid != os.getuid() or place.stat().st_mode & 0o077):
            raise PermissionError(f"{place} belongs to, or is open to, somebody else: pass folder=")
    else:
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
    path = place / f"{key[:32]}.pylrp.npz"
    if path.exists():
        return str(path)
    try:
        if network.graph.facts.lengths is None:
            network.save(path)
            return str(path)
    except TypeError:  # what has no form in a file: layers in Python, what stands before a table's network
        pass
    path = path.with_name(f"{key[:32]}.pickle")
    if not path.exists():
        atomically(path, lambda part: part.write_bytes(pickle.dumps(network, protocol=5)))
    return str(path)


def threads_of_a_task() -> int:
    """Return how many threads a task may use: the process's, divided by the tasks that run in it at one time."""
    at_once = 1
    try:
        from distributed import get_worker

        at_once = get_worker().state.nthreads
    except (ImportError, ValueError, AttributeError):
        # A pool of Dask's threaded scheduler; where Dask was not imported, another's thread, which has the process.
        dask = sys.modules.get("dask")
        if dask is not None and threading.current_thread() is not threading.main_thread():
            from dask.system import CPU_COUNT

            pool = dask.config.get("pool", None)
            at_once = getattr(pool, "_max_workers", None) or dask.config.get("num_workers", None) or CPU_COUNT
    return max(1, get_threads() // at_once)
