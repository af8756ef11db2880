"""A network with its BatchNorms folded by hand, in torch, and its map by zennit: the reference for all writers.

A BatchNorm goes into the layer before it that nothing else reads, else into the layers after it if nothing else reads
it; the rest of them share relevance by zennit's Norm, as sums and averages do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from zennit import composites as zc
from zennit import rules as zr
from zennit.layer import Sum
from zennit.types import BatchNorm, Linear

from peers.one_map.networks import EPSILON, Array, Net, Op

LOW, HIGH = -4.0, 5.0
WEIGHTED = ("conv", "back", "dense")
COMPOSITES = (
    "epsilon", "epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon_gamma_box", "deep_taylor"
)  # fmt: skip


def scaling(norm: Op) -> tuple[Array, Array]:
    """Return the factor and the shift that a BatchNorm is."""
    factor = norm.scale / np.sqrt(norm.variance + EPSILON)
    return factor, norm.shift - norm.mean * factor


def folded(net: Net) -> Net:
    """Return the network with its BatchNorms folded where they can be."""
    done = Net(net.shapes["x"], 0, net.rows)
    done.ops, done.shapes = list(net.ops), dict(net.shapes)
    for norm in [op for op in done.ops if op.kind == "norm"]:
        norm = done.op(norm.name)
        assert norm is not None
        below, readers = done.op(norm.inputs[0]), done.readers(norm.name)
        if below is not None and below.kind in WEIGHTED and done.readers(below.name) == [norm]:
            _put(done, norm, {below.name: _after(below, norm)})
            continue
        steps = [op if op.kind != "flat" else done.readers(op.name)[0] for op in readers]
        if all(op.kind in ("conv", "dense") for op in steps):
            _put(done, norm, {op.name: _before(op, norm, done.shapes[norm.name]) for op in steps})
    return done


def _put(net: Net, norm: Op, instead: dict[str, Op]) -> None:
    """Take a BatchNorm out; what read it reads its input."""
    net.ops = [
        replace(op, inputs=tuple(norm.inputs[0] if value == norm.name else value for value in op.inputs))
        for op in (instead.get(op.name, op) for op in net.ops)
        if op.name != norm.name
    ]


def _after(layer: Op, norm: Op) -> Op:
    factor, shift = scaling(norm)
    at = 1 if layer.kind == "back" else 0  # the axis of the outputs
    weight = layer.weight * factor.reshape([-1 if axis == at else 1 for axis in range(layer.weight.ndim)])
    bias = shift if layer.bias is None else layer.bias * factor + shift
    return replace(layer, settings={**layer.settings, "weight": weight, "bias": bias})


def _before(layer: Op, norm: Op, shape: tuple[int, ...]) -> Op:
    factor, shift = scaling(norm)
    if layer.kind == "dense":
        if len(factor) != layer.weight.shape[1]:  # behind a flattened image
            factor, shift = (np.repeat(v, layer.weight.shape[1] // len(v)) for v in (factor, shift))
        weight, added = layer.weight * factor, layer.weight @ shift
    else:
        inner = layer.weight.shape[1]
        rows = factor.reshape(layer.groups, 1, inner).repeat(len(layer.weight) // layer.groups, axis=1)
        weight = layer.weight * rows.reshape(-1, inner, *[1] * (len(shape) - 1))
        image = np.broadcast_to(shift.reshape(-1, *[1] * (len(shape) - 1)), shape)
        added = convolved(layer, torch.from_numpy(image.copy())[None], torch.from_numpy(layer.weight))[0].numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias
    return replace(
        layer, settings={**layer.settings, "weight": weight, "bias": bias.reshape(-1, *[1] * (added.ndim - 1)) + added}
    )


def convolved(op: Op, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the convolution without its bias."""
    convolve: Any = F.conv1d if x.ndim == 3 else F.conv2d
    return convolve(F.pad(x, op.pads * (x.ndim - 2)), weight, None, op.stride, 0, op.dilation, op.groups)


class _Conv1d(nn.Conv1d):
    """A convolution with any padding and a bias at every position."""

    op: Op

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = convolved(self.op, x, self.weight)
        return y if self.bias is None else y + self.bias.reshape(*self.bias.shape, *[1] * (y.ndim - 1 - self.bias.ndim))


class _Conv2d(nn.Conv2d):
    op: Op
    forward = _Conv1d.forward  # type: ignore[assignment]


def _weighted(op: Op) -> nn.Module:
    if op.kind == "conv":
        module: Any = (_Conv1d if op.weight.ndim == 3 else _Conv2d)(1, 1, 1, bias=op.bias is not None)
        module.op = op
    elif op.kind == "back":
        module = nn.ConvTranspose2d(op.weight.shape[0], op.weight.shape[1], 2, 2, bias=op.bias is not None)
    else:
        module = nn.Linear(op.weight.shape[1], op.weight.shape[0], bias=op.bias is not None)
    module.weight = nn.Parameter(torch.from_numpy(op.weight.copy()))
    if op.bias is not None:
        module.bias = nn.Parameter(torch.from_numpy(op.bias.copy()))
    return module


