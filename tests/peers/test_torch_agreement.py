"""What torch's exporter leaves out or refuses: found by comparing predictions, written otherwise, or said by name."""

import numpy as np
import pytest
import torch
from torch import nn

import pylrp
from pylrp.errors import UnsupportedLayer
from pylrp.layers import CustomLayer, LeakyReLU

SHAPES = {1: (2, 10), 2: (2, 10, 10), 3: (2, 8, 8, 8)}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def around(layer, axes=2):
    """Return a network around a layer, and three samples."""
    torch.manual_seed(0)
    net = nn.Sequential(CONVS[axes](2, 4, 3), nn.ReLU(), layer, nn.Flatten(), nn.LazyLinear(3))
    x = torch.randn(3, *SHAPES[axes])
    net(x)
    return net.eval(), x


@pytest.mark.parametrize(
    "layer", [nn.AvgPool2d(3, 2, divisor_override=4), nn.Softplus(beta=2, threshold=1)], ids=["pool", "softplus"]
)
def test_arguments_that_the_exporter_drops(layer):
    net, x = around(layer)
    with pytest.raises(ValueError, match=r"written is not Sequential.*differs by \d+\.\d%.*divisor_override"):
        pylrp.load(net, x[:1])


def test_layers_of_the_users_own_may_predict_something_else():
    net, x = around(nn.Identity())
    with pytest.warns(UserWarning, match="is not Sequential"):
        pylrp.load(net, x[:1], operators={"Relu": lambda attributes, constants: LeakyReLU(0.5)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("softmax", [False, True])
def test_what_agrees_loads_without_a_word(dtype, softmax, recwarn):
    net, x = around(nn.MaxPool2d(2))
    net = nn.Sequential(net, nn.Softmax(1)) if softmax else net
    net, x = net.to(dtype), x.to(dtype)
    loaded = pylrp.load(net, x[:1])
    assert len(loaded.notes) == softmax
    kept = pylrp.load(net, x[:1], keep_softmax=True)
    assert np.allclose(kept.forward(x.numpy()), net(x).detach().numpy(), atol=1e-5)
    assert not [w for w in recwarn if "is not Sequential" in str(w.message)]


def test_outputs_of_every_form_are_compared():
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.soft = nn.Linear(6, 3), nn.Linear(6, 2), nn.Softplus(2, 1)

        def forward(self, x):
            return {"a": self.one(x), "b": [self.soft(self.two(x))]}

    net, x = Several(), torch.randn(2, 6)
    with pytest.raises(ValueError, match="is not Several"):
        pylrp.load(net, x)
    net.soft = nn.ReLU()
    assert len(pylrp.load(net, x).graph.outputs) == 2


ADAPTIVE = [
    (1, nn.AdaptiveAvgPool1d(3)),
    (1, nn.AdaptiveMaxPool1d(3)),
    (2, nn.AdaptiveAvgPool2d(7)),
    (2, nn.AdaptiveAvgPool2d((3, None))),
    (2, nn.AdaptiveAvgPool2d((None, 1))),
    (2, nn.AdaptiveMaxPool2d((7, 3))),
    (2, nn.AdaptiveMaxPool2d((None, 3))),
    (2, nn.AdaptiveAvgPool2d(10)),  # more windows than there are values
    (3, nn.AdaptiveAvgPool3d((4, 5, 1))),
    (3, nn.AdaptiveMaxPool3d(5)),
]


@pytest.mark.parametrize(("axes", "layer"), ADAPTIVE, ids=[str(layer) for _, layer in ADAPTIVE])
def test_adaptive_pools_whose_windows_differ_in_size(axes, layer, capfd):
    net, x = around(layer, axes)
    net, x = net.double(), x.double()
    loaded = pylrp.load(net, x[:1])
    assert loaded.graph.nodes[2].layer.kind == ("maxpool" if "Max" in str(layer) else "avgpool")
    assert loaded.graph.nodes[2].name == "2"
    assert np.allclose(loaded.forward(x.numpy()), net(x).detach().numpy(), atol=1e-10)
    ledger = loaded.explain(x.numpy(), composite="epsilon_plus").ledger
    assert all(np.abs(row.rounding).max() < 1e-10 for row in ledger)
    assert capfd.readouterr() == ("", "")
    # Nothing of it stays with the exporter.
    pylrp.load(nn.Sequential(nn.AdaptiveAvgPool2d(5)), torch.zeros(1, 2, 10, 10))


@pytest.mark.parametrize(
    ("layer", "node", "operator", "reason"),
    [
        (nn.ChannelShuffle(2), "2", "aten::channel_shuffle", "can't be written as ONNX"),
    ],
    ids=["operator"],
)
def test_refusals_name_the_module(layer, node, operator, reason):
    net, x = around(layer)
    with pytest.raises(UnsupportedLayer, match=reason) as caught:
        pylrp.load(net, x[:1])
    assert (caught.value.node, caught.value.operator) == (node, operator)
    assert len(str(caught.value)) < 300


class TestOperatorsByModule:
    class Half(CustomLayer):
        def output_shape(self, *shapes):
            return shapes[0]

        def forward(self, x):
            return np.maximum(x, 0)

        def relevance(self, inputs, output, relevance):
            return (relevance / 2,)

    @staticmethod
    def half(attributes, constants):
        return TestOperatorsByModule.Half()

    def test_the_name_that_summary_prints(self):
        net, x = around(nn.Identity())
        kinds = {n.name: n.layer.kind for n in pylrp.load(net, x, operators={"1": self.half}).graph.nodes}
        assert kinds["1"] == "custom"

    def test_each_use_of_a_module(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear, self.act = nn.Linear(6, 6), nn.ReLU()

            def forward(self, x):
                return self.act(self.linear(self.act(x)))

        graph = pylrp.load(Twice(), torch.randn(2, 6), operators={"act": self.half}).graph
        assert [node.layer.kind for node in graph.nodes] == ["custom", "dense", "custom"]

    def test_a_module_of_several_nodes(self):
        net, x = around(nn.Hardswish())
        net[2] = nn.Mish()
        with pytest.raises(ValueError, match=r"operators: '2' is \d nodes in ONNX, /2/"):
            pylrp.load(net, x, operators={"2": self.half})

    @pytest.mark.parametrize("key", ["Rleu", "features"])
    def test_a_name_that_is_not_there(self, key):
        net, x = around(nn.Identity())
        with pytest.raises(ValueError, match=f"nothing in the model is called '{key}'"):
            pylrp.load(net, x, operators={key: self.half})


def test_an_argument_that_forward_does_not_use():
    class Second(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 4)

        def forward(self, a, b):
            return self.linear(b)

    loaded = pylrp.load(Second(), (torch.zeros(1, 6), torch.zeros(1, 6)))
    assert list(loaded.graph.inputs) == ["b"]
    assert any("'a'" in note for note in loaded.notes)
