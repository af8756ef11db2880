"""A ``torch.nn.Module`` as a graph, by way of torch's own ONNX exporter.

``pylrp.load`` calls in. The module is traced on an example, in evaluation mode, into a temporary file that
``onnx/model.py`` reads; this file gives the layers the names they have in torch.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from pylrp.errors import BrokenNode, UnsupportedLayer
from pylrp.layers import Conv, ConvTranspose, Dense, Identity, Layer
from pylrp.layers.normalisation import Standardized
from pylrp.loaders import refusals
from pylrp.loaders.chosen_outputs import with_outputs
from pylrp.loaders.torch.call import Call, call_of, output_names
from pylrp.loaders.torch.context import evaluating, prepared
from pylrp.loaders.torch.pools import LAYERS, as_operators
from pylrp.network.graph import Graph, Node

if TYPE_CHECKING:
    from pylrp.network.network import Network

__all__ = ["disagreement", "load_torch"]

Operator = Callable[..., Layer]

_WEIGHTS = "weights.bin"
_TOLERANCE = 1e-3  # of the largest output
#: What the exporter says about itself.
_ABOUT_ITSELF = (
    r"You are using the legacy TorchScript-based ONNX export",
    r"The feature will be removed",
    r"Constant folding - Only steps=1 can be constant folded",
    # An InstanceNorm without running statistics is the same in both modes.
    r"ONNX export mode is set to TrainingMode.EVAL, but operator 'instance_norm'",
)


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
    call = call_of(torch, module, example_input)
    with tempfile.TemporaryDirectory(prefix="pylrp-") as folder, prepared(torch, module):
        path = Path(folder) / "model.onnx"
        _export(torch, module, call, path)
        nodes = _add_weights(module, path, call.returned)
        modules = {name: part for name, part in module.named_modules() if name}
        own = {operator: layer for operator, layer in LAYERS.items() if operator in nodes.values()}
        by_node = {**own, **_by_node(operators or {}, nodes, modules)}
        theirs = outputs if outputs is not None and set(outputs) <= set(call.returned) else None
        try:
            graph = load_onnx(path, operators=by_node, outputs=theirs, dtype=dtype)
        except UnsupportedLayer as error:
            raise _by_name(error, module, modules) from error
        if not call.returned:  # the exporter's name for a single output tells nothing
            graph = graph.changed(outputs=list(dict.fromkeys(graph.output_values.values())))
    taken = graph.inputs if graph.facts.sides is None else graph.facts.sides.names
    notes = left_out(name for name in call.names if name not in taken)
    graph = graph.changed(notes=list(dict.fromkeys([*graph.notes, *notes])))
    graph = _rename(graph, modules)
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

    call = call_of(torch, module, example_input)
    with evaluating(module), torch.no_grad():
        returned = call.of(module)
    expected = list(_tensors(torch, returned))
    names = output_names(returned)
    arrays = {name: tensor.cpu().numpy() for name, tensor in zip(call.names, call.tensors, strict=True)}
    sides = network.graph.facts.sides
    taken = network.graph.inputs if sides is None else sides.names
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
        error = float(np.abs(output.ravel() - wanted.ravel()).max(initial=0)) if output.size == wanted.size else np.inf
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
            module, use = _module_of(node, modules)
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


def _export(torch: Any, module: Any, call: Call, path: Path) -> None:
    with call.positional(module), _quiet(torch), _without_fast_path(torch), warnings.catch_warnings():
        for message in _ABOUT_ITSELF:
            warnings.filterwarnings("ignore", message)
        # torch's own modules compare sizes; what forward itself does with values is for the user to see.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module=r"torch\.")

        def export() -> None:
            torch.onnx.export(
                module,
                call.tensors,
                str(path),
                input_names=list(call.names),
                dynamic_axes={name: {0: "batch"} for name in call.names},
                # The exporter takes long over weights and copies them three times: they come later.
                export_params=False,
                # With it the exporter merges BatchNorm in the weights' own precision; canonise does in float64.
                do_constant_folding=False,
                dynamo=False,  # the exporter made on torch.export needs onnxscript
            )

        try:
            try:
                export()
            except torch.onnx.errors.OnnxExporterError as error:
                if "adaptive" not in str(error):
                    raise
                with as_operators(torch):
                    export()
        except torch.onnx.errors.OnnxExporterError as error:
            raise _refused(module, str(error)) from error
        except UnsupportedLayer:
            raise
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            shapes = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in call.tensors)
            raise ValueError(
                f"torch can't run or export {type(module).__name__} with example_input {shapes}: {error}"
            ) from error


def _refused(module: Any, message: str) -> UnsupportedLayer:
    """Return the error for an operator that the exporter does not write."""
    # "Exporting the operator 'aten::NAME' ..." or "Unsupported: ONNX export of operator NAME, WHY. Please ..."
    operator = re.search(r"operator '?([\w: ]+?)[',]", message)
    why = re.search(r"operator [\w ]+, (.+?)\. ", message)
    name = operator[1].removeprefix("aten::") if operator else "?"
    # A module of that name is where it is; a function's place the exporter does not tell.
    plain = name.replace("_", "").lower()
    parts = dict(module.named_modules())
    refusal = refusals.of_function(plain)
    if refusal is not None:
        kinds = {path: type(part) for path, part in parts.items() if refusals.of_class(type(part)) is refusal}
        path, kind = next(iter(kinds.items()), ("", type(module)))
        way_out = (
            "write it with operators that torch can export; for those that are refused then, give layers of your own "
            "as each error says"
        )
        return refusal.error(path or kind.__name__, kind.__name__ if kinds else name, way_out)
    places = [path for path, part in parts.items() if type(part).__name__.lower() == plain]
    return UnsupportedLayer(
        ", ".join(places) or type(module).__name__,
        operator[1] if operator else "?",
        f"can't be written as ONNX by torch ({why[1]})" if why else "can't be written as ONNX by torch",
        "leave the operator out of forward, or write it with others",
    )


def _by_name(error: UnsupportedLayer, module: Any, modules: Mapping[str, Any]) -> UnsupportedLayer:
    """Return the error for the module that a node is inside of, where the node's own would lead astray."""
    if isinstance(error, BrokenNode):
        return error
    path = _module_of(error.node, modules)[0]
    while True:
        kind = type(modules[path] if path else module)
        refusal = refusals.of_class(kind, error.operator)
        if refusal is not None:
            return refusal.error(path or kind.__name__, kind.__name__, error.way_out)
        if not path:
            return error
        path = path.rpartition(".")[0]


