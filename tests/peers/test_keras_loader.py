"""Keras models against the graphs made of them: the same outputs, in float64, by the oracle's own forward pass."""

import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
import torch
from keras import layers as L
from keras import ops
from reference.graph_forward import forward

from pylrp import layers
from pylrp.errors import UnsupportedLayer
from pylrp.loaders import load
from pylrp.loaders.keras.model import load_keras

pytestmark = [
    # Keras's conversion of torch's tensors, with NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
    # Of Keras before 3.15 on torch, where it cuts transposed convolutions otherwise; the loader does as it does.
    pytest.mark.filterwarnings(
        "ignore:You might experience inconsistencies across backends when calling conv transpose:UserWarning"
    ),
]


@pytest.fixture(autouse=True)
def float64():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.utils.clear_session(free_memory=False)
    yield
    keras.config.set_floatx(before)


def randomise(model, rng):
    """Give every weight a value of its own: fresh biases are zero, fresh averages change nothing."""
    for weight in model.weights:
        if "seed" in weight.path:
            continue
        values = rng.standard_normal(weight.shape) / np.sqrt(max(np.prod(weight.shape[:-1]), 1))
        weight.assign(values**2 + 0.5 if "variance" in weight.path else values + 0.1)


def agree(model, rng, batch=3, operators=None, shapes=None):
    """Compare the model with its graph on random input and return the graph."""
    randomise(model, rng)
    x = [rng.standard_normal((batch, *shape)) for shape in shapes or [tensor.shape[1:] for tensor in model.inputs]]
    expected = model(x if len(x) > 1 else x[0], training=False)
    expected = [keras.ops.convert_to_numpy(y) for y in (expected if isinstance(expected, list) else [expected])]
    graph = load_keras(model, input_shape=shapes[0] if shapes else None, operators=operators)
    assert graph.dtype == np.float64
    given = {
        name: np.moveaxis(value, -1, 1) if name in graph.channels_last else value
        for name, value in zip(graph.inputs, x, strict=True)
    }
    found = forward(graph, given)
    assert len(graph.outputs) == len(expected)
    for name, theirs in zip(graph.outputs, expected, strict=True):
        assert found[name].shape == theirs.shape
        assert np.abs(theirs).max() > 1e-3
        # Keras computes some products and means in float32, whatever the dtype.
        assert np.abs(found[name] - theirs).max() <= 2e-6 * np.abs(theirs).max(), name
    return graph


def kinds(graph):
    return [type(node.layer).__name__ for node in graph.nodes]


def sequential(shape, *parts):
    return keras.Sequential([keras.Input(shape, name="image"), *parts])


#: Where Keras on torch cuts a transposed convolution's output otherwise than on other backends.
BEFORE_3_15 = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15)
IMAGE, SIGNAL, VOLUME = (9, 8, 4), (11, 4), (5, 6, 7, 2)

