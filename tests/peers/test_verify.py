"""The verification itself against zennit and torch; transformers and gates that are intact, or broken on purpose."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import pylrp
from pylrp.network.graph import Node
from pylrp.verify import reference_relevance

from .test_transformers import exported
from .test_zennit_networks import SequentialMergeBatchNorm, attribute, top_class, zennit_composite
from .transformers import Bert, Decoder, Plain, Sdpa, TextbookVit, Vit, relevance

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's older exporter on itself


def without_norm(width):
    return nn.Identity()


def close(ours, theirs, limit=1e-9):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit * np.abs(theirs).max())


# -- the evaluation against other libraries -------------------------------------------------------------------------


class Small(nn.Module):
    """Convolutions of all kinds with BatchNorm behind them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=2),
            nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 8), nn.ReLU(), nn.Linear(8, 4),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize(
    "name", ["epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1_flat", "epsilon_gamma_box"]
)
def test_the_reference_agrees_with_zennit(name):
    torch.manual_seed(0)
    module = Small().double().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    x = torch.randn(2, 3, 12, 12).double()
    model = exported(module, (x,), 17)
    composite = pylrp.composite(name, low=-9.0, high=8.0) if name.endswith("box") else pylrp.composite(name)
    found = reference_relevance(model, x.numpy(), None, composite)
    start = top_class(module(x)).detach()
    merged = copy.deepcopy(module)  # the canonizer writes into it
    theirs = attribute(merged, zennit_composite(name, (3, 12, 12), torch.float64, SequentialMergeBatchNorm()), x, start)
    close(found.relevance["x"], theirs)


@pytest.mark.parametrize(
    ("norm", "opset", "taylor"), [(without_norm, 17, True), (nn.LayerNorm, 14, True), (nn.LayerNorm, 17, False)]
)
def test_the_reference_agrees_with_a_gradient(norm, opset, taylor):
    """LayerNorm as one node and written out, attention by hand and fused."""
    torch.manual_seed(1)
    vit = Vit(norm).double().eval()
    x = torch.randn(2, 3, 12, 12).double()
    rules = {} if taylor else {"softmax": "stop", "matmul": "value"}
    logits, expected = relevance(vit, x, 3, taylor)
    for operations in (Plain, Sdpa):
        found = reference_relevance(exported(vit.use(operations()), (x,), opset), x.numpy(), 3, rules)
        np.testing.assert_allclose(found.values[found.output], logits, atol=1e-8)
        close(found.relevance["x"], expected, 1e-7)  # LayerNorm's epsilon is a number in single precision
        if norm is without_norm:
            close(found.relevance["x"], expected)


# -- networks with attention ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return Vit(packed=False).double().eval()


IMAGES = np.random.default_rng(5).normal(size=(3, 3, 12, 12))


@pytest.mark.parametrize("operations", [Plain, Sdpa])
@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp", "attnlrp_gamma"])
def test_a_vision_transformer_passes(vit, operations, composite):
    found = pylrp.load(exported(vit.use(operations()), (torch.zeros(2, 3, 12, 12).double(),), 17)).verify(
        IMAGES, composite=composite, target=1
    )
    assert found, str(found)
    assert found.relevance_error < 1e-12
    assert min(found.compared) > 0.75 * len(found.layers)


@pytest.mark.parametrize("batch_first", [True, False])
def test_torchs_own_encoder_passes(batch_first):
    """The batch moves to the second axis inside, and is merged with the heads."""
    torch.manual_seed(7)
    model = exported(TextbookVit(batch_first).double().eval(), (torch.zeros(2, 3, 12, 12).double(),), 17)
    found = pylrp.load(model).verify(IMAGES, composite="attnlrp", target=1)
    assert found, str(found)
    assert min(found.compared) > 0.75 * len(found.layers)


def test_encoders_and_decoders_of_tokens_pass():
    torch.manual_seed(2)
    ids = np.random.default_rng(0).integers(0, 50, (3, 7))
    mask = np.ones((3, 7), np.int64)
    mask[1, 5:] = mask[2, 3:] = 0
    bert = Bert(types=False, infinite=True).double().eval()
    model = exported(bert, (torch.tensor(ids), torch.tensor(mask)), 17, ("input_ids", "attention_mask"))
    for composite in ("attnlrp", "cp_lrp"):
        assert pylrp.load(model).verify({"input_ids": ids, "attention_mask": mask}, composite=composite, target=1)
    decoder = Decoder().double().eval()
    assert pylrp.load(exported(decoder, (torch.tensor(ids),), 17, ("input_ids",))).verify(ids, composite="attnlrp")


def changed(net, model, change):
    """Return the network with other layers, as if it had been loaded wrong."""
    made = pylrp.Network.from_graph(net.graph.changed(nodes=change(list(net.graph.nodes))), keep_top=True)
    made._model = model
    return made


def with_layer(name, **settings):
    return lambda nodes: [replace(n, layer=replace(n.layer, **settings)) if n.name == name else n for n in nodes]


def with_inputs(name, *inputs):
    return lambda nodes: [replace(n, inputs=inputs) if n.name == name else n for n in nodes]


def found_nodes(net, kind):
    return [node for node in net.graph.nodes if node.layer.kind == kind]


