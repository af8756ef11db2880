"""The networks of ``networks.py`` as torch modules, and zennit's composites for them.

VGG16 and ResNet50 are the published architectures with He's random weights; EfficientNet-Lite0 comes with its trained
ones from its package. What zennit needs to be right (sums as modules, BatchNorm merged) is shared with the tests.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import peers

BOUND = 6.0  # of the z-box, both ways


@lru_cache
def shared() -> Any:
    """Return the tests' module of torch networks, which bears the name of a package of ours."""
    peers.load("zennit.composites")  # makes torchvision importable
    path = Path(__file__).parents[1] / "tests" / "peers" / "networks.py"
    spec = importlib.util.spec_from_file_location("shared_networks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def vgg16() -> Any:
    """Return VGG16 for 224 x 224 pixels."""
    nn = peers.load("torch").nn
    layers: list[Any] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width == 0:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    top = [nn.Linear(25088, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, nn.Flatten(), *top)


def resnet50() -> Any:
    """Return ResNet50, its sums as ``Residual`` of the tests."""
    torch = peers.load("torch")
    nn, residual = torch.nn, shared().Residual

    def conv(into: int, out: int, size: int, stride: int = 1) -> list[Any]:
        return [nn.Conv2d(into, out, size, stride, size // 2, bias=False), shared().norm(out)]

    layers = [*conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first if block == 0 else 1
            inner = [*conv(channels, width, 1), nn.ReLU(), *conv(width, width, 3, stride), nn.ReLU()]
            shortcut = nn.Sequential(*conv(channels, 4 * width, 1, stride)) if block == 0 else None
            layers += [residual(nn.Sequential(*inner, *conv(width, 4 * width, 1)), shortcut), nn.ReLU()]
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def network(name: str) -> Any:
    """Return a network by name, ready to predict."""
    torch = peers.load("torch")
    torch.manual_seed(0)
    if name == "efficientnet-lite0":
        model = shared().efficientnet()
    else:
        model = {"vgg16": vgg16, "resnet50": resnet50}[name]()
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model.eval().requires_grad_(False)


def zennit_composite(model: Any, composite: str) -> Any:
    """Return zennit's composite of a name, with the canonizers that the network needs."""
    composites = peers.load("zennit.composites")
    torch = peers.load("torch")
    if hasattr(model, "_blocks"):
        canonizers = [shared().efficientnet_canonizer(model)]
    else:
        canonizers = [peers.load("zennit.canonizers").SequentialMergeBatchNorm()]
    if composite == "epsilon_gamma_box":
        box = torch.full((1, 3, 224, 224), BOUND)
        return composites.EpsilonGammaBox(low=-box, high=box, canonizers=canonizers)
    kinds = {"epsilon_plus_flat": "EpsilonPlusFlat", "epsilon_alpha2_beta1": "EpsilonAlpha2Beta1"}
    return getattr(composites, kinds[composite])(canonizers=canonizers)
