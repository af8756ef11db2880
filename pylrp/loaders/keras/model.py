"""Keras 3 models, sequential and functional, as graphs.

``pylrp.load`` calls in. ``keras/walk.py`` goes through a model and the models within it, ``keras/layers.py`` and
its neighbours know the layers, ``keras/builder.py`` collects the nodes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import pylrp.loaders.keras.attention
import pylrp.loaders.keras.distributed
import pylrp.loaders.keras.joining
import pylrp.loaders.keras.layers
import pylrp.loaders.keras.lookup
import pylrp.loaders.keras.moves
import pylrp.loaders.keras.norms
import pylrp.loaders.keras.operations
import pylrp.loaders.keras.recurrent
import pylrp.loaders.keras.signals  # noqa: F401  # all register in builder.py
from pylrp.layers import Identity, Shape
from pylrp.loaders.keras.builder import Builder, Operators, Value, convert
from pylrp.loaders.keras.file import LEAST_KERAS, read_keras
from pylrp.loaders.keras.lengths import OpenShape, is_sequence, of_any_length
from pylrp.loaders.keras.lookup import looked_up, sides_of
from pylrp.loaders.keras.traced import function_of, is_own, of_call, of_model
from pylrp.loaders.keras.trial import is_traced, require_agreement
from pylrp.loaders.keras.walk import nodes_of, operations_of, run
from pylrp.network.facts import Facts
from pylrp.network.graph import Graph

__all__ = ["load_keras"]


def load_keras(
    model: Any,
    *,
    input_shape: Sequence[int | None] | Mapping[str, Sequence[int | None]] | None = None,
    operators: Operators | None = None,
) -> Graph:
    """Return the graph of a Keras 3 model.

    Inputs of a model with ``channels_last`` images are passed as Keras takes them; shapes in the graph have channels
    first all the same. Layers have their names, within a nested model "model.layer"; the activation of a layer is a
    node of its own, "dense.relu". Outputs have their axes in Keras's order.

    Parameters
    ----------
    model : keras.Model, str or PathLike
        Sequential or functional, of any backend; or the path of a ``.keras`` file.
    input_shape : sequence of int or mapping of str to sequence of int, optional
        The shape of the input as Keras has it, without the batch, or of each input by name. Needed where the model
        leaves the size of an axis open that is not the steps of a sequence: of (steps, features) or ids it takes any
        number of steps.
    operators : mapping of str to function, optional
        For layers that pylrp does not know, or to be read in another way: by the name of their class, a function that
        takes the Keras layer and returns a :class:`pylrp.layers.Layer`. That gets values with their axes in Keras's
        order, without the batch.

    Returns
    -------
    Graph

    Raises
    ------
    ImportError
        If Keras is missing, or older than 3.11.3.
    BrokenFile
        If the file is not one of Keras's, or its weights lie elsewhere.
    TypeError
        If it is no Keras model, or its weights are neither float32 nor float64.
    ValueError
        If the model is not built, the size of an input is open, or code of a user's own predicts something else than
        what was read of it.
    UnsupportedLayer
        If a layer can't be explained.
    """
    keras = _import_keras()
    if isinstance(model, str | os.PathLike):
        model = read_keras(keras, Path(model))
    if not isinstance(model, keras.Model):
        raise TypeError(f"expected a model of Keras {keras.__version__}, got {model!r}")
    function, input_shape = _function(keras, model, input_shape)
    names = [tensor._keras_history.operation.name for tensor in function.inputs]
    declared = {name: tensor.shape[1:] for name, tensor in zip(names, function.inputs, strict=True)}
    asked = _input_shapes(declared, input_shape)
    # Code of the user's own may ask for the sizes.
    sized = any(None in shape for shape in declared.values()) and any(map(partial(is_own, keras), _within(model)))

    def read(shapes: Mapping[str, Shape]) -> Graph:
        of_sizes = of_model(keras, model, shapes) if sized else function
        return _translated(keras, model, of_sizes, shapes, operators)

    shapes = {name: _whole(shape) for name, shape in asked.items()}
    if any(None in shape for shape in asked.values()):
        graph = of_any_length(asked, read, str(model.name))
        assert graph.facts.lengths is not None
        shapes = dict(graph.facts.lengths.shapes)
    else:
        graph = read(shapes)
    # Layers that a user's own replace, and those that Keras computes in another precision, may differ.
    if is_traced(keras, model) and not operators and not _others(_within(model), graph.dtype):
        require_agreement(keras, model, graph, shapes)
    return graph


def _within(model: Any) -> list[Any]:
    return list(model._flatten_layers())


def _translated(
    keras: Any, model: Any, function: Any, shapes: Mapping[str, Shape], operators: Operators | None
) -> Graph:
    """Return the graph for inputs of these shapes, as Keras has them."""
    build = Builder(_dtype(keras, model), {}, operators)
    operations = list(operations_of(keras, build, function))
    # Images of a model that has them so anywhere come with their channels first.
    last = not any(getattr(operation, "data_format", "") == "channels_first" for operation in operations)
    names = list(shapes)
    inputs = {name: (shape[-1], *shape[:-1]) if last and len(shape) > 1 else shape for name, shape in shapes.items()}
    values = [Value(name, last and len(shape) > 1) for name, shape in inputs.items()]
    build.shapes.update(inputs)
    ids = looked_up(function, nodes_of, lambda node: of_call(keras, build, node))
    build.ids = {names[at]: shapes[names[at]] for at in sorted(ids)}
    outputs = [build.in_order(value) for value in run(keras, build, function, "", values, convert)]
    named = _named(function, [value.name for value in outputs], build)
    sides = sides_of(build, tuple(names))
    inputs = {name: shape for name, shape in inputs.items() if name not in build.ids}
    inputs |= {name: feed.shape for name, feed in ({} if sides is None else sides.feeds).items()}
    return Graph(
        inputs,
        build.nodes,
        named,
        channels_last=[value.name for value in values if value.last and value.name in inputs],
        notes=[*_notes(operations, build.dtype), *build.notes],
        facts=Facts(sides=sides),
        dtype=build.dtype,
    )


def _function(keras: Any, model: Any, given: Any) -> tuple[Any, Any]:
    """Return a model's graph, and the shapes that are to be asked for yet.

    That of a subclass of Model is read for the input it was built with, or that is given.
    """
    function = function_of(keras, model)
    if function is None:
        shape = given if given is not None else _built_shape(model)
        if shape is None or isinstance(model, keras.Sequential):
            raise ValueError(
                f"the model {model.name!r} has no fixed graph: begin a Sequential with keras.Input(shape), call a "
                "subclass of Model once on an array or give its input_shape=, write it as a functional one, or load "
                "the file that model.export(path, format='onnx') writes"
            )
        if not model.built:
            raise ValueError(f"the model {model.name!r} has no weights yet: call it once on an array")
        shapes = shape if isinstance(shape, Mapping) else {"input": shape}
        try:
            return of_model(keras, model, shapes), None
        except Exception as error:  # whatever a user's code does that is none of keras.ops
            reason = str(error).strip().partition("\n")[0][:200]
            raise ValueError(
                f"the call of the model {model.name!r} can't be run on symbols ({type(error).__name__}: {reason}): "
                "compute with layers and keras.ops alone, or load the file that "
                "model.export(path, format='onnx') writes"
            ) from error
    return function, given


def _built_shape(model: Any) -> tuple[int, ...] | None:
    """Return the shape of the array a subclass of Model was called with, without the batch."""
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    shape = shapes[0] if len(shapes) == 1 else None
    plain = isinstance(shape, tuple | list) and all(isinstance(n, int) for n in shape[1:])
    return tuple(shape[1:]) if plain and shape else None


def _import_keras() -> Any:
    least = ".".join(map(str, LEAST_KERAS))
    try:
        import keras
    except ImportError as error:
        raise ImportError(
            f'a Keras model needs Keras 3 and its backend: pip install "keras>={least}" ({error})'
        ) from error
    numbers = tuple(int(n) for n in re.findall(r"\d+", keras.__version__)[:3])
    if numbers < LEAST_KERAS:  # a model in memory of an older version 3 does no harm, but is not tried
        raise ImportError(
            f"Keras {keras.__version__} is too old: versions before {least} run code that is in files; "
            f'pip install "keras>={least}"'
        )
    return keras


def _named(function: Any, values: Sequence[str], build: Builder) -> dict[str, str] | list[str]:
    """Return the outputs' values by the names that they have in Keras: keys of a dict, or of the layers."""
    structure = getattr(function, "_outputs_struct", None)
    keys = {id(tensor): str(key) for key, tensor in structure.items()} if isinstance(structure, Mapping) else {}
    tensors = function.outputs
    names = [keys.get(id(tensor), tensor._keras_history.operation.name) for tensor in tensors]
    free = all(name == value or name not in build.shapes for name, value in zip(names, values, strict=True))
    if not free or len(set(names)) != len(names):
        # A layer whose activation is a node of its own has the name: the output is called as its value is.
        return list(dict.fromkeys(values))
    for name, value in zip(names, values, strict=True):
        if name != value:
            build.emit(name, Identity(), Value(value))
    return {name: name for name in names}


