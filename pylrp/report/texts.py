"""Samples of token ids for a report, each of its own length: inputs, or explanations of them.

``report.py`` calls in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pylrp.network.explanation import Explanation
from pylrp.network.network import Network
from pylrp.network.requests import shapes_of_inputs
from pylrp.network.samples import samples_in

__all__ = ["Texts"]


class Texts:
    """Samples of token ids.

    Attributes
    ----------
    batch : int
    single : bool
        Whether it is one sample without a batch axis.
    notes : list of str
    rules : dict of str to composite
        Of explanations.
    output : str or None
        Where those start.
    """

    def __init__(self, batch: int, single: bool):
        self.batch, self.single = batch, single
        self.notes: list[str] = []
        self.rules: dict[str, Any] = {}
        self.output: str | None = None
        self._samples: list[dict[str, Any]] = []
        self._explanations: Mapping[str, Explanation] = {}

    @classmethod
    def of(cls, network: Network, x: Any) -> Texts:
        """Return the samples of an input as :meth:`pylrp.Network.explain` takes it."""
        found = samples_in(x, network.graph)
        if found is not None:
            texts = cls(len(found), single=False)
            texts._samples = [{name: a[i] for name, a in found.by_input.items()} for i in range(len(found))]
            return texts
        shapes = shapes_of_inputs(network.graph)
        given = dict(x) if isinstance(x, Mapping) else {next(iter(shapes)): x}
        arrays = {name: np.asarray(value) for name, value in given.items()}
        first = next(iter(arrays))
        if first not in shapes:
            raise ValueError(f"x has inputs {', '.join(arrays)}, the network takes {', '.join(shapes)}")
        single = arrays[first].ndim == len(shapes[first])
        texts = cls(1 if single else len(arrays[first]), single)
        texts._samples = [
            {name: array if single else array[i] for name, array in arrays.items()} for i in range(texts.batch)
        ]
        return texts

    @classmethod
    def explained(cls, explanations: Mapping[str, Explanation]) -> Texts:
        """Return the samples of explanations, by the names of their composites."""
        first = next(iter(explanations.values()))
        single = bool(first.settings["single"])
        texts = cls(1 if single else len(first), single)
        texts._explanations = explanations
        texts.rules = {key: ex.settings["composite"] for key, ex in explanations.items()}
        texts.output = first.settings["output"]
        return texts

    def __len__(self) -> int:
        return self.batch

    def sample(self, i: int) -> Any:
        """Return a sample as a network takes it."""
        sample = self._samples[i]
        return sample if len(sample) > 1 else next(iter(sample.values()))

    def parts(self, i: int) -> dict[str, Explanation]:
        """Return the explanations of a sample."""
        return {key: ex if self.single else ex[i] for key, ex in self._explanations.items()}

    def tokens(self, given: Any) -> list[Sequence[str] | None]:
        """Return the tokens of each sample, None where they are not known.

        Raises
        ------
        ValueError
            If there are not as many as samples.
        """
        if given is None and self._explanations:
            given = next(iter(self._explanations.values())).settings.get("tokens")
        if given is None:
            return [None] * self.batch
        each = [given] if self.single else list(given)
        if len(each) != self.batch:
            raise ValueError(f"there are {self.batch} samples and tokens of {len(each)}")
        return each
