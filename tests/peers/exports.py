"""One torch module written by every exporter of torch and rewritten by onnxruntime."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings

import torch

__all__ = ["WAYS", "exported", "rewritten"]

#: By name: whether by torch.export, and the opset.
WAYS = {"torchscript 14": (False, 14), "torchscript 17": (False, 17), "dynamo 20": (True, 20), "dynamo 23": (True, 23)}


def exported(module, example, path, way, lengths=True, batch=0):
    """Write a module with open batch and perhaps open lengths.

    Parameters
    ----------
    module : torch.nn.Module
    example : dict of str to tensor
        By argument; (batch, length, ...).
    path : Path
    way : str
        Of ``WAYS``.
    lengths : bool, default True
        Whether axis 1 is open.
    batch : int, default 0
        The axis of the batch, which is open.
    """
    by_export, opset = WAYS[way]
    names = list(example)
    open_axes = {batch: "n", 1: "t"} if lengths else {batch: "n"}
    settings = {"input_names": names, "output_names": ["y"], "opset_version": opset, "dynamo": by_export}
    if by_export:
        least = {axis: 1 if axis == batch else 2 for axis in open_axes}
        dims = {axis: torch.export.Dim(name, min=least[axis], max=512) for axis, name in open_axes.items()}
        settings |= {"dynamic_shapes": dict.fromkeys(names, dims), "external_data": False, "verbose": False}
    else:
        settings["dynamic_axes"] = dict.fromkeys(names, open_axes)
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(module, tuple(example.values()), str(path), **settings)
    return path


def can_write(way):
    """Tell whether the packages of a way are there."""
    return not WAYS[way][0] or importlib.util.find_spec("onnxscript") is not None


def rewritten(path, target):
    """Write a file as onnxruntime's BASIC optimisations leave it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return target