SINGLE = {  # name of the test: shape of the input, layer
    "dense": ((6,), lambda: L.Dense(4)),
    "dense without bias": ((6,), lambda: L.Dense(4, use_bias=False, activation="tanh")),
    "dense on a signal": (SIGNAL, lambda: L.Dense(3, activation="relu")),
    "dense on an image": (IMAGE, lambda: L.Dense(3)),
    "conv 1d": (SIGNAL, lambda: L.Conv1D(3, 3, activation="relu")),
    "conv 1d causal": (SIGNAL, lambda: L.Conv1D(3, 3, padding="causal", dilation_rate=2)),
    "conv 1d causal strides": (SIGNAL, lambda: L.Conv1D(3, 4, padding="causal", strides=2)),
    "conv 2d": (IMAGE, lambda: L.Conv2D(5, (3, 2), strides=(2, 1))),
    "conv 2d same": (IMAGE, lambda: L.Conv2D(5, (4, 3), strides=2, padding="same")),
    "conv 2d same, no bias": (IMAGE, lambda: L.Conv2D(5, 2, padding="same", use_bias=False)),
    "conv 2d dilated": (IMAGE, lambda: L.Conv2D(5, 3, dilation_rate=(2, 3), padding="same")),
    "conv 2d groups": (IMAGE, lambda: L.Conv2D(6, 3, groups=2)),
    "conv 3d": (VOLUME, lambda: L.Conv3D(3, (2, 3, 1), strides=(1, 2, 1), padding="same")),
    "depthwise 1d": (SIGNAL, lambda: L.DepthwiseConv1D(3, depth_multiplier=2, strides=2, padding="same")),
    "depthwise 2d": (IMAGE, lambda: L.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")),
    "depthwise 2d same": (IMAGE, lambda: L.DepthwiseConv2D((3, 4), padding="same", use_bias=False)),
    "separable 1d": (SIGNAL, lambda: L.SeparableConv1D(5, 3, depth_multiplier=2)),
    "separable 2d": (IMAGE, lambda: L.SeparableConv2D(5, 3, strides=2, padding="same", activation="relu")),
    "max pool 1d": (SIGNAL, lambda: L.MaxPooling1D(3, strides=2, padding="same")),
    "max pool 2d": (IMAGE, lambda: L.MaxPooling2D((2, 3), strides=1, padding="same")),
    "max pool 3d": (VOLUME, lambda: L.MaxPooling3D(2)),
    "average pool 1d": (SIGNAL, lambda: L.AveragePooling1D(3, strides=2, padding="same")),
    "average pool 2d": (IMAGE, lambda: L.AveragePooling2D((3, 2), strides=2, padding="same")),
    "average pool 2d valid": (IMAGE, lambda: L.AveragePooling2D(3, strides=(2, 1))),
    "average pool 3d": (VOLUME, lambda: L.AveragePooling3D(2, padding="same")),
    "global average": (IMAGE, lambda: L.GlobalAveragePooling2D()),
    "global average kept": (IMAGE, lambda: L.GlobalAveragePooling2D(keepdims=True)),
    "global max 1d": (SIGNAL, lambda: L.GlobalMaxPooling1D()),
    "global max 3d": (VOLUME, lambda: L.GlobalMaxPooling3D()),
    "batch norm": (IMAGE, lambda: L.BatchNormalization(epsilon=0.01)),
    "batch norm of features": ((6,), lambda: L.BatchNormalization(scale=False)),
    "batch norm without shift": (SIGNAL, lambda: L.BatchNormalization(center=False)),
    "relu": (IMAGE, lambda: L.ReLU()),
    "relu bounded": (IMAGE, lambda: L.ReLU(max_value=0.5)),
    "relu with slope": (IMAGE, lambda: L.ReLU(negative_slope=0.3)),
    "relu with both": (IMAGE, lambda: L.ReLU(max_value=0.5, negative_slope=0.3)),
    "leaky relu": (IMAGE, lambda: L.LeakyReLU(negative_slope=0.15)),
    "elu": (IMAGE, lambda: L.ELU(alpha=0.7)),
    "prelu of every place": (IMAGE, lambda: L.PReLU()),
    "prelu of channels": (IMAGE, lambda: L.PReLU(shared_axes=[1, 2])),
    "prelu of one": (IMAGE, lambda: L.PReLU(shared_axes=[1, 2, 3])),
    "prelu of features": ((6,), lambda: L.PReLU()),
    "softmax": ((6,), lambda: L.Softmax()),
    "softmax of places": (IMAGE, lambda: L.Softmax()),
    "softmax along the height": (IMAGE, lambda: L.Softmax(axis=1)),
    "flatten": (IMAGE, lambda: L.Flatten()),
    "flatten features": ((6,), lambda: L.Flatten()),
    "reshape": (IMAGE, lambda: L.Reshape((6, -1))),
    "permute": (IMAGE, lambda: L.Permute((3, 1, 2))),
    "permute two": (IMAGE, lambda: L.Permute((2, 1, 3))),
    "repeat": ((6,), lambda: L.RepeatVector(3)),
    "zero padding 1d": (SIGNAL, lambda: L.ZeroPadding1D((1, 2))),
    "zero padding 2d": (IMAGE, lambda: L.ZeroPadding2D(((1, 2), (0, 3)))),
    "zero padding 3d": (VOLUME, lambda: L.ZeroPadding3D((1, 2, 0))),
    "cropping 1d": (SIGNAL, lambda: L.Cropping1D((1, 2))),
    "cropping 2d": (IMAGE, lambda: L.Cropping2D(((1, 2), (0, 3)))),
    "cropping 3d": (VOLUME, lambda: L.Cropping3D(1)),
    "up-sampling 1d": (SIGNAL, lambda: L.UpSampling1D(3)),
    "up-sampling 2d": (IMAGE, lambda: L.UpSampling2D((2, 3))),
    "up-sampling 2d bilinear": (IMAGE, lambda: L.UpSampling2D(2, interpolation="bilinear")),
    "up-sampling 3d": (VOLUME, lambda: L.UpSampling3D((2, 1, 2))),
    "rescaling": (IMAGE, lambda: L.Rescaling(1 / 127.5, offset=-1)),
    "rescaling of channels": (IMAGE, lambda: L.Rescaling([1.0, 2.0, 3.0, 4.0], offset=[0.5, 0, 1, 2])),
    "normalization": (IMAGE, lambda: L.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2, 3, 4])),
    "normalization of features": ((6,), lambda: L.Normalization(mean=0.5, variance=4.0)),
    "normalization back": (IMAGE, lambda: L.Normalization(mean=0.5, variance=4.0, invert=True)),
}
if hasattr(L, "AdaptiveAveragePooling2D"):  # from Keras 3.13 on
    SINGLE["adaptive average"] = IMAGE, lambda: L.AdaptiveAveragePooling2D((4, 3))
    SINGLE["adaptive max"] = SIGNAL, lambda: L.AdaptiveMaxPooling1D(4)


