"""A Keras model's layers in order, those of models within it too, handed to what reads them.

``keras/model.py`` walks through the whole model, ``keras/distributed.py`` through one that stands at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

from pylrp.loaders.keras.attention import SWITCHES, TAKES_SEVERAL
from pylrp.loaders.keras.builder import Builder, Value
from pylrp.loaders.keras.recurrent import KEYWORDS
from pylrp.loaders.keras.traced import is_own, of_call

__all__ = ["nodes_of", "operations_of", "run"]

#: As :func:`pylrp.loaders.keras.builder.convert`.
How = Callable[..., Any]


def nodes_of(function: Any) -> Iterator[Any]:
    """Yield the calls of layers, each after those whose results it takes."""
    for depth in sorted(function._nodes_by_depth, reverse=True):
        yield from (node for node in function._nodes_by_depth[depth] if not node.is_input)


def operations_of(keras: Any, build: Builder, function: Any) -> Iterator[Any]:
    """Yield the layers of a model and of what is read as one within it."""
    for node in nodes_of(function):
        inner = of_call(keras, build, node)
        yield from [node.operation] if inner is None else operations_of(keras, build, inner)


def run(keras: Any, build: Builder, function: Any, within: str, values: Sequence[Value], how: How) -> list[Value]:
    """Add a model's layers to the graph, by ``how``, and return the values of its outputs."""
    known = {id(tensor): value for tensor, value in zip(function.inputs, values, strict=True)}
    for node in nodes_of(function):
        operation = node.operation
        name = f"{within}{operation.name}"
        inputs = [known[id(tensor)] for tensor in node.input_tensors]
        inner = of_call(keras, build, node)
        if inner is not None:
            if is_own(keras, operation) and _masked(build, inputs) and "mask" in signature(operation.call).parameters:
                build.refuse(name, operation, "takes the mask of the layers below")
            made = run(keras, build, inner, f"{name}.", inputs, how)
            if is_own(keras, operation):
                _pass_mask_on(build, operation, inputs, made)
        else:
            # Whatever a layer is told about training, predicting means none.
            kwargs = {key: v for key, v in node.arguments.kwargs.items() if v is not None and key != "training"}
            args = node.arguments.args
            if not args and kwargs and (first := _first_argument(operation)) in kwargs:
                args = (kwargs.pop(first),)
            keywords: dict[str, Any] = {}
            if type(operation).__name__ in TAKES_SEVERAL:
                inputs, keywords = _by_name(build, operation, name, args, kwargs, known)
                args, kwargs = args[:1], {}
            elif type(operation).__name__ in KEYWORDS:
                keywords = {key: _known(kwargs.pop(key), known) for key in ("mask", "initial_state") if key in kwargs}
                inputs = inputs[:1]
            elif type(operation).__name__ in SWITCHES:
                keywords = {key: kwargs.pop(key) for key in SWITCHES[type(operation).__name__] if key in kwargs}
            # A layer takes one thing; an operation's arguments are values, constants and lists of them.
            second = _is_layer(keras, operation) and any(id(argument) in known for argument in args[1:])
            extra = [*kwargs, *(["a second argument"] if second else [])]
            if extra:
                build.refuse(name, operation, f"is called with {', '.join(extra)}, which can't be explained")
            if _is_layer(keras, operation) and not all(isinstance(value, Value) for value in inputs):
                build.refuse(name, operation, "takes what no input changes", "compute it once, as a constant")
            arguments = inputs if _is_layer(keras, operation) else _known(args, known)
            found = how(build, operation, name, *arguments, **keywords)
            made = found if isinstance(found, list) else [found]
            _pass_mask_on(build, operation, inputs, made)
        known.update(zip(map(id, node.outputs), made, strict=True))
    return [known.get(id(tensor), tensor) for tensor in function.outputs]  # of a layer's own also constants


def _by_name(
    build: Builder,
    operation: Any,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    known: Mapping[int, Value],
) -> tuple[list[Value], dict[str, Any]]:
    """Return the first value of a call, and its other arguments by name: values, constants and switches."""
    given = signature(operation.call).bind(*args, **kwargs).arguments
    given = {key: _known(value, known) for key, value in given.items() if value is not None and value is not False}
    wrong = [key for key in given if key not in ("query", "value", "key", "attention_mask", "use_causal_mask")]
    if wrong:
        build.refuse(name, operation, f"is called with {', '.join(wrong)}, which can't be explained")
    return [given.pop("query")], given


def _masked(build: Builder, values: Sequence[Any]) -> bool:
    return any(isinstance(value, Value) and value.name in build.masks for value in values)


def _pass_mask_on(build: Builder, operation: Any, inputs: Sequence[Value], made: Sequence[Value]) -> None:
    """Note that the mask of a layer's input is that of its output, as Keras does when it runs."""
    if not all(isinstance(value, Value) for value in (*inputs, *made)):
        return
    masks = {build.masks.get(value.name) for value in inputs}  # of several inputs Keras passes it if all have one
    mask = masks.pop() if len(masks) == 1 else None
    if (
        mask is not None
        and getattr(operation, "supports_masking", False)
        and getattr(operation, "return_sequences", True)
    ):
        build.masks.setdefault(made[0].name, mask)


def _is_layer(keras: Any, operation: Any) -> bool:
    return isinstance(operation, keras.layers.Layer)


def _first_argument(operation: Any) -> str:
    return next(iter(signature(operation.call).parameters), "")


def _known(argument: Any, known: Mapping[int, Value]) -> Any:
    """Return arguments of an operation with their tensors replaced by values of the graph."""
    if isinstance(argument, tuple | list):
        return [_known(item, known) for item in argument]
    return known.get(id(argument), argument)