def _name_outputs(model: Any, names: Sequence[str]) -> bool:
    """Call a model's outputs as the module does; return whether they could be called so."""
    known = {name for node in model.graph.node for name in (*node.input, *node.output)}
    known.update(info.name for info in model.graph.input)
    new = {info.name: name for info, name in zip(model.graph.output, names, strict=False)}
    if len(new) != len(names) or len(names) != len(model.graph.output) or known & set(names):
        return False
    for node in model.graph.node:
        for entries in (node.input, node.output):
            for i, name in enumerate(entries):
                entries[i] = new.get(name, name)
    for info in model.graph.output:
        info.name = new[info.name]
    return True


def _add_weights(module: Any, path: Path, outputs: list[str]) -> dict[str, str]:
    """Write the weights, which the exporter has left out, into a file beside the model, and name its outputs.

    Returns the operators of the nodes by name. Names of outputs that can't be taken over are deleted from the list.
    """
    import onnx

    from pylrp.loaders.onnx.node import operator_of

    model = onnx.load(str(path))
    if not _name_outputs(model, outputs):
        outputs.clear()
    weights = module.state_dict()
    with path.with_name(_WEIGHTS).open("wb") as file:
        for info in model.graph.input:
            if info.name not in weights:
                continue
            array = weights[info.name].detach().cpu().contiguous().numpy()
            entry = onnx.TensorProto(
                name=info.name,
                data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
                dims=array.shape,
                data_location=onnx.TensorProto.EXTERNAL,
            )
            for key, value in (("location", _WEIGHTS), ("offset", file.tell()), ("length", array.nbytes)):
                entry.external_data.add(key=key, value=str(value))
            array.tofile(file)
            model.graph.initializer.append(entry)
    onnx.save(model, str(path))
    return {node.name: operator_of(node) for node in model.graph.node if node.op_type != "Constant"}


