"""The part of an ONNX model that no input changes: initialisers, and what nodes compute from them and from shapes.

The batch size is not known, so whatever derives from it is computed for two sizes; entries that differ are the ones
that follow the batch. An array with the batch along axis 0 is kept without it. ``onnx/folding.py`` adds what nodes
compute, the operators ask for weights and settings.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pylrp._limits import TooLarge, allowed, require
from pylrp._meant import meant
from pylrp.errors import NotFinite
from pylrp.loaders.onnx.file import ModelFile
from pylrp.loaders.onnx.sizes import folded_size
from pylrp.loaders.onnx.views import Size, Times
from pylrp.network.side_operators import OPERATORS

__all__ = ["BATCHES", "Constant", "Constants", "Stored", "attributes_of"]

Array = NDArray[Any]

#: Two batch sizes that no model mentions by chance.
BATCHES = (7919, 7927)

_WIDENS = {"Cast", "NonZero", "ArgMax", "ArgMin", "ConstantOfShape", "DequantizeLinear", "EyeLike", "OneHot"}
_ONNX = ("", "ai.onnx")
#: What is computed in NumPy where all inputs are whole numbers: sizes. onnx's evaluator takes ten times as long.
_OF_WHOLE = {
    "Add", "And", "Concat", "Equal", "Expand", "Gather", "Greater", "Less", "Mul", "Neg", "Not", "Or", "Range",
    "ReduceProd", "Reshape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
#: Whose axes or sizes were an attribute before opset 13.
_BY_INPUT, _INPUTS_SINCE = {"ReduceSum", "Split", "Squeeze", "Unsqueeze"}, 13
_MOST_ENTRIES, _MOST_STEPS = 160 << 20, 1 << 30  # VGG19 has 144 million weights
#: Results are kept of inputs of so many bytes each, so many of them.
_SMALL, _MOST_COMPUTED = 256, 4096
#: Operators that make much of little.
_LARGER = {"Expand", "Range", "Tile", "Pad", "OneHot", "EyeLike", "Resize"}
#: Types of 16 bits, and the largest number of each.
_LARGEST: dict[int, float] = {TensorProto.FLOAT16: 65504.0, TensorProto.BFLOAT16: 3.39e38}


@dataclass(frozen=True)
class Constant:
    """A value that no input changes, for two batch sizes; mostly one array twice."""

    first: Array
    second: Array
    #: ``axis`` is a multiple of the batch, all samples have the same; here it is as long as one has: 1, or its heads.
    per_sample: bool = False
    axis: int = 0

    @property
    def follows_batch(self) -> bool:
        """Tell whether the value depends on the batch size."""
        return self.first is not self.second and not np.array_equal(self.first, self.second)

    @property
    def is_sized(self) -> bool:
        """Tell whether one axis is as long as the batch, or a multiple: zeros like a value."""
        return self.per_sample or self.follows_batch

    @property
    def number(self) -> Array | None:
        """The number that all entries are, whatever the batch size; None where they differ."""
        flat = self.first.ravel()
        if not flat.size or self.first.dtype.kind not in "fi":
            return None
        same = bool((flat == flat[0]).all() and (self.first is self.second or (self.second == flat[0]).all()))
        return flat[0].reshape(()) if same else None


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes: numbers, strings, lists, arrays."""
    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, float):
            value = _meant(value)
        elif isinstance(value, list) and value and isinstance(value[0], float):
            value = [_meant(v) for v in value]
        elif isinstance(value, TensorProto) and value.data_location != TensorProto.EXTERNAL:
            value = numpy_helper.to_array(value)
        found[attribute.name] = value
    return found


def _meant(value: float) -> float:
    """Return the number that a float32 attribute stands for: 0.1, not 0.10000000149, and 1 / 6."""
    single = np.asarray(value, np.float32)
    found = float(meant(single))
    return float(str(single)) if found == float(single) else found


