"""pylrp's own file: what is saved comes back equal to the last bit, and shared where it was shared."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from reference.graph_forward import forward

from pylrp import Network
from pylrp import layers as L
from pylrp.errors import BrokenFile
from pylrp.loaders.plain import native
from pylrp.loaders.plain.native import is_native, load_graph, save_graph
from pylrp.network.graph import Graph, Node


def examples(rng, dtype=np.float32):
    """At least one of every layer, with settings of their own; (layer, logical shape of its inputs...)."""

    def some(*shape):
        return rng.standard_normal(shape).astype(dtype)

    image, signal = (4, 6, 5), (4, 9)
    return [
        (L.Dense(some(3, 5), some(3), name="dense"), (5,)),
        (L.Dense(some(3, 5)), (5,)),
        (L.Conv(some(6, 2, 3, 2), some(6), stride=(2, 1), padding=((1, 0), (0, 2)), groups=2), image),
        (L.Conv(some(3, 4, 3), padding="same_lower", dilation=2, name="conv"), signal),
        (L.PositionwiseDense(some(3, 4, 1), some(3)), signal),
        (L.ConvTranspose(some(4, 3, 2, 3), stride=2, padding=1, output_padding=(1, 0)), image),
        (L.BatchNorm(some(4), some(4), some(4), some(4) ** 2, 0.1), image),
        (L.Affine(some(4, 1, 1), 0.3), image),
        (L.Affine(2.0, some(6, 5), name="affine"), image),
        (L.MaxPool((2, 3), stride=1, padding=1, ceil_mode=True), image),
        (L.AveragePool(3, padding="same_upper", count_include_pad=True), image),
        (L.GlobalAveragePool(), image),
        (L.GlobalMaxPool(), signal),
        (L.AdaptiveAveragePool((3, None)), image),
        (L.AdaptiveMaxPool(2), image),
        (L.Add(), image, image),
        (L.Concat(-1), signal, signal),
        (L.Multiply(), image, (4, 1, 1)),
        (L.Multiply(1, soft=True), (1, 9), signal),
        (L.Divide(), signal, (4, 1)),
        (L.Flatten(1), image),
        (L.Reshape((-1, 6)), image),
        (L.Transpose((2, 0, 1)), image),
        (L.Pad(((0, 0), (1, -2), (2, 0)), value=-0.0), image),
        (L.Pad(((0, 0), (1, 2)), mode="reflect"), signal),
        (L.Slice((1, -1), (3, -99), (0, 1), (1, -2)), signal),
        (L.Take(np.array([[0, 2], [1, 1]]), 1), signal),
        (L.Expand((3, 4, 9)), signal),
        (L.Upsample((2, 3)), image),
        (L.DepthToSpace(2), image),
        (L.SpaceToDepth(2), (2, 4, 6)),
        (L.ChannelShuffle(2), image),
        (L.Resize(scales=(1.5, 1 / 3), mode="linear", coordinates="align_corners"), image),
        (L.Resize((7,), nearest="floor"), signal),
        (L.Clip(-0.1, 6.0), image),
        (L.Clip(high=0.7), image),
        (L.LeakyReLU(1 / 3), image),
        (L.ELU(0.1), image),
        (L.GELU(True), image),
        (L.HardSigmoid(0.2, 0.1), image),
        (L.PReLU(some(4)), image),
        (L.Quantize(np.abs(some(4, 1, 1)) + 0.1, -3.0, 5.0), image),
        (L.DynamicQuantize(7.0), image),
        (L.Softmax(-1), image),
        (L.LogSoftmax(), image),
        (L.LocalResponseNorm(3, 1e-3, 0.5, 2.0), image),
        (L.Function("where(x > 0, c0 * x, -0.1)", some(1, 4, 1, 1)), image),
        (L.Function("x * sigmoid(1.702 * x)", name="quick"), image),
        (L.MatMul(0.5), (4, 2, 3), (4, 3, 5)),
        (L.Shift(some(4, 1, 1)), image),
        (L.ShiftBy(), image, image),
        (L.ScaleBy(), image, image),
        *[(kind(), image) for kind in (L.Identity, L.Dropout, L.ReLU, L.SiLU, L.HardSwish, L.Mish, L.Tanh, L.Sigmoid)],
        *[(kind(), image) for kind in (L.Softplus, L.Exp, L.Log)],
        (L.Normalize("l1", (0, 2), epsilon=1e-3, epsilon_at="outside"), image),
        (L.LayerNorm(some(6), None, axes=[1], epsilon=0.1), image),
        (L.RMSNorm(some(4, 5), some(5), axes=(0, -1), epsilon_at="floor"), image),
        (L.GroupNorm(some(4), some(4), groups=2), image),
        (L.InstanceNorm(None, some(4)), image),
        (L.LSTM(some(8, 3), some(8, 2), some(8), first_c=some(2), clip=2.0, takes=("lengths",)), (5, 3), (1,)),
        (L.GRU(some(2, 6, 3), some(2, 6, 2), direction="bidirectional", returns="sequence", reset_after=False), (5, 3)),
        (L.RNN(some(2, 3), some(2, 2), activations=(("affine", 1.5, 0.5),), returns="all"), (5, 3)),
    ]


def graph_of(parts, **settings):
    """A graph in which every layer has inputs of its own."""
    inputs, nodes = {}, []
    for number, (layer, *shapes) in enumerate(parts):
        names = tuple(f"in{number}.{i}" for i in range(len(shapes)))
        inputs |= dict(zip(names, shapes, strict=True))
        nodes.append(Node(f"n/{number}", layer, names))
    return Graph(inputs, nodes, [node.name for node in nodes], **settings)


def require_same(one, other):
    """Compare two values of a layer's field: kinds, dtypes and bits."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()
    elif isinstance(one, tuple | list):
        for a, b in zip(one, other, strict=True):
            require_same(a, b)
    else:
        assert repr(one) == repr(other)  # tells -0.0 from 0.0


