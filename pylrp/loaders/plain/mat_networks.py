"""How MATLAB users keep a network: ``nn.layers{l}.W``, shallow networks' ``IW`` and ``LW``, ``Theta = [b W]``.

``arrays.py`` hands over a file's variables and gets :class:`Found` back; ``mat_scalings.py`` reads mapminmax and its
kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from pylrp.loaders.found import BIAS, WEIGHT, Found
from pylrp.loaders.plain.chain import ACTIVATIONS
from pylrp.loaders.plain.mat_scalings import Steps, input_layers, named_scalings, output_layers, remove_rows, steps_of

__all__ = ["contents", "recognise", "settle_scalings", "way_out"]

Entries = Mapping[str, Any]

_FUNCTION = ("activation", "activations", "transferfcn", "activation_function", "act", "fcn")
_THETA = re.compile(r"theta_?(?P<number>\d+)", re.IGNORECASE)
_GENERATED = re.compile(r"(?P<kind>IW|LW)(?P<to>\d+)_(?P<source>\d+)")  # of genFunction
_SHALLOW = ("IW", "LW", "b", "layers", "inputs", "outputs", "transferFcn", "processFcns", "processSettings")


def recognise(entries: Entries) -> Found | None:
    """Return the weights where the file holds a network as MATLAB users keep them, None where it does not.

    Raises
    ------
    ValueError
        If it holds two, or one that is no chain of layers.
    """
    scopes = [("", entries)] + [(f"{name}.", value) for name, value in entries.items() if isinstance(value, dict)]
    found: dict[str, Found] = {}
    for prefix, scope in scopes:
        for read in (_generated, _shallow, _layers, _thetas):
            made = read(prefix, scope)
            if made is not None:
                found[prefix.rstrip(".") or next(iter(made.weights.values()))[0]] = made
                if prefix:
                    made.unread += [name for name in entries if name != prefix[:-1]]
                break
    if len(found) > 1:
        raise ValueError(f"{' and '.join(found)} both hold weights: save one of them alone")
    return next(iter(found.values()), None)


def settle_scalings(found: Found, entries: Entries) -> None:
    """Read settings of mapminmax that lie beside the weights; none is left out in silence."""
    before: Steps = []
    behind: Steps = []
    for scope in (entries, *(value for value in entries.values() if isinstance(value, dict))):
        at_input, at_output, used = named_scalings(scope)
        before, behind = before + at_input, behind + at_output
        found.unread = [name for name in found.unread if name not in used]
    if before:
        _scale_input(found, before, "settings beside the weights")
    if behind:
        _scale_output(found, behind, "settings beside the weights")


def _scale_output(found: Found, steps: Steps, where: str) -> None:
    if found.last is not None:
        raise ValueError(f"the output is scaled twice: by the network's own outputs and by {where}; save one of them")
    found.last = lambda dtype: output_layers(steps, dtype)
    found.notes.append(f"the output is scaled back by {', '.join(step.name for step in steps)}")


def _scale_input(found: Found, steps: Steps, where: str) -> None:
    if found.first is not None:
        raise ValueError(f"the input is scaled twice: by the network's own inputs and by {where}; save one of them")
    if found.weights:
        number = min(found.weights)
        name, weight = found.weights[number]
        found.weights[number] = name, remove_rows(steps, weight)
    found.first = lambda dtype: input_layers(steps, dtype)
    found.notes.append(f"the input is scaled by {', '.join(step.name for step in steps)}: relevance is the raw input's")


def _get(scope: Entries, names: tuple[str, ...]) -> tuple[str, Any]:
    """Return the first entry that has one of the names in small letters, or ("", None)."""
    return next(((name, value) for name, value in scope.items() if name.lower() in names), ("", None))


def _given(value: Any) -> bool:
    return value is not None and not (isinstance(value, list | str) and not value) and np.size(value) > 0


def _layers(prefix: str, scope: Entries) -> Found | None:
    """``nn.layers{l}.W``: a cell of structs, or an array of structs."""
    for name, value in scope.items():
        cells = [value] if isinstance(value, dict) and name.lower() in ("layer", "layers") else value
        if isinstance(cells, list) and any(isinstance(cell, dict) and _given(_get(cell, WEIGHT)[1]) for cell in cells):
            found = _chain_of(f"{prefix}{name}", cells)
            if found.activations is None:
                function, found.activations = _get(scope, ("activation", "activations"))
                found.unread += [other for other in scope if other not in (name, function)]
            else:
                found.unread += [other for other in scope if other != name]
            return found
    return None


def _chain_of(where: str, cells: list[Any]) -> Found:
    found = Found()
    functions: list[str | None] = []
    for number, cell in enumerate(cells, start=1):
        label = f"{where}{{{number}}}"
        if not isinstance(cell, dict):
            raise ValueError(f"{label} is {_shown(cell)}, expected a struct with fields W and b")
        function = _function(label, cell)
        field, weight = _get(cell, WEIGHT)
        if not _given(weight):
            _without_weights(found, functions, label, cell, function)
            continue
        found.add("w", number, "", f"{label}.{field}", weight)
        field, bias = _get(cell, BIAS)
        if _given(bias):
            found.add("b", number, "", f"{label}.{field}", bias)
        functions.append(function)
    # The layers that have weights, without gaps.
    order = {number: i for i, number in enumerate(sorted(found.weights), start=1)}
    found.weights = {order[number]: entry for number, entry in found.weights.items()}
    found.biases = {order[number]: entry for number, entry in found.biases.items()}
    if any(functions):
        missing = [found.weights[i][0] for i, name in enumerate(functions[:-1], start=1) if name is None]
        if missing:
            raise ValueError(f"the layer of {missing[0]} names no activation, others do: write 'purelin' for none")
        found.activations = [name or "none" for name in functions]
    return found


def _without_weights(
    found: Found, functions: list[str | None], label: str, cell: Entries, function: str | None
) -> None:
    """A cell that is the input, or an activation of its own."""
    if not functions and function is None:
        found.notes.append(f"{label} has no weights: taken for the input")
    elif functions and function is not None and functions[-1] is None:
        functions[-1] = function
    else:
        raise ValueError(f"{label} has neither weights nor an activation for the layer before it: it is {_shown(cell)}")


def _function(label: str, cell: Entries) -> str | None:
    """The name of a layer's activation, where the struct has one."""
    name, value = _get(cell, _FUNCTION)
    if name and value is None:
        raise ValueError(f"{label}.{name} is a function handle or an object: store its name, such as 'relu'")
    if name and isinstance(value, str) and value:
        return value
    kind = _get(cell, ("type", "name"))[1]
    plain = kind.strip().lower().replace("_", "").replace("-", "") if isinstance(kind, str) else ""
    return plain if plain in ACTIVATIONS else None


