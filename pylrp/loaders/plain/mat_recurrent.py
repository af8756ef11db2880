"""MATLAB's lstmLayer, bilstmLayer and gruLayer, their properties saved as variables, structs or a cell of structs.

``arrays.py`` calls :func:`of_matlab`; the layers go on as those of ``recurrent.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import GRU, LSTM, Recurrent
from pylrp.loaders.plain.recurrent import Front, array_of, in_order

__all__ = ["of_matlab"]

Array = NDArray[Any]
Entries = Mapping[str, Any]

_FUNCTIONS: dict[str, Any] = {
    "sigmoid": "sigmoid",
    "hard-sigmoid": ("hard_sigmoid", 0.2, 0.5),
    "tanh": "tanh",
    "softsign": "softsign",
    "relu": "relu",
}
_MODES = ("after-multiplication", "before-multiplication", "recurrent-bias-after-multiplication")


def of_matlab(entries: Entries) -> Front | None:
    """Return the layers that a file has as MATLAB does; None where there are none.

    Each is ``InputWeights`` and ``RecurrentWeights``, with or without ``Bias``, ``HiddenState``, ``CellState``,
    ``OutputMode``, ``StateActivationFunction``, ``GateActivationFunction`` and ``ResetGateMode``: variables of the
    file, fields of one struct for each layer (several are numbered: ``lstm1``, ``lstm2``), or of the structs in a cell
    or an array, from the input up. Dense layers behind them are structs with ``Weights`` and ``Bias``.

    Rows are in blocks of H units. LSTM, 4H rows: input gate i, forget gate f, cell candidate g, output gate o; two
    directions have 8H, the forward one first. GRU, 3H rows: reset gate r, update gate z, candidate n. With ``Bias`` b
    and ``ResetGateMode``::

        r = s(W_r x + R_r h' + b_r)    z = s(W_z x + R_z h' + b_z)    h = (1 - z) n + z h'
        "after-multiplication"                   n = t(W_n x + b_n + r (R_n h')), MATLAB's default
        "before-multiplication"                  n = t(W_n x + b_n + R_n (r h'))
        "recurrent-bias-after-multiplication"    n = t(W_n x + b_n + r (R_n h' + c_n)), Bias is (b; c), 6H rows,
                                                 and c_r, c_z are added in r and z

    Without ``ResetGateMode`` a bias of 6H rows means the third, any other the first.

    Raises
    ------
    ValueError
        If sizes do not fit, or a property has a value that is not MATLAB's.

    References
    ----------
    The MathWorks, Deep Learning Toolbox: "gruLayer", "lstmLayer", "bilstmLayer".
    """
    rest: dict[str, Any] = {}
    recurrent: dict[str, dict[str, Any]] = {}
    dense: dict[str, dict[str, Any]] = {}
    for name, value, properties in _places(entries):
        if "inputweights" in properties and "recurrentweights" in properties:
            if name.endswith("}") and dense:
                raise ValueError(f"{name} stands behind a dense layer, which can't be read: export the network to ONNX")
            recurrent[name] = properties
        elif "weights" in properties:
            dense[name] = properties
        elif name:
            rest[name] = value
    if not recurrent:
        return None
    order = _in_order(recurrent)
    for number, name in enumerate(_in_order(dense), start=1):
        rest[f"W{number}"] = dense[name]["weights"]
        if "bias" in dense[name]:
            rest[f"b{number}"] = dense[name]["bias"]
    returns = recurrent[order[-1]].get("outputmode")
    return Front([_layer(name, recurrent[name]) for name in order], rest).ending(returns)


def _in_order(names: Iterable[str]) -> list[str]:
    """Return the layers from the input up: in a cell as they stand; variables have no order in files of version 7.3."""
    names = list(names)
    return names if all(name.endswith("}") for name in names) else in_order(names)


def _places(entries: Entries) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield what may be a layer: its name, value, and its properties in small letters."""
    own = _properties(entries)
    if "inputweights" in own:
        used = {"inputweights", "recurrentweights", "bias", "hiddenstate", "cellstate", "outputmode", "resetgatemode",
                "stateactivationfunction", "gateactivationfunction"}  # fmt: skip
        yield "", None, own
        entries = {name: value for name, value in entries.items() if name.lower() not in used}
    for name, value in entries.items():
        cells = value if isinstance(value, list) and value and all(isinstance(cell, dict) for cell in value) else None
        if cells is None:
            yield name, value, _properties(value) if isinstance(value, dict) else {}
            continue
        for number, cell in enumerate(cells, start=1):
            yield f"{name}{{{number}}}", cell, _properties(cell)


def _properties(scope: Entries) -> dict[str, Any]:
    """Return the fields of a struct that hold something: those of an array of structs may be empty."""
    return {
        name.lower(): value
        for name, value in scope.items()
        if isinstance(value, str | dict | list) or (value is not None and np.size(value))
    }


def _layer(name: str, given: Mapping[str, Any]) -> Recurrent:
    prefix = f"{name}." if name else ""
    w, u = (array_of(f"{prefix}{title}", given[title.lower()]) for title in ("InputWeights", "RecurrentWeights"))
    gates = w.shape[0] / max(u.shape[-1], 1)
    if w.ndim != 2 or u.ndim != 2 or gates not in (3, 4, 8) or u.shape[0] != w.shape[0]:
        raise ValueError(
            f"{prefix}InputWeights is {w.shape}, {prefix}RecurrentWeights {u.shape}: expected (k * units, features) "
            "and (k * units, units) with k = 4 (lstmLayer), 8 (bilstmLayer) or 3 (gruLayer)"
        )
    bias: Array | None = array_of(f"{prefix}Bias", given["bias"]).reshape(-1) if "bias" in given else None
    gate = _function(prefix, given, "GateActivationFunction", "sigmoid")
    state = _function(prefix, given, "StateActivationFunction", "tanh")
    two = gates == 8
    settings: dict[str, Any] = {}
    for title, first in (("HiddenState", "first_h"), ("CellState", "first_c")):
        if title.lower() in given and np.any(given[title.lower()]):
            states = array_of(f"{prefix}{title}", given[title.lower()])
            settings[first] = states.reshape(2, -1) if two else states.reshape(-1)
    if gates == 3:
        return _gru(prefix, given, (w, u), bias, activations=(gate, state), **settings)
    if bias is not None and len(bias) != len(w):
        raise ValueError(f"{prefix}Bias has {len(bias)} rows, {prefix}InputWeights has {len(w)}")
    if two:
        w, u = w.reshape(2, -1, w.shape[1]), u.reshape(2, -1, u.shape[1])
        bias = None if bias is None else bias.reshape(2, -1)
    return LSTM(w, u, bias, gates="ifgo", activations=(gate, state, state), **settings)


def _gru(prefix: str, given: Entries, arrays: tuple[Array, Array], bias: Array | None, **settings: Any) -> GRU:
    rows = len(arrays[0])
    both = bias is not None and len(bias) == 2 * rows
    mode = given.get("resetgatemode", _MODES[2] if both else _MODES[0])
    if mode not in _MODES:
        raise ValueError(f"{prefix}ResetGateMode is {mode!r}, expected {', '.join(_MODES)}")
    expected = 2 * rows if mode == _MODES[2] else rows
    if bias is not None and len(bias) != expected:
        raise ValueError(f"{prefix}Bias has {len(bias)} rows, expected {expected} for {mode!r}")
    outer, inner = (bias, None) if bias is None or not both else (bias[:rows], bias[rows:])
    return GRU(*arrays, outer, inner, gates="rzn", reset_after=mode != _MODES[1], **settings)


def _function(prefix: str, given: Entries, title: str, usual: str) -> Any:
    name = given.get(title.lower(), usual)
    if name not in _FUNCTIONS:
        raise ValueError(f"{prefix}{title} is {name!r}, expected {', '.join(_FUNCTIONS)}")
    return _FUNCTIONS[name]
