"""One sample, one target, one value of the network, selected from an explanation; every picture starts with it.

NumPy alone; ``captions.py`` describes it, ``explanations.py`` and ``grids.py`` draw it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.network.explanation import Explanation
from pylrp.network.layout import channels_moved_first
from pylrp.network.ledger import Ledger
from pylrp.present.account import Account, absorbed, class_scores

__all__ = ["View", "features_of", "samples_of", "views"]

Array = NDArray[Any]


@dataclass(frozen=True)
class View:
    """What is shown in one panel.

    Attributes
    ----------
    relevance : ndarray
        Of one sample, channels first.
    input : ndarray or None
        Of the same shape; None for layers within the network.
    place : str or None
        The layer, or the input where the network has several; None for its only input.
    target, against : int or None
        Classes.
    started : float
        The relevance at the top.
    beginning : str
        What that is: "the logit", "the output", ...
    outputs : int
        How many classes or channels the output has.
    ledger : Ledger
    sample : int
        Its row in the batch.
    sequence : bool
        Whether the channels of a two-dimensional sample are known to be channels: it is no image.
    composite : str, Composite, Rule or sequence of Rule
        Which rules.
    at : int
        Which of the explained targets.
    """

    relevance: Array
    input: Array | None
    place: str | None
    target: int | None
    against: int | None
    started: float
    beginning: str
    outputs: int
    ledger: Ledger
    sample: int
    sequence: bool
    composite: Any
    at: int = 0

    @property
    def total(self) -> float:
        """Return the sum of the relevance."""
        return float(self.relevance.sum(dtype=np.float64))

    def coloured(self, kind: str) -> Array:
        """Return the values that a picture of this kind colours, float64: of an image the sum of its channels."""
        R = self.relevance.astype(np.float64)
        return R.sum(axis=0) if kind == "image" and R.ndim == 3 else R

    @property
    def account(self) -> Account:
        """Return what became of the relevance in the whole network."""
        return Account(self.started, self.total, absorbed(self.ledger, self.sample))


def samples_of(ex: Explanation) -> int:
    """Return how many samples were explained."""
    ledger = ex.ledger[0] if isinstance(ex.ledger, list) else ex.ledger
    return int(ledger.data.shape[2])


def features_of(ex: Explanation, view: View) -> tuple[str, ...] | None:
    """Return the names of what a view shows, where it is a row of an input whose features have names."""
    known = ex.features
    if isinstance(known, dict):
        known = known.get(view.place)
    elif view.input is None:
        return None
    fits = known is not None and view.relevance.shape == (len(known),)
    return tuple(known) if fits else None


def views(
    ex: Explanation,
    sample: int = 0,
    target: int | None = None,
    *,
    layer: str | None = None,
    input: str | None = None,
    shape: tuple[int, ...] | None = None,
) -> list[View]:
    """Return a view for each explained target of a sample, or for one target alone.

    Parameters
    ----------
    ex : Explanation
    sample : int, default 0
    target : int, optional
        A class; default: all that were explained.
    layer : str, optional
        A value within the network, instead of the input.
    input : str, optional
        Which input, where the network has several.
    shape : tuple of int, optional
        The relevance of the sample gets this shape.
    """
    count = samples_of(ex)
    if not -count <= sample < count:
        raise ValueError(f"sample {sample} is not there: {count} sample{'s' * (count > 1)} explained, counted from 0")
    sample %= count
    place, relevance, x = _value(ex, layer, input)
    several = ex.settings.get("targets") is not None
    single = bool(ex.settings.get("single"))
    R = relevance if single else relevance[sample]
    x = x if x is None or single else x[sample]
    R = R if several else R[None]
    name = layer or input or _inputs(ex)[0]
    last = layer is None and name in ex.settings.get("channels_last", ())
    if last:
        R, x = channels_moved_first(R, 1), None if x is None else channels_moved_first(x)
    if shape is not None:
        try:
            R, x = R.reshape(len(R), *shape), None if x is None else x.reshape(shape)
        except ValueError:
            raise ValueError(f"shape={shape} does not fit relevance of shape {R.shape[1:]}") from None
    classes = _classes(ex, sample, len(R))
    chosen = range(len(R)) if target is None else _find(classes, target, sample)
    return [_view(ex, R[t], x, place, classes[t], t, sample, last) for t in chosen]


def _inputs(ex: Explanation) -> list[str]:
    return list(ex.relevance) if isinstance(ex.relevance, dict) else [next(iter(ex.layers))]


def _value(ex: Explanation, layer: str | None, input: str | None) -> tuple[str | None, Array, Array | None]:
    names = _inputs(ex)
    if layer is not None:
        if layer not in ex.layers:
            raise ValueError(f"no layer is called {layer!r}; there are {', '.join(ex.layers)}")
        return layer, ex.layers[layer], None
    if not isinstance(ex.relevance, dict):
        if input is not None and input not in names:
            raise ValueError(f"no input is called {input!r}; there is {names[0]}")
        return None, ex.relevance, ex.input
    if input not in names:
        what = "the network has several inputs" if input is None else f"no input is called {input!r}"
        raise ValueError(f"{what}: pass input= with one of {', '.join(names)}")
    return input, ex.relevance[input], None if ex.input is None else ex.input[input]


def _classes(ex: Explanation, sample: int, count: int) -> list[int | None]:
    if ex.target is None:
        return [None] * count
    return [int(t) for t in np.atleast_1d(ex.target[sample])]


def _find(classes: list[int | None], target: int, sample: int) -> list[int]:
    if target not in classes:
        known = ", ".join(map(str, classes)) if classes != [None] else "a target given as an array"
        raise ValueError(f"target {target} was not explained for sample {sample}, but {known}")
    return [classes.index(target)]


def _view(
    ex: Explanation, R: Array, x: Array | None, place: str | None, target: int | None, t: int, sample: int, last: bool
) -> View:
    ledger = ex.ledger[t] if isinstance(ex.ledger, list) else ex.ledger
    against = ex.settings.get("against")
    if against is not None:
        against = int(np.broadcast_to(against, (samples_of(ex),))[sample])
    started, beginning, outputs = _start(ex, target, against, sample, t, ledger)
    composite = ex.settings.get("composite", "?")
    return View(R, x, place, target, against, started, beginning, outputs, ledger, sample, last, composite, t)


def _start(
    ex: Explanation, target: int | None, against: int | None, sample: int, t: int, ledger: Ledger
) -> tuple[float, str, int]:
    """Return the relevance at the top, what it is, and how many classes or channels are there."""
    top = ex.settings.get("output")
    output = ex.output[top] if isinstance(ex.output, dict) else ex.output
    scores = output if ex.settings.get("single") else output[sample]
    flat = class_scores(scores, two_classes=bool(ex.settings.get("two_classes")))
    count = len(flat)
    if target is None or ex.settings.get("start") == "one":
        return _account(ex, sample, t, ledger), "what was given" if target is None else "what it started from", count
    # The network's own output is its last value; anything else was asked for with output=.
    own = top is None or ex.layers.value(top) == list(ex.layers)[-1]
    if against is not None:
        return float(flat[target] - flat[against]), "the difference of the logits", count
    if not own:
        return float(flat[target]), f"the output of {top}", count
    return float(flat[target]), "the logit" if count > 1 and np.ndim(scores) == 1 else "the output", count


def _account(ex: Explanation, sample: int, t: int, ledger: Ledger) -> float:
    """Return the relevance at the top as what reached the inputs and what was absorbed on the way."""
    maps = ex.relevance.values() if isinstance(ex.relevance, dict) else [ex.relevance]
    single, several = ex.settings.get("single"), ex.settings.get("targets") is not None
    own = [R if single else R[sample] for R in maps]
    reached = sum(float((R[t] if several else R).sum(dtype=np.float64)) for R in own)
    return reached + float(ledger.data[:, 2:, sample].sum())
