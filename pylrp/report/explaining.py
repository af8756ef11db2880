"""What a report is to explain, and its explanations, new ones or those of a caller; ``report.py`` calls in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import AbsorbedValue
from pylrp.network.classes import ClassIndex
from pylrp.network.columns import Table
from pylrp.network.explanation import Explanation
from pylrp.network.network import Network
from pylrp.network.requests import Inputs
from pylrp.present.names import composite_name
from pylrp.present.outputs import Outputs
from pylrp.report.ledger_and_layers import chosen_layers
from pylrp.rules.composites import Composite
from pylrp.rules.terms import Rule

__all__ = ["OneComposite", "Request", "explain_sample", "given_explanations", "in_network_order", "named_composites"]

Array = NDArray[Any]
OneComposite = str | Composite | Rule | Sequence[Rule]


@dataclass(frozen=True)
class Request:
    """What every sample of one call is asked for.

    Attributes
    ----------
    composites : dict of str to composite
        By what they are called in the page.
    targets : sequence of int or None
    top : int
        How many classes are explained where no targets are given.
    output : str
        The value where relevance starts.
    convention : str
    """

    composites: Mapping[str, OneComposite]
    targets: Sequence[int] | None
    top: int
    output: str
    convention: str


def explain_sample(
    network: Network, outputs: Outputs, request: Request, given: Mapping[str, Array]
) -> dict[str, Explanation]:
    """Return an explanation of one sample by each composite; a forward pass before finds the top classes.

    Parameters
    ----------
    network : Network
    outputs : Outputs
    request : Request
    given : mapping of str to ndarray
        By the input's name, one sample, as the network takes it.
    """
    targets = request.targets
    if targets is None:
        found = network.forward(given)
        scores = outputs.scores(np.asarray(found[request.output] if isinstance(found, dict) else found))
        targets = outputs.ranked(scores)[: request.top]
    return {name: _explained(network, request, given, targets, each) for name, each in request.composites.items()}


def _explained(
    network: Network, request: Request, given: Mapping[str, Array], targets: Sequence[int], composite: OneComposite
) -> Explanation:
    layers = list(dict.fromkeys([*chosen_layers(network, request.output), *network.heads]))
    while True:
        try:
            return network.explain(
                given,
                targets=[ClassIndex(target) for target in targets],
                composite=composite,
                layers=layers,
                output=request.output,
                convention=request.convention,
            )
        except AbsorbedValue as absorbed:  # part of another layer under these rules: there is nothing to show
            layers.remove(absorbed.value)


def given_explanations(x: Any) -> dict[str, Explanation] | None:
    """Return explanations by the names of their composites; None where ``x`` is none, but an input.

    Raises
    ------
    ValueError
        If two have one composite, are not of the same samples and classes, or are none that a report can show.
    """
    each = [x] if isinstance(x, Explanation) else x
    if not isinstance(each, list | tuple) or not each or not all(isinstance(ex, Explanation) for ex in each):
        return None
    named = named_composites([ex.settings["composite"] for ex in each])
    for ex in each:
        for setting, plain in (("against", None), ("masks", None), ("start", "logit")):
            if ex.settings.get(setting, plain) != plain:
                raise ValueError(f"a report shows plain classes: explain without {setting}=")
        if ex.target is None:
            raise ValueError("a report shows classes: explain with target= as an integer, or with targets=")
        if ex.input is None:
            raise ValueError("the explanation has no input to show")
        if not _alike(ex, each[0]):
            raise ValueError("the explanations are not of the same samples and classes: add them one by one")
    return dict(zip(named, each, strict=True))


def _alike(a: Explanation, b: Explanation) -> bool:
    settings = ("output", "convention", "single")
    inputs = [ex.input if isinstance(ex.input, dict) else {"": ex.input} for ex in (a, b)]
    return (
        all(a.settings.get(name) == b.settings.get(name) for name in settings)
        and np.array_equal(a.target, b.target)
        and inputs[0].keys() == inputs[1].keys()
        and all(_equal(inputs[0][name], inputs[1][name]) for name in inputs[0])
    )


def _equal(a: Any, b: Any) -> bool:
    """Whether two inputs are the same: arrays, or lists of them where lengths differ."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(np.array_equal(one, other) for one, other in zip(a, b, strict=True))
    return not isinstance(a, list) and not isinstance(b, list) and np.array_equal(a, b)


def in_network_order(ex: Explanation, network: Network) -> tuple[Explanation, Inputs]:
    """Return an explanation with the columns of a table in the network's order, and its checked input.

    Raises
    ------
    ValueError
        If the input does not fit the network.
    """
    if isinstance(ex.input, dict) or ex.features is None:
        return ex, Inputs(network._execution_of(ex.input).graph, ex.input)
    values = np.asarray(ex.input)
    graph = network._execution_of(values).graph
    inputs = Inputs(graph, Table(values, ex.features) if values.ndim <= 2 else values)
    (columns,) = inputs.columns.values()
    ordered = dataclasses.replace(
        ex, input=columns.to_network(values), relevance=columns.to_network(np.asarray(ex.relevance))
    )
    return ordered, inputs


def named_composites(composites: Any) -> dict[str, Any]:
    """Return composites by the name that the page shows.

    Raises
    ------
    ValueError
        If there is none, or two have one name.
    """
    rules = isinstance(composites, Sequence) and len(composites) > 0 and all(isinstance(c, Rule) for c in composites)
    each = [composites] if rules or isinstance(composites, str | Composite | Rule) else list(composites)
    named: dict[str, Any] = {}
    for composite in each:
        key = composite_name(composite)
        if key in named:
            raise ValueError(f"two composites are called {key!r}: give them different names")
        named[key] = composite
    if not named:
        raise ValueError("composites is empty: pass at least one")
    return named
