"""Plainly named weights from `.npz` and MATLAB files: what is found, which way round, and what is refused.

Files of MATLAB's versions 4 to 7 are written by SciPy and, where it is installed, by Octave; those of 7.3 by h5py as
MATLAB lays them out.
"""

from __future__ import annotations

import re
import sys

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from mat_files import cell, write_73
from matlab.test_octave import octave
from matlab.test_octave import pytestmark as needs_octave
from reference.graph_forward import forward

from pylrp import layers
from pylrp.loaders.plain.arrays import load_mat, load_npz

SIZES = (5, 4, 3, 2)


@pytest.fixture
def net(rng):
    """Weights with a row for each neuron of the next layer, and biases."""
    pairs = list(zip(SIZES[1:], SIZES[:-1], strict=True))
    return [rng.standard_normal(pair) for pair in pairs], [rng.standard_normal(n) for n, _ in pairs]


def named(net, weight="W{}", bias="b{}", first=1, step=1):
    W, b = net
    numbers = range(first, first + step * len(W), step)
    return {weight.format(n): w for n, w in zip(numbers, W, strict=True)} | {
        bias.format(n): v for n, v in zip(numbers, b, strict=True)
    }


def npz(path, **entries):
    np.savez(path / "net.npz", **entries)
    return load_npz(path / "net.npz")


def mat(path, **entries):
    scipy.io.savemat(path / "net.mat", entries)
    return load_mat(path / "net.mat")


def predict(net, x, functions):
    for w, b, function in zip(*net, functions, strict=True):
        x = function(x @ w.T + (0 if b is None else b))
    return x


def relu(x):
    return np.maximum(x, 0)


def same(x):
    return x


def logistic(x):
    return 1 / (1 + np.exp(-x))


def require_equal(graph, net, functions=(relu, relu, same)):
    """Compare the graph's output with the network's, and that with what it would be without biases or activations."""
    x = np.random.default_rng(1).standard_normal((30, net[0][0].shape[1]))
    (output,) = graph.outputs
    found = forward(graph, {"input": x})[output]
    np.testing.assert_allclose(found, predict(net, x, functions), rtol=1e-12, atol=1e-12)


NAMINGS = [
    ("W{}", "b{}", 1),
    ("W{}", "b{}", 0),
    ("w{}", "B{}", 1),
    ("W_{}", "b_{}", 1),
    ("weights{}", "bias{}", 1),
    ("weight_{}", "biases_{}", 0),
    ("Weights_{}", "Bias_{}", 9),
    ("layer{}.weight", "layer{}.bias", 1),
    ("fc{}_w", "fc{}_b", 0),
    ("net.hidden{}.kernel", "net.hidden{}.bias", 1),
    ("{}.weight", "{}.bias", 0),
]


@pytest.mark.parametrize(("weight", "bias", "first"), NAMINGS)
def test_names(tmp_path, net, weight, bias, first):
    if first > 1:
        with pytest.raises(ValueError, match=r"layer 1 is missing: there are Weights_9, Weights_10"):
            npz(tmp_path, **named(net, weight, bias, first))
        return
    graph = npz(tmp_path, **named(net, weight, bias, first))
    require_equal(graph, net)
    assert graph.dtype == np.float64
    assert graph.notes == ("no entry activations: relu assumed between the layers, nothing at the end",)


def test_layers_are_called_as_in_the_file(tmp_path, net):
    def names(**entries):
        return [node.name for node in npz(tmp_path, **entries).nodes if isinstance(node.layer, layers.Dense)]

    assert names(**named(net)) == ["0", "1", "2"]
    assert names(**named(net, "Net.fc{}.weight", "Net.fc{}.bias")) == ["Net.fc1", "Net.fc2", "Net.fc3"]
    assert names(**named(net, "{}.weight", "{}.bias", 0, 2)) == ["0", "2", "4"]


def test_order_is_by_number(tmp_path, rng):
    sizes = [3, 4] * 6
    W = [rng.standard_normal((n, m)) for n, m in zip(sizes[1:], sizes[:-1], strict=True)]
    entries = named((W, [np.zeros(len(w)) for w in W]))
    backwards = dict(sorted(entries.items(), reverse=True))  # W11 comes before W2 as text
    require_equal(npz(tmp_path, **backwards), (W, [None] * len(W)), [relu] * (len(W) - 1) + [same])


