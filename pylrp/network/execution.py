"""What a network keeps to run: the core's graph, plans by choice of rules, and who is to blame for a NaN.

``network.py`` makes one, ``explain.py`` runs explanations with it. ``prepared.py`` has the core's plan for some rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pylrp import _core
from pylrp._arrays import require_finite
from pylrp.errors import NotFinite
from pylrp.layers.base import Array
from pylrp.network.classes import Classes, classes_of
from pylrp.network.finite import finite, require_values
from pylrp.network.fused import Fusion, fused, fusions, touched
from pylrp.network.graph import Graph, Node
from pylrp.network.lowering import Lowered, lower
from pylrp.network.prepared import CoreGraph, Prepared
from pylrp.network.ranges import expected_of
from pylrp.network.requests import Inputs
from pylrp.rules.assignment import Assignment, assign
from pylrp.rules.composites import Composite
from pylrp.rules.terms import Rule

__all__ = ["Execution", "Laid"]

_MOST_PLANS = 64


class Laid(NamedTuple):
    """A graph, the attention in it, and what the core has of it, with one layer for each attention.

    Attributes
    ----------
    graph : Graph
    fusions : list of Fusion
    lowered : Lowered
    """

    graph: Graph
    fusions: list[Fusion]
    lowered: Lowered

    @classmethod
    def of(cls, graph: Graph) -> Laid:
        """Lay a graph out; its arrays are those that the core stores."""
        which = list(fusions(graph).values())
        lowered = lower(fused(graph, which))
        return cls(lowered.graph if not which else _with_layers_of(graph, lowered.graph), which, lowered)


class Execution:
    """A graph in the core and the plans made of it so far.

    Parameters
    ----------
    graph : Graph or Laid
    like : Execution, optional
        One of the same graph for inputs of other sizes: what was chosen there is chosen here.

    Attributes
    ----------
    graph : Graph
        The same with its arrays as the core stores them.
    expected : list of Expected
        What is known of the scale of each input.
    largest_batch : int
        How many samples it has run at once, at most: none as long as other executions do it for it.
    questions : dict
        What ``explain.py`` has settled of earlier requests.
    """

    def __init__(self, graph: Graph | Laid, like: Execution | None = None):
        laid = graph if isinstance(graph, Laid) else Laid.of(graph)
        self.graph: Graph = laid.graph
        self.expected = expected_of(self.graph)
        self._core_graph = CoreGraph.plain(laid.lowered, laid.fusions)
        self._fusions = {fusion.product: fusion for fusion in laid.fusions}
        self._like = like
        self._whole: CoreGraph | None = None
        self.largest_batch = 0
        self.questions: dict[Any, Any] = {}
        self._plans: dict[Any, Prepared] = {}
        self._assignments: dict[tuple[str, str], Assignment] = {}
        self._composed: dict[Any, CoreGraph] = {}
        self._classes: dict[str, Classes] = {}

    @property
    def joined(self) -> CoreGraph:
        """Return the graph in the core with attention as one layer wherever that is possible."""
        return self._core_graph

    def classes_at(self, name: str) -> Classes:
        """Return what is known of the classes of an output, or of the channels of another value."""
        found = self._classes.get(name)
        return self._classes.setdefault(name, classes_of(self.graph, name)) if found is None else found

    def values_of(self, inputs: Inputs, names: Sequence[str], threads: int, bfloat16: bool = False) -> list[Array]:
        """Return these values, (batch, size) each."""
        graph = self._core_graph
        if any(name not in graph.values for name in names):  # inside attention
            self._whole = graph = self._whole or CoreGraph.plain(lower(self.graph))
        return graph.core.forward(inputs.flat, [graph.values[name] for name in names], threads, bfloat16)

    def predict(self, x: Any, threads: int) -> Any:
        """Return the outputs of an input as the user gave it: an array, or a dict of several by name."""
        inputs, names = Inputs(self.graph, x), self.graph.outputs
        found = self.run(inputs, lambda: self.values_of(inputs, names, threads))
        self.require_finite(inputs, names, found)
        arrays = {name: inputs.shaped(flat, self.graph.shapes[name]) for name, flat in zip(names, found, strict=True)}
        return arrays if len(names) > 1 else arrays[names[0]]

    def run(self, inputs: Inputs, call: Any, blame: Callable[[], NotFinite] | None = None) -> Any:
        """Return what a call into the core returns; where it fails, name the input or layer that is not finite.

        Parameters
        ----------
        inputs : Inputs
        call : callable
        blame : callable, optional
            Finds the layer whose relevance overflows, where every value is finite.

        Raises
        ------
        NotFinite
        """
        self.largest_batch = max(self.largest_batch, inputs.batch)
        try:
            return call()
        except _core.CoreError:
            for name, array in inputs.given.items():
                if name in inputs.fed or array.dtype.kind in "iub":  # a table's gaps are filled; ids and masks
                    continue
                require_finite(array, "x" if len(inputs.given) == 1 else f"x[{name!r}]")
            self._require_finite_values(inputs)
            if blame is None:
                raise
            raise blame() from None

    def require_finite(self, inputs: Inputs, outputs: Sequence[str], found: list[Array]) -> None:
        """Raise NotFinite naming the first layer that is not finite, if one of the outputs is not."""
        if not finite(found):
            self._require_finite_values(inputs, outputs)

    def _require_finite_values(self, inputs: Inputs, outputs: Sequence[str] = ()) -> None:
        require_values(self.graph, lambda names: self.values_of(inputs, names, 0), outputs)

    def plan(
        self,
        rules: str | Composite | Rule | Sequence[Rule],
        convention: str,
        values: Collection[str] = (),
        bfloat16: bool = False,
    ) -> Prepared:
        """Return what is prepared for these rules.

        Parameters
        ----------
        rules
        convention : str
        values : collection of str
            Values that must be there: attention with one of them inside is not one layer.
        bfloat16 : bool
            Products of dense layers and convolutions round their operands to it.
        """
        apart = touched(self._fusions, values)
        key = (rules, convention, apart, bfloat16) if isinstance(rules, str) else None
        known = None if key is None else self._plans.get(key)
        if known is not None:
            return known
        made = self._assigned(rules, convention).apart(apart)
        # Equal rules may differ in whether a number was left at its default, which conventions may replace: the
        # compiled rules tell them apart.
        inner = tuple(made.rules.items()), tuple(map(id, made.compiled.values())), tuple(made.fused), bfloat16
        # Other threads may clear and fill the table meanwhile.
        known = self._plans.get(inner)
        if known is None:
            known = Prepared(self._graph_for(made), made, bfloat16)
            if len(self._plans) >= _MOST_PLANS:  # a sweep over parameters must not collect them
                self._plans.clear()
                self._composed.clear()
                self.questions.clear()
            self._plans[inner] = known
        if key is not None:
            self._plans[key] = known
        return known

    def _assigned(self, rules: str | Composite | Rule | Sequence[Rule], convention: str) -> Assignment:
        """Return the rules of the nodes, from an execution for other sizes where they do not depend on sizes."""
        if not isinstance(rules, str):
            return assign(self.graph, rules, convention)
        key = rules, convention
        if key not in self._assignments:
            like = None if self._like is None else self._like._assigned(rules, convention)
            same = None if like is None else like.for_sizes(self.graph, self._fusions, convention)
            self._assignments[key] = assign(self.graph, rules, convention) if same is None else same
        return self._assignments[key]

    def _graph_for(self, assignment: Assignment) -> CoreGraph:
        """Return the graph in the core, with layers that stand for more than themselves where rules ask for it."""
        if not assignment.cones and len(assignment.fused) == len(self._fusions):
            return self._core_graph
        key = tuple(assignment.cones.items()), tuple(assignment.fused)
        known = self._composed.get(key)
        if known is None:
            known = self._composed[key] = CoreGraph.for_rules(self.graph, assignment)
        return known


def _with_layers_of(graph: Graph, other: Graph) -> Graph:
    """Return a graph with the layers that another one has under the same names, of weights in other memory."""
    layers = {node.name: node.layer for node in other.nodes}

    def of(node: Node) -> Node:
        layer = layers.get(node.name, node.layer)
        return node if layer is node.layer or type(layer) is not type(node.layer) else replace(node, layer=layer)

    return graph.with_shared_storage([of(node) for node in graph.nodes])
