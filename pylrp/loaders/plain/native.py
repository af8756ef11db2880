"""pylrp's own file, ``NAME.pylrp.npz``: a graph exactly as it is, every array once.

``Network.save`` and ``pylrp.load`` call in. The file is an ordinary ``.npz`` without pickled objects: the arrays, and
one entry of JSON that says which layers they belong to. Layers are read and written by their dataclass fields, so a
new layer needs no change here.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp import layers
from pylrp._arrays import memory_order
from pylrp._files import atomically, save_aligned
from pylrp.errors import BrokenFile
from pylrp.layers import Affine, BatchNorm, Conv, CustomLayer, Dense, Layer
from pylrp.loaders.plain.native_sides import decode_sides, encode_model, encode_sides, read_model
from pylrp.loaders.plain.npz_file import NpzFile
from pylrp.network.canonise.rewiring import behind_weights
from pylrp.network.graph import Facts, Graph, Node
from pylrp.network.lengths import Lengths

__all__ = ["is_native", "load_graph", "save_graph"]

#: 1: written by pylrp 0.1, which folded scalings of the input into the layers behind them.
#: 3: with token ids and masks, or a model of free lengths.
FORMAT_VERSION = 3
_READ = (1, 2, 3)
_WITHOUT_SIDES = 2  # which older versions read, too
_STRUCTURE = "pylrp.json"
_SUFFIX = ".npz"

Array = NDArray[Any]

#: Every layer that a file may name.
_LAYERS: dict[str, type[Layer]] = {
    name: kind
    for name, kind in vars(layers).items()
    if isinstance(kind, type) and issubclass(kind, Layer) and "__dataclass_fields__" in vars(kind)  # no base
}


class _Arrays:
    """The arrays of a file: each memory once, however many layers hold it."""

    def __init__(self) -> None:
        self.entries: dict[str, Array] = {}
        self.turned = False  # whether one is stored in the order of its memory
        self._known: dict[tuple[Any, ...], str] = {}

    def add(self, array: Array, wish: str) -> str:
        """Return the name under which the array is stored, ``wish`` if it is new."""
        if array.dtype.hasobject:
            raise TypeError(f"{wish} holds Python objects, which can't be saved")
        key = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        if key not in self._known:
            self._known[key] = wish
            self.entries[wish] = array
        return self._known[key]


def save_graph(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write a graph into a file that :func:`load_graph` reads back, equal to the last bit.

    The file appears whole or not at all: it is written beside its place and moved there.

    Parameters
    ----------
    graph : Graph
    path : str or PathLike
        Ends in ``.npz``, by custom in ``.pylrp.npz``.

    Raises
    ------
    TypeError
        If the graph has a :class:`pylrp.layers.CustomLayer`: its Python code can't be saved.
    ValueError
        If the name ends otherwise.
    """
    path = Path(path)
    if path.suffix != _SUFFIX:
        raise ValueError(f"{path} must end in {_SUFFIX}, for example {path.stem}.pylrp.npz")
    if graph.facts.front is not None:
        raise TypeError(
            f"imputers and encoders stand before the network, for which {_SUFFIX} has no form: keep the fitted "
            "pipeline, and load that"
        )
    lengths = graph.facts.lengths
    if lengths is not None and lengths.again is not None:
        told, stored = encode_model(graph)
        _write(path, {"version": FORMAT_VERSION, "model": told}, stored)
        return
    arrays = _Arrays()
    numbers: dict[int, int] = {}
    written: list[dict[str, Any]] = []
    nodes: list[list[Any]] = []
    for node in graph.nodes:
        if id(node.layer) not in numbers:
            numbers[id(node.layer)] = len(written)
            written.append(_write_layer(node, arrays))
        nodes.append([node.name, numbers[id(node.layer)], list(node.inputs)])
    structure = {
        "version": FORMAT_VERSION if graph.facts.sides or lengths or arrays.turned else _WITHOUT_SIDES,
        "inputs": [[name, list(shape)] for name, shape in graph.inputs.items()],
        "outputs": list(graph.outputs),
        "output_values": graph.output_values if graph.named_outputs else None,
        "channels_last": sorted(graph.channels_last),
        "notes": list(graph.notes),
        "facts": _encode_facts(graph.facts, arrays),
        "dtype": graph.dtype.name,
        "layers": written,
        "nodes": nodes,
    }
    _write(path, structure, arrays.entries)


