"""A Keras model with code of a user's own beside the graph that was read of it: both predict the same.

That code has been run on symbols, once (``keras/traced.py``). What it does otherwise at every call, random numbers for
example, is frozen as it was then. ``keras/model.py`` asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.loaders.keras.traced import function_of, is_own
from pylrp.network.graph import Graph

__all__ = ["is_traced", "require_agreement"]

_TOLERANCE = 1e-3  # of the largest output
_SAMPLES = 2
_IDS = 2  # where no table says how many there are


def is_traced(keras: Any, model: Any) -> bool:
    """Tell whether a model has code that is none of Keras's."""
    parts = [each for each in model._flatten_layers() if each is not model]
    return function_of(keras, model) is None or any(
        isinstance(each, keras.layers.Lambda) or is_own(keras, each) for each in parts
    )


def require_agreement(keras: Any, model: Any, graph: Graph, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise where a model predicts something else than the graph for random samples of these shapes.

    Nothing is said of a model that can't be called on its backend here, or not on random numbers.
    """
    from pylrp.network.network import Network  # which saves with a loader's twin

    network = Network.from_graph(graph, keep_top=True)
    sides = graph.facts.sides
    given = _random(keras, model, shapes, () if sides is None else sides.names)
    try:
        wanted = _predicted(keras, model, list(given.values()))
    except Exception:  # whatever a backend can't do: images with channels first on a processor, for example
        return
    taken = graph.inputs if sides is None else sides.names
    found = network.forward({name: array for name, array in given.items() if name in taken})
    outputs = list(found.values()) if isinstance(found, dict) else [found]
    if len(outputs) != len(wanted):  # the same tensor twice
        return
    for output, array in zip(outputs, wanted, strict=True):
        scale = float(np.abs(array).max(initial=0))
        if not np.isfinite(scale) or output.size != array.size:
            continue
        error = float(np.abs(output.ravel() - array.ravel()).max(initial=0))
        if not error <= _TOLERANCE * scale:
            raise ValueError(
                f"the model {model.name!r} does not compute what was read of its code, which was run once, on symbols: "
                f"for a random input its output differs by {error / max(scale, 1e-30):.1%} of the largest. Random "
                "numbers, and what depends on the values in Python, are frozen as they were: compute with layers and "
                "keras.ops alone, with noise in training only"
            )


def _random(keras: Any, model: Any, shapes: Mapping[str, Sequence[int]], ids: Sequence[str]) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    tables = [each.input_dim for each in model._flatten_layers() if isinstance(each, keras.layers.Embedding)]
    count = min(tables, default=_IDS)
    made: dict[str, NDArray[Any]] = {}
    for name, shape in shapes.items():
        sizes = (_SAMPLES, *shape)
        if name in ids:
            made[name] = rng.integers(min(1, count - 1), count, sizes)
        else:
            made[name] = rng.standard_normal(sizes).astype(keras.config.floatx())
    return made


def _predicted(keras: Any, model: Any, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return a model's outputs in the order in which it makes them."""
    held = function_of(keras, model)
    given = arrays[0] if held is None else keras.tree.pack_sequence_as(held._inputs_struct, list(arrays))
    return [np.asarray(keras.ops.convert_to_numpy(each)) for each in keras.tree.flatten(model(given))]
