"""The inputs of an ONNX model: their declared sizes, those that a user gives, and the axes that may have any length.

``onnx/reader.py`` asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from onnx import ModelProto, TensorShapeProto, ValueInfoProto

from pylrp.errors import UnsupportedLayer
from pylrp.layers import Shape
from pylrp.loaders.onnx.file import ModelFile
from pylrp.loaders.onnx.node import type_name
from pylrp.loaders.onnx.operators import FLOATS
from pylrp.loaders.onnx.sides import SIDE_KINDS
from pylrp.loaders.onnx.views import PLAIN, View

__all__ = [
    "SHORTER",
    "USUAL",
    "InputShape",
    "declared",
    "free_axes",
    "left_out",
    "open_batches",
    "pasts",
    "pixel_ranges",
    "second_axes",
    "shape_of",
    "usual_shape",
    "with_batch_first",
    "without_presents",
]

InputShape = Sequence[int] | Mapping[str, Sequence[int]]
#: The length of what has any, for a start; the others where the model can't take it: a table of fewer positions.
USUAL = 8
SHORTER = (4, 2)
_SEQUENCE = 3  # axes of a batch of sequences
_JOINED = 5  # axes of keys and values in one input
_PAST = re.compile(r"past(_|\.|$)", re.IGNORECASE)
_PRESENT = re.compile(r"present(_|\.|$)", re.IGNORECASE)


def with_batch_first(info: ValueInfoProto, view: View, example: Shape | None = None) -> ValueInfoProto:
    """Return an input as it would be declared with the batch first; one of a single sequence gets a batch.

    Sizes that are open are those of an example, if there is one: a shape with the batch where the file has it.
    """
    if view == PLAIN:
        return info
    made = ValueInfoProto()
    made.CopyFrom(info)
    dims = list(made.type.tensor_type.shape.dim)
    for dim, size in zip(dims, example or (), strict=False):
        dim.dim_value = dim.dim_value or size
    batch = [TensorShapeProto.Dimension()] if view.merged else [dims.pop(view.batch)]
    del made.type.tensor_type.shape.dim[:]
    made.type.tensor_type.shape.dim.extend([*batch, *dims])
    return made


def open_batches(inputs: Mapping[str, ValueInfoProto]) -> list[dict[str, View]]:
    """Return where the batch is if it is what the file leaves open: one axis of an input that is not its first."""
    found = {}
    for name, info in _activations(inputs).items():
        left = [axis for axis, size in enumerate(declared(info) or []) if size is None]
        if len(left) == 1 and left[0]:
            found[name] = View(left[0])
    return [found] if found else []


def second_axes(inputs: Mapping[str, ValueInfoProto], *, traced: bool) -> list[dict[str, View]]:
    """Return the batch as axis 1 of all inputs that have features beside it: (tokens, batch, features).

    Unless the file has been written just now, for an example, it must leave that axis open or have one sample there.
    """
    sizes = {name: declared(info) or [] for name, info in _activations(inputs).items()}
    found = {name: View(1) for name, n in sizes.items() if len(n) >= _SEQUENCE and (traced or n[1] in (None, 1))}
    return [found] if found else []


def _activations(inputs: Mapping[str, ValueInfoProto]) -> dict[str, ValueInfoProto]:
    return {name: info for name, info in inputs.items() if info.type.tensor_type.elem_type in FLOATS}


def pasts(inputs: Mapping[str, ValueInfoProto], given: InputShape | None) -> dict[str, tuple[Shape, int]]:
    """Return the inputs of earlier keys and values, with the shape of an empty one of one sample, and its batch.

    They are called so in all decoders, have an axis of any length and stand beside token ids. The batch is axis 0, or
    axis 1 where keys and values are one input, (2, batch, heads, tokens, width).
    """
    if not any(info.type.tensor_type.elem_type in SIDE_KINDS for info in inputs.values()):
        return {}
    found: dict[str, tuple[Shape, int]] = {}
    for name, info in inputs.items():
        sizes = list(declared(info) or [])
        axis = 1 if len(sizes) == _JOINED and sizes[0] == 2 else 0
        rest = sizes[:axis] + sizes[axis + 1 :]
        float_and_open = info.type.tensor_type.elem_type in FLOATS and rest.count(None) == 1
        if float_and_open and _PAST.match(name) and _given(name, given) is None:
            shape = [n or 0 for n in rest]
            found[name] = (*shape[:axis], 1, *shape[axis:]), axis
    return found


def without_presents(model: ModelProto, given: InputShape | None) -> list[str] | None:
    """Return the outputs of a decoder with inputs of earlier keys and values that are not those for later tokens.

    None where there are no such inputs, or nothing but such outputs.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = {info.name: info for info in model.graph.input if info.name not in stored}
    names = [info.name for info in model.graph.output]
    kept = [name for name in names if not _PRESENT.match(name)]
    return kept if pasts(inputs, given) and 0 < len(kept) < len(names) else None


