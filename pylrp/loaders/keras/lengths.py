"""Keras models that leave the number of steps open: laid out for one length first, for others when they come.

``keras/model.py`` calls in; ``network/lengths.py`` keeps what is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from pylrp.layers import Shape
from pylrp.network.any_length import FIRST_SIZES
from pylrp.network.graph import Graph
from pylrp.network.lengths import Lengths

__all__ = ["OpenShape", "is_sequence", "of_any_length"]

OpenShape: TypeAlias = tuple[int | None, ...]


def is_sequence(shape: OpenShape) -> bool:
    """Whether all sizes are known, but for the steps of (steps, features) or of ids."""
    return None not in shape[1:] and (None not in shape or len(shape) <= 2)


def of_any_length(asked: Mapping[str, OpenShape], read: Callable[[Mapping[str, Shape]], Graph], name: str) -> Graph:
    """Return the graph of a model for the first length that its layers can take, with how others are read.

    Parameters
    ----------
    asked : mapping of str to tuple
        Shapes by input, as Keras has them; None stands for any number of steps.
    read : callable
        Returns the graph for sizes that are known.
    name : str
        Of the model, for errors.

    Raises
    ------
    ValueError
        If no length fits.
    """

    def again() -> tuple[bytes, dict[str, Any]]:
        raise TypeError(
            f"the Keras model {name!r} takes any number of steps, for which there is no form in a file: save the model "
            "with Keras, or load it for one number of steps, pylrp.load(model, input_shape=(steps, features))"
        )

    shapes, graph = _first_that_fits(asked, read)
    free = {name: {0: ""} if None in shape else {} for name, shape in asked.items()}
    note = ", ".join(name for name, axes in free.items() if axes)
    return graph.changed(
        facts=replace(graph.facts, lengths=Lengths(shapes, free, read, again)),
        notes=[*graph.notes, f"{note}: any number of steps, for which the network is laid out when it comes"],
    )


def _first_that_fits(
    asked: Mapping[str, OpenShape], read: Callable[[Mapping[str, Shape]], Graph]
) -> tuple[dict[str, Shape], Graph]:
    error: ValueError | None = None
    for size in FIRST_SIZES:
        shapes = {name: tuple(size if n is None else n for n in shape) for name, shape in asked.items()}
        try:
            return shapes, read(shapes)
        except ValueError as given:
            error = error or given  # of the smallest
    assert error is not None  # sizes were tried
    raise error
