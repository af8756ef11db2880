"""What a model computes of sizes, masks and constants by operators without a formula here: onnx's evaluator runs them.

Relevance never goes there. ``program.py`` asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, helper

from pylrp.verify.step import Array

__all__ = ["by_evaluator", "captured"]


def captured(node: NodeProto) -> list[str]:
    """Return the names of values outside that the branches of a node take."""
    found: list[str] = []
    for graph in (each.g for each in node.attribute if each.HasField("g")):
        inside = {name for each in graph.node for name in each.output} | {each.name for each in graph.initializer}
        taken = [name for each in graph.node for name in (*each.input, *captured(each))]
        found += [name for name in (*taken, *(each.name for each in graph.output)) if name and name not in inside]
    return list(dict.fromkeys(found))


def by_evaluator(node: NodeProto, opsets: Sequence[onnx.OperatorSetIdProto], given: Mapping[str, Array]) -> list[Array]:
    """Return what a node makes.

    Parameters
    ----------
    node : NodeProto
    opsets : sequence of OperatorSetIdProto
        Of the model.
    given : mapping of str to ndarray
        The values that it and its branches take, by name.

    Raises
    ------
    ValueError
        If the evaluator can't compute it.
    """
    from onnx.reference import ReferenceEvaluator

    graph = helper.make_graph(
        [node], "beside", [onnx.ValueInfoProto(name=name) for name in given],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )  # fmt: skip
    try:
        evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=list(opsets)))
        with np.errstate(all="ignore"):
            return [np.asarray(array) for array in evaluator.run(None, dict(given))]
    except Exception as error:  # whatever the evaluator meets
        raise ValueError(f"onnx's evaluator can't compute {node.op_type}: {error}") from error
