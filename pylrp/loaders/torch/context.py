"""A torch module as it is while it is traced: evaluation mode, weights instead of parametrisations, norms by name.

``torch/module.py`` traces within :func:`prepared`. Whatever happens there, the module is left as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pylrp.errors import UnsupportedLayer

__all__ = ["evaluating", "prepared"]


@contextmanager
def prepared(torch: Any, module: Any, *, by_hand: bool = False) -> Iterator[None]:
    """Make a module one that torch's exporter can write, for the time being.

    Weights that are computed by a parametrisation (``spectral_norm``, ``weight_norm``, ``orthogonal``, one's own) are
    weights, as ``torch.nn.utils.parametrize.remove_parametrizations`` makes them. An InstanceNorm with running
    statistics is the BatchNorm that it is in evaluation mode; norms without them raise where they are called, but for
    an InstanceNorm where users have layers of their own (``by_hand``).
    """
    with evaluating(module), torch.no_grad(), ExitStack() as stack:
        for name, part in list(module.named_modules()):
            stack.enter_context(_registered(torch, part))
            if torch.nn.utils.parametrize.is_parametrized(part):
                stack.enter_context(_materialised(torch, part))
            if isinstance(part, torch.nn.modules.batchnorm._NormBase) and not _is_plain(torch, part, by_hand):
                stack.enter_context(_norm(torch, name, part))
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


def _is_plain(torch: Any, part: Any, by_hand: bool) -> bool:
    """Tell whether a norm is one that the exporter writes as what it is."""
    if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
        return part.running_mean is not None
    return by_hand and part.running_mean is None


@contextmanager
def _norm(torch: Any, name: str, part: Any) -> Iterator[None]:
    """Let a norm be a BatchNorm in evaluation mode, or raise where it is called."""
    kind = type(part).__name__

    def refuse(x: Any) -> Any:
        whose = "each sample" if isinstance(part, torch.nn.modules.instancenorm._InstanceNorm) else "the batch"
        raise UnsupportedLayer(
            name or kind,
            kind,
            f"has no running statistics: in evaluation mode too it normalises by those of {whose}",
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
