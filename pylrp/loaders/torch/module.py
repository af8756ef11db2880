"""A ``torch.nn.Module`` as a graph, by way of torch's own ONNX exporter.

``pylrp.load`` calls in. The module is traced on an example, in evaluation mode, into a temporary file that
``onnx/model.py`` reads (``export.py``); then the layers get the names they have in torch (``names.py``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from pylrp.errors import BrokenNode, UnsupportedLayer
from pylrp.layers import Layer
from pylrp.loaders import refusals
from pylrp.loaders.chosen_outputs import with_outputs
from pylrp.loaders.torch.call import call_of, output_names
from pylrp.loaders.torch.context import evaluating, prepared
from pylrp.loaders.torch.export import add_weights, export
from pylrp.loaders.torch.names import module_of, renamed
from pylrp.loaders.torch.pools import LAYERS
from pylrp.network.graph import Graph

if TYPE_CHECKING:
    from pylrp.network.network import Network

__all__ = ["disagreement", "load_torch"]

Operator = Callable[..., Layer]

_TOLERANCE = 1e-3  # of the largest output


def load_torch(
    module: Any,
    example_input: Any = None,
    *,
    operators: Mapping[str, Operator] | None = None,
    outputs: Sequence[str] | None = None,
    dtype: DTypeLike | None = None,
) -> Graph:
    """Return the graph of a torch module.

    The module is traced: what its ``forward`` does for the example is what the graph does for every input, with any
    batch size. It is left as it was. Layers are called as in ``module.named_modules()``, a module that is used again
    "NAME_2"; functions in ``forward`` have names of ONNX, such as "/block/Add".

    Parameters
    ----------
    module : torch.nn.Module
        With parameters in float32 or float64; they are copied.
    example_input : tensor, array, tuple of arguments, or mapping of an argument's name to the argument
        A batch that the module can take, with its dtype and device. Arguments of ``forward`` that are tensors become
        inputs of the graph, called as they are there (a single one "input"); flags, numbers and ``None`` are kept as
        given. What is left out has its default.
    operators : mapping of str to callable, optional
        By operator or name of a node in ONNX, as for an ONNX file; or by name of a module that is one node there.
    outputs : sequence of str, optional
        Which of several results of ``forward`` are outputs: by key or field, "output0", "output1", ... of a tuple; or
        names of layers. Default: all but labels.
    dtype : dtype, optional
        float32 or float64, in which is computed. Default: that of the module.

    Returns
    -------
    Graph

    Raises
    ------
    ValueError
        If there is no example, or torch can't export the module.
    TypeError
        If parameters are neither float32 nor float64.
    ImportError
        If torch or onnx is missing.
    UnsupportedLayer
        If an operator can't be explained.
    """
    if example_input is None:
        raise ValueError(
            "example_input is missing: torch traces a module on an example, "
            "for instance pylrp.load(module, torch.zeros(1, 3, 224, 224))"
        )
    try:
        import onnx  # noqa: F401
        import torch
    except ImportError as error:
        raise ImportError(f"a torch module needs torch and onnx: pip install torch onnx ({error})") from None
    from pylrp.loaders.onnx.model import left_out, load_onnx

    _require_dtype(torch, module)
    call = replace(call_of(torch, module, example_input), every=outputs is not None)
    with tempfile.TemporaryDirectory(prefix="pylrp-") as folder, prepared(torch, module):
        path = Path(folder) / "model.onnx"
        export(torch, module, call, path)
        nodes = add_weights(module, path, call.returned)
        modules = {name: part for name, part in module.named_modules() if name}
        own = {operator: layer for operator, layer in LAYERS.items() if operator in nodes.values()}
        by_node = {**own, **_by_node(operators or {}, nodes, modules)}
        theirs = outputs if outputs is not None and set(outputs) <= set(call.returned) else None
        try:
            examples = {name: tuple(tensor.shape) for name, tensor in zip(call.names, call.tensors, strict=True)}
            graph = load_onnx(path, operators=by_node, outputs=theirs, dtype=dtype, examples=examples)
        except UnsupportedLayer as error:
            named = _by_name(error, module, modules)
            raise named from (error.__cause__ if named is error else error)  # no error is its own cause
        if not call.returned:  # the exporter's name for a single output tells nothing
            graph = graph.changed(outputs=list(dict.fromkeys(graph.output_values.values())))
    taken = graph.inputs if graph.facts.sides is None else graph.facts.sides.names
    notes = left_out(name for name in call.names if name not in taken)
    if call.left_out:
        others = ", ".join(call.left_out)
        notes.append(
            f"of what the module returns, {others} is left out: pylrp.load(..., outputs=) names what is explained"
        )
    graph = graph.changed(notes=list(dict.fromkeys([*graph.notes, *notes])))
    graph = renamed(graph, modules)
    return graph if outputs is None or theirs is not None else with_outputs(graph, outputs)


def disagreement(network: Network, module: Any, example_input: Any) -> str | None:
    """Return in words how a network that has been made of a module predicts something else, or None.

    torch's exporter drops some arguments without a word: ``divisor_override`` of a pool, ``beta`` of Softplus.

    Parameters
    ----------
    network : Network
        With the softmax that the module has.
    module : torch.nn.Module
    example_input : tensor, array, tuple of arguments, or mapping
    """
    import torch

    call = replace(call_of(torch, module, example_input), every=True)
    with evaluating(module), torch.no_grad():
        returned = call.results(call.of(module))
    expected = list(_tensors(torch, returned))
    names = output_names(returned)
    arrays = {name: tensor.cpu().numpy() for name, tensor in zip(call.names, call.tensors, strict=True)}
    sides = network.graph.facts.sides
    taken = network.graph.inputs if sides is None else sides.names
    axes = network.graph.facts.batch_axes
    arrays = {name: np.moveaxis(array, axes.get(name, 0), 0) for name, array in arrays.items()}
    found = network.forward({name: array for name, array in arrays.items() if name in taken})
    outputs = list(found.values()) if isinstance(found, dict) else [found]
    if set(network.graph.outputs) <= set(names):  # labels are left out, or the user has chosen
        by_name = dict(zip(names, expected, strict=True)) if len(names) == len(expected) else {}
        expected = [by_name[name] for name in network.graph.outputs if name in by_name]
    if len(outputs) != len(expected):  # the same tensor twice, or one that isn't computed from the input
        return None
    for output, tensor in zip(outputs, expected, strict=True):
        wanted = tensor.cpu().numpy()
        scale = float(np.abs(wanted).max(initial=0))
        turned = [np.moveaxis(wanted, axis, 0) for axis in range(wanted.ndim if axes else min(wanted.ndim, 1))]
        turned = [each for each in turned if each.size == output.size] or [np.full(output.shape, np.inf)]
        error = min(float(np.abs(output.ravel() - each.ravel()).max(initial=0)) for each in turned)
        if np.isfinite(scale) and not error <= _TOLERANCE * scale:
            return (
                f"what torch's exporter has written is not {type(module).__name__}: for example_input its output "
                f"differs by {error / max(scale, 1e-30):.1%} of the largest. The exporter ignores "
                "some arguments, such as divisor_override of a pool or beta of Softplus: write such a layer with "
                "others, or give its layer by operators="
            )
    return None


def _tensors(torch: Any, found: Any) -> Iterator[Any]:
    """Return the tensors of an output in the exporter's order."""
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, Mapping | Sequence):
        for part in found.values() if isinstance(found, Mapping) else found:
            yield from _tensors(torch, part)