def require_same_graph(one, other):
    for attribute in ("inputs", "outputs", "shapes", "channels_last", "notes", "dtype"):
        assert getattr(one, attribute) == getattr(other, attribute), attribute
    assert list(one.inputs) == list(other.inputs)
    for a, b in zip(one.nodes, other.nodes, strict=True):
        assert (a.name, a.inputs, type(a.layer)) == (b.name, b.inputs, type(b.layer))
        for field in dataclasses.fields(a.layer):
            require_same(getattr(a.layer, field.name), getattr(b.layer, field.name))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_layer_comes_back(tmp_path, rng, dtype):
    parts = examples(rng, dtype)
    kinds = {name for name, kind in native._LAYERS.items() if kind not in (L.Activation, L.Recurrent)}
    assert {type(layer).__name__ for layer, *_ in parts} == kinds  # a new layer needs an example above
    graph = graph_of(parts, notes=["a", "ü"], channels_last=["in2.0"])
    save_graph(graph, tmp_path / "net.pylrp.npz")
    again = load_graph(tmp_path / "net.pylrp.npz")
    require_same_graph(graph, again)
    x = {name: np.abs(rng.standard_normal((2, *shape))) for name, shape in graph.inputs.items()}  # Log is among them
    recurrent = {node.name for node in graph.nodes if isinstance(node.layer, L.Recurrent)}  # the oracle has none
    outputs = [name for name in graph.outputs if name not in recurrent]
    nodes = [[node for node in each.nodes if node.name not in recurrent] for each in (graph, again)]
    before, after = (
        forward(each.changed(nodes=own, outputs=outputs), x) for each, own in zip((graph, again), nodes, strict=True)
    )
    for name in outputs:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_graph_without_arrays_keeps_its_dtype(tmp_path):
    graph = Graph({"x": (3,)}, [Node("relu", L.ReLU(), ("x",))], ["relu"], dtype=np.float64)
    save_graph(graph, tmp_path / "net.npz")
    assert load_graph(tmp_path / "net.npz").dtype == np.float64


def test_what_is_shared_stays_shared_and_is_stored_once(tmp_path, rng):
    weight, bias = rng.standard_normal((50, 50)), rng.standard_normal(50)
    twice = L.Dense(weight, bias)
    graph = Graph.sequential([twice, L.ReLU(), twice, L.Dense(weight), L.Dense(weight[::-1]), L.Dense(weight.T.copy())])
    save_graph(graph, tmp_path / "net.npz")
    first, _, second, third, fourth, fifth = [node.layer for node in load_graph(tmp_path / "net.npz").nodes]
    assert first is second
    assert first is not third
    assert first.weight is third.weight
    for other in (fourth, fifth):
        assert first.weight is not other.weight
    np.testing.assert_array_equal(fourth.weight, weight[::-1])
    assert 3 * weight.nbytes < (tmp_path / "net.npz").stat().st_size < 3.5 * weight.nbytes


