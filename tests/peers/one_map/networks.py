"""Small networks as lists of operations with random numbers; the twin and every writer start from these.

Values are channels first, (C, H, W) or (C, L), except where a network works on rows of features, (L, C). Gains of a
BatchNorm are of both signs, its statistics and shifts random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray
EPSILON = 1e-3


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes
    ----------
    name : str
    kind : str
        "conv", "back" (a transposed convolution), "dense", "norm", "relu", "relu6", "add", "concat", "max", "mean"
        (over all positions), "average", "grow" (to the double size), "flat".
    inputs : tuple of str
    shape : tuple of int
        Of what it makes.
    settings : dict
        Arrays are float64: weight (out, in / groups, *kernel), bias or None; scale, shift, mean, variance.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.settings[name]
        except KeyError:
            raise AttributeError(name) from None


class Net:
    """A network in the making: each method adds an operation and returns its name.

    Attributes
    ----------
    ops : list of Op
    shapes : dict of str to tuple of int
    rows : bool
        Whether values are rows of features, (L, C).
    """

    def __init__(self, shape: tuple[int, ...], seed: int, rows: bool = False):
        self.ops: list[Op] = []
        self.shapes: dict[str, tuple[int, ...]] = {"x": shape}
        self.rows = rows
        self.rng = np.random.default_rng(seed)

    @property
    def output(self) -> str:
        """Return the name of the last operation."""
        return self.ops[-1].name

    def readers(self, value: str) -> list[Op]:
        """Return what takes a value."""
        return [op for op in self.ops if value in op.inputs]

    def op(self, name: str) -> Op | None:
        """Return an operation, None for the input."""
        return next((op for op in self.ops if op.name == name), None)

    def _add(self, kind: str, inputs: tuple[str, ...], shape: tuple[int, ...], **settings: Any) -> str:
        name = f"{kind}{sum(op.kind == kind for op in self.ops)}"
        self.ops.append(Op(name, kind, inputs, shape, settings))
        self.shapes[name] = shape
        return name

    def _numbers(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape)

    def conv(
        self,
        x: str,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        pads: tuple[int, int] | int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> str:
        """Add a convolution, alike along all axes; pads are before and behind."""
        channels, *space = self.shapes[x]
        before, behind = (pads, pads) if isinstance(pads, int) else pads
        size = [(n + before + behind - dilation * (kernel - 1) - 1) // stride + 1 for n in space]
        inner = channels // groups
        weight = self._numbers(out, inner, *[kernel] * len(space)) / np.sqrt(inner * kernel ** len(space))
        return self._add(
            "conv", (x,), (out, *size), weight=weight, bias=self._numbers(out) / 3 if bias else None, stride=stride,
            pads=(before, behind), dilation=dilation, groups=groups,
        )  # fmt: skip

    def back(self, x: str, out: int, bias: bool = True) -> str:
        """Add a transposed convolution to the double size."""
        channels, *space = self.shapes[x]
        weight = self._numbers(channels, out, *[2] * len(space)) / np.sqrt(channels)
        return self._add(
            "back", (x,), (out, *[2 * n for n in space]), weight=weight, bias=self._numbers(out) / 3 if bias else None
        )

    def dense(self, x: str, out: int, bias: bool = True) -> str:
        """Add a dense layer, along the last axis."""
        *rows, n = self.shapes[x]
        weight, added = self._numbers(out, n) / np.sqrt(n), self._numbers(out) / 3 if bias else None
        return self._add("dense", (x,), (*rows, out), weight=weight, bias=added)

    def norm(self, x: str) -> str:
        """Add a BatchNorm as after training."""
        n = self.shapes[x][-1 if self.rows else 0]
        sign = np.where(self.rng.random(n) < 0.3, -1, 1)
        return self._add(
            "norm", (x,), self.shapes[x], scale=sign * self.rng.uniform(0.5, 1.5, n), shift=self._numbers(n) / 2,
            mean=self._numbers(n) / 3, variance=self.rng.uniform(0.3, 2, n),
        )  # fmt: skip

    def relu(self, x: str) -> str:
        return self._add("relu", (x,), self.shapes[x])

    def relu6(self, x: str) -> str:
        return self._add("relu6", (x,), self.shapes[x])

    def add(self, *x: str) -> str:
        return self._add("add", x, self.shapes[x[0]])

    def concat(self, *x: str) -> str:
        """Join along the channels."""
        return self._add("concat", x, (sum(self.shapes[v][0] for v in x), *self.shapes[x[0]][1:]))

    def max(self, x: str) -> str:
        """Add a pool with windows of 2."""
        return self._add("max", (x,), (self.shapes[x][0], *[n // 2 for n in self.shapes[x][1:]]))

    def average(self, x: str) -> str:
        """Add a pool with windows of 2."""
        return self._add("average", (x,), (self.shapes[x][0], *[n // 2 for n in self.shapes[x][1:]]))

    def mean(self, x: str) -> str:
        """Add the average over all positions."""
        return self._add("mean", (x,), self.shapes[x][:1])

    def grow(self, x: str) -> str:
        """Repeat each entry to the double size."""
        return self._add("grow", (x,), (self.shapes[x][0], *[2 * n for n in self.shapes[x][1:]]))

    def flat(self, x: str) -> str:
        """Join all axes; writers of channels last have another order."""
        return self._add("flat", (x,), (int(np.prod(self.shapes[x])),))

    def conv_norm_relu(self, x: str, out: int, kernel: int, **settings: Any) -> str:
        return self.relu(self.norm(self.conv(x, out, kernel, **settings)))


IMAGE = (3, 12, 12)


def plain() -> Net:
    """Convolutions with BatchNorm, with and without biases, in groups, and of one position; then dense."""
    net = Net(IMAGE, 1)
    x = net.max(net.conv_norm_relu("x", 6, 3, pads=1))
    x = net.conv_norm_relu(x, 8, 3, groups=2, bias=False)
    x = net.conv_norm_relu(x, 5, 1)
    x = net.relu(net.norm(net.dense(net.flat(x), 9)))
    net.dense(x, 4)
    return net


def resnet() -> Net:
    """Sums of a block and its input, or of the input by a convolution of one position."""
    net = Net(IMAGE, 2)
    x = net.max(net.conv_norm_relu("x", 6, 3, stride=2, pads=1, bias=False))
    y = net.norm(net.conv(net.conv_norm_relu(x, 6, 3, pads=1, bias=False), 6, 3, pads=1, bias=False))
    x = net.relu(net.add(y, x))
    y = net.norm(net.conv(net.conv_norm_relu(x, 8, 3, stride=2, pads=1, bias=False), 8, 3, pads=1, bias=False))
    x = net.relu(net.add(y, net.norm(net.conv(x, 8, 1, stride=2, bias=False))))
    net.dense(net.mean(x), 4)
    return net


def preactivation() -> Net:
    """BatchNorm and ReLU before the convolutions of a block: some BatchNorms can't be folded."""
    net = Net(IMAGE, 3)
    x = net.conv("x", 6, 3, pads=1, bias=False)
    for _ in range(2):
        y = net.conv(net.relu(net.norm(x)), 6, 3, pads=1, bias=False)
        x = net.add(net.conv(net.relu(net.norm(y)), 6, 3, pads=1), x)
    net.dense(net.mean(net.relu(net.norm(x))), 4)
    return net