def test_the_state_of_a_torch_sequential(tmp_path, net):
    """Numbers count the activations too."""
    for first, step in ((0, 2), (1, 3)):
        require_equal(npz(tmp_path, **named(net, "net.{}.weight", "net.{}.bias", first, step)), net)
    W, b = net
    mixed = {"0.weight": W[0], "2.weight": W[1], "3.weight": W[2], "0.bias": b[0], "2.bias": b[1], "3.bias": b[2]}
    with pytest.raises(ValueError, match=r"0\.weight, 2\.weight, 3\.weight there are modules, between others none"):
        npz(tmp_path, **mixed)
    graph = npz(tmp_path, **mixed, activations=np.array(["relu", "none", "none"]))
    require_equal(graph, net, (relu, same, same))


def test_missing_biases(tmp_path, net):
    W, b = net
    require_equal(npz(tmp_path, W1=W[0], W2=W[1], W3=W[2], b2=b[1]), (W, [None, b[1], None]))
    require_equal(mat(tmp_path, W1=W[0], W2=W[1], W3=W[2], b2=b[1]), (W, [None, b[1], None]))


def test_one_layer(tmp_path, net):
    W, b = net
    graph = npz(tmp_path, W=W[0], b=b[0])
    require_equal(graph, (W[:1], b[:1]), (same,))
    assert graph.notes == ()
    require_equal(npz(tmp_path, weights=W[0].T, bias=b[0]), (W[:1], b[:1]), (same,))


@pytest.mark.parametrize("shape", [(-1,), (1, -1), (-1, 1)])
def test_shapes_of_biases(tmp_path, net, shape):
    W, b = net
    entries = named((W, [v.reshape(shape) for v in b]))
    require_equal(npz(tmp_path, **entries), net)
    require_equal(mat(tmp_path, **entries), net)


def test_transposed(tmp_path, net):
    graph = npz(tmp_path, **named(([w.T for w in net[0]], net[1])))
    require_equal(graph, net)
    assert "weights transposed: the file has a column for each neuron of the next layer" in graph.notes


def test_a_bias_tells_which_way_round(tmp_path, rng):
    W, b = rng.standard_normal((4, 3)), rng.standard_normal(4)
    require_equal(npz(tmp_path, W1=W.T, b1=b), ([W], [b]), (same,))
    assert npz(tmp_path, W1=W.T).inputs == {"input": (4,)}  # without one, rows are taken as neurons


def test_square_weights_are_taken_as_they_are(tmp_path, rng):
    W = [rng.standard_normal((3, 3)) for _ in range(2)]
    graph = npz(tmp_path, W1=W[0], W2=W[1])
    require_equal(graph, (W, [None, None]), (relu, same))
    assert "the weights fit both ways round: read with a row for each neuron of the next layer" in graph.notes


