"""``Report``: explains inputs and collects what one HTML file shows of them; ``page.py`` puts the file together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from pylrp._files import atomically
from pylrp.info import info
from pylrp.network.classes import classes_of
from pylrp.network.explanation import Explanation
from pylrp.network.network import Network
from pylrp.network.requests import Inputs, start_value
from pylrp.present import html
from pylrp.present.numbers import figure
from pylrp.present.outputs import HOW, Outputs, Probability, named_labels
from pylrp.present.text import shown
from pylrp.report.explaining import (
    OneComposite,
    Request,
    explain_sample,
    given_explanations,
    in_network_order,
    named_composites,
)
from pylrp.report.page import page
from pylrp.report.sample import Display, sample_data
from pylrp.report.texts import Texts
from pylrp.rules.defaults import default_for

__all__ = ["Report"]


class Report:
    """Explanations of a network's predictions in one HTML file, for readers without knowledge of the method.

    The file needs no network and no other file. It holds inputs, relevance, the ledger, some layers and what is needed
    to repeat it all; contrast, class and composite are chosen in the page.

    Parameters
    ----------
    network : Network
    labels : sequence of str or mapping of int to str, optional
        Names of the classes. Where the one output is the logit of the second of two classes, the names of both.
    title : str, optional
    probability : {"auto", "softmax", "sigmoid", "given", None}, default "auto"
        How outputs become probabilities. ``"given"``: they are some; None: they are none, as in regression.
        ``"auto"``: ``"given"`` behind a softmax or sigmoid that was kept, else ``"softmax"`` for several outputs; for
        one output ``"sigmoid"`` where its logistic function was removed at loading, else None. The page says which.

    Raises
    ------
    ValueError
        If labels do not fit the outputs, or ``probability`` is none of these.

    Examples
    --------
    >>> import numpy as np, pylrp
    >>> from pylrp.layers import Dense, ReLU
    >>> from pylrp.report import Report
    >>> net = pylrp.Network([Dense([[1.0, -1.0], [0.5, 2.0]]), ReLU(), Dense([[1.0, 1.0], [0.0, 1.0]])])
    >>> report = Report(net, labels=["stop", "go"])
    >>> report.add(np.array([1.0, 0.5]), name="Tuesday", feature_names=["speed", "weight"])
    >>> html = report.html()  # or report.write("why.html")
    """

    def __init__(
        self,
        network: Network,
        labels: Sequence[str] | Mapping[int, str] | None = None,
        title: str | None = None,
        *,
        probability: Probability = "auto",
    ):
        if probability not in ("auto", None, *HOW):
            raise ValueError(f"probability must be 'auto', 'softmax', 'sigmoid', 'given' or None, got {probability!r}")
        self._network = network
        self._labels = named_labels(network, labels)
        self._title = "Why did the network predict this?" if title is None else shown(str(title))
        self._probability: Probability = probability
        self._samples: list[dict[str, Any]] = []
        self._summaries: dict[str, str] = {}
        self._notes: dict[str, None] = dict.fromkeys(network.notes)

    def __len__(self) -> int:
        """Return the number of samples in the report."""
        return len(self._samples)

    def add(
        self,
        x: ArrayLike | Mapping[str, ArrayLike] | tuple[ArrayLike, ...] | Explanation | Sequence[Explanation],
        *,
        name: str | Sequence[str] | None = None,
        image: ArrayLike | Sequence[ArrayLike] | None = None,
        composites: OneComposite | Sequence[OneComposite] | None = None,
        targets: Sequence[int] | None = None,
        top: int = 3,
        feature_names: Sequence[str] | None = None,
        times: ArrayLike | None = None,
        tokens: Sequence[str] | Sequence[Sequence[str]] | None = None,
        output: str | None = None,
        convention: str = "zennit",
    ) -> None:
        """Add one sample or a batch to the report: explain it, or take an explanation as it is.

        Parameters
        ----------
        x : array_like of shape (...) or (batch, ...), Explanation, or sequence of Explanation
            As for :meth:`pylrp.Network.explain`. Of an explanation by this network the classes that it explains are
            shown, and the layers that it keeps; of several, of the same samples and classes, each composite is a
            switch in the page. Nothing is computed then, and ``composites``, ``targets``, ``top``, ``output`` and
            ``convention`` are those of the explanation.
        name : str or sequence of str, optional
            What the sample is called; for a batch one each, or one that gets numbers.
        image : array_like of uint8, shape (height, width) or (height, width, 3), optional
            The picture to show; for a batch one each. Default: made from ``x``. A flat input of ``height * width``
            features is shown as an image of that shape.
        composites : str, Composite, Rule, sequence of Rule (one a layer), or a sequence of those
            Each is a switch in the page. Default: that of :meth:`pylrp.Network.explain`.
        targets : sequence of int, optional
            The classes to explain, by index or label. Default: the ``top`` classes of each sample.
        top : int, default 3
        feature_names : sequence of str, optional
            Of a flat input, or of the channels of a signal. Default: the columns of a data frame, or the names that
            the network knows.
        times : array_like of shape (length,), optional
            Where the positions of a signal lie, in seconds for example: the axis below it. Default: 0, 1, ...
        tokens : sequence of str, or a sequence of them for each sample, optional
            The text of token ids, as the tokenizer calls them: words are shown, subwords joined. Default: those that
            the explanation has (:meth:`pylrp.Explanation.with_tokens`).
        output : str, optional
            The output to explain, where there are several.
        convention : str, default "zennit"

        Raises
        ------
        ValueError
            If something does not fit the network or the input; nothing is added then.
        TypeError
            If the image is not uint8, or the input's dtype is not the network's.
        ImportError
            If there is a picture and pillow is not installed.
        """
        explained = given_explanations(x)
        if self._network.graph.facts.sides is not None:
            asked_for = (composites, targets, top, output, convention)
            if not (image is None and feature_names is None and times is None):
                raise ValueError("image, feature_names and times are not for networks of token ids: pass tokens=")
            self._add_texts(x, explained, name, tokens, *asked_for)
            return
        if tokens is not None:
            raise ValueError("tokens are for networks of token ids")
        if explained is not None:
            _require_none(composites, targets, top, output, convention)
            each = {key: in_network_order(ex, self._network) for key, ex in explained.items()}
            inputs = next(iter(each.values()))[1]
            first = next(iter(explained.values()))
            start = self._output(first.settings["output"])
            rules = {key: ex.settings["composite"] for key, ex in explained.items()}

            def explanations(i: int) -> dict[str, Explanation]:
                return {key: ex if inputs.single else ex[i] for key, (ex, _) in each.items()}
        else:
            inputs = Inputs(self._network._execution_of(x).graph, x)
            request = self._request(composites, targets, top, output, convention)
            start, rules = request.output, dict(request.composites)
            given = {key: inputs.columns[key].to_network(array) for key, array in inputs.given.items()}

            def explanations(i: int) -> dict[str, Explanation]:
                one = {key: array if inputs.single else array[i] for key, array in given.items()}
                return explain_sample(self._network, outputs, request, one)

        outputs = Outputs(self._network, start, self._labels, self._probability)
        shown_as = self._displays(inputs, name, image, feature_names, times)
        added = [sample_data(self._network, outputs, explanations(i), display) for i, display in enumerate(shown_as)]
        self._keep(rules, inputs, added)

    def _add_texts(
        self, x: Any, explained: Mapping[str, Explanation] | None, name: Any, tokens: Any, *asked: Any
    ) -> None:
        """Take samples of token ids, each of its own length, or explanations of them."""
        request = None
        if explained is not None:
            _require_none(*asked)
            texts = Texts.explained(explained)
        else:
            request = self._request(*asked)
            texts = Texts.of(self._network, x)
        start = self._output(texts.output) if request is None else request.output
        outputs = Outputs(self._network, start, self._labels, self._probability)
        each = texts.tokens(tokens)
        added = []
        for i in range(len(texts)):
            explanations = (
                texts.parts(i) if request is None else explain_sample(self._network, outputs, request, texts.sample(i))
            )
            display = Display(self._names(name, texts)[i], tokens=each[i])
            added.append(sample_data(self._network, outputs, explanations, display))
        rules = texts.rules if request is None else dict(request.composites)
        self._keep(rules, texts, added)

    def _request(
        self, composites: Any, targets: Sequence[int] | None, top: int, output: str | None, convention: str
    ) -> Request:
        graph = self._network.graph
        if (targets is None and top < 1) or (targets is not None and not len(targets)):
            raise ValueError("there is nothing to explain: pass top of at least 1, or targets")
        start = self._output(output)
        if targets is not None:
            classes = classes_of(graph, start)
            targets = [int(classes.resolve(target, "targets")) for target in targets]
        named = named_composites(default_for(graph) if composites is None else composites)
        return Request(named, targets, top, start, convention)

    def _output(self, name: str | None) -> str:
        """Return the output where relevance starts, checked."""
        graph = self._network.graph
        start = start_value(graph, name)
        if start not in graph.outputs:
            raise ValueError(f"output must be one of {', '.join(graph.outputs)}, got {start!r}")
        return start

    def _displays(self, inputs: Inputs, name: Any, image: Any, feature_names: Any, times: Any) -> list[Display]:
        """Return how each sample is shown."""
        if len(inputs.given) > 1 and not (image is None and feature_names is None and times is None):
            raise ValueError("image, feature_names and times are for networks with one input")
        if len(inputs.given) == 1:
            feature_names = _names_in_order(self._network, inputs, feature_names)
        if feature_names is not None:
            feature_names = [shown(str(feature)) for feature in feature_names]
        pairs = zip(self._names(name, inputs), _one_each(image, inputs), strict=True)
        return [Display(each, picture, feature_names, times) for each, picture in pairs]

    def _summary(self, rules: Any) -> str:
        try:
            return self._network.summary(rules)
        except ValueError:
            if isinstance(rules, str):  # an explanation from a file, of rules that are known by their text alone
                return rules
            raise

    def _keep(self, rules: Mapping[str, Any], inputs: Inputs | Texts, added: list[dict[str, Any]]) -> None:
        """Take samples into the report; nothing where composites have the names of others."""
        summaries = {key: self._summary(each) for key, each in rules.items()}
        for key, text in summaries.items():
            if self._summaries.get(key, text) != text:
                raise ValueError(f"another composite in this report is called {key!r}: give them different names")
        self._summaries |= summaries
        self._samples += added
        self._notes |= dict.fromkeys([*inputs.notes, *(note for sample in added for note in sample.pop("notes"))])

    def __repr__(self) -> str:
        return f"<Report of {len(self)} sample{'s' * (len(self) != 1)} of {self._network!r}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a line a sample; the page itself is what :meth:`write` writes."""
        rows = [["sample", "the network predicts", "how sure", "explained"]]
        for sample in self._samples:
            explained = ", ".join(f"{target['label']} ({figure(target['score'])})" for target in sample["targets"])
            rows.append([sample["name"], sample["answer"], "".join(sample["certainty"]), explained])
        note = 'report.write("why.html") writes the page' if self._samples else "empty: report.add(x) first"
        return html.html(html.lines([self._title]), html.table(rows, words=4), html.lines([note]))

    def _names(self, name: str | Sequence[str] | None, inputs: Inputs | Texts) -> list[str]:
        if isinstance(name, str) and inputs.single:
            return [shown(name)]
        if name is None or isinstance(name, str):
            start = len(self) if name is None else 0
            return [f"{shown(name or 'sample')} {start + i + 1}" for i in range(inputs.batch)]
        if inputs.single or len(name) != inputs.batch:
            raise ValueError(f"{len(name)} names for {inputs.batch} samples: pass one each")
        return [shown(str(one)) for one in name]

    def html(self) -> str:
        """Return the page.

        Raises
        ------
        ValueError
            If nothing was added.
        """
        if not self._samples:
            raise ValueError("the report is empty: add(x) first")
        settings = {k: v if isinstance(v, str | int) else ", ".join(map(str, v)) for k, v in info().items()}
        return page(
            self._title,
            {
                "title": self._title,
                "network": repr(self._network),
                "notes": list(self._notes),
                "summaries": self._summaries,
                "versions": settings,
                "samples": self._samples,
            },
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file.

        Parameters
        ----------
        path : path-like
            Ends in ``.html`` by custom.

        Raises
        ------
        ValueError
            If nothing was added.
        """
        html = self.html()
        atomically(Path(path), lambda part: part.write_text(html, encoding="utf-8"))


def _require_none(composites: Any, targets: Any, top: int, output: str | None, convention: str) -> None:
    """Raise where something is asked for that explanations have settled."""
    asked = [given for given in (composites, targets, output) if given is not None]
    if asked or top != 3 or convention != "zennit":
        raise ValueError(
            "composites=, targets=, top=, output= and convention= are those of the explanation: leave them out"
        )


def _names_in_order(network: Network, inputs: Inputs, given: Sequence[str] | None) -> Sequence[str] | None:
    """Return the names of the features in the network's order, given or known."""
    ((key, columns),) = inputs.columns.items()
    if given is None:
        return network.graph.facts.features.get(key) or columns.names
    return given if columns.order is None else [given[i] for i in columns.order]


def _one_each(image: Any, inputs: Inputs) -> list[Any]:
    """Return one image, or None, for each sample."""
    if inputs.single or image is None:
        return [image] * inputs.batch
    if len(image) != inputs.batch:
        raise ValueError(f"{len(image)} images for {inputs.batch} samples: pass one each")
    return list(image)
