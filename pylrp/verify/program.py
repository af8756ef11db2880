"""A model file as steps that NumPy can take, in float64; read from the ModelProto and from nothing else of pylrp's.

``operators.py`` has a function for each operator, ``backward.py`` takes the steps back. Values are named as in the
file. A value *carries* relevance if it is made of an input of floating-point numbers, or of rows that an input of whole
numbers chooses from a constant table (an embedding, or a product with one-hot rows, see :attr:`Program.tables`); all
others are constants of the call: weights, masks, sizes, positions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import helper, numpy_helper

from pylrp._meant import meant
from pylrp.errors import UnsupportedLayer
from pylrp.verify.branches import with_branches
from pylrp.verify.elsewhere import by_evaluator, captured
from pylrp.verify.fused import taken_apart
from pylrp.verify.helpers import ENDS
from pylrp.verify.quantised import in_own_units
from pylrp.verify.roundings import DYNAMIC, ROUNDINGS, nudged, settled
from pylrp.verify.step import Array, Step, setting
from pylrp.verify.twins import without_twins

__all__ = ["Array", "Program", "Step"]

_OWN = ("", "ai.onnx")
_DEEPEST = 8
#: What is made of values here is decided, counted or rounded: no relevance goes through.
_ENDS = {
    "ArgMax", "ArgMin", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual",
    "NonZero", "Not", "Or", "And", "Xor", "Round", "Shape", "Sign", "Size", "ConstantOfShape", "OneHot", *ENDS,
}  # fmt: skip
#: Behind these an entry is still the id that it was.
_SAME = {"Cast", "Identity", "Reshape", "Slice", "Unsqueeze", "Squeeze", "Flatten", "Dropout"}


@dataclass
class Program:
    """The steps of a model.

    Parameters
    ----------
    model : ModelProto

    Attributes
    ----------
    inputs : dict of str to list
        The model's inputs with their declared sizes, None where one is open.
    outputs : list of str
    steps : list of Step
        In the file's order.
    constants : dict of str to ndarray
        Initializers; those of floating-point numbers in float64.
    made_by : dict of str to Step
    readers : dict of str to list of Step
    carries : set of str
        Values that relevance can lie on.
    tables : dict of str to str
        Value that was looked up in a table -> the input of whole numbers that chose its rows.
    fixed, follows : set of str
        Values that no input changes, and those that inputs' entries change; of others sizes decide.
    """

    model: onnx.ModelProto
    inputs: dict[str, list[int | None]] = field(init=False)
    outputs: list[str] = field(init=False)
    steps: list[Step] = field(init=False)
    constants: dict[str, Array] = field(init=False)
    made_by: dict[str, Step] = field(init=False)
    readers: dict[str, list[Step]] = field(init=False)
    carries: set[str] = field(init=False)
    tables: dict[str, str] = field(init=False)
    fixed: set[str] = field(init=False)
    follows: set[str] = field(init=False)

    def __post_init__(self) -> None:
        model = self.model
        if model.functions:
            from onnx.inliner import inline_local_functions

            model = inline_local_functions(model)
        self._whole = model = with_branches(model)
        graph = model.graph
        opset = max((entry.version for entry in model.opset_import if entry.domain in _OWN), default=1)
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        tensors.update({node.output[0]: each.t for node in graph.node if node.op_type == "Constant"
                        for each in node.attribute if each.name == "value"})  # fmt: skip
        names = [each.name for each in graph.output]
        nodes = taken_apart(in_own_units(list(graph.node), tensors, names), tensors, names)
        nodes = without_twins(nodes, tensors, names)
        made = {name for node in nodes for name in node.output}
        self.constants = {name: _settled(numpy_helper.to_array(tensor)) for name, tensor in tensors.items()
                          if name not in made}  # fmt: skip
        self.inputs = {each.name: _sizes(each) for each in graph.input if each.name not in self.constants}
        self._floats = {each.name for each in graph.input if _is_float(each) and each.name in self.inputs}
        there = made | {*self.constants, *self.inputs}
        self.outputs = [name for name in names if name in there]
        self.steps = [_step(node, opset) for node in nodes]
        self._opsets = list(model.opset_import)
        self._nodes = {step.outputs[0]: node for step, node in zip(self.steps, nodes, strict=True) if step.outputs}
        self._connect()

    @classmethod
    def read(cls, source: str | os.PathLike[str] | onnx.ModelProto) -> Program:
        """Return the program of a file or a ModelProto."""
        return cls(source if isinstance(source, onnx.ModelProto) else onnx.load(os.fspath(source)))

    @property
    def is_double(self) -> bool:
        """Whether the file computes in double precision."""
        return any(each.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE for each in self.model.graph.output)

    @property
    def coarseness(self) -> float:
        """How many times as coarsely as float32 the file's program rounds: one that has weights in 16 bits."""
        kinds = {each.data_type for each in self.model.graph.initializer}
        kinds |= {step.get("to") for step in self.steps if step.op == "Cast"}
        # 24 bits of float32, 11 and 8 of these.
        return next((2.0**bits for kind, bits in ((16, 16), (10, 13)) if kind in kinds), 1.0)

    @property
    def is_recurrent(self) -> bool:
        """Whether there are recurrent layers."""
        return any(step.op in ("LSTM", "GRU", "RNN") for step in self.steps)

    @property
    def rounds(self) -> bool:
        """Whether activations are rounded."""
        return any(step.op in ROUNDINGS for step in self.steps)

    @property
    def scales_follow_values(self) -> bool:
        """Whether activations are rounded by scales that follow them: those of a batch of one are meant."""
        return any(step.op == DYNAMIC for step in self.steps)

    def _connect(self) -> None:
        self.made_by = {name: step for step in self.steps for name in step.outputs if name}
        self.readers = {}
        self.carries, self.tables = set(self._floats), {}
        # Value -> the input of whole numbers whose entries it has, one by one.
        chosen = {name: name for name in self.inputs if name not in self._floats}
        # Value -> that input, where its entries are repeated, or its one-hot rows.
        spread: dict[str, str] = {}
        hot: dict[str, str] = {}
        fixed = self.fixed = set(self.constants)
        self.follows = set(self.inputs)
        for step in self.steps:
            for name in dict.fromkeys(filter(None, step.inputs)):
                self.readers.setdefault(name, []).append(step)
            if all(name in fixed for name in step.inputs if name):
                fixed.update(step.outputs)
            elif step.op not in ("Shape", "Size") and not self.follows.isdisjoint(step.inputs):
                self.follows.update(step.outputs)
            sides = [chosen[name] for name in step.inputs if name in chosen]
            if step.op == "Gather" and step.inputs[0] in fixed and step.inputs[1] in chosen:
                self.carries.add(step.outputs[0])
                self.tables[step.outputs[0]] = sides[0]
            elif step.op == "MatMul" and step.inputs[0] in hot and step.inputs[1] in fixed:
                self.carries.add(step.outputs[0])
                self.tables[step.outputs[0]] = hot[step.inputs[0]]
            elif (ids := self._ids_of_rows(step, {**spread, **chosen}, fixed)) is not None:
                hot[step.outputs[0]] = ids
            elif step.op in ("Cast", "Identity") and step.inputs[0] in hot:
                hot[step.outputs[0]] = hot[step.inputs[0]]
            elif step.op == "Expand" and step.inputs[0] in chosen:
                spread[step.outputs[0]] = sides[0]
            elif step.op not in _ENDS and not _makes_integers(step) and not self.carries.isdisjoint(step.inputs):
                self.carries.update(filter(None, step.outputs))
            elif sides and step.op in _SAME:
                chosen[step.outputs[0]] = sides[0]

    def _ids_of_rows(self, step: Step, ids: Mapping[str, str], fixed: set[str]) -> str | None:
        """Return the input whose one-hot rows a step makes: ``OneHot``, or a comparison with all that an id can be."""
        sides = [name for name in step.inputs if name in ids]
        known = [name for name in step.inputs if name in fixed]
        if len(sides) != 1 or len(sides) + len(known) != len(step.inputs):
            return None
        if step.op == "OneHot":
            return ids[sides[0]] if step.get("axis", -1) == -1 else None
        if step.op != "Equal":
            return None
        numbers = self.run({}, wanted=known)[known[0]]
        different = numbers.size > 1 and numbers.size == numbers.shape[-1] == len(np.unique(numbers))
        return ids[sides[0]] if different else None

    def run(
        self, inputs: Mapping[str, Array], *, dtype: DTypeLike = np.float64, instead: Mapping[str, Array] | None = None,
        wanted: Sequence[str] | None = None, rounded: Mapping[str, Array] | None = None,
        shaken: np.random.Generator | None = None,
    ) -> dict[str, Array]:  # fmt: skip
        """Return every value.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            By name, with the batch.
        dtype : dtype, default float64
            In which floating-point numbers are computed.
        instead : mapping of str to ndarray, optional
            Values that are not computed but these.
        wanted : sequence of str, optional
            Only what these values need. Default: all.
        rounded : mapping of str to ndarray, optional
            Rounded values as another program has them: where a value lies between two numbers, theirs counts.
        shaken : Generator, optional
            Changes what is rounded in the last digits of single precision, as other orders of summation do.

        Raises
        ------
        UnsupportedLayer
            If an operator has no function here.
        """
        from pylrp.verify.operators import FORWARD

        rounded = rounded or {}
        values: dict[str, Array] = {name: _as(array, dtype) for name, array in self.constants.items()}
        values.update({name: _as(np.asarray(array), dtype) for name, array in inputs.items()})
        values.update(instead or {})
        needed = None if wanted is None else self._needed(wanted, set(instead or ()))
        for step in self.steps:
            if needed is not None and needed.isdisjoint(step.outputs):
                continue
            if instead and all(name in instead for name in step.outputs if name):
                continue
            given = [values[name] if name else None for name in step.inputs]
            if shaken is not None and step.op in ROUNDINGS:
                given[0] = nudged(values[step.inputs[0]], shaken)
            try:
                if step.op not in FORWARD:
                    raise step.refuse("has no formula here")
                with np.errstate(all="ignore"):
                    made = FORWARD[step.op](step, *given)
            except UnsupportedLayer:
                if step.op != "If" and not self.carries.isdisjoint(step.outputs):
                    raise
                made = self._beside(step, values)
            if step.op in ROUNDINGS and step.outputs[0] in rounded:
                made = settled(step, given, made, rounded[step.outputs[0]])
            for name, array in zip(step.outputs, made if isinstance(made, tuple) else (made,), strict=False):
                if name:
                    values[name] = _as(np.asarray(array), dtype)
        return values

    @cached_property
    def _live(self) -> set[str]:
        """Values that outputs need."""
        return self._needed(self.outputs, set())

    def leads_on(self, step: Step) -> bool:
        """Tell whether an output needs what a step makes."""
        return not self._live.isdisjoint(step.outputs)

    def same(self, one: Step, other: Step) -> bool:
        """Tell whether two steps compute the same: a file may have a node twice, with constants of its own."""
        if (one.op, one.attributes, len(one.inputs)) != (other.op, other.attributes, len(other.inputs)):
            return False
        return all(self._equal(a, b) for a, b in zip(one.inputs, other.inputs, strict=True))

    def _equal(self, one: str, other: str) -> bool:
        if one == other:
            return True
        if not {one, other} <= self.fixed:
            return False
        found = self.run({}, wanted=[one, other])
        return np.array_equal(found[one], found[other])

    def decided(self, inputs: Mapping[str, Array]) -> Program:
        """Return the program with the branches that its Ifs take for inputs of these sizes in their places."""
        made = self
        for _ in range(_DEEPEST):  # a branch may have another If
            conditions = {step.outputs[0]: step.inputs[0] for step in made.steps if step.op == "If"}
            if not conditions:
                break
            values = made.run(inputs, wanted=list(conditions.values()))
            model = onnx.ModelProto()
            model.CopyFrom(made._whole)
            for node in model.graph.node:
                if node.op_type == "If" and node.output[0] in conditions:
                    value = np.asarray(values[node.input[0]], np.bool_)
                    node.input[0] = f"{node.output[0]}:decided"
                    model.graph.initializer.append(numpy_helper.from_array(value, node.input[0]))
            made = Program(model)
        return made

    def _beside(self, step: Step, values: Mapping[str, Array]) -> tuple[Array, ...]:
        """Return what a step without a formula makes of values that carry no relevance."""
        given = {name: values[name] for name in dict.fromkeys(step.inputs) if name}
        try:
            return tuple(by_evaluator(self._nodes[step.outputs[0]], self._opsets, given))
        except ValueError as error:
            raise step.refuse(f"has no formula here, and {error}") from error

    def _needed(self, wanted: Sequence[str], known: set[str]) -> set[str]:
        needed = set(wanted)
        for step in reversed(self.steps):
            if any(name in needed and name not in known for name in step.outputs):
                needed.update(filter(None, step.inputs))
        return needed - known


