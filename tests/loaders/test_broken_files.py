"""Files that are broken, or ask for more than they may: one exception with the place, nothing allocated before."""

import json
import os
import pickle
import struct
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from allocated import at_most_allocated

import pylrp
from pylrp import layers as L
from pylrp._limits import TooLarge, at_most
from pylrp.errors import BrokenNode
from pylrp.loaders.plain.npz_file import NpzFile
from pylrp.network.graph import Graph, Node
from pylrp.present.text import shown

DIGITS = Path(pylrp.__file__).parent / "data/mnist_784_300_10.npz"


def npy(shape, data=b"", kind="<f8"):
    """Return an .npy that declares a shape, whatever its data."""
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + head.encode() + data


def zipped(path, **entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(f"{name}.npy", data)
    return path


def test_the_exception():
    error = pylrp.BrokenFile(Path("net\x1b.npz"), "entry 'W1'", "can't be read")
    assert (error.path, error.place, error.reason) == ("net\x1b.npz", "entry 'W1'", "can't be read")
    assert isinstance(error, ValueError)
    assert "\x1b" not in str(error)
    node = BrokenNode("conv", "Conv", "has no input 1", "mend it", "net.onnx")
    assert isinstance(node, pylrp.UnsupportedLayer)
    for one in (error, node):
        again = pickle.loads(pickle.dumps(one))
        assert (type(again), str(again), again.path, again.place) == (type(one), str(one), one.path, one.place)


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        (npy((2, 4), bytes(60)), "entry 'W1'"),  # cut short
        (npy((2**40, 2**40)), "entry 'W1'"),
        (npy((2**31, 2**31, 2**31)), "entry 'W1'"),
        (npy((-2, 4), bytes(64)), "entry 'W1'"),
        (npy((2, 4), bytes(64))[:30], "entry 'W1'"),
        (npy("(2, 4", bytes(64)), "entry 'W1'"),
        (b"no array", "entry 'W1'"),
    ],
)
def test_entries_of_an_npz(tmp_path, entry, place):
    path = zipped(tmp_path / "net.npz", W1=entry, W2=npy((1, 2), bytes(16)))
    with pytest.raises(pylrp.BrokenFile) as caught:
        pylrp.load(path)
    assert (caught.value.path, caught.value.place) == (str(path), place)


ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
    np.arange(6, dtype=">f4").reshape(3, 2),
    np.array(7, np.int16),
    np.ones(5, bool),
    np.array(["relu", "tanh"]),
    np.zeros((0, 3)),
    np.zeros(2, [("a", "f4")]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: array.dtype.str + str(array.shape))
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_arrays_of_an_npz_as_numpy_reads_them(tmp_path, array, version):
    with zipfile.ZipFile(tmp_path / "net.npz", "w") as file, file.open("W.npy", "w") as member:
        np.lib.format.write_array(member, array, version)
    with NpzFile(tmp_path / "net.npz") as file:
        found = file.read("W")
    with np.load(tmp_path / "net.npz") as file:
        wanted = file["W"]
    np.testing.assert_array_equal(found, wanted, strict=True)
    assert found.flags.f_contiguous == wanted.flags.f_contiguous


@pytest.mark.parametrize("bit", ["encrypted", "compression"])
def test_zip_files_of_other_kinds(tmp_path, bit):
    path = zipped(tmp_path / "net.npz", W1=npy((2, 4), bytes(64)))
    data = bytearray(path.read_bytes())
    for head, flags, method in ((b"PK\3\4", 6, 8), (b"PK\1\2", 8, 10)):
        at = data.find(head)
        if bit == "encrypted":
            data[at + flags] |= 1
        else:
            data[at + method] = 99
    path.write_bytes(data)
    with pytest.raises(pylrp.BrokenFile) as caught:
        pylrp.load(path)
    assert caught.value.place == "entry 'W1'"


def test_entries_before_the_begin_of_a_zip_file(tmp_path):
    path = zipped(tmp_path / "net.npz", W1=npy((2, 4), bytes(64)))
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\5\6") + 16] += 1  # so the entry begins at -1
    path.write_bytes(data)
    with pytest.raises(pylrp.BrokenFile) as caught:
        pylrp.load(path)
    assert caught.value.place == "entry 'W1'"