@pytest.mark.parametrize("name", SINGLE)
def test_each_layer(rng, name):
    shape, make = SINGLE[name]
    graph = agree(sequential(shape, make()), rng)
    assert graph.channels_last == ({"image"} if len(shape) > 1 else set())


@pytest.mark.parametrize("name", SINGLE)
def test_each_layer_between_others(rng, name):
    """A layer must leave its output as the next one expects it."""
    shape, make = SINGLE[name]
    model = sequential(shape, L.Reshape(shape), make(), L.Flatten(), L.Dense(2))
    agree(model, rng)
    if len(shape) == 3:
        agree(sequential(shape, L.Conv2D(4, 1), make(), L.Flatten(), L.Dense(2)), rng)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed_convolution_1d(rng, kernel, stride, padding):
    if BEFORE_3_15 and stride == 1 and kernel in (2, 4) and padding == "same":
        pytest.skip("Keras before 3.15 refuses it on torch")
    model = sequential((6, 2), L.Conv1DTranspose(3, kernel, strides=stride, padding=padding))
    graph = agree(model, rng)
    otherwise = padding == "same" and (kernel - stride) % 2 == 1 and kernel > stride
    assert len(graph.notes) == (BEFORE_3_15 and otherwise)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (4, 3), (5, 2), (4, 2), (5, 3), (2, 3)])
def test_transposed_convolutions_of_keras_before_3_15_on_torch(rng, monkeypatch, kernel, stride):
    """The same padding at both ends and torch's output padding, so that the output has stride times the length."""
    monkeypatch.setattr("pylrp.loaders.keras.layers.cuts_as_torch", lambda: True)
    model = sequential((6, 2), L.Conv1DTranspose(3, kernel, strides=stride, padding="same"))
    randomise(model, rng)
    weight, shift = (torch.from_numpy(keras.ops.convert_to_numpy(variable)) for variable in model.weights)
    x = rng.standard_normal((3, 2, 6))
    padding = next(p for p in range(kernel) if 2 * p >= kernel - stride)
    extra = 2 * padding - (kernel - stride)
    expected = torch.conv_transpose1d(torch.from_numpy(x), weight.permute(2, 1, 0), shift, stride, padding, extra)
    graph = load_keras(model)
    found = forward(graph, {"image": x})[graph.outputs[0]]
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), expected.numpy(), atol=1e-12)


