"""How a torch module is called with the example: which arguments are tensors, what they are named, what stays.

``torch/module.py`` traces the call and compares predictions for it. Tensors become inputs of the graph; everything else
(``None``, flags, numbers, strings) is part of the call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Call", "call_of", "output_names"]


@dataclass(frozen=True)
class _Slot:
    """Where a tensor stands among the arguments."""

    number: int


@dataclass(frozen=True)
class Call:
    """A call of a module.

    Attributes
    ----------
    tensors : tuple of tensor
        Without gradients, in the order of the arguments.
    names : tuple of str
        One for each tensor.
    returned : list of str
        Names of the tensors that the module returned when it was traced, none for a single one without a key.
    left_out : list of str
        Keys of a model's outputs in the manner of transformers that were left out.
    every : bool
        Whether all of those are kept.
    """

    tensors: tuple[Any, ...]
    names: tuple[str, ...]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    returned: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    every: bool = False

    @property
    def plain(self) -> bool:
        """Tell whether the tensors are all there is."""
        return not self.kwargs and self.args == tuple(_Slot(i) for i in range(len(self.tensors)))

    def of(self, function: Callable[..., Any], tensors: Sequence[Any] | None = None) -> Any:
        """Return what a function gives for these arguments, with other tensors in place of the call's own."""
        given = self.tensors if tensors is None else tensors
        return function(
            *(_filled(a, given) for a in self.args), **{k: _filled(a, given) for k, a in self.kwargs.items()}
        )

    def results(self, found: Any) -> Any:
        """Return what counts of a module's result.

        Of a ``ModelOutput`` of transformers, a mapping with attributes, it is the logits, else the hidden states; never
        a cache of keys and values. Any other result is as it is.
        """
        if not (isinstance(found, Mapping) and hasattr(found, "to_tuple")):
            return found
        tensors = {key: value for key, value in found.items() if _is_of_tensors(value)}
        main = next((key for key in ("logits", "last_hidden_state") if key in tensors), None)
        kept = tensors if self.every or main is None else {main: tensors[main]}
        self.left_out[:] = [key for key in found if key not in kept]
        return kept

    @contextmanager
    def positional(self, module: Any) -> Iterator[None]:
        """Let a module take the tensors alone, one after the other.

        torch's exporter passes every argument by position and gives those that are left out their defaults, which a
        keyword-only argument refuses.
        """
        forward = module.forward

        def with_tensors(*tensors: Any) -> Any:
            found = self.results(self.of(forward, tensors))
            self.returned[:] = output_names(found)
            return found

        try:
            own = {"forward": module.__dict__["forward"]} if "forward" in module.__dict__ else {}
            module.__dict__["forward"] = with_tensors
        except (AttributeError, TypeError):  # a ScriptModule keeps its own
            yield
            return
        try:
            yield
        finally:
            del module.__dict__["forward"]
            module.__dict__.update(own)


def output_names(found: Any) -> list[str]:
    """Return a name for each tensor of what a module returns, in the exporter's order; none for one without a key.

    Keys of a mapping, fields of a named tuple, else "output0", "output1", ... by position.
    """

    def names(part: Any, path: str) -> Iterator[str]:
        if isinstance(part, Mapping):
            for key, item in part.items():
                yield from names(item, f"{path}.{key}" if path else str(key))
        elif isinstance(part, tuple | list):
            fields = getattr(part, "_fields", [f".{i}" if path else f"output{i}" for i in range(len(part))])
            for name, item in zip(fields, part, strict=True):
                yield from names(item, f"{path}{name}" if name.startswith(".") or not path else f"{path}.{name}")
        elif part is not None:
            yield path

    made = list(names(found, ""))
    told = len(made) > 1 or isinstance(found, Mapping)
    return made if told and len(set(made)) == len(made) else []