def _thetas(prefix: str, scope: Entries) -> Found | None:
    """``Theta1, Theta2, ...`` or ``Theta{l}``: the bias is the first column."""
    thetas: dict[int, tuple[str, Any]] = {}
    used = []
    for name, value in scope.items():
        match = _THETA.fullmatch(name)
        if match:
            thetas[int(match["number"])] = f"{prefix}{name}", value
            used.append(name)
        elif name.lower() in ("theta", "thetas") and (isinstance(value, list) or np.ndim(value) == 2):
            cells = value if isinstance(value, list) else [value]
            used.append(name)
            for number, cell in enumerate(cells, start=1):
                thetas[number] = f"{prefix}{name}{{{number}}}", cell
    if not thetas:
        return None
    sizes = ", ".join(f"{name} {_shown(value)}" for name, value in thetas.values())
    if any(not isinstance(value, np.ndarray) or value.ndim != 2 or value.shape[1] < 2 for _, value in thetas.values()):
        raise ValueError(f"a Theta is a matrix [b W]: {sizes}")
    matrices = [thetas[number][1] for number in sorted(thetas)]
    if not _theta_fits(matrices):
        matrices = [matrix.T for matrix in matrices]
        if not _theta_fits(matrices):
            raise ValueError(f"each Theta must be [b W], a column more than the one before has rows: {sizes}")
    found = Found(known_rows=True, assumed=("logsig", "logsig"))
    for number, matrix in zip(sorted(thetas), matrices, strict=True):
        found.add("w", number, "", f"{thetas[number][0]}(:, 2:end)", np.ascontiguousarray(matrix[:, 1:]))
        found.add("b", number, "", f"{thetas[number][0]}(:, 1)", np.ascontiguousarray(matrix[:, 0]))
    found.notes.append("Theta is [b W]: its first column is the bias")
    function, found.activations = _get(scope, ("activation", "activations"))
    found.unread = [name for name in scope if name not in (*used, function)]
    return found


