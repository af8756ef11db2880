"""A user's own Keras layers and models, read by running their ``call`` once on symbols.

What they compute by layers and ``keras.ops`` is a graph then, as that of a functional model. Nothing is read of the
class but that; code on arrays or tensors of a backend can't run on symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pylrp.loaders.keras.builder import Builder

__all__ = ["function_of", "is_own", "of_call", "of_model"]

_WAY_OUT = (
    "compute with layers and keras.ops alone in its call, give a layer of your own by operators=, or load the file "
    "that model.export(path, format='onnx') writes"
)


@dataclass
class Fixed:
    """The graph of a layer that makes the same of every input: positions, for example."""

    inputs: list[Any]
    outputs: list[Any]
    _nodes_by_depth: dict[int, list[Any]] = field(default_factory=dict)


def function_of(keras: Any, model: Any) -> Any:
    """Return what holds a model's graph, None if it has none."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if hasattr(model, "_nodes_by_depth") else None


def is_own(keras: Any, layer: Any) -> bool:
    """Tell whether a layer is of a class that is not Keras's."""
    return isinstance(layer, keras.layers.Layer) and type(layer).__module__.partition(".")[0] != "keras"


def of_call(keras: Any, build: Builder, node: Any) -> Any:
    """Return what a call of a layer computes as a model's graph: of a model, a Lambda, a class of the user's own.

    None for layers of Keras's, and for those that ``operators=`` reads.
    """
    layer = node.operation
    held = function_of(keras, layer)
    if held is not None or type(layer).__name__ in build.operators:
        return held
    if isinstance(layer, keras.layers.Lambda):
        return build.kept(node, lambda: _of_lambda(keras, build, node)) if len(node.input_tensors) == 1 else None
    return build.kept(node, lambda: _of_own(keras, build, node)) if is_own(keras, layer) else None


def of_model(keras: Any, model: Any, shapes: Mapping[str, Sequence[int]]) -> Any:
    """Return the graph of a model for inputs of these shapes, without the batch; of a subclass one input."""
    held = function_of(keras, model)
    declared = [None] * len(shapes) if held is None else [tensor.dtype for tensor in held.inputs]

    def call(batch: int | None) -> Any:
        given = [
            keras.Input(batch_shape=(batch, *shape), name=name, dtype=dtype)
            for (name, shape), dtype in zip(shapes.items(), declared, strict=True)
        ]
        structure = getattr(held, "_inputs_struct", None)
        if isinstance(structure, Mapping):
            keys = {id(tensor): key for key, tensor in structure.items()}
            named = {keys[id(tensor)]: one for tensor, one in zip(held.inputs, given, strict=True)}
            return _called(keras, model, given, (named,), {})
        return _called(keras, model, given, (given if len(given) > 1 else given[0],), {})

    return _of_any_batch(call)


def _of_any_batch(call: Callable[[int | None], Any]) -> Any:
    """Return what a call makes of an open batch, else of one sample: code may ask for the number."""
    try:
        return call(None)
    except Exception as first:
        try:
            return call(1)
        except Exception:
            raise first from None


def _of_lambda(keras: Any, build: Builder, node: Any) -> Any:
    layer = node.operation
    given = keras.Input(batch_shape=node.input_tensors[0].shape, dtype=node.input_tensors[0].dtype)
    try:
        return keras.Model(given, layer.function(given, **(layer.arguments or {})))
    except Exception:  # whatever a user's function does that is none of keras.ops
        build.refuse(layer.name, layer, "runs code that is none of keras.ops on its input")


def _of_own(keras: Any, build: Builder, node: Any) -> Any:
    layer, tensors = node.operation, node.input_tensors
    if not _passes_on(layer):
        try:
            mask = layer.compute_mask(tensors[0] if len(tensors) == 1 else tensors, None)
        except Exception:
            mask = True
        if mask is not None:
            build.refuse(layer.name, layer, "makes a mask of its own", _WAY_OUT)

    def call(batch: int | None) -> Any:
        given = [keras.Input(batch_shape=(batch, *tensor.shape[1:]), dtype=tensor.dtype) for tensor in tensors]
        args, kwargs = node.arguments.fill_in({id(tensor): one for tensor, one in zip(tensors, given, strict=True)})
        return _called(keras, layer, given, args, kwargs)

    try:
        return _of_any_batch(call)
    except Exception as error:  # whatever a user's code does that is none of keras.ops
        reason = str(error).strip().partition("\n")[0][:160]
        build.refuse(layer.name, layer, f"can't be run on symbols ({type(error).__name__}: {reason})", _WAY_OUT)


def _passes_on(layer: Any) -> bool:
    """Tell whether a layer's mask is that of its input, as Keras has it, or none."""
    own = [each for each in type(layer).__mro__ if "compute_mask" in vars(each)]
    return own[0].__module__.partition(".")[0] == "keras"


def _called(keras: Any, layer: Any, given: Sequence[Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Return the graph of what a layer's ``call`` makes of symbols, at prediction."""
    kwargs = {key: value for key, value in kwargs.items() if key != "training"}
    with _unchanged(layer):
        held = function_of(keras, layer)
        made = layer.call(*args, **kwargs) if held is None else keras.Function.call(held, *args)
        if not any(isinstance(each, keras.KerasTensor) for each in keras.tree.flatten(made)):
            return Fixed(list(given), keras.tree.flatten(made))
        return keras.Model(list(given), made)


@contextmanager
def _unchanged(layer: Any) -> Iterator[None]:
    """Keep the layers within one as they are: a call on symbols would be noted in each of them."""
    known = [(each, list(each._inbound_nodes), list(each._outbound_nodes)) for each in layer._flatten_layers()]
    try:
        yield
    finally:
        for each, inbound, outbound in known:
            each._inbound_nodes[:], each._outbound_nodes[:] = inbound, outbound