def test_views_of_one_memory_are_told_apart(tmp_path, rng):
    whole = rng.standard_normal((8, 4))
    views = [whole[:4], whole[::2], whole[:4]]  # one address and shape, two strides
    save_graph(Graph.sequential([L.Dense(view) for view in views]), tmp_path / "net.npz")
    again = [node.layer.weight for node in load_graph(tmp_path / "net.npz").nodes]
    for view, array in zip(views, again, strict=True):
        np.testing.assert_array_equal(view, array)
    assert again[0] is again[2]


KERNEL = np.full((2, 2, 3), 0.5)
ONES = np.ones(2)


@pytest.mark.parametrize(
    ("layers", "noted"),
    [
        ([L.Dense(np.ones((3, 2)))], True),
        ([L.ReLU(), L.Conv(KERNEL), L.ReLU(), L.Conv(KERNEL)], True),
        ([L.Affine(2.0, 1.0), L.Conv(KERNEL, padding=1)], False),  # could not be folded
        ([L.BatchNorm(ONES, ONES, ONES, ONES), L.Conv(KERNEL, padding=1)], False),
        ([L.ConvTranspose(KERNEL)], False),  # never took one in
        ([L.MaxPool(2)], False),
    ],
)
def test_a_file_of_version_1_that_may_hold_a_scaling_of_the_input(tmp_path, layers, noted):
    shape = (2,) if isinstance(layers[0], L.Dense) else (2, 9)
    path = tmp_path / "net.pylrp.npz"
    save_graph(Graph.sequential(layers, shape), path)
    assert load_graph(path).notes == ()
    rewrite(path, lambda structure: structure.update(version=1))
    graph = load_graph(path)
    assert [node.layer.kind for node in graph.nodes] == [layer.kind for layer in layers]
    assert [note.endswith("save again") for note in graph.notes] == [True] * noted
    save_graph(graph, path)  # that changes nothing of it
    assert load_graph(path).notes == graph.notes


def test_a_bias_at_every_position(tmp_path, rng):
    layers = [L.Conv(rng.standard_normal((3, 2, 3)), rng.standard_normal((3, 5)), padding=1)]
    layers += [L.ConvTranspose(rng.standard_normal((3, 2, 2)), rng.standard_normal((2, 6)))]
    graph = Graph.sequential(layers, (2, 5))
    Network.from_graph(graph).save(tmp_path / "net.npz")
    for node, given in zip(load_graph(tmp_path / "net.npz").nodes, graph.nodes, strict=True):
        np.testing.assert_array_equal(node.layer.bias, given.layer.bias)


def test_a_newer_file_is_not_read_further(saved):
    """What a newer version holds may be unreadable here."""
    rewrite(saved, lambda structure: structure.update(version=4))
    with np.load(saved) as file:
        entries = dict(file)
    with saved.open("wb") as file:
        np.savez(file, **entries, new=np.array([print], object))
    with pytest.raises(ValueError, match=r"update pylrp$"):
        load_graph(saved)


