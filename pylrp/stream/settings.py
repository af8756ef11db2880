"""What a stream was asked for, settled: the size of its batches, what is kept, and what tells it from another run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pylrp.info import info
from pylrp.layers.base import product
from pylrp.network.identity import digest, fingerprint
from pylrp.network.network import Network
from pylrp.rules.composites import either
from pylrp.rules.defaults import default_for
from pylrp.stream.journal import JOURNAL
from pylrp.stream.reductions import Reduction
from pylrp.stream.sources import Source

__all__ = ["KEPT", "Settings", "settle"]

KEPT = ("relevance", "output", "target", "ledger")
_MEMORY = 512 << 20
_MOST_BATCH = 4096
#: Blocks on their way at one time: one is read, one waits, one is explained; its results, and those before, likewise.
_INPUTS, _RESULTS = 4, 3
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


@dataclass(frozen=True)
class Settings:
    """What a stream was asked for.

    Attributes
    ----------
    batch : int
    keep : tuple of str
    skip : bool
        Whether bad samples keep their rows as NaN.
    prepare : callable or None
    explain : dict
        Arguments of Network.explain.
    targets : ndarray or None
        One a sample of the source, where they were given so.
    run : dict
        What tells this run from another one, as JSON has it.
    """

    batch: int
    keep: tuple[str, ...]
    skip: bool
    prepare: Callable[[Any], Any] | None
    explain: dict[str, Any]
    targets: Any
    run: dict[str, Any]


def settle(
    network: Network,
    source: Source,
    batch: int | None,
    memory: int | str | None,
    keep: Sequence[str],
    reductions: Sequence[Reduction],
    prepare: Callable[[Any], Any] | None,
    on_error: str,
    asked: Mapping[str, Any],
) -> Settings:
    """Return the settings; :func:`pylrp.stream.explain` describes the arguments.

    Raises
    ------
    ValueError
        If one is of no use, or a batch needs more than the memory.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    unknown = [name for name in keep if name not in KEPT]
    if unknown or isinstance(keep, str):
        raise ValueError(f"keep must be some of {', '.join(KEPT)}, got {keep!r}")
    names = [reduction.name for reduction in reductions]
    if len(set(names)) < len(names):
        raise ValueError(f"reductions have one name twice: {', '.join(names)}")
    composite = either(asked["composite"], asked["rules"])
    composite = default_for(network.graph) if composite is None else composite
    explain = {**asked, "composite": composite}
    del explain["rules"]
    targets = _per_sample(explain["target"], source.count)
    if targets is not None:
        del explain["target"]
    size = _batch(network, batch, memory, 1 if explain["targets"] is None else len(explain["targets"]))
    told = {name: value for name, value in explain.items() if value is not None and name != "composite"}
    found = info()
    run = {
        "pylrp": found["pylrp"],
        "journal": JOURNAL,
        "instruction set": found["isa"],
        "network": fingerprint(network.graph),
        **source.identity(),
        "batch": size,
        "keep": list(keep),
        "composite": composite if isinstance(composite, str) else str(getattr(composite, "name", composite)),
        "rules": digest(composite)[:16],
        "settings": {name: value if isinstance(value, str) else repr(value) for name, value in told.items()},
        "targets": None if targets is None else digest(targets)[:16],
        "prepare": None if prepare is None else digest(prepare)[:16],
        "reductions": [repr(reduction) for reduction in reductions],
    }
    return Settings(size, tuple(keep), on_error == "skip", prepare, explain, targets, run)


def _per_sample(target: Any, count: int | None) -> Any:
    """Return targets that are one a sample, None for others."""
    if target is None or isinstance(target, str | int | np.integer):
        return None
    array = target if isinstance(target, np.ndarray) else np.asarray(target)
    if array.ndim == 0:
        return None
    if count is not None and len(array) != count:
        raise ValueError(f"target has {len(array)} entries, the source {count} samples: give one for all, or one each")
    return array


def _batch(network: Network, batch: int | None, memory: int | str | None, targets: int) -> int:
    """Return how many samples are taken at a time."""
    limit = _MEMORY if memory is None else _bytes(memory)
    graph = network.graph
    item = graph.dtype.itemsize
    inputs = sum(product(shape) for shape in graph.inputs.values()) * item
    values = sum(product(graph.shapes[name]) for name in graph.shapes) * item
    sample = _INPUTS * inputs + _RESULTS * targets * inputs + (1 + targets) * values
    if batch is None:
        if limit < sample:
            raise ValueError(f"a sample takes {sample / 1e6:.3g} MB on its way, memory is {limit / 1e6:.3g} MB")
        return int(min(_MOST_BATCH, limit // sample))
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    if memory is not None and batch * sample > limit:
        raise ValueError(
            f"a batch of {batch} takes {batch * sample / 1e6:.3g} MB on its way, memory is {limit / 1e6:.3g} MB: "
            f"at most {limit // sample} fit"
        )
    return batch


def _bytes(memory: int | str) -> int:
    """Read a number of bytes, "500 MB" or "2 GiB"."""
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?i?)b?\s*", memory.lower())
        if found is None or found[2] == "i":
            raise ValueError(f"memory is {memory!r}, not a number of bytes such as '500 MB' or '2 GiB'")
        return int(float(found[1]) * _UNITS[found[2]])
    if memory < 1:
        raise ValueError(f"memory must be a number of bytes, got {memory}")
    return int(memory)