@pytest.mark.slow
def test_what_is_no_weight_is_not_unpacked(tmp_path, monkeypatch):
    zeros = npy((32 << 17,), bytes(32 << 20))
    path = zipped(tmp_path / "net.npz", W1=npy((2, 4), bytes(64)), **{f"junk{i}": zeros for i in range(8)})
    read, take = [], zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda *args: read.append(take(*args)) or read[-1])
    with at_most_allocated(16 << 20):
        assert "junk7" in pylrp.load(path).notes[-1]  # entries not read
    assert 64 <= sum(map(len, read)) < 1 << 20


def test_a_gap_that_is_long(tmp_path):
    np.savez(tmp_path / "net.npz", W1=np.eye(4), W99999999999=np.eye(4))
    begin = time.process_time()
    with pytest.raises(ValueError, match="layer 2 is missing"):
        pylrp.load(tmp_path / "net.npz")
    assert time.process_time() - begin < 0.5


def test_max_bytes():
    size = 784 * 300 * 4
    with pytest.raises(pylrp.BrokenFile, match="max_bytes"):
        pylrp.load(DIGITS, max_bytes=size)
    assert pylrp.load(DIGITS, max_bytes=2 * size).output_size == 10
    for wrong in (0, -1, 1.5, True, "4 GiB"):
        with pytest.raises(ValueError, match="max_bytes"):
            pylrp.load(DIGITS, max_bytes=wrong)


GOOD = {
    "version": 1,
    "inputs": [["input", [4]]],
    "outputs": ["d"],
    "channels_last": [],
    "notes": [],
    "dtype": "float64",
    "layers": [{"kind": "Dense", "fields": {"weight": ["array", "w"], "bias": None, "name": None}}],
    "nodes": [["d", 0, ["input"]]],
}


def layer(kind, shape=(4,), **fields):
    return {"inputs": [["input", list(shape)]], "layers": [{"kind": kind, "fields": fields}]}


