"""``pylrp.dask.explain``: a Dask array's blocks become tasks, and their results lazy arrays with known shapes."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pylrp.dask.worker import Explainer, results
from pylrp.network.ledger import COLUMNS
from pylrp.network.network import Network

__all__ = ["DaskExplanation", "explain"]


@dataclass(frozen=True, eq=False)
class DaskExplanation:
    """What :func:`pylrp.dask.explain` returns: nothing is computed until it is asked for.

    Attributes
    ----------
    relevance, output, target, ledger : dask.array.Array
        A row a sample, in the chunks of the input; the ledger's axes are sample, layer, column.
    ledger_layers, ledger_rules, ledger_columns : tuple of str
    """

    relevance: Any
    output: Any
    target: Any
    ledger: Any
    ledger_layers: tuple[str, ...]
    ledger_rules: tuple[str, ...]
    ledger_columns: tuple[str, ...] = COLUMNS

    def __repr__(self) -> str:
        return f"<DaskExplanation: relevance {self.relevance.shape}, {self.relevance.numblocks[0]} blocks>"


def explain(
    network: Network,
    array: Any,
    target: Any = None,
    *,
    by_file: bool | None = None,
    folder: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    **options: Any,
) -> DaskExplanation:
    """Explain a Dask array, lazily, a block a task.

    The network reaches a process once: as a mapped file, which the processes of a machine share, or, on a cluster, as
    bytes that go to each worker once. Each block has the bits of :meth:`pylrp.Network.explain` on the same samples.

    Parameters
    ----------
    network : Network
        With one input and one output.
    array : dask.array.Array of shape (samples, ...)
        As the network takes it; chunked along samples only. Their number may be unknown.
    target : int, str, array of shape (samples,), optional
        The class to explain; one for all, or one a sample, as an array of NumPy or Dask.
    by_file : bool, optional
        Whether workers find the network in a file. Default: unless there is a ``distributed`` client.
    folder : path, optional
        Where that file is.
    threads : int, optional
        Of the core in each task. Default: what the process may use, divided by the tasks that run in it at one time.
    **options
        As for :meth:`pylrp.Network.explain`: ``targets``, ``composite``, ``against``, ...

    Returns
    -------
    DaskExplanation

    Raises
    ------
    ValueError
        If an axis of features is split, shapes do not fit, or the network has several inputs or outputs.
    ImportError
        If dask is not installed.

    Examples
    --------
    >>> import dask.array as da, numpy as np, pylrp, pylrp.dask
    >>> net = pylrp.Network([pylrp.layers.Dense([[3.0, 2.0], [1.0, 1.0]])])
    >>> ex = pylrp.dask.explain(net, da.ones((10, 2), chunks=(4, 2)), target=0, composite="epsilon")
    >>> ex.relevance.chunks
    ((4, 4, 2), (2,))
    >>> ex.relevance[9].compute().round(3)
    array([3., 2.])
    """
    try:
        import dask
        import dask.array as da
    except ImportError as error:
        raise ImportError(f"Dask arrays need dask: pip install dask distributed ({error})") from None
    _require(network, array)
    sample = _tried(network, array, target, options)
    carrier = Explainer(
        network, by_file=not _has_client() if by_file is None else by_file, threads=threads, folder=folder, **options
    )
    ship = dask.delayed(carrier, pure=True, name=f"pylrp-network-{carrier.hash[:16]}-{dask.base.tokenize(options)}")
    blocks = array.to_delayed().reshape(array.numblocks[0])
    counts = array.chunks[0]
    targets = _targets(target, counts)
    made = [dask.delayed(_explained)(ship, block, each, pure=True) for block, each in zip(blocks, targets, strict=True)]

    def whole(name: str) -> Any:
        if name not in sample:
            return None
        like = sample[name]
        meta = np.empty((0,) * like.ndim, like.dtype)
        parts = [
            da.from_delayed(dask.delayed(_part)(found, name, pure=True), (count, *like.shape[1:]), meta=meta)
            for found, count in zip(made, counts, strict=True)
        ]
        unknown = any(math.isnan(count) for count in counts)
        return da.concatenate(parts, axis=0, allow_unknown_chunksizes=unknown)

    names = sample["layers"]
    return DaskExplanation(whole("relevance"), whole("output"), whole("target"), whole("ledger"), names[0], names[1])


def _explained(explainer: Explainer, block: Any, target: Any) -> dict[str, Any]:
    """Run in a worker."""
    return explainer(np.asarray(block), target)


def _part(found: Mapping[str, Any], name: str) -> Any:
    return found[name]


def _require(network: Network, array: Any) -> None:
    graph = network.graph
    if len(graph.inputs) > 1 or len(graph.outputs) > 1:
        raise ValueError(
            "the network has several inputs or outputs: map its explain over blocks yourself, see Explainer"
        )
    if not hasattr(array, "to_delayed") or not hasattr(array, "chunks"):
        way = (
            "frame.to_dask_array(lengths=True)"
            if hasattr(array, "to_dask_array")
            else "dask.array.from_array(x, chunks=...)"
        )
        raise TypeError(f"array is a {type(array).__name__}, not a Dask array: {way}")
    shape = (
        (graph.facts.front.columns,) if graph.facts.front is not None else graph.user_shape(next(iter(graph.inputs)))
    )
    if tuple(array.shape[1:]) != shape:
        raise ValueError(f"array has shape {array.shape}, the network takes (samples, {', '.join(map(str, shape))})")
    split = [axis for axis in range(1, array.ndim) if array.numblocks[axis] > 1]
    if split:
        whole = dict.fromkeys(split, -1)
        raise ValueError(
            f"axis {split[0]}, features of a sample, is split into {array.numblocks[split[0]]} chunks: a sample has to "
            f"be in one, array.rechunk({whole})"
        )


def _tried(network: Network, array: Any, target: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one sample of zeros gives: shapes, dtypes and the ledger's names."""
    dtype = array.dtype if array.dtype.kind != "O" else np.float64
    single = target if target is None or np.ndim(target) == 0 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the sample, which nobody gave
        ex = network.explain(np.zeros((1, *array.shape[1:]), dtype), target=single, **options)
    ledger = ex.ledger[0] if isinstance(ex.ledger, list) else ex.ledger
    return {**results(ex), "layers": (ledger.names, ledger.rules)}


def _targets(target: Any, counts: tuple[float, ...]) -> list[Any]:
    """Return the target of each block."""
    if target is None or np.ndim(target) == 0:
        return [target] * len(counts)
    if any(math.isnan(count) for count in counts):
        raise ValueError("the numbers of samples in blocks are unknown: give one target for all")
    total = int(sum(counts))
    if len(target) != total:
        raise ValueError(f"target has {len(target)} entries, the array {total} samples")
    ends = np.cumsum([0, *map(int, counts)])
    parts = [target[a:b] for a, b in pairwise(ends)]
    return [part.rechunk(-1).to_delayed()[0] if hasattr(part, "to_delayed") else np.asarray(part) for part in parts]


def _has_client() -> bool:
    try:
        from distributed import default_client

        default_client()
    except (ImportError, ValueError):
        return False
    return True