def _is_of_tensors(value: Any) -> bool:
    """Tell whether a result is a tensor, or a list of such: no cache, nothing that was not asked for."""
    parts = value if isinstance(value, tuple | list) else (value,)
    return bool(parts) and all(hasattr(part, "dtype") for part in parts)


def call_of(torch: Any, module: Any, example_input: Any) -> Call:
    """Return how the module is called with an example.

    Parameters
    ----------
    torch : module
    module : torch.nn.Module
    example_input : tensor, array, tuple or list of arguments, or mapping of argument's name to argument

    Raises
    ------
    ValueError
        If there is no tensor among the arguments, one has no values, or ``forward`` does not take them.
    """
    tensors: list[Any] = []
    paths: list[str] = []
    by_name = isinstance(example_input, Mapping)
    kwargs = {str(k): _slotted(torch, v, str(k), tensors, paths) for k, v in example_input.items()} if by_name else {}
    given = () if by_name else tuple(example_input) if isinstance(example_input, tuple | list) else (example_input,)
    order = [] if by_name else _parameters(module, len(given))
    args = tuple(_slotted(torch, value, path, tensors, paths) for value, path in zip(given, order, strict=True))
    if not tensors:
        raise ValueError("example_input holds no tensor and no array: give the module's input, with the batch")
    names = tuple(paths if by_name or len(tensors) > 1 else ["input"])
    # Weights are told from inputs by name.
    if len(set(names)) != len(names) or not set(names).isdisjoint(module.state_dict()):
        names = tuple(f"input{i}" for i in range(len(tensors)))
    call = Call(tuple(tensors), names, args, kwargs)
    _require_taken(module, call)
    return call


def _parameters(module: Any, count: int) -> list[str]:
    """Return what ``forward`` calls its first arguments."""
    known = [
        name
        for name, parameter in _signature(module).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return known[:count] if len(known) >= count else [f"input{i}" for i in range(count)]


def _signature(module: Any) -> inspect.Signature:
    try:
        return inspect.signature(module.forward)
    except (TypeError, ValueError):  # compiled: it tells when it is called
        return inspect.signature(lambda *args, **kwargs: None)


def _require_taken(module: Any, call: Call) -> None:
    signature = _signature(module)
    try:
        signature.bind(*call.args, **call.kwargs)
    except TypeError as error:
        raise ValueError(
            f"example_input does not fit {type(module).__name__}.forward{signature}: {error}; give a tuple with an "
            'entry for each argument, or a dict by name such as {"x": x, "mask": None}'
        ) from None


def _slotted(torch: Any, value: Any, path: str, tensors: list[Any], paths: list[str]) -> Any:
    """Return an argument with slots in place of its tensors, which are added to the list."""
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device):
        return value
    if isinstance(value, Mapping):
        return {key: _slotted(torch, item, f"{path}.{key}", tensors, paths) for key, item in value.items()}
    if isinstance(value, tuple | list) and any(isinstance(item, torch.Tensor | np.ndarray) for item in value):
        return type(value)([_slotted(torch, item, f"{path}.{i}", tensors, paths) for i, item in enumerate(value)])
    try:
        tensor = torch.as_tensor(value).detach()
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"example_input: {path} is a {type(value).__name__}, no tensor and no array: {error}"
        ) from None
    if tensor.device.type == "meta":
        raise ValueError(
            f"example_input: {path} is on the device meta, which holds no values: give a tensor with values"
        )
    if tensor.ndim == 0:
        raise ValueError(f"example_input: {path} has no axes: give a batch, for instance of shape (1, n)")
    tensors.append(tensor)
    paths.append(path)
    return _Slot(len(tensors) - 1)


def _filled(argument: Any, tensors: Sequence[Any]) -> Any:
    if isinstance(argument, _Slot):
        return tensors[argument.number]
    if isinstance(argument, Mapping):
        return {key: _filled(item, tensors) for key, item in argument.items()}
    if isinstance(argument, tuple | list):
        return type(argument)([_filled(item, tensors) for item in argument])
    return argument