TRANSPOSED = {
    "valid": {"kernel_size": (3, 2), "strides": 2},
    "same": {"kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu"},
    "same, even": {"kernel_size": 4, "strides": (2, 3), "padding": "same", "use_bias": False},
    "output padding": {"kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1},
    "output padding of 0": {"kernel_size": 4, "strides": 2, "padding": "same", "output_padding": 0},
    "output padding, valid": {"kernel_size": 3, "strides": 3, "output_padding": (2, 1)},
    "dilated": {"kernel_size": 3, "dilation_rate": 2, "padding": "same"},
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolution_2d(rng, name):
    agree(sequential((5, 4, 2), L.Conv2DTranspose(3, **TRANSPOSED[name])), rng)


def test_transposed_convolution_3d(rng):
    agree(sequential((3, 4, 2, 2), L.Conv3DTranspose(3, (2, 3, 4), strides=2, padding="same")), rng)


ACTIVATIONS = [
    *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "hard_silu", "hard_sigmoid", "hard_tanh"),
    *("sigmoid", "tanh", "softplus", "mish", "linear", "softmax", "log_softmax"),
]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(rng, name):
    model = sequential((9,), L.Dense(12, name="dense", activation=name), L.Rescaling(3.0), L.Activation(name))
    graph = agree(model, rng, batch=20)
    if name != "linear":
        assert graph.nodes[1].name.startswith(f"dense.{name}")


def test_nothing_moves_after_a_softmax_at_the_top(rng):
    """Else canonise would not find it there."""
    for parts in ([L.Conv2D(5, 1, activation="softmax")], [L.Conv2D(5, 1), L.Softmax(axis=1)]):
        assert kinds(agree(sequential((4, 3, 2), *parts), rng))[-1] == "Softmax"


def test_a_layer_as_activation(rng):
    agree(sequential((9,), L.Dense(12, activation=L.LeakyReLU(negative_slope=0.4))), rng)


def test_two_values(rng):
    a, b = keras.Input((6, 5, 3)), keras.Input((6, 5, 3))
    small = L.GlobalAveragePooling2D(keepdims=True)(a)
    x = L.Concatenate()([L.Add()([a, b, small]), L.Subtract()([a, b]), L.Average()([a, b, a])])
    graph = agree(keras.Model([a, b], L.Concatenate(axis=1)([x, L.Conv2D(9, 1)(x)])), rng)
    assert len(graph.channels_last) == 2


def test_the_scaled_sum_of_inception_resnet(rng):
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    x = keras.Input((6, 5, 3))
    agree(keras.Model(x, CustomScaleLayer(0.17)([x, L.Conv2D(3, 1)(x)])), rng)


def test_values_in_different_orders_meet(rng):
    x = keras.Input((4, 3, 6))
    turned = L.Permute((3, 1, 2))(L.Reshape((3, 6, 4))(x))
    conv = L.Conv2D(6, 1)(x)
    y = L.Add()([conv, turned])
    agree(keras.Model(x, [y, L.Concatenate(axis=1)([turned, y]), L.Flatten()(y)]), rng)


def test_a_residual_network_with_nested_models_and_shared_layers(rng):
    def block(channels):
        x = keras.Input((8, 8, channels))
        y = L.Conv2D(channels, 3, padding="same", use_bias=False, name="conv")(x)
        y = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(y))
        return keras.Model(x, L.Add(name="add")([x, y]), name="block")

    inner = keras.Sequential([keras.Input((8, 8, 4)), block(4), L.Dropout(0.5), L.SpatialDropout2D(0.5)], name="stage")
    shared = L.Conv2D(4, 3, padding="same", activation="relu", name="shared")
    x = keras.Input((8, 8, 3), name="image")
    y = inner(shared(shared(L.Conv2D(4, 1, name="stem")(x))))
    y = inner(y)
    y = L.Dense(5, activation="softmax", name="top")(L.Flatten()(L.MaxPooling2D()(y)))
    graph = agree(keras.Model(x, y), rng)
    by_name = {node.name: node for node in graph.nodes}
    assert by_name["shared"].layer is by_name["shared_2"].layer
    assert by_name["stage.block.conv"].layer is by_name["stage.block.conv_2"].layer
    assert graph.outputs == ("top.softmax",)


def test_operations(rng):
    x = keras.Input((5, 4, 3))
    y = 1.5 - (x * 2 + 1) / 3 - np.arange(3.0)
    y = ops.relu(y) + ops.leaky_relu(-y, 0.3) - ops.gelu(y)
    y = ops.concatenate([y, ops.subtract(np.ones((1, 4, 1)), x), ops.tanh(x)], axis=-1)
    y = ops.selu(ops.hard_silu(y) + ops.elu(y) + ops.relu6(y))
    y = ops.reshape(y, (-1, 36, 5))
    agree(keras.Model(x, ops.softmax(y, axis=1)), rng)


