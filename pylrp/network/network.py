"""``pylrp.Network``: a network prepared once, then explained in one call into the compiled core.

What depends on the weights and the rules alone (w² and flat normalisations, the constant parts of a z-box) is computed
the first time a composite is used and kept. :func:`pylrp.relevance` is the one-shot form for bare arrays.
``requests.py`` settles inputs and targets, ``assignment.py`` finds the rules, ``lowering.py`` speaks to the core.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp import _core
from pylrp._arrays import require_finite
from pylrp.errors import NotFinite
from pylrp.info import thread_count
from pylrp.layers import Layer, Shape
from pylrp.layers.base import product
from pylrp.network import requests
from pylrp.network.canonise import canonise
from pylrp.network.classes import Classes, ClassIndex, ClassIndices, as_indices, classes_of
from pylrp.network.explanation import Explanation, Layers
from pylrp.network.finite import finite, overflow_in_relevance, require_ledger, require_values
from pylrp.network.graph import Graph
from pylrp.network.ledger import Ledger
from pylrp.network.lowering import lower
from pylrp.network.prepared import CoreGraph, Prepared
from pylrp.network.ranges import expected_of, warn_unscaled
from pylrp.network.summary import table
from pylrp.present import html
from pylrp.present.html import Summary
from pylrp.rules.assignment import Assignment, assign
from pylrp.rules.catalogue import Rule
from pylrp.rules.composites import Composite, either
from pylrp.rules.defaults import default_for

__all__ = ["Network"]

Array = NDArray[Any]
Rules = str | Composite | Rule | Sequence[Rule]
_MOST_PLANS = 64


class Network:
    """A network of layers.

    Parameters
    ----------
    layers : sequence of Layer
        From the input up: :class:`pylrp.layers.Dense`, :class:`pylrp.layers.Conv`, :class:`pylrp.layers.ReLU`, ...
        The arrays are used in place where they are float32 or float64 with contiguous rows; don't change them
        afterwards.
    input_shape : tuple of int, optional
        The shape of a sample, channels first: ``(3, 224, 224)``. Not needed where the first layer is dense.

    Raises
    ------
    ValueError
        If shapes do not fit, or a weight or bias is NaN or infinite.
    TypeError
        If an entry is no layer, or arrays are of mixed or other dtypes.
    UnsupportedLayer
        If a layer can't be explained.

    See Also
    --------
    pylrp.load : From a model file or another library's model.

    Examples
    --------
    >>> import numpy as np, pylrp
    >>> from pylrp.layers import Dense, ReLU
    >>> net = pylrp.Network([Dense([[1.0, -1.0], [0.5, 2.0]]), ReLU(), Dense([[1.0, 1.0]])])
    >>> ex = net.explain(np.array([1.0, 0.5]), composite="epsilon")
    >>> ex.relevance.round(3), ex.output
    (array([1.5, 0.5]), array([2.]))
    """

    def __init__(self, layers: Sequence[Layer], input_shape: Shape | None = None):
        self._take(canonise(Graph.sequential(layers, input_shape)))

    @classmethod
    def from_graph(cls, graph: Graph, *, keep_top: bool = False, keep_softmax: bool = False) -> Network:
        """Return the network of a graph of layers.

        Parameters
        ----------
        graph : pylrp.network.Graph
        keep_top, keep_softmax : bool, default False
            Explain the values of a softmax, sigmoid or another function at the top instead of those before it.
        """
        network = cls.__new__(cls)
        network._take(canonise(graph, keep_top=keep_top or keep_softmax))
        return network

    def _take(self, graph: Graph) -> None:
        lowered = lower(graph)
        self._core_graph = CoreGraph.plain(lowered)
        #: The layers and how they are connected.
        self.graph: Graph = lowered.graph
        #: The layers that take part in the ledger, from input to output.
        self.names: list[str] = [node.name for node in graph.nodes if node.layer.has_ledger_row]
        self._plans: dict[Any, Prepared] = {}
        self._composed: dict[Any, CoreGraph] = {}
        self._expected = expected_of(self.graph)
        self._classes: dict[str, Classes] = {}

    def __reduce__(self) -> tuple[Callable[..., Network], tuple[Graph]]:
        """Return how to make it again, in another process for example: from its layers."""
        return _again, (self.graph,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype in which everything is computed: float32 or float64."""
        return self.graph.dtype

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what loading changed: a softmax that was removed, weights that were converted."""
        return self.graph.notes

    @property
    def top(self) -> str | Mapping[str, str] | None:
        """Return the function at the top that loading removed, None if there was none.

        An output is its argument then: a logit ("softmax", "log_softmax", "sigmoid", "hard_sigmoid") or the value
        before it ("softplus", "exp", "log"), or minus that ("-exp"). Of several outputs a dict by those that had one.
        """
        top = self.graph.facts.top
        return dict(top) if len(self.graph.outputs) > 1 else top.get(self.graph.outputs[0])

    @property
    def input_size(self) -> int:
        """Return the number of input features of one sample."""
        return sum(product(shape) for shape in self.graph.inputs.values())

    @property
    def output_size(self) -> int:
        """Return the number of outputs of one sample."""
        return product(self.graph.shapes[self.graph.outputs[0]])

    def __repr__(self) -> str:
        inputs = ", ".join(str(shape) for shape in self.graph.inputs.values())
        outputs = ", ".join(str(self.graph.shapes[name]) for name in self.graph.outputs)
        return f"<Network {inputs} -> {outputs}, {len(self.graph.nodes)} layers, {self.dtype}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the summary."""
        return html.html(html.lines([repr(self)]), self.summary()._repr_html_())

    def class_index(self, y: Any) -> ClassIndex | ClassIndices:
        """Return the index of a class by its label, or the indices of several.

        Needed where labels are integers other than 0 ... n - 1: as targets they could be indices as well, and are
        refused. What this returns is known to be an index.

        Parameters
        ----------
        y : label or array_like of labels
            As the model's classes are called.

        Returns
        -------
        int or ndarray of int64, of y's shape
            For ``target=``, ``targets=`` and ``against=``.

        Raises
        ------
        ValueError
            If no class is called so, or the labels are not known.
        """
        known = [classes for name in self.graph.outputs if (classes := classes_of(self.graph, name)).labels]
        return (known or [classes_of(self.graph, self.graph.outputs[0])])[0].index(y)

    def summary(self, composite: Rules | None = None, *, rules: Rules | None = None) -> Summary:
        """Return a table of the layers: name, kind, shape of the output, parameters, and the rule each gets.

        It is a text; a notebook shows it as a table.

        Parameters
        ----------
        composite : str, Composite, Rule or sequence of Rule, optional
            Default: the one that :meth:`explain` uses.
        rules : optional
            Another name for ``composite``, as in :func:`pylrp.relevance`.
        """
        return table(assign(self.graph, self._composite(either(composite, rules)), "zennit"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a ``.pylrp.npz`` file; :func:`pylrp.load` reads it back, equal bits.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        TypeError
            If the network has a :class:`pylrp.layers.CustomLayer`.
        """
        from pylrp.loaders.plain.native import save_graph

        save_graph(self.graph, path)

    def forward(
        self, x: ArrayLike | Mapping[str, ArrayLike] | tuple[ArrayLike, ...], *, threads: int | None = None
    ) -> Any:
        """Return the network's output.

        Parameters
        ----------
        x : array_like of shape (batch, ...) or (...)
            With several inputs a dict by name, or a tuple.
        threads : int, optional

        Returns
        -------
        ndarray, or dict of str to ndarray
            A dict by name where the network has several outputs.
        """
        inputs = requests.Inputs(self.graph, x)
        names = self.graph.outputs
        found = self._run(inputs, lambda: self._values_of(inputs, names, _threads(threads)))
        self._require_finite(inputs, names, found)
        arrays = {name: inputs.shaped(flat, self.graph.shapes[name]) for name, flat in zip(names, found, strict=True)}
        return arrays if len(names) > 1 else arrays[names[0]]

    def explain(
        self,
        x: ArrayLike | Mapping[str, ArrayLike] | tuple[ArrayLike, ...],
        target: int | str | ArrayLike | None = None,
        composite: Rules | None = None,
        *,
        rules: Rules | None = None,
        targets: Sequence[int | str | ArrayLike] | None = None,
        against: int | str | ArrayLike | None = None,
        start: Literal["logit", "one"] = "logit",
        output: str | None = None,
        layers: Literal["all"] | Sequence[str] | None = None,
        masks: Mapping[str, Sequence[int]] | None = None,
        convention: str = "zennit",
        threads: int | None = None,
    ) -> Explanation:
        """Predict, and explain the prediction.

        Parameters
        ----------
        x : array_like of shape (batch, ...) or (...), or data frame
            One sample without a batch axis gives results without one. With several inputs a dict by name, or a tuple.
            float32 and float64 are converted into the network's dtype, with a note. Where the network knows the names
            of its features, the columns of a data frame are put in order by name, with a note; relevance comes back in
            the order of the columns.
        target : int, str, sequence of them or array_like, optional
            The class to explain: the top class of each sample (default), one for all, one a sample, or relevance at
            the top, used as it is. An int is an index; a label is one of the model's classes, see
            :meth:`class_index` for labels that are integers. Of an output with positions, ``(channels, ...)``, an int
            is a channel. Where one logit z decides between two classes, class 1 is explained by z and class 0 by
            -z: its relevance is that of z, negated, while ``output`` stays z; the default is class 1.
        composite : str, Composite, Rule or sequence of Rule, optional
            Rules by name, one for all layers, or one for each layer with weights from the input up. Default, named in
            ``ex.composite``: "epsilon_plus_flat" for convolutional networks on images, "epsilon_plus" for those on
            signals, "epsilon" for networks without convolutions.
        rules : optional
            Another name for ``composite``, as in :func:`pylrp.relevance`.
        targets : sequence of int or str, optional
            Explain several classes on one forward pass; the relevance has shape (batch, targets, ...), for a single
            sample (targets, ...).
        against : int, str or sequence of them, optional
            A second class: explains the difference of ``target`` and this one. The relevance at the top is the
            target's logit there and minus this class's logit here.
        start : {"logit", "one"}, default "logit"
            Relevance at the top: the class's output, or that divided by its absolute value: 1 or -1, so that maps have
            one scale. Of an output with positions, and of a difference, it is their sum that is divided by, unless it
            is 0.
        output : str, optional
            The value where relevance starts: an output's name (needed where there are several), or any layer's.
        layers : "all" or sequence of str, optional
            Values whose relevance is kept in ``ex.layers``. Default: found anew when it is asked for.
        masks : mapping of str to sequence of int, optional
            By name of a layer, the channels through which relevance may pass (concept relevance propagation, Achtibat
            et al. 2023); what the others got is "masked" in the ledger.
        convention : str, default "zennit"
        threads : int, optional

        Returns
        -------
        Explanation

        Raises
        ------
        ValueError
            If shapes do not fit, a target is no class, or an integer target may be an index or a label.
        NotFinite
            If the input or a result is NaN or infinite; it names the layer.
        FeatureMismatch
            If the columns of a data frame are not the network's features.
        TypeError
            If the input is neither float32 nor float64.

        Warns
        -----
        UserWarning
            If the input lies outside a z-box's bounds, or plainly was not scaled as the network expects: by the range
            that the file or :func:`pylrp.load` gives, or by the scaling or BatchNorm that the network begins with.
        """
        if start not in ("logit", "one"):
            raise ValueError(f"start must be 'logit' or 'one', got {start!r}")
        graph = self.graph
        inputs = requests.Inputs(graph, x)
        top = requests.start_value(graph, output)
        composite = self._composite(either(composite, rules))
        prepared = self._plan(composite, convention)
        prepared.warn_outside(inputs)
        if not prepared.assignment.boxes:
            for expected in self._expected:
                warn_unscaled(expected, inputs.logical(expected.name), stacklevel=3)
        absorbed = prepared.absorbed(top)
        wanted = requests.wanted_values(graph, layers)
        if layers == "all":
            wanted = [name for name in wanted if name not in absorbed]
        masks = requests.by_value(graph, masks)
        requests.require_outside([*wanted, *(masks or ())], absorbed)
        contrasted: Array | None = None
        masked = requests.channel_masks(graph, masks, prepared.values)
        shape = graph.shapes[top]
        classes = self._classes.get(top)
        if classes is None:
            classes = self._classes.setdefault(top, classes_of(graph, top))
        asked = requests.starts(inputs, shape, top, target, targets, classes)
        starts, signs = asked.starts, asked.signs
        if against is not None:
            contrasted, starts = requests.contrast(
                self._run(inputs, lambda: self._values_of(inputs, [top], _threads(threads)))[0],
                asked,
                against,
                start,
                shape,
                classes,
            )
            signs = [None]
        names = list(dict.fromkeys([*graph.inputs, *wanted]))
        outputs = [*graph.outputs, *([top] if top not in graph.outputs else [])]

        def propagate(outputs: Sequence[str], wanted: Sequence[str]) -> Any:
            return prepared.plan.explain(
                inputs.flat,
                starts,
                start == "one",
                prepared.values[top],
                [prepared.values[name] for name in outputs],
                [prepared.values[name] for name in wanted],
                masked,
                _threads(threads),
            )

        found, chosen, relevance, ledger = self._run(
            inputs,
            lambda: propagate(outputs, names),
            lambda: overflow_in_relevance(graph, top, lambda name: propagate([], [name])),
        )
        self._require_finite(inputs, outputs, found)
        require_ledger(prepared.graph, ledger)
        for t, sign in enumerate(signs):
            if sign is not None:
                for array in relevance:
                    array.reshape(len(starts), inputs.batch, array.shape[1])[t] *= sign.reshape(-1, 1)
                ledger.reshape(*ledger.shape[:2], len(starts), inputs.batch)[:, :, t] *= sign
        predicted = {name: inputs.shaped(a, graph.shapes[name]) for name, a in zip(outputs, found, strict=True)}
        count = None if targets is None else len(starts)
        maps = {
            name: inputs.several(a, graph.shapes[name], count, name) for name, a in zip(names, relevance, strict=True)
        }
        rows = [node.name for node in graph.nodes if node.layer.has_ledger_row or node.name in (masks or ())]
        rows = prepared.rows(rows)
        applied = prepared.rules(rows)
        pages = prepared.account(ledger, rows).reshape(len(rows), ledger.shape[1], len(starts), inputs.batch)
        ledgers = [Ledger(pages[:, :, t], rows, applied, single=inputs.single) for t in range(len(starts))]
        by_input = {name: maps[name] for name in graph.inputs}

        def again(name: str) -> Array:
            ex = self.explain(
                x, target, composite, targets=targets, against=against, start=start, output=output, layers=[name],
                masks=masks, convention=convention, threads=threads,
            )  # fmt: skip
            # What was given is not copied: it may have been overwritten since.
            if not all(_alike(ex.layers[given], maps[given]) for given in graph.inputs):
                raise RuntimeError(
                    f"relevance of {name!r} is found by explaining once more, and what was explained is no longer the "
                    f"same: an array was changed since. Explain with layers=[{name!r}], or keep a copy"
                )
            return ex.layers[name]

        explained = requests.explained(chosen, asked, targets is not None) if contrasted is None else contrasted
        features = {name: inputs.features(name) for name in graph.inputs}
        return Explanation(
            relevance=maps[next(iter(by_input))] if len(by_input) == 1 else by_input,
            output=predicted[top] if len(graph.outputs) == 1 or output is not None else predicted,
            target=explained if explained is None or classes.numbered else as_indices(explained),
            layers=Layers(
                maps, [name for name in graph.shapes if name not in absorbed], again, graph.output_values, absorbed
            ),
            ledger=ledgers[0] if targets is None else ledgers,
            input=inputs.given if len(inputs.given) > 1 else next(iter(inputs.given.values())),
            settings={
                "composite": composite,
                "convention": convention,
                "start": start,
                "output": top,
                "masks": None if masks is None else {name: list(channels) for name, channels in masks.items()},
                "targets": None if targets is None else list(targets),
                "against": None if against is None else requests.to_pass_again(classes.resolve(against)),
                "two_classes": classes.two,
                "single": inputs.single,
                "channels_last": [name for name in graph.channels_last if name in graph.inputs],
            },
            notes=tuple(dict.fromkeys([*inputs.notes, *asked.notes])),
            features=features if len(features) > 1 else next(iter(features.values())),
        )

    def _composite(self, given: Rules | None) -> Rules:
        return default_for(self.graph) if given is None else given

    def _values_of(self, inputs: requests.Inputs, names: Sequence[str], threads: int) -> list[Array]:
        """Return these values, (batch, size) each."""
        plan, values = self._plan("epsilon", "zennit").plan, self._core_graph.values
        return plan.forward(inputs.flat, [values[name] for name in names], threads)

    def _run(self, inputs: requests.Inputs, call: Any, blame: Callable[[], NotFinite] | None = None) -> Any:
        try:
            return call()
        except _core.CoreError:
            for name, array in inputs.given.items():
                require_finite(array, "x" if len(inputs.given) == 1 else f"x[{name!r}]")
            self._require_finite_values(inputs)
            if blame is None:
                raise
            raise blame() from None

    def _require_finite(self, inputs: requests.Inputs, outputs: Sequence[str], found: list[Array]) -> None:
        """Raise NotFinite naming the first layer that is not finite, if one of the outputs is not."""
        if not finite(found):
            self._require_finite_values(inputs, outputs)

    def _require_finite_values(self, inputs: requests.Inputs, outputs: Sequence[str] = ()) -> None:
        require_values(self.graph, lambda names: self._values_of(inputs, names, 0), outputs)

    def _plan(self, rules: Rules, convention: str) -> Prepared:
        """Return what is prepared for these rules."""
        key = (rules, convention) if isinstance(rules, str) else None
        known = None if key is None else self._plans.get(key)
        if known is not None:
            return known
        made = assign(self.graph, rules, convention)
        # Equal rules may differ in whether a number was left at its default, which conventions may replace: the
        # compiled rules tell them apart.
        inner = tuple(made.rules.items()), tuple(map(id, made.compiled.values()))
        # Other threads may clear and fill the table meanwhile.
        known = self._plans.get(inner)
        if known is None:
            known = Prepared(self._graph_for(made), made)
            if len(self._plans) >= _MOST_PLANS:  # a sweep over parameters must not collect them
                self._plans.clear()
                self._composed.clear()
            self._plans[inner] = known
        if key is not None:
            self._plans[key] = known
        return known

    def _graph_for(self, assignment: Assignment) -> CoreGraph:
        """Return the graph in the core, with layers that stand for more than themselves where rules ask for it."""
        if not assignment.cones:
            return self._core_graph
        key = tuple(assignment.cones.items())
        known = self._composed.get(key)
        if known is None:
            known = self._composed[key] = CoreGraph.for_rules(self.graph, assignment)
        return known


def _again(graph: Graph) -> Network:
    return Network.from_graph(graph, keep_top=True)


def _alike(one: Array, other: Array) -> bool:
    """Whether two results are the same but for rounding."""
    scale = float(np.abs(other).max(initial=0))
    return bool((np.abs(one - other) <= 1e-4 * scale).all())


def _threads(threads: int | None) -> int:
    return 0 if threads is None else thread_count(threads)
