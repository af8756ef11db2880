"""Recurrent layers among plainly named arrays: torch's names in an ``.npz`` or MATLAB file, MATLAB's own properties.

``arrays.py`` calls in and gets the layers and what is left over, which is dense; ``mat_recurrent.py`` finds those that
are kept as MATLAB has them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import GRU, LSTM, RNN, Dense, Layer, PositionwiseDense, Recurrent, Transpose
from pylrp.present.text import shown

__all__ = ["Front", "array_of", "head_of", "in_order", "is_of_torch", "of_torch", "per_step"]

Array = NDArray[Any]

#: Gates by rows over units.
KINDS: dict[int, type[Recurrent]] = {4: LSTM, 3: GRU, 1: RNN}
_TORCH = re.compile(
    r"(?P<stem>.*?)(?P<role>weight|bias)_(?P<side>ih|hh|hr)(?:_l(?P<layer>\d{1,4}))?(?P<reverse>_reverse)?",
    re.IGNORECASE,
)
_HEAD = re.compile(r"(?P<stem>\D+)[._](?P<role>weight|bias)", re.IGNORECASE)
_RETURNS, _FUNCTION = "returns", "nonlinearity"


@dataclass
class Front:
    """The recurrent layers of a file, from the input up.

    Attributes
    ----------
    layers : list of Recurrent
    rest : dict of str to object
        The file's other entries.
    notes : list of str
    projections : list of ndarray or None
        The linear maps behind the layers, where there are any: the states of LSTMs with ``weight_hr``.
    """

    layers: list[Recurrent]
    rest: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    projections: list[Array | None] = field(default_factory=list)

    @property
    def chain(self) -> list[Layer]:
        """Return the layers with the linear maps behind them."""
        found: list[Layer] = []
        for layer, weight in itertools.zip_longest(self.layers, self.projections):
            found.append(layer)
            if weight is not None:
                found += per_step(Dense(weight)) if layer.returns == "sequence" else [Dense(weight)]
        return found

    @property
    def features(self) -> int:
        """Return how many features a step of the input has."""
        return int(np.shape(self.layers[0].weight)[-1])

    @property
    def every_step(self) -> bool:
        """Tell whether the last layer's output is a sequence."""
        return self.layers[-1].returns == "sequence"

    def ending(self, returns: Any) -> Front:
        """Return it with the output of the last layer: "last", "sequence", or None where the file does not say."""
        notes = list(self.notes)
        if returns is None:
            notes.append("no entry returns: the state after the last step is taken, not that of every step")
        elif returns not in ("last", "sequence"):
            raise ValueError(f"returns is {returns!r}, expected 'last' or 'sequence'")
        layers = [replace(layer, returns="sequence") for layer in self.layers[:-1]]
        layers.append(replace(self.layers[-1], returns=returns or "last"))
        return Front(layers, self.rest, notes, self.projections)


def is_of_torch(name: str, *, beside: bool = False) -> bool:
    """Tell whether a name is one of torch's recurrent layers; ``beside``: or means something beside them."""
    if beside and (name in (_RETURNS, _FUNCTION) or _HEAD.fullmatch(name)):
        return True
    return bool(_TORCH.fullmatch(name))


def of_torch(entries: Mapping[str, Any]) -> Front | None:
    """Return the layers whose weights are called as in torch's LSTM, GRU and RNN; None where there are none.

    Raises
    ------
    ValueError
        If arrays are missing or do not fit, or names do not say in which order the layers come.
    """
    modules: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}
    rest = {}
    for name, value in entries.items():
        match = _TORCH.fullmatch(name)
        if match is None:
            rest[name] = value
            continue
        place = int(match["layer"] or 0), int(match["reverse"] is not None)
        arrays = modules.setdefault(match["stem"], {}).setdefault(place, {})
        arrays[f"{match['role']}_{match['side']}".lower()] = array_of(shown(name), value)
    if not modules:
        return None
    returns, function = rest.pop(_RETURNS, None), rest.pop(_FUNCTION, "tanh")
    found = [pair for stem in in_order(list(modules)) for pair in _stack(stem, modules[stem], str(function))]
    layers = [layer for layer, _ in found]
    front = Front(layers, rest, projections=[projection for _, projection in found])
    if any(isinstance(layer, RNN) for layer in layers) and _FUNCTION not in entries:
        front.notes.append("no entry nonlinearity: tanh assumed in the simple recurrent layers")
    return front.ending(returns)


def in_order(stems: list[str]) -> list[str]:
    """Return the modules from the input up, by the number in their names."""
    if len(stems) == 1:
        return stems
    parts = [re.fullmatch(r"(.*?)(\d+)([._]?)", stem) for stem in stems]
    numbers = {int(part[2]): stem for part, stem in zip(parts, stems, strict=True) if part}
    if len(numbers) != len(stems) or len({(part[1], part[3]) for part in parts if part}) > 1:
        raise ValueError(
            f"names do not say how the layers {', '.join(shown(stem) for stem in stems)} are connected: "
            "number them from the input up, lstm1, lstm2, or make a pylrp.network.Graph of pylrp.layers"
        )
    return [numbers[number] for number in sorted(numbers)]


