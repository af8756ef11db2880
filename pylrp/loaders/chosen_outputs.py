"""The outputs that a user chooses: ``pylrp.load(..., outputs=[...])``.

``__init__.py`` applies it to graphs; ``onnx/model.py`` looks a file's names up itself, before anything is translated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from pylrp.network.graph import Graph

__all__ = ["listed_outputs", "unknown_output", "with_outputs"]

_MOST_NAMES = 40


def listed_outputs(outputs: Any) -> list[str]:
    """Return ``outputs=`` as a list of names.

    Raises
    ------
    TypeError
        If it is no list of names.
    ValueError
        If it is empty or has a name twice.
    """
    if isinstance(outputs, str) or not isinstance(outputs, Sequence) or any(not isinstance(n, str) for n in outputs):
        raise TypeError(f"outputs must be a list of names, got {outputs!r}")
    if not outputs or len(set(outputs)) != len(outputs):
        raise ValueError(f"outputs must be names of which each is there once, got {list(outputs)}")
    return list(outputs)


def unknown_output(name: str, outputs: Iterable[str], inner: Iterable[str]) -> ValueError:
    """Return the error for a name that nothing in the model has."""
    inner = list(dict.fromkeys(inner))
    text = f"outputs: nothing in the model is called {name!r}; its outputs are {', '.join(outputs)}"
    if inner:
        text += f", values inside it {', '.join(inner[:_MOST_NAMES])}" + ", ..." * (len(inner) > _MOST_NAMES)
    return ValueError(text)


def with_outputs(graph: Graph, outputs: Sequence[str]) -> Graph:
    """Return the graph with these outputs, by name of an output or a value.

    Raises
    ------
    ValueError
        If there is no such value.
    """
    for name in outputs:
        if name not in graph.shapes or name in graph.inputs:
            inner = [node.name for node in graph.nodes if node.name not in graph.outputs]
            raise unknown_output(name, graph.outputs, inner)
    top = {name: kind for name, kind in graph.facts.top.items() if name in outputs}
    values = {name: graph.value(name) for name in outputs}
    classes = graph.facts.classes if set(values.values()) <= set(graph.output_values.values()) else None
    return graph.changed(outputs=values, facts=replace(graph.facts, top=top, classes=classes))
