"""One explained input as the page shows it; ``report.py`` calls in for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.network.classes import ClassIndex
from pylrp.network.explanation import Explanation
from pylrp.network.ledger import Ledger
from pylrp.network.network import Network
from pylrp.present.account import absorbed
from pylrp.present.outputs import Explained, Outputs
from pylrp.report import sentences
from pylrp.report.encode import digest
from pylrp.report.input_display import InputDisplay
from pylrp.report.ledger_and_layers import chosen_layers, layer_data, ledger_data
from pylrp.rules.composites import Composite
from pylrp.rules.terms import Rule

__all__ = ["OneComposite", "Request", "sample_data"]

#: An input of so many numbers at most is written out in the code.
_WRITTEN_OUT = 64

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
    output : str
        The value where relevance starts.
    convention : str
    feature_names : sequence of str or None
    times : array_like or None
    """

    composites: Mapping[str, OneComposite]
    targets: Sequence[int] | None
    top: int
    output: str
    convention: str
    feature_names: Sequence[str] | None
    times: ArrayLike | None = None


def sample_data(
    network: Network,
    outputs: Outputs,
    request: Request,
    name: str,
    given: Mapping[str, Array],
    image: ArrayLike | None,
) -> dict[str, Any]:
    """Explain one sample and return what the page needs to show it.

    Parameters
    ----------
    network : Network
    outputs : Outputs
    request : Request
    name : str
    given : mapping of str to ndarray
        By the input's name, one sample, as the user passes it.
    image : array_like of uint8, optional
        Of the only input.
    """
    views = {
        key: InputDisplay(key, _first(network, key, x), image, request.feature_names, request.times)
        for key, x in given.items()
    }
    scores = outputs.scores(_output(network, given, request.output))
    targets = request.targets
    if targets is None:
        order = [int(i) for i in np.argsort(-scores, kind="stable") if outputs.starts_at(int(i))]
        targets = order[: request.top]
    targets = [ClassIndex(t) for t in targets]
    layers = chosen_layers(network, request.output)
    explained = [
        network.explain(
            given, targets=targets, composite=composite, layers=layers, output=request.output,
            convention=request.convention,
        )
        for composite in request.composites.values()
    ]  # fmt: skip
    predicted = outputs.prediction(scores)
    about = [outputs.explained(t, scores) for t in targets]
    return {
        "name": name,
        "inputs": [view.input_data() for view in views.values()],
        "answer": predicted.label,
        "sure": predicted.probability,
        "score": predicted.score,
        "certainty": sentences.certainty(predicted),
        "how": outputs.how,
        "targets": [
            {"index": one.index, "label": one.label, "score": one.score, "probability": one.probability}
            for one in about
        ],
        "explanations": [
            [_explanation(network, ex, views, layers, at, one) for at, one in enumerate(about)] for ex in explained
        ],
        "composites": list(request.composites),
        "notes": list(dict.fromkeys(note for ex in explained for note in ex.notes)),
        "code": _code(network, request, given, about),
    }


def _first(network: Network, name: str, array: Array) -> Array:
    """Return an array with its channels first."""
    return np.moveaxis(array, -1, 0) if name in network.graph.channels_last else array


def _output(network: Network, given: Mapping[str, Array], output: str) -> Array:
    found = network.forward(given)
    return np.asarray(found[output] if isinstance(found, dict) else found)


def _explanation(
    network: Network,
    ex: Explanation,
    views: Mapping[str, InputDisplay],
    layers: Sequence[str],
    at: int,
    about: Explained,
) -> dict[str, Any]:
    """Return what the page shows of one target under one composite."""
    maps = ex.relevance if isinstance(ex.relevance, dict) else {next(iter(views)): ex.relevance}
    found = {name: _first(network, name, about.sign * maps[name][at]) for name in views}
    reached = float(sum(R.sum(dtype=np.float64) for R in found.values()))
    ledgers = ex.ledger if isinstance(ex.ledger, list) else [ex.ledger]
    ledger = Ledger(about.sign * ledgers[at].data, ledgers[at].names, ledgers[at].rules, single=True)
    kinds = {node.name: node.layer.kind for node in network.graph.nodes}
    return {
        "maps": [view.map_data(found[name]) for name, view in views.items()],
        "reached": reached,
        "where": [sentences.where(view, found[name], about.label, about.against) for name, view in views.items()],
        "account": sentences.account(about.score, reached, absorbed(ledger), next(iter(views.values())).kind),
        "ledger": ledger_data(ledger),
        "layers": [layer_data(name, kinds[name], about.sign * ex.layers[name][at]) for name in reversed(layers)],
    }


def _literal(x: Array) -> str:
    """Return an array as nested lists, its numbers as short as they are exact."""
    with np.printoptions(floatmode="unique", threshold=_WRITTEN_OUT + 1, linewidth=100):
        return np.array2string(x, separator=", ")


def _code(network: Network, request: Request, given: Mapping[str, Array], about: Sequence[Explained]) -> str:
    """Return Python that finds the same relevance again."""
    lines = ["import numpy as np", "import pylrp"]
    if not all(isinstance(composite, str) for composite in request.composites.values()):
        lines.append("from pylrp import *  # the rules' names")
    lines += ["", f'net = pylrp.load("model.pylrp.npz")  # as net.save("model.pylrp.npz") writes {network!r}']
    if len(given) > 1:
        lines.append("x = {}")
    for number, (name, x) in enumerate(given.items()):
        # A name from a model file may hold anything: repr keeps it within its quotes, and on its line.
        where = "x" if len(given) == 1 else f"x[{name!r}]"
        if 0 < x.size <= _WRITTEN_OUT:
            lines.append(f"{where} = np.array({_literal(x)}, np.{x.dtype})")
            continue
        file = "input.npy" if len(given) == 1 else f"input{number}.npy"
        lines.append(f'# np.save("{file}", x) keeps this input: {x.dtype} {x.shape}, SHA-256 of its bytes {digest(x)}')
        lines.append(f'{where} = np.load("{file}")')
    for composite in request.composites.values():
        lines += [
            "ex = net.explain(",
            f"    x, targets={[one.index for one in about]}, composite={composite!r},",
            f"    output={request.output!r}, convention={request.convention!r},",
            ")",
        ]
    if any(one.sign < 0 for one in about):
        lines.append("ex.relevance[0]  # times -1: what spoke for the first of the two classes")
    return "\n".join(lines)