def densenet() -> Net:
    """A block whose layers see all values before them, and a transition."""
    net = Net(IMAGE, 4)
    x = net.max(net.conv_norm_relu("x", 6, 3, pads=1, bias=False))
    for _ in range(3):
        y = net.conv(net.relu(net.norm(x)), 8, 1, bias=False)
        x = net.concat(x, net.conv(net.relu(net.norm(y)), 4, 3, pads=1, bias=False))
    x = net.average(net.conv(net.relu(net.norm(x)), 6, 1, bias=False))
    net.dense(net.mean(net.relu(net.norm(x))), 4)
    return net


def norm_last() -> Net:
    """BatchNorm behind the ReLU: before padded and strided convolutions, a pool, and a dense layer."""
    net = Net(IMAGE, 5)
    x = net.norm(net.relu(net.conv("x", 6, 3, pads=1)))
    x = net.norm(net.relu(net.conv(x, 6, 3, pads=1)))
    x = net.max(net.norm(net.relu(net.conv(x, 8, 3, pads=1, stride=2, groups=2, bias=False))))
    x = net.norm(net.relu(net.conv(x, 5, 2)))
    x = net.norm(net.relu(net.dense(net.flat(x), 7)))
    net.dense(x, 4)
    return net


def mobilenet() -> Net:
    """Inverted residuals: expansion, depthwise, projection without activation."""
    net = Net(IMAGE, 6)

    def block(x: str, out: int, stride: int) -> str:
        channels = net.shapes[x][0]
        y = net.relu6(net.norm(net.conv(x, 3 * channels, 1, bias=False)))
        y = net.relu6(net.norm(net.conv(y, 3 * channels, 3, pads=1, stride=stride, groups=3 * channels, bias=False)))
        y = net.norm(net.conv(y, out, 1, bias=False))
        return net.add(y, x) if stride == 1 and out == channels else y

    x = net.relu6(net.norm(net.conv("x", 4, 3, pads=1, stride=2, bias=False)))
    x = block(block(block(x, 6, 1), 6, 1), 8, 2)
    net.dense(net.mean(net.relu6(net.norm(net.conv(x, 12, 1, bias=False)))), 4)
    return net


