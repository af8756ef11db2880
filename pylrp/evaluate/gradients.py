"""Gradient times input and integrated gradients, to compare maps with: computed by the core's backward pass.

Composite ``"gradient"`` has the derivative of each layer for its rule (:class:`pylrp.rules.Gradient`). Token ids have
no gradient, their table's rows do: a token's number is the sum over its row. ``tokens.py`` compares them with others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pylrp.evaluate.evaluated_batch import Array, Values
from pylrp.network.classes import as_indices
from pylrp.network.graph import Graph
from pylrp.network.network import Network
from pylrp.network.requests import Inputs

__all__ = ["gradient_times_input", "integrated_gradients"]

_STEPS = 20


def gradient_times_input(net: Network, x: Any, target: Any = None) -> Any:
    """Return the input times the gradient of a score.

    Parameters
    ----------
    net : Network
        With one output; recurrent layers, quotients of two computed values, local response normalisation and layers in
        Python are refused.
    x : array_like or dict
        As :meth:`pylrp.Network.explain` takes it: one sample or a batch.
    target : int, sequence of int or ndarray, optional
        A class, one a sample, or an array of the output's shape: the score is its product with the output. Default: the
        top class.

    Returns
    -------
    ndarray, or dict of str to ndarray
        ``x * d score / dx``, like ``ex.relevance``: of token ids one number a token, of several inputs by name.

    Raises
    ------
    UnsuitableRule
        If a layer's derivative is not known to the core.
    """
    behind = _Behind(net, x, target)
    return behind.told(behind.gradients(behind.values))


def integrated_gradients(net: Network, x: Any, target: Any = None, *, baseline: Any = None, steps: int = _STEPS) -> Any:
    """Return gradients along the straight way from a baseline to the input, times the difference of the two.

    Parameters
    ----------
    net, x, target
        As for :func:`gradient_times_input`.
    baseline : float, array_like, dict or int, optional
        A number or an array like ``x`` (a dict by input), for token ids the id whose row stands for no token. Default:
        zeros, of token ids rows of zeros.
    steps : int, default 20
        Gradients that are computed, in the middles of so many parts of the way.

    Returns
    -------
    ndarray, or dict of str to ndarray
        Its sum is the score less that of the baseline, but for what the steps miss.

    Raises
    ------
    UnsuitableRule
        If a layer's derivative is not known to the core.
    ValueError
        If ``steps`` is not positive.

    References
    ----------
    Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", ICML 2017.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    behind = _Behind(net, x, target)
    start = behind.baseline(baseline)
    total = {name: np.zeros(behind.values[name].shape) for name in start}
    for step in range(steps):
        part = (step + 0.5) / steps
        values = dict(behind.values)
        for name, first in start.items():
            values[name] = (first + part * (behind.values[name] - first)).astype(behind.net.dtype)
        for name, product in behind.gradients(values).items():
            # The product with the input on the way: the gradient times the whole way's length is asked for.
            way = np.divide(behind.values[name] - start[name], values[name], out=np.zeros_like(values[name]),
                            where=values[name] != 0)  # fmt: skip
            total[name] += product * way / steps
    return behind.told(total)


class _Behind:
    """A network behind its tables of words, the values it begins with, and what is scored."""

    def __init__(self, net: Network, x: Any, target: Any):
        if len(net.graph.outputs) > 1:
            raise ValueError(f"the network has outputs {', '.join(net.graph.outputs)}: load it with outputs= of one")
        self.given, self.graph = x, net._execution_of(x).graph
        self.inputs = Inputs(self.graph, x)
        self.sides = self.graph.facts.sides
        self.net = net if self.sides is None else Network.from_graph(_without_ids(self.graph), keep_top=True)
        self.values = {name: self._value(name) for name in self.graph.inputs}
        self.output = np.asarray(self._forward(self.values), np.float64)
        self.classes: Array | None = None  # of each sample, where the target is one
        self.weights = self._weights(target)

    def _value(self, name: str) -> Array:
        """Return an input of the graph, with a batch."""
        if name in self.inputs.fed:
            return self.inputs.fed[name]
        value = np.asarray(self.inputs.given[name], self.graph.dtype)
        return value[None] if self.inputs.single else value

    @property
    def carrying(self) -> list[str]:
        """Return the inputs whose gradients are asked for: all numbers, and the tables that ids look up."""
        if self.sides is None:
            return list(self.graph.inputs)
        feeds = self.sides.feeds
        return [name for name in self.graph.inputs if name not in feeds or feeds[name].source in self.sides.carrying]

    def _forward(self, values: Mapping[str, Array]) -> Array:
        return np.asarray(self.net.forward(_sole(values)))

    def _weights(self, target: Any) -> Values:
        output = self.output
        given = np.asarray(target) if target is not None else None
        if given is not None and given.dtype.kind == "f":
            return np.broadcast_to(given, output.shape).astype(np.float64)
        if output.ndim != 2:
            raise ValueError(f"the output has shape {output.shape[1:]} a sample: pass target=, an array of that shape")
        classes = output.argmax(1) if given is None else np.broadcast_to(given, len(output))
        self.classes = as_indices(classes)
        made: Values = np.eye(output.shape[1])[classes]
        return made

    def gradients(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Return each input times its gradient."""
        start = self._start(values)
        found = self.net.explain(_sole(values), start, "gradient").relevance
        named = found if isinstance(found, dict) else {next(iter(values)): found}
        return {name: named[name] for name in self.carrying}

    def _start(self, values: Mapping[str, Array]) -> Array:
        """Return what relevance begins with: classes, whose outputs the call computes anyway, or weighed outputs."""
        if self.classes is not None and self.output.shape[1] > 1:  # one output may stand for two classes
            return self.classes
        output = self.output if values is self.values else np.asarray(self._forward(values), np.float64)
        return (self.weights * output).astype(self.net.dtype)

    def baseline(self, given: Any) -> dict[str, Array]:
        """Return where the way begins, for each input that has gradients."""
        found = {}
        for name in self.carrying:
            value = self.values[name]
            feed = None if self.sides is None else self.sides.feeds.get(name)
            own = given.get(name if feed is None else feed.source) if isinstance(given, Mapping) else given
            if own is None:
                found[name] = np.zeros_like(value)
            elif feed is not None:
                assert feed.table is not None
                found[name] = np.broadcast_to(feed.table.array[int(own)], value.shape).astype(value.dtype)
            else:
                found[name] = np.broadcast_to(np.asarray(own), value.shape).astype(value.dtype)
        return found

    def told(self, maps: Mapping[str, Array]) -> Any:
        """Return maps as the network's user knows its inputs."""
        found: dict[str, Array] = {}
        for name, values in maps.items():
            feed = None if self.sides is None else self.sides.feeds.get(name)
            source, own = (name, values) if feed is None else (str(feed.source), values.sum(-1))
            found[source] = found[source] + own if source in found else own
        if self.inputs.single:
            found = {name: values[0] for name, values in found.items()}
        return next(iter(found.values())) if len(found) == 1 else found


def _without_ids(graph: Graph) -> Graph:
    """Return a graph that takes rows of tables and masks as its inputs."""
    return graph.changed(facts=replace(graph.facts, sides=None, lengths=None))


def _sole(values: Mapping[str, Array]) -> Any:
    return dict(values) if len(values) > 1 else next(iter(values.values()))
