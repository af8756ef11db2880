"""What messages about .mat files advise, followed: the file that is refused, and the one that is made as they say.

Lines of MATLAB run in Octave as they are printed. `test_ways_out.py` has other messages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from mat_files import write_5, write_73
from matlab.test_octave import octave
from matlab.test_octave import pytestmark as needs_octave

import pylrp
from pylrp.loaders.plain.mat_networks import way_out

RNG = np.random.default_rng(0)
W = [RNG.standard_normal((4, 5)), RNG.standard_normal((3, 4))]
B = [RNG.standard_normal((4, 1)), RNG.standard_normal((3, 1))]
X = RNG.standard_normal((6, 5))
PLAIN = {"W1": W[0], "b1": B[0], "W2": W[1], "b2": B[1]}
SCALING = {"name": "mapminmax", "xoffset": np.full((5, 1), -1.0), "gain": np.full((5, 1), 0.5), "ymin": -1.0}
OUTPUT = {"name": "mapminmax", "xoffset": np.full((3, 1), -1.0), "gain": np.full((3, 1), 0.5), "ymin": -1.0}
NOTHING = np.zeros((0, 0))


def relu(z: Any) -> Any:
    return np.maximum(z, 0)


def layers(*functions: str | None) -> dict[str, Any]:
    cells = [{"W": w, "b": v} | ({"activation": f} if f else {}) for w, v, f in zip(W, B, functions, strict=True)]
    return {"nn": {"layers": cells}}


def inputs(**given: Any) -> dict[str, Any]:
    return {"IW": [W[0]], "LW": [W[1]], "b": list(B), "transferFcn": ["poslin", "purelin"], "inputs": [given]}


def predicted(x: Any = X, scaled: bool = False, back: bool = False, last: Any = lambda z: z) -> Any:
    """By the equations, with the scalings above."""
    a = (x + 1) * 0.5 - 1 if scaled else x
    y = last(relu(a @ W[0].T + B[0].ravel()) @ W[1].T + B[1].ravel())
    return (y + 1) / 0.5 - 1 if back else y


THETAS = [np.hstack([v, w]) for w, v in zip(W, B, strict=True)]
KEPT = {"keep": np.array([[1.0, 2, 3, 4, 5]]), "remove": np.array([[6.0]])}
#: Entries that are refused, a part of the message, the entries as it says, and what the network then predicts.
WAYS_OUT: dict[str, tuple[dict[str, Any], str, dict[str, Any], Any]] = {
    "two networks": (
        {"a": {"W": list(W)}, "b": {"W": list(W), "b": list(B)}}, "save one of them alone",
        {"b": {"W": list(W), "b": list(B)}}, predicted(),
    ),
    "two structs of arrays": ({"a": PLAIN, "b": PLAIN}, "save one of them alone", {"a": PLAIN}, predicted()),
    "an activation left out": (
        layers(None, "purelin"), "write 'purelin' for none", layers("purelin", "purelin"),
        (X @ W[0].T + B[0].ravel()) @ W[1].T + B[1].ravel(),
    ),
    "a function handle": (
        {"nn": {"layers": [{"W": W[0], "b": B[0], "activation": np.array([[1 + 2j]])}, {"W": W[1], "b": B[1]}]}},
        "store its name, such as 'relu'", layers("relu", "purelin"), predicted(),
    ),
    "a Theta without its bias": (
        {"Theta1": W[0], "Theta2": W[1], "activations": ["relu", "purelin"]}, "must be [b W]",
        {"Theta1": THETAS[0], "Theta2": THETAS[1], "activations": ["relu", "purelin"]}, predicted(),
    ),
    "settings that are missing": (
        inputs(processFcns=["mapminmax"]), "save its processSettings",
        inputs(processFcns=["mapminmax"], processSettings=[SCALING]), predicted(scaled=True),
    ),
    "settings of the input by any name": (
        PLAIN | {"ps": SCALING}, "call it x1_step1 if they scale the input", PLAIN | {"x1_step1": SCALING},
        predicted(scaled=True),
    ),
    "settings of the output by any name": (
        PLAIN | {"ps": OUTPUT}, "y1_step1 if the output", PLAIN | {"y1_step1": OUTPUT}, predicted(back=True),
    ),
    "an input scaled twice": (
        inputs(processFcns=["mapminmax"], processSettings=[SCALING]) | {"x1_step1": SCALING}, "save one of them",
        inputs(processFcns=["mapminmax"], processSettings=[SCALING]), predicted(scaled=True),
    ),
    "an output scaled twice": (
        inputs() | {"outputs": [{"processFcns": ["mapminmax"], "processSettings": [OUTPUT]}], "y1_step1": OUTPUT},
        "save one of them", inputs() | {"y1_step1": OUTPUT}, predicted(back=True),
    ),
    "another processing": (
        inputs(processFcns=["processpca"], processSettings=[{"transform": np.eye(5)}]), "retrain without it",
        inputs(processFcns=[], processSettings=[]), predicted(),
    ),
    "rows that go without those that stay": (
        inputs(processFcns=["removeconstantrows"], processSettings=[{"remove": np.array([[6.0]])}]),
        "(remove) and those that stay (keep)",
        inputs(processFcns=["removeconstantrows"], processSettings=[KEPT]), predicted(),
    ),
    "settings of nothing": (
        inputs(processFcns=["mapminmax"], processSettings=[{"name": "mapminmax"}]), "gain and xoffset nor the ranges",
        inputs(processFcns=["mapminmax"], processSettings=[SCALING]), predicted(scaled=True),
    ),
    "names that say nothing": ({"matrix": W[0], "shift": B[0]}, "Name them W1, b1, W2, b2", PLAIN, predicted()),
    "names that say nothing, as cells": (
        {"matrix": W[0], "shift": B[0]}, "or W{1}, b{1}", {"W": list(W), "b": list(B)}, predicted(),
    ),
}  # fmt: skip


#: SciPy writes no function handles.
CASES = [
    pytest.param(name, write, marks=pytest.mark.slow if write is write_73 else ())
    for name in WAYS_OUT
    for write in (write_5, write_73)
    if (name, write) != ("a function handle", write_5)
]


@pytest.mark.parametrize(("name", "write"), CASES)
def test_what_a_message_says_works(name: str, write: Any, tmp_path: Path) -> None:
    refused, advice, entries, expected = WAYS_OUT[name]
    write(tmp_path / "net.mat", refused)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- its words are looked at
        pylrp.load(tmp_path / "net.mat")
    assert advice in str(caught.value)
    write(tmp_path / "net.mat", entries)
    net = pylrp.load(tmp_path / "net.mat")
    x = np.hstack([X, np.ones((6, 1))]) if net.input_size == 6 else X  # with the row that goes
    np.testing.assert_allclose(net.forward(x), expected, rtol=1e-12)


@needs_octave
def test_files_in_formats_of_their_own(tmp_path: Path) -> None:
    """Octave's default, and HDF5 of other programs: saved again as the message says, they load."""
    scipy.io.savemat(tmp_path / "arrays.mat", PLAIN)
    octave("load arrays.mat\nsave net.mat W1 b1 W2 b2", tmp_path)
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["W1"] = W[0]
    for name in ("net.mat", "other.mat"):
        with pytest.raises(ValueError, match=r"save\('net.mat', ..., '-v7'\)") as caught:
            pylrp.load(tmp_path / name)
    line = re.search(r"save\(.*\)", str(caught.value))
    assert line is not None
    octave("load arrays.mat\n" + line[0].replace("...", "'W1', 'b1', 'W2', 'b2'"), tmp_path)
    np.testing.assert_allclose(pylrp.load(tmp_path / "net.mat").forward(X), predicted(), rtol=1e-12)


