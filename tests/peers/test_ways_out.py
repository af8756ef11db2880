"""What messages about torch modules and Keras models advise, followed: what is refused, and the same as they say.

`test_refusals.py` has the kinds of layers without a rule, `tests/api/test_ways_out.py` and `test_ways_out_mat.py` the
rest.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import pytest
import torch
from torch import nn

import pylrp
from pylrp import layers

# Keras's conversion of torch's tensors, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

X = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32))


class Asked(nn.Module):
    """Two arguments that must be given."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x, y, double=False):
        z = self.one(x) + self.other(y)
        return z * 2 if double else z


class Twice(nn.Module):
    """A part that is two nodes in ONNX, or as many as it is written with."""

    def __init__(self, part):
        super().__init__()
        self.part, self.head = part, nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.part(x))


class Rounded(nn.Module):
    def forward(self, x):
        return torch.ceil(x) - x


class Sorted(nn.Module):
    """An operator that torch's exporter does not write."""

    def forward(self, x):
        return x + torch.special.i0e(x)


class Plain(nn.Module):
    def forward(self, x):
        return x


def linear():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()


def lazy():
    return nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.LazyLinear(2)).eval()


def run(module):
    module(X)
    return module


def half():
    return linear().half()


def normed(kept):
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=kept)).eval()


def on_meta():
    with torch.device("meta"):
        return linear()


def with_weights():
    module = on_meta().to_empty(device="cpu")
    module.load_state_dict(linear().state_dict())
    return module


class Own(layers.CustomLayer):
    """What the parts above compute, as the user would write it."""

    def __init__(self, function=lambda x: x):
        super().__init__()
        self.function = function

    def output_shape(self, *shapes):
        return shapes[0]

    def forward(self, *inputs):
        return self.function(*inputs)

    def relevance(self, inputs, output, relevance):
        return tuple(relevance / len(inputs) for _ in inputs)


def own(function):
    return lambda *given: Own(function)