@pytest.mark.parametrize("norm_axis", [1])
def test_channels_first(rng, norm_axis):
    first = {"data_format": "channels_first"}
    model = sequential(
        (3, 9, 8),
        L.Conv2D(4, 3, padding="same", **first),
        L.BatchNormalization(axis=norm_axis),
        L.PReLU(shared_axes=[2, 3]),
        L.AveragePooling2D(2, padding="same", **first),
        L.ZeroPadding2D(1, **first),
        L.UpSampling2D(2, **first),
        L.Conv2DTranspose(2, 3, strides=2, padding="same", **first),
        L.Flatten(**first),
        L.Dense(3),
    )
    graph = agree(model, rng)
    assert graph.channels_last == frozenset()
    assert graph.inputs == {"image": (3, 9, 8)}
    inner = sequential((3, 9, 8), L.Conv2D(4, 3, **first), L.GlobalMaxPooling2D(**first))
    x = keras.Input((3, 9, 8), name="image")
    assert agree(keras.Model(x, inner(x)), rng).channels_last == frozenset()


def test_rescaling_where_images_have_channels_first(rng):
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        # Keras 3.11 counts a float as an offset for one channel, and expects images of one channel behind it.
        rescaling = L.Rescaling([1.0, 2.0, 3.0], offset=np.array(0.5))
        agree(sequential((3, 4, 5), rescaling, L.Conv2D(2, 3), L.Flatten()), rng)
    finally:
        keras.config.set_image_data_format(before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: L.RandomFlip(),
        lambda: L.RandomRotation(0.2),
        lambda: L.RandomZoom(0.2),
        lambda: L.RandomTranslation(0.2, 0.2),
        lambda: L.RandomBrightness(0.2),
        lambda: L.RandomContrast(0.2),
        lambda: L.GaussianNoise(0.3),
        lambda: L.GaussianDropout(0.3),
        lambda: L.AlphaDropout(0.3),
        lambda: L.ActivityRegularization(0.3),
    ],
)
def test_what_happens_in_training_only_is_left_out(rng, make):
    assert kinds(agree(sequential((8, 8, 3), make(), L.Conv2D(2, 3)), rng)) == ["Conv", "Transpose"]


def test_an_open_size_must_be_given(rng):
    model = sequential((None, None, 3), L.Conv2D(2, 3), L.GlobalMaxPooling2D())
    with pytest.raises(
        ValueError, match=r"'image' has the shape \(None, None, 3\): give the sizes you mean as input_sh"
    ):
        load_keras(model)
    assert agree(model, rng, shapes=[(9, 8, 3)]).inputs == {"image": (3, 9, 8)}
    assert load_keras(model, input_shape={"image": [7, 8, 3]}).inputs == {"image": (3, 7, 8)}
    for wrong in ((9, 8, 4), (9, 8)):
        with pytest.raises(ValueError, match=r"input_shape is .*, input 'image' takes \(None, None, 3\)"):
            load_keras(model, input_shape=wrong)
    with pytest.raises(ValueError, match="input_shape names picture, the inputs are image"):
        load_keras(model, input_shape={"picture": (9, 8, 3)})
    a, b = keras.Input((None, 2), name="a"), keras.Input((4, 2), name="b")
    two = keras.Model([a, b], L.Concatenate(axis=1)([a, b]))
    with pytest.raises(ValueError, match=r"input_shape is \(3, 2\), the model has the inputs a, b: give a dict"):
        load_keras(two, input_shape=(3, 2))
    assert load_keras(two, input_shape={"a": (3, 2)}).inputs == {"a": (2, 3), "b": (2, 4)}


def test_a_file(rng, tmp_path):
    model = sequential((8, 8, 3), L.Conv2D(2, 3, activation="relu"), L.Flatten(), L.Dense(3))
    graph = agree(model, rng)
    model.save(tmp_path / "model.keras")
    again = load_keras(tmp_path / "model.keras")
    assert [node.name for node in again.nodes] == [node.name for node in graph.nodes]
    for one, other in zip(graph.nodes, again.nodes, strict=True):
        for array in one.layer.arrays:
            np.testing.assert_array_equal(getattr(one.layer, array), getattr(other.layer, array))


def test_the_weights_are_copies(rng):
    model = sequential((4,), L.Dense(3))
    graph = agree(model, rng)
    before = graph.nodes[0].layer.bias.copy()
    model.layers[0].bias.assign(np.ones(3))
    np.testing.assert_array_equal(graph.nodes[0].layer.bias, before)


