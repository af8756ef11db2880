"""``reference_relevance``: relevance of an ONNX model's values by an evaluation of its own, in float64 NumPy.

An oracle: :meth:`pylrp.Network.verify` compares a network with it (``against.py``), tests compare layers with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike

from pylrp.verify.elementwise import FUNCTIONS
from pylrp.verify.folding import Folding, carried, is_scaling, is_weighted
from pylrp.verify.linear import CONVOLVING
from pylrp.verify.pooling import NORMALISATIONS
from pylrp.verify.program import Array, Program, Step
from pylrp.verify.recurrent import RECURRENT
from pylrp.verify.rules import Share
from pylrp.verify.tape import Rules, Tape

__all__ = ["KINDS", "Reference", "by_kind_and_place", "reference_relevance"]

#: What each kind of step does where no rule is given: coefficients without a stabiliser, as in AttnLRP.
KINDS: dict[str, str] = {
    "dense": "zero", "conv": "zero", "add": "zero", "pool": "zero", "batchnorm": "zero", "resize": "zero",
    "function": "pass", "softmax": "taylor", "normalisation": "detach", "product": "signal", "matmul": "half",
    "recurrent": "signal",
}  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """What an independent evaluation found.

    Attributes
    ----------
    values : dict of str to ndarray
        Every value of the model by its name in the file, with the batch, float64.
    relevance : dict of str to ndarray
        Of every value that received some, and of every input; of an input of whole numbers that of the rows it chose,
        summed over their entries: one number a token.
    output : str
        The value where relevance starts.
    start : ndarray
        The relevance there.
    """

    values: dict[str, Array]
    relevance: dict[str, Array]
    output: str
    start: Array


def reference_relevance(
    model: str | os.PathLike[str] | onnx.ModelProto,
    inputs: ArrayLike | Mapping[str, ArrayLike],
    target: int | Sequence[int] | ArrayLike | None = None,
    rules: Any = None,
    *,
    output: str | None = None,
    signals: Mapping[str, int] | None = None,
) -> Reference:
    """Return the values and the relevance of an ONNX model, evaluated in NumPy without pylrp's core, loaders or layers.

    Forward in float64, node by node as the file has them; then back in the coefficient form ``R = a c``. A factor or
    shift behind a layer with weights is part of it (a BatchNormalization, an ``Add`` of a bias).

    Parameters
    ----------
    model : path or ModelProto
    inputs : array_like or mapping of str to array_like
        With the batch; by name where there are several.
    target : int, sequence of int, or array_like, optional
        An index along axis 1 of the output, one for all or one a sample; or relevance of the output's shape, float.
        Default: the largest of each sample.
    rules : Rule, Composite or mapping of str to Rule, optional
        A rule for all layers with weights; a composite, applied by kind and place; or rules by name of a node, or by
        kind: "dense", "conv", "add", "pool", "batchnorm", "resize", "function", "softmax", "normalisation",
        "product", "matmul", "recurrent". A rule is an object of ``pylrp.rules`` or its name in lower case: "zero",
        "epsilon", "gamma", "zplus", "flat", "taylor", "stop", "half", "value", "signal", "detach", "pass".
        Default: :data:`KINDS`.
    output : str, optional
        The value where relevance starts. Default: the first output.
    signals : mapping of str to int, optional
        For products of two computed values, by name of the node: the position of the factor that takes the relevance.

    Returns
    -------
    Reference

    Raises
    ------
    UnsupportedLayer
        If an operator, or a rule for it, has no formula here.

    Examples
    --------
    >>> import onnx.parser, pylrp.verify
    >>> model = onnx.parser.parse_model('''<ir_version: 8, opset_import: ["": 17]>
    ... m (float[n, 2] x) => (float[n, 2] y) <float[2, 2] W = {1, 2, 3, 4}> { y = Gemm (x, W) }''')
    >>> pylrp.verify.reference_relevance(model, [[1.0, 2.0]], target=0).relevance["x"]
    array([[1., 6.]])
    """
    program = Program.read(model)
    given = dict(inputs) if isinstance(inputs, Mapping) else {next(iter(program.inputs)): inputs}
    values = program.run({name: np.asarray(array) for name, array in given.items()})
    top = output or program.outputs[0]
    folding = Folding(program)
    tape = Tape(program, values, _rules(program, folding, rules), folding, signals=signals)
    start = start_of(values[top], target)
    tape.back({top: start})
    found = {name: share.of(values[name]) for name, share in tape.shares.items()}
    for name in program.inputs:
        found.setdefault(name, np.zeros(values[name].shape))
    for value, name in program.tables.items():
        if value in tape.shares and found[name].ndim < found[value].ndim:
            found[name] = found[name] + found[value].sum(axis=tuple(range(found[name].ndim, found[value].ndim)))
    return Reference(values, found, top, start.of(values[top]))


def start_of(output: Array, target: Any) -> Share:
    """Return the relevance at the top: coefficients of 1 at the explained entries, or what was given."""
    array = np.asarray(target) if target is not None else output.reshape(len(output), -1).argmax(axis=1)
    if array.dtype.kind == "f":
        return Share(0.0, np.broadcast_to(array, output.shape).astype(np.float64))
    c = np.zeros(output.shape)
    c[np.arange(len(output)), np.broadcast_to(array, (len(output),))] = 1.0
    return Share(c)


def _rules(program: Program, folding: Folding, given: Any) -> Rules:
    if given is None:
        return Rules({}, KINDS)
    if isinstance(given, Mapping):
        named = {key: rule for key, rule in given.items() if key not in (*KINDS, "default")}
        by_value = {step.outputs[0]: step.name for step in program.steps}
        named = {by_value.get(key, key): rule for key, rule in named.items()}
        return Rules(named, {**KINDS, **{key: rule for key, rule in given.items() if key in (*KINDS, "default")}})
    if hasattr(given, "kinds") and hasattr(given, "default"):
        return by_kind_and_place(program, folding, given)
    return Rules({}, {**KINDS, "dense": given, "conv": given})


def by_kind_and_place(program: Program, folding: Folding, composite: Any) -> Rules:
    """Return the rules that a composite gives to a file's steps: by name, first and last place, kind.

    A name is that of a node in the file. Steps without weights have the rules that :data:`pylrp.rules.WEIGHTLESS`
    names.
    """
    from pylrp.rules import WEIGHTLESS

    first, last = _ends(program, program.steps), _ends(program, program.steps[::-1], up=False)
    behind: set[str] = set()
    named: dict[str, Any] = {}
    for step in program.steps:
        kind = kind_of(program, step)
        after = not behind.isdisjoint(step.inputs)
        if kind in ("dense", "conv") or after:
            behind.update(step.outputs)
        if kind is None or step.name in folding.folded:
            continue
        kind = "scaling" if kind == "batchnorm" and not after else kind
        fits = [rule for pattern, rule in composite.names.items() if step.name == pattern]
        if kind in ("dense", "conv"):
            fits += [rule for pattern, rule in composite.names.items() if fnmatchcase(step.name, pattern)]
        for here, rule in ((step.name in first, composite.first), (step.name in last, composite.last)):
            rule = rule.get(kind) if isinstance(rule, Mapping) else rule
            fits += [rule] if here and rule is not None else []
        fits += [composite.kinds[kind]] if kind in composite.kinds else []
        fits += (
            [composite.default]
            if kind in ("dense", "conv")
            else [WEIGHTLESS[kind].default]
            if kind in WEIGHTLESS
            else []
        )
        if fits:
            named[step.name] = fits[0]
    return Rules(named, KINDS)


def kind_of(program: Program, step: Step) -> str | None:
    """Return the kind by which a composite finds a step's rule; None for steps that take none."""
    several = len(carried(program, step)) > 1
    if not carried(program, step):
        return None
    if is_weighted(program, step):
        return "conv" if step.op in CONVOLVING else "dense"
    if is_scaling(program, step):
        return "batchnorm"
    if step.op in ("Add", "Sub", "Sum", "Mean"):
        return "add"
    if step.op in ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"):
        return "pool"
    if step.op in RECURRENT:
        return "recurrent"
    if step.op in ("Resize", "Upsample"):
        return "resize" if step.get("mode", "nearest") != "nearest" else None
    if step.op in (*NORMALISATIONS, "LRN", "LpNormalization"):
        return "normalisation"
    if step.op in ("Softmax", "Mul", "MatMul", "Einsum"):
        return (
            {"Softmax": "softmax", "Mul": "product"}.get(step.op, "matmul") if several or step.op == "Softmax" else None
        )
    return "function" if step.op in FUNCTIONS and step.op != "Neg" else None


def _ends(program: Program, steps: Sequence[Step], *, up: bool = True) -> set[str]:
    """Return the names of the layers with weights that no other stands before, or behind."""
    behind: set[str] = set()
    ends: set[str] = set()
    for step in steps:
        read, made = (step.inputs, step.outputs) if up else (step.outputs, step.inputs)
        after = not behind.isdisjoint(read)
        weighted = is_weighted(program, step)
        if weighted and not after:
            ends.add(step.name)
        if weighted or after:
            behind.update(name for name in made if name in program.carries)
    return ends
