"""Networks as MATLAB users keep them, through `pylrp.load`: predictions against equations written out by hand.

Files of version 5 come from SciPy, those of 7.3 from h5py laid out as MATLAB does, some from Octave itself.
"""

from __future__ import annotations

from functools import partial

import h5py
import numpy as np
import pytest
import scipy.io
from mat_files import write_5, write_73
from matlab.test_octave import octave
from matlab.test_octave import pytestmark as needs_octave

import pylrp

# Each HDF5 file is read on trial in a process of its own first.
WRITERS = pytest.mark.parametrize("write", [write_5, pytest.param(write_73, marks=pytest.mark.slow)])


def relu(z):
    return np.maximum(z, 0)


def logistic(z):
    return 1 / (1 + np.exp(-z))


def same(z):
    return z


@pytest.fixture
def net(rng):
    W = [rng.standard_normal((4, 5)), rng.standard_normal((3, 4))]
    return W, [rng.standard_normal((4, 1)), rng.standard_normal((3, 1))]


@pytest.fixture
def load(tmp_path):
    def made(write, entries, **options):
        write(tmp_path / "net.mat", entries)
        return pylrp.load(tmp_path / "net.mat", **options)

    return made


def expect(network, net, functions, before=same, behind=same):
    """The loaded network predicts what the equations say."""
    W, b = net
    x = np.random.default_rng(3).standard_normal((6, W[0].shape[1]))
    a = before(x)
    for weight, bias, function in zip(W, b, functions, strict=True):
        a = function(a @ weight.T + (0 if bias is None else bias.ravel()))
    np.testing.assert_allclose(network.forward(x), behind(a), rtol=1e-12, atol=1e-12)


@WRITERS
@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("nested", [True, False])
def test_layers_of_structs(load, net, write, kind, nested):
    """The question's own nn.layers{l}.W, and net.layers(l).W; the stored activations are left aside."""
    W, b = net
    cells = [{"W": w, "b": v, "output": np.zeros((len(w), 7))} for w, v in zip(W, b, strict=True)]
    network = load(write, {"nn": {"layers": kind(cells), "name": "mine"}, "x": 1.0} if nested else {"lay": kind(cells)})
    expect(network, net, (relu, same))
    assert any("relu assumed" in note for note in network.notes)
    named = [{"W": w, "b": v, "activation": f} for w, v, f in zip(W, b, ("tansig", "logsig"), strict=True)]
    expect(load(write, {"nn": {"layers": kind(named)}}, keep_softmax=True), net, (np.tanh, logistic))
    turned = [{"weights": w.T, "bias": v} for w, v in zip(W, b, strict=True)]
    expect(load(write, {"nn": {"layers": kind(turned)}}), net, (relu, same))


@WRITERS
def test_layers_without_weights(load, net, write):
    W, b = net
    cells = [{"type": "input"}, {"W": W[0], "b": b[0]}, {"type": "tanh"}, {"W": W[1]}]
    network = load(write, {"nn": {"layers": cells}})
    expect(network, (W, [b[0], None]), (np.tanh, same))
    assert any("layers{1} has no weights" in note for note in network.notes)
    with pytest.raises(ValueError, match=r"nn\.layers\{2\} has neither weights nor an activation"):
        load(write, {"nn": {"layers": [{"W": W[0]}, {"type": "whatever"}, {"W": W[1]}]}})
    with pytest.raises(ValueError, match=r"nn\.layers\{1\}\.W names no activation"):
        load(write, {"nn": {"layers": [{"W": W[0]}, {"W": W[1], "activation": "purelin"}, {"W": np.eye(3)}]}})


def settings(rng, n, kind="mapminmax"):
    """Settings as MATLAB writes them, the function they stand for, and its reverse."""
    low = rng.standard_normal(n)
    span = rng.uniform(0.5, 2, n)
    if kind == "mapminmax":
        gain, base = 2 / span, -1.0
        made = {"name": kind, "xmin": low, "xmax": low + span, "ymin": base, "ymax": 1.0}
    else:
        gain, base = 1 / span, 0.0
        made = {"name": kind, "xmean": low, "xstd": span, "ymean": base, "ystd": 1.0}
    made = {name: value.reshape(-1, 1) if np.ndim(value) else value for name, value in made.items()}
    made |= {"gain": gain.reshape(-1, 1), "xoffset": low.reshape(-1, 1), "no_change": 0.0}
    return made, lambda x: (x - low) * gain + base, lambda y: (y - base) / gain + low