def norm_module(op: Op, kind: type[nn.Module]) -> nn.Module:
    """Return a BatchNorm of torch with the numbers of an operation."""
    module: Any = kind(len(op.scale), eps=EPSILON)
    for name, array in (
        ("weight", op.scale), ("bias", op.shift), ("running_mean", op.mean), ("running_var", op.variance),
    ):  # fmt: skip
        getattr(module, name).data = torch.from_numpy(array.copy())
    return module


def module_of(net: Net, op: Op) -> nn.Module:
    """Return the module of an operation of one input, or of a sum."""
    if op.kind in WEIGHTED:
        return _weighted(op)
    if op.kind == "norm" and net.rows:
        return RowNorm(op)
    image = len(net.shapes[op.inputs[0]]) == 3
    makers: dict[str, Any] = {
        "norm": lambda: norm_module(op, nn.BatchNorm2d if image else nn.BatchNorm1d),
        "relu": nn.ReLU,
        "relu6": nn.ReLU6,
        "add": Sum,
        "max": lambda: (nn.MaxPool2d if image else nn.MaxPool1d)(2),
        "average": lambda: (nn.AvgPool2d if image else nn.AvgPool1d)(2),
        "mean": lambda: nn.Sequential((nn.AdaptiveAvgPool2d if image else nn.AdaptiveAvgPool1d)(1), nn.Flatten()),
        "grow": lambda: nn.Upsample(scale_factor=2, mode="nearest"),
        "flat": nn.Flatten,
        "concat": nn.Identity,
    }
    module: nn.Module = makers[op.kind]()
    return module


class RowNorm(nn.Module):
    """A BatchNorm of the features of rows, (batch, L, C)."""

    def __init__(self, op: Op):
        super().__init__()
        self.norm = norm_module(op, nn.BatchNorm1d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return y


class Twin(nn.Module):
    """The network as it is given, sums as zennit's ``Sum``."""

    def __init__(self, net: Net):
        super().__init__()
        self.net = net
        self.parts = nn.ModuleDict({op.name: module_of(net, op) for op in net.ops})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {"x": x}
        for op in self.net.ops:
            given = [values[name] for name in op.inputs]
            if op.kind == "add":
                given = [torch.stack(given, dim=-1)]
            elif op.kind == "concat":
                given = [torch.cat(given, dim=1)]
            values[op.name] = self.parts[op.name](*given)
        return values[self.net.output]


def composite_of(name: str, net: Net, dtype: torch.dtype) -> Any:
    """Return zennit's composite for a twin, with a rule for the BatchNorms that are left.

    What zennit gives to the first layer it finds, every layer gets that has none with weights below it.
    """
    box = {key: torch.full((1, *net.shapes["x"]), v, dtype=dtype) for key, v in (("low", LOW), ("high", HIGH))}
    norm = [(BatchNorm, zr.Norm())]
    # Of Montavon et al. 2017: no biases, and as good as nothing is added to the denominators.
    exact: dict[str, Any] = {"stabilizer": torch.finfo(dtype).tiny, "zero_params": "bias"}
    makers: dict[str, tuple[Callable[[], Any], Any]] = {
        "epsilon": (lambda: zc.LayerMapComposite([*norm, *zc.layer_map_base(), (Linear, zr.Epsilon())]), None),
        "epsilon_plus": (lambda: zc.EpsilonPlus(layer_map=norm), None),
        "epsilon_plus_flat": (lambda: zc.EpsilonPlusFlat(layer_map=norm), zr.Flat()),
        "epsilon_alpha2_beta1": (lambda: zc.EpsilonAlpha2Beta1(layer_map=norm), None),
        "epsilon_gamma_box": (lambda: zc.EpsilonGammaBox(layer_map=norm, **box), zr.ZBox(**box)),
        "deep_taylor": (
            lambda: zc.LayerMapComposite([*zc.layer_map_base(), (Linear, zr.ZPlus(**exact))]), zr.WSquare(**exact)
        ),
    }  # fmt: skip
    make, special = makers[name]
    base = make()
    if special is None:
        return base
    first = [f"parts.{op.name}" for op in net.ops if op.kind in WEIGHTED and op.inputs == ("x",)]
    return zc.MixedComposite([zc.NameMapComposite([(first, special)]), base])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: for networks of this size several wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def outputs(net: Net, x: Array) -> Array:
    """Return what the network makes of a batch, unfolded."""
    given = torch.from_numpy(x)
    with _one_thread(), torch.no_grad():
        y: Array = Twin(net).to(given.dtype).eval()(given).numpy()
    return y


def maps(net: Net, x: Array, R: Array, composite: str) -> Array:
    """Return zennit's relevance of x, (batch, *shape), for relevance R of the outputs; in the dtype of x."""
    given, twin = torch.from_numpy(x).clone().requires_grad_(), folded(net)
    model = Twin(twin).to(given.dtype).eval()
    with _one_thread(), composite_of(composite, twin, given.dtype).context(model) as modified:
        modified(given).backward(gradient=torch.from_numpy(R).to(given.dtype))
    assert given.grad is not None
    found: Array = given.grad.numpy()
    return found
