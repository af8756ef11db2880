"""Layers that pylrp has no rule for, by the names users know: recurrent ones, attention, quantised weights.

Loaders meet such a layer as some operator inside of it, whose own error would lead astray. ``onnx/model.py``,
``torch/module.py`` and ``keras/builder.py`` ask here first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pylrp.errors import UnsupportedLayer

__all__ = ["Refusal", "of_class", "of_function", "of_operator", "quantised"]


@dataclass(frozen=True)
class Refusal:
    """Why a kind of layer can't be explained, and what to do.

    Attributes
    ----------
    reason, way_out : str
        As for :class:`pylrp.UnsupportedLayer`; no way out where that of the loader is right.
    """

    reason: str
    way_out: str | None

    def error(self, node: str, operator: str, way_out: str = "") -> UnsupportedLayer:
        """Return the error for a layer."""
        return UnsupportedLayer(node, operator, self.reason, self.way_out or way_out)


_BEHIND = "load the part of the network behind it by itself, and explain that on this layer's outputs"
_RECURRENT = Refusal(
    "is a recurrent layer of another kind than LSTM, GRU and RNN, for which pylrp has no rule",
    _BEHIND,
)
_ATTENTION = Refusal("is attention, products of values that are both computed, for which pylrp has no rule", _BEHIND)
_QUANTISED = Refusal(
    "holds quantised numbers, and relevance is computed in float32 or float64",
    "take the model before quantisation",
)
_FUSED = Refusal(
    "is an operator of onnxruntime's own, which its optimiser has made of others",
    "take the model before it was optimised, or optimise it with "
    "SessionOptions.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC",
)
_LAID_OUT = Refusal(
    "has values and weights in the order of one processor, which the file does not name",
    "take the model before it was optimised, or optimise it with "
    "SessionOptions.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC or ORT_ENABLE_EXTENDED",
)

#: Patterns of operators in ONNX, with the domain where it is not ONNX's own; the first that is found decides.
_OPERATORS = (
    (r"(^|\.)(Dynamic(Quantize)?)?(LSTM|GRU|RNN)$", _RECURRENT),
    (r"Attention", _ATTENTION),
    (r"Quant|(^|\.)Q(Linear|Gemm|Attention|Ordered|MoE)|Integer|NBits|BnbFp4|^com\.microsoft\.QLinear", _QUANTISED),
    (r"^com\.microsoft\.nchwc\.", _LAID_OUT),
    (r"^com\.ms\.internal|^com\.microsoft\.", _FUSED),
)
#: Patterns of classes of modules and layers.
_CLASSES = (
    (r"(LSTM|GRU|RNN)(\dD(Cell)?|Cell)$|^RNN(Base|CellBase)?$", _RECURRENT),
    (r"Attention|^Transformer(En|De)coder|^Transformer$", _ATTENTION),
)
#: Patterns of functions of torch.
_FUNCTIONS = (
    (r"lstm|gru|rnn", _RECURRENT),
    (r"attention|transformer", _ATTENTION),
    (r"quantiz", _QUANTISED),
)
#: Operators that attention itself consists of; others inside of a class that is called so have errors of their own.
_PRODUCTS = ("MatMul", "Einsum", "Gemm", "Softmax", "attention")


def of_operator(operator: str) -> Refusal | None:
    """Return why an operator of ONNX is refused; None where nothing is known about it."""
    return next((refusal for pattern, refusal in _OPERATORS if re.search(pattern, operator)), None)


def of_function(name: str) -> Refusal | None:
    """Return why a function of torch is refused, by its name in lower case without underscores."""
    return next((refusal for pattern, refusal in _FUNCTIONS if re.search(pattern, name)), None)


def of_class(kind: type, operator: str = "") -> Refusal | None:
    """Return why a module or layer of a class is refused.

    Parameters
    ----------
    kind : type
    operator : str
        What could not be explained inside of it; of a user's own class only attention's products count.
    """
    for base in kind.__mro__:
        own = not base.__module__.startswith(("torch.", "keras."))
        for pattern, refusal in _CLASSES:
            if re.search(pattern, base.__name__) and (not own or (refusal is _ATTENTION and operator in _PRODUCTS)):
                return refusal
    return None


def quantised(node: str, operator: str) -> UnsupportedLayer:
    """Return the error for a layer with quantised weights."""
    return _QUANTISED.error(node, operator)
