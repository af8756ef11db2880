"""The nodes of an ONNX model become layers, one after the other.

What no input changes is computed here and now (``onnx/constants.py``), everything else is looked up in the tables of
``onnx/operators.py`` and ``onnx/fused.py``. ``onnx/model.py`` reads a file once, or anew for each length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import DTypeLike
from onnx import NodeProto, TensorProto

from pylrp._limits import TooLarge
from pylrp.errors import BrokenFile, BrokenNode, NotFinite, UnsupportedLayer
from pylrp.layers import Shape
from pylrp.loaders import refusals
from pylrp.loaders.onnx.arithmetic import curve
from pylrp.loaders.onnx.blockwise import BLOCKWISE
from pylrp.loaders.onnx.branches import branch, captured
from pylrp.loaders.onnx.by_hand import Operator, checked, made_by_hand
from pylrp.loaders.onnx.constants import Constant, Constants, Stored
from pylrp.loaders.onnx.file import ModelFile
from pylrp.loaders.onnx.folding import fold
from pylrp.loaders.onnx.fused import FUSED
from pylrp.loaders.onnx.inputs import (
    InputShape,
    declared,
    left_out,
    pasts,
    pixel_ranges,
    shape_of,
    with_batch_first,
    without_presents,
)
from pylrp.loaders.onnx.node import Call, MixedBatch, Translation, Value, operator_of
from pylrp.loaders.onnx.operators import FLOATS, OPERATORS
from pylrp.loaders.onnx.outputs import ModelOutputs
from pylrp.loaders.onnx.pending import Pending
from pylrp.loaders.onnx.quantised import QUANTISED
from pylrp.loaders.onnx.recurrent import RECURRENT, STEPS_FIRST, places_of_batch
from pylrp.loaders.onnx.repeats import needed_nodes, without_repeats
from pylrp.loaders.onnx.replay import Trace
from pylrp.loaders.onnx.shared_inputs import masks_and_shared, require_added
from pylrp.loaders.onnx.sides import SIDE_KINDS
from pylrp.loaders.onnx.tops import on_the_way
from pylrp.loaders.onnx.views import PLAIN, View
from pylrp.loaders.onnx.written_out import WRITTEN_OUT
from pylrp.network.canonise.normalisations import complete_normalisations
from pylrp.network.graph import Facts, Graph, Node

__all__ = ["Reader"]

_ONNX = ("", "ai.onnx")
_OPERATORS = {**OPERATORS, **FUSED, **QUANTISED}
_INSTEAD = WRITTEN_OUT | BLOCKWISE
_KNOWN = {*_OPERATORS, *_INSTEAD}
#: Operators that move a part of a pattern along.
#: onnxruntime's own, for 16 bits before opset 21.
_OWN_QUANTISERS = {f"com.microsoft.{op}": op for op in ("QuantizeLinear", "DequantizeLinear")}
_WAIT = {"Cast", "CastLike", "Expand", "Reshape", "Squeeze", "Unsqueeze"}
#: What code raises that meets something else than it was written for.
_MALFORMED = (ArithmeticError, AttributeError, LookupError, RuntimeError, StopIteration, TypeError)


class Reader:
    """One model on its way to a graph."""

    def __init__(
        self,
        file: ModelFile,
        input_shape: InputShape | None,
        operators: Mapping[str, Operator],
        outputs: Sequence[str] | None,
        dtype: DTypeLike | None = None,
        stored: Stored | None = None,
        examples: Mapping[str, Shape] | None = None,
        views: Mapping[str, View] | None = None,
    ):
        self.file, model = file, file.model
        if outputs is None:
            outputs = without_presents(model, input_shape)
        constants = Constants(file, np.dtype(np.float32), stored)
        try:
            self.outputs = ModelOutputs.of(model.graph, outputs, constants.stored, operators)
        except _MALFORMED as error:  # their texts are about this code, not about the model
            raise BrokenFile(file.path, "the outputs", "are not as the standard has them") from error
        kept = {*self.outputs.values.values(), *(info.name for info in model.graph.output), *operators}
        kept.update(*map(captured, model.graph.node))
        nodes = without_repeats(model.graph.node, model.graph.initializer, kept)
        self.nodes, needed = needed_nodes(nodes, list(self.outputs.values.values()))
        initial = {tensor.name for tensor in model.graph.initializer}
        named = {info.name: info for info in model.graph.input if info.name not in initial}
        self.inputs = {name: info for name, info in named.items() if name in needed}
        self.past = pasts(self.inputs, input_shape)
        for name in self.past:
            self.inputs.pop(name)
        self.operators = checked(operators, model.graph.node)
        self.views = dict(views or self._batch_places(initial))
        masks, shared = masks_and_shared(self.nodes, self.inputs, self.outputs.values.values())
        self.masks, self.shared = (masks, shared) if not self.views else (masks - self.views.keys(), {})
        self.inputs.update(self.shared)
        for name, view in self.views.items():
            self.inputs[name] = with_batch_first(self.inputs[name], view, (examples or {}).get(name))
        self.left_out = [name for name in named if name not in needed]
        self.input_shape = input_shape
        self.needed = needed
        kinds = {info.type.tensor_type.elem_type for info in self.inputs.values()}
        if kinds.isdisjoint(FLOATS):
            kinds = {tensor.data_type for tensor in model.graph.initializer if tensor.dims}
        if dtype is not None:
            constants.dtype = np.dtype(dtype)
        elif TensorProto.DOUBLE in kinds:
            constants.dtype = np.dtype(np.float64)
        batches = {sizes[0] for info in self.inputs.values() if (sizes := declared(info))}
        self.translation = Translation(
            path=file.path,
            constants=constants,
            opset=max((o.version for o in model.opset_import if o.domain in _ONNX), default=1),
            batch=batches.pop() if len(batches) == 1 else None,
            producers={name: node for node in self.nodes for name in node.output if name},
            top=on_the_way(self.nodes, self.outputs.values.values()),
            resolve=lambda name: self.pending.resolve(name),
            needed=needed,
            recurrent=self.is_recurrent,
        )
        self.pending = Pending(self.translation, self.nodes, self.inputs, _OPERATORS)

    def read(self, traced: bool = False) -> Graph:
        """Return the graph; ``traced`` notes with it what is computed of sizes."""
        translation = self.translation
        shapes = self._input_shapes()
        for name, shape in shapes.items():
            kind = "float" if name in self.masks else SIDE_KINDS.get(self.inputs[name].type.tensor_type.elem_type)
            if kind is None:
                translation.values[name] = Value(translation.unique(name), shape, self.views.get(name, PLAIN))
            else:
                translation.sides.add_input(name, shape, kind, name not in self.shared)
        for name, (shape, axis) in self.past.items():
            empty = np.zeros(shape, translation.constants.dtype)
            translation.constants[name] = Constant(empty, empty, per_sample=True, axis=axis)
        self._require_explicable()
        waiting = self.nodes[::-1]
        while waiting:
            node = waiting.pop()
            try:
                written = self._written_out(node)
                if written:
                    waiting += written[::-1]
                else:
                    self._translate(node)
            except UnsupportedLayer as error:
                named = self._by_name(node, error)
                raise named from (error.__cause__ if named is error else error)  # no error is its own cause
        for name in self.outputs.values.values():
            if not translation.knows(name):
                raise BrokenFile(translation.path, f"output {name!r}", "is made by none of the nodes")
            if name in translation.sides:
                made = translation.producers.get(name)
                reason = f"makes the output {name!r} of token ids or masks alone: there is nothing to explain"
                if made is None:
                    raise UnsupportedLayer(name, "input", "is an output", "choose others: pylrp.load(..., outputs=)")
                raise Call.again(made, translation).unsupported(reason)
            if name in translation.constants:
                raise ValueError(f"output {name!r} of the model is a constant: there is nothing to explain")
        notes = [*self._batch_in_inputs(), *self._batch_in_outputs()]
        outputs = {name: translation.value(tensor).name for name, tensor in self.outputs.values.items()}
        dtype = translation.constants.dtype
        notes += [f"{name} weights converted to {dtype}" for name in sorted(translation.constants.converted)]
        notes += [f"input {name!r} is of earlier tokens: empty, or left out" for name in self.past]
        notes += [f"input {name!r} has no batch: one for all samples" for name in self.shared]
        notes += translation.notes + left_out(self.left_out) + self.outputs.notes
        sides = translation.sides.program(list(shapes), tuple(self.past))
        activations = {name: shape for name, shape in shapes.items() if name not in translation.sides}
        graph = Graph(
            activations | {name: feed.shape for name, feed in translation.sides.feeds.items()},
            _renamed(translation, outputs),
            outputs,
            notes=notes,
            facts=Facts(
                classes=self.outputs.classes,
                ranges=pixel_ranges(self.file, activations),
                batch_axes={name: view.batch for name, view in self.views.items() if view.batch},
                sides=sides,
                trace=Trace(self.nodes, translation, sides) if traced else None,
            ),
            dtype=dtype,
        )
        # A value is called as the one that it is in the file.
        return complete_normalisations(graph, pass_on_names=True)

    @property
    def is_recurrent(self) -> bool:
        """Tell whether there are recurrent layers."""
        own = set(self.operators)
        return any(operator_of(node) in RECURRENT and not {node.name, node.op_type} & own for node in self.nodes)

    def _batch_places(self, constants: set[str]) -> dict[str, View]:
        ranks = {
            name: len(info.type.tensor_type.shape.dim)
            for name, info in self.inputs.items()
            if info.type.tensor_type.elem_type in FLOATS
        }
        return places_of_batch(self.nodes, ranks, constants) if self.is_recurrent else {}

    def _batch_in_inputs(self) -> list[str]:
        """Return notes on inputs whose batch is not axis 0 in the file."""
        return [
            f"input {name!r} has its steps on axis 0 and no batch in the file, here the batch comes first"
            if view == STEPS_FIRST
            else f"input {name!r} has its batch on axis {view.batch} in the file, here it comes first"
            for name, view in self.views.items()
        ]

    def _batch_in_outputs(self) -> list[str]:
        """Return notes on outputs whose batch is not axis 0 in the file; raise where it is merged with other axes."""
        notes = []
        for name, tensor in self.outputs.values.items():
            view = self.translation.value(tensor).view
            if view.merged and not (view.batch == view.before == 0 and STEPS_FIRST in self.views.values()):
                made = self.translation.producers[tensor]
                reason = f"makes the output {name!r}, in which samples of the batch mix with other axes"
                raise Call.again(made, self.translation).mixes_batch(reason)
            if view.batch:
                notes.append(f"output {name!r} has its batch on axis {view.batch} in the file, here it comes first")
        return notes

    def _require_explicable(self) -> None:
        """Raise for recurrent layers and their like first: what only serves them would have another error."""
        for node in self.nodes:
            operator = operator_of(node)
            refusal = refusals.of_operator(operator)
            known = operator in _KNOWN
            if refusal and refusal.way_out and not known and not {node.name, operator} & set(self.operators):
                raise refusal.error(Call(node, self.translation).name, operator)

    def _by_name(self, node: NodeProto, error: UnsupportedLayer) -> UnsupportedLayer:
        """Return the error for what a node is part of, where its own would lead astray."""
        operator = operator_of(node)
        if isinstance(error, BrokenNode):
            return error
        refusal = refusals.of_operator(operator)
        if refusal is not None and operator not in _KNOWN:
            return refusal.error(error.node, operator, Call(node, self.translation).by_hand)
        return error

    def _input_shapes(self) -> dict[str, Shape]:
        given = self.input_shape
        if given is not None and not isinstance(given, Mapping):
            if len(self.inputs) != 1:
                raise ValueError(
                    f"input_shape is {tuple(given)}, the model has the inputs {', '.join(self.inputs)}: "
                    "give a dict of name to shape"
                )
            given = dict.fromkeys(self.inputs, given)
        wrong = set(given or ()) - {*self.inputs, *self.left_out, *self.past}
        if wrong:
            raise ValueError(f"input_shape names {', '.join(sorted(wrong))}, the inputs are {', '.join(self.inputs)}")
        return {name: shape_of(info, (given or {}).get(name)) for name, info in self.inputs.items()}

    def _written_out(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes that stand in the place of a fused one; none for others."""
        if operator_of(node) == "If" and not {node.name, "If"} & set(self.operators):
            return self._branch(node)
        write = _INSTEAD.get(operator_of(node))
        if write is None or {node.name, operator_of(node)} & set(self.operators):
            return []
        self._require_made(node)
        written = write(Call.again(node, self.translation))
        if written:
            at = self.nodes.index(node)
            self.nodes[at : at + 1] = written
            self.translation.producers.update({name: each for each in written for name in each.output})
        return written

    def _branch(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes of an If whose condition is known by now, of sizes for example; none for others."""
        self._require_made(node)
        translation = self.translation
        known = node.input[0] in translation.constants
        condition = translation.constants[node.input[0]] if known else None
        if condition is None or condition.follows_batch or condition.first.size != 1:
            return []
        taken = {*translation.producers, *self.inputs, *(each.name for each in self.file.model.graph.initializer)}
        written = list(branch(node, bool(condition.first.reshape(())), taken, self.file))
        # The condition stays, under an output of no name: another length is asked whether it is the same there.
        decided = NodeProto(op_type="If", name=node.name, input=node.input, output=[f"{node.output[0]}:decided"])
        at = self.nodes.index(node)
        self.nodes[at : at + 1] = [decided, *written]
        for each in written:
            self.needed.update(each.input)
            translation.producers.update(dict.fromkeys(each.output, each))
        return written

    def _require_made(self, node: NodeProto) -> None:
        """Raise where a node takes what none before it makes."""
        for name in filter(None, node.input):
            if not self.translation.knows(name):
                place = f"node {node.name!r} ({node.op_type})"
                raise BrokenFile(self.translation.path, place, f"takes {name!r}, which no node before it makes")

    def _translate(self, node: NodeProto) -> None:
        translation = self.translation
        inputs = [name for name in node.input if name]
        self._require_made(node)
        call = Call(node, translation)
        made = self._made(call, constant=all(name in translation.constants for name in inputs))
        values = made if isinstance(made, list) else [made] if made is not None else []
        translation.values.update(zip(node.output, values, strict=False))
        for name in node.output:
            if name in self.needed and not translation.knows(name):
                raise call.unsupported(f"has an output {name!r} that can't be explained")

    def _made(self, call: Call, constant: bool) -> Value | list[Value] | None:
        by_hand = self.operators.get(call.node.name, self.operators.get(call.op))
        if by_hand is not None and not constant:
            self.translation.by_hand.update(call.node.output)
            return made_by_hand(call, by_hand)
        names = [name for name in call.node.input if name]
        try:
            if not constant and all(n in self.translation.constants or n in self.translation.sides for n in names):
                return self._beside(call)
            if not constant:
                return self._apply(call)
            try:
                fold(call)
            except MixedBatch:  # the numbers of the samples, for example, by which a mask's rows are looked up
                if not self.translation.sides.inputs:
                    raise
                return self._beside(call)
        except (BrokenFile, NotFinite, TooLarge, UnsupportedLayer):
            raise
        except ValueError as error:
            raise call.unsupported(f"can't be taken over ({error})") from error
        except _MALFORMED as error:  # their texts are about this code, not about the model
            raise call.broken("can't be read, its inputs or attributes are not as the standard has them") from error
        return None

    def _beside(self, call: Call) -> Value | None:
        """Take a node that computes something of token ids and masks; a table's rows are activations."""
        sides, constants, output = self.translation.sides, self.translation.constants, call.node.output[0]
        if call.op == "Shape":
            constants.shape(output, sides.sizes(call.node.input[0]), call.attribute("start", 0), call.attribute("end"))
            return None
        table = call.op == "Gather" and call.is_constant(0) and call.attribute("axis", 0) == 0
        if table and constants[call.node.input[0]].first.dtype.kind == "f" and sides.source(call.node.input[1]):
            require_added(call, sides.source(call.node.input[1]), self.shared, self.nodes)
            return call.lookup(call.node.input[1], call.weight(0))
        if table and sides.has_moved_ids(call.node.input[1]) and constants[call.node.input[0]].first.dtype.kind == "f":
            raise call.unsupported(
                "looks up ids that were cut, joined or moved before, so that no relevance finds back to them",
                "cut ids before the model, or export it from its looked-up rows on (inputs_embeds)",
            )
        matrix = call.op == "MatMul" and call.is_constant(1) and constants[call.node.input[1]].first.ndim == 2
        if matrix and sides.weighs(call.node.input[0]):
            return call.lookup(call.node.input[0], call.weight(1))
        inputs = [None if not n else n if n in sides else constants[n] for n in call.node.input]
        try:
            sides.step(_OWN_QUANTISERS.get(call.op, call.op), call.attributes, inputs, output)
        except KeyError:
            raise call.unsupported("computes of token ids or masks what is not known") from None
        return None

    def _apply(self, call: Call) -> Value | list[Value] | None:
        output = call.node.output[0]
        if call.op == "Shape":
            start, end = call.attribute("start", 0), call.attribute("end")
            value = call.viewed()
            self.translation.constants.shape(output, value.view.sizes(value.shape), start, end)
            return None
        if call.op == "Size":
            self.translation.constants.size(output, call.viewed().shape)
            return None
        if call.op == "CastLike" and call.is_constant(0):
            weight = call.weight(0)
            self.translation.constants[output] = Constant(weight, weight)
            return None
        if call.op in _WAIT and call.has(0) and call.node.input[0] in self.translation.pending:
            return curve(call)
        translate = _OPERATORS.get(call.op)
        if translate is None:
            raise call.unsupported("has no rule of LRP")
        return translate(call)


def _renamed(translation: Translation, outputs: dict[str, str]) -> list[Node]:
    """Return the nodes; those that are called as an output of the model and are not it have another name."""
    new = {
        node.name: translation.unique(node.name)
        for node in translation.nodes
        if outputs.get(node.name, node.name) != node.name
    }
    outputs.update({name: new.get(value, value) for name, value in outputs.items()})
    return [
        replace(node, name=new.get(node.name, node.name), inputs=tuple(new.get(value, value) for value in node.inputs))
        for node in translation.nodes
    ]
