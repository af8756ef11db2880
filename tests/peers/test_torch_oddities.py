"""torch modules with odd calls and odd weights: the same outputs as the module, or a refusal that names the part."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from zennit.canonizers import CompositeCanonizer, NamedMergeBatchNorm, SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus
from zennit.torchvision import ResNetCanonizer

import pylrp
from peers.torch_networks import KEEP_ALIVE

assert KEEP_ALIVE is not None


def same(net, module, x, limit=1e-10):
    """Compare a network's output with its module's, in evaluation mode."""
    arrays = (
        {name: tensor.detach().numpy() for name, tensor in x.items()} if isinstance(x, dict) else x.detach().numpy()
    )
    training = module.training
    module.eval()
    with torch.no_grad():
        wanted = (module(**x) if isinstance(x, dict) else module(x)).numpy()
    module.train(training)
    assert np.abs(net.forward(arrays) - wanted).max() <= limit * np.abs(wanted).max()


class Asked(nn.Module):
    """Optional and keyword-only arguments, tensors and flags."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(4, 3).double(), nn.Linear(5, 3).double()

    def forward(self, x, mask=None, double=True, *, second=None, factor=1.0, return_features=False):
        y = self.one(x)
        if second is not None:
            y = y - self.other(second)
        if mask is not None:
            y = y + mask
        y = y * factor * (2 if double else 1)
        return {"y": y, "x": x} if return_features else y


def rows(*shape):
    return torch.from_numpy(np.random.default_rng(4).standard_normal(shape))


@pytest.mark.parametrize(
    ("example", "inputs"),
    [
        (rows(2, 4), ["input"]),
        ((rows(2, 4), None), ["input"]),
        ((rows(2, 4), None, False), ["input"]),
        ((rows(2, 4), rows(2, 3)), ["x", "mask"]),
        ({"x": rows(2, 4)}, ["x"]),
        ({"x": rows(2, 4), "mask": None, "factor": 3.0}, ["x"]),
        ({"second": rows(2, 5).numpy(), "x": rows(2, 4).numpy(), "double": False}, ["second", "x"]),
    ],
)
def test_arguments_of_forward(example, inputs):
    module = Asked()
    net = pylrp.load(module, example)
    assert list(net.graph.inputs) == inputs
    given = example if isinstance(example, dict | tuple) else (example,)
    if isinstance(given, dict):
        wanted = module(**{name: torch.as_tensor(v) if name in inputs else v for name, v in given.items()})
    else:
        wanted = module(*given)
    tensors = [v for v in (given.values() if isinstance(given, dict) else given) if hasattr(v, "shape")]
    found = net.forward({name: np.asarray(v) for name, v in zip(inputs, tensors, strict=True)})
    assert np.abs(found - wanted.detach().numpy()).max() <= 1e-12
    assert "forward" not in vars(module)


class Loose(nn.Module):
    """Arguments by any name, and a list of tensors."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(4, 3).double(), nn.Linear(5, 3).double()

    def forward(self, parts=None, **named):
        x, y = parts if parts is not None else (named["x"], named["y"])
        return self.one(x) - self.other(y)


@pytest.mark.parametrize(
    ("example", "inputs"),
    [({"x": rows(2, 4), "y": rows(2, 5)}, ["x", "y"]), (([rows(2, 4), rows(2, 5)],), ["parts.0", "parts.1"])],
)
def test_arguments_by_any_name_and_in_lists(example, inputs):
    module = Loose()
    net = pylrp.load(module, example)
    assert list(net.graph.inputs) == inputs
    found = net.forward(dict(zip(inputs, (rows(2, 4).numpy(), rows(2, 5).numpy()), strict=True)))
    assert np.abs(found - module(x=rows(2, 4), y=rows(2, 5)).detach().numpy()).max() <= 1e-12


@pytest.mark.parametrize(
    "example",
    [
        {"z": rows(2, 4)},
        {},
        (None,),
        (rows(2, 4), None, True, 1, 2),
        rows(2, 4).to("meta"),
        {"x": rows(2, 4), "mask": object()},
    ],
)
def test_examples_that_do_not_fit(example):
    with pytest.raises(ValueError, match="example_input"):
        pylrp.load(Asked(), example)


class Symmetric(nn.Module):
    """A parametrisation of one's own."""

    def forward(self, weight):
        return weight.triu() + weight.triu(1).transpose(-1, -2)


