"""A torch module as it is while it is traced: evaluation mode, weights instead of parametrisations, norms by name.

``torch/module.py`` traces within :func:`prepared`. Whatever happens there, the module is left as it was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pylrp.errors import UnsupportedLayer
from pylrp.loaders.torch import projections

__all__ = ["evaluating", "prepared"]


@contextmanager
def prepared(torch: Any, module: Any) -> Iterator[None]:
    """Make a module one that torch's exporter can write, for the time being.

    Weights that are computed by a parametrisation (``spectral_norm``, ``weight_norm``, ``orthogonal``, one's own) are
    weights, as ``torch.nn.utils.parametrize.remove_parametrizations`` makes them. An InstanceNorm with running
    statistics is the BatchNorm that it is in evaluation mode; a BatchNorm without them raises where it is called. An
    LSTM with ``proj_size`` is one without, and a linear map behind it. An RMSNorm is written out, for which the
    exporter has no operator. ``torch.vmap`` of a function of single numbers, by which masks are made, is broadcasting.
    """
    with ExitStack() as stack:
        stack.enter_context(evaluating(module))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_rms_norm_written_out(torch))
        stack.enter_context(_vmap_by_broadcasting(torch))
        for name, part in list(module.named_modules()):
            stack.enter_context(_registered(torch, part))
            if torch.nn.utils.parametrize.is_parametrized(part):
                stack.enter_context(_materialised(torch, part))
            if isinstance(part, torch.nn.modules.batchnorm._NormBase) and not _is_plain(torch, part):
                stack.enter_context(_norm(torch, name, part))
            if isinstance(part, torch.nn.LSTM) and part.proj_size:
                stack.enter_context(projections.written_out(torch, name, part))
        yield


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Put a module into evaluation mode, and back each of its parts as it was."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training


@contextmanager
def _registered(torch: Any, part: Any) -> Iterator[None]:
    """Let tensors that hide a module's parameters be those parameters: zennit's canonizers leave their results so."""
    tables = part._parameters, part._buffers
    own = {name: value for name, value in part.__dict__.items() if isinstance(value, torch.Tensor)}
    before = [dict(table) for table in tables]
    try:
        for name, value in own.items():
            if name in part._buffers:
                part._buffers[name] = value.detach()
            elif name in part._parameters:
                part._parameters[name] = torch.nn.Parameter(value.detach(), requires_grad=False)
            else:  # an attribute, for example what the hook of an older spectral norm has made last
                part.__dict__[name] = value.detach()
                continue
            del part.__dict__[name]
        yield
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)
        part.__dict__.update(own)


@contextmanager
def _materialised(torch: Any, part: Any) -> Iterator[None]:
    """Let a module's parametrised tensors be parameters."""
    kind, modules, parameters = type(part), dict(part._modules), dict(part._parameters)
    made = {name: getattr(part, name) for name in part.parametrizations}
    try:
        del part._modules["parametrizations"]
        # torch has derived a class of its own from the module's, with a property for each such tensor.
        part.__class__ = kind.__bases__[0]
        for name, tensor in made.items():
            part._parameters[name] = torch.nn.Parameter(tensor.detach(), requires_grad=False)
        yield
    finally:
        part.__class__ = kind
        for now, before in ((part._modules, modules), (part._parameters, parameters)):
            now.clear()
            now.update(before)


@contextmanager
def _rms_norm_written_out(torch: Any) -> Iterator[None]:
    """Let torch's function, which its module calls, be what the loader of ONNX recognises."""

    def rms_norm(x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
        axes = tuple(range(-len(normalized_shape), 0))
        epsilon = torch.finfo(x.dtype).eps if eps is None else eps
        y = x * torch.rsqrt((x * x).mean(axes, keepdim=True) + epsilon)
        return y if weight is None else y * weight

    places = [place for place in (torch, torch.nn.functional) if hasattr(place, "rms_norm")]  # torch 2.4 has it first
    before = [place.rms_norm for place in places]
    try:
        for place in places:
            place.rms_norm = rms_norm
        yield
    finally:
        for place, own in zip(places, before, strict=True):
            place.rms_norm = own


@contextmanager
def _vmap_by_broadcasting(torch: Any) -> Iterator[None]:
    """Let a function that works entry by entry take whole axes, one axis for each ``vmap`` around it.

    Of a function that does not, the network predicts something else, which ``disagreement`` says.
    """
    own = torch.vmap

    def vmap(function: Any, in_dims: Any = 0, out_dims: Any = 0, **settings: Any) -> Any:
        inner = getattr(function, "_mapped_axes", 0)

        def mapped(*args: Any) -> Any:
            dims = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
            along = [i for i, dim in enumerate(dims) if dim == 0]
            simple = out_dims == 0 and len(along) == 1 and all(dim in (0, None) for dim in dims)
            if not simple or getattr(args[along[0]], "ndim", 0) != 1:
                return own(function, in_dims, out_dims, **settings)(*args)
            x = args[along[0]].reshape(-1, *(1,) * inner)
            y = function(*(x if i == along[0] else arg for i, arg in enumerate(args)))
            return y.expand(torch.broadcast_shapes(y.shape, x.shape))

        mapped._mapped_axes = inner + 1  # type: ignore[attr-defined]
        return mapped

    # By this one torch looks entries up within vmap; the exporter fails on it.
    module = sys.modules.get("torch._dynamo._trace_wrapped_higher_order_op")
    lookup = getattr(module, "mod_index", None)
    torch.vmap = vmap
    if lookup is not None:
        module.mod_index = lambda x, indices: torch.ops.aten.index(x, indices)  # type: ignore[union-attr]
    try:
        yield
    finally:
        torch.vmap = own
        if lookup is not None:
            module.mod_index = lookup  # type: ignore[union-attr]


def _is_plain(torch: Any, part: Any) -> bool:
    """Tell whether a norm is one that the exporter writes as what it is."""
    is_batch_norm = isinstance(part, torch.nn.modules.batchnorm._BatchNorm)
    return is_batch_norm == (part.running_mean is not None)


@contextmanager
def _norm(torch: Any, name: str, part: Any) -> Iterator[None]:
    """Let a norm be a BatchNorm in evaluation mode, or raise where it is called."""
    kind = type(part).__name__

    def refuse(x: Any) -> Any:
        raise UnsupportedLayer(
            name or kind,
            kind,
            "has no running statistics: in evaluation mode too it normalises by those of the batch",
            "train it with track_running_stats=True, which makes it a scaling in evaluation mode",
        )

    def scale(x: Any) -> Any:
        weight, bias = part.weight, part.bias
        if weight is None:
            weight, bias = torch.ones_like(part.running_mean), torch.zeros_like(part.running_mean)
        return torch.nn.functional.batch_norm(
            x, part.running_mean, part.running_var, weight, bias, training=False, eps=part.eps
        )

    own = {"forward": part.__dict__["forward"]} if "forward" in part.__dict__ else {}
    part.__dict__["forward"] = refuse if part.running_mean is None else scale
    try:
        yield
    finally:
        del part.__dict__["forward"]
        part.__dict__.update(own)