def tcn() -> Net:
    """Dilated convolutions that see the past only, in residual blocks."""
    net = Net((3, 20), 7)
    x = "x"
    for step, out in ((1, 6), (2, 6), (4, 5)):
        y = net.conv_norm_relu(x, out, 3, pads=(2 * step, 0), dilation=step)
        y = net.conv_norm_relu(y, out, 3, pads=(2 * step, 0), dilation=step)
        x = net.relu(net.add(y, x if net.shapes[x][0] == out else net.conv(x, out, 1)))
    net.dense(net.mean(x), 4)
    return net


def unet() -> Net:
    """Down, up by a transposed convolution and by repetition, with what was there beside it; a map at the end."""
    net = Net(IMAGE, 8)
    a = net.conv_norm_relu("x", 5, 3, pads=1, bias=False)
    b = net.conv_norm_relu(net.max(a), 6, 3, pads=1, bias=False)
    c = net.conv_norm_relu(net.average(b), 7, 3, pads=1, bias=False)
    d = net.conv_norm_relu(net.concat(net.relu(net.norm(net.back(c, 6))), b), 6, 3, pads=1, bias=False)
    e = net.conv_norm_relu(net.concat(net.grow(d), a), 5, 3, pads=1, bias=False)
    net.conv(e, 4, 1)
    return net


def mlp() -> Net:
    """Dense layers on rows of features, BatchNorm of the features."""
    net = Net((5, 6), 9, rows=True)
    x = net.relu(net.norm(net.dense("x", 8)))
    x = net.norm(net.relu(net.dense(x, 7, bias=False)))
    x = net.relu(net.norm(net.dense(x, 6)))
    net.dense(net.flat(x), 4)
    return net


NETWORKS: dict[str, Callable[[], Net]] = {
    "plain": plain,
    "ResNet": resnet,
    "pre-activation ResNet": preactivation,
    "DenseNet block": densenet,
    "Conv-ReLU-BN-Conv": norm_last,
    "MobileNetV2": mobilenet,
    "causal TCN": tcn,
    "U-Net": unet,
    "MLP over (N, L, C)": mlp,
}