def _theta_fits(matrices: list[Any]) -> bool:
    return all(above.shape[1] == below.shape[0] + 1 for below, above in pairwise(matrices))


def _generated(prefix: str, scope: Entries) -> Found | None:
    """The constants of a function that ``genFunction`` wrote: ``IW1_1``, ``LW2_1``, ``b1``, ``x1_step1``."""
    pieces = {name: match for name in scope if (match := _GENERATED.fullmatch(name))}
    if not any(match["kind"] == "IW" for match in pieces.values()):
        return None
    found = Found(known_rows=True, assumed=("tansig", "none"))
    used = list(pieces)
    for name, match in pieces.items():
        expected = "1" if match["kind"] == "IW" else str(int(match["to"]) - 1)
        if match["source"] != expected or (match["kind"] == "IW" and match["to"] != "1"):
            raise ValueError(f"{prefix}{name} skips a layer: only a chain of layers is read from a file of arrays")
        found.add("w", int(match["to"]), "", f"{prefix}{name}", scope[name])
        bias = f"b{match['to']}"
        if bias in scope:
            found.add("b", int(match["to"]), "", f"{prefix}{bias}", scope[bias])
            used.append(bias)
    function, found.activations = _get(scope, ("activation", "activations", "transferfcn"))
    found.unread = [name for name in scope if name not in (*used, function)]
    return found


def _shallow(prefix: str, scope: Entries) -> Found | None:
    """A shallow network's ``IW``, ``LW`` and ``b``."""
    if "IW" not in scope:
        return None
    found = Found(known_rows=True, assumed=("tansig", "none"))
    cells = {name: _cells(scope.get(name)) for name in ("IW", "LW", "b")}
    depth = len(cells["b"]) or 1 + sum(map(_given, cells["LW"]))
    inputs = [(i, cell) for i, cell in enumerate(cells["IW"]) if _given(cell)]
    if [i for i, _ in inputs] != [0]:
        raise ValueError(
            f"{prefix}IW has weights at {', '.join(str(i + 1) for i, _ in inputs) or 'no place'}, expected IW{{1,1}} "
            "alone: only a chain of layers with one input is read from a file of arrays"
        )
    found.add("w", 1, "", f"{prefix}IW{{1,1}}", inputs[0][1])
    for to, source, weight in _between(prefix, cells["LW"], depth):
        found.add("w", to, "", f"{prefix}LW{{{to},{source}}}", weight)
    for number, bias in enumerate(cells["b"], start=1):
        if _given(bias):
            found.add("b", number, "", f"{prefix}b{{{number}}}", bias)
    found.activations = _transfer_functions(prefix, scope)
    _processing(found, prefix, scope)
    found.unread = [name for name in scope if name not in (*_SHALLOW, "activations")]
    return found


