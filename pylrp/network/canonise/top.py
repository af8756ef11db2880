"""The function at the top: softmax, sigmoid and their kin are removed, so that what they are of is explained.

A probability is positive even where the logit is negative; relevance that starts at it and passes through unchanged
turns over every sign below. So what an output is a rising function of takes its place: the argument of the lowest
function of ``_FUNCTIONS`` that nothing but movement, scalings, clips, norms and concatenation lie above. Where an
output falls with it, as ``1 - p`` does, minus the argument is explained. Who else reads a function's value keeps it.
``__init__.py`` calls :func:`drop_top`, ``lowering.py`` asks :func:`stands_at_top`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pylrp.layers import (
    ELU,
    Affine,
    Clip,
    Concat,
    DynamicQuantize,
    Exp,
    HardSigmoid,
    Identity,
    Layer,
    LeakyReLU,
    Log,
    Movement,
    Normalize,
    Pad,
    Quantize,
    ReLU,
    Reshape,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from pylrp.layers.activations import Activation
from pylrp.layers.base import product
from pylrp.network.canonise.rewiring import drop_unused
from pylrp.network.graph import Graph, Node

__all__ = ["drop_top", "function_at_the_top", "stands_at_top"]

#: What is removed; tanh and others with f(0) = 0 keep the sign of their argument and stay.
_FUNCTIONS = (Softmax, Sigmoid, HardSigmoid, Softplus, Exp, Log)
_RISING = (ReLU, Tanh, Clip, Identity, Quantize, DynamicQuantize)  # whatever their settings
_LOGITS = {"softmax", "log_softmax", "sigmoid", "hard_sigmoid"}
_MOST_STEPS = 8
_WAY = (Movement, Activation, Affine, Concat, Normalize, Softmax, Quantize, DynamicQuantize)


@dataclass(frozen=True)
class _Form:
    """What an output is a rising function of.

    Attributes
    ----------
    value : str
    kind : str
        The function, several with commas between.
    falls : bool
        Whether the value is minus the function's argument.
    binary : bool
        The output is ``[1 - p, p]`` along axis 0, the value the logit of p alone.
    removed : tuple of Node
    """

    value: str
    kind: str
    falls: bool
    binary: bool
    removed: tuple[Node, ...]


def drop_top(graph: Graph) -> Graph:
    """Return the graph without functions at the top, with a note for each and its name in ``facts.top``."""
    rewriter = _Rewriter(graph)
    found = {name: rewriter.form(value) for name, value in graph.output_values.items()}
    forms = {name: form for name, form in found.items() if form is not None}
    if not forms:
        return graph
    classes = graph.facts.classes
    if len(graph.outputs) > 1:  # the labels are those of one output
        forms = {name: rewriter.unfolded(form) for name, form in forms.items()}
    elif classes is None and any(form.binary for form in forms.values()):
        classes = (0, 1)
    values = {**graph.output_values, **{name: form.value for name, form in forms.items()}}
    made = drop_unused(graph.changed(nodes=[*graph.nodes, *rewriter.made.values()], outputs=_distinct(values)))
    made, values = _settled(made, values, graph, rewriter.wishes)
    # An output that was called by its node is called by the node that makes it now.
    names = {name: name if graph.named_outputs else values[name] for name in values}
    outputs = values if graph.named_outputs else list(dict.fromkeys(names.values()))
    top = {names.get(name, name): kind for name, kind in graph.facts.top.items()}
    top.update({names[name]: _called(form) for name, form in forms.items()})
    return made.changed(
        outputs=outputs,
        notes=list(dict.fromkeys([*graph.notes, *map(_note, forms.values())])),
        facts=replace(graph.facts, top=top, classes=classes),
    )


def function_at_the_top(graph: Graph, output: str) -> str | None:
    """Return the name of the function at the top of an output, as :func:`drop_top` calls it; None if there is none."""
    form = _Rewriter(graph).form(graph.value(output))
    return None if form is None else _called(form)


def _distinct(values: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(values.values()))


def _called(form: _Form) -> str:
    # softmax(-z) is not 1 - softmax(z), sigmoid(-z) is 1 - sigmoid(z).
    return f"-{form.kind}" if form.falls and form.kind != "sigmoid" else form.kind


def _note(form: _Form) -> str:
    places = ", ".join(repr(node.name) for node in form.removed)
    if form.binary:
        what = "the logit of the second class is"
    elif set(form.kind.split(", ")) <= _LOGITS:
        what = "the logits are"
    else:
        what = "the value before it is"
    minus = "minus " if form.falls and not form.binary else ""
    return f"{form.kind} {places} at the top removed: {minus}{what} explained"


def _settled(
    graph: Graph, values: dict[str, str], before: Graph, wishes: Mapping[str, str]
) -> tuple[Graph, dict[str, str]]:
    """Give new nodes the names of those that they replace, and others where these stay for other readers."""
    outputs = set(before.outputs) if before.named_outputs else set()
    taken = {*graph.inputs, *outputs, *(node.name for node in graph.nodes)}
    new: dict[str, str] = {}
    for node in graph.nodes:
        # A function that others read leaves its name to the output.
        lost = node.name in outputs and values[node.name] != node.name
        if not lost and node.name not in wishes:
            continue
        wish = wishes.get(node.name, f"{node.name}_{node.layer.kind}")
        name, number = wish, 2
        while name in taken:
            name, number = f"{wish}_{number}", number + 1
        new[node.name] = name
        taken.add(name)
    nodes = [
        replace(node, name=new.get(node.name, node.name), inputs=tuple(new.get(value, value) for value in node.inputs))
        for node in graph.nodes
    ]
    values = {name: new.get(value, value) for name, value in values.items()}
    return graph.changed(nodes=nodes, outputs=_distinct(values)), values


class _Rewriter:
    """Finds what values are rising functions of, and makes the nodes that lead there."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._nodes = {node.name: node for node in graph.nodes}
        self._known: dict[str, _Form | None] = {}
        self.made: dict[str, Node] = {}
        #: What new nodes are to be called.
        self.wishes: dict[str, str] = {}
        for node in graph.nodes:  # from below, so that any depth will do
            self._known[node.name] = self._look(node)

    def form(self, value: str) -> _Form | None:
        """Return what a value is a rising function of; None where no function is at the top."""
        return self._known.get(value)

    def unfolded(self, form: _Form) -> _Form:
        """Return a form with an entry for each of the output's, where ``[1 - p, p]`` is one."""
        if not form.binary:
            return form
        minus = self._minus(form.value)
        both = self._make(f"{self.wishes.get(form.value, form.value)}_both", Concat(0), minus, form.value)
        return replace(form, value=both, binary=False)

    def _make(self, wish: str, layer: Layer, *inputs: str) -> str:
        name = f"{wish}: {layer.kind} of {', '.join(inputs)}"  # once, however many outputs it leads to
        self.made[name] = Node(name, layer, inputs)
        self.wishes[name] = wish
        return name

    def _minus(self, value: str) -> str:
        return self._make(f"{self.wishes.get(value, value)}_minus", Affine(-1.0, 0.0), value)

    def _look(self, node: Node) -> _Form | None:
        layer = node.layer
        if isinstance(layer, Concat):
            return self._joined(node)
        if not node.inputs or not isinstance(layer, _WAY):
            return None
        below = self.form(node.inputs[0])
        if isinstance(layer, _FUNCTIONS):
            if below is None:
                of_input = node.inputs[0] in self._graph.inputs  # no layer is left that could be explained
                return None if of_input else _Form(node.inputs[0], layer.kind, False, False, (node,))
            logarithm = isinstance(layer, Log) and below.kind == "softmax"
            return replace(below, kind="log_softmax" if logarithm else below.kind, removed=(*below.removed, node))
        if below is None:
            return self._bounded(node) if isinstance(layer, Clip) else self._half_tanh(node)
        if isinstance(layer, Affine):
            return self._scaled(node, layer, below)
        if isinstance(layer, Movement) and not isinstance(layer, Pad):
            below = self.unfolded(below)
            return replace(below, value=self._make(node.name, layer, below.value))
        return below if _rises(layer) else None

    def _scaled(self, node: Node, layer: Affine, below: _Form) -> _Form | None:
        scale = np.asarray(layer.scale)
        if (scale > 0).all():
            return below
        if not scale.all():
            return None
        below = self.unfolded(below)
        value = self._make(node.name, Affine(np.sign(scale), 0.0), below.value)
        return replace(below, value=value, falls=not below.falls)

    def _bounded(self, node: Node) -> _Form | None:
        """Recognise a hard sigmoid that is written as a clip: halfway between its bounds at 0."""
        layer, (value,) = node.layer, node.inputs
        assert isinstance(layer, Clip)
        if not np.isfinite([layer.low, layer.high]).all() or layer.low >= layer.high:
            return None
        value, scale, shift = self._affine(value)
        if scale == 0 or not np.isclose(shift, (layer.low + layer.high) / 2, rtol=1e-5) or layer.low < 0:
            return None
        value = value if scale > 0 else self._minus(value)
        return _Form(value, "hard_sigmoid", scale < 0, False, (node,))

    def _half_tanh(self, node: Node) -> _Form | None:
        """Recognise ``(1 + tanh(z / 2)) / 2``, which is a sigmoid."""
        value, scale, shift = self._affine(node.name)
        below = self._nodes.get(value)
        if below is None or not isinstance(below.layer, Tanh) or not np.allclose((abs(scale), shift), 0.5, rtol=1e-5):
            return None
        value = self._make(node.name, Affine(2.0 if scale > 0 else -2.0, 0.0), below.inputs[0])
        return _Form(value, "sigmoid", scale < 0, False, (below,))

    def _affine(self, value: str) -> tuple[str, float, float]:
        """Return what a value is ``scale * x + shift`` of with plain numbers, looking a few nodes down."""
        scale, shift = 1.0, 0.0
        for _ in range(_MOST_STEPS):
            node = self._nodes.get(value)
            if node is None:
                break
            if isinstance(node.layer, Affine):
                factors = np.asarray(node.layer.scale), np.asarray(node.layer.shift)
                if any(factor.size != 1 for factor in factors):
                    break
                shift += scale * float(factors[1].item())
                scale *= float(factors[0].item())
            elif not isinstance(node.layer, Identity) and not self._is_one_number(node):
                break
            value = node.inputs[0]
        return value, scale, shift

    def _is_one_number(self, node: Node) -> bool:
        """Tell whether a node gives the one number that it takes another shape."""
        numbers = {product(self._graph.shapes[name]) for name in (*node.inputs, node.name)}
        return isinstance(node.layer, Movement) and not isinstance(node.layer, Pad) and numbers == {1}

    def _joined(self, node: Node) -> _Form | None:
        forms = [self.form(value) for value in node.inputs]
        known = [form for form in forms if form is not None]
        if not known:
            return None
        binary = self._complement(node, known)
        if binary is not None:
            return binary
        parts = [
            value if form is None else self.unfolded(form).value for form, value in zip(forms, node.inputs, strict=True)
        ]
        kinds = list(dict.fromkeys(form.kind for form in known))
        removed = tuple(dict.fromkeys(n for form in known for n in form.removed))
        made = self._make(node.name, node.layer, *parts)
        return _Form(made, ", ".join(kinds), any(form.falls for form in known), False, removed)

    def _complement(self, node: Node, known: list[_Form]) -> _Form | None:
        """Recognise ``[1 - p, p]`` or ``[p, 1 - p]`` of a sigmoid, two numbers a sample."""
        shapes = [self._graph.shapes[value] for value in node.inputs]
        if len(known) != 2 or len(shapes) != 2 or any(product(shape) != 1 for shape in shapes):
            return None
        (first, a, shift_a), (second, b, shift_b) = (self._affine(value) for value in node.inputs)
        form = self.form(first)
        if first != second or form is None or form.kind != "sigmoid" or form.binary:
            return None
        if not np.allclose((a + b, shift_a + shift_b, abs(a)), (0, 1, 1)) or not np.isclose(max(shift_a, shift_b), 1):
            return None
        value = form.value if self._graph.shapes[first] == (1,) else self._make(node.name, Reshape((1,)), form.value)
        value = value if b > 0 else self._minus(value)
        return replace(form, value=value, falls=form.falls != (b < 0), binary=True)


def _rises(layer: Layer) -> bool:
    if isinstance(layer, LeakyReLU):
        return layer.slope >= 0
    if isinstance(layer, ELU):
        return layer.alpha >= 0
    if isinstance(layer, HardSigmoid):
        return layer.alpha > 0
    return isinstance(layer, (*_RISING, Normalize))


def stands_at_top(graph: Graph, node: Node) -> bool:
    """Tell whether a function makes an output, takes one, or leads to one through what :func:`drop_top` skips."""
    outputs = graph.output_values.values()
    return node.name in outputs or node.inputs[0] in outputs or _leads_to_outputs(graph, node.name)


def _leads_to_outputs(graph: Graph, value: str) -> bool:
    seen, waiting = {value}, [value]
    while waiting:
        for node, _ in graph.consumers(waiting.pop()):
            if not isinstance(node.layer, _WAY):
                return False
            if node.name not in seen:
                seen.add(node.name)
                waiting.append(node.name)
    return True