@needs_octave
def test_lines_of_matlab_for_cells_of_structs(tmp_path: Path) -> None:
    write_5(tmp_path / "other.mat", {"nn": {"layers": [{"V": w} for w in W]}})
    with pytest.raises(ValueError, match="cellfun") as caught:
        pylrp.load(tmp_path / "other.mat")
    lines = str(caught.value)[str(caught.value).index("W = cellfun") :]
    scipy.io.savemat(tmp_path / "arrays.mat", PLAIN)
    octave("load arrays.mat\nnn.layers = {struct('W', W1, 'b', b1), struct('W', W2, 'b', b2)};\n" + lines, tmp_path)
    np.testing.assert_allclose(pylrp.load(tmp_path / "net.mat").forward(X), predicted(), rtol=1e-12)


@needs_octave
def test_lines_of_matlab_for_a_shallow_network(tmp_path: Path) -> None:
    """A struct stands for the toolbox's object: its fields are read as the object's are."""
    message = way_out({"mine": None})
    lines = message[message.index("IW = ") :]
    scipy.io.savemat(tmp_path / "arrays.mat", PLAIN | {"before": SCALING, "behind": OUTPUT})
    code = """
    load arrays.mat
    mine.IW = {W1; []};  mine.LW = {[], []; W2, []};  mine.b = {b1; b2};
    mine.layers = {struct('transferFcn', 'poslin'); struct('transferFcn', 'purelin')};
    rows = struct('keep', 1:5, 'remove', []);
    mine.inputs = {struct('processSettings', {{rows, before}})};
    mine.outputs = {[], struct('processSettings', {{struct('keep', 1:3, 'remove', []), behind}})};
    """
    octave(code + lines, tmp_path)
    net = pylrp.load(tmp_path / "net.mat")
    np.testing.assert_allclose(net.forward(X), predicted(scaled=True, back=True), rtol=1e-12)
