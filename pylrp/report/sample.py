"""One explained sample as the page shows it; ``report.py`` calls in for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.network.explanation import Explanation
from pylrp.network.layout import channels_moved_first
from pylrp.network.ledger import Ledger
from pylrp.network.network import Network
from pylrp.present.account import absorbed, ledgers
from pylrp.present.outputs import Explained, Outputs
from pylrp.report import sentences
from pylrp.report.encode import digest
from pylrp.report.input_display import InputDisplay
from pylrp.report.ledger_and_layers import heads_data, kept_layers, layer_data, ledger_data
from pylrp.report.text_display import TextDisplay

__all__ = ["Display", "sample_data"]

#: An input of so many numbers at most is written out in the code.
_WRITTEN_OUT = 64

Array = NDArray[Any]
View = InputDisplay | TextDisplay


@dataclass(frozen=True)
class Display:
    """How one sample is shown.

    Attributes
    ----------
    name : str
    image : array_like of uint8 or None
        Of the only input.
    feature_names : sequence of str or None
        In the network's order.
    times : array_like or None
    tokens : sequence of str or None
        The text of token ids.
    """

    name: str
    image: ArrayLike | None = None
    feature_names: Sequence[str] | None = None
    times: ArrayLike | None = None
    tokens: Sequence[str] | None = None


def sample_data(
    network: Network, outputs: Outputs, explanations: Mapping[str, Explanation], display: Display
) -> dict[str, Any]:
    """Return what the page needs to show one explained sample.

    Parameters
    ----------
    network : Network
    outputs : Outputs
    explanations : mapping of str to Explanation
        By the composites' names; all of one sample without a batch axis and of the same classes, columns in the
        network's order.
    display : Display
    """
    first = next(iter(explanations.values()))
    sides = network.graph.facts.sides
    names = list(network.graph.inputs) if sides is None else list(sides.carrying)
    given = first.input if isinstance(first.input, dict) else {names[0]: first.input}
    views: dict[str, View] = {
        key: TextDisplay(key, x, display.tokens)
        if sides is not None and key in sides.inputs
        else InputDisplay(key, _first(network, key, x), display.image, display.feature_names, display.times)
        for key, x in given.items()
    }
    top = first.settings["output"]
    scores = outputs.scores(np.asarray(first.output[top] if isinstance(first.output, dict) else first.output))
    predicted = outputs.prediction(scores)
    about = [outputs.explained(int(target), scores) for target in np.ravel(first.target)]
    return {
        "name": display.name,
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
            [_explanation(network, ex, views, at, one) for at, one in enumerate(about)] for ex in explanations.values()
        ],
        "composites": list(explanations),
        "notes": list(dict.fromkeys(note for ex in explanations.values() for note in ex.notes)),
        "code": _code(network, explanations, given, about),
    }


def _first(network: Network, name: str, array: Array) -> Array:
    """Return an array with its channels first."""
    return channels_moved_first(array) if name in network.graph.features_last else array


def _explanation(
    network: Network, ex: Explanation, views: Mapping[str, View], at: int, about: Explained
) -> dict[str, Any]:
    """Return what the page shows of one target under one composite."""
    several = ex.settings.get("targets") is not None

    def own(relevance: Array) -> Array:
        made: Array = about.sign * (relevance[at] if several else relevance)
        return made

    maps = ex.relevance if isinstance(ex.relevance, dict) else {next(iter(views)): ex.relevance}
    found = {name: _first(network, name, own(maps[name])) for name in views}
    reached = float(sum(R.sum(dtype=np.float64) for R in found.values()))
    account = ledgers(ex)[at]
    ledger = Ledger(about.sign * account.data, account.names, account.rules, single=True)
    kinds = {node.name: node.layer.kind for node in network.graph.nodes}
    by_token = any(view.kind == "text" for view in views.values())
    layers = kept_layers(network, ex)[::-1]
    positions = None if ex.positions is None or isinstance(ex.positions, dict) else own(ex.positions)
    return {
        "maps": [
            view.map_data(found[name], positions) if isinstance(view, TextDisplay) else view.map_data(found[name])
            for name, view in views.items()
        ],
        "reached": reached,
        "where": [sentences.where(view, found[name], about.label, about.against) for name, view in views.items()],
        "account": sentences.account(about.score, reached, absorbed(ledger), next(iter(views.values())).kind),
        "ledger": ledger_data(ledger),
        "heads": heads_data({name: own(ex.layers[name]) for name in network.heads if name in ex.layers.kept}),
        "layers": [layer_data(name, kinds[name], own(ex.layers[name]), by_token=by_token) for name in layers],
    }


def _literal(x: Array) -> str:
    """Return an array as nested lists, its numbers as short as they are exact."""
    with np.printoptions(floatmode="unique", threshold=_WRITTEN_OUT + 1, linewidth=100):
        return np.array2string(x, separator=", ")


def _code(
    network: Network, explanations: Mapping[str, Explanation], given: Mapping[str, Array], about: Sequence[Explained]
) -> str:
    """Return Python that finds the same relevance again."""
    lines = ["import numpy as np", "import pylrp"]
    settings = [ex.settings for ex in explanations.values()]
    if not all(isinstance(each["composite"], str) for each in settings):
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
    for each in settings:
        lines += [
            "ex = net.explain(",
            f"    x, targets={[one.index for one in about]}, composite={each['composite']!r},",
            f"    output={each['output']!r}, convention={each['convention']!r},",
            ")",
        ]
    if any(one.sign < 0 for one in about):
        lines.append("ex.relevance[0]  # times -1: the evidence for the first of the two classes")
    return "\n".join(lines)
