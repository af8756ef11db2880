"""torch writes the networks: as a module, by TorchScript and by dynamo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from peers.one_map.networks import Array, Net, Op
from peers.one_map.twin import module_of


class Written(nn.Module):
    """The network as people write it: sums with +, causal convolutions as padding on both sides and a slice."""

    def __init__(self, net: Net):
        super().__init__()
        self.ops, self.last = net.ops, net.output
        self.parts = nn.ModuleDict()
        for op in net.ops:
            module = self._module(net, op)
            if module is not None:
                self.parts[op.name] = module

    @staticmethod
    def _module(net: Net, op: Op) -> nn.Module | None:
        if op.kind in ("add", "concat", "relu", "flat"):
            return None
        if op.kind != "conv":
            return module_of(net, op)
        before, behind = op.pads
        kind: Any = nn.Conv1d if op.weight.ndim == 3 else nn.Conv2d
        out, inner, size, *_ = op.weight.shape
        module: nn.Module = kind(
            inner * op.groups, out, size, op.stride, max(before, behind), op.dilation, op.groups, op.bias is not None
        )
        module.weight.data = torch.from_numpy(op.weight.copy())
        if op.bias is not None:
            module.bias.data = torch.from_numpy(op.bias.copy())
        return module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {"x": x}
        for op in self.ops:
            values[op.name] = self._applied(op, [values[name] for name in op.inputs])
        return values[self.last]

    def _applied(self, op: Op, given: list[torch.Tensor]) -> torch.Tensor:
        x = given[0]
        if op.kind == "add":
            return x + given[1]
        if op.kind == "concat":
            return torch.cat(given, dim=1)
        if op.kind == "relu":
            return F.relu(x)
        if op.kind == "flat":
            return x.flatten(1)
        y: torch.Tensor = self.parts[op.name](x)
        if op.kind == "conv" and op.pads[1] < op.pads[0]:
            y = y[:, :, : op.pads[1] - op.pads[0]]
        return y


def module(net: Net, x: Array) -> tuple[nn.Module, torch.Tensor]:
    """Return the module in the dtype of x, and x."""
    given = torch.from_numpy(x)
    return Written(net).to(given.dtype).eval(), given


def exported(net: Net, x: Array, path: Path, dynamo: bool) -> Path:
    """Write an ONNX file."""
    written, given = module(net, x)
    options: dict[str, Any] = {"input_names": ["x"], "dynamo": dynamo, "verbose": False}
    if not dynamo:
        options.update(opset_version=17, dynamic_axes={"x": {0: "batch"}})
    torch.onnx.export(written, (given[:1],), path, **options)
    return path
