"""What :meth:`pylrp.Network.explain` returns: relevance, output, target, layers and the ledger in one value."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.ledger import COLUMNS, Ledger

__all__ = ["Explanation", "Layers"]

Array = NDArray[Any]


class Layers(Mapping[str, Array]):
    """Relevance of each value of the network by its name; what was not kept is found anew when it is asked for.

    Parameters
    ----------
    kept : dict of str to ndarray
    names : list of str
        All of them, inputs first.
    again : callable
        Explains once more and returns the relevance of one value.
    """

    def __init__(self, kept: dict[str, Array], names: list[str], again: Callable[[str], Array]):
        self._kept = dict(kept)
        self._names = names
        self._again = again

    @property
    def kept(self) -> dict[str, Array]:
        """Return those that are there without computing."""
        return dict(self._kept)

    def __getitem__(self, name: str) -> Array:
        if name not in self._kept:
            if name not in self._names:
                raise KeyError(name)
            self._kept[name] = self._again(name)
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, eq=False)
class Explanation:
    """An explained prediction.

    Attributes
    ----------
    relevance : ndarray, shape of the input
        With several targets ``(batch, targets, ...)``. A dict by name where the network has several inputs.
    output : ndarray of shape (batch, classes) or (classes,)
        What the network predicts; a dict by name where it has several outputs.
    target : ndarray of int64 or None
        The class explained, one a sample; None where the relevance at the top was given as an array.
    layers : mapping of str to ndarray
        Relevance of each value by name: of an input of the network (``"input"`` where it has no other name), or of what
        a layer puts out. An activation has the relevance of the layer before it.
    ledger : Ledger or list of Ledger
        Where the relevance went; with several targets one each.
    input : ndarray
        What was explained, as it was given; a dict by name where the network has several inputs.
    settings : dict
        Composite, convention, start and what else the call was given: enough to repeat it.
    """

    relevance: Any
    output: Any
    target: Array | None
    layers: Layers
    ledger: Ledger | list[Ledger]
    input: Any = None
    settings: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write relevance, output, target, the relevance of kept layers and the ledger to a ``.npz`` file.

        Layers are stored as ``layer/<name>``, the ledger as ``ledger`` of shape (targets, layers, 9, batch) with its
        ``ledger_columns``, ``ledger_layers`` and ``ledger_rules``; of several inputs or outputs ``relevance/<name>``
        and ``output/<name>``.
        """
        ledgers = self.ledger if isinstance(self.ledger, list) else [self.ledger]
        arrays: dict[str, Any] = {
            "target": np.array(-1) if self.target is None else self.target,
            "ledger": np.stack([ledger.data for ledger in ledgers]),
            "ledger_columns": np.array(COLUMNS),
            "ledger_layers": np.array(ledgers[0].names),
            "ledger_rules": np.array(ledgers[0].rules),
        }
        for what, found in (("relevance", self.relevance), ("output", self.output)):
            arrays.update(
                {f"{what}/{name}": a for name, a in found.items()} if isinstance(found, dict) else {what: found}
            )
        arrays.update({f"layer/{name}": r for name, r in self.layers.kept.items()})
        np.savez_compressed(path, **arrays)
