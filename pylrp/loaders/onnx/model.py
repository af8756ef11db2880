"""An ONNX file or ModelProto as a graph of layers.

Read once by ``onnx/reader.py``; where lengths are open, anew for each of them. What can't be explained is
:class:`pylrp.UnsupportedLayer` before any work is done.
``loaders/__init__.py`` calls :func:`load_onnx`; the graph goes to ``canonise``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import DTypeLike

from pylrp.errors import BrokenFile, UnsupportedLayer
from pylrp.layers import Shape
from pylrp.loaders.onnx.batch_order import with_samples_in_order
from pylrp.loaders.onnx.branches import with_branches_taken
from pylrp.loaders.onnx.by_hand import Operator
from pylrp.loaders.onnx.constants import Stored
from pylrp.loaders.onnx.file import ModelFile
from pylrp.loaders.onnx.inputs import (
    SHORTER,
    USUAL,
    InputShape,
    free_axes,
    left_out,
    open_batches,
    second_axes,
    shape_of,
    usual_shape,
)
from pylrp.loaders.onnx.integers import with_numbers_meant
from pylrp.loaders.onnx.node import MixedBatch
from pylrp.loaders.onnx.reader import Reader
from pylrp.loaders.onnx.sizes import require_functions
from pylrp.loaders.onnx.views import View
from pylrp.network.graph import Graph
from pylrp.network.lengths import Lengths

__all__ = ["Operator", "left_out", "load_onnx"]


def load_onnx(
    source: str | Path | onnx.ModelProto,
    *,
    input_shape: InputShape | None = None,
    operators: Mapping[str, Operator] | None = None,
    outputs: Sequence[str] | None = None,
    dtype: DTypeLike | None = None,
    examples: Mapping[str, Shape] | None = None,
) -> Graph:
    """Return the graph of an ONNX model.

    Parameters
    ----------
    source : path or ModelProto
        External data of a ModelProto must be loaded already; those of a file lie beside it.
    input_shape : sequence of int or mapping of str to sequence of int, optional
        The shape of the input without the batch, or of each input by name, where the model leaves sizes open.
    operators : mapping of str to callable, optional
        By operator or name of a node: a function of the node's attributes (a dict) and its constant inputs (a list of
        arrays) that returns a layer for its other inputs. It goes before pylrp's own translation.
    outputs : sequence of str, optional
        Names of outputs, tensors or nodes to take as outputs. Default: all outputs but labels.

    dtype : dtype, optional
        float32 or float64, in which is computed. Default: that of the model's inputs, or of its weights where it takes
        token ids alone.
    examples : mapping of str to tuple of int, optional
        The shape of an example of each input, the batch where the file has it: for sizes that the file leaves open.

    Returns
    -------
    Graph
        As the model has it, outputs named as there; ``canonise`` simplifies it.

    Raises
    ------
    UnsupportedLayer
        If an operator can't be explained.
    BrokenFile
        If the file is no ONNX model, or not as the standard has it.
    ValueError
        If an input's size is not known, or nothing in the model is called as in
        ``operators``; or if a function there raises.
    TypeError
        If an entry of ``operators`` is no function, or returns no layer.
    """
    file = ModelFile(source) if isinstance(source, onnx.ModelProto) else ModelFile.open(Path(source))
    file.require_text()
    if file.model.functions:
        file = replace(file, model=_written_out(file))
    file = with_samples_in_order(with_numbers_meant(with_branches_taken(file)))
    stored = Stored()

    def reader(views: Mapping[str, View] | None = None) -> Reader:
        return Reader(file, input_shape, operators or {}, outputs, dtype, stored, examples, views)

    first = reader()
    free = free_axes(first.inputs, input_shape, first.is_recurrent)
    if not any(free.values()):
        return _read_wherever_batch_is(first, reader, traced=examples is not None)

    def read(shapes: Mapping[str, Sequence[int]]) -> Graph:
        return Reader(file, shapes, operators or {}, outputs, dtype, stored).read(traced=True)

    def again() -> tuple[bytes, dict[str, Any]]:
        if operators:
            raise TypeError(f"the operators {', '.join(operators)} are functions in Python, which can't be saved")
        model = source if isinstance(source, onnx.ModelProto) else onnx.load(source)
        return model.SerializeToString(), {"input_shape": _plain(input_shape), "outputs": outputs and list(outputs)}

    def of_length(length: int) -> dict[str, Shape]:
        usual = {name: usual_shape(info, free[name], input_shape, length) for name, info in first.inputs.items()}
        return {name: shape_of(info, usual[name]) for name, info in first.inputs.items()}

    try:
        shapes, graph = _first_that_fits(of_length, read)
    except MixedBatch as error:
        raise UnsupportedLayer(
            error.node,
            error.operator,
            f"does not fit inputs of length {USUAL}, though the file leaves the length open: exporters write out the "
            "one of their example in some places",
            "pass that, pylrp.load(..., input_shape=(128,)) or a dict by input, or export anew with dynamo=True",
        ) from error
    lengths = ", ".join(name for name, axes in free.items() if axes)
    return graph.changed(
        facts=replace(graph.facts, trace=None, lengths=Lengths(shapes, free, read, again, past=tuple(first.past))),
        notes=[*graph.notes, f"{lengths}: any length, for which the network is laid out when it comes"],
    )


def _read_wherever_batch_is(first: Reader, reader: Callable[[Mapping[str, View]], Reader], *, traced: bool) -> Graph:
    """Return the graph with the batch on the one axis that the file leaves open, on axis 0, or on axis 1.

    A place is right if samples meet nowhere.

    Raises
    ------
    UnsupportedLayer
        That of axis 0, if none is right.
    """
    if first.views or first.is_recurrent:
        return first.read()
    for views in open_batches(first.inputs):
        with suppress(UnsupportedLayer, ValueError):
            return reader(views).read()
    try:
        return first.read()
    except MixedBatch:
        for views in second_axes(first.inputs, traced=traced):
            with suppress(UnsupportedLayer, ValueError):
                return reader(views).read()
        raise


def _first_that_fits(
    of_length: Callable[[int], dict[str, Shape]], read: Callable[[dict[str, Shape]], Graph]
) -> tuple[dict[str, Shape], Graph]:
    """Return the shapes and the graph of the usual length, or of a shorter one: a table may have fewer positions.

    Raises
    ------
    UnsupportedLayer
        That of the usual length, if none fits.
    """
    shapes = of_length(USUAL)
    try:
        return shapes, read(shapes)
    except BrokenFile:
        raise
    except UnsupportedLayer:
        for length in SHORTER:
            shapes = of_length(length)
            with suppress(UnsupportedLayer):
                return shapes, read(shapes)
        raise


def _plain(input_shape: InputShape | None) -> Any:
    """Return shapes as JSON has them."""
    if isinstance(input_shape, Mapping):
        return {name: list(shape) for name, shape in input_shape.items()}
    return None if input_shape is None else list(input_shape)


def _written_out(file: ModelFile) -> onnx.ModelProto:
    """Return the model with its own functions' nodes in place of the calls."""
    from onnx.inliner import inline_local_functions

    try:
        require_functions(file.model)
        return inline_local_functions(file.model)
    except Exception as error:  # onnx raises whatever a broken model leads it to
        raise BrokenFile(file.path, "the model's own functions", str(error) or type(error).__name__) from error
