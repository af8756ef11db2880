"""Dense torch networks beside the same network as arrays, and an import of torchvision that works without CUDA."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import torch


def import_torchvision() -> list[object]:
    """Import torchvision, which zennit needs; return what must be kept alive for it.

    The package index carries torchvision built for CUDA. Beside a CPU-only torch its compiled operators do not load and
    the import ends with "operator torchvision::nms does not exist": declaring them is enough, nobody calls them.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return []
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401

    return [library]


KEEP_ALIVE = import_torchvision()


def random_model(
    rng: np.random.Generator, widths: tuple[int, ...], dtype: type, *, biases: bool = True
) -> torch.nn.Sequential:
    """Linear layers with signed random weights and biases, a ReLU between each two."""
    modules: list[torch.nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layer = torch.nn.Linear(n_in, n_out, bias=biases, dtype=torch.from_numpy(np.zeros(1, dtype)).dtype)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(rng.standard_normal((n_out, n_in)) * np.sqrt(2 / n_in)))
            if biases:
                layer.bias.copy_(torch.from_numpy(rng.standard_normal(n_out) / 2))
        modules += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1])


def linears(model: torch.nn.Sequential) -> list[torch.nn.Linear]:
    """Return the layers with weights, input first."""
    return [module for module in model if isinstance(module, torch.nn.Linear)]


def as_arrays(model: torch.nn.Sequential, x: torch.Tensor) -> dict[str, object]:
    """Return what `pylrp.relevance` needs: weights, the layers' inputs as torch has them, biases; and the output."""
    W, acts, biases = [], [], []
    with torch.no_grad():
        value = x
        for module in model:
            if isinstance(module, torch.nn.Linear):
                W.append(module.weight.numpy().copy())
                biases.append(None if module.bias is None else module.bias.numpy().copy())
                acts.append(value.numpy().copy())
            value = module(value)
    return {"W_list": W, "acts": acts, "biases": biases, "output": value.numpy().copy()}


def clear_of_zero(model: torch.nn.Sequential, x: torch.Tensor, R: np.ndarray) -> np.ndarray:
    """Take the relevance from outputs that nearly cancel: there the order of additions decides, in any library."""
    layer = linears(model)[-1]
    arrays = as_arrays(model, x)
    contributions = arrays["acts"][-1][:, None, :] * layer.weight.detach().numpy()
    bias = 0.0 if layer.bias is None else layer.bias.detach().numpy()
    sums = [
        part.sum(axis=2) + bias for part in (contributions, np.maximum(contributions, 0), np.minimum(contributions, 0))
    ]
    sums.append((arrays["acts"][-1] @ np.maximum(layer.weight.detach().numpy(), 0).T) + bias)
    return np.where(np.min(np.abs(sums), axis=0) < 0.05, 0.0, R).astype(R.dtype)


def assert_agree(actual: np.ndarray, expected: torch.Tensor, what: str) -> None:
    """Largest difference relative to the largest value: 1e-10 in float64, 1e-5 in float32. NaN fails."""
    theirs = expected.detach().numpy()
    assert actual.dtype == theirs.dtype
    assert actual.shape == theirs.shape
    limit = 1e-10 if theirs.dtype == np.float64 else 1e-5
    scale = np.abs(theirs).max()
    assert scale > 1e-3, f"{what}: a result of next to nothing proves nothing"
    gap = np.abs(actual.astype(np.float64) - theirs).max() / scale
    assert gap <= limit, f"{what}: off by {gap:.2g} of the largest relevance, allowed {limit:g}"