def test_it_is_an_ordinary_npz(tmp_path, rng):
    dense = L.Dense(rng.standard_normal((3, 2)), name="top")
    save_graph(Graph.sequential([dense]), tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["top.weight"], dense.weight)
    assert is_native(tmp_path / "net.npz")
    np.savez(tmp_path / "other.npz", W1=np.zeros((2, 2)))
    assert not is_native(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("no zip")
    assert not is_native(tmp_path / "text.npz")


def test_names(tmp_path, rng):
    graph = Graph.sequential([L.Dense(rng.standard_normal((3, 2)))])
    for name in ("net", "net.onnx", "net.npz.txt"):
        with pytest.raises(ValueError, match=r"must end in \.npz, for example net.*\.pylrp\.npz"):
            save_graph(graph, tmp_path / name)
    save_graph(graph, str(tmp_path / "net.pylrp.npz"))
    assert os.listdir(tmp_path) == ["net.pylrp.npz"]


class Custom(L.CustomLayer):
    def output_shape(self, *shapes):
        return shapes[0]


@dataclasses.dataclass(frozen=True)
class ReLU(L.ReLU):
    """A layer of the user's, by a name that pylrp has too."""


@pytest.mark.parametrize("kind", [Custom, ReLU])
def test_layers_written_in_python_are_refused(tmp_path, kind):
    graph = Graph({"x": (3,)}, [Node("mine", kind(), ("x",))], ["mine"])
    save_graph(Graph.sequential([L.Dense(np.zeros((1, 1)))]), tmp_path / "net.npz")
    before = (tmp_path / "net.npz").read_bytes()
    with pytest.raises(TypeError, match=rf"^mine is a {kind.__name__}, written in Python, which can't be saved: save"):
        save_graph(graph, tmp_path / "net.npz")
    assert (tmp_path / "net.npz").read_bytes() == before
    assert os.listdir(tmp_path) == ["net.npz"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, rng, monkeypatch):
    path = tmp_path / "net.npz"
    save_graph(Graph.sequential([L.Dense(rng.standard_normal((3, 2)))]), path)
    before = path.read_bytes()

    def half(file, arrays):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(native, "save_aligned", half)
    with pytest.raises(OSError, match="disk full"):
        save_graph(Graph.sequential([L.Dense(rng.standard_normal((5, 5)))]), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["net.npz"]


@pytest.fixture
def saved(tmp_path, rng):
    path = tmp_path / "net.pylrp.npz"
    save_graph(Graph.sequential([L.Dense(rng.standard_normal((30, 20)), name="d"), L.ReLU()]), path)
    return path


def rewrite(path, change):
    """Change the description in a file."""
    with np.load(path) as file:
        entries = dict(file)
    structure = json.loads(entries["pylrp.json"].tobytes())
    change(structure)
    entries["pylrp.json"] = np.frombuffer(json.dumps(structure).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, **entries)


CHANGES = {
    "newer": (lambda s: s.update(version=4, layers="?"), r"has format version 4, this pylrp reads up to 3: update"),
    "unknown layer": (
        lambda s: s["layers"][1].update(kind="Attention"),
        r"has layers that this pylrp does not know, Attention: update pylrp$",
    ),
    "unknown field": (lambda s: s["layers"][1]["fields"].update(slope=1), r"is broken: .*slope"),
    "no such array": (lambda s: s["layers"][0]["fields"].update(weight=["array", "no"]), r"is broken: 'no'"),
    "no nodes": (lambda s: s.pop("nodes"), r"is broken: 'nodes'"),
    "no version": (lambda s: s.pop("version"), r"is no description of a network: 'version'"),
    "no such layer": (lambda s: s["nodes"][0].__setitem__(1, 7), r"is broken: list index"),
    "circle": (lambda s: s["nodes"][0].__setitem__(2, ["relu0"]), r"is broken: nodes take each other's values"),
    "wrong shape": (lambda s: s["inputs"][0].__setitem__(1, [21]), r"is broken: .*its input has 21 features"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_descriptions_that_make_no_sense(saved, case):
    change, message = CHANGES[case]
    rewrite(saved, change)
    with pytest.raises(ValueError, match=message) as caught:
        load_graph(saved)
    if case in ("newer", "unknown layer"):  # not broken
        return
    assert caught.value.path == str(saved)
    assert "pylrp.json" in caught.value.place


def test_broken_files(saved):
    whole = saved.read_bytes()
    for length in range(0, len(whole), 97):
        saved.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"net\.pylrp\.npz"):
            load_graph(saved)
    at = whole.index(b"\x93NUMPY", whole.index(b"d.weight")) + 500  # among the weights
    saved.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(ValueError, match=r"entry 'd.weight' can't be read: Bad CRC-32"):
        load_graph(saved)


def test_files_of_other_kinds(tmp_path):
    np.savez(tmp_path / "other.npz", W1=np.zeros((2, 2)))
    np.save(tmp_path / "other.npy", np.zeros(2))
    for name in ("other.npz", "other.npy"):
        with pytest.raises(BrokenFile):
            load_graph(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_graph(tmp_path / "none.npz")


def test_nothing_is_unpickled(saved):
    with np.load(saved) as file:
        entries = dict(file)
    entries["d.weight"] = np.array([[print]], object)
    with saved.open("wb") as file:
        np.savez(file, **entries)
    with pytest.raises(ValueError, match=r"is broken: 'd\.weight'"):
        load_graph(saved)


@pytest.mark.slow
def test_another_process_reads_the_same(tmp_path, rng):
    graph = graph_of(examples(rng))
    save_graph(graph, tmp_path / "one.npz")
    code = (
        "import sys; from pylrp.loaders.plain.native import load_graph, save_graph\n"
        "save_graph(load_graph(sys.argv[1]), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, "one.npz", "two.npz"], check=True, cwd=tmp_path)
    require_same_graph(graph, load_graph(tmp_path / "two.npz"))
    with zipfile.ZipFile(tmp_path / "one.npz") as one, zipfile.ZipFile(tmp_path / "two.npz") as two:
        assert [(i.filename, i.CRC) for i in one.infolist()] == [(i.filename, i.CRC) for i in two.infolist()]