def _stack(
    stem: str, found: Mapping[tuple[int, int], dict[str, Any]], function: str
) -> list[tuple[Recurrent, Array | None]]:
    """Return the layers of one module, each with the linear map behind it.

    A projected state is ``h = P m`` of what the cell puts out; ``U h = (U P) m``, so that m is the state of an LSTM.
    """
    both = max(reverse for _, reverse in found) + 1
    count = max(number for number, _ in found) + 1
    layers: list[tuple[Recurrent, Array | None]] = []
    for number in range(count):
        directions = [found.get((number, reverse), {}) for reverse in range(both)]
        for reverse, arrays in enumerate(directions):
            where = f"{shown(stem)}*_l{number}{'_reverse' * reverse}"
            if not {"weight_ih", "weight_hh"} <= set(arrays) or set(arrays) != set(directions[0]):
                raise ValueError(f"{where} has {', '.join(arrays) or 'no arrays'}, expected weight_ih, weight_hh and "
                                 "as many biases in each direction")  # fmt: skip
        joined = {name: _joined([arrays[name] for arrays in directions], name, number) for name in directions[0]}
        projection = _projection(joined, number)
        more = {"activations": (function.lower(),)} if _rows_over_units(joined, number) == 1 else {}
        kind = KINDS[_rows_over_units(joined, number)]
        layer = kind(joined["weight_ih"], joined["weight_hh"], _flat(joined.get("bias_ih"), both),
                     _flat(joined.get("bias_hh"), both), **more)  # type: ignore[arg-type]  # fmt: skip
        layers.append((layer, projection))
    return layers


def _projection(arrays: dict[str, Array], number: int) -> Array | None:
    """Return the linear map of the states of all directions, and put it into the weights that take them."""
    maps, recurrent = arrays.pop("weight_hr", None), arrays["weight_hh"]
    if maps is None:
        return None
    if (
        not maps.ndim == recurrent.ndim >= 2
        or maps.shape[-2] != recurrent.shape[-1]
        or recurrent.shape[-2] != 4 * maps.shape[-1]
    ):
        raise ValueError(
            f"weight_hr_l{number} is {maps.shape[-2:]}, weight_hh_l{number} {recurrent.shape[-2:]}: expected "
            "(projected, units) and (4 * units, projected)"
        )
    arrays["weight_hh"] = np.matmul(recurrent, maps)
    if maps.ndim == 2:
        return maps
    (rows, units), count = maps.shape[1:], len(maps)
    joined = np.zeros((count * rows, count * units), maps.dtype)
    for d, weight in enumerate(maps):
        joined[d * rows : (d + 1) * rows, d * units : (d + 1) * units] = weight
    return joined


def _joined(arrays: Sequence[Array], name: str, number: int) -> Array:
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"{name}_l{number} has shape {arrays[0].shape}, {name}_l{number}_reverse {arrays[1].shape}")
    return arrays[0] if len(arrays) == 1 else np.stack(arrays)


def _flat(bias: Array | None, directions: int) -> Array | None:
    """Return a bias without axes of length 1, as MATLAB files have them."""
    return None if bias is None else bias.reshape(-1) if directions == 1 else bias.reshape(directions, -1)


def _rows_over_units(arrays: Mapping[str, Array], number: int) -> int:
    w, u = arrays["weight_ih"].shape, arrays["weight_hh"].shape
    gates = w[-2] / max(u[-1], 1) if len(w) == len(u) >= 2 else 0
    if gates not in KINDS or u[-2] != w[-2]:
        raise ValueError(
            f"weight_ih_l{number} is {w[-2:]}, weight_hh_l{number} {u[-2:]}: expected (k * units, features) and "
            "(k * units, units) with k = 4 (LSTM), 3 (GRU) or 1 (RNN)"
        )
    return int(gates)


def array_of(name: str, value: Any) -> Array:
    """Return an entry as an array of floating-point numbers.

    Raises
    ------
    TypeError
        If it is none.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise TypeError(f"{name} is no array of numbers but {getattr(value, 'dtype', type(value).__name__)}")
    return value if value.dtype.kind == "f" else value.astype(np.float64)


def head_of(rest: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the entries with a single dense layer that has no number, ``fc.weight``, as ``W, b``; and its name.

    Raises
    ------
    ValueError
        If there are several of them.
    """
    stems: dict[str, dict[str, str]] = {}
    for name in rest:
        if match := _HEAD.fullmatch(name):
            stems.setdefault(match["stem"], {})["W" if match["role"].lower() == "weight" else "b"] = name
    if len(stems) > 1:
        raise ValueError(
            f"names do not say how {', '.join(shown(stem) for stem in stems)} are connected: number dense layers, "
            "fc1.weight, fc2.weight, or make a pylrp.network.Graph of pylrp.layers"
        )
    for stem, names in stems.items():
        whole = {name: value for name, value in rest.items() if name not in names.values()}
        return whole | {role: rest[name] for role, name in names.items()}, stem
    return dict(rest), ""


def per_step(layer: Dense) -> list[Layer]:
    """Return a dense layer at every step of a sequence ``(steps, features)``."""
    made = replace(PositionwiseDense.along(1, np.asarray(layer.weight), layer.bias), name=layer.name)
    return [Transpose((1, 0)), made, Transpose((1, 0))]