def head_dropped(net):
    node = next(n for n in found_nodes(net, "dense") if n.name.endswith("/out/MatMul") and "blocks.1" in n.name)
    weight = np.array(node.layer.weight)
    weight[:, 4:8] = 0
    return with_layer(node.name, weight=weight), node.name


def weight_transposed(net):
    node = next(n for n in found_nodes(net, "dense") if "qkv.1" in n.name)
    return with_layer(node.name, weight=np.ascontiguousarray(np.swapaxes(node.layer.weight, 0, 1))), node.name


def scale_missing(net):
    scores = found_nodes(net, "matmul")[0]
    scaled = next((n for n in net.graph.nodes if n.layer.kind == "affine" and n.inputs == (scores.name,)), None)
    if scaled is None:  # part of the product, or of the queries
        return with_layer(scores.name, scale=2.0 * scores.layer.scale), scores.name
    return with_layer(scaled.name, scale=1.0), scaled.name


def keys_for_queries(net):
    scores = found_nodes(net, "matmul")[2]
    other = found_nodes(net, "matmul")[0]
    return with_inputs(scores.name, other.inputs[0], scores.inputs[1]), scores.name


def position_twice(net):
    node = found_nodes(net, "shift")[0]
    return with_layer(node.name, shift=2 * np.asarray(node.layer.shift)), node.name


def residual_lost(net):
    node = found_nodes(net, "add")[0]
    other = next(value for value in node.inputs if "blocks" in value)
    return with_inputs(node.name, other, other), node.name


def softmax_over_queries(net):
    node = found_nodes(net, "softmax")[0]
    return with_layer(node.name, axis=1), node.name


@pytest.mark.parametrize(
    "fault",
    [head_dropped, weight_transposed, scale_missing, keys_for_queries, position_twice, residual_lost,
     softmax_over_queries],
)  # fmt: skip
def test_a_wrong_layer_of_a_transformer_is_named(vit, fault):
    model = exported(vit.use(Plain()), (torch.zeros(2, 3, 12, 12).double(),), 17)
    net = pylrp.load(model)
    change, expected = fault(net)
    found = changed(net, model, change).verify(IMAGES, composite="attnlrp", target=1)
    assert found.deviation == "values"
    assert found.first_wrong == expected, str(found)


@pytest.mark.parametrize(("kind", "said", "done"), [("matmul", "Half", "Value"), ("softmax", "Taylor", "Stop")])
def test_attention_explained_by_another_rule_is_named(vit, kind, said, done, monkeypatch):
    net = pylrp.load(exported(vit.use(Plain()), (torch.zeros(2, 3, 12, 12).double(),), 17))
    layer = found_nodes(net, kind)[-1].name
    right = pylrp.composite("attnlrp")
    wrong = replace(right, name="wrong", names={layer: getattr(pylrp.rules, done)()})
    execution = net._execution
    every = [node.name for node in net.graph.nodes]  # attention is not one layer then
    plans = execution.plan(right, "zennit", every), execution.plan(wrong, "zennit", every)
    assert type(plans[0].assignment.rules[layer]).__name__ == said
    monkeypatch.setattr(plans[1], "assignment", plans[0].assignment)
    monkeypatch.setattr(execution, "plan", lambda *asked: plans[1])
    found = net.verify(IMAGES, composite=right, target=1)
    assert found.deviation == "relevance"
    assert found.first_wrong == layer, str(found)


# -- gates ----------------------------------------------------------------------------------------------------------


class Excite(nn.Module):
    """Squeeze-and-excite: a gate for each channel, its factor first or second."""

    def __init__(self, first):
        super().__init__()
        self.first = first
        self.conv, self.down, self.up = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = nn.functional.silu(self.conv(x))
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
        x = gate * x if self.first else x * gate
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("first", [True, False])
def test_a_gate_that_is_swapped_is_named(first):
    torch.manual_seed(3)
    model = exported(Excite(first).double().eval(), (torch.zeros(2, 3, 8, 8).double(),), 17)
    net = pylrp.load(model)
    x = np.random.default_rng(6).normal(size=(3, 3, 8, 8))
    assert net.verify(x)
    product = found_nodes(net, "multiply")[0]
    swapped = with_layer(product.name, signal=1 - product.layer.signal)
    found = changed(net, model, swapped).verify(x)
    assert found.deviation == "relevance"
    assert found.first_wrong == product.name, str(found)
    lost = with_inputs(product.name, product.inputs[0], product.inputs[0])
    half = changed(net, model, lambda nodes: [n for n in lost(nodes) if isinstance(n, Node)])
    assert half.verify(x, composite="attnlrp").first_wrong == product.name


@pytest.mark.nightly
def test_networks_of_torchvision_pass():
    torch.manual_seed(4)
    for module, shape in nets_to_try():
        x = torch.randn(2, *shape).double()
        model = exported(module.double().eval(), (x,), 17)
        assert pylrp.load(model).verify(x.numpy()), type(module).__name__


def nets_to_try():
    import torchvision

    yield torchvision.models.mobilenet_v3_small(num_classes=5), (3, 32, 32)
    yield torchvision.models.resnet18(num_classes=5), (3, 32, 32)
    small = {"stem_channels": 8, "block_channels": [8, 16], "block_layers": [1, 1], "head_dim": 8}
    sizes = {"input_size": (32, 32), "partition_size": 2, "stochastic_depth_prob": 0.0, "num_classes": 5}
    yield torchvision.models.MaxVit(**small, **sizes), (3, 32, 32)
