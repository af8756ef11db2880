"""A torch module written by torch's own ONNX exporter, beside its weights.

``torch/module.py`` calls in with a module that is prepared, and reads the file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pylrp.errors import UnsupportedLayer
from pylrp.loaders import refusals
from pylrp.loaders.onnx.views import without_batch
from pylrp.loaders.torch.call import Call
from pylrp.loaders.torch.packed import has_packed, padded_too, without_last_outputs
from pylrp.loaders.torch.pools import as_operators
from pylrp.loaders.torch.written import written_rightly

__all__ = ["add_weights", "export"]

_WEIGHTS = "weights.bin"
#: What the exporter says about itself.
_ABOUT_ITSELF = (
    r"You are using the legacy TorchScript-based ONNX export",
    r"The feature will be removed",
    r"Constant folding - Only steps=1 can be constant folded",
    # An InstanceNorm without running statistics is the same in both modes.
    r"ONNX export mode is set to TrainingMode.EVAL, but operator 'instance_norm'",
)


def export(torch: Any, module: Any, call: Call, path: Path) -> None:
    """Write a module as it runs for a call; raise where torch can't."""
    with (
        call.positional(module),
        _quiet(torch),
        _without_fast_path(torch),
        written_rightly(torch),
        warnings.catch_warnings(),
    ):
        for message in _ABOUT_ITSELF:
            warnings.filterwarnings("ignore", message)
        # torch's own modules compare sizes; what forward itself does with values is for the user to see.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module=r"torch\.")

        def write() -> None:
            torch.onnx.export(
                module,
                call.tensors,
                str(path),
                input_names=list(call.names),
                dynamic_axes=_batches(torch, module, call),
                # The exporter takes long over weights and copies them three times: they come later.
                export_params=False,
                # With it the exporter merges BatchNorm in the weights' own precision; canonise does in float64.
                do_constant_folding=False,
                dynamo=False,  # the exporter made on torch.export needs onnxscript
            )

        try:
            try:
                write()
            except torch.onnx.errors.OnnxExporterError as error:
                if "adaptive" not in str(error):
                    raise
                with as_operators(torch):
                    write()
            except RuntimeError:
                if not has_packed(torch, module):
                    raise
                with padded_too(torch, module) as count:
                    write()
                without_last_outputs(path, sum(count))
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


def _batches(torch: Any, module: Any, call: Call) -> dict[str, dict[int, str]]:
    """Return which axis of each input the file leaves open: the first, but of positions and masks without a batch.

    They have whole numbers, or are square. Beside recurrent layers such an input has lengths, and time may come first.
    """
    shared: Container[str] = without_batch(
        {name: tuple(tensor.shape) for name, tensor in zip(call.names, call.tensors, strict=True)}
    )
    if any(isinstance(part, torch.nn.RNNBase) for part in module.modules()):
        shared = ()
    found = {}
    for name, tensor in zip(call.names, call.tensors, strict=True):
        square = tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1]
        if name not in shared or (tensor.is_floating_point() and not square):
            found[name] = {0: "batch"}
    return found


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


def add_weights(module: Any, path: Path, outputs: list[str]) -> dict[str, str]:
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
