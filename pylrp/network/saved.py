"""Explanations in files, and samples of explained batches: what :class:`pylrp.Explanation` does besides drawing."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp._files import save_arrays
from pylrp.errors import BrokenFile
from pylrp.network.classes import as_indices
from pylrp.network.explanation import Coefficients, Explanation, Layers
from pylrp.network.ledger import COLUMNS, Ledger, with_columns

__all__ = ["load", "part_of", "save"]

Array = NDArray[Any]
_FORMAT = 1


def part_of(ex: Explanation, which: int | slice) -> Explanation:
    """Return a sample of an explained batch, as if it had been explained alone, or some of them."""
    one = isinstance(which, int)

    def part(found: Any) -> Any:
        return {name: array[which] for name, array in found.items()} if isinstance(found, dict) else found[which]

    rows = slice(which, which + 1 or None) if isinstance(which, int) else which
    ledgers = [
        Ledger(ledger.data[:, :, rows], ledger.names, ledger.rules, single=one)
        for ledger in (ex.ledger if isinstance(ex.ledger, list) else [ex.ledger])
    ]
    settings = {**ex.settings, "single": one}
    if isinstance(settings.get("against"), list):  # one a sample
        settings["against"] = settings["against"][which]
    if settings.get("tokens") is not None:
        settings["tokens"] = settings["tokens"][which]
    if rowwise := settings.get("masks_by_sample"):
        masks = settings["masks"]
        settings["masks"] = {**masks, **{name: masks[name][which] for name in rowwise}}
    return dataclasses.replace(
        ex,
        relevance=part(ex.relevance),
        output=part(ex.output),
        target=None if ex.target is None else ex.target[rows],
        layers=ex.layers.part(part(ex.layers.kept), lambda relevance: relevance[which]),
        coefficients=ex.coefficients.part(part(ex.coefficients.kept), lambda found: found[which]),
        ledger=ledgers if isinstance(ex.ledger, list) else ledgers[0],
        input=None if ex.input is None else part(ex.input),
        origin=None if ex.origin is None else ex.origin.part(which),
        positions=None if ex.positions is None else part(ex.positions),
        settings=settings,
    )


def save(ex: Explanation, path: str | os.PathLike[str]) -> None:
    """Write an explanation to a ``.npz`` file; see :meth:`pylrp.Explanation.save`."""
    ledgers = ex.ledger if isinstance(ex.ledger, list) else [ex.ledger]
    several = isinstance(ex.ledger, list)
    arrays: dict[str, Any] = {
        "target": np.array(-1) if ex.target is None else np.asarray(ex.target),
        "composite": np.array(ex.composite),
        "ledger": np.stack([ledger.data for ledger in ledgers]),
        "ledger_columns": np.array(COLUMNS),
        "ledger_layers": np.array(ledgers[0].names),
        "ledger_rules": np.array(ledgers[0].rules),
        "notes": np.array(ex.notes, dtype=str),
    }
    by_input: dict[str, Any] = {}
    for what, found in (("features", ex.features), ("relevance", ex.relevance), ("output", ex.output),
                        ("input", ex.input), ("positions", ex.positions)):  # fmt: skip
        named = found if isinstance(found, dict) else {"": found}
        by_input.update({f"{what}/{name}" if isinstance(found, dict) else what: array
                         for name, array in named.items() if array is not None})  # fmt: skip
    by_input.update({f"layer/{name}": r for name, r in ex.layers.kept.items()})
    for name, array in by_input.items():
        arrays.update(_by_sample(name, array) if isinstance(array, list) else {name: _storable(array)})
    known = {
        "format": _FORMAT,
        "settings": {**ex.settings, "composite": ex.composite},
        "layers": list(ex.layers),
        "others": ex.layers.others,
        "several": several,
        "indices": type(ex.target) is not np.ndarray,
    }
    arrays["explanation"] = np.array(json.dumps(known, default=_plain))
    save_arrays(path, arrays)


def _storable(array: Any) -> Array:
    """Return an array without Python objects: words and gaps of a table as texts."""
    made = np.asarray(array)
    return made.astype(str) if made.dtype.hasobject else made


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _by_sample(name: str, arrays: list[Array]) -> dict[str, Array]:
    """Return arrays of samples of unequal shapes under names of their own."""
    return {f"{name}@{i}": array for i, array in enumerate(arrays)}


def _together(arrays: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the arrays with those of samples as lists again."""
    made = dict(arrays)
    for first in [name for name in arrays if name.endswith("@0")]:
        name = first.removesuffix("@0")
        made[name] = [made.pop(f"{name}@{i}") for i in range(count)]
    return made