def free_axes(
    inputs: Mapping[str, ValueInfoProto], given: InputShape | None, recurrent: bool = False
) -> dict[str, dict[int, str]]:
    """Return the axes of each input that may have any length, with what their size is called.

    They are those that a model of token ids or with recurrent layers leaves open, and those that a user's
    ``input_shape`` has None for.
    """
    of_ids = recurrent or any(info.type.tensor_type.elem_type in SIDE_KINDS for info in inputs.values())
    found: dict[str, dict[int, str]] = {}
    for name, info in inputs.items():
        sizes, wanted = declared(info) or [], _given(name, given)
        symbols = [dim.dim_param for dim in info.type.tensor_type.shape.dim][1:]
        found[name] = {
            axis: symbols[axis]
            for axis, size in enumerate(sizes[1:])
            if size is None and (of_ids if wanted is None else axis < len(wanted) and wanted[axis] is None)
        }
    return found


def usual_shape(
    info: ValueInfoProto, free: Mapping[int, str], given: InputShape | None, length: int = USUAL
) -> list[int] | None:
    """Return the shape of an input for which the network is laid out first; None where the file has all of it."""
    wanted = _given(info.name, given)
    sizes: Sequence[int | None] = (declared(info) or [None])[1:] if wanted is None else wanted
    usual = [length if axis in free else n for axis, n in enumerate(sizes)]
    known = [n for n in usual if n is not None]
    return known if len(known) == len(usual) else None


def _given(name: str, given: InputShape | None) -> Sequence[int] | None:
    return given.get(name) if isinstance(given, Mapping) else given


def declared(info: ValueInfoProto) -> list[int | None] | None:
    """Return an input's declared sizes, None where one is open; None where the rank is, too."""
    if not info.type.tensor_type.HasField("shape"):
        return None
    return [dim.dim_value or None for dim in info.type.tensor_type.shape.dim]


def shape_of(info: ValueInfoProto, given: Sequence[int] | None) -> Shape:
    """Return the shape of a sample: as declared, or as given where the file leaves it open."""
    kind = info.type.tensor_type.elem_type
    if kind not in FLOATS and kind not in SIDE_KINDS:
        held = type_name(kind) if kind else "no tensor"
        way_out = "cut the model after the layer that turns it into floating-point values"
        raise UnsupportedLayer(info.name, "input", f"holds {held}", way_out)
    sizes = declared(info)
    if sizes is not None and len(sizes) < (2 if kind in FLOATS else 1):
        way_out = "export the model with a batch axis and at least one axis of features"
        raise UnsupportedLayer(info.name, "input", f"has {len(sizes)} axes, of which the first is the batch", way_out)
    if given is not None:
        if sizes is not None and len(given) != len(sizes) - 1:
            raise ValueError(
                f"input_shape is {tuple(given)}, input {info.name!r} has {len(sizes) - 1} axes without the batch: "
                f"{_written(sizes)}"
            )
        return tuple(int(n) for n in given)
    if sizes is None or None in sizes[1:]:
        raise ValueError(
            f"input {info.name!r} has {'no shape' if sizes is None else f'shape {_written(sizes)}'} in the model: give "
            "the sizes without the batch, for example pylrp.load(..., input_shape=(3, 224, 224))"
        )
    return tuple(n for n in sizes[1:] if n is not None)


def _written(sizes: Sequence[int | None]) -> str:
    return f"(batch, {', '.join('?' if n is None else str(n) for n in sizes[1:])})"


#: What a file says of its pixels (ONNX, "Standardized metadata": Image.NominalPixelRange).
_PIXELS = {
    "NominalRange_0_255": (0.0, 255.0),
    "Normalized_0_1": (0.0, 1.0),
    "Normalized_1_1": (-1.0, 1.0),
    "NominalRange_16_235": (16.0, 235.0),
}


def pixel_ranges(file: ModelFile, shapes: Mapping[str, Shape]) -> dict[str, tuple[float, float]]:
    """Return the range of pixels that the file names, for each input that may be an image."""
    said = {entry.key: entry.value for entry in file.model.metadata_props}.get("Image.NominalPixelRange", "")
    return {name: _PIXELS[said] for name, shape in shapes.items() if said in _PIXELS and len(shape) == 3}


def left_out(names: Iterable[str]) -> list[str]:
    """Return the notes on inputs that a model declares and does not use."""
    return [f"input {name!r} changes no output and is left out" for name in names]
