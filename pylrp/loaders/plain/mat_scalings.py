"""mapminmax, mapstd and removeconstantrows: what a shallow network of MATLAB does before its first and behind its last
layer.

``mat_networks.py`` calls in. Each is ``y = (x - xoffset) * gain + y0`` of a feature, and its reverse at the output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Affine, Layer

__all__ = ["Step", "Steps", "input_layers", "named_scalings", "output_layers", "remove_rows", "steps_of"]

Array = NDArray[Any]

# Names under which settings stand beside the weights: genFunction's, and those of people who call mapminmax themselves.
_INPUT = re.compile(r"x\d*_step\d+|ps_?(in|input|inputs|x)\d*|(in|input|inputs|x)_?(ps|settings)", re.IGNORECASE)
_OUTPUT = re.compile(
    r"y\d*_step\d+|ps_?(out|output|outputs|y|t|target|targets)\d*"
    r"|(out|output|outputs|y|t|target|targets)_?(ps|settings)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Step:
    """One step: a scaling, or the rows that it keeps of how many."""

    name: str
    scale: Array | None = None
    shift: Array | None = None
    keep: Array | None = None
    rows: int = 0


Steps = list[Step]


def steps_of(where: str, cell: Mapping[str, Any]) -> Steps:
    """Return the steps of ``net.inputs{1}`` or ``net.outputs{end}``, those left out that change nothing.

    Raises
    ------
    ValueError
        If there is a step of another kind, or one without settings.
    """
    functions, settings = cell.get("processFcns", []), cell.get("processSettings", [])
    names = [functions] if isinstance(functions, str) and functions else functions
    names = names if isinstance(names, list) else []
    given = settings if isinstance(settings, list) else [settings]
    if len(given) < len(names):
        raise ValueError(
            f"{where} has the steps {', '.join(map(str, names))}, but settings for {len(given)}: save its "
            "processSettings, too"
        )
    steps = [_step(f"{where}: {name}", str(name), part) for name, part in zip(names, given, strict=False)]
    return [step for step in steps if step is not None]


def named_scalings(entries: Mapping[str, Any]) -> tuple[Steps, Steps, list[str]]:
    """Return the steps of the input, of the output, and the names of the entries they come from.

    Raises
    ------
    ValueError
        If there are settings and their name does not tell where they belong.
    """
    before: Steps = []
    behind: Steps = []
    used = []
    for name in sorted(entries):
        value = entries[name]
        if not isinstance(value, dict) or not _is_settings(value):
            continue
        if not (_INPUT.fullmatch(name) or _OUTPUT.fullmatch(name)):
            raise ValueError(
                f"{name} looks like settings of {value.get('name') or 'mapminmax'}, and its name does not tell where "
                "they apply: call it x1_step1 if they scale the input, y1_step1 if the output"
            )
        kind = str(value.get("name") or ("mapstd" if "ymean" in value else "mapminmax" if "ymin" in value else "?"))
        step = _step(name, "removeconstantrows" if "keep" in value else kind, value)
        used.append(name)
        if step is not None:
            (before if _INPUT.fullmatch(name) else behind).append(step)
    return before, behind, used


def _is_settings(value: Mapping[str, Any]) -> bool:
    names = set(value)
    return {"gain", "xoffset"} <= names or {"ymin", "ymax", "xmin", "xmax"} <= names or "keep" in names


def _step(where: str, name: str, settings: Any) -> Step | None:
    if not isinstance(settings, Mapping):
        raise ValueError(f"{where}: its settings are no struct")
    if name == "removeconstantrows":
        return _kept(where, settings)
    if name not in ("mapminmax", "mapstd"):
        raise ValueError(f"{where}: only mapminmax, mapstd and removeconstantrows are read; retrain without it")
    if _number(settings, "no_change"):
        return None
    if name == "mapminmax":
        low, high, base = _vector(settings, "xmin"), _vector(settings, "xmax"), _number(settings, "ymin", -1.0)
        reach = _number(settings, "ymax", 1.0) - base
    else:
        low, spread, base = _vector(settings, "xmean"), _vector(settings, "xstd"), _number(settings, "ymean", 0.0)
        reach = _number(settings, "ystd", 1.0)
        high = None if low is None or spread is None else low + spread
    gain, offset = _vector(settings, "gain"), _vector(settings, "xoffset")
    if gain is None and low is not None and high is not None:
        span = high - low
        gain = np.where((span == 0) | ~np.isfinite(span), 1.0, reach / np.where(span == 0, 1.0, span))
    offset = low if offset is None else offset
    if gain is None or offset is None or len(gain) != len(offset):
        raise ValueError(f"{where}: its settings have neither gain and xoffset nor the ranges they come from")
    return Step(name, gain, base - offset * gain)


def _kept(where: str, settings: Mapping[str, Any]) -> Step | None:
    removed, keep = _vector(settings, "remove"), _vector(settings, "keep")
    if removed is None and "remove" in settings:  # an empty one
        return None
    if removed is None or keep is None:
        raise ValueError(f"{where}: its settings must name the rows that go (remove) and those that stay (keep)")
    rows = int(_number(settings, "xrows", float(len(keep) + len(removed))))
    index = np.flatnonzero(keep) if len(keep) == rows else keep.astype(np.int64) - 1
    if index.min() < 0 or index.max() >= rows:
        raise ValueError(f"{where}: it keeps row {int(index.max()) + 1} of {rows}")
    return Step("removeconstantrows", keep=index, rows=rows)


def _vector(settings: Mapping[str, Any], name: str) -> Array | None:
    value = settings.get(name)
    return None if value is None or np.size(value) == 0 else np.asarray(value, np.float64).reshape(-1)


def _number(settings: Mapping[str, Any], name: str, default: float = 0.0) -> float:
    value = _vector(settings, name)
    return default if value is None else float(value[0])


def remove_rows(steps: Steps, weight: Any) -> Any:
    """Return the first weight with a column of zeros for each input row that a step removes."""
    for step in reversed(steps):
        if step.keep is not None and isinstance(weight, np.ndarray) and weight.shape[1:] == (len(step.keep),):
            wide = np.zeros((len(weight), step.rows), weight.dtype)
            wide[:, step.keep] = weight
            weight = wide
    return weight


def input_layers(steps: Steps, dtype: np.dtype[Any]) -> list[Layer]:
    """Return the scalings of the input, over all of its rows: removed ones meet weights of zero."""
    layers: list[Layer] = []
    kept: Array | None = None
    rows = 0
    for step in steps:
        if step.keep is not None:
            kept, rows = (step.keep, step.rows) if kept is None else (kept[step.keep], rows)
            continue
        assert step.scale is not None
        assert step.shift is not None
        scale, shift = step.scale, step.shift
        if kept is not None:
            scale, shift = np.ones(rows), np.zeros(rows)
            scale[kept], shift[kept] = step.scale, step.shift
        layers.append(Affine(scale.astype(dtype), shift.astype(dtype)))
    return layers


def output_layers(steps: Steps, dtype: np.dtype[Any]) -> list[Layer]:
    """Return the reverse of the output's scalings, the last one first.

    Raises
    ------
    ValueError
        If an output that never changes was removed, or a scaling has no reverse.
    """
    layers: list[Layer] = []
    for step in reversed(steps):
        if step.scale is None or step.shift is None:
            raise ValueError("removeconstantrows at the output: outputs that never change can't be explained")
        if not step.scale.all():
            raise ValueError(f"{step.name} at the output has a gain of 0, which has no reverse")
        layers.append(Affine((1 / step.scale).astype(dtype), (-step.shift / step.scale).astype(dtype)))
    return layers
