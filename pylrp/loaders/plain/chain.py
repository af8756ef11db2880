"""A chain of dense layers and named activations as a graph: what weights without a framework amount to.

``arrays.py`` and ``sklearn/estimator.py`` find the weights and call in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pylrp.layers import (
    ELU,
    GELU,
    Clip,
    Dense,
    Exp,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    LogSoftmax,
    Mish,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from pylrp.loaders.plain.recurrent import Front, per_step
from pylrp.network.any_length import sequential
from pylrp.network.graph import Graph

__all__ = ["ACTIVATIONS", "activation", "chain", "recurrent_chain"]

#: Names in small letters without dashes -> the layer, or None where it changes nothing. MATLAB's names are among them.
ACTIVATIONS: dict[str, Callable[[], Layer] | None] = {
    "identity": None,
    "linear": None,
    "none": None,
    "purelin": None,
    "relu": ReLU,
    "poslin": ReLU,
    "relu6": ReLU6,
    "satlin": lambda: Clip(0.0, 1.0),
    "leakyrelu": LeakyReLU,
    "elu": ELU,
    "gelu": GELU,
    "silu": SiLU,
    "swish": SiLU,
    "hardswish": HardSwish,
    "mish": Mish,
    "softplus": Softplus,
    "sigmoid": Sigmoid,
    "logistic": Sigmoid,
    "logsig": Sigmoid,
    "tanh": Tanh,
    "tansig": Tanh,
    "hardsigmoid": HardSigmoid,
    "exp": Exp,
    "softmax": Softmax,
    "logsoftmax": LogSoftmax,
}


def activation(name: str) -> Layer | None:
    """Return the layer of that name, None where it changes nothing.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    plain = name.strip().lower().replace("_", "").replace("-", "")
    if plain not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; choose one of {', '.join(ACTIVATIONS)}")
    make = ACTIVATIONS[plain]
    return None if make is None else make()


def chain(
    layers: Sequence[Dense],
    activations: Sequence[str],
    *,
    notes: Sequence[str] = (),
    first: Sequence[Layer] = (),
    last: Sequence[Layer] = (),
    inputs: int | None = None,
) -> Graph:
    """Return the graph of dense layers, each followed by its activation.

    Parameters
    ----------
    layers : sequence of Dense
    activations : sequence of str
        One a layer, "none" where there is none.
    notes : sequence of str, optional
        What was done to the model on the way.
    first : sequence of Layer, optional
        What comes before the first dense layer.
    last : sequence of Layer, optional
        What comes behind the last activation.
    inputs : int, optional
        Number of features of the input; default: as the first dense layer takes.
    """
    whole: list[Layer] = list(first)
    for layer, name in zip(layers, activations, strict=True):
        function = activation(name)
        whole += [layer] if function is None else [layer, function]
    whole += last
    taken = int(layers[0].weight.shape[1])  # type: ignore[union-attr]  # the loaders bring arrays
    return Graph.sequential(whole, (taken if inputs is None else inputs,)).changed(notes=notes)


def recurrent_chain(
    front: Front, layers: Sequence[Dense], activations: Sequence[str], notes: Sequence[str] = ()
) -> Graph:
    """Return the graph of recurrent layers and of dense ones behind them, for any number of steps.

    Parameters
    ----------
    front : Front
    layers : sequence of Dense
        At each step, where the recurrent layers return a sequence.
    activations : sequence of str
        One for each dense layer.
    notes : sequence of str, optional
    """
    whole = front.chain
    for layer, name in zip(layers, activations, strict=True):
        function = activation(name)
        whole += per_step(layer) if front.every_step else [layer]
        whole += [] if function is None else [function]
    graph = sequential(whole, (None, front.features))
    return graph.changed(notes=[*notes, *graph.notes])
