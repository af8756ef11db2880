"""What a file's names say about a network's weights, before shapes are looked at.

``arrays.py`` and ``plain/mat_networks.py`` fill it in; ``arrays.py`` makes the graph of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Layer

__all__ = ["BIAS", "WEIGHT", "Found"]

WEIGHT, BIAS = ("w", "weight", "weights", "kernel"), ("b", "bias", "biases")

#: From the arrays' dtype to the layers that stand before the first or behind the last dense layer.
Scalings = Callable[[np.dtype[Any]], list[Layer]]


@dataclass
class Found:
    """Arrays by the layer's number, each with its name.

    Attributes
    ----------
    weights, biases : dict of int to (str, object)
    layers : dict of int to str
        What names say before the dot, "fc1" of "fc1.weight".
    stems : dict of str to str
        The part of the names before the number -> one such name.
    activations : object
        As it stands in the file: None, a string, or one for each layer.
    assumed : tuple of str
        Hidden layers' function and the last one's where the file names none.
    known_rows : bool
        Whether a row is a neuron of the next layer for sure, so that weights are never turned.
    unread : list of str
        Names of entries that are not used.
    notes : list of str
    first, last : function or None
        Scaling of the input, and back at the output.
    """

    weights: dict[int, tuple[str, Any]] = field(default_factory=dict)
    biases: dict[int, tuple[str, Any]] = field(default_factory=dict)
    layers: dict[int, str] = field(default_factory=dict)
    stems: dict[str, str] = field(default_factory=dict)
    activations: Any = None
    assumed: tuple[str, str] = ("relu", "none")
    known_rows: bool = False
    unread: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    first: Scalings | None = None
    last: Scalings | None = None

    def add(self, role: str, number: int, stem: str, name: str, value: NDArray[Any]) -> None:
        """Note an array of a layer, called ``name`` in the file."""
        table = self.weights if role.lower() in WEIGHT else self.biases
        if number in table:
            raise ValueError(f"{table[number][0]} and {name} both mean layer {number}: remove one")
        table[number] = name, value
        self.stems.setdefault(stem.lower(), name)
