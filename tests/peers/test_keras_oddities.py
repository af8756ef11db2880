"""Keras models with layers in layers, layers used twice and arguments by name: the same outputs as Keras."""

import os
import zipfile

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
from allocated import at_most_allocated
from keras import layers as L

import pylrp

# Keras's conversion of torch's tensors, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")


def same(model, *shapes, train=False):
    """Compare a network's output with its model's, after giving every weight a value of its own."""
    rng = np.random.default_rng(3)
    for weight in model.weights:
        if "seed" not in weight.path and "vector_u" not in weight.path:
            values = rng.standard_normal(weight.shape) * 0.4
            weight.assign(values**2 + 0.5 if "variance" in weight.path else values + 0.1)
    x = [rng.standard_normal((3, *shape)).astype(np.float32) for shape in shapes]
    if train:
        model(x[0], training=True)
    net = pylrp.load(model)
    wanted = keras.ops.convert_to_numpy(model(x if len(x) > 1 else x[0], training=False))
    found = net.forward(dict(zip(net.graph.inputs, x, strict=True)))
    assert np.abs(wanted).max() > 1e-2
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    return net


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_batch_norms_without_gain_or_shift(center, scale):
    norm = L.BatchNormalization(center=center, scale=scale)
    same(keras.Sequential([keras.Input((6, 6, 3)), L.Conv2D(4, 3), norm, L.Flatten(), L.Dense(2)]), (6, 6, 3))


def test_spectral_normalization():
    layers = [L.SpectralNormalization(L.Conv2D(4, 3)), L.ReLU(), L.Flatten(), L.SpectralNormalization(L.Dense(2))]
    net = same(keras.Sequential([keras.Input((6, 6, 3)), *layers]), (6, 6, 3), train=True)
    assert [node.layer.kind for node in net.graph.nodes if node.layer.arrays] == ["conv", "dense"]


def test_a_layer_and_a_norm_used_twice():
    x = keras.Input((4,))
    dense, norm = L.Dense(4, activation="relu"), L.BatchNormalization()
    same(keras.Model(x, L.Dense(2)(norm(dense(norm(dense(x)))))), (4,))


def test_one_model_within_for_two_inputs():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4, activation="relu")])
    one, other = keras.Input((4,)), keras.Input((4,))
    same(keras.Model([one, other], L.Dense(2)(L.Subtract()([inner(one, training=False), inner(other)]))), (4,), (4,))


def by_name(x):
    return L.Dense(3)(inputs=x)


def training(x):
    return L.Dropout(0.5)(L.Dense(3)(x), training=True)


def sums(x):
    return keras.ops.add(x1=L.Dense(3)(x), x2=L.Dense(3)(x))


def mixed(x):
    return keras.ops.concatenate([keras.ops.multiply(L.Dense(3)(x), 2.0), x], axis=1)


def reshaped(x):
    return keras.ops.reshape(keras.ops.relu(x=L.Dense(3)(x)), newshape=(-1, 3))


@pytest.mark.parametrize("function", [by_name, training, sums, mixed, reshaped])
def test_arguments_of_calls(function):
    x = keras.Input((4,))
    same(keras.Model(x, L.Dense(2)(function(x))), (4,))


def test_a_mask_is_refused():
    x, mask = keras.Input((4,)), keras.Input((3,))
    y = L.BatchNormalization()(L.Dense(3)(x), mask=mask)
    with pytest.raises(pylrp.UnsupportedLayer, match="mask"):
        pylrp.load(keras.Model([x, mask], L.Dense(2)(y)))


def saved(path, *layers):
    model = keras.Sequential([keras.Input((4,)), *(layers or (L.Dense(3, activation="relu"), L.Dense(2)))])
    model.save(path)
    return model


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:.*HDF5 file.*")
def test_files(tmp_path, ending):
    path = tmp_path / f"net{ending}"
    model = saved(path)
    x = np.ones((1, 4), np.float32)
    wanted = keras.ops.convert_to_numpy(model(x))
    assert np.abs(pylrp.load(path).forward(x) - wanted).max() <= 1e-6
    whole = path.read_bytes()
    for length in (0, 10, 200, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(pylrp.BrokenFile) as caught:
            pylrp.load(path)
        assert caught.value.path == str(path)
    path.write_bytes(whole)
    with pytest.raises(pylrp.BrokenFile, match="max_bytes"):
        pylrp.load(path, max_bytes=40)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("within", [False, True])
@pytest.mark.filterwarnings("ignore:.*HDF5 file.*")
def test_code_in_a_file_is_found_before_keras_reads_it(tmp_path, ending, within, monkeypatch):
    code = L.Lambda(lambda x: x * 2, name="doubled")
    layers = (keras.Sequential([keras.Input((4,)), code]), L.Dense(2)) if within else (code, L.Dense(2))
    path = tmp_path / f"net{ending}"
    saved(path, *layers)
    monkeypatch.setattr(keras.saving, "load_model", None)
    with pytest.raises(pylrp.UnsupportedLayer) as caught:
        pylrp.load(path)
    assert (caught.value.node, caught.value.operator) == ("doubled", "Lambda")


def test_weights_that_lie_elsewhere(tmp_path):

    import h5py

    path, secret = tmp_path / "net.keras", tmp_path / "secret"
    saved(path)
    secret.write_bytes(bytes(range(64)))
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    weights = tmp_path / "w.h5"
    weights.write_bytes(entries["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        group = file["layers/dense/vars"]
        del group["0"]
        group.create_dataset("0", shape=(4, 3), dtype="f4", external=[(str(secret), 0, 48)])
    with zipfile.ZipFile(path, "w") as file:
        for name, data in entries.items():
            file.writestr(name, weights.read_bytes() if name == "model.weights.h5" else data)
    with pytest.raises(pylrp.BrokenFile) as caught:
        pylrp.load(path)
    assert "model.weights.h5" in caught.value.place


@pytest.mark.parametrize("version", ["3.0.0", "3.11.2", "2.15.0"])
def test_versions_that_run_code(version, monkeypatch):
    monkeypatch.setattr(keras, "__version__", version)
    with pytest.raises(ImportError, match=version):
        pylrp.load(keras.Sequential([keras.Input((4,)), L.Dense(2)]))


HOSTILE = {
    "brackets": ({"config.json": "[" * 100_000, "metadata.json": "{}"}, "config.json"),
    "zeros as weights": ({"config.json": "{}", "model.weights.h5": bytes(1 << 26)}, "model.weights.h5"),
    "no HDF5 behind its mark": (
        {"config.json": "{}", "model.weights.h5": b"\x89HDF\r\n\x1a\n" + bytes(500)},
        "model.weights.h5",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_entries_that_are_not_what_they_are_called(tmp_path, case):
    entries, place = HOSTILE[case]
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    with at_most_allocated(32 << 20), pytest.raises(pylrp.BrokenFile) as caught:  # the zeros are not unpacked
        pylrp.load(path)
    assert place in caught.value.place
