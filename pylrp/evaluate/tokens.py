"""Is relevance of tokens faithful? Tokens left out one by one, or by relevance, and what the score does then.

:func:`leave_one_out` is what maps are compared with, :func:`token_flipping` leaves out more and more, and
:func:`evaluate_tokens` does both for several composites. All texts of a question run as a list, packed end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pylrp.evaluate.evaluated_batch import Array, Values
from pylrp.evaluate.gradients import integrated_gradients
from pylrp.evaluate.statistics import area, correlation, spearman, with_band
from pylrp.evaluate.token_texts import How, Texts, given
from pylrp.network.network import Network
from pylrp.present import html
from pylrp.rules.defaults import usual_for

__all__ = ["TokenCurves", "TokenEvaluation", "evaluate_tokens", "leave_one_out", "token_flipping"]

_INTEGRATED = "integrated gradients"


@dataclass(frozen=True, eq=False)
class TokenCurves:
    """The score of each text while tokens are left out.

    Attributes
    ----------
    fractions : ndarray of shape (steps + 1,)
        Share of the tokens that are left out, from 0.
    scores : dict of str to ndarray of shape (texts, steps + 1), float64
        By order: "most", "least" (relevant first).
    """

    fractions: Values
    scores: dict[str, Values]

    @property
    def aopc(self) -> dict[str, Values]:
        """Return by how much the score falls on average, by order and text (Samek et al. 2017)."""
        return {order: (scores[:, :1] - scores).mean(axis=1) for order, scores in self.scores.items()}

    @property
    def abpc(self) -> Values:
        """Return the area between the curves of each text: large where the order of relevance is the score's."""
        return area(self.fractions, self.scores["least"] - self.scores["most"])


@dataclass(frozen=True, eq=False)
class TokenEvaluation:
    """What leaving tokens out says about the maps of several composites.

    Attributes
    ----------
    composites : tuple of str
        With "random" last: numbers drawn for each token.
    left_out : list of ndarray, shape (tokens,)
        By how much the score of each text falls without each token; NaN for tokens that were kept.
    relevance : dict of str to list of ndarray, shape (tokens,)
    pearson, rank : dict of str to ndarray of shape (texts,)
        Correlation of relevance and ``left_out``, and that of their ranks.
    curves : dict of str to TokenCurves
    """

    composites: tuple[str, ...]
    left_out: list[Array]
    relevance: dict[str, list[Array]]
    pearson: dict[str, Values]
    rank: dict[str, Values]
    curves: dict[str, TokenCurves]

    def _rows(self) -> list[list[str]]:
        rows = [["composite", "Pearson", "95 % band", "rank", "ABPC"], ["", "high", "", "high", "high"]]
        for name in sorted(self.composites, key=lambda name: -float(np.nanmean(self.pearson[name]))):
            known = self.pearson[name][~np.isnan(self.pearson[name])]
            mean, bounds = with_band(known) if len(known) else ("NaN", "")
            rank, between = np.nanmean(self.rank[name]), self.curves[name].abpc.mean()
            rows.append([name, mean, bounds, f"{rank:.3g}", f"{between:.3g}"])
        return rows

    def table(self) -> str:
        """Return a line a composite, best first: correlation with leaving one out, and the area between the curves."""
        rows = self._rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
        )

    def __repr__(self) -> str:
        return f"<TokenEvaluation of {len(self.left_out)} texts>\n{self.table()}"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html.html(html.lines([f"{len(self.left_out)} texts"]), html.table(self._rows()))


def leave_one_out(
    net: Network, x: Any, target: Any = None, *, how: How = "delete", mask: int | None = None,
    keep: Sequence[int] = (), threads: int | None = None, precision: str | None = None,
) -> Any:  # fmt: skip
    """Return by how much the score falls without each token.

    Parameters
    ----------
    net : Network
        Of token ids, with one output.
    x : dict, array_like or list of samples
        As :meth:`pylrp.Network.explain` takes it.
    target : int, tuple, mapping, ndarray or list of these, optional
        What is scored: a class, an entry ``(position, token)``, a dict of entries with weights, or a direction, an
        array of the output's shape with which it is multiplied; a list has one a text. Default: the top class; of an
        output of tokens by vocabulary the top token of the last position.
    how : {"delete", "mask"}, default "delete"
        Take the token out of all inputs, or put ``mask`` in its place.
    mask : int, optional
        The id of the mask token.
    keep : sequence of int, optional
        Ids that are not left out, those of special tokens: NaN. What a mask leaves out is NaN, too.
    threads : int, optional
    precision : {"bfloat16"}, optional
        Products round their operands to bfloat16: two thirds of the time with AVX-512, and rankings nearly the same
        (docs/evaluation.md).

    Returns
    -------
    ndarray of shape (tokens,), or list of ndarray, float64
        ``f(x) - f(x without token i)``; a list where x has a batch.

    Raises
    ------
    ValueError
        If the network takes no ids, or one length only and ``how`` is "delete".
    """
    texts = Texts(net, x, target, how, mask, keep, threads, precision)
    found = [_left_out(texts, i) for i in range(len(texts.samples))]
    return found[0] if texts.single else found


def _left_out(texts: Texts, i: int) -> Values:
    found = np.full(len(texts.samples[i][texts.ids]), np.nan)
    tokens = texts.tokens[i]
    if len(tokens) and len(found) > 1:
        found[tokens] = texts.scores[i] - texts.without(i, [[int(token)] for token in tokens])
    return found