def shallow(net, **more):
    W, b = net
    empty = np.zeros((0, 0))
    # IW is 2-by-1; LW 2-by-2, columns first: {1,1} {2,1} {1,2} {2,2}. savemat gets it as it stands in the file.
    return {"IW": [W[0], empty], "LW": [empty, W[1], empty, empty], "b": list(b), **more}


def square(write, path, entries):
    """Like `write`; LW as the 2-by-2 cell that it is."""
    if write is write_5:
        entries = dict(entries, LW=np.array(entries["LW"] + [None], object)[:4].reshape(2, 2, order="F"))
    write(path, entries)


@WRITERS
@pytest.mark.parametrize("kind", ["mapminmax", "mapstd"])
def test_a_shallow_network(load, net, rng, write, kind):
    before, forward, _ = settings(rng, 5, kind)
    behind, _, reverse = settings(rng, 3, kind)
    ranges = {name: value for name, value in before.items() if name not in ("gain", "xoffset")}  # of older releases
    for given in (before, ranges):
        entries = shallow(
            net,
            layers=[{"transferFcn": "logsig"}, {"transferFcn": "purelin"}],
            inputs=[
                {"processFcns": ["removeconstantrows", kind], "processSettings": [{"remove": np.zeros((0, 0))}, given]}
            ],
            outputs=[np.zeros((0, 0)), {"processFcns": [kind], "processSettings": [behind]}],
        )
        network = load(partial(square, write), entries)
        expect(network, net, (logistic, same), forward, reverse)
        assert any("scaled by" in note for note in network.notes)
        nested = load(write, {"net": entries})
        expect(nested, net, (logistic, same), forward, reverse)


@WRITERS
def test_relevance_is_that_of_the_raw_input(load, net, rng, write):
    """The raw input gets what the scaled one would: a scaling that was ignored, or whose offset is lost, would show."""
    W, b = net
    before, forward, _ = settings(rng, 5)
    network = load(write, shallow(net, x1_step1=before, activations=["poslin", "purelin"]))
    x = rng.standard_normal((4, 5))
    ex = network.explain(x, target=1, composite="epsilon")
    hidden = relu(forward(x) @ W[0].T + b[0].ravel())
    gradient = (hidden > 0) * W[1][1] @ W[0]
    np.testing.assert_allclose(ex.relevance, forward(x) * gradient, rtol=1e-4, atol=1e-6)


@WRITERS
def test_a_shallow_network_with_little_said(load, net, write):
    network = load(write, shallow(net))
    expect(network, net, (np.tanh, same))
    assert any("tansig assumed" in note for note in network.notes)
    assert any("mapminmax unless told otherwise" in note for note in network.notes)
    network = load(write, shallow(net, processFcns=[], transferFcn=["logsig", "purelin"]))
    expect(network, net, (logistic, same))
    assert not any("assumed" in note or "mapminmax" in note for note in network.notes)
    W, b = net
    bare = load(write, {"IW": W[0], "LW": W[1], "b": list(b), "transferFcn": ["tansig", "purelin"]})
    expect(bare, net, (np.tanh, same))


@WRITERS
def test_generated_constants(load, net, rng, write):
    """What genFunction writes at the head of its function, saved from there."""
    W, b = net
    before, forward, _ = settings(rng, 5)
    behind, _, reverse = settings(rng, 3)
    little = {name: before[name] for name in ("xoffset", "gain")} | {"ymin": -1.0}
    entries = {"IW1_1": W[0], "LW2_1": W[1], "b1": b[0], "b2": b[1], "x1_step1": little, "y1_step1": behind}
    network = load(write, entries)
    expect(network, net, (np.tanh, same), forward, reverse)
    expect(load(write, {"s": entries}), net, (np.tanh, same), forward, reverse)
    wide = {"keep": np.array([[1.0, 3, 4, 5, 6]]), "remove": np.array([[2.0, 7.0]])}
    network = load(write, entries | {"x1_step1": wide, "x1_step2": little})
    x = rng.standard_normal((4, 7))
    a = np.tanh(forward(x[:, [0, 2, 3, 4, 5]]) @ W[0].T + b[0].ravel()) @ W[1].T + b[1].ravel()
    np.testing.assert_allclose(network.forward(x), reverse(a), rtol=1e-12)


