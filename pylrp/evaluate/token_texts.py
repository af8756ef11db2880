"""Texts whose tokens are left out, and the score of each; ``tokens.py`` asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pylrp._arrays import rounds_to_bfloat16
from pylrp.evaluate.evaluated_batch import Array, Values
from pylrp.network.entries import entries_of
from pylrp.network.network import Network
from pylrp.network.packing import NotPacked
from pylrp.network.requests import Inputs, shapes_of_inputs
from pylrp.network.samples import samples_in
from pylrp.network.variants import Variants

__all__ = ["How", "Texts", "given"]

How = Literal["delete", "mask"]
_FEW = 4  # variants: fewer share too little


class Texts:
    """Texts of a network, the score of each, and the same with tokens left out.

    Parameters
    ----------
    net : Network
    x : dict, array_like or list of samples
    target : object
        What is scored: a class, an entry ``(position, token)``, a dict of entries with weights, a direction (an array
        of the output's shape), or a list of these, one a text. Default: the top class.
    how : {"delete", "mask"}
    mask : int or None
        The id that stands for what is masked.
    keep : sequence of int
        Ids that are not left out: those of special tokens.
    threads : int, optional
    precision : {"bfloat16"}, optional
        Of predictions without tokens, and of what they are compared with.
    """

    def __init__(
        self, net: Network, x: Any, target: Any, how: How, mask: int | None, keep: Sequence[int], threads: int | None,
        precision: str | None = None,
    ):  # fmt: skip
        if net.graph.facts.sides is None:
            raise ValueError("the network takes no token ids: pixel_flipping and evaluate are for numbers")
        if len(net.graph.outputs) > 1:
            raise ValueError(f"the network has outputs {', '.join(net.graph.outputs)}: load it with outputs= of one")
        if how not in ("delete", "mask"):
            raise ValueError(f"how must be 'delete' or 'mask', got {how!r}")
        if how == "mask" and mask is None:
            raise ValueError("how='mask' needs mask=, the id of the tokenizer's mask token")
        if how == "delete" and net.graph.facts.lengths is None:
            raise ValueError("the network takes one length: pass how='mask' and mask=, the id of the mask token")
        self.net, self.how, self.mask, self.threads = net, how, mask, threads
        self.samples, self.single = _samples(net, x)
        self.ids = _ids_of(net)
        self.target = target
        outputs = self._outputs(self.samples)
        self.weights = [self._weights(i, output) for i, output in enumerate(outputs)]
        self.outputs = outputs
        self._bfloat16 = rounds_to_bfloat16(precision, net.dtype)
        self._variants = None if net._packs is None else Variants(net._packs)
        if self._bfloat16:
            outputs = [self._rounded(sample) for sample in self.samples]
        self.scores = [float((w * out).sum()) for w, out in zip(self.weights, outputs, strict=True)]
        seen = [next((row for name, row in s.items() if "mask" in name.lower()), None) for s in self.samples]
        self.tokens = [
            np.array([
                i for i, token in enumerate(sample[self.ids].tolist())
                if token not in keep and (row is None or row[i])
            ], np.intp)
            for sample, row in zip(self.samples, seen, strict=True)
        ]  # fmt: skip

    def _outputs(self, samples: Sequence[Mapping[str, Array]]) -> list[Values]:
        if not samples:
            return []
        made = self.net.forward([given(sample) for sample in samples], threads=self.threads)
        return [np.asarray(output, np.float64) for output in made]

    def _weights(self, i: int, output: Values) -> Values:
        """Return what the score multiplies the output's entries with."""
        target = self.target
        each = isinstance(target, list) or (
            isinstance(target, np.ndarray) and target.ndim and target.shape != output.shape
        )
        own = target[i] if each else target
        if isinstance(own, np.ndarray) and own.shape == output.shape and own.ndim:
            return own.astype(np.float64)
        if own is None:
            own = int(output.argmax()) if output.ndim == 1 else (len(output) - 1, int(output[-1].argmax()))
        classes = self.net._execution.classes_at(self.net.graph.outputs[0])
        if output.ndim == 1 and not isinstance(own, Mapping):
            own = {own: 1.0}
        found = entries_of(own, output.shape, 1, True, self.net.graph.outputs[0], classes)
        if found is None:
            raise ValueError(f"target {own!r} is no entry of an output of shape {output.shape}")
        made = np.zeros(output.shape)
        np.add.at(made.reshape(-1), found.places[:, 1], found.weights)
        return made

    def _rounded(self, sample: Mapping[str, Array]) -> Values:
        """Return the output of a sample with products in bfloat16."""
        x = given(sample)
        execution, threads = self.net._execution_of(x), self.threads or 0
        inputs, name = Inputs(execution.graph, x), execution.graph.outputs[0]
        value = execution.graph.value(name)
        (flat,) = execution.run(inputs, lambda: execution.values_of(inputs, [value], threads, bfloat16=True))
        return np.asarray(inputs.shaped(flat, execution.graph.shapes[value]), np.float64)

    def without(self, i: int, groups: Sequence[Sequence[int]]) -> Values:
        """Return the scores of a text without each of these groups of tokens."""
        changed = [self._changed(i, list(group)) for group in groups]
        shared = self._shared(i, groups, changed)
        if shared is not None:
            return shared
        outputs = [self._rounded(sample) for sample in changed] if self._bfloat16 else self._outputs(changed)
        pairs = zip(groups, outputs, strict=True)
        return np.array([float((self._left(i, group, len(out)) * out).sum()) for group, out in pairs])

    def _left(self, i: int, group: Sequence[int], length: int) -> Values:
        """Return the weights of an output without some tokens: of tokens by vocabulary the rows that are left."""
        weights = self.weights[i]
        return weights if len(weights) == length else np.delete(weights, list(group), axis=0)

    def _shared(self, i: int, groups: Sequence[Sequence[int]], changed: list[dict[str, Array]]) -> Values | None:
        """Return the scores by what variants of one length share; None where they do not run so."""
        if self._variants is None or len({len(sample[self.ids]) for sample in changed}) != 1 or len(groups) < _FEW:
            return None
        execution = self.net._execution_of(given(changed[0]))
        graph, length = execution.graph, len(changed[0][self.ids])
        shape = graph.shapes[graph.value(graph.outputs[0])]
        by_token = len(shape) > 1
        weights = [self._left(i, group, length if by_token else shape[0]) for group in groups]
        rows, most = None, 1
        if by_token:
            asked = [np.flatnonzero(each.reshape(len(each), -1).any(axis=1)) for each in weights]
            most = max(1, *map(len, asked))
            rows = np.array([np.pad(each, (0, most - len(each))) for each in asked], np.intp)
            weights = [np.pad(each[at], [(0, most - len(at))] + [(0, 0)] * (each.ndim - 1))
                       for each, at in zip(weights, asked, strict=True)]  # fmt: skip
        found = np.empty(len(groups))
        size = max(1, self._variants.tokens_at_once // length)
        for first in range(0, len(groups), size):
            some = changed[first : first + size]
            batch = {name: np.stack([sample[name] for sample in some]) for name in some[0]}
            inputs = Inputs(graph, given(batch))
            own = None if rows is None else rows[first : first + size]
            try:
                made = self._variants.outputs(execution, inputs, own, self.threads or 0, self._bfloat16)
            except NotPacked:
                return None
            pairs = zip(weights[first : first + size], made, strict=True)
            found[first : first + size] = [float((each * out.astype(np.float64)).sum()) for each, out in pairs]
        return found

    def _changed(self, i: int, group: list[int]) -> dict[str, Array]:
        sample = dict(self.samples[i])
        length = len(sample[self.ids])
        if self.how == "mask":
            sample[self.ids] = sample[self.ids].copy()
            sample[self.ids][group] = self.mask
            return sample
        for name, row in sample.items():
            if len(row) != length:
                continue
            counted = np.array_equal(row, np.arange(length))  # positions go on without a gap
            sample[name] = row[: length - len(group)] if counted and name != self.ids else np.delete(row, group)
        return sample


def given(sample: Mapping[str, Array]) -> Any:
    """Return a sample as a network takes it."""
    return dict(sample) if len(sample) > 1 else next(iter(sample.values()))


def _samples(net: Network, x: Any) -> tuple[list[dict[str, Array]], bool]:
    """Return samples by input, and whether it is one without a batch axis."""
    listed = samples_in(x, net.graph)
    if listed is not None:
        return [{name: rows[i] for name, rows in listed.by_input.items()} for i in range(len(listed))], False
    shapes = shapes_of_inputs(net.graph)
    given = dict(x) if isinstance(x, Mapping) else {next(iter(shapes)): x}
    if set(given) != set(shapes):
        raise ValueError(f"x has inputs {', '.join(map(str, given))}, the network takes {', '.join(shapes)}")
    arrays = {name: np.asarray(value) for name, value in given.items()}
    name = next(iter(shapes))
    if arrays[name].ndim == len(shapes[name]):
        return [arrays], True
    return [{name: rows[i] for name, rows in arrays.items()} for i in range(len(arrays[name]))], False


def _ids_of(net: Network) -> str:
    """Return the input of ids: of several that carry relevance the first."""
    sides = net.graph.facts.sides
    found = [] if sides is None else [name for name in sides.carrying if name in sides.inputs]
    if not found:
        raise ValueError("relevance belongs to no ids of this network")
    return found[0]
