"""What a network's graph says about it: sizes, dtype, names of heads, the function at the top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pylrp.layers.base import product
from pylrp.network.attention import head_values
from pylrp.network.graph import Graph

__all__ = ["Described"]


class Described:
    """What :class:`pylrp.Network` says about itself."""

    #: The layers and how they are connected.
    graph: Graph

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype in which everything is computed: float32 or float64."""
        return self.graph.dtype

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what loading changed: a softmax that was removed, weights that were converted."""
        return self.graph.notes

    @property
    def top(self) -> str | Mapping[str, str] | None:
        """Return the function at the top that loading removed, None if there was none.

        An output is its argument then: a logit ("softmax", "log_softmax", "sigmoid", "hard_sigmoid") or the value
        before it ("softplus", "exp", "log"), or minus that ("-exp"). Of several outputs a dict by those that had one.
        """
        top = self.graph.facts.top
        return dict(top) if len(self.graph.outputs) > 1 else top.get(self.graph.outputs[0])

    @property
    def heads(self) -> list[str]:
        """Return the names of what heads of attention put out, (heads, tokens, width) a sample, from the input up."""
        return head_values(self.graph)

    @property
    def input_size(self) -> int:
        """Return the number of input features of one sample."""
        return sum(product(shape) for shape in self.graph.inputs.values())

    @property
    def output_size(self) -> int:
        """Return the number of outputs of one sample."""
        return product(self.graph.shapes[self.graph.outputs[0]])

    def __repr__(self) -> str:
        inputs = ", ".join(str(shape) for shape in self.graph.inputs.values())
        outputs = ", ".join(str(self.graph.shapes[name]) for name in self.graph.outputs)
        return f"<Network {inputs} -> {outputs}, {len(self.graph.nodes)} layers, {self.dtype}>"
