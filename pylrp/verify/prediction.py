"""The file's prediction by another program: onnxruntime where it is installed, else onnx's reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from pylrp.verify.program import Array, Program

__all__ = ["predicted"]

#: What onnx's reference evaluator computes otherwise than the standard and onnxruntime (onnx 1.23): all of it, or
#: with settings other than these, and with lengths or peepholes.
_WRONG_THERE = ("LRN",)
_PLAIN_THERE = {"LSTM": {"hidden_size", "layout"}, "GRU": {"hidden_size", "layout"}, "RNN": {"hidden_size"}}


def predicted(program: Program, inputs: Mapping[str, Array], names: Sequence[str]) -> tuple[str, dict[str, Array]]:
    """Return who evaluated a model, and these of its values.

    Parameters
    ----------
    program : Program
    inputs : mapping of str to ndarray
        With the batch; converted into what the model declares.
    names : sequence of str

    Returns
    -------
    evaluator : {"onnxruntime", "onnx", "numpy"}
        "numpy" where the others can't run the model: then there are no values.
    values : dict of str to ndarray
    """
    model = _with_outputs(program.model, names)
    given = {each.name: _declared(each, inputs[each.name]) for each in model.graph.input if each.name in inputs}
    for name, run in (("onnxruntime", _by_runtime), ("onnx", _by_reference)):
        try:
            found = run(model, given, names, program.rounds)
        except ImportError:
            continue
        except Exception:  # what the other program lacks is no fault of the network
            continue
        return name, {value: np.asarray(array, np.float64) for value, array in zip(names, found, strict=True)}
    return "numpy", {}


def _by_runtime(model: onnx.ModelProto, given: dict[str, Array], names: Sequence[str], rounds: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Other levels put operators in the place of others that round elsewhere, or that round activations, too.
    if rounds or any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(names), given)


def _by_reference(model: onnx.ModelProto, given: dict[str, Array], names: Sequence[str], rounds: bool) -> Any:
    from onnx.reference import ReferenceEvaluator

    if any(_is_wrong_there(node) for node in model.graph.node):
        raise ImportError
    return ReferenceEvaluator(model).run(list(names), given)


def _is_wrong_there(node: onnx.NodeProto) -> bool:
    known = _PLAIN_THERE.get(node.op_type)
    if known is None:
        return node.op_type in _WRONG_THERE
    return any(each.name not in known for each in node.attribute) or any([*node.input, *[""] * 8][i] for i in (4, 7))


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a model that gives values inside it, too."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    declared = {each.name for each in made.graph.output}
    kind = next((each.type.tensor_type.elem_type for each in made.graph.output), onnx.TensorProto.FLOAT)
    for name in names:
        if name not in declared:
            made.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return made


def _declared(info: onnx.ValueInfoProto, array: Array) -> Array:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    return np.ascontiguousarray(array, dtype)
