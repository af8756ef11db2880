"""A network's outputs as classes: names, scores, probabilities; reports and the terminal's table use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pylrp.network.canonise import function_at_the_top
from pylrp.network.classes import classes_of
from pylrp.network.network import Network
from pylrp.present.names import class_name
from pylrp.present.text import shown

__all__ = ["HOW", "Explained", "Outputs", "Prediction", "Probability", "named_labels"]

Array = NDArray[Any]
Probability = Literal["auto", "softmax", "sigmoid", "given"] | None

#: How a probability was found, for the page.
HOW = {
    "softmax": "Probabilities are the softmax of the network's {n} outputs, taken for logits.",
    "sigmoid": "Probabilities are the logistic function of the network's outputs, taken for logits.",
    "given": "Probabilities are the network's outputs themselves.",
}


def named_labels(network: Network, labels: Sequence[str] | Mapping[int, str] | None) -> dict[int, str]:
    """Return the classes' names by number.

    Raises
    ------
    ValueError
        If a sequence has another length than the outputs (one output may have two names). Default: the model's own.
    """
    known = [names for name in network.graph.outputs if (names := classes_of(network.graph, name).names)]
    if labels is None and known:
        labels = known[0]
    if labels is None or isinstance(labels, Mapping):
        return {int(k): shown(str(v)) for k, v in (labels or {}).items()}
    sizes = [network.graph.shapes[name][0] for name in network.graph.outputs]
    if len(labels) not in sizes and not (len(labels) == 2 and 1 in sizes):
        raise ValueError(
            f"{len(labels)} labels for {sizes[0]} outputs: pass one for each, or a dict of those that you have"
        )
    return {number: shown(str(label)) for number, label in enumerate(labels)}


@dataclass(frozen=True)
class Explained:
    """What one explanation is of.

    Attributes
    ----------
    index : int
        The output where relevance starts.
    label : str
        The class that positive relevance, red, supports.
    against : str
        What negative relevance, blue, supports: the end of a sentence.
    sign : int
        -1 where the one output decided for the first of two classes, which the negated relevance explains.
    score : float
        The output, times ``sign``.
    probability : float or None
        Of the label.
    """

    index: int
    label: str
    against: str
    sign: int
    score: float
    probability: float | None


@dataclass(frozen=True)
class Prediction:
    """The class that the network predicts, and the runners-up.

    Attributes
    ----------
    label : str
    probability : float or None
    others : list of (str, float)
        The next classes and their probabilities.
    score : float
    """

    label: str
    probability: float | None
    others: Sequence[tuple[str, float]]
    score: float


class Outputs:
    """One output of a network: scores of classes, and what they are called.

    Parameters
    ----------
    network : Network
    output : str
        Its name.
    labels : dict of int to str
    probability : {"auto", "softmax", "sigmoid", "given", None}
    """

    def __init__(self, network: Network, output: str, labels: dict[int, str], probability: Probability):
        shape = network.graph.shapes[output]
        self._labels = labels
        self._classes = classes_of(network.graph, output)
        #: Whether the one output decides between two classes that only the labels name.
        self.two = shape == (1,) and {0, 1} <= set(labels) and not self._classes.two
        self.probability = _settle(network, output, probability) if len(shape) == 1 else None
        #: A sentence about the probabilities, empty where there are none.
        self.how = HOW[self.probability].format(n=f"{shape[0]:,}") if self.probability else ""

    def starts_at(self, index: int) -> bool:
        """Return whether relevance can start at a class: a probability that was kept is that of class 1 alone."""
        return index == 1 or not self._classes.kept

    def ranked(self, scores: Array) -> list[int]:
        """Return the classes at which relevance can start, that of the largest score first."""
        return [int(i) for i in np.argsort(-scores, kind="stable") if self.starts_at(int(i))]

    def label(self, index: int) -> str:
        """Return what a class is called."""
        return class_name(index, self._labels)

    def scores(self, output: Array) -> Array:
        """Return one number a class, float64: of an output with positions the sum over them."""
        values: Array = np.asarray(output, np.float64)
        summed: Array = values.reshape(len(values), -1).sum(axis=1)
        return self._classes.scores(summed)

    def probabilities(self, scores: Array) -> Array | None:
        """Return the classes' probabilities, None where there are none."""
        if self.probability == "softmax":
            odds = np.exp(scores - scores.max())
            found: Array = odds / odds.sum()
            return found
        if self.probability == "sigmoid":
            with np.errstate(over="ignore"):  # exp(800) is infinite, and the probability 0
                return np.asarray(1 / (1 + np.exp(-scores)))
        return scores if self.probability == "given" else None

    def explained(self, index: int, scores: Array) -> Explained:
        """Return what is explained where relevance starts at a class."""
        score, found = float(scores[index]), self.probabilities(scores)
        p = None if found is None else float(found[index])
        if not self.two:
            return Explained(index, self.label(index), "against it", 1, score, p)
        first, second = self._labels[0], self._labels[1]
        if score >= 0 or self.probability == "given":
            return Explained(index, second, f"for “{first}”", 1, score, p)
        return Explained(index, first, f"for “{second}”", -1, -score, None if p is None else 1 - p)

    def prediction(self, scores: Array) -> Prediction:
        """Return the class that the network chose, and the next ones."""
        found = self.probabilities(scores)
        if self.two:
            one = self.explained(0, scores)
            if one.probability is not None and one.probability < 0.5:
                return Prediction(self._labels[0], 1 - one.probability, [], one.score)
            return Prediction(one.label, one.probability, [], one.score)
        order = [int(i) for i in np.argsort(-scores, kind="stable")]
        best = order[0]
        if found is None:
            return Prediction(self.label(best), None, [], float(scores[best]))
        others = [(self.label(i), float(found[i])) for i in order[1:3]]
        return Prediction(self.label(best), float(found[best]), others, float(scores[best]))


def _settle(network: Network, output: str, probability: Probability) -> Probability:
    if probability != "auto":
        return probability
    removed = network.graph.facts.top.get(output)
    if removed is not None:
        known: dict[str, Probability] = {"softmax": "softmax", "log_softmax": "softmax", "sigmoid": "sigmoid"}
        return known.get(removed)
    kept = function_at_the_top(network.graph, output)
    if kept is not None:
        return "given" if kept in ("softmax", "sigmoid") else None
    if network.graph.shapes[output] == (1,):
        return "sigmoid" if classes_of(network.graph, output).two else None
    return "softmax"