def load(path: str | os.PathLike[str]) -> Explanation:
    """Return what :meth:`pylrp.Explanation.save` has written; see :meth:`pylrp.Explanation.load`."""
    from pylrp.loaders.guard import reading, require_file
    from pylrp.loaders.plain.npz_file import NpzFile

    require_file(Path(path))
    with reading(path, None), NpzFile(path) as file:
        if "explanation" not in file.names:
            raise BrokenFile(
                path, "", "is no explanation that ex.save(path) has written: read its arrays with numpy.load(path)"
            )
        try:
            return _made({name: file.read(name) for name in file.names})
        except BrokenFile:
            raise
        except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise BrokenFile(path, "", "is not as ex.save(path) writes it") from error


def _made(arrays: Mapping[str, Any]) -> Explanation:
    known = json.loads(str(arrays["explanation"]))
    if known["format"] != _FORMAT:
        raise ValueError(known["format"])
    settings = dict(known["settings"])
    if settings.get("samples"):
        arrays = _together(arrays, arrays["ledger"].shape[3])
    names, rules = (tuple(map(str, arrays[key])) for key in ("ledger_layers", "ledger_rules"))
    pages = _by_column(arrays["ledger"], tuple(map(str, arrays["ledger_columns"])), len(names))
    ledgers = [Ledger(data, names, rules, single=bool(settings["single"])) for data in pages]
    target = arrays["target"]
    target = None if target.ndim == 0 else as_indices(target) if known["indices"] else target
    kept = {name.removeprefix("layer/"): array for name, array in arrays.items() if name.startswith("layer/")}
    relevance, features = _named(arrays, "relevance"), _named(arrays, "features", lambda a: tuple(map(str, a)))
    if relevance is None:
        raise KeyError("relevance")
    if isinstance(relevance, dict):
        features = {name: (features or {}).get(name) for name in relevance}
    return Explanation(
        relevance=relevance,
        output=_named(arrays, "output"),
        target=target,
        layers=Layers(kept, list(map(str, known["layers"])), None, known["others"]),
        ledger=ledgers if known["several"] else ledgers[0],
        input=_named(arrays, "input"),
        settings=settings,
        notes=tuple(map(str, arrays["notes"])),
        features=features,
        positions=_named(arrays, "positions"),
        coefficients=Coefficients({}, list(map(str, known["layers"])), None, known["others"]),
    )


def _by_column(saved: Any, columns: tuple[str, ...], layers: int) -> Any:
    """Return the saved ledgers with the columns of this version: causes that were not known then took nothing."""
    if saved.ndim != 4 or saved.shape[1:3] != (layers, len(columns)) or not set(columns) <= set(COLUMNS):
        raise ValueError(saved.shape, columns)
    return np.asarray(saved) if columns == COLUMNS else [with_columns(pages, columns) for pages in saved]


def _as_saved(array: Any) -> Any:
    return array if isinstance(array, list) else np.asarray(array)


def _named(arrays: Mapping[str, Any], what: str, read: Callable[[Any], Any] = _as_saved) -> Any:
    """Return an array, or a dict of several by name; None where there is none."""
    if what in arrays:
        return read(arrays[what])
    start = f"{what}/"
    return {name[len(start) :]: read(array) for name, array in arrays.items() if name.startswith(start)} or None