def _write(path: Path, structure: dict[str, Any], arrays: Mapping[str, Array]) -> None:
    entries: dict[str, Any] = {_STRUCTURE: np.frombuffer(json.dumps(structure).encode(), np.uint8), **arrays}
    atomically(path, lambda part: save_aligned(part, entries))


def _encode_facts(facts: Facts, arrays: _Arrays) -> dict[str, Any]:
    """Return the facts as JSON has them: numbers and strings as they are."""
    classes = None
    if facts.classes is not None:
        classes = [label.item() if isinstance(label, np.generic) else label for label in facts.classes]
    return {
        "top": dict(facts.top),
        "classes": classes,
        "features": {name: list(names) for name, names in facts.features.items()},
        "ranges": {name: list(bounds) for name, bounds in facts.ranges.items()},
        **(
            {}
            if facts.sides is None
            else {"sides": encode_sides(facts.sides, lambda value, name: _encode(value, arrays, name))}
        ),
        **({} if facts.lengths is None else {"free": facts.lengths.free}),  # JSON makes strings of the axes
    }


def _decode_facts(stored: Mapping[str, Any], arrays: Mapping[str, Array]) -> Facts:
    classes = stored.get("classes")
    return Facts(
        top=dict(stored.get("top", {})),
        classes=None if classes is None else tuple(classes),
        features={name: tuple(names) for name, names in stored.get("features", {}).items()},
        ranges={name: (float(low), float(high)) for name, (low, high) in stored.get("ranges", {}).items()},
        sides=decode_sides(stored["sides"], lambda value: _decode(value, arrays)) if "sides" in stored else None,
    )


def _write_layer(node: Node, arrays: _Arrays) -> dict[str, Any]:
    layer = node.layer
    kind = type(layer).__name__
    if isinstance(layer, CustomLayer) or _LAYERS.get(kind) is not type(layer):
        raise TypeError(
            f"{node.name} is a {kind}, written in Python, which can't be saved: "
            "save the weights yourself and build the network again"
        )
    fields = {}
    for field in dataclasses.fields(layer):  # type: ignore[arg-type]  # all in _LAYERS are dataclasses
        value = getattr(layer, field.name)
        if field.init and (value is not None or field.name != "name"):  # pylrp 0.1 knows few layers with names
            fields[field.name] = _encode(value, arrays, f"{node.name}.{field.name}")
    return {"kind": kind, "fields": fields}