def own(layer):
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return parametrize.register_parametrization(layer, "weight", nn.Tanh())


def several(layer):
    parametrize.register_parametrization(layer, "bias", nn.Tanh())
    return parametrizations.spectral_norm(layer)


@pytest.mark.parametrize(
    "norm",
    [
        parametrizations.spectral_norm,
        parametrizations.weight_norm,
        parametrizations.orthogonal,
        own,
        several,
        nn.utils.spectral_norm,
        pytest.param(nn.utils.weight_norm, marks=pytest.mark.filterwarnings("ignore::FutureWarning")),
    ],
)
def test_parametrised_weights(norm):
    torch.manual_seed(1)
    conv, linear = nn.Conv1d(4, 4, 1).double(), nn.Linear(24, 24).double()
    x = rows(3, 4, 6)
    if norm is own:  # for square matrices
        conv, x = nn.Linear(24, 24).double(), rows(3, 24)
    module = nn.Sequential(norm(conv), nn.ReLU(), nn.Flatten(), norm(linear))
    module(x), module(x)  # spectral norms estimate on
    before = {name: value.clone() for name, value in module.state_dict().items()}
    kinds = [type(part) for part in module.modules()]
    net = pylrp.load(module, x[:1])
    same(net, module, x)
    assert [node.name for node in net.graph.nodes] == ["0", "1", "2", "3"]
    # As it was: the weights are computed anew when the parameters behind them change.
    assert [type(part) for part in module.modules()] == kinds
    assert module.training
    assert list(module.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.requires_grad for parameter in module.parameters())
    module(x).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def around(norm, axes=1):
    conv = (nn.Conv1d if axes == 1 else nn.Conv2d)(3, 4, 3, padding=1)
    module = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)).double()
    module(rows(2, 3, *(6,) * axes))
    for part in module.modules():
        if getattr(part, "running_mean", None) is not None:
            part.running_mean.normal_(0, 0.3), part.running_var.uniform_(0.5, 1.5)
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.affine:
            nn.init.normal_(part.weight), nn.init.normal_(part.bias)
    return module


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("axes", [1, 2])
def test_an_instance_norm_with_statistics_is_a_batch_norm(axes, affine):
    kinds = (nn.InstanceNorm1d, nn.BatchNorm1d) if axes == 1 else (nn.InstanceNorm2d, nn.BatchNorm2d)
    module = around(kinds[0](4, affine=affine, track_running_stats=True), axes)
    same_as = kinds[1](4, affine=affine).double()
    same_as.load_state_dict(module[1].state_dict())
    twin = nn.Sequential(module[0], same_as, *module[2:])
    x = rows(2, 3, *(6,) * axes)
    found, wanted = pylrp.load(module, x), pylrp.load(twin, x)
    same(found, module, x)
    maps = [net.explain(x.numpy(), target=1, composite="epsilon_plus").relevance for net in (found, wanted)]
    assert np.abs(maps[0] - maps[1]).max() <= 1e-9 * np.abs(maps[1]).max()


def test_a_batch_norm_without_statistics_is_refused_by_name():
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    module = around(norm)
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(module, rows(2, 3, 6))
    assert (caught.value.node, caught.value.operator) == ("1", "BatchNorm1d")
    assert "forward" not in vars(norm)


