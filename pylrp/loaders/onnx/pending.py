"""Values that wait: parts of a pattern, or functions of one value, which get their layers once somebody asks for them.

``reader.py`` goes through the nodes; ``translation.py`` holds what is known of each value and asks here for what waits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from onnx import NodeProto

from pylrp.errors import UnsupportedLayer
from pylrp.loaders.onnx.arithmetic import Translate, joined, length
from pylrp.loaders.onnx.functions import function_of
from pylrp.loaders.onnx.node import Call, Translation, Value
from pylrp.loaders.onnx.tops import FUNCTIONS

__all__ = ["Pending"]


class Pending:
    """Makes layers of values that wait.

    Parameters
    ----------
    translation : Translation
    nodes : list of NodeProto
        In order; a node that is written out changes the list.
    inputs : collection of str
        The model's inputs.
    operators : mapping of str to Translate
    """

    def __init__(
        self,
        translation: Translation,
        nodes: Sequence[NodeProto],
        inputs: Collection[str],
        operators: Mapping[str, Translate],
    ):
        self._translation, self._nodes, self._inputs, self._operators = translation, nodes, inputs, operators

    def resolve(self, name: str) -> Value:
        """Make layers of a pending value: one function of one value, or its own layer on those below it."""
        translation = self._translation
        if name not in translation.top:
            self._resolve_one(name)
            return translation.values[name]
        needed, waiting = {name}, [name]  # at the top functions below it first
        while waiting:
            for below in translation.producers[waiting.pop()].input:
                if below in translation.pending and below not in needed:
                    needed.add(below)
                    waiting.append(below)
        for node in self._nodes:
            for output in node.output:
                if output in needed and output in translation.pending:
                    self._resolve_one(output)
        return translation.values[name]

    def _resolve_one(self, name: str) -> None:
        translation = self._translation
        cause = translation.pending[name]
        call = translation.calls.get(name)
        if call is None:
            raise cause
        if name in translation.top:  # step by step, so that the function at the top is seen
            made = self._function_at_top(call, cause) or self._by_itself(call) or self._function(call)
        else:
            made = self._function(call) or self._by_itself(call)
        if made is None:
            raise cause
        translation.pending.pop(name, None)
        translation.values[name] = made

    def _by_itself(self, call: Call) -> Value | None:
        """Return the layer of a pending node on what is below it; None where it has none."""
        translation, (name, *_) = self._translation, call.node.output
        below = [source for source in call.node.input if source in translation.pending]
        for source in below:
            self.resolve(source)
        function = self._function(call) if below else None  # of what has a layer now
        if function is not None:
            return function
        cause = translation.pending.pop(name)
        made = length(call) or self._operators[call.op](call)
        if made is None and call.op in ("Mul", "Div") and len(call.node.input) == 2:  # part of no longer pattern
            translation.pending.pop(name, None)
            made = joined(call)
        if not isinstance(made, Value):
            translation.pending[name] = cause
            return None
        return made

    def _function_at_top(self, call: Call, cause: UnsupportedLayer) -> Value | None:
        """Return an exponential function or a logarithm at the top, by itself: what it is of is explained."""
        function = FUNCTIONS.get(call.op)
        if function is None:
            return None
        if call.node.input[0] in self._inputs:  # no layer lies below it
            raise cause
        return call.emit(function(), call.viewed())

    def _function(self, call: Call) -> Value | None:
        """Return a node's output as a function of one value; None if it is none."""
        try:
            found = function_of(call.node, self._translation, self.resolve)
        except ValueError as error:
            raise call.unsupported(f"can't be taken over ({error})") from None
        return None if found is None else call.emit(*found)