CHANGES = {
    "fields a list": {"layers": [{"kind": "Dense", "fields": [1]}]},
    "fields null": {"layers": [{"kind": "Dense", "fields": None}]},
    "kind a list": {"layers": [{"kind": [1], "fields": {}}]},
    "layers a number": {"layers": 3},
    "infinite size": {"inputs": [["input", [float("inf")]]]},
    "a size of 2^70": {"inputs": [["input", [2**70]]]},
    "a name that is a number": {"nodes": [[7, 0, ["input"]]], "outputs": [7]},
    "a slope of 10^400": layer("LeakyReLU", slope=10**400),
    "a scale of 10^400": layer("Affine", scale=10**400, shift=0),
    "a size of 2^70 in a layer": layer("LocalResponseNorm", (4, 2, 2), size=2**70, alpha=1.0, beta=1.0, bias=1.0),
    "a size of 2^62": layer("LocalResponseNorm", (4, 2, 2), size=2**62, alpha=1.0, beta=1.0, bias=1.0),
    "a size of 0": layer("LocalResponseNorm", (4, 2, 2), size=0, alpha=1.0, beta=1.0, bias=1.0),
    "5,000 axes": layer("Reshape", shape=["tuple", [1] * 4999 + [4]]),
    "32 axes": layer("Expand", shape=["tuple", [1] * 31 + [4]]),
    "a pad of 2^40": layer("Pad", widths=["tuple", [["tuple", [2**40, 0]]]], mode="constant", value=0.0),
    "dtype of objects": {"dtype": "object"},
    "a name that is an axis": layer("Softmax", axis="a"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_descriptions_of_networks(tmp_path, case):
    path = tmp_path / "net.pylrp.npz"
    text = np.frombuffer(json.dumps({**GOOD, **CHANGES[case]}).encode(), np.uint8)
    np.savez(path, **{"pylrp.json": text}, w=np.ones((3, 4)))
    with pytest.raises((pylrp.BrokenFile, pylrp.UnsupportedLayer)):
        pylrp.load(path)


@pytest.mark.parametrize("axes", [31, 5000])
def test_more_axes_than_numpy_has(axes):
    Graph({"x": (4,)}, [Node("y", L.Reshape((4, *(1,) * 29)), ("x",))], ["y"])
    nodes = [Node("y", L.ReLU(), ("x",)), Node("z", L.Reshape((4, *(1,) * (axes - 1))), ("y",))]
    with pytest.raises(BrokenNode) as caught:
        Graph({"x": (4,)}, nodes, ["z"])
    assert (caught.value.node, caught.value.operator) == ("z", "Reshape")


def test_deep_descriptions(tmp_path):
    path = tmp_path / "net.pylrp.npz"
    np.savez(path, **{"pylrp.json": np.frombuffer(b"[" * 200_000, np.uint8)})
    with pytest.raises(pylrp.BrokenFile) as caught:
        pylrp.load(path)
    assert "pylrp.json" in caught.value.place


SIZES = {
    "conv": L.Conv(np.ones((1, 2, 1, 1)), padding=2**30 - 1),
    "conv transpose": L.ConvTranspose(np.ones((2, 1, 1, 1)), stride=2**20),
    "pad": L.Pad([(0, 0), (2**40, 0), (0, 0)]),
    "mirrored pad": L.Pad([(0, 0), (2**40, 0), (0, 0)], mode="reflect"),
    "expand": L.Expand((2**40, 2, 4, 4)),
    "upsample": L.Upsample(2**20),
    "resize": L.Resize(scales=(1e6, 1e6)),
    "resize by size": L.Resize(size=(2**20, 2**20), mode="linear"),
    "adaptive pool": L.AdaptiveAveragePool(2**40),
    "max pool": L.MaxPool(2**31, stride=1, padding=2**31 - 1),
    "take": L.Take(np.zeros(2**15, np.int64), axis=1),
}


@pytest.mark.parametrize("case", SIZES)
def test_sizes_are_looked_at_before_anything_is_allocated(case):
    with at_most_allocated(1 << 20), at_most(1 << 20), pytest.raises(TooLarge):
        Graph.sequential([SIZES[case]], (2, 4, 4))


@pytest.mark.parametrize(
    "layer", [L.Take(np.zeros(1000, np.int64)), L.Expand((1000, 100)), L.Pad([(0, 998), (0, 0)]), L.Upsample(500)]
)
def test_tables_of_moved_values_count(layer):
    """100,000 values of 4 bytes would fit; with 8 more in tables they do not."""
    shape = (1, 100) if isinstance(layer, L.Expand) else (2, 100)
    with at_most(1_000_000):
        pylrp.Network([layer], shape)
    with at_most(700_000):
        Graph.sequential([layer], shape)
        with pytest.raises(TooLarge):
            pylrp.Network([layer], shape)


def test_all_values_count_together():
    nodes = [Node(f"n{i}", L.ReLU(), ("x" if i == 0 else f"n{i - 1}",)) for i in range(8)]
    with at_most(9 * 4000):
        Graph({"x": (1000,)}, nodes, ["n7"])
    with at_most(9 * 4000 - 1), pytest.raises(TooLarge):
        Graph({"x": (1000,)}, nodes, ["n7"])


STRIDES = {
    "stride": (L.Conv(np.ones((2, 2, 1, 1)), stride=1_000_000), (2, 4, 4)),
    "stride of a kernel": (L.Conv(np.ones((2, 2, 3, 3)), stride=2**60), (2, 4, 4)),
    "dilation of one tap": (L.Conv(np.ones((2, 2, 1, 1)), dilation=2**60), (2, 4, 4)),
    "dilation": (L.Conv(np.ones((2, 2, 3, 3)), dilation=2**20, padding=2**20), (2, 4, 4)),
    "pool": (L.MaxPool(1, stride=2**60), (2, 4, 4)),
    "average": (L.AveragePool(3, stride=1, dilation=2**20, padding=2**20), (2, 4, 4)),
}


@pytest.mark.parametrize("case", STRIDES)
def test_strides_and_dilations_far_beyond_the_input(case):
    layer, shape = STRIDES[case]
    x = np.random.default_rng(0).standard_normal((1, *shape))
    begin = time.process_time()
    ex = pylrp.Network([layer, L.Flatten()], shape).explain(x, np.ones((1, *_flat(layer, shape))), "epsilon")
    assert time.process_time() - begin < 1
    near = {"stride": 5, "stride of a kernel": 5, "dilation of one tap": 1, "dilation": 4, "pool": 5, "average": 4}[
        case
    ]
    kind = type(layer)
    if kind is L.Conv:
        pads = 4 if case == "dilation" else 0
        twin = L.Conv(layer.weight, **{case.split()[0]: near}, padding=pads)
    else:
        twin = L.MaxPool(1, stride=5) if kind is L.MaxPool else L.AveragePool(3, stride=1, dilation=4, padding=4)
    wanted = pylrp.Network([twin, L.Flatten()], shape).explain(x, np.ones((1, *_flat(twin, shape))), "epsilon")
    assert np.abs(ex.output - wanted.output).max() <= 1e-12
    assert np.abs(ex.relevance - wanted.relevance).max() <= 1e-12


def _flat(layer, shape):
    return (int(np.prod(layer.output_shape(shape))),)


def test_strides_that_the_core_would_walk_for_ever():
    with pytest.raises(pylrp.UnsupportedLayer):
        pylrp.Network([L.Conv(np.ones((2, 2, 3, 3)), stride=2**20, padding=2**20)], (2, 4, 4))


@pytest.mark.slow
def test_nodes_in_reverse_order():
    nodes = [Node(f"n{i}", L.ReLU(), ("x" if i == 0 else f"n{i - 1}",)) for i in range(20_000)]
    begin = time.process_time()
    graph = Graph({"x": (2,)}, nodes[::-1], ["n19999"])
    assert time.process_time() - begin < 2
    assert [node.name for node in graph.nodes] == [node.name for node in nodes]


def test_pipes_and_folders(tmp_path):
    os.mkfifo(tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="pipe"):
        pylrp.load(tmp_path / "net.onnx")
    (tmp_path / "net.npz").mkdir()
    with pytest.raises(ValueError, match="folder"):
        pylrp.load(tmp_path / "net.npz")


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07", "a\u202eb", "\udcffname", "line\nline", "\x9b2J"])
def test_names_are_shown_harmlessly(text):
    said = shown(text)
    assert said.isprintable()
    said.encode()
    assert shown(said) == said
    graph = Graph({text: (2,)}, [Node(f"{text}1", L.ReLU(), (text,))], [f"{text}1"], notes=[text])
    assert list(graph.inputs) == [said]
    assert (graph.nodes[0].name, graph.nodes[0].inputs, list(graph.outputs)) == (f"{said}1", (said,), [f"{said}1"])
    net = pylrp.Network.from_graph(graph)
    assert net.summary().replace("\n", "").isprintable()


def test_names_that_are_fine_stay():
    for text in ("conv1", "/block/Add", "größe 1", "層", "a\u00a0b", "🙂"):
        assert shown(text) == text


if sys.platform == "linux":

    def test_a_device_is_no_file(tmp_path):
        (tmp_path / "zero.onnx").symlink_to("/dev/zero")
        with pytest.raises(ValueError, match="device"):
            pylrp.load(tmp_path / "zero.onnx")


def cpu_time(f):
    begin = time.process_time()
    f()
    return time.process_time() - begin


def test_pads_far_wider_than_the_input():
    assert cpu_time(lambda: pylrp.Network([L.Pad([(0, 0), (2000, 2000), (2000, 2000)], "reflect")], (1, 4, 4))) < 2


@pytest.mark.slow
def test_thousands_of_layers(tmp_path, monkeypatch):
    zipped(tmp_path / "net.npz", **{f"W{i}": npy((1, 1), bytes(8)) for i in range(1, 4001)})
    built, build = [], Graph._build
    monkeypatch.setattr(Graph, "_build", lambda *args: built.append(1) or build(*args))
    assert cpu_time(lambda: pylrp.load(tmp_path / "net.npz").explain(np.zeros((1, 1)))) < 2
    assert len(built) == 1  # not once more for its notes, nor where there is nothing to simplify


def test_max_bytes_of_a_graph():
    graph = Graph.sequential([L.ReLU()], (1000,))
    pylrp.load(graph, max_bytes=8000)
    with pytest.raises(TooLarge):
        pylrp.load(graph, max_bytes=7999)