def test_dtypes(rng):
    keras.config.set_floatx("float32")
    assert load_keras(sequential((4,), L.Rescaling(2.0), L.Dense(3))).dtype == np.float32
    mixed = sequential((4,), L.Dense(3, dtype="mixed_float16"))
    graph = load_keras(mixed)
    assert graph.dtype == np.float32
    assert graph.notes == ("computed in float32; in Keras some layers compute in float16",)
    half = sequential((4,), L.Dense(3, dtype="bfloat16"))
    with pytest.raises(TypeError, match="are bfloat16, relevance is computed in float32 or float64"):
        load_keras(half)


class Square(L.Layer):
    def call(self, x):
        return x * x


REFUSED = {
    "unknown": ((6, 5, 4), lambda: L.ConvLSTM1D(3, 2, name="rnn"), r"node 'rnn' \(ConvLSTM1D\) is a recurrent layer"),
    "lambda": ((4,), lambda: L.Lambda(lambda x: x.cumsum(-1), name="lam"), r"node 'lam' \(Lambda\)"),
    "activation": ((4,), lambda: L.Dense(3, activation="sparsemax", name="d"), "activation 'sparsemax'"),
    "own activation": ((4,), lambda: L.Dense(3, activation=lambda x: x, name="d"), "activation '<lambda>'"),
    "threshold": ((4,), lambda: L.ReLU(threshold=0.5), "threshold of 0.5"),
    "interpolation": ((4, 4, 1), lambda: L.UpSampling2D(2, interpolation="bicubic"), "interpolates 'bicubic'"),
    "norm of another axis": ((4, 5, 1), lambda: L.BatchNormalization(axis=2), "normalises axis 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    shape, make, message = REFUSED[name]
    with pytest.raises(UnsupportedLayer, match=message):
        load_keras(sequential(shape, make()))


def squeezed(x):
    gate = L.GlobalAveragePooling2D(keepdims=True)(x)
    return L.Dense(x.shape[-1], activation="sigmoid")(gate)


PRODUCTS = {
    "layer": (lambda x: L.Multiply()([squeezed(x), x]), ["multiply"]),
    "operator": (lambda x: x * squeezed(x), ["multiply"]),
    "three": (lambda x: L.Multiply()([x, squeezed(x), L.Conv2D(1, 3, padding="same", activation="sigmoid")(x)]),
              ["multiply", "multiply"]),
    "quotient": (lambda x: x / squeezed(x), ["divide"]),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_and_quotients(name, rng):
    make, expected = PRODUCTS[name]
    x = keras.Input((5, 6, 3))
    graph = agree(keras.Model(x, make(L.Conv2D(4, 3)(x))), rng)
    assert [node.layer.kind for node in graph.nodes if node.layer.kind in ("multiply", "divide")] == expected


class Squared(layers.CustomLayer):
    def output_shape(self, *shapes):
        assert shapes == ((5, 6, 3),)  # Keras's order
        return shapes[0]

    def forward(self, x):
        return x**2

    def relevance(self, inputs, output, relevance):
        return (relevance,)


def test_layers_of_the_users_own(rng):
    model = sequential((5, 6, 3), L.Conv2D(3, 1), Square(), L.Conv2D(2, 3))
    agree(model, rng, operators={"Square": lambda layer: Squared()})


def test_load_takes_it_for_a_keras_model(rng):
    """With torch behind Keras it is a torch module, too."""
    model = sequential((5, 4, 3), L.Conv2D(2, 3, activation="relu"), L.Flatten(), L.Dense(3, activation="softmax"))
    net = load(model)
    assert net.notes == ("softmax 'dense.softmax' at the top removed: the logits are explained",)
    assert net.explain(rng.standard_normal((2, 5, 4, 3))).relevance.shape == (2, 5, 4, 3)


def test_without_keras(monkeypatch):
    model = sequential((3,), L.Dense(2))
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ImportError, match=r'needs Keras 3 and its backend: pip install "keras>='):
        load_keras(model)


def test_models_without_a_graph():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"has no fixed graph: begin a Sequential with keras\.Input"):
        load_keras(Own())
    with pytest.raises(ValueError, match="has no weights yet: call it once"):
        load_keras(Own(), input_shape=(3,))
    with pytest.raises(ValueError, match="has no fixed graph"):
        load_keras(keras.Sequential([L.Dense(3)]))
    with pytest.raises(TypeError, match="expected a model of Keras 3"):
        load_keras(L.Dense(3))