@WRITERS
def test_scalings_are_never_left_out(load, net, rng, write):
    W, b = net
    before, forward, _ = settings(rng, 5)
    plain = {"W1": W[0], "b1": b[0], "W2": W[1], "b2": b[1]}
    expect(load(write, plain | {"ps_input": before}), net, (relu, same), forward)
    with pytest.raises(ValueError, match="ps looks like settings of mapminmax"):
        load(write, plain | {"ps": before})
    for kind in ("processpca", "fixunknowns"):
        inputs = {"processFcns": [kind], "processSettings": [{"name": kind, "transform": np.eye(5)}]}
        with pytest.raises(ValueError, match=rf"inputs\{{1\}}: {kind}: only mapminmax, mapstd"):
            load(write, shallow(net, inputs=[inputs]))
    with pytest.raises(ValueError, match="settings for 0"):
        load(write, shallow(net, inputs=[{"processFcns": ["mapminmax"], "processSettings": []}]))
    inputs = [{"processFcns": ["mapminmax"], "processSettings": [before]}]
    with pytest.raises(ValueError, match="scaled twice"):
        load(write, shallow(net, inputs=inputs, x1_step1=before))


@WRITERS
def test_only_chains(load, net, write):
    W, _ = net
    skip = shallow(net)
    skip["IW"] = [W[0], np.ones((3, 5))]
    with pytest.raises(ValueError, match=r"expected IW\{1,1\} alone"):
        load(write, skip)
    loop = shallow(net)
    loop["LW"] = [np.eye(4), W[1], np.zeros((0, 0)), np.zeros((0, 0))]
    with pytest.raises(ValueError, match=r"LW\{1,1\} is no connection to the next layer"):
        load(write, loop)
    with pytest.raises(ValueError, match="LW2_0 skips a layer"):
        load(write, {"IW1_1": W[0], "LW2_0": W[1]})


@WRITERS
def test_theta(load, net, write):
    """[b W], as in the course: sigmoids, and a logistic output that is removed or kept."""
    W, b = net
    thetas = [np.hstack([v, w]) for w, v in zip(W, b, strict=True)]
    for entries in (
        {"Theta1": thetas[0], "Theta2": thetas[1], "lambda": 1.0},
        {"Theta": thetas},
        {"nn": {"Theta": thetas}},
    ):
        network = load(write, entries, keep_softmax=True)
        expect(network, net, (logistic, logistic))
        assert any("logsig assumed" in note for note in network.notes)
    expect(load(write, {"Theta": thetas, "activations": ["relu", "purelin"]}), net, (relu, same))
    with pytest.raises(ValueError, match=r"each Theta must be \[b W\].*Theta1 4x5 double"):
        load(write, {"Theta1": W[0], "Theta2": W[1]})


@pytest.mark.slow
def test_what_is_not_understood_is_listed(load, net, tmp_path):
    """With sizes, and a line of MATLAB."""
    with pytest.raises(
        ValueError, match=r"X \(100x5 double\), note \(text 'hello'\).*cellfun\(@\(l\) l\.W, nn\.layers"
    ):
        load(write_5, {"X": np.zeros((100, 5)), "note": "hello"})
    with pytest.raises(
        ValueError, match=r"m \(struct with layers \(array of 1, first: struct with Q \(2x2 double\)\)\)"
    ):
        load(write_73, {"m": {"layers": [{"Q": np.eye(2)}]}})
    with h5py.File(tmp_path / "net.mat", "w", userblock_size=512) as file:
        file.create_dataset("net", data=np.zeros(6, np.uint32)).attrs["MATLAB_class"] = np.bytes_("SeriesNetwork")
    raw = (tmp_path / "net.mat").read_bytes()
    (tmp_path / "net.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + raw[128:])
    with pytest.raises(ValueError, match=r"net \(an object or function\).*exportONNXNetwork\(net, 'net\.onnx'\)"):
        pylrp.load(tmp_path / "net.mat")
    W, _ = net
    with pytest.raises(ValueError, match="a and b both hold weights"):
        load(write_5, {"a": {"W": list(W)}, "b": {"W": list(W)}})
    with pytest.raises(ValueError, match=r"nn\.layers\{1\}\.activation is a function handle"):
        load(write_73, {"nn": {"layers": [{"W": W[0], "activation": np.zeros(3, np.complex128)}]}})


@needs_octave
@pytest.mark.parametrize("flag", ["-v6", "-v7"])
def test_structs_written_by_octave(load, tmp_path, net, flag):
    W, b = net
    scipy.io.savemat(tmp_path / "arrays.mat", {"W1": W[0], "W2": W[1], "b1": b[0], "b2": b[1]})
    code = """
    load arrays.mat
    nn.layers = {struct('W', W1, 'b', b1, 'output', []), struct('W', W2, 'b', b2, 'output', [])};
    save FLAG cells.mat nn
    net.layers(1).W = W1; net.layers(2).W = W2; net.layers(1).b = b1; net.layers(2).b = b2;
    save FLAG array.mat net
    """
    octave(code.replace("FLAG", flag), tmp_path)
    for name in ("cells.mat", "array.mat"):
        expect(pylrp.load(tmp_path / name), net, (relu, same))