def _key(node: NodeProto, inputs: Sequence[Array | None]) -> tuple[Any, ...] | None:
    """Return what a node's results depend on; None where its inputs are large, or none."""
    given = [array for array in inputs if array is not None]
    if not given or any(array.nbytes > _SMALL or array.dtype.hasobject for array in given):
        return None
    if len(node.output) != 1 or node.op_type in _LARGER:
        return None
    attributes = tuple(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
    arrays = tuple(None if array is None else (array.dtype.str, array.shape, array.tobytes()) for array in inputs)
    return node.domain, node.op_type, attributes, arrays


@dataclass
class Stored:
    """Initialisers of a model, read once: as they are, and in other forms."""

    known: dict[str, Constant] = field(default_factory=dict)
    computed: dict[tuple[Any, ...], list[Array]] = field(default_factory=dict)  # of small inputs: sizes, mostly
    made: dict[tuple[str, str], Array] = field(default_factory=dict)


class Constants:
    """Constants by name.

    Parameters
    ----------
    file : ModelFile
    dtype : dtype
        In which floating-point weights are handed out.
    stored : Stored, optional
        Initialisers that have been read, for reading the model once more.
    """

    def __init__(self, file: ModelFile, dtype: np.dtype[Any], stored: Stored | None = None):
        self._stored = Stored() if stored is None else stored
        model = file.model
        self._file = file
        self.dtype = dtype
        self._opsets = list(model.opset_import)
        self._ir_version = model.ir_version
        self._tensors: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self._sparse = {tensor.values.name for tensor in model.graph.sparse_initializer}
        self._known: dict[str, Constant] = {}
        self._made: dict[tuple[str, str], Array] = {}
        self._size = self._entries = self._steps = 0  # what constants took: bytes, entries and steps to compute them
        entries = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
        # Weights are converted, dequantised, transposed: each a few times.
        self._most_entries = max(_MOST_ENTRIES, min(8 * entries, allowed() // 16))
        #: Names of float types that were converted, for a note.
        self.converted: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._known or name in self._tensors

    def __getitem__(self, name: str) -> Constant:
        if name in self._known:
            return self._known[name]
        if name not in self._stored.known:
            array = self._read(self._tensors[name])
            self._take(array.nbytes, f"the constants up to {name!r}")
            self._stored.known[name] = Constant(array, array)
        return self._stored.known[name]

    def without(self, names: Iterable[str]) -> Constants:
        """Return the same without what was computed under these names, to compute it again."""
        made = copy.copy(self)
        gone = set(names)
        made._known = {name: constant for name, constant in self._known.items() if name not in gone}
        made._size = made._entries = made._steps = 0
        return made

    def stored(self, name: str) -> Array | None:
        """Return an initialiser as it is, None where there is none of this name."""
        tensor = self._tensors.get(name)
        return None if tensor is None else self._file.array(tensor)

    def __setitem__(self, name: str, constant: Constant) -> None:
        self._known[name] = constant

    def _read(self, tensor: TensorProto) -> Array:
        array = self._file.array(tensor)
        if tensor.data_type in _LARGEST:
            self.converted.add(TensorProto.DataType.Name(tensor.data_type).lower())
            return array.astype(np.float32)
        return meant(array) if self.dtype == np.float64 else array

    def weight(self, name: str, what: str = "", make: Callable[[Array], Array] | None = None) -> Array:
        """Return a constant in the network's dtype; one array for one name, so that shared weights stay shared.

        Parameters
        ----------
        name : str
        what, make : str and callable, optional
            Another form of it, and what it is called: its transpose, for example.
        """
        key = name, what
        # What is computed may be another for another length of the inputs.
        own = self._stored.made if name in self._tensors and name not in self._known else self._made
        if key not in own:
            array = self[name].first
            self.require_finite(name)
            if array.dtype != self.dtype:
                if array.dtype.kind == "f":
                    self.converted.add(str(array.dtype))
                array = array.astype(self.dtype)
            own[key] = array if make is None else np.ascontiguousarray(make(array))
            if make is not None and own is self._stored.made:  # one form is enough in memory, the file has the other
                self._stored.known.pop(name, None)
        return own[key]

    def require_finite(self, name: str) -> None:
        """Raise NotFinite where weights that the file has in 16 bits are infinite or NaN."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_type not in _LARGEST:
            return
        array = self[name].first
        if np.isfinite(array).all():
            return
        kind = TensorProto.DataType.Name(tensor.data_type).lower()
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise NotFinite(
            f"weights {name!r}: entry {list(at)} is {array[at]}, the file has {kind}, into which no number beyond "
            f"{_LARGEST[tensor.data_type]:g} fits: export the model in float32",
            what=name,
        )

    def _take(self, size: int, what: str) -> None:
        self._size += size
        require(self._size, what)

    def allow(self, node: NodeProto, inputs: Sequence[Array | None]) -> None:
        """Raise if what a node would make of these inputs is too large, or too much work for loading a model.

        Raises
        ------
        TooLarge
        """
        entries, steps = folded_size(node.op_type, attributes_of(node), inputs)
        itemsize = max((array.itemsize for array in inputs if array is not None), default=8)
        self._take(entries * (8 if node.op_type in _WIDENS else itemsize), "the constants computed up to here")
        self._entries += entries
        self._steps += steps
        if self._entries > self._most_entries or self._steps > _MOST_STEPS + 8 * self._most_entries:
            raise TooLarge(
                f"asks for too much: constants of {self._entries} entries are to be computed in {self._steps} steps, "
                "too many for loading a model: run onnxruntime's offline optimisation over it first, "
                "with GraphOptimizationLevel.ORT_ENABLE_BASIC"
            )

    def run(self, node: NodeProto, inputs: Sequence[Array | None]) -> list[Array]:
        """Compute one node for these inputs; an optional one that is missing is None.

        Raises
        ------
        ValueError
            If the inputs or attributes are not what the operator takes.
        """
        self.allow(node, inputs)
        if node.op_type == "Constant" and node.domain in _ONNX:
            return [self._constant(node)]
        if node.op_type == "ConstantOfShape" and inputs[0] is not None:
            value = self.fill(node)
            value = meant(value) if self.dtype == np.float64 else value
            return [np.full([int(n) for n in inputs[0]], value, value.dtype)]
        key = _key(node, inputs)
        if key is None:
            return self._evaluate(node, inputs)
        if key not in self._stored.computed:
            if len(self._stored.computed) >= _MOST_COMPUTED:
                self._stored.computed.clear()
            self._stored.computed[key] = self._evaluate(node, inputs)
            for array in self._stored.computed[key]:
                array.setflags(write=False)
        return list(self._stored.computed[key])

    def _evaluate(self, node: NodeProto, inputs: Sequence[Array | None]) -> list[Array]:
        whole = all(array is not None and array.dtype.kind in "iub" for array in inputs)
        if whole and inputs and node.op_type in _OF_WHOLE and node.domain in _ONNX:
            try:
                return [np.asarray(OPERATORS[node.op_type](attributes_of(node), *inputs))]
            except Exception as error:  # whatever the operator meets, it can't be computed here
                raise ValueError("can't be computed from its constants") from error
        from onnx.reference import ReferenceEvaluator  # 13 MB of modules, and most models compute nothing

        names = [name if array is not None else "" for name, array in zip(node.input, inputs, strict=True)]
        lone = NodeProto()
        lone.CopyFrom(node)
        # What is computed of constants has the network's precision, also where the file has 16 bits.
        own = TensorProto.DOUBLE if self.dtype == np.float64 else TensorProto.FLOAT
        if self.dtype == np.float64:
            inputs = [a.astype(np.float64) if a is not None and a.dtype == np.float32 else a for a in inputs]
        for attribute in lone.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in (TensorProto.FLOAT, *_LARGEST):
                attribute.i = own
        del lone.input[:]
        lone.input.extend(names)
        graph = helper.make_graph(
            [lone],
            "constant",
            [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(filter(None, names))],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
        )
        model = helper.make_model(graph, opset_imports=self._opsets_of(node), ir_version=self._ir_version)
        feeds = {name: array for name, array in zip(names, inputs, strict=True) if array is not None}
        try:
            # Integer divisions by zero and the like: the reference warns, we look at the result.
            with np.errstate(all="ignore"):
                return [np.asarray(out) for out in ReferenceEvaluator(model).run(None, feeds)]
        except Exception as error:  # whatever the reference meets, the node can't be computed here
            raise ValueError("can't be computed from its constants") from error

    def _opsets_of(self, node: NodeProto) -> list[Any]:
        """Return the opsets of a node that is evaluated: what stands for a fused one is in the form of opset 13."""
        if node.op_type not in _BY_INPUT or len(node.input) == 1:
            return self._opsets
        newest = max((each.version for each in self._opsets if each.domain in _ONNX), default=1)
        return [helper.make_opsetid("", max(newest, _INPUTS_SINCE))]

    @staticmethod
    def fill(node: NodeProto) -> Array:
        """Return the number that a ConstantOfShape repeats."""
        value: Array = attributes_of(node).get("value", np.zeros(1, np.float32))
        kept = value.reshape(-1)[:1].reshape(())
        return kept.astype(np.float32) if kept.dtype.kind not in "biu" and kept.dtype.itemsize < 4 else kept

    def _constant(self, node: NodeProto) -> Array:
        if len(node.attribute) != 1:
            raise ValueError(f"has {len(node.attribute)} values")
        (attribute,) = node.attribute
        if attribute.name == "value":
            return self._read(attribute.t)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(helper.get_attribute_value(attribute), np.float32)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(helper.get_attribute_value(attribute), np.int64)
        raise ValueError(f"holds {attribute.name}, which is no tensor of numbers")

    def shape(self, name: str, sizes: Sequence[Size], start: int = 0, end: int | None = None) -> None:
        """Note what Shape gives for an activation whose axes in the file have these sizes."""
        first, second = (
            np.asarray([n.factor * batch if isinstance(n, Times) else n for n in sizes][start:end], np.int64)
            for batch in BATCHES
        )
        self[name] = Constant(first, second)

    def size(self, name: str, shape: Sequence[int]) -> None:
        """Note what Size gives for an activation of this logical shape."""
        first, second = (np.asarray(batch * math.prod(shape), np.int64) for batch in BATCHES)
        self[name] = Constant(first, second)
