"""What :meth:`pylrp.Network.explain` returns: relevance, with what it needs to be checked and shown."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.ledger import COLUMNS, Ledger

__all__ = ["Explanation"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Explanation:
    """An explained prediction.

    Attributes
    ----------
    relevance : ndarray, shape of the input
        With several targets ``(batch, targets, ...)``.
    output : ndarray of shape (batch, classes) or (classes,)
        What the network predicts.
    target : ndarray of int64 or None
        The class explained, one a sample; None where the relevance at the top was given as an array.
    layers : dict of str to ndarray
        Relevance at the input of each layer by its name, and at the network's ``"output"``.
    ledger : Ledger or list of Ledger
        Where the relevance went; with several targets one each.
    """

    relevance: Array
    output: Array
    target: Array | None
    layers: dict[str, Array]
    ledger: Ledger | list[Ledger]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write relevance, output, target, the layers' relevances and the ledger to a ``.npz`` file.

        Layers are stored as ``layer/<name>``, the ledger as ``ledger`` of shape (targets, layers, 8, batch) with its
        ``ledger_columns``, ``ledger_layers`` and ``ledger_rules``.
        """
        ledgers = self.ledger if isinstance(self.ledger, list) else [self.ledger]
        arrays: dict[str, Any] = {
            "relevance": self.relevance,
            "output": self.output,
            "target": np.array(-1) if self.target is None else self.target,
            "ledger": np.stack([ledger.data for ledger in ledgers]),
            "ledger_columns": np.array(COLUMNS),
            "ledger_layers": np.array(ledgers[0].names),
            "ledger_rules": np.array(ledgers[0].rules),
        }
        arrays.update({f"layer/{name}": r for name, r in self.layers.items()})
        np.savez_compressed(path, **arrays)