def test_shapes_that_do_not_fit(tmp_path, net):
    W, b = net
    message = (
        "the shapes fit neither with a row nor with a column for each neuron of the next layer: "
        "W1 (4, 5), W2 (4, 3), W3 (2, 3), b1 (4,), b2 (3,), b3 (2,)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        npz(tmp_path, **named(([W[0], W[1].T, W[2]], b)))
    with pytest.raises(ValueError, match="fit neither"):
        npz(tmp_path, **named((W, [b[0], b[1][:-1], b[2]])))


ACTIVATIONS = [
    (np.array("tanh"), (np.tanh, np.tanh, same)),
    (np.array(["tanh"] * 2), (np.tanh, np.tanh, same)),
    (np.array(["sigmoid", "ReLU", "linear"]), (logistic, relu, same)),
    (np.array([["logistic"], ["none"], ["Tanh"]]), (logistic, same, np.tanh)),
    (np.array("purelin"), (same, same, same)),
]


@pytest.mark.parametrize(("given", "functions"), ACTIVATIONS)
def test_activations(tmp_path, net, given, functions):
    graph = npz(tmp_path, **named(net), activations=given)
    require_equal(graph, net, functions)
    assert graph.notes == ()
    cells = given if given.ndim == 0 else given.ravel().astype(object)
    require_equal(mat(tmp_path, **named(net), Activations=cells), net, functions)


def test_matlab_names_of_activations(tmp_path, net):
    cells = np.array(["tansig", "logsig", "poslin"], object)
    require_equal(mat(tmp_path, **named(net), activation=cells), net, (np.tanh, logistic, relu))
    rows = np.array(["poslin ", "tansig ", "purelin"])  # a character array
    require_equal(mat(tmp_path, **named(net), activations=rows), net, (relu, np.tanh, same))


def test_a_softmax_at_the_end_is_kept_for_canonise_to_remove(tmp_path, net):
    graph = npz(tmp_path, **named(net), activations=np.array(["relu", "leaky_relu", "softmax"]))
    assert isinstance(graph.nodes[-1].layer, layers.Softmax)
    assert graph.nodes[3].layer == layers.LeakyReLU(0.01)


WRONG_ACTIVATIONS = {
    "unknown": (np.array("swoosh"), "unknown activation 'swoosh'; choose one of identity, "),
    "count": (np.array(["relu"] * 4), "activations has 4 names, there are 3 layers"),
    "numbers": (np.array([1.0, 2.0]), "activations must be a string, or a string for each layer"),
}


@pytest.mark.parametrize("case", WRONG_ACTIVATIONS)
def test_wrong_activations(tmp_path, net, case):
    given, message = WRONG_ACTIVATIONS[case]
    with pytest.raises(ValueError, match=message):
        npz(tmp_path, **named(net), activations=given)


def test_other_entries_are_named(tmp_path, net):
    graph = npz(tmp_path, **named(net), X_test=np.zeros((2, 2)), accuracy=0.9)
    require_equal(graph, net)
    assert "entries not read: X_test, accuracy" in graph.notes


REFUSED = {
    "nothing": ({"x": np.zeros(3), "y": np.zeros(2)}, ValueError, "no weights among x, y: name them W1, b1, W2, b2"),
    "unnamed": ({"arr_0": np.zeros((2, 2))}, ValueError, "no weights among arr_0"),
    "gap": ({"W1": np.zeros((2, 2)), "W3": np.zeros((2, 2))}, ValueError, "layer 2 is missing: there are W1, W3"),
    "gap of names": (
        {"fc1.weight": np.zeros((2, 2)), "fc3.weight": np.zeros((2, 2))},
        ValueError,
        "layer 2 is missing: there are fc1.weight, fc3.weight",
    ),
    "bias alone": (
        {"W1": np.zeros((2, 2)), "b2": np.zeros(2)},
        ValueError,
        "b2 has no weights beside it: there are W1",
    ),
    "twice": ({"W1": np.zeros((2, 2)), "w1": np.zeros((2, 2))}, ValueError, "W1 and w1 both mean layer 1"),
    "two namings": (
        {"a1.weight": np.zeros((2, 2)), "b2.weight": np.zeros((2, 2))},
        ValueError,
        "a1.weight and b2.weight are named in different ways",
    ),
    "conv": ({"W1": np.zeros((8, 3, 3, 3))}, ValueError, r"W1 has shape \(8, 3, 3, 3\); only dense layers"),
    "vector": ({"W1": np.zeros(8)}, ValueError, r"W1 has shape \(8,\); only dense layers"),
    "bias matrix": ({"W1": np.zeros((4, 2)), "b1": np.zeros((2, 2))}, ValueError, r"b1 has shape \(2, 2\), expected"),
    "mixed": (
        {"W1": np.zeros((2, 2), np.float32), "b1": np.zeros(2)},
        TypeError,
        "must all be float32 or all float64: W1 float32, b1 float64",
    ),
    "half": (
        {"W1": np.zeros((2, 2), np.float16), "b1": np.zeros(2)},
        TypeError,
        "must all be float32 or all float64: W1 float16, b1 float64",
    ),
    "complex": ({"W1": np.zeros((2, 2), complex)}, TypeError, "W1 is no array of numbers but complex128"),
    "text": ({"W1": np.array("relu")}, TypeError, "W1 is no array of numbers but str"),
    "infinite": ({"W1": np.full((2, 2), np.inf)}, ValueError, "weight is not finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(tmp_path, case):
    entries, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message) as caught:
        npz(tmp_path, **entries)
    assert str(caught.value).startswith(f"{tmp_path / 'net.npz'}: ")


def test_weights_in_float16(tmp_path, rng):
    w, b = rng.normal(size=(3, 4)).astype(np.float16), rng.normal(size=3).astype(np.float32)
    graph = npz(tmp_path, W1=w, b1=b)
    assert graph.dtype == np.float32
    require_equal(graph, ([w.astype(float)], [b]), (same,))
    assert "float16 weights converted to float32" in graph.notes


def test_objects_are_not_unpickled(tmp_path, net):
    graph = npz(tmp_path, **named(net), history=np.array([{"loss": 1}], object))
    require_equal(graph, net)
    assert "entries not read: history" in graph.notes
    with pytest.raises(TypeError, match="W1 is no array of numbers but NoneType"):
        npz(tmp_path, W1=np.array([np.zeros((2, 2)), None], object))


def test_no_npz(tmp_path):
    np.save(tmp_path / "net.npy", np.zeros(3))
    with pytest.raises(ValueError, match="holds a single array without a name: write it with"):
        load_npz(tmp_path / "net.npy")
    (tmp_path / "net.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"net\.npz is no readable \.npz file"):
        load_npz(tmp_path / "net.npz")
    with pytest.raises(FileNotFoundError):
        load_npz(tmp_path / "other.npz")


def test_whole_numbers(tmp_path, rng):
    W = [rng.integers(-3, 4, (4, 5)), rng.integers(-3, 4, (2, 4))]
    graph = npz(tmp_path, W1=W[0], W2=W[1].astype(np.int8))
    require_equal(graph, (W, [None, None]), (relu, same))
    assert "whole numbers converted to float64: W1, W2" in graph.notes
    graph = npz(tmp_path, W1=W[0], W2=W[1].astype(np.float32))
    assert graph.dtype == np.float32
    assert "whole numbers converted to float32: W1" in graph.notes


def test_float32_and_other_byte_orders(tmp_path, net):
    for dtype in (np.float32, ">f4", ">f8"):
        entries = {name: array.astype(dtype) for name, array in named(net).items()}
        graph = npz(tmp_path, **entries)
        assert graph.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(graph.nodes[0].layer.weight, entries["W1"])
    single = mat(tmp_path, **{name: array.astype(np.float32) for name, array in named(net).items()})
    assert single.dtype == np.float32


def mat73(path, **entries):
    is_cell = {name: getattr(value, "dtype", None) == np.dtype(object) for name, value in entries.items()}
    write_73(path / "net.mat", {name: list(v[0]) if is_cell[name] else v for name, v in entries.items()})
    return load_mat(path / "net.mat")


@pytest.mark.parametrize("write", [mat, pytest.param(mat73, marks=pytest.mark.slow)])
def test_matlab(tmp_path, net, write):
    require_equal(write(tmp_path, **named(net)), net)
    W, b = net
    columns = [v.reshape(-1, 1) for v in b]
    require_equal(write(tmp_path, W=cell(W), b=cell(columns), activations="tansig"), net, (np.tanh, np.tanh, same))
    require_equal(write(tmp_path, weights=cell([w.T for w in W]), biases=cell(b)), net)
    require_equal(
        write(tmp_path, W=cell(W), b=cell([columns[0], np.zeros((0, 0)), columns[2]])), (W, [b[0], None, b[2]])
    )
    graph = write(tmp_path, net={"W1": W[0], "W2": W[1], "b1": b[0], "b2": b[1], "trained": "today"}, other=1.0)
    require_equal(graph, (W[:2], b[:2]), (relu, same))
    assert "entries not read: other, trained" in graph.notes
    whole = write(tmp_path, W1=np.array([[1, 2], [3, 4]], np.int32))
    assert "whole numbers converted to float64: W1" in whole.notes


def test_matlab_cells_of_strings_in_73(tmp_path, net):
    activations = np.array([["relu", "logsig", "purelin"]], object)
    require_equal(mat73(tmp_path, **named(net), activations=activations), net, (relu, logistic, same))


@pytest.mark.parametrize("write", [mat, pytest.param(mat73, marks=pytest.mark.slow)])
def test_matlab_shapes_that_do_not_fit(tmp_path, net, write):
    W, _ = net
    with pytest.raises(ValueError, match=re.escape("W{1} (4, 5), W{2} (2, 3)")):
        write(tmp_path, W=cell([W[0], W[2]]))


def test_sparse_matlab_matrices(tmp_path, net):
    W, b = net
    require_equal(
        mat(tmp_path, W1=scipy.sparse.csc_matrix(W[0]), W2=W[1], b1=b[0]), (W[:2], [b[0], None]), (relu, same)
    )


def test_matlab_version_4(tmp_path, net):
    scipy.io.savemat(tmp_path / "net.mat", named(net), format="4")
    require_equal(load_mat(tmp_path / "net.mat"), net)


@pytest.mark.parametrize(("write", "package"), [(mat, "scipy.io"), (mat73, "h5py")])
def test_without_a_package(tmp_path, monkeypatch, write, package):
    write(tmp_path, W=np.eye(2))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"^reading \.mat .*needs .*: pip install (scipy|h5py)$"):
        load_mat(tmp_path / "net.mat")


def test_no_matlab_file(tmp_path):
    path = tmp_path / "net.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"junk" * 100)
    with pytest.raises(ValueError, match=r"net\.mat can't be read as a MATLAB file"):
        load_mat(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + b"junk" * 100)
    with pytest.raises(ValueError, match=r"net\.mat can't be read as a MATLAB file"):
        load_mat(path)
    with h5py.File(path, "w") as file:
        file["W1"] = np.zeros((2, 2))
    with pytest.raises(ValueError, match="is HDF5 but not MATLAB's: save it in MATLAB or"):
        load_mat(path)
    with pytest.raises(FileNotFoundError):
        load_mat(tmp_path / "other.mat")


@pytest.mark.slow
@needs_octave
@pytest.mark.parametrize("flag", ["-v4", "-v6", "-v7"])
def test_files_written_by_octave(tmp_path, net, flag):
    W, b = net
    for i, (w, v) in enumerate(zip(W, b, strict=True), start=1):
        np.savetxt(tmp_path / f"W{i}.txt", w, fmt="%.17g")
        np.savetxt(tmp_path / f"b{i}.txt", v, fmt="%.17g")
    read = "for i = 1:3, W{i} = load(sprintf('W%d.txt', i)); b{i} = load(sprintf('b%d.txt', i)); end\n"
    plain = "W1 = W{1}; W2 = W{2}; W3 = W{3}; b1 = b{1}; b2 = b{2}; b3 = b{3};\n"
    octave(read + plain + f"save('{flag}', 'net.mat', 'W1', 'W2', 'W3', 'b1', 'b2', 'b3');", tmp_path)
    require_equal(load_mat(tmp_path / "net.mat"), net)
    if flag != "-v4":
        cells = "activations = {'tansig', 'poslin', 'purelin'}; s.W = W; s.b = b; s.activations = activations;\n"
        octave(read + cells + f"save('{flag}', 'net.mat', 'W', 'b', 'activations');", tmp_path)
        require_equal(load_mat(tmp_path / "net.mat"), net, (np.tanh, relu, same))
        octave(read + cells + f"save('{flag}', 'net.mat', 's');", tmp_path)
        require_equal(load_mat(tmp_path / "net.mat"), net, (np.tanh, relu, same))


@needs_octave
@pytest.mark.parametrize("flag", ["-text", "-binary", "-hdf5"])
def test_octaves_own_formats_are_refused(tmp_path, flag):
    octave(f"W1 = eye(2); save('{flag}', 'net.mat', 'W1');", tmp_path)
    with pytest.raises(ValueError, match="MATLAB or Octave with save"):
        load_mat(tmp_path / "net.mat")