#: A call that is refused, a part of the message, and a call as it says; the call returns the module and its arguments.
TORCH = {
    "no example": (lambda: (linear(),), "pylrp.load(module, torch.zeros(", lambda: (linear(), torch.zeros(1, 4))),
    "no tensor": (lambda: (linear(), (None,)), "give the module's input, with the batch", lambda: (linear(), X)),
    "an argument that is missing": (lambda: (Asked(), X), "give a tuple with", lambda: (Asked(), (X, X))),
    "an argument of another name": (
        lambda: (Asked(), {"x": X, "z": X}), "or a dict by name", lambda: (Asked(), {"x": X, "y": X, "double": True})
    ),
    "an example without values": (
        lambda: (linear(), X.to("meta")), "give a tensor with values", lambda: (linear(), torch.zeros_like(X))
    ),
    "a number as an example": (
        lambda: (linear(), torch.tensor(1.0)), "give a batch, for instance of shape (1, n)",
        lambda: (linear(), torch.zeros(1, 4)),
    ),
    "weights without a shape": (lambda: (lazy(), X), "run the module on an input first", lambda: (run(lazy()), X)),
    "weights without values": (lambda: (on_meta(), X), "load the module's weights first", lambda: (with_weights(), X)),
    "half precision": (lambda: (half(), X.half()), "call module.float() first", lambda: (half().float(), X)),
    "a BatchNorm of the batch": (
        lambda: (normed(False), X), "train it with track_running_stats=True", lambda: (normed(True), X)
    ),
    "an operator that is not exported": (
        lambda: (Twice(Sorted()), X), "leave the operator out of forward", lambda: (Twice(Plain()), X)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_torch(name):
    refused, advice, way_out = TORCH[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        pylrp.load(*refused())
    assert advice in str(caught.value)
    module, example = way_out()
    net = pylrp.load(module, example)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32))
    several = isinstance(example, dict | tuple)
    with torch.no_grad():
        wanted = module(x, x, double=isinstance(example, dict)) if several else module(x)
    found = net.forward((x.numpy(), x.numpy()) if several else x.numpy())
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_a_module_of_several_nodes():
    module = Twice(Rounded()).eval()
    function = own(lambda x: np.ceil(x))
    with pytest.raises(ValueError, match="name one") as caught:
        pylrp.load(module, X, operators={"part": function})
    ceil = next(word for word in str(caught.value).replace(":", ",").split(", ") if "Ceil" in word)
    net = pylrp.load(module, X, operators={ceil: function})
    np.testing.assert_allclose(net.forward(X.numpy()), module(X).detach().numpy(), rtol=1e-4, atol=1e-5)


keras = pytest.importorskip("keras")
L, ops = keras.layers, keras.ops


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


class SubclassOfTwo(keras.Model):
    """Of several inputs: its call can't be followed."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, inputs):
        return self.dense(inputs[0] + inputs[1])


class Doubled(L.Layer):
    def call(self, x):
        return ops.square(x)


class Rooted(L.Layer):
    def call(self, x):
        return ops.cbrt(x)


def model(*parts, shape=(4,)):
    return keras.Sequential([keras.Input(shape), *parts])


def functional(function, *shapes):
    inputs = [keras.Input(shape, name=f"x{i}") for i, shape in enumerate(shapes)]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], function(*inputs))


def built(network, inputs=1):
    zeros = np.zeros((1, 4), np.float32)
    network(zeros if inputs == 1 else [zeros] * inputs)
    return network


def swish_like(x):
    return x * ops.sigmoid(2 * x)


def np_swish(x):
    return x / (1 + np.exp(-2 * x))


def wide():
    x = keras.Input((None, 3), name="signal")
    return keras.Model(x, L.Dense(2)(L.GlobalAveragePooling1D()(L.Conv1D(4, 3)(x))))


def open_image():
    x = keras.Input((None, None, 3), name="image")
    return keras.Model(x, L.Dense(2)(L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(x))))


def two_wide():
    inputs = [keras.Input((None, 3), name="one"), keras.Input((None, 2), name="other")]
    parts = [L.Dense(2)(L.GlobalAveragePooling1D()(L.Conv1D(4, 3)(x))) for x in inputs]
    return keras.Model(inputs, L.Add()(parts))


#: As above, with the options of the call.
KERAS = {
    "a Sequential without an input": (
        lambda: (keras.Sequential([L.Dense(2)]), {}), "begin a Sequential with keras.Input(shape)",
        lambda: (keras.Sequential([keras.Input((4,)), L.Dense(2)]), {}),
    ),
    "a subclass": (
        lambda: (built(SubclassOfTwo(), 2), {}), "write it as a functional one",
        lambda: (functional(lambda a, b: L.Dense(2)(a + b), (4,), (4,)), {}),
    ),
    "an open size": (lambda: (open_image(), {}), "give the sizes you mean as input_shape=",
                     lambda: (open_image(), {"input_shape": (7, 9, 3)})),
    "open sizes of several inputs": (
        lambda: (two_wide(), {"input_shape": (7, 3)}), "give a dict of name to shape",
        lambda: (two_wide(), {"input_shape": {"one": (7, 3), "other": (5, 2)}}),
    ),
    "a layer of one's own": (
        lambda: (model(Rooted(), L.Dense(2)), {}), "operators={'Cbrt': function}",
        lambda: (model(Rooted(), L.Dense(2)), {"operators": {"Rooted": own(np.cbrt)}}),
    ),
    "an operation": (
        lambda: (functional(lambda x: L.Dense(2)(ops.cbrt(x)), (4,)), {}), "operators={'Cbrt': function}",
        lambda: (functional(lambda x: L.Dense(2)(ops.cbrt(x)), (4,)), {"operators": {"Cbrt": own(np.cbrt)}}),
    ),
    "an activation of one's own within a layer": (
        lambda: (model(L.Dense(3, activation=swish_like), L.Dense(2)), {}), "put keras.layers.Activation behind",
        lambda: (
            model(L.Dense(3), L.Activation(swish_like), L.Dense(2)), {"operators": {"Activation": own(np_swish)}}
        ),
    ),
    "an activation of one's own": (
        lambda: (model(L.Activation(swish_like), L.Dense(2)), {}), "operators={'Activation': function}",
        lambda: (model(L.Activation(swish_like), L.Dense(2)), {"operators": {"Activation": own(np_swish)}}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KERAS)
def test_keras(name):
    refused, advice, way_out = KERAS[name]
    network, options = refused()
    with pytest.raises((TypeError, ValueError)) as caught:
        pylrp.load(network, **options)
    assert advice in str(caught.value)
    network, options = way_out()
    net = pylrp.load(network, **options)
    rng = np.random.default_rng(2)
    x = [rng.standard_normal((3, *shape)).astype(np.float32) for shape in shapes_of(network, options)]
    wanted = keras.ops.convert_to_numpy(network(x if len(x) > 1 else x[0]))
    found = net.forward(tuple(x) if len(x) > 1 else x[0])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    net.explain(tuple(x) if len(x) > 1 else x[0], target=1, composite="epsilon")


def shapes_of(network, options):
    given = options.get("input_shape")
    if given is None:
        return [tensor.shape[1:] for tensor in network.inputs]
    return list(given.values()) if isinstance(given, dict) else [given]


#: What loads as it is: a subclass and a layer by their call, steps of any number.
@pytest.mark.filterwarnings("ignore")  # torch's exporter
def test_a_subclass_as_an_onnx_file(tmp_path):
    if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15):
        pytest.importorskip("onnxscript")  # which Keras 3.11 writes the file with
    network = built(SubclassOfTwo(), 2)
    with pytest.raises(ValueError, match=r"load the file that model\.export"):
        pylrp.load(network)
    network.export(str(tmp_path / "net.onnx"), format="onnx", verbose=False)
    one, other = X[:1], X[1:2]
    wanted = keras.ops.convert_to_numpy(network([one, other]))
    found = pylrp.load(tmp_path / "net.onnx").forward((one.numpy(), other.numpy()))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_code_in_a_file_of_keras(tmp_path):
    path = tmp_path / "net.keras"
    model(L.Lambda(lambda x: x * 2), L.Dense(2)).save(path)
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(path)
    assert "write the layer with others of Keras's, and save the model again" in caught.value.way_out
    network = model(L.Rescaling(2.0), L.Dense(2))
    network.save(path)
    wanted = keras.ops.convert_to_numpy(network(X))
    np.testing.assert_allclose(pylrp.load(path).forward(X.numpy()), wanted, rtol=1e-4, atol=1e-5)


def test_the_part_behind_attention():
    network = functional(lambda x: L.Dense(2)(L.Flatten()(L.AdditiveAttention(name="attend")([x, x]))), (6, 4))
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(network)
    assert "load the part of the network behind it by itself" in caught.value.way_out
    hidden = keras.Model(network.input, network.get_layer("attend").output)
    x = np.random.default_rng(0).standard_normal((3, 6, 4)).astype(np.float32)
    values = keras.ops.convert_to_numpy(hidden(x))
    behind = keras.Sequential([keras.Input((6, 4)), *network.layers[2:]])
    net = pylrp.load(behind)
    np.testing.assert_allclose(net.forward(values), keras.ops.convert_to_numpy(network(x)), rtol=1e-4, atol=1e-5)
    assert net.explain(values, target=1, composite="epsilon").relevance.shape == (3, 6, 4)