def _by_node(
    operators: Mapping[str, Operator], nodes: Collection[str], modules: Mapping[str, Any]
) -> dict[str, Operator]:
    """Return operators with the node's name in ONNX where the user has named a module."""
    made: dict[str, Operator] = {}
    for key, function in operators.items():
        if key not in modules:
            made[key] = function
            continue
        uses: dict[str, list[str]] = {}
        for node in nodes:
            module, use = module_of(node, modules)
            if module == key:
                uses.setdefault(use, []).append(node)
        for names in uses.values():
            if len(names) > 1:
                raise ValueError(f"operators: {key!r} is {len(names)} nodes in ONNX, {', '.join(names)}: name one")
            made[names[0]] = function
        if not uses:
            made[key] = function  # which says that nothing is called so
    return made


def _require_dtype(torch: Any, module: Any) -> None:
    for name, part in module.named_modules():
        if ".quantized" in type(part).__module__:
            raise refusals.quantised(name or type(part).__name__, type(part).__name__)
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
            raise ValueError(f"{name} has no shape yet: run the module on an input first")
        if tensor.device.type == "meta":
            raise ValueError(f"{name} is on the device meta, which holds no values: load the module's weights first")
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"{name} is {tensor.dtype}, relevance is computed in float32 or float64: call module.float() first"
            )


def _by_name(error: UnsupportedLayer, module: Any, modules: Mapping[str, Any]) -> UnsupportedLayer:
    """Return the error for the module that a node is inside of, where the node's own would lead astray."""
    if isinstance(error, BrokenNode):
        return error
    path = module_of(error.node, modules)[0]
    while True:
        kind = type(modules[path] if path else module)
        refusal = refusals.of_class(kind, error.operator)
        if refusal is not None:
            return refusal.error(path or kind.__name__, kind.__name__, error.way_out)
        if not path:
            return error
        path = path.rpartition(".")[0]
