"""A network, a batch of inputs and one class for each; changed inputs are scored by the network in chunks.

``flipping.py`` and its siblings change the inputs and call :meth:`EvaluatedBatch.scores` for the scores of the classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.layers.base import Shape, product
from pylrp.network.canonise import function_at_the_top
from pylrp.network.classes import Classes, as_indices, classes_of
from pylrp.network.layout import channels_moved_first, channels_moved_last
from pylrp.network.network import Network
from pylrp.network.requests import Inputs

__all__ = ["Array", "EvaluatedBatch", "Progress", "Score", "Values", "chunk_of", "quiet"]

Array = NDArray[Any]
Values = NDArray[np.float64]
Score = Literal["logit", "probability"]
#: Called with how much is done, and how much there is to do, in samples that the network predicts.
Progress = Callable[[int, int], object]

_CHUNK_NUMBERS = 1 << 20  # of the inputs of one forward pass: the buffer fits into the shared cache
_MOST_SAMPLES = 1024


class EvaluatedBatch:
    """A network, inputs and the class of each.

    Parameters
    ----------
    net : Network
        With one input, and one output without positions.
    x : array_like of shape (batch, ...) or (...)
        As the network takes it; one sample is a batch of one.
    target : int or sequence of int, optional
        The class that is scored. Default: the top class of each sample.
    score : {"logit", "probability"}
        The network's output, or its softmax. Where the network ends with a softmax or a sigmoid both are its output.
    layout : tuple of int, optional
        ``(channels, height, width)`` of a sample where the network takes it flat; ``(n,)`` for numbers without
        positions.

    Attributes
    ----------
    x : ndarray of shape (batch, ...)
    flat : ndarray of shape (batch, n)
        The same memory.
    target : ndarray of shape (batch,), int64
        The indices of the explained classes.
    columns : Columns
        The columns of x in the caller's order; here they stand in the network's.
    shape : tuple of int
        Of a sample, channels first: the layout, or else the network's.
    channels_last : bool
        Whether a flat sample has its channels last.
    """

    def __init__(
        self,
        net: Network,
        x: ArrayLike,
        target: int | ArrayLike | None = None,
        score: Score = "logit",
        layout: Shape | None = None,
    ):
        graph = net._execution_of(x).graph
        if graph.facts.sides is not None:
            raise ValueError(
                f"the network takes token ids or masks, {', '.join(graph.facts.sides.inputs)}: its maps are "
                "compared with what leaving tokens out does, pylrp.evaluate.evaluate_tokens"
            )
        if len(graph.inputs) != 1:
            raise ValueError(f"the network has inputs {', '.join(graph.inputs)}: only networks with one are evaluated")
        if len(graph.outputs) != 1:
            raise ValueError(
                f"the network has outputs {', '.join(graph.outputs)}: only networks with one are evaluated"
            )
        if len(graph.shapes[graph.outputs[0]]) != 1:
            raise ValueError(f"the output has shape {graph.shapes[graph.outputs[0]]}: one number a class is needed")
        if score not in ("logit", "probability"):
            raise ValueError(f"score must be 'logit' or 'probability', got {score!r}")
        (name, shape), *_ = graph.inputs.items()
        self.net = net
        self.channels_last = name in graph.channels_last and layout is None
        self.sample_shape: Shape = graph.user_shape(name)
        inputs = Inputs(graph, x)  # raises where x does not fit
        if inputs.batch == 0:
            raise ValueError("x is empty: there is nothing to evaluate")
        given = np.ascontiguousarray(inputs.flat[0]).reshape(inputs.batch, *self.sample_shape)
        output = net.forward(given)
        self.x = given
        self.columns = inputs.columns[name]
        self.flat = self.x.reshape(len(given), -1)
        self.shape = _layout(shape, layout)
        self._function = _probability(net, output.shape[1]) if score == "probability" else None
        self._classes = classes_of(graph, graph.outputs[0])
        self.target = _targets(self._classes, output, target)
        self._channel, self._sign = self._classes.channel(self.target), self._classes.sign(self.target)
        self.chunk = chunk_of(self.flat.shape[1])

    def __len__(self) -> int:
        return len(self.flat)

    def scores(self, rows: Array, samples: NDArray[np.intp], rest: Network | None = None) -> Values:
        """Return the score of changed samples.

        Parameters
        ----------
        rows : ndarray of shape (k, n)
            Inputs of the network.
        samples : ndarray of shape (k,)
            Which sample each of them was, for its target.
        rest : Network, optional
            The upper part of the network, where rows are what it takes.
        """
        output = self.net.forward(rows.reshape(-1, *self.sample_shape)) if rest is None else rest.forward(rows)
        at = np.arange(len(rows)), self._channel[samples]
        if self._function != "softmax":
            found = np.asarray(output[at], np.float64)
            found = found if self._sign is None else found * self._sign[samples]
            if self._function is None:
                return found
            with np.errstate(over="ignore"):  # exp(800) is infinite, and the probability 0
                return np.asarray(1 / (1 + np.exp(-found)))
        odds = np.ascontiguousarray(output.T, np.float64)  # few classes, many samples: sums along these are fast
        np.exp(odds - odds.max(axis=0), out=odds)
        return np.asarray(odds[at[::-1]] / odds.sum(axis=0))

    def explain(
        self, composite: Any, x: Array | None = None, net: Network | None = None, *, one: bool = False
    ) -> Array:
        """Return the relevance of the evaluated's classes, of x's shape, chunk by chunk.

        Parameters
        ----------
        composite : str, Composite, Rule or sequence of Rule
        x : ndarray, optional
            Other inputs for the same samples.
        net : Network, optional
            Another network.
        one : bool
            Divide by the size of the logit, and take maps without positive entries, which rules without signs (z+,
            flat) give where the logit is negative, as positive ones.
        """
        rows, network = self.x if x is None else x, self.net if net is None else net
        chunks = [slice(i, i + self.chunk) for i in range(0, len(rows), self.chunk)]
        start: Literal["one", "logit"] = "one" if one else "logit"
        found: Array = np.concatenate(
            [network.explain(rows[c], self.target[c], composite, start=start).relevance for c in chunks]
        )
        if one:
            turned = found.reshape(len(found), -1).max(axis=1, initial=-np.inf) <= 0
            found[turned] *= -1
        return found

    def channels_first(self, flat: Array) -> Array:
        """Return (batch, n) as (batch, channels, ...)."""
        if not self.channels_last:
            return flat.reshape(-1, *self.shape)
        return channels_moved_first(flat.reshape(-1, *self.sample_shape), 1)

    def as_taken(self, array: Array) -> Array:
        """Return (batch, channels, ...) as (batch, n), in the dtype and order that the network takes."""
        ordered = channels_moved_last(array, 1) if self.channels_last else array
        return np.ascontiguousarray(ordered, self.flat.dtype).reshape(len(array), -1)


def chunk_of(numbers: int) -> int:
    """Return how many samples of so many numbers are predicted at a time."""
    return max(1, min(_MOST_SAMPLES, _CHUNK_NUMBERS // numbers))


def _probability(net: Network, outputs: int) -> Literal["softmax", "sigmoid"] | None:
    """Return what makes probabilities of the outputs, None where they are some already."""
    top = net.graph.facts.top.get(net.graph.outputs[0])
    if top == "sigmoid":
        return "sigmoid"
    if top is None and function_at_the_top(net.graph, net.graph.outputs[0]) in ("softmax", "sigmoid"):
        return None
    if outputs == 1 or top not in (None, "softmax", "log_softmax"):
        raise ValueError("the network's output is no logit of a probability: take score='logit'")
    return "softmax"


def quiet(done: int, total: int) -> None:
    """Show no progress."""


def _layout(shape: Shape, layout: Shape | None) -> Shape:
    if layout is None:
        return shape
    if not layout or product(layout) != product(shape):
        raise ValueError(f"layout is {tuple(layout)}, expected (channels, ...) with the {product(shape)} numbers of x")
    return tuple(layout)


def _targets(classes: Classes, output: Array, target: Any) -> NDArray[np.int64]:
    """Return the index of a class for each sample; by default the top one, of two with one logit the second."""
    if target is None:
        found = np.ones(len(output), np.int64) if classes.two else output.argmax(axis=1)
    else:
        found = classes.resolve(target)
        if found.ndim > 1 or (found.ndim == 1 and len(found) != len(output)):
            raise ValueError(f"target has shape {found.shape}: pass a class, or one for each of {len(output)} samples")
        if found.size and not (found.min() >= 0 and found.max() < classes.count):
            raise ValueError(f"target has {found.min()} to {found.max()}, classes are 0 to {classes.count - 1}")
    made = np.ascontiguousarray(np.broadcast_to(found, len(output)), np.int64)
    return made if classes.numbered else as_indices(made)