def _encode(value: object, arrays: _Arrays, name: str) -> object:
    """Return a value as JSON has it; what JSON lacks becomes a pair (what, content)."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and type(value) is float:
        return value if np.isfinite(value) else ["float", str(value)]
    if isinstance(value, tuple | list):
        return [type(value).__name__, [_encode(item, arrays, f"{name}.{i}") for i, item in enumerate(value)]]
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        axes = memory_order(array)
        if axes is not None:  # a kernel as the core stores it: so that it can be mapped
            arrays.turned = True
            return ["turned", [arrays.add(array.transpose(axes), name), *axes]]
        return ["array", arrays.add(array, name)]
    raise TypeError(f"{name} is a {type(value).__name__}, which can't be saved")


def _decode(value: object, arrays: Mapping[str, Array]) -> Any:
    if not isinstance(value, list):
        return value
    what, content = value
    if what == "array":
        return arrays[content]
    if what == "turned":
        name, *axes = content
        return arrays[name].transpose(np.argsort(axes))
    if what == "float":
        return float(content)
    items = [_decode(item, arrays) for item in content]
    return tuple(items) if what == "tuple" else items


def is_native(path: str | os.PathLike[str]) -> bool:
    """Return whether this is a file of :func:`save_graph`; False for any other."""
    try:
        with NpzFile(path) as file:
            return _STRUCTURE in file.names
    except BrokenFile:
        return False


def load_graph(path: str | os.PathLike[str], mapped: bool = False) -> Graph:
    """Read a graph that :func:`save_graph` has written.

    Parameters
    ----------
    path : str or PathLike
    mapped : bool, default False
        Weights stay in the file and are shared by all processes that map it: none is copied. Don't change the file
        while a network of it is in use. Where a part of the file is compressed, or not aligned, that is read.

    Returns
    -------
    Graph
        What was saved, to the last bit; layers and arrays that were shared are shared again. From a file of pylrp 0.1
        that may hold a scaling of the input as part of its first layer, with a note.

    Raises
    ------
    BrokenFile
        If it is no such file, or a broken one.
    ValueError
        If it was written by a newer pylrp.
    """
    path = Path(path)
    structure, arrays = _read(path, mapped)
    try:
        if "model" in structure:
            return read_model(structure["model"], arrays)
        kinds = [entry["kind"] for entry in structure["layers"]]
        if not all(isinstance(kind, str) for kind in kinds):
            raise TypeError("a kind of layer is no name")
        unknown = set(kinds) - set(_LAYERS)
        if not unknown:
            graph = _with_lengths(_build(structure, arrays), (structure.get("facts") or {}).get("free"))
            return graph if structure["version"] > 1 else _noted(graph)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise BrokenFile(path, f"entry {_STRUCTURE!r}", f"is broken: {error}") from error
    raise ValueError(f"{path} has layers that this pylrp does not know, {', '.join(sorted(unknown))}: update pylrp")


def _with_lengths(graph: Graph, free: Mapping[str, Mapping[str, str]] | None) -> Graph:
    """Return a graph whose layers are the same for all lengths of some axes."""
    if free is None:
        return graph
    axes = {name: {int(axis): size for axis, size in free.get(name, {}).items()} for name in graph.inputs}
    return graph.changed(facts=dataclasses.replace(graph.facts, lengths=Lengths(dict(graph.inputs), axes,
                                                                                keep_top=True)))  # fmt: skip


def _read(path: Path, mapped: bool = False) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the description and the arrays."""
    with NpzFile(path, mapped=mapped) as file:
        if _STRUCTURE not in file.names:
            raise BrokenFile(path, "", "is no file of pylrp: it has no description of a network")
        try:
            described = file.read(_STRUCTURE)
            structure = json.loads(b"" if described is None else described.tobytes())
            version = structure["version"]
        except BrokenFile:
            raise
        except (LookupError, RecursionError, TypeError, ValueError) as error:
            raise BrokenFile(path, f"entry {_STRUCTURE!r}", f"is no description of a network: {error}") from error
        arrays: dict[str, Array] = {}
        # A newer file may hold what can't be read here: look no further.
        for name in file.names if version in _READ else ():
            array = None if name == _STRUCTURE else file.read(name)
            if array is not None:
                arrays[name] = array
    if version not in _READ:
        raise ValueError(f"{path} has format version {version}, this pylrp reads up to {FORMAT_VERSION}: update pylrp")
    return structure, arrays


def _noted(graph: Graph) -> Graph:
    """Return a graph of pylrp 0.1 with a note where it may hold a scaling of the input, folded."""
    behind = behind_weights(graph)
    layers = {node.name: node.layer for node in graph.nodes}
    first = [
        node.name
        for node in graph.nodes
        if isinstance(node.layer, Dense | Conv)
        and behind.isdisjoint(node.inputs)
        # It folded whatever it could: a scaling that is still there was all of it. What several layers take, it left.
        and not isinstance(layers.get(node.inputs[0]), Affine | BatchNorm)
        and len(graph.consumers(node.inputs[0])) == 1
    ]
    if not first:
        return graph
    note = (
        "the file is of pylrp 0.1, which folded scalings of the input into the first layers "
        f"(here {', '.join(first)}): if the model has any, load the model itself and save again"
    )
    return graph.changed(notes=[*graph.notes, note])


def _build(structure: dict[str, Any], arrays: Mapping[str, Array]) -> Graph:
    made = [
        _LAYERS[entry["kind"]](**{name: _decode(value, arrays) for name, value in entry["fields"].items()})
        for entry in structure["layers"]
    ]
    return Graph(
        {name: tuple(shape) for name, shape in structure["inputs"]},
        [Node(name, made[number], tuple(inputs)) for name, number, inputs in structure["nodes"]],
        structure.get("output_values") or structure["outputs"],
        channels_last=structure["channels_last"],
        notes=structure["notes"],
        facts=_decode_facts(structure.get("facts", {}), arrays),
        dtype=structure["dtype"],
    )
