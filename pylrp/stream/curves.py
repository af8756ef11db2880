"""Curves of pixel flipping over a whole stream, as sums: the reduction that evaluates while it explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pylrp.network.explanation import Explanation
from pylrp.network.network import Network

__all__ = ["FlippingCurves"]

Array = NDArray[Any]


class FlippingCurves:
    """Mean curves of :func:`pylrp.evaluate.pixel_flipping`, with their standard errors.

    Parameters
    ----------
    steps : int, default 20
    order : sequence of {"most", "least", "random"}
    **options
        As for :func:`pylrp.evaluate.pixel_flipping`: ``patch``, ``replacement``, ``score``, ``seed``, ...
    """

    name = "curves"

    def __init__(
        self, steps: int = 20, order: Sequence[Literal["most", "least", "random"]] = ("most", "least"), **options: Any
    ):
        self._options = {"steps": steps, "order": tuple(order), **options}
        self._sums, self._count = np.empty((0,)), 0
        self._fractions = np.empty((0,))

    def __repr__(self) -> str:
        return f"FlippingCurves({', '.join(f'{name}={value!r}' for name, value in self._options.items())})"

    def add(self, ex: Explanation, network: Network) -> None:
        """Flip the samples of a block."""
        from pylrp.evaluate import pixel_flipping

        if isinstance(ex.ledger, list):
            raise ValueError("curves are of one target a sample: give target=, not targets=")
        if len(ex) == 0:
            return
        found = pixel_flipping(network, ex.input, ex.relevance, target=ex.target, **self._options)
        scores = np.stack([found.scores[order] for order in self._options["order"]])  # (orders, samples, points)
        sums = np.stack([scores.sum(axis=1), np.square(scores).sum(axis=1)])
        self._fractions = found.fractions
        self._sums = sums if self._sums.size == 0 else self._sums + sums
        self._count += scores.shape[1]

    def state(self) -> dict[str, Array]:
        """Return sums, sums of squares, and the number of samples."""
        return {"sums": self._sums, "fractions": self._fractions, "count": np.array(self._count)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take what :meth:`state` has returned."""
        self._sums = np.array(state["sums"]) if state else np.empty((0,))
        self._fractions = np.array(state["fractions"]) if state else np.empty((0,))
        self._count = int(state["count"]) if state else 0

    def result(self) -> dict[str, Any]:
        """Return ``fractions``, and by order the mean curve and its standard error, each (points,)."""
        if self._sums.size == 0:
            return {}
        mean, square = self._sums / self._count
        spread = np.sqrt(np.maximum(square - np.square(mean), 0) / max(self._count - 1, 1))
        orders = self._options["order"]
        return {
            "fractions": self._fractions,
            "mean": dict(zip(orders, mean, strict=True)),
            "standard_error": dict(zip(orders, spread, strict=True)),
            "samples": self._count,
        }
