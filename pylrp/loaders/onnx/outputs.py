"""The outputs of an ONNX model: which of them are scores, which are labels made of scores, and what classes are called.

A label (ArgMax, TopK, NonMaxSuppression, a threshold) follows from scores by a decision, which nothing can be
propagated through: such outputs are left out, with a note. ``onnx/reader.py`` asks before it translates anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from pylrp.loaders.chosen_outputs import unknown_output
from pylrp.loaders.onnx.constants import attributes_of
from pylrp.loaders.onnx.node import operator_of

__all__ = ["ModelOutputs"]

Array = NDArray[Any]

_ML = "ai.onnx.ml."
_MOST_STEPS = 32  # from an output down to what makes a label; nodes of a broken model may stand in a circle
#: What follows from a decision, whatever is done to it.
_DECISIONS = {"ArgMax", "ArgMin", "TopK", "NonMaxSuppression", "NonZero", "Hardmax", f"{_ML}Binarizer"}
_THRESHOLDS = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Round"}
#: What a label goes through that is a label still.
_CARRIES = {
    "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Not", "Gather", "GatherElements",
    f"{_ML}ArrayFeatureExtractor", f"{_ML}LabelEncoder", f"{_ML}CategoryMapper",
}  # fmt: skip
#: Operators that make a label beside the scores: the position of the label among their outputs.
_LABELS_BESIDE = {f"{_ML}LinearClassifier": 0}


@dataclass
class ModelOutputs:
    """What is to be explained.

    Attributes
    ----------
    values : dict of str to str
        By the name of an output, the tensor that has its values.
    notes : list of str
    classes : tuple or None
        The labels of the classes.
    """

    values: dict[str, str]
    notes: list[str] = field(default_factory=list)
    classes: tuple[Any, ...] | None = None

    @classmethod
    def of(
        cls,
        graph: onnx.GraphProto,
        chosen: Sequence[str] | None,
        constant: Callable[[str], Array | None],
        by_hand: Collection[str] = (),
    ) -> ModelOutputs:
        """Look through a model.

        Parameters
        ----------
        graph : GraphProto
        chosen : sequence of str or None
            What the user wants: names of outputs, tensors or nodes.
        constant : callable
            Returns a stored tensor by its name, None where there is none.
        by_hand : collection of str, optional
            Operators and nodes that the user has layers for: no decisions.

        Raises
        ------
        ValueError
            If nothing is called as in ``chosen``.
        """
        look = _Look(graph, constant, by_hand)
        declared = [info.name for info in graph.output]
        if chosen is not None:
            found = cls({name: look.scores(look.named(name)) for name in chosen})
        else:
            labels = {name: what for name in declared if (what := look.decision(name))}
            found = cls({name: look.scores(name) for name in declared if name not in labels})
            made = [f"output {name!r} is left out: it is a label that {what} makes" for name, what in labels.items()]
            found.notes = made
            if not found.values:
                found._instead(look, list(labels))
        if len(set(found.values.values())) == 1:
            found.classes = look.classes(declared)
        return found

    def _instead(self, look: _Look, labels: Sequence[str]) -> None:
        """Take what labels are chosen from, where the model has no other output."""
        for name in labels:
            source = look.source(name)
            if source is None:  # more than a label: the operator is refused where it stands
                self.values, self.notes = {name: name for name in labels}, []
                return
            if source not in self.values.values():
                self.values[source] = source
        shown = ", ".join(map(repr, self.values))
        places = ", ".join(map(repr, labels))
        self.notes = [f"{places}: an output that is a label; {shown}, which it is made of, is explained in its place"]


class _Look:
    """A model's nodes, looked at from its outputs."""

    def __init__(self, graph: onnx.GraphProto, constant: Callable[[str], Array | None], by_hand: Collection[str] = ()):
        self._constant = constant
        self._graph = graph
        self._producers: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output if name}
        self._decided: dict[str, str] = {}
        computed = {info.name for info in graph.input} - {tensor.name for tensor in graph.initializer}
        for node in graph.node:
            # Sizes are no values: what is decided by them is known when the model is loaded.
            if node.op_type in ("Shape", "Size") or computed.isdisjoint(node.input):
                continue
            computed.update(node.output)
            operator = operator_of(node)
            cause = next((self._decided[name] for name in node.input if name in self._decided), None)
            own = operator in by_hand or node.name in by_hand
            if (operator in _DECISIONS and not own) or cause:
                self._decided.update(dict.fromkeys(node.output, cause or operator))
            elif operator in _LABELS_BESIDE:
                self._decided[node.output[_LABELS_BESIDE[operator]]] = operator
        self._computed = computed

    def named(self, name: str) -> str:
        """Return the tensor that a user means: an output's, any tensor's, or the first that a node makes."""
        if name in self._producers:
            return name
        for node in self._graph.node:
            if node.name == name:
                return str(node.output[0])
        declared = [info.name for info in self._graph.output]
        raise unknown_output(name, declared, [n for n in self._producers if n not in declared and n in self._computed])

    def scores(self, name: str) -> str:
        """Return the tensor behind a ZipMap, which gives each score its class's name."""
        node = self._producers.get(name)
        return str(node.input[0]) if node is not None and operator_of(node) == f"{_ML}ZipMap" else name

    def decision(self, name: str) -> str | None:
        """Return the operator that makes a label of scores, None where an output is no label."""
        if name in self._decided:
            return self._decided[name].removeprefix(_ML)
        node = self._producers.get(name)
        for _ in range(_MOST_STEPS):
            if node is None or operator_of(node) not in _CARRIES or not node.input:
                break
            node = self._producers.get(node.input[0])
        threshold = node is not None and operator_of(node) in _THRESHOLDS and not self._computed.isdisjoint(node.input)
        return node.op_type if threshold and node is not None else None

    def source(self, name: str) -> str | None:
        """Return the tensor that a label is made of, None where it is more than that."""
        for _ in range(_MOST_STEPS):
            node = self._producers.get(name)
            if node is None:
                return None
            operator = operator_of(node)
            behind = [value for value in node.input if value in self._computed]
            if len(behind) != 1:
                return None
            if operator in _DECISIONS or operator in _THRESHOLDS:
                return str(behind[0])
            if operator in _LABELS_BESIDE:
                return str(node.output[1 - _LABELS_BESIDE[operator]])
            if operator not in _CARRIES:
                return None
            name = behind[0]
        return None

    def classes(self, outputs: Sequence[str]) -> tuple[Any, ...] | None:
        """Return the labels of the classes, from the operators that make labels or give scores names."""
        for name in outputs:
            node = self._producers.get(name)
            for _ in range(_MOST_STEPS):
                if node is None:
                    break
                found = self._labels(node)
                if found is not None:
                    return found
                carried = [value for value in node.input if value in self._computed]
                ends = operator_of(node) not in _CARRIES or len(carried) != 1
                node = None if ends else self._producers.get(carried[0])
        return None

    def _labels(self, node: NodeProto) -> tuple[Any, ...] | None:
        operator = operator_of(node)
        if operator in (f"{_ML}ZipMap", f"{_ML}LinearClassifier"):
            return listed(attributes_of(node))
        if operator in (f"{_ML}ArrayFeatureExtractor", "Gather") and node.input[0] not in self._computed:
            array = self._constant(node.input[0])
            if array is not None and array.dtype.kind in "iuUSO":
                return tuple(_plain(label) for label in array.ravel().tolist())
        return None


def listed(attributes: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return the labels that attributes hold, None where there are none."""
    names = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
    labels = next((attributes[name] for name in names if attributes.get(name)), None)
    return None if labels is None else tuple(map(_plain, np.asarray(labels, object).tolist()))


def _plain(label: Any) -> Any:
    return label.decode(errors="replace") if isinstance(label, bytes) else label
