"""Networks whose weights stay in the file: mapped, aligned, equal bits, and still an ordinary .npz."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

import pylrp
from pylrp.layers import Conv, Dense, Flatten, ReLU


def network(dtype=np.float32):
    rng = np.random.default_rng(0)
    conv = Conv(rng.normal(size=(4, 2, 3, 3)).astype(dtype), rng.normal(size=4).astype(dtype))
    return pylrp.Network(
        [conv, ReLU(), Flatten(), Dense(rng.normal(size=(3, 36)).astype(dtype))], input_shape=(2, 5, 5)
    )


def weights(net):
    return [getattr(node.layer, name) for node in net.graph.nodes for name in node.layer.arrays]


def memory(array):
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return type(getattr(array, "obj", array)).__name__


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_are_the_file(tmp_path, dtype):
    net, path = network(dtype), tmp_path / "net.pylrp.npz"
    net.save(path)
    mapped, read = pylrp.load(path, mapped=True), pylrp.load(path)
    x = np.random.default_rng(1).normal(size=(3, 2, 5, 5)).astype(dtype)
    for other in (mapped, read):
        assert other.explain(x).relevance.tobytes() == net.explain(x).relevance.tobytes()
    for array in weights(mapped):
        if array is not None:
            assert memory(array) == "mmap"
            assert array.ctypes.data % 64 == 0
            assert not array.flags.writeable
    assert all(memory(array) != "mmap" for array in weights(read) if array is not None)


def test_the_file_is_an_ordinary_npz(tmp_path):
    net, path = network(), tmp_path / "net.pylrp.npz"
    net.save(path)
    assert zipfile.ZipFile(path).testzip() is None
    with np.load(path) as file:
        saved = {name: file[name] for name in file.files}
    found = [array for array in weights(net) if array is not None]
    flat = [np.sort(other, axis=None) for other in saved.values()]  # kernels lie as the core reads them
    assert all(any(np.array_equal(np.sort(array, axis=None), other) for other in flat) for array in found)
    np.savez_compressed(path, **saved)  # nothing to map in it: it is read
    again = pylrp.load(path, mapped=True)
    x = np.ones((1, 2, 5, 5), np.float32)
    assert again.explain(x).relevance.tobytes() == net.explain(x).relevance.tobytes()


def test_a_file_cut_short_or_altered_is_broken(tmp_path):
    path = tmp_path / "net.pylrp.npz"
    network().save(path)
    data = path.read_bytes()
    for wrong in (data[:100], data[: len(data) // 2], data[:-30], b""):
        path.write_bytes(wrong)
        with pytest.raises((pylrp.BrokenFile, pylrp.errors.UnknownOption)):
            pylrp.load(path, mapped=True)
    with pytest.raises(TypeError):
        pylrp.load([Dense(np.eye(2))], mapped=True)