def test_a_norm_that_is_not_called_does_not_matter():
    module = nn.Sequential(nn.Linear(4, 2))
    module[0].norm = nn.BatchNorm1d(4, track_running_stats=False)
    same(pylrp.load(module, torch.rand(1, 4)), module, torch.rand(2, 4), 1e-5)


@pytest.mark.parametrize("sure", ["removed", "kept"])
def test_after_zennits_canonizer(sure):
    torch.manual_seed(2)
    module = around(nn.BatchNorm2d(4), axes=2).eval()
    x = rows(2, 3, 6, 6)
    wanted = pylrp.load(module, x).explain(x.numpy(), 0, "epsilon_plus").relevance
    handles = SequentialMergeBatchNorm().apply(module)
    if sure == "removed":
        for handle in handles:
            handle.remove()
    net = pylrp.load(module, x)
    same(net, module, x)
    found = net.explain(x.numpy(), 0, "epsilon_plus").relevance
    assert np.abs(found - wanted).max() <= 1e-9 * np.abs(wanted).max()


def test_within_zennits_context():
    module = around(nn.BatchNorm2d(4), axes=2).eval()
    x = rows(2, 3, 6, 6)
    wanted = pylrp.load(module, x).explain(x.numpy(), 0, "epsilon_plus").relevance
    with EpsilonPlus(canonizers=[SequentialMergeBatchNorm()]).context(module) as modified:
        net = pylrp.load(modified, x)
        same(net, modified, x)
    found = net.explain(x.numpy(), 0, "epsilon_plus").relevance
    assert np.abs(found - wanted).max() <= 1e-9 * np.abs(wanted).max()


def test_after_the_canonizer_of_a_resnet():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(3)
    module = torchvision.models.resnet18(num_classes=3).double().eval()
    x = rows(1, 3, 32, 32)
    with EpsilonPlus(canonizers=[ResNetCanonizer()]).context(module) as modified:
        same(pylrp.load(modified, x), modified, x)


def test_canonizers_by_name():
    module = around(nn.BatchNorm1d(4)).eval()
    CompositeCanonizer([NamedMergeBatchNorm([(["0"], "1")])]).apply(module)
    x = rows(2, 3, 6)
    same(pylrp.load(module, x), module, x)


def test_tensors_that_keep_gradients():
    module = Asked()
    x = rows(3, 4).requires_grad_()
    net = pylrp.load(module, x)
    wanted = net.explain(x.detach().numpy(), 1, "epsilon").relevance
    assert np.array_equal(net.explain(x, torch.tensor(1), "epsilon").relevance, wanted)
    single, plain = (net.explain(given.mean(0), 1, "epsilon").relevance for given in (x, x.detach()))
    assert np.array_equal(single, plain)
    top = rows(3, 3).requires_grad_()
    found = net.explain(x, top, "epsilon").relevance
    assert np.array_equal(found, net.explain(x, top.detach().numpy(), "epsilon").relevance)
    weights = [nn.Parameter(rows(5, 4)), nn.Parameter(rows(2, 5))]
    relevance = pylrp.relevance(weights, [x, rows(3, 5).requires_grad_()], rows(3, 2), rules="epsilon")
    assert relevance.shape == (3, 4)
    assert x.requires_grad
    assert x.grad is None


@pytest.mark.parametrize("tensor", [rows(1, 4).to("meta"), rows(1, 4).to_sparse(), rows(1, 4).bfloat16()])
def test_tensors_that_numpy_can_not_hold(tensor):
    net = pylrp.load(Asked(), rows(1, 4))
    with pytest.raises(TypeError, match="x is a tensor"):
        net.explain(tensor)


def test_modules_without_values():
    with pytest.raises(ValueError, match="meta"):
        pylrp.load(nn.Linear(4, 2, device="meta"), torch.rand(1, 4))
    with pytest.raises(ValueError, match="run the module"):
        pylrp.load(nn.Sequential(nn.LazyLinear(2)), torch.rand(1, 4))