def token_flipping(
    net: Network,
    x: Any,
    relevance: Any,
    target: Any = None,
    *,
    how: How = "delete",
    mask: int | None = None,
    keep: Sequence[int] = (),
    steps: int = 10,
    threads: int | None = None,
) -> TokenCurves:
    """Leave out more and more tokens, in the order of their relevance, and follow the score.

    Parameters
    ----------
    net, x, target, how, mask, keep
        As for :func:`leave_one_out`.
    relevance : array_like of shape (tokens,), or a list of them, one a text
    steps : int, default 10
        How often the score is looked at, until all tokens but one (of those that may go) are left out.
    threads : int, optional

    Returns
    -------
    TokenCurves
    """
    texts = Texts(net, x, target, how, mask, keep, threads)
    return _curves(texts, [np.asarray(relevance)] if texts.single else list(relevance), steps)


def _curves(texts: Texts, relevance: Sequence[Array], steps: int) -> TokenCurves:
    if len(relevance) != len(texts.samples):
        raise ValueError(f"there are {len(texts.samples)} texts and relevance of {len(relevance)}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    fractions = np.linspace(0, 1, steps + 1)
    scores: dict[str, list[Values]] = {"most": [], "least": []}
    for i, R in enumerate(relevance):
        tokens = texts.tokens[i]
        if np.shape(R) != np.shape(texts.samples[i][texts.ids]):
            raise ValueError(
                f"text {i} has {len(texts.samples[i][texts.ids])} tokens, relevance of shape {np.shape(R)}"
            )
        order = tokens[np.argsort(-np.asarray(R)[tokens], kind="stable")]
        counts = np.rint(fractions * max(0, len(order) - 1)).astype(int)
        for name, ranked in (("most", order), ("least", order[::-1])):
            changed = texts.without(i, [ranked[:count].tolist() for count in counts])
            scores[name].append(changed)
    return TokenCurves(fractions, {name: np.array(each) for name, each in scores.items()})


def evaluate_tokens(
    net: Network,
    x: Any,
    composites: Sequence[str] | Mapping[str, Any] | None = None,
    *,
    target: Any = None,
    how: How = "delete",
    mask: int | None = None,
    keep: Sequence[int] = (),
    steps: int = 10,
    seed: int = 0,
    maps: Mapping[str, Sequence[Array]] | None = None,
    finished: Callable[[str], object] | None = None,
    threads: int | None = None,
) -> TokenEvaluation:
    """Compare maps of tokens with what leaving tokens out does to the score.

    Parameters
    ----------
    net, x, target, how, mask, keep
        As for :func:`leave_one_out`.
    composites : sequence of str, or mapping of str to str, Composite or Rule, optional
        Default: the usual ones for such a network. ``"gradient"`` is gradient times input, ``"integrated gradients"``
        are those from rows of zeros (:func:`integrated_gradients`).
    steps, seed : int
        Of the curves, and of the random numbers that are compared, too.
    maps : mapping of str to sequence of array_like, optional
        Other maps to compare, a list with one a text each: of another method.
    finished : callable, optional
        Called with the name of each that is done.
    threads : int, optional

    Returns
    -------
    TokenEvaluation
    """
    texts = Texts(net, x, target, how, mask, keep, threads)
    composites = usual_for(net.graph, bounds=False) if composites is None else composites
    named = dict(composites) if isinstance(composites, Mapping) else {name: name for name in composites}
    random = np.random.default_rng(seed)
    relevance = {name: _explained(texts, rules) for name, rules in named.items()}
    relevance |= {name: [np.asarray(R, np.float64) for R in each] for name, each in (maps or {}).items()}
    relevance["random"] = [random.normal(size=len(sample[texts.ids])) for sample in texts.samples]
    left_out = [_left_out(texts, i) for i in range(len(texts.samples))]
    pearson, rank, curves = {}, {}, {}
    for name, each in relevance.items():
        rows = [(R[tokens], drop[tokens]) for R, drop, tokens in zip(each, left_out, texts.tokens, strict=True)]
        pearson[name] = np.array([_correlated(correlation, *row) for row in rows])
        rank[name] = np.array([_correlated(spearman, *row) for row in rows])
        curves[name] = _curves(texts, each, steps)
        if finished is not None:
            finished(name)
    return TokenEvaluation(tuple(relevance), left_out, relevance, pearson, rank, curves)


def _correlated(measure: Callable[[Values, Values], Any], R: Values, drop: Values) -> float:
    return float(measure(np.asarray(R, np.float64), drop)) if len(R) > 1 else float("nan")


def _explained(texts: Texts, rules: Any) -> list[Array]:
    """Return the relevance of each text's ids; it starts at the entries of the score times their weights."""
    if isinstance(rules, str) and rules == _INTEGRATED:
        pairs = zip(texts.samples, texts.weights, strict=True)
        maps = [integrated_gradients(texts.net, given(sample), weights) for sample, weights in pairs]
        return [np.asarray(R[texts.ids] if isinstance(R, dict) else R, np.float64) for R in maps]
    tops = [(w * out).astype(texts.net.dtype) for w, out in zip(texts.weights, texts.outputs, strict=True)]
    ex = texts.net.explain([given(sample) for sample in texts.samples], tops, rules, threads=texts.threads)
    R = ex.relevance[texts.ids] if isinstance(ex.relevance, dict) else ex.relevance
    return [np.asarray(each, np.float64) for each in R]
