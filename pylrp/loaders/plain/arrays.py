"""Plainly named weights, ``W1, b1, W2, b2, ...``, from an ``.npz`` or a MATLAB file.

``pylrp.load`` calls in. This file finds the weights among the names, turns them so that a row is a neuron of the next
layer, and says in the graph's notes what it assumed; ``chain.py`` makes the graph.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Dense
from pylrp.loaders.found import BIAS, WEIGHT, Found
from pylrp.loaders.plain.chain import ACTIVATIONS, chain, recurrent_chain
from pylrp.loaders.plain.mat_file import read_mat
from pylrp.loaders.plain.mat_networks import contents, recognise, settle_scalings, way_out
from pylrp.loaders.plain.mat_recurrent import of_matlab
from pylrp.loaders.plain.npz_file import NpzFile
from pylrp.loaders.plain.recurrent import Front, head_of, is_of_torch, of_torch
from pylrp.network.graph import Graph
from pylrp.present.text import shown

__all__ = ["load_mat", "load_npz"]

Array = NDArray[Any]

_ACTIVATIONS = ("activations", "activation")
_ROLE = "|".join((*WEIGHT, *BIAS))
_NUMBER_LAST = re.compile(rf"(?P<stem>)(?P<role>{_ROLE})_?(?P<number>\d+)", re.IGNORECASE)  # W1, bias_2
_NUMBER_FIRST = re.compile(rf"(?P<stem>.*?)(?P<number>\d+)[._](?P<role>{_ROLE})", re.IGNORECASE)  # layer1.weight


def load_npz(path: str | os.PathLike[str]) -> Graph:
    """Read dense layers from an ``.npz`` file of plainly named arrays.

    Names, in small or capital letters: ``W1, b1, W2, b2, ...``, also ``weights_1, bias_1``, ``layer1.weight,
    layer1.bias`` or ``fc1_w, fc1_b``; numbers begin at 0 or 1 and have no gaps. A torch ``Sequential``'s
    ``0.weight, 2.weight, ...`` may have gaps, where its activations stand. A single layer may be ``W, b``.

    Weights have a row for each neuron of the next layer; where only the other way round fits, they are transposed.
    Biases are ``(n,)``, ``(1, n)`` or ``(n, 1)``, and may be missing.

    An entry ``activations`` names the functions: one string for all hidden layers, or one for each layer or for each
    hidden layer: "relu", "tanh", "sigmoid", "linear", ... and "softmax" at the end. Without it there is a ReLU between
    each two layers and nothing at the end. What was assumed stands in the graph's ``notes``.

    Recurrent layers have torch's names, ``weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0``, with ``_reverse`` for
    the other direction, ``_l1``, ... for those above, and anything before: ``lstm.weight_ih_l0``. Rows say which they
    are: 4 for each unit LSTM, 3 GRU, 1 RNN (an entry ``nonlinearity``: "tanh" or "relu"). Dense layers follow,
    ``fc.weight, fc.bias`` or as above. They take the state after the last step (of two directions, each one's own
    last), or with an entry ``returns`` that is "sequence" that of each step. Inputs are ``(steps, features)`` of any
    number of steps.

    Parameters
    ----------
    path : str or PathLike

    Returns
    -------
    Graph

    Raises
    ------
    BrokenFile
        If it is no .npz file, or cut short.
    ValueError
        If no weights are found, a number is missing, or shapes do not fit.
    TypeError
        If dtypes are mixed, or neither float16 (read as float32), float32, float64 nor whole numbers.
    """
    path = Path(path)
    with NpzFile(path) as file:
        recurrent = any(map(is_of_torch, file.names))
        return _network({name: _readable(file, name, recurrent) for name in file.names}, path)


def _readable(file: NpzFile, name: str, recurrent: bool) -> Any:
    """Return an entry that may be meant; what is named otherwise is not unpacked."""
    if not _is_meant(name) and not (recurrent and is_of_torch(name, beside=True)):
        return None
    array = file.read(name)
    if array is not None and array.dtype.kind == "U":
        return str(array) if array.ndim == 0 else [str(item) for item in array.ravel()]
    return array


def _is_meant(name: str) -> bool:
    plain = name.lower() in (*WEIGHT, *BIAS, *_ACTIVATIONS)
    return plain or bool(_NUMBER_LAST.fullmatch(name) or _NUMBER_FIRST.fullmatch(name))


def load_mat(path: str | os.PathLike[str]) -> Graph:
    """Read dense layers from a MATLAB file, version 4 to 7.3, of plainly named arrays.

    Names are those of :func:`load_npz`. Besides, ``W`` and ``b`` may be cell arrays with a cell for each layer, and all
    may be fields of one struct (``net.W{1}``, ``net.W1``). ``activations`` is a string or a cell array of strings;
    "tansig", "logsig", "poslin" and "purelin" are understood. Also read:

    - a struct with a cell of structs ``nn.layers{l}.W``, or a struct array ``net.layers(l).W``, with fields ``W``,
      ``b`` and ``activation``; activations that were stored along (``output``) are left aside;
    - a shallow network's ``net.IW``, ``net.LW``, ``net.b`` with ``net.layers{l}.transferFcn``, and its scaling of input
      and output (mapminmax, mapstd, removeconstantrows) in ``net.inputs`` and ``net.outputs``; or the constants of
      ``genFunction`` (``IW1_1``, ``LW2_1``, ``b1``, ``x1_step1``, ``y1_step1``);
    - ``Theta1, Theta2, ...`` or a cell ``Theta``, each ``[b W]``;
    - recurrent layers, with torch's names (``_`` for a dot) or as lstmLayer, bilstmLayer and gruLayer have them:
      ``InputWeights``, ``RecurrentWeights``, ``Bias`` and, of a gruLayer, ``ResetGateMode``, as variables or as fields
      of a struct for each layer, dense layers as structs with ``Weights`` and ``Bias``. ``OutputMode`` "last" is
      assumed. Inputs are ``(steps, features)`` here, MATLAB has features first.

    Parameters
    ----------
    path : str or PathLike

    Returns
    -------
    Graph

    Raises
    ------
    ImportError
        If SciPy, or h5py for version 7.3, is missing: ``pip install scipy h5py``.
    ValueError
        If it is no MATLAB file, no weights are found, a number is missing, or shapes do not fit.
    TypeError
        If dtypes are mixed, or neither single, double nor whole numbers.
    """
    path = Path(path)
    entries = read_mat(path)
    try:
        front = of_matlab(entries) or of_torch(entries)
        if front is not None:
            return _behind(front)
        found = recognise(entries) or _sort_matlab(entries)
        settle_scalings(found, entries)
        if not found.weights:
            raise ValueError(f"no weights found; the file holds {contents(entries)}. {way_out(entries)}")
        return _build(found)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from None


def _sort(entries: Mapping[str, Any]) -> Found:
    found = Found()
    for name, value in entries.items():
        name = shown(name)
        match = _NUMBER_LAST.fullmatch(name) or _NUMBER_FIRST.fullmatch(name)
        if name.lower() in _ACTIVATIONS:
            found.activations = value
        elif name.lower() in (*WEIGHT, *BIAS):
            cells = value if isinstance(value, list) else [value]
            for number, cell in enumerate(cells):
                if name.lower() in WEIGHT or np.size(cell):  # an empty cell: no bias
                    found.add(name, number, "", f"{name}{{{number + 1}}}" if cells is value else name, cell)
        elif match:
            number = int(match["number"])
            found.add(match["role"], number, match["stem"], name, value)
            if match.re is _NUMBER_FIRST:
                found.layers[number] = match["stem"] + match["number"]
        else:
            found.unread.append(name)
    return found


def _sort_matlab(entries: Mapping[str, Any]) -> Found:
    """Return what the names say, at the top or in the one struct that has weights."""
    found = _sort(entries)
    if found.weights:
        return found
    inside = {name: _sort(value) for name, value in entries.items() if isinstance(value, dict)}
    inside = {name: other for name, other in inside.items() if other.weights}
    if len(inside) > 1:
        raise ValueError(f"{' and '.join(inside)} both hold weights: save one of them alone")
    for name, other in inside.items():
        other.unread += [of for of in entries if of != name]
        return other
    return found


def _network(entries: Mapping[str, Any], path: Path) -> Graph:
    try:
        front = of_torch(entries)
        if front is not None:
            return _behind(front)
        found = _sort(entries)
        if not found.weights:
            raise ValueError(
                f"no weights among {', '.join(entries) or 'no entries'}: name them W1, b1, W2, b2, ... from the input "
                "up"
            )
        return _build(found)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from None


def _behind(front: Front) -> Graph:
    """Return recurrent layers and the dense ones behind them."""
    rest, name = head_of(front.rest)
    found = _sort(rest)
    found.known_rows = True
    found.notes = front.notes
    if name:
        found.layers = dict.fromkeys(found.weights, name)
    if found.weights:
        return _build(found, front)
    if found.biases or found.activations is not None:
        raise ValueError(f"{', '.join(rest)}: there are no dense layers behind the recurrent ones")
    notes = [*front.notes, f"entries not read: {', '.join(sorted(found.unread))}"] if found.unread else front.notes
    return recurrent_chain(front, [], [], notes)


def _build(found: Found, front: Front | None = None) -> Graph:
    if len(found.stems) > 1:
        raise ValueError(f"{' and '.join(found.stems.values())} are named in different ways: name all in one")
    stem = next(iter(found.stems))
    numbers = _require_numbers(found, stem)
    notes = found.notes
    weights, biases = _convert(found, numbers, notes)
    _turn(weights, biases, found, numbers, notes)
    functions = _functions(found, numbers, stem, notes)
    if found.unread:
        notes.append(f"entries not read: {', '.join(sorted(found.unread))}")
    layers = [Dense(w, b, name=found.layers.get(n)) for w, b, n in zip(weights, biases, numbers, strict=True)]
    if front is not None:
        return recurrent_chain(front, layers, functions, notes)
    dtype = weights[0].dtype
    first, last = (make(dtype) if make else [] for make in (found.first, found.last))
    return chain(layers, functions, notes=notes, first=first, last=last)


def _require_numbers(found: Found, stem: str) -> list[int]:
    """Return the layers' numbers, the input's first; raise where one is missing."""
    numbers = sorted(found.weights)
    for number, (name, _) in found.biases.items():
        if number not in found.weights:
            raise ValueError(f"{name} has no weights beside it: there are {_listed(found.weights.values())}")
    expected = range(min(numbers[0], 1), numbers[-1] + 1)  # a file may say W99999999999
    missing = next((n for n, number in zip(expected, numbers, strict=False) if n != number), None)
    if missing is not None and not _counts_modules(found, stem):
        raise ValueError(f"layer {missing} is missing: there are {_listed(found.weights.values())}")
    return numbers


def _counts_modules(found: Found, stem: str) -> bool:
    """Return whether numbers count all modules of a torch Sequential, as in ``0.weight`` and ``net.0.weight``."""
    return "." in next(iter(found.weights.values()))[0] and (not stem or stem.endswith("."))


def _listed(named: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(name for name, _ in named)


def _convert(found: Found, numbers: list[int], notes: list[str]) -> tuple[list[Array], list[Array | None]]:
    """Return weights and biases as arrays of one dtype."""
    named = {name: value for table in (found.weights, found.biases) for name, value in table.values()}
    for name, value in named.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise TypeError(f"{name} is no array of numbers but {kind}")
    whole = [name for name, value in named.items() if value.dtype.kind in "iub"]
    floats = {value.dtype.newbyteorder("=") for value in named.values() if value.dtype.kind == "f"}
    if np.dtype(np.float16) in floats:
        notes.append("float16 weights converted to float32")
        floats = floats - {np.dtype(np.float16)} | {np.dtype(np.float32)}
    if len(floats) > 1 or not floats <= {np.dtype(np.float32), np.dtype(np.float64)}:
        dtypes = ", ".join(f"{name} {value.dtype}" for name, value in named.items())
        raise TypeError(f"the arrays must all be float32 or all float64: {dtypes}")
    dtype = floats.pop() if floats else np.dtype(np.float64)
    if whole:
        notes.append(f"whole numbers converted to {dtype}: {', '.join(whole)}")

    weights: list[Array] = []
    biases: list[Array | None] = []
    for number in numbers:
        name, value = found.weights[number]
        if value.ndim != 2:
            raise ValueError(
                f"{name} has shape {value.shape}; only dense layers, with two axes, are read from plain arrays: "
                "build others with pylrp.layers, or export the model to ONNX"
            )
        weights.append(value.astype(dtype, copy=False))
        name, value = found.biases.get(number, ("", None))
        if value is not None and value.size != max(value.shape, default=1):
            raise ValueError(f"{name} has shape {value.shape}, expected (n,), (1, n) or (n, 1)")
        biases.append(None if value is None else value.astype(dtype, copy=False).reshape(-1))
    return weights, biases


def _turn(weights: list[Array], biases: list[Array | None], found: Found, numbers: list[int], notes: list[str]) -> None:
    """Turn the weights in place so that a row is a neuron of the next layer."""
    turned = [w.T for w in weights]
    as_given, other = _fits(weights, biases), not found.known_rows and _fits(turned, biases)
    if as_given and other:
        notes.append("the weights fit both ways round: read with a row for each neuron of the next layer")
    elif other:
        notes.append("weights transposed: the file has a column for each neuron of the next layer")
        weights[:] = [np.ascontiguousarray(w) for w in turned]
    elif not as_given:
        shapes = [f"{found.weights[n][0]} {w.shape}" for n, w in zip(numbers, weights, strict=True)]
        shapes += [f"{found.biases[n][0]} {b.shape}" for n, b in zip(numbers, biases, strict=True) if b is not None]
        raise ValueError(
            "the shapes fit neither with a row nor with a column for each neuron of the next layer: "
            + ", ".join(shapes)
        )


def _fits(weights: list[Array], biases: list[Array | None]) -> bool:
    chained = all(above.shape[1] == below.shape[0] for below, above in pairwise(weights))
    return chained and all(b is None or len(b) == len(w) for w, b in zip(weights, biases, strict=True))


def _functions(found: Found, numbers: list[int], stem: str, notes: list[str]) -> list[str]:
    """Return the name of each layer's activation."""
    count = len(numbers)
    given = found.activations
    if given is None:
        steps = {above - below for below, above in pairwise(numbers)}
        if _counts_modules(found, stem) and len(steps) > 1 and 1 in steps:
            raise ValueError(
                f"between some of {_listed(found.weights.values())} there are modules, between others none: "
                "add an entry activations, with a name for each layer"
            )
        hidden, top = found.assumed
        if count > 1 or top != "none":
            end = "nothing" if top == "none" else top
            notes.append(f"no entry activations: {hidden} assumed between the layers, {end} at the end")
        return [hidden] * (count - 1) + [top]
    if isinstance(given, str):
        if count == 1 and given.lower() not in {name for name, layer in ACTIVATIONS.items() if layer is None}:
            notes.append(f"activations {given!r} is for hidden layers, and there are none: it is left out")
        return [given] * (count - 1) + ["none"]
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise ValueError("activations must be a string, or a string for each layer")
    if len(given) not in (count, count - 1):
        raise ValueError(f"activations has {len(given)} names, there are {count} layers: {', '.join(given)}")
    return given if len(given) == count else [*given, "none"]