def _input_shapes(
    declared: Mapping[str, OpenShape], given: Sequence[int | None] | Mapping[str, Sequence[int | None]] | None
) -> dict[str, OpenShape]:
    """Return the shape of each input without the batch, as Keras has it; None: any number of steps."""
    if given is not None and not isinstance(given, Mapping):
        if len(declared) > 1:
            raise ValueError(
                f"input_shape is {tuple(given)}, the model has the inputs {', '.join(declared)}: "
                "give a dict of name to shape"
            )
        given = dict.fromkeys(declared, given)
    given = given or {}
    if set(given) - set(declared):
        wrong = ", ".join(sorted(set(given) - set(declared)))
        raise ValueError(f"input_shape names {wrong}, the inputs are {', '.join(declared)}")
    shapes = {}
    for name, sizes in declared.items():
        shape = tuple(given.get(name, sizes))
        if len(shape) != len(sizes) or any(m not in (None, n) for n, m in zip(shape, sizes, strict=True)):
            raise ValueError(f"input_shape is {shape}, input {name!r} takes {sizes} (without the batch)")
        if not is_sequence(shape):
            raise ValueError(f"input {name!r} has the shape {shape}: give the sizes you mean as input_shape=")
        shapes[name] = shape
    return shapes


def _whole(shape: OpenShape) -> Shape:
    return tuple(int(n) for n in shape if n is not None)


def _dtype(keras: Any, model: Any) -> np.dtype[Any]:
    """Return the dtype of a model's weights."""
    name = next((str(weight.dtype) for weight in model.weights if "float" in str(weight.dtype)), keras.config.floatx())
    if name not in ("float32", "float64"):
        raise TypeError(f"the weights of {model.name!r} are {name}, relevance is computed in float32 or float64")
    return np.dtype(name)


def _others(operations: Sequence[Any], dtype: Any) -> set[str]:
    """Return the precisions in which Keras computes some layers, other than the network's."""
    return {str(getattr(operation, "compute_dtype", dtype)) for operation in operations} - {str(dtype)}


def _notes(operations: Sequence[Any], dtype: np.dtype[Any]) -> list[str]:
    """Return a word on layers that Keras itself computes in another precision."""
    others = _others(operations, dtype)
    return [f"computed in {dtype}; in Keras some layers compute in {', '.join(sorted(others))}"] if others else []