def _cells(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if _given(value) else []


def _between(prefix: str, cells: list[Any], depth: int) -> list[tuple[int, int, Any]]:
    """Layer weights as (to, from, W): of the square cell that a network has, or of those alone, in order."""
    if len(cells) != depth * depth or depth == 1:
        given = [cell for cell in cells if _given(cell)]
        return [(number + 1, number, cell) for number, cell in enumerate(given, start=1)]
    placed = [(i % depth + 1, i // depth + 1, cell) for i, cell in enumerate(cells) if _given(cell)]  # columns first
    for to, source, _ in placed:
        if to != source + 1:
            raise ValueError(
                f"{prefix}LW{{{to},{source}}} is no connection to the next layer: only a chain of layers is read from "
                "a file of arrays"
            )
    return placed


def _transfer_functions(prefix: str, scope: Entries) -> Any:
    _, names = _get(scope, ("activations", "transferfcn", "transferfcns"))
    if names is not None:
        return names
    layers = [cell for cell in _cells(scope.get("layers")) if isinstance(cell, dict)]
    functions = [_function(f"{prefix}layers{{{i}}}", cell) for i, cell in enumerate(layers, start=1)]
    return [name or "none" for name in functions] if any(functions) else None


def _processing(found: Found, prefix: str, scope: Entries) -> None:
    inputs, outputs = (
        [cell for cell in _cells(scope.get(name)) if isinstance(cell, dict)] for name in ("inputs", "outputs")
    )
    if not inputs and "processFcns" in scope:
        inputs = [dict(scope)]
    if not inputs:
        found.notes.append(
            f"the file says nothing of {prefix}inputs{{1}}.processFcns: the input is taken unscaled. Networks of "
            "fitnet, feedforwardnet and patternnet use mapminmax unless told otherwise"
        )
    before = [step for i, cell in enumerate(inputs, start=1) for step in steps_of(f"{prefix}inputs{{{i}}}", cell)]
    behind = [step for i, cell in enumerate(outputs, start=1) for step in steps_of(f"{prefix}outputs{{{i}}}", cell)]
    if before:
        _scale_input(found, before, "")
    if behind:
        _scale_output(found, behind, "")


def contents(entries: Entries) -> str:
    """Return what a file holds, with sizes, in words."""
    return ", ".join(f"{name} ({_shown(value)})" for name, value in entries.items()) or "no entries"


def _shown(value: Any, depth: int = 0) -> str:
    if value is None:
        return "an object or function"
    if isinstance(value, str):
        return f"text {value[:40]!r}"
    if isinstance(value, dict):
        shown = [f"{name} ({_shown(part, depth + 1)})" for name, part in list(value.items())[:12]]
        shown += ["..."] if len(value) > 12 else []
        return f"struct with {', '.join(shown) or 'no fields'}" if depth < 3 else "struct"
    if isinstance(value, list):
        kind = "array" if value and all(isinstance(cell, dict) for cell in value) else "cell"
        return f"{kind} of {len(value)}" + (f", first: {_shown(value[0], depth + 1)}" if value and depth < 3 else "")
    kind = {"float64": "double", "float32": "single"}.get(value.dtype.name, value.dtype.name)
    return f"{'x'.join(map(str, np.shape(value)))} {kind}"


def way_out(entries: Entries) -> str:
    """Return the line of MATLAB that makes a file readable."""
    if any(value is None for value in entries.values()):
        name = next(name for name, value in entries.items() if value is None)
        return (
            f"If {name} is a network of the Deep Learning Toolbox: exportONNXNetwork({name}, 'net.onnx'). If it is a "
            f"shallow one (fitnet, patternnet): IW = {name}.IW; LW = {name}.LW; b = {name}.b; transferFcn = "
            f"cellfun(@(l) l.transferFcn, {name}.layers, 'UniformOutput', false); x1_step1 = "
            f"{name}.inputs{{1}}.processSettings{{end}}; y1_step1 = {name}.outputs{{end}}.processSettings{{end}}; "
            "save('net.mat', 'IW', 'LW', 'b', 'transferFcn', 'x1_step1', 'y1_step1', '-v7')"
        )
    return (
        "Name them W1, b1, W2, b2, ... from the input up, or W{1}, b{1}, ...; from a cell of structs: "
        "W = cellfun(@(l) l.W, nn.layers, 'UniformOutput', false); b = cellfun(@(l) l.b, nn.layers, 'UniformOutput', "
        "false); save('net.mat', 'W', 'b', '-v7')"
    )
