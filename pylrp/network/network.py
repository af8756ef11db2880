"""``pylrp.Network``: a network prepared once, then explained in one call into the compiled core.

What depends on the weights and the rules alone (w² and flat normalisations, the constant parts of a z-box) is computed
the first time a composite is used and kept. :func:`pylrp.relevance` is the one-shot form for bare arrays.
``explain.py`` runs one explanation, ``assignment.py`` finds the rules, ``lowering.py`` speaks to the core.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import ArrayLike

from pylrp.errors import MissingModel
from pylrp.info import thread_count
from pylrp.layers import Layer
from pylrp.network.any_length import sequential
from pylrp.network.canonise import canonise
from pylrp.network.classes import ClassIndex, ClassIndices
from pylrp.network.described import Described
from pylrp.network.execution import Execution
from pylrp.network.explain import Request, explain
from pylrp.network.explanation import Explanation
from pylrp.network.graph import Graph
from pylrp.network.lengths import ByLength
from pylrp.network.packed import Packs
from pylrp.network.parts import explain_in_parts, part_size
from pylrp.network.patterns import Patterns
from pylrp.network.requests import InputLike
from pylrp.network.samples import explained, predicted, samples_in
from pylrp.network.summary import table
from pylrp.network.targets import TargetLike
from pylrp.present import html
from pylrp.present.html import Summary
from pylrp.present.progress import reporting
from pylrp.rules.assignment import assign
from pylrp.rules.composites import Composite, either
from pylrp.rules.defaults import default_for
from pylrp.rules.terms import Rule

if TYPE_CHECKING:
    from pylrp.verify import Verification

__all__ = ["Network"]

Rules = str | Composite | Rule | Sequence[Rule]
_MOST_PLANS = 64


class Network(Described):
    """A network of layers.

    Parameters
    ----------
    layers : sequence of Layer
        From the input up: :class:`pylrp.layers.Dense`, :class:`pylrp.layers.Conv`, :class:`pylrp.layers.ReLU`, ...
        The arrays are used in place where they are float32 or float64 with contiguous rows; don't change them
        afterwards.
    input_shape : tuple of int or None, optional
        The shape of a sample, channels first: ``(3, 224, 224)``. None stands for any size: ``(None, 64)`` for sequences
        of any number of steps. Not needed where the first layer is dense or recurrent; recurrent layers take any number
        of steps then.

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

    def __init__(self, layers: Sequence[Layer], input_shape: Sequence[int | None] | None = None):
        self._begin(sequential(layers, input_shape), keep=False)

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
        network._begin(graph, keep_top or keep_softmax)
        return network

    def _begin(self, graph: Graph, keep: bool) -> None:
        self._take(canonise(graph, keep_top=keep))
        if graph.facts.lengths is not None:
            self._by_length = ByLength(graph, Patterns(lambda other: canonise(other, keep_top=keep)))
            self._packs = Packs(self._execution)

    #: The ONNX model that it was loaded from, for :meth:`verify`: a path, or a ModelProto.
    _model: Any = None

    #: Executions for inputs of other lengths, where the model takes them.
    _by_length: ByLength | None = None

    #: What runs samples of several lengths together.
    _packs: Packs | None = None

    def _execution_of(self, x: Any) -> Execution:
        """Return what runs an input: it may have a length of its own."""
        return self._execution if self._by_length is None else self._by_length.of(x, self._execution)

    def _take(self, graph: Graph) -> None:
        self._execution = Execution(graph)
        self.graph = self._execution.graph
        #: The layers that take part in the ledger, from input to output.
        self.names: list[str] = [node.name for node in graph.nodes if node.layer.has_ledger_row]

    def __reduce__(self) -> tuple[Callable[..., Network], tuple[Graph]]:
        """Return how to make it again, in another process for example: from its layers."""
        return _again, (self.graph,)

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
        known = [classes for name in self.graph.outputs if (classes := self._execution.classes_at(name)).labels]
        return (known or [self._execution.classes_at(self.graph.outputs[0])])[0].index(y)

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

    def forward(self, x: InputLike, *, threads: int | None = None) -> Any:
        """Return the network's output.

        Parameters
        ----------
        x : array_like of shape (batch, ...) or (...), or list of samples
            With several inputs a dict by name, or a tuple. Of a list of samples see :meth:`explain`.
        threads : int, optional

        Returns
        -------
        ndarray, or dict of str to ndarray
            A dict by name where the network has several outputs; a list of ndarray for samples whose outputs differ in
            shape.
        """
        return predicted(x, self.graph, self._execution_of, _threads(threads), self._packs)

    def explain(
        self, x: InputLike, target: TargetLike | None = None, composite: Rules | None = None, *,
        rules: Rules | None = None, targets: Sequence[TargetLike] | None = None,
        against: int | str | ArrayLike | None = None, start: Literal["logit", "one"] = "logit",
        output: str | None = None, layers: Literal["all"] | Sequence[str] | None = None,
        masks: Mapping[str, Sequence[int] | ArrayLike] | None = None, convention: str = "zennit",
        threads: int | None = None, expanded: bool | None = None,
        progress: bool | Callable[[int, int], object] = False, checkpoint: bool = False,
        precision: str | None = None,
    ) -> Explanation:  # fmt: skip
        """Predict, and explain the prediction.

        Parameters
        ----------
        x : array_like of shape (batch, ...) or (...), data frame, or list of samples
            One sample without a batch axis gives results without one. With several inputs a dict by name, or a tuple.
            A list of dicts, or of arrays of unequal shapes, is one of samples: nothing is padded, and where shapes
            differ results are lists, one entry a sample; ``target`` may have one for each.
            float32 and float64 are converted into the network's dtype, with a note. Where the network knows the names
            of its features, the columns of a data frame are put in order by name, with a note; relevance comes back in
            the order of the columns.
        target : int, str, tuple of int, mapping, sequence of them or array_like, optional
            The class to explain: the top class of each sample (default), one for all, one a sample, or relevance at
            the top, used as it is. An int is an index; a label is one of the model's classes, see
            :meth:`class_index` for labels that are integers. Of an output with positions, ``(channels, ...)``, an int
            is a channel, a tuple ``(position, token)`` an entry: an index for each axis of the output, positions from
            the end where they are negative. A dict ``{(position, a): 1, (position, b): -1}`` explains the weighted sum
            of entries; a list of tuples or dicts has one a sample. Where one logit z decides between two classes,
            class 1 is explained by z and class 0 by -z: its relevance is that of z, negated, while ``output`` stays z;
            the default is class 1.
        composite : str, Composite, Rule or sequence of Rule, optional
            Rules by name, one for all layers, or one for each layer with weights from the input up. Default, named in
            ``ex.composite``: "epsilon_plus_flat" for convolutional networks on images, "epsilon_plus" for those on
            signals, "epsilon" for networks without convolutions.
        rules : optional
            Another name for ``composite``, as in :func:`pylrp.relevance`.
        targets : sequence, optional
            Explain several targets on one forward pass; the relevance has shape (batch, targets, ...), for a single
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
        masks : mapping of str to sequence of int or array_like of bool, optional
            By name of a layer, the channels through which relevance may pass (concept relevance propagation, Achtibat
            et al. 2023); what the others got is "masked" in the ledger. Attention's heads are the channels of its
            values. An array of booleans says which entries stay: one that broadcasts to a sample of the layer; with
            the batch before it, or (batch, channels), each sample has its own.
        convention : str, default "zennit"
        threads : int, optional
        expanded : bool, optional
            Of a scikit-learn pipeline with encoders: relevance of each category instead of its column, whose sum it is.
        progress : bool or callable, default False
            A bar on a terminal with the rate and the time left, or a function, called as ``progress(done, total)``. A
            large batch is explained in parts then; one of many rows of a table always is.
        checkpoint : bool, default False
            Keep few values of the forward pass and compute the others again: less memory, equal bits, more time.
        precision : {"bfloat16"}, optional
            Of a network in float32: products of dense layers and convolutions round their operands to bfloat16 (the
            prediction, too) and sum in float32, which saves time where weights are read from memory (one sample, dense
            layers) and on processors with an instruction for it; docs/precision.md has the errors. Default: exact.

        Returns
        -------
        Explanation

        Raises
        ------
        ValueError
            If shapes do not fit, a target is no class, or an integer target may be an index or a label.
        UnsuitablePrecision
            If there is no such precision, or none for the network's dtype.
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
        request = Request(
            x, target, self._composite(either(composite, rules)), targets, against, start, output, layers, masks,
            convention, _threads(threads), expanded, checkpoint, precision,
        )  # fmt: skip
        size = None if isinstance(x, list) else part_size(x, self.graph, bool(progress))
        if size is not None:
            with reporting(progress, "explaining", None) as report:
                return explain_in_parts(self._execution_of(x), request, size, report)
        samples = samples_in(x, self.graph)
        if samples is not None:
            return explained(samples, request, self._execution_of, self.graph, self._packs)
        return explain(self._execution_of(x), request)

    def verify(
        self, x: InputLike, model: Any = None, *, target: int | str | ArrayLike | None = None,
        composite: Rules | None = None, rules: Rules | None = None, output: str | None = None,
        tolerance: float | None = None,
    ) -> Verification:  # fmt: skip
        """Compare this network and its explanation of some input with the ONNX model it was loaded from.

        The model's file is read anew, by code that shares nothing with the loader, the layers and the core: its nodes
        are computed in NumPy and float64, relevance goes back in the form ``R = a c`` (coefficients, as a gradient).
        Compared are the prediction (with onnxruntime where it is installed, else with onnx's reference evaluator), the
        value and the relevance of each layer that is in both, and the ledger. Which rule a layer has, and which factors
        are part of a layer with weights, is taken from the network; formulas are not.

        Parameters
        ----------
        x : array_like of shape (batch, ...) or (...)
            As for :meth:`explain`; a few samples are enough. Of a list the first sample that does not pass is shown, or
            the one with the largest error, and the maps of the list are compared with those of each sample by itself.
        model : path or ModelProto, optional
            The model, where the network does not know it: one from torch or Keras, with an exported file. Default: what
            it was loaded from.
        target, composite, rules, output : optional
            As for :meth:`explain`.
        tolerance : float, optional
            What an error may be, as a share of the sample's largest entry of that layer. Default: 1e-4 for float32,
            1e-9 for float64.

        Returns
        -------
        Verification
            True if all agrees; printed, a table and a sentence that names the first layer that does not.

        Raises
        ------
        MissingModel
            If the network does not know its model, and none is given.
        UnsupportedLayer
            If an operator in the model has no formula in the verification.
        ImportError
            If the package onnx is not installed.
        """
        model = self._model if model is None else model
        if model is None:
            raise MissingModel
        try:
            from pylrp.verify.listed import verify
        except ModuleNotFoundError as error:
            if error.name != "onnx":
                raise
            raise ImportError("a model is verified with the package onnx: pip install onnx") from None
        rules = self._composite(either(composite, rules))
        return verify(self, x, model, target=target, composite=rules, output=output, tolerance=tolerance)

    def _composite(self, given: Rules | None) -> Rules:
        return default_for(self.graph) if given is None else given


def _again(graph: Graph) -> Network:
    return Network.from_graph(graph, keep_top=True)


def _threads(threads: int | None) -> int:
    return 0 if threads is None else thread_count(threads)