def _step(node: onnx.NodeProto, opset: int) -> Step:
    attributes = {each.name: setting(helper.get_attribute_value(each)) for each in node.attribute}
    op = node.op_type if node.domain in _OWN else f"{node.domain}.{node.op_type}"
    name = node.name or next(filter(None, node.output), node.op_type)
    inputs = (*node.input, *captured(node))
    outputs = (node.output[0] or f"{name}:first", *node.output[1:]) if node.output else ()
    return Step(name, op, inputs, outputs, attributes, opset)


def _makes_integers(step: Step) -> bool:
    return step.op == "Cast" and step.get("to") not in (1, 10, 11, 16)  # float, float16, double, bfloat16


#: Whole numbers of few bits, which NumPy knows by an extension, and what holds them.
_SMALL = {"int4": np.int8, "uint4": np.uint8}


def _settled(array: Array) -> Array:
    if array.dtype.name in _SMALL:
        return array.astype(_SMALL[array.dtype.name])
    array = meant(array)
    return array if array.dtype.kind in "biuSUO" else array.astype(np.float64)


def _as(array: Array, dtype: DTypeLike) -> Array:
    return array if array.dtype.kind in "biuSUO" else array.astype(dtype, copy=False)


def _sizes(info: onnx.ValueInfoProto) -> list[int | None]:
    return [dim.dim_value if dim.dim_value > 0 else None for dim in info.type.tensor_type.shape.dim]


def _is_float(info: onnx.ValueInfoProto) -> bool:
    return info.type.tensor_type.elem_type in (0, 1, 10, 11, 16)