@contextmanager
def _without_fast_path(torch: Any) -> Iterator[None]:
    """Keep torch's attention from calling one fused operator in evaluation mode, which the exporter does not write."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


@contextmanager
def _quiet(torch: Any) -> Iterator[None]:
    """Keep the exporter from printing the whole graph where it fails, which torch switches on by mistake."""
    log = getattr(torch._C, "_jit_onnx_log", None)
    torch._C._jit_onnx_log = lambda *words: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = log


def _rename(graph: Graph, modules: Mapping[str, Any]) -> Graph:
    """Call nodes after the modules they stand for; functions keep the names they have in ONNX."""
    with_parts = {name.rpartition(".")[0] for name in modules}
    heads: dict[str, Node] = {}  # for each use of a module, which has its own path in ONNX, the node that gets its name
    module_of: dict[str, str] = {}
    for node in graph.nodes:
        module, use = _module_of(node.name, modules)
        if not module:
            continue
        # A module with parts is no layer, unless it has weights of its own: then it is where those are.
        own = module in with_parts and any(True for _ in modules[module].parameters(recurse=False))
        if module not in with_parts or (own and isinstance(node.layer, Dense | Conv | ConvTranspose)):
            module_of[use] = module
            # Of several nodes the last, unless an earlier one has the weights: a Linear's bias may come behind it.
            if use not in heads or _heaviness(node) >= _heaviness(heads[use]):
                heads[use] = node
    new: dict[str, str] = {}
    taken = {*graph.inputs, *(node.name for node in graph.nodes)}
    named = graph.output_values if graph.named_outputs else {}
    for use, node in heads.items():
        name, number = module_of[use], 1
        while name in taken or named.get(name, node.name) != node.name:
            number += 1
            name = f"{module_of[use]}_{number}"
        taken.add(name)
        new[node.name] = name

    nodes = [
        replace(node, name=new.get(node.name, node.name), inputs=tuple(new.get(value, value) for value in node.inputs))
        for node in graph.nodes
    ]
    values = {name: new.get(value, value) for name, value in graph.output_values.items()}
    if not graph.named_outputs:
        return graph.changed(nodes=nodes, outputs=list(values.values()))
    nodes += [Node(name, Identity(), (value,)) for name, value in values.items() if name != value]
    return graph.changed(nodes=nodes, outputs={name: name for name in values})


def _heaviness(node: Node) -> int:
    """Return 2 for a layer with weights or a norm, 1 for another with arrays, 0 for the rest."""
    main = isinstance(node.layer, Dense | Conv | ConvTranspose | Standardized)
    return 2 if main else int(bool(node.layer.arrays))


def _module_of(node: str, modules: Collection[str]) -> tuple[str, str]:
    """Return the module that a node of the exporter's belongs to, and the part of its name that says so.

    Nodes are called "/layer1/layer1.0/conv/Conv": a path of modules, where those in a Sequential repeat its name, and
    the operator. A module's second use ends in "_1".
    """
    module, last, depth = "", "", 0
    parts = node.split("/")[1:]
    for part in parts:
        again = re.fullmatch(r"(.+)_\d+", part)
        found = []
        for text in (part, again[1]) if again else (part,):
            path = f"{module}{text[len(last) :]}" if last and text.startswith(f"{last}.") else f"{module}.{text}"
            if path.lstrip(".") in modules:
                found.append((path.lstrip("."), text))
        if len(found) != 1:  # no module; or one called "act_1" beside "act", which might be the second use of that
            break
        module, last = found[0]
        depth += 1
    return module, "/".join(parts[:depth])
